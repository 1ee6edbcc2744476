"""Work that is done again and again: when it is due (pure), and the tasks that do it and remember when they did.

Times are unix seconds of the wall clock, which jumps: a laptop sleeps, a virtual machine is resumed, somebody sets it.
"""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from cronsim import CronSim, CronSimError
from pydantic import Field, TypeAdapter, ValidationError

from waguard.core.catalogue import mistake
from waguard.core.shown import JobView
from waguard.errors import ShuttingDown, WaguardError
from waguard.system import shortage
from waguard.system.files import in_thread, read_state, write_atomically
from waguard.system.tasks import background

LOOK_S = 60.0
"""The wall clock is looked at this often at least, however far off the next run is."""
CORRECTION_S = 60.0
"""A clock that goes back by no more was put right: no time of a cron expression is due a second time for that."""
LONGEST_S = 366 * 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RIGHT = 'write an interval ("45s", "30m", "6h", "1d"), five fields of cron ("30 3 * * *") or "never"'

Work = Callable[[], Awaitable[None]]
Publish = Callable[..., None]
"""`waguard.observe.bus.Bus.publish`."""


# --- when: pure, but for the machine's time zone ------------------------------------------------------


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


# --- the work -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended by itself, well or with an error. One that was called off is none and will be made up for."""

    at: Annotated[float, Field(ge=0, le=32_503_680_000)]  # the year 3000
    """When it began."""
    ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    error: str = ""
    """Empty: it went well."""


_RUNS = TypeAdapter(dict[str, Run])


class Job:
    """One piece of work and its rule. It never runs twice at a time."""

    def __init__(self, name: str, rule: Rule, work: Work, jitter_s: float, now: Callable[[], float]) -> None:
        self.name = name
        self.rule = rule
        self.last: Run | None = None
        self.failure: Exception | None = None
        """What the last run has raised."""
        self.run: asyncio.Task[None] | None = None
        """The present run, or the last one."""
        self._work = work
        self._jitter_s = jitter_s
        self._now = now
        self._since = 0.0
        self._next_at: float | None = None
        self._looked = 0.0
        """When the clock was looked at last, to see that it jumps back."""

    @property
    def running(self) -> bool:
        return self.run is not None and not self.run.done()

    def view(self) -> JobView:
        last, error = self.last, "" if self.last is None else self.last.error
        at, ms, ok = (None, None, None) if last is None else (last.at, last.ms, not error)
        return JobView(self.name, str(self.rule), self._next_at, at, ms, ok, error, self.running)

    def plan(self, since: float, now: float) -> None:
        """Say when it runs next, if it last ran (or the daemon started) at ``since``."""
        self._since, self._looked = believed(self.rule, since, now), now
        at = next_run(self.rule, self._since, now)
        if at is not None:
            at += random.uniform(0, jitter_bound_s(self.rule, at, self._jitter_s))  # noqa: S311 (no secret)
        self._next_at = at

    async def keep(self, run: Callable[[], Awaitable[object]]) -> None:
        """``run`` whenever it is time, for as long as it ever will be."""
        while (at := self._next_at) is not None:
            now = self._now()
            if now < self._looked:
                self.plan(self._since, now)
            elif now >= at:
                await run()
            else:
                self._looked = now
                await asyncio.sleep(min(LOOK_S, at - now))

    async def do(self) -> Run:
        """The work, once. What it raises is in the answer; only being called off is raised."""
        at, began, error = self._now(), time.monotonic(), ""
        self.failure = None
        self.plan(at, at)
        try:
            await self._work()
        except asyncio.CancelledError as failure:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = repr(failure)  # of something that the work waited for
        except Exception as failure:  # noqa: BLE001 (it runs again next time)
            self.failure = failure
            error = str(failure) if isinstance(failure, WaguardError) else repr(failure)
        ms = round((time.monotonic() - began) * 1000, 1)
        self.last = Run(at, ms, error.encode(errors="backslashreplace").decode())
        return self.last


class Schedule:
    """All jobs, each with a task that waits for its time, and the file that remembers their last runs."""

    def __init__(
        self, path: Path, jitter_s: float, publish: Publish, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._jitter_s = jitter_s
        self._publish = publish
        self._now = now
        self._jobs: dict[str, Job] = {}
        self._runs: dict[str, Run] = {}
        """As in the file; also of jobs that are not there at present."""
        self._waiting: list[asyncio.Task[None]] = []
        self._open = False
        self._writing = asyncio.Lock()

    def add(self, name: str, rule: Rule, work: Work) -> None:
        """Before `start`."""
        if self._open or name in self._jobs:
            raise ValueError(f"{name}: jobs are added once each, and before the start")
        self._jobs[name] = Job(name, rule, work, self._jitter_s, self._now)

    async def start(self) -> None:
        """Take up where the file left off. What was missed meanwhile is due at once; the first run of all is not."""
        await self._read()
        self._open = True
        now = self._now()
        for name, job in self._jobs.items():
            job.last = self._runs.get(name)
            job.plan(now if job.last is None else job.last.at, now)
            waiting = partial(job.keep, partial(self._join, job))
            self._waiting.append(background(waiting, f"schedule:{name}", self._publish, again=True))

    async def close(self) -> None:
        """Call off what waits and what runs, and wait for its end. May be called off, and called again."""
        self._open = False
        runs = [job.run for job in self._jobs.values() if job.run is not None]
        tasks = [task for task in (*self._waiting, *runs) if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def run_now(self, name: str) -> JobView:
        """Run a job, or join its present run, and show what became of it. Called off, the run goes on.

        Raises `KeyError` if there is no such job, `ShuttingDown` if the schedule was closed meanwhile or is not open.
        """
        job = self._jobs[name]
        if not self._open:
            raise ShuttingDown("The daemon is shutting down.")
        run = await self._join(job)
        if run.cancelled():
            raise ShuttingDown("The daemon is shutting down.")
        return job.view()

    def views(self) -> Sequence[JobView]:
        return [job.view() for job in self._jobs.values()]

    async def _join(self, job: Job) -> "asyncio.Task[None]":
        run = job.run
        if run is None or run.done():
            run = job.run = asyncio.create_task(self._run(job), name=f"schedule:{job.name}:run")
        await asyncio.wait([run])
        return run

    async def _run(self, job: Job) -> None:
        done = self._runs[job.name] = await job.do()
        if job.failure is not None and shortage.known(job.failure) is None:
            self._publish("internal.error", **mistake(f"schedule.{job.name}", job.failure))
        if done.error:
            self._publish("schedule.failed", job=job.name, error=done.error)
        else:
            self._publish("schedule.done", job=job.name, duration_ms=done.ms)
        try:
            async with self._writing:  # an older state must not overtake a newer one
                await in_thread(write_atomically, self._path, _RUNS.dump_json(self._runs, indent=2) + b"\n")
        except WaguardError as error:
            self._warn("schedule.write_failed", error)

    async def _read(self) -> None:
        try:
            self._runs = _RUNS.validate_json(await in_thread(read_state, self._path))
        except FileNotFoundError:
            return
        except ValidationError as error:
            self._warn("schedule.unreadable", error.errors(include_url=False)[0]["msg"])
        except OSError as error:
            self._warn("schedule.unreadable", error.strerror)

    def _warn(self, name: str, error: Any) -> None:
        self._publish(name, level="warning", path=str(self._path), error=str(error))
