"""Bare file descriptors: making a pipe, waiting on one, and which a child would inherit."""

import asyncio
import os
from contextlib import ExitStack


def pipe(reading: ExitStack, writing: ExitStack) -> tuple[int, int]:
    """A pipe whose ends belong to these two; ``(read, write)``. Raises `OSError` when there are no more fds."""
    read_fd, write_fd = os.pipe()
    reading.callback(os.close, read_fd)
    writing.callback(os.close, write_fd)
    return read_fd, write_fd


async def readable(fd: int) -> None:
    """Wait until ``fd`` polls readable; the caller sets the deadline.

    Works on a duplicate, so several may wait on one fd, and cancelling leaves nothing behind.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    copy = os.dup(fd)
    loop.add_reader(copy, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(copy)
        os.close(copy)


def inheritable() -> list[int]:
    """Those of our fds that a child would get without being given them: what whoever started us left open."""
    names = os.listdir("/proc/self/fd")  # noqa: PTH208 (thousands of fds: no Path for each)
    return [fd for fd in map(int, names) if _inheritable(fd)]


def _inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # the one that listed them, or closed meanwhile
        return False
