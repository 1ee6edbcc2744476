"""Where profiles live, who holds them, how they leave. Blocking: call from a thread.

sessions/<code>/profile -> ../.profiles/<generation>     the link is the one truth about which profile is current
sessions/.profiles/<generation>/                         a Chromium user data directory
sessions/.profiles/<generation>.lock                     flock, held by the sandbox until all of it is gone
sessions/.profiles/<generation>.json                     what the login's files were when its browser had ended
sessions/.retired/<code>.<generation>.<reason>/          left by one rename, deleted after the retention time
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waguard.core.model import ClientCode
from waguard.errors import ProfileFailed, ProfileLocked
from waguard.files import saying, sync_directory
from waguard.sandbox import User

DAMAGED = "damaged"
"""The reason of a profile that was put aside because of what the check found."""

_GENERATION = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")
_RETIRED = re.compile(
    r"(?P<code>[A-Za-z0-9_-]+)\.(?P<generation>\d{8}T\d{6}-[0-9a-f]{8})\.(?P<reason>[a-z_]+)"
)


@dataclass(frozen=True, slots=True)
class Profile:
    generation: str
    path: Path
    lock: Path
    witness: Path
    """See `witness`."""


class Profiles:
    """The one owner of the directories below ``root``."""

    def __init__(self, root: Path, user: User | None) -> None:
        self._root = root
        self._user = user
        self._profiles = root / ".profiles"
        self._retired = root / ".retired"

    def make_room(self) -> None:
        """Create the directories. Raises `ProfileFailed`."""
        with saying(f"create {self._root}"):
            # Others may pass but not look: where there is no bubblewrap the browsers' user has to reach its profile.
            for directory, mode in ((self._root, 0o711), (self._profiles, 0o711), (self._retired, 0o700)):
                directory.mkdir(mode=mode, parents=True, exist_ok=True)

    def home(self, code: ClientCode) -> Path:
        """The directory of a client code, made if it is not there."""
        home = self._root / code
        with saying(f"create {home}"):
            home.mkdir(mode=0o700, exist_ok=True)
        return home

    def codes(self) -> Sequence[str]:
        """Names of the clients' directories, as they are on disk."""
        with saying(f"read {self._root}"):
            return sorted(
                entry.name for entry in os.scandir(self._root) if entry.is_dir() and entry.name[0] != "."
            )

    def current(self, code: ClientCode) -> Profile | None:
        """The profile that the code's next browser uses; none if there is none, or its link points nowhere."""
        link = self._root / code / "profile"
        try:
            generation = link.readlink().name
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINVAL}:
                return None
            raise ProfileFailed(f"Cannot read {link}: {error.strerror}.", errno=error.errno) from None
        profile = self.profile(generation) if _GENERATION.fullmatch(generation) else None
        return profile if profile is not None and profile.path.is_dir() else None

    def profile(self, generation: str) -> Profile:
        beside = self._profiles / generation
        return Profile(
            generation, beside, beside.with_name(f"{generation}.lock"), beside.with_name(f"{generation}.json")
        )

    @property
    def uid(self) -> int:
        """Whose the profiles are."""
        return self._user.uid if self._user is not None else os.geteuid()

    def drop_singletons(self, profile: Profile) -> None:
        """Remove Chromium's own lock, which a killed browser leaves; only with our lock held and no browser alive."""
        with saying(f"clear {profile.path}"):
            for name in ("SingletonLock", "SingletonCookie", "SingletonSocket"):
                (profile.path / name).unlink(missing_ok=True)

    def create(self, code: ClientCode) -> Profile:
        """A new, empty profile, made current. Raises `DiskFull`, `ProfileFailed`."""
        generation = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(4)
        profile = self.profile(generation)
        link = self.home(code) / "profile"
        beside = link.with_name(f"profile.{secrets.token_hex(4)}")
        with saying(f"create {profile.path}"):
            try:
                profile.path.mkdir(mode=0o700)
                if self._user is not None:
                    os.chown(profile.path, self._user.uid, self._user.gid)
                beside.symlink_to(Path("..") / ".profiles" / generation)
                beside.replace(link)
            except BaseException:
                with contextlib.suppress(OSError):
                    beside.unlink(missing_ok=True)
                    profile.path.rmdir()
                raise
            sync_directory(self._profiles)
            sync_directory(link.parent)
        return profile

    def lock(self, profile: Profile) -> int:
        """Take the profile's lock; the fd is the caller's, and the lock goes with its last copy.

        Raises `ProfileLocked` when somebody holds it.
        """
        with saying(f"open {profile.lock}"):
            fd = os.open(profile.lock, os.O_RDWR | os.O_CREAT, 0o600)
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

    def retire(self, code: ClientCode, reason: str) -> Path | None:
        """Put the current profile aside by one rename; returns where, or none if there was none.

        A crash after the rename leaves a link that points nowhere, which counts as no profile.
        """
        profile = self.current(code)
        link = self._root / code / "profile"
        place = None
        with saying(f"retire the profile of {code}"):
            if profile is not None:
                place = self._retired / f"{code}.{profile.generation}.{reason}"
                os.utime(profile.path)  # the retention time counts from here, even if we die after the rename
                profile.path.rename(place)
            link.unlink(missing_ok=True)
            if place is not None:
                for directory in (self._retired, self._profiles, link.parent):
                    sync_directory(directory)
        return place

    def drop_lock(self, profile: Profile) -> None:
        """Prove that nobody holds a retired profile's lock, by taking it, and remove what lies beside the profile. Raises `ProfileLocked`."""
        fd = self.lock(profile)
        try:
            with saying(f"delete {profile.lock}"):
                profile.witness.unlink(missing_ok=True)
                profile.lock.unlink(missing_ok=True)
        finally:
            os.close(fd)

    def expired(self, keep_s: float) -> Sequence[Path]:
        """Retired profiles past their retention, oldest first. Only names of our own making count.

        Not those that were put aside as damaged: a person may still get a login out of them.
        """
        deadline = time.time() - keep_s
        with saying(f"read {self._retired}"):
            entries = [entry for entry in os.scandir(self._retired) if entry.is_dir(follow_symlinks=False)]
            aged = sorted((entry.stat().st_mtime, Path(entry.path)) for entry in entries)
        found = ((at, path, _RETIRED.fullmatch(path.name)) for at, path in aged)
        return [path for at, path, ours in found if at <= deadline and ours and ours["reason"] != DAMAGED]

    def delete_retired(self, path: Path) -> None:
        """Delete one retired profile for good. Nothing else is ever deleted. Raises `ProfileFailed`."""
        if path.parent != self._retired or not _RETIRED.fullmatch(path.name):
            raise ProfileFailed(f"{path} is not a retired profile of ours, so it is not deleted.")
        with saying(f"delete {path}"):
            shutil.rmtree(path)
