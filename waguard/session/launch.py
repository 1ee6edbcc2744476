"""The way up: nothing else runs, a profile with its lock, a browser on it that answers."""

import secrets
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from waguard.browser import authorities
from waguard.browser.find import Binary
from waguard.browser.launch import Browser
from waguard.config.clients import Effective
from waguard.config.sections import Browser as Settings
from waguard.core.login import events
from waguard.core.model import Source, Stage, Verdict
from waguard.core.undo import Deed
from waguard.errors import NotProvedGone, ProfileLocked, WaguardError
from waguard.profile import login_files, witness
from waguard.profile.examiners import Evidence, Report
from waguard.profile.generation import Profile
from waguard.profile.witness import Witness
from waguard.sandbox import limits, reaper
from waguard.session.enclosure import Enclosure
from waguard.session.ending import Ending
from waguard.session.instance import Instance
from waguard.session.ladder import Ladder, Taken
from waguard.session.login import ClientLogin
from waguard.session.transfer import Transfer
from waguard.session.undo import Acts
from waguard.session.way_out import WayOut
from waguard.system import shortage
from waguard.system.deadline import within
from waguard.system.threads import Kind, in_thread


@dataclass(frozen=True, slots=True)
class Spawned:
    """A browser that has a process and does not answer yet."""

    browser: Browser
    binary: Binary
    launch: reaper.LaunchRecord
    profile: Profile
    before: Witness | None
    """What was known of the profile before this launch."""
    given: Settings
    """What the browser was given."""
    held: Effective


class Launcher:
    def __init__(
        self,
        instance: Instance,
        login: ClientLogin,
        enclosure: Enclosure,
        ending: Ending,
        transfer: Transfer,
        acts: Acts,
        way_out: WayOut,
    ) -> None:
        self._instance = instance
        self._transfer = transfer
        self._acts = acts
        self._way_out = way_out
        self._login = login
        self._enclosure = enclosure
        self._ending = ending

    async def prepare(self, source: Source | None, deadline_s: float) -> None:
        """See that nothing of this client runs, and have a profile with its lock taken.

        Raises `NotProvedGone`, `ProfileLocked`, `StorageFailed`, `ProfileTooNew`, `SnapshotNotFound`, `SnapshotRefused`,
        `DiskFull`, `SandboxFailed`, `DeadlineExceeded`.
        """
        instance, began = self._instance, time.monotonic()
        deadlines = instance.resources.config.deadlines
        stop = threading.Event()
        instance.check_tenure()
        instance.resources.settings.of(instance.code)  # before anything is touched
        async with within(Stage.PREPARE, deadline_s, "preparing the profile") as span:
            try:
                await self._ending.end_leftovers()
            except OSError as error:
                if (limit := shortage.reached(error)) is not None:
                    raise limit from None
                raise NotProvedGone(
                    f"What runs of {instance.code} could not be proved gone: {error}"
                ) from None
            await self._acts.settle()
            if source is not None and source.retired and source.retired == await self._acts.current():
                source = None  # it came back in a try before this one
            if source is not None:
                await self._acts.begin(_deed(source), source.retired)
            async with instance.using:
                instance.custody.version = instance.resources.binary.version
                take = partial(
                    Ladder(instance.custody).take,
                    stop,
                    source,
                    self._login.doubt,
                    lambda: span.enter(Stage.RESTORE, deadlines.restore, "restoring the profile"),
                    has_login=self._login.held,
                    login_on_disk=self._login.on_disk,
                    generation=instance.record.generation,
                )
                try:
                    taken = await in_thread(take, stop=stop, kind=Kind.PROFILES)
                except ProfileLocked as error:
                    await self._end_holders(Path(error.details.get("lock", "")))
                    taken = await in_thread(
                        take, stop=stop, kind=Kind.PROFILES
                    )  # a sweep may have ended them before us
        instance.memory.profile, instance.memory.how = taken.profile, taken.how
        instance.memory.snapshot, instance.memory.check = taken.snapshot, taken.check
        self._tell_taken(taken)
        self._tell_elsewhere(taken)
        if taken.how != "returned":
            await self._tell_login(taken)
        await self._acts.settle()
        instance.stage_done(Stage.PREPARE, began)

    async def _tell_login(self, taken: Taken) -> None:
        """What the profile of this launch means for the login; those of other pages went with the profile."""
        generation = taken.profile.generation
        if taken.how == "kept":
            await self._login.tell(events.ProfileKept(taken.proved), generation=generation)
        elif taken.how == "restored":
            restored = events.ProfileRestored(taken.snapshot)
            await self._login.tell(restored, generation=generation, elsewhere={})
        else:
            fresh = events.ProfileFresh(damaged=taken.check is not None)
            await self._login.tell(fresh, generation=generation, elsewhere={})

    async def _end_holders(self, lock: Path) -> None:
        """End what an earlier launch left that no record knows of, and that holds the profile."""
        holders = await in_thread(lambda: reaper.lock_holders([lock]))
        killed = await reaper.end_holders(holders)
        if killed:
            self._instance.publish("reaper.killed", pids=killed)

    def _tell_elsewhere(self, taken: Taken) -> None:
        """A profile may have logins of several pages: those of others are kept for when `whatsapp.url` names them again."""
        origins = [one for one, its in self._instance.record.elsewhere.items() if its.login or its.restored]
        if self._login.state.may_be or taken.how != "kept" or not origins:
            return
        here, there = (
            login_files.address_of(self._instance.origin),
            ", ".join(map(login_files.address_of, origins)),
        )
        what = f"its login is of {there}, and is kept; whatsapp.url is of {here}, where it has none"
        self._instance.publish("login.elsewhere", why=what)
        evidence = Evidence("origin", Verdict.SUSPECT, "login", what)
        self._instance.memory.check = Report(
            (evidence, *(taken.check.evidence if taken.check is not None else ()))
        )

    def _tell_taken(self, taken: Taken) -> None:
        if (report := taken.check) is not None and report.evidence:
            damaged = report.verdict is Verdict.DAMAGED
            evidence = [f"{one.path}: {one.what}" for one in report.evidence]
            self._instance.publish(
                f"profile.{report.verdict}", level="error" if damaged else "warning", evidence=evidence
            )
        if taken.refused:
            self._instance.publish("snapshot.refused", snapshots=taken.refused)
        if taken.snapshot:
            self._instance.publish(
                "profile.restored", snapshot=taken.snapshot, profile=taken.profile.generation
            )
        if taken.how == "returned":
            self._instance.publish("profile.returned", profile=taken.profile.generation)
        if taken.mended:
            self._instance.publish("profile.mended", cut=taken.mended)

    @asynccontextmanager
    async def starting(self, deadline_s: float) -> AsyncIterator[None]:
        """The stage `start`: what is raised in it has the browser's last words. Raises `DeadlineExceeded`."""
        began = time.monotonic()
        try:
            async with within(Stage.START, deadline_s, "starting the browser"):
                yield
        except WaguardError as error:
            if self._instance.browser is not None:
                self._instance.browser.quote(error)
            if limit := shortage.of_last_words(error.details.get("stderr", ())):
                raise limit from None
            raise
        self._instance.stage_done(Stage.START, began)

    async def spawn(self) -> Spawned:
        """Have a browser's process on the profile that was prepared.

        Raises `BrowserNotFound`, `SandboxFailed`, `BrowserFailed`, `DiskFull`, `StorageFailed`, `ProfileTooNew`.
        """
        instance = self._instance
        resources, profile = instance.resources, instance.memory.profile
        assert profile is not None  # noqa: S101 (prepared)
        instance.check_tenure()
        binary = await resources.installed.refresh()  # its turn may have come long after it was admitted
        version = binary.version
        await in_thread(instance.custody.used_by, version, profile)
        folders, sandbox = await self._transfer.prepare(), resources.sandbox
        held = resources.settings.of(instance.code)
        given = resources.config.browser.model_copy(
            update={key: getattr(held, key) for key in ("language", "user_agent", "extra_flags")}
        )
        launch = reaper.LaunchRecord(
            secrets.token_hex(8),
            sandbox.kind,
            profile.generation,
            time.time(),
            uploads=str(sandbox.folder_path(folders.uploads)),
            downloads=str(sandbox.folder_path(folders.downloads)),
            settings=held.launched_with,
        )
        await instance.save(launch=launch)
        # Void from here: a browser may be writing. It has not used the profile before it answers.
        before = await in_thread(witness.read, profile.witness)
        await in_thread(witness.write, profile.witness, Witness(before.browser if before else version))
        await in_thread(authorities.put, profile.path, resources.authorities, resources.profiles.user)
        restraints = await in_thread(limits.command, held.memory_max_mb, kind=Kind.MACHINE)
        forwarder = await self._way_out.begin(held.proxy)
        browser = instance.browser = Browser.spawn(
            sandbox,
            binary,
            given,
            profile.path,
            instance.custody.lock_fd,
            launch.token,
            restraints,
            folders,
            held.time_zone,
            forwarder,
        )
        instance.custody.drop_lock()  # the sandbox holds it from here, until all of it is gone
        launch = replace(launch, processes=tuple(await browser.run.identify()), version=version)
        return Spawned(browser, binary, launch, profile, before, given, held)

    async def go(self, spawned: Spawned) -> None:
        """Returns when the browser answers. Raises `BrowserFailed`."""
        instance, browser, launch, binary = self._instance, spawned.browser, spawned.launch, spawned.binary
        await instance.save(launch=launch)
        await self._way_out.renew()  # another proxy may have been put while there was no browser
        instance.pipes.keep(launch, browser)
        await self._enclosure.take(launch, browser, spawned.held.memory_max_mb)
        instance.memory.version = binary.version
        instance.publish("browser.spawned", sandbox=browser.run.kind)
        await in_thread(limits.place_behind, launch.processes, kind=Kind.MACHINE)
        page = await browser.go(binary, spawned.given)
        await self._transfer.begin(browser, launch)
        await in_thread(
            lambda: limits.volunteer([*launch.processes, *browser.run.members()], spawned.held.priority),
            kind=Kind.MACHINE,
        )
        await instance.save(launch=replace(launch, page=page.session_id, target=page.target))
        if spawned.before is not None and spawned.before.browser != binary.version:
            await in_thread(witness.write, spawned.profile.witness, Witness(binary.version))


def _deed(source: Source) -> Deed:
    if source.retired:
        return Deed.UNDO
    return Deed.RESTORE if source.snapshot else Deed.FRESH
