"""The feed of events, as an app wants it: whatever comes between, it goes on where it was."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from waguard.asking.ask import Ask
from waguard.client.wire import Wire
from waguard.core.feed import ENDED, MISSED, READY
from waguard.core.shown import EventView
from waguard.errors import WaguardError

_FIRST_S, _MOST_S = 0.1, 2.0
"""Before it comes back, and at most."""


async def follow(
    wire: Wire, asked: Callable[[str], Ask[None]], after: str, gone_s: float
) -> AsyncGenerator[EventView, None]:
    """``asked``: for the feed from behind an id. Raises what the daemon answers, and what is wrong when it is away for longer than ``gone_s``."""
    place, began, pause_s = after, False, _FIRST_S
    until: float | None = None
    while True:
        try:
            async with aclosing(wire.frames(asked(place), {})) as frames:
                async for frame in frames:
                    pause_s, until = _FIRST_S, None
                    event = wire.event(frame) if frame.event else None
                    if frame.event == ENDED:
                        break
                    if frame.event == READY and began:
                        # What was told in between cannot be asked for without an id.
                        event = (
                            None if place else EventView(None, time.time(), None, MISSED, {"events": None})
                        )
                    began, place = began or frame.event == READY, frame.id or place
                    if event is not None:
                        yield event
        except WaguardError as error:
            # Whoever reads slowly may have been hung up on long ago, and the daemon is there all the same.
            until = until or time.monotonic() + gone_s
            if not began or not error.again or time.monotonic() > until:
                raise
            pause_s = max(pause_s, error.details.get("retry_after_s", 0.0))
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _MOST_S)
