"""The databases of a login, held while a browser uses them: one that it wipes and makes anew is another one then.

Chromium does so, and lets the page go on, when it opens a database again whose files it cannot read: after a write that
failed on a full disk, for one (content/browser/indexed_db/instance, ``ReportCorruption``). The files are whole again then and
hold nothing. What tells the two apart is the directory: as long as one is open, no other has its inode number. The daemon
that comes after one that was killed has nothing open, and goes by what that one wrote down of them.
"""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from waguard.profile import login_files
from waguard.system import birth


class Held:
    """Blocking: call from a thread."""

    def __init__(self, profile: Path, origin: str, written: Mapping[str, str]) -> None:
        """``written``: the `identities` that an earlier daemon has written down, if any. Raises `NotPlain`, `OSError`."""
        self._fds = {}
        self.identities: Mapping[str, str] = {}
        """Of the directories that had the login, by their path below the profile."""
        self._gone = ""
        """The one that was wiped before."""
        self._one = threading.Lock()  # a number that was closed may be another file's a moment later
        try:
            for database in login_files.databases(profile, origin):
                self._fds[database] = database.hold()
            self.identities = {database.name: birth.identity(fd) for database, fd in self._fds.items()}
        except OSError:
            self.drop()
            raise
        had = {name: written[name] for name in login_files.database_names(origin) if name in written}
        self._gone = next((name for name, what in had.items() if self.identities.get(name) != what), "")
        self.identities = {**self.identities, **had}

    def made_anew(self) -> str:
        """Which of them is another one by now, and since when nobody knows; empty if none. Raises `OSError`."""
        name = self._gone or self._changed()
        return f"{name} has been wiped while the browser used it, and the login was in it" if name else ""

    def _changed(self) -> str:
        with self._one:
            for database, fd in self._fds.items():
                held, there = os.fstat(fd), database.status()
                if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
                    return database.name
        return ""

    def drop(self) -> None:
        with self._one:
            while self._fds:
                os.close(self._fds.popitem()[1])
