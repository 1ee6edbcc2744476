"""Every wait has a deadline and every deadline a name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from waguard.core.model import Stage
from waguard.errors import DeadlineExceeded


class Span:
    """A wait that is under way, of one stage after another."""

    def __init__(self, stage: Stage, seconds: float, doing: str) -> None:
        self.stage, self.seconds, self.doing = stage, seconds, doing
        self.scope = asyncio.timeout(seconds)
        self._loop = asyncio.get_running_loop()

    def enter(self, stage: Stage, seconds: float, doing: str) -> None:
        """The next stage begins, with a deadline of its own. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._enter, stage, seconds, doing)

    def _enter(self, stage: Stage, seconds: float, doing: str) -> None:
        # It may be over already, since this comes late.
        if self.scope.when() is not None and not self.scope.expired():
            self.stage, self.seconds, self.doing = stage, seconds, doing
            self.scope.reschedule(self._loop.time() + seconds)


@asynccontextmanager
async def within(stage: Stage, seconds: float, doing: str) -> AsyncIterator[Span]:
    """Run the body within ``seconds``, or raise `DeadlineExceeded` that names the stage and what was slow."""
    span = Span(stage, seconds, doing)
    try:
        async with span.scope:
            yield span
    except TimeoutError:
        if not span.scope.expired():
            raise
        raise DeadlineExceeded(
            f"Stage {span.stage}: {span.doing} took longer than {span.seconds:g} s.",
            hint=f"If this machine is slow rather than stuck, raise deadlines.{span.stage} in the configuration.",
            stage=span.stage.value,
            deadline_s=span.seconds,
        ) from None
