"""Profiles by name: what one is called, and what it is called when it has been put aside."""

import calendar
import re
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

DAMAGED = "damaged"
"""The reason of a profile that was put aside because of what the check found."""
COPY = "copy"
"""The reason of what a copy has made of a link."""
OWNERLESS = "ownerless"
"""The reason of one that no client's link pointed at."""
DROPPED = frozenset({"cleanup", "fresh"})
"""The reasons of those that somebody wanted gone."""
VALUES = "values"
"""In the place of a reason: it is no profile, but what apps have kept with the session, which a cleanup has put aside."""
REPLACED = frozenset({"restore", "undo"})
"""The reasons of those in whose place somebody wanted another."""
PUT_ASIDE = DROPPED | REPLACED | {DAMAGED, OWNERLESS, COPY}
"""The reasons of all profiles."""
NOBODY = "_"
"""In the place of a client code: whose it was is not known."""

_NAME = r"\d{8}T\d{6}-(?P<lineage>[0-9a-f]{8})(-[0-9a-f]{4})?"
CODE = r"[A-Za-z0-9_-]+"
GENERATION = re.compile(_NAME)
PART = re.compile(rf"(?P<generation>{_NAME})(\.(lock|json|wgb))?")
RETIRED = re.compile(
    rf"(?P<code>{CODE})\.(?P<generation>{_NAME})\.(?P<reason>[a-z_]+?)(\.(?P<state>saved|empty))?"
)


@dataclass(frozen=True, slots=True)
class Profile:
    generation: str
    path: Path
    lock: Path
    witness: Path
    """See `witness`."""
    sealed: Path

    @property
    def lineage(self) -> str:
        """What it has in common with the snapshots that were taken of it, and with what was restored from them."""
        return lineage_of(self.generation)

    @property
    def files(self) -> tuple[Path, ...]:
        """All that may be of it."""
        return self.path, self.witness, self.sealed, self.lock


class Place(StrEnum):
    """Where the current profile of a client is."""

    NONE = "none"
    """There is none, and none is missing."""
    PLAIN = "plain"
    SEALED = "sealed"
    LOST = "lost"
    """There was one, and nobody has dropped it."""


@dataclass(frozen=True, slots=True)
class Retired:
    """A profile that was put aside, or values."""

    path: Path
    code: str
    generation: str
    reason: str
    saved: bool
    """There is a snapshot of it, or there was never a login in it: no login is lost with it."""
    since: float
    """Unix time, seconds."""
    sequence: int = 0
    """Of the newest snapshot when it was put aside; 0 if there was none, or nobody has noted it."""

    @property
    def lineage(self) -> str:
        return lineage_of(self.generation)


def made_at(generation: str) -> float | None:
    """Unix time, from the name; none if there is no such time."""
    try:
        return float(calendar.timegm(time.strptime(generation[:15], "%Y%m%dT%H%M%S")))
    except ValueError:
        return None


def lineage_of(generation: str) -> str:
    found = GENERATION.fullmatch(generation)
    return found["lineage"] if found else ""


def new_generation(lineage: str = "") -> str:
    """A name for a new profile, which goes on with this lineage or begins one."""
    now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return f"{now}-{lineage}-{secrets.token_hex(2)}" if lineage else f"{now}-{secrets.token_hex(4)}"
