"""What systemd and the daemon tell each other: ready, alive, how it goes; the control port's socket; fds that outlive us.

The protocols: sd_notify(3), sd_listen_fds(3), and "File Descriptor Store" in systemd.service(5). Without systemd nothing is
told, nothing is handed over, and nothing is kept.
"""

import contextlib
import fcntl
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

CONTROL = "control"
"""The name of the control port's socket (``FileDescriptorName=`` of the socket unit)."""
_FIRST_FD = 3
NAMES_BYTES = 126 * 1024
"""So much may all names take: they reach whoever comes after us in one variable, and with one of 128 KiB the kernel executes
nothing (``MAX_ARG_STRLEN``, execve(2)).
"""
_NOT_KEPT = "?"
"""At the end of a name that was handed over in place: the service manager has no copy."""


@dataclass(frozen=True, slots=True)
class _Message:
    text: str
    stores: str = ""
    """The name under which it has an fd kept."""
    fd: int = -1
    """A copy, which is closed with the message."""

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Manager:
    """The service manager that has started us, if one has. It owns the fds that were handed over until they are taken.

    What it must hear waits while it is busy, and is said by the next beat of `alive`; all of it in order.
    """

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        publish: Callable[..., None] = lambda _name, **_fields: None,
    ) -> None:
        self._publish = publish
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._waiting: deque[_Message] = deque()
        self._handed: dict[str, list[int]] = {}
        self._kept: set[str] = set()
        self._heirlooms: dict[str, int] = {}
        self._told_full = False
        self.in_place = False
        """Whoever comes after us does so in this process, by execve(2), and not by the manager's doing."""
        self._told_alive = 0.0
        # Since version 254 systemd says itself how many it keeps; for those before it the unit does.
        self._most = _number(environment.get("FDSTORE", "")) if self._address else 0
        self.keeps_fds = self._most > 0
        microseconds = _number(environment.get("WATCHDOG_USEC", ""))
        ours = environment.get("WATCHDOG_PID", "") in {"", str(os.getpid())}
        self.watchdog_s = microseconds / 1e6 if self._address and ours else 0.0
        """It wants to hear of us as often; 0: it does not watch us."""
        if environment.get("LISTEN_PID") == str(os.getpid()):
            names = environment.get("LISTEN_FDNAMES", "").split(":")
            for number in range(_number(environment.get("LISTEN_FDS", ""))):
                name = names[number] if number < len(names) else ""
                os.set_inheritable(_FIRST_FD + number, False)
                self._handed.setdefault(name.removesuffix(_NOT_KEPT), []).append(_FIRST_FD + number)
            if self.keeps_fds:
                self._kept = {name for name in self._handed if name + _NOT_KEPT not in names}

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
        self._say_what_waits()
        if self.watchdog_s and now - self._told_alive >= self.watchdog_s / 4:
            self._told_alive = now
            self.tell("WATCHDOG=1", again=False)

    def tell(self, *assignments: str, again: bool = True) -> bool:
        """One message to the service manager. ``again``: it must hear it, at once or later; else it may be lost.

        False: it is busy, and will not hear this one.
        """
        if again:
            self._send(_Message("\n".join(assignments)))
        elif self._address:
            try:
                self._say("\n".join(assignments))
            except BlockingIOError:
                return False
        return True

    def _send(self, message: _Message) -> None:
        if self._address:
            self._waiting.append(message)
            self._say_what_waits()

    def _say_what_waits(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is busy
            while self._waiting:
                message = self._waiting[0]
                if self._say(message.text, [message.fd] if message.stores else []) and message.stores:
                    self._kept.add(message.stores)
                self._waiting.popleft().close()

    def _say(self, text: str, fds: Sequence[int] = ()) -> bool:
        """Put a message into its socket; false if there is nobody behind it. Raises `BlockingIOError` when it is full."""
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
                connection.connect(address)  # `send_fds` drops the address it is given (Python 3.11)
                socket.send_fds(connection, [text.encode()], fds)
        except BlockingIOError:
            raise
        except OSError:
            return False
        return True

    def keep(self, fds: Mapping[str, int]) -> None:
        """Have these kept, each under its name, for whoever comes after us: all of them, or none if there is no room.

        Names that are kept already stay as they are.
        """
        known = self._kept.union(message.stores for message in self._waiting if message.stores)
        fresh = {name: fd for name, fd in fds.items() if name not in known}
        if not self.keeps_fds or not fresh:
            return
        if len(known) + len(fresh) > self._most or not _fit([*known, *fresh]):
            self._tell_full(f"{len(known)} of at most {self._most} fds are kept")
            return
        for name, fd in fresh.items():
            # FDPOLL=0: a pipe whose other end is gone is dropped by us, who know why, and not behind our back.
            text = f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0"
            self._send(_Message(text, name, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)))

    def _tell_full(self, why: str) -> None:
        if not self._told_full:
            self._told_full = True
            self._publish(
                "daemon.store_full",
                error=f"Not every browser can be left to the next daemon: {why}, and names take {NAMES_BYTES} bytes at most.",
                hint="The others are closed at a restart. Raise FileDescriptorStoreMax= and FDSTORE= of the unit, or shorten codes.",
            )

    def pass_on(self, fds: Mapping[str, int]) -> bool:
        """We are about to end, and these are for whoever comes after us: whether it gets all of them. Raises `OSError`."""
        if not self.in_place:
            return self._kept.issuperset(fds)
        if not _fit([*self._handed, *self._heirlooms, *fds]):
            self._tell_full(f"{len(self._heirlooms)} fds are handed over")
            return False
        self._heirlooms |= {name: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0) for name, fd in fds.items()}
        return True

    def inherited_fds(self) -> Mapping[str, int]:
        """What was passed on in place, and what nobody has taken, for `handing_over`."""
        fds = {name: first for name, (first, *_) in self._handed.items()} | self._heirlooms
        lacking = fds.keys() - self._kept if self.keeps_fds else ()
        return {name + _NOT_KEPT if name in lacking else name: fd for name, fd in fds.items()}

    def drop(self, name: str) -> None:
        """What is kept under this name is of no use any more."""
        for fd in self._handed.pop(name, []):
            os.close(fd)
        for message in [one for one in self._waiting if one.stores == name]:
            self._waiting.remove(message)
            message.close()
        if name in self._kept:
            self._kept.remove(name)
            self.tell("FDSTOREREMOVE=1", f"FDNAME={name}")


def _fit(names: Iterable[str]) -> bool:
    """Whether the kernel executes anything with all of them."""
    return sum(len(name) + len(_NOT_KEPT) + 1 for name in names) <= NAMES_BYTES


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
