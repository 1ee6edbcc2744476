"""A file of SQLite below ``sessions.dir``: owned by one thread, and replaced by a new one when it turns out to be none."""

import asyncio
import contextlib
import os
import secrets
import sqlite3
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from waguard.system.files import Below, NotPlain
from waguard.system.tasks import forget
from waguard.system.threads import Lone

T = TypeVar("T")

BESIDE = ("-wal", "-shm")
TORN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class TooNewError(Exception):
    """A later version of waguard has written the file."""


class Database:
    def __init__(self, path: Path, busy_s: float, *, version: int, settings: str, schema: str) -> None:
        """``busy_s``: so many seconds somebody else who has it open may hold it. ``schema`` is of a file without a version."""
        self._path = path
        self._busy_s = busy_s
        self._version, self._settings, self._schema = version, settings, schema
        self._thread = Lone(path.stem.removeprefix("."))
        # The thread's alone:
        self._db: sqlite3.Connection | None = None
        self.aside: deque[tuple[str, str]] = deque()
        """Files that were moved out of the way and why, to be told by the loop."""

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction. Called off, it goes on in the thread, and what comes next waits for it there.

        Raises `TooNewError`, `sqlite3.Error`, `OSError`.
        """
        return await self.in_thread(partial(self.on_file, work))

    async def idle(self) -> None:
        """Returns when whatever was given to it before has ended."""
        await self.in_thread(bool)

    async def close(self) -> None:
        await self.in_thread(self.drop)

    def end(self) -> None:
        """Nothing more will be asked."""
        self._thread.end()

    async def in_thread(self, call: Callable[[], T]) -> T:
        try:
            work = self._thread.submit(call)
            forget(work)  # whoever is not called off is told all the same
            return await asyncio.shield(work)
        finally:
            self.tell()

    def tell(self) -> None:
        """In the loop, after each call: what the thread has found."""

    # --- in the thread --------------------------------------------------------------------------------

    def on_file(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do it, on a new file if the one that is there turns out to be none. Raises `TooNewError`, `sqlite3.Error`, `OSError`."""
        try:
            return self._once(work)
        except NotPlain as error:
            self._set_aside(error.what)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in TORN:
                raise
            self._set_aside(str(error))
        return self._once(work)

    def _once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._db is None:
                self._db = self._open()
                self.opened(self._db)
            with self._db:
                self._db.execute("BEGIN")
                return work(self._db)
        except sqlite3.Error:
            self.drop()
            raise

    def opened(self, db: sqlite3.Connection) -> None:
        """What has to be known of a file before anything is done with it."""

    def _open(self) -> sqlite3.Connection:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        # Before SQLite, which would complete what a crash has left, touches it.
        if version_of(self._path) > self._version:
            raise TooNewError
        db = sqlite3.connect(self._path, timeout=self._busy_s, isolation_level=None)
        try:
            db.text_factory = as_text
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > self._version:
                raise TooNewError
            db.executescript(self._settings + (self._schema if version == 0 else ""))
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, why: str) -> None:
        aside = self._path.with_name(f"{self._path.stem}.{secrets.token_hex(4)}.unreadable")
        self._path.replace(aside)
        for ending in BESIDE:
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(self._path.name + ending).replace(aside.with_name(aside.name + ending))
        self.aside.append((str(aside), why))

    def drop(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            with contextlib.suppress(sqlite3.Error):
                db.close()


def version_of(path: Path) -> int:
    """By the head of the file, without SQLite; 0 if that says nothing. Raises `NotPlain`, also for the files beside it, `OSError`."""
    head = b""
    for one in (path, *(path.with_name(path.name + ending) for ending in BESIDE)):
        with contextlib.suppress(FileNotFoundError), Below(one).reading(sys.maxsize) as file:
            head = file.read(64) if one == path else head
    return int.from_bytes(head[60:64], "big") if head.startswith(b"SQLite format 3\0") else 0


def as_text(data: bytes) -> str:
    """What a disk has changed is read, and does not match, instead of raising."""
    return data.decode("utf-8", "replace")
