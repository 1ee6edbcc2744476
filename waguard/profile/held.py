"""The databases of a login, held while a browser uses them: one that it wipes and makes anew is another one then.

Chromium does so, and lets the page go on, when it opens a database again whose files it cannot read: after a write that
failed on a full disk, for one (content/browser/indexed_db/instance, ``ReportCorruption``). The files are whole again then and
hold nothing. What tells the two apart is the directory: as long as one is open, no other has its inode number.
"""

import os
import threading
from pathlib import Path

from waguard.profile import login


class Held:
    """Blocking: call from a thread."""

    def __init__(self, profile: Path, origin: str) -> None:
        """Raises `NotPlain`, `OSError`."""
        self._fds = {}
        self._one = threading.Lock()  # a number that was closed may be another file's a moment later
        try:
            for database in login.databases(profile, origin):
                self._fds[database] = database.hold()
        except OSError:
            self.drop()
            raise

    def made_anew(self) -> str:
        """Which of them is another one by now, and since when nobody knows; empty if none. Raises `OSError`."""
        with self._one:
            for database, fd in self._fds.items():
                held, there = os.fstat(fd), database.status()
                if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
                    return (
                        f"{database.name} has been wiped while the browser used it, and the login was in it"
                    )
        return ""

    def drop(self) -> None:
        with self._one:
            while self._fds:
                os.close(self._fds.popitem()[1])
