"""What goes on beside a session's work as long as its browser is up: its end, its pipe and its page are watched, and probed.

It tells what happened and decides nothing. The session owns it, and stops it before it stops the browser.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from waguard.browser.launch import Browser
from waguard.browser.page import Page
from waguard.core.address import elsewhere
from waguard.core.health import patience
from waguard.core.health.faults import REFUSALS, Fault, Finding, finding
from waguard.core.health.lease import Use
from waguard.core.health.patience import Book
from waguard.core.health.plans import BY_SCAN, SLOW_S, Remedy
from waguard.core.model import Failure, Link, Reading, Stage
from waguard.core.session import events
from waguard.errors import BrowserFailed, PageFailed, PageUnreachable, WaguardError
from waguard.health import remedies
from waguard.health.probes import Probe, link, qr
from waguard.health.probes.browser import browser_probe
from waguard.health.probes.census import BROWSER, RENDERER, Member
from waguard.health.probes.effort import Efforts, Moved
from waguard.health.probes.gpu import GpuProbe
from waguard.health.probes.memory import MemoryProbe, Usage
from waguard.health.probes.network import network_probe
from waguard.health.probes.process import ProcessProbe
from waguard.health.probes.renderer import FAULTS as OF_THE_RENDERER
from waguard.health.probes.renderer import RendererProbe
from waguard.session.crew import Crew, Look
from waguard.session.enclosure import Enclosure
from waguard.session.inbox import Inbox
from waguard.session.instance import Instance
from waguard.session.lease import PageLease
from waguard.session.login import ClientLogin
from waguard.session.memory import Seen
from waguard.session.plans import Plans
from waguard.session.resources import SharedProbes
from waguard.session.usage import Usages
from waguard.system import host, shortage
from waguard.system.deadline import within
from waguard.system.tasks import forget
from waguard.whatsapp import page as whatsapp

_AGAIN_S = 1.0
"""How soon a probe looks again that has just complained, at most."""
_POPUPS_TOLD_S = 60.0
_WORK_SHARE = 0.5
"""A page that loads is at work if it ran, or waited for a processor, for so much of the time: our looks at it take less."""


class Watch:
    def __init__(
        self,
        instance: Instance,
        login: ClientLogin,
        enclosure: Enclosure,
        lease: PageLease,
        probes: SharedProbes,
        plans: Plans,
        usages: Usages,
        inbox: Inbox,
        crew: Crew,
    ) -> None:
        self._instance = instance
        self._login = login
        self._enclosure = enclosure
        self._lease = lease
        self._config = instance.resources.config
        self._shared = probes
        self._plans = plans
        self._usages = usages
        self._inbox = inbox
        self._crew = crew
        self.seen = Seen()
        self._tasks: list[asyncio.Task[None]] = []
        self._look_now = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        """Runs while the stage `open` does."""
        self._late: asyncio.Task[None] | None = None
        """Says that its deadline has passed."""
        self._opened = self._opened_awake = 0.0
        self._deadline = self._expected = 0.0
        self._forget()

    def _forget(self) -> None:
        """What is known of the last browser's health."""
        health, page = self._config.health, self._config.page
        self._unknown_s = page.unknown_after * page.poll_s
        self._renderer = RendererProbe(health.blocked_s, health.busy_s, self._unknown_s)
        self._progress = self._no_way_why = ""
        self._moved = 0.0
        """When the page got on last, or was at work."""
        self._efforts = Efforts()
        self._weighed = 0.0
        """When its work was looked at last."""
        self._cures: asyncio.Task[None] | None = None
        self._book: Book = {}
        self._wake: dict[Fault, asyncio.Event] = {}
        self._ended_renderer = False
        """By us: that it crashes is no news."""
        self._navigating = 0
        """Navigations that are not committed yet: till then the page answers nothing, and the deadline of `open` watches."""
        self._reloads = 0
        self._step = 0
        """Of the last reload that has left the page behind which was there, see `State.step`; 0: none has."""
        self._popups = 0
        """Closed since it was told last."""
        self._popups_told = 0.0
        """Not again before then."""

    def begin(self, epoch: int, browser: Browser) -> None:
        """As soon as there is a process: watch for its end."""
        self._forget()
        self._start(partial(self._watch_exit, epoch, browser), "exit")

    def take_over(self, epoch: int, deadline_s: float, expected_s: float) -> None:
        """Watch a browser that an earlier daemon has brought up, from its end to its page."""
        browser = self._instance.browser
        assert browser is not None  # noqa: S101 (adopted)
        self.begin(epoch, browser)
        page = self._watch_page(epoch, deadline_s, expected_s)
        self._start(partial(self._go_on, epoch, page), "go-on")

    async def _go_on(self, epoch: int, page: Page) -> None:
        """Its daemon may have died before it sent the page anywhere. One that does not answer is for the probes to judge."""
        with contextlib.suppress(PageFailed):
            if await page.elsewhere(self._config.whatsapp.url):
                await self._go(epoch, page)

    def _watch_page(self, epoch: int, deadline_s: float, expected_s: float) -> Page:
        browser = self._instance.browser
        assert browser is not None and browser.page is not None  # noqa: S101, PT018 (Started or Adopted came first)
        page = browser.page
        self.arm(epoch, self._step, deadline_s, expected_s)
        self._start(partial(self._watch_pipe, epoch, browser), "pipe")
        page.observe_crash(lambda _: self._crashed(epoch))
        page.addresses.observe(self._at)
        page.others.observe(partial(self._close, page))
        self._start(partial(self._read_page, epoch, page), "read")
        for probe in self._probes(browser, page):
            self._start(partial(self._keep_looking, epoch, probe), type(probe).__name__)
        self._start(self._look_when_memory_falls, "falls")
        return page

    async def open(self, epoch: int, deadline_s: float, expected_s: float) -> None:
        """Go to WhatsApp Web and watch it; returns when the navigation is committed. Raises `PageFailed`."""
        await self._go(epoch, self._watch_page(epoch, deadline_s, expected_s))

    async def _go(self, epoch: int, page: Page) -> None:
        self._navigating += 1
        try:
            await page.open(self._config.whatsapp.url)
        except PageUnreachable as error:
            self._tell_unreachable(epoch, 0, error)
        except PageFailed as error:
            # Else the watchers tell what became of it, or a reload that has taken its place does.
            if not page.disconnected and not self._reloads:
                self._quote(error)
                raise
        finally:
            self._navigating -= 1

    def _tell_unreachable(self, epoch: int, step: int, error: PageUnreachable) -> None:
        self._quote(error)
        self._no_way_why = error.message
        self._unreachable(epoch, step, Failure.of(error, Stage.OPEN))

    def _quote(self, error: PageFailed) -> None:
        """It may be the browser itself that keeps a page from being loaded, and then it says so."""
        if (browser := self._instance.browser) is not None:
            browser.quote(error)

    def reload_qr(self) -> None:
        """Ask the page for fresh codes."""
        self._start(self._reload_qr, "reload-qr")

    async def stop(self) -> None:
        """May be called off, and called again."""
        self._disarm()
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # forgotten only when they have ended
            await asyncio.wait(self._tasks)
        self._tasks = []
        self.seen = Seen()
        self._usages.forget()

    def _start(self, look: Look, name: str) -> "asyncio.Task[None]":
        task = self._crew.look_on(look, name)
        self._tasks = [*(one for one in self._tasks if not one.done()), task]
        return task

    async def _complain(self, epoch: int, step: int, complaint: Finding, *, first: bool = True) -> None:
        """Tell it, with what may help here and now."""
        self._inbox.put(await self._plans.found(epoch, step, complaint, self.seen.reading, first=first))

    def _unreachable(self, epoch: int, step: int, failure: Failure) -> None:
        self._inbox.put(self._plans.unreachable(epoch, step, failure))

    async def _used(self, usage: Usage) -> None:
        reading = self.seen.reading
        connected = reading is not None and reading.link is Link.CONNECTED
        if await self._usages.due(usage, connected=connected):
            self._inbox.put(events.RecycleAsked())

    # --- the deadline of the stage `open` -------------------------------------------------------------

    def arm(self, epoch: int, step: int, deadline_s: float, expected_s: float) -> None:
        """It runs from here. ``expected_s``: what was learned that it takes; that is told, and bounds no patience."""
        self._disarm()
        self._opened, self._opened_awake = time.monotonic(), self._shared.pulse.clock()
        self._moved = self._opened_awake
        self._deadline, self._expected = deadline_s, expected_s
        self._set_timer(epoch, step, min(deadline_s, expected_s))

    def _set_timer(self, epoch: int, step: int, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, partial(self._passed, epoch, step))

    def done(self, *, usable: bool) -> None:
        """The page is usable, or will not become so by waiting."""
        if self._timer is not None and usable:
            self._instance.stage_done(Stage.OPEN, self._opened)
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._late is not None:  # what it was to say is said of another page by now
            self._late.cancel()
            self._late = None

    def _passed(self, epoch: int, step: int) -> None:
        now, deadline = self._shared.pulse.clock(), self._deadline
        took, stage = now - self._opened_awake, Stage.OPEN.value
        if took >= self._expected < deadline:
            self._instance.publish("stage.slow", stage=stage, expected_s=round(self._expected, 3))
            self._expected = deadline
        left = patience.left_s(self._opened_awake, self._moved, deadline, now)
        if left > 0:  # the page gets on, or the daemon itself has slept
            self._set_timer(epoch, step, min(left, self._expected - took) if took < self._expected else left)
            return
        self._timer = None
        at_work = took >= patience.LONGER * deadline
        self._instance.publish("stage.late", stage=stage, deadline_s=round(deadline, 3), at_work=at_work)
        reading, browser = self.seen.reading, self._instance.browser
        said = browser.last_words() if browser is not None else ()
        details = (("stage", stage), ("deadline_s", deadline), *((("stderr", list(said)),) if said else ()))
        limit = shortage.of_last_words(said)
        if self._navigating:
            what = f"Stage open: {self._config.whatsapp.url} has not answered within {round(took, 1):g} s."
            silent = Failure(
                "deadline_exceeded", what, Stage.OPEN, str(limit or "Is the network up?"), details
            )
            self._unreachable(epoch, step, silent)
            return
        shown = ", ".join(reading.signs) if reading is not None else ""
        late = Failure(
            "deadline_exceeded",
            f"Stage open: the page was not usable within {round(took, 1):g} s; it shows {shown or 'nothing'}.",
            Stage.OPEN,
            str(
                limit
                or "Is the network up? If WhatsApp Web is just slow here, raise deadlines.open in the configuration."
            ),
            details,
        )
        evidence = (f"it shows {shown or 'nothing'}", *(f"the browser says: {line}" for line in said[-1:]))
        complaint = Finding(Fault.PAGE_NOT_LOADED, late, evidence, took)
        if reading is not None and reading.link is Link.UNKNOWN and not reading.wrong:
            complaint = finding(Fault.PAGE_UNREAD, f"it shows {shown or 'nothing'}", took)
        self._late = self._start(partial(self._complain, epoch, step, complaint), "late")

    # --- the watchers -----------------------------------------------------------------------------------

    async def _watch_exit(self, epoch: int, browser: Browser) -> None:
        how = await browser.run.exited()
        killed = "Somebody killed it, or the kernel for lack of memory: see dmesg."
        words = list(browser.last_words())
        error = shortage.of_last_words(words) or BrowserFailed(
            f"The browser ended by itself ({how}).", hint=killed if "SIGKILL" in how else "", stderr=words
        )
        self._ended(epoch, Finding(Fault.BROWSER_EXITED, Failure.of(error), (how,)))

    async def _watch_pipe(self, epoch: int, browser: Browser) -> None:
        """A browser that closed its pipe is about to end; one that does not is of no use either."""
        why = await browser.disconnected()
        try:
            async with within(Stage.CLOSE, self._config.deadlines.close, "ending without its pipe"):
                await browser.run.exited()  # `_watch_exit` tells
        except WaguardError:
            self._ended(epoch, Finding(Fault.PIPE_CLOSED, Failure("page_failed", why), (why,)))

    def _ended(self, epoch: int, complaint: Finding) -> None:
        self._start(partial(self._died, epoch, complaint), "ended")

    async def _died(self, epoch: int, complaint: Finding) -> None:
        """A process is gone: if the kernel has ended it, that is said too."""
        if why := await self._enclosure.short_of_memory():
            complaint = replace(complaint, evidence=(*complaint.evidence, why))
        await self._complain(epoch, self._step, complaint)

    def _crashed(self, epoch: int) -> None:
        self.seen.reading = None
        if self._ended_renderer:
            self._ended_renderer = False
            return
        if (browser := self._instance.browser) is not None and browser.page is not None:
            browser.page.abandon()
        complaint = finding(Fault.PAGE_CRASHED, "the browser says so", 0.0)
        self._start(partial(self._died, epoch, complaint), "crashed")

    async def _read_page(self, epoch: int, page: Page) -> None:
        """Look at the page again and again; tell what changed."""
        while True:
            step = self._step
            try:
                signs = await self._signs(epoch, page)
            except PageFailed:
                if page.gone:
                    self._crashed(epoch)
                    return
                signs = None  # between two documents; a pipe that is gone ends the browser, which is watched
            reading = whatsapp.read(
                signs, logged_out=self._instance.memory.logged_out, home=self._config.whatsapp.url
            )
            judged = await self._login.judge(reading)
            if judged is None:
                lost = Failure("refused", f"The login was lost: {self._login.doubt}.", Stage.OPEN)
                shown = ", ".join(reading.signs) or "nothing"
                evidence = (self._login.doubt, f"the page shows {shown}")
                self._inbox.put(events.LoginLost(epoch, lost, evidence))
                return
            reading = judged
            news = reading != self.seen.reading or reading.qr_exhausted or self._renderer.silent
            if news and not self._left(step):
                self._note(reading)
                self._inbox.put(events.PageRead(epoch, reading, step=step))
            await self._weigh(reading)
            await self._answered(epoch, step, reading)
            await self._rest(self._look_now, self._until_next_look())

    def _left(self, step: int) -> bool:
        """Whether the page that was looked at then is about to go, or has gone: it tells nothing of the one that comes."""
        return self._navigating > 0 or step != self._step

    def _at(self, address: str) -> None:
        """The page has come to this address, and may have left it again."""
        home = self._config.whatsapp.url
        if (
            whatsapp.says_logged_out(address)
            and not elsewhere(address, home)
            and self._login.hear_logged_out()
        ):
            self._look_now.set()

    def _close(self, page: Page, other: str) -> None:
        """Nobody looks at another page, and it takes memory, or WhatsApp from ours."""
        page.close_other(other)
        self._popups += 1
        now = time.monotonic()
        if now >= self._popups_told:
            self._popups_told = now + _POPUPS_TOLD_S
            self._instance.publish("page.popups_closed", pages=self._popups)
            self._popups = 0

    async def _signs(self, epoch: int, page: Page) -> object:
        """What the page's reader has seen. It is asked once and waited for: an answer that comes late is one. Raises `PageFailed`."""
        asking = asyncio.ensure_future(self._look_at(page))
        try:
            while True:
                began = self._shared.pulse.clock()
                done, _ = await asyncio.wait([asking], timeout=self._config.page.read_s)
                if done:
                    return asking.result()
                await self._missed(epoch, page, self._shared.pulse.clock() - began)
        finally:
            asking.cancel()
            forget(asking)  # it may have failed while it was missed

    async def _look_at(self, page: Page) -> object:
        signs = await page.look(whatsapp.part(self._shared.probe, "signs"))
        splash = signs.get("splash") if isinstance(signs, dict) else None
        words = await page.evaluate(whatsapp.part(self._shared.probe, "words", splash is not False))
        return whatsapp.together(signs, words)

    async def _missed(self, epoch: int, page: Page, waited_s: float) -> None:
        """The page has not answered a look: is it at work?"""
        if self._navigating:
            self._renderer.answered()
            return
        metrics = None
        await self._weigh(None)
        with contextlib.suppress(PageFailed, TimeoutError):
            async with asyncio.timeout(_AGAIN_S):
                metrics = await page.metrics()
        pids = [one.row.pid for one in await self._members() if one.role in {BROWSER, RENDERER}]
        seen = self._renderer.missed(self._shared.pulse.clock(), waited_s, pids, metrics)
        if Fault.PAGE_BLOCKED in seen and not await self._browser_answers():
            return
        await self._saw(epoch, OF_THE_RENDERER, seen, self._renderer.silent_s, self._renderer.due_s)

    async def _answered(self, epoch: int, step: int, reading: Reading) -> None:
        self._renderer.answered()
        self._ended_renderer = self._ended_renderer and reading.link in {Link.LOADING, Link.UNKNOWN}
        await self._saw(epoch, OF_THE_RENDERER, {})
        if self._left(step):
            return
        seen, loads = link.judge(reading), self._timer is not None
        if Fault.PAGE_UNREAD in seen and loads:  # the deadline of `open` runs
            return
        await self._saw(epoch, link.asked(reading), seen)
        if reading.link is Link.UNKNOWN or self._left(step):
            return
        await self._see_sync(epoch, reading)
        stale_s = self._config.health.qr_s
        age = time.monotonic() - max(self.seen.qr_seen, self._opened)
        await self._saw(epoch, qr.FAULTS, qr.judge(reading, age, stale_s), age)

    async def _see_sync(self, epoch: int, reading: Reading) -> None:
        """A sync that does not get on. What loads has yet to show whether it does."""
        if reading.link is Link.LOADING or reading.cut_off:
            return
        now, still_s = self._shared.pulse.clock(), 0.0
        if reading.link is Link.SYNCING:
            still_s = now - self._moved
        stuck = f"the sync has not moved for {still_s:.0f} s"
        limit_s = self._config.health.patience()[Fault.SYNC_STUCK]
        seen = {Fault.SYNC_STUCK: stuck} if still_s >= limit_s else {}
        await self._saw(epoch, {Fault.SYNC_STUCK}, seen, still_s)

    async def _weigh(self, reading: Reading | None) -> None:
        """Whether a page that loads or syncs gets on: by what it shows, and by the work of its renderer."""
        now = self._shared.pulse.clock()
        if reading is not None and reading.progress != self._progress:
            self._progress, self._moved = reading.progress, now
        syncs = reading is not None and reading.link is Link.SYNCING
        if self._timer is None and not syncs and reading is not None:
            self._moved, self._weighed = now, 0.0
            return
        if now - self._weighed < min(_AGAIN_S, self._deadline / 4):
            return
        passed, self._weighed = now - self._weighed, now
        moved = self._efforts.look([one.row.pid for one in await self._members() if one.role == RENDERER])
        if passed < patience.LONGER * self._config.page.read_s and moved.at_work(passed, _WORK_SHARE):
            self._moved = now

    def _until_next_look(self) -> float:
        """A page that loads is looked at all the time at first, and the longer it takes the less often."""
        if self._timer is None:
            return self._config.page.poll_s
        return min(self._config.page.poll_loading_s, (time.monotonic() - self._opened) / 10)

    def _note(self, reading: Reading) -> None:
        seen = self.seen
        if reading.wid is not None and (seen.reading is None or reading.wid != seen.reading.wid):
            self._instance.publish("session.account", wid=whatsapp.masked(reading.wid))
        seen.reading = reading
        if reading.link is Link.UNKNOWN:
            return
        if reading.qr != seen.qr:
            seen.qr, seen.qr_seen_at, seen.qr_seen = reading.qr, time.time(), time.monotonic()
            if reading.qr is not None:
                self._instance.publish("session.qr_shown")

    async def _reload_qr(self) -> None:
        browser = self._instance.browser
        if browser is None or browser.page is None:
            return
        with contextlib.suppress(PageFailed, TimeoutError):
            async with asyncio.timeout(self._config.page.read_s):
                clicked = await browser.page.look(whatsapp.part(self._shared.probe, "click", "fresh_codes"))
            self._instance.publish("session.qr_reloaded", clicked=clicked is True)

    # --- the probes -------------------------------------------------------------------------------------

    def _probes(self, browser: Browser, page: Page) -> Sequence[Probe]:
        every, answer_s = self._config.probes, self._config.probes.answer_s
        hard_mb = self._config.recycle.hard_memory_mb
        return (
            ProcessProbe(self._members, self._lease.was_still, every.process_s, answer_s),
            browser_probe(browser.version, self._members, every.browser_s, answer_s),
            network_probe(page.cookies, self._browser_answers, self._members, every.network_s, answer_s),
            GpuProbe(page.settled, self._page_answers, self._members, every.gpu_s, answer_s),
            MemoryProbe(self._members, self._used, hard_mb, every.memory_s, answer_s),
        )

    async def worked(self, seconds: float) -> bool:
        """Whether a process of the browser was at work for a good part of its first ``seconds``."""
        efforts = [host.effort(one.row.pid) for one in await self._members()]
        known = [Moved(one.ran_s, one.waited_s, one.on_disk) for one in efforts if one is not None]
        return any(one.at_work(seconds, _WORK_SHARE) for one in known)

    async def _members(self) -> Sequence[Member]:
        browser = self._instance.browser
        return () if browser is None else await self._shared.census.members(browser.run.pids())

    async def _browser_answers(self) -> bool:
        """Whether the browser's own process does; if not, its probe is to say so."""
        browser = self._instance.browser
        if browser is None:
            return False
        with contextlib.suppress(PageFailed, TimeoutError):
            async with asyncio.timeout(_AGAIN_S):
                await browser.version()
            return True
        if (wake := self._wake.get(Fault.BROWSER_HUNG)) is not None:
            wake.set()
        return False

    async def _page_answers(self) -> bool:
        return not self._navigating and not self._renderer.silent and await self._browser_answers()

    async def _keep_looking(self, epoch: int, probe: Probe) -> None:
        wake = asyncio.Event()
        self._wake |= dict.fromkeys(probe.faults, wake)
        await self._rest(wake, random.uniform(0, probe.interval_s))  # noqa: S311 (spreads load, no secret)
        while True:
            unanswered = await self._look(epoch, probe)
            if unanswered:
                continue
            if any(fault in self._book for fault in probe.faults):
                await self._rest(wake, min(_AGAIN_S, probe.interval_s))
            else:
                await self._rest(wake, probe.interval_s * random.uniform(0.9, 1.1))  # noqa: S311 (likewise)

    async def _look_when_memory_falls(self) -> None:
        while True:
            await self._shared.falls.next()
            if (wake := self._wake.get(Fault.MEMORY_HIGH)) is not None:
                wake.set()

    async def _look(self, epoch: int, probe: Probe) -> bool:
        """One look; returns whether it was not answered in time."""
        began = self._shared.pulse.clock()
        try:
            async with asyncio.timeout(probe.deadline_s):
                seen = await probe.look()
        except TimeoutError:
            waited = self._shared.pulse.clock() - began
            if waited >= 0.8 * probe.deadline_s:  # else it was the daemon that slept
                await self._saw(epoch, probe.faults, await probe.unanswered(waited), 2 * waited)
            return True
        except PageFailed:  # it cannot tell: what it has only suspected is void
            self._book = patience.doubt(self._book, probe.faults)
            return False
        await self._saw(epoch, probe.faults, seen)
        return False

    async def _rest(self, wake: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await wake.wait()
        wake.clear()

    async def _saw(
        self,
        epoch: int,
        asked: Collection[Fault],
        seen: Mapping[Fault, str],
        before_s: float = 0.0,
        wait_s: float = 0.0,
    ) -> None:
        """Count what a probe complains of, and tell what has lasted.

        ``before_s``: it has been so before it was a complaint; ``wait_s``: so soon more is known of what is only suspected.
        """
        now, health, step = self._shared.pulse.clock(), self._config.health, self._step
        unknown = dict.fromkeys((Fault.PAGE_WRONG, Fault.PAGE_UNREAD), self._unknown_s)
        limits = {**health.patience(), **unknown, Fault.SYNC_STUCK: 0.0}
        treated = {**health.treated(), **dict.fromkeys(REFUSALS - {Fault.OUTDATED}, SLOW_S[0])}
        if self._no_way():
            limits[Fault.OFFLINE] = treated[Fault.OFFLINE] = 0.0
        self._book, due, over = patience.update(self._book, asked, seen, limits, now)
        for one in due:
            evidence = seen[one.fault]
            if one.fault is Fault.OFFLINE and self._no_way() and self._no_way_why:
                evidence = f"{self._no_way_why.removesuffix('.')}; {evidence}"
            if (hold := self._lease.held(Use.DRIVEN)) is not None:
                evidence = f"{evidence}; {hold.told()}"
            lasted_s = before_s + one.lasted_s
            waits_s = wait_s if one.fault is Fault.PAGE_SILENT else treated.get(one.fault, 0.0) - lasted_s
            complaint = finding(one.fault, evidence, lasted_s, max(0.0, waits_s))
            await self._complain(epoch, step, complaint, first=one.first)
        for fault in over:
            self._inbox.put(events.Recovered(epoch, fault))

    def _no_way(self) -> bool:
        """The browser shows its own error page, which does not try again by itself."""
        reading = self.seen.reading
        return reading is not None and whatsapp.ERROR_PAGE in reading.signs

    # --- the remedies -----------------------------------------------------------------------------------

    def cure(self, epoch: int, step: int, fault: Fault, remedy: Remedy, verify_s: float) -> None:
        """Apply a remedy; if the probe that complained is not content ``verify_s`` after that, say so."""
        if self._cures is not None:
            self._cures.cancel()  # of what it was for something else was said since
        if remedy is Remedy.RELOAD:  # what its page was found to be is found anew of the next one
            afresh = {Fault.PAGE_WRONG, Fault.PAGE_UNREAD} | BY_SCAN
            self._book = {one: known for one, known in self._book.items() if one not in afresh}
        self._cures = self._start(partial(self._cure, epoch, step, fault, remedy, verify_s), f"cure:{remedy}")

    async def _cure(self, epoch: int, step: int, fault: Fault, remedy: Remedy, verify_s: float) -> None:
        browser = self._instance.browser
        assert browser is not None and browser.page is not None  # noqa: S101, PT018 (it is up)
        await self._lease.pull(remedy, f"{remedy}, because of {fault}")
        target = remedies.Target(
            browser.page,
            self._config.whatsapp.url,
            self._members,
            self._renderer.silent,
            partial(whatsapp.part, self._shared.probe, "click"),
        )
        reload, why = remedy is Remedy.RELOAD, ""
        self._navigating += reload
        try:
            if reload:
                self._ended_renderer = remedies.ends_renderer(fault, silent=target.silent)
                self._reloads += 1
                self.seen.reading = None  # what it shows next is news, even if it is the same
            async with asyncio.timeout(verify_s if reload else self._config.probes.answer_s):
                await remedies.apply(remedy, fault, target)
        except PageUnreachable as error:
            why = error.message
            self._tell_unreachable(epoch, step, error)
        except PageFailed as error:
            why = error.message
        except TimeoutError:
            why = "it could not be applied in time"
        finally:
            self._navigating -= reload
            self._step = max(self._step, step) if reload else self._step
        if not why:
            browser.page.abandon()  # what was asked before is asked anew: it may have been lost
            if (wake := self._wake.get(fault)) is not None:
                wake.set()
            await self._awake(verify_s)
            while reload and self._timer is not None:  # it gets on
                await self._awake(_AGAIN_S)
            why = f"{verify_s:g} s after it nothing was better"
        self._inbox.put(events.NotCured(epoch, why, step=step))

    async def _awake(self, seconds: float) -> None:
        """Sleep for so many seconds of the daemon's own waking time."""
        until = self._shared.pulse.clock() + seconds
        while (left := until - self._shared.pulse.clock()) > 0:  # noqa: ASYNC110 (its clock may have stood still)
            await asyncio.sleep(left)
