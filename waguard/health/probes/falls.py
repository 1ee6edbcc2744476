"""The machine's memory: does it fall? A page can take gigabytes between two looks of a minute; then each browser is looked at now."""

import asyncio
from collections.abc import Callable

from waguard.system import host
from waguard.system.threads import Kind, in_thread

_TICK_S = 1.0
_FALL_MB = 200
"""Less that is free than at the last look, by so many MiB."""


class Falls:
    def __init__(self, available_mb: Callable[[], int] = host.available_memory_mb) -> None:
        self._available_mb = available_mb
        self._fallen = asyncio.Event()
        self._mark = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.tick(await in_thread(self._available_mb, kind=Kind.MACHINE))
            await asyncio.sleep(_TICK_S)

    def tick(self, available_mb: int) -> None:
        fallen, self._mark = self._mark - available_mb > _FALL_MB, max(self._mark, available_mb)
        if fallen:
            self._mark = available_mb
            self._fallen.set()
            self._fallen = asyncio.Event()

    async def next(self) -> None:
        """Wait for it."""
        await self._fallen.wait()
