"""What is pure about health: patience, the breaker, correlation, when a browser is due, and in which order cures come."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.core.health import breaker as b
from waguard.core.health import recycle
from waguard.core.health.breaker import Breaker, BreakerPolicy
from waguard.core.health.correlation import network_is_down
from waguard.core.health.faults import FOR_A_PERSON, GONE, Fault, Finding, finding
from waguard.core.health.patience import LONGER, Book, Complaint, Due, doubt, left_s, update
from waguard.core.health.plans import (
    AGAIN,
    BY_COST,
    BY_SCAN,
    PLANS,
    REPLACING,
    STOPPING,
    Remedy,
    Treatment,
    next_remedy,
    repeated,
)
from waguard.core.model import Cause, Failure, Link, Process, Reading, Reason, Stage, Wanted
from waguard.core.session import events as e
from waguard.core.session import orders as o
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.state import State
from waguard.core.session.table import decide
from waguard.health.probes import link

FAILURE = Failure("browser_failed", "it fell", Stage.START)
A, B, C = Fault.BROWSER_HUNG, Fault.NETWORK_HUNG, Fault.GPU_HUNG

# --- the words ------------------------------------------------------------------------------------------------


def test_every_fault_has_a_plan_in_the_order_of_cost() -> None:
    assert set(PLANS) == set(Fault)
    for plan in PLANS.values():
        assert list(plan) == sorted(plan, key=list(Remedy).index)
        assert len(set(plan)) == len(plan)


def test_every_fault_but_those_of_the_stages_can_be_said() -> None:
    told_by_others = {
        *GONE,
        Fault.START_FAILED,
        Fault.PAGE_NOT_LOADED,
        Fault.LOGIN_LOST,
    }
    for fault in set(Fault) - told_by_others:
        one = finding(fault, "it was seen", 3.0)
        assert one.evidence == ("it was seen",)
        assert "it was seen" in one.failure.message
        assert one.failure.code in {"browser_failed", "page_failed", "page_unreachable", "refused"}


# --- patience -------------------------------------------------------------------------------------------------


def test_a_complaint_is_told_once_as_new_when_it_has_lasted_and_once_when_it_is_over() -> None:
    book: Book = {}
    told = []
    for now, seen in ((0, [A]), (4, [A]), (5, [A]), (6, [A]), (7, []), (8, []), (9, [A]), (13, [A])):
        book, due, over = update(book, {A}, seen, {A: 5.0}, now)
        told.append((due, over))
    nothing: tuple[tuple[Due, ...], tuple[Fault, ...]] = ((), ())
    assert told[:2] == [nothing, nothing]
    assert told[2:5] == [((Due(A, 5, first=True),), ()), ((Due(A, 6, first=False),), ()), ((), (A,))]
    assert told[5:] == [nothing, nothing, nothing]  # it begins from nothing again
    assert book == {A: Complaint(9)}


def test_a_complaint_that_stops_before_it_has_lasted_is_forgotten_and_told_nobody() -> None:
    book, due, over = update({A: Complaint(0.0)}, {A}, (), {A: 5.0}, 99.0)
    assert (book, due, over) == ({}, (), ())


def test_a_look_does_not_touch_what_it_was_not_asked_for() -> None:
    before: Book = {A: Complaint(0.0, found=True), B: Complaint(1.0)}
    book, due, over = update(before, {C}, {C}, {}, 50.0)
    assert book == {**before, C: Complaint(50.0, found=True)}
    assert (due, over) == ((Due(C, 0.0, first=True),), ())


_faults = st.sampled_from([A, B, C])
_looks = st.lists(st.tuples(st.sets(_faults, min_size=1), st.sets(_faults), st.floats(0.01, 20)), max_size=40)


@given(_looks, st.dictionaries(_faults, st.floats(0, 30)))
def test_in_any_run_of_looks_each_complaint_is_told_as_promised(
    looks: list[tuple[set[Fault], set[Fault], float]], limits: Mapping[Fault, float]
) -> None:
    book: Book = {}
    now = 0.0
    since: dict[Fault, float] = {}
    told: set[Fault] = set()
    for asked, might, passed in looks:
        now += passed
        seen = asked & might
        before = book
        book, due, over = update(before, asked, seen, limits, now)
        for fault in set(Fault) - asked:
            assert book.get(fault) == before.get(fault), "touched what it was not asked for"
        assert {one.fault for one in due} <= seen
        assert set(over) == {fault for fault in asked - seen if fault in told}, (
            "over: told once, of what was told"
        )
        for fault in asked - seen:
            assert fault not in book
            since.pop(fault, None)
            told.discard(fault)
        for fault in seen:
            since.setdefault(fault, now)
        for one in due:
            assert one.lasted_s == now - since[one.fault] >= limits.get(one.fault, 0.0), "told too early"
            assert one.first is (one.fault not in told), "told twice as new"
            told.add(one.fault)
        # What was told is told at each look, and what has lasted is told.
        assert {one.fault for one in due} == {
            fault for fault in seen if fault in told or now - since[fault] >= limits.get(fault, 0.0)
        }


# --- the breaker ----------------------------------------------------------------------------------------------

POLICY = BreakerPolicy(clients=3, base_s=5, max_s=40, trial_s=30, storm=4, storm_s=60)


def lets(breaker: Breaker, now: float, *, asked: bool = True) -> tuple[Breaker, float]:
    return b.passes(breaker, now, POLICY, asked=asked)


def fails(breaker: Breaker, client: str, now: float, *, sure: bool = False) -> Breaker:
    return b.failed(breaker, client, f"{client} failed", now, POLICY, sure=sure)


@given(st.lists(st.floats(0, 10)))
def test_closed_it_lets_all_pass_that_are_asked_for(passed: list[float]) -> None:
    breaker, now = Breaker(), 0.0
    for more in passed:
        now += more
        breaker, wait = lets(breaker, now)
        assert (wait, breaker) == (0.0, Breaker())


@given(st.integers(1, 50))
def test_one_clients_failures_never_open_it(times: int) -> None:
    breaker = Breaker()
    for _ in range(times):
        breaker = fails(breaker, "demo", 1.0)
    assert not breaker.why
    assert lets(breaker, 1.0)[1] == 0


def test_so_many_clients_open_it_and_a_start_that_goes_well_between_them_does_not_let_it() -> None:
    breaker = fails(fails(Breaker(), "a", 0), "b", 0)
    assert not breaker.why
    assert fails(breaker, "c", 0).why == "c failed"
    assert not fails(b.started(breaker), "c", 0).why


def test_what_is_surely_the_hosts_fault_opens_it_at_once_and_the_first_reason_stays() -> None:
    breaker = fails(Breaker(), "a", 0, sure=True)
    assert breaker.why == "a failed"
    assert fails(breaker, "b", 0, sure=True).why == "a failed"
    assert lets(breaker, 0.0, asked=True)[1] == 5.0  # whoever asks waits too


def test_open_it_lets_one_try_at_a_time_the_next_one_later_each_time() -> None:
    breaker = fails(Breaker(), "a", 0, sure=True)
    now, waits = 0.0, []
    for _ in range(7):
        breaker, wait = lets(breaker, now)
        waits.append(wait)
        breaker, early = lets(breaker, now + wait * 0.9)
        assert early > 0
        now += wait
        breaker, mine = lets(breaker, now)
        assert mine == 0
        breaker, other = lets(breaker, now, asked=False)  # while the trial is under way
        assert other == POLICY.trial_s
        breaker = fails(breaker, "a", now)
    assert waits == [5, 10, 20, 40, 40, 40, 40]
    breaker = b.started(breaker)
    assert (breaker.why, breaker.failed, lets(breaker, now)[1]) == ("", frozenset(), 0)
    breaker = fails(breaker, "a", now, sure=True)
    assert lets(breaker, now)[1] == 5  # and from the beginning


def test_a_trial_that_never_ends_is_not_waited_for() -> None:
    breaker = fails(Breaker(), "a", 0, sure=True)
    breaker, _ = lets(breaker, 5)
    assert lets(breaker, 34)[1] == 1
    assert lets(breaker, 35)[1] == 0


_calls = st.sampled_from(["asked", "unasked", "unasked", "unasked", "failed", "sure", "started"])


@given(
    st.lists(st.tuples(_calls, st.sampled_from([0.0, 0.5, 1.0, 5.0, 10.0, 31.0])), min_size=20, max_size=80)
)
def test_in_any_run_it_lets_through_no_more_than_it_promises(run: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(), 0.0
    unasked: list[float] = []
    trial: float | None = None
    for number, (what, passed) in enumerate(run):
        now += passed
        before = breaker
        match what:
            case "failed" | "sure":
                breaker = fails(breaker, f"client{number}", now, sure=what == "sure")
                if breaker.why:
                    assert POLICY.base_s - 1e-6 <= breaker.next_trial - now <= POLICY.max_s + 1e-6
                trial = None
            case "started":
                breaker, trial = b.started(breaker), None
                assert not breaker.why
            case _:
                breaker, wait = lets(breaker, now, asked=what == "asked")
                if before.why:
                    assert wait == max(0.0, before.next_trial - now)
                    if wait == 0:
                        assert trial is None or now - trial >= POLICY.trial_s, "two trials at once"
                        trial = now
                elif what == "asked":
                    assert wait == 0, "the storm held one that was asked for"
                elif wait == 0:
                    unasked.append(now)
                    recent = [at for at in unasked if now - at < POLICY.storm_s]
                    assert len(recent) <= POLICY.storm, "a storm"
                else:
                    recent = [at for at in unasked if now - at < POLICY.storm_s]
                    assert len(recent) >= POLICY.storm, "held for nothing"
                    assert wait <= POLICY.storm_s
                    assert math.isclose(now + wait, recent[-POLICY.storm] + POLICY.storm_s)


# --- whose trouble it is --------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(max_size=3), st.booleans(), max_size=12))
def test_it_is_the_network_if_most_are_cut_off(online: dict[str, bool]) -> None:
    lost = sum(not one for one in online.values())
    assert network_is_down(online) is (lost > len(online) - lost)


def test_a_single_session_is_most_and_half_is_not() -> None:
    assert not network_is_down({})
    assert network_is_down({"a": False})
    assert not network_is_down({"a": False, "b": True})
    assert network_is_down({"a": False, "b": True, "c": False})


# --- when a browser is due ------------------------------------------------------------------------------------

NONE = recycle.Limits(0, 0, 0)


def test_no_limit_makes_nothing_due() -> None:
    growing = [(hour / 10, 1000.0 * hour) for hour in range(100)]
    assert recycle.due(growing, 1e6, "", NONE) == ""
    assert recycle.due([], 0, "", recycle.Limits(1, 2, 3)) == ""


@pytest.mark.parametrize(
    ("memory", "age_h", "upgraded", "limits", "why"),
    [
        ([(0.0, 901.0)], 6, "", recycle.Limits(900, 0, 0), "soft_memory_mb"),
        ([(0.0, 901.0)], 5.9, "", recycle.Limits(900, 0, 0), ""),
        ([(0.0, 999.0), (1.0, 900.0)], 6, "", recycle.Limits(900, 0, 0), ""),
        ([(0.0, 100.0), (2.0, 200.0)], 6, "", recycle.Limits(0, 1400, 0), ""),
        ([(0.0, 100.0), (2.0, 200.0)], 6, "", recycle.Limits(0, 1399, 0), "50 MiB more each hour"),
        ([], 337, "", recycle.Limits(0, 0, 336), "max_age_h"),
        ([], 336, "", recycle.Limits(0, 0, 336), ""),
        ([], 6, "157.0.0.0", NONE, "157.0.0.0"),
    ],
)
def test_what_makes_a_browser_due_is_said(
    memory: list[tuple[float, float]], age_h: float, upgraded: str, limits: recycle.Limits, why: str
) -> None:
    said = recycle.due(memory, age_h, upgraded, limits)
    assert why in said
    assert bool(why) is bool(said)


@given(st.floats(0, 4000), st.lists(st.floats(0, 100), min_size=2, max_size=50, unique=True))
def test_memory_that_stays_has_no_trend(mb: float, hours: list[float]) -> None:
    assert math.isclose(recycle.trend([(hour, mb) for hour in sorted(hours)]), 0, abs_tol=1e-6)


@given(st.floats(-50, 50), st.floats(0, 1000), st.floats(0, 1000), st.floats(0.02, 1.0), st.integers(60, 240))
def test_what_grows_steadily_is_found(
    slope: float, mb: float, began: float, every: float, looks: int
) -> None:
    memory = [(began + every * number, mb + slope * every * number) for number in range(looks)]
    assert math.isclose(recycle.trend(memory), slope, rel_tol=1e-6, abs_tol=1e-6)


@given(st.lists(st.tuples(st.floats(0, 0.99), st.floats(0, 4000)), max_size=50))
def test_less_than_an_hour_tells_nothing(memory: list[tuple[float, float]]) -> None:
    assert recycle.trend(sorted(memory)) == 0


# --- how soon, how often --------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 2000), max_size=12),
    st.integers(0, 8),
    st.floats(1, 1000),
    st.floats(1, 1000),
)
def test_after_its_rest_there_is_room_in_the_budget(
    at: list[float], budget: int, window_s: float, cooldown_s: float
) -> None:
    policy = RestartPolicy(budget=budget, window_s=window_s, cooldown_s=cooldown_s)
    now = 2000.0
    recent = policy.recent(tuple(sorted(at)), now)
    rest = policy.rest_s(recent, now)
    assert policy.cooldown_s <= rest <= max(cooldown_s, window_s) + 1e-6
    if budget:
        later = now + rest + 1e-6
        assert len(policy.recent(recent, later)) < budget or len(recent) < budget


# --- the next remedy ------------------------------------------------------------------------------------------


def treatment(fault: Fault, plan: tuple[Remedy, ...], tried: tuple[Remedy, ...] = ()) -> Treatment:
    return Treatment(Finding(fault, FAILURE), plan, BY_COST, 0.0, tried=tried)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Treatment, tuple[tuple[Fault, Remedy], ...]]:
    """Any treatment, its plan with whatever is not allowed left out."""
    fault = draw(st.sampled_from(Fault))
    plan = tuple(one for one in PLANS[fault] if one not in REPLACING or draw(st.booleans()))
    tried = tuple(one for one in plan if draw(st.booleans()))
    others = st.tuples(st.sampled_from(Fault), st.sampled_from(Remedy))
    mine = [(fault, one) for one in plan if draw(st.booleans())]
    return treatment(fault, plan, tried), (*mine, *draw(st.lists(others, max_size=5)))


@given(_cases())
def test_whatever_was_tried_the_next_remedy_is_one_that_makes_sense(
    case: tuple[Treatment, tuple[tuple[Fault, Remedy], ...]],
) -> None:
    one, treated = case
    fault, plan = one.finding.fault, one.plan
    remedy = next_remedy(one, treated)
    left = [each for each in plan if each not in one.tried and (fault, each) not in treated]
    if remedy is None:
        assert not left, "something was left to be tried"
        assert not plan or fault in AGAIN | BY_SCAN or Remedy.RESTART not in plan
        return
    assert remedy in plan
    if left:
        assert remedy is left[0], "tried again while others were left"
    if remedy in REPLACING:
        assert remedy in left, "the profile was replaced twice"
        gentle = [each for each in plan if each not in REPLACING]
        assert not set(gentle) & set(left), "the profile was replaced with something else left to try"
    if fault in AGAIN and remedy in STOPPING:
        assert remedy not in one.tried, "ended in a restart that was tried"
        assert (fault, remedy) not in treated, "ended in a restart that was tried"


def test_a_profile_is_replaced_in_the_order_of_what_a_person_pays() -> None:
    plan = tuple(PLANS[Fault.PAGE_NOT_LOADED])
    tried: tuple[Remedy, ...] = ()
    seen = []
    while (remedy := next_remedy(treatment(Fault.PAGE_NOT_LOADED, plan, tried), ())) not in tried:
        assert remedy is not None
        seen.append(remedy)
        tried += (remedy,)
    assert seen == [Remedy.RELOAD, Remedy.RESTART, Remedy.RESTORE, Remedy.FRESH]
    assert remedy is Remedy.RESTART  # the last resort


@pytest.mark.parametrize("fault", sorted(one for one in AGAIN if Remedy.RESTART in PLANS[one]))
def test_what_is_tried_again_and_again_is_no_restart(fault: Fault) -> None:
    plan = tuple(PLANS[fault])
    treated = tuple((fault, one) for one in plan)
    assert next_remedy(treatment(fault, plan), treated) is None
    again = repeated(plan)
    assert again is not None
    assert again not in STOPPING


# --- any treatments -------------------------------------------------------------------------------------------

RESTARTS = RestartPolicy(budget=3, window_s=100, base_s=1, max_s=8, cooldown_s=50, relapse_s=20)
STEP_S = 0.5


@dataclass
class World:
    """A browser and a host that answer the table's orders as they would, well or badly as the run has it.

    Checks what is promised of treatments at each step.
    """

    state: State = field(default_factory=State)
    now: float = 0.0
    due: tuple[float, e.Event] | None = None
    """The answer to the slow order that is under way."""
    cure: o.Cure | None = None
    cure_until: float = 0.0
    network_down: bool = False
    """Of a page that tries again by itself nothing else is tried then."""
    armed: bool = False
    """The deadline of the stage `open` runs."""
    rest: o.Rest | None = None
    """A rest is under way before the next try against it."""
    spent: tuple[float, ...] = ()
    """When an automatic restart was decided, as the orders tell."""
    tried: tuple[tuple[Fault, Remedy, float], ...] = ()
    """Remedies that were begun, and when, since the session was last well for a while."""
    well: float | None = None

    def tell(self, event: e.Event) -> tuple[o.Order, ...]:
        before = self.state
        self.state, orders = decide(before, event, self.now, RESTARTS)
        self._check(before, event, orders)
        for one in orders:
            self._carry_out(one)
        if self.state.process is not Process.UP:
            self.cure, self.armed = None, False
        if self.state.treatment is None or self.state.treatment.remedy is not None:
            self.rest = None
        if self.state.process is Process.FAILED:  # it rests, and begins from nothing then
            self.tried = ()
        return orders

    def _carry_out(self, order: o.Order) -> None:
        match order:
            case o.Prepare(epoch):
                self.due = (self.now + STEP_S, e.Prepared(epoch))
            case o.Launch(epoch):
                self.due = (self.now + STEP_S, e.Started(epoch))
            case o.Open():
                self.due, self.armed = None, True
            case o.Arm():
                self.armed = True
            case o.Disarm():
                self.armed = False
            case o.Rest():
                self.rest = order
            case o.Stop(epoch):
                self.due = (self.now + STEP_S, e.Gone(epoch))
            case o.Clean(epoch):
                self.due = (self.now + STEP_S, e.Cleaned(epoch))
            case o.BackOff(epoch, bound_s):
                self.due = (self.now + bound_s, e.WaitEnded(epoch))
            case o.Cure():
                self.cure, self.cure_until = order, self.now + 2.0

    def _check(self, before: State, event: e.Event, orders: tuple[o.Order, ...]) -> None:
        cures = [order for order in orders if isinstance(order, o.Cure)]
        under_way = self.state.treatment.remedy if self.state.treatment else None
        assert len(cures) <= 1
        if cures:
            (cure,) = cures
            assert self.state.treatment is not None
            assert (cure.fault, cure.remedy) == (self.state.treatment.finding.fault, under_way)
            answered = isinstance(event, e.NotCured) and self.cure is not None
            overtaken = isinstance(event, e.Found) and event.finding.fault in {
                Fault.PAGE_CRASHED,
                Fault.PAGE_NOT_LOADED,
            }
            was = before.treatment.remedy if before.treatment else None
            assert was is None or was in STOPPING or answered or overtaken, "two cures at once"
        self._check_repeats(before, event, orders)
        stopped = any(isinstance(order, o.Stop) for order in orders)
        if isinstance(event, e.Found) and not event.plan and event.finding.fault not in GONE:
            known = before.treatment
            going_on = known is not None and known.remedy is Remedy.RELOAD
            assert not stopped or going_on, "stopped for what a person has to deal with"
        self._check_budget(before, event, orders)

    def _check_repeats(self, before: State, event: e.Event, orders: tuple[o.Order, ...]) -> None:
        now, was = self.state.treatment, before.treatment
        if isinstance(
            event, e.ConnectAsked | e.RestartAsked | e.RestoreAsked | e.DisconnectAsked | e.CleanupAsked
        ):
            if now is None:
                self.tried, self.well = (), None
            return
        if was is not None and now is None and self.state.process is Process.UP:
            self.well = self.now
        if now is None or now.remedy is None or not isinstance(event, e.Found | e.NotCured):
            return
        if was is not None and (was.remedy, was.began) == (now.remedy, now.began):
            return
        if self.well is not None and self.now - self.well > RESTARTS.relapse_s:
            self.tried = ()
        self.well = None
        fault, remedy = now.finding.fault, now.remedy
        known = {one for theirs, one, _ in self.tried if theirs is fault}
        last_resort = remedy is Remedy.RESTART and set(now.plan) <= known
        assert remedy not in known or last_resort or fault in AGAIN, f"{remedy} again for {fault}"
        self.tried += ((fault, remedy, self.now),)

    def _check_budget(self, before: State, event: e.Event, orders: tuple[o.Order, ...]) -> None:
        """Each way in which a browser is started again by itself, told by the orders."""
        for_failure = isinstance(event, e.Gone) and any(
            isinstance(order, o.BackOff) and order.jitter for order in orders
        )
        lost = isinstance(event, e.LoginLost) and self.state.failure is None and bool(orders)
        rested = isinstance(event, e.WaitEnded) and before.process is Process.FAILED and bool(orders)
        if self.state.restarts == () or before.wanted is Wanted.DOWN:
            self.spent = ()
        if for_failure or lost or rested:
            self.spent += (self.now,)
            within = [at for at in self.spent if self.now - at < RESTARTS.window_s]
            assert len(within) <= RESTARTS.budget, f"over the restart budget: {within}"

    def found(self, fault: Fault, plan: tuple[Remedy, ...] | None = None) -> e.Found:
        kind = e.BrowserExited if fault in GONE else e.Found
        named = tuple(PLANS[fault]) if plan is None else plan
        if fault is Fault.OFFLINE and self.network_down:
            named = ()
        return kind(self.state.epoch, Finding(fault, FAILURE), named, BY_COST, "b1", step=self.state.step)

    def answer(self) -> None:
        """The next thing that is due: of the slow work, or of the cure under way."""
        if self.due is not None:
            at, event = self.due
            self.due = None
            self.now = max(self.now, at)
            self.tell(event)
        elif self.cure is not None:
            self.now = max(self.now, self.cure_until)
            self.tell(e.NotCured(self.cure.epoch, step=self.cure.step))

    def look(self, reading: Reading | None) -> None:
        """What is told of one look at the page; None: it does not answer."""
        if self.state.process is not Process.UP:
            return
        if reading is None:
            self.tell(self.found(Fault.PAGE_SILENT))
            return
        self.tell(e.PageRead(self.state.epoch, reading, step=self.state.step))
        for fault in link.judge(reading):
            if fault is not Fault.PAGE_UNREAD or not self.armed:
                self.tell(self.found(fault))

    def late(self) -> None:
        if self.armed:
            self.armed = False
            self.tell(self.found(Fault.PAGE_NOT_LOADED))

    def next_try(self) -> None:
        if (rest := self.rest) is not None:
            self.rest = None
            self.tell(e.RestEnded(rest.epoch, step=rest.step))

    def check_that_it_goes_on(self) -> None:
        """Whoever is not well has something under way that will end, or a person is asked for."""
        state, treatment = self.state, self.state.treatment
        if state.wanted is Wanted.DOWN:
            return
        if state.process is not Process.UP:
            assert self.due is not None, "nothing is under way"
        elif state.link not in {Link.AWAITING_SCAN, Link.SYNCING, Link.CONNECTED}:
            if treatment is None or treatment.remedy in STOPPING:
                assert self.armed, "nothing was found, and nothing is waited for"
            elif treatment.remedy is not None:
                assert self.cure is not None, "a remedy that nobody applies"
            else:
                fault = treatment.finding.fault
                person = fault in BY_SCAN or (fault in FOR_A_PERSON and not treatment.plan)
                mine = self.rest is not None and (self.rest.fault, self.rest.step) == (fault, state.step)
                assert person or mine, "no next try"

    def well_again(self) -> None:
        if self.state.process is Process.UP:
            if self.state.treatment is not None:
                self.tell(e.Recovered(self.state.epoch, self.state.treatment.finding.fault))
            self.tell(e.PageRead(self.state.epoch, Reading(Link.CONNECTED), step=self.state.step))


_steps = st.one_of(
    st.sampled_from(
        [
            "answer",
            "answer",
            "answer",
            "answer",
            "well",
            "well",
            "fails",
            "not gone",
            "lost",
            "held",
            "loads",
            "rests",
            "late",
            "next try",
            "silent",
        ]
    ),
    st.builds(
        Reading,
        link=st.sampled_from(Link),
        reason=st.none() | st.sampled_from(Reason),
        cut_off=st.booleans(),
        wrong=st.booleans(),
        qr_exhausted=st.booleans(),
    ),
    st.sampled_from(["connect", "disconnect", "recycle", "conflict"]),
    st.sampled_from(sorted(set(Fault) - {Fault.LOGIN_LOST, Fault.START_FAILED})),
)


def step(world: World, what: str | Reading) -> None:
    epoch = world.state.epoch
    match what:
        case Reading():
            world.look(real(what))
        case "silent":
            world.look(None)
        case "late":
            world.late()
        case "next try":
            world.next_try()
        case Fault.PAGE_NOT_LOADED:
            world.late()
        case Fault.PAGE_SILENT | Fault.PAGE_WRONG | Fault.PAGE_UNREAD if world.armed:
            pass
        case "answer":
            world.answer()
        case "well":
            world.well_again()
        case "fails" if world.state.process in {Process.PREPARING, Process.STARTING}:
            world.due = None
            world.tell(e.Failed(epoch, FAILURE))
        case "not gone" if world.state.process is Process.STOPPING:
            world.due = None
            world.tell(e.NotGone(epoch, FAILURE))
        case "held" if world.state.process is Process.PREPARING:
            world.due = None
            world.tell(e.Held(epoch, FAILURE, 7.0))
        case "lost" if world.state.process is Process.UP:
            world.tell(e.LoginLost(epoch, FAILURE))
        case "loads":
            world.tell(e.PageRead(epoch, Reading(Link.LOADING), step=world.state.step))
        case "rests":
            world.now += 15.0
        case "connect":
            world.tell(e.ConnectAsked())
        case "disconnect":
            world.tell(e.DisconnectAsked())
        case "recycle":
            world.tell(e.RecycleAsked())
        case "conflict":
            world.tell(e.PageRead(epoch, Reading(Link.LOST, Reason.CONFLICT), step=world.state.step))
            world.tell(world.found(Fault.CONFLICT))
        case fault if fault in set(Fault):
            world.tell(world.found(Fault(fault)))
        case _:
            pass


def real(reading: Reading) -> Reading:
    """One that a page can give."""
    lost = reading.link is Link.LOST
    reason = (reading.reason or Reason.OFFLINE) if lost else None
    if reason in {Reason.HUNG, Reason.CRASHED, Reason.WRONG_PAGE}:  # these are found, and not read
        reason = Reason.OFFLINE
    return replace(
        reading,
        reason=reason,
        cut_off=reading.cut_off and reading.link in {Link.SYNCING, Link.LOADING},
        wrong=reading.wrong and reading.link is Link.UNKNOWN,
    )


@given(st.lists(st.tuples(_steps, st.floats(0.1, 6)), min_size=30, max_size=120))
def test_in_any_run_cures_keep_their_promises(run: list[tuple[str | Reading, float]]) -> None:
    world = World()
    world.tell(e.ConnectAsked())
    for what, passed in run:
        at = world.due[0] if world.due is not None else math.inf
        world.now = max(world.now, min(world.now + passed, at))
        step(world, what)
        if isinstance(what, Reading) or what == "silent":
            world.check_that_it_goes_on()


@given(
    run=st.lists(st.tuples(_steps, st.floats(0.1, 6)), max_size=60),
    shows=st.sampled_from([None, *Link, *Reason]),
    network_down=st.booleans(),
)
def test_whatever_has_happened_and_whatever_the_page_shows_for_ever_there_is_always_a_next_step(
    run: list[tuple[str | Reading, float]], shows: Link | Reason | None, *, network_down: bool
) -> None:
    """Nothing stays unknown, or recovering, with nothing found and nothing waited for."""
    world = World(network_down=network_down)
    world.tell(e.ConnectAsked())
    for what, passed in run:
        world.now += passed
        step(world, what)
    reading = None
    if shows is not None:
        lost = Reading(Link.LOST, shows) if isinstance(shows, Reason) else None
        reading = lost or Reading(Link(shows), wrong=True)
    for _ in range(40):
        world.look(real(reading) if reading is not None else None)
        world.check_that_it_goes_on()
        world.answer()
        world.next_try()
        world.now += 30.0


@given(
    st.lists(
        st.sampled_from([*(one.value for one in Fault if PLANS[one]), "fails", "not gone", "lost"]),
        min_size=30,
    ),
)
def test_whatever_goes_wrong_again_and_again_the_restart_budget_holds(troubles: list[str]) -> None:
    """Nobody asks for anything, and the trouble never ends."""
    world = World()
    world.tell(e.ConnectAsked())
    for trouble in troubles:
        for _ in range(4):
            world.answer()
            if world.state.process is Process.UP:
                world.well_again()
                break
        step(world, trouble)


def test_a_budget_that_was_spent_before_a_stop_could_not_be_proved_is_spent_after_it() -> None:
    """The cool-down of a session that could not be proved gone is shorter than the window of its budget."""
    world = World()
    world.tell(e.ConnectAsked())
    for _ in range(3):
        while world.state.process is not Process.UP:
            world.answer()
        world.tell(world.found(Fault.BROWSER_EXITED))
        world.answer()
    while world.state.process is not Process.UP:
        world.answer()
    world.tell(world.found(Fault.BROWSER_EXITED))
    world.tell(e.NotGone(world.state.epoch, FAILURE))
    for _ in range(3):
        world.answer()


def test_a_restart_that_nobody_asked_for_says_so() -> None:
    """The host holds only those back that nobody waits for."""
    for fault in Fault:
        if Remedy.RESTART in PLANS[fault]:
            state = State(Wanted.UP, Process.UP, Link.CONNECTED, epoch=1, cause=Cause.CONNECT)
            if fault is Fault.PAGE_NOT_LOADED:
                state = replace(state, link=Link.LOADING)
            kind = e.BrowserExited if fault in GONE else e.Found
            event = kind(1, Finding(fault, FAILURE), (Remedy.RESTART,))
            state, orders = decide(state, event, 0.0, RESTARTS)
            assert any(isinstance(order, o.Stop) for order in orders), fault
            assert state.cause is Cause.RECOVERY


def test_trials_wait_longer_each_time() -> None:
    breaker, waits = Breaker(), []
    for number in range(40):
        breaker = fails(breaker, "a", 0.0, sure=True)
        waits.append(breaker.next_trial)
        assert breaker.trials == number + 1
    assert all(before <= after for before, after in pairwise(waits))
    assert waits[-1] == POLICY.max_s


# --- what gets on, and who could not tell ---------------------------------------------------------------------


@given(moments=st.lists(st.floats(0, 1e6), min_size=3, max_size=3), limit_s=st.floats(0.1, 1e4))
def test_what_gets_on_is_waited_for_but_not_for_ever(moments: list[float], limit_s: float) -> None:
    began, moved, now = sorted(moments)
    left = left_s(began, moved, limit_s, now)
    assert left <= moved + limit_s - now
    assert left <= began + LONGER * limit_s - now
    assert left_s(began, began, limit_s, began) == pytest.approx(limit_s)


def test_who_could_not_tell_clears_no_finding_and_keeps_no_suspicion() -> None:
    told, suspected = Complaint(1.0, found=True), Complaint(1.0)
    book = {Fault.PAGE_SILENT: told, Fault.PAGE_LOOPING: suspected, Fault.OFFLINE: suspected}
    after = doubt(book, {Fault.PAGE_SILENT, Fault.PAGE_LOOPING})
    assert after == {Fault.PAGE_SILENT: told, Fault.OFFLINE: suspected}
