"""The browser of one client with all that belongs to it: profile, lock, registry record, what is remembered of it.

Each method does one thing and says how it failed; when to do what is the session's business.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from waguard.browser.find import Binary
from waguard.browser.launch import Browser
from waguard.config import Config
from waguard.core.model import ClientCode, Reading, Stage
from waguard.deadline import within
from waguard.errors import NotProvedGone, ProfileLocked, WaguardError
from waguard.events import Bus
from waguard.files import in_thread
from waguard.profile import examiners, mend, witness
from waguard.profile.examiners import Report
from waguard.profile.examiners.subject import Subject, Verdict
from waguard.profile.store import DAMAGED, Profile, Profiles
from waguard.profile.witness import Mark, Witness, origin_of
from waguard.registry import Record, Registry
from waguard.sandbox import Sandbox, reaper


@dataclass(frozen=True, slots=True)
class Resources:
    """What the instances of a daemon share."""

    config: Config
    binary: Binary
    sandbox: Sandbox
    profiles: Profiles
    registry: Registry
    bus: Bus


@dataclass(slots=True)
class Step:
    """One step of a cleanup, as it went."""

    step: str
    outcome: str = "nothing"
    """done | nothing (there was nothing to do) | skipped (the next step does it the hard way) | failed"""
    ms: float = 0.0
    detail: str = ""


@dataclass(slots=True)
class Memory:
    """Everything a session remembers about its browser and its page; dropped whole by a cleanup."""

    qr: str | None = None
    qr_seen_at: float = 0.0
    """Unix time, seconds."""
    qr_seen: float = 0.0
    """Monotonic, seconds."""
    reading: Reading | None = None
    attempt: str = ""
    profile: Profile | None = None
    profile_kept: bool = False
    check: Report | None = None
    """What the check before the launch found on the profile that was there."""
    started_at: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds that each stage of the last attempt took."""
    automatic_restarts: int = 0


class _Skipped(Exception):
    """A step of a cleanup that could not be done and need not be."""


class Instance:
    """Owns the client's browser, its profile's lock and its record. Nothing else touches them."""

    def __init__(self, code: ClientCode, record: Record, resources: Resources) -> None:
        self.code = code
        self.memory = Memory()
        self.browser: Browser | None = None
        self._record = record
        self._resources = resources
        self._lock_fd = -1
        self._writing = asyncio.Lock()
        self._origin = origin_of(resources.config.whatsapp.url)
        self._marks: Mapping[str, Mark] = {}
        self._mended: Sequence[str] = ()

    @property
    def untouched(self) -> bool:
        """Whether there is neither a record of it nor an attempt."""
        return self._record == Record() and not self.memory.attempt

    def publish(self, name: str, **fields: Any) -> None:
        """An event of this client's, with the id of the attempt and the pid of the launch's sandbox or browser."""
        if self.memory.attempt:
            fields.setdefault("attempt", self.memory.attempt)
        if (launch := self._record.launch) is not None and launch.processes:
            fields.setdefault("pid", launch.processes[0].pid)
        self._resources.bus.publish(name, client=self.code, **fields)

    def stage_done(self, stage: Stage, began: float) -> None:
        """Note how long a stage took; ``began`` is monotonic."""
        ms = round((time.monotonic() - began) * 1000, 1)
        self.memory.stages[stage.value] = ms
        self.publish("stage.done", stage=stage.value, duration_ms=ms)

    async def save(self, **changes: Any) -> None:
        """Write the record if it changes; a failure is reported, and what is in memory stays true.

        Raises only before a start: nothing is started that is not written down first.
        """
        record = replace(self._record, **changes)
        if record == self._record:
            return
        self._record = record
        try:
            async with self._writing:  # the last one written is the last one meant
                await in_thread(self._resources.registry.write, self.code, self._record)
        except WaguardError as error:
            self.publish("registry.write_failed", level="error", code=error.code, error=str(error))
            if changes.get("launch") is not None and self.browser is None:
                raise

    # --- up -------------------------------------------------------------------------------------------

    def begin_attempt(self, *, automatic: bool) -> None:
        """Forget the last attempt's page; what follows carries a new id."""
        memory = self.memory
        memory.automatic_restarts += automatic
        memory.attempt = secrets.token_hex(4)
        memory.stages = {}
        memory.qr = memory.reading = memory.started_at = memory.check = None

    async def prepare(self, *, retire: bool) -> None:
        """See that nothing of this client runs, and have a profile with its lock taken.

        Raises `NotProvedGone`, `ProfileLocked`, `ProfileFailed`, `DiskFull`, `SandboxFailed`, `DeadlineExceeded`.
        """
        began = time.monotonic()
        async with within(Stage.PREPARE, self._resources.config.deadlines.prepare, "preparing the profile"):
            await self.end_leftovers()
            try:
                await in_thread(self._take_profile, retire)
            finally:
                self._tell_check()
        self.stage_done(Stage.PREPARE, began)

    def _tell_check(self) -> None:
        if (report := self.memory.check) is not None and report.evidence:
            damaged = report.verdict is Verdict.DAMAGED
            evidence = [f"{one.path}: {one.what}" for one in report.evidence]
            self.publish(
                f"profile.{report.verdict}", level="error" if damaged else "warning", evidence=evidence
            )
        if self._mended:
            self.publish("profile.mended", cut=self._mended)
            self._mended = ()

    def _take_profile(self, retire: bool) -> None:
        """In a thread: the current profile, or a new one, with its lock."""
        profiles = self._resources.profiles
        if retire and (old := profiles.current(self.code)) is not None:
            profiles.retire(self.code, "fresh")
            profiles.drop_lock(old)
        self._drop_lock()
        self._marks, self._mended = {}, ()
        current = profiles.current(self.code)
        profile = current or profiles.create(self.code)
        self._lock_profile(profile)
        self._resources.sandbox.check(profile.path)
        report = None if current is None else self._examine(current)
        if report is not None and report.verdict is Verdict.DAMAGED:
            profiles.retire(self.code, DAMAGED)
            self._drop_lock()
            profiles.drop_lock(profile)
            current, profile, self._marks = None, profiles.create(self.code), {}
            self._lock_profile(profile)
        self.memory.profile = profile
        self.memory.profile_kept = current is not None

    def _lock_profile(self, profile: Profile) -> None:
        try:
            self._lock_fd = self._resources.profiles.lock(profile)
        except ProfileLocked as error:
            holders = reaper.lock_holders(profile.lock)
            raise ProfileLocked(error.message, hint=error.hint, **error.details, pids=holders) from None

    def _examine(self, profile: Profile) -> Report:
        known = witness.read(profile.witness)
        self._marks = known.files or {} if known is not None else {}
        profiles, version = self._resources.profiles, self._resources.binary.version
        report = self.memory.check = examiners.examine(
            Subject(profile.path, version, self._origin, profiles.uid, known)
        )
        if report.verdict is not Verdict.DAMAGED:
            profiles.drop_singletons(profile)
            tails = mend.torn_tails(profile.path, self._origin)
            if tails and known is not None:
                # Void first: should this launch go no further, what was cut must not count as lost.
                witness.write(profile.witness, Witness(known.browser))
            mend.drop_tails(tails)
            self._mended = [f"{path.relative_to(profile.path)} at byte {end}" for path, end in tails]
        return report

    async def launch(self, spawned: Callable[[Browser], None]) -> None:
        """Start the browser; returns when it answers. ``spawned`` is called as soon as there is a process to watch.

        Raises `SandboxFailed`, `BrowserFailed`, `DiskFull`, `ProfileFailed`, `DeadlineExceeded`, with the browser's
        last words.
        """
        try:
            await self._launch(spawned)
        except WaguardError as error:
            if self.browser is not None and "stderr" not in error.details:
                error.details = {**error.details, "stderr": list(self.browser.last_words())}
            raise

    async def _launch(self, spawned: Callable[[Browser], None]) -> None:
        resources, profile = self._resources, self.memory.profile
        assert profile is not None  # noqa: S101 (prepared)
        settings = resources.config.browser
        began = time.monotonic()
        async with within(Stage.START, resources.config.deadlines.start, "starting the browser"):
            launch = reaper.Launch(
                secrets.token_hex(16), resources.sandbox.kind, profile.generation, time.time()
            )
            await self.save(launch=launch)
            # Void from here: a browser may be writing. It has not used the profile before it answers.
            version = resources.binary.version
            before = await in_thread(witness.read, profile.witness)
            await in_thread(witness.write, profile.witness, Witness(before.browser if before else version))
            browser = self.browser = Browser.spawn(
                resources.sandbox, resources.binary, settings, profile.path, self._lock_fd, launch.token
            )
            self._drop_lock()  # the sandbox holds it from here, until all of it is gone
            identities = tuple(await browser.run.identify())
            spawned(browser)
            await self.save(launch=replace(launch, processes=identities))
            self.memory.started_at = time.time()
            self.publish("browser.spawned", sandbox=browser.run.kind)
            await browser.go(resources.binary, settings)
            if before is not None and before.browser != version:
                await in_thread(witness.write, profile.witness, Witness(version))
        self.stage_done(Stage.START, began)

    # --- down -----------------------------------------------------------------------------------------

    async def ask_to_close(self) -> str:
        """Ask the browser to close, so that it writes down what it has; says what came of it if it did not."""
        browser = self.browser
        assert browser is not None  # noqa: S101 (the callers looked)
        if await in_thread(browser.run.stopped):
            return "it is stopped, so it was not asked"
        began = time.monotonic()
        try:
            async with within(Stage.CLOSE, self._resources.config.deadlines.close, "closing the browser"):
                await browser.ask_to_close()
        except WaguardError as error:
            self.publish("browser.close_ignored", level="warning", error=error.message)
            return f"it was asked and did not: {error.message}"
        self.stage_done(Stage.CLOSE, began)
        return ""

    async def end(self, *, polite: bool) -> None:
        """Close the browser if there is one, kill what is left, prove it gone. Raises `NotProvedGone`."""
        if self.browser is not None:
            if polite:
                await self.ask_to_close()
            await self._end_browser(self.browser)
        self._drop_lock()

    async def _end_browser(self, browser: Browser) -> None:
        began = time.monotonic()
        try:
            async with within(Stage.KILL, self._resources.config.deadlines.kill, "proving the browser gone"):
                await browser.kill()
        except WaguardError as error:
            pids = list(browser.run.pids())
            raise NotProvedGone(
                f"The browser of {self.code} could not be proved gone: {error.message}",
                hint=f"See what holds it: ps -o pid,stat,wchan,cmd -p {','.join(map(str, pids))}",
                pids=pids,
                stage=Stage.KILL.value,
            ) from None
        browser.close()
        self.browser = None
        self.memory.started_at = None
        self.stage_done(Stage.KILL, began)
        await self._witness()
        await self.save(launch=None)

    async def _witness(self) -> None:
        """Note what the login's files are, now that no browser can change them. Without it their structure has to do."""
        profile = self.memory.profile
        if profile is None:
            return
        try:
            self._marks = await in_thread(witness.take, profile.path, self._origin, self._marks)
            known = Witness(self._resources.binary.version, self._marks)
            await in_thread(witness.write, profile.witness, known)
        except WaguardError as error:
            self.publish("profile.unwitnessed", level="warning", code=error.code, error=error.message)

    async def end_leftovers(self) -> bool:
        """Prove gone whatever an earlier launch left: one we hold, or one the registry knows. False: there was none.

        The caller sets the deadline.
        """
        if self.browser is not None:
            await self._end_browser(self.browser)
        elif self._record.launch is not None:
            killed = await reaper.reap(self._record.launch)
            if killed:
                self.publish("reaper.killed", level="warning", pids=killed)
            await self.save(launch=None)
        else:
            return False
        return True

    def _drop_lock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    # --- cleanup --------------------------------------------------------------------------------------

    async def clean(self) -> tuple[Sequence[Step], WaguardError | None]:
        """Everything of this client gone, its profile retired. Every step runs, whatever the others did.

        Returns what each step did, and why the processes could not be proved gone if they could not.
        """
        profiles = self._resources.profiles
        profile = None
        resisted: list[WaguardError] = []

        async def forget() -> str | None:
            had = self.memory.profile is not None
            self.memory = Memory(attempt=self.memory.attempt)
            return "" if had else None

        async def close() -> str | None:
            if self.browser is None:
                return None
            if problem := await self.ask_to_close():
                raise _Skipped(problem)
            return ""

        async def end() -> str | None:
            try:
                async with within(Stage.KILL, self._resources.config.deadlines.kill, "reaping leftovers"):
                    return "proved gone" if await self.end_leftovers() else None
            except WaguardError as error:
                resisted.append(error)
                raise
            except OSError as error:
                resisted.append(
                    NotProvedGone(f"The browser of {self.code} could not be proved gone: {error}")
                )
                raise

        async def retire() -> str | None:
            nonlocal profile
            profile = await in_thread(profiles.current, self.code)
            place = await in_thread(profiles.retire, self.code, "cleanup")
            return None if place is None else f"retired as {place.name}"

        async def unlock() -> str | None:
            self._drop_lock()
            if profile is None:
                return None
            await in_thread(profiles.drop_lock, profile)
            return "released"

        works = {"memory": forget, "browser": close, "tree": end, "profile": retire, "lock": unlock}
        steps = [await self._step(name, work) for name, work in works.items()]
        self.memory = Memory()
        return steps, resisted[0] if resisted else None

    async def _step(self, name: str, work: Callable[[], Awaitable[str | None]]) -> Step:
        step, began = Step(name), time.monotonic()
        try:
            detail = await work()
            step.outcome, step.detail = ("nothing", "") if detail is None else ("done", detail)
        except _Skipped as skipped:
            step.outcome, step.detail = "skipped", str(skipped)
        except Exception as error:  # noqa: BLE001 (every step runs, whatever the others did)
            step.outcome, step.detail = "failed", getattr(error, "message", repr(error))
        step.ms = round((time.monotonic() - began) * 1000, 1)
        self.publish(
            "cleanup.step",
            level="error" if step.outcome == "failed" else "info",
            step=step.step,
            outcome=step.outcome,
            duration_ms=step.ms,
            detail=step.detail or None,
        )
        return step
