"""Whom a token would go to: while no daemon runs, whatever else is on this machine may listen on its port.

A uid proves little, since browsers may have the daemon's. What a browser cannot have in its sandbox is the lock that the daemon
holds on its sessions: who listens has to be the process that holds it, as far as the caller may see that; else root or
somebody who could read the sessions anyway. Asked before a connection is made and after, so that it went to who was asked about.
"""

import ipaddress
import os
import pwd
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from waguard.cli.errors import NotTheDaemon
from waguard.cli.service import LOCK, Service, start
from waguard.config.sections import Config

_PATIENCE_S = 10.0
"""A port that a restart keeps open is nobody's until the next daemon has its lock."""
_AGAIN_S = 0.2
_LISTENS = "0A"


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that connections to a port may go to."""

    inode: int
    uid: int


class Proof:
    """Of one daemon. ``own``: it has to be the one of these sessions, since the token is; ``here``: it is on this machine."""

    def __init__(self, config: Config, service: Service | None, url: str, *, own: bool, here: bool) -> None:
        self._url = url
        self._host, self._port = host_and_port(url)
        self._here = here
        self._sessions = config.sessions.dir
        self._service = service
        self._own = own
        self._before: Sequence[Listener] = ()

    def begin(self) -> None:
        """Before a connection is made. Raises `NotTheDaemon`."""
        self._before = self._listeners()
        until = time.monotonic() + _PATIENCE_S
        while stranger := self._stranger(self._before):
            if time.monotonic() > until:
                raise self._problem(stranger)
            threading.Event().wait(_AGAIN_S)
            self._before = self._listeners()

    def made(self) -> None:
        """Before anything is sent on it. Raises `NotTheDaemon`."""
        # One that is new was not asked about; one that has gone may have taken the connection along.
        for one in {*self._listeners()} ^ {*self._before}:
            raise self._problem(one)

    def _problem(self, stranger: Listener) -> NotTheDaemon:
        return NotTheDaemon(
            f"What listens at {self._url} is not the daemon of {self._sessions.absolute()}: it is a process of {_name(stranger.uid)}. "
            "No token was sent.",
            hint=f"See what it is: ss -ltnp 'sport = :{self._port}'. When it has gone: {start(self._service)}. A daemon in another "
            "container is asked with --url and WAGUARD_TOKEN.",
            uid=stranger.uid,
        )

    def _listeners(self) -> Sequence[Listener]:
        """None where that cannot be told: the daemon is on another machine."""
        return [*_listening(self._host, self._port)] if self._here or _is_loopback(self._host) else ()

    def _stranger(self, listeners: Sequence[Listener]) -> Listener | None:
        return next((one for one in listeners if not self._trusts(one)), None)

    def _trusts(self, one: Listener) -> bool:
        if one.uid == 0:  # who needs no token; systemd's socket is one of those
            return True
        lock = self._sessions / LOCK
        if self._own and os.access(lock, os.R_OK):
            return any(_is_roots(process) or _holds(process, lock) for process in _holders(one))
        return self._known is None or one.uid in self._known

    @property
    def _known(self) -> frozenset[int] | None:
        """Who may be the daemon's user; none where that cannot be told."""
        told = set()
        with suppress(OSError):
            told |= {self._sessions.stat().st_uid} if self._own else set()
        with suppress(KeyError):
            told |= {pwd.getpwnam(self._service.user).pw_uid} if self._service is not None else set()
        return frozenset({os.geteuid(), *told}) if told else None


def host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> Iterator[Listener]:
    """Those in this network namespace that a connection to the address may reach, proc_net(5)."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/self/net", name).read_text(encoding="utf-8").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, _, _, _, uid, _, inode, *_ = line.split()
            address, _, number = local.partition(":")
            if state == _LISTENS and int(number, 16) == port and _reaches(host, _address(address)):
                yield Listener(int(inode), int(uid))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Words of 32 bits, each in the order of bytes of this machine."""
    words = (int(text[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(text), 8))
    found = ipaddress.ip_address(b"".join(words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _reaches(host: str, there: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        here = ipaddress.ip_address(host)
    except ValueError:  # a name of this machine
        return True
    if here.is_unspecified:
        return there.is_unspecified or there.is_loopback
    dual = there == ipaddress.IPv6Address(0)  # takes IPv4 too
    return there == here or dual or (there.is_unspecified and there.version == here.version)


def _holders(one: Listener) -> Iterator[Path]:
    """The processes that have it open, as far as they may be looked at."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and any(link == f"socket:[{one.inode}]" for link, _ in _open(process)):
            yield process


def _open(process: Path) -> Iterator[tuple[str, Path]]:
    try:
        for fd in (process / "fd").iterdir():
            try:
                yield str(fd.readlink()), fd
            except OSError:
                continue
    except OSError:
        return


def _is_roots(process: Path) -> bool:
    try:
        return process.stat().st_uid == 0
    except OSError:
        return False


def _holds(process: Path, lock: Path) -> bool:
    """Whether the process has the lock, by the very file that it has open, proc_pid_fdinfo(5)."""
    for _, fd in _open(process):
        try:
            if fd.samefile(lock) and "FLOCK" in (process / "fdinfo" / fd.name).read_text():
                return True
        except (OSError, UnicodeDecodeError):
            continue
    return False


def _name(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"uid {uid}"
