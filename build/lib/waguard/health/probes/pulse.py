"""The daemon's own event loop: does it turn, and since when has it not?

Its clock stands still while the daemon does (stopped by a signal, starved of processor, held up by a bug of ours), so
that nobody else is blamed for it: what a browser has not answered meanwhile it was not asked either.
"""

import asyncio
import time
from collections.abc import Callable

_TICK_S = 0.25
_LATE_S = 1.0
"""A tick that comes later than this is told."""


class Pulse:
    def __init__(
        self,
        publish: Callable[..., None],
        now: Callable[[], float] = time.monotonic,
        beat: Callable[[float], object] = lambda _now: None,
    ) -> None:
        """``beat`` is called with the time at each turn."""
        self._publish = publish
        self._beat = beat
        self._now = now
        self._counted = 0.0
        self._last = now()

    def clock(self) -> float:
        """Seconds that the daemon has been awake."""
        return self._counted + min(self._now() - self._last, 2 * _TICK_S)

    async def run(self) -> None:
        """Until cancelled."""
        self._last = self._now()
        while True:
            await asyncio.sleep(_TICK_S)
            self.tick()

    def tick(self) -> None:
        now = self._now()
        self._beat(now)
        passed, self._last = now - self._last, now
        self._counted += min(passed, 2 * _TICK_S)
        if passed > _TICK_S + _LATE_S:
            self._publish("daemon.lagged", duration_ms=round((passed - _TICK_S) * 1000, 1))
