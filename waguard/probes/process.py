"""The processes of a browser: is one of them stopped?"""

from collections.abc import Mapping, Sequence

from waguard.core.health import Fault
from waguard.probes.census import Member, Members


class ProcessProbe:
    faults = frozenset({Fault.PROCESS_STOPPED})

    def __init__(self, members: Members, interval_s: float, deadline_s: float) -> None:
        self.interval_s = interval_s
        self.deadline_s = deadline_s
        self._members = members

    async def look(self) -> Mapping[Fault, str]:
        return judge(await self._members())

    async def unanswered(self, _waited_s: float) -> Mapping[Fault, str]:
        return {}  # that is this machine's doing


def judge(members: Sequence[Member]) -> Mapping[Fault, str]:
    stopped = [f"{one.role} (pid {one.row.pid})" for one in members if one.row.state in "Tt"]
    return {Fault.PROCESS_STOPPED: f"stopped by a signal: {', '.join(stopped)}"} if stopped else {}
