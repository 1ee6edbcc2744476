"""The page: does it answer a look? If not: does it work, and does its work get anywhere?"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from waguard.core.health import Fault
from waguard.health.probes.effort import Efforts, Moved

FAULTS = frozenset({Fault.PAGE_SILENT, Fault.PAGE_BLOCKED, Fault.PAGE_LOOPING})
_LONGER = 4.0
"""Work that shows may take so many times as long."""
_COUNTERS = (
    "JSHeapUsedSize",
    "Nodes",
    "LayoutCount",
    "RecalcStyleCount",
    "Documents",
    "Resources",
    "ArrayBufferContents",
)
"""Of `Performance.getMetrics`, which answers in the middle of a script: what changes when its work gets anywhere."""


@dataclass(slots=True)
class Silence:
    """Since the page has last answered; in seconds of the daemon's own waking time."""

    began: float
    looked: float
    ran_s: float = 0.0
    idle_s: float = 0.0
    """Since anything was last at work."""
    looks: int = 0
    changes: int = 0
    """Looks at which the page's counters were others than at the one before."""


class RendererProbe:
    """Told of each look that the page has answered, or has not."""

    def __init__(self, blocked_s: float, busy_s: float, silent_s: float = math.inf) -> None:
        self._silent_s = silent_s
        self._blocked_s = blocked_s
        self._busy_s = busy_s
        self._efforts = Efforts()
        self._silence: Silence | None = None
        self._counters: tuple[float, ...] = ()

    def answered(self) -> None:
        self._silence = None
        self._counters = ()

    @property
    def silent(self) -> bool:
        return self._silence is not None

    @property
    def silent_s(self) -> float:
        return 0.0 if self._silence is None else self._silence.looked - self._silence.began

    def missed(
        self, now: float, waited_s: float, pids: Collection[int], metrics: object
    ) -> Mapping[Fault, str]:
        """``pids``: the browser and its renderers. ``metrics``: what `Performance.getMetrics` says, or None."""
        moved, counters = self._efforts.look(pids), _counters(metrics)
        if self._silence is None:
            self._silence, self._counters = Silence(now - waited_s, now), counters
            return {}
        changed = bool(counters and self._counters) and counters != self._counters
        self._counters = counters or self._counters
        count(self._silence, moved, now, changed=changed)
        seen = judge(self._silence, self._blocked_s, self._busy_s)
        if not seen and self.silent_s >= self._silent_s:
            return {Fault.PAGE_SILENT: f"no answer for {self.silent_s:.1f} s"}
        return seen

    @property
    def due_s(self) -> float:
        """How soon a page that stays silent may be known to hang, or to work without end."""
        if self._silence is None:
            return 0.0
        if self._silence.idle_s:
            return max(1.0, self._blocked_s - self._silence.idle_s)
        return max(1.0, self._busy_s * _longer(self._silence) - self._silence.ran_s)


def count(silence: Silence, moved: Moved, now: float, *, changed: bool) -> None:
    """One more look without an answer."""
    passed = now - silence.looked
    silence.looked = now
    silence.looks += 1
    silence.changes += changed
    silence.ran_s += moved.ran_s
    silence.idle_s = 0.0 if moved.at_work(passed) else silence.idle_s + passed


def judge(silence: Silence, blocked_s: float, busy_s: float) -> Mapping[Fault, str]:
    lasted = silence.looked - silence.began
    if silence.idle_s >= blocked_s:
        return {Fault.PAGE_BLOCKED: f"no answer for {lasted:.1f} s, and no work for {silence.idle_s:.1f} s"}
    gets_anywhere = _gets_anywhere(silence)
    if silence.ran_s >= busy_s * _longer(silence):
        shown = "its counters change" if gets_anywhere else "its counters stand still"
        worked = f"no answer for {lasted:.1f} s, and {silence.ran_s:.1f} s of work; {shown}"
        return {Fault.PAGE_LOOPING: worked}
    return {}


def _gets_anywhere(silence: Silence) -> bool:
    return silence.changes * 2 > silence.looks


def _longer(silence: Silence) -> float:
    return _LONGER if _gets_anywhere(silence) else 1.0


def _counters(metrics: object) -> tuple[float, ...]:
    if not isinstance(metrics, list):
        return ()
    values = {one.get("name"): one.get("value") for one in metrics if isinstance(one, dict)}
    found = [values.get(name) for name in _COUNTERS]
    return tuple(float(one) for one in found if isinstance(one, int | float))
