"""The two ends of a browser's pipe (``--remote-debugging-pipe``), on the loop: bytes in, bytes out. What they mean is the channel's.

A pair of pipes instead of a WebSocket, so that no other local user can reach the browser.
"""

import asyncio
import os
import select
from collections.abc import Callable
from typing import Self

from waguard.browser.channel import PIECE

_AT_ONCE = 64
"""Writes."""


class Pipe:
    """Owns both fds.

    ``take`` gives the next piece to write, and is asked for it when there is room: what waits can still change its order.
    ``received`` gets what the browser wrote, ``lost`` why nothing more can come.
    """

    def __init__(
        self,
        take: Callable[[], memoryview],
        received: Callable[[bytes], None],
        lost: Callable[[str], None],
    ) -> None:
        self._take = take
        self.received = received
        self.lost = lost
        self._room = True
        self._reading: asyncio.ReadTransport | None = None
        self._writing: asyncio.WriteTransport | None = None

    @classmethod
    async def open(
        cls,
        read_fd: int,
        write_fd: int,
        take: Callable[[], memoryview],
        received: Callable[[bytes], None],
        lost: Callable[[str], None],
    ) -> Self:
        """Closes both fds if it is called off."""
        self = cls(take, received, lost)
        loop = asyncio.get_running_loop()
        writer = os.fdopen(write_fd, "wb", buffering=0)
        reader = os.fdopen(read_fd, "rb", buffering=0)
        try:
            self._writing, _ = await loop.connect_write_pipe(lambda: _Writer(self), writer)
            self._writing.set_write_buffer_limits(high=0)
            self._reading, _ = await loop.connect_read_pipe(lambda: _Reader(self), reader)
            # asyncio asks for 256 KiB, for which the C library maps memory and unmaps it again at each read; a pipe holds 64.
            self._reading.max_size = PIECE  # type: ignore[attr-defined]  # of its transport for pipes, not of the interface
        except BaseException:
            if self._writing is not None:
                self._writing.abort()
            for file in (writer, reader):
                file.close()
            raise
        return self

    def fds(self) -> tuple[int, int]:
        """To read, to write."""
        assert self._reading is not None and self._writing is not None  # noqa: S101, PT018 (it is open)
        reading, writing = (one.get_extra_info("pipe").fileno() for one in (self._reading, self._writing))
        return reading, writing

    def end_command(self) -> None:
        """Whoever had the pipe before may have written half a command."""
        assert self._writing is not None  # noqa: S101 (it is open)
        self._writing.write(b"\0")

    def flush(self) -> None:
        """Write what there is room for, and of what is long the rest in a later turn of the loop: a browser may read as fast as is written."""
        for _ in range(_AT_ONCE):
            if not self._room or self._writing is None or self._writing.is_closing():
                return
            pieces, size = [], 0
            while size < PIECE and (piece := self._take()):
                pieces.append(piece)
                size += len(piece)
            if not pieces:
                return
            self._writing.write(b"".join(pieces) if len(pieces) > 1 else pieces[0])
        asyncio.get_running_loop().call_soon(self.flush)

    def make_room(self, *, room: bool) -> None:
        self._room = room
        if room:
            self.flush()

    def not_read(self) -> None:
        """The browser has closed its reading end. What it has written before still counts; then the pipe is lost."""
        if self._reading is None or self._reading.is_closing():
            return
        waiting = select.poll()
        waiting.register(self._reading.get_extra_info("pipe"), select.POLLIN)
        if waiting.poll(0):
            asyncio.get_running_loop().call_soon(self.not_read)
        else:
            self.lost("The browser does not read its pipe any more.")

    @property
    def writable(self) -> bool:
        return self._writing is not None and not self._writing.is_closing()

    def close(self) -> None:
        # A transport that has noticed the other end's death by itself must not be told again (Python 3.11).
        if self._reading is not None and not self._reading.is_closing():
            self._reading.close()
        if self._writing is not None and not self._writing.is_closing():
            self._writing.abort()


class _Reader(asyncio.Protocol):
    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def data_received(self, data: bytes) -> None:
        self._pipe.received(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._pipe.lost("The browser closed its pipe.")


class _Writer(asyncio.BaseProtocol):
    """Notices that nobody reads any more, without waiting for the next command."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def pause_writing(self) -> None:
        self._pipe.make_room(room=False)

    def resume_writing(self) -> None:
        self._pipe.make_room(room=True)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._pipe.not_read()
