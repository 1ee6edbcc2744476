"""With what a command ends: one table, which the documentation and the man pages print."""

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    says: str

    def __new__(cls, code: int, says: str) -> Self:
        made = int.__new__(cls, code)
        made._value_, made.says = code, says
        return made

    DONE = 0, "Done; of a check, nothing was found."
    FAILED = 1, "It, or a part of it, could not be done. The reason is on stderr, with the code of the error."
    USAGE = 2, "The command line or the configuration is wrong. Nothing was done."
    NO_DAEMON = (
        3,
        "No daemon answers, or it does not in time; then what the command changes may have been done: look with `waguard status`. The same command may succeed later.",
    )
    FOUND = 4, "A check was made and has found a problem; what it is stands on stdout."
    LASTING = (
        78,
        "Of `run` under systemd: a person has to mend something, and systemd does not try again. `EX_CONFIG` of sysexits(3).",
    )
    INTERRUPTED = 130, "Ctrl-C, or SIGTERM."
