"""A remedy that leaves the browser up is applied, and it is seen whether it helps."""

import asyncio
from functools import partial

from waguard.browser.page import Page
from waguard.core.health.faults import Fault
from waguard.core.health.plans import Remedy
from waguard.core.session import events
from waguard.core.session.visit import ReloadBegun, ReloadOver, RenewalBegun
from waguard.errors import PageFailed, PageUnreachable
from waguard.health import remedies
from waguard.session.lease import PageLease
from waguard.session.opening import Opening
from waguard.session.probing import AGAIN_S, Probing
from waguard.session.visit import PageVisit
from waguard.whatsapp import page as whatsapp


class Curing:
    def __init__(self, visit: PageVisit, lease: PageLease, opening: Opening, probing: Probing) -> None:
        self._visit = visit
        self._lease = lease
        self._opening = opening
        self._probing = probing
        self._under_way: asyncio.Task[None] | None = None

    def cure(self, epoch: int, step: int, fault: Fault, remedy: Remedy, verify_s: float) -> None:
        """Apply a remedy; if the probe that complained is not content ``verify_s`` after that, report so."""
        if self._under_way is not None:
            self._under_way.cancel()  # of what it was for something else was said since
        if remedy is Remedy.RELOAD:
            self._probing.forget_page()
        work = partial(self._cure, epoch, step, fault, remedy, verify_s)
        self._under_way = self._visit.start(work, f"cure:{remedy}")

    async def _cure(self, epoch: int, step: int, fault: Fault, remedy: Remedy, verify_s: float) -> None:
        browser = self._visit.instance.browser
        assert browser is not None and browser.page is not None  # noqa: S101, PT018 (it is up)
        await self._lease.pull(remedy, f"{remedy}, because of {fault}")
        page, reload, why = browser.page, remedy is Remedy.RELOAD, ""
        try:
            await (self._reload(page, fault, step, verify_s) if reload else self._apply(page, remedy, fault))
        except PageUnreachable as error:
            why = error.message
            self._visit.no_way(epoch, step, error)
        except PageFailed as error:
            why = error.message
        except TimeoutError:
            why = "it could not be applied in time"
        if not why:
            page.abandon()  # what was asked before is asked anew: it may have been lost
            self._probing.wake(fault)
            await self._awake(verify_s)
            while reload and self._opening.runs:  # it gets on
                await self._awake(AGAIN_S)
            why = f"{verify_s:g} s later the fault was still there"
        self._visit.tell(events.NotCured(epoch, why, step=step))

    async def _reload(self, page: Page, fault: Fault, step: int, limit_s: float) -> None:
        target = self._target(page)
        renews = remedies.ends_renderer(fault, silent=target.silent)
        self._visit.note(RenewalBegun(step) if renews else ReloadBegun(step))
        self._visit.seen.reading = None  # what it shows next is news, even if it is the same
        try:
            async with asyncio.timeout(limit_s):
                await remedies.apply(Remedy.RELOAD, fault, target)
        finally:
            self._visit.note(ReloadOver(step))

    async def _apply(self, page: Page, remedy: Remedy, fault: Fault) -> None:
        async with asyncio.timeout(self._visit.config.probes.answer_s):
            await remedies.apply(remedy, fault, self._target(page))

    def _target(self, page: Page) -> remedies.Target:
        return remedies.Target(
            page,
            self._visit.config.whatsapp.url,
            self._probing.members,
            self._probing.renderer.silent,
            partial(whatsapp.part, self._visit.shared.probe, "click"),
        )

    async def _awake(self, seconds: float) -> None:
        """Sleep for so many seconds of the daemon's own waking time."""
        until = self._visit.now() + seconds
        while (left := until - self._visit.now()) > 0:  # noqa: ASYNC110 (its clock may have stood still)
            await asyncio.sleep(left)
