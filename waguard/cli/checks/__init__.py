"""What `waguard doctor` looks at, by subject: one small function for each thing, which says what it saw."""

import pwd
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one check saw. A check may as well raise `WaguardError`: that is a problem, with its hint."""

    what: str
    grade: Grade = Grade.OK
    hint: str = ""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """As `doctor --json` prints it, and `install` reads it."""

    check: str
    grade: Grade
    seen: str
    hint: str = ""
    """The command, or what else to do."""


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container that was given any number
        return str(uid)
