"""Which snapshot is newer, and which are kept: the newest ones, and of each day, week and month before that the last one. Pure.

Clocks go wrong: of a machine whose battery is empty, or before it has heard of the time. So what is newer is counted and not
timed, and what a clock says decides only which day a snapshot is of.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

_ERA_S = 400 * 86_400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How many of each: a snapshot stays as long as any of them holds it."""

    last: int = 3
    daily: int = 7
    weekly: int = 4
    monthly: int = 3


@dataclass(frozen=True, slots=True)
class Taken:
    """When a snapshot was taken, in two ways."""

    at: float
    """By the clock, unix time in seconds."""
    sequence: int = 0
    """Counted; 0: not known, of a profile that was put aside."""
    late: bool = False
    """It is what came after the snapshot of this number, when the profile was put aside."""


def newest_first(taken: Mapping[str, Taken], now: float) -> Sequence[str]:
    """Ids in their order. One that was not counted has its place by the clock, as the others were timed; last if it is of the
    future.
    """
    counted = [one for one in taken if taken[one].sequence]
    counted.sort(key=lambda one: (taken[one].sequence, taken[one].late, taken[one].at, one))
    # Up to here all that is older: whatever the clock said in between.
    places: dict[int, list[str]] = {}
    for one in sorted(taken.keys() - counted, key=lambda one: (taken[one].at, one)):
        at = taken[one].at
        before = [number for number, other in enumerate(counted, 1) if taken[other].at <= at]
        places.setdefault(max(before, default=0) if at <= now else 0, []).append(one)
    order = [*_future_first(places.get(0, []), taken, now)]
    for number, one in enumerate(counted, 1):
        order += [one, *places.get(number, [])]
    return order[::-1]


def _future_first(ids: Sequence[str], taken: Mapping[str, Taken], now: float) -> Sequence[str]:
    return sorted(ids, key=lambda one: (taken[one].at <= now, taken[one].at, one))


def kept(
    taken: Mapping[str, Taken], rule: Retention, now: float, always: Iterable[str] = ()
) -> frozenset[str]:
    """Ids of the snapshots that stay, out of those of a client. The newest one always stays, and ``always``.

    Each era is counted by itself: no day that was none pushes out one that was, and nobody can tell which is which.
    """
    order = newest_first(taken, now)
    stay = {*always, *order[: max(1, rule.last)]}
    for era in _eras(taken):
        for count, form in ((rule.daily, "%Y-%j"), (rule.weekly, "%G-%V"), (rule.monthly, "%Y-%m")):
            periods: dict[str, str] = {}
            for one in (one for one in order if one in era):
                periods.setdefault(datetime.fromtimestamp(taken[one].at, UTC).strftime(form), one)
            stay |= {periods[period] for period in sorted(periods, reverse=True)[:count]}
    return frozenset(stay & taken.keys())


def _eras(taken: Mapping[str, Taken]) -> Sequence[set[str]]:
    """Those that are more than a year from all others: of a clock that was wrong."""
    eras: list[set[str]] = []
    before = -_ERA_S
    for one in sorted(taken, key=lambda one: taken[one].at):
        if taken[one].at - before >= _ERA_S:
            eras.append(set())
        eras[-1].add(one)
        before = taken[one].at
    return eras
