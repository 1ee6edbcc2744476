"""What is done to a profile before a launch, with its lock held and every process of it proved gone."""

import os
from collections.abc import Sequence
from pathlib import Path

from waguard.files import saying
from waguard.profile import leveldb
from waguard.profile.login import databases


def torn_tails(profile: Path, origin: str) -> Sequence[tuple[Path, int]]:
    """Files of the login's databases that end in a torn record, and where the last whole one ends. Raises `ProfileFailed`."""
    with saying(f"read {profile}"):
        return [torn for database in databases(profile, origin) for torn in leveldb.torn_tails(database)]


def drop_tails(tails: Sequence[tuple[Path, int]]) -> None:
    """Cut each where its last whole record ends; nothing readable is lost. Raises `DiskFull`, `ProfileFailed`."""
    for path, end in tails:
        with saying(f"mend {path}"), path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
