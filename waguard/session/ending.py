"""The way down: a browser is asked to close, killed, and proved gone with whatever an earlier launch has left."""

import asyncio
import time
from contextlib import suppress

from waguard.browser.launch import Browser
from waguard.core.health.plans import Remedy
from waguard.core.login import events
from waguard.core.model import Stage
from waguard.errors import NotProvedGone, WaguardError
from waguard.sandbox import reaper
from waguard.session.enclosure import Enclosure
from waguard.session.instance import Instance
from waguard.session.lease import PageLease
from waguard.session.login import ClientLogin
from waguard.system.deadline import within
from waguard.system.threads import Kind, in_thread


class Ending:
    def __init__(
        self, instance: Instance, login: ClientLogin, enclosure: Enclosure, lease: PageLease
    ) -> None:
        self._instance = instance
        self._login = login
        self._enclosure = enclosure
        self._lease = lease
        self._deadlines = instance.resources.config.deadlines

    async def ask_to_close(self) -> str:
        """Ask the browser to close, so that it writes down what it has; says what came of it if it did not."""
        browser = self._instance.browser
        assert browser is not None  # noqa: S101 (the callers looked)
        if await self._stopped(browser):
            return "it is stopped, so it was not asked"
        began = time.monotonic()
        try:
            async with within(Stage.CLOSE, self._deadlines.close, "closing the browser"):
                await browser.ask_to_close()
        except WaguardError as error:
            self._instance.publish("browser.close_ignored", error=error.message)
            return f"it was asked and did not: {error.message}"
        self._instance.stage_done(Stage.CLOSE, began)
        return ""

    async def _stopped(self, browser: Browser) -> bool:
        """Whether it stands still, and not for a snapshot, which lets it go on in a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._deadlines.close):
                await self._lease.pull(Remedy.RESTART, "its browser is closed")
        return await in_thread(browser.run.stopped, kind=Kind.MACHINE)

    async def end(self, *, polite: bool) -> None:
        """Close the browser if there is one, kill what is left, prove it gone. Raises `NotProvedGone`."""
        if self._instance.browser is not None:
            if polite:
                await self.ask_to_close()
            await self._end_browser(self._instance.browser)
        if not self._instance.custody.taking:  # else whoever takes it lets go of it
            self._instance.custody.drop_lock()

    async def _end_browser(self, browser: Browser) -> None:
        began, launch = time.monotonic(), self._instance.record.launch
        assert launch is not None  # noqa: S101 (written before there is a browser)
        try:
            async with within(Stage.KILL, self._deadlines.kill, "proving the browser gone"):
                await browser.kill()
                await self._enclosure.clear(launch)
        except WaguardError as error:
            pids = list(browser.run.pids())
            raise NotProvedGone(
                f"The browser of {self._instance.code} could not be proved gone: {error.message}",
                hint=f"See what holds it: ps -o pid,stat,wchan,cmd -p {','.join(map(str, pids))}",
                pids=pids,
                stage=Stage.KILL.value,
            ) from None
        browser.close()
        self._instance.browser = None
        self._instance.memory.version = ""
        self._instance.stage_done(Stage.KILL, began)
        try:
            await self._witness()
            with suppress(WaguardError):  # the next hold does
                await in_thread(self._instance.custody.let_go)
        finally:  # it is gone, whatever its disk says
            await self._forget(launch)

    async def _witness(self) -> None:
        """Note what the login's files are, now that no browser can change them. Without it their structure has to do."""
        profile = self._instance.memory.profile
        if profile is None or not self._instance.ours:
            return
        try:
            await in_thread(self._instance.custody.witness, profile)
            await self._login.see_mark()
        except WaguardError as error:
            self._instance.publish("profile.unwitnessed", code=error.code, error=error.message)
            with suppress(WaguardError):  # the disk was asked, and does not answer
                if why := await in_thread(self._instance.custody.wiped):
                    await self._login.tell(events.DamageSeen(why))

    async def end_leftovers(self) -> bool:
        """Prove gone whatever an earlier launch left: one we hold, or one the registry knows. False: there was none.

        The caller sets the deadline.
        """
        if self._instance.browser is not None:
            await self._end_browser(self._instance.browser)
        elif (launch := self._instance.record.launch) is not None:
            killed = await reaper.reap(launch)
            await self._enclosure.clear(launch)
            if killed:
                self._instance.publish("reaper.killed", pids=killed)
            await self._forget(launch)
        else:
            return False
        return True

    async def _forget(self, launch: reaper.LaunchRecord) -> None:
        """It is proved gone: its pipes and its record are of no use; another launch may have begun meanwhile, and keeps its own."""
        self._instance.pipes.drop(launch)
        if (now := self._instance.record.launch) is not None and now.token == launch.token:
            await self._instance.save(launch=None)
