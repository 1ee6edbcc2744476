"""One task per client code: takes events from its inbox, asks the table, carries out the orders.

Slow orders run in a task of their own, one at a time, and come back as events, so that a stop is heard in the
middle of a start. The session owns its tasks and its instance; nothing else touches them.
"""

import asyncio
import contextlib
import random
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from waguard.browser.launch import Browser
from waguard.browser.page import Page
from waguard.core import machine
from waguard.core.machine import State
from waguard.core.model import ClientCode, Failure, Link, Process, Reading, Stage, Wanted
from waguard.core.policy import RestartPolicy
from waguard.deadline import within
from waguard.errors import BrowserFailed, Interrupted, PageFailed, ShuttingDown, WaguardError
from waguard.instance import Instance, Memory, Resources, Step
from waguard.registry import Record
from waguard.whatsapp import page as whatsapp

Item = tuple[machine.Event, asyncio.Future[None] | None]
Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Services:
    """What the sessions of a daemon share."""

    resources: Resources
    starts: asyncio.Semaphore
    """One place for each browser that may be starting at a time."""
    probe: str
    policy: RestartPolicy


class Session:
    def __init__(self, code: ClientCode, record: Record, services: Services) -> None:
        self.code = code
        self.state = State(wanted=record.wanted)
        self.since = time.time()
        self._since = time.monotonic()
        self._services = services
        self._config = services.resources.config
        self._instance = Instance(code, record, services.resources)
        self._inbox: asyncio.Queue[Item] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._refusing = False
        self._slot = False
        self._ended = False
        self._taking: asyncio.Future[None] | None = None
        self._work: asyncio.Task[None] | None = None
        self._watchers: list[asyncio.Task[None]] = []
        self._open_timer: asyncio.TimerHandle | None = None
        self._opened = 0.0
        self._cleanups: list[asyncio.Future[Sequence[Step]]] = []

    # --- for the supervisor ---------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        return self._instance.memory

    @property
    def untouched(self) -> bool:
        """Whether nothing was ever asked of it that did anything, now and by earlier daemons."""
        return self.state == State() and self._inbox.empty() and self._instance.untouched

    @property
    def browser_pids(self) -> Sequence[int]:
        """The processes whose end is the end of all."""
        return self._instance.browser.run.pids() if self._instance.browser is not None else ()

    async def ask(self, event: machine.Event) -> None:
        """Put an operator's wish into the inbox; returns when the table has taken it.

        Raises `ShuttingDown`, or `DeadlineExceeded` when something of the session hangs; the wish then still stands.
        """
        if self._ended:
            raise ShuttingDown("The daemon is shutting down.")
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait((event, taken))
        async with within(Stage.KILL, self._config.deadlines.kill, "calling off what is under way"):
            await taken

    async def cleanup(self) -> Sequence[Step]:
        """Clean everything of this code; returns what each step did. A second caller joins the first.

        Raises `ShuttingDown`, `DeadlineExceeded`.
        """
        report: asyncio.Future[Sequence[Step]] = asyncio.get_running_loop().create_future()
        self._cleanups.append(report)
        await self.ask(machine.CleanupAsked())
        async with self._going_down("the cleanup"):
            await self.until(report.done)
        return report.result()

    async def down(self) -> None:
        """Close the browser, keep the profile; returns when it is proved gone.

        Raises `NotProvedGone`, `Interrupted` when a connect overtakes it, `ShuttingDown`, `DeadlineExceeded`.
        """
        await self.ask(machine.DisconnectAsked())
        async with self._going_down("the disconnect"):
            await self.until(
                lambda: self.state.process in {Process.DOWN, Process.FAILED} or self.state.wanted is Wanted.UP
            )
        if self.state.wanted is Wanted.UP:
            raise Interrupted("The disconnect was overtaken by a connect or a restart.")

    def _going_down(self, doing: str) -> AbstractAsyncContextManager[None]:
        """Each stage on the way down keeps its own deadline; this one is for a disk that hangs in between."""
        deadlines = self._config.deadlines
        return within(Stage.KILL, deadlines.prepare + deadlines.close + 2 * deadlines.kill, doing)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until ``done()``; looked at after every change. The caller sets the deadline. Raises `ShuttingDown`."""
        while not done():
            if self._refusing:
                raise ShuttingDown("The daemon is shutting down.")
            await self._changed.wait()

    def refuse(self) -> None:
        """The daemon is about to end: whoever waits is told so."""
        self._refusing = True
        self._wake()

    async def reap_leftovers(self) -> None:
        """At the daemon's start: end what an earlier daemon left. What resists is reported, and met again by `connect`."""
        try:
            async with within(Stage.KILL, self._config.deadlines.kill, "reaping leftovers"):
                await self._instance.end_leftovers()
        except (WaguardError, OSError) as error:
            self._instance.publish("reaper.failed", level="error", error=str(error))

    async def screenshot(self) -> bytes:
        """A PNG of the page. Raises `PageFailed` when there is none."""
        browser = self._instance.browser
        if browser is None or browser.page is None:
            raise PageFailed(f"{self.code} has no page now.", hint=f"waguard connect {self.code}")
        async with within(Stage.OPEN, self._config.page.read_s, "the screenshot"):
            return await browser.page.screenshot()

    async def run(self) -> None:
        """The session's life; ends when cancelled, and then leaves nothing running."""
        try:
            while True:
                event, taken = await self._inbox.get()
                self._taking = taken
                try:
                    await self._take(event)
                except Exception as error:  # noqa: BLE001 (one bad event must not end the session)
                    self._report_bug(type(event).__name__, error)
                if taken is not None and not taken.done():
                    taken.set_result(None)
        finally:
            await self._shut()

    # --- obeying --------------------------------------------------------------------------------------

    async def _take(self, event: machine.Event) -> None:
        before = self.state
        self.state, orders = machine.decide(before, event, time.monotonic(), self._services.policy)
        for order in orders:
            await self._obey(order)
        self._announce(before)

    def _tell(self, event: machine.Event) -> None:
        self._inbox.put_nowait((event, None))

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
                "duration_ms": round((time.monotonic() - self._since) * 1000, 1),
            }
            self._since = time.monotonic()
            alarming = after.link is Link.LOST or after.process is Process.FAILED
            self._instance.publish("session.changed", level="warning" if alarming else "info", **fields)
        if after.failure is not None and after.failure is not before.failure:
            failure = after.failure
            fields = dict(failure.details) | {
                "code": failure.code,
                "error": failure.message,
                "stage": failure.stage.value if failure.stage else None,
            }
            self._instance.publish("session.failure", level="warning", **fields)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _obey(self, order: machine.Order) -> None:
        match order:
            case machine.Remember(wanted):
                await self._instance.save(wanted=wanted)
            case machine.Arm(epoch):
                self._arm(epoch)
            case machine.Disarm():
                if self._open_timer is not None:
                    self._instance.stage_done(Stage.OPEN, self._opened)
                self._disarm()
            case machine.ReloadQr(epoch):
                self._watch(partial(self._reload_qr, epoch), "reload-qr")
            case machine.Prepare(epoch):
                await self._begin(partial(self._prepare, order), order, partial(machine.Failed, epoch))
            case machine.Launch(epoch):
                await self._begin(partial(self._launch, epoch), order, partial(machine.Failed, epoch))
            case machine.Open(epoch):
                await self._begin(partial(self._open, epoch), order, partial(machine.Failed, epoch))
            case machine.Stop(epoch):
                await self._begin(partial(self._stop, order), order, partial(machine.NotGone, epoch))
            case machine.Clean(epoch):
                await self._begin(partial(self._clean, epoch), order, partial(machine.Cleaned, epoch))
            case machine.Wait(epoch):
                await self._begin(partial(self._wait, order), order, lambda _: machine.WaitEnded(epoch))

    async def _begin(
        self, work: Work, order: machine.Order, broke: Callable[[Failure], machine.Event]
    ) -> None:
        """Start slow work in the place of whatever is under way; ``broke`` is the fact if it fails for no known reason."""
        await self._call_off()
        if not isinstance(order, machine.Launch):
            self._release_slot()
        self._work = self._spawn(work, type(order).__name__.lower(), broke)

    def _spawn(
        self, work: Work, name: str, broke: Callable[[Failure], machine.Event] | None = None
    ) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 (a mistake of ours must not leave the session waiting)
                self._report_bug(name, error)
                if broke is not None:
                    self._tell(broke(Failure("internal", f"{name}: {error!r}")))

        return asyncio.create_task(guarded(), name=f"{self.code}:{name}")

    def _report_bug(self, where: str, error: Exception) -> None:
        trace = "".join(traceback.format_exception(error))
        self._instance.publish("internal.error", level="error", where=where, error=repr(error), trace=trace)

    async def _call_off(self) -> None:
        if self._work is not None:
            await _ended(self._work)
            self._work = None

    def _watch(self, work: Work, name: str) -> None:
        """A task that goes on beside the work, as long as the browser is up."""
        self._watchers = [task for task in self._watchers if not task.done()]
        self._watchers.append(self._spawn(work, name))

    async def _stop_watching(self) -> None:
        self._disarm()
        for task in self._watchers:
            task.cancel()
        if self._watchers:  # forgotten only when they have ended, since this may itself be called off
            await asyncio.wait(self._watchers)
        self._watchers = []

    def _disarm(self) -> None:
        if self._open_timer is not None:
            self._open_timer.cancel()
            self._open_timer = None

    def _release_slot(self) -> None:
        if self._slot:
            self._slot = False
            self._services.starts.release()

    # --- the slow orders ------------------------------------------------------------------------------

    async def _prepare(self, order: machine.Prepare) -> None:
        self._instance.begin_attempt(automatic=self.state.failure is not None)
        try:
            began = time.monotonic()
            async with within(
                Stage.ADMIT, self._config.deadlines.admit, "waiting for other starts to finish"
            ):
                await self._services.starts.acquire()
                self._slot = True
            self._instance.stage_done(Stage.ADMIT, began)
            await self._instance.prepare(retire=order.retire)
        except WaguardError as error:
            self._release_slot()
            self._tell(machine.Failed(order.epoch, _failure(error, Stage.PREPARE)))
        else:
            self._tell(machine.Prepared(order.epoch))

    async def _launch(self, epoch: int) -> None:
        def spawned(browser: Browser) -> None:
            self._watch(partial(self._watch_exit, epoch, browser), "exit")

        try:
            await self._instance.launch(spawned)
        except WaguardError as error:
            self._tell(machine.Failed(epoch, _failure(error, Stage.START)))
        else:
            self._tell(machine.Started(epoch))
        finally:
            self._release_slot()

    async def _watch_exit(self, epoch: int, browser: Browser) -> None:
        how = await browser.run.exited()
        error = BrowserFailed(
            f"The browser ended by itself ({how}).",
            hint="Somebody killed it, or the kernel for lack of memory: see dmesg."
            if "SIGKILL" in how
            else "",
            stderr=list(browser.last_words()),
        )
        self._tell(machine.BrowserExited(epoch, _failure(error, None)))

    async def _watch_pipe(self, epoch: int, browser: Browser) -> None:
        """A browser that closed its pipe is about to end; one that does not is of no use either."""
        why = await browser.disconnected()
        try:
            async with within(Stage.CLOSE, self._config.deadlines.close, "ending without its pipe"):
                await browser.run.exited()  # `_watch_exit` tells
        except WaguardError:
            self._tell(machine.BrowserExited(epoch, Failure("page_failed", why)))

    def _arm(self, epoch: int) -> None:
        self._disarm()
        config = self._config
        self._opened = time.monotonic()

        def passed() -> None:
            reading = self.memory.reading
            shown = ", ".join(reading.signs) if reading is not None else ""
            late = Failure(
                "deadline_exceeded",
                f"Stage open: the page was not usable within {config.deadlines.open:g} s; "
                f"it shows {shown or 'nothing'}.",
                Stage.OPEN,
                "Is the network up? If WhatsApp Web is just slow here, raise deadlines.open in the configuration.",
                (("stage", Stage.OPEN.value), ("deadline_s", config.deadlines.open)),
            )
            self._tell(machine.DeadlinePassed(epoch, late))

        self._open_timer = asyncio.get_running_loop().call_later(config.deadlines.open, passed)

    async def _open(self, epoch: int) -> None:
        browser, config = self._instance.browser, self._config
        assert browser is not None and browser.page is not None  # noqa: S101, PT018 (Started came first)
        self._arm(epoch)
        self._watch(partial(self._watch_pipe, epoch, browser), "pipe")
        browser.page.on_crash(lambda: self._tell(machine.PageCrashed(epoch)))
        self._watch(partial(self._read_page, epoch, browser.page), "read")
        try:
            await browser.page.open(config.whatsapp.url)
        except WaguardError as error:
            if browser.connected:  # else the watchers tell what became of it
                self._tell(machine.Failed(epoch, _failure(error, Stage.OPEN)))

    async def _read_page(self, epoch: int, page: Page) -> None:
        """Look at the page again and again; tell what changed."""
        config = self._config.page
        misses = unknown = 0
        while True:
            try:
                async with asyncio.timeout(config.read_s):
                    signs = await page.evaluate(self._services.probe)
            except TimeoutError:
                misses += 1
                self._tell(machine.PageSilent(epoch, misses))
                continue
            except PageFailed:
                if page.gone:
                    self._tell(machine.PageCrashed(epoch))
                    return
                signs = None  # between two documents; a pipe that is gone ends the browser, which is watched
            reading = whatsapp.read(signs)
            if reading != self.memory.reading or reading.qr_exhausted or misses:
                self._note(reading)
                self._tell(machine.PageRead(epoch, reading))
            misses = 0
            unknown = unknown + 1 if reading.link is Link.UNKNOWN else 0
            if unknown:
                self._tell(machine.PageUnknown(epoch, unknown))
            await asyncio.sleep(self._until_next_look())

    def _until_next_look(self) -> float:
        """A page that loads is looked at all the time at first, and the longer it takes the less often."""
        if self._open_timer is None:
            return self._config.page.poll_s
        return min(self._config.page.poll_loading_s, (time.monotonic() - self._opened) / 10)

    def _note(self, reading: Reading) -> None:
        memory = self.memory
        memory.reading = reading
        if reading.link is Link.UNKNOWN:
            return
        if reading.qr != memory.qr:
            memory.qr, memory.qr_seen_at, memory.qr_seen = reading.qr, time.time(), time.monotonic()
            if reading.qr is not None:
                self._instance.publish("session.qr_shown")

    async def _reload_qr(self, epoch: int) -> None:
        browser = self._instance.browser
        if browser is None or browser.page is None or epoch != self.state.epoch:
            return
        with contextlib.suppress(PageFailed, TimeoutError):
            async with asyncio.timeout(self._config.page.read_s):
                clicked = await browser.page.evaluate(whatsapp.RELOAD_QR)
            self._instance.publish("session.qr_reloaded", clicked=bool(clicked))

    async def _stop(self, order: machine.Stop) -> None:
        await self._stop_watching()
        self.memory.qr = None
        try:
            await self._instance.end(polite=order.polite)
        except WaguardError as error:
            self._tell(machine.NotGone(order.epoch, _failure(error, Stage.KILL)))
        else:
            self._tell(machine.Gone(order.epoch))

    async def _clean(self, epoch: int) -> None:
        await self._stop_watching()
        steps, resisted = await self._instance.clean()
        self._tell(machine.Cleaned(epoch, _failure(resisted, Stage.KILL) if resisted else None))
        reports, self._cleanups = self._cleanups, []
        for report in reports:
            if not report.done():
                report.set_result(steps)
        self._wake()

    async def _wait(self, order: machine.Wait) -> None:
        # Jitter needs chance, not secrecy.
        await asyncio.sleep(random.uniform(0, order.bound_s) if order.jitter else order.bound_s)  # noqa: S311
        self._tell(machine.WaitEnded(order.epoch))

    # --- the end --------------------------------------------------------------------------------------

    async def _shut(self) -> None:
        """The daemon ends: close politely, prove gone, keep what is wanted written down."""
        self.refuse()
        await self._call_off()
        self._release_slot()
        await self._stop_watching()
        try:
            await self._instance.end(polite=True)
        finally:
            self._ended = True
            asked: list[asyncio.Future[Any]] = [
                taken for _, taken in _drain(self._inbox) if taken is not None
            ]
            for waiting in [*asked, self._taking, *self._cleanups]:
                if waiting is not None and not waiting.done():
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
