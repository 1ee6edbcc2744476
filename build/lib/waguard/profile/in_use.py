"""Whether a browser uses a profile, whoever's it is and wherever it runs: the kernel's word, and no name or number in a file.

LevelDB locks the file LOCK of each database that it has open, fcntl(2). Such a lock is seen from every PID namespace and every
container on this machine, and ends with its holder. Chromium's own ``SingletonLock -> host-pid`` is none of that: a pid is
another process's in another namespace or a moment later, and headless-shell makes none.
"""

import fcntl
import os
import stat
import struct
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from waguard.system.files import Below, NotPlain

# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("hhqqi4x")
_DEPTH = 2
"""No deeper than that does Chromium put a database."""
_MOST = 1000
"""Locks that are asked: a profile has some dozens."""


def holder(profile: Path) -> tuple[Path, int] | None:
    """A lock that somebody holds in a profile's directory (``Default``), and the holder's pid, 0 if it cannot be told; none
    if nobody does. Nothing is written, and nobody is kept waiting. Raises `OSError`.
    """
    for lock in islice(_locks(Below(profile), _DEPTH), _MOST):
        if (pid := _asked(lock)) is not None:
            return lock.path, max(pid, 0)
    return None


def _locks(directory: Below, depth: int) -> Iterator[Below]:
    try:
        there = directory.contents()
    except (FileNotFoundError, NotPlain):
        return
    for name, status in there.items():
        if name == "LOCK":
            yield directory / name
        elif depth and stat.S_ISDIR(status.st_mode):
            yield from _locks(directory / name, depth - 1)


def _asked(lock: Below) -> int | None:
    """The pid of whoever keeps others from locking the file; none if nobody does."""
    wish = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with lock.reading(sys.maxsize) as file:
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, wish))
    except (FileNotFoundError, NotPlain):
        return None
    return None if kind == fcntl.F_UNLCK else int(pid)
