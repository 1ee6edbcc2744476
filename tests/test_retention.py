"""Which snapshots stay: never none, never more than the rule allows, and the last of each day, week and month."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from waguard.core.retention import Retention, kept

START = datetime(2026, 11, 25, 3, 30, tzinfo=UTC)
COUNTS = st.integers(0, 20)
RULES = st.builds(Retention, last=COUNTS, daily=COUNTS, weekly=COUNTS, monthly=COUNTS)
TAKEN = st.dictionaries(st.text("abcdef", min_size=1, max_size=6), st.floats(0, 4e9), max_size=60)


def daily(days: int) -> dict[str, float]:
    return {f"d{n}": (START - timedelta(days=n)).timestamp() for n in range(days)}


def test_a_year_of_daily_snapshots() -> None:
    stay = kept(daily(365), Retention(last=3, daily=7, weekly=4, monthly=3))
    assert {f"d{n}" for n in range(7)} <= stay
    assert len(stay) <= 3 + 7 + 4 + 3
    ages = sorted(int(name[1:]) for name in stay)
    assert 55 <= ages[-1] <= 92, "the last day of the month before last"


def test_of_many_on_one_day_the_last_ones_stay() -> None:
    taken = {f"m{n}": (START - timedelta(minutes=n)).timestamp() for n in range(100)}
    assert kept(taken, Retention(last=2, daily=7, weekly=4, monthly=3)) == {"m0", "m1"}


@given(taken=TAKEN, rule=RULES)
def test_the_newest_always_stays_and_never_more_than_the_rule_allows(
    taken: dict[str, float], rule: Retention
) -> None:
    stay = kept(taken, rule)
    assert stay <= taken.keys()
    assert len(stay) <= max(1, rule.last) + rule.daily + rule.weekly + rule.monthly
    if taken:
        assert max(taken, key=lambda one: (taken[one], one)) in stay


@given(taken=TAKEN, rule=RULES)
def test_to_thin_twice_changes_nothing(taken: dict[str, float], rule: Retention) -> None:
    once = kept(taken, rule)
    assert kept({name: taken[name] for name in once}, rule) == once


@given(taken=TAKEN, rule=RULES, data=st.data())
def test_what_must_stay_stays(taken: dict[str, float], rule: Retention, data: st.DataObject) -> None:
    must = data.draw(st.sets(st.sampled_from([*taken, "gone"])))
    assert must & taken.keys() <= kept(taken, rule, always=must)
