"""Start a child with exactly the fds it is to have, and know when it ends. No shell, no fork of this interpreter."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence

from waguard import host
from waguard.fds import inheritable
from waguard.files import in_thread
from waguard.sandbox.identity import Handle, Identity, carriers, handles_on

# dup2 onto 0..9 in the child must not hit a source fd, so sources are moved above.
_FIRST_SOURCE_FD = 64


class Child:
    """A direct child: its handle, and the one place that collects its exit status."""

    def __init__(self, pid: int) -> None:
        # Nobody else waits for our children, so the pid is ours until `reap`, even if it has exited already.
        row = host.process_row(pid)
        assert row is not None  # noqa: S101 (an unreaped child is always in the table)
        self.handle = Handle(Identity(pid, row.start_ticks, host.boot_id()), os.pidfd_open(pid))
        self._reaped = False

    def how_it_ended(self) -> str:
        """For people. Looks without collecting: while it is a zombie, its pid cannot be taken by others."""
        if self._reaped:
            return "ended"
        ended = os.waitid(os.P_PID, self.handle.identity.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return "still runs"
        if ended.si_code == os.CLD_EXITED:
            return f"exit code {ended.si_status}"
        return f"killed by signal {ended.si_status}"

    def reap(self) -> None:
        """Collect a child that has ended; its pid is free for others from here."""
        if not self._reaped:
            os.waitpid(self.handle.identity.pid, 0)
            self._reaped = True


def spawn(argv: Sequence[str], env: Mapping[str, str], fds: Mapping[int, int]) -> Child:
    """Start ``argv`` in a session of its own; ``fds`` maps the child's numbers to ours. Others are not inherited.

    Raises `OSError` if the program cannot be started.
    """
    inherited = [fd for fd in inheritable() if fd > 2 and fd not in fds]
    sources = {
        child: fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _FIRST_SOURCE_FD) for child, ours in fds.items()
    }
    try:
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            env,
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, ours, child) for child, ours in sources.items()),
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in inherited),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
    finally:
        for fd in sources.values():
            os.close(fd)
    try:
        return Child(pid)
    except BaseException:
        # No fd was left for the pidfd. Not collected yet, the pid is still this child's.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


async def kill_and_prove(handles: Sequence[Handle]) -> None:
    """SIGKILL each, in order, and wait until all have exited; the caller sets the deadline."""
    for handle in handles:
        handle.kill()
    await asyncio.gather(*(handle.wait_gone() for handle in handles))


async def kill_carriers(token: str) -> list[int]:
    """Kill whoever carries a launch's token, until a look finds nobody; returns their pids. The caller sets the deadline."""
    killed = []
    while found := await in_thread(carriers, token):
        with handles_on(found) as handles:
            await kill_and_prove(handles)
        killed += [identity.pid for identity in found]
    return killed
