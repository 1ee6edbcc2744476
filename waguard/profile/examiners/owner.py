"""Whether the browser may read and write its own profile: one that cannot open a database starts an empty one."""

import stat
from collections.abc import Iterator
from os import stat_result
from pathlib import Path, PurePosixPath

from waguard.errors import ProfileNotOwned
from waguard.profile.examiners.subject import Doubt, Subject
from waguard.profile.login_files import databases
from waguard.system.files import Below


def examine(subject: Subject) -> Iterator[Doubt]:
    """Raises `ProfileNotOwned`: nothing is damaged, and one command mends it."""
    profile = subject.profile
    for place, status in _places(profile, subject.origin):
        wanted = stat.S_IRWXU if stat.S_ISDIR(status.st_mode) else stat.S_IRUSR | stat.S_IWUSR
        if status.st_uid != subject.uid or status.st_mode & wanted != wanted:
            raise ProfileNotOwned(
                f"{place} is not the browser's own: uid {status.st_uid}, mode {stat.filemode(status.st_mode)}.",
                hint=f"chown -R {subject.uid} {profile} && chmod -R u+rwX {profile}",
            )
    yield from ()


def _places(profile: Path, origin: str) -> Iterator[tuple[Path, stat_result]]:
    for place in (Below(profile), Below(profile, "Default")):
        if (status := place.status()) is not None:
            yield place.path, status
    for database in databases(profile, origin):
        for place in (Below(profile, str(PurePosixPath(database.name).parent)), database):
            if (status := place.status()) is not None:
                yield place.path, status
        for name, status in database.contents().items():
            yield (database / name).path, status
