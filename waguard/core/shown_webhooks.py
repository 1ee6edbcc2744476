"""Webhooks and their messages, as the control port shows them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from waguard.core.deliveries import State


@dataclass(frozen=True, slots=True)
class WebhookView:
    id: str
    url: str
    clients: Sequence[str]
    """The client codes whose events it is told; empty: all, and what is about none."""
    kinds: Sequence[str]
    """Names of events, or their first parts; empty: all."""
    enabled: bool
    why_disabled: str
    """Empty: it is enabled."""
    created_at: float
    """Unix time, seconds."""
    created_by: str
    """Who made it, as events have it."""


@dataclass(frozen=True, slots=True)
class WebhookStatus(WebhookView):
    waiting: int
    """Messages that are still to arrive, as far as they were read from the feed."""
    dead_letters: int
    delivered_at: float | None
    """When a message has last arrived, Unix time, seconds; null: not since the daemon's start."""
    error: str
    """Why the message that has been tried longest has not arrived; empty: none has failed."""


@dataclass(frozen=True, slots=True)
class WebhookMade:
    secret: str
    """What the receiver checks signatures with. It is shown here, and can be shown by nobody any more."""
    about: WebhookView


@dataclass(frozen=True, slots=True)
class WebhookTried:
    ok: bool
    http_status: int | None
    """Null: there was no answer."""
    error: str
    """What was wrong; empty: nothing."""
    duration_ms: float


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message that has not arrived."""

    number: int
    """For `before`."""
    id: str
    """As its header `webhook-id` has it."""
    client: str | None
    """Null: it is about no client."""
    name: str
    """Of the event."""
    at: float
    """When that happened, Unix time, seconds."""
    state: State
    attempts: int
    next_at: float | None
    """When it is tried again, Unix time, seconds, at the earliest; null: it is a dead letter."""
    error: str
    """Why the last attempt has failed; empty: there was none."""


@dataclass(frozen=True, slots=True)
class WebhookList:
    webhooks: Sequence[WebhookStatus]


@dataclass(frozen=True, slots=True)
class MessageList:
    messages: Sequence[MessageView]


@dataclass(frozen=True, slots=True)
class Redriven:
    messages: int
    """Dead letters that are sent again."""
