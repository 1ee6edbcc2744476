"""What a page tells of a login: pure, and never a logout where nobody has logged out."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.core.login import Judgement, judge
from waguard.core.model import Link, Reading, Reason

READINGS = st.builds(
    Reading,
    st.sampled_from(Link),
    st.none() | st.sampled_from(Reason),
    st.none() | st.just("2@x"),
    st.none() | st.booleans(),
)
CODE, LOGGED_OUT = (Reading(Link.AWAITING_SCAN, why, marks=False) for why in (None, Reason.LOGGED_OUT))
MARKED, BLIND = (Reading(Link.AWAITING_SCAN, marks=marks) for marks in (True, None))
GONE = Reading(Link.LOST, Reason.LOGGED_OUT)


@pytest.mark.parametrize(
    ("reading", "login", "restored", "had", "found"),
    [
        (Reading(Link.CONNECTED), False, False, False, Judgement.ACCEPTED),
        (Reading(Link.SYNCING), True, True, False, Judgement.ACCEPTED),
        (CODE, False, False, False, Judgement.NOTHING),
        (CODE, True, False, False, Judgement.LOST),
        (CODE, True, False, True, Judgement.LOGGED_OUT),
        (MARKED, True, False, True, Judgement.UNPAIRED),
        (MARKED, True, False, False, Judgement.UNPAIRED),
        (MARKED, False, True, False, Judgement.UNPAIRED),
        (MARKED, False, False, False, Judgement.NOTHING),
        (BLIND, True, False, False, Judgement.UNPAIRED),
        (replace(LOGGED_OUT, marks=True), True, False, True, Judgement.LOGGED_OUT),
        (LOGGED_OUT, True, False, False, Judgement.LOGGED_OUT),
        (GONE, True, False, False, Judgement.LOGGED_OUT),
        (LOGGED_OUT, False, False, False, Judgement.NOTHING),
        (CODE, False, True, False, Judgement.REFUSED),
        (CODE, False, True, True, Judgement.REFUSED),
        (GONE, False, True, False, Judgement.REFUSED),
        (Reading(Link.LOST, Reason.OFFLINE), True, True, False, Judgement.NOTHING),
        (Reading(Link.LOST, Reason.CONFLICT), True, True, False, Judgement.NOTHING),
        (Reading(Link.LOADING), True, True, False, Judgement.NOTHING),
        (Reading(Link.UNKNOWN), True, True, False, Judgement.NOTHING),
    ],
)
def test_each_case(reading: Reading, login: bool, restored: bool, had: bool, found: Judgement) -> None:
    assert judge(reading, login=login, restored=restored, had=had) is found


@given(reading=READINGS, login=st.booleans(), restored=st.booleans(), had=st.booleans())
def test_nothing_is_lost_that_was_not_there_and_nothing_refused_that_was_not_restored(
    reading: Reading, login: bool, restored: bool, had: bool
) -> None:
    found = judge(reading, login=login, restored=restored, had=had)
    if found in {Judgement.LOST, Judgement.LOGGED_OUT}:
        assert login
        assert not restored
    if found is Judgement.LOST:
        assert not had
    if found in {Judgement.REFUSED, Judgement.UNPAIRED}:
        assert restored or login
    if found is Judgement.REFUSED:
        assert restored
    if reading.link is Link.CONNECTED:
        assert found is Judgement.ACCEPTED
