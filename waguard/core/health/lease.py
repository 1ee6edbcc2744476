"""Who holds the page of a client, for what, and until when. Pure; times are seconds of one clock, the caller's.

A probe takes for no fault what a holder does to the page, and no remedy pulls the page away unseen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from waguard.core.health.plans import Remedy


class Use(StrEnum):
    """What a page can be held for; each by one holder at a time."""

    STILL = "still"
    """Its processes are stopped for a moment, so that its files can be copied as one."""
    DRIVEN = "driven"
    """Somebody works in it."""


PULLS: Mapping[Use, frozenset[Remedy]] = {
    Use.STILL: frozenset(Remedy),
    Use.DRIVEN: frozenset(
        {Remedy.TERMINATE, Remedy.RELOAD, Remedy.RESTART, Remedy.RESTORE, Remedy.FRESH},
    ),
}
"""Remedies that take the page away from who holds it. What is held still goes on in a moment, so it is waited for: to let it go on
would tear the copy. Who drives it is told why, and has it no more: it may be in use for days."""


@dataclass(frozen=True, slots=True)
class Hold:
    use: Use
    holder: object
    """Told by its text."""
    purpose: str
    since_s: float
    until_s: float
    """From then on nobody has to mind it. Infinite: until it is given back."""

    def told(self) -> str:
        return f"{self.holder} holds the page: {self.purpose}"


class Held(Exception):
    """It is held for that already."""

    def __init__(self, hold: Hold) -> None:
        super().__init__(hold.told())
        self.hold = hold


@dataclass(frozen=True, slots=True)
class Lease:
    holds: Mapping[Use, Hold]
    was_still_s: float = 0.0
    """When it was let go on last."""

    def held(self, use: Use, now_s: float) -> Hold | None:
        hold = self.holds.get(use)
        return hold if hold is not None and now_s < hold.until_s else None

    def take(self, hold: Hold) -> "Lease":
        """Raises `Held`."""
        if (other := self.held(hold.use, hold.since_s)) is not None:
            raise Held(other)
        return replace(self, holds={**self.holds, hold.use: hold})

    def give_back(self, hold: Hold, now_s: float) -> "Lease":
        """Harmless if somebody else has it by now."""
        kept = {use: one for use, one in self.holds.items() if one is not hold}
        still = now_s if hold.use is Use.STILL else self.was_still_s
        return Lease(kept, max(still, self.was_still_s))

    def pulled(self, remedy: Remedy, now_s: float) -> tuple[Hold, ...]:
        """From whom this remedy would take the page."""
        held = (self.held(use, now_s) for use, remedies in PULLS.items() if remedy in remedies)
        return tuple(hold for hold in held if hold is not None)

    def was_still(self, looked_s: float, now_s: float) -> bool:
        """Whether what was looked at then may have been held still."""
        return looked_s < self.was_still_s or self.held(Use.STILL, now_s) is not None


FREE = Lease({})
