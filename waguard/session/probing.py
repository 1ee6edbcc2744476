"""The probes of one browser: when each looks, and what of its complaints has lasted."""

import asyncio
import contextlib
import random
from collections.abc import Collection, Mapping, Sequence

from waguard.browser.launch import Browser
from waguard.browser.page import Page
from waguard.core.health import patience
from waguard.core.health.faults import REFUSALS, Fault, finding
from waguard.core.health.lease import Use
from waguard.core.health.patience import Book
from waguard.core.health.plans import BY_SCAN, SLOW_S
from waguard.core.session import events
from waguard.errors import PageFailed
from waguard.health.probes import Probe
from waguard.health.probes.browser import browser_probe
from waguard.health.probes.census import Member
from waguard.health.probes.effort import Moved
from waguard.health.probes.gpu import GpuProbe
from waguard.health.probes.memory import MemoryProbe
from waguard.health.probes.network import network_probe
from waguard.health.probes.process import ProcessProbe
from waguard.health.probes.renderer import RendererProbe
from waguard.session.lease import PageLease
from waguard.session.visit import PageVisit
from waguard.system import host
from waguard.whatsapp import page as whatsapp

AGAIN_S = 1.0
"""How soon a probe looks again that has just complained, at most."""
WORK_SHARE = 0.5
"""A page that loads is at work if it ran, or waited for a processor, for so much of the time: our looks at it take less."""


class Probing:
    def __init__(self, visit: PageVisit, lease: PageLease) -> None:
        self._visit = visit
        self._lease = lease
        health, page = visit.config.health, visit.config.page
        self._unknown_s = page.unknown_after * page.poll_s
        self.renderer = RendererProbe(health.blocked_s, health.busy_s, self._unknown_s)
        self._book: Book = {}
        self._wake: dict[Fault, asyncio.Event] = {}

    def wake(self, fault: Fault) -> None:
        """The probe that looks for it looks now."""
        if (wake := self._wake.get(fault)) is not None:
            wake.set()

    def forget_page(self) -> None:
        """What the page was found to be is found anew of the next one."""
        afresh = {Fault.PAGE_WRONG, Fault.PAGE_UNREAD} | BY_SCAN
        self._book = {one: known for one, known in self._book.items() if one not in afresh}

    def probes(self, browser: Browser, page: Page) -> Sequence[Probe]:
        every, answer_s = self._visit.config.probes, self._visit.config.probes.answer_s
        instance = self._visit.instance
        hard_mb = instance.resources.settings.known_of(instance.code).recycle_hard_memory_mb
        return (
            ProcessProbe(self.members, self._lease.was_still, every.process_s, answer_s),
            browser_probe(browser.version, self.members, every.browser_s, answer_s),
            network_probe(page.cookies, self.browser_answers, self.members, every.network_s, answer_s),
            GpuProbe(page.settled, self._page_answers, self.members, every.gpu_s, answer_s),
            MemoryProbe(self.members, self._visit.used, hard_mb, every.memory_s, answer_s),
        )

    async def worked(self, seconds: float) -> bool:
        """Whether a process of the browser was at work for a good part of its first ``seconds``."""
        efforts = [host.effort(one.row.pid) for one in await self.members()]
        known = [Moved(one.ran_s, one.waited_s, one.on_disk) for one in efforts if one is not None]
        return any(one.at_work(seconds, WORK_SHARE) for one in known)

    async def members(self) -> Sequence[Member]:
        browser = self._visit.instance.browser
        return () if browser is None else await self._visit.shared.census.members(browser.run.pids())

    async def browser_answers(self) -> bool:
        """Whether the browser's own process does; if not, its probe is to say so."""
        browser = self._visit.instance.browser
        if browser is None:
            return False
        with contextlib.suppress(PageFailed, TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                await browser.version()
            return True
        self.wake(Fault.BROWSER_HUNG)
        return False

    async def _page_answers(self) -> bool:
        quiet = self._visit.state.away or self.stalled or self.renderer.silent
        return not quiet and await self.browser_answers()

    @property
    def stalled(self) -> bool:
        """See `PageLease.stalled`."""
        return self._lease.stalled

    def page_missed(self) -> bool:
        """The page has not answered a look; returns whether it is kept from it by who works in it."""
        if not self.stalled:
            self._lease.silence.tell(True)
        return self.stalled

    def page_answered(self) -> None:
        self._lease.silence.tell(False)

    async def keep_looking(self, epoch: int, probe: Probe) -> None:
        wake = asyncio.Event()
        self._wake |= dict.fromkeys(probe.faults, wake)
        await rest(wake, random.uniform(0, probe.interval_s))  # noqa: S311 (spreads load, no secret)
        while True:
            unanswered = await self._look(epoch, probe)
            if unanswered:
                continue
            if any(fault in self._book for fault in probe.faults):
                await rest(wake, min(AGAIN_S, probe.interval_s))
            else:
                await rest(wake, probe.interval_s * random.uniform(0.9, 1.1))  # noqa: S311 (likewise)

    async def look_when_memory_falls(self) -> None:
        while True:
            await self._visit.shared.falls.next()
            self.wake(Fault.MEMORY_HIGH)

    async def _look(self, epoch: int, probe: Probe) -> bool:
        """One look; returns whether it was not answered in time."""
        began, waited = self._visit.now(), 0.0
        try:
            try:
                async with asyncio.timeout(probe.deadline_s):
                    seen = await probe.look()
            except TimeoutError:
                waited = self._visit.now() - began
                if waited < 0.8 * probe.deadline_s:  # it was the daemon that slept
                    return True
                seen = await probe.unanswered(waited)
        except PageFailed:
            # It cannot tell: what it has only suspected is void, what it has found is not over.
            self._book = patience.doubt(self._book, probe.faults)
        else:
            await self.saw(epoch, probe.faults, seen, 2 * waited)
        return waited > 0

    async def saw(
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
        now, health, step = self._visit.now(), self._visit.config.health, self._visit.state.step
        unknown = dict.fromkeys((Fault.PAGE_WRONG, Fault.PAGE_UNREAD), self._unknown_s)
        limits = {**health.patience(), **unknown, Fault.SYNC_STUCK: 0.0}
        treated = {**health.treated(), **dict.fromkeys(REFUSALS - {Fault.OUTDATED}, SLOW_S[0])}
        if self._no_way():
            limits[Fault.OFFLINE] = treated[Fault.OFFLINE] = 0.0
        self._book, due, over = patience.update(self._book, asked, seen, limits, now)
        for one in due:
            evidence = seen[one.fault]
            if one.fault is Fault.OFFLINE and self._no_way() and self._visit.state.no_way:
                evidence = f"{self._visit.state.no_way.removesuffix('.')}; {evidence}"
            if (hold := self._lease.held(Use.DRIVEN)) is not None:
                evidence = f"{evidence}; {hold.told()}"
            lasted_s = before_s + one.lasted_s
            waits_s = wait_s if one.fault is Fault.PAGE_SILENT else treated.get(one.fault, 0.0) - lasted_s
            complaint = finding(one.fault, evidence, lasted_s, max(0.0, waits_s))
            await self._visit.complain(epoch, step, complaint, first=one.first)
        for fault in over:
            self._visit.tell(events.Recovered(epoch, fault))

    def _no_way(self) -> bool:
        """The browser shows its own error page, which does not try again by itself."""
        reading = self._visit.seen.reading
        return reading is not None and whatsapp.ERROR_PAGE in reading.signs


async def rest(wake: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until somebody wakes whoever waits."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
    wake.clear()
