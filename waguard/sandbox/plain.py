"""Without namespaces: one process tree per browser, found again by several signs, each by verified identity.

What it cannot promise: a process that leaves the tree, the session and the environment of its parent at once is not
seen, and the browser can read whatever its user can read. Use bubblewrap where it works.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from waguard.errors import SandboxFailed
from waguard.sandbox import Spec, User, drop_privileges
from waguard.sandbox.fence import Fence, started
from waguard.sandbox.identity import TOKEN_VARIABLE, Identity, handles_on
from waguard.sandbox.spawn import Child, collect_strays, kill_and_prove, spawn
from waguard.system import host
from waguard.system.threads import Kind, in_thread

_LOCK_FD = 5
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans of our children become our children instead of PID 1's, prctl(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Plain:
    kind = "plain"

    def __init__(self, user: User | None, fence: Fence | None = None, problem: str = "") -> None:
        self.problem = problem
        self._user = user
        self._fence = fence
        self.fenced = fence is not None

    def profile_path(self, profile: Path) -> Path:
        return profile.absolute()

    def folder_path(self, folder: Path) -> Path:
        return folder.absolute()

    def start(self, spec: Spec) -> "PlainRun":
        argv = [*(drop_privileges(self._user) if self._user else ()), *spec.restraints, *spec.argv]
        env, fds = {**spec.env, TOKEN_VARIABLE: spec.token}, {**spec.fds, _LOCK_FD: spec.lock_fd}
        if (
            spec.profile is not None
        ):  # /tmp is everybody's here, and what a crash leaves at home is its client's
            env["HOME"] = str(spec.profile.absolute())
        try:
            child = started(self._fence, lambda: spawn(argv, env, fds), spec.proxy_port)
        except OSError as error:
            raise SandboxFailed(f"{argv[0]} cannot be started: {error.strerror}.") from None
        return PlainRun(child, spec.token)

    def check(self, profile: Path) -> None:
        if self._user is None:
            return
        for parent in reversed(profile.absolute().parents):
            if not parent.stat().st_mode & 0o001:
                raise SandboxFailed(
                    f"The user that browsers run as cannot reach {profile}: {parent} is closed to others.",
                    hint=f"Set sessions.dir to a place like /var/lib/waguard, or: chmod o+x {parent}",
                )


class PlainRun:
    kind = "plain"

    def __init__(self, child: Child, token: str) -> None:
        self._child = child
        self._token = token

    @classmethod
    def adopt(cls, processes: Sequence[Identity], token: str) -> Self | None:
        """One that an earlier daemon has started; none if it has ended."""
        child = Child.adopt(processes[0])
        return cls(child, token) if child is not None else None

    async def identify(self) -> Sequence[Identity]:
        return (self._child.handle.identity,)

    def release(self) -> None:
        """The browser runs already: without bubblewrap there is nothing that could hold it."""

    async def exited(self) -> str:
        await self._child.handle.wait_gone()
        return self._child.how_it_ended()

    async def kill(self) -> None:
        await end_tree(self._child.handle.identity, self._token)
        await kill_and_prove([self._child.handle])
        self._child.reap()

    def stopped(self) -> bool:
        row = host.process_row(self._child.handle.identity.pid)
        return row is not None and row.state in "Tt"

    def members(self) -> Sequence[Identity]:
        leader = self._child.handle.identity
        return list(_sweep(leader, {leader}, self._token))

    def pids(self) -> Sequence[int]:
        return [] if self._child.handle.gone() else [self._child.handle.identity.pid]

    def close(self) -> None:
        self._child.handle.close()


async def end_tree(leader: Identity, token: str) -> None:
    """Kill a browser without namespaces: sweep until two looks in a row find nothing of it.

    Ours are the leader itself, its descendants, its session (a session's number is not reused while it has a
    member), and whoever carries the launch's token. The caller sets the deadline.
    """
    known = {leader}
    empty = 0
    while empty < 2:
        found = await in_thread(_sweep, leader, known, token, kind=Kind.MACHINE)
        known |= found
        with handles_on(found) as handles:
            await kill_and_prove(handles)
        await in_thread(collect_strays, kind=Kind.MACHINE)
        empty = 0 if found else empty + 1


def _sweep(leader: Identity, known: set[Identity], token: str) -> set[Identity]:
    rows = {row.pid: row for row in host.process_table() if row.state not in "ZX"}
    boot = host.boot_id()
    session_is_ours = leader.current() or any(identity.current() for identity in known - {leader})
    ours: dict[int, Identity] = {}
    for row in rows.values():
        identity = Identity(row.pid, row.start_ticks, boot)
        if (
            identity in known
            or (session_is_ours and row.session == leader.pid and row.start_ticks >= leader.start_ticks)
            or host.environment_has(row.pid, f"{TOKEN_VARIABLE}={token}")
        ):
            ours[row.pid] = identity
    for pid in list(ours):
        for row in host.descendants(pid, rows.values()):
            ours[row.pid] = Identity(row.pid, row.start_ticks, boot)
    ours.pop(os.getpid(), None)
    return set(ours.values())
