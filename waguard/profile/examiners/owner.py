"""Whether the browser may read and write its own profile: one that cannot open a database starts an empty one."""

import stat
from collections.abc import Iterator

from waguard.errors import ProfileFailed
from waguard.profile.examiners.subject import Doubt, Subject
from waguard.profile.login import databases


def examine(subject: Subject) -> Iterator[Doubt]:
    """Raises `ProfileFailed`: nothing is damaged, and one command mends it."""
    profile = subject.profile
    places = [profile, *profile.glob("Default")]
    for database in databases(profile, subject.origin):
        places += [database.parent, database, *database.iterdir()]
    for place in places:
        status = place.lstat()
        wanted = stat.S_IRWXU if stat.S_ISDIR(status.st_mode) else stat.S_IRUSR | stat.S_IWUSR
        if status.st_uid != subject.uid or status.st_mode & wanted != wanted:
            raise ProfileFailed(
                f"{place} is not the browser's own: uid {status.st_uid}, mode {stat.filemode(status.st_mode)}.",
                hint=f"chown -R {subject.uid} {profile} && chmod -R u+rwX {profile}",
            )
    yield from ()
