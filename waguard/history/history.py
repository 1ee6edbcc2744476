"""What has happened, kept in SQLite: every attempt, finding, remedy and change of state, and who was active when.

A subscriber of the bus that only puts rows into a queue; the thread of the database writes what waits in one transaction,
and answers questions. What cannot be written waits, and what cannot wait is counted: nothing that happens
to this file ends or delays a session.
"""

import asyncio
import contextlib
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from waguard.core.catalogue import mistake
from waguard.core.feed import TOLD, Told
from waguard.core.learning import measured
from waguard.core.model import ClientCode
from waguard.core.stats import Episode, Happening, Stats, episodes, summary
from waguard.errors import HistoryFailed
from waguard.history.database import FILE, Active, Database, counted, cut, insert
from waguard.history.feed import Feed
from waguard.history.learned import RECALLED, Learned, activity_of
from waguard.observe.bus import Bus, Event
from waguard.observe.outbox import Outbox
from waguard.system.sqlite import TooNewError
from waguard.system.tasks import background

T = TypeVar("T")

SHOWN = (
    "session.changed",
    "stage.late",
    "attempt.done",
    "connect.refused",
    "health.finding",
    "health.remedy",
    "health.recovered",
)
"""Of what is kept, what `happened` tells."""

_HEALTH = ("health.finding", "health.remedy", "health.recovered")
_COUNTED = ("attempt.done", "connect.refused", "stage.late", *_HEALTH)

_BATCH = 2000
_ACTIVITY_DAYS = 28.0
_NEWEST = "id > (SELECT max(id) FROM events) - 200000"
"""Of so many events is learned, and made statistics: that takes seconds."""
_DAY_S, _HOUR_S = 86_400.0, 3600
_HOURS = range(32_503_680_000 // _HOUR_S)
"""Until the year 3000."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long what may take, in seconds, and how many events there may be."""

    gather_s: float = 0.1
    """So long rows gather for one transaction."""
    retry_s: float = 2.0
    idle_s: float = 60.0
    """What clients did is written so often, also when nothing else happens."""
    prune_s: float = 3600.0
    end_s: float = 5.0
    """Deadline of the last write, when the daemon ends."""
    busy_s: float = 1.0
    """How long somebody else who has the file open may hold it."""
    waiting: int = 20_000
    kept: int = 1_000_000
    """Some 300 MB, however young they are."""


class History:
    def __init__(
        self,
        root: Path,
        keep_days: float,
        bus: Bus,
        now: Callable[[], float] = time.time,
        bounds: Bounds = Bounds(),
    ) -> None:
        """``root`` is ``sessions.dir``. With 0 days nothing is kept, and no file is made."""
        self._bounds = bounds
        self._path = root / FILE
        self._keep_days = keep_days
        self._publish = bus.publish
        self._now = now
        self._off = keep_days == 0
        self._active = _nobody()
        self._due = asyncio.Event()
        self._outbox = Outbox[Told](bounds.waiting, self._due.set)
        self._lost_told = 0
        self._failing = ""
        self._writer: asyncio.Task[None] | None = None
        self._unwritten: tuple[Sequence[Told], Active] | None = None
        """Given to the thread, which takes it away once it is committed."""
        self._counted: tuple[int, int, int] | None = None
        """Of what is in the file, as `Feed.written` takes it. The thread says it, once it is committed."""
        self._database = Database(self._path, bounds.busy_s, bus)
        self.feed = Feed(self._older)

    @property
    def state(self) -> str:
        """``on``, ``off``, or why it cannot be written now."""
        return "off" if self._off else self._failing or "on"

    # --- in -------------------------------------------------------------------------------------------

    def heard(self, event: Event) -> None:
        """The bus's subscriber."""
        if event.name in TOLD and event.level != "debug":
            fields = {name: cut(value) for name, value in event.fields.items() if name in TOLD[event.name]}
            told = self.feed.add(self._now(), event.client or "", event.name, fields)
            if self._off:
                self.feed.in_memory()
            else:
                self._outbox.put(told)
        elif event.client is not None and not self._off and (did := activity_of(event)) is not None:
            slot = self._active[event.client, int(self._now()) // _HOUR_S]
            slot[0] += did[0]
            slot[1] += did[1]

    async def start(self, learned: Learned) -> None:
        """Tell what was before, the older first, then begin to write. Of a file or a row that cannot be read nothing is told."""

        def recall(db: sqlite3.Connection) -> None:
            self._counted = counted(db)
            for row in db.execute("SELECT client, hour, amount, seen_s FROM activity"):
                match row[:2], *map(measured, row[2:]):
                    case (str(code), int(hour)), float(amount), float(seen_s) if hour in _HOURS:
                        learned.recall_activity(ClientCode(code), (hour + 0.5) * _HOUR_S, amount, seen_s)
                    case _:
                        self._database.pass_over("activity", row)
            for one in self._database.rows(db, f"name IN {RECALLED} AND {_NEWEST} ORDER BY id"):
                learned.recall(one.name, ClientCode(one.client), one.fields)

        if not self._off:
            try:
                await self._done(recall)
            except Exception as error:  # noqa: BLE001 (what is learned is worth no start that fails)
                self._publish("internal.error", **mistake("history", error))
            self._writer = background(self._write_for_ever, "history", self._publish, again=True)
        else:
            self.feed.in_memory()

    async def close(self) -> None:
        """Write what waits, within a deadline, and close the file. What comes later is not kept."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._bounds.end_s):
                await self._database.idle()  # whatever the writer was at has ended then
                while self._left and not self._off and await self._write_some():
                    pass
                await self._database.close()
        if lost := self._left + self._lost:
            self._publish("history.lost", path=str(self._path), events=lost)
        self._off = True
        self._database.end()

    @property
    def _left(self) -> int:
        """How much is still to be written."""
        return len(self._outbox) + len(self._active) + sum(map(len, self._unwritten or ()))

    @property
    def _lost(self) -> int:
        """How much found no place, and nobody was told of it."""
        return self._outbox.dropped - self._lost_told

    async def _write_for_ever(self) -> None:
        pruned = -self._bounds.prune_s
        while not self._off:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._bounds.idle_s):
                    await self._due.wait()
            await asyncio.sleep(self._bounds.gather_s)
            self._due.clear()
            while self._left and not self._off:
                if not await self._write_some():
                    await asyncio.sleep(self._bounds.retry_s)
            if time.monotonic() - pruned >= self._bounds.prune_s:
                pruned = time.monotonic()
                await self.prune()

    async def _write_some(self) -> bool:
        """Whether it could be written; if not it goes on waiting."""
        if self._unwritten is None:
            waited = (self._outbox.take() for _ in range(_BATCH))
            rows = [one for one in waited if isinstance(one, Told)]  # a gap is counted
            self._unwritten, self._active = (rows, self._active), _nobody()
        return await self._done(self._write)

    def _write(self, db: sqlite3.Connection) -> None:
        assert self._unwritten is not None  # noqa: S101 (the loop has put it there)
        self._counted = insert(db, *self._unwritten, self._counted)
        self._unwritten = None

    async def prune(self) -> None:
        """Delete what is past its time."""
        now = self._now()
        days = min(self._keep_days, _ACTIVITY_DAYS)

        def prune(db: sqlite3.Connection) -> None:
            # The last one stays: the next is counted from it.
            db.execute(
                "DELETE FROM events WHERE at < ? AND id < (SELECT max(id) FROM events)",
                (now - self._keep_days * _DAY_S,),
            )
            db.execute(
                "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (self._bounds.kept,)
            )
            db.execute("DELETE FROM activity WHERE hour < ?", ((now - days * _DAY_S) // _HOUR_S,))

        if not self._off:
            await self._done(prune)

    async def _done(self, work: Callable[[sqlite3.Connection], None]) -> bool:
        """Whether it could be done. When that changes it is told, once."""
        try:
            await self._database.do(work)
        except TooNewError:
            self._turn_off()
        except (sqlite3.Error, OSError) as error:
            if not self._failing:
                self._publish("history.write_failed", path=str(self._path), error=str(error))
            self._failing = str(error)
            return False
        else:
            if self._failing:
                self._publish("history.recovered", path=str(self._path), events_lost=self._lost)
            elif self._lost:
                self._publish("history.lost", path=str(self._path), events=self._lost)
            self._failing, self._lost_told = "", self._outbox.dropped
            if self._counted is not None:
                self.feed.written(*self._counted)
        return True

    def _turn_off(self) -> None:
        self._off = True
        self._outbox.clear()
        self._active.clear()
        self._unwritten = None
        self.feed.in_memory(anew=True)
        self._publish(
            "history.too_new",
            path=str(self._path),
            hint="A newer waguard has written it; it is left as it is, and nothing is kept.",
        )

    # --- out ------------------------------------------------------------------------------------------

    async def happened(self, code: ClientCode, limit: int, before: int | None = None) -> Sequence[Happening]:
        """What has happened to a client, the newest first; ``before`` is an id. Raises `HistoryFailed`."""
        wanted = f"client = ? AND name IN {SHOWN} AND id < ? ORDER BY id DESC"
        return await self._ask(
            lambda db: [*islice(self._database.rows(db, wanted, code, _id(before)), limit)], ()
        )

    async def findings(self, code: ClientCode, limit: int, before: int | None = None) -> Sequence[Episode]:
        """What was found, and what became of it, the newest first; ``before`` is an id. Raises `HistoryFailed`."""

        def find(db: sqlite3.Connection) -> Sequence[Episode]:
            wanted = "client = ? AND name = 'health.finding' AND id < ? ORDER BY id DESC"
            ids = {one.id for one in islice(self._database.rows(db, wanted, code, _id(before)), limit)}
            if not ids:
                return ()
            since = self._database.rows(
                db, f"client = ? AND name IN {_HEALTH} AND id >= ? ORDER BY id", code, min(ids)
            )
            return [one for one in reversed(episodes(since)) if one.id in ids]

        return await self._ask(find, ())

    async def stats(self, hours: float, code: ClientCode | None = None) -> Stats:
        """What the last hours come to, of one client or of all. Raises `HistoryFailed`."""
        until = self._now()
        since = until - hours * _HOUR_S
        wanted = f"at >= ? AND name IN {_COUNTED} AND {_NEWEST} ORDER BY id"
        return await self._ask(
            lambda db: summary(self._database.rows(db, wanted, since), since, until, code),
            summary((), since, until, code),
        )

    async def _older(self, after: int, before: int, most: int) -> Sequence[Told]:
        """For the feed: what was told between these two, by their numbers, the older first. Raises `HistoryFailed`."""
        if self._counted is None:
            return ()
        _, base, _ = self._counted
        wanted = "id > ? AND id < ? ORDER BY id"
        nothing: Sequence[Happening] = ()
        found = await self._ask(
            lambda db: [*islice(self._database.rows(db, wanted, base + after, base + before), most)], nothing
        )
        return [Told(one.id - base, one.at, one.client, one.name, one.fields) for one in found]

    async def _ask(self, query: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """``nothing`` if there is no history. Raises `HistoryFailed`."""
        if self._off:
            return nothing
        try:
            return await self._database.do(query)
        except TooNewError:
            self._turn_off()
            return nothing
        except (sqlite3.Error, OSError) as error:
            raise HistoryFailed(f"Cannot read {self._path}: {error}.") from None


def _nobody() -> Active:
    return defaultdict(lambda: [0.0, 0.0])


def _id(before: int | None) -> int:
    return sys.maxsize if before is None else before
