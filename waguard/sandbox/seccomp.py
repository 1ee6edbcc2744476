"""Which sockets a browser may make, seccomp(2): those that Landlock sees, and none that go round it.

Landlock asks at connect(2) and bind(2) of plain TCP. MPTCP and SMC reach the same listeners without being TCP to it, MSG_FASTOPEN
connects without connect(2), and io_uring makes calls that no filter sees (tried with Linux 6.18, docs/explanation/processes.md). A filter sees
numbers and no memory, so it cannot tell addresses: UDP is left open.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _AND, _JUMP, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06
"""Of classic BPF, linux/bpf_common.h: 32-bit words."""
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
"""In struct seccomp_data; of an argument the low half comes first, and is all that the kernel takes of an int."""
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_X32 = 0x40000000
"""On x86-64 the same calls by other numbers, which this bit tells."""
_MSG_FASTOPEN = 0x20000000
_TCP_ULP = 31
"""The socket option that turns a TCP socket into another protocol's, SMC's for one."""
_WHOLE = 0xFFFFFFFF
_KIND = 0xF
"""Of a socket's type, which has flags besides, socket(2)."""


@dataclass(frozen=True, slots=True)
class _Machine:
    audit: int
    """AUDIT_ARCH_*, linux/audit.h."""
    calls: Mapping[str, int]


_LATE = {"io_uring_setup": 425}
"""The same on every architecture."""
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E, {"socket": 41, "sendto": 44, "sendmsg": 46, "setsockopt": 54, "sendmmsg": 307} | _LATE
    ),
    "aarch64": _Machine(
        0xC00000B7, {"socket": 198, "sendto": 206, "setsockopt": 208, "sendmsg": 211, "sendmmsg": 269} | _LATE
    ),
}


@dataclass(frozen=True, slots=True)
class _Test:
    """Whether an argument, by ``mask``, is one of ``values``, or is none of them."""

    argument: int
    values: Sequence[int]
    mask: int = _WHOLE
    among: bool = True


@dataclass(frozen=True, slots=True)
class _Rule:
    """A call that passes all ``tests`` fails with ``error``."""

    call: str
    error: int
    tests: Sequence[_Test] = ()


_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_PROTOCOLS = (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP)
"""0 is the family's own: TCP, UDP, and of netlink the routes, by which Chromium hears of a change of network."""

RULES: Sequence[_Rule] = (
    _Rule("socket", errno.EAFNOSUPPORT, [_Test(0, _FAMILIES, among=False)]),
    _Rule("socket", errno.EPROTONOSUPPORT, [_Test(2, _PROTOCOLS, among=False)]),
    *(
        _Rule(call, errno.EOPNOTSUPP, [_Test(flags, [0], _MSG_FASTOPEN, among=False)])
        for call, flags in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3))
    ),
    _Rule("setsockopt", errno.ENOPROTOOPT, [_Test(1, [socket.IPPROTO_TCP]), _Test(2, [_TCP_ULP])]),
    _Rule("io_uring_setup", errno.ENOSYS),
)

_Instruction = tuple[int, int, int, int]
"""Code, how many to skip if so, how many if not, value."""


NO_UDP = _Rule(
    "socket",
    errno.EACCES,
    [_Test(0, [socket.AF_INET, socket.AF_INET6]), _Test(1, [socket.SOCK_DGRAM], _KIND)],
)
"""Besides, for who has a proxy: neither QUIC, nor WebRTC, nor a question for a name goes round it."""


def program(machine: str, *, udp: bool = True) -> bytes | None:
    """The filter as the kernel reads it; None if this machine's numbers are not known here."""
    known = _MACHINES.get(machine)
    if known is None:
        return None
    foreign = (_RETURN, 0, 0, _FAIL | errno.ENOSYS)
    code: list[_Instruction] = [(_LOAD, 0, 0, _MACHINE_AT), (_IF_EQUAL, 1, 0, known.audit), foreign]
    code += [(_LOAD, 0, 0, _NUMBER_AT), (_IF_AT_LEAST, 0, 1, _X32), foreign]
    for rule in (*RULES, *(() if udp else (NO_UDP,))):
        body = _body(rule)
        code += [(_LOAD, 0, 0, _NUMBER_AT), (_IF_EQUAL, 0, len(body), known.calls[rule.call]), *body]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def _body(rule: _Rule) -> list[_Instruction]:
    """What follows when it is this call: falls through to the error, or skips it."""
    body: list[_Instruction] = [(_RETURN, 0, 0, _FAIL | rule.error)]
    for test in reversed(rule.tests):
        count, rest = len(test.values), len(body)
        load = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * test.argument)]
        load += [] if test.mask == _WHOLE else [(_AND, 0, 0, test.mask)]
        # Behind the comparisons stands, for `among`, the jump over the rest that is taken when none was equal.
        over = count if test.among else count - 1 + rest
        compare = [(_IF_EQUAL, over - at, 0, value) for at, value in enumerate(test.values)]
        body = [*load, *compare, *([(_JUMP, 0, 0, rest)] if test.among else []), *body]
    return body


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def take_on(code: bytes) -> None:
    """The calling thread, and whatever it starts, is held to the filter for good. It has no_new_privs already. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    given = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(given), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def of_this_machine(*, udp: bool = True) -> bytes | None:
    """See `program`."""
    return program(platform.machine(), udp=udp)
