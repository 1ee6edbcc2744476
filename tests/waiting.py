"""What has no event to wait for."""

import asyncio
import time
from collections.abc import Callable


async def until(done: Callable[[], object], what: str = "what was asked", seconds: float = 20.0) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)
