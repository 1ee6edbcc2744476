"""A treatment, from the fault to the cure: as transcripts, and over any run of reports. What does not match prints its difference."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import ndiff

import pytest
from hypothesis import given
from playbook import FAILURE, POLICY, RUNS, Run, found, seen, steps_of

from waguard.core.health.faults import Fault
from waguard.core.health.plans import Remedy
from waguard.core.model import Link, Process, Reason, Wanted
from waguard.core.session import events as e
from waguard.core.session import orders as o
from waguard.core.session import treatment
from waguard.core.session.remedy import for_a_person
from waguard.core.session.state import State
from waguard.core.session.table import decide
from waguard.core.session.treatment import Course, Report, course_of, report_of

CHEAPEST_FIRST = tuple(Remedy)


def told(state: State, orders: Sequence[o.Order]) -> str:
    """Where the treatment stands, and what is ordered."""
    doing = [
        f"{one.remedy.value}"
        if isinstance(one, o.Cure)
        else f"rest {one.bound_s:g}"
        if isinstance(one, o.Rest)
        else "stop"
        for one in orders
        if isinstance(one, o.Cure | o.Rest | o.Stop)
    ]
    return f"{course_of(state.treatment)}: {' '.join(doing) or '-'}"


def play(
    transcript: str, *events: e.Event, link: Link = Link.CONNECTED, reason: Reason | None = None
) -> None:
    """Each line of the transcript is what comes of one event: where the treatment stands then, and what is ordered."""
    state, lines = State(Wanted.UP, Process.UP, link, reason, epoch=1), []
    for event in events:
        this = replace(event, epoch=state.epoch) if isinstance(event, e.Fact) else event
        if isinstance(this, e.Answer):
            this = replace(this, step=state.step)
        state, orders = decide(state, this, 1000.0, POLICY)
        lines.append(f"{type(event).__name__} -> {told(state, orders)}")
    expected = [line.strip() for line in transcript.strip().splitlines()]
    assert lines == expected, "\n" + "\n".join(ndiff(expected, lines))


STARTED_ANEW = (e.Gone(1), e.WaitEnded(1), e.Prepared(1), e.Started(1))


def test_the_cheapest_first_and_a_new_browser_last() -> None:
    play(
        """
        Found -> curing: terminate
        NotCured -> reloading: reload
        NotCured -> replacing: stop
        Gone -> replacing: -
        WaitEnded -> replacing: -
        Prepared -> replacing: -
        Started -> replacing: -
        PageRead -> none: -
        """,
        found(1, Fault.PAGE_LOOPING),
        e.NotCured(1),
        e.NotCured(1),
        *STARTED_ANEW,
        seen(1, Link.CONNECTED),
    )


def test_what_another_browser_has_too_is_treated_further() -> None:
    play(
        """
        Found -> curing: renew
        NotCured -> replacing: stop
        Gone -> replacing: -
        WaitEnded -> replacing: -
        Prepared -> replacing: -
        Started -> replacing: -
        Found -> replacing: stop
        """,
        found(1, Fault.NETWORK_HUNG),
        e.NotCured(1),
        *STARTED_ANEW,
        found(1, Fault.NETWORK_HUNG),
    )


def test_without_a_network_it_rests_and_tries_the_page_again() -> None:
    play(
        """
        Unreachable -> resting: rest 2
        Unreachable -> resting: -
        RestEnded -> reloading: reload
        Unreachable -> reloading: -
        NotCured -> resting: rest 4
        RestEnded -> reloading: reload
        PageRead -> none: -
        """,
        e.Unreachable(1, FAILURE, (Remedy.RELOAD,)),
        e.Unreachable(1, FAILURE, (Remedy.RELOAD,)),
        e.RestEnded(1),
        e.Unreachable(1, FAILURE, (Remedy.RELOAD,)),
        e.NotCured(1),
        e.RestEnded(1),
        seen(1, Link.CONNECTED),
    )


def test_a_fault_that_only_a_person_ends_has_no_next_try_and_another_takes_its_place() -> None:
    play(
        """
        Found -> resting: -
        Found -> resting: -
        Found -> curing: continue
        Recovered -> none: -
        """,
        found(1, Fault.CONFLICT),
        found(1, Fault.DIALOG_OPEN),
        found(1, Fault.PROCESS_STOPPED),
        e.Recovered(1, Fault.PROCESS_STOPPED),
        link=Link.LOST,
        reason=Reason.CONFLICT,
    )


def test_a_page_that_goes_on_loading_proves_no_cure() -> None:
    play(
        """
        Found -> curing: terminate
        PageRead -> curing: -
        PageRead -> curing: -
        """,
        found(1, Fault.GPU_HUNG, Remedy.TERMINATE),
        seen(1, Link.LOADING),
        seen(1, Link.CONNECTED),
    )


def test_a_page_that_speaks_is_not_silent_whatever_it_says() -> None:
    play(
        """
        Found -> reloading: reload
        PageRead -> none: -
        """,
        found(1, Fault.PAGE_SILENT, Remedy.RELOAD),
        seen(1, Link.LOADING),
    )


def test_what_somebody_asks_for_is_no_report_on_a_treatment() -> None:
    assert report_of(State(), e.DisconnectAsked()) is None


def test_every_pair_has_a_rule() -> None:
    assert set(treatment.TABLE) == {(course, report) for course in Course for report in Report}


def test_a_transcript_that_does_not_match_prints_its_difference() -> None:
    with pytest.raises(AssertionError, match=r"(?s)- Found -> none: -.*\+ Found -> curing: terminate"):
        play("Found -> none: -", found(1, Fault.PAGE_LOOPING))


@given(RUNS)
def test_a_dearer_remedy_comes_after_the_cheaper_ones_of_its_plan(run: Run) -> None:
    """Of the plan that the report has brought, each cheaper one was tried for this fault since the session was last well."""
    for before, event, state, _, _ in steps_of(run):
        after = state.treatment
        begins = after is not None and after.remedy is not None and after != before.treatment
        if after is None or after.remedy is None or not begins or isinstance(event, e.LoginLost | e.Failed):
            continue
        if isinstance(event, e.RestEnded | e.ConnectAsked):  # what leaves the browser up is tried once more
            continue
        fault, cost = after.finding.fault, CHEAPEST_FIRST.index
        cheaper = [one for one in after.plan if cost(one) < cost(after.remedy)]
        assert all((fault, one) in state.treated or one in after.tried for one in cheaper)


@given(RUNS)
def test_a_treatment_ends_or_names_its_next_try(run: Run) -> None:
    for before, event, state, orders, _ in steps_of(run):
        after = state.treatment
        if after is None or state.process is not Process.UP or after == before.treatment:
            continue
        known = before.treatment is not None and before.treatment.began == after.began
        cures = any(isinstance(one, o.Cure) for one in orders)
        rests = any(isinstance(one, o.Rest) for one in orders)
        match course_of(after):
            case Course.CURING | Course.RELOADING:
                assert cures or known, event
            case Course.RESTING:
                assert rests or known or for_a_person(after), event
