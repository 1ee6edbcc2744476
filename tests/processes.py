"""Processes, by an independent look at the process table."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from waguard.system import host


def family(pid: int) -> set[int]:
    """``pid`` and every living descendant of it, by an independent look at the process table."""
    found = {pid}
    rows = [row for row in host.process_table() if row.state not in "ZX"]
    while more := {row.pid for row in rows if row.ppid in found and row.pid not in found}:
        found |= more
    return found


def alive(pids: set[int]) -> set[int]:
    return {row.pid for row in host.process_table() if row.pid in pids and row.state not in "ZX"}


def commanded(words: bytes) -> set[int]:
    """Living processes below this one that have these words on their command line. Others beside it, of another run say, are not seen."""
    found = set()
    for pid in family(os.getpid()) - {os.getpid()}:
        with suppress(OSError):
            if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[int]:
    """Another process holds the lock; its pid."""
    script = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR), 2); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        yield holder.pid
        holder.kill()
