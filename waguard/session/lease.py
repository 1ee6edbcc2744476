"""The page lease of one client: its owner, who takes and gives back, tells whom it is taken from, and waits."""

import asyncio
import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from waguard.browser.launch import Browser
from waguard.browser.observers import Observers
from waguard.core.health.lease import FREE, PULLS, Hold, Use
from waguard.core.health.plans import Remedy
from waguard.errors import SnapshotFailed
from waguard.sandbox import freeze

_FREEZE_S = 3.0
"""Deadline for a browser to stand still, and for one that is held to go on, in seconds.

A full Chromium has some 200 threads: on a machine with five times the work that it can do, more than 1 s passed.
"""
_LOOK_S = 0.02
"""How often it is looked whether what is held still goes on."""


class Pulled(NamedTuple):
    remedy: Remedy
    why: str


class PageLease:
    """Its times are of the monotonic clock. What is held still is so by a thread, hence the lock."""

    def __init__(self) -> None:
        self._lease = FREE
        self._changing = threading.Lock()
        self._still = threading.Lock()
        """Held by the thread that has stopped the processes, for as long as it has."""
        self._stalls: set[Hashable] = set()
        self.pulled = Observers[Pulled]()
        """Tells by what and why, before a remedy takes the page: whoever works in it ends that at once."""
        self.silence = Observers[bool]()
        """Tells whether the page does not answer: whoever works in it says if that is by them."""
        self.frozen_ms: float | None = None
        """How long it was held still the last time."""

    def held(self, use: Use) -> Hold | None:
        return self._lease.held(use, time.monotonic())

    def was_still(self, looked_s: float) -> bool:
        """Whether what was looked at then may have been held still by us."""
        return self._lease.was_still(looked_s, time.monotonic())

    @contextmanager
    def still(self, browser: Browser, holder: str, most_s: float) -> Iterator[None]:
        """Hold the browser still. Blocking: in a thread. Raises `SnapshotFailed` if it does not stand still, or was not held throughout."""
        if not self._still.acquire(timeout=_FREEZE_S):
            raise SnapshotFailed(
                "An earlier snapshot still copies its files: is the disk slow?", hint="Try again later."
            )
        try:
            hold = self._take(
                Use.STILL, holder, "its files are copied", most_s
            )  # what is stopped by us is not to be found stopped
            try:
                with freeze.frozen(browser.run.members, _FREEZE_S):
                    began = time.monotonic()
                    yield
            finally:
                ended = time.monotonic()
                self._give_back(hold)
        finally:
            self._still.release()
        self.frozen_ms = round((time.monotonic() - began) * 1000, 1)
        if ended >= hold.until_s:
            raise SnapshotFailed(
                f"Its files were not copied within {most_s:g} s, and it may have gone on meanwhile."
            )

    def drive(self, holder: object, purpose: str) -> None:
        """Somebody owns the page, until `end_drive`. Raises `Held`."""
        self._take(Use.DRIVEN, holder, purpose, float("inf"))

    def drives(self, holder: object) -> bool:
        hold = self.held(Use.DRIVEN)
        return hold is not None and hold.holder == holder

    def end_drive(self, holder: object) -> bool:
        """Returns whether it was this holder's; else it is left to whose it is."""
        hold = self.held(Use.DRIVEN)
        if hold is None or hold.holder != holder:
            return False
        self._give_back(hold)
        return True

    def stall(self, key: Hashable, *, begins: bool) -> None:
        """Who works in the page keeps it from answering, by a dialog, a pause or a script."""
        if begins:
            self._stalls.add(key)
        else:
            self._stalls.discard(key)

    @property
    def stalled(self) -> bool:
        """Whether a page that does not answer is kept from it by who works in it: that is no fault."""
        return bool(self._stalls)

    def _take(self, use: Use, holder: object, purpose: str, most_s: float) -> Hold:
        now = time.monotonic()
        hold = Hold(use, holder, purpose, now, now + most_s)
        with self._changing:
            self._lease = self._lease.take(hold)
        return hold

    def _give_back(self, hold: Hold) -> None:
        with self._changing:
            self._lease = self._lease.give_back(hold, time.monotonic())

    async def pull(self, remedy: Remedy, why: str) -> None:
        """Before a remedy: who works in the page is told why and has it no more; what goes on by itself in a moment is waited for."""
        while True:
            if remedy in PULLS[Use.DRIVEN]:  # each time: somebody may have come meanwhile
                self.pulled.tell(Pulled(remedy, why))
            if not self._lease.pulled(remedy, time.monotonic()):
                return
            await asyncio.sleep(_LOOK_S)
