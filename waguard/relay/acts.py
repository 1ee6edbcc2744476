"""What the relay does in the browser's place, so that each client has a browser with the one page, and no other client in it.

`Target.createTarget` gives the session's own page, which every driver has attached when it connected: so there is no second tab, and no event to
be made up. Closing it is acted out: the client's sessions with it are detached, the client alone is told that it has gone, and a later
`createTarget` tells of it anew. Tried with puppeteer, playwright and pyppeteer, each of which believes other things: pyppeteer raises
at the end of a target that it was not told of, playwright at a second attachment, and both wait for the end of what they have closed.
"""

from collections.abc import Callable, Mapping
from typing import Any

from waguard.core.relay.checks import Seat, Where, at_home, why_not_there
from waguard.relay import wire
from waguard.relay.connection import Act, Connection, Reply, Then
from waguard.relay.seen import Attached, Wanted

MOST_SESSIONS = 500
MOST_WRAPPED = 3
"""Pyppeteer needs two: the page, and a worker of it."""
_NO_TARGET = "No target with given id found"


def _close_browser(connection: Connection, reply: Reply, _method: str, _params: dict[str, Any]) -> None:
    connection.answer(reply, {})
    connection.around.end()


# --- the page -----------------------------------------------------------------------------------------------


def _create_target(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    seen, context, url = connection.seen, params.get("browserContextId"), params.get("url") or "about:blank"
    if isinstance(context, str) and context in seen.contexts:
        if why := why_not_there(url, Seat(Where.OWN)):
            connection.refuse(reply, method, why)
        else:
            connection.pass_on(reply, method, params)
        return
    if context is not None and context != seen.context:
        connection.fail(reply, "Failed to find browser context", wire.FAILED)
        return
    if not isinstance(url, str) or (url != "about:blank" and not at_home(url, seen.home)):
        connection.refuse(reply, method, f"the page is of {seen.home}")
        return
    if why := connection.around.take_page():
        connection.refuse(reply, method, why)
        return
    if seen.closed:
        _open_again(connection, reply)
    else:
        connection.answer(reply, {"targetId": seen.page})


def _open_again(connection: Connection, reply: Reply) -> None:
    """The client has closed it: it is told of it anew, and what was attached by itself is attached again."""
    seen = connection.seen
    closed, seen.closed = seen.closed, {}
    for target, info in closed.items():
        if info:
            seen.told[target] = info
            connection.say(seen.root, wire.event("Target.targetCreated", {"targetInfo": info}))
    left = [*seen.reopened]
    seen.reopened.clear()

    def attach_next(_result: object = None, error: object = None) -> None:
        while left:
            parent, target = left.pop(0)
            if error is None and seen.find(parent.session) is parent:
                again = {"targetId": target, "flatten": True}
                wanted = Wanted(target, by_itself=True)
                _attach_in(connection, parent, reply, "Target.attachToTarget", again, wanted, attach_next)
                return
        connection.answer(reply, {"targetId": seen.page})

    attach_next()


def _close_target(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    """What is not of a context of the client's own is the page, or goes with it: the browser would close it with any of its frames."""
    seen = connection.seen
    if method == "Page.close":
        if seen.seat(reply.attached, owner=False).where is Where.OWN:
            connection.pass_on(reply, method, params)
        else:
            _close_page(connection, reply, {})
        return

    def found(result: Mapping[str, Any] | None, _error: object) -> None:
        info = (result or {}).get("targetInfo") or {}
        if not seen.visible(info) or info.get("type") == "browser":
            connection.fail(reply, _NO_TARGET, wire.PARAMS)
        elif info.get("browserContextId") in seen.contexts:
            connection.pass_on(reply, method, params)
        elif seen.is_page(str(info.get("targetId")), str(info.get("type")), info.get("browserContextId")):
            _close_page(connection, reply, {"success": True})
        else:
            connection.refuse(reply, method, "it is a part of the session's page")

    _ask_about(connection, reply, params, found)


def _close_page(connection: Connection, reply: Reply, result: Mapping[str, Any]) -> None:
    seen = connection.seen
    tops = [*seen.of_the_page()]
    seen.reopened = [(top.parent, top.target) for top in tops if top.by_itself and top.parent is not None]
    for top in tops:
        for child in [*seen.children(top)]:
            _say_detached(connection, child)
    left = len(tops)

    def one_less(_result: object = None, _error: object = None) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            _say_destroyed(connection)
            connection.answer(reply, result)

    if not tops:
        one_less()
    for top in tops:
        # Only in the session in which it was attached does the browser know it.
        parent = top.parent or seen.root
        connection.ask_in(parent, reply, "Target.detachFromTarget", {"sessionId": top.session}, one_less)


def _say_detached(connection: Connection, attached: Attached) -> None:
    """Its own first."""
    for child in [*connection.seen.children(attached)]:
        _say_detached(connection, child)
    if attached.parent is not None:
        gone = {"sessionId": attached.session, "targetId": attached.target}
        connection.say(attached.parent, wire.event("Target.detachedFromTarget", gone))
    connection.forget(attached)


def _say_destroyed(connection: Connection) -> None:
    seen = connection.seen
    seen.closed = {seen.page: {}}
    for target, info in [*seen.told.items()]:
        if seen.is_page(target, str(info.get("type")), info.get("browserContextId")):
            seen.closed[target] = seen.told.pop(target)
            connection.say(seen.root, wire.event("Target.targetDestroyed", {"targetId": target}))
    connection.around.leave_page()


def _handle_dialog(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    def answered(result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
        late = error is not None and "No dialog is showing" in str(error.get("message"))
        connection.finish(reply, {} if late else result, None if late else error)

    connection.ask(reply, method, params, answered)


def _give_files(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    """The policy has found each of them among the uploads."""
    if files := params.get("files"):
        params = {**params, "files": [connection.seen.uploads[one] for one in files]}
    connection.pass_on(reply, method, params)


# --- contexts -----------------------------------------------------------------------------------------------


def _create_context(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    def made(result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
        if isinstance(context := (result or {}).get("browserContextId"), str):
            connection.seen.contexts.add(context)
            connection.around.made(context)
        connection.finish(reply, result, error)

    connection.ask(reply, method, {**params, "disposeOnDetach": True}, made)


def _get_contexts(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    def found(result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
        if result is not None:
            own = [one for one in result.get("browserContextIds", ()) if one in connection.seen.contexts]
            result = {**result, "browserContextIds": own}
        connection.finish(reply, result, error)

    connection.ask(reply, method, params, found)


# --- what there is ------------------------------------------------------------------------------------------


def _get_targets(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    seen = connection.seen

    def found(result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
        if result is not None:
            shown = [
                one
                for one in result.get("targetInfos", ())
                if seen.visible(one) and one.get("targetId") not in seen.closed
            ]
            result = {**result, "targetInfos": shown}
        connection.finish(reply, result, error)

    connection.ask(reply, method, params, found)


def _get_info(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    def found(result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
        if result is not None and not connection.seen.visible(result.get("targetInfo") or {}):
            connection.fail(reply, _NO_TARGET, wire.PARAMS)
        else:
            connection.finish(reply, result, error)

    connection.ask(reply, method, params, found)


def _discover(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    if reply.attached is connection.seen.root:
        connection.wishes[method] = params
    connection.pass_on(reply, method, params)


def _ask_about(connection: Connection, reply: Reply, params: Mapping[str, Any], then: Then) -> None:
    target = {"targetId": str(params.get("targetId"))}
    connection.ask_in(connection.seen.root, reply, "Target.getTargetInfo", target, then)


def _if_visible(
    connection: Connection, reply: Reply, params: Mapping[str, Any], then: Callable[[], None]
) -> None:
    """The browser is asked about a target that it has not told of yet, before anything is done with it."""
    target = params.get("targetId")
    if not isinstance(target, str) or connection.seen.known(target):
        then()
        return

    def found(result: Mapping[str, Any] | None, _error: object) -> None:
        if result is not None and connection.seen.visible(result.get("targetInfo") or {}):
            then()
        else:
            connection.fail(reply, _NO_TARGET, wire.PARAMS)

    _ask_about(connection, reply, params, found)


def _on_visible(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    _if_visible(connection, reply, params, lambda: connection.pass_on(reply, method, params))


# --- sessions -----------------------------------------------------------------------------------------------


def _attach(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    target = str(params.get("targetId"))
    wanted = Wanted(target, wrapped=not params.get("flatten", False))
    if target in connection.seen.closed:
        connection.fail(reply, _NO_TARGET, wire.PARAMS)
        return
    if wanted.wrapped and _too_deep(connection, reply):
        return

    def attach() -> None:
        _attach_as(connection, reply, method, {**params, "flatten": True}, wanted)

    _if_visible(connection, reply, params, attach)


def _attach_browser(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    _attach_as(connection, reply, method, params, Wanted(""))


def _attach_as(
    connection: Connection, reply: Reply, method: str, params: Mapping[str, Any], wanted: Wanted
) -> None:
    if connection.seen.sessions + len(reply.attached.asked) >= MOST_SESSIONS:
        connection.fail(reply, f"waguard: a client has at most {MOST_SESSIONS} sessions")
        return

    def attached(result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
        connection.finish(reply, result, error)

    _attach_in(connection, reply.attached, reply, method, params, wanted, attached)


def _attach_in(
    connection: Connection,
    at: Attached,
    reply: Reply,
    method: str,
    params: Mapping[str, Any],
    wanted: Wanted,
    then: Then,
) -> None:
    at.asked.append(wanted)

    def attached(result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
        if result is None and wanted in at.asked:
            at.asked.remove(wanted)
        then(result, error)

    connection.ask_in(at, reply, method, params, attached)


def _auto_attach(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    wraps = not params.get("flatten", False)
    if wraps and params.get("autoAttach") and _too_deep(connection, reply):
        return
    if reply.attached is connection.seen.root:
        connection.wishes[method] = params
    reply.attached.wraps = wraps
    flat = {**params, "flatten": True}
    _if_visible(connection, reply, params, lambda: connection.pass_on(reply, method, flat))


def _too_deep(connection: Connection, reply: Reply) -> bool:
    """Whether another level of messages in messages would be too much: each doubles the escapes of what is in it."""
    if reply.attached.depth < MOST_WRAPPED:
        return False
    connection.fail(reply, f"waguard: at most {MOST_WRAPPED} sessions are wrapped in each other: use flatten")
    return True


def _detach(connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> None:
    """The browser looks among those that were attached in the session in which it is asked."""
    session, target = params.get("sessionId"), params.get("targetId")
    for one in connection.seen.children(reply.attached):
        if one.session == session or (session is None and target is not None and one.target == target):
            connection.pass_on(reply, method, {"sessionId": one.session})
            return
    connection.fail(reply, "No session with given id", wire.PARAMS)


def _send_message(connection: Connection, reply: Reply, _method: str, params: dict[str, Any]) -> None:
    """A command in a command, for a session whose messages are wrapped: it is judged like any other."""
    session, target, message = params.get("sessionId"), params.get("targetId"), params.get("message")
    for one in connection.seen.children(reply.attached):
        named = one.session == session or (session is None and target is not None and one.target == target)
        if one.wrapped and named:
            break
    else:
        connection.fail(reply, "No session with given id", wire.PARAMS)
        return
    try:
        if not isinstance(message, str):
            raise wire.Malformed(wire.PARAMS, "message must be a text")
        inner = wire.parse(message)
        if inner.session is not None:
            raise wire.Malformed(wire.PARAMS, "a message in a message is of no other session")
    except wire.Malformed as error:
        connection.fail(reply, str(error), error.code)
        return
    connection.answer(reply, {})
    connection.command(one, inner.number, inner.method, inner.params)


# --- from one browser to the next ---------------------------------------------------------------------------


def say_gone(connection: Connection, why: str) -> None:
    """The browser has gone, and all that the client knows of it: in the terms in which a browser says so of its parts."""
    connection.give_up(why)
    seen = connection.seen
    for child in [*seen.children(seen.root)]:
        _say_detached(connection, child)
    for target in [*seen.told]:
        seen.forget_target(target)
        connection.say(seen.root, wire.event("Target.targetDestroyed", {"targetId": target}))


def ask_again(connection: Connection, wishes: Mapping[str, Mapping[str, Any]]) -> None:
    """Of another browser, what the client has asked of the one before: it is told of what there is as if that had come just now."""
    root = connection.seen.root
    connection.wishes.update(wishes)
    for method, params in wishes.items():
        asked = params
        if method == "Target.setAutoAttach":
            root.wraps, asked = not params.get("flatten", False), {**params, "flatten": True}
        connection.ask_in(root, None, method, asked, lambda _result, _error: None)


ACTS: Mapping[str, Act] = {
    "Browser.close": _close_browser,
    "Target.createTarget": _create_target,
    "Target.closeTarget": _close_target,
    "Page.close": _close_target,
    "Page.handleJavaScriptDialog": _handle_dialog,
    "Page.handleFileChooser": _give_files,
    "DOM.setFileInputFiles": _give_files,
    "Target.createBrowserContext": _create_context,
    "Target.getBrowserContexts": _get_contexts,
    "Target.getTargets": _get_targets,
    "Target.getTargetInfo": _get_info,
    "Target.setDiscoverTargets": _discover,
    "Target.attachToTarget": _attach,
    "Target.attachToBrowserTarget": _attach_browser,
    "Target.activateTarget": _on_visible,
    "Target.setAutoAttach": _auto_attach,
    "Target.autoAttachRelated": _on_visible,
    "Target.detachFromTarget": _detach,
    "Target.sendMessageToTarget": _send_message,
}
