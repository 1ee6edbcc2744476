"""Processes, by an independent look at the process table."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
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


def stop(pids: Iterable[int]) -> None:
    """SIGSTOP; when it returns none of them runs any more, which takes a moment where others have the processors."""
    for pid in (pids := [*pids]):
        os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while running := [pid for pid in pids if _runs(pid)]:
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.001)


def _runs(pid: int) -> bool:
    with suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            if (thread / "stat").read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return True
    return False


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
