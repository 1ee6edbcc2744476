"""What is done to a profile before a launch, with its lock held and every process of it proved gone."""

import os
from collections.abc import Sequence
from pathlib import Path

from waguard.files import saying
from waguard.profile import leveldb
from waguard.profile.witness import databases


def drop_torn_tails(profile: Path, origin: str) -> Sequence[str]:
    """Cut the login's databases where their last whole record ends; returns what was cut. Nothing readable is lost.

    Raises `DiskFull`, `ProfileFailed`.
    """
    cut = []
    with saying(f"mend {profile}"):
        for database in databases(profile, origin):
            for path, end in leveldb.torn_tails(database):
                with path.open("r+b") as file:
                    file.truncate(end)
                    os.fsync(file.fileno())
                cut.append(f"{path.relative_to(profile)} at byte {end}")
    return cut
