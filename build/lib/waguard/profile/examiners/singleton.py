"""Whether a browser that is none of ours uses the profile: its databases' locks are asked.

Chromium's own ``SingletonLock -> host-pid`` proves nothing: after a crash, or in a sandbox, the pid is somebody else's.
"""

import os
from collections.abc import Iterator

from waguard.core.model import Verdict
from waguard.core.plain_text import plain
from waguard.errors import ProfileLocked
from waguard.profile import in_use
from waguard.profile.examiners.subject import Doubt, Subject


def examine(subject: Subject) -> Iterator[Doubt]:
    """Raises `ProfileLocked` when somebody has a database of it open."""
    if (held := in_use.holder(subject.profile / "Default")) is not None:
        path, pid = held
        raise ProfileLocked(
            f"A browser that is none of waguard's is using {subject.profile}: {f'pid {pid}' if pid else 'a process'} "
            f"has {path.relative_to(subject.profile)} locked.",
            hint=f"See: ps -o pid,user,cmd -p {pid}" if pid else "It may run in a container. See: lslocks",
            pids=[pid] if pid else [],
        )
    lock = subject.profile / "SingletonLock"
    if lock.is_symlink():
        whose = plain(os.fspath(lock.readlink()), 100)
        yield Doubt(Verdict.SUSPECT, lock.name, f"left by a browser that is gone ({whose})")
