"""What one client has: its record, its browser, its profile, and what is remembered of them.

It does nothing with them; whoever does is in a file of its own beside this one.
"""

import asyncio
import secrets
import time
from dataclasses import replace
from typing import Any

from waguard.browser.launch import Browser
from waguard.core.actor import Actor
from waguard.core.model import ClientCode, Stage
from waguard.errors import TenureLost, WaguardError
from waguard.profile import login_files
from waguard.sandbox import reaper
from waguard.session.custody import Custody
from waguard.session.memory import Memory
from waguard.session.pipes import Pipes
from waguard.session.registry import Record
from waguard.session.resources import Resources
from waguard.system import host
from waguard.system.deadline import within


class Instance:
    """Owns the client's record. Its browser comes by a launch or a handover, and goes by an ending."""

    def __init__(self, code: ClientCode, record: Record, resources: Resources) -> None:
        self.code = code
        self.resources = resources
        self.memory = Memory()
        self.actor: Actor | None = None
        """Whose wish is being carried out; None: nobody's."""
        self.browser: Browser | None = None
        self.proxy_trouble = ""
        """What keeps its browser's proxy from being of use; empty: nothing, as far as is known, or it has none."""
        self.origin = login_files.origin_of(resources.config.whatsapp.url)
        self.custody = Custody(
            code,
            self.origin,
            resources.binary.version,
            resources.profiles,
            resources.snapshots,
            resources.sandbox,
        )
        self.using = asyncio.Lock()
        """Held by whoever works on the profile's files: one at a time."""
        self._tenure = resources.ownership.tenure(code)
        self.pipes = Pipes(code, resources.manager)
        self._writing = asyncio.Lock()
        self._record = self._written = record.at(self.origin)

    @property
    def record(self) -> Record:
        return self._record

    @property
    def recorded(self) -> bool:
        """Whether the record on disk is what it should be."""
        return self._record == self._written

    def check_tenure(self) -> None:
        """Before anything is written or started. Raises `TenureLost`."""
        self.resources.ownership.check(self._tenure)

    @property
    def ours(self) -> bool:
        """Whether its tenure is held."""
        try:
            self.check_tenure()
        except TenureLost:
            return False
        return True

    @property
    def untouched(self) -> bool:
        """Whether there is neither a record of it nor an attempt."""
        return replace(self._record, generation="") == Record().at(self.origin) and not self.memory.attempt

    def publish(self, name: str, **fields: Any) -> None:
        """An event of this client's, with the id of the attempt and the pid of the launch's sandbox or browser."""
        if self.memory.attempt:
            fields.setdefault("attempt", self.memory.attempt)
        if (launch := self._record.launch) is not None and launch.processes:
            fields.setdefault("pid", launch.processes[0].pid)
        self.resources.bus.publish(name, client=self.code, actor=self.actor, **fields)

    def stage_done(self, stage: Stage, began: float) -> None:
        """Note how long a stage took; ``began`` is monotonic."""
        ms = round((time.monotonic() - began) * 1000, 1)
        self.memory.stages[stage.value] = ms
        self.publish("stage.done", stage=stage.value, duration_ms=ms)

    async def save(self, **changes: Any) -> None:
        """Write the record if it changes, or if the last write has failed; a failure is reported, and what is in memory
        stays true.

        Raises only before a start: nothing is started that is not written down first.
        """
        record = replace(self._record, **changes)
        if record == self._record == self._written:
            return
        self._record = record
        seconds = self.resources.config.deadlines.prepare
        try:
            async with (
                within(Stage.PREPARE, seconds, "writing its record"),
                self._writing,  # the last one written is the last one meant
            ):
                self.check_tenure()
                record = self._record
                await self.resources.records.write(self.code, record)
                self._written = record
        except WaguardError as error:
            self.publish("registry.write_failed", code=error.code, error=str(error))
            if changes.get("launch") is not None and self.browser is None:
                raise

    def begin_attempt(self, *, automatic: bool, began: float) -> None:
        """Forget the last attempt's page; what follows carries a new id. ``began`` is monotonic."""
        memory = self.memory
        memory.automatic_restarts += automatic
        memory.attempt, memory.attempt_began = secrets.token_hex(4), began
        memory.stages = {}
        memory.check = None
        memory.how = memory.snapshot = ""
        memory.version = ""

    @property
    def in_use(self) -> frozenset[str]:
        """The generations that a browser of this client uses, or is about to."""
        # Known from its launch: a cleanup forgets the profile before it ends the browser.
        launch = self._record.launch if self.browser is not None else None
        return frozenset({launch.generation if launch else "", self.custody.locked} - {""})

    @property
    def browser_age_s(self) -> float | None:
        """Seconds since its browser was started, by whichever daemon; None if it has none."""
        launch = self._record.launch
        if self.browser is None or launch is None or not launch.processes:
            return None
        return host.age_s(launch.processes[0].start_ticks)

    @property
    def leftover(self) -> reaper.LaunchRecord | None:
        """A launch that is on record and has no browser that we hold."""
        return self._record.launch if self.browser is None else None
