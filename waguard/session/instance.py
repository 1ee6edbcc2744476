"""The browser of one client with all that belongs to it: profile, lock, registry record, what is remembered of it.

Each method does one thing and says how it failed; when to do what is the session's business.
"""

import asyncio
import math
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from waguard.backup.snapshot import About
from waguard.backup.store import Backups, about_of
from waguard.browser import authorities
from waguard.browser.find import Binary, Installed
from waguard.browser.launch import PIPES, Browser
from waguard.config.sections import Config
from waguard.core.catalogue import mistake
from waguard.core.login import Judgement, judge
from waguard.core.model import ClientCode, Link, Login, Reading, Reason, Source, Stage, Verdict
from waguard.core.shown import Step
from waguard.errors import BackupFailed, NotProvedGone, ProfileLocked, WaguardError
from waguard.health.probes.memory import Usage
from waguard.observe.bus import Bus
from waguard.profile import leveldb, login, witness
from waguard.profile.examiners import Evidence, Report
from waguard.profile.generation import Profile
from waguard.profile.store import Profiles
from waguard.profile.witness import Witness
from waguard.sandbox import Sandbox, freeze, limits, reaper
from waguard.sandbox.adopt import adopt
from waguard.sandbox.cgroup import Cgroups, Kills
from waguard.session.custody import Custody, Taken
from waguard.session.registry import Record, Registry
from waguard.system import host, shortage
from waguard.system.deadline import within
from waguard.system.files import in_thread
from waguard.system.systemd import Manager


@dataclass(frozen=True, slots=True)
class Resources:
    """What the instances of a daemon share."""

    config: Config
    installed: Installed
    sandbox: Sandbox
    profiles: Profiles
    registry: Registry
    backups: Backups
    bus: Bus
    manager: Manager
    authorities: bytes
    """See `browser.authorities`."""
    cgroups: Cgroups | None = None

    @property
    def binary(self) -> Binary:
        """The last one that was seen to run: what the next launch runs, unless it has changed since."""
        return self.installed.current


_USAGES = 240
"""Looks at what a browser takes that are remembered."""


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
    how: str = ""
    """How the profile came about: ``kept``, ``fresh`` or ``restored``."""
    backup: str = ""
    """The snapshot that it was restored from."""
    check: Report | None = None
    """What the check before the launch found on the profile that was there, or the browser after it."""
    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds that each stage of the last attempt took."""
    automatic_restarts: int = 0
    proved: bool = True
    """See `Taken`."""
    accepted_at: float = 0.0
    """When WhatsApp has taken the login in this launch, monotonic; 0 if it has not."""
    logged_out: bool = False
    """The page's address has said so, and nobody has scanned since."""
    had: bool = False
    """The login's marks were seen in the page's storage in this launch."""
    unpaired: bool = False
    """The page has asked for a scan in this launch, and had a login: whose it is then accepted nobody knows."""
    frozen_ms: float | None = None
    """How long the browser was held still for the last snapshot of it."""
    usages: deque[tuple[float, Usage]] = field(default_factory=lambda: deque(maxlen=_USAGES))
    """What the browser takes, look by look, each with its time, monotonic."""
    version: str = ""
    """Of the browser that runs."""

    def forget_browser(self) -> None:
        """What was seen of a browser goes with it."""
        self.qr = self.reading = None
        self.usages.clear()
        self.version = ""


_FULL = "No space left"
"""In what Chromium says of a database that it could not open."""
_LOOK_S = 0.5
"""How often is looked whether a login has reached the disk, in seconds."""
_FREEZE_S = 1.0
"""Deadline for a browser to stand still, in seconds."""


class _Skipped(Exception):
    """A step of a cleanup that could not be done and need not be."""


class Instance:
    """Owns the client's browser, its profile's lock and its record. Nothing else touches them."""

    def __init__(self, code: ClientCode, record: Record, resources: Resources) -> None:
        self.code = code
        self.memory = Memory()
        self.browser: Browser | None = None
        self._resources = resources
        self._writing = asyncio.Lock()
        self._using = asyncio.Lock()
        """Held by whoever works on the profile's files: one at a time."""
        self._origin = login.origin_of(resources.config.whatsapp.url)
        self._record = self._written = record.at(self._origin)
        self._custody = Custody(
            code,
            self._origin,
            resources.binary.version,
            resources.profiles,
            resources.backups,
            resources.sandbox,
        )
        self._distrust = ""
        self._kills = Kills()
        """Of the browser's cgroup, as of the last look."""
        self._still = threading.Lock()
        """Held while a snapshot has the browser stand still."""
        self.held_until = 0.0
        """Until when the browser was held still for a snapshot, monotonic; infinite while it is."""
        self.newest_snapshot = ""
        """As of the last time that somebody looked."""

    @property
    def untouched(self) -> bool:
        """Whether there is neither a record of it nor an attempt."""
        return replace(self._record, generation="") == Record().at(self._origin) and not self.memory.attempt

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
        """Write the record if it changes, or if the last write has failed; a failure is reported, and what is in memory
        stays true.

        Raises only before a start: nothing is started that is not written down first.
        """
        record = replace(self._record, **changes)
        if record == self._record == self._written:
            return
        self._record = record
        try:
            async with self._writing:  # the last one written is the last one meant
                record = self._record
                await in_thread(self._resources.registry.write, self.code, record)
                self._written = record
        except WaguardError as error:
            self.publish("registry.write_failed", code=error.code, error=str(error))
            if changes.get("launch") is not None and self.browser is None:
                raise

    # --- up -------------------------------------------------------------------------------------------

    def begin_attempt(self, *, automatic: bool) -> None:
        """Forget the last attempt's page; what follows carries a new id."""
        memory = self.memory
        memory.automatic_restarts += automatic
        memory.attempt = secrets.token_hex(4)
        memory.stages = {}
        memory.check = None
        memory.how = memory.backup = ""
        memory.forget_browser()
        memory.logged_out = memory.had = memory.unpaired = False
        memory.accepted_at = 0.0

    async def prepare(self, source: Source | None, deadline_s: float) -> None:
        """See that nothing of this client runs, and have a profile with its lock taken.

        Raises `NotProvedGone`, `ProfileLocked`, `StorageFailed`, `ProfileTooNew`, `BackupNotFound`, `BackupRefused`,
        `DiskFull`, `SandboxFailed`, `DeadlineExceeded`.
        """
        began = time.monotonic()
        deadlines = self._resources.config.deadlines
        stop = threading.Event()
        async with within(Stage.PREPARE, deadline_s, "preparing the profile") as span:
            try:
                await self.end_leftovers()
            except OSError as error:
                if (limit := shortage.reached(error)) is not None:
                    raise limit from None
                raise NotProvedGone(f"What runs of {self.code} could not be proved gone: {error}") from None
            async with self._using:
                self._custody.version = self._resources.binary.version
                take = partial(
                    self._custody.take,
                    stop,
                    source,
                    self._distrust,
                    lambda: span.enter(Stage.RESTORE, deadlines.restore, "restoring the profile"),
                    has_login=self.has_login,
                    marked=self._record.marked,
                    generation=self._record.generation,
                )
                try:
                    taken = await in_thread(take, stop=stop)
                except ProfileLocked as error:
                    await self._end_holders(Path(error.details.get("lock", "")))
                    taken = await in_thread(take, stop=stop)  # a sweep may have ended them before us
        self._distrust = ""
        self.memory.profile, self.memory.how = taken.profile, taken.how
        self.memory.backup, self.memory.check = taken.backup, taken.check
        self.memory.proved = taken.proved
        self._tell_taken(taken)
        self._tell_elsewhere(taken)
        if taken.how != "kept":
            lost = taken.how == "fresh" and self.may_have_login and taken.check is not None
            ended = Reason.DAMAGED if lost else None
            await self.save(
                login=False,
                marked=False,
                unsaved=False,
                restored=taken.backup,
                ended=ended,
                elsewhere={},
            )
        await self.save(generation=taken.profile.generation)
        self.stage_done(Stage.PREPARE, began)

    async def _end_holders(self, lock: Path) -> None:
        """End what an earlier launch left that no record knows of, and that holds the profile."""
        holders = await in_thread(lambda: reaper.lock_holders([lock], host.process_table()))
        killed = await reaper.end_holders(holders)
        if killed:
            self.publish("reaper.killed", pids=killed)

    def _tell_elsewhere(self, taken: Taken) -> None:
        """A profile may have logins of several pages: those of others are kept for when `whatsapp.url` names them again."""
        origins = [one for one, its in self._record.elsewhere.items() if its.login or its.restored]
        if self.may_have_login or taken.how != "kept" or not origins:
            return
        here, there = login.address_of(self._origin), ", ".join(map(login.address_of, origins))
        what = f"its login is of {there}, and is kept; whatsapp.url is of {here}, where it has none"
        self.publish("login.elsewhere", why=what)
        evidence = Evidence("origin", Verdict.SUSPECT, "login", what)
        self.memory.check = Report((evidence, *(taken.check.evidence if taken.check is not None else ())))

    def _tell_taken(self, taken: Taken) -> None:
        if (report := taken.check) is not None and report.evidence:
            damaged = report.verdict is Verdict.DAMAGED
            evidence = [f"{one.path}: {one.what}" for one in report.evidence]
            self.publish(
                f"profile.{report.verdict}", level="error" if damaged else "warning", evidence=evidence
            )
        if taken.refused:
            self.publish("backup.refused", backups=taken.refused)
        if taken.backup:
            self.publish("profile.restored", backup=taken.backup, profile=taken.profile.generation)
        if taken.mended:
            self.publish("profile.mended", cut=taken.mended)

    # --- the login --------------------------------------------------------------------------------------

    @property
    def has_login(self) -> bool:
        """The client was connected with its profile, and nobody has logged it out since."""
        return self._record.login

    @property
    def login(self) -> Login:
        """What is on record of the profile's login."""
        if not self._record.login:
            return Login.RESTORED if self._record.restored else Login.NONE
        return Login.ON_DISK if self._record.marked else Login.NEW

    @property
    def unsaved(self) -> bool:
        """The login was scanned, and there is no snapshot of it yet."""
        return self._record.unsaved

    @property
    def saved(self) -> bool | None:
        """Whether the login outlives a browser that is killed now: it is on disk, or a snapshot has it. None: there is none."""
        if self.login is Login.NONE:
            return None
        return self.login is not Login.NEW or not self._record.unsaved

    @property
    def ended(self) -> Reason | None:
        """How the login has ended that the client had; None as soon as somebody has scanned."""
        return self._record.ended

    @property
    def may_have_login(self) -> bool:
        """The same, or it was restored from a snapshot that had one."""
        return self._record.login or bool(self._record.restored)

    async def see_mark(self) -> bool:
        """Whether the login's mark is on disk by now; that it was seen is remembered. Raises `StorageFailed`."""
        profile = self.memory.profile
        if not self._record.marked and profile is not None and self._record.login:
            await self.save(marked=await in_thread(login.marked, profile.path, self._origin))
        return self._record.marked

    async def settle(self, limit_s: float) -> None:
        """Wait until the login of a client that has just been connected is on disk, ``limit_s`` after that at most.

        Chromium writes localStorage late, and by when cannot be asked: its mark is looked for. Raises `StorageFailed`.
        """
        while (
            self.browser is not None
            and self.memory.accepted_at
            and time.monotonic() < self.memory.accepted_at + limit_s
        ):
            if await self.see_mark():
                return
            await asyncio.sleep(_LOOK_S)

    async def judge(self, reading: Reading) -> Reading | None:
        """What the page tells of the login, with what follows from it; none if it was lost and there is a snapshot of it.

        The launch is of no use then: the next one goes down the ladder.
        """
        memory = self.memory
        if self.browser is None:
            return reading
        memory.had = memory.had or reading.marks is True
        found = judge(
            reading,
            login=self._record.login,
            restored=bool(self._record.restored),
            had=memory.had or memory.accepted_at > 0,
        )
        match found:
            case Judgement.ACCEPTED:
                await self._note_accepted()
            case Judgement.REFUSED if why := await in_thread(self._damage_of, self.browser):
                if not await self._note_lost(why):  # an older one may do
                    return None
            case Judgement.REFUSED:
                await self._note_refused()
            case Judgement.UNPAIRED if why := self.browser.damage or await in_thread(self._custody.wiped):
                if not await self._note_lost(why):
                    return None
            case Judgement.UNPAIRED:
                memory.unpaired = True
                return replace(reading, reason=Reason.UNPAIRED)
            case Judgement.LOST:
                why = await in_thread(self._damage_of, self.browser)
                if not await self._note_lost(why or "it is gone, and nobody has logged it out"):
                    return None
            case Judgement.LOGGED_OUT:
                why = await in_thread(self._damage_of, self.browser)
                if not await (self._note_lost(why) if why else self._note_logged_out()):
                    return None
        # A page that waits for a passkey, say, has words of its own.
        plain = (reading.link, reading.reason) == (Link.AWAITING_SCAN, None)
        asks_scan = plain or reading.reason is Reason.LOGGED_OUT
        return replace(reading, reason=self._record.ended or reading.reason) if asks_scan else reading

    async def _note_accepted(self) -> None:
        record, unsaved, memory = self._record, self._record.unsaved, self.memory
        if not record.login:  # a new one, or one that was restored
            memory.accepted_at, memory.logged_out = 0.0, False
            unsaved = not record.restored
        unsaved, memory.unpaired = unsaved or memory.unpaired, False
        if not memory.accepted_at:
            await self._hold()
        memory.accepted_at = memory.accepted_at or time.monotonic()
        launch = replace(record.launch, accepted=True) if record.launch is not None else None
        await self.save(launch=launch, login=True, unsaved=unsaved, restored="", ended=None)

    async def _hold(self) -> None:
        """What is wiped from here on had the login."""
        if (profile := self.memory.profile) is None:
            return
        try:
            await in_thread(self._custody.hold, profile)
        except WaguardError as error:
            self.publish("profile.unwitnessed", code=error.code, error=error.message)

    async def _note_logged_out(self) -> bool:
        """False: the launch is of no use.

        A page that finds its storage empty may say the same. Where that cannot be ruled out a snapshot is worth one try.
        """
        if not self.memory.proved and not self.memory.accepted_at and await self._has_snapshot():
            self._distrust = "it says that it was logged out, but what its files were is not known"
            self.publish("login.doubted", why=self._distrust)
            return False
        await self._end_login(Reason.LOGGED_OUT)
        return True

    async def _end_login(self, how: Reason) -> None:
        """There is none any more, and a person has to scan."""
        self.memory.had, self.memory.accepted_at = False, 0.0
        await in_thread(self._custody.let_go)
        await self.save(login=False, marked=False, unsaved=False, restored="", ended=how)

    async def find_snapshot(self) -> bool:
        """Look for one that the profile could be restored from; `newest_snapshot` is its id."""
        profile, self.newest_snapshot = self.memory.profile, ""
        if profile is not None and self._record.login:
            found = await in_thread(
                self._resources.backups.candidates, self.code, profile.lineage, self._origin
            )
            self.newest_snapshot = found[0].id if found else ""
        return bool(self.newest_snapshot)

    async def _has_snapshot(self) -> bool:
        profile = self.memory.profile
        assert profile is not None  # noqa: S101 (a browser uses it)
        if await in_thread(self._resources.backups.candidates, self.code, profile.lineage, self._origin):
            return True
        sealed = await in_thread(about_of, profile.sealed)
        return sealed is not None and sealed.login

    def _damage_of(self, browser: Browser) -> str:
        """What the browser, or what it has made anew, tells of a database that was lost."""
        profile, launch = self.memory.profile, self._record.launch
        if damage := browser.damage or self._custody.wiped():
            return damage
        if profile is None or launch is None or self.memory.accepted_at:
            return ""
        for database in login.databases(profile.path, self._origin):
            try:
                if leveldb.made_anew(database, launch.started_at):
                    return f"{database.name} was missing and has been made anew"
            except OSError:
                continue
        return ""

    async def _note_refused(self) -> None:
        backup = self._record.restored
        what = f"that of snapshot {backup} is no longer valid, WhatsApp did not take it: a scan is needed"
        self.memory.check = _found(what, Verdict.SUSPECT)
        self.publish("backup.login_refused", backup=backup)
        await self._mark_refused()
        await self._end_login(Reason.LOGGED_OUT)

    async def _mark_refused(self) -> None:
        """The snapshot that the profile was restored from is not offered again."""
        backup = self._record.restored
        try:
            await in_thread(self._resources.backups.mark_refused, self.code, backup)
        except WaguardError as error:
            self.publish("backup.mark_failed", backup=backup, error=error.message)

    @property
    def distrust(self) -> str:
        """Why the kept profile is damaged, if the browser has found it so."""
        return self._distrust

    async def _note_lost(self, why: str) -> bool:
        """False: the launch is of no use."""
        self.publish("login.lost", why=why)
        if self._record.restored and _FULL not in why:  # on a full disk it may be as sound as ever
            await self._mark_refused()
        if await self._has_snapshot():
            self._distrust = why
            return False
        self.memory.check = _found(why)
        await self._end_login(Reason.DAMAGED)
        return True

    async def launch(self, spawned: Callable[[Browser], None], deadline_s: float) -> None:
        """Start the browser; returns when it answers. ``spawned`` is called as soon as there is a process to watch.

        Raises `BrowserNotFound`, `SandboxFailed`, `BrowserFailed`, `DiskFull`, `StorageFailed`, `ProfileTooNew`,
        `DeadlineExceeded`, with the browser's last words.
        """
        try:
            await self._launch(spawned, deadline_s)
        except WaguardError as error:
            if self.browser is not None:
                self.browser.quote(error)
            if limit := shortage.of_last_words(error.details.get("stderr", ())):
                raise limit from None
            raise

    async def _launch(self, spawned: Callable[[Browser], None], deadline_s: float) -> None:
        resources, profile = self._resources, self.memory.profile
        assert profile is not None  # noqa: S101 (prepared)
        settings = resources.config.browser
        began = time.monotonic()
        async with within(Stage.START, deadline_s, "starting the browser"):
            binary = await resources.installed.refresh()  # its turn may have come long after it was admitted
            version = binary.version
            await in_thread(self._custody.used_by, version, profile)
            launch = reaper.Launch(
                secrets.token_hex(8), resources.sandbox.kind, profile.generation, time.time(), short=True
            )
            await self.save(launch=launch)
            # Void from here: a browser may be writing. It has not used the profile before it answers.
            before = await in_thread(witness.read, profile.witness)
            await in_thread(witness.write, profile.witness, Witness(before.browser if before else version))
            await in_thread(authorities.put, profile.path, resources.authorities, resources.profiles.user)
            restraints = await in_thread(limits.command, resources.config.cgroup.memory_max_mb)
            browser = self.browser = Browser.spawn(
                resources.sandbox,
                binary,
                settings,
                profile.path,
                self._custody.lock_fd,
                launch.token,
                restraints,
            )
            self._custody.drop_lock()  # the sandbox holds it from here, until all of it is gone
            identities = tuple(await browser.run.identify())
            spawned(browser)
            launch = replace(launch, processes=identities, version=version)
            await self.save(launch=launch)
            resources.manager.keep(self._named(launch, browser))
            await self._enclose(launch, browser)
            self.memory.version = version
            self.publish("browser.spawned", sandbox=browser.run.kind)
            page = await browser.go(binary, settings)
            await in_thread(lambda: limits.volunteer([*identities, *browser.run.members()]))
            await self.save(launch=replace(launch, page=page.session_id, target=page.target))
            if before is not None and before.browser != version:
                await in_thread(witness.write, profile.witness, Witness(version))
        self.stage_done(Stage.START, began)

    async def _enclose(self, launch: reaper.Launch, browser: Browser) -> None:
        """Give the launch a cgroup of its own; without one it goes on as well."""
        self._kills = Kills()
        if (cgroups := self._resources.cgroups) is None:
            return
        try:
            await in_thread(cgroups.take, self.code, launch.token, browser.run, launch.processes)
        except OSError as error:
            self.publish("cgroup.failed", error=str(error))

    async def short_of_memory(self) -> str:
        """What the kernel has ended of the browser for want of memory since it was asked last; empty if nothing."""
        if (cgroups := self._resources.cgroups) is None or (launch := self._record.launch) is None:
            return ""
        before = self._kills
        self._kills = now = await in_thread(cgroups.leaf(self.code, launch.token).kills)
        if now.killed <= before.killed:
            return ""
        most = self._resources.config.cgroup.memory_max_mb
        where = (
            f"at cgroup.memory_max_mb = {most}" if now.full > before.full else "since the machine has no more"
        )
        return f"the kernel ended one of its processes {where}"

    async def _clear_cgroup(self, launch: reaper.Launch) -> None:
        """Whatever is left in the launch's cgroup is killed and proved gone; the caller sets the deadline."""
        if (cgroups := self._resources.cgroups) is None:
            return
        stop = threading.Event()
        try:
            leaf = cgroups.leaf(self.code, launch.token)
            used = await in_thread(leaf.end, stop, stop=stop)
        except OSError as error:
            self.publish("cgroup.failed", error=str(error))
            return
        if used is not None:
            self.publish("cgroup.removed", cpu_s=used.cpu_s, memory_peak_mb=used.memory_peak_mb)

    # --- from one daemon to the next ------------------------------------------------------------------

    def _named(self, launch: reaper.Launch, browser: Browser) -> Mapping[str, int]:
        fds = browser.pipes()
        return {name: fds[pipe] for pipe, name in pipe_names(self.code, launch).items()}

    async def find_profile(self) -> Record:
        """See to it that the link to its profile is there, and that its record, which is returned, names it too.

        Raises `ProfileNotFound` if there is a login and nobody knows where, `StorageFailed`.
        """
        record = self._record
        known = record.generation or (record.launch.generation if record.launch is not None else "")
        if what := await in_thread(partial(self._custody.mend_link, known, has_login=self.has_login)):
            self.publish("profile.link_mended", why=what)
        _, profile = await in_thread(self._resources.profiles.find, self.code)
        if (generation := profile.generation if profile is not None else "") != record.generation:
            await self.save(generation=generation)
        return self._record

    async def adopt(self) -> bool:
        """Go on with the browser that an earlier daemon has brought up, if all that it takes is there; else its pipes are
        closed, and the rest is for `end_leftovers`. Raises `OSError`, `StorageFailed`.
        """
        manager, launch = self._resources.manager, self._record.launch
        if launch is None:
            return False
        with ExitStack() as useless:
            useless.callback(self._forget_pipes, launch)
            names = pipe_names(self.code, launch).items()
            fds = {pipe: fd for pipe, name in names if (fd := manager.take(name)) is not None}
            with ExitStack() as ours:
                for fd in fds.values():
                    ours.callback(os.close, fd)
                _, profile = await in_thread(self._resources.profiles.find, self.code)
                if not launch.page or len(fds) < len(PIPES):
                    return False
                if profile is None or profile.generation != launch.generation:
                    return False
                if (run := await in_thread(adopt, launch)) is None:
                    return False
                ours.pop_all()
            self.browser = await Browser.adopt(run, fds, launch.page, launch.target)
            useless.pop_all()
        manager.keep(self._named(launch, self.browser))  # what the one before us could not have kept
        memory = self.memory
        memory.attempt, memory.profile, memory.how, memory.proved = (
            secrets.token_hex(4),
            profile,
            "kept",
            False,
        )
        memory.version = launch.version
        await self.short_of_memory()  # what is news starts here
        self._custody.version = launch.version or self._custody.version
        if launch.accepted and self.has_login:
            await self._hold()
            memory.accepted_at = time.monotonic()
        self.publish("session.adopted", profile=profile.generation, launched_at=launch.started_at)
        return True

    def leave(self) -> bool:
        """Give the browser up as it is, for the daemon that comes after this one; false: nobody could go on with it."""
        browser, launch = self.browser, self._record.launch
        if browser is None or launch is None or not launch.page or self._record != self._written:
            return False
        if self._custody.wiped():  # which the next daemon could not know
            return False
        if not browser.connected or not self._resources.manager.bequeath(self._named(launch, browser)):
            return False
        browser.close()
        self._custody.let_go()
        self.browser = None
        self.publish("session.left")
        return True

    # --- down -----------------------------------------------------------------------------------------

    async def ask_to_close(self) -> str:
        """Ask the browser to close, so that it writes down what it has; says what came of it if it did not."""
        browser = self.browser
        assert browser is not None  # noqa: S101 (the callers looked)
        if await in_thread(self._stopped, browser):
            return "it is stopped, so it was not asked"
        began = time.monotonic()
        try:
            async with within(Stage.CLOSE, self._resources.config.deadlines.close, "closing the browser"):
                await browser.ask_to_close()
        except WaguardError as error:
            self.publish("browser.close_ignored", error=error.message)
            return f"it was asked and did not: {error.message}"
        self.stage_done(Stage.CLOSE, began)
        return ""

    def _stopped(self, browser: Browser) -> bool:
        """Whether it stands still, and not for a snapshot, which lets it go on in a moment."""
        if self._still.acquire(timeout=self._resources.config.deadlines.close):
            self._still.release()
        return browser.run.stopped()

    async def end(self, *, polite: bool) -> None:
        """Close the browser if there is one, kill what is left, prove it gone. Raises `NotProvedGone`."""
        if self.browser is not None:
            if polite:
                await self.ask_to_close()
            await self._end_browser(self.browser)
        self._custody.drop_lock()

    async def _end_browser(self, browser: Browser) -> None:
        began, launch = time.monotonic(), self._record.launch
        assert launch is not None  # noqa: S101 (written before there is a browser)
        try:
            async with within(Stage.KILL, self._resources.config.deadlines.kill, "proving the browser gone"):
                await browser.kill()
                await self._clear_cgroup(launch)
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
        self.memory.forget_browser()
        self.stage_done(Stage.KILL, began)
        await self._witness()
        await in_thread(self._custody.let_go)
        await self._forget(launch)

    async def _witness(self) -> None:
        """Note what the login's files are, now that no browser can change them. Without it their structure has to do."""
        profile = self.memory.profile
        if profile is None:
            return
        try:
            await in_thread(self._custody.witness, profile)
            await self.see_mark()
        except WaguardError as error:
            self.publish("profile.unwitnessed", code=error.code, error=error.message)
            self._distrust = self._distrust or await in_thread(self._custody.wiped)

    async def end_leftovers(self) -> bool:
        """Prove gone whatever an earlier launch left: one we hold, or one the registry knows. False: there was none.

        The caller sets the deadline.
        """
        if self.browser is not None:
            await self._end_browser(self.browser)
        elif (launch := self._record.launch) is not None:
            killed = await reaper.reap(launch)
            await self._clear_cgroup(launch)
            if killed:
                self.publish("reaper.killed", pids=killed)
            await self._forget(launch)
        else:
            return False
        return True

    async def _forget(self, launch: reaper.Launch) -> None:
        """It is proved gone: its pipes and its record are of no use; another launch may have begun meanwhile, and keeps its own."""
        self._forget_pipes(launch)
        if (now := self._record.launch) is not None and now.token == launch.token:
            await self.save(launch=None)

    def _forget_pipes(self, launch: reaper.Launch) -> None:
        for name in pipe_names(self.code, launch).values():
            self._resources.manager.drop(name)

    @property
    def in_use(self) -> frozenset[str]:
        """The generations that a browser of this client uses, or is about to."""
        # Known from its launch: a cleanup forgets the profile before it ends the browser.
        launch = self._record.launch if self.browser is not None else None
        return frozenset({launch.generation if launch else "", self._custody.locked} - {""})

    @property
    def browser_age_s(self) -> float | None:
        """Seconds since its browser was started, by whichever daemon; None if it has none."""
        launch = self._record.launch
        if self.browser is None or launch is None or not launch.processes:
            return None
        return host.age_s(launch.processes[0].start_ticks)

    @property
    def recorded(self) -> reaper.Launch | None:
        """The launch that is on record."""
        return self._record.launch

    @property
    def leftover(self) -> reaper.Launch | None:
        """A launch that is on record and has no browser that we hold."""
        return self._record.launch if self.browser is None else None

    # --- copies -----------------------------------------------------------------------------------------

    async def copy(self, into: Path, reason: str) -> About:
        """Copy the login's part of the profile into an empty directory, from a running browser too, which is held still for
        milliseconds. Raises `BackupFailed`, `BackupRefused`, `StorageFailed`, `ProfileLocked`, `DiskFull`.
        """
        async with self._using:
            browser = self.browser
            # Whoever has the lock now has it for a launch: it is not ours to use, nor to give back.
            if (browser is None and self._custody.locked) or (browser is not None and not browser.connected):
                raise BackupFailed(
                    f"{self.code} is just starting or stopping.", hint="Try again in a moment."
                )
            held_still = None if browser is None else partial(self._held_still, browser)
            copied = partial(
                self._custody.copy, into, reason, has_login=self.has_login, held_still=held_still
            )
            return await in_thread(copied)

    @contextmanager
    def _held_still(self, browser: Browser) -> Iterator[None]:
        with self._still:
            self.held_until = math.inf  # what is stopped by us is not to be found stopped
            try:
                with freeze.frozen(browser.run.members, _FREEZE_S):
                    began = time.monotonic()
                    yield
            finally:
                self.held_until = time.monotonic()
        self.memory.frozen_ms = round((time.monotonic() - began) * 1000, 1)

    async def prune(self, limit_bytes: int) -> int:
        """Drop the caches of a profile that no browser uses, if they take more. Raises `StorageFailed`, `ProfileLocked`."""
        async with self._using:
            return 0 if self.in_use else await in_thread(self._custody.prune, limit_bytes)

    async def seal(self) -> None:
        """Leave only the sealed form of a profile that no browser uses. What goes wrong is told, and tried again later."""
        if self._resources.config.profile.at_rest != "sealed" or self.browser is not None:
            return
        stop, began = threading.Event(), time.monotonic()
        try:
            deadline = self._resources.config.deadlines.backup
            async with within(Stage.BACKUP, deadline, "sealing the profile"), self._using:
                work = partial(self._custody.seal, stop, has_login=self.has_login)
                sealed = not self.in_use and await in_thread(work, stop=stop)
        except WaguardError as error:
            self.publish("profile.seal_failed", code=error.code, error=error.message)
        else:
            if sealed:
                self.publish("profile.sealed", duration_ms=round((time.monotonic() - began) * 1000, 1))

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
                    shortage.reached(error)
                    or NotProvedGone(f"The browser of {self.code} could not be proved gone: {error}")
                )
                raise

        async def retire() -> str | None:
            nonlocal profile
            _, profile = await in_thread(profiles.find, self.code)
            async with self._using:
                place = await in_thread(partial(self._custody.retire, "cleanup", has_login=self.has_login))
            await self.save(
                login=False, marked=False, unsaved=False, restored="", ended=None, generation="", elsewhere={}
            )
            return None if place is None else f"retired as {place.name}"

        async def unlock() -> str | None:
            self._custody.drop_lock()
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
            if not isinstance(error, OSError) and shortage.known(error) is None:
                self.publish("internal.error", **mistake(f"cleanup.{name}", error))
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


def pipe_names(code: ClientCode, launch: reaper.Launch) -> Mapping[str, str]:
    """By `PIPES`: what the service manager knows the launch's pipes by.

    Short, since all names of all launches have to fit into one variable; one of them tells whose launch it is.
    """
    if not launch.short:  # of a version before
        return {pipe: f"{code}.{launch.token}.{pipe}" for pipe in PIPES}
    names = {pipe: f"{launch.token}.{pipe[0]}" for pipe in PIPES}
    return names | {"stderr": f"{names['stderr']}.{code}"}


def kept_names(code: ClientCode, names: Sequence[str]) -> Collection[str]:
    """Those of them that are of a launch of this client's."""
    launch = kept_launch(code, names)
    return () if launch is None else pipe_names(code, launch).values()


def kept_launch(code: ClientCode, names: Iterable[str]) -> reaper.Launch | None:
    """What the names of kept pipes tell of a launch of this client's: enough to end it."""
    form = re.compile(rf"(?P<short>[0-9a-f]+)\.s\.{code}|{code}\.(?P<long>[0-9a-f]+)\.[a-z]+")
    found = (one for name in names if (one := form.fullmatch(name)))
    launches = (
        reaper.Launch(one["short"] or one["long"], "", "", 0.0, short=one["short"] is not None)
        for one in found
    )
    return next(launches, None)


def _found(what: str, verdict: Verdict = Verdict.DAMAGED) -> Report:
    return Report((Evidence("page", verdict, "login", what),))
