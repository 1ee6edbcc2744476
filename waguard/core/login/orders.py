"""What is to be done about a login, as its table orders it. Data only."""

from dataclasses import dataclass

from waguard.core.model import Verdict


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold the databases: what is wiped from here on had the login."""


@dataclass(frozen=True, slots=True)
class LetGo:
    """No login is in them any more."""


@dataclass(frozen=True, slots=True)
class MarkRefused:
    """The snapshot is not offered again."""

    snapshot: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Publish an event of the catalogue."""

    name: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Note:
    """What people see of the check of the profile."""

    verdict: Verdict
    what: str


Order = Hold | LetGo | MarkRefused | Announce | Note
