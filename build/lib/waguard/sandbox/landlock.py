"""Which TCP ports a browser may connect to, and that it may listen on none: landlock(7).

Rules that a thread takes on for good, and passes on to whatever it starts; nobody needs to be root for them. Ports since Linux 6.7
(ABI 4); since 6.12 (ABI 6) abstract Unix sockets and signals of others are out of reach too.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import ExitStack

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The same on every architecture."""
_VERSION = 1 << 0
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_NET_PORT = 2
_SCOPES = 1 << 0 | 1 << 1
_NET_ABI, _SCOPE_ABI = 4, 6

_libc = ctypes.CDLL(None, use_errno=True)


def make(ports: Iterable[int]) -> int | str:
    """A set of rules, as an fd: no TCP port to listen on, and connections to these ports only, or to all if there are none.

    Or why there can be no such set.
    """
    try:
        abi = _call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError as error:
        return f"The kernel has no Landlock: {error.strerror}."
    if abi < _NET_ABI:
        return f"The kernel's Landlock (ABI {abi}) knows no ports: that needs Linux 6.7."
    ports = tuple(ports)
    handled = _BIND_TCP | (_CONNECT_TCP if ports else 0)
    attributes = struct.pack("=QQQ", 0, handled, _SCOPES)[: 24 if abi >= _SCOPE_ABI else 16]
    try:
        with ExitStack() as useless:
            rules = _call(_CREATE_RULESET, attributes, len(attributes), 0)  # its fd is CLOEXEC
            useless.callback(os.close, rules)
            for port in ports:
                _call(_ADD_RULE, rules, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
            useless.pop_all()
    except OSError as error:
        return f"Landlock refuses its rules: {error.strerror}."
    return rules


def take_on(rules: int) -> None:
    """The calling thread, and whatever it starts, is held to them for good. It has no_new_privs already. Raises `OSError`."""
    _call(_RESTRICT_SELF, rules, 0)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
