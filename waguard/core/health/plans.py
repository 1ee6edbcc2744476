"""What can be done about a fault, and in which order. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from waguard.core.health.faults import REFUSALS, Fault, Finding


class Remedy(StrEnum):
    """What can be done, the cheapest first."""

    CONTINUE = "continue"
    """SIGCONT to what is stopped."""
    TERMINATE = "terminate"
    """End the running script; the page stays."""
    DISMISS = "dismiss"
    """Click a dialog away that is known to be harmless."""
    RELOAD_QR = "reload_qr"
    """Ask the page for fresh codes."""
    RENEW = "renew"
    """End the helper process that hangs; the browser makes a new one."""
    RELOAD = "reload"
    """Load the page again, with a new renderer if the old one does not answer, or takes too much."""
    RESTART = "restart"
    """Close the browser and start it again on the same profile."""
    RESTORE = "restore"
    """Start it on the newest snapshot."""
    FRESH = "fresh"
    """Start it on an empty profile: this costs a scan."""


ENDS_BROWSER = frozenset({Remedy.RESTART, Remedy.RESTORE, Remedy.FRESH})
BY_COST = "the cheapest first"
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
    Fault.PAGE_SILENT: (),
    Fault.PAGE_WRONG: (Remedy.RELOAD,),
    Fault.PAGE_UNREAD: (Remedy.RELOAD,),
    Fault.STORAGE_REFUSED: (Remedy.RELOAD, Remedy.RESTART, Remedy.RESTORE, Remedy.FRESH),
    Fault.NETWORK_HUNG: (Remedy.RENEW, Remedy.RESTART),
    Fault.GPU_HUNG: (Remedy.RENEW, Remedy.RESTART),
    Fault.OFFLINE: (Remedy.RELOAD, Remedy.RESTART),
    Fault.SYNC_STUCK: (Remedy.RELOAD, Remedy.RESTART),
    Fault.QR_STALE: (Remedy.RELOAD_QR, Remedy.RELOAD, Remedy.RESTART),
    Fault.MEMORY_HIGH: (Remedy.RELOAD, Remedy.RESTART),
    Fault.UNPAIRED: (Remedy.RELOAD, Remedy.RESTART, Remedy.RESTORE),
    Fault.LOGIN_LOST: (Remedy.RESTORE,),
    Fault.LOGGED_OUT: (),
    Fault.CONFLICT: (),
    Fault.ELSEWHERE: (Remedy.RELOAD, Remedy.RESTART),
    Fault.NOTICE_OPEN: (Remedy.DISMISS, Remedy.RELOAD),
    Fault.DIALOG_OPEN: (),
    Fault.RESTRICTED: (),
    Fault.PASSKEY_REQUIRED: (),
    Fault.PASSKEY_CONFIRMATION: (),
    Fault.REFUSED: (Remedy.RELOAD,),
    Fault.OUTDATED: (Remedy.RELOAD,),
    Fault.PROXY_BLOCKED: (Remedy.RELOAD,),
    Fault.TERMS_BLOCKED: (Remedy.RELOAD,),
}
"""What may help, the cheapest first: in the order of `Remedy`, always. A restart does not help against what a server answers."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """A finding, and what is done about it."""

    finding: Finding
    plan: tuple[Remedy, ...]
    why: str
    """Why the plan is in this order."""
    found: float
    """Monotonic, seconds; as is ``began``."""
    remedy: Remedy | None = None
    """Under way; none: it rests until the next try, or a person is needed."""
    began: float = 0.0
    tried: tuple[Remedy, ...] = ()
    """Those before it, which have not helped."""
    rests: int = 0
    """How often it has rested."""
    snapshot: str = ""
    """What `Remedy.RESTORE` would start with."""


STOPPING = frozenset({Remedy.RESTART, Remedy.RESTORE, Remedy.FRESH})
"""These begin with the end of the browser."""
AGAIN = frozenset(
    {
        *(Fault.OFFLINE, Fault.QR_STALE, Fault.SYNC_STUCK, Fault.ELSEWHERE, Fault.NOTICE_OPEN),
        *(Fault.PAGE_SILENT, Fault.PAGE_WRONG, Fault.PAGE_UNREAD, *REFUSALS),
    }
)
"""A restart is no last resort for these: they rest, longer each time, and what leaves the browser up is tried again."""
BY_SCAN = frozenset({Fault.UNPAIRED})
"""Where nothing helped, a person who scans does: nothing is tried for ever."""
SLOW_S, QUICK_S = (60.0, 3600.0), (2.0, 60.0)
"""The first and the longest rest between two tries: of what only a person or a release will end, and of the others."""


def next_remedy(treatment: Treatment, treated: Sequence[tuple[Fault, Remedy]]) -> Remedy | None:
    """The first of the plan that was not tried for this fault lately; with all of them tried, the last resort."""
    fault, plan = treatment.finding.fault, treatment.plan
    fresh = next((one for one in plan if (fault, one) not in treated and one not in treatment.tried), None)
    if fresh is not None or fault in AGAIN:
        return fresh
    return Remedy.RESTART if Remedy.RESTART in plan and fault not in BY_SCAN else None


def repeated(plan: Sequence[Remedy]) -> Remedy | None:
    """What is tried again after a rest."""
    return next((one for one in plan if one not in STOPPING), None)


def rest_s(fault: Fault, rests: int) -> float:
    """How long is rested at most before the next try, after so many rests."""
    first, longest = SLOW_S if fault in REFUSALS or fault is Fault.PAGE_UNREAD else QUICK_S
    return float(min(longest, first * 2 ** min(rests, 32)))
