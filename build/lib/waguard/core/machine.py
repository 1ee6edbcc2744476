"""The brain of one session: ``decide(state, event, now) -> (state, orders)``. No I/O, no clock, no chance.

Every pair of process state and event has one rule in `TABLE`; `as_text` prints it. Facts about a browser carry
the epoch of the launch they belong to, and answers the step: which remedy or rest of it they are about. What comes late is
dropped before the table is asked.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from waguard.core.health import (
    BY_SCAN,
    FOR_A_PERSON,
    GONE,
    HUNG,
    OF_THE_PAGE,
    PLANS,
    REFUSALS,
    STOPPING,
    Fault,
    Finding,
    Remedy,
    Treatment,
    next_remedy,
    repeated,
    rest_s,
)
from waguard.core.model import Cause, Failure, Link, Process, Reading, Reason, Source, Status, Wanted
from waguard.core.policy import RestartPolicy


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


# --- what happens -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectAsked:
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class RestoreAsked:
    """Replace the profile by this snapshot, and connect with it."""

    backup: str


@dataclass(frozen=True, slots=True)
class DisconnectAsked:
    pass


@dataclass(frozen=True, slots=True)
class RestartAsked:
    pass


@dataclass(frozen=True, slots=True)
class CleanupAsked:
    pass


@dataclass(frozen=True, slots=True)
class ReturnAsked:
    """By the daemon that has just started: it was wanted before."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """By the daemon that has just started: it has the browser that an earlier one has brought up."""


@dataclass(frozen=True, slots=True)
class RecycleAsked:
    """By the daemon: a new browser is due, and nobody needs the old one just now."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something about one launch, told by whoever carried out an order."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Answer(Fact):
    """... and about what was done last when whoever tells it was asked, or looked."""

    step: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class Prepared(Fact):
    """Nothing of this code runs any more, the profile is there and its lock is ours."""


@dataclass(frozen=True, slots=True)
class Started(Fact):
    """The browser answers over its pipe."""


@dataclass(frozen=True, slots=True)
class Failed(Answer):
    """An order to prepare, launch or open could not be carried out."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class PageRead(Answer):
    reading: Reading


@dataclass(frozen=True, slots=True)
class Held(Fact):
    """The host lets no browser start now; nobody's fault, and nothing was tried."""

    failure: Failure
    retry_s: float


@dataclass(frozen=True, slots=True)
class Unreachable(Answer):
    """There is no way to WhatsApp Web; the browser shows its error page, or still waits for an answer."""

    failure: Failure
    plan: tuple[Remedy, ...] = tuple(PLANS[Fault.OFFLINE])
    why: str = ""


@dataclass(frozen=True, slots=True)
class LoginLost(Fact):
    """The page has no login any more, nobody has logged it out, and there is a snapshot that has it."""

    failure: Failure
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found(Answer):
    """A probe complains, and goes on to do so until it is cured."""

    finding: Finding
    plan: tuple[Remedy, ...] = ()
    """What may help, the best first ..."""
    why: str = ""
    """... and why."""
    snapshot: str = ""
    """What the profile could be restored from."""
    again: bool = False
    """It was told before, and has not ceased since."""


@dataclass(frozen=True, slots=True)
class BrowserExited(Found):
    """The browser has ended by itself, or is cut off from us."""


@dataclass(frozen=True, slots=True)
class Recovered(Fact):
    """The probe that has complained does so no more."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class NotCured(Answer):
    """A remedy could not be applied, or the probe goes on to complain."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Gone(Fact):
    """Every process of the launch is proved gone."""


@dataclass(frozen=True, slots=True)
class NotGone(Fact):
    failure: Failure


@dataclass(frozen=True, slots=True)
class Cleaned(Fact):
    """Every step of the cleanup has run; ``failure`` is set when the processes could not be proved gone."""

    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class RestEnded(Answer):
    """It is time for the next try."""


@dataclass(frozen=True, slots=True)
class WaitEnded(Fact):
    """The backoff, or the cool-down, is over."""


Event = (
    ConnectAsked
    | RestoreAsked
    | DisconnectAsked
    | RestartAsked
    | CleanupAsked
    | ReturnAsked
    | Adopted
    | RecycleAsked
    | Prepared
    | Started
    | Failed
    | Held
    | Unreachable
    | PageRead
    | LoginLost
    | Found
    | BrowserExited
    | Recovered
    | NotCured
    | Gone
    | NotGone
    | Cleaned
    | RestEnded
    | WaitEnded
)

# --- what is to be done -----------------------------------------------------------------------------------
# Prepare, Launch, Open, Stop, Clean and Wait are slow and exclude each other: a new one calls off the one under way.


@dataclass(frozen=True, slots=True)
class Prepare:
    """Admit the start, see that nothing of this code runs, have a profile with its lock taken."""

    epoch: int
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    epoch: int


@dataclass(frozen=True, slots=True)
class Open:
    """Go to WhatsApp Web and watch the page; the stage's deadline runs from here."""

    epoch: int


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Watch the page as it is; the deadline of the stage `open` runs from here."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Close the browser (politely first, if it may still answer), kill what is left, prove it gone."""

    epoch: int
    polite: bool


@dataclass(frozen=True, slots=True)
class Clean:
    """All of the cleanup, every step whatever the others did."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Wait:
    epoch: int
    bound_s: float
    jitter: bool
    """Draw the delay between 0 and the bound, or wait for all of it."""
    held: bool = False
    """It is the host that lets none start, and how long is a guess: over at once when a browser starts well again."""


@dataclass(frozen=True, slots=True)
class Arm:
    """The page loads again: the deadline of the stage `open` runs anew."""

    epoch: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class Disarm:
    """The deadline of the stage `open` no longer runs."""

    usable: bool = True
    """The stage is done; else the page will not become usable by waiting."""


@dataclass(frozen=True, slots=True)
class ReloadQr:
    """Ask the page for fresh codes."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Cure:
    """Apply a remedy that leaves the browser up, and see whether it helps."""

    epoch: int
    fault: Fault
    remedy: Remedy
    step: int = 0


@dataclass(frozen=True, slots=True)
class Rest:
    """Wait until the next try against a fault, in the place of any rest before; the browser stays up."""

    epoch: int
    fault: Fault
    bound_s: float
    jitter: bool
    """Draw it between half the bound and all of it, so that not all sessions come at once."""
    step: int = 0


@dataclass(frozen=True, slots=True)
class Remember:
    """Write down what is wanted, so that it outlives the daemon."""

    wanted: Wanted


Order = (
    Prepare
    | Launch
    | Open
    | TakeOver
    | Stop
    | Clean
    | Wait
    | Arm
    | Disarm
    | ReloadQr
    | Cure
    | Rest
    | Remember
)
Outcome = tuple[State, tuple[Order, ...]]
Rule = Callable[[State, Event, float, RestartPolicy], Outcome]

# --- the rules --------------------------------------------------------------------------------------------


def ignore(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Nothing to do: already so, already under way, or no longer of interest."""
    return state, ()


def _prepare(state: State, *orders: Order) -> Outcome:
    after = replace(
        state,
        process=Process.PREPARING,
        link=Link.UNKNOWN,
        reason=None,
        epoch=state.epoch + 1,
        step=0,
        cleaning=False,
    )
    return after, (*orders, Prepare(after.epoch, state.source))


def _stop(state: State, *orders: Order, polite: bool) -> Outcome:
    return replace(state, process=Process.STOPPING), (*orders, Stop(state.epoch, polite=polite))


def _asked(event: Event) -> Source | None:
    """What somebody wants in the place of the kept profile."""
    if isinstance(event, RestoreAsked):
        return Source(event.backup)
    return Source() if isinstance(event, ConnectAsked) and event.fresh else None


def _cause(event: Event) -> Cause:
    return Cause.RESTART if isinstance(event, RestartAsked) else Cause.CONNECT


def _anew(state: State) -> State:
    """What an operator asks for forgets old failures and what was done about them."""
    return replace(state, failure=None, restarts=(), treatment=None, treated=(), well_since=None)


def begin(state: State, event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """An operator wants it up: forget old failures, prepare."""
    asked = _asked(event)
    after = replace(
        _anew(state), wanted=Wanted.UP, source=asked or state.source, asked=asked, cause=_cause(event)
    )
    return _prepare(after, Remember(Wanted.UP))


def come_back(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """The daemon was started, and this was wanted before: prepare, if it still is."""
    if state.wanted is Wanted.DOWN:
        return state, ()
    return _prepare(replace(state, cause=Cause.RETURN))


def take_over(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Its browser has outlived a daemon: go on with it, or end what that daemon could not if it is to be down."""
    after = replace(state, epoch=state.epoch + 1, step=0, cause=Cause.RETURN)
    if state.wanted is Wanted.DOWN:
        return _stop(after, polite=True)
    return replace(after, process=Process.UP, link=Link.LOADING), (TakeOver(after.epoch),)


def join(state: State, event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """A start is under way: join it, unless another profile is asked for than it starts with."""
    asked = _asked(event)
    if asked is not None and asked != state.asked:
        after = replace(_anew(state), source=asked, asked=asked, restarts=state.restarts, cause=Cause.CONNECT)
        return _stop(after, polite=False)
    return state, ()


def use(state: State, event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The browser is up: that is enough, unless its page is past use and not being cured, or another profile is asked for."""
    asked = _asked(event) if _asked(event) != state.asked else None
    hung = state.link is Link.LOST and state.reason in {Reason.CRASHED, Reason.HUNG}
    treatment = state.treatment
    silent = treatment is not None and treatment.finding.fault is Fault.PAGE_SILENT  # it may be at work
    past_use = (hung and treatment is None) or (state.link is Link.UNKNOWN and not silent)
    if asked is not None or past_use:  # its browser may still have a login to write down
        return _stop(replace(_anew(state), source=asked, asked=asked, cause=Cause.CONNECT), polite=True)
    if treatment is not None and treatment.remedy is None and treatment.finding.fault is Fault.PAGE_WRONG:
        return _apply(state, treatment, now, again=repeated(treatment.plan))  # whoever asks need not wait
    return state, ()


def restart(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Close it and start again on the same profile."""
    return _stop(replace(_anew(state), cause=Cause.RESTART), polite=True)


def recycle(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Close it and start again, if it is well and not waiting for a scan that somebody may be at."""
    if state.treatment is not None or state.link is not Link.CONNECTED:
        return state, ()
    return _stop(replace(state, cause=Cause.RECYCLE), polite=True)


def resume(state: State, event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Wanted again while it is being stopped or cleaned: once that is done, prepare."""
    asked = _asked(event) or state.asked
    after = replace(
        _anew(state), wanted=Wanted.UP, source=asked or state.source, asked=asked, cause=_cause(event)
    )
    return after, (Remember(Wanted.UP),)


def _down(state: State) -> State:
    return replace(
        state, wanted=Wanted.DOWN, source=None, asked=None, failure=None, treatment=None, treated=()
    )


def stop(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Not wanted any more: call off what is under way, close politely, prove it gone."""
    return _stop(_down(state), Remember(Wanted.DOWN), polite=state.process is Process.UP)


def stay_down(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Nothing runs, or the stop is under way: note that it is to stay so."""
    return _down(state), (Remember(Wanted.DOWN),)


def clean(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Call off what is under way and clean."""
    after = replace(_down(state), process=Process.STOPPING, cleaning=True, restarts=())
    return after, (Remember(Wanted.DOWN), Clean(state.epoch))


def clean_once(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """Turn a stop into a cleanup; a second caller joins the cleanup under way."""
    if state.cleaning:
        return replace(state, wanted=Wanted.DOWN, source=None, asked=None), (Remember(Wanted.DOWN),)
    return clean(state, event, now, policy)


def hold(state: State, event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """The host lets none start now: wait, at no cost to the budget."""
    assert isinstance(event, Held)  # noqa: S101 (the table gives this rule no other event)
    after = replace(state, process=Process.BACKOFF, failure=event.failure)
    return after, (Wait(state.epoch, event.retry_s, jitter=True, held=True),)


def launch(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Start the browser."""
    return replace(state, process=Process.STARTING, source=None), (Launch(state.epoch),)


def open_page(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """The browser answers: go to the page."""
    return replace(state, process=Process.UP, link=Link.LOADING), (Open(state.epoch),)


def usable(link: Link, reason: Reason | None) -> bool:
    """Whether the page can be used as it is: connected, or nothing but a scan is missing."""
    return link in {Link.AWAITING_SCAN, Link.SYNCING, Link.CONNECTED} and reason is not Reason.UNPAIRED


def _on_its_way(state: State) -> bool:
    """Whether the page has still to show something: it loads, or has logged out and not yet a code to scan."""
    gone = {Reason.LOGGED_OUT, Reason.DAMAGED}
    return state.link is Link.LOADING or (state.link is Link.LOST and state.reason in gone)


def note(state: State, event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """Believe the page; one look at an unknown page changes nothing that is known."""
    assert isinstance(event, PageRead)  # noqa: S101 (the table gives this rule no other event)
    reading = event.reading
    if reading.link is Link.UNKNOWN:
        return state, ()
    reason, treatment = reading.reason, state.treatment
    link: Link = reading.link
    if reading.cut_off and treatment is not None and treatment.finding.fault is Fault.OFFLINE:
        link, reason = _seen_as(state, Fault.OFFLINE)
    in_use = usable(link, reason)
    after = replace(
        state,
        link=link,
        reason=reason,
        asked=None if in_use else state.asked,
        failure=None if in_use else state.failure,
    )
    if _shows_in_the_page(after):
        after = _well(after, now)
    elif treatment is not None and treatment.finding.fault is Fault.PAGE_SILENT:
        after = replace(after, treatment=None)
    orders: tuple[Order, ...] = ()
    if not _on_its_way(after):
        orders = (Disarm(),)
    elif not _on_its_way(state):
        orders = (Arm(state.epoch, state.step),)  # it loads again, and may not end
    if reading.qr_exhausted:
        orders += (ReloadQr(state.epoch),)
    return after, orders


def _shows_in_the_page(state: State) -> bool:
    """Whether what the page has just said proves the cure; one that says that it is open elsewhere, say, is up again too."""
    treatment = state.treatment
    if treatment is None:
        return False
    fault = treatment.finding.fault
    if fault in OF_THE_PAGE and not _on_its_way(state):
        return True
    if fault is Fault.SYNC_STUCK and state.link is Link.SYNCING:
        return False
    shows = fault in {Fault.OFFLINE, Fault.UNPAIRED} or treatment.remedy in STOPPING
    return usable(state.link, state.reason) and shows


def _well(state: State, now: float) -> State:
    return replace(state, treatment=None, well_since=now)


def unreachable(state: State, event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The network is to blame and no browser: say so, and try again after a rest."""
    assert isinstance(event, Unreachable)  # noqa: S101 (the table gives this rule no other event)
    after = replace(state, link=Link.LOST, reason=Reason.OFFLINE, failure=event.failure)
    before, same = state.treatment, False
    if before is not None:
        same = before.finding.fault is Fault.OFFLINE
        if before.remedy is Remedy.RELOAD and not same:
            # It tells nothing of this remedy, and is no reason for the next one.
            reload = (before.finding.fault, Remedy.RELOAD)
            after = replace(after, treated=tuple(one for one in state.treated if one != reload))
    if before is not None and same and before.remedy not in STOPPING:
        return after, (Disarm(usable=False),)  # it rests, or whoever has tried says so
    finding = Finding(Fault.OFFLINE, event.failure, (event.failure.message.removesuffix("."),))
    treatment = Treatment(finding, event.plan, event.why, before.found if before and same else now)
    after, orders = _rest(after, treatment, rest_s(Fault.OFFLINE, 0), now, jitter=True)
    return after, (Disarm(usable=False), *orders)


def lose_login(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """The login was lost to damage: stop, and start again at once on the last snapshot that has it, inside the budget."""
    recent = policy.recent(state.restarts, now)
    spent = len(recent) >= policy.budget
    evidence = event.evidence if isinstance(event, LoginLost) else ()
    finding = Finding(Fault.LOGIN_LOST, _failure(event), evidence)
    after = replace(
        state,
        link=Link.LOST,
        reason=Reason.DAMAGED,
        failure=_failure(event) if spent else None,
        restarts=recent if spent else (*recent, now),
        cause=Cause.RECOVERY,
        treatment=Treatment(finding, (Remedy.RESTORE,), "the only one", now, Remedy.RESTORE, now),
    )
    return _stop(after, polite=False)


# --- cures


def treat(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """Begin with the best remedy, one fault at a time; what is still wrong after that is found again."""
    assert isinstance(event, Found)  # noqa: S101 (the table gives this rule no other event)
    fault, before = event.finding.fault, state.treatment
    if fault is Fault.PAGE_NOT_LOADED and not _on_its_way(state):
        return state, ()
    if fault is Fault.PAGE_SILENT and _on_its_way(state):
        return state, ()  # the deadline of `open` runs
    if before is not None and before.remedy is not None and fault not in GONE:
        back = fault is before.finding.fault and not event.again  # in the page that was loaded since
        if before.remedy is Remedy.RELOAD and (back or fault in {Fault.PAGE_NOT_LOADED, Fault.PAGE_CRASHED}):
            return _go_on(state, before, now)
        if before.remedy not in STOPPING and fault is Fault.PAGE_NOT_LOADED:
            return state, (Arm(state.epoch, state.step),)  # told once only: again later
        if before.remedy not in STOPPING and fault is not Fault.PAGE_CRASHED:
            if fault is before.finding.fault:  # whose trouble it is may be known by now
                return replace(state, treatment=replace(before, plan=event.plan, why=event.why)), ()
            return state, ()
    tried: tuple[Remedy, ...] = ()
    same = before is not None and before.finding.fault is fault
    if before is not None and before.remedy is None and same:  # it rests, or waits for a person
        known = replace(before, plan=event.plan, why=event.why, snapshot=event.snapshot)
        return replace(state, treatment=replace(known, finding=event.finding)), ()
    if same and before is not None and before.remedy is not None:  # the new browser has it too
        tried = (*before.tried, before.remedy)
    treated = state.treated
    began = now - event.finding.lasted_s  # what takes long to be found is back all the same
    if state.well_since is not None and began - state.well_since > policy.relapse_s:
        treated = ()
    found = before.found if same and before is not None else now
    treatment = Treatment(event.finding, event.plan, event.why, found, tried=tried, snapshot=event.snapshot)
    nothing_now = event.finding.wait_s > 0 or next_remedy(treatment, treated) is None
    if before is not None and before.remedy is None and fault not in GONE and nothing_now:
        if fault is Fault.PAGE_SILENT:
            state = replace(state, link=Link.UNKNOWN, reason=None)
        return state, ()
    after = replace(state, treated=treated, well_since=None)
    if event.finding.wait_s:
        return _rest(after, treatment, event.finding.wait_s, now, jitter=False)
    return _apply(after, treatment, now)


def try_next(state: State, _event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The remedy did not help: the next one."""
    if state.treatment is None or state.treatment.remedy is None:
        return state, ()
    return _go_on(state, state.treatment, now)


def try_again(state: State, _event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The rest is over: what was not tried yet, else what leaves the browser up once more."""
    treatment = state.treatment
    if treatment is None or treatment.remedy is not None:
        return state, ()
    return _apply(state, treatment, now, again=repeated(treatment.plan))


def recover(state: State, event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The probe that complained is content."""
    assert isinstance(event, Recovered)  # noqa: S101 (the table gives this rule no other event)
    if state.treatment is None or state.treatment.finding.fault is not event.fault:
        return state, ()
    if _word(event.fault) == (state.link, state.reason):
        return state, ()  # the page has yet to say how it stands
    return _well(state, now), ()


def _go_on(state: State, treatment: Treatment, now: float) -> Outcome:
    tried = treatment.tried
    if treatment.remedy is not None and treatment.remedy not in tried:
        tried += (treatment.remedy,)
    spent_s = now - treatment.began
    return _apply(state, replace(treatment, tried=tried, remedy=None), now, spent_s=spent_s)


def _rest(state: State, treatment: Treatment, bound_s: float, now: float, *, jitter: bool) -> Outcome:
    """Nothing is under way until that is over; whoever waits for a person waits without an end."""
    fault = treatment.finding.fault
    link, reason = _seen_as(state, fault)
    rests = treatment.rests + jitter
    after = replace(
        state,
        treatment=replace(treatment, remedy=None, began=now, rests=rests),
        step=state.step + 1,
        link=link,
        reason=reason,
    )
    orders: tuple[Order, ...] = ()
    if _on_its_way(state) and not _on_its_way(after):
        orders = (Disarm(usable=False),)
    if fault in BY_SCAN or (fault in FOR_A_PERSON and not treatment.plan):
        return after, orders
    return after, (*orders, Rest(after.epoch, fault, bound_s, jitter, after.step))


def _apply(
    state: State, treatment: Treatment, now: float, again: Remedy | None = None, spent_s: float = 0.0
) -> Outcome:
    """The next remedy of the plan, else the one that is to be tried ``again``; without either it rests.

    What the last try has taken counts as rest.
    """
    fault, failure = treatment.finding.fault, treatment.finding.failure
    remedy = next_remedy(treatment, state.treated) or again
    if remedy is None:
        bound_s = max(rest_s(fault, 0), rest_s(fault, treatment.rests) - spent_s)
        return _rest(state, treatment, bound_s, now, jitter=True)
    treatment = replace(treatment, remedy=remedy, began=now)
    link, reason = _seen_as(state, fault)
    after = replace(state, treatment=treatment, step=state.step + 1, link=link, reason=reason)
    after = replace(
        after, treated=(*(one for one in state.treated if one != (fault, remedy)), (fault, remedy))
    )
    if remedy not in STOPPING:
        if remedy is Remedy.RELOAD:
            after = replace(after, link=Link.LOADING, reason=None)
            return after, (Arm(after.epoch, after.step), Cure(after.epoch, fault, remedy, after.step))
        return after, (Cure(after.epoch, fault, remedy, after.step),)
    source = {Remedy.RESTORE: Source(treatment.snapshot), Remedy.FRESH: Source()}.get(remedy)
    polite = fault not in {*GONE, Fault.BROWSER_HUNG}
    after = replace(after, failure=failure, source=source or state.source, cause=Cause.RECOVERY)
    return _stop(after, polite=polite)


def _seen_as(state: State, fault: Fault) -> tuple[Link, Reason | None]:
    """The link of a session with this fault."""
    return _word(fault) or (state.link, state.reason)


def _word(fault: Fault) -> tuple[Link, Reason | None] | None:
    """How a link with this fault stands whatever the page has said; None: the fault says nothing of it."""
    if fault in GONE or fault is Fault.PAGE_CRASHED:
        return Link.LOST, Reason.CRASHED
    if fault in HUNG:
        return Link.LOST, Reason.HUNG
    if fault is Fault.OFFLINE:
        return Link.LOST, Reason.OFFLINE
    if fault is Fault.PAGE_WRONG:
        return Link.LOST, Reason.WRONG_PAGE
    if fault in {Fault.PAGE_SILENT, Fault.PAGE_UNREAD}:
        return Link.UNKNOWN, None
    return None


def give_up(state: State, event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The start failed: prove gone whatever it left, then start again by policy, not from a snapshot that was asked for."""
    restoring = state.source is not None and state.source.backup
    failure = _failure(event)
    finding = Finding(Fault.START_FAILED, failure)
    after = replace(
        state,
        link=Link.UNKNOWN,
        reason=None,
        failure=failure,
        source=None if restoring else state.source,
        cause=Cause.RECOVERY,
        treatment=state.treatment
        or Treatment(finding, (Remedy.RESTART,), "the only one", now, Remedy.RESTART, now),
    )
    return _stop(after, polite=state.process is Process.UP)


def _wait_for_the_host(state: State, failure: Failure) -> Outcome:
    """What it lacks may be there again soon: wait, at no cost to the budget."""
    after = replace(state, process=Process.BACKOFF, failure=failure)
    return after, (Wait(state.epoch, failure.retry_s, jitter=True, held=True),)


def gone(state: State, _event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """Proved gone: stay down, start what an operator asked for, or go by the restart policy."""
    if state.cleaning:
        return state, ()
    if state.wanted is Wanted.DOWN:
        return replace(state, process=Process.DOWN, link=Link.UNKNOWN, reason=None), ()
    if state.failure is None:
        return _prepare(state)
    if state.failure.passing:
        return _wait_for_the_host(state, state.failure)
    recent = policy.recent(state.restarts, now)
    if len(recent) >= policy.budget:
        # A profile that was to be replaced as the last remedy is not what an operator asks for later.
        source = state.source if state.source == state.asked else None
        after = replace(
            state, process=Process.FAILED, restarts=recent, treatment=None, treated=(), source=source
        )
        return after, (Wait(state.epoch, policy.rest_s(recent, now), jitter=False),)
    after = replace(state, process=Process.BACKOFF, restarts=(*recent, now))
    return after, (Wait(state.epoch, policy.delay_bound_s(len(recent)), jitter=True),)


def not_gone(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """Something could not be proved gone: start nothing in its place; look again after the cool-down, or as soon as the host may let."""
    if state.cleaning and isinstance(event, NotGone):
        return state, ()  # told by the stop that the cleanup has replaced
    failure = _failure(event)
    after = replace(
        state, process=Process.FAILED, failure=failure, cleaning=False, treatment=None, treated=()
    )
    if failure.passing:
        return _wait_for_the_host(after, failure)
    if state.wanted is Wanted.DOWN:
        return after, ()
    rest_s = policy.rest_s(policy.recent(state.restarts, now), now)  # the next start counts like any other
    return after, (Wait(state.epoch, rest_s, jitter=False),)


def cleaned(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """The cleanup is done: down, or prepare if somebody asked for it meanwhile."""
    if isinstance(event, Cleaned) and event.failure is not None:
        return not_gone(state, event, now, policy)
    if state.wanted is Wanted.UP:
        return _prepare(state)
    return State(epoch=state.epoch), ()


def again(state: State, _event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """The wait is over: try again, if it is still wanted; what could not be stopped for want of something, is now."""
    if state.wanted is Wanted.DOWN:
        return (
            (state, ())
            if state.process is Process.FAILED
            else _stop(replace(state, failure=None), polite=False)
        )
    if state.process is Process.FAILED:  # after its cool-down; this one counts too
        state = replace(state, restarts=(*policy.recent(state.restarts, now), now), cause=Cause.RECOVERY)
    return _prepare(state)


def _failure(event: Event) -> Failure:
    failure = event.finding.failure if isinstance(event, Found) else getattr(event, "failure", None)
    return failure if isinstance(failure, Failure) else Failure("internal", "It failed for no known reason.")


# --- the table --------------------------------------------------------------------------------------------

_COLUMNS = (
    Process.DOWN,
    Process.PREPARING,
    Process.STARTING,
    Process.UP,
    Process.STOPPING,
    Process.BACKOFF,
    Process.FAILED,
)
# fmt: off
_ROWS: dict[type[Event], tuple[Rule, ...]] = {
    #                 down       preparing  starting   up         stopping    backoff    failed
    ConnectAsked:    (begin,     join,      join,      use,       resume,     begin,     begin),
    RestoreAsked:    (begin,     join,      join,      use,       resume,     begin,     begin),
    RestartAsked:    (begin,     join,      join,      restart,   resume,     begin,     begin),
    DisconnectAsked: (stay_down, stop,      stop,      stop,      stay_down,  stop,      stop),
    CleanupAsked:    (clean,     clean,     clean,     clean,     clean_once, clean,     clean),
    Prepared:        (ignore,    launch,    ignore,    ignore,    ignore,     ignore,    ignore),
    Started:         (ignore,    ignore,    open_page, ignore,    ignore,     ignore,    ignore),
    ReturnAsked:     (come_back, ignore,    ignore,    ignore,    ignore,     ignore,    ignore),
    Adopted:         (take_over, ignore,    ignore,    ignore,    ignore,     ignore,    ignore),
    RecycleAsked:    (ignore,    ignore,    ignore,    recycle,   ignore,     ignore,    ignore),
    Held:            (ignore,    hold,      ignore,    ignore,    ignore,     ignore,    ignore),
    Failed:          (ignore,    give_up,   give_up,   give_up,   ignore,     ignore,    ignore),
    Unreachable:     (ignore,    ignore,    ignore,    unreachable, ignore,   ignore,    ignore),
    PageRead:        (ignore,    ignore,    ignore,    note,      ignore,     ignore,    ignore),
    LoginLost:       (ignore,    ignore,    ignore,    lose_login, ignore,    ignore,    ignore),
    Found:           (ignore,    ignore,    ignore,    treat,     ignore,     ignore,    ignore),
    BrowserExited:   (ignore,    ignore,    give_up,   treat,     ignore,     ignore,    ignore),
    Recovered:       (ignore,    ignore,    ignore,    recover,   ignore,     ignore,    ignore),
    NotCured:        (ignore,    ignore,    ignore,    try_next,  ignore,     ignore,    ignore),
    Gone:            (ignore,    ignore,    ignore,    ignore,    gone,       ignore,    ignore),
    NotGone:         (ignore,    ignore,    ignore,    ignore,    not_gone,   ignore,    ignore),
    Cleaned:         (ignore,    ignore,    ignore,    ignore,    cleaned,    ignore,    ignore),
    RestEnded:       (ignore,    ignore,    ignore,    try_again, ignore,     ignore,    ignore),
    WaitEnded:       (ignore,    ignore,    ignore,    ignore,    ignore,     again,     again),
}
# fmt: on
TABLE: dict[tuple[Process, type[Event]], Rule] = {
    (process, event): rule
    for event, rules in _ROWS.items()
    for process, rule in zip(_COLUMNS, rules, strict=True)
}


def decide(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """The next state and what is to be done. ``now`` is monotonic, in seconds."""
    if isinstance(event, Fact) and (event.epoch != state.epoch or _late(state, event)):
        return state, ()
    return TABLE[state.process, type(event)](state, event, now, policy)


def _late(state: State, fact: Fact) -> bool:
    """Whether it is about an earlier remedy or rest, or about the page that a reload under way leaves behind."""
    if not isinstance(fact, Answer) or fact.step == state.step:
        return False
    if isinstance(fact, NotCured | RestEnded):
        return True
    crashed = isinstance(fact, Found) and fact.finding.fault in {
        *GONE,
        Fault.PAGE_CRASHED,
    }  # told once, of any page
    return state.treatment is not None and state.treatment.remedy is Remedy.RELOAD and not crashed


def status(state: State) -> Status:
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


def as_text() -> str:
    """The table as Markdown: ``python -m waguard.core.machine > docs/state-table.md``."""
    words = {rule.__name__: rule.__doc__ for rules in _ROWS.values() for rule in rules if rule is not ignore}
    lines = [
        "# The state table",
        "",
        "How a session decides, as `waguard/core/machine.py` has it; a test keeps this page true. Each row is an event,",
        "each column a state of `process`, and in the cell is the rule. An empty cell: the event is of no interest there.",
        "",
        "| event | " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * (len(_COLUMNS) + 1),
    ]
    for event, rules in _ROWS.items():
        cells = ("" if rule is ignore else rule.__name__ for rule in rules)
        lines.append(f"| {event.__name__} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- `{name}`: {text}" for name, text in words.items()), ""])


if __name__ == "__main__":
    sys.stdout.write(as_text())
