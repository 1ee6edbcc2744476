"""What `waguard doctor` and `waguard install` find, as data."""

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    grade: Grade
    seen: str
    mend: str = ""
    """The command, or what else to do."""
