"""What happens to a session: what people and the daemon ask for, and what those who carry out orders report. Data only.

Facts about a browser carry the epoch of the launch they belong to, and answers the step: which remedy or rest of it they are about.
"""

from dataclasses import dataclass, field

from waguard.core.health.faults import Fault, Finding
from waguard.core.health.plans import PLANS, Remedy
from waguard.core.model import Failure, Reading


@dataclass(frozen=True, slots=True)
class ConnectAsked:
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class RestoreAsked:
    """Replace the profile by this snapshot, or by the profile of this generation, which was put aside; and connect with it."""

    snapshot: str = ""
    retired: str = ""


@dataclass(frozen=True, slots=True)
class DisconnectAsked:
    pass


@dataclass(frozen=True, slots=True)
class RestartAsked:
    pass


@dataclass(frozen=True, slots=True)
class CleanupAsked:
    pass


@dataclass(frozen=True, slots=True)
class ReturnAsked:
    """By the daemon that has just started: it was wanted before."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """By the daemon that has just started: it has the browser that an earlier one has brought up."""


@dataclass(frozen=True, slots=True)
class RecycleAsked:
    """By the daemon: a new browser is due, and nobody needs the old one just now."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something about one launch, told by whoever carried out an order."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Answer(Fact):
    """... and about what was done last when whoever tells it was asked, or looked."""

    step: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class Prepared(Fact):
    """Nothing of this code runs any more, the profile is there and its lock is ours."""


@dataclass(frozen=True, slots=True)
class Started(Fact):
    """The browser answers over its pipe."""


@dataclass(frozen=True, slots=True)
class Failed(Answer):
    """An order to prepare, launch or open could not be carried out."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class PageRead(Answer):
    reading: Reading


@dataclass(frozen=True, slots=True)
class Held(Fact):
    """The host lets no browser start now; nobody's fault, and nothing was tried."""

    failure: Failure
    retry_s: float


@dataclass(frozen=True, slots=True)
class Unreachable(Answer):
    """There is no way to WhatsApp Web; the browser shows its error page, or still waits for an answer."""

    failure: Failure
    plan: tuple[Remedy, ...] = tuple(PLANS[Fault.OFFLINE])
    why: str = ""


@dataclass(frozen=True, slots=True)
class LoginLost(Fact):
    """The page has no login any more, nobody has logged it out, and there is a snapshot that has it."""

    failure: Failure
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found(Answer):
    """A probe complains, and goes on to do so until it is cured."""

    finding: Finding
    plan: tuple[Remedy, ...] = ()
    """What may help, the best first ..."""
    why: str = ""
    """... and why."""
    snapshot: str = ""
    """What the profile could be restored from."""
    again: bool = False
    """It was told before, and has not ceased since."""


@dataclass(frozen=True, slots=True)
class BrowserExited(Found):
    """The browser has ended by itself, or is cut off from us."""


@dataclass(frozen=True, slots=True)
class Recovered(Fact):
    """The probe that has complained does so no more."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class NotCured(Answer):
    """A remedy could not be applied, or the probe goes on to complain."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Gone(Fact):
    """Every process of the launch is proved gone."""


@dataclass(frozen=True, slots=True)
class NotGone(Fact):
    failure: Failure


@dataclass(frozen=True, slots=True)
class Cleaned(Fact):
    """Every step of the cleanup has run; ``failure`` is set when the processes could not be proved gone."""

    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class RestEnded(Answer):
    """It is time for the next try."""


@dataclass(frozen=True, slots=True)
class WaitEnded(Fact):
    """The backoff, or the cool-down, is over."""


Event = (
    ConnectAsked
    | RestoreAsked
    | DisconnectAsked
    | RestartAsked
    | CleanupAsked
    | ReturnAsked
    | Adopted
    | RecycleAsked
    | Prepared
    | Started
    | Failed
    | Held
    | Unreachable
    | PageRead
    | LoginLost
    | Found
    | BrowserExited
    | Recovered
    | NotCured
    | Gone
    | NotGone
    | Cleaned
    | RestEnded
    | WaitEnded
)
