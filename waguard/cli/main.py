"""The entry point, and nothing else: what could be interrupted is imported inside."""

import atexit
import gc
import os
import signal
import sys

from waguard.cli.exits import ExitCode


def main() -> None:
    _stand_on_firm_ground()
    # What ends anyway is not searched for cycles: that is an eighth of the processor time of a short command.
    atexit.register(gc.freeze)
    # timeout(1) and friends end a command as Ctrl-C does, so that the terminal gets its cursor back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from waguard.cli.app import app  # noqa: PLC0415 (Ctrl-C during half a second of imports is no traceback either)

        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a terminal that is not UTF-8
        app(prog_name="waguard")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def _stand_on_firm_ground() -> None:
    """What whoever starts a program mostly leaves to it, and cron, ssh and supervisors sometimes do not."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would leave no child to be waited for
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:  # closed: the next file that is opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (open for good)
