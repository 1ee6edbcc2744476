"""When a file or directory was made, statx(2): what is deleted and made anew may get the same inode number again."""

import ctypes
import os
import struct

_EMPTY_PATH = 0x1000
"""AT_EMPTY_PATH: of the descriptor itself."""
_BIRTH = 0x800
"""STATX_BTIME."""
_SIZE = 256
"""Bytes of a ``struct statx``."""
_MASK, _AT = 0, 80
"""Where ``stx_mask`` and ``stx_btime`` are in it: 64 bits of seconds, 32 of nanoseconds."""


def identity(fd: int) -> str:
    """Its inode number and when it was made: no other has both on the same file system. Raises `OSError`.

    A file system that does not keep the time leaves the number alone.
    """
    return f"{os.fstat(fd).st_ino}:{_born_ns(fd)}"


def _born_ns(fd: int) -> int:
    """Unix time, nanoseconds; 0 if nobody knows."""
    into = ctypes.create_string_buffer(_SIZE)
    try:
        statx = ctypes.CDLL(None, use_errno=True).statx
    except (OSError, AttributeError):  # a C library without it
        return 0
    if statx(fd, b"", _EMPTY_PATH, _BIRTH, into) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    (known,), (seconds, nanoseconds) = (
        struct.unpack_from("I", into, _MASK),
        struct.unpack_from("qI", into, _AT),
    )
    return seconds * 10**9 + nanoseconds if known & _BIRTH else 0
