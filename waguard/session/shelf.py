"""Files that pass between a client and its browser: each by its id, under the name that it is known by. Blocking: call from a thread.

sessions/.transfer/<code>/uploads/<id>/<name>     what the client has stored: its browser reads it, and cannot write there
sessions/.transfer/<code>/downloads/<id>          what its browser downloads, until it has come whole
sessions/.transfer/<code>/received/<id>/<name>    what has, out of the browser's reach

None of it is a part of a profile: no snapshot has it, and a cleanup deletes it.
"""

import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from waguard.core.file_name import NAMELESS, file_name
from waguard.sandbox import Folders, User
from waguard.system.files import Below, NotPlain, as_storage_error, partial, remove_tree, sync_directory

TRANSFER = ".transfer"
"""Below `sessions.dir`."""
_ID = re.compile(r"[0-9a-f-]{16,36}")


def is_id(text: str) -> bool:
    """Whether a file may be called so."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Kept:
    id: str
    name: str
    bytes: int
    since: float
    """Unix time, seconds."""


class Shelf:
    """A directory of such files. The directory itself stays as long as a browser may see it."""

    def __init__(self, folder: Path, user: User | None = None) -> None:
        """``user``: who reads them besides the daemon."""
        self._folder = folder
        self._user = user

    def all(self) -> Sequence[Kept]:
        """The oldest first. Raises `StorageFailed`."""
        with as_storage_error(f"read {self._folder}"):
            try:
                names = Below(self._folder).contents()
            except FileNotFoundError:
                return ()
            found = [self._kept(name, status) for name, status in names.items() if is_id(name)]
        return sorted((one for one in found if one is not None), key=lambda one: (one.since, one.id))

    def _kept(self, name: str, status: os.stat_result) -> Kept | None:
        with suppress(FileNotFoundError, NotPlain):  # it goes just now, or is none of ours
            files = (Below(self._folder) / name).contents()
            for file, its in files.items():
                if len(files) == 1 and stat.S_ISREG(its.st_mode):
                    return Kept(name, file, its.st_size, status.st_mtime)
        return None

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """A directory for what is to be kept by this id; what is left of it afterwards goes."""
        with as_storage_error(f"write below {self._folder}"), partial(self._folder / name) as room:
            room.mkdir()
            self._share(room, 0o750)
            yield room

    def create(self, path: Path) -> BinaryIO:
        """Raises `OSError`."""
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")
        self._share(path, 0o640)
        return file

    def _share(self, path: Path, mode: int) -> None:
        if self._user is not None:
            os.chown(path, -1, self._user.gid)
        path.chmod(mode)

    def complete(self, room: Path, name: str) -> None:
        """What was made is kept by this id from here. Raises `StorageFailed`."""
        with as_storage_error(f"write below {self._folder}"):
            room.rename(self._folder / name)
            sync_directory(self._folder)

    def take(self, source: Below, name: str, called: str) -> int:
        """Keep a file that a browser has written, which is moved; returns its bytes. Raises `StorageFailed`."""
        with self.making(name) as room, as_storage_error(f"take {source.path}"):
            with source.reading(sys.maxsize) as file:
                size = os.fstat(file.fileno()).st_size
            source.path.rename(room / file_name(called or NAMELESS))
            self.complete(room, name)
        return size

    def drop(self, name: str) -> bool:
        """Delete it; whether it was there. Raises `StorageFailed`."""
        with as_storage_error(f"delete below {self._folder}"), partial(self._folder / name) as going:
            try:
                (self._folder / name).rename(going)
            except FileNotFoundError:
                return False
            return True

    def open(self, kept: Kept) -> BinaryIO:
        """Raises `StorageFailed`."""
        with as_storage_error(f"read {kept.id}"):
            return (Below(self._folder) / kept.id / kept.name).reading(sys.maxsize)


class Places:
    """Of one client."""

    def __init__(self, root: Path, code: str, user: User | None) -> None:
        self._home = home = root / TRANSFER / code
        self._user = user
        self.folders = Folders(home / "uploads", home / "downloads")
        self.uploads = Shelf(self.folders.uploads, user)
        self.received = Shelf(home / "received")

    def make(self) -> None:
        """Create what is not there. Raises `StorageFailed`, `DiskFull`."""
        with as_storage_error(f"create {self._home}"):
            # Others may pass but not look: without bubblewrap the browsers' user has to get through.
            for directory, mode in (
                (self._home.parent, 0o711),
                (self._home, 0o711),
                (self.folders.uploads, 0o750),
                (self.folders.downloads, 0o700),
                (self._home / "received", 0o700),
            ):
                directory.mkdir(exist_ok=True)
                directory.chmod(mode)
            if self._user is not None:
                for path in (self.folders.uploads, *self.folders.uploads.rglob("*")):
                    os.chown(path, -1, self._user.gid, follow_symlinks=False)
                os.chown(self.folders.downloads, self._user.uid, self._user.gid)

    @staticmethod
    def codes(root: Path) -> Sequence[str]:
        """Names of all clients that have such places. Raises `StorageFailed`."""
        with as_storage_error(f"read {root / TRANSFER}"), suppress(FileNotFoundError):
            return sorted(entry.name for entry in os.scandir(root / TRANSFER) if entry.is_dir())
        return ()

    def unfinished(self) -> Sequence[Path]:
        """Downloads that have not come whole. Raises `StorageFailed`."""
        with as_storage_error(f"read {self.folders.downloads}"):
            try:
                return [self.folders.downloads / name for name in Below(self.folders.downloads).contents()]
            except FileNotFoundError:
                return ()

    def drop_unfinished(self) -> int:
        """Only when no browser writes there; returns how many. Raises `StorageFailed`."""
        there = self.unfinished()
        for path in there:
            self.drop_unkept(path.name)
        return len(there)

    def drop_unkept(self, name: str) -> None:
        """A download that is not to be kept. Raises `StorageFailed`."""
        path = self.folders.downloads / name
        with as_storage_error(f"delete {path}"):
            if path.is_dir() and not path.is_symlink():  # whatever a hostile browser has made of it
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)

    def clear(self) -> int | None:
        """All of it, for good; returns how many files there were, None if there was no place for any. Only when no browser runs.

        Raises `StorageFailed`.
        """
        if not self._home.is_dir():
            return None
        there = len(self.uploads.all()) + len(self.received.all()) + len(self.unfinished())
        with as_storage_error(f"delete {self._home}"):
            remove_tree(self._home)
        return there
