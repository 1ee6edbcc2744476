"""Work that dies at each of its steps."""

import os
import sys
from collections.abc import Callable, Container, Iterator
from pathlib import Path

STEPS = frozenset(
    {"mkdir", "rename", "replace", "fsync", "unlink", "link", "symlink", "rmdir", "open", "close", "chown"}
)
_DIED = 9


def crash_points(work: Callable[[], object], among: Container[str] | None = None) -> Iterator[int]:
    """Run ``work`` in a child that dies right before its n-th call into C, for each n; ends once it survives.

    With ``among`` only calls of functions with such names count.
    """
    for number in range(1, 10_000):
        survived = _run(work, among, _dying_at(number))
        yield number
        if survived:
            return


def crashes_that_show(work: Callable[[], object], among: Container[str], top: Path) -> Iterator[int]:
    """Run ``work`` in a child that survives (0); then in one that dies at n, for each n before which something below ``top`` had changed.

    Who comes after a crash knows no more of it than that: of the thousand calls of a restore 54 are worth dying at. ``top`` has to be as it was each time.
    """
    read, write = os.pipe()
    seen: object = None

    def look(number: int) -> None:
        nonlocal seen
        before, seen = seen, _state(top)
        if seen != before:
            os.write(write, f"{number} ".encode())

    with os.fdopen(read, encoding="ascii") as told:
        try:
            assert _run(work, among, look)
        finally:
            os.close(write)
        numbers = [int(number) for number in told.read().split()]
    yield 0
    for number in numbers:
        assert not _run(work, among, _dying_at(number))
        yield number


def _run(work: Callable[[], object], among: Container[str] | None, called: Callable[[int], None]) -> bool:
    """Whether a child has survived the work that calls this before each call into C, with how many there have been."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def profile(_frame: object, event: str, function: object) -> None:
            nonlocal count
            if event == "c_call" and (among is None or getattr(function, "__name__", "") in among):
                count += 1
                called(count)

        sys.setprofile(profile)
        try:
            work()
        except BaseException:  # noqa: BLE001 (the child must end here, whatever happened)
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in {0, _DIED}, "the work failed by itself"
    return code == 0


def _dying_at(last: int) -> Callable[[int], None]:
    def called(number: int) -> None:
        if number == last:
            os._exit(_DIED)

    return called


def _state(top: Path) -> frozenset[tuple[object, ...]]:
    """All that is there, by what changes with it."""
    seen = ((path, path.lstat()) for path in top.rglob("*"))
    return frozenset(
        (path, of.st_ino, of.st_mode, of.st_uid, of.st_size, of.st_mtime_ns) for path, of in seen
    )
