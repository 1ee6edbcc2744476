"""The reaper's sweep: what browsers, crashes and time have left behind, each with its evidence and what is done about it.

One finder a file. A finder looks and does nothing; what it proposes is carried out, or in a dry run is not. What cannot be
proved to be ours is reported and left alone.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from waguard.config.sections import Config
from waguard.core.model import ClientCode
from waguard.core.shown import Leftover
from waguard.profile.generation import Retired
from waguard.profile.store import Profiles
from waguard.sandbox.cgroup import Cgroups
from waguard.session.task import Session
from waguard.snapshots.store import Snapshots
from waguard.system import host

Act = Callable[[], Awaitable[str | None]]
"""Carries a proposal out: what it did, or none if there was nothing to do any more. Raises `WaguardError`, `OSError`."""


@dataclass(slots=True)
class Proposal:
    finding: Leftover
    act: Act | None
    """None: it is only reported."""
    generation: str = ""
    """What must not be in use; asked again before anything is done, since time has passed."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What all finders look at, taken once for a sweep."""

    config: Config
    profiles: Profiles
    snapshots: Snapshots
    sessions: Mapping[ClientCode, Session]
    rows: Sequence[host.ProcessRow]
    """The one look at the process table."""
    linked: Mapping[str, ClientCode]
    """Generation -> whose current profile it is, whether or not there is a session."""
    save: Callable[[Retired], Awaitable[tuple[Retired, str]]]
    """Make a snapshot of a retired profile; returns it as it is called now, and what was done."""
    now: float
    """Unix time, seconds."""
    starting: bool = False
    """The daemon has just started, so nothing is being made anywhere."""
    in_use: frozenset[str] = field(default_factory=frozenset)
    """Generations that are in use at the time of the look."""
    cgroups: Cgroups | None = None
    looked_at: float | None = None
    """What the clock said at the last look at the ages of what was put aside."""
    unread: Collection[ClientCode] = ()
    """Clients of whom it is not known what may run: nothing of theirs is ended."""
