"""Is it stuck? One small file for each thing that is looked at.

A probe looks and says what it sees; how long something may last, what is done about it and when is decided in `core`.
Those of a session run beside each other, each in its own rhythm with some jitter, so that none waits for another one's
answer and a thousand sessions are spread over the interval.
"""

from collections.abc import Mapping
from typing import Protocol

from waguard.core.health.faults import Fault


class Probe(Protocol):
    """Of one browser, made anew for each launch."""

    faults: frozenset[Fault]
    """What it can see."""
    interval_s: float
    deadline_s: float
    """For one look."""

    async def look(self) -> Mapping[Fault, str]:
        """The faults that it sees now, each with the evidence in a sentence. Raises `PageFailed` if it cannot tell."""

    async def unanswered(self, waited_s: float) -> Mapping[Fault, str]:
        """What it means that a look was not over within its deadline. Raises `PageFailed` if it tells nothing."""
