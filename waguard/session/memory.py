"""What is remembered of a client's browser and its page as long as the daemon runs."""

from collections import deque
from dataclasses import dataclass, field

from waguard.core.model import Reading
from waguard.health.probes.memory import Usage
from waguard.profile.examiners import Report
from waguard.profile.generation import Profile

_USAGES = 240
"""Looks at what a browser takes that are remembered."""


@dataclass(slots=True)
class Memory:
    """Everything a session remembers about its browser and its page; dropped whole by a cleanup."""

    qr: str | None = None
    qr_seen_at: float = 0.0
    """Unix time, seconds."""
    qr_seen: float = 0.0
    """Monotonic, seconds."""
    reading: Reading | None = None
    attempt: str = ""
    profile: Profile | None = None
    how: str = ""
    """How the profile came about: ``kept``, ``fresh`` or ``restored``."""
    backup: str = ""
    """The snapshot that it was restored from."""
    check: Report | None = None
    """What the check before the launch found on the profile that was there, or the browser after it."""
    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds that each stage of the last attempt took."""
    automatic_restarts: int = 0
    proved: bool = True
    """See `Taken`."""
    accepted_at: float = 0.0
    """When WhatsApp has taken the login in this launch, monotonic; 0 if it has not."""
    logged_out: bool = False
    """The page's address has said so, and nobody has scanned since."""
    had: bool = False
    """The login's marks were seen in the page's storage in this launch."""
    unpaired: bool = False
    """The page has asked for a scan in this launch, and had a login: whose it is then accepted nobody knows."""
    usages: deque[tuple[float, Usage]] = field(default_factory=lambda: deque(maxlen=_USAGES))
    """What the browser takes, look by look, each with its time, monotonic."""
    version: str = ""
    """Of the browser that runs."""

    def forget_browser(self) -> None:
        """What was seen of a browser goes with it."""
        self.qr = self.reading = None
        self.usages.clear()
        self.version = ""
