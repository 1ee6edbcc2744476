"""A log whose reader may stop reading: what it does not take waits here, and nobody else does."""

import json
import os
import select
import threading
from types import TracebackType
from typing import Protocol, Self, TextIO

from waguard.observe.outbox import Gap, Outbox
from waguard.system.signals import block_stop_signals

_MOST_LINES = 10_000
_LAST_WORDS_S = 2.0
_GIVING_UP_S = 5.0


class Outlet(Protocol):
    """Where what was said goes in the end. Used by one thread."""

    def deliver(self, data: bytes) -> None:
        """All of it, however long that takes. Raises `OSError`, `ValueError` when it is dead: then it swallows it."""

    def lost(self, count: int) -> bytes:
        """What says that so many were not kept."""

    def give_up(self) -> bool:
        """Nobody waits any more: whether `deliver` returns soon. Called from another thread."""

    def close(self) -> None:
        """Give everything back. Nothing is delivered any more."""


class Patient:
    """``with Patient(sys.stderr) as stream``: writes never block, and are delivered in order by a thread of its own.

    How many found no place in its outbox is told in a line ``log.lost``, where they would have been. Leaving the block waits a
    moment for the reader. A dead stream swallows what it is given.
    """

    def __init__(
        self,
        stream: TextIO,
        most: int = _MOST_LINES,
        outlet: Outlet | None = None,
        last_words_s: float = _LAST_WORDS_S,
    ) -> None:
        """``stream`` has a file descriptor, and is not written to by others; without an ``outlet`` it is written to.

        A reader that reads nothing is waited for ``last_words_s`` at the end.
        """
        self._last_words_s = last_words_s
        self._stream = stream
        self._outlet: Outlet = outlet or _Lines(stream)
        self._due = threading.Event()
        self._outbox = Outbox[bytes](most, self._due.set)
        self._over = False
        self._thread = threading.Thread(target=self._deliver_all, name="log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._due.set()
        self._thread.join(self._last_words_s)
        if self._thread.is_alive() and self._outlet.give_up():
            self._thread.join(_GIVING_UP_S)
        if not self._thread.is_alive():
            self._outlet.close()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        self.put(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def put(self, data: bytes) -> None:
        """One line or entry, whole."""
        self._outbox.put(data)

    def flush(self) -> None:
        """Each line is flushed as it is written."""

    def _deliver_all(self) -> None:
        block_stop_signals()
        while True:
            over = self._over  # what is put before that is delivered
            while (one := self._outbox.take()) is not None:
                try:
                    self._outlet.deliver(self._outlet.lost(one.count) if isinstance(one, Gap) else one)
                except (OSError, ValueError):
                    continue
            if over:
                return
            self._due.wait()
            self._due.clear()


class _Lines:
    """A file descriptor that takes text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def deliver(self, data: bytes) -> None:
        while data:
            data = self._write_some(data)

    def _write_some(self, data: bytes) -> bytes:
        # Not by the stream: whoever closes that, the interpreter at its end for one, would wait for its lock.
        fd = self._stream.fileno()
        try:
            return data[os.write(fd, data) :]
        except BlockingIOError:  # somebody who has the same pipe or terminal does not want it to block
            select.select([], [fd], [])
            return data

    def lost(self, count: int) -> bytes:
        return json.dumps({"event": "log.lost", "level": "warning", "lines": count}).encode() + b"\n"

    def give_up(self) -> bool:
        """A write that blocks is not called off: the thread ends with the process."""
        return False

    def close(self) -> None:
        """The stream is not ours."""
