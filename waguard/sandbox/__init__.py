"""Process isolation: start a browser so that it can be killed whole, and prove that it is gone.

`bubblewrap` does it with namespaces; `plain` does what can be done without. `reaper` ends what an earlier
daemon left. Identity rules are in `identity`, starting children in `spawn`.
"""

import grp
import os
import pwd
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from waguard.errors import ConfigError
from waguard.sandbox.identity import Identity

PKI = ".pki"
"""Below its home: where a browser looks for further certificate authorities, see `browser.authorities`."""


@dataclass(frozen=True, slots=True)
class User:
    """The unprivileged user that browsers run as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Folders:
    """Of the daemon's: what the browser may read of its client's files, and where it may write some."""

    uploads: Path
    downloads: Path


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
    folders: Folders | None = None
    proxy_port: int | None = None
    """Of this machine: its only way out."""


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

    def folder_path(self, folder: Path) -> Path:
        """Where the browser finds one of its `Folders`."""

    def check(self, profile: Path) -> None:
        """Whether the browser will reach its profile. Blocking. Raises `SandboxFailed` with what to change."""

    def start(self, spec: Spec) -> Run:
        """Start it; the browser waits for `Run.release`. Raises `SandboxFailed`."""


_USER = "waguard"
_UIDS = range(60_706, 61_184)
"""Of nobody's: neither Debian's nor systemd's, https://systemd.io/UIDS-GIDS, and within what a container mostly has."""


def unprivileged_user(name: str, place: Path = Path()) -> User | None:
    """Whom to run browsers as: none when the daemon itself is unprivileged, since then it is the daemon's user.

    Not ``nobody``, whose processes others here may have: each may read the other's memory, and so a login. Where there is no user
    waguard, an id that nobody has is taken, another one for each daemon: it is told by ``place``, the sessions directory.
    Raises `ConfigError` when the configured user does not exist or is root.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(name or _USER)
    except KeyError:
        if not name:
            return _of_its_own(place)
        raise ConfigError(
            f"browser.user: there is no user {name}.",
            hint=f"Create one: useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin {name}. "
            "Or leave it out: an id of its own is taken then.",
        ) from None
    if entry.pw_uid == 0:
        raise ConfigError(f"browser.user: {entry.pw_name} is root.", hint="Name an unprivileged user.")
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _of_its_own(place: Path) -> User:
    taken = {one.pw_uid for one in pwd.getpwall()} | {one.gr_gid for one in grp.getgrall()}
    free = [uid for uid in _UIDS if uid not in taken]
    if not free:
        raise ConfigError(
            f"browser.user: no id from {_UIDS[0]} to {_UIDS[-1]} is free.", hint="Name a user there."
        )
    uid = free[zlib.crc32(str(place).encode("utf-8", "surrogateescape")) % len(free)]
    return User(str(uid), uid, uid)


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
