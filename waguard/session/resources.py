"""What the instances of a daemon share."""

from dataclasses import dataclass

from waguard.backup.store import Backups
from waguard.browser.find import Binary, Installed
from waguard.config.sections import Config
from waguard.observe.bus import Bus
from waguard.profile.store import Profiles
from waguard.sandbox import Sandbox
from waguard.sandbox.cgroup import Cgroups
from waguard.session.registry import Registry
from waguard.system.systemd import Manager


@dataclass(frozen=True, slots=True)
class Resources:
    """What the instances of a daemon share."""

    config: Config
    installed: Installed
    sandbox: Sandbox
    profiles: Profiles
    registry: Registry
    backups: Backups
    bus: Bus
    manager: Manager
    authorities: bytes
    """See `browser.authorities`."""
    cgroups: Cgroups | None = None

    @property
    def binary(self) -> Binary:
        """The last one that was seen to run: what the next launch runs, unless it has changed since."""
        return self.installed.current
