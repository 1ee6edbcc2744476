"""The feed of events: the last ones in memory, those before in the history; each reader has a place of its own, and nobody waits for it.

What a reader was told with an id is on disk: it is found again after the id by whoever asks, also of the next daemon. Where the disk
does not take it, events are told without one.
"""

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from waguard.core.feed import Place, Told, Wish
from waguard.errors import HistoryFailed
from waguard.system.tasks import forget

RING = 5000
"""Events that are kept in memory for those who are nearly up to date; some megabytes."""
_PATIENCE_S = 1.0
"""So long an event waits for its place on disk before it is told without an id, to a reader that says nothing of it."""
_AGAIN_S = 1.0
"""After so long a history that could not be read is asked again, by a reader that waits for it."""
_BATCH = 500

Older = Callable[[int, int, int], Awaitable[Sequence[Told]]]
"""Asks the history for events: behind which number, before which, how many. Raises `HistoryFailed`."""


@dataclass(frozen=True, slots=True)
class Batch:
    events: Sequence[tuple[Told, Place | None]] = ()
    """Each with its id, if it has one."""
    missed: int = 0
    """About so many before these cannot be told any more, wanted or not; -1: nobody knows how many."""
    place: Place | None = None
    """Where the reader is now, if that can be said."""


class Feed:
    """Owned by the history. Used from the loop alone."""

    def __init__(self, older: Older, clock: Callable[[], float] = time.monotonic, most: int = RING) -> None:
        self._older = older
        self._clock = clock
        self._ring: deque[tuple[Told, float]] = deque(maxlen=most)
        self.newest = 0
        self._kept: tuple[int, int] | None = None
        """Which history counts them, and what is added to a number of ours there; None while nothing was written yet."""
        self._written = 0
        self._changed = asyncio.Event()
        self.closed = False

    def add(self, at: float, client: str, name: str, fields: Mapping[str, Any]) -> Told:
        self.newest += 1
        told = Told(self.newest, at, client, name, fields)
        self._ring.append((told, self._clock()))
        self.wake()
        return told

    def written(self, history: int, base: int, up_to: int) -> None:
        """All to this number are on disk, as far as they found a place there, in the history of this name, where the number is so much higher."""
        self._kept, self._written = (history, base), up_to
        self.wake()

    def in_memory(self, *, anew: bool = False) -> None:
        """No history is kept, or from here on none any more: ids are good for as long as this daemon runs, and what is in memory."""
        if self._kept is None or anew:
            self._kept = (1 + secrets.randbelow(2**31 - 1), 0)
        self._written = self.newest

    def close(self) -> None:
        """Readers get what there is, and then None."""
        self.closed = True
        self.wake()

    def reader(
        self, wish: Wish, after: Place | None, patience_s: float = _PATIENCE_S, *, waits: bool = False
    ) -> "Reader":
        """``after``: the id that it was told last; None: it begins now. ``patience_s``: so long an event waits for its id.

        ``waits``: for a history that cannot be read; else what is there is missed.
        """
        if after is None:
            return Reader(self, wish, self.newest, patience_s, waits=waits)
        if self._kept is not None and after.history == self._kept[0]:
            number = after.number - self._kept[1]
            if number <= self.newest:
                return Reader(self, wish, number, patience_s, waits=waits)
        return Reader(self, wish, self.newest, patience_s, missed=-1, waits=waits)

    def place(self, number: int) -> Place | None:
        """As it is told; None: it is not on disk."""
        if self._kept is None or number > self._written:
            return None
        history, base = self._kept
        return Place(history, max(0, base + number))

    # --- for readers ----------------------------------------------------------------------------------

    @property
    def oldest(self) -> int:
        """The first one in memory."""
        return self._ring[0][0].number if self._ring else self.newest + 1

    def ready(self, after: int, patience_s: float = _PATIENCE_S) -> Sequence[Told]:
        """Those in memory that can be told now: the next ones that are on disk, or have waited long enough to be."""
        patient = self._clock() - patience_s
        found: list[Told] = []
        # By index: to walk there takes a reader that is up to date through the whole ring.
        first = max(0, after + 1 - self.oldest)
        for told, added in map(self._ring.__getitem__, range(first, len(self._ring))):
            waits = told.number > self._written and added > patient and not self.closed
            if waits or len(found) >= _BATCH:
                break
            found.append(told)
        return found

    async def older(self, after: int, before: int) -> Sequence[Told]:
        """The next ones, of those that are not in memory any more. Raises `HistoryFailed`."""
        return await self._older(after, before, _BATCH)

    async def news(self) -> None:
        """Wait for anything new."""
        await self._changed.wait()

    async def change(self, after: int, patience_s: float = _PATIENCE_S) -> None:
        """Wait for whatever is new behind this number."""
        waits_s = None
        if after < self.newest:
            _, added = self._ring[max(0, after + 1 - self.oldest)]
            waits_s = max(0.0, added + patience_s - self._clock())
        try:
            async with asyncio.timeout(waits_s):
                await self.news()
        except TimeoutError:
            return

    async def rest(self) -> None:
        """Before the history is asked again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_S):
                while not self.closed:
                    await self.news()

    @property
    def is_counted(self) -> bool:
        """Whether it is known where an earlier daemon was."""
        return self._kept is not None

    def wake(self) -> None:
        """Every reader looks again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Reader:
    def __init__(
        self,
        feed: Feed,
        wish: Wish,
        at: int,
        patience_s: float = _PATIENCE_S,
        missed: int = 0,
        *,
        waits: bool = False,
    ) -> None:
        self._feed = feed
        self._wish = wish
        self._at = at
        """The number of the last event that it was told, or did not want."""
        self._patience_s = patience_s
        self._missed = missed
        self._waits = waits
        self._asking: asyncio.Future[Sequence[Told]] | None = None
        self._before = 0
        """A question to the history, and before which number: whoever is called off while a slow disk answers asks no other one."""
        self.left = ""
        """Why it is not to go on."""

    def leave(self, why: str) -> None:
        """Its end is here, whatever there is still."""
        self.left = why
        self._feed.wake()

    @property
    def place(self) -> Place | None:
        return self._feed.place(self._at)

    async def settle(self) -> Place | None:
        """Where it begins, once that is on disk; None: the disk takes its time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while self.place is None and not self._feed.closed:
                    await self._feed.news()
        return self.place

    async def next(self) -> Batch | None:
        """What comes next, once there is something that it wants; None at the end of the feed. Called off, nothing of it is lost."""
        while not self.left:
            if self._at < self._feed.oldest - 1:
                batch = await self._of_history()
            else:
                batch = self._batch(self._feed.ready(self._at, self._patience_s), 0)
            if batch.events or batch.missed:
                return batch
            if self._feed.closed:
                return None
            if self._at >= self._feed.oldest - 1:
                await self._feed.change(self._at, self._patience_s)
        return None

    async def _of_history(self) -> Batch:
        if self._asking is None:
            self._before = self._feed.oldest
            self._asking = asyncio.ensure_future(self._feed.older(self._at, self._before))
            forget(self._asking)
        found: Sequence[Told] = ()
        try:
            found = await asyncio.shield(self._asking)
        except HistoryFailed:
            if self._waits:
                self._asking = None
                await self._feed.rest()
                return Batch(place=self.place)
        before, self._asking = self._before, None
        # It counts without gaps: what is not there was deleted, or found no place.
        last = found[-1].number if len(found) == _BATCH else before - 1
        missed = last - self._at - len(found)
        batch = self._batch(found, missed)
        self._at = last
        return Batch(batch.events, batch.missed, self.place)

    def _batch(self, found: Sequence[Told], missed: int) -> Batch:
        missed, self._missed = self._missed or missed, 0
        if found:
            self._at = found[-1].number
        events = [
            (one, self._feed.place(one.number)) for one in found if self._wish.wants(one.client, one.name)
        ]
        return Batch(events, missed, self.place)
