"""What goes on beside a session's work as long as its browser is up: its end, its pipe and its page are watched.

It tells what happened and decides nothing. The session owns it, and stops it before it stops the browser.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from waguard.browser.launch import Browser
from waguard.browser.page import Page
from waguard.config import Config
from waguard.core import machine
from waguard.core.model import Failure, Link, Reading, Stage
from waguard.deadline import within
from waguard.errors import BrowserFailed, PageFailed, WaguardError
from waguard.instance import Instance
from waguard.whatsapp import page as whatsapp

Work = Callable[[], Coroutine[Any, Any, None]]


class Watch:
    def __init__(
        self,
        instance: Instance,
        config: Config,
        probe: str,
        tell: Callable[[machine.Event], None],
        spawn: Callable[[Work, str], "asyncio.Task[None]"],
    ) -> None:
        self._instance = instance
        self._config = config
        self._probe = probe
        self._tell = tell
        self._spawn = spawn
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        """Runs while the stage `open` does."""
        self._opened = 0.0

    def begin(self, epoch: int, browser: Browser) -> None:
        """As soon as there is a process: watch for its end."""
        self._start(partial(self._watch_exit, epoch, browser), "exit")

    async def open(self, epoch: int) -> None:
        """Go to WhatsApp Web and watch it; returns when the navigation is committed. Raises `PageFailed`."""
        browser = self._instance.browser
        assert browser is not None and browser.page is not None  # noqa: S101, PT018 (Started came first)
        self.arm(epoch)
        self._start(partial(self._watch_pipe, epoch, browser), "pipe")
        browser.page.on_crash(lambda: self._tell(machine.PageCrashed(epoch)))
        self._start(partial(self._read_page, epoch, browser.page), "read")
        try:
            await browser.page.open(self._config.whatsapp.url)
        except PageFailed:
            if browser.connected:  # else the watchers tell what became of it
                raise

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

    def _start(self, work: Work, name: str) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(self._spawn(work, name))

    # --- the deadline of the stage `open` -------------------------------------------------------------

    def arm(self, epoch: int) -> None:
        """It runs from here."""
        self._disarm()
        self._opened = time.monotonic()
        deadline = self._config.deadlines.open
        self._timer = asyncio.get_running_loop().call_later(deadline, partial(self._passed, epoch, deadline))

    def done(self) -> None:
        """The page is usable, or will not become so by waiting."""
        if self._timer is not None:
            self._instance.stage_done(Stage.OPEN, self._opened)
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _passed(self, epoch: int, deadline: float) -> None:
        reading = self._instance.memory.reading
        shown = ", ".join(reading.signs) if reading is not None else ""
        late = Failure(
            "deadline_exceeded",
            f"Stage open: the page was not usable within {deadline:g} s; it shows {shown or 'nothing'}.",
            Stage.OPEN,
            "Is the network up? If WhatsApp Web is just slow here, raise deadlines.open in the configuration.",
            (("stage", Stage.OPEN.value), ("deadline_s", deadline)),
        )
        self._tell(machine.DeadlinePassed(epoch, late))

    # --- the watchers -----------------------------------------------------------------------------------

    async def _watch_exit(self, epoch: int, browser: Browser) -> None:
        how = await browser.run.exited()
        killed = "Somebody killed it, or the kernel for lack of memory: see dmesg."
        error = BrowserFailed(
            f"The browser ended by itself ({how}).",
            hint=killed if "SIGKILL" in how else "",
            stderr=list(browser.last_words()),
        )
        self._tell(machine.BrowserExited(epoch, Failure.of(error)))

    async def _watch_pipe(self, epoch: int, browser: Browser) -> None:
        """A browser that closed its pipe is about to end; one that does not is of no use either."""
        why = await browser.disconnected()
        try:
            async with within(Stage.CLOSE, self._config.deadlines.close, "ending without its pipe"):
                await browser.run.exited()  # `_watch_exit` tells
        except WaguardError:
            self._tell(machine.BrowserExited(epoch, Failure("page_failed", why)))

    async def _read_page(self, epoch: int, page: Page) -> None:
        """Look at the page again and again; tell what changed."""
        misses = unknown = 0
        while True:
            try:
                async with asyncio.timeout(self._config.page.read_s):
                    signs = await page.evaluate(self._probe)
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
            judged = await self._instance.judge(reading)
            if judged is None:
                lost = Failure("refused", f"The login was lost: {self._instance.distrust}.", Stage.OPEN)
                self._tell(machine.LoginLost(epoch, lost))
                return
            reading = judged
            if reading != self._instance.memory.reading or reading.qr_exhausted or misses:
                self._note(reading)
                self._tell(machine.PageRead(epoch, reading))
            misses = 0
            unknown = unknown + 1 if reading.link is Link.UNKNOWN else 0
            if unknown:
                self._tell(machine.PageUnknown(epoch, unknown))
            await asyncio.sleep(self._until_next_look())

    def _until_next_look(self) -> float:
        """A page that loads is looked at all the time at first, and the longer it takes the less often."""
        if self._timer is None:
            return self._config.page.poll_s
        return min(self._config.page.poll_loading_s, (time.monotonic() - self._opened) / 10)

    def _note(self, reading: Reading) -> None:
        memory = self._instance.memory
        memory.reading = reading
        if reading.link is Link.UNKNOWN:
            return
        if reading.qr != memory.qr:
            memory.qr, memory.qr_seen_at, memory.qr_seen = reading.qr, time.time(), time.monotonic()
            if reading.qr is not None:
                self._instance.publish("session.qr_shown")

    async def _reload_qr(self) -> None:
        browser = self._instance.browser
        if browser is None or browser.page is None:
            return
        with contextlib.suppress(PageFailed, TimeoutError):
            async with asyncio.timeout(self._config.page.read_s):
                clicked = await browser.page.evaluate(whatsapp.RELOAD_QR)
            self._instance.publish("session.qr_reloaded", clicked=bool(clicked))
