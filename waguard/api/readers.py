"""How many may read the feed of events at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from waguard.core.access import Caller
from waguard.errors import TooManyRequests

_AGAIN_S = 10.0


class Readers:
    """How many there are; one token has at most half of the places, so that it takes nobody else's."""

    def __init__(self, most: int, beat_s: float) -> None:
        self.beat_s = beat_s
        self._most = most
        self._here: Counter[tuple[str, bool]] = Counter()

    @contextmanager
    def one(self, caller: Caller) -> Iterator[None]:
        """Raises `TooManyRequests`."""
        if self._here.total() >= self._most or self._here[caller.own] >= max(1, self._most // 2):
            raise TooManyRequests(
                "There are as many readers of events as may be.",
                hint="One reader is enough for all clients of a token; close those that nobody needs. An admin sets the limit: api.event_readers.",
                retry_after_s=_AGAIN_S,
            )
        self._here[caller.own] += 1
        try:
            yield
        finally:
            self._here[caller.own] -= 1
            self._here += Counter()  # who has none is forgotten
