"""The page is looked at again and again: what it says is reported, and whether it answers and gets on."""

import asyncio
import contextlib
import time
from dataclasses import replace
from functools import partial

from waguard.browser.page import Page
from waguard.core.address import elsewhere
from waguard.core.health import patience
from waguard.core.health.faults import Fault, Finding, finding
from waguard.core.model import Failure, Link, Reading, Stage
from waguard.core.session import events
from waguard.core.session.visit import LoginTaken, LogoutSeen, PageShown, RendererGone
from waguard.errors import PageFailed, PairingRefused
from waguard.health.probes import link, qr
from waguard.health.probes.census import BROWSER, RENDERER
from waguard.health.probes.effort import Efforts
from waguard.health.probes.renderer import FAULTS as OF_THE_RENDERER
from waguard.session.enclosure import Enclosure
from waguard.session.login import ClientLogin
from waguard.session.opening import Opening
from waguard.session.probing import AGAIN_S, WORK_SHARE, Probing, rest
from waguard.session.visit import PageVisit
from waguard.system.tasks import forget
from waguard.whatsapp import page as whatsapp


class PageReader:
    def __init__(
        self, visit: PageVisit, login: ClientLogin, enclosure: Enclosure, opening: Opening, probing: Probing
    ) -> None:
        self._visit = visit
        self._login = login
        self._enclosure = enclosure
        self._opening = opening
        self._probing = probing
        self._progress = ""
        self._efforts = Efforts()
        self._weighed = 0.0
        """When the page's work was looked at last."""

    async def run(self, epoch: int, page: Page) -> None:
        """Look at the page again and again; tell what changed."""
        while True:
            step = self._visit.state.step
            try:
                signs = await self._signs(epoch, page)
            except PageFailed:
                if page.gone:
                    self.crashed(epoch)
                    return
                signs = None  # between two documents; a pipe that is gone ends the browser, which is watched
            reading = whatsapp.read(
                signs, logged_out=self._visit.state.logged_out, home=self._visit.config.whatsapp.url
            )
            had = self._login.held
            judged = await self._login.judge(reading)
            if self._login.held and not had:
                self._visit.note(LoginTaken())
            if judged is None:
                lost = Failure("refused", f"The login was lost: {self._login.doubt}.", Stage.OPEN)
                shown = ", ".join(reading.signs) or "nothing"
                evidence = (self._login.doubt, f"the page shows {shown}")
                self._visit.tell(events.LoginLost(epoch, lost, evidence))
                return
            reading = self._paired(judged)
            news = (
                reading != self._visit.seen.reading or reading.qr_exhausted or self._probing.renderer.silent
            )
            if news and not self._visit.state.left(step):
                self._note(reading)
                self._visit.tell(events.PageRead(epoch, reading, step=step))
            await self._weigh(reading)
            await self._answered(epoch, step, reading)
            await rest(self._visit.look_now, self._until_next_look())

    def at(self, address: str) -> None:
        """The page has come to this address, and may have left it again."""
        ours = not elsewhere(address, self._visit.config.whatsapp.url)
        if whatsapp.says_logged_out(address) and ours and self._visit.note(LogoutSeen()):
            self._visit.look_now.set()

    async def _signs(self, epoch: int, page: Page) -> object:
        """What the page's reader has seen. It is asked once and waited for: an answer that comes late is one. Raises `PageFailed`."""
        asking = asyncio.ensure_future(self._look_at(page))
        try:
            while True:
                began = self._visit.now()
                done, _ = await asyncio.wait([asking], timeout=self._visit.config.page.read_s)
                if done:
                    return asking.result()
                await self._missed(epoch, page, self._visit.now() - began)
        finally:
            asking.cancel()
            forget(asking)  # it may have failed while it was missed

    async def _look_at(self, page: Page) -> object:
        signs = await page.look(whatsapp.part(self._visit.shared.probe, "signs"))
        splash = signs.get("splash") if isinstance(signs, dict) else None
        words = await page.evaluate(whatsapp.part(self._visit.shared.probe, "words", splash is not False))
        return whatsapp.together(signs, words)

    async def _missed(self, epoch: int, page: Page, waited_s: float) -> None:
        """The page has not answered a look: is it at work?"""
        if self._visit.state.away or self._probing.page_missed():
            self._probing.renderer.answered()
            return
        metrics = None
        await self._weigh(None)
        with contextlib.suppress(PageFailed, TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                metrics = await page.metrics()
        pids = [one.row.pid for one in await self._probing.members() if one.role in {BROWSER, RENDERER}]
        seen = self._probing.renderer.missed(self._visit.now(), waited_s, pids, metrics)
        if Fault.PAGE_BLOCKED in seen and not await self._probing.browser_answers():
            return
        await self._probing.saw(
            epoch, OF_THE_RENDERER, seen, self._probing.renderer.silent_s, self._probing.renderer.due_s
        )

    async def _answered(self, epoch: int, step: int, reading: Reading) -> None:
        self._probing.page_answered()
        self._probing.renderer.answered()
        if reading.link not in {Link.LOADING, Link.UNKNOWN}:
            self._visit.note(PageShown())
        await self._probing.saw(epoch, OF_THE_RENDERER, {})
        if self._visit.state.left(step):
            return
        seen, loads = link.judge(reading), self._opening.runs
        if Fault.PAGE_UNREAD in seen and loads:  # the deadline of `open` runs
            return
        await self._probing.saw(epoch, link.asked(reading), seen)
        if reading.link is Link.UNKNOWN or self._visit.state.left(step):
            return
        await self._see_sync(epoch, reading)
        stale_s = self._visit.config.health.qr_s
        began = max(self._visit.seen.qr_seen, self._visit.seen.pairing_until, self._opening.opened)
        age = time.monotonic() - began
        await self._probing.saw(epoch, qr.FAULTS, qr.judge(reading, age, stale_s), age)

    def _paired(self, reading: Reading) -> Reading:
        """While a pairing code may be entered, QR codes that are used up are no news."""
        seen, now = self._visit.seen, time.monotonic()
        if reading.pairing and not (seen.reading is not None and seen.reading.pairing):
            seen.pairing_until = max(seen.pairing_until, now + whatsapp.PAIRING_S)
        return replace(reading, qr_exhausted=False) if now < seen.pairing_until else reading

    async def _see_sync(self, epoch: int, reading: Reading) -> None:
        """A sync that does not get on. What loads has yet to show whether it does."""
        if reading.link is Link.LOADING or reading.cut_off:
            return
        now, still_s = self._visit.now(), 0.0
        if reading.link is Link.SYNCING:
            still_s = now - self._opening.moved
        stuck = f"the sync has not moved for {still_s:.0f} s"
        limit_s = self._visit.config.health.patience()[Fault.SYNC_STUCK]
        seen = {Fault.SYNC_STUCK: stuck} if still_s >= limit_s else {}
        await self._probing.saw(epoch, {Fault.SYNC_STUCK}, seen, still_s)

    async def _weigh(self, reading: Reading | None) -> None:
        """Whether a page that loads or syncs gets on: by what it shows, and by the work of its renderer."""
        now = self._visit.now()
        if reading is not None and reading.progress != self._progress:
            self._progress, self._opening.moved = reading.progress, now
        syncs = reading is not None and reading.link is Link.SYNCING
        if not self._opening.runs and not syncs and reading is not None:
            self._opening.moved, self._weighed = now, 0.0
            return
        if now - self._weighed < min(AGAIN_S, self._opening.deadline_s / 4):
            return
        passed, self._weighed = now - self._weighed, now
        moved = self._efforts.look(
            [one.row.pid for one in await self._probing.members() if one.role == RENDERER]
        )
        if passed < patience.LONGER * self._visit.config.page.read_s and moved.at_work(passed, WORK_SHARE):
            self._opening.moved = now

    def _until_next_look(self) -> float:
        """A page that loads is looked at all the time at first, and the longer it takes the less often."""
        if not self._opening.runs:
            return self._visit.config.page.poll_s
        return min(self._visit.config.page.poll_loading_s, (time.monotonic() - self._opening.opened) / 10)

    def _note(self, reading: Reading) -> None:
        seen = self._visit.seen
        if reading.wid is not None and (seen.reading is None or reading.wid != seen.reading.wid):
            self._visit.instance.publish("session.account", wid=whatsapp.masked(reading.wid))
        seen.reading = reading
        if reading.link is Link.UNKNOWN:
            return
        if reading.qr != seen.qr:
            seen.qr, seen.qr_seen_at, seen.qr_seen = reading.qr, time.time(), time.monotonic()
            if reading.qr is not None:
                self._visit.instance.publish("session.qr_shown")

    async def reload_qr(self) -> None:
        browser = self._visit.instance.browser
        if browser is None or browser.page is None:
            return
        with contextlib.suppress(PageFailed, TimeoutError):
            async with asyncio.timeout(self._visit.config.page.read_s):
                clicked = await browser.page.look(
                    whatsapp.part(self._visit.shared.probe, "click", "fresh_codes")
                )
            self._visit.instance.publish("session.qr_reloaded", clicked=clicked is True)

    async def pairing_code(self, page: Page, phone: str) -> str:
        """The code by which the phone with this number links itself. Raises `PairingRefused`, `PageFailed`."""
        asked = whatsapp.part(self._visit.shared.probe, "pairing", phone)
        code, refused = whatsapp.pairing_code(await page.promised(asked))
        if not code:
            raise PairingRefused(f"WhatsApp gives no pairing code for this number: {refused}.")
        self._visit.seen.pairing_until = time.monotonic() + whatsapp.PAIRING_S
        self._visit.instance.publish("session.pairing_code")
        return code

    def crashed(self, epoch: int) -> None:
        self._visit.seen.reading = None
        if not self._visit.note(RendererGone()):
            return
        if (browser := self._visit.instance.browser) is not None and browser.page is not None:
            browser.page.abandon()
        complaint = finding(Fault.PAGE_CRASHED, "the browser says so", 0.0)
        self._visit.start(partial(self.died, epoch, complaint), "crashed")

    async def died(self, epoch: int, complaint: Finding) -> None:
        """A process is gone: if the kernel has ended it, that is said too."""
        if why := await self._enclosure.short_of_memory():
            complaint = replace(complaint, evidence=(*complaint.evidence, why))
        await self._visit.complain(epoch, self._visit.state.step, complaint)
