"""What goes on beside a session's work as long as its browser is up: its end, its pipe and its page are watched, and probed.

It tells what happened and decides nothing. The session owns it, and stops it before it stops the browser.
"""

import asyncio
import contextlib
import time
from functools import partial

from waguard.browser.launch import Browser
from waguard.browser.page import Page
from waguard.browser.strangers import end_strangers
from waguard.core.health.faults import Fault, Finding
from waguard.core.health.plans import Remedy
from waguard.core.model import Failure, Link, Stage
from waguard.core.session.visit import Arrived, Place, Went
from waguard.errors import BrowserFailed, DeadlineExceeded, PageFailed, PageUnreachable, WaguardError
from waguard.session.crew import Crew, Look
from waguard.session.curing import Curing
from waguard.session.driving import Driving
from waguard.session.enclosure import Enclosure
from waguard.session.inbox import Inbox
from waguard.session.instance import Instance
from waguard.session.lease import PageLease
from waguard.session.login import ClientLogin
from waguard.session.memory import Seen
from waguard.session.opening import Opening
from waguard.session.plans import Plans
from waguard.session.probing import Probing
from waguard.session.reading import PageReader
from waguard.session.resources import SharedProbes
from waguard.session.usage import Usages
from waguard.session.visit import PageVisit
from waguard.system import shortage
from waguard.system.deadline import within

_POPUPS_TOLD_S = 60.0
_REFRESH_S = 60.0
"""How often it is looked whether the page should be loaded anew."""


class Watch:
    def __init__(
        self,
        instance: Instance,
        login: ClientLogin,
        enclosure: Enclosure,
        lease: PageLease,
        driving: Driving,
        probes: SharedProbes,
        plans: Plans,
        usages: Usages,
        inbox: Inbox,
        crew: Crew,
    ) -> None:
        self._instance = instance
        self._config = instance.resources.config
        self._crew = crew
        self._tasks: list[asyncio.Task[None]] = []
        self._new_visit = partial(PageVisit, instance, probes, plans, usages, inbox, self._start)
        self._lease = lease
        self._driving = driving
        self._usages = usages
        self._new_reader = partial(PageReader, login=login, enclosure=enclosure)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """What is known of the last browser's health goes with it."""
        self._visit = self._new_visit()
        self._opening = Opening(self._visit)
        self.probing = Probing(self._visit, self._lease)
        self._reader = self._new_reader(self._visit, opening=self._opening, probing=self.probing)
        self._curing = Curing(self._visit, self._lease, self._opening, self.probing)
        self._popups = 0
        """Closed since it was told last."""
        self._popups_told = 0.0
        """Not again before then."""

    @property
    def seen(self) -> Seen:
        """What the page has shown."""
        return self._visit.seen

    def begin(self, epoch: int, browser: Browser) -> None:
        """As soon as there is a process: watch for its end."""
        self._begin_anew()
        self._start(partial(self._watch_exit, epoch, browser), "exit")

    def take_over(self, epoch: int, deadline_s: float, expected_s: float) -> None:
        """Watch a browser that an earlier daemon has brought up, from its end to its page."""
        browser = self._instance.browser
        assert browser is not None  # noqa: S101 (adopted)
        self.begin(epoch, browser)
        self._start(partial(self._end_strangers, browser), "strangers")
        page = self._watch_page(epoch, deadline_s, expected_s)
        self._start(partial(self._go_on, epoch, page), "go-on")

    async def _end_strangers(self, browser: Browser) -> None:
        """Clients of a daemon that has died have sessions still, and the page may be paused in one."""
        assert browser.devtools is not None  # noqa: S101 (adopted)
        with contextlib.suppress(PageFailed, TimeoutError):
            async with asyncio.timeout(self._config.page.read_s):
                if await end_strangers(browser.devtools):
                    self._instance.publish("relay.strangers_ended")

    async def _go_on(self, epoch: int, page: Page) -> None:
        """Its daemon may have died before it sent the page anywhere. One that does not answer is for the probes to judge."""
        with contextlib.suppress(PageFailed):
            if await page.elsewhere(self._config.whatsapp.url):
                await self._go(epoch, page)

    def _watch_page(self, epoch: int, deadline_s: float, expected_s: float) -> Page:
        browser = self._instance.browser
        assert browser is not None and browser.page is not None  # noqa: S101, PT018 (Started or Adopted came first)
        page = browser.page
        self._opening.arm(epoch, self._visit.state.step, deadline_s, expected_s)
        self._start(partial(self._watch_pipe, epoch, browser), "pipe")
        reader = self._reader
        page.observe_crash(lambda _: reader.crashed(epoch))
        page.addresses.observe(reader.at)
        page.others.observe(partial(self._close, page))
        self.probing.page_answered()  # it has kept nobody waiting yet
        self._start(partial(reader.run, epoch, page), "read")
        for probe in self.probing.probes(browser, page):
            self._start(partial(self.probing.keep_looking, epoch, probe), type(probe).__name__)
        self._start(self.probing.look_when_memory_falls, "falls")
        self._start(partial(self._refresh, epoch, page), "refresh")
        return page

    async def open(self, epoch: int, deadline_s: float, expected_s: float) -> None:
        """Go to WhatsApp Web and watch it; returns when the navigation is committed. Raises `PageFailed`."""
        await self._go(epoch, self._watch_page(epoch, deadline_s, expected_s))

    async def _go(self, epoch: int, page: Page) -> None:
        self._visit.note(Went())
        try:
            await page.open(self._config.whatsapp.url)
        except PageUnreachable as error:
            self._visit.no_way(epoch, 0, error)
        except PageFailed as error:
            # Else the watchers tell what became of it, or a reload that has taken its place does.
            if not page.disconnected and self._visit.state.place is Place.GOING:
                self._visit.quote(error)
                raise
        finally:
            self._visit.note(Arrived())

    async def _refresh(self, epoch: int, page: Page) -> None:
        """What clients have left in the document goes with it: it is loaded again when nobody is attached, in a quiet hour."""
        while True:
            await asyncio.sleep(_REFRESH_S)
            reading = self._visit.seen.reading
            if reading is None or reading.link is not Link.CONNECTED or not self._usages.quiet:
                continue
            with contextlib.suppress(PageFailed, DeadlineExceeded):
                if await self._driving.has_leftovers(page):
                    self._instance.publish("page.refreshed")
                    await self._go(epoch, page)

    def arm(self, epoch: int, step: int, deadline_s: float, expected_s: float) -> None:
        """The deadline of the stage `open` runs from here."""
        self._opening.arm(epoch, step, deadline_s, expected_s)

    def done(self, *, usable: bool) -> None:
        """The page is usable, or will not become so by waiting."""
        self._opening.done(usable=usable)

    def cure(self, epoch: int, step: int, fault: Fault, remedy: Remedy, verify_s: float) -> None:
        """Apply a remedy; if the probe that complained is not content ``verify_s`` after that, report so."""
        self._curing.cure(epoch, step, fault, remedy, verify_s)

    def reload_qr(self) -> None:
        """Ask the page for fresh codes."""
        self._start(self._reader.reload_qr, "reload-qr")

    async def pairing_code(self, page: Page, phone: str) -> str:
        """See `PageReader.pairing_code`."""
        return await self._reader.pairing_code(page, phone)

    async def worked(self, seconds: float) -> bool:
        """Whether a process of the browser was at work for a good part of its first ``seconds``."""
        return await self.probing.worked(seconds)

    async def stop(self) -> None:
        """May be called off, and called again."""
        self._opening.disarm()
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # forgotten only when they have ended
            await asyncio.wait(self._tasks)
        self._tasks = []
        self._visit.forget()

    def _start(self, look: Look, name: str) -> "asyncio.Task[None]":
        task = self._crew.look_on(look, name)
        self._tasks = [*(one for one in self._tasks if not one.done()), task]
        return task

    async def _watch_exit(self, epoch: int, browser: Browser) -> None:
        how = await browser.run.exited()
        killed = "It was killed by a person, or by the kernel for lack of memory: see dmesg."
        words = list(browser.last_words())
        error = shortage.of_last_words(words) or BrowserFailed(
            f"The browser ended by itself ({how}).", hint=killed if "SIGKILL" in how else "", stderr=words
        )
        await self._reader.died(epoch, Finding(Fault.BROWSER_EXITED, Failure.of(error), (how,)))

    async def _watch_pipe(self, epoch: int, browser: Browser) -> None:
        """A browser that closed its pipe is about to end; one that does not is of no use either."""
        why = await browser.disconnected()
        try:
            async with within(Stage.CLOSE, self._config.deadlines.close, "ending without its pipe"):
                await browser.run.exited()  # `_watch_exit` tells
        except WaguardError:
            await self._reader.died(epoch, Finding(Fault.PIPE_CLOSED, Failure("page_failed", why), (why,)))

    def _close(self, page: Page, other: str) -> None:
        """Nobody looks at another page, and it takes memory, or WhatsApp from ours."""
        page.close_other(other)
        self._popups += 1
        now = time.monotonic()
        if now >= self._popups_told:
            self._popups_told = now + _POPUPS_TOLD_S
            self._instance.publish("page.popups_closed", pages=self._popups)
            self._popups = 0
