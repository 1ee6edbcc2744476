"""What can be wrong with a session, and what people are told of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from waguard.core.model import Failure


class Fault(StrEnum):
    """What is wrong, as the probes tell it."""

    PROCESS_STOPPED = "process_stopped"
    """A process of the browser was stopped by a signal."""
    BROWSER_EXITED = "browser_exited"
    BROWSER_HUNG = "browser_hung"
    """The browser's own process does not answer its pipe, and does nothing."""
    PIPE_CLOSED = "pipe_closed"
    START_FAILED = "start_failed"
    """The browser did not start, or its page could not be opened."""
    PAGE_CRASHED = "page_crashed"
    PAGE_BLOCKED = "page_blocked"
    """The page neither answers nor does anything."""
    PAGE_LOOPING = "page_looping"
    """The page works without end and does not answer."""
    PAGE_SILENT = "page_silent"
    """The page does not answer, and it is not yet known whether it hangs or works."""
    PAGE_NOT_LOADED = "page_not_loaded"
    """The page was not usable within the deadline of the stage `open`."""
    PAGE_WRONG = "page_wrong"
    """What is shown is not WhatsApp Web: an error of the server, a captive portal, nothing at all."""
    PAGE_UNREAD = "page_unread"
    """It looks like WhatsApp Web, and the reader finds nothing on it that it knows."""
    STORAGE_REFUSED = "storage_refused"
    """The page cannot use its storage."""
    NETWORK_HUNG = "network_hung"
    """The browser's network service does not answer."""
    GPU_HUNG = "gpu_hung"
    """The page is not drawn any more."""
    OFFLINE = "offline"
    """The page reaches WhatsApp no more."""
    SYNC_STUCK = "sync_stuck"
    """The chats do not come, and nothing moves."""
    QR_STALE = "qr_stale"
    """The QR code on the page is older than any lives."""
    MEMORY_HIGH = "memory_high"
    UNPAIRED = "unpaired"
    """The page asks for a scan, though the login is still in its storage."""
    LOGIN_LOST = "login_lost"
    """The login was lost to damage, and nobody has logged it out."""
    LOGGED_OUT = "logged_out"
    CONFLICT = "conflict"
    ELSEWHERE = "elsewhere"
    """The page has gone to another origin."""
    NOTICE_OPEN = "notice_open"
    """A dialog that is known to be harmless lies over the page."""
    DIALOG_OPEN = "dialog_open"
    """Another one does."""
    RESTRICTED = "restricted"
    """WhatsApp says that the account is restricted for a time; the link stands."""
    PASSKEY_REQUIRED = "passkey_required"
    PASSKEY_CONFIRMATION = "passkey_confirmation"
    REFUSED = "refused"
    OUTDATED = "outdated"
    PROXY_BLOCKED = "proxy_blocked"
    TERMS_BLOCKED = "terms_blocked"


REFUSALS = frozenset({Fault.REFUSED, Fault.OUTDATED, Fault.PROXY_BLOCKED, Fault.TERMS_BLOCKED})
FOR_A_PERSON = frozenset(
    {
        *(Fault.LOGGED_OUT, Fault.LOGIN_LOST, Fault.UNPAIRED, Fault.CONFLICT, Fault.RESTRICTED, *REFUSALS),
        *(Fault.PASSKEY_REQUIRED, Fault.PASSKEY_CONFIRMATION),
        *(Fault.DIALOG_OPEN, Fault.NOTICE_OPEN),  # of the second, when a click did not land
    }
)
"""Somebody has to do something. Of a refusal it is looked now and then whether it still stands."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A probe's complaint."""

    fault: Fault
    failure: Failure
    """The same for the caller of a connect, and for the log."""
    evidence: tuple[str, ...] = ()
    lasted_s: float = 0.0
    """How long it had been so when it was found."""
    wait_s: float = 0.0
    """It may end by itself: so long is waited before anything is done."""


GONE = frozenset({Fault.BROWSER_EXITED, Fault.PIPE_CLOSED})
"""No cure of another fault matters any more."""
HUNG = frozenset({Fault.BROWSER_HUNG, Fault.PAGE_BLOCKED, Fault.PAGE_LOOPING, Fault.PAGE_NOT_LOADED})
OF_THE_PAGE = frozenset(
    {
        *(Fault.PAGE_BLOCKED, Fault.PAGE_LOOPING, Fault.PAGE_CRASHED, Fault.PAGE_NOT_LOADED),
        *(Fault.PAGE_SILENT, Fault.PAGE_WRONG, Fault.PAGE_UNREAD),
    }
)
"""Over as soon as the page says anything."""
_SAID: Mapping[Fault, tuple[str, str, str]] = {
    Fault.PROCESS_STOPPED: ("browser_failed", "A process of the browser is stopped", ""),
    Fault.BROWSER_HUNG: ("browser_failed", "The browser hangs", ""),
    Fault.PAGE_CRASHED: ("page_failed", "The page's renderer has crashed", ""),
    Fault.PAGE_BLOCKED: ("page_failed", "The page hangs", ""),
    Fault.PAGE_LOOPING: ("page_failed", "The page works without end", ""),
    Fault.PAGE_SILENT: ("page_failed", "The page does not answer", ""),
    Fault.PAGE_WRONG: (
        "page_failed",
        "What is shown is not WhatsApp Web",
        "Is there a portal to sign in to, or a proxy that wants a password? It is tried again automatically.",
    ),
    Fault.PAGE_UNREAD: (
        "page_failed",
        "The page is not understood",
        "Has WhatsApp Web changed? See GET /v1/sessions/CODE/screenshot, upgrade waguard, or set whatsapp.probe.",
    ),
    Fault.STORAGE_REFUSED: ("page_failed", "The page cannot use its storage", "Is the disk full?"),
    Fault.NETWORK_HUNG: ("browser_failed", "The browser's network service hangs", ""),
    Fault.GPU_HUNG: ("browser_failed", "The page is not drawn any more", ""),
    Fault.OFFLINE: ("page_unreachable", "WhatsApp is not reached", "Is the network up?"),
    Fault.SYNC_STUCK: ("page_failed", "The chats do not come", "Is the network slow?"),
    Fault.QR_STALE: ("page_failed", "The QR code is too old to be scanned", ""),
    Fault.MEMORY_HIGH: ("browser_failed", "The browser takes too much memory", ""),
    Fault.UNPAIRED: (
        "page_failed",
        "The page asks for a scan, though the login is in its storage",
        "Where a remedy does not help: scan the code.",
    ),
    Fault.LOGIN_LOST: (
        "refused",
        "The login was lost to damage, and no snapshot has it",
        "Scan the new code.",
    ),
    Fault.LOGGED_OUT: ("refused", "The phone has unlinked this login", "Scan the new code."),
    Fault.CONFLICT: (
        "refused",
        "WhatsApp is open elsewhere with this login",
        "Close it there, then take it back: waguard restart CODE.",
    ),
    Fault.REFUSED: (
        "refused",
        "WhatsApp refuses this browser or this account",
        "Is browser.user_agent right, and the browser new enough? Then: waguard restart CODE. The login is kept.",
    ),
    Fault.OUTDATED: (
        "refused",
        "WhatsApp takes this version of its page no more",
        "It is reloaded automatically; at once: waguard restart CODE. If it lasts, upgrade the browser. The login is kept.",
    ),
    Fault.PROXY_BLOCKED: (
        "refused",
        "WhatsApp refuses the address that it is reached from",
        "Use another proxy or network, then: waguard restart CODE. The login is kept.",
    ),
    Fault.TERMS_BLOCKED: (
        "refused",
        "WhatsApp has blocked this account for its terms",
        "Ask for a review on the phone, then: waguard restart CODE. The login is kept.",
    ),
    Fault.ELSEWHERE: ("page_failed", "The page has left WhatsApp Web", "Is there a portal to sign in to?"),
    Fault.NOTICE_OPEN: ("page_failed", "A notice lies over the page", "It is clicked away automatically."),
    Fault.DIALOG_OPEN: (
        "page_failed",
        "A dialog lies over the page, and nobody here knows what it wants",
        "See: GET /v1/sessions/CODE/screenshot. A restart may close it; the login is kept.",
    ),
    Fault.RESTRICTED: (
        "refused",
        "WhatsApp has restricted this account for a time",
        "See the phone for how long. The link stands, and the login is kept.",
    ),
    Fault.PASSKEY_REQUIRED: (
        "refused",
        "WhatsApp wants the account's passkey to link this device",
        "Use it on the phone, or have the account linked without one.",
    ),
    Fault.PASSKEY_CONFIRMATION: (
        "refused",
        "WhatsApp wants the passkey confirmed to link this device",
        "Confirm it on the phone.",
    ),
}
"""Of what probes see: the code, what is said, what may help. What a person is told first costs no login."""


def finding(fault: Fault, evidence: str, lasted_s: float, wait_s: float = 0.0) -> Finding:
    failure = said(fault)
    message = f"{failure.message.removesuffix('.')}: {evidence}."
    return Finding(fault, replace(failure, message=message), (evidence,), lasted_s, wait_s)


def said(fault: Fault) -> Failure:
    """What is told of a fault before anybody has evidence of it."""
    code, what, hint = _SAID[fault]
    details = (("reason", fault.value),) if code == "refused" else ()
    return Failure(code, f"{what}.", hint=hint, details=details)
