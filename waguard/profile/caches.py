"""What Chromium makes anew: it may go whenever no browser uses the profile. Blocking: call from a thread."""

from collections.abc import Sequence
from pathlib import Path

from waguard.profile.generation import Profile
from waguard.profile.login_files import CACHES
from waguard.system.files import as_storage_error, bytes_below, remove_tree


def size(profile: Profile) -> int:
    """What the profile's caches take on disk, in bytes."""
    return sum(bytes_below(path) for path in _caches(profile))


def prune(profile: Profile, limit_bytes: int) -> int:
    """Drop its caches if they take more; how many bytes that were. Only with its lock held. Raises `StorageFailed`."""
    found = size(profile)
    if found <= limit_bytes:
        return 0
    with as_storage_error(f"prune {profile.path}"):
        for path in _caches(profile):
            remove_tree(path)
    return found


def _caches(profile: Profile) -> Sequence[Path]:
    """Those that are there. Behind a link, which a hostile browser could make, is none."""
    top = profile.path.resolve()
    found = (top / name for name in CACHES)
    return [path for path in found if path.is_dir() and path.resolve() == path]
