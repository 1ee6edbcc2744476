"""The table played in tests: transcripts, and any run of events."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import ndiff

from hypothesis import strategies as st

from waguard.core.health.faults import Fault, Finding
from waguard.core.health.plans import BY_COST, PLANS, Remedy
from waguard.core.model import Failure, Link, Reading, Reason, Stage
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


Run = Sequence[tuple[e.Event, float]]
"""Events, each with the seconds that have passed since the one before."""

_failures = st.just(FAILURE)
_readings = st.builds(
    Reading,
    link=st.sampled_from(Link),
    reason=st.none() | st.sampled_from(Reason),
    qr_exhausted=st.booleans(),
)


@st.composite
def _event(draw: st.DrawFn) -> e.Event:
    late = draw(st.booleans())
    epoch = draw(st.integers(0, 3)) if late else -1  # -1: the current one, filled in by the run
    events: st.SearchStrategy[e.Event] = st.one_of(
        st.builds(e.ConnectAsked, fresh=st.booleans()),
        st.builds(e.RestoreAsked, st.sampled_from(["a", "b"])),
        *(st.just(kind()) for kind in (e.RestartAsked, e.DisconnectAsked, e.CleanupAsked)),
        *(st.just(kind()) for kind in (e.ReturnAsked, e.RecycleAsked, e.Adopted)),
        *(st.just(kind(epoch)) for kind in (e.Prepared, e.Started, e.Gone, e.WaitEnded)),
        *(
            st.builds(kind, st.just(epoch), _failures)
            for kind in (e.Failed, e.Unreachable, e.LoginLost, e.NotGone, e.Cleaned)
        ),
        st.just(e.Cleaned(epoch)),
        st.builds(e.PageRead, st.just(epoch), _readings),
        st.builds(e.RestEnded, st.just(epoch)),
        st.builds(e.Held, st.just(epoch), _failures, st.floats(0, 60)),
        st.builds(found, st.just(epoch), st.sampled_from(Fault)),
        st.builds(e.Recovered, st.just(epoch), st.sampled_from(Fault)),
        st.builds(e.NotCured, st.just(epoch)),
    )
    event = draw(events)
    step = draw(st.integers(0, 8)) if draw(st.booleans()) else -1
    return replace(event, step=step) if isinstance(event, e.Answer) else event


RUNS = st.lists(st.tuples(_event(), st.floats(0, 40)), max_size=60)


def steps_of(run: Run) -> Iterator[tuple[State, e.Event, State, Sequence[o.Order], float]]:
    """How it was, what happened, how it is, what is ordered, and when."""
    state, now = State(), 0.0
    for event, passed in run:
        now += passed
        if isinstance(event, e.Fact) and event.epoch == -1:
            event = replace(event, epoch=state.epoch)  # noqa: PLW2901 (the run fills it in)
        if isinstance(event, e.Answer) and event.step == -1:
            event = replace(event, step=state.step)  # noqa: PLW2901 (likewise)
        before = state
        state, orders = decide(before, event, now, POLICY)
        yield before, event, state, orders, now
