"""Who a process is. A pid is half an identity: pids are reused, (boot id, pid, start ticks) is not.

The start ticks are field 22 of ``/proc/PID/stat``, proc(5). A signal is sent only through a pidfd that was opened
between two equal looks at the identity, so it can hit no other process.
"""

import os
import select
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

from waguard.system import host
from waguard.system.fds import readable

TOKEN_VARIABLE = "WAGUARD_LAUNCH"  # noqa: S105 (the name of a variable, not a secret)
"""In the environment of everything we start: a random word that the registry knows, so that a child can be told
from a stranger even when the daemon died before it could write down the child's pid."""


@dataclass(frozen=True, slots=True)
class Identity:
    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Who has this pid now, if anybody."""
        row = host.process_row(pid)
        return None if row is None else cls(pid, row.start_ticks, host.boot_id())

    def current(self) -> bool:
        """Whether this very process is still there (perhaps as a zombie)."""
        return self.boot_id == host.boot_id() and Identity.of(self.pid) == self


class Handle:
    """A pidfd on a verified process; owns the fd."""

    def __init__(self, identity: Identity, pidfd: int) -> None:
        self.identity = identity
        self._pidfd = pidfd

    @classmethod
    def open(cls, identity: Identity) -> Self | None:
        """A handle on exactly this process, or none if it is no more. Raises `OSError` when the kernel refuses."""
        if not identity.current():
            return None
        try:
            pidfd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        if not identity.current():
            os.close(pidfd)
            return None
        return cls(identity, pidfd)

    def kill(self) -> None:
        """SIGKILL; nothing if it is gone already."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """A signal; nothing if it is gone already."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    def gone(self) -> bool:
        """Whether it has exited. For a PID namespace's init this means that everything inside is gone too:
        the kernel lets it exit only after it has killed and collected the rest, pid_namespaces(7).
        """
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    async def wait_gone(self) -> None:
        """Wait until it has exited; the caller sets the deadline."""
        await readable(self._pidfd)

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


@contextmanager
def handles_on(identities: Iterable[Identity]) -> Iterator[list[Handle]]:
    """Handles on those of them that are still there, for the length of a ``with`` block."""
    with ExitStack() as stack:
        found = []
        for identity in identities:
            if (handle := Handle.open(identity)) is not None:
                stack.callback(handle.close)
                found.append(handle)
        yield found


def carriers(token: str) -> list[Identity]:
    """Whoever was started with this launch's token and lives."""
    entry = f"{TOKEN_VARIABLE}={token}"
    return [
        Identity(row.pid, row.start_ticks, host.boot_id())
        for row in host.process_table()
        if row.state not in "ZX" and host.environment_has(row.pid, entry)
    ]
