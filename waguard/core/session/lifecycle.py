"""The rules for what is wanted, and for the browser from its preparation to its end. Pure."""

from dataclasses import replace

from waguard.core.health.faults import Fault, Finding
from waguard.core.health.plans import Remedy, Treatment
from waguard.core.model import Cause, Failure, Link, Process, Reason, Source, Wanted
from waguard.core.session.events import (
    Cleaned,
    ConnectAsked,
    Event,
    Held,
    NotGone,
    RestartAsked,
    RestoreAsked,
)
from waguard.core.session.orders import BackOff, Clean, Launch, Open, Remember, TakeOver
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.rules import Outcome, failure_of, to_preparing, to_stopping
from waguard.core.session.state import State
from waguard.core.session.treatment import try_again


def _asked(event: Event) -> Source | None:
    """What somebody wants in the place of the kept profile."""
    if isinstance(event, RestoreAsked):
        return Source(event.snapshot, event.retired)
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
    return to_preparing(after, Remember(Wanted.UP))


def come_back(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """The daemon was started, and this was wanted before: prepare, if it still is."""
    if state.wanted is Wanted.DOWN:
        return state, ()
    return to_preparing(replace(state, cause=Cause.RETURN))


def take_over(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Its browser has outlived a daemon: go on with it, or end what that daemon could not if it is to be down."""
    after = replace(state, epoch=state.epoch + 1, step=0, cause=Cause.RETURN)
    if state.wanted is Wanted.DOWN:
        return to_stopping(after, polite=True)
    return replace(after, process=Process.UP, link=Link.LOADING), (TakeOver(after.epoch),)


def join(state: State, event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """A start is under way: join it, unless another profile is asked for than it starts with."""
    asked = _asked(event)
    if asked is not None and asked != state.asked:
        after = replace(_anew(state), source=asked, asked=asked, restarts=state.restarts, cause=Cause.CONNECT)
        return to_stopping(after, polite=False)
    return state, ()


def use(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """The browser is up: that is enough, unless its page is past use and not being cured, or another profile is asked for."""
    asked = _asked(event) if _asked(event) != state.asked else None
    hung = state.link is Link.LOST and state.reason in {Reason.CRASHED, Reason.HUNG}
    treatment = state.treatment
    silent = treatment is not None and treatment.finding.fault is Fault.PAGE_SILENT  # it may be at work
    past_use = (hung and treatment is None) or (state.link is Link.UNKNOWN and not silent)
    if asked is not None or past_use:  # its browser may still have a login to write down
        return to_stopping(replace(_anew(state), source=asked, asked=asked, cause=Cause.CONNECT), polite=True)
    if treatment is not None and treatment.remedy is None and treatment.finding.fault is Fault.PAGE_WRONG:
        return try_again(state, event, now, policy)  # whoever asks need not wait
    return state, ()


def restart(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Close it and start again on the same profile."""
    return to_stopping(replace(_anew(state), cause=Cause.RESTART), polite=True)


def recycle(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Close it and start again, if it is well and not waiting for a scan that somebody may be at."""
    if state.treatment is not None or state.link is not Link.CONNECTED:
        return state, ()
    return to_stopping(replace(state, cause=Cause.RECYCLE), polite=True)


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
    return to_stopping(_down(state), Remember(Wanted.DOWN), polite=state.process is Process.UP)


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
    return after, (BackOff(state.epoch, event.retry_s, jitter=True, held=True),)


def launch(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """Start the browser."""
    return replace(state, process=Process.STARTING, source=None), (Launch(state.epoch),)


def open_page(state: State, _event: Event, _now: float, _policy: RestartPolicy) -> Outcome:
    """The browser answers: go to the page."""
    return replace(state, process=Process.UP, link=Link.LOADING), (Open(state.epoch),)


def give_up(state: State, event: Event, now: float, _policy: RestartPolicy) -> Outcome:
    """The start failed: prove gone whatever it left, then start again by policy, not from a snapshot, or what was put aside, that was asked for."""
    restoring = state.source is not None and (state.source.snapshot or state.source.retired)
    failure = failure_of(event)
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
    return to_stopping(after, polite=state.process is Process.UP)


def _wait_for_the_host(state: State, failure: Failure) -> Outcome:
    """What it lacks may be there again soon: wait, at no cost to the budget."""
    after = replace(state, process=Process.BACKOFF, failure=failure)
    return after, (BackOff(state.epoch, failure.retry_s, jitter=True, held=True),)


def gone(state: State, _event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """Proved gone: stay down, start what an operator asked for, or go by the restart policy."""
    if state.cleaning:
        return state, ()
    if state.wanted is Wanted.DOWN:
        return replace(state, process=Process.DOWN, link=Link.UNKNOWN, reason=None), ()
    if state.failure is None:
        return to_preparing(state)
    if state.failure.passing:
        return _wait_for_the_host(state, state.failure)
    recent = policy.recent(state.restarts, now)
    if len(recent) >= policy.budget:
        # A profile that was to be replaced as the last remedy is not what an operator asks for later.
        source = state.source if state.source == state.asked else None
        after = replace(
            state, process=Process.FAILED, restarts=recent, treatment=None, treated=(), source=source
        )
        return after, (BackOff(state.epoch, policy.rest_s(recent, now), jitter=False),)
    after = replace(state, process=Process.BACKOFF, restarts=(*recent, now))
    return after, (BackOff(state.epoch, policy.delay_bound_s(len(recent)), jitter=True),)


def not_gone(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """Something could not be proved gone: start nothing in its place; look again after the cool-down, or as soon as the host may let."""
    if state.cleaning and isinstance(event, NotGone):
        return state, ()  # told by the stop that the cleanup has replaced
    failure = failure_of(event)
    after = replace(
        state, process=Process.FAILED, failure=failure, cleaning=False, treatment=None, treated=()
    )
    if failure.passing:
        return _wait_for_the_host(after, failure)
    if state.wanted is Wanted.DOWN:
        return after, ()
    rest_s = policy.rest_s(policy.recent(state.restarts, now), now)  # the next start counts like any other
    return after, (BackOff(state.epoch, rest_s, jitter=False),)


def cleaned(state: State, event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """The cleanup is done: down, or prepare if somebody asked for it meanwhile."""
    if isinstance(event, Cleaned) and event.failure is not None:
        return not_gone(state, event, now, policy)
    if state.wanted is Wanted.UP:
        return to_preparing(state)
    return State(epoch=state.epoch), ()


def again(state: State, _event: Event, now: float, policy: RestartPolicy) -> Outcome:
    """The wait is over: try again, if it is still wanted; what could not be stopped for want of something, is now."""
    if state.wanted is Wanted.DOWN:
        return (
            (state, ())
            if state.process is Process.FAILED
            else to_stopping(replace(state, failure=None), polite=False)
        )
    if state.process is Process.FAILED:  # after its cool-down; this one counts too
        state = replace(state, restarts=(*policy.recent(state.restarts, now), now), cause=Cause.RECOVERY)
    return to_preparing(state)
