"""What a rule of the table is, and the steps that rules of several subjects take. Pure."""

from collections.abc import Callable
from dataclasses import replace

from waguard.core.model import Failure, Link, Process
from waguard.core.session.events import Event, Found
from waguard.core.session.orders import Order, Prepare, Stop
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.state import State

Outcome = tuple[State, tuple[Order, ...]]
Rule = Callable[[State, Event, float, RestartPolicy], Outcome]


def ignore(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Nothing to do: already so, already under way, or no longer of interest."""
    return state, ()


def to_preparing(state: State, *orders: Order) -> Outcome:
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


def to_stopping(state: State, *orders: Order, polite: bool) -> Outcome:
    return replace(state, process=Process.STOPPING), (*orders, Stop(state.epoch, polite=polite))


def failure_of(event: Event) -> Failure:
    failure = event.finding.failure if isinstance(event, Found) else getattr(event, "failure", None)
    return failure if isinstance(failure, Failure) else Failure("internal", "It failed for no known reason.")
