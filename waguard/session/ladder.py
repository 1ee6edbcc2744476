"""Which profile a launch gets: the one that is asked for, else the kept one if it is sound, else a snapshot, else an empty one.

Blocking, as `Custody` is.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from waguard.core.model import Source, Verdict
from waguard.core.retention import newest_first
from waguard.errors import ProfileLocked, ProfileTooNew, SnapshotRefused
from waguard.profile import mend, witness
from waguard.profile.examiners import Evidence, Report
from waguard.profile.generation import DAMAGED, Place, Profile, new_generation
from waguard.profile.witness import Witness
from waguard.session.custody import Custody, lost_of
from waguard.snapshots.store import Snapshot, about_of, when
from waguard.system.files import as_storage_error, partial


@dataclass(frozen=True, slots=True)
class Taken:
    """A profile, locked and ready for a launch, and how it came about."""

    profile: Profile
    how: str
    """``kept``, ``fresh``, ``restored`` or ``returned``."""
    check: Report | None = None
    """What was found on the profile that was there."""
    proved: bool = True
    """False: it was kept with no witness of what its files were, since a daemon died while its browser ran."""
    mended: Sequence[str] = ()
    snapshot: str = ""
    """The snapshot that it was restored from."""
    refused: Sequence[str] = ()
    """Snapshots that could not be used, and why."""


class Ladder:
    """Down from the kept profile, one step after the other."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody
        self._restoring: Callable[[], None] = lambda: None
        self._has_login = self._login_on_disk = False

    def take(
        self,
        stop: threading.Event,
        source: Source | None,
        damage_reason: str = "",
        restoring: Callable[[], None] = lambda: None,
        *,
        has_login: bool = False,
        login_on_disk: bool = False,
        generation: str = "",
    ) -> Taken:
        """The profile of the next launch, with its lock: what ``source`` names, else the kept one if it is sound, else the
        newest snapshot that is, else an empty one. What it replaces is put aside whole.

        ``damage_reason`` is why the kept one is damaged, if that is known already; ``has_login``: the client was connected with
        it; ``login_on_disk``: its mark was seen there; ``generation`` is what is on record of it; ``restoring`` is told before a snapshot is opened, which takes longer
        than all the rest. Raises `ProfileLocked`, `StorageFailed`, `ProfileTooNew`, `DiskFull`, `SandboxFailed`;
        `SnapshotNotFound` and `SnapshotRefused` of the snapshot that was asked for.
        """
        self._custody.drop_lock()
        self._custody.marks = {}
        self._restoring = restoring
        self._has_login, self._login_on_disk = has_login, login_on_disk
        self._custody.taking = True
        try:
            return self._take(stop, source, damage_reason, generation)
        finally:
            if stop.is_set():  # nobody waits for it any more: what was locked after the call was called off is locked for nobody
                self._custody.drop_lock()
            self._custody.taking = False

    def _take(
        self, stop: threading.Event, source: Source | None, damage_reason: str, generation: str
    ) -> Taken:
        if source is not None and source.retired:
            return self._bring_back(source.retired)
        if source is not None and source.snapshot:
            snapshot = self._custody.snapshots.get(self._custody.code, source.snapshot, self._custody.origin)
            profile = self._restore(stop, snapshot)
            return self._switch(Taken(profile, "restored", snapshot=snapshot.id), "restore")
        if source is None:
            self._custody.mend_link(generation, has_login=self._has_login)
        place, kept = self._custody.profiles.find(self._custody.code)
        if source is not None and kept is not None:
            self._retire(kept, "fresh")
            kept = None
        if kept is None:
            return self._fresh(Taken(self._custody.profiles.create(self._custody.code), "fresh"))
        report = self._examine(stop, place, kept, damage_reason)
        if report.verdict is not Verdict.DAMAGED:
            return self._ready(Taken(kept, "kept", report, proved=bool(self._custody.marks)))
        return self._replace_damaged(stop, kept, report)

    def _bring_back(self, generation: str) -> Taken:
        """One that was put aside, looked at once more, in the place of what is there."""
        retired, report, _ = self._custody.look_at_retired(generation)
        self._custody.lock(self._custody.profiles.profile(generation))
        profile = self._custody.profiles.bring_back(retired)
        self._custody.profiles.give(profile)
        return self._switch(Taken(profile, "returned", report, proved=False), "undo")

    def _examine(self, stop: threading.Event, place: Place, kept: Profile, damage_reason: str) -> Report:
        """With the lock of what is found sound. What is sealed is laid out first."""
        if place is Place.LOST:
            return _damaged("profile", kept.generation, "it is gone, and nobody has dropped it")
        if place is Place.SEALED:
            if newer := self._newer_than_sealed(kept):
                what = f"the host died while its browser ran, and snapshot {newer.id} is newer"
                return _damaged("sealed", kept.sealed.name, what)
            try:
                self._unseal(stop, kept)
            except SnapshotRefused as error:
                return _damaged("sealed", kept.sealed.name, error.message.rstrip("."))
        self._custody.lock(kept)
        self._custody.profiles.give(kept)
        self._custody.sandbox.check(kept.path)
        known = witness.read(kept.witness)
        self._custody.marks = known.files or {} if known is not None else {}
        report = self._custody.look(kept.path, known, login_on_disk=self._login_on_disk)
        return _damaged("browser", "Default", damage_reason) if damage_reason else report

    def _newer_than_sealed(self, kept: Profile) -> Snapshot | None:
        """A snapshot that was taken while a browser went on from the sealed profile, and was not closed."""
        known, sealed = witness.read(kept.witness), about_of(kept.sealed)
        newest = next(
            iter(self._custody.snapshots.candidates(self._custody.code, kept.lineage, self._custody.origin)),
            None,
        )
        if (
            newest is None
            or newest.about is None
            or sealed is None
            or sealed.origin != self._custody.origin
            or (known is not None and known.files is not None)
        ):
            return None
        both = {"snapshot": when(newest.about), "sealed": when(sealed)}
        return newest if newest_first(both, time.time())[0] == "snapshot" else None

    def _replace_damaged(self, stop: threading.Event, kept: Profile, report: Report) -> Taken:
        """Down the ladder: the newest snapshot that can be used, then older ones, then an empty profile."""
        self._custody.keep_sealed(kept)
        refused = []
        for snapshot in self._custody.snapshots.candidates(
            self._custody.code, kept.lineage, self._custody.origin
        ):
            try:
                profile = self._restore(stop, snapshot)
            except (SnapshotRefused, ProfileTooNew) as error:
                refused.append(f"{snapshot.id}: {error.message}")
            else:
                taken = Taken(profile, "restored", report, snapshot=snapshot.id, refused=refused)
                return self._switch(taken, DAMAGED)
        self._retire(kept, DAMAGED)
        return self._fresh(
            Taken(self._custody.profiles.create(self._custody.code), "fresh", report, refused=refused)
        )

    def _switch(self, taken: Taken, reason: str) -> Taken:
        """Make it current, and put the one before aside."""
        _, before = self._custody.profiles.find(self._custody.code)
        self._custody.profiles.replace(
            self._custody.code,
            taken.profile,
            DAMAGED if before is not None and lost_of(before) else reason,
            worthless=self._custody.worthless(before, has_login=self._has_login),
            sequence=self._custody.snapshots.sequence(self._custody.code),
        )
        self._custody.drop_lock()
        if before is not None:
            self._custody.keep_sealed(before)
            with contextlib.suppress(ProfileLocked):  # whoever holds it is met by the next sweep
                self._custody.profiles.drop_lock(before)
        return self._ready(self._fresh(taken))

    def _fresh(self, taken: Taken) -> Taken:
        self._custody.lock(taken.profile)
        self._custody.sandbox.check(taken.profile.path)
        return taken

    def _ready(self, taken: Taken) -> Taken:
        """What a killed browser has left is taken away."""
        profile = taken.profile
        self._custody.profiles.drop_singletons(profile)
        tails = mend.torn_tails(profile.path, self._custody.origin)
        known = witness.read(profile.witness)
        if tails and known is not None:
            # Void first: should this launch go no further, what was cut must not count as lost.
            witness.write(profile.witness, Witness(known.browser))
        mend.drop_tails(tails)
        return replace(taken, mended=[f"{file.name} at byte {end}" for file, end in tails])

    def _restore(self, stop: threading.Event, snapshot: Snapshot) -> Profile:
        """Lay out a snapshot as a new generation of its lineage, proved and checked; nobody's yet."""
        profile = self._custody.profiles.profile(new_generation(snapshot.lineage))
        self._lay_out(stop, snapshot.path, profile)
        return profile

    def _unseal(self, stop: threading.Event, profile: Profile) -> None:
        self._lay_out(stop, profile.sealed, profile, check=False)

    def _lay_out(self, stop: threading.Event, file: Path, profile: Profile, *, check: bool = True) -> None:
        self._restoring()
        with partial(profile.path) as beside:
            with as_storage_error(f"create {beside}"):
                self._custody.profiles.make_directory(beside)
            about = self._custody.snapshots.read(
                stop, file, self._custody.code, beside, self._custody.profiles.user
            )
            if check:
                known = Witness(about.browser)
                report = self._custody.look(beside, known)
                if report.verdict is Verdict.DAMAGED:
                    raise SnapshotRefused(f"What is in it is damaged: {report.why}", reason="damaged")
                witness.write(profile.witness, known)
            self._custody.profiles.complete(beside, profile)

    def _retire(self, profile: Profile, reason: str) -> None:
        self._custody.retire(reason, has_login=self._has_login)
        self._custody.profiles.drop_lock(profile)


def _damaged(examiner: str, path: str, what: str) -> Report:
    return Report((Evidence(examiner, Verdict.DAMAGED, path, what),))
