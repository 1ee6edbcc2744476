"""Waiting on a bare file descriptor."""

import asyncio
import os


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
