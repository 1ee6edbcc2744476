"""One task per client code: takes events from its inbox, asks the table, carries out the orders.

Slow orders run in a task of their own, one at a time, and come back as events, so that a stop is heard in the
middle of a start. The session owns its tasks and its instance; nothing else touches them.
"""

import asyncio
import random
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from waguard.admission.gate import Gate
from waguard.admission.turns import Turns
from waguard.core.health import recycle
from waguard.core.health.faults import FOR_A_PERSON, GONE, Fault, Finding
from waguard.core.health.plans import BY_COST, PLANS, REPLACING, Remedy
from waguard.core.model import Alert, Cause, ClientCode, Failure, Link, Process, Reason, Stage, Wanted
from waguard.core.session import events, orders
from waguard.core.session.news import Known, news
from waguard.core.session.restart import RestartPolicy
from waguard.core.session.state import State, summary_of, usable
from waguard.core.session.table import decide
from waguard.core.shown import Step
from waguard.errors import DeadlineExceeded, Interrupted, LimitReached, NoPage, ShuttingDown, WaguardError
from waguard.health.probes.memory import Usage
from waguard.history.learned import Learned
from waguard.history.store import History
from waguard.sandbox import reaper
from waguard.session.cleanup import Cleanup
from waguard.session.copies import Copies
from waguard.session.enclosure import Enclosure
from waguard.session.ending import Ending
from waguard.session.handover import Handover
from waguard.session.instance import Instance
from waguard.session.launch import Launcher
from waguard.session.login import ClientLogin
from waguard.session.memory import Memory
from waguard.session.registry import Record
from waguard.session.resources import Resources
from waguard.session.watch import Ears, Senses, Watch, Work
from waguard.system import shortage
from waguard.system.deadline import Span, within
from waguard.whatsapp.page import ERROR_PAGE

Item = tuple[events.Event, asyncio.Future[None] | None]


@dataclass(frozen=True, slots=True)
class Services:
    """What the sessions of a daemon share."""

    resources: Resources
    turns: Turns
    senses: Senses
    gate: Gate
    policy: RestartPolicy
    recycle: recycle.Limits
    history: History
    learned: Learned


_NETWORK = "most sessions are offline: it is the network"
_HELD_S = 5.0
"""How long waits at most who found no place among those that start."""
_LOOK_AGAIN_S = 1.0
"""After a look for which there were no files or threads left."""


class Session:
    def __init__(self, code: ClientCode, record: Record, services: Services) -> None:
        self.code = code
        self.state = State(wanted=record.wanted)
        self._since = self._told = time.monotonic()
        self._services = services
        self._config = services.resources.config
        self._instance = instance = Instance(code, record, services.resources)
        self.login = ClientLogin(instance)
        self.copies = Copies(instance, self.login)
        enclosure = Enclosure(instance)
        self._ending = Ending(instance, self.login, enclosure, self.copies.stillness)
        self._launcher = Launcher(instance, self.login, enclosure, self._ending)
        self._handover = Handover(instance, self.login, enclosure)
        self._cleanup = Cleanup(instance, self.login, self._ending)
        self._inbox: asyncio.Queue[Item] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._refusing = False
        self._leaving = False
        self._slot = False
        self._ended = False
        self._taking: asyncio.Future[None] | None = None
        self._work: asyncio.Task[None] | None = None
        ears = Ears(self._tell, self._found, self._unreachable, self._used, self._spawn)
        self._watch = Watch(instance, self.login, enclosure, self.copies.stillness, services.senses, ears)
        self._why_not = ""
        """What kept a remedy from helping, while that is told."""
        self._attempt_began = 0.0
        """When the attempt under way has begun, monotonic; 0: none is."""
        self._rest: asyncio.TimerHandle | None = None
        self._next_try = 0.0
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
    def since(self) -> float:
        """Unix time of the last change of status, as the clock goes now, seconds."""
        return time.time() - (time.monotonic() - self._since)

    @property
    def browser_pids(self) -> Sequence[int]:
        """The processes whose end is the end of all."""
        return self._instance.browser.run.pids() if self._instance.browser is not None else ()

    async def ask(self, event: events.Event) -> None:
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
        await self.ask(events.CleanupAsked())
        async with self._going_down("the cleanup"):
            await self.until(report.done)
        return report.result()

    async def down(self) -> None:
        """Close the browser, keep the profile; returns when it is proved gone.

        Raises `NotProvedGone`, `Interrupted` when a connect overtakes it, `ShuttingDown`, `DeadlineExceeded`.
        """
        await self.ask(events.DisconnectAsked())
        async with self._going_down("the disconnect"):
            await self.until(
                lambda: self.state.process in {Process.DOWN, Process.FAILED} or self.state.wanted is Wanted.UP
            )
        if self.state.wanted is Wanted.UP:
            raise Interrupted("The disconnect was overtaken by a connect or a restart.")

    def _going_down(self, doing: str) -> AbstractAsyncContextManager[Span]:
        """Each stage on the way down keeps its own deadline; this one is for a disk that hangs in between."""
        deadlines = self._config.deadlines
        return within(Stage.KILL, deadlines.prepare + deadlines.close + 2 * deadlines.kill, doing)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until ``done()``; looked at after every change. The caller sets the deadline. Raises `ShuttingDown`."""
        while not done():
            if self._refusing:
                raise ShuttingDown("The daemon is shutting down.")
            await self._changed.wait()

    def leave(self) -> None:
        """The daemon is about to end, and there will be another: what is up is left up for it."""
        self._leaving = True

    def refuse(self) -> None:
        """The daemon is about to end: whoever waits is told so."""
        self._refusing = True
        self._wake()

    async def take_over(self) -> None:
        """At the daemon's start: go on with the browser that an earlier daemon has left, or end what it left of one.

        What resists is reported, and met again by `connect`.
        """
        try:
            adopted = await self._handover.adopt()
        except (WaguardError, OSError) as error:
            self._instance.publish("session.not_adopted", error=str(error))
            adopted = False
        if adopted:
            with suppress(WaguardError):  # of no use to whom the daemon ends before it has begun
                await self.ask(events.Adopted())
            return
        try:
            async with within(Stage.KILL, self._config.deadlines.kill, "reaping leftovers"):
                await self._ending.end_leftovers()
        except (WaguardError, OSError) as error:
            self._instance.publish("reaper.failed", error=str(error))
        else:
            await self.copies.seal()

    @property
    def next_try(self) -> float | None:
        """When the next thing is tried by itself if nothing else happens, monotonic; none: nothing is waited for."""
        treatment, process = self.state.treatment, self.state.process
        waits = process in {Process.BACKOFF, Process.FAILED} and self.state.wanted is Wanted.UP
        tries = treatment is not None and (treatment.remedy is not None or self._rest is not None)
        tries = tries and process is Process.UP
        return self._next_try if self._next_try and (waits or tries) else None

    @property
    def in_use(self) -> frozenset[str]:
        """The generations that a browser of this client uses, or is about to."""
        return self._instance.in_use

    @property
    def launch_on_record(self) -> reaper.Launch | None:
        return self._instance.record.launch

    @property
    def leftover(self) -> reaper.Launch | None:
        """A launch that is on record and has no browser that we hold."""
        return self._instance.leftover

    async def end_leftovers(self) -> bool:
        """See `Ending.end_leftovers`."""
        return await self._ending.end_leftovers()

    @property
    def browser_age_s(self) -> float | None:
        """Seconds since its browser was started, by whichever daemon; None if it has none."""
        return self._instance.browser_age_s

    def publish(self, name: str, **fields: Any) -> None:
        """See `Instance.publish`."""
        self._instance.publish(name, **fields)

    @property
    def at_rest(self) -> bool:
        """No browser runs, and none is about to."""
        return self.state.process in {Process.DOWN, Process.FAILED} and not self._instance.in_use

    @property
    def before(self) -> int | None:
        """How many wait before it for their turn to start; None if it does not wait."""
        return self._services.turns.before(self.code)

    @property
    def queued_s(self) -> float | None:
        """How long it will wait for its turn; None if that is not known, or it does not wait."""
        seconds = self._services.turns.expected_s(self.code)
        return None if seconds is None else round(seconds, 1)

    async def screenshot(self) -> bytes:
        """A PNG of the page. Raises `NoPage` when there is none, `PageFailed`, `DeadlineExceeded`."""
        browser = self._instance.browser
        if browser is None or browser.page is None:
            raise NoPage(
                f"{self.code} has no page now: it is {summary_of(self.state)}.",
                hint=f"Start it: waguard connect {self.code}",
            )
        async with within(Stage.OPEN, self._config.page.read_s, "the screenshot", setting="page.read_s"):
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

    async def _take(self, event: events.Event) -> None:
        before = self.state
        self._why_not = event.why if isinstance(event, events.NotCured) else ""
        self.state, ordered = decide(before, event, time.monotonic(), self._services.policy)
        if self.state.treatment is None or self.state.treatment.remedy is not None:
            self._end_rest()
        for order in ordered:
            await self._obey(order)
        self._announce(before)

    def _tell(self, event: events.Event) -> None:
        self._inbox.put_nowait((event, None))

    def _announce(self, before: State) -> None:
        after = self.state
        if summary_of(before) != summary_of(after) or before.process != after.process:
            self._since = time.monotonic()
        now, memory = time.monotonic(), self._instance.memory
        known = Known(self._told, self._attempt_began, memory.stages, memory.how, self._why_not)
        for one in news(before, after, now, known):
            self._told = now if one.name == "session.changed" else self._told
            self._attempt_began = 0.0 if one.name == "attempt.done" else self._attempt_began
            self._instance.publish(one.name, level=one.level, **one.fields)
        self._tell_gate(after)
        self._wake()

    def _tell_gate(self, after: State) -> None:
        """What concerns the host, or people, of how this session is."""
        gate = self._services.gate
        if after.process is not Process.UP:
            gate.reaches(self.code, None)
        elif usable(after.link, after.reason) or after.reason in _UNREACHED:
            gate.reaches(self.code, after.reason not in _UNREACHED)
        gate.suffers(self.code, after.treatment.finding.fault if after.treatment else None)
        failed = after.process is Process.FAILED and after.failure is not None
        text = f"{self.code} rests: {after.failure.message}" if failed and after.failure else ""
        gate.alerts.set(Alert.SESSION_FAILED, text, self.code)
        gate.alerts.set(Alert.PERSON_NEEDED, self._for_a_person(after), self.code)

    def _for_a_person(self, state: State) -> str:
        """What somebody has to do something about. A scan is needed until somebody has scanned, whatever else is found."""
        if state.wanted is Wanted.UP and (ended := self.login.ended) is not None:
            return _SCAN_NEEDED[ended]
        treatment = state.treatment
        if treatment is None or treatment.finding.fault not in FOR_A_PERSON:
            return ""
        first_tries = treatment.remedy and not treatment.rests and Remedy.DISMISS not in treatment.tried
        return "" if first_tries else treatment.finding.failure.message

    async def _found(self, epoch: int, step: int, finding: Finding, first: bool) -> None:
        """A probe complains: put it to the table, with what may help."""
        plan, why = await self._plan(finding.fault)
        kind = events.BrowserExited if finding.fault in GONE else events.Found
        snapshot = self.login.newest_snapshot if Remedy.RESTORE in plan else ""
        self._tell(kind(epoch, finding, plan, why, snapshot, again=not first, step=step))

    def _unreachable(self, epoch: int, step: int, failure: Failure) -> None:
        """There is no way to the page: only what goes there again may help where nobody reaches WhatsApp."""
        plan, why = tuple(PLANS[Fault.OFFLINE]), BY_COST
        if self._services.gate.network_down_with(self.code):
            plan, why = (Remedy.RELOAD,), _NETWORK
        self._tell(events.Unreachable(epoch, failure, plan, why, step=step))

    async def _plan(self, fault: Fault) -> tuple[tuple[Remedy, ...], str]:
        """What may help with this fault here and now, the cheapest first, and why nothing else."""
        gate, reading = self._services.gate, self.memory.reading
        plan = PLANS[fault]
        if fault is Fault.OFFLINE and gate.network_down_with(self.code):
            no_way = reading is None or ERROR_PAGE in reading.signs
            return ((Remedy.RELOAD,) if no_way else ()), _NETWORK
        if fault is Fault.PAGE_UNREAD and not gate.alone(self.code, fault):
            return (), "others are not understood either: it is the page, or its reader"
        if REPLACING & set(plan):
            replace_it = gate.alone(self.code, fault)
            if fault is Fault.PAGE_NOT_LOADED:  # else it may load for nobody, and no profile is to blame
                replace_it = replace_it and gate.others_reach(self.code)
            snapshot = replace_it and await self.login.find_snapshot()
            empty = replace_it and (self._config.health.fresh or not self.login.may_have_login)
            allowed = {Remedy.RESTORE: snapshot, Remedy.FRESH: empty}
            plan = [one for one in plan if allowed.get(one, True)]
        return tuple(plan), BY_COST

    async def _used(self, usage: Usage) -> None:
        """What the browser takes, told now and then: is it time for a new one?"""
        now, memory = time.monotonic(), self.memory
        if memory.usages:
            at, before = memory.usages[-1]
            cpu_s = round(max(0.0, usage.cpu_s - before.cpu_s), 2)
            self._instance.publish("health.activity", cpu_s=cpu_s, period_s=round(now - at, 1))
        memory.usages.append((now, usage))
        if self.state.link is not Link.CONNECTED or not self._services.learned.quiet(self.code):
            return
        version = await self._services.gate.installed_version()
        looks = [(at / 3600, one.memory_mb) for at, one in memory.usages]
        age_h = (self._instance.browser_age_s or 0.0) / 3600
        upgraded = version if version != memory.version else ""
        if why := recycle.due(looks, age_h, upgraded, self._services.recycle):
            self._instance.publish("session.recycled", why=why)
            self._tell(events.RecycleAsked())

    def deadline(self, stage: Stage) -> float:
        """Seconds: as configured, or longer where that was learned."""
        return max(self.expected(stage), self._services.learned.configured_s(stage))

    def expected(self, stage: Stage) -> float:
        """How long it takes by what was learned, with a margin, in seconds."""
        return self._services.learned.deadline(self.code, stage).seconds

    def _end_rest(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _begin_rest(self, order: orders.Rest) -> None:
        self._end_rest()
        lowest = order.bound_s / 2 if order.jitter else order.bound_s
        seconds = random.uniform(lowest, order.bound_s)  # noqa: S311 (spreads load, no secret)
        self._next_try = time.monotonic() + seconds
        ended = events.RestEnded(order.epoch, step=order.step)
        self._rest = asyncio.get_running_loop().call_later(seconds, self._tell, ended)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _obey(self, order: orders.Order) -> None:
        match order:
            case orders.Remember(wanted):
                await self._instance.save(wanted=wanted)
            case orders.Arm(epoch, step):
                self._watch.arm(epoch, step, self.deadline(Stage.OPEN), self.expected(Stage.OPEN))
            case orders.Cure(epoch, fault, remedy, step):
                reload = remedy is Remedy.RELOAD
                verify_s = self.deadline(Stage.OPEN) if reload else self._config.health.verify_s
                self._next_try = time.monotonic() + verify_s
                self._watch.cure(epoch, step, fault, remedy, verify_s)
            case orders.Rest():
                self._begin_rest(order)
            case orders.Disarm(usable):
                self._watch.done(usable=usable)
            case orders.ReloadQr():
                self._watch.reload_qr()
            case orders.Prepare(epoch):
                await self._begin(partial(self._prepare, order), order, partial(events.Failed, epoch))
            case orders.Launch(epoch):
                await self._begin(partial(self._launch, epoch), order, partial(events.Failed, epoch))
            case orders.Open(epoch):
                await self._begin(partial(self._open, epoch), order, partial(events.Failed, epoch))
            case orders.TakeOver(epoch):
                # As configured: what was learned of loading tells nothing of a page that may be at work.
                limit_s = self._config.deadlines.open
                self._watch.take_over(epoch, limit_s, limit_s)
            case orders.Stop(epoch):
                await self._begin(partial(self._stop, order), order, partial(events.NotGone, epoch))
            case orders.Clean(epoch):
                await self._begin(partial(self._clean, epoch), order, partial(events.Cleaned, epoch))
            case orders.Wait(epoch):
                # Jitter needs chance, not secrecy. Known before anybody is told that it waits.
                seconds = random.uniform(0, order.bound_s) if order.jitter else order.bound_s  # noqa: S311
                self._next_try = time.monotonic() + seconds
                await self._begin(partial(self._wait, order), order, lambda _: events.WaitEnded(epoch))

    async def _begin(self, work: Work, order: orders.Order, broke: Callable[[Failure], events.Event]) -> None:
        """Start slow work in the place of whatever is under way; ``broke`` is the fact if it fails for no known reason."""
        await self._call_off()
        if not isinstance(order, orders.Launch):
            self._release_slot()
        self._work = self._spawn(work, type(order).__name__.lower(), broke)

    def _spawn(
        self, work: Work, name: str, broke: Callable[[Failure], events.Event] | None = None
    ) -> asyncio.Task[None]:
        async def guarded() -> None:
            while True:
                try:
                    await work()
                except Exception as error:  # noqa: BLE001 (a mistake of ours must not leave the session waiting)
                    limit = error if isinstance(error, LimitReached) else shortage.reached(error)
                    if limit is not None and broke is None:  # who looks on looks again
                        await asyncio.sleep(_LOOK_AGAIN_S)
                        continue
                    if limit is None:
                        self._report_bug(name, error)
                    failure = Failure.of(limit) if limit else Failure("internal", f"{name}: {error!r}")
                    if broke is not None:
                        self._tell(broke(failure))
                return

        return asyncio.create_task(guarded(), name=f"{self.code}:{name}")

    def _report_bug(self, where: str, error: Exception) -> None:
        trace = "".join(traceback.format_exception(error))
        self._instance.publish("internal.error", where=where, error=repr(error), trace=trace)

    async def _call_off(self) -> None:
        if self._work is not None:
            await _ended(self._work)
            self._work = None

    def _release_slot(self) -> None:
        if self._slot:
            self._slot = False
            self._services.turns.give_back(self.code)

    # --- the slow orders ------------------------------------------------------------------------------

    async def _prepare(self, order: orders.Prepare) -> None:
        cause = self.state.cause
        try:
            await self._services.gate.admit(self.code, cause)
        except WaguardError as error:
            self._held(order.epoch, error)
            return
        self._instance.begin_attempt(automatic=cause is Cause.RECOVERY)
        self._attempt_began = began = time.monotonic()
        try:
            try:
                await self._take_slot()
            except WaguardError as error:
                if cause in {Cause.CONNECT, Cause.RESTART}:
                    raise  # somebody waits for it
                self._held(order.epoch, error)
                return
            self._instance.stage_done(Stage.ADMIT, began)
            await self._launcher.prepare(order.source, self.deadline(Stage.PREPARE))
        except WaguardError as error:
            self._release_slot()
            await self._late(error)
            if error.passing:
                self._held(order.epoch, error)
                return
            self._tell(events.Failed(order.epoch, Failure.of(error, Stage.PREPARE)))
        else:
            self._tell(events.Prepared(order.epoch))

    async def _take_slot(self) -> None:
        await self._services.turns.take(self.code, self._config.deadlines.admit, self._queued)
        self._slot = True
        self._wake()

    def _queued(self) -> None:
        self._instance.publish("session.queued", before=self.before, expected_s=self.queued_s)
        self._wake()

    async def _late(self, error: WaguardError) -> None:
        """A stage that was not done in time is news for whoever learns from it, if it was at work all the time."""
        if isinstance(error, DeadlineExceeded) and "stage" in error.details:
            stage, seconds = error.details["stage"], error.details.get("deadline_s", 0.0)
            # Of a disk nobody can tell whether it hangs or is slow.
            at_work = stage != Stage.START.value or await self._watch.worked(seconds)
            self._instance.publish("stage.late", stage=stage, deadline_s=seconds, at_work=at_work)

    def _held(self, epoch: int, error: WaguardError) -> None:
        retry_s = float(error.details.get("retry_after_s", _HELD_S))
        self._tell(events.Held(epoch, Failure.of(error, Stage.ADMIT), retry_s))

    async def _launch(self, epoch: int) -> None:
        try:
            await self._launcher.launch(partial(self._watch.begin, epoch), self.deadline(Stage.START))
        except WaguardError as error:
            await self._late(error)
            failure = Failure.of(error, Stage.START)
            await self._services.gate.start_failed(self.code, failure)
            self._tell(events.Failed(epoch, failure))
        else:
            self._services.gate.started()
            self._tell(events.Started(epoch))
        finally:
            self._release_slot()

    async def _open(self, epoch: int) -> None:
        try:
            await self._watch.open(epoch, self.deadline(Stage.OPEN), self.expected(Stage.OPEN))
        except WaguardError as error:
            self._tell(events.Failed(epoch, Failure.of(error, Stage.OPEN)))

    async def _stop(self, order: orders.Stop) -> None:
        await self._watch.stop()
        self.memory.qr = None
        try:
            await self._ending.end(polite=order.polite)
            if self.state.wanted is Wanted.DOWN:
                await self.copies.seal()
        except WaguardError as error:
            self._tell(events.NotGone(order.epoch, Failure.of(error, Stage.KILL)))
        else:
            self._tell(events.Gone(order.epoch))

    async def _clean(self, epoch: int) -> None:
        await self._watch.stop()
        steps, resisted = await self._cleanup.run()
        self._tell(events.Cleaned(epoch, Failure.of(resisted, Stage.KILL) if resisted else None))
        reports, self._cleanups = self._cleanups, []
        for report in reports:
            if not report.done():
                report.set_result(steps)
        self._wake()

    async def _wait(self, order: orders.Wait) -> None:
        seconds = max(0.0, self._next_try - time.monotonic())
        if order.held:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._services.gate.until_closed()
        else:
            await asyncio.sleep(seconds)
        self._tell(events.WaitEnded(order.epoch))

    # --- the end --------------------------------------------------------------------------------------

    async def _shut(self) -> None:
        """The daemon ends: close politely, prove gone, keep what is wanted written down. Or leave it to the next one."""
        self.refuse()
        self._end_rest()
        await self._call_off()
        self._release_slot()
        await self._watch.stop()
        up = (self.state.wanted, self.state.process) == (Wanted.UP, Process.UP)
        try:
            if not (self._leaving and up and self._handover.leave()):
                await self._ending.end(polite=True)
                await self.copies.seal()
        finally:
            self._ended = True
            asked: list[asyncio.Future[Any]] = [
                taken for _, taken in _drain(self._inbox) if taken is not None
            ]
            for waiting in [*asked, self._taking]:  # whoever waits for a cleanup has been told by `refuse`
                if waiting is not None and not waiting.done():
                    waiting.set_exception(ShuttingDown("The daemon is shutting down."))


_UNREACHED = frozenset({Reason.OFFLINE, Reason.WRONG_PAGE})
_SCAN_NEEDED = {
    Reason.LOGGED_OUT: "The phone has unlinked this login, or WhatsApp has: somebody has to scan the new code.",
    Reason.DAMAGED: "The login was lost to damage, and no snapshot has it: somebody has to scan the new code.",
}


def _drain(inbox: asyncio.Queue[Item]) -> list[Item]:
    items = []
    while not inbox.empty():
        items.append(inbox.get_nowait())
    return items


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])
