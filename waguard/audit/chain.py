"""The file that the audit's records are kept in, and the anchor beside it. Blocking, but for `Chain`'s own thread."""

import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from waguard.core.audit import START, Anchor, Break, Kind, Note, Row, breaks, going_on, record_of, row_of
from waguard.system import sqlite
from waguard.system.files import read_state, write_atomically
from waguard.system.sqlite import TooNewError, as_text, version_of

FILE, HEAD = ".audit.db", ".audit.head"
"""Below ``sessions.dir``, mode 0600."""
_VERSION = 1
_SETTINGS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 64;
PRAGMA journal_size_limit = 262144;
"""
_SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS records (number INTEGER PRIMARY KEY, hash TEXT NOT NULL, record TEXT NOT NULL);
PRAGMA user_version = 1;
COMMIT;
"""
_NEWEST_FIRST = "SELECT number, hash, record FROM records WHERE instr(record, ?) ORDER BY number DESC"
_LATELY = 1000
"""So many records are looked at when a daemon starts."""
_HEAD_BYTES = 200


@dataclass(slots=True)
class Draft:
    note: Note
    written: bool = False
    """It is on disk."""


class Chain(sqlite.Database):
    """Records are added by its thread alone. ``now`` is the clock, ``unreadable`` is told of files that were put aside."""

    def __init__(
        self, root: Path, busy_s: float, now: Callable[[], float], unreadable: Callable[[str, str], None]
    ) -> None:
        path = root / FILE
        super().__init__(path, busy_s, version=_VERSION, settings=_SETTINGS, schema=_SCHEMA)
        self.path = path
        self._head = root / HEAD
        self._now = now
        self._unreadable = unreadable
        self.written: deque[Anchor] = deque()
        """What was written, and nobody was told of yet."""
        # The thread's alone:
        self._tip = self._anchored = START
        self._begins = ""
        """Why the next record is the first of a chain."""

    def tell(self) -> None:
        while self.aside:
            self._unreadable(*self.aside.popleft())

    async def look(self) -> str:
        """What is wrong with what an earlier daemon has left, as far as is seen at once; a chain is begun after it. Raises like `append`."""
        return await self.in_thread(self._look)

    async def append(self, drafts: Sequence[Draft]) -> None:
        """On disk, with the anchor, when it returns; those that are written already are left out.

        Raises `TooNewError`, `sqlite3.Error`, `OSError`, `StorageFailed`, `DiskFull`.
        """
        await self.in_thread(partial(self._append, drafts))

    # --- in the thread --------------------------------------------------------------------------------

    def opened(self, db: sqlite3.Connection) -> None:
        tail = next((row.anchor for row in rows(db)), None)
        head = head_of(self._head)
        self._tip, self._begins = going_on(tail, head)
        self._anchored = head or START
        if self.aside:
            kept_as, why = self.aside[-1]
            self._begins = f"The file before is kept as {kept_as}: {why}. {self._begins}"

    def _look(self) -> str:
        if not self.path.exists() and not self._head.exists():
            return ""
        wrong = self.on_file(self._lately)
        said = " ".join(map(str, wrong))
        self._begins = self._begins or said
        begins = self._begins
        self._append(())
        return begins

    def _lately(self, db: sqlite3.Connection) -> Sequence[Break]:
        """What is wrong since the last time that something was, or of the newest records. What no anchor has yet gets one."""
        newest, since = [*islice(rows(db), _LATELY)], 1
        for at, row in enumerate(newest):
            if at == _LATELY - 1 or ((found := record_of(row)) is not None and found.note.kind is Kind.BEGUN):
                newest, since = newest[: at + 1], row.number
                break
        if not newest:
            return ()
        anchors = [self._anchored, newest[0].anchor] if self._anchored.number <= newest[0].number else []
        return breaks(newest, anchors, since)

    def _append(self, drafts: Sequence[Draft]) -> None:
        new = [one for one in drafts if not one.written]
        added = self.on_file(partial(self._insert, [one.note for one in new]))
        for one in new:
            one.written = True
        if added:
            self._tip, self._begins = added[-1], ""
            self.written.extend(added)
        if self._anchored != self._tip:
            write_atomically(self._head, f"{self._tip}\n".encode())
            self._anchored = self._tip

    def _insert(self, notes: Sequence[Note], db: sqlite3.Connection) -> Sequence[Anchor]:
        added: list[Row] = []
        if self._begins:
            notes = (Note(self._now(), Kind.BEGUN, "audit", told={"why": self._begins}), *notes)
        for note in notes:
            added.append(row_of(note, added[-1].anchor if added else self._tip))
        db.executemany(
            "INSERT INTO records VALUES (?, ?, ?)", ((one.number, one.hash, one.text) for one in added)
        )
        return [one.anchor for one in added]


def rows(db: sqlite3.Connection, having: str = "") -> Iterator[Row]:
    """The newest first; ``having``: only those that have this in them. Raises `sqlite3.Error`."""
    for number, hash_, text in db.execute(_NEWEST_FIRST, (having,)):
        yield Row(int(number), str(hash_), str(text))


def head_of(path: Path) -> Anchor | None:
    """The anchor beside the file; None if there is none, or it cannot be read."""
    try:
        return Anchor.parse(read_state(path, _HEAD_BYTES).decode("ascii", "replace"))
    except OSError:
        return None


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The file of a daemon, which may run. Nothing is changed in it. Raises `TooNewError`, `NotPlain`, `sqlite3.Error`, `OSError`."""
    if version_of(path) > _VERSION:
        raise TooNewError
    with closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    ) as db:
        db.text_factory = as_text
        db.execute("BEGIN")
        yield db
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
