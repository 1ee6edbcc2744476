"""What holds for a browser's processes with a cgroup and without: set by the programs that start it, and handed on to all that it starts."""

from pathlib import Path

from waguard import host

_CHOOM, _PRLIMIT = Path("/usr/bin/choom"), Path("/usr/bin/prlimit")
"""Of util-linux; where they are not, it goes on without."""
_OOM_SCORE = 100
"""When the machine has no more memory the kernel ends a browser before the daemon, which has 0 or less; and of a browser
first a page, to which Chromium gives 300, proc(5)."""


def command(memory_mb: int) -> list[str]:
    """The command prefix that sets them; 0 MiB is no limit.

    Each process gets no more memory than this that is its own and can be written (RLIMIT_DATA). A page of Chromium 156 counts
    for some 600 MiB there before it takes any; what it cannot have fails in the page, or crashes it.
    """
    most = memory_mb * host.MB
    return [
        *([str(_CHOOM), "-n", str(_OOM_SCORE), "--"] if _CHOOM.exists() else []),
        *([str(_PRLIMIT), f"--data={most}:{most}", "--"] if memory_mb and _PRLIMIT.exists() else []),
    ]
