"""What holds for a browser's processes with a cgroup and without."""

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from waguard.core.labels import Priority
from waguard.sandbox.identity import Identity
from waguard.system import host

_PRLIMIT = Path("/usr/bin/prlimit")
"""Of util-linux; where it is not, it goes on without."""
_NICENESS = 5
"""A browser stands behind the daemon where both want a processor: each page has a few busy threads, the daemon has one."""
_OOM_SCORES = {Priority.HIGH: 50, Priority.NORMAL: 100, Priority.LOW: 200}
"""When the machine has no more memory the kernel ends a browser before the daemon, which has 0 or less; and of a browser
first a page, to which Chromium gives 300, proc(5)."""


def command(memory_mb: int) -> list[str]:
    """The command prefix that sets what the browser hands on to all that it starts; 0 MiB is no limit.

    Each process gets no more memory than this that is its own and can be written (RLIMIT_DATA). A page of Chromium 156 counts
    for some 600 MiB there before it takes any; what it cannot have fails in the page, or crashes it.
    """
    most = memory_mb * host.MB
    return [str(_PRLIMIT), f"--data={most}:{most}", "--"] if memory_mb and _PRLIMIT.exists() else []


def stand_behind() -> None:
    """Have this thread, and all that it starts, stand behind others for the processor.

    It is nicer, which the kernel keeps for each thread (setpriority(2), "C library/kernel differences"), and never takes the processor from who is
    at work because it has something to do itself (SCHED_BATCH, sched(7)): the threads of a page wake each other thousands of times a second.
    """
    # A filter of a container's may forbid either.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def place_behind(processes: Iterable[Identity]) -> None:
    """Have the sessions of these stand behind others for the processor, as they do themselves. Blocking.

    Before the browser runs: those that start would else go before those that are there.
    """
    for one in processes:
        # It has ended, the kernel has none of these, or see `volunteer`.
        with contextlib.suppress(OSError):
            _change(one, "autogroup", _make_nicer)


def volunteer(processes: Sequence[Identity], priority: Priority = Priority.NORMAL) -> None:
    """Have the kernel end these before others, as far as we may. Blocking.

    Once the browser answers: a full Chromium sets itself back to 0 when it starts, and what it starts later inherits. Then their
    sessions are asked once more, `place_behind`: of whoever is not root the kernel takes one such change in 0.1 s, and another browser may have had it.
    """
    for one in processes:
        with contextlib.suppress(OSError):  # it has ended, or is not ours to change
            _change(one, "oom_score_adj", partial(_raise_score, _OOM_SCORES[priority]))
    place_behind(processes)


def _change(one: Identity, name: str, change: Callable[[int], None]) -> None:
    place = os.open(f"/proc/{one.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not one.current():  # else the directory is of this very process
            return
        fd = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=place)
        try:
            change(fd)
        finally:
            os.close(fd)
    finally:
        os.close(place)


def _raise_score(score: int, fd: int) -> None:
    if int(os.read(fd, 16)) < score:
        os.pwrite(fd, b"%d" % score, 0)


def _make_nicer(fd: int) -> None:
    """Where the kernel shares out the processor by sessions of processes, what counts is how nice a session is, and not how nice they are, sched(7)."""
    if not os.pread(fd, 64, 0).endswith(b" nice %d\n" % _NICENESS):  # one of its processes was asked before
        os.write(fd, b"%d" % _NICENESS)
