"""Every wait has a deadline and every deadline a name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from waguard.core.model import Stage
from waguard.errors import DeadlineExceeded


class Span:
    """A wait that is under way, of one stage after another."""

    def __init__(self, stage: Stage, seconds: float, doing: str, setting: str | None) -> None:
        self.stage, self.seconds, self.doing = stage, seconds, doing
        self._setting = setting
        self.scope = asyncio.timeout(seconds)
        self.over = False
        self._loop = asyncio.get_running_loop()

    def enter(self, stage: Stage, seconds: float, doing: str) -> None:
        """The next stage begins, with a deadline of its own. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._enter, stage, seconds, doing)

    def _enter(self, stage: Stage, seconds: float, doing: str) -> None:
        # It may be over already, since this comes late.
        if self.scope.when() is not None and not self.scope.expired():
            self.stage, self.seconds, self.doing = stage, seconds, doing
            self._setting = None
            self.scope.reschedule(self._loop.time() + seconds)

    @property
    def hint(self) -> str:
        """What makes it longer, if anything does."""
        setting = f"deadlines.{self.stage}" if self._setting is None else self._setting
        return (
            f"If this machine is slow rather than stuck, raise {setting} in the configuration."
            if setting
            else ""
        )


_SPAN: ContextVar[Span | None] = ContextVar("span", default=None)


def current() -> Span | None:
    """The wait that this is in, if it is in one; a task that outlives the wait that has begun it is in none."""
    span = _SPAN.get()
    return None if span is None or span.over else span


@asynccontextmanager
async def within(stage: Stage, seconds: float, doing: str, setting: str | None = None) -> AsyncIterator[Span]:
    """Run the body within ``seconds``, or raise `DeadlineExceeded` that names the stage and what was slow.

    ``setting`` is where the seconds are from: by default the stage's own of `Deadlines`; empty if no setting changes them.
    """
    span = Span(stage, seconds, doing, setting)
    before = _SPAN.set(span)
    try:
        async with span.scope:
            yield span
    except TimeoutError:
        if not span.scope.expired():
            raise
        raise DeadlineExceeded(
            f"Stage {span.stage}: {span.doing} took longer than {span.seconds:g} s.",
            hint=span.hint,
            stage=span.stage.value,
            deadline_s=span.seconds,
        ) from None
    finally:
        span.over = True
        _SPAN.reset(before)
