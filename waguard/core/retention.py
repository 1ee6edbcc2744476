"""Which snapshots are kept: the newest ones, and of each day, week and month before that the last one. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Retention:
    """How many of each: a snapshot stays as long as any of them holds it."""

    last: int = 3
    daily: int = 7
    weekly: int = 4
    monthly: int = 3


def kept(taken: Mapping[str, float], rule: Retention, always: Iterable[str] = ()) -> frozenset[str]:
    """Ids of the snapshots that stay, out of id -> unix time in seconds. The newest one always stays, and ``always``."""
    newest_first = sorted(taken, key=lambda one: (taken[one], one), reverse=True)
    stay = {*always, *newest_first[: max(1, rule.last)]}
    for count, form in ((rule.daily, "%Y-%j"), (rule.weekly, "%G-%V"), (rule.monthly, "%Y-%m")):
        periods: dict[str, str] = {}
        for one in newest_first:
            periods.setdefault(datetime.fromtimestamp(taken[one], UTC).strftime(form), one)
        stay |= set(list(periods.values())[:count])
    return frozenset(stay & taken.keys())
