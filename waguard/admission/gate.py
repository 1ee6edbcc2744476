"""Between the sessions and the host: who may start now, what is the host's trouble and not a session's.

It owns the breaker and the alerts, and knows of each session whether it reaches WhatsApp and what it suffers from. Whether there is room
it asks `Room`.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from waguard.admission.room import Room
from waguard.browser.find import Installed
from waguard.core.health import breaker
from waguard.core.health.breaker import Breaker, BreakerPolicy
from waguard.core.health.correlation import network_is_down
from waguard.core.health.faults import Fault
from waguard.core.model import Alert, Cause, ClientCode, Failure, Stage
from waguard.errors import BreakerOpen, WaguardError
from waguard.observe.alerts import Alerts

_HOST_FAILURES = frozenset({"browser_failed", "sandbox_failed", "browser_not_found", "deadline_exceeded"})
"""Codes of a failed start that may well be the host's."""
_NOBODY = ClientCode("")
_REFUSING = frozenset({Alert.BREAKER_OPEN, Alert.DISK_FULL})
"""While one of these stands, no connect is taken."""
_DISK_EVERY_S = 10.0
_NO_ROOM_S = 30.0
"""So long waits for memory or disk whoever was not asked for."""


class Gate:
    def __init__(
        self,
        policy: BreakerPolicy,
        publish: Callable[..., Any],
        installed: Installed,
        room: Room,
    ) -> None:
        self.alerts = Alerts(publish)
        self.room = room
        self._publish = publish
        self._policy = policy
        self._installed = installed
        self._breaker = Breaker()
        self._closes = asyncio.Event()
        self._online: dict[str, bool] = {}
        self._faults: dict[str, Fault] = {}

    # --- may it start?

    @asynccontextmanager
    async def entering(self, code: ClientCode) -> AsyncIterator[None]:
        """Somebody asks for one more browser: refuse what this machine has no room for, before anything is touched.

        Whoever is let in counts from here. Raises `NoMemory`, `DiskFull`.
        """
        with self.room.counted(code):
            try:
                await self.room.find(code)
            except WaguardError as error:
                self.refused(code, error)
                raise
            yield

    def refused(self, code: ClientCode, error: WaguardError) -> None:
        """A connect that the host refuses is no attempt, and no success either."""
        self._publish("connect.refused", client=code, code=error.code, error=error.message)

    async def admit(self, code: ClientCode, cause: Cause) -> None:
        """Raises `BreakerOpen`, `NoMemory`, `DiskFull`, each with ``retry_after_s``: nothing was tried then."""
        asked = cause in {Cause.CONNECT, Cause.RESTART}
        if not asked:  # else room was found before anything was touched
            try:
                await self.room.find(code)
            except WaguardError as error:
                if not error.passing:
                    error.details = {**error.details, "retry_after_s": _NO_ROOM_S}
                self.alerts.set(Alert.NO_ROOM, f"Sessions that are wanted wait: {error.message}")
                raise
            self.alerts.set(Alert.NO_ROOM, "")
        free = cause is not Cause.RECOVERY  # the others come one by one anyway
        self._breaker, wait_s = breaker.passes(self._breaker, time.monotonic(), self._policy, asked=free)
        if wait_s > 0:
            raise self._open(wait_s)
        try:
            await self._installed.refresh()
        except WaguardError as error:
            self._failed(code, f"the browser does not run: {error.message}", sure=True)
            raise self._open(self._breaker.next_trial - time.monotonic()) from None

    def blame_browser(self, error: WaguardError) -> None:
        """The browser was seen not to run before anybody wanted one."""
        self._failed(_NOBODY, f"the browser does not run: {error.message}", sure=True)

    def _open(self, wait_s: float) -> BreakerOpen:
        why = self._breaker.why or "too many automatic starts in too little time"
        return BreakerOpen(
            f"No browser is started at the moment: {why.removesuffix('.')}.",
            hint="It is tried again automatically. See: waguard doctor",
            retry_after_s=max(1, math.ceil(wait_s)),
        )

    async def refusals(self) -> Sequence[Alert]:
        """Why no connect at all is taken now; empty if they are. Memory is another matter: who is up stays up, and who finds
        none is told.
        """
        await self._look_at_disk()
        return [one.alert for one in self.alerts.raised() if one.alert in _REFUSING]

    async def _look_at_disk(self) -> None:
        self.alerts.set(Alert.DISK_FULL, await self.room.disk_lack())

    async def keep_looking_at_disk(self) -> None:
        while True:
            await self._look_at_disk()
            await asyncio.sleep(_DISK_EVERY_S)

    async def until_closed(self) -> None:
        """Wait until a browser starts well, which closes an open breaker; the caller sets the deadline."""
        await self._closes.wait()

    async def start_failed(self, code: ClientCode, failure: Failure) -> None:
        """Before there was a page to blame."""
        if failure.code not in _HOST_FAILURES or failure.stage is not Stage.START:
            return
        try:
            await self._installed.check()
        except WaguardError as error:
            self._failed(code, f"the browser does not run: {error.message}", sure=True)
        else:
            self._failed(
                code, f"starts fail for several clients, the last one with: {failure.message}", sure=False
            )

    def _failed(self, code: ClientCode, why: str, *, sure: bool) -> None:
        self._breaker = breaker.failed(self._breaker, code, why, time.monotonic(), self._policy, sure=sure)
        self.alerts.set(Alert.BREAKER_OPEN, self._breaker.why)

    async def installed_version(self) -> str:
        """Of the browser that is installed now; of the last one that ran, if this one does not."""
        with contextlib.suppress(WaguardError):
            await self._installed.glance()
        return self._installed.current.version

    def started(self) -> None:
        """A browser has started well."""
        if self._breaker.why:
            self._closes.set()
            self._closes = asyncio.Event()
        self._breaker = breaker.started(self._breaker)
        self.alerts.set(Alert.BREAKER_OPEN, "")

    # --- whose trouble is it?

    @property
    def network_down(self) -> bool:
        return network_is_down(self._online)

    def network_down_with(self, code: ClientCode) -> bool:
        """The same, if that session does not reach WhatsApp either."""
        return network_is_down({**self._online, code: False})

    def reaches(self, code: ClientCode, online: bool | None) -> None:
        """Whether a session reaches WhatsApp; none: it is not up, and counts no more."""
        if online is None:
            self._online.pop(code, None)
        else:
            self._online[code] = online
        lost = sum(not one for one in self._online.values())
        down = self.network_down
        text = f"{lost} of {len(self._online)} sessions do not reach WhatsApp: the network is at fault, not their browsers."
        self.alerts.set(Alert.NETWORK_DOWN, text if down else "")

    def suffers(self, code: ClientCode, fault: Fault | None) -> None:
        if fault is None:
            self._faults.pop(code, None)
        else:
            self._faults[code] = fault
        unread = sum(one is Fault.PAGE_UNREAD for one in self._faults.values())
        text = f"The page of {unread} sessions is not understood: has WhatsApp Web changed? Upgrade waguard, or set whatsapp.probe."
        self.alerts.set(Alert.PAGE_UNREAD, text if unread > 1 else "")

    def others_reach(self, code: ClientCode) -> bool:
        """Whether another session reaches WhatsApp."""
        return any(online for other, online in self._online.items() if other != code)

    def alone(self, code: ClientCode, fault: Fault) -> bool:
        """Whether no other session suffers from the same."""
        return all(other == code for other, theirs in self._faults.items() if theirs is fault)
