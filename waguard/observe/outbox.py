"""What waits for a reader that may be slow or away: bounded, and what found no place is counted.

Whoever reads the bus and may stall (the log, the history) has one; events are put into it at once, and nobody waits.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Gap:
    """So many were not kept here."""

    count: int = 1


class Outbox(Generic[T]):
    """In order, with a `Gap` wherever some found no place. Used from any thread."""

    def __init__(self, most: int, wake: Callable[[], object]) -> None:
        """``wake`` tells the reader that there is something; it is called by whoever puts, and must be quick."""
        self._most = most
        self._wake = wake
        self._waiting: deque[T | Gap] = deque()
        self._kept = 0
        self.dropped = 0
        """How many have found no place so far."""
        self._lock = threading.Lock()

    def put(self, one: T) -> None:
        with self._lock:
            if self._kept < self._most:
                self._kept += 1
                self._waiting.append(one)
            else:
                self.dropped += 1
                if isinstance(gap := self._waiting[-1], Gap):
                    gap.count += 1
                else:  # it has a place of its own
                    self._waiting.append(Gap())
        self._wake()

    def take(self) -> T | Gap | None:
        """The next one; None: there is none."""
        with self._lock:
            if not self._waiting:
                return None
            one = self._waiting.popleft()
            self._kept -= not isinstance(one, Gap)
            return one

    def __len__(self) -> int:
        """How many wait, without the gaps."""
        return self._kept

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()
            self._kept = 0
