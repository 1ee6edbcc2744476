"""Who is at the other end of the unix socket: the kernel says by which user and groups, unix(7)."""

import grp
import pwd
import socket
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from waguard.core.access import Caller, Scope
from waguard.errors import ConfigError

_CREDENTIALS = struct.Struct("3i")
_SO_PEERGROUPS = 59
"""Linux 4.13; Python has no name for it."""
_GROUPS_BYTES = 1024
"""As many as Python's getsockopt takes: 256 groups."""


@dataclass(frozen=True, slots=True)
class Peer:
    """As the kernel saw it when it connected."""

    uid: int
    gids: frozenset[int]


class Peers:
    """Those who are let in, by their ids alone: a name is looked up once, when the daemon starts."""

    def __init__(
        self, uids: Collection[int], gids: Collection[int], scopes: frozenset[Scope], browsers: int
    ) -> None:
        """``browsers``: the uid that they run as, who is not let in by any group either."""
        self._uids = frozenset(uids)
        self._browsers = browsers
        self._gids = frozenset(gids)
        self._scopes = scopes

    @classmethod
    def of(
        cls, uids: Sequence[int | str], gids: Sequence[int | str], scopes: Sequence[str], *, browsers: int
    ) -> "Peers":
        """``browsers``: the uid that they run as. Blocking. Raises `ConfigError`."""
        found = {_uid(one) for one in uids}
        if browsers in found:
            raise ConfigError(
                f"api.socket_uids: browsers run as the user {browsers}, and would be let in.",
                hint="Name another user, or a group that this one is not in: api.socket_gids.",
            )
        wanted = frozenset(map(Scope, scopes))
        every = frozenset(Scope) if Scope.ADMIN in wanted else wanted | {Scope.OPEN}
        return cls(found, {_gid(one) for one in gids}, every, browsers)

    def admit(self, peer: Peer) -> Caller | None:
        named = peer.uid in self._uids or peer.gids & self._gids
        if not named or peer.uid == self._browsers:
            return None
        return Caller(self._scopes, None, f"uid {peer.uid}", peer=True)


def peer_of(connection: socket.socket) -> Peer | None:
    """None if it is no unix socket."""
    if connection.family != socket.AF_UNIX:
        return None
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(data)
    try:
        more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:  # it is in more groups: its own one counts
        more = b""
    return Peer(uid, frozenset({gid, *struct.unpack(f"{len(more) // 4}I", more)}))


def _uid(named: int | str) -> int:
    try:
        return pwd.getpwnam(named).pw_uid if isinstance(named, str) else named
    except KeyError:
        raise ConfigError(f"api.socket_uids: there is no user {named!r}.") from None


def _gid(named: int | str) -> int:
    try:
        return grp.getgrnam(named).gr_gid if isinstance(named, str) else named
    except KeyError:
        raise ConfigError(f"api.socket_gids: there is no group {named!r}.") from None
