"""How often somebody may ask for what is dear. Pure: the caller brings the time."""

import math
from collections.abc import Hashable
from dataclasses import dataclass

_KNOWN = 1000
"""With more it is looked who has not asked for so long that nothing is known of him any more."""

_SWEEP_S = 1.0
_LEAST_S = 0.1
"""A shorter wait is not worth to be told."""


@dataclass(slots=True)
class _Asked:
    left: float
    at: float


class Rate:
    """So many in a minute for each key, and as many at once for who has not asked for a while."""

    def __init__(self, per_minute: int) -> None:
        """0: as many as they like."""
        self._most = float(per_minute)
        self._each_s = 60.0 / per_minute if per_minute else 0.0
        self._asked: dict[Hashable, _Asked] = {}
        self._swept = -math.inf

    def take(self, key: Hashable, now: float) -> float:
        """0 if it may be done now, which counts; else in how many seconds, and nothing is counted."""
        if not self._most:
            return 0.0
        if len(self._asked) >= _KNOWN and now - self._swept >= _SWEEP_S:
            self._swept = now
            self._asked = {key: one for key, one in self._asked.items() if self._left(one, now) < self._most}
        one = self._asked.setdefault(key, _Asked(self._most, now))
        one.left, one.at = self._left(one, now), now
        if one.left < 1.0:
            return max((1.0 - one.left) * self._each_s, _LEAST_S)
        one.left -= 1.0
        return 0.0

    def _left(self, one: _Asked, now: float) -> float:
        return min(self._most, one.left + (now - one.at) / self._each_s)
