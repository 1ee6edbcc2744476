"""A cgroup for each browser, where the daemon was given a subtree of its own: limits, what it takes, and that it is gone.

Control Group v2, cgroup-v2.rst of the kernel. A subtree is ours if whoever runs the services has marked it so: systemd does with
``Delegate=yes``, "Control Group APIs and Delegation" of its documentation. In it are::

    <the service>/                    no process of ours stays here
        daemon/                       us; or whatever DelegateSubgroup= says
        session-<code>.<token>/       one for each launch

Everything here blocks for moments: call it from a thread.
"""

import contextlib
import os
import re
import select
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from waguard.core.model import ClientCode
from waguard.sandbox import Run
from waguard.sandbox.identity import Identity
from waguard.system import host

DAEMON = "daemon"
_MARKS = ("user.delegate", "trusted.delegate")
"""Extended attributes that systemd puts on what it has delegated: the first since version 251, the second is for root alone."""
_MOVED = "user.waguard.moved"
"""Ours, on the leaf that we have moved ourselves to: a daemon that was executed anew in place finds itself there, too."""
_WANTED = ("memory", "pids")
"""Controllers."""
_LOOK_MS = 100
_SESSION = re.compile(r"session-[A-Za-z0-9_-]+\.[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What one browser may take at most; 0 sets no limit."""

    memory_mb: int = 0
    pids: int = 0
    """Threads count."""


@dataclass(frozen=True, slots=True)
class Used:
    """What all processes of a cgroup have taken, those that have ended too; none where the kernel does not count it."""

    cpu_s: float | None
    memory_mb: float | None
    """Now, with the cache of its files."""
    memory_peak_mb: float | None
    """Since Linux 5.19."""
    pids: int | None


@dataclass(frozen=True, slots=True)
class Kills:
    """How often the kernel has ended a process of a cgroup for want of memory; and how often the cgroup was at its own limit."""

    killed: int = 0
    full: int = 0


class Leaf:
    """The cgroup of one launch, whether it is there or not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def client(self) -> str:
        """Whose it is, by its name."""
        return self.path.name.removeprefix("session-").rpartition(".")[0]

    def take(self, run: Run, identities: Iterable[Identity], ceiling: Mapping[str, int]) -> None:
        """Make it and put the launch in; before `Run.release` that is all of it. Raises `OSError`."""
        self.path.mkdir(exist_ok=True)
        for name, value in ceiling.items():
            self._write(name, str(value))
        inside: set[Identity] = set()
        fresh = set(identities)
        while fresh:
            for one in fresh:
                if one.current():
                    with contextlib.suppress(ProcessLookupError):
                        self._write("cgroup.procs", str(one.pid))
            inside |= fresh
            # Without namespaces it runs already, and may have had children before it was moved.
            fresh = set(run.members()) - inside if run.kind == "plain" else set()

    def end(self, stop: threading.Event) -> Used | None:
        """Kill whoever is still in it, wait until nobody is, and remove it; none if there was none. Raises `OSError`.

        Returns early when ``stop`` is set.
        """
        try:
            events = os.open(self.path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if _populated(events):
                self._write("cgroup.kill", "1")
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while not stop.is_set() and _populated(events):
                poll.poll(_LOOK_MS)
            used = self.used()
            if not stop.is_set():
                _remove(self.path)
        finally:
            os.close(events)
        return used

    def used(self) -> Used:
        memory, peak, pids = (
            self._number(name) for name in ("memory.current", "memory.peak", "pids.current")
        )
        return Used(
            _cpu_s(self.path),
            None if memory is None else memory / host.MB,
            None if peak is None else peak / host.MB,
            pids,
        )

    def kills(self) -> Kills:
        """Nothing where the kernel does not count them."""
        try:
            counts = dict(line.split() for line in self._read("memory.events").splitlines())
            return Kills(int(counts["oom_kill"]), int(counts["oom"]))
        except (OSError, ValueError, KeyError):
            return Kills()

    def pids(self) -> list[int]:
        """Whoever is in it."""
        try:
            return [int(line) for line in self._read("cgroup.procs").split()]
        except OSError:
            return []

    def _read(self, name: str) -> str:
        return (self.path / name).read_text(encoding="ascii")

    def _write(self, name: str, text: str) -> None:
        _write(self.path / name, text)

    def _number(self, name: str) -> int | None:
        try:
            return int(self._read(name))
        except (OSError, ValueError):
            return None


class Cgroups:
    """The subtree that is ours."""

    def __init__(
        self, root: Path, *, controllers: frozenset[str], why_no_limits: str, ceiling: Ceiling
    ) -> None:
        self.root = root
        self.controllers = controllers
        """What may be limited and is counted."""
        self.why_no_limits = why_no_limits
        """Empty if all that is wanted can be."""
        self._ceiling = ceiling

    @classmethod
    def find(cls, ceiling: Ceiling, own: Path | str | None = None) -> Self | str:
        """Take possession of the subtree that we were started in, or say why there is none.

        Moves this process to the leaf ``daemon`` unless it is in one, and removes empty leaves that an earlier daemon has left.
        ``own`` is our cgroup's directory, or why it is not known.
        """
        own = _own() if own is None else own
        if isinstance(own, str):
            return own
        below = not _is_marked(own) and _is_marked(own.parent)
        if not below and not _is_marked(own):
            return f"The cgroup {own} was not delegated to us."
        root = own.parent if below else own
        if not (root / "cgroup.kill").exists():
            return "The kernel cannot end a cgroup: it is older than Linux 5.14."
        try:
            moved = _move(root) if not below else _has(own, _MOVED)
            for leaf in _leaves(root):
                with contextlib.suppress(OSError):  # one that is in use cannot be removed
                    _remove(leaf.path)
            controllers, why = _enable(root, moved=moved)
        except OSError as error:
            return f"The cgroup {root} cannot be used: {error.strerror}."
        return cls(root, controllers=controllers, why_no_limits=why, ceiling=ceiling)

    def leaf(self, code: ClientCode, token: str) -> Leaf:
        """Of a launch, by an earlier daemon too."""
        return Leaf(self.root / f"session-{code}.{token[:8]}")

    def leaves(self) -> list[Leaf]:
        """Those that are there."""
        return _leaves(self.root)

    def take(
        self,
        code: ClientCode,
        token: str,
        run: Run,
        identities: Iterable[Identity],
        memory_mb: int | None = None,
    ) -> None:
        """Put a launch into a leaf of its own. ``memory_mb``: instead of the ceiling's. Raises `OSError`."""
        memory = self._ceiling.memory_mb if memory_mb is None else memory_mb
        wanted = {"memory.max": memory * host.MB, "pids.max": self._ceiling.pids}
        known = {name: value for name, value in wanted.items() if name.split(".")[0] in self.controllers}
        self.leaf(code, token).take(run, identities, {name: value for name, value in known.items() if value})

    @property
    def memory_pressure(self) -> Path:
        """PSI of all that is in the subtree, for `host.stalled`."""
        return self.root / "memory.pressure"


def _leaves(root: Path) -> list[Leaf]:
    return [Leaf(path) for path in sorted(root.glob("session-*")) if _SESSION.fullmatch(path.name)]


def _own() -> Path | str:
    """The directory of this process's cgroup, or why there is none."""
    mounts = [line.split() for line in _text("/proc/self/mountinfo").splitlines()]
    mount = next((one for one in mounts if one[one.index("-") + 1] == "cgroup2"), None)
    line = next((line for line in _text("/proc/self/cgroup").splitlines() if line.startswith("0::")), None)
    if mount is None or line is None:
        return "This machine has no cgroup v2."
    top, place = Path(_unescaped(mount[3])), Path(_unescaped(mount[4]))
    try:
        return place / Path(line.removeprefix("0::")).relative_to(top)
    except ValueError:
        return "Our cgroup is outside of what is mounted here."


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _unescaped(text: str) -> str:
    """Space, tab, newline and backslash are octal there, proc(5)."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _is_marked(path: Path) -> bool:
    return any(_has(path, mark) for mark in _MARKS)


def _has(path: Path, name: str) -> bool:
    try:
        return os.getxattr(path, name) == b"1"
    except OSError:
        return False


def _move(root: Path) -> bool:
    leaf = root / DAEMON
    leaf.mkdir(exist_ok=True)
    with contextlib.suppress(
        OSError
    ):  # a kernel without user's attributes here has no mark of the first kind either
        os.setxattr(leaf, _MOVED, b"1")
    _write(leaf / "cgroup.procs", "0")  # the writer itself
    return True


def _enable(root: Path, *, moved: bool) -> tuple[frozenset[str], str]:
    """Have the controllers in the leaves; which there are, and why not all of them.

    Not where we had to move ourselves: the service manager starts the next daemon in ``root``, and no process may be in a cgroup
    that gives controllers to others (EBUSY, which systemd 252 makes a failed start of). Since 254 there is ``DelegateSubgroup=``.
    """
    there = _read_words(root / "cgroup.controllers")
    enabled = _read_words(root / "cgroup.subtree_control")
    lacking = [name for name in _WANTED if name not in there]
    if moved and not enabled.issuperset(_WANTED):
        return enabled, "The daemon was not started in a subgroup: that needs DelegateSubgroup=, systemd 254."
    for name in set(_WANTED) & there - enabled:
        try:
            _write(root / "cgroup.subtree_control", f"+{name}")
        except OSError as error:
            return enabled, f"{name} cannot be enabled in {root}: {error.strerror}."
    enabled = _read_words(root / "cgroup.subtree_control")
    return enabled, f"There is no controller for: {', '.join(lacking)}." if lacking else ""


def _read_words(path: Path) -> frozenset[str]:
    return frozenset(path.read_text(encoding="ascii").split())


def _populated(events: int) -> bool:
    return b"populated 1" in os.pread(events, 4096, 0)


def _cpu_s(path: Path) -> float | None:
    try:
        text = (path / "cpu.stat").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^usage_usec (\d+)$", text, re.MULTILINE)
    return None if found is None else int(found[1]) / 1e6


def _remove(path: Path) -> None:
    """With what somebody has made in it."""
    below = [Path(at) for at, _, _ in os.walk(path, topdown=False)]
    for one in below:
        with contextlib.suppress(FileNotFoundError):
            one.rmdir()


def _write(path: Path, text: str) -> None:
    # Not by a buffer: the kernel's refusal must come with this write, and there must be one only.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)
