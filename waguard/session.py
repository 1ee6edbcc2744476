"""One task per client code: takes events from its inbox, asks the table, carries out the orders.

Slow orders run in a task of their own, one at a time, and come back as events, so that a stop is heard in the
middle of a start. The session owns its browser, its profile's lock, its tasks and all it remembers; nothing else
touches them.
"""

import asyncio
import contextlib
import os
import random
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from waguard.browser.find import Binary
from waguard.browser.launch import Browser
from waguard.browser.page import Page
from waguard.config import Config
from waguard.core import machine
from waguard.core.machine import State
from waguard.core.model import ClientCode, Failure, Link, Reading, Stage
from waguard.core.policy import RestartPolicy
from waguard.deadline import within
from waguard.errors import BrowserFailed, NotProvedGone, PageFailed, ProfileLocked, ShuttingDown, WaguardError
from waguard.events import Bus
from waguard.files import in_thread
from waguard.profile.store import Profile, Profiles
from waguard.registry import Record, Registry
from waguard.sandbox import Sandbox, reaper
from waguard.whatsapp import page as whatsapp

Item = tuple[machine.Event, asyncio.Future[None] | None]


@dataclass(frozen=True, slots=True)
class Services:
    """What every session of a daemon shares."""

    config: Config
    binary: Binary
    sandbox: Sandbox
    profiles: Profiles
    registry: Registry
    bus: Bus
    starts: asyncio.Semaphore
    probe: str
    policy: RestartPolicy


@dataclass(slots=True)
class Step:
    """One step of a cleanup, as it went."""

    step: str
    outcome: str = "nothing"
    """done | nothing (there was nothing to do) | failed"""
    ms: float = 0.0
    detail: str = ""


@dataclass(slots=True)
class Memory:
    """Everything a session remembers about its browser and its page; dropped whole by a cleanup."""

    qr: str | None = None
    qr_seen_at: float = 0.0
    """Unix time, seconds."""
    qr_seen: float = 0.0
    """Monotonic, seconds."""
    reading: Reading | None = None
    attempt: str = ""
    profile: Profile | None = None
    profile_kept: bool = False
    started_at: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds that each stage of the last attempt took."""
    automatic_restarts: int = 0


class Session:
    def __init__(self, code: ClientCode, record: Record, services: Services) -> None:
        self.code = code
        self.state = State(wanted=record.wanted)
        self.since = time.time()
        self.memory = Memory()
        self._services = services
        self._record = record
        self._inbox: asyncio.Queue[Item] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._browser: Browser | None = None
        self._lock_fd = -1
        self._slot = False
        self._work: asyncio.Task[None] | None = None
        self._watchers: list[asyncio.Task[None]] = []
        self._open_timer: asyncio.TimerHandle | None = None
        self._opened = 0.0
        self._cleanups: list[asyncio.Future[Sequence[Step]]] = []

    # --- for the supervisor ---------------------------------------------------------------------------

    async def ask(self, event: machine.Event) -> None:
        """Put an operator's wish into the inbox; returns when the table has taken it."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait((event, taken))
        await taken

    async def cleanup(self) -> Sequence[Step]:
        """Clean everything of this code; returns what each step did. A second caller joins the first."""
        report: asyncio.Future[Sequence[Step]] = asyncio.get_running_loop().create_future()
        self._cleanups.append(report)
        await self.ask(machine.CleanupAsked())
        return await report

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until ``done()``; looked at after every change. The caller sets the deadline."""
        while not done():
            await self._changed.wait()

    async def reap_leftovers(self) -> None:
        """At the daemon's start: end what an earlier daemon left. What resists is reported, and met again by `connect`."""
        try:
            async with within(Stage.KILL, self._services.config.deadlines.kill, "reaping leftovers"):
                await self._end_leftovers()
        except WaguardError as error:
            self._publish("reaper.failed", level="error", code=error.code, error=error.message)

    async def run(self) -> None:
        """The session's life; ends when cancelled, and then leaves nothing running."""
        try:
            while True:
                event, taken = await self._inbox.get()
                try:
                    await self._take(event)
                except Exception as error:  # noqa: BLE001 (one bad event must not end the session)
                    self._report_bug(type(event).__name__, error)
                if taken is not None and not taken.done():
                    taken.set_result(None)
        finally:
            await self._shut()

    async def _take(self, event: machine.Event) -> None:
        before = self.state
        self.state, orders = machine.decide(before, event, time.monotonic(), self._services.policy)
        for order in orders:
            await self._obey(order)
        self._announce(before)

    @property
    def browser_pids(self) -> Sequence[int]:
        return self._browser.run.pids() if self._browser is not None else ()

    async def screenshot(self) -> bytes:
        """A PNG of the page. Raises `PageFailed` when there is none."""
        if self._browser is None or self._browser.page is None:
            raise PageFailed(f"{self.code} has no page now.", hint=f"waguard connect {self.code}")
        async with within(Stage.OPEN, self._services.config.page.read_s, "the screenshot"):
            return await self._browser.page.screenshot()

    # --- obeying --------------------------------------------------------------------------------------

    def _tell(self, event: machine.Event) -> None:
        self._inbox.put_nowait((event, None))

    def _publish(self, name: str, **fields: Any) -> None:
        if self.memory.attempt:
            fields["attempt"] = self.memory.attempt
        self._services.bus.publish(name, client=self.code, **fields)

    def _announce(self, before: State) -> None:
        after = self.state
        if machine.status(before) != machine.status(after) or before.process != after.process:
            self.since = time.time()
        if (before.wanted, before.process, before.link, before.reason) != (
            after.wanted,
            after.process,
            after.link,
            after.reason,
        ):
            fields = {
                "status": machine.status(after).value,
                "wanted": after.wanted.value,
                "process": after.process.value,
                "link": after.link.value,
                "reason": after.reason.value if after.reason else None,
                "was": machine.status(before).value,
            }
            self._publish("session.changed", **fields)
        if after.failure is not None and after.failure != before.failure:
            failure = after.failure
            fields = dict(failure.details) | {
                "code": failure.code,
                "error": failure.message,
                "stage": failure.stage.value if failure.stage else None,
            }
            self._publish("session.failure", level="warning", **fields)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _obey(self, order: machine.Order) -> None:
        match order:
            case machine.Remember(wanted):
                await self._save(replace(self._record, wanted=wanted))
            case machine.Disarm():
                if self._open_timer is not None:
                    self._stage(Stage.OPEN, self._opened)
                self._disarm()
            case machine.ReloadQr(epoch):
                self._watch(self._reload_qr(epoch), "reload-qr")
            case machine.Prepare(epoch):
                await self._begin(self._prepare(order), order, lambda why: machine.Failed(epoch, why))
            case machine.Launch(epoch):
                await self._begin(self._launch(epoch), order, lambda why: machine.Failed(epoch, why))
            case machine.Open(epoch):
                await self._begin(self._open(epoch), order, lambda why: machine.Failed(epoch, why))
            case machine.Stop(epoch):
                await self._begin(self._stop(order), order, lambda why: machine.NotGone(epoch, why))
            case machine.Clean(epoch):
                await self._begin(self._clean(epoch), order, lambda why: machine.Cleaned(epoch, why))
            case machine.Wait(epoch):
                await self._begin(self._wait(order), order, lambda _: machine.WaitEnded(epoch))

    async def _begin(
        self, work: Coroutine[Any, Any, None], order: machine.Order, broke: Callable[[Failure], machine.Event]
    ) -> None:
        """Start slow work in the place of whatever is under way; ``broke`` is the fact if it fails for no known reason."""
        await self._call_off()
        if not isinstance(order, machine.Launch):
            self._release_slot()
        self._work = self._spawn(work, type(order).__name__.lower(), broke)

    def _spawn(
        self,
        work: Coroutine[Any, Any, None],
        name: str,
        broke: Callable[[Failure], machine.Event] | None = None,
    ) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 (a mistake of ours must not leave the session waiting)
                self._report_bug(name, error)
                if broke is not None:
                    self._tell(broke(Failure("internal", f"{name}: {error!r}")))

        return asyncio.create_task(guarded(), name=f"{self.code}:{name}")

    def _report_bug(self, where: str, error: Exception) -> None:
        trace = "".join(traceback.format_exception(error))
        self._publish("internal.error", level="error", where=where, error=repr(error), trace=trace)

    async def _call_off(self) -> None:
        if self._work is not None:
            await _ended(self._work)
            self._work = None

    def _watch(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A task that goes on beside the work, as long as the browser is up."""
        self._watchers = [task for task in self._watchers if not task.done()]
        self._watchers.append(self._spawn(work, name))

    async def _stop_watching(self) -> None:
        self._disarm()
        watchers, self._watchers = self._watchers, []
        for task in watchers:
            await _ended(task)

    def _disarm(self) -> None:
        if self._open_timer is not None:
            self._open_timer.cancel()
            self._open_timer = None

    def _release_slot(self) -> None:
        if self._slot:
            self._slot = False
            self._services.starts.release()

    def _stage(self, stage: Stage, began: float) -> None:
        ms = round((time.monotonic() - began) * 1000, 1)
        self.memory.stages[stage.value] = ms
        self._publish("stage.done", stage=stage.value, duration_ms=ms)

    async def _save(self, record: Record) -> None:
        """Write the registry if it changes; a full disk is reported, and what is in memory stays true."""
        if record == self._record:
            return
        self._record = record
        try:
            await in_thread(self._services.registry.write, self.code, record)
        except WaguardError as error:
            self._publish("registry.write_failed", level="error", code=error.code, error=str(error))
            if record.launch is not None and self._browser is None:
                raise  # nothing is started that is not written down first

    # --- the slow orders ------------------------------------------------------------------------------

    async def _prepare(self, order: machine.Prepare) -> None:
        deadlines = self._services.config.deadlines
        self._new_attempt()
        try:
            began = time.monotonic()
            async with within(Stage.ADMIT, deadlines.admit, "waiting for other starts to finish"):
                await self._services.starts.acquire()
                self._slot = True
            self._stage(Stage.ADMIT, began)
            began = time.monotonic()
            async with within(Stage.PREPARE, deadlines.prepare, "preparing the profile"):
                await self._end_leftovers()
                await in_thread(self._take_profile, order.retire)
            self._stage(Stage.PREPARE, began)
        except WaguardError as error:
            self._release_slot()
            self._tell(machine.Failed(order.epoch, _failure(error, Stage.PREPARE)))
        else:
            self._tell(machine.Prepared(order.epoch))

    def _new_attempt(self) -> None:
        if self.memory.attempt and self.state.failure is not None:
            self.memory.automatic_restarts += 1
        self.memory.attempt = secrets.token_hex(4)
        self.memory.stages = {}
        self.memory.qr = None
        self.memory.reading = None
        self.memory.started_at = None

    async def _end_leftovers(self) -> None:
        """Prove gone whatever an earlier launch of this code left: one we hold, or one the registry knows."""
        if self._browser is not None:
            await self._end_browser()
        elif self._record.launch is not None:
            killed = await reaper.reap(self._record.launch)
            if killed:
                self._publish("reaper.killed", level="warning", pids=killed)
            await self._save(replace(self._record, launch=None))

    def _take_profile(self, retire: bool) -> None:
        """In a thread: the current profile, or a new one, with its lock."""
        profiles = self._services.profiles
        if retire and (old := profiles.current(self.code)) is not None:
            profiles.retire(self.code, "fresh")
            profiles.drop_lock(old)
        self._drop_lock()
        current = profiles.current(self.code)
        profile = current or profiles.create(self.code)
        try:
            self._lock_fd = profiles.lock(profile)
        except ProfileLocked as error:
            holders = reaper.lock_holders(profile.lock)
            raise ProfileLocked(error.message, hint=error.hint, **error.details, pids=holders) from None
        self._services.sandbox.check(profile.path)
        self.memory.profile = profile
        self.memory.profile_kept = current is not None

    def _drop_lock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    async def _launch(self, epoch: int) -> None:
        services, profile = self._services, self.memory.profile
        assert profile is not None  # noqa: S101 (Prepared came first)
        began = time.monotonic()
        try:
            async with within(Stage.START, services.config.deadlines.start, "starting the browser"):
                launch = reaper.Launch(
                    secrets.token_hex(16), services.sandbox.kind, profile.generation, time.time()
                )
                await self._save(replace(self._record, launch=launch))
                settings = services.config.browser
                browser = self._browser = Browser.spawn(
                    services.sandbox, services.binary, settings, profile.path, self._lock_fd, launch.token
                )
                self._drop_lock()  # the sandbox holds it from here, until all of it is gone
                identities = tuple(await browser.run.identify())
                self._watch(self._watch_exit(epoch, browser), "exit")
                await self._save(replace(self._record, launch=replace(launch, processes=identities)))
                self.memory.started_at = time.time()
                self._publish("browser.spawned", pid=identities[0].pid, sandbox=browser.run.kind)
                await browser.go(services.binary, settings)
            self._stage(Stage.START, began)
        except WaguardError as error:
            if self._browser is not None and "stderr" not in error.details:
                error.details = {**error.details, "stderr": list(self._browser.last_words())}
            self._tell(machine.Failed(epoch, _failure(error, Stage.START)))
        else:
            self._tell(machine.Started(epoch))
        finally:
            self._release_slot()

    async def _watch_exit(self, epoch: int, browser: Browser) -> None:
        how = await browser.run.exited()
        error = BrowserFailed(f"The browser ended by itself ({how}).", stderr=list(browser.last_words()))
        self._tell(machine.BrowserExited(epoch, _failure(error, None)))

    async def _watch_pipe(self, epoch: int, browser: Browser) -> None:
        """A browser that closed its pipe is about to end; one that does not is of no use either."""
        why = await browser.disconnected()
        try:
            async with within(Stage.CLOSE, self._services.config.deadlines.close, "ending without its pipe"):
                await browser.run.exited()  # `_watch_exit` tells
        except WaguardError:
            self._tell(machine.BrowserExited(epoch, Failure("page_failed", why)))

    async def _open(self, epoch: int) -> None:
        browser, config = self._browser, self._services.config
        assert browser is not None and browser.page is not None  # noqa: S101, PT018 (Started came first)
        self._opened = time.monotonic()
        late = Failure(
            "deadline_exceeded",
            f"Stage open: the page was not usable within {config.deadlines.open:g} s.",
            Stage.OPEN,
            "Is the network up? If WhatsApp Web is just slow here, raise deadlines.open in the configuration.",
            (("stage", Stage.OPEN.value), ("deadline_s", config.deadlines.open)),
        )
        self._open_timer = asyncio.get_running_loop().call_later(
            config.deadlines.open, lambda: self._tell(machine.DeadlinePassed(epoch, late))
        )
        self._watch(self._watch_pipe(epoch, browser), "pipe")
        browser.page.on_crash(lambda: self._tell(machine.PageCrashed(epoch)))
        self._watch(self._read_page(epoch, browser.page), "read")
        try:
            await browser.page.open(config.whatsapp.url)
        except WaguardError as error:
            if browser.connected:  # else the watchers tell what became of it
                self._tell(machine.Failed(epoch, _failure(error, Stage.OPEN)))

    async def _read_page(self, epoch: int, page: Page) -> None:
        """Look at the page again and again; tell what changed."""
        config = self._services.config.page
        misses = 0
        while True:
            try:
                async with asyncio.timeout(config.read_s):
                    signs = await page.evaluate(self._services.probe)
            except TimeoutError:
                misses += 1
                self._tell(machine.PageSilent(epoch, misses))
                continue
            except PageFailed:
                signs = None  # between two documents; a pipe that is gone ends the browser, which is watched
            reading = whatsapp.read(signs)
            if reading != self.memory.reading or reading.qr_exhausted or misses:
                self._note(reading)
                self._tell(machine.PageRead(epoch, reading))
            misses = 0
            loading = self.state.link in {Link.UNKNOWN, Link.LOADING}
            await asyncio.sleep(config.poll_loading_s if loading else config.poll_s)

    def _note(self, reading: Reading) -> None:
        memory = self.memory
        memory.reading = reading
        if reading.link is Link.UNKNOWN:
            return
        if reading.qr != memory.qr:
            memory.qr, memory.qr_seen_at, memory.qr_seen = reading.qr, time.time(), time.monotonic()
            if reading.qr is not None:
                self._publish("session.qr_shown")

    async def _reload_qr(self, epoch: int) -> None:
        if self._browser is None or self._browser.page is None or epoch != self.state.epoch:
            return
        with contextlib.suppress(PageFailed, TimeoutError):
            async with asyncio.timeout(self._services.config.page.read_s):
                clicked = await self._browser.page.evaluate(whatsapp.RELOAD_QR)
            self._publish("session.qr_reloaded", clicked=bool(clicked))

    async def _stop(self, order: machine.Stop) -> None:
        await self._stop_watching()
        self.memory.qr = None
        try:
            if self._browser is not None:
                if order.polite:
                    await self._ask_to_close()
                await self._end_browser()
            self._drop_lock()
        except WaguardError as error:
            self._tell(machine.NotGone(order.epoch, _failure(error, Stage.KILL)))
        else:
            self._tell(machine.Gone(order.epoch))

    async def _ask_to_close(self) -> str:
        """Ask the browser to close, so that it writes down what it has; says what came of it."""
        browser = self._browser
        assert browser is not None  # noqa: S101 (the callers looked)
        if await in_thread(browser.run.stopped):
            return "it is stopped, so it was not asked"
        began = time.monotonic()
        try:
            async with within(Stage.CLOSE, self._services.config.deadlines.close, "closing the browser"):
                await browser.ask_to_close()
        except WaguardError as error:
            self._publish("browser.close_ignored", level="warning", error=error.message)
            return f"it was asked and did not: {error.message}"
        self._stage(Stage.CLOSE, began)
        return ""

    async def _end_browser(self) -> None:
        """Kill what is left of our browser, prove it gone, give everything back. Raises `NotProvedGone`."""
        browser = self._browser
        assert browser is not None  # noqa: S101 (the callers looked)
        began = time.monotonic()
        try:
            async with within(Stage.KILL, self._services.config.deadlines.kill, "proving the browser gone"):
                await browser.kill()
        except WaguardError as error:
            pids = list(browser.run.pids())
            raise NotProvedGone(
                f"The browser of {self.code} could not be proved gone: {error.message}",
                hint=f"See what holds it: ps -o pid,stat,wchan,cmd -p {','.join(map(str, pids))}",
                pids=pids,
                stage=Stage.KILL.value,
            ) from None
        browser.close()
        self._browser = None
        self.memory.started_at = None
        self._stage(Stage.KILL, began)
        await self._save(replace(self._record, launch=None))

    async def _wait(self, order: machine.Wait) -> None:
        # Jitter needs chance, not secrecy.
        await asyncio.sleep(random.uniform(0, order.bound_s) if order.jitter else order.bound_s)  # noqa: S311
        self._tell(machine.WaitEnded(order.epoch))

    # --- cleanup --------------------------------------------------------------------------------------

    async def _clean(self, epoch: int) -> None:
        """Every step, whatever the others did; what was under way has been called off already."""
        await self._stop_watching()
        steps: list[Step] = []
        gone: list[WaguardError] = []
        profile = await in_thread(self._services.profiles.current, self.code)

        async def run(name: str, work: Callable[[], Awaitable[str | None]]) -> None:
            step, began = Step(name), time.monotonic()
            steps.append(step)
            try:
                detail = await work()
                step.outcome, step.detail = ("nothing", "") if detail is None else ("done", detail)
            except WaguardError as error:
                step.outcome, step.detail = "failed", error.message
                if name == "tree":
                    gone.append(error)
            step.ms = round((time.monotonic() - began) * 1000, 1)
            self._publish(
                "cleanup.step",
                level="error" if step.outcome == "failed" else "info",
                step=step.step,
                outcome=step.outcome,
                duration_ms=step.ms,
                detail=step.detail or None,
            )

        async def forget() -> str | None:
            had = self.memory.reading is not None or self.memory.profile is not None
            self.memory = Memory(attempt=self.memory.attempt)
            return "" if had else None

        async def close() -> str | None:
            return None if self._browser is None else await self._ask_to_close()

        async def end() -> str | None:
            if self._browser is None and self._record.launch is None:
                return None
            if self._browser is not None:
                await self._end_browser()
            else:
                async with within(Stage.KILL, self._services.config.deadlines.kill, "reaping leftovers"):
                    await self._end_leftovers()
            return "proved gone"

        async def retire() -> str | None:
            place = await in_thread(self._services.profiles.retire, self.code, "cleanup")
            return None if place is None else f"retired as {place.name}"

        async def unlock() -> str | None:
            self._drop_lock()
            if profile is None:
                return None
            await in_thread(self._services.profiles.drop_lock, profile)
            return "released"

        await run("memory", forget)
        await run("browser", close)
        await run("tree", end)
        await run("profile", retire)
        await run("lock", unlock)
        self.memory = Memory()
        self._tell(machine.Cleaned(epoch, _failure(gone[0], Stage.KILL) if gone else None))
        reports, self._cleanups = self._cleanups, []
        for report in reports:
            if not report.done():
                report.set_result(steps)

    # --- the end --------------------------------------------------------------------------------------

    async def _shut(self) -> None:
        """The daemon ends: close politely, prove gone, keep what is wanted written down."""
        await self._call_off()
        self._release_slot()
        await self._stop_watching()
        if self._browser is not None:
            await self._ask_to_close()
            await self._end_browser()
        self._drop_lock()
        asked: list[asyncio.Future[Any]] = [taken for _, taken in _drain(self._inbox) if taken is not None]
        for waiting in [*asked, *self._cleanups]:
            if not waiting.done():
                waiting.set_exception(ShuttingDown("The daemon is shutting down."))


def _drain(inbox: asyncio.Queue[Item]) -> list[Item]:
    items = []
    while not inbox.empty():
        items.append(inbox.get_nowait())
    return items


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])


def _failure(error: WaguardError, stage: Stage | None) -> Failure:
    named = error.details.get("stage")
    return Failure(
        error.code,
        error.message,
        Stage(named) if named else stage,
        error.hint,
        tuple((key, value) for key, value in error.details.items()),
    )
