"""Does anything move? Busy is not hung: whoever computes, or waits for a processor or a disk, is at work."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from waguard.core.health.faults import Fault
from waguard.errors import PageFailed
from waguard.health.probes.census import Members
from waguard.system import host
from waguard.system.host import Effort

_SHARE = 0.1
"""Of the time between two looks: with less of it spent at work nothing moves."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What processes have done since the last look, the most of any of them, all threads of it."""

    ran_s: float = 0.0
    waited_s: float = 0.0
    on_disk: bool = False

    def at_work(self, passed_s: float, share: float = _SHARE) -> bool:
        return self.on_disk or self.ran_s + self.waited_s > share * passed_s


class Efforts:
    """Remembers what it saw last. Its looks are at procfs: some ten microseconds for each thread."""

    def __init__(self) -> None:
        self._last: Mapping[int, Effort] = {}

    def look(self, pids: Collection[int]) -> Moved:
        """Of a process not seen before nothing is known yet."""
        now = {pid: effort for pid in pids if (effort := host.effort(pid)) is not None}
        moved = [
            Moved(one.ran_s - before.ran_s, max(0.0, one.waited_s - before.waited_s), one.on_disk)
            for pid, one in now.items()
            if (before := self._last.get(pid)) is not None
        ]
        self._last = now
        return Moved(
            max((one.ran_s for one in moved), default=0.0),
            max((one.waited_s for one in moved), default=0.0),
            any(one.on_disk for one in moved),
        )


class AnswerProbe:
    """Asks for something that one kind of process has to answer; silence counts if that process is not at work."""

    def __init__(
        self,
        fault: Fault,
        role: str,
        ask: Callable[[], Awaitable[object]],
        relayed: Callable[[], Awaitable[bool]],
        members: Members,
        interval_s: float,
        deadline_s: float,
    ) -> None:
        """``relayed``: whether those answer that the question goes through."""
        self.faults = frozenset({fault})
        self.interval_s = interval_s
        self.deadline_s = deadline_s
        self._fault = fault
        self._role = role
        self._ask = ask
        self._relayed = relayed
        self._members = members
        self._efforts: Efforts | None = None
        """Since the first look that was not answered."""

    async def look(self) -> Mapping[Fault, str]:
        try:
            await self._ask()
        except PageFailed:
            self._efforts = None
            raise
        self._efforts = None
        return {}

    async def unanswered(self, waited_s: float) -> Mapping[Fault, str]:
        if not await self._relayed():
            self._efforts = None
            raise PageFailed(f"Whether the {self._role} answers cannot be seen: nobody relays the question.")
        pids = [one.row.pid for one in await self._members() if one.role == self._role]
        if self._efforts is None:
            self._efforts = Efforts()
            self._efforts.look(pids)
            raise PageFailed(f"Whether the {self._role} works is seen at the next look.")
        moved = self._efforts.look(pids)
        if moved.at_work(waited_s):
            return {}
        return {self._fault: f"the {self._role} has not answered within {waited_s:.1f} s, nor worked"}
