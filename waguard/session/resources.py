"""What the sessions of a daemon share."""

from dataclasses import dataclass

from waguard.admission.gate import Gate
from waguard.admission.turns import Turns
from waguard.browser.find import Binary, Installed
from waguard.config.put import Settings
from waguard.config.sections import Config
from waguard.core.relay.budget import Budget
from waguard.core.session.restart import RestartPolicy
from waguard.health.probes.census import Census
from waguard.health.probes.falls import Falls
from waguard.health.probes.pulse import Pulse
from waguard.history.history import History
from waguard.history.learned import Learned
from waguard.observe.bus import Bus
from waguard.profile.store import Profiles
from waguard.sandbox import Sandbox
from waguard.sandbox.cgroup import Cgroups
from waguard.session.registry import Records
from waguard.session.tenure import Ownership
from waguard.snapshots.store import Snapshots
from waguard.system.systemd import Manager


@dataclass(frozen=True, slots=True)
class Resources:
    """What there is for them to work with."""

    config: Config
    installed: Installed
    sandbox: Sandbox
    profiles: Profiles
    ownership: Ownership
    records: Records
    snapshots: Snapshots
    bus: Bus
    manager: Manager
    authorities: bytes
    """See `browser.authorities`."""
    settings: Settings
    """Of single clients."""
    relay_budget: Budget
    """Of the memory that all clients of the relay have together."""
    cgroups: Cgroups | None = None

    @property
    def binary(self) -> Binary:
        """The last one that was seen to run: what the next launch runs, unless it has changed since."""
        return self.installed.current


@dataclass(frozen=True, slots=True)
class SharedProbes:
    """What the probes of all sessions share."""

    pulse: Pulse
    census: Census
    falls: Falls
    probe: str
    """The page's reader."""


@dataclass(frozen=True, slots=True)
class Services:
    """All of it, and what is decided by it."""

    resources: Resources
    turns: Turns
    probes: SharedProbes
    gate: Gate
    policy: RestartPolicy
    history: History
    learned: Learned
