"""The words: what a session is, what happens to it, what is to be done. Data only, no I/O, no clock."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType, Self

from waguard.errors import InvalidClientCode, WaguardError

ClientCode = NewType("ClientCode", str)

# One class, validated here and nowhere else. ASCII on purpose: look-alikes of other scripts are refused.
CLIENT_CODE = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_CLIENT_CODE = re.compile(CLIENT_CODE, re.ASCII)


def client_code(text: str) -> ClientCode:
    """The text as a client code, or `InvalidClientCode` saying what would be right."""
    if not _CLIENT_CODE.fullmatch(text):
        raise InvalidClientCode(
            f"{text[:80]!r} is not a client code.",
            hint="A client code is 1 to 64 of A-Z a-z 0-9 _ - and starts with a letter or a digit.",
        )
    return ClientCode(text)


class Wanted(StrEnum):
    """What the operator asked for."""

    UP = "up"
    DOWN = "down"


class Process(StrEnum):
    """Where the browser's processes stand."""

    DOWN = "down"
    PREPARING = "preparing"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


class Link(StrEnum):
    """Where the page stands with WhatsApp. A lost link is not a dead process."""

    UNKNOWN = "unknown"
    LOADING = "loading"
    AWAITING_SCAN = "awaiting_scan"
    SYNCING = "syncing"
    CONNECTED = "connected"
    LOST = "lost"


class Reason(StrEnum):
    """Why a link is lost."""

    LOGGED_OUT = "logged_out"
    CONFLICT = "conflict"
    OFFLINE = "offline"
    REFUSED = "refused"
    """WhatsApp does not take this browser or this account."""
    OUTDATED = "outdated"
    """WhatsApp takes this version of its page no more."""
    PROXY_BLOCKED = "proxy_blocked"
    """WhatsApp refuses the address that it is reached from."""
    TERMS_BLOCKED = "terms_blocked"
    """WhatsApp has blocked the account for its terms."""
    WRONG_PAGE = "wrong_page"
    """What is shown is not WhatsApp Web."""
    HUNG = "hung"
    CRASHED = "crashed"
    UNPAIRED = "unpaired"
    """The page asks for a scan, though the login is still in its storage."""
    DAMAGED = "damaged"
    """The login was lost to damage of its files, and nobody has logged it out."""
    ELSEWHERE = "elsewhere"
    """The page has gone to another origin than WhatsApp Web's."""
    PASSKEY_REQUIRED = "passkey_required"
    """WhatsApp links this device only when somebody uses the account's passkey."""
    PASSKEY_CONFIRMATION = "passkey_confirmation"
    """... and only when somebody confirms it on the phone."""


PASSKEYS = frozenset({Reason.PASSKEY_REQUIRED, Reason.PASSKEY_CONFIRMATION})
"""Scanned, and not linked yet: it waits for a person."""


class Status(StrEnum):
    """One summary word for people, derived from the other three by `state.summary_of`."""

    STOPPED = "stopped"
    STARTING = "starting"
    AWAITING_SCAN = "awaiting_scan"
    SYNCING = "syncing"
    CONNECTED = "connected"
    RECOVERING = "recovering"
    LOGGED_OUT = "logged_out"
    FAILED = "failed"


class Login(StrEnum):
    """What a client's profile holds of a login, as far as is on record."""

    NONE = "none"
    RESTORED = "restored"
    """A snapshot's, which WhatsApp has not taken yet."""
    NEW = "new"
    """Connected; the login is not seen on disk yet: a browser that is killed now loses it."""
    ON_DISK = "on_disk"


class Cause(StrEnum):
    """Why a browser is started."""

    CONNECT = "connect"
    """Somebody asked for it."""
    RESTART = "restart"
    """Somebody asked for it anew."""
    RECOVERY = "recovery"
    """The last one has failed."""
    RETURN = "return"
    """The daemon has been started, and it was wanted before."""
    RECYCLE = "recycle"
    """It was due, in a quiet hour."""


class Stage(StrEnum):
    """The named waits; each has a deadline in the config under ``[deadlines]``."""

    ADMIT = "admit"
    PREPARE = "prepare"
    START = "start"
    OPEN = "open"
    CLOSE = "close"
    KILL = "kill"
    RESTORE = "restore"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Source:
    """What takes the place of the kept profile."""

    snapshot: str = ""
    """Id of the snapshot that it is restored from."""
    retired: str = ""
    """Generation of a profile that was put aside, and comes back. With neither: an empty profile."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the page says, decided from its signs (`whatsapp.page.read`)."""

    link: Link
    reason: Reason | None = None
    qr: str | None = None
    """The whole string of the QR code on screen: opaque."""
    marks: bool | None = None
    """Whether the login's marks are in the page's storage; None: not to be seen."""
    qr_exhausted: bool = False
    """All refs are used up; the page shows a reload button instead of a fresh code."""
    pairing: bool = False
    """It shows a code that is to be entered on the phone, instead of a QR code."""
    dialog: str | None = None
    """The kind of the modal dialog that lies over the page."""
    cut_off: bool = False
    """It opens its way to WhatsApp: a moment of that is nothing, more means that it does not reach it."""
    wrong: bool = False
    """With a link that is unknown: it is a whole page, and not WhatsApp Web."""
    page_version: str | None = None
    wid: str | None = None
    """The number that is logged in, as WhatsApp writes it: ``34600000001:12@c.us``."""
    push_name: str | None = None
    """What its owner is called there: any text, made harmless."""
    signs: tuple[str, ...] = ()
    """The signs that led to the verdict, for people: ``("data-ref", "Socket.state=UNPAIRED")``."""
    progress: str = field(default="", compare=False)
    """How far it has come: a page for which this changes gets on."""


_RETRY_S = 10.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as data, so that the table and the registry can carry it."""

    code: str
    message: str
    stage: Stage | None = None
    hint: str = ""
    details: tuple[tuple[str, Any], ...] = ()
    passing: bool = False
    """The host's want of a moment: it counts against nobody."""

    @classmethod
    def of(cls, error: WaguardError, stage: Stage | None = None) -> Self:
        """The error as data; the stage that it names itself counts more than ``stage``."""
        named = error.details.get("stage")
        return cls(
            error.code,
            error.message,
            Stage(named) if named else stage,
            error.hint,
            tuple(error.details.items()),
            error.passing,
        )

    @property
    def retry_s(self) -> float:
        """After how many seconds it is worth trying again, if it is passing."""
        return float(dict(self.details).get("retry_after_s", _RETRY_S))


class Alert(StrEnum):
    SESSION_FAILED = "session_failed"
    """Its restart budget is used up; it rests."""
    PERSON_NEEDED = "person_needed"
    """WhatsApp wants somebody: logged out, open elsewhere, refused."""
    NETWORK_DOWN = "network_down"
    """Most sessions reach WhatsApp no more."""
    PAGE_UNREAD = "page_unread"
    """Several sessions show a page that is not understood."""
    BREAKER_OPEN = "breaker_open"
    """No browsers are started but single trials."""
    DISK_FULL = "disk_full"
    """There is no room for one more session, so no connect is taken."""
    NO_ROOM = "no_room"
    """Sessions that are wanted wait for memory or disk."""
    STORAGE_HANGS = "storage_hangs"
    """A client's disk does not answer: nothing of it goes on."""
    PROXY_FAILED = "proxy_failed"
    """A client's proxy cannot be reached, or refuses its user and password."""
    KEYS_LOST = "keys_lost"
    """Snapshots were sealed with keys that are not there any more: none can be opened, and none is taken."""
    TOKENS_UNREAD = "tokens_unread"
    """The tokens that were made at run time cannot be read: none of them is taken, and none is made."""
    TOKENS_REFUSED = "tokens_refused"
    """Many requests have no token that is taken."""
    TOKENS_EXPIRE = "tokens_expire"
    """Tokens that are used expire within days."""
    AUDIT_UNAVAILABLE = "audit_unavailable"
    """No record can be written: what cannot be undone is refused."""
    AUDIT_BROKEN = "audit_broken"
    """Records of the audit are gone, or are not what was written."""
    WEBHOOKS_FAIL = "webhooks_fail"
    """A receiver does not take its messages, or wants no more of them."""
    WEBHOOKS_UNKEPT = "webhooks_unkept"
    """The file of the webhooks cannot be read or written."""


class Verdict(StrEnum):
    SOUND = "sound"
    SUSPECT = "suspect"
    """Odd, and the login is not at stake."""
    DAMAGED = "damaged"
    """Chromium would lose the login, or part of it."""


class Wait(StrEnum):
    """What a caller of `connect` waits for."""

    NONE = "none"
    QR = "qr"
    """A QR code, or connected without one."""
    CONNECTED = "connected"
