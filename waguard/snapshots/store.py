"""Where snapshots are kept: ``sessions/.backups/<code>/<time>-<word>.wgb``. Blocking: call from a thread.

The id is the file's name without its ending. One whose login WhatsApp has refused is called ``<id>.refused.wgb``.
"""

import dataclasses
import re
import secrets
import sys
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from waguard.core import retention
from waguard.core.model import ClientCode
from waguard.core.retention import Taken
from waguard.core.shown import NEWEST
from waguard.errors import SnapshotFailed, SnapshotNotFound, SnapshotRefused
from waguard.profile import identity, login_files
from waguard.profile.generation import PUT_ASIDE, lineage_of
from waguard.sandbox import User
from waguard.snapshots import packing
from waguard.snapshots.keys import BACK, Keyring
from waguard.snapshots.packing import About
from waguard.snapshots.seal import Opener
from waguard.system.files import Below, as_storage_error, replacing, sync_directory

_FILE = re.compile(r"(?P<id>\d{8}T\d{6}-[0-9a-f]{8})(?P<refused>\.refused)?\.wgb")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot on disk."""

    id: str
    path: Path
    size: int
    refused: bool
    """WhatsApp has refused its login."""
    about: About | None
    """None if the file does not even say what it is."""

    @property
    def lineage(self) -> str:
        return lineage_of(self.about.generation) if self.about is not None else ""

    def usable(self, origin: str) -> bool:
        """Whether it has a login of this page's, which WhatsApp has not refused."""
        about = self.about
        return about is not None and about.login and about.origin == origin and not self.refused


class Snapshots:
    """The one owner of the directories below ``root/.backups``."""

    def __init__(self, root: Path, keyring: Keyring, *, without_old_keys: bool = False) -> None:
        self._root = root / ".backups"
        self.keyring = keyring
        self._without_old_keys = without_old_keys

    def make_room(self) -> None:
        """Create the directory. Raises `StorageFailed`."""
        with as_storage_error(f"create {self._root}"):
            self._root.mkdir(mode=0o700, exist_ok=True)

    def of(self, code: ClientCode) -> Sequence[Snapshot]:
        """The snapshots of a client, the newest first. Raises `StorageFailed`."""
        found = []
        directory = self._root / code
        with as_storage_error(f"read {directory}"):
            for path in directory.iterdir() if directory.is_dir() else ():
                if (name := _FILE.fullmatch(path.name)) is None or not path.is_file():
                    continue
                about = about_of(path)
                with suppress(FileNotFoundError):  # it goes just now
                    size = path.stat().st_size
                    found.append(Snapshot(name["id"], path, size, name["refused"] is not None, about))
        timed = {one.id: when(one.about) for one in found if one.about is not None}
        order = {one: place for place, one in enumerate(retention.newest_first(timed, time.time()))}
        return sorted(found, key=lambda one: (order.get(one.id, len(order)), one.id))

    def keys_lost(self) -> str:
        """What was sealed with keys that are not there any more; empty if nothing was, or if that is accepted.

        Raises `StorageFailed`.
        """
        if self._without_old_keys:
            return ""
        with as_storage_error(f"read {self._root}"):
            codes = [ClientCode(path.name) for path in sorted(self._root.iterdir()) if path.is_dir()]
        lost = {code: self._lost(self.of(code)) for code in codes}
        count = sum(map(len, lost.values()))
        if not count:
            return ""
        clients = ", ".join(code for code, found in lost.items() if found)
        return (
            f"{count} snapshots ({clients}) were sealed with keys that {self.keyring.source} does not have. They cannot be opened, "
            f"and no more are taken of these clients. {BACK}"
        )

    def _lost(self, among: Sequence[Snapshot]) -> Sequence[Snapshot]:
        known = {key.id for key in self.keyring.keys}
        return [one for one in among if one.about is not None and one.about.key not in known]

    def _check_keys(self, code: ClientCode) -> None:
        if not self._without_old_keys and (lost := self._lost(self.of(code))):
            raise SnapshotFailed(
                f"Snapshot {lost[0].id} of {code} was sealed with a key that is not there any more. None is taken with another one.",
                hint=BACK,
            )

    def sequence(self, code: ClientCode) -> int:
        """The newest one's; 0 if there is none that was counted. Raises `StorageFailed`."""
        return max((one.about.sequence for one in self.of(code) if one.about is not None), default=0)

    def get(self, code: ClientCode, snapshot_id: str, origin: str) -> Snapshot:
        """The snapshot of this id; `NEWEST` is the newest with a login of the page that WhatsApp has not refused.

        Raises `SnapshotNotFound`, `StorageFailed`.
        """
        found = self.of(code)
        if snapshot_id == NEWEST:
            if (newest := next((one for one in found if one.usable(origin)), None)) is not None:
                return newest
            raise SnapshotNotFound(
                f"{code} has no snapshot with a login of {login_files.address_of(origin)} in it.",
                hint=f"See which there are: waguard snapshots {code}",
            )
        named = next((one for one in found if one.id == snapshot_id), None)
        if named is None:
            raise SnapshotNotFound(
                f"{code} has no snapshot {snapshot_id[:80]!r}.",
                hint=f"See which there are: waguard snapshots {code}",
            )
        return named

    def candidates(self, code: ClientCode, lineage: str, origin: str) -> Sequence[Snapshot]:
        """Those that may stand in for a profile of this lineage that is damaged or lost, the best first."""
        return [one for one in self.of(code) if one.lineage == lineage and one.usable(origin)]

    def is_of(self, about: About | None, names: Collection[str]) -> bool:
        """Whether a snapshot says that it has the login of these names (`identity.read`)."""
        said = set() if about is None else set(about.identity)
        return any(said & set(identity.sealed(names, key.secret)) for key in self.keyring.keys)

    def take(self, stop: threading.Event, staged: Path, about: About, *, counted: bool = True) -> Snapshot:
        """Make a snapshot of what lies in ``staged``, verified by opening it before it counts; not ``counted`` as the newest
        one: of something that is older.

        Raises `SnapshotRefused`, `SnapshotFailed`, `DiskFull`, `StorageFailed`.
        """
        snapshot_id, path = self._name(about)
        about = self.write(stop, staged, path, about, counted=counted)
        with as_storage_error(f"read {path}"):
            return Snapshot(snapshot_id, path, path.stat().st_size, refused=False, about=about)

    def tried(self, stop: threading.Event, staged: Path, path: Path, about: About) -> Snapshot:
        """What `take` would make of it, made in a place where it is no snapshot. Raises like `take`."""
        about = self.write(stop, staged, path, about)
        with as_storage_error(f"read {path}"):
            return Snapshot("", path, path.stat().st_size, refused=False, about=about)

    def write(
        self, stop: threading.Event, staged: Path, path: Path, about: About, *, counted: bool = True
    ) -> About:
        """Seal what lies in ``staged`` into ``path``, which is replaced once the new file is verified. Raises like `take`."""
        self._check_keys(ClientCode(about.client))
        if counted:
            newest = max(about.sequence, self.sequence(ClientCode(about.client)))
            about = dataclasses.replace(about, sequence=newest + 1)
        with replacing(path) as file:
            about = packing.pack(stop, staged, file, self.keyring.newest, about)
            file.seek(0)
            packing.read(stop, file, self.keyring, about.client)
        return about

    def read(
        self,
        stop: threading.Event,
        path: Path,
        code: ClientCode,
        into: Path | None = None,
        user: User | None = None,
    ) -> About:
        """Verify a snapshot, and lay it out in ``into``. Raises `SnapshotRefused`, `SnapshotFailed`, `DiskFull`, `StorageFailed`."""
        with (
            as_storage_error(f"read {path}" if into is None else f"restore {path.name}"),
            Below(path).reading(sys.maxsize) as file,
        ):
            return packing.read(stop, file, self.keyring, code, into, user)

    def open(self, snapshot: Snapshot, plain: bool) -> IO[bytes]:
        """The file, or the compressed archive (tar.zst) that is in it. Raises `SnapshotRefused`, `StorageFailed`."""
        with as_storage_error(f"read {snapshot.path}"):
            raw = Below(snapshot.path).reading(sys.maxsize)
        if not plain:
            return raw
        try:
            return cast("IO[bytes]", Opener(raw, self.keyring, owner=True))
        except BaseException:
            raw.close()
            raise

    def adopt(self, code: ClientCode, sealed: Path) -> Snapshot | None:
        """Keep a sealed profile that is no longer anybody's as a snapshot; none if it does not say what it is."""
        about = about_of(sealed)
        if about is None or about.client != code:
            return None
        snapshot_id, path = self._name(about)
        with as_storage_error(f"keep {sealed}"):
            sealed.rename(path)
            for directory in (path.parent, sealed.parent):
                sync_directory(directory)
            return Snapshot(snapshot_id, path, path.stat().st_size, refused=False, about=about)

    def copy_sealed(self, stop: threading.Event, code: ClientCode, sealed: Path) -> Snapshot:
        """A sealed profile as a snapshot, verified. Raises `SnapshotRefused`, `SnapshotFailed`, `StorageFailed`."""
        about = self.read(stop, sealed, code)
        snapshot_id, path = self._name(about)
        with as_storage_error(f"keep {sealed}"):
            Below(sealed).link_to(path)  # what is replaced later is the name, never the file
            sync_directory(path.parent)
            return Snapshot(snapshot_id, path, path.stat().st_size, refused=False, about=about)

    def _name(self, about: About) -> tuple[str, Path]:
        """An id for a new snapshot, and its place."""
        directory = self._root / about.client
        with as_storage_error(f"create {directory}"):
            directory.mkdir(mode=0o700, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(about.taken_at))
        snapshot_id = f"{stamp}-{secrets.token_hex(4)}"
        return snapshot_id, directory / f"{snapshot_id}.wgb"

    def mark_refused(self, code: ClientCode, snapshot_id: str) -> None:
        """Note that WhatsApp has refused its login: it is not tried again by itself. Raises `StorageFailed`."""
        path = self._root / code / f"{snapshot_id}.wgb"
        with as_storage_error(f"rename {path}"):
            if path.is_file():
                path.rename(path.with_name(f"{snapshot_id}.refused.wgb"))
                sync_directory(path.parent)

    def delete(self, snapshot: Snapshot) -> None:
        """Delete one snapshot for good. Raises `StorageFailed`."""
        with as_storage_error(f"delete {snapshot.path}"):
            snapshot.path.unlink(missing_ok=True)


def when(about: About) -> Taken:
    """It was taken."""
    return Taken(about.taken_at, about.sequence, late=about.reason in PUT_ASIDE)


def about_of(path: Path) -> About | None:
    """What a file says of itself, unproved; none if it says nothing."""
    try:
        return packing.about(path)
    except (SnapshotRefused, OSError):
        return None
