"""The file that the history is kept in."""

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from waguard.core.feed import Told
from waguard.core.learning import measured
from waguard.core.model import ClientCode
from waguard.core.stats import Happening
from waguard.observe.bus import Bus
from waguard.system import sqlite

FILE = ".history.db"
"""Below ``sessions.dir``, mode 0600."""

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

_FIELDS = TypeAdapter(dict[str, Any])

Counted = tuple[int, int, int]
"""Which history it is, what is added in it to the number of an event of this daemon's, and the last one that is in it."""
Active = dict[tuple[ClientCode, int], list[float]]
"""Client and hour since 1970 -> how much it did, and of how many seconds that is known."""


class _CountsTooFar(sqlite3.DatabaseError):
    """A disk has changed the number of a row: there is no room behind it."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class Database(sqlite.Database):
    def __init__(self, path: Path, busy_s: float, bus: Bus) -> None:
        """``busy_s``: so many seconds somebody else who has it open may hold it."""
        super().__init__(path, busy_s, version=1, settings=_SETTINGS, schema=_SCHEMA)
        self._publish = bus.publish
        # The thread's alone:
        self._odd, self._odd_first = 0, ""
        """How many rows are not as we write them, to be told by the loop, and the first of them."""
        self._odd_told = False

    def tell(self) -> None:
        while self.aside:
            kept_as, why = self.aside.popleft()
            self._publish("history.unreadable", kept_as=kept_as, error=why)
        odd, self._odd = self._odd, 0
        if odd and not self._odd_told:
            self._odd_told = True
            path, first = str(self._path), self._odd_first
            self._publish("history.rows_ignored", path=path, rows=odd, first=first)

    # --- in the thread --------------------------------------------------------------------------------

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


def counted(db: sqlite3.Connection) -> Counted | None:
    """Before anything of this daemon's was written; None: nobody has counted in it yet."""
    (history,) = db.execute("PRAGMA application_id").fetchone()
    last = _last(db)
    return (history, last, 0) if history > 0 else None


def _last(db: sqlite3.Connection) -> int:
    (last,) = db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    if not 0 <= last <= _FURTHEST:
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
