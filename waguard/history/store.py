"""What has happened, kept in SQLite: every attempt, finding, remedy and change of state, and who was active when.

A subscriber of the bus that only puts rows into a queue; one thread owns the database, writes what waits in one
transaction, and answers questions. What cannot be written waits, and what cannot wait is counted: nothing that happens
to this file ends or delays a session.
"""

import asyncio
import contextlib
import json
import os
import secrets
import sqlite3
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from waguard.core.catalogue import mistake
from waguard.core.learning import measured
from waguard.core.model import ClientCode
from waguard.core.stats import Episode, Happening, Stats, episodes, summary
from waguard.errors import HistoryFailed
from waguard.history.learned import RECALLED, Learned, activity_of
from waguard.observe.bus import Bus, Event
from waguard.observe.outbox import Outbox
from waguard.system.files import Below, NotPlain
from waguard.system.tasks import background, forget
from waguard.system.threads import Lone

T = TypeVar("T")

FILE = ".history.db"
"""Below ``sessions.dir``, mode 0600."""
_BESIDE = ("-wal", "-shm")

KEPT: Mapping[str, frozenset[str]] = {
    "session.changed": frozenset({"status", "wanted", "process", "link", "reason", "was", "duration_ms"}),
    "stage.late": frozenset({"attempt", "stage", "deadline_s", "at_work"}),
    "attempt.done": frozenset(
        {"attempt", "why", "outcome", "link", "code", "stage", "duration_ms", "stages", "profile"}
    ),
    "connect.refused": frozenset({"code"}),
    "health.finding": frozenset({"attempt", "fault", "evidence", "lasted_ms", "remedies", "why"}),
    "health.remedy": frozenset({"attempt", "fault", "remedy", "outcome", "duration_ms"}),
    "health.recovered": frozenset({"fault", "remedy", "duration_ms", "remedies"}),
}
"""These events are kept, and of each these fields: whatever else one may carry some day gets here by no mistake."""

_VERSION = 1
_SETTINGS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 256;
PRAGMA journal_size_limit = 1048576;
"""
_SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, client TEXT NOT NULL, name TEXT NOT NULL, fields TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_of_client ON events (client, id);
CREATE INDEX IF NOT EXISTS events_at ON events (at);
CREATE TABLE IF NOT EXISTS activity (
    client TEXT NOT NULL, hour INTEGER NOT NULL, amount REAL NOT NULL, seen_s REAL NOT NULL,
    PRIMARY KEY (client, hour)
) WITHOUT ROWID;
PRAGMA user_version = 1;
COMMIT;
"""
_ACTIVE = (
    "INSERT INTO activity VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
    "SET amount = amount + excluded.amount, seen_s = seen_s + excluded.seen_s"
)
_HEALTH = ("health.finding", "health.remedy", "health.recovered")
_COUNTED = ("attempt.done", "connect.refused", "stage.late", *_HEALTH)

_BATCH = 2000
_ACTIVITY_DAYS = 28.0
_NEWEST = "id > (SELECT max(id) FROM events) - 200000"
"""Of so many events is learned, and made statistics: that takes seconds."""
_DAY_S, _HOUR_S = 86_400.0, 3600
_HOURS = range(32_503_680_000 // _HOUR_S)
"""Until the year 3000."""
_LONGEST, _MOST = 500, 50
"""Characters of a text and items of a list or table in a row."""
_TORN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_FIELDS = TypeAdapter(dict[str, Any])

Row = tuple[float, ClientCode, str, dict[str, Any]]
Active = dict[tuple[ClientCode, int], list[float]]
"""Client and hour since 1970 -> how much it did, and of how many seconds that is known."""


class _TooNewError(Exception):
    """A later version of waguard has written the file."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long what may take, in seconds, and how many events there may be."""

    gather_s: float = 0.2
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
        self._outbox = Outbox[Row](bounds.waiting, self._due.set)
        self._lost_told = 0
        self._failing = ""
        self._writer: asyncio.Task[None] | None = None
        self._unwritten: tuple[Sequence[Row], Active] | None = None
        """Given to the thread, which takes it away once it is committed."""
        # The thread's alone:
        self._thread = Lone("history")
        self._db: sqlite3.Connection | None = None
        self._aside: deque[tuple[str, str]] = deque()
        """Files that were moved out of the way and why, to be told by the loop."""
        self._odd, self._odd_first = 0, ""
        """How many rows are not as we write them, likewise, and the first of them."""
        self._odd_told = False

    @property
    def state(self) -> str:
        """``on``, ``off``, or why it cannot be written now."""
        return "off" if self._off else self._failing or "on"

    # --- in -------------------------------------------------------------------------------------------

    def heard(self, event: Event) -> None:
        """The bus's subscriber."""
        if self._off or event.client is None:
            return
        if event.name in KEPT:
            fields = {name: value for name, value in event.fields.items() if name in KEPT[event.name]}
            self._outbox.put((self._now(), event.client, event.name, fields))
        elif (did := activity_of(event)) is not None:
            slot = self._active[event.client, int(self._now()) // _HOUR_S]
            slot[0] += did[0]
            slot[1] += did[1]

    async def start(self, learned: Learned) -> None:
        """Tell what was before, the older first, then begin to write. Of a file or a row that cannot be read nothing is told."""

        def recall(db: sqlite3.Connection) -> None:
            for row in db.execute("SELECT client, hour, amount, seen_s FROM activity"):
                match row[:2], *map(measured, row[2:]):
                    case (str(code), int(hour)), float(amount), float(seen_s) if hour in _HOURS:
                        learned.recall_activity(ClientCode(code), (hour + 0.5) * _HOUR_S, amount, seen_s)
                    case _:
                        self._pass_over("activity", row)
            for one in self._rows(db, f"name IN {RECALLED} AND {_NEWEST} ORDER BY id"):
                learned.recall(one.name, ClientCode(one.client), one.fields)

        if not self._off:
            try:
                await self._done(recall)
            except Exception as error:  # noqa: BLE001 (what is learned is worth no start that fails)
                self._publish("internal.error", **mistake("history", error))
            self._writer = background(self._write_for_ever, "history", self._publish, again=True)

    async def close(self) -> None:
        """Write what waits, within a deadline, and close the file. What comes later is not kept."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._bounds.end_s):
                await self._in_thread(bool)  # whatever the writer was at has ended then
                while self._left and not self._off and await self._write_some():
                    pass
                await self._in_thread(self._drop)
        if lost := self._left + self._lost:
            self._publish("history.lost", path=str(self._path), events=lost)
        self._off = True
        self._thread.end()

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
            rows = [one for one in waited if isinstance(one, tuple)]  # a gap is counted
            self._unwritten, self._active = (rows, self._active), _nobody()
        return await self._done(self._write)

    async def prune(self) -> None:
        """Delete what is past its time."""
        now = self._now()
        days = min(self._keep_days, _ACTIVITY_DAYS)

        def prune(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM events WHERE at < ?", (now - self._keep_days * _DAY_S,))
            db.execute(
                "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (self._bounds.kept,)
            )
            db.execute("DELETE FROM activity WHERE hour < ?", ((now - days * _DAY_S) // _HOUR_S,))

        if not self._off:
            await self._done(prune)

    async def _done(self, work: Callable[[sqlite3.Connection], None]) -> bool:
        """Whether it could be done. When that changes it is told, once."""
        try:
            await self._in_thread(self._on_file, work)
        except _TooNewError:
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
        return True

    def _turn_off(self) -> None:
        self._off = True
        self._outbox.clear()
        self._active.clear()
        self._unwritten = None
        self._publish(
            "history.too_new",
            path=str(self._path),
            hint="A newer waguard has written it; it is left as it is, and nothing is kept.",
        )

    # --- out ------------------------------------------------------------------------------------------

    async def happened(self, code: ClientCode, limit: int, before: int | None = None) -> Sequence[Happening]:
        """What has happened to a client, the newest first; ``before`` is an id. Raises `HistoryFailed`."""
        wanted = "client = ? AND id < ? ORDER BY id DESC"
        return await self._ask(lambda db: [*islice(self._rows(db, wanted, code, _id(before)), limit)], ())

    async def findings(self, code: ClientCode, limit: int, before: int | None = None) -> Sequence[Episode]:
        """What was found, and what became of it, the newest first; ``before`` is an id. Raises `HistoryFailed`."""

        def find(db: sqlite3.Connection) -> Sequence[Episode]:
            wanted = "client = ? AND name = 'health.finding' AND id < ? ORDER BY id DESC"
            ids = {one.id for one in islice(self._rows(db, wanted, code, _id(before)), limit)}
            if not ids:
                return ()
            since = self._rows(
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
            lambda db: summary(self._rows(db, wanted, since), since, until, code),
            summary((), since, until, code),
        )

    async def _ask(self, query: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """``nothing`` if there is no history. Raises `HistoryFailed`."""
        if self._off:
            return nothing
        try:
            return await self._in_thread(self._on_file, query)
        except _TooNewError:
            self._turn_off()
            return nothing
        except (sqlite3.Error, OSError) as error:
            raise HistoryFailed(f"Cannot read {self._path}: {error}.") from None

    # --- the thread -----------------------------------------------------------------------------------

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        """Called off, it goes on in the thread, and what comes next waits for it there."""
        try:
            work = self._thread.submit(partial(call, *args))
            forget(work)  # whoever is not called off is told all the same
            return await asyncio.shield(work)
        finally:
            while self._aside:
                kept_as, why = self._aside.popleft()
                self._publish("history.unreadable", kept_as=kept_as, error=why)
            odd, self._odd = self._odd, 0
            if odd and not self._odd_told:
                self._odd_told = True
                path, first = str(self._path), self._odd_first
                self._publish("history.rows_ignored", path=path, rows=odd, first=first)

    def _on_file(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do it, on a new file if the one that is there turns out to be none. Raises `sqlite3.Error`, `OSError`."""
        try:
            return self._once(work)
        except NotPlain as error:
            self._set_aside(error.what)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _TORN:
                raise
            self._set_aside(str(error))
        return self._once(work)

    def _once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._db is None:
                self._db = self._open()
            with self._db:
                self._db.execute("BEGIN")
                return work(self._db)
        except sqlite3.Error:
            self._drop()
            raise

    def _rows(self, db: sqlite3.Connection, wanted: str, *args: object) -> Iterator[Happening]:
        """Those that are as we write them."""
        found = db.execute(f"SELECT id, at, client, name, fields FROM events WHERE {wanted}", args)  # noqa: S608 (ours)
        for row in found:
            match row[0], measured(row[1]), *row[2:4], _fields(row[4]):
                case int(number), float(at), str(client), str(name), dict(fields):
                    yield Happening(number, at, client, name, fields)
                case _:
                    self._pass_over("events", row)

    def _pass_over(self, table: str, row: object) -> None:
        self._odd += 1
        self._odd_first = self._odd_first or f"{table}: {row}"[:_LONGEST]

    def _open(self) -> sqlite3.Connection:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        head = b""
        for path in (self._path, *(self._path.with_name(FILE + ending) for ending in _BESIDE)):
            with contextlib.suppress(FileNotFoundError), Below(path).reading(sys.maxsize) as file:
                head = file.read(64) if path == self._path else head
        # Before SQLite, which would complete what a crash has left, touches it.
        if head.startswith(b"SQLite format 3\0") and int.from_bytes(head[60:64], "big") > _VERSION:
            raise _TooNewError
        db = sqlite3.connect(self._path, timeout=self._bounds.busy_s, isolation_level=None)
        try:
            db.text_factory = lambda data: data.decode("utf-8", "replace")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise _TooNewError
            db.executescript(_SETTINGS + (_SCHEMA if version == 0 else ""))
        except BaseException:
            db.close()
            raise
        return db

    def _write(self, db: sqlite3.Connection) -> None:
        assert self._unwritten is not None  # noqa: S101 (the loop has put it there)
        rows, active = self._unwritten
        db.executemany(
            "INSERT INTO events (at, client, name, fields) VALUES (?, ?, ?, ?)",
            ((at, code, name, json.dumps(_cut(fields))) for at, code, name, fields in rows),
        )
        db.executemany(_ACTIVE, ((*key, *did) for key, did in active.items()))
        db.execute("COMMIT")
        self._unwritten = None

    def _set_aside(self, why: str) -> None:
        aside = self._path.with_name(f".history.{secrets.token_hex(4)}.unreadable")
        self._path.replace(aside)
        for ending in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(FILE + ending).replace(aside.with_name(aside.name + ending))
        self._aside.append((str(aside), why))

    def _drop(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            with contextlib.suppress(sqlite3.Error):
                db.close()


def _nobody() -> Active:
    return defaultdict(lambda: [0.0, 0.0])


def _fields(kept: Any) -> Mapping[str, Any] | None:
    """As they were; None if a disk has changed them."""
    try:
        return _FIELDS.validate_json(kept)
    except (TypeError, ValidationError):
        return None


def _id(before: int | None) -> int:
    return sys.maxsize if before is None else before


def _cut(value: Any) -> Any:
    """What a row may hold of it."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():  # what no encoding has, as a page may say it, could not be read back
            return value[:_LONGEST].encode(errors="backslashreplace").decode()
        case Mapping():
            return {_cut(str(name)): _cut(inner) for name, inner in [*value.items()][:_MOST]}
        case Sequence():
            return [_cut(inner) for inner in value[:_MOST]]
        case _:
            return _cut(str(value))
