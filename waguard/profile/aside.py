"""Profiles that were put aside, and values with them: by one rename, with why, until they are saved and their time is over. Blocking: call from a thread."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from waguard.errors import NotOurs
from waguard.profile.generation import NOBODY, RETIRED, VALUES, Profile, Retired, new_generation
from waguard.system.files import Below, as_storage_error, partial, remove_tree, sync_directory

_LOOKED = ".looked"
"""Bears the time of the last look at the ages of what was put aside."""
LOOKS = 2
"""So often one is looked for: it gets another name once, when it is saved, and a list that is read meanwhile may have neither."""
_NOTE = ".waguard-sequence"
"""In a profile that was put aside: see `Retired`."""


def _note(profile: Path, sequence: int) -> None:
    """Write into a profile that nobody uses any more which snapshot is the newest now. A full disk keeps none from going."""
    note = profile / _NOTE
    with contextlib.suppress(OSError):
        if note.is_dir() and not note.is_symlink():  # whatever a hostile browser has made of it
            remove_tree(note)
        note.unlink(missing_ok=True)
        fd = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, str(sequence).encode())
        finally:
            os.close(fd)


def _noted(profile: Path) -> int:
    try:
        text = Below(profile, _NOTE).data(15)
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


class Aside:
    """The one owner of the directories ``.retired``: beside each place where profiles are, one on each file system."""

    def __init__(self, root: Path, beside: Sequence[Path]) -> None:
        self._root = root
        self.places = tuple(dict.fromkeys(one / ".retired" for one in beside))

    def put(
        self, code: str, profile: Profile, reason: str, *, worthless: bool = False, sequence: int = 0
    ) -> Path | None:
        """Put one aside; returns where, or None if there is none. Its lock stays: see `Profiles.drop_lock`. Raises `StorageFailed`."""
        ending = ".empty" if worthless else ""
        directory = self.places[0 if profile.path.parent == profile.lock.parent else -1]
        place = directory / f"{code}.{profile.generation}.{reason}{ending}"
        with as_storage_error(f"retire the profile of {code}"):
            if not profile.path.is_dir():
                return None
            if sequence:
                _note(profile.path, sequence)
            os.utime(profile.path)  # the retention time counts from here, even if we die after the rename
            profile.path.rename(place)
            for changed in (directory, profile.path.parent):
                sync_directory(changed)
        return place

    def put_values(self, code: str, folder: Path, called: str = "") -> Path | None:
        """Put what apps have kept with a session aside; returns where, or None if there is nothing. Raises `StorageFailed`.

        ``called``: instead of the name of a profile.
        """
        place = self._of_values(code, called or new_generation())
        with as_storage_error(f"retire the values of {code}"):
            if not folder.is_dir():
                return None
            with contextlib.suppress(OSError):  # there is something in it
                folder.rmdir()
                return None
            os.utime(folder)  # the retention time counts from here
            folder.rename(place)
            for changed in (place.parent, folder.parent):
                sync_directory(changed)
        return place

    def _of_values(self, code: str, called: str) -> Path:
        return self.places[0] / f"{code}.{called}.{VALUES}"

    def find_values(self, code: str, called: str) -> Path | None:
        """Where they are, if they are there still."""
        place = self._of_values(code, called)
        return place if called and place.is_dir() else None

    def take_values(self, place: Path, folder: Path) -> None:
        """Have them back where there are none now. Raises `StorageFailed`."""
        with as_storage_error(f"bring back {place.name}"):
            place.rename(folder)
            for changed in (folder.parent, place.parent):
                sync_directory(changed)

    def find(self, code: str, generation: str) -> Retired | None:
        """The profile of this client that has this name, for whatever reason it was put aside. Raises `StorageFailed`."""
        for _ in range(LOOKS):
            for one in self.all():
                if one.generation == generation and one.reason != VALUES and one.code in {code, NOBODY}:
                    return one
        return None

    def take(self, retired: Retired, path: Path) -> None:
        """Have one back as a profile of this path, on the same file system. Raises `StorageFailed`."""
        with as_storage_error(f"bring back {retired.path.name}"):
            try:
                retired.path.rename(path)
            except FileNotFoundError:
                if (again := self.find(retired.code, retired.generation)) is None:
                    raise
                again.path.rename(path)
            for changed in (path.parent, retired.path.parent):
                sync_directory(changed)

    def all(self) -> Sequence[Retired]:
        """What was put aside, the oldest first. Only names of our own making count."""
        found = []
        with as_storage_error(f"read {self.places[0]}"):
            entries = [entry for place in self.places for entry in os.scandir(place)]
            for entry in entries:
                ours = RETIRED.fullmatch(entry.name)
                if ours is None or not entry.is_dir(follow_symlinks=False):
                    continue
                with contextlib.suppress(FileNotFoundError):  # it goes just now, or gets another name
                    since = entry.stat(follow_symlinks=False).st_mtime
                    path = Path(entry.path)
                    saved = ours["state"] is not None or ours["reason"] == VALUES
                    named = ours["code"], ours["generation"], ours["reason"]
                    found.append(Retired(path, *named, saved, since, _noted(path)))
        return sorted(found, key=lambda one: (one.since, one.path))

    def looked_at(self) -> float | None:
        """What the clock said when the ages of these were looked at last, unix time; none if that was never."""
        with contextlib.suppress(OSError):
            return os.lstat(self._root / _LOOKED).st_mtime
        return None

    def note_look(self, now: float) -> None:
        """Note that it says this now. Raises `StorageFailed`."""
        path = self._root / _LOOKED
        with as_storage_error(f"write {path}"):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600))
            os.utime(path, (now, now), follow_symlinks=False)

    def count_from(self, path: Path, now: float) -> None:
        """Let the retention time of one count from now. Raises `StorageFailed`."""
        with as_storage_error(f"date {path}"):
            os.utime(path, (now, now), follow_symlinks=False)

    def mark_saved(self, retired: Retired, *, empty: bool = False) -> Retired:
        """Note in its name that there is a snapshot of it, or that there is no login in it. Raises `StorageFailed`."""
        with as_storage_error(f"rename {retired.path}"):
            path = retired.path.rename(f"{retired.path}.{'empty' if empty else 'saved'}")
            sync_directory(retired.path.parent)
        return replace(retired, path=path, saved=True)

    def delete(self, path: Path) -> None:
        """Delete what was put aside for good; nothing else is ever deleted. Raises `NotOurs`, `StorageFailed`."""
        if path.parent not in self.places or not RETIRED.fullmatch(path.name):
            raise NotOurs(f"{path} is not a retired profile of ours, so it is not deleted.")
        with as_storage_error(f"delete {path}"), partial(path) as going:
            path.rename(going)  # half of it must never come back
            remove_tree(going)
