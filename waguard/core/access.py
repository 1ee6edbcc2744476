"""Who may do what: scopes, whom they are for, and what a token that was made at run time has become. Pure."""

import hashlib
import hmac
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from waguard.core.model import ClientCode
from waguard.errors import Forbidden, TokenExpired, TokenRevoked, Unauthorized


class Scope(StrEnum):
    OPEN = "open"
    READ = "read"
    CONNECT = "connect"
    CLEANUP = "cleanup"
    BACKUP = "backup"
    DRIVE = "drive"
    ADMIN = "admin"


SCOPES: Mapping[Scope, str] = {
    Scope.OPEN: "What anybody may know: no token is asked for.",
    Scope.READ: "Sessions as they are and what has happened to them, without their pages and chats.",
    Scope.CONNECT: "Start, stop and restart browsers, and link phones: the QR code and the pairing code.",
    Scope.CLEANUP: "Give up a login: end everything of a client and put its profile aside.",
    Scope.BACKUP: "Logins as files: take, export, import and restore snapshots, and have back what was put aside.",
    Scope.DRIVE: "The page of a session, also as a picture: whoever drives it reads and writes its chats; and the values that apps keep with it.",
    Scope.ADMIN: "The daemon itself: tokens, sweeps, paths of its host. Only with all clients, and with every other scope.",
}
EVERY_CLIENT = "*"
"""In the place of client codes: all of them, also those to come."""
OF_ADMIN = frozenset(Scope)
OF_TOKENS: Sequence[Scope] = tuple(one for one in Scope if one is not Scope.OPEN)
"""Those that are given."""
OF_CLIENT = OF_ADMIN - {Scope.ADMIN}
"""What a client's token of the configuration has, for its own code alone."""


class About(StrEnum):
    """Which clients a route is about."""

    ONE = "one"
    """The client in its path."""
    ALLOWED = "allowed"
    """Those that the token is for, whichever these are."""
    EVERY = "every"
    """All of them, or none: a token for some is not enough."""
    OWN = "own"
    """The one client that the token is of."""


LabelsOf = Callable[[str], Collection[str]]
"""The labels that a client has now."""


def no_labels(_code: str) -> Collection[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    scopes: frozenset[Scope]
    clients: frozenset[ClientCode] | None = None
    """Whom it is for; None: all. No other client is any of its business."""
    name: str = "nobody"
    """Of its token, as events have it."""
    token: str = ""
    """The id of that, if it was made at run time."""
    shown: str = field(default="", repr=False)
    """The digest of its secret, likewise."""
    peer: bool = False
    """It is a process of this machine, by the unix socket, and shows no token."""
    until: float | None = None
    """Unix time, seconds: the end of a token that has it in itself."""
    labels: frozenset[str] = frozenset()
    """It is for whoever has one of these besides, at each moment."""
    labels_of: LabelsOf = field(default=no_labels, repr=False, compare=False)

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    @property
    def own(self) -> tuple[str, bool]:
        """By what its share of anything is counted: a client may be called what the admin is."""
        return self.name, self.is_admin

    @property
    def client(self) -> ClientCode | None:
        """Whose token it is, where it is one client's."""
        if self.clients is None or len(self.clients) != 1 or self.labels:
            return None
        return next(iter(self.clients))

    def may_see(self, code: ClientCode) -> bool:
        if self.clients is None or code in self.clients:
            return True
        return not self.labels.isdisjoint(self.labels_of(code))

    def check(self, scope: Scope, about: About, code: ClientCode | None) -> None:
        """Raises `Forbidden` unless it may do what needs that scope, with whom it is about."""
        if scope not in self.scopes:
            if scope is Scope.ADMIN:
                raise Forbidden("Only the admin may do this.", hint="Use the admin's token: waguard token")
            raise Forbidden(
                f"This token does not have the scope {scope.value}.",
                hint="Use one that has it. waguard token list shows them; waguard token create makes one.",
            )
        if about is About.ONE and code is not None:
            self.check_client(code)
        if about is About.EVERY and self.clients is not None:
            raise Forbidden("This needs a token for all clients.", hint="Use the admin's: waguard token")
        if about is About.OWN and self.client is None:
            raise Forbidden("This token is no client's.", hint="Use the client's own: waguard token CODE")

    def check_client(self, code: ClientCode) -> None:
        """Raises `Forbidden` unless it is any of its business."""
        if not self.may_see(code):
            raise Forbidden(
                f"This token is not for {code!r}.", hint="Use the client's own token, or the admin's."
            )


NOBODY = Caller(frozenset({Scope.OPEN}), frozenset())
"""Who has shown no token."""
ADMIN = Caller(OF_ADMIN, None, "admin")


def of_client(code: ClientCode) -> Caller:
    """By a client's token of the configuration."""
    return Caller(OF_CLIENT, frozenset({code}), code)


# --- tokens that are made at run time ----------------------------------------------------------------------


SOON_S = 7 * 86_400.0
"""So long before its end an admin is told of a token that somebody uses."""
IN_USE_S = 30 * 86_400.0
_NAMED = 5
_EARLIER = 20


class TokenState(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


def digest(secret: str) -> str:
    """SHA-256, hexadecimal: nobody guesses what it is of, where that is 32 random bytes."""
    # A header may hold bytes that are no text; they arrive as lone surrogates.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class Secret:
    """What is kept of a token's secret half."""

    digest: str
    until: float | None = None
    """Unix time, seconds: how long it is taken, where another has come in its place."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was made at run time. Times are Unix times, in seconds."""

    id: str
    """Its public half."""
    name: str
    scopes: tuple[Scope, ...]
    clients: tuple[str, ...]
    """Client codes, or `EVERY_CLIENT` alone."""
    secrets: tuple[Secret, ...]
    """The newest first."""
    created_at: float
    created_by: str
    """The actor."""
    lasts_s: float | None
    """How long it, and each that comes in its place, is taken; None: for ever."""
    expires_at: float | None
    revoked_at: float | None = None
    used_at: float | None = None
    labels: tuple[str, ...] = ()
    """Whoever has one of these is one of its clients, too."""

    def state(self, now: float) -> TokenState:
        if self.revoked_at is not None:
            return TokenState.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return TokenState.EXPIRED
        return TokenState.ACTIVE

    def rotated(self, shown: str, overlap_s: float, now: float) -> "Token":
        """With another secret and a new term. The earlier secrets are taken for so long, and not beyond their own term; of many the last ones."""
        active = overlap_s > 0 and self.state(now) is TokenState.ACTIVE
        left = [one for one in self.secrets if active and (one.until is None or one.until > now)]
        most = min(now + overlap_s, self.expires_at or math.inf)
        earlier = [replace(one, until=min(one.until or math.inf, most)) for one in left]
        expires_at = None if self.lasts_s is None else now + self.lasts_s
        return replace(self, secrets=(Secret(shown), *earlier[:_EARLIER]), expires_at=expires_at)

    def is_missed_soon(self, now: float) -> bool:
        """Whether somebody uses it, and it expires within days."""
        used = self.used_at is not None and now - self.used_at < IN_USE_S
        left_s = (self.expires_at or now) - now
        return used and self.state(now) is TokenState.ACTIVE and 0 < left_s < SOON_S

    def admit(self, secret: str, now: float, labels_of: LabelsOf = no_labels) -> Caller:
        """Whom that lets in. Raises `Unauthorized`, `TokenExpired`, `TokenRevoked`."""
        shown = digest(secret)
        if (problem := self.problem(shown, now)) is not None:
            raise problem
        clients = None if EVERY_CLIENT in self.clients else frozenset(map(ClientCode, self.clients))
        scopes = frozenset(self.scopes) | {Scope.OPEN}
        name, labels = f"{self.name}#{self.id}", frozenset(self.labels)
        return Caller(scopes, clients, name, self.id, shown, labels=labels, labels_of=labels_of)

    def problem(self, shown: str, now: float) -> Unauthorized | None:
        """Why whoever has this secret, by its digest, is not let in. Nobody else learns that it has expired or was revoked."""
        known = next((one for one in self.secrets if hmac.compare_digest(one.digest, shown)), None)
        if known is None:
            return Unauthorized("This token is unknown.")
        if self.state(now) is TokenState.REVOKED:
            return TokenRevoked("This token was revoked.")
        if self.state(now) is TokenState.EXPIRED:
            return TokenExpired("This token has expired.")
        if known.until is not None and known.until <= now:
            return TokenExpired("Another token has come in the place of this one.")
        return None


def expiring(soon: Sequence[Token]) -> str:
    """What an admin should know of tokens that are used and expire within days; empty if there are none."""
    if not soon:
        return ""
    names = ", ".join(sorted(one.name for one in soon)[:_NAMED]) + (", ..." if len(soon) > _NAMED else "")
    return f"Tokens in use expire within {SOON_S / 86_400:g} days: {names}. Renew each: waguard token rotate NAME"
