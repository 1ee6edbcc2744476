"""What happens to a login, and what a page says of it. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from waguard.core.login.state import Standing
from waguard.core.model import PASSKEYS, Link, Reading, Reason


@dataclass(frozen=True, slots=True)
class ProfileKept:
    """The next launch uses the profile that was there."""

    proved: bool = True


@dataclass(frozen=True, slots=True)
class ProfileRestored:
    """The next launch uses one that was made from a snapshot."""

    snapshot: str


@dataclass(frozen=True, slots=True)
class ProfileReturned:
    """The next launch uses one that was put aside, and stood so then."""

    standing: Standing
    snapshot: str = ""


@dataclass(frozen=True, slots=True)
class ProfileFresh:
    """The next launch uses an empty one."""

    damaged: bool = False
    """In the place of one that was damaged."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The daemon goes on with the browser that an earlier one has launched."""

    taken: bool
    """WhatsApp has taken the login in that launch."""


@dataclass(frozen=True, slots=True)
class MarkSeen:
    """The login's mark is on disk."""


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """Of the login as it is."""


@dataclass(frozen=True, slots=True)
class DamageSeen:
    """When the browser had ended: a database was wiped while it ran."""

    why: str


@dataclass(frozen=True, slots=True)
class CleanedUp:
    pass


@dataclass(frozen=True, slots=True)
class PageQuiet:
    """It says nothing of the login."""

    marks: bool | None = None
    """Whether the login's marks are in its storage; None: not to be seen."""
    damage: str = ""
    """What the browser, or what it has made anew, says of a database that was lost."""
    snapshots: Collection[str] = frozenset()
    """Those that the profile could be restored from."""


@dataclass(frozen=True, slots=True)
class PageConnected(PageQuiet):
    """WhatsApp has taken the login."""


@dataclass(frozen=True, slots=True)
class PageAsksScan(PageQuiet):
    """... though the login's marks are in its storage, or nobody can see whether they are."""


@dataclass(frozen=True, slots=True)
class PageEmpty(PageQuiet):
    """It asks for a scan, and the login's marks are not in its storage."""


@dataclass(frozen=True, slots=True)
class PageLoggedOut(PageQuiet):
    """Its address says so. One that finds only IndexedDB empty may go there too."""


Event = (
    ProfileKept
    | ProfileRestored
    | ProfileReturned
    | ProfileFresh
    | Adopted
    | MarkSeen
    | SnapshotTaken
    | DamageSeen
    | CleanedUp
    | PageQuiet
    | PageConnected
    | PageAsksScan
    | PageEmpty
    | PageLoggedOut
)


def told(reading: Reading) -> type[PageQuiet]:
    """What a page says of the login that its profile has."""
    if reading.link in {Link.SYNCING, Link.CONNECTED}:
        return PageConnected
    if reading.reason in PASSKEYS:
        return PageQuiet
    if reading.reason is Reason.LOGGED_OUT:
        return PageLoggedOut
    if reading.link is not Link.AWAITING_SCAN:
        return PageQuiet
    return PageEmpty if reading.marks is False else PageAsksScan
