"""What was done to a client's profile because somebody wanted it, and which of it can be taken back. Pure.

An act is noted before it is done. So the last one is known whatever dies in between, and no clock is asked for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Deed(StrEnum):
    CLEANUP = "cleanup"
    FRESH = "fresh"
    RESTORE = "restore"
    """Also what an import ends with."""
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class Act:
    what: Deed
    at: float
    """When, Unix time, seconds: to be shown, and for nothing else."""
    generation: str
    """Of the profile that was there, and is put aside; empty if none was."""
    values: str = ""
    """What the values are called that are put aside with it, if there are any; empty: they stay."""
    back: str = ""
    """Of an undo: the profile that comes back."""
    done: bool = False
    """All of it is known to be done."""


def happened(act: Act, current: str) -> bool:
    """Whether it has come so far that the profile is another one. ``current``: the generation that the client has, empty if none."""
    if act.done:
        return True
    return current == act.back if act.what is Deed.UNDO else current != act.generation


def last(acts: Sequence[Act], current: str) -> Act | None:
    """The one that an undo takes back, of those that are noted, the newest last; none if the last one has put nothing aside."""
    for act in reversed(acts):
        if happened(act, current):
            return act if act.generation else None
    return None
