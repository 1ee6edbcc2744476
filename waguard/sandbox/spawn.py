"""Start a child with exactly the fds it is to have, and know when it ends. No shell, no fork of this interpreter."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence

from waguard import host
from waguard.sandbox.identity import Handle, Identity, boot_id

# dup2 onto 0..9 in the child must not hit a source fd, so sources are moved above.
_FIRST_SOURCE_FD = 64


class Child:
    """A direct child: its handle, and the one place that collects its exit status."""

    def __init__(self, pid: int) -> None:
        # Nobody else waits for our children, so the pid is ours until `reap`, even if it has exited already.
        row = host.process_row(pid)
        assert row is not None  # noqa: S101 (an unreaped child is always in the table)
        self.handle = Handle(Identity(pid, row.start_ticks, boot_id()), os.pidfd_open(pid))
        self.returncode: int | None = None

    async def wait(self) -> int:
        """Wait for the end and collect it; negative is the signal that ended it."""
        await self.handle.wait_gone()
        return self.reap()

    def reap(self) -> int:
        """Collect a child that has ended."""
        if self.returncode is None:
            _, status = os.waitpid(self.handle.identity.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def spawn(argv: Sequence[str], env: Mapping[str, str], fds: Mapping[int, int]) -> Child:
    """Start ``argv`` in a session of its own; ``fds`` maps the child's numbers to ours. Others are not inherited.

    Raises `OSError` if the program cannot be started.
    """
    sources = {
        child: fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _FIRST_SOURCE_FD) for child, ours in fds.items()
    }
    try:
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, ours, child) for child, ours in sources.items()],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
    finally:
        for fd in sources.values():
            os.close(fd)
    return Child(pid)


async def kill_and_prove(handles: Sequence[Handle]) -> None:
    """SIGKILL each, in order, and wait until all have exited; the caller sets the deadline."""
    for handle in handles:
        handle.kill()
    await asyncio.gather(*(handle.wait_gone() for handle in handles))
