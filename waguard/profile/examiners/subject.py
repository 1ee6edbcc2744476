"""What an examiner gets, and what it may say."""

from dataclasses import dataclass
from pathlib import Path

from waguard.core.model import Verdict
from waguard.profile.witness import Witness


@dataclass(frozen=True, slots=True)
class Subject:
    profile: Path
    browser: str
    """Version of the browser that is to use it."""
    origin: str
    """Whose login it is: see `login.origin_of`."""
    uid: int
    """Whom it is to run as."""
    witness: Witness | None = None
    login_on_disk: bool = False
    """The client was connected with it, and the login's mark was seen on disk. Without that its absence says nothing: the
    page may have another name for it."""


@dataclass(frozen=True, slots=True)
class Doubt:
    verdict: Verdict
    path: str
    what: str
