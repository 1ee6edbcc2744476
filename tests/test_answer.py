"""When a caller of `connect` is answered, and with what: what it waits for, where the session stands, and since when it waits."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from waguard.core.health.faults import REFUSALS, Fault, Finding, said
from waguard.core.health.plans import Remedy, Treatment
from waguard.core.model import PASSKEYS, Failure, Link, Process, Reason, Stage, Wait, Wanted
from waguard.core.session.answer import answer
from waguard.core.session.state import State
from waguard.errors import DiskFull, StorageHangs

FELL = Failure("browser_failed", "it fell", Stage.START)
FOUND = Failure("page_failed", "it is not loaded")
UP = State(Wanted.UP, Process.UP)
CALLED_OFF, DOWN_WITHOUT_REASON = "interrupted", "session_failed"


def at(link: Link, reason: Reason | None = None, failure: Failure | None = None) -> State:
    return replace(UP, link=link, reason=reason, failure=failure)


def treated(fault: Fault, remedy: Remedy | None, rests: int = 0, since: float = 50.0) -> State:
    treatment = Treatment(Finding(fault, FOUND), (Remedy.RELOAD,), "", since, remedy, rests=rests)
    return replace(at(Link.LOADING), treatment=treatment)


@pytest.mark.parametrize("process", Process)
def test_who_waits_for_nothing_is_answered_at_once(process: Process) -> None:
    assert answer(State(Wanted.UP, process), Wait.NONE, has_qr=False) is True


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (State(Wanted.DOWN, Process.UP, Link.CONNECTED), CALLED_OFF),
        (State(Wanted.UP, Process.BACKOFF, failure=FELL), FELL.code),
        (State(Wanted.UP, Process.FAILED, failure=FELL), FELL.code),
        (State(Wanted.UP, Process.FAILED), DOWN_WITHOUT_REASON),
        (at(Link.LOST, Reason.OFFLINE, FELL), FELL.code),
        *((at(Link.LOST, Reason(fault.value)), said(fault).code) for fault in (Fault.CONFLICT, *REFUSALS)),
    ],
)
@pytest.mark.parametrize("wait", [Wait.QR, Wait.CONNECTED])
def test_what_no_waiting_changes_is_told(state: State, code: str, wait: Wait) -> None:
    told = answer(state, wait, has_qr=True)
    assert isinstance(told, Failure)
    assert told.code == code


@pytest.mark.parametrize("process", [Process.DOWN, Process.PREPARING, Process.STARTING, Process.STOPPING])
def test_who_is_on_the_way_is_waited_for(process: Process) -> None:
    assert answer(State(Wanted.UP, process), Wait.CONNECTED, has_qr=False) is False


@pytest.mark.parametrize(
    ("state", "has_qr", "for_qr", "for_connected"),
    [
        (at(Link.CONNECTED), False, True, True),
        (at(Link.AWAITING_SCAN), True, True, False),
        (at(Link.AWAITING_SCAN), False, False, False),
        *((at(Link.AWAITING_SCAN, reason), False, True, False) for reason in sorted(PASSKEYS)),
        (at(Link.SYNCING), False, False, False),
        (at(Link.LOST, Reason.OFFLINE), False, False, False),
    ],
)
def test_a_code_is_enough_for_who_waits_for_one(
    state: State, has_qr: bool, for_qr: bool, for_connected: bool
) -> None:
    assert answer(state, Wait.QR, has_qr=has_qr) is for_qr
    assert answer(state, Wait.CONNECTED, has_qr=has_qr) is for_connected


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (treated(Fault.PAGE_NOT_LOADED, None, rests=1), FOUND),
        (treated(Fault.PAGE_NOT_LOADED, None), False),
        (treated(Fault.PAGE_NOT_LOADED, Remedy.RELOAD), FOUND),
        (treated(Fault.PAGE_NOT_LOADED, Remedy.RELOAD, since=5.0), False),  # found before it asked: cured now
        (treated(Fault.GPU_HUNG, Remedy.TERMINATE), False),
    ],
)
def test_what_is_found_while_one_waits_is_told(state: State, told: Failure | bool) -> None:
    assert answer(state, Wait.QR, has_qr=False, asked_at=10.0) == told


@pytest.mark.parametrize(
    ("details", "stage", "expected"),
    [
        ({}, Stage.PREPARE, Stage.PREPARE),
        ({"stage": "restore"}, Stage.PREPARE, Stage.RESTORE),
        ({}, None, None),
    ],
)
def test_an_error_names_its_stage_itself(
    details: Mapping[str, Any], stage: Stage | None, expected: Stage | None
) -> None:
    error = DiskFull("There is no room.", hint="Make some.", **details)
    failure = Failure.of(error, stage)
    assert (failure.stage, failure.code, failure.hint) == (expected, "disk_full", "Make some.")


def test_an_error_says_after_how_long_it_is_worth_trying_again() -> None:
    assert Failure.of(StorageHangs("It hangs.", retry_after_s=7)).retry_s == 7.0
    assert FELL.retry_s > 0
