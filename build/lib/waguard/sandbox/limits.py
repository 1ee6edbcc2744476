"""What holds for a browser's processes with a cgroup and without."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from waguard.sandbox.identity import Identity
from waguard.system import host

_PRLIMIT = Path("/usr/bin/prlimit")
"""Of util-linux; where it is not, it goes on without."""
_OOM_SCORE = 100
"""When the machine has no more memory the kernel ends a browser before the daemon, which has 0 or less; and of a browser
first a page, to which Chromium gives 300, proc(5)."""


def command(memory_mb: int) -> list[str]:
    """The command prefix that sets what the browser hands on to all that it starts; 0 MiB is no limit.

    Each process gets no more memory than this that is its own and can be written (RLIMIT_DATA). A page of Chromium 156 counts
    for some 600 MiB there before it takes any; what it cannot have fails in the page, or crashes it.
    """
    most = memory_mb * host.MB
    return [str(_PRLIMIT), f"--data={most}:{most}", "--"] if memory_mb and _PRLIMIT.exists() else []


def volunteer(processes: Iterable[Identity]) -> None:
    """Have the kernel end these before others, as far as we may. Blocking.

    Once the browser answers: a full Chromium sets itself back to 0 when it starts, and what it starts later inherits.
    """
    for one in processes:
        with contextlib.suppress(OSError):  # it has ended, or is not ours to change
            _raise_score(one)


def _raise_score(one: Identity) -> None:
    place = os.open(f"/proc/{one.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not one.current():  # else the directory is of this very process
            return
        fd = os.open("oom_score_adj", os.O_RDWR | os.O_CLOEXEC, dir_fd=place)
        try:
            if int(os.read(fd, 16)) < _OOM_SCORE:
                os.pwrite(fd, b"%d" % _OOM_SCORE, 0)
        finally:
            os.close(fd)
    finally:
        os.close(place)
