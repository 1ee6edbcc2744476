"""Ways in which a profile gets damaged, and ways in which it only looks odd: a generator, no binaries.

What Chromium 156 made of each was tried: the damaged profile of a logged-in client was opened on the simulated WhatsApp
Web. ``LOST``: it asked for a scan, or could not open its storage. ``KEPT``: it came up logged in.
"""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import google_crc32c

from waguard.profile import leveldb
from waguard.system.files import Below


class Chromium(StrEnum):
    LOST = "lost"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Way:
    name: str
    do: Callable[[Path], object]
    """Given the profile."""
    chromium: Chromium = Chromium.LOST


HOLDS_A_LOCK = """
import fcntl, os, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(path: Path, *within: str) -> Iterator[int]:
    """Another process holds the lock as LevelDB does, ``within`` other namespaces maybe; gives its pid there."""
    command = [*within, sys.executable, "-c", HOLDS_A_LOCK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield int(process.stdout.readline())
        process.stdin.close()  # it ends, and the block waits for that


def indexed_db(profile: Path) -> Path:
    return next((profile / "Default" / "IndexedDB").glob("*.indexeddb.leveldb"))


def local_storage(profile: Path) -> Path:
    return profile / "Default" / "Local Storage" / "leveldb"


def flip(file: Path, at: float) -> None:
    """One bit, at a byte or at a part of the length."""
    data = bytearray(file.read_bytes())
    data[int(at) if at < 0 or at >= 1 else int(len(data) * at)] ^= 0x40
    file.write_bytes(data)


def cut(file: Path, part: float) -> None:
    os.truncate(file, int(file.stat().st_size * part))


def shorten(file: Path, by: int) -> None:
    os.truncate(file, file.stat().st_size - by)


def zero(file: Path, since: float = 0.0) -> None:
    data = file.read_bytes()
    kept = int(len(data) * since)
    file.write_bytes(data[:kept] + bytes(len(data) - kept))


def garbage(file: Path) -> None:
    # The same each time: length and kind of the first record would be impossible.
    file.write_bytes(b"\xa5\x5a" * (max(64, file.stat().st_size) // 2))


def append(file: Path) -> None:
    with file.open("ab") as end:
        end.write(b"\xa5\x5a" * 250)


def go_on_behind(file: Path, kind: int) -> None:
    """With a whole record behind part of one, as after a write for which the disk had no space: log_format.md."""

    def record(kind: int, data: bytes) -> bytes:
        crc = leveldb.masked(int(google_crc32c.value(bytes([kind]) + data)))
        return struct.pack("<IHB", crc, len(data), kind) + data

    with file.open("ab") as end:
        end.write(record(kind, bytes(100)) + record(1, struct.pack("<QI", 1 << 40, 0)))


def manifest(database: Path) -> Path:
    return next(database.glob("MANIFEST-*"))


def log(database: Path) -> Path:
    return max(database.glob("*.log"))


def at(which: int, do: Callable[[Path], object]) -> Callable[[Path], object]:
    """Do it to this one of the tables that a database still needs."""
    return lambda database: do(database / f"{_needed(database)[which]:06}.ldb")


def _needed(database: Path) -> list[int]:
    return sorted(leveldb.read_manifest(Below(manifest(database))).tables)


def within(place: Callable[[Path], Path], do: Callable[[Path], object]) -> Callable[[Path], object]:
    """Do it to this database of a profile."""
    return lambda profile: do(place(profile))


def empty_but_for_lock(database: Path) -> None:
    for file in database.iterdir():
        if file.name != "LOCK":
            file.unlink()


def each(pattern: str, do: Callable[[Path], object], profile: Path) -> None:
    for path in profile.rglob(pattern):
        do(path)


def _database_ways() -> list[tuple[str, Callable[[Path], object]]]:
    """Of a small database: all is in its log."""
    return [
        ("directory gone", shutil.rmtree),
        ("only LOCK left", empty_but_for_lock),
        ("CURRENT empty", lambda d: (d / "CURRENT").write_bytes(b"")),
        ("CURRENT without its newline", lambda d: shorten(d / "CURRENT", 1)),
        ("CURRENT names no file", lambda d: (d / "CURRENT").write_bytes(b"MANIFEST-009999\n")),
        ("CURRENT zeros", lambda d: zero(d / "CURRENT")),
        ("MANIFEST gone", lambda d: manifest(d).unlink()),
        ("MANIFEST empty", lambda d: cut(manifest(d), 0)),
        ("MANIFEST cut in half", lambda d: cut(manifest(d), 0.5)),
        ("MANIFEST lacks its last byte", lambda d: shorten(manifest(d), 1)),
        ("MANIFEST with a flipped bit", lambda d: flip(manifest(d), 0.5)),
        ("MANIFEST garbage", lambda d: garbage(manifest(d))),
        ("MANIFEST zeros", lambda d: zero(manifest(d))),
        ("log gone", lambda d: log(d).unlink()),
        ("log empty", lambda d: cut(log(d), 0)),
        ("log cut in half", lambda d: cut(log(d), 0.5)),
        ("log with a flipped bit near its beginning", lambda d: flip(log(d), 40)),
        ("log with a flipped bit in its middle", lambda d: flip(log(d), 0.5)),
        ("log zeros", lambda d: zero(log(d))),
        ("log with zeros in its second half", lambda d: zero(log(d), 0.5)),
        ("log garbage", lambda d: garbage(log(d))),
    ]


def _table_ways() -> list[tuple[str, Callable[[Path], object], Chromium]]:
    """Of a database that has tables too."""
    ways: list[tuple[str, Callable[[Path], object], Chromium]] = []
    for word, which in (("first", 0), ("last", -1)):
        ways += [
            (f"{word} table gone", at(which, Path.unlink), Chromium.LOST),
            (f"{word} table cut in half", at(which, partial(cut, part=0.5)), Chromium.LOST),
            (f"{word} table empty", at(which, partial(cut, part=0)), Chromium.LOST),
            (f"{word} table without its footer", at(which, partial(flip, at=-4)), Chromium.LOST),
        ]
    return [
        *ways,
        ("all tables gone", partial(each, "*.ldb", Path.unlink), Chromium.LOST),
        ("all tables zeros", partial(each, "*.ldb", zero), Chromium.LOST),
        ("first table with a flipped bit at its beginning", at(0, partial(flip, at=30)), Chromium.LOST),
        ("MANIFEST cut in half", lambda d: cut(manifest(d), 0.5), Chromium.LOST),
        # What it knows of a login lies in the tables by then.
        ("log gone", lambda d: log(d).unlink(), Chromium.KEPT),
        ("log cut in half", lambda d: cut(log(d), 0.5), Chromium.KEPT),
    ]


PLACES = (("IndexedDB", indexed_db), ("Local Storage", local_storage))

SMALL = [
    *(Way(f"{name}: {what}", within(place, do)) for name, place in PLACES for what, do in _database_ways()),
    Way("Local Storage: log lacks its last byte", lambda p: shorten(log(local_storage(p)), 1)),
    Way("IndexedDB: log lacks its last byte", lambda p: shorten(log(indexed_db(p)), 1), Chromium.KEPT),
    Way("IndexedDB: CURRENT gone", lambda p: (indexed_db(p) / "CURRENT").unlink(), Chromium.KEPT),
    Way("IndexedDB: log with a record without an end", lambda p: go_on_behind(log(indexed_db(p)), 2)),
    Way("IndexedDB: log with a record without a beginning", lambda p: go_on_behind(log(indexed_db(p)), 4)),
    Way("Local Storage: CURRENT gone", lambda p: (local_storage(p) / "CURRENT").unlink(), Chromium.KEPT),
    Way("Default gone", lambda p: shutil.rmtree(p / "Default")),
    Way("IndexedDB gone", lambda p: shutil.rmtree(p / "Default" / "IndexedDB")),
    Way("Local Storage gone", lambda p: shutil.rmtree(p / "Default" / "Local Storage")),
]
LARGE = [
    Way(f"{name}, large: {what}", within(place, do), chromium)
    for name, place in PLACES
    for what, do, chromium in _table_ways()
]

UNSEEN = {
    "the whole of a database is gone": {
        "IndexedDB: directory gone",
        "IndexedDB: only LOCK left",
        "Local Storage: directory gone",
        "Local Storage: only LOCK left",
        "Default gone",
        "IndexedDB gone",
        "Local Storage gone",
    },
    "its log is gone, empty, or cut where a kill might have cut it": {
        "IndexedDB: log gone",
        "IndexedDB: log empty",
        "IndexedDB: log cut in half",
        "Local Storage: log gone",
        "Local Storage: log empty",
        "Local Storage: log cut in half",
        "Local Storage: log lacks its last byte",
    },
    "a MANIFEST is cut where a kill might have cut it, and all that it names is there": {
        "Local Storage, large: MANIFEST cut in half",
    },
    "a bit is flipped in the data of a table": {
        "IndexedDB, large: first table with a flipped bit at its beginning",
        "Local Storage, large: first table with a flipped bit at its beginning",
    },
}
"""What cannot be told from a sound profile where there is no witness: see docs/explanation/profiles.md."""

STILL_UNSEEN = {
    "IndexedDB: log cut in half",
    "Local Storage: log lacks its last byte",
    "Local Storage, large: MANIFEST cut in half",
    "IndexedDB, large: first table with a flipped bit at its beginning",
    "Local Storage, large: first table with a flipped bit at its beginning",
}
"""Likewise, of a client that is known to have been connected."""


def _preferences(profile: Path, text: str) -> None:
    (profile / "Default" / "Preferences").write_text(text)


def _crashed(profile: Path) -> None:
    _preferences(profile, '{"profile": {"exit_type": "Crashed", "exited_cleanly": false}}')


ODD = [
    Way("as it is", lambda _: None),
    Way("exit_type Crashed", _crashed),
    Way("Local Storage: log with a record without an end", lambda p: go_on_behind(log(local_storage(p)), 2)),
    Way(
        "Local Storage: log with a record without a beginning",
        lambda p: go_on_behind(log(local_storage(p)), 4),
    ),
    Way("Preferences torn", lambda p: _preferences(p, '{"profile": {"exit')),
    Way("Preferences empty", lambda p: _preferences(p, "")),
    Way("Local State there", lambda p: (p / "Local State").write_text("{}")),
    Way("Cookies garbage", lambda p: garbage(p / "Default" / "Cookies")),
    Way("Cookies gone", lambda p: (p / "Default" / "Cookies").unlink()),
    Way("Cookies empty", lambda p: cut(p / "Default" / "Cookies", 0)),
    Way("Cookies cut in half", lambda p: cut(p / "Default" / "Cookies", 0.5)),
    Way("QuotaManager garbage", lambda p: garbage(p / "Default" / "WebStorage" / "QuotaManager")),
    Way("WebStorage gone", lambda p: shutil.rmtree(p / "Default" / "WebStorage")),
    Way("Service Worker gone", lambda p: shutil.rmtree(p / "Default" / "Service Worker")),
    Way(
        "Service Worker log garbage",
        lambda p: each("*.log", garbage, p / "Default" / "Service Worker" / "Database"),
    ),
    Way("Session Storage gone", lambda p: shutil.rmtree(p / "Default" / "Session Storage")),
    Way("Cache garbage", lambda p: each("index", garbage, p / "Default" / "Cache")),
    Way("Cache gone", lambda p: shutil.rmtree(p / "Default" / "Cache")),
    Way("Code Cache gone", lambda p: shutil.rmtree(p / "Default" / "Code Cache")),
    Way("GPUCache gone", lambda p: shutil.rmtree(p / "Default" / "GPUCache")),
    Way("SingletonLock of a host that is gone", lambda p: (p / "SingletonLock").symlink_to("otherhost-1234")),
    Way("LOG files gone", lambda p: each("LOG*", Path.unlink, p)),
    Way("LOCK files gone", lambda p: each("LOCK", Path.unlink, p)),
    Way("a Preferences.bad", lambda p: (p / "Default" / "Preferences.bad").write_text("{")),
    Way("a file nobody knows", lambda p: (p / "Default" / "notes.txt").write_text("mine")),
    Way("IndexedDB: log appended to", lambda p: append(log(indexed_db(p)))),
    Way("Local Storage: log appended to", lambda p: append(log(local_storage(p)))),
    Way("DIPS gone", lambda p: (p / "Default" / "DIPS").unlink(missing_ok=True)),
    Way("Last Version of today", lambda p: (p / "Last Version").write_text("1.0.0.0")),
    Way("older times", lambda p: each("*", lambda path: os.utime(path, (1, 1)), p)),
]
"""Odd to look at, and the login is all there."""
