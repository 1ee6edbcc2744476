"""What becomes of a login: each case, as transcripts, and over any run of events. Never a logout where nobody has logged out."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import ndiff
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.core import catalogue
from waguard.core.login import events as e
from waguard.core.login import orders as o
from waguard.core.login.events import PageQuiet, told
from waguard.core.login.state import HELD, ON_DISK, UNSAVED, LoginState, Standing
from waguard.core.login.table import TABLE, decide, hangs_on_snapshots
from waguard.core.model import ClientCode, Link, Login, Reading, Reason
from waguard.profile.store import Profiles
from waguard.session.registry import Record, Registry, as_written, login_of

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
NONE, KEPT, RESTORED = LoginState(), LoginState(Standing.KEPT), LoginState(Standing.RESTORED, "S")
SHOWN = replace(KEPT, shown=True)


def says(reading: Reading, damage: str = "", *snapshots: str) -> PageQuiet:
    return told(reading)(reading.marks, damage, frozenset(snapshots))


@pytest.mark.parametrize(
    ("reading", "before", "after"),
    [
        (Reading(Link.CONNECTED), NONE, Standing.SCANNED),
        (Reading(Link.SYNCING), RESTORED, Standing.SAVED),
        (Reading(Link.CONNECTED), KEPT, Standing.KEPT),
        (CODE, NONE, Standing.NONE),
        (CODE, KEPT, Standing.LOST),
        (CODE, SHOWN, Standing.LOGGED_OUT),
        (MARKED, SHOWN, Standing.KEPT),
        (MARKED, KEPT, Standing.KEPT),
        (MARKED, RESTORED, Standing.RESTORED),
        (MARKED, NONE, Standing.NONE),
        (BLIND, KEPT, Standing.KEPT),
        (replace(LOGGED_OUT, marks=True), SHOWN, Standing.LOGGED_OUT),
        (LOGGED_OUT, KEPT, Standing.LOGGED_OUT),
        (GONE, KEPT, Standing.LOGGED_OUT),
        (LOGGED_OUT, NONE, Standing.NONE),
        (CODE, RESTORED, Standing.LOGGED_OUT),
        (CODE, replace(RESTORED, shown=True), Standing.LOGGED_OUT),
        (GONE, RESTORED, Standing.LOGGED_OUT),
        (Reading(Link.LOST, Reason.OFFLINE), KEPT, Standing.KEPT),
        (Reading(Link.LOST, Reason.CONFLICT), KEPT, Standing.KEPT),
        (Reading(Link.LOADING), RESTORED, Standing.RESTORED),
        (Reading(Link.UNKNOWN), KEPT, Standing.KEPT),
        (Reading(Link.AWAITING_SCAN, Reason.PASSKEY_REQUIRED, marks=False), KEPT, Standing.KEPT),
    ],
)
def test_each_case(reading: Reading, before: LoginState, after: Standing) -> None:
    state, _ = decide(before, says(reading), 1.0)
    assert state.standing is after


def play(transcript: str, *happened: e.Event, state: LoginState = NONE) -> LoginState:
    """Each line is what comes of one event: how the login stands then, and what is to be done."""
    lines = []
    for event in happened:
        state, orders = decide(state, event, 1.0)
        doing = [f"{one.name}" if isinstance(one, o.Announce) else type(one).__name__ for one in orders]
        lines.append(f"{type(event).__name__} -> {state.standing}: {' '.join(doing) or '-'}")
    expected = [line.strip() for line in transcript.strip().splitlines()]
    assert lines == expected, "\n" + "\n".join(ndiff(expected, lines))
    return state


def test_a_scan_until_it_is_kept() -> None:
    state = play(
        """
        ProfileFresh -> none: -
        PageAsksScan -> none: -
        PageConnected -> scanned: Hold
        PageConnected -> scanned: -
        MarkSeen -> on_disk: -
        SnapshotTaken -> kept: -
        """,
        e.ProfileFresh(),
        says(MARKED),
        *[says(Reading(Link.CONNECTED))] * 2,
        e.MarkSeen(),
        e.SnapshotTaken(),
    )
    assert (state.word, state.outlives_a_kill) == (Login.ON_DISK, True)


def test_damage_goes_down_the_ladder_until_nothing_is_left() -> None:
    play(
        """
        PageEmpty -> doubted: login.lost
        SnapshotTaken -> doubted: -
        ProfileRestored -> restored: -
        PageEmpty -> doubted: login.lost MarkRefused
        ProfileRestored -> restored: -
        PageEmpty -> lost: login.lost MarkRefused Note LetGo
        PageConnected -> scanned: Hold
        """,
        says(CODE, "", "A", "B"),
        e.SnapshotTaken(),
        e.ProfileRestored("A"),
        says(CODE, "it was wiped", "A", "B"),
        e.ProfileRestored("B"),
        says(CODE, "it was wiped", "B"),
        says(Reading(Link.CONNECTED)),
        state=KEPT,
    )


def test_a_full_disk_is_no_reason_to_drop_the_snapshot() -> None:
    play(
        "PageEmpty -> doubted: login.lost",
        says(CODE, "IO error: No space left on device", "S"),
        state=RESTORED,
    )


def test_a_logout_that_may_be_damage_costs_one_try() -> None:
    play(
        """
        ProfileKept -> kept: -
        PageLoggedOut -> doubted: login.doubted
        ProfileRestored -> restored: -
        PageLoggedOut -> logged_out: Note snapshot.login_refused MarkRefused LetGo
        """,
        e.ProfileKept(proved=False),
        says(LOGGED_OUT, "", "A"),
        e.ProfileRestored("A"),
        says(LOGGED_OUT, "", "A"),
        state=KEPT,
    )


def test_a_snapshot_of_which_the_page_finds_nothing_is_restored_once_more() -> None:
    play(
        """
        ProfileRestored -> restored: -
        PageQuiet -> restored: -
        PageEmpty -> doubted: login.doubted
        ProfileRestored -> restored: -
        PageEmpty -> logged_out: Note snapshot.login_refused MarkRefused LetGo
        """,
        e.ProfileRestored("A"),
        says(Reading(Link.LOADING)),
        says(CODE, "", "A", "B"),
        e.ProfileRestored("A"),
        says(CODE, "", "A", "B"),
        state=KEPT,
    )


def test_whoever_scans_at_a_page_that_asked_in_spite_of_a_login_has_another_one() -> None:
    play(
        """
        PageAsksScan -> kept: -
        PageConnected -> on_disk: Hold
        SnapshotTaken -> kept: -
        PageConnected -> kept: -
        """,
        says(MARKED),
        says(Reading(Link.CONNECTED)),
        e.SnapshotTaken(),
        says(Reading(Link.CONNECTED)),
        state=KEPT,
    )


def test_a_browser_of_an_earlier_daemon_has_what_that_one_has_seen() -> None:
    play(
        """
        Adopted -> kept: Hold
        PageLoggedOut -> logged_out: LetGo
        """,
        e.Adopted(taken=True),
        says(LOGGED_OUT, "", "A"),
        state=KEPT,
    )
    play(
        """
        Adopted -> kept: -
        PageLoggedOut -> doubted: login.doubted
        """,
        e.Adopted(taken=False),
        says(LOGGED_OUT, "", "A"),
        state=KEPT,
    )


def test_a_transcript_that_does_not_match_prints_its_difference() -> None:
    with pytest.raises(AssertionError, match=r"(?s)- CleanedUp -> kept: -.*\+ CleanedUp -> none: -"):
        play("CleanedUp -> kept: -", e.CleanedUp(), state=KEPT)


def test_every_pair_has_a_rule() -> None:
    assert set(TABLE) == set(product(Standing, e.Event.__args__))


@pytest.mark.parametrize(
    ("reading", "state", "damage", "asked"),
    [
        (CODE, KEPT, "", True),
        (CODE, SHOWN, "", False),
        (CODE, SHOWN, "it was wiped", True),
        (CODE, RESTORED, "", True),
        (CODE, replace(RESTORED, shown=True), "", False),
        (CODE, replace(RESTORED, again=True), "", False),
        (LOGGED_OUT, RESTORED, "", False),
        (LOGGED_OUT, KEPT, "", False),
        (LOGGED_OUT, replace(KEPT, proved=False), "", True),
        (MARKED, replace(KEPT, proved=False), "", False),
        (CODE, NONE, "", False),
    ],
)
def test_nobody_looks_for_snapshots_where_nothing_hangs_on_them(
    reading: Reading, state: LoginState, damage: str, asked: bool
) -> None:
    assert hangs_on_snapshots(state, told(reading), damage) is asked


# --- any run of events ------------------------------------------------------------------------------------

_snapshots = st.frozensets(st.sampled_from("ABC"), max_size=2)
_damage = st.sampled_from(["", "it was wiped", "No space left on device"])
_telling = st.sampled_from(
    [Reading(Link.CONNECTED), CODE, LOGGED_OUT, MARKED, BLIND, GONE, Reading(Link.LOADING)]
)
_pages = st.builds(
    lambda reading, why, those: says(reading, why, *those), _telling | READINGS, _damage, _snapshots
)
_others: Sequence[st.SearchStrategy[e.Event]] = (
    st.builds(e.ProfileKept, st.booleans()),
    st.builds(e.ProfileRestored, st.sampled_from("ABC")),
    st.builds(
        e.ProfileReturned,
        st.sampled_from([one for one in Standing if one not in {Standing.RESTORED, Standing.DOUBTED}]),
    ),
    st.builds(e.ProfileReturned, st.just(Standing.RESTORED), st.sampled_from("ABC")),
    st.builds(e.ProfileFresh, st.booleans()),
    st.builds(e.Adopted, st.booleans()),
    st.just(e.DamageSeen("it was wiped")),
    *(st.just(kind()) for kind in (e.MarkSeen, e.SnapshotTaken, e.CleanedUp)),
)
EVENTS = st.sampled_from([*[_pages] * 12, *_others]).flatmap(lambda kind: kind)
_begun = st.builds(
    LoginState,
    st.sampled_from([one for one in Standing if one not in {Standing.RESTORED, Standing.DOUBTED}]),
    proved=st.booleans(),
    shown=st.booleans(),
    asked=st.booleans(),
    taken_at=st.none() | st.just(0.0),
) | st.builds(
    LoginState, st.just(Standing.RESTORED), st.sampled_from("ABC"), st.booleans(), asked=st.booleans()
)
ANEW = e.ProfileKept | e.ProfileRestored | e.ProfileReturned | e.ProfileFresh | e.CleanedUp
Run = tuple[LoginState, Sequence[e.Event]]
RUNS = st.tuples(_begun, st.lists(EVENTS, min_size=1, max_size=12))
"""How it stands at first, and what happens then."""


def steps_of(run: Run) -> Iterator[tuple[LoginState, e.Event, LoginState, tuple[o.Order, ...]]]:
    state, happened = run
    for now, event in enumerate(happened):
        before = state
        state, orders = decide(before, event, float(now))
        yield before, event, state, orders


@given(RUNS)
def test_what_was_lost_comes_back_by_a_scan_or_a_restore_alone(run: Run) -> None:
    for before, event, state, _ in steps_of(run):
        if not before.may_be and state.may_be:
            assert isinstance(event, e.PageConnected | e.ProfileRestored | e.ProfileReturned)
        if before.standing is Standing.DOUBTED and state.standing is not Standing.DOUBTED:
            assert isinstance(event, ANEW)


@given(RUNS)
def test_a_snapshot_counts_for_a_login_that_nobody_doubts_alone(run: Run) -> None:
    for before, event, state, orders in steps_of(run):
        if isinstance(event, e.SnapshotTaken) and before.standing not in UNSAVED:
            assert (state, orders) == (before, ())
        if state.on_record in UNSAVED and before.on_record not in UNSAVED:
            assert isinstance(event, e.PageConnected | e.ProfileReturned)


@given(RUNS)
def test_what_follows_is_neither_more_nor_less_than_what_was_seen(run: Run) -> None:
    for before, event, state, orders in steps_of(run):
        if isinstance(event, e.ProfileReturned):  # as it stood once, whatever it has been since
            assert (state, orders) == (LoginState(event.standing, event.snapshot, proved=False), ())
            continue
        refused = [one.snapshot for one in orders if isinstance(one, o.MarkRefused)]
        assert refused in ([], [before.snapshot])
        assert not refused or before.standing is Standing.RESTORED
        if state.standing is Standing.LOST is not before.standing:
            assert before.may_be
            assert isinstance(event, e.ProfileFresh) or not set(event.snapshots) - {before.snapshot}  # type: ignore[union-attr]
        if state.standing is Standing.LOGGED_OUT is not before.standing:
            assert isinstance(event, e.PageEmpty | e.PageLoggedOut)
            seen = before.shown or before.taken_at is not None or before.standing is Standing.RESTORED
            assert seen or isinstance(event, e.PageLoggedOut), "nobody has logged it out"
            if before.standing is Standing.RESTORED and isinstance(event, e.PageEmpty):
                gone = before.snapshot not in event.snapshots
                assert before.shown or before.again or gone, "it is worth another try"
        if state.standing is Standing.DOUBTED is not before.standing:
            assert isinstance(event, e.DamageSeen) or set(event.snapshots)  # type: ignore[union-attr]
        for one in orders:
            if isinstance(one, o.Announce):
                catalogue.level_of(one.name, None, dict(one.fields))
        assert state.word is not Login.NONE or state.outlives_a_kill is None


@given(RUNS)
def test_which_snapshots_there_are_is_asked_where_it_matters(run: Run) -> None:
    for before, event, state, orders in steps_of(run):
        if isinstance(event, PageQuiet) and not hangs_on_snapshots(before, type(event), event.damage):
            assert decide(before, replace(event, snapshots=frozenset()), 1.0)[0].standing is state.standing
            assert decide(before, replace(event, snapshots=frozenset("XY")), 1.0)[1] == orders


# --- what is on record ------------------------------------------------------------------------------------


@given(RUNS)
def test_the_next_daemon_finds_what_is_on_record(run: Run) -> None:
    for _, _, state, _ in steps_of(run):
        found = login_of(replace(Record(), **as_written(state)))
        snapshot = state.snapshot if state.on_record is Standing.RESTORED else ""
        assert found == LoginState(state.on_record, snapshot)


BEFORE = [
    ({}, Standing.NONE),
    ({"login": True}, Standing.SAVED),
    ({"login": True, "marked": True}, Standing.KEPT),
    ({"login": True, "unsaved": True}, Standing.SCANNED),
    ({"login": True, "marked": True, "unsaved": True}, Standing.ON_DISK),
    ({"restored": "20240102T030405-0123abcd"}, Standing.RESTORED),
    ({"ended": "logged_out"}, Standing.LOGGED_OUT),
    ({"ended": "damaged"}, Standing.LOST),
    ({"login": True, "restored": "20240102T030405-0123abcd"}, Standing.SAVED),
]


@pytest.mark.parametrize(("written", "standing"), BEFORE, ids=str)
def test_a_record_that_an_earlier_version_has_written_is_read_rightly(
    tmp_path: Path, written: dict[str, object], standing: Standing
) -> None:
    profiles = Profiles(tmp_path / "sessions", None)
    profiles.make_room()
    demo = ClientCode("demo")
    whole = {"login": False, "marked": False, "unsaved": False, "ended": None, "restored": "", **written}
    for kept in (written, whole):
        home = tmp_path / "sessions" / demo
        home.mkdir(exist_ok=True)
        (home / "session.json").write_text(json.dumps({"wanted": "up", **kept, "schema": 1}))
        record = Registry(profiles).read(demo)
        state = login_of(record)
        assert state.standing is standing
        assert state.snapshot == (written.get("restored", "") if standing is Standing.RESTORED else "")
        assert state.held == bool(written.get("login", False))
        # An earlier version reads what this one writes, too: the same fields mean the same.
        again = as_written(state)
        assert again == {**whole, "restored": state.snapshot, "ended": written.get("ended")}


def test_the_words_for_people_have_not_changed() -> None:
    assert {one: LoginState(one).word for one in Standing if one is not Standing.DOUBTED} == {
        **dict.fromkeys(HELD - ON_DISK, Login.NEW),
        **dict.fromkeys(ON_DISK, Login.ON_DISK),
        **dict.fromkeys((Standing.NONE, Standing.LOST, Standing.LOGGED_OUT), Login.NONE),
        Standing.RESTORED: Login.RESTORED,
    }
