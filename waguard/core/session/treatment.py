"""The rules for what is found wrong, and what is done about it. Pure."""

from dataclasses import replace

from waguard.core.health.faults import FOR_A_PERSON, GONE, HUNG, Fault, Finding
from waguard.core.health.plans import BY_SCAN, STOPPING, Remedy, Treatment, next_remedy, repeated, rest_s
from waguard.core.model import Cause, Link, Reason, Source
from waguard.core.session.events import Event, Found, LoginLost, Recovered, Unreachable
from waguard.core.session.orders import Arm, Cure, Disarm, Order, Rest
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.rules import Outcome, failure_of, to_stopping
from waguard.core.session.state import State, on_its_way


def well(state: State, now: float) -> State:
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
    finding = Finding(Fault.LOGIN_LOST, failure_of(event), evidence)
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


def treat(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """Begin with the best remedy, one fault at a time; what is still wrong after that is found again."""
    assert isinstance(event, Found)  # noqa: S101 (the table gives this rule no other event)
    fault, before = event.finding.fault, state.treatment
    if fault is Fault.PAGE_NOT_LOADED and not on_its_way(state):
        return state, ()
    if fault is Fault.PAGE_SILENT and on_its_way(state):
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
    return apply(after, treatment, now)


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
    return apply(state, treatment, now, again=repeated(treatment.plan))


def recover(state: State, event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The probe that complained is content."""
    assert isinstance(event, Recovered)  # noqa: S101 (the table gives this rule no other event)
    if state.treatment is None or state.treatment.finding.fault is not event.fault:
        return state, ()
    if _word(event.fault) == (state.link, state.reason):
        return state, ()  # the page has yet to say how it stands
    return well(state, now), ()


def _go_on(state: State, treatment: Treatment, now: float) -> Outcome:
    tried = treatment.tried
    if treatment.remedy is not None and treatment.remedy not in tried:
        tried += (treatment.remedy,)
    spent_s = now - treatment.began
    return apply(state, replace(treatment, tried=tried, remedy=None), now, spent_s=spent_s)


def _rest(state: State, treatment: Treatment, bound_s: float, now: float, *, jitter: bool) -> Outcome:
    """Nothing is under way until that is over; whoever waits for a person waits without an end."""
    fault = treatment.finding.fault
    link, reason = seen_as(state, fault)
    rests = treatment.rests + jitter
    after = replace(
        state,
        treatment=replace(treatment, remedy=None, began=now, rests=rests),
        step=state.step + 1,
        link=link,
        reason=reason,
    )
    orders: tuple[Order, ...] = ()
    if on_its_way(state) and not on_its_way(after):
        orders = (Disarm(usable=False),)
    if fault in BY_SCAN or (fault in FOR_A_PERSON and not treatment.plan):
        return after, orders
    return after, (*orders, Rest(after.epoch, fault, bound_s, jitter, after.step))


def apply(
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
    link, reason = seen_as(state, fault)
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
    return to_stopping(after, polite=polite)


def seen_as(state: State, fault: Fault) -> tuple[Link, Reason | None]:
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
