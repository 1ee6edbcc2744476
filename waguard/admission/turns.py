"""The places of browsers that may be starting at a time: first come, first served among those of one rank, and whoever waits knows how many are before it."""

import asyncio
import time
from collections import deque

from waguard.core.model import ClientCode, Stage
from waguard.errors import DeadlineExceeded

_KNOWN = 20
"""So many of the last starts tell how long the next ones take."""


class Turns:
    def __init__(self, places: int) -> None:
        self._places = self._free = places
        self._waiting: dict[ClientCode, asyncio.Future[None]] = {}
        """In the order of their ranks, and then of their coming."""
        self._ranks: dict[ClientCode, int] = {}
        self._began: dict[ClientCode, float] = {}
        """Who has a place, and since when, monotonic."""
        self._took: deque[float] = deque(maxlen=_KNOWN)
        self._moved = 0.0

    def before(self, code: ClientCode) -> int | None:
        """How many wait before it; None if it does not wait."""
        return list(self._waiting).index(code) if code in self._waiting else None

    def expected_s(self, code: ClientCode) -> float | None:
        """How long it will wait, by how long the last starts took; None if that is not known, or it does not wait."""
        if (before := self.before(code)) is None or not self._took:
            return None
        return (before // self._places + 1) * sum(self._took) / len(self._took)

    def take(self, code: ClientCode, rank: int = 0) -> bool:
        """Take a place, or the end of the queue of those of this rank, the lowest of which goes first, and say whether it is a place. Whoever has one gives it back; whoever is in the
        queue waits at once.
        """
        if self._free and not self._waiting:
            self._enter(code)
            return True
        self._waiting[code] = asyncio.get_running_loop().create_future()
        self._ranks = {one: self._ranks.get(one, 0) for one in self._waiting} | {code: rank}
        self._waiting = {
            one: self._waiting[one] for one in sorted(self._waiting, key=self._ranks.__getitem__)
        }
        return False

    async def wait(self, code: ClientCode, stuck_s: float) -> None:
        """Leave the queue with a place. Raises `DeadlineExceeded` if for so long nobody has given one back."""
        turn, came = self._waiting[code], time.monotonic()
        try:
            while not turn.done():
                left = max(came, self._moved) + stuck_s - time.monotonic()
                if left <= 0:
                    raise _stuck(self.before(code) or 0, stuck_s)
                await asyncio.wait([turn], timeout=left)
        except BaseException:
            if turn.done():  # called off just as it was its turn
                self.give_back(code)
            raise
        finally:
            self._waiting.pop(code, None)

    def give_back(self, code: ClientCode) -> None:
        """Whoever has waited longest has it from here."""
        now = time.monotonic()
        self._took.append(now - self._began.pop(code))
        self._moved = now
        self._free += 1
        for next_one, turn in list(self._waiting.items()):
            if not self._free:
                break
            if not turn.done():
                self._enter(next_one)
                turn.set_result(None)
                del self._waiting[next_one]

    def _enter(self, code: ClientCode) -> None:
        self._free -= 1
        self._began[code] = time.monotonic()


def _stuck(before: int, stuck_s: float) -> DeadlineExceeded:
    others = f", and {before} wait before it" if before else ""
    return DeadlineExceeded(
        f"Stage {Stage.ADMIT}: for {stuck_s:g} s no start has finished{others}.",
        hint=f"If this machine is slow rather than stuck, raise deadlines.{Stage.ADMIT} in the configuration.",
        stage=Stage.ADMIT.value,
        deadline_s=stuck_s,
    )
