"""What systemd and the daemon tell each other: ready, alive, how it goes; the control port's socket; fds that outlive us.

The protocols: sd_notify(3), sd_listen_fds(3), and "File Descriptor Store" in systemd.service(5). Without systemd nothing is
told, nothing is handed over, and nothing is kept.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Mapping, Sequence

CONTROL = "control"
"""The name of the control port's socket (``FileDescriptorName=`` of the socket unit)."""
_FIRST_FD = 3


class Manager:
    """The service manager that has started us, if one has. It owns the fds that were handed over until they are taken."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._handed: dict[str, list[int]] = {}
        self._kept: set[str] = set()
        self._heirlooms: dict[str, int] = {}
        self.in_place = False
        """Whoever comes after us does so in this process, by execve(2), and not by the manager's doing."""
        self._told_alive = 0.0
        # Since version 254 systemd says itself how many it keeps; for those before it the unit does.
        self.keeps_fds = bool(self._address) and _number(environment.get("FDSTORE", "")) > 0
        microseconds = _number(environment.get("WATCHDOG_USEC", ""))
        ours = environment.get("WATCHDOG_PID", "") in {"", str(os.getpid())}
        self.watchdog_s = microseconds / 1e6 if self._address and ours else 0.0
        """It wants to hear of us as often; 0: it does not watch us."""
        if environment.get("LISTEN_PID") == str(os.getpid()):
            names = environment.get("LISTEN_FDNAMES", "").split(":")
            for number in range(_number(environment.get("LISTEN_FDS", ""))):
                name = names[number] if number < len(names) else ""
                os.set_inheritable(_FIRST_FD + number, False)
                self._handed.setdefault(name, []).append(_FIRST_FD + number)
        if self.keeps_fds:  # it has copies
            self._kept.update(self._handed)

    def take(self, name: str) -> int | None:
        """An fd that was handed over under this name; the caller's from now on."""
        if name not in self._handed:
            return None
        first, *rest = self._handed.pop(name)
        for fd in rest:  # stored twice: one is enough
            os.close(fd)
        return first

    def handed(self) -> Sequence[str]:
        """The names of what was handed over and is not taken yet."""
        return sorted(self._handed)

    def alive(self, now: float) -> None:
        """The control loop turns; ``now`` is monotonic, seconds. Told four times as often as we are expected to."""
        if self.watchdog_s and now - self._told_alive >= self.watchdog_s / 4:
            self._told_alive = now
            self.tell("WATCHDOG=1")

    def tell(self, *assignments: str, fds: Sequence[int] = ()) -> bool:
        """One message to the service manager; whether it has been put into its socket."""
        if not self._address:
            return False
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection,
        ):
            connection.connect(address)  # `send_fds` drops the address it is given (Python 3.11)
            socket.send_fds(connection, ["\n".join(assignments).encode()], fds)
            return True
        return False

    def keep(self, fds: Mapping[str, int]) -> None:
        """Have these kept, each under its name, for whoever comes after us. Names that are kept already stay as they are."""
        for name, fd in fds.items() if self.keeps_fds else ():
            # FDPOLL=0: a pipe whose other end is gone is dropped by us, who know why, and not behind our back.
            if name not in self._kept and self.tell("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", fds=[fd]):
                self._kept.add(name)

    def bequeath(self, fds: Mapping[str, int]) -> bool:
        """We are about to end, and these are for whoever comes after us: whether it gets all of them. Raises `OSError`."""
        if not self.in_place:
            return self._kept.issuperset(fds)
        self._heirlooms |= {name: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0) for name, fd in fds.items()}
        return True

    def heirlooms(self) -> Mapping[str, int]:
        """What was bequeathed in place, for `handing_over`."""
        return self._heirlooms

    def drop(self, name: str) -> None:
        """What is kept under this name is of no use any more."""
        for fd in self._handed.pop(name, []):
            os.close(fd)
        if name in self._kept:
            self._kept.remove(name)
            self.tell("FDSTOREREMOVE=1", f"FDNAME={name}")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def handing_over(fds: Mapping[str, int]) -> Mapping[str, str]:
    """Put these where the program that takes our place by execve(2) looks for them; returns the variables that say so.

    For the last moment before that: whatever had the numbers from 3 on is closed.
    """
    above = _FIRST_FD + len(fds)
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds.values()]
    for number, source in enumerate(sources):
        os.dup2(source, _FIRST_FD + number, inheritable=True)
    return {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(fds)),
        "LISTEN_FDNAMES": ":".join(fds),
    }
