"""Logins that somebody brings: what an archive holds of one becomes a snapshot, checked like any profile."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from waguard.core.model import ClientCode, Stage, Verdict
from waguard.errors import DiskFull, SnapshotFailed, SnapshotRefused
from waguard.profile import examiners, identity, login_files
from waguard.profile.examiners import Report
from waguard.profile.examiners.subject import Subject
from waguard.profile.generation import new_generation
from waguard.session.resources import Resources
from waguard.snapshots import bring
from waguard.snapshots.packing import About
from waguard.snapshots.store import Snapshot
from waguard.system import heap, host
from waguard.system.deadline import within
from waguard.system.files import as_storage_error, bytes_below
from waguard.system.host import MB
from waguard.system.threads import Kind, in_thread, working_for
from waguard.upkeep.making import sealed, staged
from waguard.upkeep.twins import Twins


class Imports:
    def __init__(self, resources: Resources, twins: Twins) -> None:
        self._config = resources.config
        self._profiles = resources.profiles
        self._snapshots = resources.snapshots
        self._installed = resources.installed
        self._bus = resources.bus
        self._twins = twins
        self._origin = login_files.origin_of(resources.config.whatsapp.url)
        self._places = asyncio.Semaphore(1)
        """Not those of snapshots: what somebody sends may take long, and keeps nobody's snapshot waiting."""
        self._under_way: set[ClientCode] = set()

    async def bring(
        self, code: ClientCode, archive: AsyncIterator[bytes], wanted: str = "", *, keep: bool = True
    ) -> Snapshot:
        """Make what an archive holds of a login a snapshot of this client's, checked like any profile; nobody uses it yet.
        Without ``keep`` all of that is tried, and nothing is left of it.

        ``wanted``: which one, if there are several. Raises `SnapshotRefused` with what is wrong with it,
        `LoginInUse` if another client has it, and like `take`.
        """
        if code in self._under_way:
            raise SnapshotFailed(f"Another import of {code} is under way.", hint="Wait for its end.")
        self._under_way.add(code)
        try:
            with working_for(code):
                async with within(Stage.SNAPSHOT, self._config.deadlines.snapshot, "the import"):
                    snapshot = await self._bring(code, archive, wanted, keep=keep)
        finally:
            self._under_way.discard(code)
            await in_thread(heap.give_back, kind=Kind.MACHINE)  # it touches no disk
        if keep:
            self._bus.publish(
                "snapshot.taken", client=code, snapshot=snapshot.id, reason="import", bytes=snapshot.size
            )
        return snapshot

    async def _bring(
        self, code: ClientCode, archive: AsyncIterator[bytes], wanted: str, *, keep: bool
    ) -> Snapshot:
        stop = threading.Event()
        about = About(
            code,
            new_generation(),
            "import",
            time.time(),
            self._installed.current.version,
            self._origin,
            live=False,
            login=True,
        )
        async with staged(self._profiles, code) as room, self._spooled(code, archive) as spool, self._places:
            lay_out = partial(
                bring.lay_out,
                stop,
                spool,
                self._snapshots.keyring,
                code,
                room,
                self._origin,
                self._config.snapshots.max_import_mb * MB,
                wanted=wanted,
                see_room=partial(self._see_room, room),
            )
            with as_storage_error("lay out the archive"):
                await in_thread(lay_out, stop=stop, kind=Kind.COPIES)
            report = await in_thread(self._look, room, kind=Kind.COPIES)
            if report.verdict is Verdict.DAMAGED:
                raise SnapshotRefused(f"What is in it is damaged: {report.why}", reason="damaged")
            names = await in_thread(identity.read, room, self._origin)
            await self._twins.refuse(code, None, names or ())
            await in_thread(lambda: self._see_room(self._profiles.root, bytes_below(room)), kind=Kind.COPIES)
            if keep:
                return await sealed(self._snapshots, room, about)
            return await in_thread(
                self._snapshots.tried,
                stop,
                room,
                spool.with_name("tried"),
                about,
                stop=stop,
                kind=Kind.COPIES,
            )

    @asynccontextmanager
    async def _spooled(self, code: ClientCode, archive: AsyncIterator[bytes]) -> AsyncIterator[Path]:
        """What arrives, as a file; what is read of it must fit as often as it is laid out."""
        most, size = 2 * self._config.snapshots.max_import_mb * MB, 0
        async with staged(self._profiles, code) as room:
            path = room / "archive"
            with as_storage_error(f"write {path}"):
                file = await in_thread(path.open, "wb")
                try:
                    async for piece in archive:
                        if (size := size + len(piece)) > most:
                            raise SnapshotRefused(
                                f"The archive has more than {most // MB} MiB.",
                                hint="Raise snapshots.max_import_mb, or bring only the login's part.",
                                reason="too_large",
                            )
                        await in_thread(self._put, room, file, piece, kind=Kind.COPIES)
                finally:
                    await in_thread(file.close)
            yield path

    def _put(self, room: Path, file: BinaryIO, piece: bytes) -> None:
        self._see_room(room)
        file.write(piece)

    def _see_room(self, place: Path, needed_bytes: int = 0) -> None:
        """What somebody sends never takes what the sessions that are there need. Raises `DiskFull`."""
        free, reserve = host.free_disk_mb(place), self._config.limits.reserve_disk_mb
        if free < reserve + needed_bytes / MB:
            raise DiskFull(
                f"{free} MiB of disk are free, and limits.reserve_disk_mb = {reserve} stay so.",
                hint="Free some space, or bring only the login's part.",
            )

    def _look(self, room: Path) -> Report:
        subject = Subject(room, self._installed.current.version, self._origin, os.geteuid())
        return examiners.examine(subject)
