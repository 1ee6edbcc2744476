"""Whether a browser that is well should be started anew, in a quiet hour. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

_AHEAD_H = 24.0
"""To the same quiet hour of the next day."""
_ENOUGH_H = 1.0
"""Of looks, before a trend is believed."""
_YOUNG_H = 6.0
"""Another browser would soon be no better than one that is younger: at most one for each night."""


@dataclass(frozen=True, slots=True)
class Limits:
    """0 sets no limit."""

    soft_mb: float
    hard_mb: float
    max_age_h: float


def due(memory: Sequence[tuple[float, float]], age_h: float, upgraded: str, limits: Limits) -> str:
    """Why it should; empty if it need not.

    ``memory``: looks as (hours, MiB), the newest last. ``upgraded``: the version that is installed now, if it is another.
    """
    if age_h < _YOUNG_H:
        return ""
    now_mb = memory[-1][1] if memory else 0.0
    if limits.soft_mb and now_mb > limits.soft_mb:
        return f"it takes {now_mb:.0f} MiB, more than recycle.soft_memory_mb = {limits.soft_mb:g}"
    slope = trend(memory)
    if limits.hard_mb and slope > 0 and now_mb + _AHEAD_H * slope > limits.hard_mb:
        return f"it takes {now_mb:.0f} MiB, and {slope:.0f} MiB more each hour"
    if limits.max_age_h and age_h > limits.max_age_h:
        return f"it is {age_h:.0f} hours old, more than recycle.max_age_h = {limits.max_age_h:g}"
    return f"version {upgraded} of the browser is installed" if upgraded else ""


def trend(memory: Sequence[tuple[float, float]]) -> float:
    """MiB more each hour, by least squares; 0 if the looks tell too little yet."""
    if len(memory) < 2 or memory[-1][0] - memory[0][0] < _ENOUGH_H:
        return 0.0
    middle = sum(at for at, _ in memory) / len(memory)
    mean = sum(mb for _, mb in memory) / len(memory)
    spread = sum((at - middle) ** 2 for at, _ in memory)
    return sum((at - middle) * (mb - mean) for at, mb in memory) / spread
