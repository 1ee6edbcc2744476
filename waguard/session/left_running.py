"""A script of a client's that goes on in the page when the client has left.

It keeps the page waiting for so long only as it might have with its client there, and until then a page that does not answer is no fault.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from waguard.browser.page import Page
from waguard.errors import PageFailed
from waguard.relay.client import AFTERWARDS_S
from waguard.session.lease import PageLease
from waguard.system.tasks import forget


class LeftRunning:
    """It cannot be ended at once: the client may have waited for a promise, and then whatever the page does next would be ended in its place."""

    def __init__(self, lease: PageLease, blocked_s: float) -> None:
        self._lease = lease
        self._blocked_s = blocked_s
        self._page: Page | None = None
        """In which it may run: it has answered nothing that was asked since."""
        self._asked_before = False
        """Whether what the page answers next may have been asked before."""
        self._waits: Callable[[], None] = lambda: None
        self._timer: asyncio.TimerHandle | None = None
        """What is done next, while the page waits."""

    def leave(self, page: Page, waits: Callable[[], None]) -> None:
        """A client has left, and has had no answer of a script. ``waits`` is called once that keeps the page waiting."""
        self._page, self._waits, self._asked_before = page, waits, True

    def page_silent(self, page: Page | None, *, silent: bool) -> None:
        """Told that ``page`` has not answered a look, or has answered one."""
        if self._page is None:
            return
        if page is not self._page:
            self._over()
        elif not silent and self._asked_before and self._timer is None:
            self._asked_before = False
        elif not silent:
            self._over()
        elif self._timer is None:
            self._lease.stall(self, begins=True)
            self._waits()
            self._timer = asyncio.get_running_loop().call_later(self._blocked_s, self._end, self._page)

    def _end(self, page: Page) -> None:
        with suppress(PageFailed):
            forget(page.terminate())
        self._timer = asyncio.get_running_loop().call_later(AFTERWARDS_S, self._over)

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._lease.stall(self, begins=False)
        self._page = self._timer = None
