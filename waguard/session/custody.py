"""One client's profile while it is in use and at rest: held, sealed, retired, copied. It owns the profile's lock.

Blocking: call from a thread, one call at a time (`Instance.using` sees to that). Nothing here decides when; which profile a launch gets is `ladder.py`'s.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from waguard.core.model import ClientCode, Verdict
from waguard.errors import ProfileLocked, SnapshotFailed, SnapshotRefused, UndoRefused
from waguard.profile import caches, copied, examiners, identity, leveldb, login_files, witness
from waguard.profile.aside import LOOKS
from waguard.profile.examiners import Report
from waguard.profile.examiners.subject import Subject
from waguard.profile.generation import DAMAGED, Place, Profile, Retired
from waguard.profile.held import Held
from waguard.profile.store import Profiles
from waguard.profile.witness import Mark, Witness
from waguard.sandbox import Sandbox, reaper
from waguard.snapshots.packing import About
from waguard.snapshots.store import Snapshots, about_of
from waguard.system.files import Below, NotPlain, as_storage_error, partial

_MOST_COPIED = login_files.MOST_BYTES
"""Bytes that a snapshot copies at most: what it cannot link, and a browser is held still meanwhile."""


class Custody:
    def __init__(
        self,
        code: ClientCode,
        origin: str,
        version: str,
        profiles: Profiles,
        snapshots: Snapshots,
        sandbox: Sandbox,
    ) -> None:
        self.code = code
        self.origin = origin
        self.version = version
        """Of the browser that is to use the profile, or does."""
        self.profiles = profiles
        self.snapshots = snapshots
        self.sandbox = sandbox
        self.marks: Mapping[str, Mark] = {}
        self._held: Held | None = None
        self.lock_fd = -1
        self.locked = ""
        """The generation whose lock it has."""
        self.taking = False
        """A thread is at it, and lets go of the lock itself if it was called off."""

    # --- for a launch -----------------------------------------------------------------------------------

    def used_by(self, version: str, profile: Profile) -> None:
        """The browser of this version is launched on it, and no longer the one that it was checked for. Raises `ProfileTooNew`."""
        if version == self.version:
            return
        self.version = version
        subject = Subject(
            profile.path, version, self.origin, self.profiles.uid, witness.read(profile.witness)
        )
        examiners.examine(subject, examiners.VERSION)

    def mend_link(self, generation: str, *, has_login: bool) -> str:
        """See `copied.mend_link`."""
        return copied.mend_link(
            self.profiles,
            self.code,
            generation,
            lambda: [one.lineage for one in self.snapshots.of(self.code) if one.lineage],
            has_login=has_login,
        )

    def look(self, place: Path, known: Witness | None, *, login_on_disk: bool = False) -> Report:
        """The check before a launch."""
        subject = Subject(place, self.version, self.origin, self.profiles.uid, known, login_on_disk)
        return examiners.examine(subject)

    def look_at_retired(self, generation: str) -> tuple[Retired, Report, frozenset[str]]:
        """A profile that was put aside and may come back, the check of it, and what names its login (`identity.read`).

        Raises `UndoRefused`, `ProfileTooNew`, `ProfileNotOwned`, `StorageFailed`.
        """
        for _ in range(LOOKS):
            if (retired := self.profiles.aside.find(self.code, generation)) is None:
                break
            report = self.look(retired.path, None)
            names = identity.read(retired.path, self.origin)
            if not retired.path.exists():  # it has got another name meanwhile, and nothing was found of it
                continue
            if report.verdict is not Verdict.DAMAGED:
                return retired, report, names or frozenset()
            raise UndoRefused(
                f"The profile that was put aside is damaged: {report.why}",
                hint=f"See which snapshots there are: waguard snapshots {self.code}",
                reason="damaged",
            )
        abouts = ((one.id, one.about) for one in self.snapshots.of(self.code))
        kept = [name for name, about in abouts if about is not None and about.generation == generation]
        saved = f" Snapshot {kept[0]} was taken of it." if kept else ""
        raise UndoRefused(
            f"The profile {generation}, which was put aside, is there no more.{saved}",
            hint=f"See which snapshots there are: waguard snapshots {self.code}",
            reason="gone",
            **({"snapshot": kept[0]} if kept else {}),
        )

    def _structure(self, place: Path) -> Report:
        subject = Subject(place, self.version, self.origin, self.profiles.uid)
        return examiners.examine(subject, examiners.STRUCTURE)

    # --- while a browser uses it ------------------------------------------------------------------------

    def hold(self, profile: Profile, written: Mapping[str, str]) -> None:
        """From here the databases have the login in them. ``written``: see `Held`. Raises `StorageFailed`."""
        self.let_go()
        with as_storage_error(f"open {profile.path}"):
            self._held = Held(profile.path, self.origin, written)

    @property
    def identities(self) -> Mapping[str, str]:
        """Of the databases that are held, for the daemon that comes after this one."""
        held = self._held
        return held.identities if held is not None else {}

    def wiped(self) -> str:
        """Which database has been wiped since `hold`; empty if none, or if nobody can tell."""
        held = self._held  # another thread may let go of it
        try:
            return held.made_anew() if held is not None else ""
        except OSError:
            return ""

    def let_go(self) -> None:
        """No login is in them any more, or no browser uses them."""
        held, self._held = self._held, None
        if held is not None:
            held.drop()

    # --- at its end -------------------------------------------------------------------------------------

    def witness(self, profile: Profile) -> None:
        """Note what the login's files are, now that no browser can change them. Raises `StorageFailed`, `DiskFull`."""
        if profile.path.is_dir():
            self.marks = witness.take(profile.path, self.origin, self.marks)
            witness.write(profile.witness, Witness(self.version, self.marks, self.wiped()))

    def seal(self, stop: threading.Event, *, has_login: bool) -> bool:
        """Leave nothing of the current profile on disk but its sealed form; false if there was nothing plain.

        The plain one goes only when the sealed one has been opened. Raises `SnapshotRefused`, `SnapshotFailed`, `DiskFull`,
        `StorageFailed`, `ProfileLocked`.
        """
        place, profile = self.profiles.find(self.code)
        if profile is None or place is not Place.PLAIN:
            return False
        self.lock(profile)
        try:
            if (lost := lost_of(profile)) or self._structure(profile.path).verdict is Verdict.DAMAGED:
                self.keep_sealed(profile)
            if (there := about_of(profile.sealed)) is not None and there.origin != self.origin:
                self.keep_sealed(profile)  # of another page: what is sealed now has this one's login alone
            about = self._about(profile, "sealed", has_login=has_login and not lost, live=False)
            self.snapshots.write(stop, profile.path, profile.sealed, about)
            with as_storage_error(f"delete {profile.path}"), partial(profile.path) as going:
                profile.path.rename(going)  # half a profile must never bear a profile's name
        finally:
            self.drop_lock()
        return True

    def retire(self, reason: str, *, has_login: bool) -> Path | None:
        """Put the current profile aside, and keep what is sealed of it as a snapshot. Raises `StorageFailed`."""
        _, profile = self.profiles.find(self.code)
        worthless = self.worthless(profile, has_login=has_login)
        sequence = self.snapshots.sequence(self.code)
        place = self.profiles.retire(self.code, reason, worthless=worthless, sequence=sequence)
        if profile is not None and reason != DAMAGED:
            self.keep_sealed(profile)
        self.drop_lock()
        return place

    def worthless(self, profile: Profile | None, *, has_login: bool) -> bool:
        """Whether no login was ever in it, as far as can be told: in a table its mark need not be seen."""
        if has_login or profile is None:
            return False
        store = Below(profile.path, login_files.database_names(self.origin)[1])
        with as_storage_error(f"read {profile.path}"):
            try:
                whose = {self.origin, *login_files.origins(profile.path)}
                return store.status() is None or all(
                    login_files.lacks_mark(store, origin) for origin in whose
                )
            except NotPlain:  # nobody can tell
                return False

    def keep_sealed(self, profile: Profile) -> None:
        """What is sealed of it is a snapshot from here."""
        if profile.sealed.is_file():
            self.snapshots.adopt(self.code, profile.sealed)

    # --- a copy -----------------------------------------------------------------------------------------

    def copy(
        self,
        into: Path,
        reason: str,
        *,
        has_login: bool,
        held_still: Callable[[], AbstractContextManager[None]] | None,
    ) -> About:
        """Copy the login's part of the current profile into an empty directory, for a snapshot.

        ``held_still``: how to hold the browser that uses it; none if there is none. Raises `SnapshotFailed`,
        `SnapshotRefused` if what was copied is damaged, `StorageFailed`, `DiskFull`.
        """
        place, profile = self.profiles.find(self.code)
        if profile is None or place is not Place.PLAIN:
            raise SnapshotFailed(
                f"{self.code} has no profile to take a snapshot of.",
                hint=f"Start it: waguard connect {self.code}",
            )
        if held_still is None:
            self.lock(profile)
        try:
            with (
                as_storage_error(f"copy {profile.path}"),
                (held_still or nullcontext)(),
                _refusing_oddities(profile.path),
            ):
                self._copy(profile.path, into)
                lost = self.wiped() or lost_of(profile)
        finally:
            if held_still is None:
                self.drop_lock()
        with as_storage_error(f"read {into}"):
            self._drop_unnamed(into)
        report = self._structure(into)
        if report.verdict is Verdict.DAMAGED:
            raise SnapshotRefused(f"The profile is damaged: {report.why}", reason="damaged")
        if lost:
            raise SnapshotRefused(f"The profile is damaged: {lost}.", reason="damaged")
        return self._about(profile, reason, has_login=has_login, live=held_still is not None)

    def _copy(self, profile: Path, into: Path) -> None:
        for name, odd in login_files.oddities(profile, self.origin):
            raise NotPlain(odd, profile / name)
        left = _MOST_COPIED
        for name in login_files.part(profile, self.origin):
            source, target = Below(profile, name), into / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if login_files.immutable(name):
                with contextlib.suppress(OSError):  # a file system that has no links
                    source.link_to(target)
                    continue
            left -= source.copy_to(target, min(left, login_files.most_bytes(name)))

    def _drop_unnamed(self, into: Path) -> None:
        """Tables that no MANIFEST names: half-written ones, which go on growing."""
        for database in login_files.databases(into, self.origin):
            try:
                named = leveldb.named_tables(database)
            except leveldb.Unreadable:  # the check says so
                continue
            for name in database.contents():
                if name.endswith(".ldb") and name not in named:
                    (database / name).path.unlink()

    def _about(self, profile: Profile, reason: str, *, has_login: bool, live: bool) -> About:
        known = witness.read(profile.witness)
        browser = known.browser if known is not None else self.version
        sealed = about_of(profile.sealed)
        return About(
            *(self.code, profile.generation, reason, time.time(), browser, self.origin, live, has_login),
            sequence=sealed.sequence if sealed is not None else 0,  # what is older than this, too
        )

    def prune(self, limit_bytes: int) -> int:
        """Drop the caches of a profile that no browser uses, if they take more; how many bytes that were.

        Raises `StorageFailed`, `ProfileLocked`.
        """
        place, profile = self.profiles.find(self.code)
        if profile is None or place is not Place.PLAIN:
            return 0
        self.lock(profile)
        try:
            return caches.prune(profile, limit_bytes)
        finally:
            self.drop_lock()

    # --- the lock ---------------------------------------------------------------------------------------

    def lock(self, profile: Profile) -> None:
        """Raises `ProfileLocked` with who has it."""
        self.drop_lock()
        try:
            self.lock_fd = self.profiles.lock(profile)
        except ProfileLocked as error:
            holders = reaper.lock_holders([profile.lock])
            pids = [holder.identity.pid for holder in holders]
            raise ProfileLocked(error.message, hint=error.hint, **error.details, pids=pids) from None
        self.locked = profile.generation

    def drop_lock(self) -> None:
        fd, self.lock_fd = self.lock_fd, -1  # first: another thread may drop it too
        if fd >= 0:
            self.locked = ""
            os.close(fd)


def lost_of(profile: Profile) -> str:
    """What was lost of the login while a browser used it, though the files are whole; empty if nothing."""
    known = witness.read(profile.witness)
    return known.lost if known is not None else ""


@contextmanager
def _refusing_oddities(profile: Path) -> Iterator[None]:
    try:
        yield
    except NotPlain as error:
        what = f"{error.path.relative_to(profile)}: {error.what}"
        raise SnapshotRefused(f"The profile is damaged: {what}.", reason="damaged") from None
