"""Whose a client is: the daemon that owns the sessions directory hands out a tenure of each, and nothing is written or started without."""

import fcntl
import os
import select
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from waguard.core.model import ClientCode
from waguard.errors import AlreadyRunning, TenureLost
from waguard.system.files import as_storage_error

_FREE_S = 2.0
"""Deadline for a lock whose daemon has gone to be free, in seconds.

A daemon that is killed as it starts a process leaves the lock to that, until it is the program: a moment, and longer where others have the processors.
"""
_LOOK_MS = 20


@dataclass(frozen=True, slots=True)
class Tenure:
    """A client is one daemon's, until a later tenure is given: that one has a higher fence."""

    client: ClientCode
    host: str
    fence: int


class Ownership:
    """Of a sessions directory, by a lock on this host: all its clients are ours as long as it is held."""

    def __init__(self, lock_fd: int) -> None:
        self._lock_fd = lock_fd
        self._host = socket.gethostname()

    @classmethod
    def take(cls, root: Path) -> "Ownership":
        """Be the only daemon of this directory. Blocking. Raises `AlreadyRunning`, `StorageFailed`."""
        path = root / ".daemon.lock"
        with as_storage_error(f"open {path}"):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        deadline = time.monotonic() + _FREE_S
        while not _locked(fd):
            if time.monotonic() > deadline:
                os.close(fd)
                raise AlreadyRunning(
                    f"Another waguard owns {root}.", hint=f"See which: fuser -v {path}. Or set sessions.dir."
                )
            select.poll().poll(_LOOK_MS)
        return cls(fd)

    def tenure(self, client: ClientCode) -> Tenure:
        """On one host there is only one of each."""
        return Tenure(client, self._host, 1)

    def check(self, tenure: Tenure) -> None:
        """Raises `TenureLost`: whoever is told so stops, and writes nothing."""
        if self._lock_fd < 0 or tenure != self.tenure(tenure.client):
            raise TenureLost(f"{tenure.client} is not this daemon's any more.", client=tenure.client)

    def give_up(self) -> None:
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
