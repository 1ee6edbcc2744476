"""Sweeps that nobody waits for: of what may be in the way, before the first launch; of what was put aside, whenever something was."""

import asyncio
from collections.abc import Sequence

from waguard.observe.bus import Bus
from waguard.system import shortage
from waguard.system.tasks import background
from waguard.upkeep.sweep.sweeper import IN_THE_WAY, PUT_ASIDE, TAKES_ROOM, Finder, Sweeper


class Tidying:
    def __init__(self, sweeper: Sweeper, bus: Bus) -> None:
        self._sweeper = sweeper
        self._bus = bus
        self._due = asyncio.Event()

    def due(self) -> None:
        """A profile may have been put aside."""
        self._due.set()

    async def first(self) -> None:
        """Before there is a launch."""
        await self._sweep(IN_THE_WAY, starting=True)

    def begin(self) -> "asyncio.Task[None]":
        return background(self._when_due, "tidy", self._bus.publish, again=True)

    async def _when_due(self) -> None:
        """See to it that what was put aside is saved, and goes when it may."""
        await self._sweep(TAKES_ROOM)  # at the start, what that has not waited for
        while True:
            await self._due.wait()
            self._due.clear()
            await self._sweep(PUT_ASIDE)

    async def _sweep(self, among: Sequence[Finder], *, starting: bool = False) -> None:
        """What keeps it from looking is told."""
        try:
            await self._sweeper.sweep(among=among, starting=starting)
        except Exception as error:  # noqa: BLE001 (no daemon may fail to start for what it finds)
            known = shortage.known(error)
            if known is None:
                self._bus.bug("sweep", error)
            code, why = (known.code, known.message) if known is not None else ("internal", repr(error))
            self._bus.publish("sweep.failed", code=code, error=why)
