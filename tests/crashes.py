"""Work that dies at each of its steps."""

import os
import sys
from collections.abc import Callable, Container, Iterator


def crash_points(work: Callable[[], object], among: Container[str] | None = None) -> Iterator[int]:
    """Run ``work`` in a child that dies right before its n-th call into C, for each n; ends once it survives.

    With ``among`` only calls of functions with such names count.
    """
    for number in range(1, 10_000):
        pid = os.fork()
        if pid == 0:
            left = number

            def count(_frame: object, event: str, called: object) -> None:
                nonlocal left
                if event != "c_call" or (among is not None and getattr(called, "__name__", "") not in among):
                    return
                left -= 1
                if left == 0:
                    os._exit(9)

            sys.setprofile(count)
            try:
                work()
            except BaseException:  # noqa: BLE001 (the child must end here, whatever happened)
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code != 1, "the work failed by itself"
        yield number
        if code == 0:
            return


STEPS = frozenset(
    {"mkdir", "rename", "replace", "fsync", "unlink", "link", "symlink", "rmdir", "open", "close", "chown"}
)
