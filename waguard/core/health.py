"""What can be wrong with a session, what can be done about it, and in which order. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    PAGE_NOT_LOADED = "page_not_loaded"
    """The page was not usable within the deadline of the stage `open`."""
    STORAGE_REFUSED = "storage_refused"
    """The page cannot use its storage."""
    NETWORK_HUNG = "network_hung"
    """The browser's network service does not answer."""
    OFFLINE = "offline"
    """The page reaches WhatsApp no more."""
    QR_STALE = "qr_stale"
    """The QR code on the page is older than any lives."""
    MEMORY_HIGH = "memory_high"
    LOGIN_LOST = "login_lost"
    """The login was lost to damage, and nobody has logged it out."""
    LOGGED_OUT = "logged_out"
    CONFLICT = "conflict"
    REFUSED = "refused"


class Remedy(StrEnum):
    """What can be done, the cheapest first."""

    CONTINUE = "continue"
    """SIGCONT to what is stopped."""
    TERMINATE = "terminate"
    """End the running script; the page stays."""
    RELOAD_QR = "reload_qr"
    """Ask the page for fresh codes."""
    RELOAD = "reload"
    """Load the page again."""
    RESTART = "restart"
    """Close the browser and start it again on the same profile."""
    RESTORE = "restore"
    """Start it on the newest snapshot."""
    FRESH = "fresh"
    """Start it on an empty profile: this costs a scan."""


COST_S: Mapping[Remedy, float] = {
    Remedy.CONTINUE: 0.1,
    Remedy.TERMINATE: 0.5,
    Remedy.RELOAD_QR: 1.0,
    Remedy.RELOAD: 5.0,
    Remedy.RESTART: 15.0,
    Remedy.RESTORE: 120.0,
    Remedy.FRESH: 3600.0,
}
"""What a remedy costs the client, in seconds of service; a person's time counts."""

REPLACING = frozenset({Remedy.RESTORE, Remedy.FRESH})
"""These replace the profile: whatever else there is comes before them, however often it has failed."""

PLANS: Mapping[Fault, Sequence[Remedy]] = {
    Fault.PROCESS_STOPPED: (Remedy.CONTINUE, Remedy.RESTART),
    Fault.BROWSER_EXITED: (Remedy.RESTART,),
    Fault.BROWSER_HUNG: (Remedy.RESTART,),
    Fault.PIPE_CLOSED: (Remedy.RESTART,),
    Fault.START_FAILED: (Remedy.RESTART,),
    Fault.PAGE_CRASHED: (Remedy.RELOAD, Remedy.RESTART),
    Fault.PAGE_BLOCKED: (Remedy.RELOAD, Remedy.RESTART),
    Fault.PAGE_LOOPING: (Remedy.TERMINATE, Remedy.RELOAD, Remedy.RESTART),
    Fault.PAGE_NOT_LOADED: (Remedy.RELOAD, Remedy.RESTART, Remedy.RESTORE, Remedy.FRESH),
    Fault.STORAGE_REFUSED: (Remedy.RELOAD, Remedy.RESTART, Remedy.RESTORE, Remedy.FRESH),
    Fault.NETWORK_HUNG: (Remedy.RESTART,),
    Fault.OFFLINE: (Remedy.RELOAD, Remedy.RESTART),
    Fault.QR_STALE: (Remedy.RELOAD_QR, Remedy.RELOAD, Remedy.RESTART),
    Fault.MEMORY_HIGH: (Remedy.RESTART,),
    Fault.LOGIN_LOST: (Remedy.RESTORE,),
    Fault.LOGGED_OUT: (),
    Fault.CONFLICT: (),
    Fault.REFUSED: (),
}
"""What may help, by cost. Nothing: a person is needed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A probe's complaint."""

    fault: Fault
    failure: Failure
    """The same for the caller of a connect, and for the log."""
    evidence: tuple[str, ...] = ()
    lasted_s: float = 0.0
    """How long it had been so when it was found."""
