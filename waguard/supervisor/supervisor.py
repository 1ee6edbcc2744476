"""All sessions of a daemon: one per client code, who is admitted, who waits for what, and what is shown of them."""

import asyncio
import contextvars
import difflib
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import IO, Any

from waguard.backup.snapshot import About
from waguard.backup.store import Backup
from waguard.core.catalogue import mistake
from waguard.core.health.patience import LONGER
from waguard.core.model import (
    Alert,
    ClientCode,
    Failure,
    Link,
    Process,
    Stage,
    Status,
    Wait,
    Wanted,
    client_code,
)
from waguard.core.session import events
from waguard.core.session.answer import answer
from waguard.core.session.state import State, summary_of
from waguard.core.shown import BackupView, CleanupView, QrView, Raised, SandboxView, SessionView, Sweep
from waguard.errors import (
    BY_CODE,
    BackupRefused,
    BreakerOpen,
    DeadlineExceeded,
    DiskFull,
    InvalidClientCode,
    LimitReached,
    NoMemory,
    NoQrCode,
    NotReady,
    ProfileNotFound,
    RecordCorrupt,
    RecordUnavailable,
    SessionFailed,
    SessionNotFound,
    ShuttingDown,
    StorageFailed,
    WaguardError,
)
from waguard.profile import login
from waguard.schedule import Rule, Schedule
from waguard.session import handover
from waguard.session.instance import Instance
from waguard.session.pipes import kept_launch, kept_names
from waguard.session.registry import Record
from waguard.session.resources import Services
from waguard.session.task import Session
from waguard.supervisor.views import backup_view, qr_view, session_view
from waguard.system import host, shortage
from waguard.system.deadline import within
from waguard.system.files import in_thread
from waguard.system.tasks import background
from waguard.upkeep.keeper import Keeper
from waguard.upkeep.sweep.sweeper import IN_THE_WAY, PUT_ASIDE, TAKES_ROOM, Sweeper

_ON_ITS_WAY = frozenset({Process.PREPARING, Process.STARTING})
REAP, BACKUP = "reap", "backup"
"""The jobs of the schedule."""
_READS, _READ_AGAIN_S = 3, 0.3
_READ_LATER = "What runs of this client is left alone. When the file can be read: systemctl reload waguard, or restart the daemon."
_REFUSING = frozenset({Alert.BREAKER_OPEN, Alert.DISK_FULL})
"""While one of these stands, no connect is taken."""
_DISK_EVERY_S = 10.0
_INODES = 1000
"""Files that a new profile makes, with some to spare."""


class Supervisor:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._resources = services.resources
        self._config = services.resources.config
        self.history, self.learned = services.history, services.learned
        self._sessions: dict[ClientCode, Session] = {}
        self._tasks: dict[ClientCode, asyncio.Task[None]] = {}
        self._admitting: Counter[Session] = Counter()
        self._tidy_due = asyncio.Event()
        self._tidying: asyncio.Task[None] | None = None
        self._unread: dict[ClientCode, str] = {}
        """Whose records could not be read, and why. What runs of theirs is left alone, and nothing is started beside it."""
        self._origin = login.origin_of(self._config.whatsapp.url)
        self.keeper = Keeper(self._resources, self._sessions)
        self.sweeper = Sweeper(self._resources, self._sessions, self.keeper.save, self._unread)
        self.schedule = Schedule(
            self._config.sessions.dir / ".schedule.json",
            self._config.schedule.jitter_s,
            self._resources.bus.publish,
        )
        self._returning: asyncio.Task[None] | None = None
        self._looking_at_disk: asyncio.Task[None] | None = None
        services.gate.find_room = self._room_for
        self._closing = False
        self.ready = False

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what an earlier daemon left: read every record, go on with its browsers, or end them. No connect before."""
        codes = []
        for name in await in_thread(self._resources.profiles.codes):
            try:
                codes.append(client_code(name))
            except InvalidClientCode:
                self._resources.bus.publish("registry.foreign_directory", directory=name)
        lost = await in_thread(self._resources.backups.keys_lost)
        self._services.gate.alerts.set(Alert.KEYS_LOST, lost)
        await asyncio.gather(*(self._adopt(code) for code in codes))
        # Of no session that we know: its browser ends with its pipe.
        handed = self._resources.manager.handed()
        for name in set(handed).difference(*(kept_names(code, handed) for code in self._unread)):
            self._resources.bus.publish("daemon.unknown_fd", fd=name)
            self._resources.manager.drop(name)
        await self._sweep(starting=True, among=IN_THE_WAY)
        self._resources.bus.subscribe(self.keeper.heard)
        self.keeper.begin()
        self.schedule.add(REAP, Rule.parse(self._config.schedule.reap), self._reap)
        self.schedule.add(BACKUP, Rule.parse(self._config.schedule.backup), self.keeper.take_all)
        await self.schedule.start()
        publish = self._resources.bus.publish
        self._tidying = background(self._tidy_when_due, "tidy", publish, again=True)
        self._returning = background(self._bring_back, "return", publish)
        self._looking_at_disk = background(self._keep_looking_at_disk, "disk", publish, again=True)
        self.ready = True

    async def _bring_back(self) -> None:
        """Start again what was wanted before the daemon ended, those used most first, as many at a time as may start."""
        wanted = [
            one
            for one in self._sessions.values()
            if (one.state.wanted, one.state.process) == (Wanted.UP, Process.DOWN)
        ]
        wanted.sort(key=lambda one: self._services.learned.activity(one.code), reverse=True)
        self._resources.bus.publish("sessions.returning", sessions=len(wanted))
        waiting = iter(wanted)

        async def bring() -> None:
            for session in waiting:
                await self._bring(session)

        places = self._config.limits.concurrent_starts
        await asyncio.gather(*(bring() for _ in range(min(places, len(wanted)))))

    async def _bring(self, session: Session) -> None:
        """Returns when it has answered, or is not on its way up any more."""
        deadlines = self._config.deadlines
        try:
            await session.ask(events.ReturnAsked())
            async with asyncio.timeout(
                deadlines.admit + deadlines.prepare + deadlines.restore + deadlines.start
            ):
                await session.until(lambda: session.state.process not in _ON_ITS_WAY)
        except (WaguardError, TimeoutError):
            return  # it goes on by itself, or the daemon ends

    async def _room_for(self, code: ClientCode) -> None:
        await self._admit(self._sessions[code])

    async def _reap(self) -> None:
        await self.sweeper.sweep()

    async def _tidy_when_due(self) -> None:
        """After whatever may have put a profile aside: see to it that it is saved, and goes when it may."""
        await self._sweep(among=TAKES_ROOM)  # at the start, what that has not waited for
        while True:
            await self._tidy_due.wait()
            self._tidy_due.clear()
            await self._sweep(among=PUT_ASIDE)

    async def _sweep(self, **options: Any) -> None:
        """Nobody waits for it: what keeps it from looking is told."""
        try:
            await self.sweeper.sweep(**options)
        except Exception as error:  # noqa: BLE001 (no daemon may fail to start for what it finds)
            known = shortage.known(error)
            if known is None:
                self._resources.bus.bug("sweep", error)
            code, why = (known.code, known.message) if known is not None else ("internal", repr(error))
            self._resources.bus.publish("sweep.failed", code=code, error=why)

    async def _adopt(self, code: ClientCode) -> None:
        """Whatever is wrong with what is kept of one client, it costs no other one, and no start."""
        try:
            await self._adopt_one(code)
        except Exception as error:  # noqa: BLE001 (a mistake of ours about one client must not keep the daemon from starting)
            self._resources.bus.bug("adopt", error, client=code)
            if code not in self._sessions:
                self._unread[code] = "What is kept of this client cannot be dealt with; the log has it."

    async def _adopt_one(self, code: ClientCode) -> None:
        resources = self._resources
        try:
            record = await self._read(code)
        except RecordCorrupt as error:
            resources.bus.publish(
                "registry.unreadable",
                client=code,
                error=error.message,
                kept_as=await self._set_aside(code),
            )
            # Whose pipes are kept was wanted; they name its launch, and so it can be ended.
            launch = kept_launch(code, resources.manager.handed())
            record = Record(wanted=Wanted.UP if launch else Wanted.DOWN, launch=launch)
        except (StorageFailed, LimitReached) as error:
            self._unread[code] = error.message
            resources.bus.publish("registry.unread", client=code, error=error.message, hint=_READ_LATER)
            return
        try:
            record = await handover.find_profile(Instance(code, record, resources))
        except (StorageFailed, ProfileNotFound) as error:
            self._unread[code] = str(error)
            resources.bus.publish("profile.not_found", client=code, error=str(error))
            return
        session = self._add(code, record)
        if record.launch is not None:
            await session.take_over()

    async def _read(self, code: ClientCode) -> Record:
        """What cannot be read is tried again: there may be too many open files for a moment. Raises `RecordCorrupt`, `StorageFailed`."""
        for _ in range(_READS - 1):
            try:
                return await in_thread(self._resources.registry.read, code)
            except RecordCorrupt:
                raise
            except (StorageFailed, LimitReached):
                await asyncio.sleep(_READ_AGAIN_S)
        return await in_thread(self._resources.registry.read, code)

    async def _set_aside(self, code: ClientCode) -> str:
        try:
            return str(await in_thread(self._resources.registry.set_aside, code))
        except (StorageFailed, LimitReached) as error:
            return f"where it was: {error.message}"

    def refuse(self) -> None:
        """Take no more; whoever waits is told that the daemon is shutting down."""
        self._closing = True
        self.ready = False
        for session in self._sessions.values():
            session.refuse()

    def leave(self) -> None:
        """Another daemon comes after this one: `close` leaves it what is up."""
        for session in self._sessions.values():
            session.leave()

    async def close(self) -> None:
        """Close every browser politely and at once; returns when all are proved gone, but for those that are to be left."""
        self.refuse()
        await self.schedule.close()
        await self.keeper.close()
        own = (self._tidying, self._returning, self._looking_at_disk)
        tasks = [*self._tasks.values(), *(one for one in own if one is not None)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            self._tell_ended(task)

    def _tell_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            told = mistake(task.get_name(), error)
            self._resources.bus.publish("session.shutdown_failed", **told)

    def _add(self, code: ClientCode, record: Record) -> Session:
        session = Session(code, record, self._services)
        self._sessions[code] = session
        # A context of its own: what it logs belongs to no request, least of all to the one that happened to make it.
        context = contextvars.Context()
        self._tasks[code] = asyncio.create_task(session.run(), name=f"{code}:session", context=context)
        return session

    # --- the verbs ------------------------------------------------------------------------------------

    async def connect(
        self, code: ClientCode, *, wait: Wait = Wait.QR, fresh: bool = False, timeout_s: float | None = None
    ) -> SessionView:
        """Have this client's browser up; answer as soon as it is as ``wait`` says.

        Joins an attempt that is under way. Raises the error that ended the attempt, `DeadlineExceeded` with the
        stage that was slow, `NoMemory`, `DiskFull` or `SessionFailed` (nothing was touched then).
        """
        session = self._wanted(code)
        async with self._admitted(session):
            await session.ask(events.ConnectAsked(fresh=fresh))
        try:
            return await self._wait(session, wait, timeout_s)
        finally:
            if fresh:
                self._tidy_due.set()

    async def restart(
        self, code: ClientCode, *, wait: Wait = Wait.QR, timeout_s: float | None = None
    ) -> SessionView:
        """Close the browser and start it again on the same profile. Raises like `connect`, and `SessionNotFound`."""
        self._check_open()
        session = self._known(code)
        async with self._admitted(session):
            await session.ask(events.RestartAsked())
        return await self._wait(session, wait, timeout_s)

    async def disconnect(self, code: ClientCode) -> SessionView:
        """Close the browser, keep the profile; returns when it is proved gone. Raises like `Session.down`."""
        session = self._known(code)
        await session.down()
        if session.state.failure is not None and session.state.process is Process.FAILED:
            raise _error(session.state.failure)
        return self.view(code)

    async def cleanup(self, code: ClientCode) -> CleanupView:
        """Everything of this client gone, its profile retired; never fails as a whole, each step says how it went.

        Raises `SessionNotFound` where there is nothing that could be of this client, and so its code is probably wrong.
        """
        began = time.monotonic()
        self._check_open()
        if code not in self._sessions and not await in_thread(self._has_traces, code):
            raise self._unknown(code)
        session = self._wanted(code)
        try:
            steps = await session.cleanup()
        finally:
            self._forget(session)
        self._tidy_due.set()
        return CleanupView(
            client=code,
            ok=all(step.outcome != "failed" for step in steps),
            steps=steps,
            ms=round((time.monotonic() - began) * 1000, 1),
        )

    def _has_traces(self, code: ClientCode) -> bool:
        """Whether anything on disk is of this client. Blocking."""
        return (self._config.sessions.dir / code).exists() or bool(self._resources.backups.of(code))

    async def reap(self, *, dry_run: bool) -> Sweep:
        """Deal with what browsers, crashes and time have left behind. Raises like `Sweeper.sweep`, and `NotReady`."""
        self._check_open()
        return await self.sweeper.sweep(dry_run=dry_run)

    # --- snapshots ------------------------------------------------------------------------------------

    async def backups(self, code: ClientCode) -> Sequence[BackupView]:
        """The client's snapshots, the newest first, also of one that has no session any more. Raises `StorageFailed`."""
        return [backup_view(one) for one in await self.keeper.list(code)]

    async def backup(self, code: ClientCode) -> BackupView:
        """Take a snapshot now. Raises like `Keeper.take`, and `SessionNotFound`."""
        return backup_view(await self.keeper.take(self._known(code), "request"))

    async def check_backup(self, code: ClientCode, backup_id: str) -> BackupView:
        """What `restore` would refuse it for.

        Raises `BackupNotFound`, `BackupRefused`, `LoginInUse`, `DiskFull`, `DeadlineExceeded`.
        """
        return backup_view(await self._restorable(code, backup_id))

    async def _restorable(self, code: ClientCode, backup_id: str) -> Backup:
        backup = await self._opened(code, backup_id)
        await in_thread(self.keeper.refuse_twin, code, backup.about)
        if backup.about is not None and backup.about.origin != self._origin:
            here, there = map(login.address_of, (self._origin, backup.about.origin))
            raise BackupRefused(
                f"It has a login of {there}, and whatsapp.url is of {here}.", reason="other_origin"
            )
        await self._find_room(backup.about)
        return backup

    async def _opened(self, code: ClientCode, backup_id: str) -> Backup:
        """Open a snapshot from beginning to end. Raises `BackupNotFound`, `BackupRefused`, `DeadlineExceeded`."""
        backups, stop = self._resources.backups, threading.Event()
        async with within(Stage.RESTORE, self._config.deadlines.restore, "opening the snapshot"):
            backup = await in_thread(backups.get, code, backup_id, self._origin)
            await in_thread(backups.read, stop, backup.path, code, stop=stop)
        return backup

    async def restore(
        self, code: ClientCode, backup_id: str, *, wait: Wait = Wait.QR, timeout_s: float | None = None
    ) -> SessionView:
        """Put a snapshot in the place of the client's profile, which is retired, and connect with it.

        A snapshot that cannot be used, or that there is no room for, changes nothing. Raises like `check_backup` and `connect`.
        """
        backup = await self._restorable(code, backup_id)
        session = self._wanted(code)
        async with self._admitted(session):
            await session.ask(events.RestoreAsked(backup.id))
        try:
            return await self._wait(session, wait, timeout_s)
        finally:
            self._tidy_due.set()

    async def bring(
        self, code: ClientCode, archive: AsyncIterator[bytes], *, keep: bool, wanted: str = ""
    ) -> BackupView:
        """Make a snapshot of the login in an archive, for `restore`; without ``keep`` it is only tried. ``wanted``: which
        one, if there are several.

        Raises like `Keeper.bring`.
        """
        if self._closing:
            raise ShuttingDown("The daemon is shutting down.")
        return backup_view(await self.keeper.bring(code, archive, wanted, keep=keep))

    @asynccontextmanager
    async def backup_stream(
        self, code: ClientCode, backup_id: str, *, plain: bool
    ) -> AsyncIterator[IO[bytes]]:
        """A snapshot's file, or the tar.zst that is in it; each read blocks.

        Raises `BackupNotFound`, `BackupRefused`, also while it is read.
        """
        backup = await in_thread(self._resources.backups.get, code, backup_id, self._origin)
        if plain:
            await self._opened(code, backup_id)  # what is given out must not turn out to be torn half-way
        file = await in_thread(self._resources.backups.open, backup, plain)
        try:
            yield file
        finally:
            await in_thread(file.close)

    # --- looking --------------------------------------------------------------------------------------

    def alerts(self) -> Sequence[Raised]:
        """What somebody should know now."""
        return self._services.gate.alerts.raised()

    def sandbox(self) -> SandboxView:
        return SandboxView(self._resources.sandbox.kind, self._resources.sandbox.problem)

    def statuses(self) -> Sequence[Status]:
        """Of all sessions."""
        return [summary_of(one.state) for one in self._sessions.values()]

    def views(self) -> Sequence[SessionView]:
        return [self.view(code) for code in sorted(self._sessions)]

    def view(self, code: ClientCode) -> SessionView:
        """Raises `SessionNotFound`."""
        return session_view(self._known(code), self._resources.sandbox.kind)

    def qr(self, code: ClientCode) -> QrView:
        """The QR code on the page now. Raises `NoQrCode`, `SessionNotFound`."""
        session = self._known(code)
        found = qr_view(session)
        if found is None:
            status = summary_of(session.state)
            hint = {
                Status.CONNECTED: "It is connected: no scan is needed.",
                Status.STOPPED: f"Start it: waguard connect {code}",
                Status.FAILED: f"See why: waguard status {code}",
                Status.LOGGED_OUT: f"A new code comes by itself; if not: waguard restart {code}",
            }.get(status, "Ask again in a moment.")
            raise NoQrCode(f"{code} shows no QR code: it is {status}.", hint=hint, status=status.value)
        return found

    async def screenshot(self, code: ClientCode) -> bytes:
        """A PNG of the page. Raises `NoPage`, `PageFailed`, `DeadlineExceeded`, `SessionNotFound`."""
        return await self._known(code).screenshot()

    # --- who and whether ------------------------------------------------------------------------------

    def _known(self, code: ClientCode) -> Session:
        self._check_read(code)
        if code not in self._sessions:
            self._check_open()  # till then it may not have been read yet
            raise self._unknown(code)
        return self._sessions[code]

    def _unknown(self, code: ClientCode) -> SessionNotFound:
        return SessionNotFound(f"There is no session {code!r}.", hint=f"Start one: waguard connect {code}")

    def close_to(self, code: str) -> Sequence[str]:
        """The codes that somebody may have meant who has written this one."""
        return difflib.get_close_matches(code, self._sessions, n=3, cutoff=0.7)

    def _wanted(self, code: ClientCode) -> Session:
        """The code's session, made if there is none."""
        self._check_open()
        self._check_read(code)
        if code not in self._sessions:
            self._add(code, Record())
        return self._sessions[code]

    def _check_read(self, code: ClientCode) -> None:
        if code in self._unread:
            raise RecordUnavailable(self._unread[code], hint=_READ_LATER)

    def _check_open(self) -> None:
        if self._closing:
            raise ShuttingDown("The daemon is shutting down.")
        if not self.ready:
            raise NotReady("The daemon is still dealing with what an earlier one left.", retry_after_s=1)

    def _tell_refused(self, code: ClientCode, error: WaguardError) -> None:
        """A connect that the host refuses is no attempt, and no success either."""
        self._resources.bus.publish("connect.refused", client=code, code=error.code, error=error.message)

    async def refusals(self) -> Sequence[str]:
        """Why no connect at all is taken now, by code; empty if they are. Memory is another matter: who is up stays up, and who finds
        none is told.
        """
        if not self.ready:
            return ["shutting_down" if self._closing else "not_ready"]
        await self._look_at_disk()
        return [one.alert for one in self._services.gate.alerts.raised() if one.alert in _REFUSING]

    async def _look_at_disk(self) -> None:
        lack = await in_thread(self._disk_lack, None)
        self._services.gate.alerts.set(Alert.DISK_FULL, lack)

    async def _keep_looking_at_disk(self) -> None:
        while True:
            await self._look_at_disk()
            await asyncio.sleep(_DISK_EVERY_S)

    @asynccontextmanager
    async def _admitted(self, session: Session) -> AsyncIterator[None]:
        """Refuse one more browser that this machine has no room for, before anything is touched.

        Whoever is let in counts from here, so that callers at the same time do not all get the last place.
        """
        if session.state.process not in {Process.DOWN, Process.FAILED, Process.BACKOFF}:
            yield
            return
        self._admitting[session] += 1
        try:
            try:
                await self._admit(session)
            except WaguardError as error:
                self._tell_refused(session.code, error)
                raise
            yield
        finally:
            self._admitting[session] -= 1
            self._forget(session)

    async def _admit(self, session: Session) -> None:
        limits = self._config.limits
        others = [other for other in self._sessions.values() if other is not session]
        coming = sum(self._coming(other) for other in others)
        running = sum(
            other.state.process not in {Process.DOWN, Process.FAILED} or self._coming(other)
            for other in others
        )
        if running >= limits.max_sessions:
            raise NoMemory(
                f"As many sessions are up as limits.max_sessions allows: {running}.",
                hint="Disconnect one, or raise limits.max_sessions.",
                retry_after_s=60,
            )
        # Browsers on their way up have not taken their memory yet: count what they will take.
        needed = limits.reserve_memory_mb + limits.session_memory_mb * (coming + 1)
        free = await in_thread(host.available_memory_mb)
        if free < needed:
            raise NoMemory(
                f"{free} MiB of memory are free, and one more session needs {needed} MiB.",
                hint="Disconnect a session, or lower limits.session_memory_mb or limits.reserve_memory_mb.",
                retry_after_s=60,
            )
        await self._look_at_pressure()
        await self._find_room()

    async def _look_at_pressure(self) -> None:
        """Free memory says little of a machine that gets it by throwing out what is needed at once. Raises `NoMemory`."""
        limit, cgroups = self._config.limits.memory_pressure, self._resources.cgroups
        if not limit:
            return
        ours = [cgroups.memory_pressure] if cgroups is not None else []
        stalled = await in_thread(host.stalled, host.MEMORY_PRESSURE, *ours)
        if stalled is not None and stalled > limit:
            raise NoMemory(
                f"For {stalled:g} % of the last ten seconds nothing got on for want of memory; limits.memory_pressure is {limit:g}.",
                hint="It is tried again by itself where it was wanted. Disconnect a session, or add memory.",
                retry_after_s=15,
            )

    async def _find_room(self, restoring: About | None = None) -> None:
        """See that there is disk, if need be where retired profiles are. Raises `DiskFull`."""
        if await in_thread(self._disk_lack, restoring):
            await self.sweeper.make_room(lambda: not self._disk_lack(restoring))
            if lack := await in_thread(self._disk_lack, restoring):
                raise DiskFull(lack, hint="Free some space. Sessions that are up go on.")

    def _disk_lack(self, restoring: About | None) -> str:
        """What is missing on the disk for one more session, or for a snapshot to be laid out; empty if nothing. Blocking."""
        root, reserve = self._config.sessions.dir, self._config.limits.reserve_disk_mb
        disk, inodes = host.free_disk_mb(root), host.free_inodes(root)
        needed = math.ceil(restoring.bytes / host.MB) if restoring is not None else 0
        if disk < reserve + needed:
            besides = f" and the snapshot's {needed} MiB" if needed else ""
            return f"{disk} MiB of disk are free below {root}, less than limits.reserve_disk_mb = {reserve}{besides}."
        files = _INODES + (restoring.files if restoring is not None else 0)
        if inodes is not None and inodes < files and (reserve or restoring is not None):
            return f"Only {inodes} more files can be made below {root}; a session needs {files}."
        return ""

    def _forget(self, session: Session) -> None:
        """A session that was only asked about leaves nothing: no attempt was made, and nothing is on disk."""
        if session.untouched and not self._admitting[session] and self._sessions.get(session.code) is session:
            del self._sessions[session.code], self._admitting[session]
            ending = self._tasks.pop(session.code)
            ending.add_done_callback(self._tell_ended)
            ending.cancel()

    def _coming(self, session: Session) -> bool:
        """On its way up."""
        return self._admitting[session] > 0 or session.state.process in _ON_ITS_WAY

    async def _wait(self, session: Session, wait: Wait, timeout_s: float | None) -> SessionView:
        deadlines = self._config.deadlines
        limit = timeout_s
        if limit is None:
            limit = deadlines.restore if session.state.source or session.login.distrust else 0.0
            limit += deadlines.close + deadlines.kill + deadlines.admit
            limit += sum(self.learned.limit_s(session.code, one) for one in (Stage.PREPARE, Stage.START))
            limit += LONGER * self.learned.limit_s(
                session.code, Stage.OPEN
            )  # a page that does not get on is told sooner
            limit += deadlines.scan if wait is Wait.CONNECTED else 0.0

        asked_at = time.monotonic()

        def look() -> Failure | bool:
            return answer(session.state, wait, has_qr=session.seen.qr is not None, asked_at=asked_at)

        try:
            while look() is False:
                if (
                    timeout_s is None
                ):  # its turn comes as long as the queue moves, and if not it says so itself
                    await session.until(lambda: session.start.before is None)
                async with asyncio.timeout(limit):
                    await session.until(
                        lambda: (
                            look() is not False or (timeout_s is None and session.start.before is not None)
                        )
                    )
        except TimeoutError:
            if session.state.link is Link.SYNCING:
                return self.view(session.code)  # logged in and on its way: no failure
            if session.start.before is not None:
                raise self._queued(session, limit) from None
            stage = _stage(session.state)
            raise DeadlineExceeded(
                f"{session.code} is {summary_of(session.state)} after {limit:g} s; the stage {stage} was not done.",
                hint="It goes on in the background. See: waguard status " + session.code,
                stage=stage,
                deadline_s=limit,
            ) from None
        outcome = look()
        if isinstance(outcome, Failure):
            error = self._outcome(session, outcome)
            if isinstance(error, BreakerOpen):
                self._tell_refused(session.code, error)
            raise error
        return self.view(session.code)

    def _queued(self, session: Session, limit: float) -> DeadlineExceeded:
        about = f", about {session.start.queued_s:g} s" if session.start.queued_s is not None else ""
        return DeadlineExceeded(
            f"{session.code} waits for its turn to start after {limit:g} s: {session.start.before} wait before it{about}.",
            hint=f"It goes on in the background. See: waguard status {session.code}",
            stage=Stage.ADMIT.value,
            deadline_s=limit,
            before=session.start.before,
            queued_s=session.start.queued_s,
        )

    def _outcome(self, session: Session, failure: Failure) -> WaguardError:
        error, process = _error(failure), session.state.process
        if process in {Process.FAILED, Process.BACKOFF}:  # what the failure said of it was so when it came
            error.details = {key: value for key, value in error.details.items() if key != "retry_after_s"}
            if (at := session.next_try) is not None:
                retry_s = max(1, math.ceil(at - time.monotonic()))
                error.details = {**error.details, "retry_after_s": retry_s}
        if process is Process.FAILED and failure.code != "not_proved_gone":
            return SessionFailed(
                f"{session.code} used up its restart budget. Last: {failure.message}",
                hint=failure.hint,
                **{**error.details, "cause": failure.code},
            )
        if process is Process.BACKOFF:
            error.hint = f"{error.hint} It is tried again by itself.".strip()
        return error


def _stage(state: State) -> str:
    """The named wait that a session is in."""
    match state.process:
        case Process.PREPARING:
            return Stage.PREPARE.value
        case Process.STARTING:
            return Stage.START.value
        case Process.STOPPING:
            return Stage.KILL.value
        case _:
            return "scan" if state.link is Link.AWAITING_SCAN else Stage.OPEN.value


def _error(failure: Failure) -> WaguardError:
    """A failure that went through the table, as the error it was."""
    details: dict[str, Any] = dict(failure.details)
    if failure.stage is not None:
        details.setdefault("stage", failure.stage.value)
    return BY_CODE.get(failure.code, WaguardError)(failure.message, hint=failure.hint, **details)
