"""Memory and work of a browser: does it take more than it may?"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from waguard.core.health.faults import Fault
from waguard.errors import PageFailed
from waguard.health.probes.census import Members
from waguard.system import host
from waguard.system.threads import Kind, in_thread


@dataclass(frozen=True, slots=True)
class Usage:
    memory_mb: float
    """MiB that are its processes' own, in memory or swapped out."""
    cpu_s: float
    """Seconds of processor that its processes have used since they began."""


class MemoryProbe:
    faults = frozenset({Fault.MEMORY_HIGH})

    def __init__(
        self,
        members: Members,
        tell: Callable[[Usage], Awaitable[None]],
        hard_mb: float,
        interval_s: float,
        deadline_s: float,
    ) -> None:
        self.interval_s = interval_s
        self.deadline_s = deadline_s
        self._members = members
        self._tell = tell
        self._hard_mb = hard_mb

    async def look(self) -> Mapping[Fault, str]:
        members = await self._members()
        memory = await in_thread(
            lambda: sum(host.anonymous_mb(one.row.pid) for one in members), kind=Kind.MACHINE
        )
        usage = Usage(memory, sum(one.row.cpu_ticks for one in members) * host.TICKS_S)
        await self._tell(usage)
        return judge(usage, self._hard_mb)

    async def unanswered(self, _waited_s: float) -> Mapping[Fault, str]:
        raise PageFailed("That is this machine's doing.")


def judge(usage: Usage, hard_mb: float) -> Mapping[Fault, str]:
    if not hard_mb or usage.memory_mb <= hard_mb:
        return {}
    return {Fault.MEMORY_HIGH: f"{usage.memory_mb:.0f} MiB, more than recycle.hard_memory_mb = {hard_mb:g}"}
