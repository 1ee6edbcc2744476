"""All sessions of a daemon: one per client code, who is admitted, who waits for what, and what is shown of them."""

import asyncio
import difflib
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import IO

from waguard.config.clients import ClientSettings
from waguard.core.actor import who_acts
from waguard.core.condition import Condition
from waguard.core.model import ClientCode, Process, Stage, Status, Wait
from waguard.core.session import events
from waguard.core.session.state import summary_of
from waguard.core.shown import (
    CleanupView,
    PairingView,
    QrView,
    Raised,
    SandboxView,
    SessionView,
    SnapshotView,
    Sweep,
    UndoView,
)
from waguard.core.shown_settings import SettingsView
from waguard.errors import (
    BreakerOpen,
    NoQrCode,
    NotReady,
    RecordUnavailable,
    SessionNotFound,
    ShuttingDown,
    SnapshotRefused,
)
from waguard.profile import login_files
from waguard.relay.client import Client, End
from waguard.schedule.rule import Rule
from waguard.schedule.runner import Schedule
from waguard.session.registry import Record
from waguard.session.resources import Services
from waguard.session.sessions import Sessions
from waguard.session.task import Session
from waguard.session.transfer import Transfer
from waguard.session.values import Values
from waguard.snapshots.store import Snapshot
from waguard.supervisor.answering import Answering, error_of
from waguard.supervisor.startup import READ_LATER, Startup
from waguard.supervisor.views import qr_view, session_view, settings_view, snapshot_view, undo_view
from waguard.system.deadline import within
from waguard.system.tasks import background
from waguard.system.threads import Kind, in_thread, of_this_loop, working_for
from waguard.upkeep.imports import Imports
from waguard.upkeep.keeper import Keeper
from waguard.upkeep.sweep.sweeper import Sweeper
from waguard.upkeep.tidying import Tidying
from waguard.upkeep.twins import Twins
from waguard.whatsapp.page import PAIRING_S

REAP, SNAPSHOT = "reap", "snapshot"
"""The jobs of the schedule."""


class Supervisor:
    def __init__(self, services: Services, sessions: Sessions, keeper: Keeper, sweeper: Sweeper) -> None:
        self._services = services
        self._resources = services.resources
        self._config = services.resources.config
        self._gate = services.gate
        self._sessions = sessions
        self.history, self.learned = services.history, services.learned
        self.settings = services.resources.settings
        self.keeper, self.sweeper = keeper, sweeper
        self._twins = Twins(self._resources)
        self._imports = Imports(self._resources, self._twins)
        self._tidying = Tidying(sweeper, self._resources.bus)
        self._startup = Startup(services, sessions)
        self._answering = Answering(self._config.deadlines, self.learned)
        self._origin = login_files.origin_of(self._config.whatsapp.url)
        self.schedule = Schedule(
            self._config.sessions.dir / ".schedule.json",
            self._config.schedule.jitter_s,
            self._resources.bus.publish,
        )
        self._own: Sequence[asyncio.Task[None]] = ()
        self._closing = False
        self.ready = False

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what an earlier daemon left, and begin what is done again and again. No connect before."""
        await self._startup.take_over()
        await self._tidying.first()
        publish = self._resources.bus.publish
        self._resources.bus.subscribe(self.keeper.heard)
        self.keeper.begin()
        self.schedule.add(REAP, Rule.parse(self._config.schedule.reap), self._reap)
        self.schedule.add(SNAPSHOT, Rule.parse(self._config.schedule.snapshot), self.keeper.take_all)
        await self.schedule.start()
        self._own = (
            self._tidying.begin(),
            background(self._startup.bring_back, "return", publish),
            background(self._gate.keep_looking_at_disk, "disk", publish, again=True),
        )
        self.ready = True

    async def _reap(self) -> None:
        await self.sweeper.sweep()

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
        of_this_loop().ending = True
        await self._startup.close()
        await self.schedule.close()
        await self.keeper.close()
        for task in self._own:
            task.cancel()
        await self._sessions.close()
        if self._own:
            await asyncio.wait(self._own)

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
            return await self._answer(session, wait, timeout_s)
        finally:
            if fresh:
                self._tidying.due()

    async def restart(
        self, code: ClientCode, *, wait: Wait = Wait.QR, timeout_s: float | None = None
    ) -> SessionView:
        """Close the browser and start it again on the same profile. Raises like `connect`, and `SessionNotFound`."""
        self._check_open()
        session = self._known(code)
        async with self._admitted(session):
            await session.ask(events.RestartAsked())
        return await self._answer(session, wait, timeout_s)

    async def disconnect(self, code: ClientCode) -> SessionView:
        """Close the browser, keep the profile; returns when it is proved gone. Raises like `Session.down`."""
        session = self._known(code)
        await session.down()
        if session.state.failure is not None and session.state.process is Process.FAILED:
            raise error_of(session.state.failure)
        return self.view(code)

    async def cleanup(self, code: ClientCode) -> CleanupView:
        """Everything of this client gone, its profile retired; never fails as a whole, each step says how it went.

        Raises `SessionNotFound` where there is nothing that could be of this client, and so its code is probably wrong.
        """
        began = time.monotonic()
        self._check_open()
        with working_for(code):
            if code not in self._sessions and not await in_thread(self._has_traces, code):
                raise self._unknown(code)
        session = self._wanted(code)
        try:
            steps = await session.cleanup()
        finally:
            self._forget(session)
        self._tidying.due()
        return CleanupView(
            client=code,
            ok=all(step.outcome != "failed" for step in steps),
            steps=steps,
            ms=round((time.monotonic() - began) * 1000, 1),
        )

    def _has_traces(self, code: ClientCode) -> bool:
        """Whether anything on disk is of this client. Blocking."""
        return (self._config.sessions.dir / code).exists() or bool(self._resources.snapshots.of(code))

    async def reap(self, *, dry_run: bool) -> Sweep:
        """Find and remove what browsers, crashes and time have left behind. Raises like `Sweeper.sweep`, and `NotReady`."""
        self._check_open()
        return await self.sweeper.sweep(dry_run=dry_run)

    # --- snapshots ------------------------------------------------------------------------------------

    async def snapshots(self, code: ClientCode) -> Sequence[SnapshotView]:
        """The client's snapshots, the newest first, also of one that has no session any more. Raises `StorageFailed`."""
        return [snapshot_view(one) for one in await self.keeper.list(code)]

    async def snapshot(self, code: ClientCode) -> SnapshotView:
        """Take a snapshot now. Raises like `Keeper.take`, and `SessionNotFound`."""
        return snapshot_view(await self.keeper.take(self._known(code), "request"))

    async def check_snapshot(self, code: ClientCode, snapshot_id: str) -> SnapshotView:
        """What `restore` would refuse it for.

        Raises `SnapshotNotFound`, `SnapshotRefused`, `LoginInUse`, `DiskFull`, `DeadlineExceeded`.
        """
        return snapshot_view(await self._restorable(code, snapshot_id))

    async def _restorable(self, code: ClientCode, snapshot_id: str) -> Snapshot:
        snapshot = await self._opened(code, snapshot_id)
        await self._twins.refuse(code, snapshot.about)
        if snapshot.about is not None and snapshot.about.origin != self._origin:
            here, there = map(login_files.address_of, (self._origin, snapshot.about.origin))
            raise SnapshotRefused(
                f"It has a login of {there}, and whatsapp.url is of {here}.", reason="other_origin"
            )
        if (about := snapshot.about) is not None:
            await self._gate.room.find_disk(about.bytes, about.files)
        return snapshot

    async def _opened(self, code: ClientCode, snapshot_id: str) -> Snapshot:
        """Open a snapshot from beginning to end. Raises `SnapshotNotFound`, `SnapshotRefused`, `DeadlineExceeded`."""
        snapshots, stop = self._resources.snapshots, threading.Event()
        seconds = self._config.deadlines.restore
        with working_for(code):
            async with within(Stage.RESTORE, seconds, "opening the snapshot"):
                snapshot = await in_thread(snapshots.get, code, snapshot_id, self._origin)
                await in_thread(snapshots.read, stop, snapshot.path, code, stop=stop, kind=Kind.COPIES)
        return snapshot

    async def restore(
        self, code: ClientCode, snapshot_id: str, *, wait: Wait = Wait.QR, timeout_s: float | None = None
    ) -> SessionView:
        """Put a snapshot in the place of the client's profile, which is retired, and connect with it.

        A snapshot that cannot be used, or that there is no room for, changes nothing. Raises like `check_snapshot` and `connect`.
        """
        snapshot = await self._restorable(code, snapshot_id)
        session = self._wanted(code)
        async with self._admitted(session):
            await session.ask(events.RestoreAsked(snapshot.id))
        try:
            return await self._answer(session, wait, timeout_s)
        finally:
            self._tidying.due()

    async def check_undo(self, code: ClientCode) -> UndoView:
        """What `undo` would take back, and what it would bring back.

        Raises `SessionNotFound`, `UndoRefused`, `ProfileTooNew`, `LoginInUse`, `DeadlineExceeded`.
        """
        with self._at(code) as session:
            async with within(Stage.RESTORE, self._config.deadlines.restore, "looking at what was put aside"):
                plan = await session.acts.plan()
                await self._twins.refuse(code, None, plan.names)
        return undo_view(code, plan)

    async def undo(
        self, code: ClientCode, *, wait: Wait = Wait.QR, timeout_s: float | None = None
    ) -> SessionView:
        """Have back what the last cleanup, fresh, restore or import has put aside, and connect with it; what is there is put aside.

        What cannot be taken back changes nothing. Raises like `check_undo` and `connect`.
        """
        view = await self.check_undo(code)
        session = self._known(code)
        async with self._admitted(session):
            await session.ask(events.RestoreAsked(retired=view.generation))
        try:
            return await self._answer(session, wait, timeout_s)
        finally:
            self._tidying.due()

    async def bring(
        self, code: ClientCode, archive: AsyncIterator[bytes], *, keep: bool, wanted: str = ""
    ) -> SnapshotView:
        """Make a snapshot of the login in an archive, for `restore`; without ``keep`` it is only tried. ``wanted``: which
        one, if there are several.

        Raises like `Imports.bring`.
        """
        if self._closing:
            raise ShuttingDown("The daemon is shutting down.")
        return snapshot_view(await self._imports.bring(code, archive, wanted, keep=keep))

    @asynccontextmanager
    async def snapshot_stream(
        self, code: ClientCode, snapshot_id: str, *, plain: bool
    ) -> AsyncIterator[IO[bytes]]:
        """A snapshot's file, or the tar.zst that is in it; each read blocks.

        Raises `SnapshotNotFound`, `SnapshotRefused`, also while it is read.
        """
        with working_for(code):
            snapshot = await in_thread(self._resources.snapshots.get, code, snapshot_id, self._origin)
            if plain:
                # What is given out must not turn out to be torn half-way.
                await self._opened(code, snapshot_id)
            file = await in_thread(self._resources.snapshots.open, snapshot, plain)
            try:
                yield file
            finally:
                await in_thread(file.close)

    # --- looking --------------------------------------------------------------------------------------

    def alerts(self) -> Sequence[Raised]:
        """What somebody should know now."""
        return self._gate.alerts.raised()

    def sandbox(self) -> SandboxView:
        return SandboxView(self._resources.sandbox.kind, self._resources.sandbox.problem)

    def statuses(self) -> Sequence[Status]:
        """Of all sessions."""
        return [summary_of(one.state) for one in self._sessions.values()]

    def views(self) -> Sequence[SessionView]:
        known = self._sessions.keys() - self._sessions.unread.keys()  # else it is being taken over just now
        return [self.view(code) for code in sorted(known)]

    def view(self, code: ClientCode) -> SessionView:
        """Raises `SessionNotFound`."""
        return session_view(self._known(code), self._resources.sandbox.kind, self.settings.labels_of(code))

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
                Status.LOGGED_OUT: f"A new code appears automatically; if not: waguard restart {code}",
            }.get(status, "Ask again in a moment.")
            raise NoQrCode(f"{code} shows no QR code: it is {status}.", hint=hint, status=status.value)
        return found

    async def pairing_code(self, code: ClientCode, phone: str) -> PairingView:
        """A code by which the phone with this number links itself. Raises like `Session.pairing_code`, and `SessionNotFound`."""
        found = await self._known(code).pairing_code(phone)
        return PairingView(found, round(time.time() + PAIRING_S, 3))

    async def screenshot(self, code: ClientCode) -> bytes:
        """A PNG of the page. Raises `NoPage`, `PageFailed`, `DeadlineExceeded`, `SessionNotFound`."""
        return await self._known(code).screenshot()

    # --- settings -------------------------------------------------------------------------------------

    def settings_view(self, code: ClientCode) -> SettingsView:
        """What holds for a client, whether there is a session or not. Raises `StorageFailed`, `NotReady`."""
        self._check_open()
        return settings_view(code, self.settings, self._sessions.get(code))

    async def put_settings(
        self, code: ClientCode, wanted: ClientSettings, condition: Condition, *, restart: bool
    ) -> tuple[SettingsView, str]:
        """Have these in the place of what was put before; returns their ETag too. ``restart``: with a new browser, if the one that runs has others.

        Raises like `Settings.put`, and then like `restart`.
        """
        self._check_open()
        made = await self.settings.put(code, wanted, condition)
        if (session := self._sessions.get(code)) is not None:
            await session.way_out.renew()
        view = self.settings_view(code)
        if not (restart and view.needs_restart):
            return view, made.etag
        await self.restart(code, wait=Wait.NONE)
        return replace(view, restarted=True), made.etag

    # --- driving --------------------------------------------------------------------------------------

    async def attach(self, code: ClientCode, *, takes_over: bool, follows: bool) -> Client:
        """Let whoever acts drive the session's page. Raises like `Driving.attach`, and `SessionNotFound`."""
        actor = who_acts()
        assert actor is not None  # noqa: S101 (the edge says who)
        self._check_open()
        return await self._known(code).driving.attach(actor, takes_over=takes_over, follows=follows)

    async def stay(self, code: ClientCode, client: Client) -> End:
        """See `Driving.stay`; raises `SessionNotFound` too."""
        return await self._known(code).driving.stay(client)

    async def browser_version(self, code: ClientCode) -> Mapping[str, str]:
        """See `Driving.browser_version`; raises `SessionNotFound` too."""
        return await self._known(code).driving.browser_version()

    async def page_target(self, code: ClientCode) -> tuple[str, str]:
        """See `Driving.page_target`; raises `SessionNotFound` too."""
        return await self._known(code).driving.page_target()

    @contextmanager
    def transfer(self, code: ClientCode) -> Iterator[Transfer]:
        """The files that pass between the session's browser and its client. Raises `SessionNotFound`."""
        with self._at(code) as session:
            yield session.transfer

    @contextmanager
    def values(self, code: ClientCode) -> Iterator[Values]:
        """What apps keep with the session. Raises `SessionNotFound`."""
        with self._at(code) as session:
            yield session.values

    @contextmanager
    def _at(self, code: ClientCode) -> Iterator[Session]:
        self._check_open()
        session = self._known(code)
        with working_for(code):
            yield session

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
            self._sessions.add(code, Record(), self._services)
        return self._sessions[code]

    def _check_read(self, code: ClientCode) -> None:
        if code in self._sessions.unread:
            raise RecordUnavailable(self._sessions.unread[code], hint=READ_LATER)

    def _check_open(self) -> None:
        if self._closing:
            raise ShuttingDown("The daemon is shutting down.")
        if not self.ready:
            raise NotReady("The daemon is still cleaning up after an earlier one.", retry_after_s=1)

    async def refusals(self) -> Sequence[str]:
        """Why no connect at all is taken now, by code; empty if they are. Memory is another matter: who is up stays up, and who finds
        none is told.
        """
        if not self.ready:
            return ["shutting_down" if self._closing else "not_ready"]
        return await self._gate.refusals()

    @asynccontextmanager
    async def _admitted(self, session: Session) -> AsyncIterator[None]:
        """Refuse one more browser that this machine has no room for, before anything is touched."""
        if session.state.process not in {Process.DOWN, Process.FAILED, Process.BACKOFF}:
            yield
            return
        try:
            async with self._gate.entering(session.code):
                yield
        finally:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        """A session that was only asked about leaves nothing: no attempt was made, and nothing is on disk."""
        asked = self._gate.room.counts(session.code)
        if session.untouched and not asked and self._sessions.get(session.code) is session:
            self._sessions.drop(session)

    async def _answer(self, session: Session, wait: Wait, timeout_s: float | None) -> SessionView:
        try:
            await self._answering.wait(session, wait, timeout_s)
        except BreakerOpen as error:
            self._gate.refused(session.code, error)
            raise
        return self.view(session.code)
