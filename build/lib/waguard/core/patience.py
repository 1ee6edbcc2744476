"""From what probes see at each look to what is found: a complaint counts once it has lasted. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from waguard.core.health import Fault


@dataclass(frozen=True, slots=True)
class Complaint:
    since: float
    """When it was first seen; in seconds of a clock that stands still while the daemon does."""
    found: bool = False
    """It has lasted, and is told at each look."""


@dataclass(frozen=True, slots=True)
class Due:
    """A complaint that is to be told."""

    fault: Fault
    lasted_s: float
    first: bool


Book = Mapping[Fault, Complaint]


def update(
    book: Book,
    asked: Collection[Fault],
    seen: Collection[Fault],
    patience_s: Mapping[Fault, float],
    now: float,
) -> tuple[Book, tuple[Due, ...], tuple[Fault, ...]]:
    """The book after a look of a probe that was ``asked`` for these faults and has ``seen`` those.

    Returns besides what is to be told, and which faults are over that were told before.
    """
    after = {fault: complaint for fault, complaint in book.items() if fault not in asked}
    due = []
    for fault in sorted(seen):
        complaint = book.get(fault, Complaint(now))
        lasted = now - complaint.since
        if complaint.found or lasted >= patience_s.get(fault, 0.0):
            due.append(Due(fault, lasted, not complaint.found))
            complaint = replace(complaint, found=True)
        after[fault] = complaint
    over = [fault for fault in asked if fault not in seen and fault in book and book[fault].found]
    return after, tuple(due), tuple(sorted(over))


LONGER = 4.0
"""What gets on may take so many times as long as what does not."""


def left_s(began: float, moved: float, limit_s: float, now: float) -> float:
    """How long is still waited for what has got on last when it ``moved``: ``limit_s`` from then, in all `LONGER` times that."""
    return min(moved + limit_s, began + LONGER * limit_s) - now


def doubt(book: Book, asked: Collection[Fault]) -> Book:
    """The book after a look of a probe that could not tell: what has been told stands, what was only suspected does not."""
    return {fault: one for fault, one in book.items() if one.found or fault not in asked}
