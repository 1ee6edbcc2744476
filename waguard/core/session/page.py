"""The rules for what the page says. Pure."""

from dataclasses import replace

from waguard.core.health.faults import Fault
from waguard.core.model import Link
from waguard.core.session.events import Event, PageRead
from waguard.core.session.orders import Arm, Disarm, ReloadQr
from waguard.core.session.remedy import seen_as
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.rules import Outcome
from waguard.core.session.state import State, on_its_way, usable
from waguard.core.session.treatment import treat


def note(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
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
    after, orders = treat(after, event, now, policy)
    if not on_its_way(after):
        orders += (Disarm(),)
    elif not on_its_way(state):
        orders += (Arm(state.epoch, state.step),)  # it loads again, and may not end
    if reading.qr_exhausted:
        orders += (ReloadQr(state.epoch),)
    return after, orders
