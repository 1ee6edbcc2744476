"""Start a child with exactly the fds it is to have, and know when it ends. No shell, no fork of this interpreter."""

import asyncio
import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from waguard.sandbox.identity import Handle, Identity, carriers, handles_on
from waguard.system import host, shortage
from waguard.system.fds import inheritable
from waguard.system.threads import Kind, in_thread

# dup2 onto 0..9 in the child must not hit a source fd, so sources are moved above.
_FIRST_SOURCE_FD = 64


_children: set[int] = set()
"""Pids of the direct children that are not collected yet."""
_known = threading.Lock()
"""Held from the spawn until the child is among them, so that no thread takes it for a stray."""


class Child:
    """A direct child: its handle, and the one place that collects its exit status. One that was adopted may be another's."""

    def __init__(self, handle: Handle, *, ours: bool = True) -> None:
        self.handle = handle
        self._ours = ours
        self._reaped = not ours

    @classmethod
    def born(cls, pid: int) -> Self:
        # Nobody else waits for our children, so the pid is ours until `reap`, even if it has exited already.
        row = host.process_row(pid)
        assert row is not None  # noqa: S101 (an unreaped child is always in the table)
        return cls(Handle(Identity(pid, row.start_ticks, host.boot_id()), os.pidfd_open(pid)))

    @classmethod
    def adopt(cls, identity: Identity) -> Self | None:
        """A child of an earlier daemon's, and still our own if that one was this process; none if it is no more."""
        if (handle := Handle.open(identity)) is None:
            return None
        if handle.gone():  # a zombie is nobody's child: it is collected as a stray, if it is ours
            handle.close()
            return None
        row = host.process_row(identity.pid)
        ours = row is not None and row.ppid == os.getpid()
        if ours:
            _children.add(identity.pid)
        return cls(handle, ours=ours)

    def how_it_ended(self, *, as_a_shell: bool = False) -> str:
        """For people. Looks without collecting: while it is a zombie, its pid cannot be taken by others.

        ``as_a_shell``: the child tells of its own child's death by a signal with an exit code of 128 and more.
        """
        if not self._ours:
            return "exit status unknown: started by an earlier daemon"
        if self._reaped:
            return "ended"
        ended = os.waitid(os.P_PID, self.handle.identity.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return "still runs"
        if ended.si_code != os.CLD_EXITED:
            return _killed_by(ended.si_status)
        if as_a_shell and ended.si_status > 128:
            return _killed_by(ended.si_status - 128)
        return f"exit code {ended.si_status}"

    def reap(self) -> None:
        """Collect a child that has ended; its pid is free for others from here."""
        if not self._reaped:
            os.waitpid(self.handle.identity.pid, 0)
            self._reaped = True
            _children.discard(self.handle.identity.pid)


def _killed_by(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    return f"killed by signal {number}, {name}"


def strays(rows: Iterable[host.ProcessRow]) -> Sequence[host.ProcessRow]:
    """Zombies that a subreaper has inherited. What runs in our own session was started by others here, who wait for it."""
    ours = os.getsid(0)
    return [
        row
        for row in rows
        if row.state == "Z" and row.ppid == os.getpid() and row.session != ours and row.pid not in _children
    ]


def collect_strays() -> None:
    """Reap them."""
    for row in strays(host.process_table()):
        with _known, contextlib.suppress(ChildProcessError):  # another sweep may have been quicker
            if row.pid not in _children:
                os.waitpid(row.pid, os.WNOHANG)


def spawn(argv: Sequence[str], env: Mapping[str, str], fds: Mapping[int, int]) -> Child:
    """Start ``argv`` in a session of its own; ``fds`` maps the child's numbers to ours. Others are not inherited.

    Raises `OSError` if the program cannot be started, `LimitReached` if nothing can be just now.
    """
    with shortage.told():
        return _spawn(argv, env, fds)


def _spawn(argv: Sequence[str], env: Mapping[str, str], fds: Mapping[int, int]) -> Child:
    inherited = [fd for fd in inheritable() if fd > 2 and fd not in fds]
    sources: dict[int, int] = {}
    try:
        for child, ours in fds.items():
            sources[child] = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _FIRST_SOURCE_FD)
        with _known:
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
            _children.add(pid)
    finally:
        for fd in sources.values():
            os.close(fd)
    try:
        return Child.born(pid)
    except BaseException:
        # No fd was left for the pidfd. Not collected yet, the pid is still this child's.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _children.discard(pid)
        raise


async def kill_and_prove(handles: Sequence[Handle]) -> None:
    """SIGKILL each, in order, and wait until all have exited; the caller sets the deadline."""
    for handle in handles:
        handle.kill()
    await asyncio.gather(*(handle.wait_gone() for handle in handles))


async def kill_carriers(token: str) -> list[int]:
    """Kill whoever carries a launch's token, until a look finds nobody; returns their pids. The caller sets the deadline."""
    killed = []
    while found := await in_thread(carriers, token, kind=Kind.MACHINE):
        with handles_on(found) as handles:
            await kill_and_prove(handles)
        killed += [identity.pid for identity in found]
    return killed
