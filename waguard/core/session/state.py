"""How a session stands, and the one word for it. Pure."""

from dataclasses import dataclass

from waguard.core.health.faults import REFUSALS, Fault
from waguard.core.health.plans import Remedy, Treatment
from waguard.core.model import Cause, Failure, Link, Process, Reason, Source, Status, Wanted


@dataclass(frozen=True, slots=True)
class State:
    wanted: Wanted = Wanted.DOWN
    process: Process = Process.DOWN
    link: Link = Link.UNKNOWN
    reason: Reason | None = None
    epoch: int = 0
    """Counts the launches; facts of an earlier one are late and mean nothing."""
    source: Source | None = None
    """What takes the kept profile's place before the next launch; none: it stays."""
    asked: Source | None = None
    """What the attempt under way was asked to start with; others who ask for the same join it."""
    cleaning: bool = False
    """A cleanup is under way."""
    failure: Failure | None = None
    """Why the last attempt ended by itself; none once the page is usable again."""
    restarts: tuple[float, ...] = ()
    """Monotonic times of the automatic restarts that count against the budget."""
    cause: Cause = Cause.CONNECT
    """Why the last browser was started, or the next one is."""
    treatment: Treatment | None = None
    """What was found wrong and is not yet cured."""
    step: int = 0
    """Counts the remedies and rests of a launch; what is told of an earlier one is late and means nothing for this one."""
    treated: tuple[tuple[Fault, Remedy], ...] = ()
    """What was tried since the session was last well for a while."""
    well_since: float | None = None
    """When the last treatment ended well, monotonic."""


def usable(link: Link, reason: Reason | None) -> bool:
    """Whether the page can be used as it is: connected, or nothing but a scan is missing."""
    return link in {Link.AWAITING_SCAN, Link.SYNCING, Link.CONNECTED} and reason is not Reason.UNPAIRED


def on_its_way(state: State) -> bool:
    """Whether the page has still to show something: it loads, or has logged out and not yet a code to scan."""
    gone = {Reason.LOGGED_OUT, Reason.DAMAGED}
    return state.link is Link.LOADING or (state.link is Link.LOST and state.reason in gone)


def summary_of(state: State) -> Status:
    """The one word for people."""
    match state.process:
        case Process.DOWN:
            return Status.STOPPED if state.wanted is Wanted.DOWN else Status.RECOVERING
        case Process.FAILED:
            return Status.FAILED
        case Process.BACKOFF:
            return Status.RECOVERING
        case Process.STOPPING if state.wanted is Wanted.DOWN:
            return Status.STOPPED
        case Process.UP if usable(state.link, state.reason):
            return Status(state.link.value)
        case Process.UP if (
            state.link is Link.AWAITING_SCAN
        ):  # unpaired: a person is asked when nothing is left to try
            tried = state.treatment is not None and state.treatment.remedy is None
            return Status.AWAITING_SCAN if tried else Status.RECOVERING
        case Process.UP if state.link is Link.UNKNOWN:
            return Status.RECOVERING
        case Process.UP if state.link is Link.LOST:
            return {
                Reason.LOGGED_OUT: Status.LOGGED_OUT,
                Reason.CONFLICT: Status.FAILED,
                **{Reason(fault.value): Status.FAILED for fault in REFUSALS},
            }.get(state.reason or Reason.OFFLINE, Status.RECOVERING)
        case _:
            return Status.RECOVERING if state.failure or state.treatment else Status.STARTING
