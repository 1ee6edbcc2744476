"""The rules for what the page says. Pure."""

from dataclasses import replace

from waguard.core.health.faults import OF_THE_PAGE, Fault
from waguard.core.health.plans import STOPPING
from waguard.core.model import Link
from waguard.core.session.events import Event, PageRead
from waguard.core.session.orders import Arm, Disarm, Order, ReloadQr
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.rules import Outcome
from waguard.core.session.state import State, on_its_way, usable
from waguard.core.session.treatment import seen_as, well


def note(state: State, event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """Believe the page; one look at an unknown page changes nothing that is known."""
    assert isinstance(event, PageRead)  # noqa: S101 (the table gives this rule no other event)
    reading = event.reading
    if reading.link is Link.UNKNOWN:
        return state, ()
    reason, treatment = reading.reason, state.treatment
    link: Link = reading.link
    if reading.cut_off and treatment is not None and treatment.finding.fault is Fault.OFFLINE:
        link, reason = seen_as(state, Fault.OFFLINE)
    in_use = usable(link, reason)
    after = replace(
        state,
        link=link,
        reason=reason,
        asked=None if in_use else state.asked,
        failure=None if in_use else state.failure,
    )
    if _shows_in_the_page(after):
        after = well(after, now)
    elif treatment is not None and treatment.finding.fault is Fault.PAGE_SILENT:
        after = replace(after, treatment=None)
    orders: tuple[Order, ...] = ()
    if not on_its_way(after):
        orders = (Disarm(),)
    elif not on_its_way(state):
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
    if fault in OF_THE_PAGE and not on_its_way(state):
        return True
    if fault is Fault.SYNC_STUCK and state.link is Link.SYNCING:
        return False
    shows = fault in {Fault.OFFLINE, Fault.UNPAIRED} or treatment.remedy in STOPPING
    return usable(state.link, state.reason) and shows
