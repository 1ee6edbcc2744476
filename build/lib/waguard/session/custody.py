"""One client's profile: taken for a launch, checked, restored, sealed, copied. It owns the profile's lock.

Blocking: call from a thread, one call at a time (`Instance` sees to that). Nothing here decides when.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from waguard.backup.snapshot import About
from waguard.backup.store import Backup, Backups, about_of, when
from waguard.core.model import ClientCode, Source, Verdict
from waguard.core.retention import newest_first
from waguard.errors import BackupFailed, BackupRefused, ProfileLocked, ProfileTooNew
from waguard.profile import examiners, leveldb, login, mend, witness
from waguard.profile.examiners import Evidence, Report
from waguard.profile.examiners.subject import Subject
from waguard.profile.held import Held
from waguard.profile.store import DAMAGED, Place, Profile, Profiles
from waguard.profile.witness import Mark, Witness
from waguard.sandbox import Sandbox, reaper
from waguard.system import host
from waguard.system.files import Below, NotPlain, as_storage_error, partial


@dataclass(frozen=True, slots=True)
class Taken:
    """A profile, locked and ready for a launch, and how it came about."""

    profile: Profile
    how: str
    """``kept``, ``fresh`` or ``restored``."""
    check: Report | None = None
    """What was found on the profile that was there."""
    proved: bool = True
    """False: it was kept with no witness of what its files were, since a daemon died while its browser ran."""
    mended: Sequence[str] = ()
    backup: str = ""
    """The snapshot that it was restored from."""
    refused: Sequence[str] = ()
    """Snapshots that could not be used, and why."""


_MOST_COPIED = login.MOST_BYTES
"""Bytes that a snapshot copies at most: what it cannot link, and a browser is held still meanwhile."""


class Custody:
    def __init__(
        self,
        code: ClientCode,
        origin: str,
        version: str,
        profiles: Profiles,
        backups: Backups,
        sandbox: Sandbox,
    ) -> None:
        self._code = code
        self._origin = origin
        self.version = version
        """Of the browser that is to use the profile, or does."""
        self._profiles = profiles
        self._backups = backups
        self._sandbox = sandbox
        self._marks: Mapping[str, Mark] = {}
        self._restoring: Callable[[], None] = lambda: None
        self._has_login = self._marked = False
        self._held: Held | None = None
        self.lock_fd = -1
        self.locked = ""
        """The generation whose lock it has."""

    # --- for a launch -----------------------------------------------------------------------------------

    def take(
        self,
        stop: threading.Event,
        source: Source | None,
        distrust: str = "",
        restoring: Callable[[], None] = lambda: None,
        *,
        has_login: bool = False,
        marked: bool = False,
        generation: str = "",
    ) -> Taken:
        """The profile of the next launch, with its lock: what ``source`` names, else the kept one if it is sound, else the
        newest snapshot that is, else an empty one. What it replaces is put aside whole.

        ``distrust`` is why the kept one is damaged, if that is known already; ``has_login``: the client was connected with
        it; ``marked``: its mark was seen on disk; ``generation`` is what is on record of it; ``restoring`` is told before a snapshot is opened, which takes longer
        than all the rest. Raises `ProfileLocked`, `StorageFailed`, `ProfileTooNew`, `DiskFull`, `SandboxFailed`;
        `BackupNotFound` and `BackupRefused` of the snapshot that was asked for.
        """
        self.drop_lock()
        self._marks = {}
        self._restoring = restoring
        self._has_login, self._marked = has_login, marked
        if source is not None and source.backup:
            backup = self._backups.get(self._code, source.backup, self._origin)
            profile = self._restore(stop, backup)
            return self._switch(Taken(profile, "restored", backup=backup.id), "restore")
        if source is None:
            self.mend_link(generation, has_login=has_login)
        place, kept = self._profiles.find(self._code)
        if source is not None and kept is not None:
            self._retire(kept, "fresh")
            kept = None
        if kept is None:
            return self._fresh(Taken(self._profiles.create(self._code), "fresh"))
        report = self._examine(stop, place, kept, distrust)
        if report.verdict is not Verdict.DAMAGED:
            return self._ready(Taken(kept, "kept", report, proved=bool(self._marks)))
        return self._replace_damaged(stop, kept, report)

    def used_by(self, version: str, profile: Profile) -> None:
        """The browser of this version is launched on it, and no longer the one that it was checked for. Raises `ProfileTooNew`."""
        if version == self.version:
            return
        self.version = version
        subject = Subject(
            profile.path, version, self._origin, self._profiles.uid, witness.read(profile.witness)
        )
        examiners.examine(subject, examiners.VERSION)

    def mend_link(self, generation: str, *, has_login: bool) -> str:
        """See `Profiles.mend_link`."""
        return self._profiles.mend_link(
            self._code,
            generation,
            lambda: [one.lineage for one in self._backups.of(self._code) if one.lineage],
            has_login=has_login,
        )

    def _examine(self, stop: threading.Event, place: Place, kept: Profile, distrust: str) -> Report:
        """With the lock of what is found sound. What is sealed is laid out first."""
        if place is Place.LOST:
            return _damaged("profile", kept.generation, "it is gone, and nobody has dropped it")
        if place is Place.SEALED:
            if newer := self._newer_than_sealed(kept):
                what = f"the host died while its browser ran, and snapshot {newer.id} is newer"
                return _damaged("sealed", kept.sealed.name, what)
            try:
                self._unseal(stop, kept)
            except BackupRefused as error:
                return _damaged("sealed", kept.sealed.name, error.message.rstrip("."))
        self._lock(kept)
        self._profiles.give(kept)
        self._sandbox.check(kept.path)
        known = witness.read(kept.witness)
        self._marks = known.files or {} if known is not None else {}
        report = self._look(kept.path, known, marked=self._marked)
        return _damaged("browser", "Default", distrust) if distrust else report

    def _newer_than_sealed(self, kept: Profile) -> Backup | None:
        """A snapshot that was taken while a browser went on from the sealed profile, and was not closed."""
        known, sealed = witness.read(kept.witness), about_of(kept.sealed)
        newest = next(iter(self._backups.candidates(self._code, kept.lineage, self._origin)), None)
        if (
            newest is None
            or newest.about is None
            or sealed is None
            or sealed.origin != self._origin
            or (known is not None and known.files is not None)
        ):
            return None
        both = {"snapshot": when(newest.about), "sealed": when(sealed)}
        return newest if newest_first(both, time.time())[0] == "snapshot" else None

    def _look(self, place: Path, known: Witness | None, *, marked: bool = False) -> Report:
        subject = Subject(place, self.version, self._origin, self._profiles.uid, known, marked)
        return examiners.examine(subject)

    def _structure(self, place: Path) -> Report:
        subject = Subject(place, self.version, self._origin, self._profiles.uid)
        return examiners.examine(subject, examiners.STRUCTURE)

    def _replace_damaged(self, stop: threading.Event, kept: Profile, report: Report) -> Taken:
        """Down the ladder: the newest snapshot that can be used, then older ones, then an empty profile."""
        self._keep_sealed(kept)
        refused = []
        for backup in self._backups.candidates(self._code, kept.lineage, self._origin):
            try:
                profile = self._restore(stop, backup)
            except (BackupRefused, ProfileTooNew) as error:
                refused.append(f"{backup.id}: {error.message}")
            else:
                taken = Taken(profile, "restored", report, backup=backup.id, refused=refused)
                return self._switch(taken, DAMAGED)
        self._retire(kept, DAMAGED)
        return self._fresh(Taken(self._profiles.create(self._code), "fresh", report, refused=refused))

    def _switch(self, taken: Taken, reason: str) -> Taken:
        """Make it current, and put the one before aside."""
        _, before = self._profiles.find(self._code)
        self._profiles.replace(
            self._code,
            taken.profile,
            DAMAGED if before is not None and _lost(before) else reason,
            worthless=self._worthless(before, has_login=self._has_login),
            sequence=self._backups.sequence(self._code),
        )
        self.drop_lock()
        if before is not None:
            self._keep_sealed(before)
            with contextlib.suppress(ProfileLocked):  # whoever holds it is met by the next sweep
                self._profiles.drop_lock(before)
        return self._ready(self._fresh(taken))

    def _fresh(self, taken: Taken) -> Taken:
        self._lock(taken.profile)
        self._sandbox.check(taken.profile.path)
        return taken

    def _ready(self, taken: Taken) -> Taken:
        """What a killed browser has left is taken away."""
        profile = taken.profile
        self._profiles.drop_singletons(profile)
        tails = mend.torn_tails(profile.path, self._origin)
        known = witness.read(profile.witness)
        if tails and known is not None:
            # Void first: should this launch go no further, what was cut must not count as lost.
            witness.write(profile.witness, Witness(known.browser))
        mend.drop_tails(tails)
        return replace(taken, mended=[f"{file.name} at byte {end}" for file, end in tails])

    def _restore(self, stop: threading.Event, backup: Backup) -> Profile:
        """Lay out a snapshot as a new generation of its lineage, proved and checked; nobody's yet."""
        profile = self._profiles.profile(self._profiles.new_generation(backup.lineage))
        self._lay_out(stop, backup.path, profile)
        return profile

    def _unseal(self, stop: threading.Event, profile: Profile) -> None:
        self._lay_out(stop, profile.sealed, profile, check=False)

    def _lay_out(self, stop: threading.Event, file: Path, profile: Profile, *, check: bool = True) -> None:
        self._restoring()
        with partial(profile.path) as beside:
            with as_storage_error(f"create {beside}"):
                self._profiles.make_directory(beside)
            about = self._backups.read(stop, file, self._code, beside, self._profiles.user)
            if check:
                known = Witness(about.browser)
                report = self._look(beside, known)
                if report.verdict is Verdict.DAMAGED:
                    raise BackupRefused(f"What is in it is damaged: {report.why}", reason="damaged")
                witness.write(profile.witness, known)
            self._profiles.complete(beside, profile)

    # --- while a browser uses it ------------------------------------------------------------------------

    def hold(self, profile: Profile) -> None:
        """From here the databases have the login in them. Raises `StorageFailed`."""
        self.let_go()
        with as_storage_error(f"open {profile.path}"):
            self._held = Held(profile.path, self._origin)

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
            self._marks = witness.take(profile.path, self._origin, self._marks)
            witness.write(profile.witness, Witness(self.version, self._marks, self.wiped()))

    def seal(self, stop: threading.Event, *, has_login: bool) -> bool:
        """Leave nothing of the current profile on disk but its sealed form; false if there was nothing plain.

        The plain one goes only when the sealed one has been opened. Raises `BackupRefused`, `BackupFailed`, `DiskFull`,
        `StorageFailed`, `ProfileLocked`.
        """
        place, profile = self._profiles.find(self._code)
        if profile is None or place is not Place.PLAIN:
            return False
        self._lock(profile)
        try:
            if (lost := _lost(profile)) or self._structure(profile.path).verdict is Verdict.DAMAGED:
                self._keep_sealed(profile)
            if (there := about_of(profile.sealed)) is not None and there.origin != self._origin:
                self._keep_sealed(profile)  # of another page: what is sealed now has this one's login alone
            about = self._about(profile, "sealed", has_login=has_login and not lost, live=False)
            self._backups.write(stop, profile.path, profile.sealed, about)
            with as_storage_error(f"delete {profile.path}"), partial(profile.path) as going:
                profile.path.rename(going)  # half a profile must never bear a profile's name
        finally:
            self.drop_lock()
        return True

    def retire(self, reason: str, *, has_login: bool) -> Path | None:
        """Put the current profile aside, and keep what is sealed of it as a snapshot. Raises `StorageFailed`."""
        _, profile = self._profiles.find(self._code)
        worthless = self._worthless(profile, has_login=has_login)
        sequence = self._backups.sequence(self._code)
        place = self._profiles.retire(self._code, reason, worthless=worthless, sequence=sequence)
        if profile is not None and reason != DAMAGED:
            self._keep_sealed(profile)
        self.drop_lock()
        return place

    def _retire(self, profile: Profile, reason: str) -> None:
        self.retire(reason, has_login=self._has_login)
        self._profiles.drop_lock(profile)

    def _worthless(self, profile: Profile | None, *, has_login: bool) -> bool:
        """Whether no login was ever in it, as far as can be told: in a table its mark need not be seen."""
        if has_login or profile is None:
            return False
        store = Below(profile.path, login.database_names(self._origin)[1])
        with as_storage_error(f"read {profile.path}"):
            try:
                whose = {self._origin, *login.origins(profile.path)}
                return store.status() is None or all(login.unmarked(store, origin) for origin in whose)
            except NotPlain:  # nobody can tell
                return False

    def _keep_sealed(self, profile: Profile) -> None:
        if profile.sealed.is_file():
            self._backups.adopt(self._code, profile.sealed)

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

        ``held_still``: how to hold the browser that uses it; none if there is none. Raises `BackupFailed`,
        `BackupRefused` if what was copied is damaged, `StorageFailed`, `DiskFull`.
        """
        place, profile = self._profiles.find(self._code)
        if profile is None or place is not Place.PLAIN:
            raise BackupFailed(
                f"{self._code} has no profile to take a snapshot of.",
                hint=f"Start it: waguard connect {self._code}",
            )
        if held_still is None:
            self._lock(profile)
        try:
            with (
                as_storage_error(f"copy {profile.path}"),
                (held_still or nullcontext)(),
                _refusing_oddities(profile.path),
            ):
                self._copy(profile.path, into)
                lost = self.wiped() or _lost(profile)
        finally:
            if held_still is None:
                self.drop_lock()
        with as_storage_error(f"read {into}"):
            self._drop_unnamed(into)
        report = self._structure(into)
        if report.verdict is Verdict.DAMAGED:
            raise BackupRefused(f"The profile is damaged: {report.why}", reason="damaged")
        if lost:
            raise BackupRefused(f"The profile is damaged: {lost}.", reason="damaged")
        return self._about(profile, reason, has_login=has_login, live=held_still is not None)

    def _copy(self, profile: Path, into: Path) -> None:
        for name, odd in login.oddities(profile, self._origin):
            raise NotPlain(odd, profile / name)
        left = _MOST_COPIED
        for name in login.part(profile, self._origin):
            source, target = Below(profile, name), into / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if login.immutable(name):
                with contextlib.suppress(OSError):  # a file system that has no links
                    source.link_to(target)
                    continue
            left -= source.copy_to(target, min(left, login.most_bytes(name)))

    def _drop_unnamed(self, into: Path) -> None:
        """Tables that no MANIFEST names: half-written ones, which go on growing."""
        for database in login.databases(into, self._origin):
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
            *(self._code, profile.generation, reason, time.time(), browser, self._origin, live, has_login),
            sequence=sealed.sequence if sealed is not None else 0,  # what is older than this, too
        )

    def prune(self, limit_bytes: int) -> int:
        """Drop the caches of a profile that no browser uses, if they take more; how many bytes that were.

        Raises `StorageFailed`, `ProfileLocked`.
        """
        place, profile = self._profiles.find(self._code)
        if profile is None or place is not Place.PLAIN:
            return 0
        self._lock(profile)
        try:
            return self._profiles.prune(profile, limit_bytes)
        finally:
            self.drop_lock()

    # --- the lock ---------------------------------------------------------------------------------------

    def _lock(self, profile: Profile) -> None:
        self.drop_lock()
        try:
            self.lock_fd = self._profiles.lock(profile)
        except ProfileLocked as error:
            holders = reaper.lock_holders([profile.lock], host.process_table())
            pids = [holder.identity.pid for holder in holders]
            raise ProfileLocked(error.message, hint=error.hint, **error.details, pids=pids) from None
        self.locked = profile.generation

    def drop_lock(self) -> None:
        fd, self.lock_fd = self.lock_fd, -1  # first: another thread may drop it too
        if fd >= 0:
            self.locked = ""
            os.close(fd)


def _lost(profile: Profile) -> str:
    """What was lost of the login while a browser used it, though the files are whole; empty if nothing."""
    known = witness.read(profile.witness)
    return known.lost if known is not None else ""


@contextmanager
def _refusing_oddities(profile: Path) -> Iterator[None]:
    try:
        yield
    except NotPlain as error:
        what = f"{error.path.relative_to(profile)}: {error.what}"
        raise BackupRefused(f"The profile is damaged: {what}.", reason="damaged") from None


def _damaged(examiner: str, path: str, what: str) -> Report:
    return Report((Evidence(examiner, Verdict.DAMAGED, path, what),))
