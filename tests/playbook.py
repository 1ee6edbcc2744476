"""The table played in tests: transcripts, and any run of events."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import ndiff

from hypothesis import strategies as st

from waguard.core.health.faults import Fault, Finding
from waguard.core.health.plans import BY_COST, PLANS, Remedy
from waguard.core.model import Failure, Link, Process, Reading, Reason, Stage, Wanted
from waguard.core.session import events as e
from waguard.core.session import orders as o
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.state import State
from waguard.core.session.table import decide

POLICY = RestartPolicy(budget=3, window_s=100, base_s=1, max_s=8, cooldown_s=50, relapse_s=20)
FAILURE = Failure("browser_failed", "it fell", Stage.START)


def found(epoch: int, fault: Fault, *plan: Remedy, snapshot: str = "") -> e.Found:
    finding = Finding(fault, FAILURE)
    kind = e.BrowserExited if fault in {Fault.BROWSER_EXITED, Fault.PIPE_CLOSED} else e.Found
    return kind(epoch, finding, plan or tuple(PLANS[fault]), BY_COST, snapshot)


def exited(epoch: int) -> e.Found:
    return found(epoch, Fault.BROWSER_EXITED)


class Playbook:
    """Feed events, compare what is ordered: reads as a transcript."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state or State()
        self.now = 1000.0

    def __call__(self, event: e.Event, *orders: o.Order, **state: object) -> "Playbook":
        """What is told is about the last remedy or rest, and what is ordered is the next one."""
        if isinstance(event, e.Answer):
            event = replace(event, step=self.state.step)
        return self.late(event, *orders, **state)

    def late(self, event: e.Event, *orders: o.Order, **state: object) -> "Playbook":
        """Likewise, but of the step that the event itself names."""
        self.state, given = decide(self.state, event, self.now, POLICY)
        steps = {one.step for one in given if isinstance(one, o.Arm | o.Cure | o.Rest)}
        assert steps <= {self.state.step}
        unnumbered = [
            replace(one, step=0) if isinstance(one, o.Arm | o.Cure | o.Rest) else one for one in given
        ]
        difference = "\n".join(ndiff([*map(str, orders)], [*map(str, unnumbered)]))
        assert tuple(unnumbered) == orders, f"{event} orders:\n{difference}"
        for name, value in state.items():
            assert getattr(self.state, name) == value, name
        return self


def seen(epoch: int, link: Link, reason: Reason | None = None, **more: object) -> e.PageRead:
    return e.PageRead(epoch, Reading(link, reason, **more))  # type: ignore[arg-type]  # a test's shorthand


Run = tuple[State, Sequence[tuple[e.Event, float]]]
"""How it stands at first; events, each with the seconds that have passed since the one before."""

_failures = st.just(FAILURE)
_readings = st.builds(
    Reading,
    link=st.sampled_from(Link),
    reason=st.none() | st.sampled_from(Reason),
    qr_exhausted=st.booleans(),
)
_asked: Sequence[st.SearchStrategy[e.Event]] = (
    st.builds(e.ConnectAsked, fresh=st.booleans()),
    st.builds(e.RestoreAsked, st.sampled_from(["a", "b"])),
    st.builds(e.RestoreAsked, st.just(""), st.sampled_from(["a", "b"])),
    *(st.just(kind()) for kind in (e.RestartAsked, e.DisconnectAsked, e.CleanupAsked)),
    *(st.just(kind()) for kind in (e.ReturnAsked, e.RecycleAsked, e.Adopted)),
)


_DONE: Sequence[Callable[[int], e.Event]] = (e.Prepared, e.Started, e.Gone, e.WaitEnded, e.Cleaned)

_BROKEN: Sequence[Callable[[int, Failure], e.Event]] = (e.Failed, e.NotGone, e.Cleaned)
_NO_USE: Sequence[Callable[[int, Failure], e.Event]] = (e.Unreachable, e.LoginLost)


def _obeyed(epoch: int) -> Sequence[st.SearchStrategy[e.Event]]:
    """What comes of slow orders."""
    return (
        *(st.just(kind(epoch)) for kind in _DONE),
        *(st.builds(kind, st.just(epoch), _failures) for kind in _BROKEN),
        st.builds(e.Held, st.just(epoch), _failures, st.floats(0, 60)),
    )


def _looked(epoch: int) -> Sequence[st.SearchStrategy[e.Event]]:
    """What is seen of a page and its browser."""
    return (
        *(st.builds(kind, st.just(epoch), _failures) for kind in _NO_USE),
        *[st.builds(e.PageRead, st.just(epoch), _readings)] * 2,
        *[st.builds(found, st.just(epoch), st.sampled_from(Fault))] * 3,
        st.builds(e.Recovered, st.just(epoch), st.sampled_from(Fault)),
        st.just(e.RestEnded(epoch)),
        st.just(e.NotCured(epoch)),
    )


_CURRENT = -1
"""Filled in by the run: the epoch, or the step, as it is then."""


@st.composite
def _event(draw: st.DrawFn) -> e.Event:
    epoch = draw(st.sampled_from([*[_CURRENT] * 7, 0, 1, 2]))
    events = draw(st.sampled_from([_asked, *[_obeyed(epoch)] * 3, *[_looked(epoch)] * 4]))
    event = draw(draw(st.sampled_from(events)))
    step = draw(st.sampled_from([*[_CURRENT] * 3, 0, 1, 2]))
    return replace(event, step=step) if isinstance(event, e.Answer) else event


_up = st.builds(State, st.just(Wanted.UP), st.just(Process.UP), st.sampled_from(Link), epoch=st.just(1))
_begun = st.sampled_from([st.just(State()), *[_up] * 4]).flatmap(lambda kind: kind)
RUNS: st.SearchStrategy[Run] = st.tuples(
    _begun, st.lists(st.tuples(_event(), st.floats(0, 40)), min_size=1, max_size=25)
)


def steps_of(run: Run) -> Iterator[tuple[State, e.Event, State, Sequence[o.Order], float]]:
    """How it was, what happened, how it is, what is ordered, and when."""
    (state, happened), now = run, 0.0
    for event, passed in happened:
        now += passed
        if isinstance(event, e.Fact) and event.epoch == _CURRENT:
            event = replace(event, epoch=state.epoch)  # noqa: PLW2901 (the run fills it in)
        if isinstance(event, e.Answer) and event.step == _CURRENT:
            event = replace(event, step=state.step)  # noqa: PLW2901 (likewise)
        before = state
        state, orders = decide(before, event, now, POLICY)
        yield before, event, state, orders, now
