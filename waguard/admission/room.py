"""Is there room for one more browser: a place among the sessions, memory, disk? It counts who is up and who is on its way."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from waguard.config.sections import Config
from waguard.core.model import ClientCode, Process
from waguard.errors import DiskFull, NoMemory
from waguard.sandbox.cgroup import Cgroups
from waguard.system import host
from waguard.system.threads import Kind, in_thread

_ON_ITS_WAY = frozenset({Process.PREPARING, Process.STARTING})
_NO_BROWSER = frozenset({Process.DOWN, Process.FAILED})
_INODES = 1000
"""Files that a new profile makes, with some to spare."""

LetGo = Callable[[Callable[[], bool]], Awaitable[None]]
"""Deletes what may go, the oldest first, until there is enough or nothing is left; given whether there is enough, which blocks."""


class Room:
    def __init__(self, config: Config, cgroups: Cgroups | None, let_go: LetGo) -> None:
        self._root, self._limits = config.sessions.dir, config.limits
        self._cgroups = cgroups
        self._let_go = let_go
        self._asking: Counter[ClientCode] = Counter()
        """Those that are being let in."""
        self._processes: dict[ClientCode, Process] = {}
        """Of those that have a browser, or are on their way to one."""

    def note(self, code: ClientCode, process: Process) -> None:
        """A session tells where its browser stands."""
        if process in _NO_BROWSER:
            self._processes.pop(code, None)
        else:
            self._processes[code] = process

    @contextmanager
    def counted(self, code: ClientCode) -> Iterator[None]:
        """It is on its way from here, so that callers at the same time do not all get the last place."""
        self._asking[code] += 1
        try:
            yield
        finally:
            self._asking[code] -= 1
            self._asking += Counter()  # without those of nobody

    def counts(self, code: ClientCode) -> bool:
        """Whether it is being let in."""
        return self._asking[code] > 0

    async def find(self, code: ClientCode) -> None:
        """Raises `NoMemory` or `DiskFull` if it finds no place beside the others."""
        others = (self._processes.keys() | self._asking.keys()) - {code}
        coming = sum(self.counts(one) or self._processes[one] in _ON_ITS_WAY for one in others)
        if len(others) >= self._limits.max_sessions:
            raise NoMemory(
                f"As many sessions are up as limits.max_sessions allows: {len(others)}.",
                hint="Disconnect one, or raise limits.max_sessions.",
                retry_after_s=60,
            )
        # Browsers on their way up have not taken their memory yet: count what they will take.
        needed = self._limits.reserve_memory_mb + self._limits.session_memory_mb * (coming + 1)
        free = await in_thread(host.available_memory_mb, kind=Kind.MACHINE)
        if free < needed:
            raise NoMemory(
                f"{free} MiB of memory are free, and one more session needs {needed} MiB.",
                hint="Disconnect a session, or lower limits.session_memory_mb or limits.reserve_memory_mb.",
                retry_after_s=60,
            )
        await self._look_at_pressure()
        await self.find_disk()

    async def _look_at_pressure(self) -> None:
        """Free memory says little of a machine that gets it by throwing out what is needed at once. Raises `NoMemory`."""
        limit = self._limits.memory_pressure
        if not limit:
            return
        ours = [self._cgroups.memory_pressure] if self._cgroups is not None else []
        stalled = await in_thread(host.stalled, host.MEMORY_PRESSURE, *ours, kind=Kind.MACHINE)
        if stalled is not None and stalled > limit:
            raise NoMemory(
                f"Memory pressure is {stalled:g} % (limit {limit:g} %, limits.memory_pressure): the machine is thrashing.",
                hint="A session that is wanted is tried again automatically. Disconnect a session, or add memory.",
                retry_after_s=15,
            )

    async def find_disk(self, more_bytes: int = 0, more_files: int = 0) -> None:
        """See that there is disk, for what is laid out too, if need be where retired profiles are. Raises `DiskFull`."""

        def lack() -> str:
            return self._lack(more_bytes, more_files)

        if await in_thread(lack):
            await self._let_go(lambda: not lack())
            if what := await in_thread(lack):
                raise DiskFull(what, hint="Free some space. Sessions that are up go on.")

    async def disk_lack(self) -> str:
        """What is missing on the disk for one more session; empty if nothing."""
        return await in_thread(self._lack)

    def _lack(self, more_bytes: int = 0, more_files: int = 0) -> str:
        root, reserve = self._root, self._limits.reserve_disk_mb
        disk, inodes = host.free_disk_mb(root), host.free_inodes(root)
        needed = math.ceil(more_bytes / host.MB)
        if disk < reserve + needed:
            besides = f" and {needed} MiB for what is to be written" if needed else ""
            return f"{disk} MiB of disk are free below {root}, less than limits.reserve_disk_mb = {reserve}{besides}."
        files = _INODES + more_files
        if inodes is not None and inodes < files and (reserve or more_files):
            return f"Only {inodes} more files can be created below {root}; a session needs {files}."
        return ""
