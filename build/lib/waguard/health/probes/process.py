"""The processes of a browser: is one of them stopped?"""

from collections.abc import Callable, Mapping, Sequence

from waguard.core.health import Fault
from waguard.errors import PageFailed
from waguard.health.probes.census import Member, Members


class ProcessProbe:
    faults = frozenset({Fault.PROCESS_STOPPED})

    def __init__(
        self, members: Members, held_until: Callable[[], float], interval_s: float, deadline_s: float
    ) -> None:
        """``held_until``: until when we have held it still ourselves, monotonic; infinite while we do."""
        self.interval_s = interval_s
        self.deadline_s = deadline_s
        self._members = members
        self._held_until = held_until

    async def look(self) -> Mapping[Fault, str]:
        members = await self._members()
        if any(one.looked < self._held_until() for one in members):
            raise PageFailed("It was held still for a snapshot when it was looked at.")
        return judge(members)

    async def unanswered(self, _waited_s: float) -> Mapping[Fault, str]:
        return {}  # that is this machine's doing


def judge(members: Sequence[Member]) -> Mapping[Fault, str]:
    stopped = [f"{one.role} (pid {one.row.pid})" for one in members if one.row.state in "Tt"]
    return {Fault.PROCESS_STOPPED: f"stopped by a signal: {', '.join(stopped)}"} if stopped else {}
