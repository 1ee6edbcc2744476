"""Limits of the host that pass: no more open files, no more processes. Said with the limit that was met, and tried again by whoever
wants it; nobody's fault, and no reason to give up.
"""

import errno
import os
import re
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from waguard.errors import LimitReached, WaguardError

RETRY_S = 10.0
"""After so many seconds it is worth trying again."""
_NO_THREAD = "can't start new thread"
"""What Python says of EAGAIN by pthread_create(3)."""
_LAST_WORDS = re.compile(r"Resource temporarily unavailable|can't start new thread")
_CGROUPS = Path("/sys/fs/cgroup")


def reached(error: BaseException) -> LimitReached | None:
    """The limit that an error comes from, if it comes from one."""
    if isinstance(error, OSError):
        if error.errno == errno.EMFILE:
            most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return _limit(
                f"The daemon has as many files open as it may: {most} (ulimit -n; LimitNOFILE= of a unit).",
                "open_files",
            )
        if error.errno == errno.ENFILE:
            return _limit("The machine has as many files open as it may: sysctl fs.file-max.", "open_files")
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return no_process()
    return None


def known(error: BaseException) -> WaguardError | None:
    """The error in our words, if it is one of ours or comes from a limit; None: nobody has foreseen it."""
    return error if isinstance(error, WaguardError) else reached(error)


def no_process() -> LimitReached:
    """No process or thread can be started just now."""
    known = [one for one in (_of_the_user(), _of_the_cgroup()) if one]
    where = (
        f": {'; '.join(known)}" if known else ": ulimit -u, pids.max of its cgroup, or sysctl kernel.pid_max"
    )
    return _limit(f"No more processes or threads can be started{where}.", "processes")


def of_last_words(lines: Iterable[str]) -> LimitReached | None:
    """The limit that a program which has ended has met, by what the C library says of it."""
    words = list(lines)
    if not any(_LAST_WORDS.search(line) for line in words):
        return None
    limit = no_process()
    limit.details = {**limit.details, "stderr": words}
    return limit


@contextmanager
def told() -> Iterator[None]:
    """Turn what comes from a limit, in making fds or starting something, into an error that says which."""
    try:
        yield
    except BlockingIOError:
        raise no_process() from None
    except (OSError, RuntimeError) as error:
        if (limit := reached(error)) is not None:
            raise limit from None
        raise


def _limit(message: str, what: str) -> LimitReached:
    hint = "Raise the limit, or disconnect a session."
    return LimitReached(message, hint=hint, resource=what, retry_after_s=RETRY_S)


def _of_the_user() -> str:
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if most == resource.RLIM_INFINITY or os.geteuid() == 0:  # root is not held to it
        return ""
    return f"this user may have {most} (ulimit -u; LimitNPROC= of a unit)"


def _of_the_cgroup() -> str:
    """Of the one that we are in and those above it, the tightest."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
        below = next(line for line in lines if line.startswith("0::")).removeprefix("0::").strip("/")
        found = [_pids_max(_CGROUPS / part) for part in (Path(below), *Path(below).parents)]
        if most := min((one for one in found if one is not None), default=None):
            return f"its cgroup may have {most} (pids.max; TasksMax= of a unit, podPidsLimit of Kubernetes)"
    return ""


def _pids_max(cgroup: Path) -> int | None:
    try:
        return int((cgroup / "pids.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max", or none is set here
        return None
