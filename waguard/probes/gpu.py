"""The process that draws: a page that answers may all the same stand still for people, and for its own code.

It is asked while the page answers; one that does not has other troubles.
"""

from collections.abc import Awaitable, Callable, Mapping

from waguard.core.health import Fault
from waguard.errors import PageFailed
from waguard.probes.census import GPU, Members
from waguard.probes.effort import AnswerProbe

_FRAME = "new Promise(done => requestAnimationFrame(() => done(true)))"


class GpuProbe(AnswerProbe):
    def __init__(
        self,
        evaluate: Callable[[str], Awaitable[object]],
        page_answers: Callable[[], bool],
        members: Members,
        interval_s: float,
        deadline_s: float,
    ) -> None:
        super().__init__(Fault.GPU_HUNG, GPU, lambda: evaluate(_FRAME), members, interval_s, deadline_s)
        self._page_answers = page_answers

    async def look(self) -> Mapping[Fault, str]:
        if not self._page_answers():
            raise PageFailed("The page does not answer.")
        return await super().look()

    async def unanswered(self, waited_s: float) -> Mapping[Fault, str]:
        return await super().unanswered(waited_s) if self._page_answers() else {}
