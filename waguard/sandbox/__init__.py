"""Process isolation: start a browser so that it can be killed whole, and prove that it is gone.

`bubblewrap` does it with namespaces; `plain` does what can be done without. `reaper` ends what an earlier
daemon left. Identity rules are in `identity`, starting children in `spawn`.
"""

import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from waguard.errors import ConfigError
from waguard.sandbox.identity import Identity


@dataclass(frozen=True, slots=True)
class User:
    """The unprivileged user that browsers run as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Spec:
    """What to start. ``fds`` maps the browser's fd numbers to ours; the lock is held until all of it is gone."""

    argv: Sequence[str]
    profile: Path | None
    lock_fd: int
    token: str
    env: Mapping[str, str]
    fds: Mapping[int, int]
    restraints: Sequence[str] = ()
    """The command prefix that limits it: see `limits`."""


class Run(Protocol):
    """One sandbox with one browser in it. Whoever holds it owns the processes."""

    kind: str

    async def identify(self) -> Sequence[Identity]:
        """The processes whose end proves the end of all; known before the browser itself runs.

        Raises `SandboxFailed` when the sandbox could not be made.
        """

    def release(self) -> None:
        """Let the browser start: its identity is on disk now."""

    async def exited(self) -> str:
        """Wait for the browser's end; says how it ended."""

    async def kill(self) -> None:
        """SIGKILL everything and return when it is proved gone; the caller sets the deadline.

        May be called at any time, again after a missed deadline, and on what has ended already.
        """

    def stopped(self) -> bool:
        """Whether the browser is stopped by a signal (SIGSTOP), so that it cannot answer."""

    def members(self) -> Sequence[Identity]:
        """All its processes at this moment, but for those that only hold the sandbox. Blocking."""

    def pids(self) -> Sequence[int]:
        """Pids still known, for a report."""

    def close(self) -> None:
        """Give back the fds."""


class Sandbox(Protocol):
    """A way to start browsers."""

    kind: str
    problem: str
    """Why it is not the better one that was to be tried first; empty if it is as wanted."""
    fenced: bool
    """Whether browsers are started inside the `fence`."""

    def profile_path(self, profile: Path) -> Path:
        """Where the browser finds its profile."""

    def check(self, profile: Path) -> None:
        """Whether the browser will reach its profile. Blocking. Raises `SandboxFailed` with what to change."""

    def start(self, spec: Spec) -> Run:
        """Start it; the browser waits for `Run.release`. Raises `SandboxFailed`."""


def unprivileged_user(name: str) -> User | None:
    """Whom to run browsers as: none when the daemon itself is unprivileged, since then it is the daemon's user.

    Raises `ConfigError` when the configured user does not exist or is root.
    """
    if os.geteuid() != 0:
        return None
    candidates = [name] if name else ["waguard", "nobody"]
    for candidate in candidates:
        try:
            entry = pwd.getpwnam(candidate)
        except KeyError:
            continue
        if entry.pw_uid == 0:
            raise ConfigError(f"browser.user: {candidate} is root.", hint="Name an unprivileged user.")
        return User(candidate, entry.pw_uid, entry.pw_gid)
    raise ConfigError(
        f"browser.user: there is no user {' or '.join(candidates)}.",
        hint="Create one: useradd --system --home-dir /var/lib/waguard --shell /usr/sbin/nologin waguard",
    )


def drop_privileges(user: User) -> list[str]:
    """The command prefix that becomes ``user`` for good: setpriv(1) of util-linux."""
    return [
        "/usr/bin/setpriv",
        f"--reuid={user.uid}",
        f"--regid={user.gid}",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
        "--no-new-privs",
    ]
