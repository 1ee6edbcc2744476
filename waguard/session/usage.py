"""What a browser takes, look by look, and whether it is time for a new one."""

import time
from collections import deque

from waguard.admission.gate import Gate
from waguard.core.health import recycle
from waguard.health.probes.memory import Usage
from waguard.history.learned import Learned
from waguard.session.instance import Instance

_LOOKS = 240
"""So many are remembered."""


class Usages:
    def __init__(self, instance: Instance, gate: Gate, learned: Learned) -> None:
        self._instance = instance
        self._gate = gate
        self._learned = learned
        self._looks: deque[tuple[float, Usage]] = deque(maxlen=_LOOKS)
        """Each with its time, monotonic."""

    @property
    def memory_mb(self) -> float | None:
        """As of the last look; None if there was none."""
        return round(self._looks[-1][1].memory_mb, 1) if self._looks else None

    @property
    def quiet(self) -> bool:
        """Whether this is an hour in which the client does little."""
        return self._learned.quiet(self._instance.code)

    def _limits(self) -> recycle.Limits:
        held = self._instance.resources.settings.known_of(self._instance.code)
        return recycle.Limits(
            held.recycle_soft_memory_mb, held.recycle_hard_memory_mb, held.recycle_max_age_h
        )

    def forget(self) -> None:
        """The browser goes."""
        self._looks.clear()

    async def due(self, usage: Usage, *, connected: bool) -> bool:
        """Note what it takes now, and say whether it is to be replaced: in an hour in which its client does little."""
        now = time.monotonic()
        if self._looks:
            at, before = self._looks[-1]
            cpu_s = round(max(0.0, usage.cpu_s - before.cpu_s), 2)
            self._instance.publish("health.activity", cpu_s=cpu_s, period_s=round(now - at, 1))
        self._looks.append((now, usage))
        if not connected or not self.quiet:
            return False
        version = await self._gate.installed_version()
        looks = [(at / 3600, one.memory_mb) for at, one in self._looks]
        age_h = (self._instance.browser_age_s or 0.0) / 3600
        upgraded = version if version != self._instance.memory.version else ""
        if why := recycle.due(looks, age_h, upgraded, self._limits()):
            self._instance.publish("session.recycled", why=why)
        return bool(why)
