"""Who wants something of a session or of the daemon: carried by the wish, and by the events that come of it.

An edge says who acts, for as long as it does (`acting`). What goes on by itself afterwards, in a session's task, has it from the
wish and not from there.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum


class ActorKind(StrEnum):
    TOKEN = "token"  # noqa: S105 (no secret)
    """A caller of the control port; its name is whose token it was, and never a token."""
    PEER = "peer"
    """A process of this machine, by the unix socket; its name is by which user."""
    SCHEDULE = "schedule"
    """A job of the schedule."""
    REMEDY = "remedy"
    """What is done by itself against what is wrong with a session, or before it is: a remedy, or the cause of a start."""
    STARTUP = "startup"
    """The daemon's start, which goes on with what was wanted before."""


@dataclass(frozen=True, slots=True)
class Actor:
    kind: ActorKind
    name: str = ""
    origin: str = ""
    """From where: the caller's address."""
    request: str = ""
    """The request's id, as its answer has it."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def fields(self) -> Mapping[str, str]:
        """As an event has it."""
        named = {"actor": str(self), "origin": self.origin, "request": self.request}
        return {name: value for name, value in named.items() if value}


_ACTING: ContextVar[Actor | None] = ContextVar("acting", default=None)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """What is asked for in this block is asked for by it."""
    before = _ACTING.set(actor)
    try:
        yield
    finally:
        _ACTING.reset(before)


def who_acts() -> Actor | None:
    return _ACTING.get()
