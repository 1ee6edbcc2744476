"""What the daemon has learned, in memory: from the history at its start, and from the same events as they happen."""

import time
from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from waguard.config.sections import Config
from waguard.core import learning
from waguard.core.learning import LEARNED_STAGES, Activity, Bounds, Deadline, measured
from waguard.core.model import ClientCode, Stage
from waguard.observe.bus import Event
from waguard.schedule.rule import LOCAL

RECALLED = ("attempt.done", "stage.late")
"""The events that it learns from, besides what clients do."""
_WEEK_S = 7 * 86_400.0
_OWN, _ALL = 60, 1000
"""So many observations of a stage are kept, the newest."""
_REQUEST = 1.0
"""What somebody asks of a client's session counts like so many seconds of its browser's CPU time."""


def activity_of(event: Event) -> tuple[float, float] | None:
    """How much of a client's activity an event tells, and of how many seconds; none if it tells nothing of it."""
    told = event.fields
    if event.name == "health.activity":
        return float(told.get("cpu_s", 0.0)), float(told.get("period_s", 0.0))
    if event.name != "request.done" or told.get("method") in {"GET", "HEAD"} or told.get("dry_run"):
        return None
    return (_REQUEST, 0.0) if told.get("http_status", 500) < 400 else None


class Learned:
    """Answers at once, and grows with the number of clients only."""

    def __init__(
        self,
        config: Config,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``now`` tells which hour it is, ``clock`` how long ago something was: the first may jump."""
        self._deadlines = config.deadlines
        self._bounds = Bounds(config.learning.floor, config.learning.ceiling)
        self._enabled = config.learning.enabled
        self._now = now
        self._clock = clock
        self._own: MutableMapping[tuple[ClientCode, str], array[float]] = defaultdict(lambda: array("d"))
        self._all: MutableMapping[str, deque[float]] = defaultdict(lambda: deque(maxlen=_ALL))
        self._activity: MutableMapping[ClientCode, Activity] = defaultdict(Activity)
        self._began, self._faded_at = now(), clock()

    # --- for the sessions -----------------------------------------------------------------------------

    def deadline(self, code: ClientCode | None, stage: Stage) -> Deadline:
        """How long to wait for a stage of this client; of no client: of one that is not known yet.

        Less than configured only for `open`: how soon a browser starts is this machine's doing, which has bad moments.
        """
        default = self.configured_s(stage)
        if not self._enabled or stage not in LEARNED_STAGES:
            return Deadline(default, "as configured")
        own = self._own.get((code, stage.value), ()) if code is not None else ()
        bounds = self._bounds if stage is Stage.OPEN else replace(self._bounds, floor=1.0)
        return learning.deadline(own, self._all.get(stage.value, ()), default, bounds)

    def limit_s(self, code: ClientCode, stage: Stage) -> float:
        """How long the stage may take: as configured, or longer where that was learned."""
        return max(self.expected_s(code, stage), self.configured_s(stage))

    def expected_s(self, code: ClientCode, stage: Stage) -> float:
        """How long it takes by what was learned, with a margin."""
        return self.deadline(code, stage).seconds

    def configured_s(self, stage: Stage) -> float:
        return float(getattr(self._deadlines, stage))

    def quiet(self, code: ClientCode) -> bool:
        """Whether this is an hour in which the client does little."""
        activity = self._activity.get(code) if self._enabled else None
        return learning.quiet(activity or Activity(), self._hour(self._now()))

    def activity(self, code: ClientCode) -> float:
        """How much the client did in the last weeks, to compare with others'."""
        activity = self._activity.get(code)
        return activity.total if activity is not None else 0.0

    # --- in -------------------------------------------------------------------------------------------

    def heard(self, event: Event) -> None:
        """The bus's subscriber."""
        if event.client is None:
            return
        if event.name in RECALLED:
            self.recall(event.name, event.client, event.fields)
        elif (did := activity_of(event)) is not None:
            self._fade()
            self._activity[event.client].add(self._hour(self._now()), *did)

    def recall(self, name: str, code: ClientCode, told: Mapping[str, Any]) -> None:
        """An event, the older ones first. One that is not as expected (another version's, or a disk's) teaches nothing."""
        with suppress(KeyError, TypeError, ValueError):
            if name == "attempt.done":
                for stage, ms in dict(told["stages"]).items():
                    self._took(code, stage, ms, 1000)
            elif told["at_work"]:  # what hangs is not slow, and gets no more time for it
                self._took(code, told["stage"], told["deadline_s"], 1)

    def recall_activity(self, code: ClientCode, at: float, amount: float, seen_s: float) -> None:
        """Something that the client did before this daemon was started, at a unix time."""
        weeks = max(0.0, self._began - at) / _WEEK_S
        self._activity[code].add(self._hour(at), amount, seen_s, weeks)

    def _took(self, code: ClientCode, stage: str, told: object, per_s: int) -> None:
        if stage in LEARNED_STAGES and (took := measured(told)) is not None:
            own = self._own[code, stage]
            own.append(took / per_s)
            del own[:-_OWN]
            self._all[stage].append(took / per_s)

    def _fade(self) -> None:
        """Once a day is often enough."""
        weeks = (self._clock() - self._faded_at) / _WEEK_S
        if weeks > 1 / 7:
            self._faded_at = self._clock()
            for activity in self._activity.values():
                activity.fade(weeks)

    @staticmethod
    def _hour(at: float) -> int:
        return learning.hour_of_week(datetime.fromtimestamp(at, LOCAL))
