"""What a client has listened for too late is said to it once more. Pure.

whatsapp-web.js is ready when the page's `hasSynced` *changes*, and hears nothing more of a page that synced before it listened: with a login, a
page may take less time for that than whatsapp-web.js takes for its setup. So, when its setup is through and it was not called within a while, its own
function is called. The page's app takes no part in it, nobody else is told, and what is said is true. Which call that is, and what is called, stands with
the names of the page (`waguard/whatsapp/probe.js`).
"""

from collections.abc import Mapping
from typing import Any

from waguard.relay.connection import Connection, Reply
from waguard.relay.seen import Attached
from waguard.whatsapp.page import Missable, part

AFTER_S = 0.5
"""What is under way when the setup is answered has been heard by then."""


class Replay:
    """Of one client."""

    def __init__(self, probe: str, missable: Missable) -> None:
        self._missable = missable
        self._missed, self._say = (part(probe, "missed", say) for say in (False, True))
        self._at: Attached | None = None
        """The session in which the client has exposed its function last."""
        self._called = False

    def asked(self, connection: Connection, reply: Reply, method: str, params: dict[str, Any]) -> bool:
        """The client asks this in a page; returns whether it was sent."""
        if method == "Runtime.addBinding" and str(params.get("name")) in self._missable.bindings:
            self._at = reply.attached
        if method != "Runtime.callFunctionOn" or reply.attached is not self._at:
            return False
        if self._missable.listens not in str(params.get("functionDeclaration")):
            return False
        self._called = False

        def listens(result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
            connection.finish(reply, result, error)
            if error is None:
                connection.around.later(AFTER_S, lambda: self._look(connection, reply.attached))

        connection.ask(reply, method, params, listens)
        return True

    def heard(self, attached: Attached, params: Mapping[str, Any]) -> None:
        """The page has called a function of the client's."""
        if attached is self._at and str(params.get("name")) in self._missable.bindings:
            self._called = True

    def _look(self, connection: Connection, at: Attached) -> None:
        if self._called or at is not self._at or connection.seen.find(at.session) is not at:
            return
        asked = {"expression": self._missed, "returnByValue": True}

        def decide(result: Mapping[str, Any] | None, _error: object) -> None:
            # Asked in the client's session: what the page has called before is heard by now.
            if self._called or (result or {}).get("result", {}).get("value") is not True:
                return
            connection.around.replayed()
            said = {"expression": self._say}
            connection.ask_in(at, None, "Runtime.evaluate", said, lambda _result, _error: None)

        connection.ask_in(at, None, "Runtime.evaluate", asked, decide)
