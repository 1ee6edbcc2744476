"""A browser as the relay has to take it, as a model without a process: what Chromium leaves to whoever shares its pipe.

One flat map of sessions, any of which may be addressed by anybody; an error without a session for one that has gone; clients are targets of the kind
``browser``, and each sees all of them; what is attached by itself is of every context; a session that ends takes those in it along untold, and
nobody answers in it any more. Ids end in whose they are, so that one in the wrong hands is known wherever it stands.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

OF_ALL, OF_DAEMON = "_ALL_", "_DAEMON_"
HOME = "https://web.whatsapp.com"
PAGE, TAB, FRAME, WORKER = f"page{OF_ALL}", f"tab{OF_ALL}", f"frame{OF_ALL}", f"worker{OF_ALL}"
DEFAULT = f"default{OF_ALL}"
_UNDER = {"browser": {"tab", "page"}, "tab": {"page"}, "page": {"iframe", "worker"}}
"""What is attached by itself in a session with what."""
Message = Mapping[str, Any]


@dataclass
class Session:
    id: str
    target: str
    parent: str | None
    whose: str
    attaches: bool = False
    waits: bool = False
    """What it attaches by itself is to wait."""
    discovers: bool = False
    asked: list[Any] = field(default_factory=list)


class Browser:
    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self.root = Session("", "", None, OF_DAEMON)
        self.sessions: dict[str, Session] = {}
        self.ever: dict[str, Session] = {}
        self.targets: dict[str, dict[str, Any]] = {}
        for target, kind in ((PAGE, "page"), (TAB, "tab"), (FRAME, "iframe"), (WORKER, "worker")):
            self.targets[target] = self._info(target, kind, DEFAULT)
        self.contexts: dict[str, str] = {}
        """Of each in which session it was made."""
        self.streams: dict[str, str] = {}
        self.waiting: deque[dict[str, Any]] = deque()
        """Commands that it has not come to."""
        self.later: list[dict[str, Any]] = []
        """Those that wait for something: nobody answers them when their session has ended."""
        self.guests = 0
        self.page_closed = False
        """Also by one of its frames."""
        self._number = 0
        self._half = b""

    @staticmethod
    def _info(target: str, kind: str, context: str | None) -> dict[str, Any]:
        named = {} if context is None else {"browserContextId": context}
        return {"targetId": target, "type": kind, "url": HOME, **named}

    def _name(self, what: str, whose: str) -> str:
        self._number += 1
        return f"{what}{self._number}{whose}"

    def take_in(self, data: bytes) -> Iterator[dict[str, Any]]:
        """What was written to it, each command once it is whole."""
        *whole, self._half = (self._half + data).split(b"\0")
        for raw in whole:
            command = json.loads(raw)
            self.waiting.append(command)
            yield command

    # --- what it does -----------------------------------------------------------------------------------

    def execute(self, which: int = 0) -> None:
        """Those of one session are done in their order; of which session comes next is nobody's promise."""
        sessions = list(dict.fromkeys(command.get("sessionId") for command in self.waiting))
        session = sessions[which % len(sessions)]
        command = next(one for one in self.waiting if one.get("sessionId") == session)
        self.waiting.remove(command)
        number, method, params = command["id"], command["method"], command["params"]
        at = self.root if session is None else self.sessions.get(session)
        if at is None:
            self._say(
                {"id": number, "error": {"code": -32001, "message": "Session with given id not found."}}
            )
            return
        if "later" in str(params.get("expression")) and not method.startswith("Target."):
            self.later.append(command)
            return
        self._do(at, command)

    def come_to_later(self) -> None:
        """What some wait for has come."""
        later, self.later = self.later, []
        for command in later:
            if (at := self.sessions.get(command["sessionId"])) is not None:
                self._do(at, command)

    def _do(self, at: Session, command: Message) -> None:
        number, method, params = command["id"], command["method"], command["params"]
        act = getattr(self, "_" + method.replace(".", "_"), None)
        try:
            result = act(at, params) if act is not None else self._run(at, params)
        except LookupError:
            self._say({"id": number, "error": {"code": -32602, "message": "No such thing"}}, at)
        else:
            if at is self.root or at.id in self.sessions:
                self._say({"id": number, "result": result}, at)

    def _run(self, at: Session, params: Message) -> Message:
        text = str(params.get("expression", ""))
        size = int(text.partition("big")[2] or 0) if "big" in text else 0
        return {"echo": params.get("expression"), "secret": f"secret{at.whose}", "much": '\\"' * (size // 4)}

    def _Target_getTargetInfo(self, at: Session, params: Message) -> Message:  # noqa: N802
        return {"targetInfo": self.targets[str(params.get("targetId") or at.target)]}

    def _Target_getTargets(self, _at: Session, _params: Message) -> Message:  # noqa: N802
        return {"targetInfos": list(self.targets.values())}

    def _Target_getBrowserContexts(self, _at: Session, _params: Message) -> Message:  # noqa: N802
        return {"browserContextIds": list(self.contexts), "defaultBrowserContextId": DEFAULT}

    def _Target_createBrowserContext(self, at: Session, _params: Message) -> Message:  # noqa: N802
        context = self._name("context", at.whose)
        self.contexts[context] = at.id
        return {"browserContextId": context}

    def _Target_disposeBrowserContext(self, _at: Session, params: Message) -> Message:  # noqa: N802
        self._dispose(str(params.get("browserContextId")))
        return {}

    def _dispose(self, context: str) -> None:
        del self.contexts[context]
        for target in [one for one, info in self.targets.items() if info.get("browserContextId") == context]:
            self.destroy(target)

    def _Target_createTarget(self, at: Session, params: Message) -> Message:  # noqa: N802
        context = str(params.get("browserContextId") or DEFAULT)
        if context != DEFAULT and context not in self.contexts:
            raise LookupError
        target = self._name("opened", at.whose)
        self.appear(target, "page", context)
        return {"targetId": target}

    def _Target_closeTarget(self, _at: Session, params: Message) -> Message:  # noqa: N802
        self.destroy(str(params.get("targetId")))
        return {"success": True}

    def _Page_close(self, at: Session, _params: Message) -> Message:  # noqa: N802
        self.destroy(at.target)
        return {}

    def _Target_attachToTarget(self, at: Session, params: Message) -> Message:  # noqa: N802
        target = str(params.get("targetId"))
        if target not in self.targets:
            raise LookupError
        return {"sessionId": self.attach(at, target)}

    def _Target_attachToBrowserTarget(self, at: Session, _params: Message) -> Message:  # noqa: N802
        whose = at.whose
        if at is self.root:
            self.guests += 1
            whose = f"_GUEST{self.guests}_"
        target = self._name("browser", whose)
        self.targets[target] = self._info(target, "browser", None)
        session = self.attach(at, target, whose=whose)
        self._tell_of(target)
        return {"sessionId": session}

    def _Target_detachFromTarget(self, at: Session, params: Message) -> Message:  # noqa: N802
        session = str(params.get("sessionId"))
        if session not in self.sessions or self.sessions[session].parent != at.id:
            raise LookupError
        self.end(session)
        return {}

    def _Target_setDiscoverTargets(self, at: Session, params: Message) -> Message:  # noqa: N802
        before, at.discovers = at.discovers, bool(params.get("discover"))
        if at.discovers and not before:
            for info in [*self.targets.values()]:
                self.tell("Target.targetCreated", {"targetInfo": info}, at)
        return {}

    def _Target_setAutoAttach(self, at: Session, params: Message) -> Message:  # noqa: N802
        at.attaches, at.waits = bool(params.get("autoAttach")), bool(params.get("waitForDebuggerOnStart"))
        for target in [*self.targets]:
            self._attach_by_itself(at, target)
        return {}

    def _Tracing_end(self, at: Session, _params: Message) -> Message:  # noqa: N802
        stream = self._name("stream", at.whose)
        self.streams[stream] = at.whose
        self.tell("Tracing.tracingComplete", {"stream": stream}, at)
        return {}

    def _Page_handleJavaScriptDialog(self, at: Session, _params: Message) -> Message:  # noqa: N802
        self.tell("Page.javascriptDialogClosed", {}, at)
        return {}

    def _Debugger_resume(self, at: Session, _params: Message) -> Message:  # noqa: N802
        self.tell("Debugger.resumed", {}, at)
        return {}

    # --- sessions and targets ---------------------------------------------------------------------------

    def attach(self, at: Session, target: str, *, waits: bool = False, whose: str = "") -> str:
        session = self._name("session", whose or at.whose)
        found = Session(session, target, at.id, whose or at.whose)
        self.sessions[session] = self.ever[session] = found
        told = {"sessionId": session, "targetInfo": self.targets[target], "waitingForDebugger": waits}
        self.tell("Target.attachedToTarget", told, at)
        return session

    def _attach_by_itself(self, at: Session, target: str) -> None:
        kind, here = self.targets[target]["type"], self.targets.get(at.target, {"type": "browser"})
        there = any(one.parent == at.id and one.target == target for one in self.sessions.values())
        if at.attaches and not there and kind in _UNDER.get(here["type"], ()):
            if here["type"] != "browser" and self.targets[target].get("browserContextId") != here.get(
                "browserContextId"
            ):
                return
            self.attach(at, target, waits=at.waits)

    def appear(self, target: str, kind: str, context: str) -> None:
        self.targets[target] = self._info(target, kind, context)
        self._tell_of(target)

    def _tell_of(self, target: str) -> None:
        for session in [*self.sessions.values()]:
            if session.discovers:
                self.tell("Target.targetCreated", {"targetInfo": self.targets[target]}, session)
            self._attach_by_itself(session, target)

    def destroy(self, target: str) -> None:
        if target not in self.targets:
            raise LookupError
        if OF_ALL in target:
            self.page_closed = True
            return
        for session in [one.id for one in self.sessions.values() if one.target == target]:
            self.end(session)
        del self.targets[target]
        for discovering in [*self.sessions.values()]:
            if discovering.discovers:
                self.tell("Target.targetDestroyed", {"targetId": target}, discovering)

    def end(self, session: str, *, told: bool = True) -> None:
        if (gone := self.sessions.pop(session, None)) is None:
            return
        self.later = [one for one in self.later if one["sessionId"] != session]
        for child in [one.id for one in self.sessions.values() if one.parent == session]:
            self.end(child, told=False)
        for context in [one for one, made in self.contexts.items() if made == session]:
            self._dispose(context)
        if gone.target.startswith("browser") and gone.target in self.targets:
            del self.targets[gone.target]
            for discovering in [*self.sessions.values()]:
                if discovering.discovers:
                    self.tell("Target.targetDestroyed", {"targetId": gone.target}, discovering)
        above = self.root if not gone.parent else self.sessions.get(gone.parent)
        if told and above is not None:
            self.tell("Target.detachedFromTarget", {"sessionId": session, "targetId": gone.target}, above)

    def tell(self, method: str, params: Message, at: Session) -> None:
        self._say({"method": method, "params": params}, at)

    def _say(self, message: Message, at: Session | None = None) -> None:
        named = {} if at is None or at is self.root else {"sessionId": at.id}
        self._write(json.dumps({**message, **named}, separators=(",", ":")).encode() + b"\0")
