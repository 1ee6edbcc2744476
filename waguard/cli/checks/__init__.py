"""What `waguard doctor` looks at, by subject: one small function for each thing, which says what it saw; and what `waguard check` sees."""

import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from waguard.core.model import Verdict


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


class What(StrEnum):
    PROFILE = "profile"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Checked:
    """One thing that was looked at."""

    what: What
    id: str
    """The snapshot's, or the profile's generation."""
    state: str
    """``sound``, ``suspect``, ``in_use`` or ``none``; or what is wrong: ``damaged``, ``lost``, the reason of a snapshot, an error's code."""
    why: str = ""

    @property
    def ok(self) -> bool:
        """What is suspect is used all the same."""
        return self.state in {Verdict.SOUND, Verdict.SUSPECT, "in_use", "none"}


@dataclass(frozen=True, slots=True)
class ClientChecked:
    client: str
    ok: bool
    checked: Sequence[Checked]


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container that was given any number
        return str(uid)
