"""What `waguard doctor` looks at, by subject: one small function for each thing, which says what it saw."""

import pwd
from dataclasses import dataclass

from waguard.cli.findings import Grade


@dataclass(frozen=True, slots=True)
class Seen:
    """What one check saw. A check may as well raise `WaguardError`: that is a problem, with its hint."""

    what: str
    grade: Grade = Grade.OK
    mend: str = ""


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container that was given any number
        return str(uid)
