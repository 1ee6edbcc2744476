"""One task per client code: takes events from its inbox, asks the table, carries out the orders.

Slow orders run in a task of their own, one at a time, and come back as events, so that a stop is heard in the
middle of a start. The session owns its tasks and its instance; nothing else touches them.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any

from waguard.browser.page import Page
from waguard.core.actor import Actor, ActorKind, acting
from waguard.core.health.plans import Remedy
from waguard.core.model import ClientCode, Failure, Link, Process, Stage, Wanted
from waguard.core.session import events, orders
from waguard.core.session.state import State, summary_of
from waguard.core.session.table import decide
from waguard.core.shown import Step
from waguard.errors import Interrupted, NoPage, NoPairingCode, ShuttingDown, WaguardError
from waguard.relay.client import Closing
from waguard.sandbox import reaper
from waguard.session.announcer import Announcer
from waguard.session.cleanup import Cleanup
from waguard.session.copies import Copies
from waguard.session.crew import Crew, Work
from waguard.session.driving import Driving
from waguard.session.enclosure import Enclosure
from waguard.session.ending import Ending
from waguard.session.handover import Handover
from waguard.session.inbox import Inbox
from waguard.session.instance import Instance
from waguard.session.launch import Launcher
from waguard.session.lease import PageLease
from waguard.session.login import ClientLogin
from waguard.session.memory import Memory, Seen
from waguard.session.plans import Plans
from waguard.session.registry import Record
from waguard.session.resources import Services
from waguard.session.start import Start
from waguard.session.transfer import Transfer
from waguard.session.undo import Acts
from waguard.session.usage import Usages
from waguard.session.value_files import ValueFiles
from waguard.session.values import Values
from waguard.session.watch import Watch
from waguard.session.way_out import WayOut
from waguard.system.deadline import Span, within
from waguard.system.tasks import Changes
from waguard.system.threads import working_for


class Session:
    def __init__(self, code: ClientCode, record: Record, services: Services) -> None:
        self.code = code
        self.state = State(wanted=record.wanted)
        self._services = services
        self._config = services.resources.config
        self._instance = instance = Instance(code, record, services.resources)
        self.login = ClientLogin(instance)
        self.lease = PageLease()
        self.transfer = transfer = Transfer(instance, services.gate.room, lambda: self.driving.owner)
        self.driving = Driving(instance, self.lease, services.probes.probe, transfer.uploads.paths)
        self.copies = Copies(instance, self.login, self.lease)
        enclosure = Enclosure(instance)
        self._ending = Ending(instance, self.login, enclosure, self.lease)
        self.values = Values(
            code,
            ValueFiles(self._config.sessions.dir, code),
            services.resources.profiles.aside,
            self._config.deadlines,
            instance.check_tenure,
            instance.publish,
        )
        self.acts = Acts(instance, self.login, self.values)
        self.way_out = way_out = WayOut(instance)
        launcher = Launcher(instance, self.login, enclosure, self._ending, transfer, self.acts, way_out)
        self._handover = Handover(instance, self.login, enclosure, transfer, way_out)
        self._cleanup = Cleanup(instance, self.login, self._ending, transfer, self.values, self.acts)
        self._inbox = Inbox()
        self._crew = Crew(instance, self._inbox)
        self.usages = Usages(instance, services.gate, services.learned)
        self._watch = Watch(
            instance,
            self.login,
            enclosure,
            self.lease,
            self.driving,
            services.probes,
            Plans(instance, self.login, services.gate),
            self.usages,
            self._inbox,
            self._crew,
        )
        self._changes = Changes()
        self.start = Start(instance, launcher, self._watch, services, self._changes)
        self._announcer = Announcer(instance, self.login, services.gate)
        self._work: asyncio.Task[None] | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._next_try = 0.0
        self._cleanups: list[asyncio.Future[Sequence[Step]]] = []
        """Of those who wait for a cleanup."""
        self._cleaned: tuple[Sequence[Step], Sequence[asyncio.Future[Sequence[Step]]]] = ((), ())
        """What the last one did, and whom to tell when the table knows of it."""
        self._refusing = False
        self._leaving = False
        self._ended = False

    # --- for the supervisor ---------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        return self._instance.memory

    @property
    def seen(self) -> Seen:
        """What its page has shown."""
        return self._watch.seen

    @property
    def untouched(self) -> bool:
        """Whether nothing was ever asked of it that did anything, now and by earlier daemons."""
        asked = self.state != State() or not self._inbox.empty()
        return not asked and self._instance.untouched and self.values.untouched

    @property
    def since(self) -> float:
        """See `Announcer.since`."""
        return self._announcer.since

    @property
    def browser_pids(self) -> Sequence[int]:
        """The processes whose end is the end of all."""
        return self._instance.browser.run.pids() if self._instance.browser is not None else ()

    async def ask(self, event: events.Event) -> None:
        """Put an operator's wish into the inbox; returns when the table has taken it.

        Raises `ShuttingDown`, `TenureLost`, or `DeadlineExceeded` when something of the session hangs; the wish then still stands.
        """
        if self._ended:
            raise ShuttingDown("The daemon is shutting down.")
        self._stop_if_lost()
        self._instance.check_tenure()
        taken = self._inbox.ask(event)
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
            await self._changes.next()

    def leave(self) -> None:
        """The daemon is about to end, and there will be another: what is up is left up for it."""
        self._leaving = True

    def refuse(self) -> None:
        """The daemon is about to end: whoever waits or drives is told so."""
        self._refusing = True
        # Detached in the browser too, which may go on without us: what they have paused in it would stay so.
        self.driving.end_all(Closing.DAEMON, "the daemon ends: attach again to the next one")
        self._changes.tell()

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
            # Of no use to whom the daemon ends before it has begun.
            with suppress(WaguardError), acting(Actor(ActorKind.STARTUP)):
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
    def launch_on_record(self) -> reaper.LaunchRecord | None:
        return self._instance.record.launch

    @property
    def leftover(self) -> reaper.LaunchRecord | None:
        """A launch that is on record and has no browser that we hold."""
        return self._instance.leftover

    async def end_leftovers(self) -> bool:
        """See `Ending.end_leftovers`."""
        return await self._ending.end_leftovers()

    @property
    def browser_age_s(self) -> float | None:
        """Seconds since its browser was started, by whichever daemon; None if it has none."""
        return self._instance.browser_age_s

    @property
    def launched_with(self) -> Mapping[str, Any]:
        """See `Effective.launched_with`; empty if no browser runs, or is about to."""
        launch = self._instance.record.launch
        there = self._instance.browser is not None or self.state.process is Process.STARTING
        return launch.settings if launch is not None and there else {}

    def publish(self, name: str, **fields: Any) -> None:
        """See `Instance.publish`."""
        self._instance.publish(name, **fields)

    @property
    def at_rest(self) -> bool:
        """No browser runs, and none is about to."""
        return self.state.process in {Process.DOWN, Process.FAILED} and not self._instance.in_use

    async def screenshot(self) -> bytes:
        """A PNG of the page. Raises `NoPage` when there is none, `PageFailed`, `DeadlineExceeded`."""
        page = self._page()
        async with within(Stage.OPEN, self._config.page.read_s, "the screenshot", setting="page.read_s"):
            return await page.screenshot()

    async def pairing_code(self, phone: str) -> str:
        """The code by which the phone with this number links itself.

        Raises `NoPage`, `NoPairingCode`, `PairingRefused`, `PageFailed`, `DeadlineExceeded`.
        """
        page = self._page()
        if self.state.link is not Link.AWAITING_SCAN:
            status = summary_of(self.state)
            raise NoPairingCode(f"{self.code} waits for no phone: it is {status}.", status=status.value)
        seconds = self._config.page.pairing_s
        async with within(Stage.OPEN, seconds, "the pairing code", setting="page.pairing_s"):
            return await self._watch.pairing_code(page, phone)

    def _page(self) -> Page:
        """Raises `NoPage`."""
        browser = self._instance.browser
        if browser is None or browser.page is None:
            raise NoPage(
                f"{self.code} has no page now: it is {summary_of(self.state)}.",
                hint=f"Start it: waguard connect {self.code}",
            )
        return browser.page

    async def run(self) -> None:
        """The session's life; ends when cancelled, and then leaves nothing running."""
        with working_for(self.code):
            await self._run()

    async def _run(self) -> None:
        try:
            while True:
                event, actor = await self._inbox.next()
                try:
                    await self._take(event, actor)
                except Exception as error:  # noqa: BLE001 (one bad event must not end the session)
                    self._crew.report(type(event).__name__, error)
                self._inbox.taken()
        finally:
            await self._shut()

    # --- obeying --------------------------------------------------------------------------------------

    async def _take(self, event: events.Event, actor: Actor | None) -> None:
        before = self.state
        self.state, ordered = decide(before, event, time.monotonic(), self._services.policy)
        if ordered or self.state != before:
            if isinstance(event, events.Fact | events.RecycleAsked):
                actor = self._instance.actor or _remedy(self.state, ordered)
            self._instance.actor = actor
        if self.state.treatment is None or self.state.treatment.remedy is not None:
            self._end_rest()
        for order in ordered:
            await self._obey(order)
        why_not = event.why if isinstance(event, events.NotCured) else ""
        self._announcer.announce(before, self.state, why_not)
        if isinstance(event, events.Cleaned):
            self._tell_cleaned()
        self._stop_if_lost()
        self._changes.tell()
        if self._settled:
            self._instance.actor = None

    @property
    def _settled(self) -> bool:
        """Whether what was wanted last is carried out, or given up: what comes now comes by itself."""
        treatment, process = self.state.treatment, self.state.process
        if process is Process.UP:
            return not self.memory.attempt_began and (treatment is None or treatment.remedy is None)
        return process in {Process.DOWN, Process.FAILED}

    def _stop_if_lost(self) -> None:
        """What runs of a client that is another daemon's goes."""
        if self.state.wanted is Wanted.UP and not self._instance.ours:
            self._inbox.put(events.DisconnectAsked())

    async def _obey(self, order: orders.Order) -> None:
        match order:
            case orders.Remember(wanted):
                await self._instance.save(wanted=wanted)
            case orders.Arm(epoch, step):
                self._watch.arm(epoch, step, *self._open_s())
            case orders.Cure(epoch, fault, remedy, step):
                verify_s = self._open_s()[0] if remedy is Remedy.RELOAD else self._config.health.verify_s
                self._next_try = time.monotonic() + verify_s
                self._watch.cure(epoch, step, fault, remedy, verify_s)
            case orders.Rest():
                self._begin_rest(order)
            case orders.Disarm(usable):
                self._watch.done(usable=usable)
            case orders.ReloadQr():
                self._watch.reload_qr()
            case orders.Prepare(epoch):
                prepare = partial(self.start.prepare, order, self.state.cause)
                await self._begin(prepare, order, partial(events.Failed, epoch))
            case orders.Launch(epoch):
                await self._begin(partial(self.start.launch, epoch), order, partial(events.Failed, epoch))
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
            case orders.BackOff(epoch):
                # Jitter needs chance, not secrecy. Known before anybody is told that it waits.
                seconds = random.uniform(0, order.bound_s) if order.jitter else order.bound_s  # noqa: S311
                self._next_try = time.monotonic() + seconds
                await self._begin(partial(self._wait, order), order, lambda _: events.WaitEnded(epoch))

    def _open_s(self) -> tuple[float, float]:
        """How long `open` may take, and how long it is expected to, in seconds."""
        learned = self._services.learned
        return learned.limit_s(self.code, Stage.OPEN), learned.expected_s(self.code, Stage.OPEN)

    def _begin_rest(self, order: orders.Rest) -> None:
        self._end_rest()
        lowest = order.bound_s / 2 if order.jitter else order.bound_s
        seconds = random.uniform(lowest, order.bound_s)  # noqa: S311 (spreads load, no secret)
        self._next_try = time.monotonic() + seconds
        ended = events.RestEnded(order.epoch, step=order.step)
        self._rest = asyncio.get_running_loop().call_later(seconds, self._inbox.put, ended)

    def _end_rest(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    # --- the slow orders ------------------------------------------------------------------------------

    async def _begin(self, work: Work, order: orders.Order, broke: Callable[[Failure], events.Event]) -> None:
        """Start slow work in the place of whatever is under way; ``broke`` is the fact if it fails for no known reason."""
        await self._call_off()
        if not isinstance(order, orders.Launch):
            self.start.give_place_back()
        self._work = self._crew.work(work, type(order).__name__.lower(), broke)

    async def _call_off(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
            self._work = None

    async def _open(self, epoch: int) -> events.Failed | None:
        try:
            await self._watch.open(epoch, *self._open_s())
        except WaguardError as error:
            return events.Failed(epoch, Failure.of(error, Stage.OPEN))
        return None

    async def _stop(self, order: orders.Stop) -> events.Gone | events.NotGone:
        await self._watch.stop()
        try:
            await self._ending.end(polite=order.polite)
            if self.state.wanted is Wanted.DOWN:
                await self.copies.seal()
        except WaguardError as error:
            return events.NotGone(order.epoch, Failure.of(error, Stage.KILL))
        return events.Gone(order.epoch)

    async def _clean(self, epoch: int) -> events.Cleaned:
        await self._watch.stop()
        steps, resisted = await self._cleanup.run()
        self._cleaned, self._cleanups = (steps, self._cleanups), []
        return events.Cleaned(epoch, Failure.of(resisted, Stage.KILL) if resisted else None)

    def _tell_cleaned(self) -> None:
        (steps, waiting), self._cleaned = self._cleaned, ((), ())
        for one in waiting:
            if not one.done():
                one.set_result(steps)

    async def _wait(self, order: orders.BackOff) -> events.WaitEnded:
        seconds = max(0.0, self._next_try - time.monotonic())
        if order.held:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._services.gate.until_closed()
        else:
            await asyncio.sleep(seconds)
        return events.WaitEnded(order.epoch)

    # --- the end --------------------------------------------------------------------------------------

    async def _shut(self) -> None:
        """The daemon ends: close politely, prove gone, keep what is wanted written down. Or leave it to the next one."""
        self.refuse()
        self._end_rest()
        await self._call_off()
        self.start.give_place_back()
        await self._watch.stop()
        await self.transfer.downloads.close()
        up = (self.state.wanted, self.state.process) == (Wanted.UP, Process.UP)
        try:
            if not (self._leaving and up and self._handover.leave()):
                await self._ending.end(polite=True)
                await self.copies.seal()
        finally:
            self._ended = True
            # Whoever waits for a cleanup has been told by `refuse`.
            self._inbox.refuse(ShuttingDown("The daemon is shutting down."))


def _remedy(state: State, ordered: Sequence[orders.Order]) -> Actor | None:
    """What acts when nobody has asked: a remedy, or whatever makes the session start anew."""
    for order in ordered:
        match order:
            case orders.Cure(remedy=remedy):
                return Actor(ActorKind.REMEDY, remedy.value)
            case orders.Prepare() | orders.Stop() | orders.BackOff():
                return Actor(ActorKind.REMEDY, state.cause.value)
    return None
