"""When a job is due: intervals, cron expressions, the machine's time zone. Pure, but for that.

Times are unix seconds of the wall clock, which jumps: a laptop sleeps, a virtual machine is resumed, somebody sets it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

from cronsim import CronSim, CronSimError

CORRECTION_S = 60.0
"""A clock that goes back by no more was put right: no time of a cron expression is due a second time for that."""
LONGEST_S = 366 * 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RIGHT = 'write an interval ("45s", "30m", "6h", "1d"), five fields of cron ("30 3 * * *") or "never"'


@dataclass(frozen=True, slots=True)
class Rule:
    """When a job runs: every ``interval_s``, or at the local times of ``cron``, or never if it has neither."""

    text: str
    interval_s: float = 0.0
    cron: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `ValueError` that says what was wrong and what would be right."""
        words = text.split()
        if words in ([], ["never"]):
            return cls("never")
        if len(words) == 5:
            return cls._cron(" ".join(words))
        interval = re.fullmatch(r"([0-9]{1,9})([smhd])", words[0])
        if len(words) > 1 or interval is None:
            raise ValueError(f"{text!r} is not a schedule: {_RIGHT}")
        seconds = int(interval[1]) * _UNITS[interval[2]]
        if not 1 <= seconds <= LONGEST_S:
            raise ValueError(f'{text!r} is not between "1s" and "366d"; for no run at all write "never"')
        return cls(words[0], interval_s=seconds)

    @classmethod
    def _cron(cls, text: str) -> Self:
        try:
            next(CronSim(text, datetime(2000, 1, 1)))  # noqa: DTZ001 (any zone)
        except CronSimError as error:
            why = str(error)
        except StopIteration:
            why = "no day is ever like that"
        else:
            return cls(text, cron=text)
        raise ValueError(
            f'{text!r} is not a cron expression of minute, hour, day, month and weekday ("30 3 * * *"): {why}'
        )

    def __str__(self) -> str:
        return self.text


class _Local(tzinfo):
    """The machine's time zone. What `datetime.astimezone` gives instead is one offset, wrong beyond the next change."""

    def fromutc(self, dt: datetime) -> datetime:
        seconds = dt.replace(tzinfo=UTC).timestamp()
        return datetime.fromtimestamp(seconds).replace(tzinfo=self)  # noqa: DTZ006 (it knows the fold)

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        if dt is None:
            return None
        naive = dt.replace(tzinfo=None)
        return naive - datetime.fromtimestamp(naive.timestamp(), UTC).replace(tzinfo=None)

    def dst(self, dt: datetime | None) -> timedelta | None:
        """Needed by nobody."""

    def tzname(self, dt: datetime | None) -> str | None:
        """Needed by nobody."""


LOCAL = _Local()


def next_run(rule: Rule, since: float, now: float) -> float | None:
    """When a job is to run that last ran at ``since`` (or has not yet run since the daemon started then).

    Never before ``now``: what was missed, however often, is due now, once. None: never.
    """
    at = _after(rule, believed(rule, since, now))
    return None if at is None else max(at, now)


def believed(rule: Rule, since: float, now: float) -> float:
    """``since``, or ``now`` if that is still to come: the clock was wrong, and no job waits until it is right again."""
    return now if since > now + (CORRECTION_S if rule.cron else 0.0) else since


def jitter_bound_s(rule: Rule, at: float, jitter_s: float) -> float:
    """How much later than ``at`` a run may begin: not by more than a tenth of the time to the run after it."""
    following = _after(rule, at)
    return 0.0 if following is None else min(jitter_s, (following - at) / 10)


def _after(rule: Rule, since: float) -> float | None:
    """The first time of the rule later than ``since``.

    When clocks go forward, a time of day that is skipped is made up for right after; when they go back, one that
    comes twice counts once, as in Debian's cron. `CronSim` may name the first of the two while the second is on.
    """
    if rule.interval_s:
        return since + rule.interval_s
    if not rule.cron:
        return None
    times = (at.timestamp() for at in CronSim(rule.cron, datetime.fromtimestamp(since, LOCAL)))
    return next((at for at in times if at > since), None)
