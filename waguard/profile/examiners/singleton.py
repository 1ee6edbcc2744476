"""Whether a browser that is none of ours uses the profile: Chromium's own lock, ``SingletonLock -> host-pid``."""

import os
from collections.abc import Iterator

from waguard import host
from waguard.errors import ProfileLocked
from waguard.profile.examiners.subject import Doubt, Subject, Verdict


def examine(subject: Subject) -> Iterator[Doubt]:
    """Raises `ProfileLocked` when its holder lives on this machine."""
    lock = subject.profile / "SingletonLock"
    if not lock.is_symlink():
        return
    name, _, pid = os.fspath(lock.readlink()).rpartition("-")
    if name == os.uname().nodename and pid.isdigit() and host.process_row(int(pid)) is not None:
        raise ProfileLocked(
            f"A browser that is none of waguard's may be using {subject.profile}: pid {pid}.",
            hint=f"See: ps -o pid,user,cmd -p {pid}. If it is no browser: rm '{lock}'",
            pids=[int(pid)],
        )
    yield Doubt(Verdict.SUSPECT, lock.name, f"left by a browser that is gone ({name}, pid {pid})")
