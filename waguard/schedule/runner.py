"""Work that is done again and again: the tasks that do it when it is due, and remember when they did."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from waguard.core.actor import Actor, ActorKind, acting
from waguard.core.catalogue import mistake
from waguard.core.shown import JobView
from waguard.errors import ShuttingDown, WaguardError
from waguard.schedule.rule import Rule, believed, jitter_bound_s, next_run
from waguard.system import shortage
from waguard.system.files import read_state, write_atomically
from waguard.system.tasks import background
from waguard.system.threads import in_thread

LOOK_S = 60.0
"""The wall clock is looked at this often at least, however far off the next run is."""

Work = Callable[[], Awaitable[None]]
Publish = Callable[..., None]
"""`waguard.observe.bus.Bus.publish`."""


@dataclass(frozen=True, slots=True)
class JobRun:
    """A run that has ended by itself, well or with an error. One that was called off is none and will be made up for."""

    at: Annotated[float, Field(ge=0, le=32_503_680_000)]  # the year 3000
    """When it began."""
    ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    error: str = ""
    """Empty: it went well."""


_RUNS = TypeAdapter(dict[str, JobRun])


class Job:
    """One piece of work and its rule. It never runs twice at a time."""

    def __init__(self, name: str, rule: Rule, work: Work, jitter_s: float, now: Callable[[], float]) -> None:
        self.name = name
        self.rule = rule
        self.last: JobRun | None = None
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

    async def keep(self, run: Callable[[], Awaitable[object]], look_s: float) -> None:
        """``run`` whenever it is time, for as long as it ever will be; the clock is looked at every ``look_s`` at least."""
        while (at := self._next_at) is not None:
            now = self._now()
            if now < self._looked:
                self.plan(self._since, now)
            elif now >= at:
                await run()
            else:
                self._looked = now
                await asyncio.sleep(min(look_s, at - now))

    async def do(self) -> JobRun:
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
        self.last = JobRun(at, ms, error.encode(errors="backslashreplace").decode())
        return self.last


class Schedule:
    """All jobs, each with a task that waits for its time, and the file that remembers their last runs."""

    def __init__(
        self,
        path: Path,
        jitter_s: float,
        publish: Publish,
        now: Callable[[], float] = time.time,
        look_s: float = LOOK_S,
    ) -> None:
        self._look_s = look_s
        self._path = path
        self._jitter_s = jitter_s
        self._publish = publish
        self._now = now
        self._jobs: dict[str, Job] = {}
        self._runs: dict[str, JobRun] = {}
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
            waiting = partial(job.keep, partial(self._join, job), self._look_s)
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
            with acting(Actor(ActorKind.SCHEDULE, job.name)):
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
