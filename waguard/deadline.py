"""Every wait has a deadline and every deadline a name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from waguard.core.model import Stage
from waguard.errors import DeadlineExceeded


@asynccontextmanager
async def within(stage: Stage, seconds: float, doing: str) -> AsyncIterator[None]:
    """Run the body within ``seconds``, or raise `DeadlineExceeded` that names the stage and what was slow."""
    try:
        async with asyncio.timeout(seconds) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineExceeded(
            f"Stage {stage}: {doing} took longer than {seconds:g} s.",
            hint=f"If this machine is slow rather than stuck, raise deadlines.{stage} in the configuration.",
            stage=stage.value,
            deadline_s=seconds,
        ) from None
