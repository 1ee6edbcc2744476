"""Writing files so that a crash leaves the old one or the new one, never half of one. Blocking: call from a thread."""

import asyncio
import contextlib
import errno
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from waguard.errors import DiskFull, ProfileFailed

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


def walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each directory below with the names in it that are none; like `os.walk`, but however deep a browser has nested them."""
    below = [top]
    while below:
        directory = below.pop()
        names = []
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(Path(entry.path))
                else:
                    names.append(entry.name)
        yield directory, names


def remove_tree(top: Path) -> None:
    """Delete a directory with all that is in it. Raises `OSError`, also when it is nested too deep for that."""
    try:
        shutil.rmtree(top)
    except RecursionError:
        raise OSError(errno.ELOOP, "its directories are nested too deep", str(top)) from None


@contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Replace ``path`` whole by what the block writes: written beside it, synced, renamed, and the directory synced.

    Raises `DiskFull`, or `ProfileFailed` for any other refusal of the file system; the old file is then untouched.
    """
    with saying(f"write {path}"), partial(path) as beside:
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
def saying(doing: str) -> Iterator[None]:
    """Turn `OSError` into an error that says what was being done."""
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else ProfileFailed
        raise kind(f"Cannot {doing}: {error.strerror or error}.", errno=error.errno) from None


async def in_thread(call: Callable[..., T], *args: object, stop: threading.Event | None = None) -> T:
    """Run blocking file work in a thread. Cancelled, it still waits for the thread: nothing goes on behind our back.

    ``stop`` is set then, for work that is long and looks at it.
    """
    work = asyncio.get_running_loop().run_in_executor(None, call, *args)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
        while not work.done():  # a second cancellation must not abandon it either
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        raise


def credential(name: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """A secret that systemd hands to the service it has started, systemd.exec(5). Raises `ProfileFailed` if it cannot be seen."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    with saying(f"read {directory or 'CREDENTIALS_DIRECTORY, which is empty'}"):
        if directory is not None and name in os.listdir(directory):  # noqa: PTH208 (what cannot be read is not what is not there)
            return Path(directory) / name
    return None
