"""What is remembered of a client as long as the daemon runs: of its attempt, and of what its page has shown."""

from dataclasses import dataclass, field

from waguard.core.model import Reading
from waguard.profile.examiners import Report
from waguard.profile.generation import Profile


@dataclass(slots=True)
class Seen:
    """What the page has shown; who looks at the page writes it down, and it is forgotten when the watch stops."""

    reading: Reading | None = None
    """The last one that was news."""
    qr: str | None = None
    qr_seen_at: float = 0.0
    """Unix time, seconds."""
    qr_seen: float = 0.0
    """Monotonic, seconds."""
    pairing_until: float = 0.0
    """Monotonic, seconds: till then somebody may link by a pairing code, and nothing brings QR codes in its place."""


@dataclass(slots=True)
class Memory:
    """Of the attempt: how it went, and what its profile and its login have shown to be. Dropped whole by a cleanup."""

    attempt: str = ""
    attempt_began: float = 0.0
    """Monotonic; 0: none is under way whose end was not announced."""
    profile: Profile | None = None
    how: str = ""
    """How the profile came about: ``kept``, ``fresh`` or ``restored``."""
    snapshot: str = ""
    """The snapshot that it was restored from."""
    check: Report | None = None
    """What the check before the launch found on the profile that was there, or the browser after it."""
    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds that each stage of the last attempt took."""
    automatic_restarts: int = 0
    version: str = ""
    """Of the browser that runs."""
