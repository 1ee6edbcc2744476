"""The processes of a browser: is one of them stopped?"""

from collections.abc import Callable, Mapping, Sequence

from waguard.core.health.faults import Fault
from waguard.errors import PageFailed
from waguard.health.probes.census import Member, Members


class ProcessProbe:
    faults = frozenset({Fault.PROCESS_STOPPED})

    def __init__(
        self, members: Members, was_still: Callable[[float], bool], interval_s: float, deadline_s: float
    ) -> None:
        """``was_still``: whether what was looked at then, by the monotonic clock, may have been held still by us."""
        self.interval_s = interval_s
        self.deadline_s = deadline_s
        self._members = members
        self._was_still = was_still

    async def look(self) -> Mapping[Fault, str]:
        members = await self._members()
        if any(self._was_still(one.looked) for one in members):
            raise PageFailed("It was held still for a snapshot when it was looked at.")
        return judge(members)

    async def unanswered(self, _waited_s: float) -> Mapping[Fault, str]:
        raise PageFailed("That is this machine's doing.")


def judge(members: Sequence[Member]) -> Mapping[Fault, str]:
    stopped = [f"{one.role} (pid {one.row.pid})" for one in members if one.row.state in "Tt"]
    return {Fault.PROCESS_STOPPED: f"stopped by a signal: {', '.join(stopped)}"} if stopped else {}
