"""Writing files so that a crash leaves the old one or the new one, never half of one. Blocking: call from a thread."""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from waguard.errors import DiskFull, ProfileFailed

T = TypeVar("T")

PARTIAL = ".partial"
"""The ending of a file that is being written; one found at start is a leftover."""


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` whole: written beside it, synced, renamed, and the directory synced.

    Raises `DiskFull`, or `ProfileFailed` for any other refusal of the file system; the old file is then untouched.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    with saying(f"write {path}"):
        try:
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


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


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Run blocking file work in a thread. Cancelled, it still waits for the thread: nothing goes on behind our back."""
    work = asyncio.get_running_loop().run_in_executor(None, call, *args)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():  # a second cancellation must not abandon it either
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        raise
