"""One client of the relay: what it sends becomes commands of sessions of its own, what the browser says to those becomes frames. Pure.

The browser executes a command in whichever session it names, whosever that is, and answers a session that has gone without saying which: so
it is here that each command is asked about (`waguard.core.relay.policy`), that a session is the client's or unknown, and that each answer
finds the number that the client has given. What the client may see of targets is in `seen`, what it is told in the browser's place in `acts`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from waguard.browser.channel import Message, Refused
from waguard.core.relay.checks import led_home
from waguard.core.relay.policy import Verdict, judge
from waguard.relay import wire
from waguard.relay.seen import Attached, Seen

_MOST_READ = 4 * 1024 * 1024
"""Bytes of an event: an address of 2 MiB is the longest that counts."""
MOST_ASKED = 100_000
"""Commands without an answer yet."""
_NO_SESSION = "Session with given id not found."
_STREAMS = {
    "Page.printToPDF": "stream",
    "Fetch.takeResponseBodyAsStream": "stream",
    "Network.takeResponseBodyForInterceptionAsStream": "stream",
    "IO.resolveBlob": "uuid",
}
"""Commands whose answers name a stream, and as what."""
_SCRIPTS = frozenset(
    {"Runtime.evaluate", "Runtime.callFunctionOn", "Runtime.runScript", "Runtime.awaitPromise"}
)
"""Commands that are answered when a script is through, which may keep the page from all else until then, or wait itself."""


class Block(StrEnum):
    """What a client does to a page that keeps everybody waiting."""

    DIALOG = "dialog"
    PAUSE = "pause"
    SCRIPT = "script"
    START = "start"
    """It has something wait for it before it starts."""


class Around(Protocol):
    """What a connection needs of the world. None of it may call the connection back at once, but for `send`, which raises."""

    def send(self, method: str, params: Mapping[str, Any], session: str) -> int:
        """To the browser; returns the number of the answer to come. Raises `Refused`."""

    def tell(self, frame: wire.Frame) -> None:
        """To the client."""

    def take_page(self) -> str:
        """Make the client the page's owner; why not, if it cannot be. Harmless if it is."""

    def owns_page(self) -> bool: ...

    def leave_page(self) -> None: ...

    def refused(self, method: str, reason: str) -> None: ...

    def made(self, context: str) -> None:
        """The client has a context of its own."""

    def blocks(self, session: str, block: Block, *, begins: bool) -> None: ...

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Do it then, if the client is still there."""

    def replayed(self) -> None:
        """The client is told what it has missed."""

    def forget(self, session: str) -> None:
        """Nothing comes of it any more, and nobody else tells."""

    def unask(self, number: int) -> None:
        """No answer of this number is to come."""

    def end(self) -> None:
        """The client wants no more."""


@dataclass(frozen=True, slots=True)
class Reply:
    """To which command of the client's."""

    attached: Attached
    number: int


Then = Callable[[Mapping[str, Any] | None, Mapping[str, Any] | None], None]
"""Called with the result, or with the error."""


@dataclass(frozen=True, slots=True)
class _Asked:
    at: Attached
    """In which ours was sent."""
    reply: Reply | None
    """Whose answer is passed on as it is; None: it is for ``then``."""
    then: Then | None = None
    script: bool = False
    """Whether a script of the client's runs until it is answered."""


class Misses(Protocol):
    """Who knows what the client may have missed: `waguard.relay.replay`."""

    def asked(self, connection: "Connection", reply: Reply, method: str, params: dict[str, Any]) -> bool: ...

    def heard(self, attached: Attached, params: Mapping[str, Any]) -> None: ...


class Connection:
    def __init__(
        self, seen: Seen, around: Around, acts: "Mapping[str, Act]", misses: Misses | None = None
    ) -> None:
        self.seen = seen
        self.around = around
        self._acts = acts
        self._misses = misses
        self.exposed = False
        """Whether it has made something known to the page's scripts, which is there until the next document."""
        self.wishes: dict[str, Mapping[str, Any]] = {}
        """What the client has asked to be told of the browser's targets: by method the parameters."""
        self._asked: dict[int, _Asked] = {}
        self._blocks: dict[tuple[str, Block], None] = {}

    # --- from the client --------------------------------------------------------------------------------

    def take(self, frame: bytes | str) -> None:
        """A frame of the client's."""
        try:
            command = wire.parse(frame)
        except wire.Malformed as error:
            at = self.seen.find(error.session) or self.seen.root
            self.say(at, wire.error(error.number, error.code, str(error)))
            return
        attached = self.seen.find(command.session)
        if attached is None or attached.wrapped:
            self._no_session(command)
            return
        self.command(attached, command.number, command.method, command.params)

    def _no_session(self, command: wire.Command) -> None:
        # The browser itself says it so, without the session.
        self.around.tell(wire.error(command.number, wire.NO_SESSION, _NO_SESSION))

    def command(self, attached: Attached, number: int, method: str, params: dict[str, Any]) -> None:
        """What the client has asked in a session of its own."""
        reply = Reply(attached, number)
        seat = self.seen.seat(attached, owner=self.around.owns_page())
        params = led_home(method, params, seat)
        judged = judge(method, params, seat)
        match judged.verdict:
            case Verdict.ALLOWED:
                self._pass(reply, method, params)
            case Verdict.IGNORED:
                self.answer(reply, {})
            case Verdict.ACTED:
                self._acts[method](self, reply, method, params)
            case _:
                self.refuse(reply, method, judged.reason)

    def _pass(self, reply: Reply, method: str, params: dict[str, Any]) -> None:
        in_one = method == "Page.printToPDF" and params.get("transferMode") != "ReturnAsStream"
        if (member := _STREAMS.get(method)) is not None and not in_one:

            def note(result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
                handle = (result or {}).get(member)
                if isinstance(handle, str):
                    self.seen.handles.add(handle)
                self.finish(reply, result, error)

            self.ask(reply, method, params, note)
            return
        if method == "Runtime.runIfWaitingForDebugger":
            self._unblock(reply.attached.session, Block.START)
        if method == "Runtime.addBinding":
            self.exposed = True
        if self._misses is not None and self._misses.asked(self, reply, method, params):
            return
        self._send(reply, method, params, _Asked(reply.attached, reply, script=method in _SCRIPTS))

    def pass_on(self, reply: Reply, method: str, params: dict[str, Any]) -> None:
        """Send it in the session in which it was asked; its answer is the client's as it is."""
        self._send(reply, method, params, _Asked(reply.attached, reply))

    def ask(self, reply: Reply, method: str, params: Mapping[str, Any], then: Then) -> None:
        """Send it in the session in which the client has asked; the answer is for ``then``."""
        self.ask_in(reply.attached, reply, method, params, then)

    def ask_in(
        self, at: Attached, reply: Reply | None, method: str, params: Mapping[str, Any], then: Then
    ) -> None:
        """Likewise, in any session of the client's; that it cannot be sent is an answer too."""
        self._send(reply, method, params, _Asked(at, None, then))

    def _send(self, reply: Reply | None, method: str, params: Mapping[str, Any], asked: _Asked) -> None:
        if len(self._asked) >= MOST_ASKED:
            why = f"waguard: more than {MOST_ASKED} commands have no answer yet"
        else:
            try:
                number = self.around.send(method, params, asked.at.session)
                self._asked[number] = asked
                asked.at.unanswered.add(number)
            except Refused as error:
                why = f"waguard: {error}"
            else:
                return
        if asked.then is not None:
            asked.then(None, {"code": wire.FAILED, "message": why})
        elif reply is not None:
            self.fail(reply, why)

    # --- from the browser -------------------------------------------------------------------------------

    def hear(self, message: Message) -> None:
        """An answer or an event to a session of the client's."""
        if message.number is not None:
            self._answered(message)
            return
        attached = self.seen.find(message.session) if message.session is not None else None
        if attached is None:
            return
        method = message.method or str(wire.read(message.parts).get("method"))
        if (event := _EVENTS.get(method)) is None or event(self, attached, _params(message)):
            self._forward(attached, message, None)

    def _answered(self, message: Message) -> None:
        number = message.number or 0
        asked = self._asked.pop(number, None)
        if asked is None:
            return
        asked.at.unanswered.discard(number)
        if asked.script:
            self._unblock(asked.at.session, Block.SCRIPT)
        if asked.reply is not None:
            self._forward(asked.reply.attached, message, asked.reply.number)
            return
        said = wire.read(message.parts)
        if asked.then is not None:
            asked.then(said.get("result"), said.get("error"))

    def _forward(self, attached: Attached, message: Message, number: int | None) -> None:
        """What the browser says as it is, but for the number and the session."""
        bare = attached is self.seen.root or attached.wrapped
        cut = attached.session if bare else None
        if number is not None:
            frame = None
            if message.session == attached.session:
                frame = wire.renumbered(message.parts, message.number or 0, number, cut)
        else:
            frame = wire.without_session(message.parts, cut)
        if frame is None:  # of another form, or of a session that has gone
            said = wire.read(message.parts)
            said.pop("sessionId", None)
            if number is not None:
                said = {**said, "id": number}
            self.say(attached, wire.written(said))
        elif attached.wrapped:
            self.say(attached, frame)
        else:
            self.around.tell(frame)

    def say(self, attached: Attached, frame: wire.Frame) -> None:
        """Tell the client something in this session; ``frame`` has no session yet."""
        if attached.wrapped and attached.parent is not None:
            self.say(attached.parent, wire.in_message(frame, attached.session, attached.target))
        elif attached is self.seen.root:
            self.around.tell(frame)
        else:
            self.around.tell(wire.in_session(frame, attached.session))

    # --- answers in the browser's place -----------------------------------------------------------------

    def answer(self, reply: Reply, result: Mapping[str, Any]) -> None:
        self.say(reply.attached, wire.answer(reply.number, result))

    def fail(self, reply: Reply, why: str, code: int = wire.FAILED) -> None:
        self.say(reply.attached, wire.error(reply.number, code, why))

    def finish(self, reply: Reply, result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
        """What the browser has answered, if not in its own words."""
        outcome = {"error": error} if error is not None else {"result": result or {}}
        self.say(reply.attached, wire.written({"id": reply.number, **outcome}))

    def refuse(self, reply: Reply, method: str, reason: str) -> None:
        shown = method[:100]
        self.around.refused(shown, reason)
        self.fail(reply, f"waguard: {shown} is refused ({reason})")

    # --- what keeps others waiting ----------------------------------------------------------------------

    def let_go(self, session: str, block: Block, *, accept: bool = False) -> None:
        """End it in the client's own session, where alone it can be ended; harmless if it has ended. ``accept``: a dialog's answer."""
        attached = self.seen.find(session)
        if attached is None or (session, block) not in self._blocks:
            return
        method, params = {
            Block.DIALOG: ("Page.handleJavaScriptDialog", {"accept": accept}),
            Block.PAUSE: ("Debugger.resume", {}),
            Block.SCRIPT: ("Runtime.terminateExecution", {}),
            Block.START: ("Runtime.runIfWaitingForDebugger", {}),
        }[block]
        if block is Block.START:
            self._unblock(session, block)
        self.ask_in(attached, None, method, params, lambda _result, _error: None)

    def page_silent(self, *, silent: bool) -> None:
        """The page does not answer, which is by a script of the client's if one has not ended; or it does again."""
        if silent:
            for attached in self._scripts():
                self._block(attached, attached.session, Block.SCRIPT)
        else:
            for session, block in [*self._blocks]:
                if block is Block.SCRIPT:
                    self._unblock(session, block)

    @property
    def leaves_script(self) -> bool:
        """Whether one of its scripts may go on in the page without it. One that the page was found to wait for is ended with it."""
        return bool(self._scripts()) and not any(block is Block.SCRIPT for _, block in self._blocks)

    def _scripts(self) -> Collection[Attached]:
        """Where scripts of its own may keep the page from answering others."""
        at = dict.fromkeys(asked.at for asked in self._asked.values() if asked.script)
        return [one for one in at if one.kind in {"page", "iframe"} and not self.seen.apart(one)]

    def give_up(self, why: str) -> None:
        """Nothing that was asked is answered any more."""
        while self._asked:
            number, asked = self._asked.popitem()
            asked.at.unanswered.discard(number)
            if asked.then is not None:
                asked.then(None, {"code": wire.FAILED, "message": why})
            elif asked.reply is not None:
                self.fail(asked.reply, why)

    def let_all_go(self) -> None:
        """Before it is detached: what would go on without it. A full Chromium leaves dialogs open then, for somebody at its window."""
        for session, block in [*self._blocks]:
            if block in {Block.DIALOG, Block.SCRIPT}:
                self.let_go(session, block)

    def _block(self, attached: Attached, session: str, block: Block) -> None:
        if block is not Block.START and self.seen.apart(attached):
            return  # nobody else waits for a page that the client has made
        if (session, block) not in self._blocks:
            self._blocks[session, block] = None
            self.around.blocks(session, block, begins=True)

    def _unblock(self, session: str, block: Block) -> None:
        if (session, block) in self._blocks:
            del self._blocks[session, block]
            self.around.blocks(session, block, begins=False)

    def forget(self, attached: Attached) -> None:
        """A session has gone, and those that were attached in it."""
        for gone in self.seen.detach(attached):
            self.around.forget(gone.session)
            self._give_up(gone)
        for session, block in [*self._blocks]:
            if self.seen.find(session) is None:
                self._unblock(session, block)

    def _give_up(self, gone: Attached) -> None:
        """The browser answers nothing any more of what was asked in it; what waits elsewhere for such an answer goes on without."""
        unanswered, gone.unanswered = gone.unanswered, set()
        for number in sorted(unanswered):
            self.around.unask(number)
            asked = self._asked.pop(number)
            if asked.then is not None:
                asked.then(None, {"code": wire.NO_SESSION, "message": _NO_SESSION})

    # --- events that mean something here; each returns whether it is passed on --------------------------

    def _attached_to(self, at: Attached, params: Mapping[str, Any]) -> bool:
        session = str(params.get("sessionId"))
        attached = self.seen.attach(at, session, params.get("targetInfo") or {})
        if attached is None:
            self.ask_in(
                at, None, "Target.detachFromTarget", {"sessionId": session}, lambda _result, _error: None
            )
            return False
        if params.get("waitingForDebugger"):
            self._block(attached, session, Block.START)
        return True

    def _detached_from(self, _at: Attached, params: Mapping[str, Any]) -> bool:
        attached = self.seen.find(str(params.get("sessionId")))
        if attached is None:
            return False
        self.forget(attached)
        return True

    def _created(self, _at: Attached, params: Mapping[str, Any]) -> bool:
        info = params.get("targetInfo") or {}
        target = str(info.get("targetId"))
        if not self.seen.visible(info):
            return False
        if target in self.seen.closed:
            self.seen.closed[target] = info
            return False
        self.seen.told[target] = info
        return True

    def _changed(self, _at: Attached, params: Mapping[str, Any]) -> bool:
        info = params.get("targetInfo") or {}
        target = str(info.get("targetId"))
        for kept in (self.seen.told, self.seen.closed):
            if target in kept:
                kept[target] = info
        return target in self.seen.told

    def _destroyed(self, _at: Attached, params: Mapping[str, Any]) -> bool:
        target = str(params.get("targetId"))
        told = target in self.seen.told
        self.seen.forget_target(target)
        return told

    def _crashed(self, _at: Attached, params: Mapping[str, Any]) -> bool:
        return str(params.get("targetId")) in self.seen.told

    def _paused(self, at: Attached, _params: Mapping[str, Any]) -> bool:
        self._block(at, at.session, Block.PAUSE)
        return True

    def _resumed(self, at: Attached, _params: Mapping[str, Any]) -> bool:
        self._unblock(at.session, Block.PAUSE)
        return True

    def _dialog_opened(self, at: Attached, _params: Mapping[str, Any]) -> bool:
        self._block(at, at.session, Block.DIALOG)
        return True

    def _dialog_closed(self, at: Attached, _params: Mapping[str, Any]) -> bool:
        self._unblock(at.session, Block.DIALOG)
        return True

    def _called(self, at: Attached, params: Mapping[str, Any]) -> bool:
        if self._misses is not None:
            self._misses.heard(at, params)
        return True

    def _traced(self, _at: Attached, params: Mapping[str, Any]) -> bool:
        if isinstance(handle := params.get("stream"), str):
            self.seen.handles.add(handle)
        return True


Act = Callable[[Connection, Reply, str, dict[str, Any]], None]
"""What is done for a command that is acted out."""

_EVENTS: Mapping[str, Callable[[Connection, Attached, Mapping[str, Any]], bool]] = {
    "Target.attachedToTarget": Connection._attached_to,  # noqa: SLF001 (its own)
    "Target.detachedFromTarget": Connection._detached_from,  # noqa: SLF001
    "Target.targetCreated": Connection._created,  # noqa: SLF001
    "Target.targetInfoChanged": Connection._changed,  # noqa: SLF001
    "Target.targetDestroyed": Connection._destroyed,  # noqa: SLF001
    "Target.targetCrashed": Connection._crashed,  # noqa: SLF001
    "Debugger.paused": Connection._paused,  # noqa: SLF001
    "Debugger.resumed": Connection._resumed,  # noqa: SLF001
    "Page.javascriptDialogOpening": Connection._dialog_opened,  # noqa: SLF001
    "Page.javascriptDialogClosed": Connection._dialog_closed,  # noqa: SLF001
    "Runtime.bindingCalled": Connection._called,  # noqa: SLF001
    "Tracing.tracingComplete": Connection._traced,  # noqa: SLF001
}


def _params(message: Message) -> Mapping[str, Any]:
    """Of one that is very long none: what a page says in a dialog, or to a function of the client's, does not count here."""
    if message.size > _MOST_READ:
        return {}
    params = wire.read(message.parts).get("params")
    return params if isinstance(params, dict) else {}
