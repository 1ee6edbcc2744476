"""Whether the cookies can be read; Chromium makes them anew if not, and the login is not among them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from waguard.core.model import Verdict
from waguard.profile.examiners.subject import Doubt, Subject
from waguard.system.files import Below

_MOST = 16 * 1024 * 1024
_JOURNAL = slice(18, 20)
"""Where the header says whether there is a write-ahead log beside the file; in memory there is none. sqlite.org/fileformat.html"""


def examine(subject: Subject) -> Iterator[Doubt]:
    name = "Default/Cookies"
    try:
        data = bytearray(Below(subject.profile, name).data(_MOST))
    except FileNotFoundError:
        return
    except OSError as error:
        yield Doubt(Verdict.SUSPECT, name, error.strerror or str(error))
        return
    if not data:
        return
    data[_JOURNAL] = b"\1\1"
    try:
        # Not by its name: whatever SQLite opens it opens again, by whatever way leads there by then.
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(bytes(data))
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        yield Doubt(Verdict.SUSPECT, name, said)
