"""The file that the history is kept in: SQLite, owned by one thread, and replaced by a new one when it turns out to be none."""

import asyncio
import contextlib
import json
import os
import secrets
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from waguard.core.feed import Told
from waguard.core.learning import measured
from waguard.core.model import ClientCode
from waguard.core.stats import Happening
from waguard.observe.bus import Bus
from waguard.system.files import Below, NotPlain
from waguard.system.tasks import forget
from waguard.system.threads import Lone

T = TypeVar("T")

FILE = ".history.db"
"""Below ``sessions.dir``, mode 0600."""
_BESIDE = ("-wal", "-shm")

_VERSION = 1
_SETTINGS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
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
_LONGEST, _MOST = 500, 50
"""Characters of a text and items of a list or table in a row."""
_FURTHEST = 2**62
"""No daemon counts so many events; SQLite goes twice as far."""
_TORN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_FIELDS = TypeAdapter(dict[str, Any])

Counted = tuple[int, int, int]
"""Which history it is, what is added in it to the number of an event of this daemon's, and the last one that is in it."""
Active = dict[tuple[ClientCode, int], list[float]]
"""Client and hour since 1970 -> how much it did, and of how many seconds that is known."""


class TooNewError(Exception):
    """A later version of waguard has written the file."""


class _CountsTooFar(sqlite3.DatabaseError):
    """A disk has changed the number of a row: there is no room behind it."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class Database:
    def __init__(self, path: Path, busy_s: float, bus: Bus) -> None:
        """``busy_s``: so many seconds somebody else who has it open may hold it."""
        self._path = path
        self._busy_s = busy_s
        self._publish = bus.publish
        self._thread = Lone("history")
        # The thread's alone:
        self._db: sqlite3.Connection | None = None
        self._aside: deque[tuple[str, str]] = deque()
        """Files that were moved out of the way and why, to be told by the loop."""
        self._odd, self._odd_first = 0, ""
        """How many rows are not as we write them, likewise, and the first of them."""
        self._odd_told = False

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction. Called off, it goes on in the thread, and what comes next waits for it there.

        Raises `TooNewError`, `sqlite3.Error`, `OSError`.
        """
        return await self._in_thread(partial(self._on_file, work))

    async def idle(self) -> None:
        """Returns when whatever was given to it before has ended."""
        await self._in_thread(bool)

    async def close(self) -> None:
        await self._in_thread(self._drop)

    def end(self) -> None:
        """Nothing more will be asked."""
        self._thread.end()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        try:
            work = self._thread.submit(call)
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

    # --- in the thread --------------------------------------------------------------------------------

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

    def rows(self, db: sqlite3.Connection, wanted: str, *args: object) -> Iterator[Happening]:
        """Those that are as we write them."""
        found = db.execute(f"SELECT id, at, client, name, fields FROM events WHERE {wanted}", args)  # noqa: S608 (ours)
        for row in found:
            match row[0], measured(row[1]), *row[2:4], _fields(row[4]):
                case int(number), float(at), str(client), str(name), dict(fields):
                    yield Happening(number, at, client, name, fields)
                case _:
                    self.pass_over("events", row)

    def pass_over(self, table: str, row: object) -> None:
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
            raise TooNewError
        db = sqlite3.connect(self._path, timeout=self._busy_s, isolation_level=None)
        try:
            db.text_factory = lambda data: data.decode("utf-8", "replace")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise TooNewError
            db.executescript(_SETTINGS + (_SCHEMA if version == 0 else ""))
        except BaseException:
            db.close()
            raise
        return db

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


def counted(db: sqlite3.Connection) -> Counted | None:
    """Before anything of this daemon's was written; None: nobody has counted in it yet."""
    (history,) = db.execute("PRAGMA application_id").fetchone()
    last = _last(db)
    return (history, last, 0) if history > 0 else None


def _last(db: sqlite3.Connection) -> int:
    (last,) = db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    if last > _FURTHEST:
        raise _CountsTooFar(f"event {last} is none that was ever counted")
    return int(last)


def insert(db: sqlite3.Connection, rows: Sequence[Told], active: Active, before: Counted | None) -> Counted:
    """Whole, and on disk when it returns. ``before``: what it has returned last."""
    (history,) = db.execute("PRAGMA application_id").fetchone()
    if history <= 0:
        history = 1 + secrets.randbelow(2**31 - 1)
        db.execute(f"PRAGMA application_id = {history}")
    _, base, last = before or (history, _last(db), 0)
    db.executemany(
        # What was committed and not known to be comes again.
        "INSERT OR IGNORE INTO events (id, at, client, name, fields) VALUES (?, ?, ?, ?, ?)",
        ((base + one.number, one.at, one.client, one.name, json.dumps(one.fields)) for one in rows),
    )
    db.executemany(_ACTIVE, ((*key, *did) for key, did in active.items()))
    db.execute("COMMIT")
    return history, base, rows[-1].number if rows else last


def _fields(kept: Any) -> Mapping[str, Any] | None:
    """As they were; None if a disk has changed them."""
    try:
        return _FIELDS.validate_json(kept)
    except (TypeError, ValidationError):
        return None


def cut(value: Any) -> Any:
    """What a row may hold of it."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():  # what no encoding has, as a page may say it, could not be read back
            return value[:_LONGEST].encode(errors="backslashreplace").decode()
        case Mapping():
            return {cut(str(name)): cut(inner) for name, inner in [*value.items()][:_MOST]}
        case Sequence():
            return [cut(inner) for inner in value[:_MOST]]
        case _:
            return cut(str(value))
