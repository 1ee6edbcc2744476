"""Wrong tokens: whoever sends one after the other waits for each answer, and an admin is told of it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from waguard.core.model import Alert
from waguard.errors import Unauthorized

FREE = 20
"""In a minute, of all callers together: an app with an old token is not slowed for a few."""
WAITS_S = 1.0
"""Longer would help nobody: 32 random bytes are not guessed, and what is slowed is a log that fills and an app that turns."""
_MANY = 100
_MINUTE_S, _LOOKED_BACK_S = 60.0, 600.0


class Refusals:
    def __init__(
        self, alert: Callable[[Alert, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._alert = alert
        self._clock = clock
        self._times: deque[float] = deque(maxlen=10_000)
        self._minute: deque[float] = deque(maxlen=FREE + 1)
        self._last = ""

    async def slow(self, error: Unauthorized, origin: str) -> None:
        """Before such an answer is sent to ``origin``."""
        now = self._clock()
        self._times.append(now)
        self._minute.append(now)
        self._last = f"{error.code}, from {origin or 'somewhere'}"
        self.look()
        if len(self._minute) > FREE and now - self._minute[0] < _MINUTE_S:
            await asyncio.sleep(WAITS_S)

    def look(self) -> None:
        """Begin or end the alert."""
        now = self._clock()
        while self._times and now - self._times[0] >= _LOOKED_BACK_S:
            self._times.popleft()
        text = f"{len(self._times)} requests in the last ten minutes had no token that is taken, the last one: {self._last}. Does an app use an old one?"
        self._alert(Alert.TOKENS_REFUSED, text if len(self._times) >= _MANY else "")
