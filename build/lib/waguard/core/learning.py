"""What is learned from what was: how long to wait, when a client is quiet. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from waguard.core.model import Stage

LEARNED_STAGES = (Stage.PREPARE, Stage.START, Stage.OPEN)
"""The others have deadlines that are promises, not guesses."""

_MOST_MEASURED = 1e15
"""So that no sum of them overflows."""


def measured(value: object) -> float | None:
    """What was kept as a measure: a number from 0 on; None if it is none, since a disk or somebody has changed it."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_MEASURED:
        return float(value)
    return None


# --- how long to wait -------------------------------------------------------------------------------------

ENOUGH = 5
"""With fewer observations nothing is said."""
_QUANTILE, _MARGIN = 0.95, 2.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far from its default a deadline may be learned, as factors of it: floor <= 1 <= ceiling."""

    floor: float = 0.25
    ceiling: float = 3.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """``why`` is a sentence for people, without its full stop."""

    seconds: float
    why: str


def deadline(own: Sequence[float], all_: Sequence[float], default: float, bounds: Bounds) -> Deadline:
    """How long to wait, in seconds, for what took ``own`` at this client and ``all_`` at all, the newest last.

    A deadline that was missed counts as an observation of its length. Twice what nearly all took, within the bounds;
    and twice what two of the client's last three took, so that a client that has become slower is waited for longer each
    time. With too few observations of this client those of all count, then the default.
    """
    if len(own) >= ENOUGH:
        near = quantile(own, _QUANTILE)
        wanted, why = _MARGIN * near, f"95 % of {len(own)} here took at most {near:.1f} s"
    elif len(all_) >= ENOUGH:
        near = quantile(all_, _QUANTILE)
        wanted, why = _MARGIN * near, f"95 % of {len(all_)} of all clients took at most {near:.1f} s"
    else:
        wanted, why = default, "the default: too little is known yet"
    if len(own) > 1 and (lately := sorted(own[-3:])[-2]) * _MARGIN > wanted:
        wanted, why = _MARGIN * lately, f"two of the last three here took {lately:.1f} s or longer"
    lowest, highest = bounds.floor * default, bounds.ceiling * default
    if wanted < lowest:
        return Deadline(lowest, f"{why}; never less than {lowest:g} s")
    if wanted > highest:
        return Deadline(highest, f"{why}; never more than {highest:g} s")
    return Deadline(wanted, why)


def quantile(samples: Iterable[float], q: float) -> float:
    """The smallest sample that a share ``q`` of them does not exceed (nearest rank). There is one at least."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


# --- when a client is quiet -------------------------------------------------------------------------------

WEEK_H = 168
_NIGHT = range(2, 5)
"""Hours of the day in which a client is taken to be quiet of whom too little is known."""
_HALVED_W = 2.0
"""Weeks after which what was counts half."""
_SEEN_S = 60.0
"""An hour of the week counts as known once so much of it was seen."""


def hour_of_week(local: datetime) -> int:
    """0 is the hour after midnight of Monday."""
    return local.weekday() * 24 + local.hour


@dataclass(slots=True)
class Activity:
    """How much a client does in each hour of the week, and for how many seconds it was seen at it."""

    amounts: list[float] = field(default_factory=lambda: [0.0] * WEEK_H)
    seen: list[float] = field(default_factory=lambda: [0.0] * WEEK_H)

    def add(self, hour: int, amount: float, seen_s: float, weeks_ago: float = 0.0) -> None:
        """``hour`` of the week; what was ``weeks_ago`` counts less."""
        weight = 0.5 ** (weeks_ago / _HALVED_W)
        self.amounts[hour] += amount * weight
        self.seen[hour] += seen_s * weight

    def fade(self, weeks: float) -> None:
        """So much time has passed since."""
        weight = 0.5 ** (weeks / _HALVED_W)
        self.amounts = [amount * weight for amount in self.amounts]
        self.seen = [seconds * weight for seconds in self.seen]

    @property
    def total(self) -> float:
        return sum(self.amounts)


def quiet(activity: Activity, hour: int) -> bool:
    """Whether this hour of the week is one of the three in its day in which the client does least."""
    day = hour - hour % 24
    levels = [_level(activity, one) for one in range(day, day + 24)]
    if any(level is None for level in levels):
        return hour % 24 in _NIGHT
    # Of hours that are alike the night's come first.
    ranked = sorted(range(24), key=lambda one: (levels[one], one not in _NIGHT, one))
    return hour % 24 in ranked[: len(_NIGHT)]


def _level(activity: Activity, hour: int) -> float | None:
    """Activity per second seen, in this hour of the week, else in this hour of any day; none if it was never seen."""
    for hours in ([hour], range(hour % 24, WEEK_H, 24)):
        seen = sum(activity.seen[one] for one in hours)
        if seen >= _SEEN_S:
            return sum(activity.amounts[one] for one in hours) / seen
    return None
