"""What a browser may do on the network that it shares with the machine: connect to TCP ports of the web, and listen nowhere.

So neither the control port nor a database of this machine is in its reach, and it cannot take the control port while no daemon has
it. `landlock` has the ports, `seccomp` what would go round them. Both hold for a thread and what it starts, as does what a browser has of the
processor (`limits`), so each sandbox is started by a thread of its own.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from typing import Self, TypeVar

from waguard.sandbox import landlock, limits, seccomp
from waguard.system import shortage

_PR_SET_NO_NEW_PRIVS = 38
_T = TypeVar("_T")


class Fence:
    """Owns the fd of Landlock's rules."""

    def __init__(self, rules: int | str, sockets: bytes | None) -> None:
        self._rules = rules if isinstance(rules, int) else -1
        self._sockets = sockets
        self.gap = rules if isinstance(rules, str) else ""
        """Why it does not limit ports; empty if it does."""

    @classmethod
    def make(cls, ports: Iterable[int]) -> Self:
        """Connections to these TCP ports only, or to all if there are none."""
        return cls(landlock.make(ports), seccomp.of_this_machine())

    @classmethod
    def to_proxy(cls, port: int) -> Self:
        """Connections to this TCP port alone, and no UDP."""
        return cls(landlock.make([port]), seccomp.of_this_machine(udp=False))

    @classmethod
    def gap_here(cls, ports: Iterable[int]) -> str:
        """The `gap` of such a fence on this machine."""
        made = cls.make(ports)
        made.close()
        return made.gap

    def take_on(self) -> None:
        """For this thread, whatever it starts, and for good. Raises `OSError`."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        if self._rules >= 0:
            landlock.take_on(self._rules)
        if self._sockets is not None:
            seccomp.take_on(self._sockets)

    def close(self) -> None:
        if self._rules >= 0:
            os.close(self._rules)
            self._rules = -1


def started(fence: Fence | None, work: Callable[[], _T], proxy_port: int | None = None) -> _T:
    """Do something that starts a browser, in a thread of its own: inside the fence, if there is one, and behind the daemon for the processor.
    ``proxy_port``: inside one of its own instead, with no other way out.

    Returns what it does. Raises what it raises.
    """
    if fence is not None and proxy_port is not None:
        narrow = Fence.to_proxy(proxy_port)
        try:
            return started(narrow, work)
        finally:
            narrow.close()
    done: list[_T] = []
    failed: list[BaseException] = []

    def inside() -> None:
        try:
            limits.stand_behind()
            if fence is not None:
                fence.take_on()
            done.append(work())
        except BaseException as error:  # noqa: BLE001 (it is raised where it was called for)
            failed.append(error)

    thread = threading.Thread(target=inside, name="spawn")
    with shortage.told():
        thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
