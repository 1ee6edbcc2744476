"""Where profiles live, who holds them, how they leave. Blocking: call from a thread.

sessions/<code>/profile -> ../.profiles/<generation>     the link is the one truth about which profile is current
sessions/.profiles/<generation>/                         a Chromium user data directory
sessions/.profiles/<generation>.lock                     flock, held by the sandbox until all of it is gone
sessions/.profiles/<generation>.json                     what the login's files were when its browser had ended
sessions/.profiles/<generation>.wgb                      the profile, sealed, where `profile.at_rest` says so
sessions/.retired/<code>.<generation>.<reason>           left by one rename, deleted after the retention time;
                                                         then ``.saved``: there is a snapshot of it, or ``.empty``: it
                                                         never held a login

Where `profile.runtime_dir` is set, the directories of both kinds are there instead. A generation is ``<time>-<lineage>``: a
fresh profile begins a lineage, and one that is restored from a snapshot goes on with its lineage (``<time>-<lineage>-<word>``).
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from waguard.core.model import ClientCode
from waguard.errors import ProfileLocked, StorageFailed
from waguard.profile import links
from waguard.profile.aside import Aside
from waguard.profile.generation import (
    CODE,
    DROPPED,
    GENERATION,
    NOBODY,
    OWNERLESS,
    PART,
    Place,
    Profile,
    Retired,
    new_generation,
)
from waguard.sandbox import User
from waguard.system.files import as_storage_error, is_partial, remove_tree, sync_directory


class Profiles:
    """The one owner of the directories below ``root``."""

    def __init__(self, root: Path, user: User | None, runtime: Path | None = None) -> None:
        self.root = root
        self.user = user
        self._profiles = root / ".profiles"
        self._plain = runtime or self._profiles
        # One on each file system: what is put aside goes by a rename.
        self.aside = Aside(root, (root, runtime or root))
        self._trying: dict[str, threading.Lock] = {}
        """Of each profile, so that nobody who only looks at its lock, or removes it, is met by whoever wants it, and none has a lock whose
        file is gone. No two share one: the disk of either may hang."""

    def make_room(self) -> None:
        """Create the directories. Raises `ConfigError` where there can be no links, `StorageFailed`."""
        with as_storage_error(f"create {self.root}"):
            # Others may pass but not look: where there is no bubblewrap the browsers' user has to reach its profile.
            for directory, mode in (
                (self.root, 0o711),
                (self._profiles, 0o711),
                (self._plain, 0o711),
                *((place, 0o700) for place in self.aside.places),
            ):
                directory.mkdir(mode=mode, parents=True, exist_ok=True)
            links.look_for_links(self.root)

    def home(self, code: ClientCode) -> Path:
        """The directory of a client code, made if it is not there."""
        home = self.root / code
        with as_storage_error(f"create {home}"):
            home.mkdir(mode=0o700, exist_ok=True)
        return home

    def codes(self) -> Sequence[str]:
        """Names of the clients' directories, as they are on disk."""
        with as_storage_error(f"read {self.root}"):
            return sorted(
                entry.name for entry in os.scandir(self.root) if entry.is_dir() and entry.name[0] != "."
            )

    def current(self, code: ClientCode) -> Profile | None:
        """The profile that the code's next browser uses; none if there is none, or its link points nowhere."""
        place, profile = self.find(code)
        return profile if place in {Place.PLAIN, Place.SEALED} else None

    def find(self, code: ClientCode) -> tuple[Place, Profile | None]:
        """Where the code's profile is, and which it is. Raises `StorageFailed`."""
        link = self.root / code / "profile"
        try:
            generation = link.readlink().name
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINVAL}:
                return Place.NONE, None
            raise StorageFailed(f"Cannot read {link}: {error.strerror}.", errno=error.errno) from None
        if not GENERATION.fullmatch(generation):
            return Place.NONE, None
        profile = self.profile(generation)
        if profile.path.is_dir():
            return Place.PLAIN, profile
        if profile.sealed.is_file():
            return Place.SEALED, profile
        # Whoever died between the two steps of `retire` had dropped it.
        dropped = any(one.generation == generation and one.reason in DROPPED for one in self.aside.all())
        return (Place.NONE, None) if dropped else (Place.LOST, profile)

    def profile(self, generation: str) -> Profile:
        beside, plain = self._profiles / generation, self._plain / generation
        return Profile(
            generation,
            # One from before there was a runtime directory is where it was, until it is sealed.
            beside if beside.is_dir() and not plain.is_dir() else plain,
            *(beside.with_name(f"{generation}.{ending}") for ending in ("lock", "json", "wgb")),
        )

    def generations(self) -> Sequence[str]:
        """Of which there is anything at all."""
        with as_storage_error(f"read {self._profiles}"):
            names = {entry.name for place in {self._profiles, self._plain} for entry in os.scandir(place)}
        found = (PART.fullmatch(name) for name in sorted(names))
        return list(dict.fromkeys(one["generation"] for one in found if one is not None))

    def staging(self, code: ClientCode) -> Path:
        """Where a copy of the client's profile may be laid out: on the same file system, so that links to it can be made."""
        return self._plain / f"{code}.copy"

    def partials(self) -> Sequence[Path]:
        """Files and directories that were never completed, wherever we write; those that are being written now too."""
        homes = (*self.root.glob("*"), *self.root.glob(".backups/*"))
        shelves = (
            *self.root.glob(".transfer/*/uploads"),
            *self.root.glob(".transfer/*/received"),
            *self.root.glob("*/values"),
        )
        places = {
            self.root,
            self._profiles,
            self._plain,
            *self.aside.places,
            *(home for home in homes if re.fullmatch(CODE, home.name)),
            *(shelf for shelf in shelves if re.fullmatch(CODE, shelf.parent.name)),
        }
        found: list[Path] = []
        with as_storage_error(f"read {self.root}"):
            for place in places:
                with contextlib.suppress(
                    FileNotFoundError, NotADirectoryError
                ):  # of these some go at any time
                    if not place.is_symlink():
                        found += (Path(entry.path) for entry in os.scandir(place) if is_partial(entry.name))
        return sorted(found)

    @property
    def uid(self) -> int:
        """Whose the profiles are."""
        return self.user.uid if self.user is not None else os.geteuid()

    def give(self, profile: Profile) -> None:
        """A profile that browsers had as another user is given to those of now; only with our lock held and no browser alive.

        By fds, without following: a browser has written it. Raises `StorageFailed`.
        """
        if self.user is None or (before := profile.path.lstat().st_uid) in {0, self.user.uid}:
            return
        with as_storage_error(f"give {profile.path} to uid {self.user.uid}"):
            below = [profile.path]
            while below:
                directory = below.pop()
                fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    for name in os.listdir(fd):  # noqa: PTH208 (of an fd, not of a path)
                        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                        if stat.S_ISDIR(status.st_mode):
                            below.append(directory / name)
                        elif status.st_uid == before and status.st_nlink == 1:
                            os.chown(name, self.user.uid, self.user.gid, dir_fd=fd, follow_symlinks=False)
                    if directory != profile.path and os.fstat(fd).st_uid == before:
                        os.fchown(fd, self.user.uid, self.user.gid)
                finally:
                    os.close(fd)
            os.chown(
                profile.path, self.user.uid, self.user.gid, follow_symlinks=False
            )  # last: then it is done

    def drop_singletons(self, profile: Profile) -> None:
        """Remove Chromium's own lock, which a killed browser leaves; only with our lock held and no browser alive."""
        with as_storage_error(f"clear {profile.path}"):
            for name in ("SingletonLock", "SingletonCookie", "SingletonSocket"):
                path = profile.path / name
                if path.is_dir() and not path.is_symlink():  # whatever a hostile browser has made of it
                    remove_tree(path)
                else:
                    path.unlink(missing_ok=True)

    def create(self, code: ClientCode) -> Profile:
        """A new, empty profile, made current. Raises `DiskFull`, `StorageFailed`."""
        profile = self.profile(new_generation())
        with as_storage_error(f"create {profile.path}"):
            try:
                self.make_directory(profile.path)
                self.point(code, profile)
            except BaseException:
                with contextlib.suppress(OSError):
                    profile.path.rmdir()
                raise
            sync_directory(self._plain)
        return profile

    def make_directory(self, path: Path) -> None:
        """An empty user data directory that is the browser's own. Raises `OSError`."""
        path.mkdir(mode=0o700)
        if self.user is not None:
            os.chown(path, self.user.uid, self.user.gid)

    def complete(self, made: Path, profile: Profile) -> None:
        """Give what was laid out in ``made`` and is on disk its name as a profile's directory. Raises `StorageFailed`."""
        with as_storage_error(f"create {profile.path}"):
            made.rename(profile.path)
            sync_directory(self._plain)

    def point(self, code: ClientCode, profile: Profile) -> None:
        """Make a profile the code's current one. Raises `ConfigError` where there can be no links, `OSError`."""
        target = Path("..") / ".profiles" / profile.generation
        to = target if self._plain == self._profiles else profile.path
        links.point(self.home(code) / "profile", to, self.root)

    def replace(
        self, code: ClientCode, profile: Profile, reason: str, *, worthless: bool = False, sequence: int = 0
    ) -> Path | None:
        """Make this profile current, then put the one before aside; returns where, or none if there was none.

        There is a current profile all the time; a crash in between leaves the one before without an owner.
        """
        before = self.current(code)
        with as_storage_error(f"replace the profile of {code}"):
            self.point(code, profile)
        if before is None:
            return None
        return self.aside.put(code, before, reason, worthless=worthless, sequence=sequence)

    def bring_back(self, retired: Retired) -> Profile:
        """One that was put aside is a profile again, and nobody's yet. Raises `StorageFailed`."""
        beside = retired.path.parent == self.aside.places[0]
        self.aside.take(retired, (self._profiles if beside else self._plain) / retired.generation)
        return self.profile(retired.generation)

    def lock(self, profile: Profile) -> int:
        """Take the profile's lock; the fd is the caller's, and the lock goes with its last copy.

        Raises `ProfileLocked` when somebody holds it.
        """
        with self._turn(profile):
            return self._take(profile)

    def _turn(self, profile: Profile) -> threading.Lock:
        return self._trying.setdefault(profile.generation, threading.Lock())

    @staticmethod
    def _take(profile: Profile) -> int:
        with as_storage_error(f"open {profile.lock}"):
            fd = os.open(profile.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ProfileLocked(
                f"The profile {profile.generation} is in use.",
                hint=f"See what holds it: fuser -v {profile.lock}",
                lock=str(profile.lock),
            ) from None
        except BaseException:
            os.close(fd)
            raise
        return fd

    def held(self, profile: Profile) -> bool:
        """Whether anybody holds the profile's lock now."""
        with as_storage_error(f"open {profile.lock}"):
            try:
                fd = os.open(profile.lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                return False
        try:
            with self._turn(profile):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(fd, fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def retire(
        self, code: ClientCode, reason: str, *, worthless: bool = False, sequence: int = 0
    ) -> Path | None:
        """Put the current profile aside by one rename; returns where, or none if there was none. One that is ``worthless``
        has never held a login, and needs no snapshot. ``sequence`` is that of the newest snapshot now: see `Retired`.

        A crash after the rename leaves a link that points nowhere: see `find`.
        """
        profile = self.current(code)
        link = self.root / code / "profile"
        place = None
        if profile is not None:
            place = self.aside.put(code, profile, reason, worthless=worthless, sequence=sequence)
        with as_storage_error(f"retire the profile of {code}"):
            link.unlink(missing_ok=True)
            if place is not None:
                sync_directory(link.parent)
        return place

    def retire_ownerless(self, profile: Profile) -> Path | None:
        """Put aside one that no client's link points at. Raises `ProfileLocked` when somebody uses it all the same."""
        fd = self.lock(profile)
        try:
            return self.aside.put(NOBODY, profile, OWNERLESS)
        finally:
            os.close(fd)

    def drop_lock(self, profile: Profile) -> None:
        """Prove that nobody holds a retired profile's lock, by taking it, and remove what lies beside the profile. Raises `ProfileLocked`."""
        with self._turn(profile):
            fd = self._take(profile)
            try:
                with as_storage_error(f"delete {profile.lock}"):
                    profile.witness.unlink(missing_ok=True)
                    profile.lock.unlink(missing_ok=True)
            finally:
                os.close(fd)
