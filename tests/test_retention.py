"""Which snapshots stay: never none, never more than the rule allows, and the last of each day, week and month."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from waguard.core.retention import Retention, Taken, kept, newest_first

START = datetime(2026, 11, 25, 3, 30, tzinfo=UTC)
NOW = START.timestamp()
YEARS_S = 11 * 365 * 86_400.0
COUNTS = st.integers(0, 20)
RULES = st.builds(Retention, last=COUNTS, daily=COUNTS, weekly=COUNTS, monthly=COUNTS)
TIMES = st.floats(0, 4e9)
TAKEN = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=6),
    st.builds(Taken, TIMES, st.just(0) | st.integers(1, 30), st.booleans()),
    max_size=60,
)


def daily(days: int, first: int = 0) -> dict[str, Taken]:
    """Each day one; counted from ``first`` on, or not at all."""
    return {
        f"d{n}": Taken((START - timedelta(days=n)).timestamp(), first + days - n if first else 0)
        for n in range(days)
    }


def test_a_year_of_daily_snapshots() -> None:
    stay = kept(daily(365), Retention(last=3, daily=7, weekly=4, monthly=3), NOW)
    assert {f"d{n}" for n in range(7)} <= stay
    assert len(stay) <= 3 + 7 + 4 + 3
    ages = sorted(int(name[1:]) for name in stay)
    assert 55 <= ages[-1] <= 92, "the last day of the month before last"


def test_of_many_on_one_day_the_last_ones_stay() -> None:
    taken = {f"m{n}": Taken((START - timedelta(minutes=n)).timestamp()) for n in range(100)}
    assert kept(taken, Retention(last=2, daily=7, weekly=4, monthly=3), NOW) == {"m0", "m1"}


def test_what_is_newer_is_counted_and_not_timed() -> None:
    wrong = {f"w{n}": Taken(NOW + YEARS_S, n) for n in (1, 2, 3)}
    right = {f"r{n}": Taken(NOW - 10 + n, n) for n in (4, 5, 6)}
    assert newest_first(wrong | right, NOW) == ["r6", "r5", "r4", "w3", "w2", "w1"]
    assert kept(wrong | right, Retention(3, 0, 0, 0), NOW) == right.keys()


def test_days_that_never_were_push_out_none_that_was() -> None:
    """Taken while the clock was in 2037, between others: and when it was in 1980."""
    rule = Retention(last=1, daily=7, weekly=0, monthly=0)
    right = daily(20, first=100)
    wrong = {f"w{n}": Taken(NOW + YEARS_S + n * 86_400, 110 + n) for n in range(9)}
    wrong |= {f"p{n}": Taken(NOW - 4 * YEARS_S + n * 86_400, 110 + n) for n in range(9)}
    assert kept(right, rule, NOW) <= kept(right | wrong, rule, NOW)


def test_a_clock_that_is_wrong_now_pushes_none_out_either() -> None:
    rule = Retention(last=1, daily=7, weekly=4, monthly=3)
    right = daily(100, first=1)
    for now in (0.0, NOW + YEARS_S):
        assert kept(right, rule, NOW) <= kept(right | {"new": Taken(now, 200)}, rule, now) | {"d0"}


def test_what_was_not_counted_keeps_its_place() -> None:
    """Of profiles that were put aside, before and between those that were counted."""
    taken = {
        "old": Taken(NOW - 500),
        "future": Taken(NOW + YEARS_S),
        "first": Taken(NOW - 400, 1),
        "wrong": Taken(NOW + YEARS_S, 2),
        "third": Taken(NOW - 200, 3),
        "back": Taken(NOW - 100),
    }
    assert newest_first(taken, NOW) == ["back", "third", "wrong", "first", "old", "future"]
    only = {name: taken[name] for name in ("old", "back")}
    assert newest_first(only, NOW) == ["back", "old"]


def test_what_was_put_aside_comes_after_the_snapshot_that_was_the_newest_then() -> None:
    taken = {"before": Taken(9.0, 4), "aside": Taken(1.0, 4, late=True), "after": Taken(5.0, 5)}
    assert newest_first(taken, NOW) == ["after", "aside", "before"]


@given(taken=TAKEN, rule=RULES, now=TIMES)
def test_the_newest_always_stays_and_never_more_than_the_rule_allows(
    taken: dict[str, Taken], rule: Retention, now: float
) -> None:
    stay, order = kept(taken, rule, now), newest_first(taken, now)
    assert sorted(order) == sorted(taken)
    assert stay <= taken.keys()
    times = sorted(one.at for one in taken.values())
    eras = 1 + sum(later - at > 365 * 86_400 for at, later in pairwise(times))
    assert len(stay) <= max(1, rule.last) + eras * (rule.daily + rule.weekly + rule.monthly)
    assert not taken or order[0] in stay
    counted = [one for one in order if taken[one].sequence]
    assert counted == sorted(counted, key=lambda one: taken[one].sequence, reverse=True) or len(
        {taken[one].sequence for one in counted}
    ) < len(counted)


@given(taken=TAKEN, rule=RULES, now=TIMES)
def test_to_thin_twice_changes_nothing(taken: dict[str, Taken], rule: Retention, now: float) -> None:
    once = kept(taken, rule, now)
    again = kept({name: taken[name] for name in once}, rule, now)
    assert again <= once
    counted = [
        taken[name].at
        for name in sorted(taken, key=lambda name: taken[name].sequence)
        if taken[name].sequence
    ]
    if counted == sorted(counted):  # else one that was not counted has another place among fewer
        assert again == once


@given(taken=TAKEN, rule=RULES, data=st.data())
def test_what_must_stay_stays(taken: dict[str, Taken], rule: Retention, data: st.DataObject) -> None:
    must = data.draw(st.sets(st.sampled_from([*taken, "gone"])))
    assert must & taken.keys() <= kept(taken, rule, NOW, always=must)
