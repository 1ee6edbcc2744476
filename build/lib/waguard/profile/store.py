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

import calendar
import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

from waguard.core.model import ClientCode
from waguard.errors import ConfigError, ProfileLocked, StorageFailed
from waguard.profile.login import CACHES
from waguard.sandbox import User
from waguard.system.files import (
    Below,
    as_storage_error,
    is_partial,
    partial,
    remove_tree,
    sync_directory,
    walk,
)

DAMAGED = "damaged"
"""The reason of a profile that was put aside because of what the check found."""
COPY = "copy"
"""The reason of what a copy has made of a link."""
OWNERLESS = "ownerless"
"""The reason of one that no client's link pointed at."""
DROPPED = frozenset({"cleanup", "fresh"})
"""The reasons of those that somebody wanted gone."""
PUT_ASIDE = DROPPED | {DAMAGED, OWNERLESS, COPY, "restore"}
"""The reasons of all."""
NOBODY = "_"
"""In the place of a client code: whose it was is not known."""

_LOOKED = ".looked"
"""Bears the time of the last look at the ages of what was put aside."""
_NOTE = ".waguard-sequence"
"""In a profile that was put aside: see `Retired`."""

_NAME = r"\d{8}T\d{6}-(?P<lineage>[0-9a-f]{8})(-[0-9a-f]{4})?"
_CODE = r"[A-Za-z0-9_-]+"
_GENERATION = re.compile(_NAME)
_PART = re.compile(rf"(?P<generation>{_NAME})(\.(lock|json|wgb))?")
_RETIRED = re.compile(
    rf"(?P<code>{_CODE})\.(?P<generation>{_NAME})\.(?P<reason>[a-z_]+?)(\.(?P<state>saved|empty))?"
)


@dataclass(frozen=True, slots=True)
class Profile:
    generation: str
    path: Path
    lock: Path
    witness: Path
    """See `witness`."""
    sealed: Path

    @property
    def lineage(self) -> str:
        """What it has in common with the snapshots that were taken of it, and with what was restored from them."""
        return lineage_of(self.generation)

    @property
    def files(self) -> tuple[Path, ...]:
        """All that may be of it."""
        return self.path, self.witness, self.sealed, self.lock


class Place(StrEnum):
    """Where the current profile of a client is."""

    NONE = "none"
    """There is none, and none is missing."""
    PLAIN = "plain"
    SEALED = "sealed"
    LOST = "lost"
    """There was one, and nobody has dropped it."""


@dataclass(frozen=True, slots=True)
class Retired:
    """A profile that was put aside."""

    path: Path
    code: str
    generation: str
    reason: str
    saved: bool
    """There is a snapshot of it, or there was never a login in it: nothing is lost with it."""
    since: float
    """Unix time, seconds."""
    sequence: int = 0
    """Of the newest snapshot when it was put aside; 0 if there was none, or nobody has noted it."""

    @property
    def lineage(self) -> str:
        return lineage_of(self.generation)


_NO_LINKS = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS})


def look_for_links(root: Path) -> None:
    """Whether a directory is on a file system that has symbolic links. Raises `ConfigError` if not."""
    with partial(root / "link") as link:
        try:
            link.symlink_to("nowhere")
        except OSError as error:
            if error.errno in _NO_LINKS:  # what else is in the way, a full disk say, is told where it matters
                raise without_links(root, error) from None


def without_links(root: Path, error: OSError) -> ConfigError:
    """What is said where there are none."""
    return ConfigError(
        f"sessions.dir: the file system of {root} has no symbolic links ({error.strerror}), and each client's profile is found by one.",
        hint="Put sessions.dir on a file system of Linux (ext4, xfs, btrfs, NFS): SMB shares, FAT and some of FUSE have none.",
    )


def bytes_below(top: Path) -> int:
    """What a file or directory takes on disk; what vanishes meanwhile counts as nothing. Links are not followed."""
    found = 0
    for entry in walk(top):
        with contextlib.suppress(OSError):
            if not entry.is_dir(follow_symlinks=False):
                found += entry.stat(follow_symlinks=False).st_blocks * 512
    with contextlib.suppress(OSError):
        found += os.lstat(top).st_blocks * 512
    return found


def _nowhere(link: Path, what: str) -> StorageFailed:
    return StorageFailed(
        f"{link} is {what}, its client has a login, and where that is nobody knows. Nothing was started in its place.",
        hint=f"If you know which of .profiles it was: ln -sfn ../.profiles/GENERATION {link}. To give the login up: rm -r {link.parent}. "
        "Then restart the daemon.",
    )


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


def made_at(generation: str) -> float | None:
    """Unix time, from the name; none if there is no such time."""
    try:
        return float(calendar.timegm(time.strptime(generation[:15], "%Y%m%dT%H%M%S")))
    except ValueError:
        return None


def lineage_of(generation: str) -> str:
    found = _GENERATION.fullmatch(generation)
    return found["lineage"] if found else ""


class Profiles:
    """The one owner of the directories below ``root``."""

    def __init__(self, root: Path, user: User | None, runtime: Path | None = None) -> None:
        self.root = root
        self.user = user
        self._profiles = root / ".profiles"
        self._plain = runtime or self._profiles
        # One on each file system: what is put aside goes by a rename.
        self._retired = tuple(dict.fromkeys((root / ".retired", (runtime or root) / ".retired")))
        self._trying = threading.Lock()
        """So that nobody who only looks at a lock, or removes it, is met by whoever wants it; and none has a lock whose
        file is gone."""

    def make_room(self) -> None:
        """Create the directories. Raises `ConfigError` where there can be no links, `StorageFailed`."""
        with as_storage_error(f"create {self.root}"):
            # Others may pass but not look: where there is no bubblewrap the browsers' user has to reach its profile.
            for directory, mode in (
                (self.root, 0o711),
                (self._profiles, 0o711),
                (self._plain, 0o711),
                *((place, 0o700) for place in self._retired),
            ):
                directory.mkdir(mode=mode, parents=True, exist_ok=True)
            look_for_links(self.root)

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
        if not _GENERATION.fullmatch(generation):
            return Place.NONE, None
        profile = self.profile(generation)
        if profile.path.is_dir():
            return Place.PLAIN, profile
        if profile.sealed.is_file():
            return Place.SEALED, profile
        # Whoever died between the two steps of `retire` had dropped it.
        dropped = any(one.generation == generation and one.reason in DROPPED for one in self.retired())
        return (Place.NONE, None) if dropped else (Place.LOST, profile)

    def mend_link(
        self, code: ClientCode, generation: str, lineages: Callable[[], Sequence[str]], *, has_login: bool
    ) -> str:
        """See to it that the code's link is one, after a copy that has left it out, followed it, or made a file of it; what was
        wrong, empty if nothing was.

        ``generation`` is what it pointed at, as far as is known; ``lineages`` are those of the client's snapshots, the newest
        first. Raises `StorageFailed` if there is a login and nobody knows where.
        """
        link = Below(self.root, f"{code}/profile")
        with as_storage_error(f"mend {link.path}"):
            status = link.status()
            if status is not None and stat.S_ISLNK(status.st_mode):
                return ""
            known = generation or self._named_in(link)
            if not known and (has_login or status is not None):
                known = self._likely(lineages())
            if status is None:
                return self._mend_missing(code, known, has_login=has_login)
            if not (known or has_login or lineages()):
                return ""  # no directory of ours
            if stat.S_ISDIR(status.st_mode):
                return self._mend_followed(code, known or self.new_generation(*lineages()[:1]))
            if has_login and not known:
                raise _nowhere(link.path, "no link")
            link.path.replace(link.path.with_name(f"profile.{secrets.token_hex(4)}.unreadable"))
            if known:
                self._point(code, self.profile(known))
            return "it was no link but a file"

    def _mend_missing(self, code: ClientCode, known: str, *, has_login: bool) -> str:
        link = self.root / code / "profile"
        if not known and has_login:
            raise _nowhere(link, "gone")
        # Whoever died between the two steps of `retire`, or in the middle of a cleanup, had dropped it.
        if not known or any(one.generation == known and one.reason in DROPPED for one in self.retired()):
            return ""
        self._point(code, self.profile(known))
        return "it was gone"

    def _mend_followed(self, code: ClientCode, known: str) -> str:
        """What a copy that follows links makes: the profile twice, or once where the link was."""
        link, profile = self.root / code / "profile", self.profile(known)
        if profile.path.is_dir():
            link.rename(self._retired[0] / f"{code}.{self.new_generation(profile.lineage)}.{COPY}")
        else:
            link.rename(profile.path)
        self._point(code, profile)
        return "it was no link but a directory, as of a copy that follows links"

    def _named_in(self, link: Below) -> str:
        """What a copy has written down instead of a link."""
        try:
            name = PurePosixPath(link.data(4096).decode(errors="replace").strip()).name
        except OSError:
            return ""
        return name if _GENERATION.fullmatch(name) else ""

    def _likely(self, lineages: Sequence[str]) -> str:
        """The newest profile of those that the client's snapshots were taken of."""
        found = [one for one in self.generations() if lineage_of(one) in lineages]
        there = [one for one in found if (it := self.profile(one)).path.is_dir() or it.sealed.is_file()]
        return max(there, key=lambda one: (-lineages.index(lineage_of(one)), one), default="")

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
        found = (_PART.fullmatch(name) for name in sorted(names))
        return list(dict.fromkeys(one["generation"] for one in found if one is not None))

    def staging(self, code: ClientCode) -> Path:
        """Where a copy of the client's profile may be laid out: on the same file system, so that links to it can be made."""
        return self._plain / f"{code}.copy"

    def partials(self) -> Sequence[Path]:
        """Files and directories that were never completed, wherever we write; those that are being written now too."""
        homes = (*self.root.glob("*"), *self.root.glob(".backups/*"))
        places = {
            self.root,
            self._profiles,
            self._plain,
            *self._retired,
            *(home for home in homes if re.fullmatch(_CODE, home.name)),
        }
        with as_storage_error(f"read {self.root}"):
            return sorted(
                Path(entry.path)
                for place in places
                if place.is_dir() and not place.is_symlink()
                for entry in os.scandir(place)
                if is_partial(entry.name)
            )

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
        profile = self.profile(self.new_generation())
        with as_storage_error(f"create {profile.path}"):
            try:
                self.make_directory(profile.path)
                self._point(code, profile)
            except BaseException:
                with contextlib.suppress(OSError):
                    profile.path.rmdir()
                raise
            sync_directory(self._plain)
        return profile

    @staticmethod
    def new_generation(lineage: str = "") -> str:
        """A name for a new profile, which goes on with this lineage or begins one."""
        now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        return f"{now}-{lineage}-{secrets.token_hex(2)}" if lineage else f"{now}-{secrets.token_hex(4)}"

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

    def replace(
        self, code: ClientCode, profile: Profile, reason: str, *, worthless: bool = False, sequence: int = 0
    ) -> Path | None:
        """Make this profile current, then put the one before aside; returns where, or none if there was none.

        There is a current profile all the time; a crash in between leaves the one before without an owner.
        """
        before = self.current(code)
        with as_storage_error(f"replace the profile of {code}"):
            self._point(code, profile)
        if before is None:
            return None
        return self._put_aside(code, before, reason, worthless=worthless, sequence=sequence)

    def _point(self, code: ClientCode, profile: Profile) -> None:
        link = self.home(code) / "profile"
        target = Path("..") / ".profiles" / profile.generation
        with partial(link) as beside:
            try:
                beside.symlink_to(target if self._plain == self._profiles else profile.path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise without_links(self.root, error) from None
            beside.replace(link)
        sync_directory(link.parent)

    def cache_bytes(self, profile: Profile) -> int:
        """What the profile's caches take on disk."""
        return sum(bytes_below(path) for path in self._caches(profile))

    @staticmethod
    def _caches(profile: Profile) -> Sequence[Path]:
        """Those that are there. Behind a link, which a hostile browser could make, is none."""
        top = profile.path.resolve()
        found = (top / name for name in CACHES)
        return [path for path in found if path.is_dir() and path.resolve() == path]

    def prune(self, profile: Profile, limit_bytes: int) -> int:
        """Drop its caches if they take more; how many bytes that were. Only with its lock held. Raises `StorageFailed`."""
        found = self.cache_bytes(profile)
        if found <= limit_bytes:
            return 0
        with as_storage_error(f"prune {profile.path}"):
            for path in self._caches(profile):
                remove_tree(path)
        return found

    def lock(self, profile: Profile) -> int:
        """Take the profile's lock; the fd is the caller's, and the lock goes with its last copy.

        Raises `ProfileLocked` when somebody holds it.
        """
        with self._trying:
            return self._take(profile)

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
                hint=f"See who holds it: fuser -v {profile.lock}",
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
            with self._trying:
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
            place = self._put_aside(code, profile, reason, worthless=worthless, sequence=sequence)
        with as_storage_error(f"retire the profile of {code}"):
            link.unlink(missing_ok=True)
            if place is not None:
                sync_directory(link.parent)
        return place

    def retire_ownerless(self, profile: Profile) -> Path | None:
        """Put aside one that no client's link points at. Raises `ProfileLocked` when somebody uses it all the same."""
        fd = self.lock(profile)
        try:
            return self._put_aside(NOBODY, profile, OWNERLESS)
        finally:
            os.close(fd)

    def _put_aside(
        self, code: str, profile: Profile, reason: str, *, worthless: bool = False, sequence: int = 0
    ) -> Path | None:
        ending = ".empty" if worthless else ""
        directory = self._retired[0 if profile.path.parent == self._profiles else -1]
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

    def drop_lock(self, profile: Profile) -> None:
        """Prove that nobody holds a retired profile's lock, by taking it, and remove what lies beside the profile. Raises `ProfileLocked`."""
        with self._trying:
            fd = self._take(profile)
            try:
                with as_storage_error(f"delete {profile.lock}"):
                    profile.witness.unlink(missing_ok=True)
                    profile.lock.unlink(missing_ok=True)
            finally:
                os.close(fd)

    def retired(self) -> Sequence[Retired]:
        """What was put aside, the oldest first. Only names of our own making count."""
        found = []
        with as_storage_error(f"read {self._retired[0]}"):
            entries = [entry for place in self._retired for entry in os.scandir(place)]
            for entry in entries:
                ours = _RETIRED.fullmatch(entry.name)
                if ours is not None and entry.is_dir(follow_symlinks=False):
                    since = entry.stat(follow_symlinks=False).st_mtime
                    path, saved = Path(entry.path), ours["state"] is not None
                    named = ours["code"], ours["generation"], ours["reason"]
                    found.append(Retired(path, *named, saved, since, _noted(path)))
        return sorted(found, key=lambda one: (one.since, one.path))

    def looked_at(self) -> float | None:
        """What the clock said when the ages of these were looked at last, unix time; none if that was never."""
        with contextlib.suppress(OSError):
            return os.lstat(self.root / _LOOKED).st_mtime
        return None

    def note_look(self, now: float) -> None:
        """Note that it says this now. Raises `StorageFailed`."""
        path = self.root / _LOOKED
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

    def delete_retired(self, path: Path) -> None:
        """Delete one retired profile for good. No other is ever deleted. Raises `StorageFailed`."""
        if path.parent not in self._retired or not _RETIRED.fullmatch(path.name):
            raise StorageFailed(f"{path} is not a retired profile of ours, so it is not deleted.")
        with as_storage_error(f"delete {path}"):
            remove_tree(path)
