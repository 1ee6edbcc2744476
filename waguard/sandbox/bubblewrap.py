"""One set of namespaces per browser, made by bubblewrap (bwrap(1)).

Its processes: the *monitor* (our child, outside), the *init* (pid 1 of the namespace, also bwrap), the browser.
A pidfd on the init is the handle: killed, the kernel kills all the rest before the init itself is gone.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from waguard.errors import SandboxFailed
from waguard.sandbox import PKI, Folders, Spec, User, drop_privileges
from waguard.sandbox.etc import NAMES
from waguard.sandbox.fence import Fence, started
from waguard.sandbox.identity import TOKEN_VARIABLE, Handle, Identity
from waguard.sandbox.spawn import Child, kill_and_prove, kill_carriers, spawn
from waguard.system import host
from waguard.system.fds import pipe, readable

# What the browser finds at its feet: fds of the child, beside 0..4 of the spec.
_LOCK_FD, _INFO_FD, _BLOCK_FD = 5, 6, 7
_PROFILE = Path("/profile")
_ETC = "kept-current"
"""Below its /etc: where the copies of `Etc` are."""

_VIEW: tuple[str, ...] = (
    # --perms: as root, bwrap makes parents that only root may enter.
    *("--ro-bind", "/usr", "/usr"),
    *("--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"),
    *("--symlink", "usr/bin", "/bin", "--symlink", "usr/sbin", "/sbin"),
    *(
        "--perms",
        "0755",
        "--dir",
        "/etc",
        "--perms",
        "0755",
        "--dir",
        "/var",
        "--perms",
        "0755",
        "--dir",
        "/var/cache",
    ),
    *(
        "--ro-bind-try",
        "/etc/fonts",
        "/etc/fonts",
        "--ro-bind-try",
        "/var/cache/fontconfig",
        "/var/cache/fontconfig",
    ),
    *(
        "--ro-bind-try",
        "/etc/ssl",
        "/etc/ssl",
        "--ro-bind-try",
        "/etc/ca-certificates",
        "/etc/ca-certificates",
    ),
    *("--ro-bind-try", "/etc/alternatives", "/etc/alternatives"),
    *("--proc", "/proc", "--dev", "/dev"),
    *("--perms", "1777", "--tmpfs", "/dev/shm", "--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108 (inside the sandbox)
)


class Bubblewrap:
    """Starts browsers in namespaces of their own. As root it needs no user namespace and drops privileges inside."""

    kind = "bubblewrap"
    problem = ""

    def __init__(
        self, program: Path, user: User | None, fence: Fence | None = None, etc: Path | None = None
    ) -> None:
        self._program = program
        self._etc = etc
        self._user = user
        self._fence = fence
        self.fenced = fence is not None

    @staticmethod
    def find() -> Path | None:
        found = shutil.which("bwrap")
        return Path(found) if found else None

    def profile_path(self, _profile: Path) -> Path:
        return _PROFILE

    def folder_path(self, folder: Path) -> Path:
        return Path("/", folder.name)

    def check(self, _profile: Path) -> None:
        """Whatever the way there looks like: bubblewrap brings the profile to the browser."""

    def command(
        self,
        argv: Sequence[str],
        profile: Path | None,
        restraints: Sequence[str] = (),
        folders: Folders | None = None,
    ) -> list[str]:
        """The whole command line; everything the browser may see is in it."""
        command = [
            str(self._program),
            "--unshare-pid",
            "--unshare-ipc",
        ]
        if self._user is None:
            command.append("--unshare-user")
        else:
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
                command += ["--cap-add", capability]
        command += _VIEW
        if self._etc is not None:
            command += ["--ro-bind", str(self._etc), f"/etc/{_ETC}"]
            for name in NAMES:
                command += ["--symlink", f"{_ETC}/{name}", f"/etc/{name}"]
        home = Path(argv[0]).parent
        if not home.is_relative_to("/usr"):
            for parent in reversed(home.parents[:-1]):
                command += ["--perms", "0755", "--dir", str(parent)]
            command += ["--ro-bind", str(home), str(home)]
        if profile is not None:
            command += ["--bind", str(profile), str(_PROFILE)]
            command += ["--symlink", f"{_PROFILE}/{PKI}", f"/tmp/{PKI}"]  # noqa: S108 (inside the sandbox)
        if folders is not None:
            command += ["--ro-bind", str(folders.uploads), str(self.folder_path(folders.uploads))]
            command += ["--bind", str(folders.downloads), str(self.folder_path(folders.downloads))]
        command += ["--unsetenv", TOKEN_VARIABLE, "--chdir", "/"]
        command += [
            "--sync-fd",
            str(_LOCK_FD),
            "--info-fd",
            str(_INFO_FD),
            "--block-fd",
            str(_BLOCK_FD),
            "--",
        ]
        return [*command, *(drop_privileges(self._user) if self._user else ()), *restraints, *argv]

    def start(self, spec: Spec) -> "BubblewrapRun":
        env = {**spec.env, TOKEN_VARIABLE: spec.token}
        with ExitStack() as ours, ExitStack() as theirs:
            info_read, info_write = pipe(ours, theirs)
            block_read, block_write = pipe(theirs, ours)
            fds = {**spec.fds, _LOCK_FD: spec.lock_fd, _INFO_FD: info_write, _BLOCK_FD: block_read}
            try:
                command = self.command(spec.argv, spec.profile, spec.restraints, spec.folders)
                child = started(self._fence, lambda: spawn(command, env, fds), spec.proxy_port)
            except OSError as error:
                raise SandboxFailed(f"{self._program} cannot be started: {error.strerror}.") from None
            ours.pop_all()
        return BubblewrapRun(child, spec.token, info_read, block_write)


class BubblewrapRun:
    kind = "bubblewrap"

    def __init__(
        self, child: Child, token: str, info_fd: int = -1, block_fd: int = -1, init: Handle | None = None
    ) -> None:
        self._child = child
        self._token = token
        self._init = init
        self._info_fd = info_fd
        self._block_fd = block_fd

    @classmethod
    def adopt(cls, processes: Sequence[Identity], token: str) -> Self | None:
        """One that an earlier daemon has started, by what `identify` has told of it; none if it has ended."""
        if len(processes) != 2:  # as no `identify` has told it
            return None
        inner, outer = processes
        if (init := Handle.open(inner)) is None:
            return None
        if (monitor := Child.adopt(outer)) is None:
            init.close()
            return None
        return cls(monitor, token, init=init)

    async def identify(self) -> Sequence[Identity]:
        text = await _read_object(self._info_fd)
        try:
            pid = int(json.loads(text)["child-pid"])
        except (ValueError, KeyError):
            raise SandboxFailed(
                "bubblewrap could not make the namespaces.", hint="Run: waguard doctor"
            ) from None
        monitor = self._child.handle.identity
        row = host.process_row(pid)
        self._init = (
            Handle.open(Identity(pid, row.start_ticks, monitor.boot_id))
            if row and row.ppid == monitor.pid
            else None
        )
        if self._init is None:
            raise SandboxFailed("bubblewrap ended while it made the namespaces.", hint="Run: waguard doctor")
        return (self._init.identity, monitor)

    def release(self) -> None:
        if self._block_fd >= 0:
            os.close(self._block_fd)  # bwrap goes on at end of file as well as at a byte
            self._block_fd = -1

    async def exited(self) -> str:
        # The monitor leaves with the browser's own exit status, even while a stray inside keeps the init alive.
        await self._child.handle.wait_gone()
        return self._child.how_it_ended(as_a_shell=True)

    async def kill(self) -> None:
        # The monitor too: a stopped one would not notice that its child is gone.
        await kill_and_prove([self._init] if self._init else [])
        await kill_and_prove([self._child.handle])
        if self._init is None:
            # Ended before it told its init's pid; with the monitor gone it makes no new one.
            await kill_carriers(self._token)
        self._child.reap()

    def stopped(self) -> bool:
        if self._init is None:
            return False
        init = self._init.identity.pid
        return any(row.ppid == init and row.state in "Tt" for row in host.below(init))

    def members(self) -> Sequence[Identity]:
        if self._init is None or self._init.gone():
            return ()
        init = self._init.identity
        below = host.below(init.pid)
        return [Identity(row.pid, row.start_ticks, init.boot_id) for row in below if row.state not in "ZX"]

    def pids(self) -> Sequence[int]:
        handles = [self._init, self._child.handle] if self._init else [self._child.handle]
        return [handle.identity.pid for handle in handles if not handle.gone()]

    def close(self) -> None:
        self.release()
        if self._info_fd >= 0:
            os.close(self._info_fd)
            self._info_fd = -1
        for handle in (self._init, self._child.handle):
            if handle is not None:
                handle.close()


async def _read_object(fd: int) -> bytes:
    """One JSON object, or what there is of it at end of file, without blocking the loop; the caller sets the deadline."""
    os.set_blocking(fd, False)
    data = b""
    while not data.rstrip().endswith(b"}"):
        await readable(fd)
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(fd, 4096)
            if not chunk:
                break
            data += chunk
    return data
