"""Deadlines that fit the client, hours in which nobody is disturbed."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waguard.core.learning import ENOUGH, WEEK_H, Activity, Bounds, deadline, hour_of_week, quantile, quiet

BOUNDS = Bounds()
OPEN_S = 45.0
SECONDS = st.floats(0.001, 10_000)
SAMPLES = st.lists(SECONDS, max_size=60)
BOUND = st.builds(Bounds, st.floats(0.01, 1.0), st.floats(1.0, 20.0))
LEVELS = st.lists(st.floats(0, 3600, allow_subnormal=False), min_size=WEEK_H, max_size=WEEK_H)

# --- deadlines --------------------------------------------------------------------------------------------


@given(own=SAMPLES, all_=SAMPLES, default=SECONDS, bounds=BOUND)
def test_a_deadline_is_never_below_its_floor_nor_above_its_ceiling(
    own: list[float], all_: list[float], default: float, bounds: Bounds
) -> None:
    found = deadline(own, all_, default, bounds)
    assert bounds.floor * default <= found.seconds <= bounds.ceiling * default
    assert found.why


@given(default=SECONDS, bounds=BOUND)
def test_without_history_it_is_the_default(default: float, bounds: Bounds) -> None:
    assert deadline([], [], default, bounds).seconds == default


@given(own=SAMPLES, all_=SAMPLES, default=SECONDS, bounds=BOUND, data=st.data())
def test_slower_never_gives_less_time(
    own: list[float], all_: list[float], default: float, bounds: Bounds, data: st.DataObject
) -> None:
    more = st.floats(0, 1000)
    slower = [one + data.draw(more) for one in own], [one + data.draw(more) for one in all_]
    assert deadline(*slower, default, bounds).seconds >= deadline(own, all_, default, bounds).seconds


@given(own=SAMPLES, all_=SAMPLES, default=SECONDS, bounds=BOUND, data=st.data())
def test_only_the_last_three_have_an_order(
    own: list[float], all_: list[float], default: float, bounds: Bounds, data: st.DataObject
) -> None:
    mixed = [*data.draw(st.permutations(own[:-3])), *data.draw(st.permutations(own[-3:]))]
    others = data.draw(st.permutations(all_))
    assert deadline(mixed, others, default, bounds) == deadline(own, all_, default, bounds)


@given(own=st.lists(SECONDS, min_size=ENOUGH, max_size=60), all_=SAMPLES)
def test_with_enough_of_its_own_the_others_do_not_matter(own: list[float], all_: list[float]) -> None:
    assert deadline(own, all_, OPEN_S, BOUNDS) == deadline(own, [], OPEN_S, BOUNDS)


@given(count=st.integers(ENOUGH, 200))
def test_a_page_that_takes_20_s_is_let_and_one_that_takes_2_s_is_caught_sooner(count: int) -> None:
    slow = deadline([20.0 + n % 3 for n in range(count)], [2.0] * 500, OPEN_S, BOUNDS)
    quick = deadline([2.0 + n % 3 / 10 for n in range(count)], [20.0] * 500, OPEN_S, BOUNDS)
    assert slow.seconds > 1.5 * 22
    assert quick.seconds < OPEN_S / 3
    assert slow.why == f"95 % of {count} here took at most 22.0 s"
    assert quick.why == f"95 % of {count} here took at most 2.2 s; never less than 11.25 s"


def test_a_client_of_whom_little_is_known_goes_by_all() -> None:
    found = deadline([2.0], [10.0] * 300, OPEN_S, BOUNDS)
    assert (found.seconds, found.why) == (20.0, "95 % of 300 of all clients took at most 10.0 s")


@given(needs=st.floats(2.0, 135.0), known=st.integers(0, 60))
def test_a_client_that_is_slower_than_its_deadline_soon_gets_one_that_lets_it(
    needs: float, known: int
) -> None:
    """It, or all of the clients, were quick before. What is missed counts as long as the deadline was."""
    own, missed = [2.0] * known, 0
    while (given := deadline(own, [2.0] * 100, OPEN_S, BOUNDS).seconds) < needs:
        own.append(given)
        missed += 1
    assert missed <= 8


def test_one_that_was_late_once_changes_nothing() -> None:
    own = [2.0] * 40
    assert deadline([*own, 45.0], [], OPEN_S, BOUNDS).seconds == deadline(own, [], OPEN_S, BOUNDS).seconds


@given(samples=st.lists(SECONDS, min_size=1, max_size=60), q=st.floats(0, 1))
def test_a_quantile_is_a_sample_and_so_many_do_not_exceed_it(samples: list[float], q: float) -> None:
    found = quantile(samples, q)
    assert found in samples
    assert sum(one <= found for one in samples) >= q * len(samples) - 1e-9


# --- activity ---------------------------------------------------------------------------------------------


def week(levels: list[float]) -> Activity:
    return Activity(list(levels), [3600.0] * WEEK_H)


def test_the_hour_of_the_week_is_that_of_the_time_that_is_passed_in() -> None:
    assert hour_of_week(datetime(2026, 11, 23, 0, 59, tzinfo=UTC)) == 0  # a Monday
    assert hour_of_week(datetime(2026, 11, 29, 23, 0, tzinfo=UTC)) == WEEK_H - 1


def test_of_whom_nothing_is_known_the_night_is_quiet() -> None:
    assert [hour for hour in range(24) if quiet(Activity(), hour)] == [2, 3, 4]


@settings(max_examples=40)
@given(levels=LEVELS)
def test_each_day_has_three_quiet_hours_and_no_other_hour_is_quieter(levels: list[float]) -> None:
    activity = week(levels)
    for day in range(0, WEEK_H, 24):
        found = [hour for hour in range(day, day + 24) if quiet(activity, hour)]
        assert len(found) == 3
        loud = [levels[hour] for hour in range(day, day + 24) if hour not in found]
        assert max(levels[hour] for hour in found) <= min(loud)


def test_one_who_works_at_night_is_quiet_by_day() -> None:
    levels = [0.0 if 12 <= hour % 24 < 15 else 900.0 for hour in range(WEEK_H)]
    assert [hour for hour in range(24, 48) if quiet(week(levels), hour)] == [36, 37, 38]


def test_a_day_that_was_not_seen_yet_is_taken_to_be_like_the_others() -> None:
    activity = Activity()
    for hour in range(24):
        activity.add(hour, 1.0 if hour in {20, 21, 22} else 100.0, 3600.0)  # Monday only
    assert [hour - 72 for hour in range(72, 96) if quiet(activity, hour)] == [20, 21, 22]


def test_hours_that_were_not_seen_are_not_taken_for_quiet() -> None:
    activity = Activity()
    for hour in range(8, 24):
        activity.add(hour, 100.0, 3600.0)
    assert [hour for hour in range(24) if quiet(activity, hour)] == [2, 3, 4]


def test_what_is_long_ago_counts_less() -> None:
    activity = week([100.0] * WEEK_H)
    activity.fade(2.0)
    assert activity.total == pytest.approx(50.0 * WEEK_H)
    activity.add(0, 8.0, 3600.0, weeks_ago=4.0)
    assert activity.amounts[0] == pytest.approx(50.0 + 2.0)
    for _ in range(8):  # two months in which the quiet hours are others
        activity.fade(1.0)
        for hour in range(WEEK_H):
            activity.add(hour, 5.0 if hour % 24 in {6, 7, 8} else 100.0, 3600.0)
    assert [hour for hour in range(24) if quiet(activity, hour)] == [6, 7, 8]
