"""Writing files so that a crash leaves the old one or the new one, never half of one; and reading those that a hostile
program could have written: it waits for nobody, follows no link, and takes no more than it was told to.

Blocking: call from a thread.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from waguard.errors import ConfigError, DiskFull, StorageFailed
from waguard.system import shortage

T = TypeVar("T")

PARTIAL = ".partial"
"""The ending of a file that is being written; one found at start is a leftover."""


_NAME = re.compile(rf".+\.[0-9a-f]{{8}}{re.escape(PARTIAL)}")
_WRITING: set[Path] = set()


def is_partial(name: str) -> bool:
    """Whether a file of this name is one that `partial` made, and not somebody else's."""
    return _NAME.fullmatch(name) is not None


def being_written() -> frozenset[Path]:
    """The files that this process is writing now: those of `PARTIAL`'s kind that are no leftovers."""
    return frozenset(_WRITING)


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for what is being made; whatever bears it at the end of the block is deleted."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    _WRITING.add(beside)
    try:
        yield beside
    finally:
        with contextlib.suppress(OSError):
            if beside.is_dir() and not beside.is_symlink():
                remove_tree(beside)
            else:
                beside.unlink(missing_ok=True)
        _WRITING.discard(beside)


class NotPlain(OSError):
    """What should be a plain file of a sane size is something else: a browser may have made it, and nobody reads it."""

    def __init__(self, what: str, path: Path, number: int = errno.EINVAL) -> None:
        super().__init__(number, what, str(path))
        self.what = what
        self.path = path


_MOST_FILES = 20_000
"""In one directory: more are no database, and a list of them would have no bound."""
_MOST_STATE = 16 * 1024 * 1024
"""Bytes of a file of our own that is read whole."""
_PIECE = 1024 * 1024
# O_NONBLOCK: a FIFO without a writer, or a file that somebody holds a lease on, is waited for otherwise.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_PASS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def oddity(status: os.stat_result, most: int) -> str:
    """What keeps a file from being a plain one of at most so many bytes; empty if nothing does."""
    if not stat.S_ISREG(status.st_mode):
        return f"it is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')} and no file"
    if status.st_size > most:  # by its length: what is sparse takes no room until somebody reads it
        return f"it has {status.st_size} bytes, and {most} is the most that is sane"
    return ""


@dataclass(frozen=True, slots=True)
class Below:
    """A place below ``top``, where others may write: no part of the way from there is a link, whoever changes it when."""

    top: Path
    name: str = ""
    """Empty: ``top`` itself, which is no link either."""

    def __truediv__(self, name: str) -> "Below":
        return Below(self.top, f"{self.name}/{name}" if self.name else name)

    @property
    def path(self) -> Path:
        """To be shown, not to be opened."""
        return self.top / self.name

    def status(self) -> os.stat_result | None:
        """None if there is nothing. Raises `NotPlain` if there is no way, `OSError`."""
        try:
            fd = self._open(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def hold(self) -> int:
        """A file descriptor of this directory that keeps it what it is; the caller's to close. Raises like `contents`."""
        return self._open(os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def is_directory(self) -> bool:
        """Whether there is one, and a way to it."""
        try:
            status = self.status()
        except NotPlain:
            return False
        return status is not None and stat.S_ISDIR(status.st_mode)

    def contents(self) -> Mapping[str, os.stat_result]:
        """What is in this directory, by name. Raises `NotPlain`, also for too many files, `OSError`."""
        found: dict[str, os.stat_result] = {}
        fd = self._open(_READ | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if len(found) == _MOST_FILES:
                        raise NotPlain(f"it has more than {_MOST_FILES} files", self.path)
                    with contextlib.suppress(FileNotFoundError):
                        found[entry.name] = entry.stat(follow_symlinks=False)
        finally:
            os.close(fd)
        return found

    def reading(self, most: int) -> BinaryIO:
        """The file, opened. Raises `NotPlain` unless it is a plain one of at most so many bytes, `OSError`."""
        return self._plain(_READ, most)

    def data(self, most: int) -> bytes:
        """All that is in it. Raises like `reading`."""
        with self.reading(most) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise NotPlain(f"it has more than {most} bytes", self.path)
        return data

    def cut(self, end: int) -> None:
        """Leave only its beginning, on disk. Raises like `reading`."""
        with self._plain(_READ | os.O_RDWR, sys.maxsize) as file:
            os.ftruncate(file.fileno(), end)
            os.fsync(file.fileno())

    def link_to(self, target: Path) -> None:
        """Give the file a second name. Raises `OSError`, of a file system that has none too."""
        if not self.name:
            os.link(self.top, target, follow_symlinks=False)
            return
        fd = self._open_parent()
        try:
            os.link(self.name.rpartition("/")[2], target, src_dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(fd)

    def copy_to(self, target: Path, most: int) -> int:
        """Copy the file; how many bytes it had. Raises like `reading`."""
        copied = 0
        with self.reading(most) as file, target.open("xb") as copy:
            while piece := file.read(_PIECE):
                copied += len(piece)
                if copied > most:
                    raise NotPlain(f"it has more than {most} bytes", self.path)
                copy.write(piece)
        return copied

    def _plain(self, flags: int, most: int) -> BinaryIO:
        fd = self._open(flags)
        try:
            return _plain(fd, most, self)
        except BaseException:
            os.close(fd)
            raise

    def _open(self, flags: int) -> int:
        if not self.name:
            return _naming_oddity(self, os.open, self.top, flags)
        parent = self._open_parent()
        try:
            return _naming_oddity(self, os.open, self.name.rpartition("/")[2], flags, dir_fd=parent)
        finally:
            os.close(parent)

    def _open_parent(self) -> int:
        fd = _naming_oddity(self, os.open, self.top, _PASS)
        for part in self.name.split("/")[:-1]:
            above = fd
            try:
                fd = _naming_oddity(self, os.open, part, _PASS, dir_fd=above)
            finally:
                os.close(above)
        return fd


def _naming_oddity(place: Below, call: Callable[..., T], *args: object, **more: object) -> T:
    """Links, what is in the way, and what cannot be opened at all are the kernel's words for `NotPlain`."""
    try:
        return call(*args, **more)
    except OSError as error:
        what = {
            errno.ELOOP: "it is a link",
            errno.ENOTDIR: "a link or a file is in the way",
            errno.EISDIR: "it is a directory and no file",
            errno.ENXIO: "it is a socket, a FIFO or a device and no file",
        }.get(error.errno or 0)
        if what is None:
            raise
        raise NotPlain(what, place.path, error.errno or 0) from None


def _plain(fd: int, most: int, place: Below) -> BinaryIO:
    if odd := oddity(os.fstat(fd), most):
        raise NotPlain(odd, place.path)
    return os.fdopen(fd, "rb")


def read_state(path: Path, most: int = _MOST_STATE) -> bytes:
    """A file of our own, read whole. Raises `NotPlain`, `OSError`."""
    return Below(path).data(most)


def read_secret(path: Path, most: int = _MOST_STATE) -> tuple[bytes, os.stat_result]:
    """A file that an admin names, which may be a link (those of Kubernetes are), and what it is. Raises `NotPlain`, `OSError`."""
    real = path.resolve(strict=True)
    with Below(real).reading(most) as file:
        return file.read(most), os.fstat(file.fileno())


def close_to_others(
    path: Path, status: os.stat_result, others: int, closed: Callable[[str], None] | None
) -> None:
    """See that a file of secrets has none of the mode bits ``others``. With ``closed``, one of our own is closed and that is told.

    Raises `ConfigError`.
    """
    mode = status.st_mode & 0o777
    if not mode & others:
        return
    if closed is None or status.st_uid != os.geteuid():
        raise ConfigError(f"{path}: others may read it (mode {mode:o}).", hint=f"chmod 600 {path}")
    with as_storage_error(f"chmod 600 {path}"):
        path.chmod(0o600)
    closed(f"{path}: others could read it (mode {mode:o}), and cannot any more.")


def walk(top: Path) -> Iterator["os.DirEntry[str]"]:
    """All that is below a directory, one by one, however deep and however much a browser has put there."""
    below = [str(top)]
    while below:
        with contextlib.suppress(OSError), os.scandir(below.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                yield entry


def bytes_below(top: Path) -> int:
    """What a file or directory takes on disk; what vanishes meanwhile counts as nothing. Links are not followed."""
    found = 0
    for entry in walk(top):
        with contextlib.suppress(OSError):
            if not entry.is_dir(follow_symlinks=False):
                found += entry.stat(follow_symlinks=False).st_blocks * 512
    with contextlib.suppress(OSError):
        found += os.lstat(top).st_blocks * 512
    return found


def remove_tree(top: Path) -> None:
    """Delete a directory with all that is in it. Raises `OSError`, also when it is nested too deep for that."""
    try:
        shutil.rmtree(top)
    except RecursionError:
        raise OSError(errno.ELOOP, "its directories are nested too deep", str(top)) from None


@contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Replace ``path`` whole by what the block writes: written beside it, synced, renamed, and the directory synced.

    Raises `DiskFull`, or `StorageFailed` for any other refusal of the file system; the old file is then untouched.
    """
    with as_storage_error(f"write {path}"), partial(path) as beside:
        fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "w+b") as file:
            yield file
            file.flush()
            os.fsync(fd)
        beside.replace(path)
        sync_directory(path.parent)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Like `replacing`, of data that is there already."""
    with replacing(path, mode) as file:
        file.write(data)


def sync_directory(path: Path) -> None:
    """Make renames in a directory outlive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def as_storage_error(doing: str) -> Iterator[None]:
    """Turn `OSError` into an error that says what was being done."""
    try:
        yield
    except NotPlain as error:
        where = "" if str(error.path) in doing else f"{error.path.name}: "
        raise StorageFailed(f"Cannot {doing}: {where}{error.what}.", errno=error.errno) from None
    except OSError as error:
        if (limit := shortage.reached(error)) is not None:
            raise limit from None
        kind = DiskFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else StorageFailed
        raise kind(f"Cannot {doing}: {error.strerror or error}.", errno=error.errno) from None


def credential(name: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """A secret that systemd hands to the service it has started, systemd.exec(5). Raises `StorageFailed` if it cannot be seen."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    with as_storage_error(f"read {directory or 'CREDENTIALS_DIRECTORY, which is empty'}"):
        if directory is not None and name in os.listdir(directory):  # noqa: PTH208 (what cannot be read is not what is not there)
            return Path(directory) / name
    return None
