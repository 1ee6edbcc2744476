"""What is to be done, as the table orders it. Data only.

`Prepare`, `Launch`, `Open`, `Stop`, `Clean` and `BackOff` are slow and exclude each other: a new one calls off the one under way.
"""

from dataclasses import dataclass

from waguard.core.health.faults import Fault
from waguard.core.health.plans import Remedy
from waguard.core.model import Source, Wanted


@dataclass(frozen=True, slots=True)
class Prepare:
    """Admit the start, see that nothing of this code runs, have a profile with its lock taken."""

    epoch: int
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    epoch: int


@dataclass(frozen=True, slots=True)
class Open:
    """Go to WhatsApp Web and watch the page; the stage's deadline runs from here."""

    epoch: int


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Watch the page as it is; the deadline of the stage `open` runs from here."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Close the browser (politely first, if it may still answer), kill what is left, prove it gone."""

    epoch: int
    polite: bool


@dataclass(frozen=True, slots=True)
class Clean:
    """All of the cleanup, every step whatever the others did."""

    epoch: int


@dataclass(frozen=True, slots=True)
class BackOff:
    epoch: int
    bound_s: float
    jitter: bool
    """Draw the delay between 0 and the bound, or wait for all of it."""
    held: bool = False
    """It is the host that lets none start, and how long is a guess: over at once when a browser starts well again."""


@dataclass(frozen=True, slots=True)
class Arm:
    """The page loads again: the deadline of the stage `open` runs anew."""

    epoch: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class Disarm:
    """The deadline of the stage `open` no longer runs."""

    usable: bool = True
    """The stage is done; else the page will not become usable by waiting."""


@dataclass(frozen=True, slots=True)
class ReloadQr:
    """Ask the page for fresh codes."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Cure:
    """Apply a remedy that leaves the browser up, and see whether it helps."""

    epoch: int
    fault: Fault
    remedy: Remedy
    step: int = 0


@dataclass(frozen=True, slots=True)
class Rest:
    """Wait until the next try against a fault, in the place of any rest before; the browser stays up."""

    epoch: int
    fault: Fault
    bound_s: float
    jitter: bool
    """Draw it between half the bound and all of it, so that not all sessions come at once."""
    step: int = 0


@dataclass(frozen=True, slots=True)
class Remember:
    """Write down what is wanted, so that it outlives the daemon."""

    wanted: Wanted


Order = (
    Prepare
    | Launch
    | Open
    | TakeOver
    | Stop
    | Clean
    | BackOff
    | Arm
    | Disarm
    | ReloadQr
    | Cure
    | Rest
    | Remember
)
