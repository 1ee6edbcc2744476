"""Between the sessions and the host: who may start now, what is the host's trouble and not a session's.

It owns the breaker and the alerts, and knows of each session whether it reaches WhatsApp and what it suffers from.
"""

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from waguard.alerts import Alert, Alerts
from waguard.core import breaker
from waguard.core.breaker import Breaker, BreakerPolicy
from waguard.core.correlation import network_is_down
from waguard.core.health import Fault
from waguard.core.model import Cause, ClientCode, Failure, Stage
from waguard.errors import BreakerOpen, WaguardError

_HOST_FAILURES = frozenset({"browser_failed", "sandbox_failed", "browser_not_found"})
"""Codes of a failed start that may well be the host's."""
_NO_ROOM_S = 30.0
"""So long waits for memory or disk whoever was not asked for."""


class Gate:
    def __init__(
        self,
        policy: BreakerPolicy,
        publish: Callable[..., Any],
        binary_works: Callable[[], Awaitable[str]],
    ) -> None:
        """``binary_works`` says what is wrong with the browser's binary; empty: nothing."""
        self.alerts = Alerts(publish)
        self._policy = policy
        self._binary_works = binary_works
        self._breaker = Breaker()
        self._online: dict[str, bool] = {}
        self._faults: dict[str, Fault] = {}
        self.find_room: Callable[[ClientCode], Awaitable[None]] | None = None
        """Raises if one more session finds no memory or disk. The supervisor knows."""

    # --- may it start?

    async def admit(self, code: ClientCode, cause: Cause) -> None:
        """Raises `BreakerOpen`, `NoMemory`, `DiskFull`, each with ``retry_after_s``: nothing was tried then."""
        asked = cause in {Cause.CONNECT, Cause.RESTART}
        if not asked and self.find_room is not None:
            try:
                await self.find_room(code)
            except WaguardError as error:
                error.details = {"retry_after_s": _NO_ROOM_S, **error.details}
                self.alerts.set(Alert.NO_ROOM, f"Sessions that are wanted wait: {error.message}")
                raise
            self.alerts.set(Alert.NO_ROOM, "")
        free = asked or cause is Cause.RECYCLE
        self._breaker, wait_s = breaker.passes(self._breaker, time.monotonic(), self._policy, asked=free)
        if wait_s > 0:
            why = self._breaker.why or "too many browsers have started by themselves in too little time"
            raise BreakerOpen(
                f"No browser is started now: {why}",
                hint="It is tried again by itself. See: waguard doctor",
                retry_after_s=math.ceil(wait_s),
            )

    async def start_failed(self, code: ClientCode, failure: Failure) -> None:
        """Before there was a page to blame."""
        if failure.code not in _HOST_FAILURES or failure.stage is not Stage.START:
            return
        wrong = await self._binary_works()
        why = wrong or f"starts fail with several clients, the last one so: {failure.message}"
        self._breaker = breaker.failed(
            self._breaker, code, why, time.monotonic(), self._policy, sure=bool(wrong)
        )
        self.alerts.set(Alert.BREAKER_OPEN, self._breaker.why)

    def started(self) -> None:
        """A browser has started well."""
        self._breaker = breaker.started(self._breaker)
        self.alerts.set(Alert.BREAKER_OPEN, "")

    # --- whose trouble is it?

    @property
    def network_down(self) -> bool:
        return network_is_down(self._online)

    def reaches(self, code: ClientCode, online: bool | None) -> None:
        """Whether a session reaches WhatsApp; none: it is not up, and counts no more."""
        if online is None:
            self._online.pop(code, None)
        else:
            self._online[code] = online
        lost = sum(not one for one in self._online.values())
        down = self.network_down
        text = f"{lost} of {len(self._online)} sessions do not reach WhatsApp: the network, and no browser of theirs."
        self.alerts.set(Alert.NETWORK_DOWN, text if down else "")

    def suffers(self, code: ClientCode, fault: Fault | None) -> None:
        if fault is None:
            self._faults.pop(code, None)
        else:
            self._faults[code] = fault

    def alone(self, code: ClientCode, fault: Fault) -> bool:
        """Whether no other session suffers from the same."""
        return all(other == code for other, theirs in self._faults.items() if theirs is fault)
