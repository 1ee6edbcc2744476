"""Whether the cookies can be read; Chromium makes them anew if not, and the login is not among them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

from waguard.profile.examiners.subject import Doubt, Subject, Verdict


def examine(subject: Subject) -> Iterator[Doubt]:
    path = subject.profile / "Default" / "Cookies"
    if not path.is_file() or path.stat().st_size == 0:
        return
    try:
        # immutable: neither a lock nor a journal is touched.
        uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        yield Doubt(Verdict.SUSPECT, "Default/Cookies", said)
