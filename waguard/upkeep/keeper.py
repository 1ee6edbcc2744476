"""Keeps logins: when a snapshot is taken, which ones stay, and what is done before a retired profile may go."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

from waguard.core import retention
from waguard.core.login.events import SnapshotTaken
from waguard.core.model import ClientCode, Link, Process, Stage
from waguard.errors import SnapshotFailed, StorageFailed
from waguard.observe.bus import Event
from waguard.profile import login_files
from waguard.profile.generation import DAMAGED, DROPPED, REPLACED, Place, Retired
from waguard.session.resources import Resources
from waguard.session.task import Session
from waguard.snapshots.packing import About
from waguard.snapshots.store import Snapshot, when
from waguard.system import shortage
from waguard.system.deadline import within
from waguard.system.tasks import background
from waguard.system.threads import Kind, in_thread, working_for
from waguard.upkeep.making import sealed, staged

_AT_A_TIME = 2
"""Snapshots that are made at the same time: each keeps a core busy."""


class Keeper:
    def __init__(self, resources: Resources, sessions: Mapping[ClientCode, Session]) -> None:
        self._resources = resources
        self._profiles = resources.profiles
        self._snapshots = resources.snapshots
        self._config = resources.config.snapshots
        self._settings = resources.settings
        self._sessions = sessions
        self._origin = login_files.origin_of(resources.config.whatsapp.url)
        self._places = asyncio.Semaphore(_AT_A_TIME)
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        """Of snapshots that nobody waits for: however many are due at once, no deadline runs before it is their turn."""
        self._settling: dict[ClientCode, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def close(self) -> None:
        """Call off what nobody waits for; sessions that change from here on begin nothing."""
        self._closed = True
        tasks = [*self._settling.values(), *self._ending]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- when -------------------------------------------------------------------------------------------

    def heard(self, event: Event) -> None:
        """A session that has become connected gets its first snapshot as soon as its login has settled."""
        if event.name == "session.changed" and event.client is not None and event.client in self._sessions:
            self._look_after(self._sessions[event.client])

    def begin(self) -> None:
        """Those that are connected already, by an earlier daemon, may be waiting for theirs."""
        for session in self._sessions.values():
            self._look_after(session)

    def _look_after(self, session: Session) -> None:
        if self._closed:
            return
        task = self._settling.pop(session.code, None)
        if task is not None and not task.done():
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        if session.state.link is Link.CONNECTED and session.state.process is Process.UP:
            self._settling[session.code] = background(
                partial(self._settle, session),
                f"{session.code}:settle",
                self._resources.bus.publish,
                again=True,
            )

    async def _settle(self, session: Session) -> None:
        login, memory = session.login, session.memory
        with working_for(session.code):
            await login.settle(self._config.settle_s)
            while (profile := memory.profile) is not None:
                # After a logout the snapshots of its lineage have another login, which is of no use any more.
                if not login.unsaved and await in_thread(self._has_snapshot, session.code, profile.lineage):
                    return
                if await self._try(session, "settled"):
                    await login.tell(SnapshotTaken())
                    return
                await asyncio.sleep(self._config.settle_s)  # a disk that is full may have space again

    def _has_snapshot(self, code: ClientCode, lineage: str) -> bool:
        return bool(self._snapshots.candidates(code, lineage, self._origin))

    async def take_all(self) -> None:
        """A snapshot of each client that has a login and has used it since the last one. Raises `SnapshotFailed` if any failed."""
        failed = [code for code, session in list(self._sessions.items()) if not await self._take_due(session)]
        if failed:
            raise SnapshotFailed(f"No snapshot could be made of {', '.join(failed)}.")

    async def _take_due(self, session: Session) -> bool:
        if not session.login.held or not self._settings.known_of(session.code).snapshots_scheduled:
            return True
        with working_for(session.code):
            if session.at_rest and await in_thread(self._unchanged, session.code):
                return True
            return await self._try(session, "schedule")

    def _unchanged(self, code: ClientCode) -> bool:
        """No browser has used the profile since its last snapshot."""
        place, profile = self._profiles.find(code)
        if place is not Place.PLAIN or profile is None:
            return True  # what is sealed is a snapshot itself
        newest = next(iter(self._snapshots.candidates(code, profile.lineage, self._origin)), None)
        if newest is None or newest.about is None or not profile.witness.is_file():
            return False
        # One that was taken in the future says nothing of what was used since.
        return profile.witness.stat().st_mtime < newest.about.taken_at <= time.time()

    async def _try(self, session: Session, reason: str) -> bool:
        try:
            async with self._turns:
                await self.take(session, reason)
        except Exception as error:  # noqa: BLE001 (what one client's files do must not cost the others their snapshots)
            known = shortage.known(error)
            if known is None:
                self._resources.bus.bug("snapshot", error, session.code)
            code, why = (known.code, known.message) if known is not None else ("internal", repr(error))
            session.publish("snapshot.failed", reason=reason, code=code, error=why)
            return False
        return True

    # --- how --------------------------------------------------------------------------------------------

    async def take(self, session: Session, reason: str) -> Snapshot:
        """A verified snapshot of a client's login, whether its browser runs or not.

        Raises `SnapshotFailed`, `SnapshotRefused` if the profile is damaged, `DiskFull`, `StorageFailed`, `DeadlineExceeded`.
        """
        with working_for(session.code):
            return await self._take(session, reason)

    async def _take(self, session: Session, reason: str) -> Snapshot:
        began = time.monotonic()
        deadline = self._resources.config.deadlines.snapshot
        async with within(Stage.SNAPSHOT, deadline, "the snapshot"):
            await session.login.settle(self._config.settle_s)
            async with self._places:
                snapshot = await self._make(session, reason)
        session.publish(
            "snapshot.taken",
            snapshot=snapshot.id,
            reason=reason,
            bytes=snapshot.size,
            live=snapshot.about is not None and snapshot.about.live,
            frozen_ms=session.lease.frozen_ms if snapshot.about is not None and snapshot.about.live else None,
            duration_ms=round((time.monotonic() - began) * 1000, 1),
        )
        async with within(Stage.SNAPSHOT, deadline, "deleting the snapshots that no rule keeps"):
            for deleted in await in_thread(self._thin, session.code, snapshot.id, kind=Kind.COPIES):
                session.publish("snapshot.deleted", snapshot=deleted, why="no rule keeps it")
        return snapshot

    async def _make(self, session: Session, reason: str) -> Snapshot:
        place, profile = await in_thread(self._profiles.find, session.code)
        if place is Place.SEALED and profile is not None:
            stop = threading.Event()
            return await in_thread(
                self._snapshots.copy_sealed, stop, session.code, profile.sealed, stop=stop, kind=Kind.COPIES
            )
        async with staged(self._profiles, session.code) as room:
            about = await session.copies.copy(room, reason)
            return await sealed(self._snapshots, room, about)

    def _thin(self, code: ClientCode, made: str) -> Sequence[str]:
        """Delete the snapshots that no rule keeps, and return their ids; the newest one of the login that is in use always stays, and the one
        that was just ``made``: its time may be that of a sealed profile, or of a clock that was put right since.

        Those with a login that WhatsApp takes are counted by themselves, for each page: no number of others pushes one out.
        """
        _, profile = self._profiles.find(code)
        lineage = profile.lineage if profile is not None else ""
        there = {one.id: one for one in self._snapshots.of(code) if one.about is not None}
        try:
            held = self._settings.of(code)
        except StorageFailed:
            return ()  # nobody knows which ones are to stay
        rule = retention.Retention(
            held.snapshots_keep_last,
            held.snapshots_keep_daily,
            held.snapshots_keep_weekly,
            held.snapshots_keep_monthly,
        )
        stay: frozenset[str] = frozenset()
        pages = {one.about.origin for one in there.values() if one.about is not None}
        for origin, usable in product(pages, (True, False)):
            current = next((one.id for one in self._snapshots.candidates(code, lineage, origin)), made)
            taken = {
                name: when(one.about)
                for name, one in there.items()
                if one.about is not None and one.about.origin == origin and one.usable(origin) is usable
            }
            stay |= retention.kept(taken, rule, time.time(), always={made, current})
        deleted = sorted(there.keys() - stay)
        for name in deleted:
            self._snapshots.delete(there[name])
        return deleted

    # --- before a retired profile may go ------------------------------------------------------------------

    async def save(self, retired: Retired) -> tuple[Retired, str]:
        """Make a snapshot of a retired profile, if there is a login in it; returns it as it is called now, and what was done.

        Raises like `take`.
        """
        said = []
        origins = await in_thread(self._worth_saving, retired, kind=Kind.COPIES)
        for origin in origins:
            about = About(
                retired.code,
                retired.generation,
                retired.reason,
                retired.since,
                self._resources.binary.version,
                origin,
                live=False,
                # One that somebody dropped, or that is damaged, is never restored by itself: its lineage has ended, or
                # it would be refused.
                login=retired.reason in DROPPED | REPLACED,
                sequence=retired.sequence,
            )
            deadline = self._resources.config.deadlines.snapshot
            async with within(Stage.SNAPSHOT, deadline, "the snapshot"), self._places:
                snapshot = await sealed(self._snapshots, retired.path, about, counted=False)
            said.append(f"saved as {snapshot.id}")
            self._resources.bus.publish(
                "snapshot.taken",
                client=ClientCode(retired.code),
                snapshot=snapshot.id,
                reason=retired.reason,
                bytes=snapshot.size,
                live=False,
            )
        saved = partial(self._profiles.aside.mark_saved, retired, empty=not origins)
        return await in_thread(saved), ", ".join(said) or "there is no login in it"

    def _worth_saving(self, retired: Retired) -> Sequence[str]:
        """Of which pages there may be a login in it; in one that is damaged whatever is left of it."""
        path = retired.path
        others = {origin for origin in login_files.origins(path) if login_files.has_mark(path, origin)}
        if retired.reason == DAMAGED:
            return [one for one in sorted({self._origin, *others}) if any(login_files.part(path, one))]
        if others and all(
            login_files.lacks_mark(one, self._origin) for one in login_files.databases(path, self._origin)[1:]
        ):
            return sorted(others)  # on this page there was only a code to scan
        return [one for one in sorted({self._origin, *others}) if login_files.holds_login(path, one)]

    async def list(self, code: ClientCode) -> Sequence[Snapshot]:
        with working_for(code):
            return await in_thread(self._snapshots.of, code)
