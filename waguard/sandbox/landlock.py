"""Where a browser may connect to on the network that it shares with the machine: TCP ports of the web, and not the control port.

Landlock, landlock(7): rules that a thread takes on for good, and passes on to whatever it starts; nobody needs to be root for it. So
each sandbox is started by a thread of its own. Ports since Linux 6.7 (ABI 4); since 6.12 (ABI 6) abstract Unix sockets and signals
of others are out of reach too.
"""

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Self, TypeVar

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The same on every architecture."""
_VERSION = 1 << 0
_CONNECT_TCP = 1 << 1
_NET_PORT = 2
_SCOPES = 1 << 0 | 1 << 1
_PR_SET_NO_NEW_PRIVS = 38
_NET_ABI, _SCOPE_ABI = 4, 6

_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


class Fence:
    """The rules; owns their fd."""

    def __init__(self, ruleset: int) -> None:
        self._ruleset = ruleset

    @classmethod
    def make(cls, ports: Iterable[int]) -> Self | str:
        """Connections to these TCP ports only, or why there can be no such fence."""
        try:
            abi = _call(_CREATE_RULESET, None, 0, _VERSION)
        except OSError as error:
            return f"The kernel has no Landlock: {error.strerror}."
        if abi < _NET_ABI:
            return f"The kernel's Landlock (ABI {abi}) knows no ports: that needs Linux 6.7."
        attributes = struct.pack("=QQQ", 0, _CONNECT_TCP, _SCOPES if abi >= _SCOPE_ABI else 0)
        attributes = attributes if abi >= _SCOPE_ABI else attributes[:16]
        try:
            with ExitStack() as useless:
                self = cls(_call(_CREATE_RULESET, attributes, len(attributes), 0))  # its fd is CLOEXEC
                useless.callback(self.close)
                for port in ports:
                    _call(_ADD_RULE, self._ruleset, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
                useless.pop_all()
        except OSError as error:
            return f"Landlock refuses its rules: {error.strerror}."
        return self

    @classmethod
    def lacking(cls, ports: Iterable[int]) -> str:
        """Why there can be none; empty if there can be."""
        made = cls.make(ports)
        if isinstance(made, str):
            return made
        made.close()
        return ""

    def start(self, work: Callable[[], _T]) -> _T:
        """Do something that starts a program, so that the program is inside; returns what it does. Raises what it raises."""
        done: list[_T] = []
        failed: list[BaseException] = []

        def inside() -> None:
            try:
                if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
                    raise _error()
                _call(_RESTRICT_SELF, self._ruleset, 0)
                done.append(work())
            except BaseException as error:  # noqa: BLE001 (it is raised where it was called for)
                failed.append(error)

        thread = threading.Thread(target=inside, name="fence")
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return done[0]

    def close(self) -> None:
        os.close(self._ruleset)


def started(fence: Fence | None, work: Callable[[], _T]) -> _T:
    """Inside the fence, if there is one."""
    return work() if fence is None else fence.start(work)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
