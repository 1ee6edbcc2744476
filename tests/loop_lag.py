"""How long the loop of a test stood still."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def lag() -> AsyncIterator[list[float]]:
    """The longest that the loop stood still within the block, in seconds."""
    worst = [0.0]

    async def tick() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            worst[0] = max(worst[0], time.monotonic() - began - 0.01)

    ticking = asyncio.create_task(tick())
    try:
        yield worst
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])
