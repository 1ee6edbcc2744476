"""The steps of a treatment: the next remedy of the plan, or a rest until the next try. Pure."""

from dataclasses import replace

from waguard.core.health.faults import FOR_A_PERSON, GONE, HUNG, Fault
from waguard.core.health.plans import BY_SCAN, STOPPING, Remedy, Treatment, next_remedy, rest_s
from waguard.core.model import Cause, Link, Reason, Source
from waguard.core.session.orders import Arm, Cure, Disarm, Order, Rest
from waguard.core.session.rules import Outcome, to_stopping
from waguard.core.session.state import State, on_its_way


def apply(
    state: State, treatment: Treatment, now: float, again: Remedy | None = None, spent_s: float = 0.0
) -> Outcome:
    """The next remedy of the plan, else the one that is to be tried ``again``; without either it rests.

    What the last try has taken counts as rest.
    """
    fault = treatment.finding.fault
    remedy = next_remedy(treatment, state.treated) or again
    if remedy is None:
        bound_s = max(rest_s(fault, 0), rest_s(fault, treatment.rests) - spent_s)
        return rest(state, treatment, bound_s, now, jitter=True)
    treatment = replace(treatment, remedy=remedy, began=now)
    link, reason = seen_as(state, fault)
    treated = (*(one for one in state.treated if one != (fault, remedy)), (fault, remedy))
    after = replace(
        state, treatment=treatment, step=state.step + 1, link=link, reason=reason, treated=treated
    )
    if remedy in STOPPING:
        return _stop(after, treatment)
    cure = Cure(after.epoch, fault, remedy, after.step)
    if remedy is Remedy.RELOAD:
        return replace(after, link=Link.LOADING, reason=None), (Arm(after.epoch, after.step), cure)
    return after, (cure,)


def _stop(state: State, treatment: Treatment) -> Outcome:
    source = {Remedy.RESTORE: Source(treatment.snapshot), Remedy.FRESH: Source()}.get(
        treatment.remedy or Remedy.RESTART, state.source
    )
    polite = treatment.finding.fault not in {*GONE, Fault.BROWSER_HUNG}
    after = replace(state, failure=treatment.finding.failure, source=source, cause=Cause.RECOVERY)
    return to_stopping(after, polite=polite)


def rest(state: State, treatment: Treatment, bound_s: float, now: float, *, jitter: bool) -> Outcome:
    """Nothing is under way until that is over; whoever waits for a person waits without an end."""
    fault = treatment.finding.fault
    link, reason = seen_as(state, fault)
    resting = replace(treatment, remedy=None, began=now, rests=treatment.rests + jitter)
    after = replace(state, treatment=resting, step=state.step + 1, link=link, reason=reason)
    orders: tuple[Order, ...] = ()
    if on_its_way(state) and not on_its_way(after):
        orders = (Disarm(usable=False),)
    if for_a_person(treatment):
        return after, orders
    return after, (*orders, Rest(after.epoch, fault, bound_s, jitter, after.step))


def for_a_person(treatment: Treatment) -> bool:
    """Whether nothing is tried any more once it rests: somebody has to do something."""
    fault = treatment.finding.fault
    return fault in BY_SCAN or (fault in FOR_A_PERSON and not treatment.plan)


def go_on(state: State, treatment: Treatment, now: float) -> Outcome:
    """The remedy under way has not helped: the next one."""
    tried = treatment.tried
    if treatment.remedy is not None and treatment.remedy not in tried:
        tried += (treatment.remedy,)
    spent_s = now - treatment.began
    return apply(state, replace(treatment, tried=tried, remedy=None), now, spent_s=spent_s)


def seen_as(state: State, fault: Fault) -> tuple[Link, Reason | None]:
    """The link of a session with this fault."""
    return standing(fault) or (state.link, state.reason)


def standing(fault: Fault) -> tuple[Link, Reason | None] | None:
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
