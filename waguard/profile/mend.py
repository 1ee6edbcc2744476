"""What is done to a profile before a launch, with its lock held and every process of it proved gone."""

from collections.abc import Sequence
from pathlib import Path

from waguard.profile import leveldb
from waguard.profile.login_files import databases
from waguard.system.files import Below, as_storage_error


def torn_tails(profile: Path, origin: str) -> Sequence[tuple[Below, int]]:
    """Files of the login's databases that end in a torn record, and where the last whole one ends. Raises `StorageFailed`."""
    with as_storage_error(f"read {profile}"):
        return [torn for database in databases(profile, origin) for torn in leveldb.torn_tails(database)]


def drop_tails(tails: Sequence[tuple[Below, int]]) -> None:
    """Cut each where its last whole record ends; nothing readable is lost. Raises `DiskFull`, `StorageFailed`."""
    for file, end in tails:
        with as_storage_error(f"mend {file.path}"):
            file.cut(end)
