"""A stream whose reader may stop reading: what it does not take waits here, and nobody else does."""

import json
import os
import queue
import select
import threading
from types import TracebackType
from typing import Self, TextIO

_MOST_LINES = 10_000
_LAST_WORDS_S = 2.0


class Patient:
    """``with Patient(sys.stderr) as stream``: writes never block, and are written in order by a thread of its own.

    When more lines wait than it keeps, the next ones are counted instead, and the count is told in a line
    ``log.lost``. Leaving the block waits a moment for the reader. A dead stream swallows what it is given.
    """

    def __init__(self, stream: TextIO, most: int = _MOST_LINES) -> None:
        """``stream`` has a file descriptor, and is not written to by others."""
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(most)
        self._lost = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._tell_lost(_LAST_WORDS_S)
            self._lines.put(None, timeout=_LAST_WORDS_S)
        except queue.Full:
            return
        self._thread.join(_LAST_WORDS_S)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        try:
            self._tell_lost()
            self._lines.put_nowait(text)
        except queue.Full:
            self._lost += 1
        return len(text)

    def _tell_lost(self, timeout_s: float | None = None) -> None:
        if self._lost:
            told = {"event": "log.lost", "level": "warning", "lines": self._lost}
            self._lines.put(json.dumps(told) + "\n", block=timeout_s is not None, timeout=timeout_s)
            self._lost = 0

    def flush(self) -> None:
        """Each line is flushed as it is written."""

    def _write_all(self) -> None:
        while (text := self._lines.get()) is not None:
            # Not by the stream: whoever closes that, the interpreter at its end for one, would wait for its lock.
            data = text.encode("utf-8", "backslashreplace")
            try:
                while data:
                    data = self._write_some(data)
            except (OSError, ValueError):
                continue

    def _write_some(self, data: bytes) -> bytes:
        fd = self._stream.fileno()
        try:
            return data[os.write(fd, data) :]
        except BlockingIOError:  # somebody who has the same pipe or terminal does not want it to block
            select.select([], [fd], [])
            return data
