"""What a token lets its caller do, in words, and which tokens have which."""

from collections.abc import Mapping
from enum import StrEnum


class Scope(StrEnum):
    OPEN = "open"
    SESSION = "session"
    DRIVE = "drive"
    OWN = "own"
    DAEMON = "daemon"


SCOPES: Mapping[Scope, str] = {
    Scope.OPEN: "What anybody may know: no token is asked for.",
    Scope.SESSION: "One client's session, its login and its snapshots. A client's token has it for its own code alone.",
    Scope.DRIVE: "The page of one client's session: whoever drives it reads and writes its chats. A client's token has it for its own code alone.",
    Scope.OWN: "The session of the client that the token is of: the old CRM's routes. The admin's token is no client's.",
    Scope.DAEMON: "The daemon and its machine: what was and what is scheduled, of all clients.",
}
OF_ADMIN = frozenset({Scope.OPEN, Scope.SESSION, Scope.DRIVE, Scope.DAEMON})
OF_CLIENT = frozenset({Scope.OPEN, Scope.SESSION, Scope.DRIVE, Scope.OWN})
