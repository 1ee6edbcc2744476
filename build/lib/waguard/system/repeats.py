"""What is the same again and again is said a few times in a while, and then with how often it was left out."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

_KNOWN = 100
"""Different things that are kept in mind; with more, those past their time are forgotten."""


@dataclass(slots=True)
class _While:
    began: float
    said: int = 0
    left_out: int = 0


class Repeats:
    def __init__(self, most: int, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        """``most`` times in ``every_s`` seconds."""
        self._most = most
        self._every_s = every_s
        self._clock = clock
        self._whiles: dict[Hashable, _While] = {}

    def left_out(self, key: Hashable) -> int | None:
        """How often this was left out in the while before, if it is to be said now; None: leave it out."""
        now = self._clock()
        one, before = self._whiles.get(key), 0
        if one is None or now - one.began >= self._every_s:
            before = one.left_out if one is not None else 0
            if len(self._whiles) >= _KNOWN:
                self._whiles = {k: w for k, w in self._whiles.items() if now - w.began < self._every_s}
            one = self._whiles[key] = _While(now)
        if one.said < self._most:
            one.said += 1
            return before
        one.left_out += 1
        return None
