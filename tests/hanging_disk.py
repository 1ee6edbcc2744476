"""A disk that hangs, by FUSE with nobody who answers: whoever touches what is below waits in the kernel, and no signal but SIGKILL ends that."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_LIBC = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


class HangingDisk:
    """Mounted over a directory; what has it open goes on to have what was there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def hang(self) -> None:
        """From now on."""
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if _LIBC.mount(b"nothing", bytes(self.path), b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    def answer(self) -> None:
        """What hangs fails, and what was there is there again."""
        if self._fd >= 0:
            _LIBC.umount2(bytes(self.path), _MNT_DETACH)
            os.close(self._fd)
            self._fd = -1


@contextmanager
def hanging_disks(*paths: Path) -> Iterator[list[HangingDisk]]:
    """Those of directories that are there; skips where FUSE cannot be had."""
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs root, and FUSE")
    disks = [HangingDisk(path) for path in paths]
    try:
        yield disks
    finally:
        for disk in disks:
            disk.answer()
