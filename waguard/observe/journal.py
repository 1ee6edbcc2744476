"""Events as entries of systemd's journal, with fields that it finds them by: `journalctl WAGUARD_CLIENT=demo`.

The form is "Native Journal Protocol" of systemd's documentation (JOURNAL_NATIVE_PROTOCOL): a datagram of fields, or the sealed
memfd(2) that holds them if they are too large for one.
"""

import errno
import fcntl
import json
import os
import re
import select
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from waguard.core.plain_text import plain, plain_json

SOCKET = Path("/run/systemd/journal/socket")
INDEXED = (
    *("client", "event", "attempt", "actor", "request", "pid", "profile", "snapshot"),
    *("code", "stage", "finding", "fault", "remedy", "alert", "job"),
)
"""Fields of an event that its entry has as ``WAGUARD_<NAME>`` too, if they are there."""
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""syslog(3)."""
_LOOK_S = 0.2
"""How often is looked whether the journal is back, or takes more, in seconds."""
_TOO_LARGE = {errno.EMSGSIZE, errno.ENOBUFS}
"""For a datagram; the second when the kernel finds no room of that size in one piece."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_PLAIN = re.compile(r'[^\s"=]+')


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream goes to the journal: ``JOURNAL_STREAM`` is its device and inode, systemd.exec(5)."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def entry(_logger: object, _method: str, event: Mapping[str, Any]) -> bytes:
    """The last processor of structlog's. ``MESSAGE`` is for people, ``WAGUARD_FIELDS`` what the log has as JSON elsewhere."""
    level = str(event.get("level", "info"))
    fields = {
        "MESSAGE": message(event),
        "PRIORITY": str(_PRIORITY.get(level, 6)),
        "SYSLOG_IDENTIFIER": "waguard",
        **{f"WAGUARD_{name.upper()}": _text(event[name]) for name in INDEXED if event.get(name) is not None},
        "WAGUARD_FIELDS": plain_json(json.dumps(event, default=repr, ensure_ascii=False)),
    }
    return b"".join(_field(name, value) for name, value in fields.items())


def message(event: Mapping[str, Any]) -> str:
    """``demo: session.changed status=connected``, and what has several lines below it."""
    shown, below = [str(event.get("event", ""))], []
    for name, value in event.items():
        if name in {"event", "client", "level", "timestamp"} or value is None:
            continue
        text = _text(value)
        if isinstance(value, str) and "\n" in value.strip():
            below.append("\n".join((f"{name}:", *map(plain, text.splitlines()))))
        else:
            simple = not isinstance(value, str) or (_PLAIN.fullmatch(text) and text.isprintable())
            shown.append(f"{name}={plain_json(text if simple else json.dumps(text))}")
    client = event.get("client")
    return "\n".join(((f"{client}: " if client else "") + " ".join(shown), *below))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=repr, ensure_ascii=False)


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)


class Journal:
    """An outlet of `Patient`. While the journal is away what is said waits; that is told on ``stream``, once.

    Its own socket: whoever writes to ``stream`` too is not in its way.
    """

    def __init__(self, stream: TextIO, path: Path = SOCKET) -> None:
        self._stream = stream
        self._path = path
        self._socket: socket.socket | None = None
        self._away_since: float | None = None
        self._over = threading.Event()

    def deliver(self, data: bytes) -> None:
        """Returns when the journal has it, or nobody waits any more."""
        while not self._over.is_set():
            try:
                if self._away_since is not None:
                    self._send(self._back(time.monotonic() - self._away_since))
                    self._away_since = None
                self._send(data)
            except TimeoutError:  # it is there, and does not read
                continue
            except OSError as error:
                self.close()
                if self._away_since is None:
                    self._away_since = time.monotonic()
                    self._tell(error)
                self._over.wait(_LOOK_S)
            else:
                return

    def _send(self, data: bytes) -> None:
        """Raises `OSError`; `TimeoutError` when it has no room for it."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.connect(str(self._path))
            self._socket.settimeout(_LOOK_S)
        try:
            self._socket.send(data)
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            self._send_file(self._socket, data)

    @staticmethod
    def _send_file(connection: socket.socket, data: bytes) -> None:
        fd = os.memfd_create("waguard-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            socket.send_fds(connection, [b""], [fd])

    def _tell(self, error: OSError) -> None:
        """A line, if the stream takes it at once."""
        told = {
            "event": "log.journal_away",
            "level": "warning",
            "error": f"{self._path}: {error.strerror or error}",
            "hint": "What is said meanwhile waits. See: systemctl status systemd-journald",
        }
        with suppress(OSError, ValueError):
            fd = self._stream.fileno()
            if select.select([], [fd], [], 0)[1]:
                os.write(fd, json.dumps(told).encode() + b"\n")

    @staticmethod
    def _back(waited_s: float) -> bytes:
        told = {"event": "log.journal_back", "level": "warning", "waited_s": round(waited_s, 1)}
        return entry(None, "", told)

    def lost(self, count: int) -> bytes:
        return entry(None, "", {"event": "log.lost", "level": "warning", "lines": count})

    def give_up(self) -> bool:
        self._over.set()
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
