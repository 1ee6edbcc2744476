"""The control channel: the DevTools protocol over a pipe, with pyppeteer's `Connection` and `CDPSession` on it.

`pyppeteer` is imported here and nowhere else. What is replaced, and why:

- the transport: a pair of pipes (``--remote-debugging-pipe``, messages end in NUL) instead of a WebSocket, so that no
  other local user can reach the browser;
- the answer handling: pyppeteer 2.0.0 calls ``set_result`` on a future that a timeout has cancelled, and the
  `InvalidStateError` ends its receive loop; here a late answer is dropped;
- nested messages: flat sessions (``Target.attachToTarget`` with ``flatten``) carry a session id instead of JSON in JSON.
"""

import asyncio
import json
import os
import re
import select
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pyee import EventEmitter
from pyppeteer.connection import CDPSession, Connection

from waguard.errors import PageFailed

# A page may make an answer long; a browser that does not read makes our side long. Both are bounded.
_MAX_MESSAGE = 64 * 1024
"""Bytes of an answer or event; a look at the page takes a few KB. What is longer is refused before anything is made of it."""
_MAX_LONG = {"Page.captureScreenshot": 8 * 1024 * 1024}
"""Answers that may be longer: by one text, not by thousands of objects, which take a second to make."""
_MAX_OBJECTS = 100
_MAX_REFUSED = 1024 * 1024 * 1024
"""Whoever goes on writing the same message is not read any more."""
_MAX_UNSENT = 4 * 1024 * 1024
_HEAD = 64
"""Bytes in which an answer has its number: Chromium writes that first."""
_NUMBER = re.compile(rb'\{"id": ?(\d{1,10}),')


@dataclass(frozen=True, slots=True)
class _Command:
    method: str
    session: str | None
    answer: asyncio.Future[Any]


class PipeSession(CDPSession):  # type: ignore[misc]  # pyppeteer ships no types
    """A flat session with one target."""

    _connection: "PipeConnection | None"

    def send(self, method: str, params: dict[str, Any] | None = None) -> "asyncio.Future[Any]":
        if self._connection is None:
            raise PageFailed(f"{method}: the {self._targetType} is gone.")
        return self._connection.request(method, params, self._sessionId)

    def _on_closed(self) -> None:
        self._connection = None

    @property
    def id(self) -> str:
        return str(self._sessionId)

    @property
    def attached(self) -> bool:
        return self._connection is not None


class PipeConnection(Connection):  # type: ignore[misc]  # pyppeteer ships no types
    """The browser's end of the pipe. Owns both fds. Answers and events come in the order the browser wrote them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        EventEmitter.__init__(self)  # not Connection's own, which opens a WebSocket
        self._loop = loop
        self._lastId = 0
        self._pending: dict[int | str, _Command] = {}
        self._sessions: dict[str, PipeSession] = {}
        self._connected = False
        self._resuming = False
        self._reading: asyncio.ReadTransport | None = None
        self._writing: asyncio.WriteTransport | None = None
        self._closed = loop.create_future()
        self._on_event_error: Callable[[str, Exception], None] = lambda _method, _error: None

    @classmethod
    async def open(cls, read_fd: int, write_fd: int, *, used: bool = False) -> "PipeConnection":
        """Take over both fds. ``used``: by an earlier daemon, which may have died in the middle of a message, either way."""
        loop = asyncio.get_running_loop()
        self = cls(loop)
        if used:
            self._resuming = True
            # Answers to calls of that daemon's may still come. It has counted from less, unless a session made a hundred
            # calls a second for as long as the machine is up. The browser takes numbers of 31 bits.
            self._lastId = int(time.monotonic() * 100) % 2**30
        writer = os.fdopen(write_fd, "wb", buffering=0)
        reader = os.fdopen(read_fd, "rb", buffering=0)
        try:
            self._writing, _ = await loop.connect_write_pipe(lambda: _Writer(self), writer)
            self._reading, _ = await loop.connect_read_pipe(lambda: _Reader(self), reader)
        except BaseException:
            if self._writing is not None:
                self._writing.abort()
            for file in (writer, reader):
                file.close()
            raise
        self._connected = True
        if used:
            self._writing.write(b"\0")  # ends what was written of a command
        return self

    @property
    def connected(self) -> bool:
        return self._connected

    def fds(self) -> tuple[int, int]:
        """Of the pipe's ends: to read, to write. Only while it is `connected`."""
        assert self._reading is not None and self._writing is not None  # noqa: S101, PT018 (it is open)
        reading, writing = (one.get_extra_info("pipe").fileno() for one in (self._reading, self._writing))
        return reading, writing

    @property
    def url(self) -> str:
        return "pipe:"

    def send(self, method: str, params: dict[str, Any] | None = None) -> "asyncio.Future[Any]":
        return self.request(method, params, None)

    def request(
        self, method: str, params: dict[str, Any] | None, session: str | None
    ) -> "asyncio.Future[Any]":
        """Send one command; the future has its result, or raises `PageFailed`. Cancelling it is harmless."""
        if not self._connected or self._writing is None or self._writing.is_closing():
            raise PageFailed(f"{method}: the browser's pipe is closed.")
        if self._writing.get_write_buffer_size() > _MAX_UNSENT:
            raise PageFailed(f"{method}: the browser does not read its pipe.")
        self._lastId += 1
        number = self._lastId
        message: dict[str, Any] = {"id": number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending[number] = _Command(method, session, answer)
        answer.add_done_callback(lambda _: self._pending.pop(number, None))
        self._writing.write(json.dumps(message).encode() + b"\0")
        return answer

    def resume_session(self, kind: str, session_id: str) -> PipeSession:
        """A session that an earlier daemon has made on this pipe."""
        session = self._sessions[session_id] = PipeSession(self, kind, session_id, self._loop)
        return session

    async def createSession(self, targetInfo: dict[str, Any]) -> PipeSession:  # noqa: N802, N803 (pyppeteer's names)
        answer = await self.send(
            "Target.attachToTarget", {"targetId": targetInfo["targetId"], "flatten": True}
        )
        return self.resume_session(targetInfo["type"], answer["sessionId"])

    def most(self, head: bytes) -> int:
        """How long the message that begins so may be, in bytes."""
        command = self._asked(head)
        return _MAX_MESSAGE if command is None else _MAX_LONG.get(command.method, _MAX_MESSAGE)

    def refuse(self, head: bytes) -> None:
        """A message is too long: whoever waits for it is told, and nobody else."""
        self._resuming = False
        command = self._asked(head)
        if command is not None and not command.answer.done():
            most = self.most(head)
            command.answer.set_exception(
                PageFailed(
                    f"{command.method}: the answer is longer than {most} bytes, or has too many parts."
                )
            )
            command.answer.exception()  # whoever awaits still gets it; nobody awaiting is no fault

    def _asked(self, head: bytes) -> _Command | None:
        number = _NUMBER.match(head)
        return None if number is None else self._pending.get(int(number[1]))

    def receive(self, raw: bytes) -> None:
        """One message from the browser."""
        if len(raw) > _MAX_MESSAGE and raw.count(b"{") + raw.count(b"[") > _MAX_OBJECTS:
            self.refuse(raw[:_HEAD])
            return
        resuming, self._resuming = self._resuming, False
        try:
            message = json.loads(raw)
        except (ValueError, RecursionError):
            if not resuming:  # else the end of a message, whose beginning an earlier daemon has read
                self.lose("The browser wrote something that is not JSON.")
            return
        match message:
            case {"id": int() | str() as number, "error": dict(error)}:
                why = error.get("message", "failed")
                self._answered(number, lambda command: PageFailed(f"{command.method}: {why}."))
            case {"id": int() | str() as number, **rest} if "error" not in rest:
                self._answered(number, lambda _: rest.get("result"))
            case {"id": _}:
                self.lose("The browser wrote an answer that is none.")
            case {"sessionId": str(session)}:
                if session in self._sessions:
                    self._happened(self._sessions[session], message)
            case {"sessionId": _}:
                self.lose("The browser wrote an event of no session.")
            case dict():
                self._happened(self, message)
            case _:
                self.lose("The browser wrote something that is no message.")

    def _answered(self, number: int | str, outcome: "Callable[[_Command], object]") -> None:
        command = self._pending.get(number)
        if command is None or command.answer.done():
            return  # late: nobody waits any more
        result = outcome(command)
        if isinstance(result, PageFailed):
            command.answer.set_exception(result)
        else:
            command.answer.set_result(result)

    def _happened(self, target: EventEmitter, event: dict[str, Any]) -> None:
        method, params = event.get("method", ""), event.get("params", {})
        match event:
            case {"method": "Target.detachedFromTarget", "params": {"sessionId": str(session)}}:
                gone = self._sessions.pop(session, None)
                if gone is not None:
                    gone._on_closed()  # noqa: SLF001 (ours)
                    self._fail("its page is gone.", lambda command: command.session == session)
        try:
            target.emit(method, params)
        except Exception as error:  # noqa: BLE001 (a subscriber's mistake must not end the receive loop)
            self._on_event_error(method, error)

    def abandon(self, session: PipeSession) -> None:
        """Nobody answers in this session what was asked so far."""
        self._fail("its renderer is gone.", lambda command: command.session == session.id)

    def _fail(self, why: str, concerned: "Callable[[_Command], bool]") -> None:
        for command in list(self._pending.values()):
            if concerned(command) and not command.answer.done():
                command.answer.set_exception(PageFailed(f"{command.method}: {why}"))
                command.answer.exception()  # whoever awaits still gets it; nobody awaiting is no fault

    def not_read(self) -> None:
        """The browser has closed its reading end. What it has written before still counts; then the pipe is lost."""
        if not self._connected or self._reading is None or self._reading.is_closing():
            return
        waiting = select.poll()
        waiting.register(self._reading.get_extra_info("pipe"), select.POLLIN)
        if waiting.poll(0):
            self._loop.call_soon(self.not_read)
        else:
            self.lose("The browser does not read its pipe any more.")

    def lose(self, why: str) -> None:
        """The pipe is of no use any more: everybody who waits is told."""
        if not self._connected:
            return
        self._connected = False
        self._fail(why, lambda _: True)
        for session in self._sessions.values():
            session._on_closed()  # noqa: SLF001 (ours)
        self._sessions.clear()
        # A transport that has noticed the other end's death by itself must not be told again (Python 3.11).
        if self._reading is not None and not self._reading.is_closing():
            self._reading.close()
        if self._writing is not None and not self._writing.is_closing():
            self._writing.abort()
        if not self._closed.done():
            self._closed.set_result(why)

    def closed(self) -> Awaitable[str]:
        """Resolves, with the reason, when the pipe is gone."""
        return asyncio.shield(self._closed)

    async def dispose(self) -> None:
        self.lose("closed")


class _Reader(asyncio.Protocol):
    """Cuts the stream at NUL, and keeps no message that is too long."""

    def __init__(self, connection: PipeConnection) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._refused = 0
        """Bytes of the message under way, if it was refused."""

    def data_received(self, data: bytes) -> None:
        *ends, rest = data.split(b"\0")
        for piece in ends:
            self._take(piece)
            message, refused = bytes(self._buffer), self._refused
            self._buffer.clear()
            self._refused = 0
            if not refused:
                self._connection.receive(message)
        self._take(rest)

    def _take(self, piece: bytes) -> None:
        if not self._refused:
            self._buffer += piece
            head = bytes(self._buffer[:_HEAD])
            if len(self._buffer) <= _MAX_MESSAGE or len(self._buffer) <= self._connection.most(head):
                return
            self._refused = len(self._buffer)
            self._buffer.clear()
            self._connection.refuse(head)
        else:
            self._refused += len(piece)
        if self._refused > _MAX_REFUSED:
            self._connection.lose(f"The browser wrote more than {_MAX_REFUSED} bytes in one message.")

    def connection_lost(self, _exc: Exception | None) -> None:
        self._connection.lose("The browser closed its pipe.")


class _Writer(asyncio.BaseProtocol):
    """Notices that nobody reads any more, without waiting for the next command."""

    def __init__(self, connection: PipeConnection) -> None:
        self._connection = connection

    def connection_lost(self, _exc: Exception | None) -> None:
        self._connection.not_read()
