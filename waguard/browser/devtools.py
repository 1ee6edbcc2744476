"""The daemon's own way to a browser: commands that are answered, sessions, events to observe. All of DevTools that the rest knows.

A `DevTools` is one browser's pipe with its `Channel`. To the daemon it is a few calls: `send` and `observe` of a `Session`, `attach` and
`resume` to get one. Who else is let in on the same pipe is one of its `guests`.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from waguard.browser.channel import Broken, Channel, Dropped, Heard, Limits, Message, Refused, TooLong
from waguard.browser.guests import Guests
from waguard.browser.observers import Observers
from waguard.browser.pipe import Pipe
from waguard.errors import PageFailed

OWN = Limits(message=64 * 1024, command=4 * 1024 * 1024, unsent=4 * 1024 * 1024)
"""A look at the page takes a few KB. What is longer is refused before anything is made of it."""
_MOST = {"Page.captureScreenshot": 8 * 1024 * 1024}
"""Bytes of answers that may be longer: by one text, not by thousands of objects, which take a second to make."""
_MOST_OBJECTS = 100

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Command:
    method: str
    session: str | None
    answer: asyncio.Future[Any]


class Session:
    """The daemon's session with one target, or with the browser itself (its id is None)."""

    def __init__(self, devtools: "DevTools", session: str | None, kind: str) -> None:
        self.id = session
        self.attached = True
        self._devtools = devtools
        self._kind = kind
        self._events: defaultdict[str, Observers[Any]] = defaultdict(Observers)

    def send(self, method: str, params: Params | None = None) -> "asyncio.Future[Any]":
        """Send a command; the future has its result, or raises `PageFailed`. Cancelling it is harmless. Raises `PageFailed`."""
        if not self.attached:
            raise PageFailed(f"{method}: the {self._kind} is gone.")
        return self._devtools.request(method, params, self.id)

    def observe(self, event: str, call: Callable[[Any], None]) -> Callable[[], None]:
        """Call this with the parameters of each such event, until what is returned is called."""
        return self._events[event].observe(call)

    def happened(self, event: str, params: Any) -> None:
        if event in self._events:
            self._events[event].tell(params)


class DevTools:
    """Owns the pipe. Answers and events come in the order in which the browser wrote them."""

    def __init__(self, own: Limits = OWN, *, used: bool = False) -> None:
        # Answers to calls of an earlier daemon's may still come. It has counted from less, unless a session made a hundred
        # calls a second for as long as the machine is up. The browser takes numbers of 31 bits.
        self._channel = Channel(own, numbers_from=int(time.monotonic() * 100) % 2**30 if used else None)
        self._pending: dict[int, _Command] = {}
        self.browser = Session(self, None, "browser")
        self.guests = Guests(self._channel, self.browser.send, self.flush)
        self._sessions: dict[str | None, Session] = {None: self.browser}
        self._pipe: Pipe | None = None
        self._loop = asyncio.get_running_loop()  # to ask for it costs a system call, each time
        self._closed: asyncio.Future[str] = self._loop.create_future()

    @classmethod
    async def open(cls, read_fd: int, write_fd: int, *, used: bool = False, own: Limits = OWN) -> Self:
        """Take over both fds. ``used``: by an earlier daemon, which may have died in the middle of a message, either way."""
        self = cls(own, used=used)
        self._pipe = await Pipe.open(read_fd, write_fd, self._channel.take, self._received, self.lose)
        if self._closed.done():  # it was lost while it was opened
            self._pipe.close()
        elif used:
            self._pipe.end_command()
        return self

    @property
    def connected(self) -> bool:
        return self._pipe is not None and not self._closed.done()

    def fds(self) -> tuple[int, int]:
        """Of the pipe's ends: to read, to write. Only while it is `connected`."""
        assert self._pipe is not None  # noqa: S101 (it is open)
        return self._pipe.fds()

    # --- the daemon's own -------------------------------------------------------------------------------

    async def attach(self, target: str, kind: str = "page") -> Session:
        """Raises `PageFailed`."""
        answer = await self.browser.send("Target.attachToTarget", {"targetId": target, "flatten": True})
        return self.resume(answer["sessionId"], kind)

    def resume(self, session: str, kind: str = "page") -> Session:
        """A session that was made on this pipe, if only by an earlier daemon."""
        self._channel.give(session, self._channel.own)
        found = self._sessions[session] = Session(self, session, kind)
        return found

    def request(self, method: str, params: Params | None, session: str | None) -> "asyncio.Future[Any]":
        """What `Session.send` does."""
        if not self.connected or self._pipe is None or not self._pipe.writable:
            raise PageFailed(f"{method}: the browser's pipe is closed.")
        try:
            number = self._channel.send(self._channel.own, method, params or {}, session, _MOST.get(method))
        except Refused as error:
            raise PageFailed(f"{method}: {error}.") from None
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending[number] = _Command(method, session, answer)
        answer.add_done_callback(lambda _: self._forget(number))
        self.flush()
        return answer

    def _forget(self, number: int) -> None:
        self._pending.pop(number, None)
        self._channel.unask(number)

    def abandon(self, session: Session) -> None:
        """Nobody answers in this session what was asked so far."""
        self._fail("its renderer is gone.", lambda command: command.session == session.id)

    def _fail(self, why: str, concerned: Callable[[_Command], bool]) -> None:
        for command in list(self._pending.values()):
            if concerned(command) and not command.answer.done():
                command.answer.set_exception(PageFailed(f"{command.method}: {why}"))
                command.answer.exception()  # whoever awaits still gets it; nobody awaiting is no fault

    def flush(self) -> None:
        if self._pipe is not None:
            self._pipe.flush()

    # --- what the browser writes ------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        for heard in self._channel.receive(data):
            if self._closed.done():
                return
            self._heard(heard)
        self.guests.settle()

    def _heard(self, heard: Heard) -> None:
        match heard:
            case Message() if heard.lane is self._channel.own:
                self._read(heard)
            case Message():
                self.guests.heard(heard)
            case Dropped():
                self.guests.dismiss(heard.lane, heard.lane.dropped)
            case TooLong():
                self._refuse(heard.number)
            case Broken():
                self.lose(heard.why)

    def _refuse(self, number: int | None) -> None:
        """An answer is too long: whoever waits for it is told, and nobody else."""
        if (command := self._pending.get(number or 0)) is not None:
            most = _MOST.get(command.method, OWN.message)
            why = f"the answer is longer than {most} bytes, or has too many parts."
            self._fail(why, lambda one: one is command)

    def _read(self, message: Message) -> None:
        """One message to the daemon. Nothing that the browser writes is raised into the loop."""
        raw = message.whole()
        if len(raw) > OWN.message and raw.count(b"{") + raw.count(b"[") > _MOST_OBJECTS:
            self._refuse(message.number)
            return
        try:
            said = json.loads(raw)
        except (ValueError, RecursionError):
            self.lose("The browser wrote something that is not JSON.")
            return
        match said:
            case {"id": int() | str() as number, "error": dict(error)}:
                self._answered(number, error=error.get("message", "failed"))
            case {"id": int() | str() as number, **rest} if "error" not in rest:
                self._answered(number, result=rest.get("result"))
            case {"id": _}:
                self.lose("The browser wrote an answer that is none.")
            case {"sessionId": str(session)}:
                if session in self._sessions:
                    self._happened(self._sessions[session], said)
            case {"sessionId": _}:
                self.lose("The browser wrote an event of no session.")
            case dict():
                self._happened(self.browser, said)
            case _:
                self.lose("The browser wrote something that is no message.")

    def _answered(self, number: int | str, *, result: Any = None, error: str | None = None) -> None:
        command = self._pending.get(number) if isinstance(number, int) else None
        if command is None or command.answer.done():
            return  # late: nobody waits any more
        if error is None:
            command.answer.set_result(result)
        else:
            command.answer.set_exception(PageFailed(f"{command.method}: {error}."))

    def _happened(self, session: Session, event: dict[str, Any]) -> None:
        method, params = event.get("method", ""), event.get("params", {})
        match event:
            case {"method": "Target.detachedFromTarget", "params": {"sessionId": str(gone)}}:
                self._detached(gone)
        if isinstance(method, str):
            session.happened(method, params)

    def _detached(self, name: str) -> None:
        self._channel.forget(name)
        if (session := self._sessions.pop(name, None)) is not None:
            session.attached = False
            self._fail("its page is gone.", lambda command: command.session == name)

    # --- the end ----------------------------------------------------------------------------------------

    def lose(self, why: str) -> None:
        """The pipe is of no use any more: everybody who waits is told."""
        if self._closed.done():
            return
        self._closed.set_result(why)
        self._fail(why, lambda _: True)
        for name in [name for name in self._sessions if name is not None]:
            self._sessions.pop(name).attached = False
        self.guests.dismiss_all(why)
        if self._pipe is not None:
            self._pipe.close()

    def closed(self) -> Awaitable[str]:
        """Resolves, with the reason, when the pipe is gone."""
        return asyncio.shield(self._closed)
