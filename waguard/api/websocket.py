"""The WebSocket of one client of the relay, on the loop: what comes is the client's at once, and what waits for it is written at once.

aiohttp does the handshake and is told of the end. In between it would put a message together before anybody sees it, unmask and copy it in one go,
which takes half a second of everybody's loop at 90 MB, and have two tasks wake each other for each small one. wsproto reads and makes the frames:
it has no I/O, and gives what has come of a message.
"""

import asyncio
from codecs import getincrementaldecoder
from contextlib import suppress

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from waguard.api.loop_turns import TURN_S, LoopTurns
from waguard.relay.client import CLOSINGS, Client, Closing, End

_READ = 64 * 1024
_WRITE = 64 * 1024
"""Bytes that are read, and written, at once."""
_CLOSE_S = 2.0
"""How long a client has to take what still waits for it, and to say that it has heard the end."""
_SIGNS = 3
"""Pings in the time that a client may be silent."""


class WebSocket(asyncio.BufferedProtocol):
    """Takes over the transport."""

    def __init__(self, transport: asyncio.Transport, client: Client, turns: LoopTurns) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._client = client
        self._turns = turns
        self._ws = Connection(ConnectionType.SERVER)
        self._text = getincrementaldecoder("utf-8")("replace")
        """Of the message that is written: a piece may end within a character."""
        self._buffer = bytearray(_READ)
        self._room = True
        self._reads_later = self._writes_later = False
        """It waits for its turn."""
        self._said: dict[type[Event], bytes] = {}
        """Control frames that are to be written; of each kind the newest, which is answer enough."""
        self._unanswered = 0
        """Pings since the last sign of life."""
        self._closed = self._loop.create_future()
        self._before = transport.get_protocol()
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=_WRITE)
        client.carried_by(self.write)
        self._beat = self._loop.call_later(client.silent_s / _SIGNS, self._ping)

    # --- from the client

    def get_buffer(self, _sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        self._unanswered = 0
        if self._ws.state is ConnectionState.CLOSED:
            return
        self._ws.receive_data(bytes(memoryview(self._buffer)[:count]))
        if not self._reads_later:
            self._read()

    def _read(self) -> None:
        self._reads_later = False
        began = self._loop.time()
        with self._client.together():
            for event in self._ws.events():
                self._take(event)
                if self._loop.time() - began > TURN_S:
                    self._reads_later = True
                    self._turns.wait(self._read)
                    break
        if not self._transport.is_closing() and self._transport.is_reading() is self._reads_later:
            (self._transport.pause_reading if self._reads_later else self._transport.resume_reading)()
        self.write()

    def _take(self, event: Event) -> None:
        match event:
            case TextMessage():
                self._client.take(event.data.encode(), ends=event.message_finished)
            case Ping():
                self._say(event.response())
            case BytesMessage():
                self._client.leave(Closing.NO_TEXT, CLOSINGS[Closing.NO_TEXT])
            case CloseConnection() if self._ws.state is ConnectionState.OPEN:  # by what is no frame
                self._client.leave(Closing.PROTOCOL, f"{CLOSINGS[Closing.PROTOCOL]}: {event.reason}")
            case CloseConnection():
                self._client.discard()
                self._client.leave(Closing.DONE, "it has closed the connection")
                self._end()

    def eof_received(self) -> None:
        self._client.leave(Closing.DONE, "it has closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._beat.cancel()
        self._client.leave(Closing.DONE, "the connection has ended")
        self._end()
        self._before.connection_lost(exc)

    def _end(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)

    # --- to the client

    def pause_writing(self) -> None:
        self._room = False

    def resume_writing(self) -> None:
        self._room = True
        self._unanswered = 0
        self.write()

    def write(self) -> None:
        """What waits for the client, as long as there is room and it is its turn."""
        if self._writes_later or (self._client.all_sent and not self._said):
            return
        began = self._loop.time()
        while self._room and not self._transport.is_closing() and (data := self._next()):
            self._transport.write(data)
            if self._loop.time() - began > TURN_S:
                self._writes_later = True
                self._turns.wait(self._write_on)
                return

    def _write_on(self) -> None:
        self._writes_later = False
        self.write()

    def _next(self) -> bytes:
        found, size = [*self._said.values()], 0
        self._said.clear()
        while (
            self._ws.state is ConnectionState.OPEN
            and size < _WRITE
            and (piece := self._client.next_piece()) is not None
        ):
            text = self._text.decode(piece.data, piece.ends)
            found.append(self._ws.send(TextMessage(data=text, message_finished=piece.ends)))
            size += len(piece.data)
        return b"".join(found)

    def _say(self, event: Ping | Pong | CloseConnection) -> None:
        """Before what waits: a control frame may come between those of a message."""
        if self._ws.state is ConnectionState.OPEN or (
            self._ws.state is ConnectionState.REMOTE_CLOSING and isinstance(event, CloseConnection)
        ):
            self._said[type(event)] = self._ws.send(event)

    def _ping(self) -> None:
        if self._unanswered >= _SIGNS:
            self._client.leave(
                Closing.SILENT,
                f"it has answered no ping for {self._client.silent_s:g} s: its machine has gone?",
            )
            return
        self._unanswered += 1
        if self._room:
            self._say(Ping())
            self.write()
        self._beat = self._loop.call_later(self._client.silent_s / _SIGNS, self._ping)

    async def close(self, end: End) -> None:
        """Say it to the client, after what waits for it; whoever does not read is not told, and not waited for any longer."""
        if end.code is Closing.TOO_MUCH:  # what waits for it is what it was too much of
            self._client.discard()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                while not (self._client.all_sent and self._room and not self._writes_later):
                    self.write()
                    await asyncio.wait({self._closed}, timeout=0.01)
                    if self._transport.is_closing():
                        return
                self._say(CloseConnection(code=end.code, reason=end.reason))
                self.write()
                await asyncio.shield(self._closed)
