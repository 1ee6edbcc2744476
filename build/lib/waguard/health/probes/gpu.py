"""The process that draws: a page that answers may all the same stand still for people, and for its own code.

It is asked while the page answers; one that does not has other troubles.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from waguard.core.health import Fault
from waguard.errors import PageFailed
from waguard.health.probes.census import GPU, Members
from waguard.health.probes.effort import AnswerProbe

_FRAME = "new Promise(done => requestAnimationFrame(() => done(true)))"


class GpuProbe(AnswerProbe):
    def __init__(
        self,
        evaluate: Callable[[str], Awaitable[object]],
        page_answers: Callable[[], Awaitable[bool]],
        members: Members,
        interval_s: float,
        deadline_s: float,
    ) -> None:
        ask = partial(evaluate, _FRAME)
        super().__init__(Fault.GPU_HUNG, GPU, ask, page_answers, members, interval_s, deadline_s)

    async def look(self) -> Mapping[Fault, str]:
        if not await self._relayed():
            raise PageFailed("The page does not answer.")
        return await super().look()
