"""What is found wrong while a browser is up, and what is done about it: a table of its own. Pure.

One fault at a time is treated; what is still wrong after that is found again. `TABLE` has a rule for every pair of where the
treatment stands and what is reported.
"""

from dataclasses import replace
from enum import StrEnum

from waguard.core.health.faults import GONE, OF_THE_PAGE, Fault, Finding
from waguard.core.health.plans import STOPPING, Remedy, Treatment, next_remedy, repeated, rest_s
from waguard.core.model import Cause, Link, Reason
from waguard.core.session.events import (
    Event,
    Found,
    LoginLost,
    NotCured,
    PageRead,
    Recovered,
    RestEnded,
    Unreachable,
)
from waguard.core.session.orders import Arm, Disarm
from waguard.core.session.remedy import apply, go_on, rest, standing
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.rules import Outcome, Rule, failure_of, ignore, to_stopping
from waguard.core.session.state import State, on_its_way, usable


class Course(StrEnum):
    """Where a treatment stands."""

    NONE = "none"
    RESTING = "resting"
    """Nothing is under way until the next try, or a person is needed."""
    CURING = "curing"
    """A remedy is under way that leaves the page."""
    RELOADING = "reloading"
    REPLACING = "replacing"
    """The browser was started anew, and its page has yet to say that this has helped."""


class Report(StrEnum):
    """What is reported, as it concerns the treatment there is."""

    BROWSER_GONE = "browser gone"
    PAGE_CRASHED = "page crashed"
    NOT_LOADED = "page not loaded"
    SAME_ANEW = "same fault, anew"
    """After it had ceased."""
    SAME_STILL = "same fault, still"
    ANOTHER = "another fault"
    UNREACHABLE = "unreachable"
    STILL_UNREACHABLE = "still unreachable"
    LOGIN_LOST = "login lost"
    NOT_CURED = "not cured"
    REST_ENDED = "rest ended"
    RECOVERED = "recovered"
    """The probe that has complained of this fault is content."""
    PAGE_READ = "page read"


def course_of(treatment: Treatment | None) -> Course:
    if treatment is None:
        return Course.NONE
    if treatment.remedy is None:
        return Course.RESTING
    if treatment.remedy in STOPPING:
        return Course.REPLACING
    return Course.RELOADING if treatment.remedy is Remedy.RELOAD else Course.CURING


def report_of(state: State, event: Event) -> Report | None:
    """What an event means to the treatment there is; None if nothing."""
    fault = state.treatment.finding.fault if state.treatment is not None else None
    match event:
        case Found():
            return _complaint(state, event)
        case Unreachable():
            return Report.STILL_UNREACHABLE if fault is Fault.OFFLINE else Report.UNREACHABLE
        case Recovered():
            return Report.RECOVERED if fault is event.fault else None
        case LoginLost():
            return Report.LOGIN_LOST
        case NotCured():
            return Report.NOT_CURED
        case RestEnded():
            return Report.REST_ENDED
        case PageRead():
            return Report.PAGE_READ
        case _:
            return None


def _complaint(state: State, event: Found) -> Report | None:
    fault = event.finding.fault
    if fault is Fault.PAGE_NOT_LOADED and not on_its_way(state):
        return None
    if fault is Fault.PAGE_SILENT and on_its_way(state):
        return None  # the deadline of `open` runs
    known = Report.SAME_STILL if event.again else Report.SAME_ANEW
    if _same(state, event) and course_of(state.treatment) is Course.RESTING:
        return known
    if fault in GONE:
        return Report.BROWSER_GONE
    if fault is Fault.PAGE_CRASHED:
        return Report.PAGE_CRASHED
    if fault is Fault.PAGE_NOT_LOADED:
        return Report.NOT_LOADED
    return known if _same(state, event) else Report.ANOTHER


def _same(state: State, event: Found) -> bool:
    return state.treatment is not None and state.treatment.finding.fault is event.finding.fault


# --- the rules --------------------------------------------------------------------------------------------


def begin(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """Begin with the best remedy, or with a rest if the fault may end by itself."""
    assert isinstance(event, Found)  # noqa: S101 (the table gives this rule no other event)
    treatment, treated = _new(state, event, now, policy)
    after = replace(state, treated=treated, well_since=None)
    if event.finding.wait_s:
        return rest(after, treatment, event.finding.wait_s, now, jitter=False)
    return apply(after, treatment, now)


def _new(
    state: State, event: Found, now: float, policy: RestartPolicy
) -> tuple[Treatment, tuple[tuple[Fault, Remedy], ...]]:
    """A treatment of what was found, and what was tried lately."""
    before, found = state.treatment, now
    tried: tuple[Remedy, ...] = ()
    # The new browser has it too; of one that rests the same fault is no new complaint.
    if before is not None and before.remedy is not None and _same(state, event):
        found, tried = before.found, (*before.tried, before.remedy)
    treated = state.treated
    began = now - event.finding.lasted_s  # what takes long to be found is back all the same
    if state.well_since is not None and began - state.well_since > policy.relapse_s:
        treated = ()
    treatment = Treatment(event.finding, event.plan, event.why, found, tried=tried, snapshot=event.snapshot)
    return treatment, treated


def begin_if(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """Another fault takes the place of the one that rests if something can be done about it at once."""
    assert isinstance(event, Found)  # noqa: S101 (the table gives this rule no other event)
    treatment, treated = _new(state, event, now, policy)
    if not event.finding.wait_s and next_remedy(treatment, treated) is not None:
        return begin(state, event, now, policy)
    if event.finding.fault is Fault.PAGE_SILENT:
        state = replace(state, link=Link.UNKNOWN, reason=None)
    return state, ()


def learn(state: State, event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """It is known; what may help, and whose trouble it is, may be known better by now."""
    assert isinstance(event, Found)  # noqa: S101 (the table gives this rule no other event)
    assert state.treatment is not None  # noqa: S101 (likewise)
    known = replace(state.treatment, plan=event.plan, why=event.why)
    if known.remedy is None:
        known = replace(known, finding=event.finding, snapshot=event.snapshot)
    return replace(state, treatment=known), ()


def rearm(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """It is reported once only: look again after another deadline of the stage `open`."""
    return state, (Arm(state.epoch, state.step),)


def next_one(state: State, _event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The remedy has not helped: the next one."""
    assert state.treatment is not None  # noqa: S101 (the table has this rule where there is one)
    return go_on(state, state.treatment, now)


def try_again(state: State, _event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The rest is over: what was not tried yet, else what leaves the browser up once more."""
    assert state.treatment is not None  # noqa: S101 (the table has this rule where there is one)
    return apply(state, state.treatment, now, again=repeated(state.treatment.plan))


def recover(state: State, event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """It is over, unless the page has yet to say how it stands."""
    assert isinstance(event, Recovered)  # noqa: S101 (the table gives this rule no other event)
    if standing(event.fault) == (state.link, state.reason):
        return state, ()
    return _well(state, now), ()


def see(state: State, _event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """It is over if what the page has just said proves the cure."""
    treatment = state.treatment
    assert treatment is not None  # noqa: S101 (the table has this rule where there is one)
    if _proves(state, treatment):
        return _well(state, now), ()
    if treatment.finding.fault is Fault.PAGE_SILENT:
        return replace(state, treatment=None), ()
    return state, ()


def _proves(state: State, treatment: Treatment) -> bool:
    """A page that says that it is open elsewhere, say, is up again too."""
    fault = treatment.finding.fault
    if fault in OF_THE_PAGE and not on_its_way(state):
        return True
    if fault is Fault.SYNC_STUCK and state.link is Link.SYNCING:
        return False
    shows = fault in {Fault.OFFLINE, Fault.UNPAIRED} or course_of(treatment) is Course.REPLACING
    return usable(state.link, state.reason) and shows


def _well(state: State, now: float) -> State:
    return replace(state, treatment=None, well_since=now)


def wait_for_network(state: State, event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The network is to blame and no browser: try again after a rest."""
    assert isinstance(event, Unreachable)  # noqa: S101 (the table gives this rule no other event)
    before = state.treatment
    finding = Finding(Fault.OFFLINE, event.failure, (event.failure.message.removesuffix("."),))
    same = before is not None and before.finding.fault is Fault.OFFLINE
    found = before.found if before is not None and same else now
    treatment = Treatment(finding, event.plan, event.why, found)
    after, orders = rest(_offline(state, event), treatment, rest_s(Fault.OFFLINE, 0), now, jitter=True)
    return after, (Disarm(usable=False), *orders)


def discount_reload(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """It says nothing of the reload under way, and is no reason for the next remedy: rest for want of a network."""
    assert state.treatment is not None  # noqa: S101 (the table has this rule where there is one)
    reload = (state.treatment.finding.fault, Remedy.RELOAD)
    untried = replace(state, treated=tuple(one for one in state.treated if one != reload))
    return wait_for_network(untried, event, now, policy)


def stay_offline(state: State, event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """It rests, or whoever has tried reports it."""
    assert isinstance(event, Unreachable)  # noqa: S101 (the table gives this rule no other event)
    return _offline(state, event), (Disarm(usable=False),)


def _offline(state: State, event: Unreachable) -> State:
    return replace(state, link=Link.LOST, reason=Reason.OFFLINE, failure=event.failure)


def restore(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """The login was lost to damage: stop, and start again at once on the last snapshot that has it, inside the budget."""
    assert isinstance(event, LoginLost)  # noqa: S101 (the table gives this rule no other event)
    recent = policy.recent(state.restarts, now)
    spent = len(recent) >= policy.budget
    finding = Finding(Fault.LOGIN_LOST, failure_of(event), event.evidence)
    after = replace(
        state,
        link=Link.LOST,
        reason=Reason.DAMAGED,
        failure=failure_of(event) if spent else None,
        restarts=recent if spent else (*recent, now),
        cause=Cause.RECOVERY,
        treatment=Treatment(finding, (Remedy.RESTORE,), "the only one", now, Remedy.RESTORE, now),
    )
    return to_stopping(after, polite=False)


# --- the table --------------------------------------------------------------------------------------------

COLUMNS = tuple(Course)
# fmt: off
ROWS: dict[Report, tuple[Rule, ...]] = {
    #                         none              resting           curing            reloading        replacing
    Report.BROWSER_GONE:      (begin,            begin,            begin,            begin,           begin),
    Report.PAGE_CRASHED:      (begin,            begin_if,         begin,            next_one,        begin),
    Report.NOT_LOADED:        (begin,            begin_if,         rearm,            next_one,        begin),
    Report.SAME_ANEW:         (ignore,           learn,            learn,            next_one,        begin),
    Report.SAME_STILL:        (ignore,           learn,            learn,            learn,           begin),
    Report.ANOTHER:           (begin,            begin_if,         ignore,           ignore,          begin),
    Report.UNREACHABLE:       (wait_for_network, wait_for_network, wait_for_network, discount_reload, wait_for_network),
    Report.STILL_UNREACHABLE: (ignore,           stay_offline,     stay_offline,     stay_offline,    wait_for_network),
    Report.LOGIN_LOST:        (restore,          restore,          restore,          restore,         restore),
    Report.NOT_CURED:         (ignore,           ignore,           next_one,         next_one,        next_one),
    Report.REST_ENDED:        (ignore,           try_again,        ignore,           ignore,          ignore),
    Report.RECOVERED:         (ignore,           recover,          recover,          recover,         recover),
    Report.PAGE_READ:         (ignore,           see,              see,              see,             see),
}
# fmt: on
TABLE: dict[tuple[Course, Report], Rule] = {
    (course, report): rule
    for report, rules in ROWS.items()
    for course, rule in zip(COLUMNS, rules, strict=True)
}


def treat(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """See the table of treatments."""
    report = report_of(state, event)
    if report is None:
        return state, ()
    return TABLE[course_of(state.treatment), report](state, event, now, policy)
