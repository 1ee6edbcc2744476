"""The file that webhooks are kept in, with their secrets, how far each has read the feed, and the messages that have not arrived.

A message that arrives at once is never in it: between two writes it has come and gone, and only the place in the feed moves on.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from waguard.core.deliveries import JITTER, WAITS_S, Message, State
from waguard.core.feed import Place
from waguard.core.webhook import Webhook
from waguard.errors import InvalidRequest
from waguard.system import sqlite

FILE = ".webhooks.db"
"""Below ``sessions.dir``, mode 0600."""
DEAD = 10_000
"""Dead letters that are kept of each webhook; the oldest go."""
NOWHERE = Place(0, 0)
"""No history has this place: whoever comes back with it is told that nobody knows what it has missed."""

_SETTINGS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA secure_delete = ON;
PRAGMA wal_autocheckpoint = 256;
PRAGMA journal_size_limit = 1048576;
"""
_SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS webhooks (id TEXT PRIMARY KEY, about TEXT NOT NULL, place TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    webhook TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, client TEXT NOT NULL, name TEXT NOT NULL,
    at REAL NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, age_s REAL NOT NULL,
    due_at REAL NOT NULL, error TEXT NOT NULL, PRIMARY KEY (webhook, seq)
);
CREATE INDEX IF NOT EXISTS messages_by_state ON messages (webhook, state, seq);
PRAGMA user_version = 1;
COMMIT;
"""
_WEBHOOK = TypeAdapter(Webhook)
_COLUMNS = "seq, id, client, name, at, body, attempts, age_s, due_at, error, state"


@dataclass(frozen=True, slots=True)
class Times:
    """The clock that never jumps, and the one on the wall, in seconds."""

    now: float
    wall: float


@dataclass(frozen=True, slots=True)
class Progress:
    """What has become of a webhook's messages since the last write."""

    webhook: Webhook
    place: str
    """Where it is in the feed: what was before has arrived, or is a row."""
    changed: Mapping[int, Message]


@dataclass(frozen=True, slots=True)
class Stored:
    webhook: Webhook
    place: Place
    waiting: Sequence[Message]


class Store(sqlite.Database):
    def __init__(self, root: Path, busy_s: float) -> None:
        super().__init__(root / FILE, busy_s, version=1, settings=_SETTINGS, schema=_SCHEMA)
        self.path = self._path


# --- in the thread ------------------------------------------------------------------------------------------


def load(db: sqlite3.Connection, times: Times) -> tuple[Sequence[Stored], int, Sequence[str]]:
    """All webhooks, the number of the newest message, and the ids of webhooks that are not as we write them."""
    found: list[Stored] = []
    odd: list[str] = []
    for number, about, place in db.execute("SELECT id, about, place FROM webhooks ORDER BY rowid").fetchall():
        try:
            webhook = _WEBHOOK.validate_json(about)
            webhook.headers("", b"", 0.0)  # with each of its secrets
        except ValueError:
            odd.append(str(number))
            continue
        waiting = messages(db, webhook.id, State.WAITING, times, most=-1)
        found.append(Stored(webhook, _place(str(place)), waiting))
    (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM messages").fetchone()
    return found, int(last), odd


def _place(text: str) -> Place:
    try:
        return Place.of(text)
    except InvalidRequest:
        return NOWHERE


def put(db: sqlite3.Connection, webhook: Webhook, place: str) -> None:
    row = (webhook.id, _WEBHOOK.dump_json(webhook).decode(), place)
    db.execute(
        "INSERT INTO webhooks VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET about = excluded.about, place = excluded.place",
        row,
    )


def update(db: sqlite3.Connection, webhook: Webhook) -> None:
    row = (_WEBHOOK.dump_json(webhook).decode(), webhook.id)
    db.execute("UPDATE webhooks SET about = ? WHERE id = ?", row)


def delete(db: sqlite3.Connection, webhook: str) -> None:
    db.execute("DELETE FROM webhooks WHERE id = ?", (webhook,))
    db.execute("DELETE FROM messages WHERE webhook = ?", (webhook,))


def write(
    db: sqlite3.Connection, progress: Mapping[str, Progress], others: Sequence[str], times: Times
) -> Mapping[str, int]:
    """All of it, or nothing; ``others``: webhooks that stay too. How many dead letters of which webhook found no place any more."""
    lost: dict[str, int] = {}
    # What a change that was given up has left.
    there = json.dumps([*progress, *others])
    db.execute("DELETE FROM webhooks WHERE id NOT IN (SELECT value FROM json_each(?))", (there,))
    db.execute("DELETE FROM messages WHERE webhook NOT IN (SELECT value FROM json_each(?))", (there,))
    for webhook, one in progress.items():
        put(db, one.webhook, one.place)
        db.executemany(
            "DELETE FROM messages WHERE webhook = ? AND seq = ?",
            ((webhook, seq) for seq, message in one.changed.items() if message.state is State.DELIVERED),
        )
        db.executemany(
            f"INSERT OR REPLACE INTO messages (webhook, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 (ours)
            (
                (webhook, *_row(message, times))
                for message in one.changed.values()
                if message.state is not State.DELIVERED
            ),
        )
        if any(message.state is State.DEAD for message in one.changed.values()):
            gone = db.execute(
                "DELETE FROM messages WHERE webhook = ? AND state = 'dead' AND seq <= (SELECT seq FROM messages "
                "WHERE webhook = ? AND state = 'dead' ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (webhook, webhook, DEAD),
            ).rowcount
            lost |= {webhook: gone} if gone else {}
    return lost


def _row(one: Message, times: Times) -> tuple[object, ...]:
    due_at = times.wall + one.due - times.now
    return (
        *(one.seq, one.id, one.client, one.name, one.at, one.body, one.attempts),
        *(one.tried_s(times.now), due_at, one.error, one.state.value),
    )


def messages(
    db: sqlite3.Connection,
    webhook: str,
    state: State,
    times: Times,
    *,
    most: int,
    before: int | None = None,
    newest_first: bool = False,
    ids: Collection[str] = (),
    wanted: Callable[[Message], bool] = bool,
) -> Sequence[Message]:
    """So many at most, -1: all; ``before``: only those that are older. A row that a disk has changed is passed over."""
    order = "DESC" if newest_first else "ASC"
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM messages WHERE webhook = ? AND state = ? AND (? IS NULL OR seq < ?) ORDER BY seq {order}",  # noqa: S608 (ours)
        (webhook, state.value, before, before),
    )
    found: list[Message] = []
    for row in rows:
        if len(found) == most:
            break
        message = _message(row, times)
        if message is not None and (not ids or message.id in ids) and wanted(message):
            found.append(message)
    return found


def dead_letters(db: sqlite3.Connection) -> Mapping[str, int]:
    """How many of each webhook's."""
    return dict(db.execute("SELECT webhook, count(*) FROM messages WHERE state = 'dead' GROUP BY webhook"))


def _message(row: Sequence[object], times: Times) -> Message | None:
    match row:
        case (
            int(seq),
            str(number),
            str(client),
            str(name),
            float(at),
            str(body),
            int(attempts),
            float(age_s),
            float(due_at),
            str(error),
            "waiting" | "dead" as state,
        ):
            # Whatever the clock on the wall has done meanwhile.
            longest_s = WAITS_S[min(attempts, len(WAITS_S)) - 1] * (1 + JITTER) if attempts > 0 else 0.0
            due = times.now + min(max(0.0, due_at - times.wall), longest_s)
            return Message(
                seq,
                number,
                client,
                name,
                at,
                body,
                attempts,
                age_s,
                times.now,
                due,
                error,
                State(state),
                stored=True,
            )
    return None
