"""The way up, stage by stage: admitted, in turn, prepared, launched, opened. Each ends with the event that it has come to."""

import asyncio
import time

from waguard.core.model import Cause, Failure, Stage
from waguard.core.session import events, orders
from waguard.errors import DeadlineExceeded, WaguardError
from waguard.session.instance import Instance
from waguard.session.launch import Launcher
from waguard.session.resources import Services
from waguard.session.watch import Watch
from waguard.system.tasks import Changes

_HELD_S = 5.0
"""How long waits at most who found no place among those that start."""

_PLACE_S = 1.0
"""How long a profile that is not there yet keeps a place among those that start."""


class Start:
    """Has a place among those that start from its turn until the browser answers."""

    def __init__(
        self, instance: Instance, launcher: Launcher, watch: Watch, services: Services, changes: Changes
    ) -> None:
        self._instance = instance
        self._launcher = launcher
        self._watch = watch
        self._turns, self._gate, self._learned = services.turns, services.gate, services.learned
        self._admit_s = services.resources.config.deadlines.admit
        self._changes = changes
        self._placed = False

    @property
    def before(self) -> int | None:
        """How many wait before it for their turn; None if it does not wait."""
        return self._turns.before(self._instance.code)

    @property
    def queued_s(self) -> float | None:
        """How long it will wait for its turn; None if that is not known, or it does not wait."""
        seconds = self._turns.expected_s(self._instance.code)
        return None if seconds is None else round(seconds, 1)

    async def prepare(
        self, order: orders.Prepare, cause: Cause
    ) -> events.Prepared | events.Held | events.Failed:
        try:
            await self._gate.admit(self._instance.code, cause)
        except WaguardError as error:
            return _held(order.epoch, error)
        began = time.monotonic()
        self._instance.begin_attempt(automatic=cause is Cause.RECOVERY, began=began)
        try:
            try:
                await self._take_place()
            except WaguardError as error:
                if cause in {Cause.CONNECT, Cause.RESTART}:
                    raise  # somebody waits for it
                return _held(order.epoch, error)
            self._instance.stage_done(Stage.ADMIT, began)
            # A disk that hangs has no need of a place where others could start.
            lent = asyncio.get_running_loop().call_later(_PLACE_S, self.give_place_back)
            try:
                await self._launcher.prepare(order.source, self._limit_s(Stage.PREPARE))
            finally:
                lent.cancel()
            if not self._placed:
                await self._take_place()
        except WaguardError as error:
            self.give_place_back()
            await self._tell_late(error)
            if error.passing:
                return _held(order.epoch, error)
            return events.Failed(order.epoch, Failure.of(error, Stage.PREPARE))
        return events.Prepared(order.epoch)

    async def launch(self, epoch: int) -> events.Started | events.Failed:
        try:
            async with self._launcher.starting(self._limit_s(Stage.START)):
                spawned = await self._launcher.spawn()
                self._watch.begin(epoch, spawned.browser)
                await self._launcher.go(spawned)
        except WaguardError as error:
            await self._tell_late(error)
            failure = Failure.of(error, Stage.START)
            await self._gate.start_failed(self._instance.code, failure)
            return events.Failed(epoch, failure)
        else:
            self._gate.started()
            return events.Started(epoch)
        finally:
            self.give_place_back()

    def give_place_back(self) -> None:
        if self._placed:
            self._placed = False
            self._turns.give_back(self._instance.code)

    async def _take_place(self) -> None:
        rank = self._instance.resources.settings.known_of(self._instance.code).priority.rank
        if not self._turns.take(self._instance.code, rank):
            self._instance.publish("session.queued", before=self.before, expected_s=self.queued_s)
            self._changes.tell()
            await self._turns.wait(self._instance.code, self._admit_s)
        self._placed = True
        self._changes.tell()

    async def _tell_late(self, error: WaguardError) -> None:
        """A stage that was not done in time is news for whoever learns from it, if it was at work all the time."""
        if isinstance(error, DeadlineExceeded) and "stage" in error.details:
            stage, seconds = error.details["stage"], error.details.get("deadline_s", 0.0)
            # Of a disk nobody can tell whether it hangs or is slow.
            at_work = stage != Stage.START.value or await self._watch.worked(seconds)
            self._instance.publish("stage.late", stage=stage, deadline_s=seconds, at_work=at_work)

    def _limit_s(self, stage: Stage) -> float:
        return self._learned.limit_s(self._instance.code, stage)


def _held(epoch: int, error: WaguardError) -> events.Held:
    retry_s = float(error.details.get("retry_after_s", _HELD_S))
    return events.Held(epoch, Failure.of(error, Stage.ADMIT), retry_s)
