"""The C library's heap, mallopt(3) and malloc_trim(3). Elsewhere than with glibc nothing is done."""

import ctypes
from contextlib import suppress

_ARENA_MAX = -8
"""M_ARENA_MAX."""


def share() -> None:
    """One for all threads: of one of its own each keeps what it has once needed. Before there are any."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """What is free goes back to the machine, after work that has needed much. Takes milliseconds: call from a thread."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
