"""What somebody should know now: told once when it begins, and once when it is over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from waguard.core.model import ClientCode
from waguard.plain_text import plain


class Alert(StrEnum):
    SESSION_FAILED = "session_failed"
    """Its restart budget is used up; it rests."""
    PERSON_NEEDED = "person_needed"
    """WhatsApp wants somebody: logged out, open elsewhere, refused."""
    NETWORK_DOWN = "network_down"
    """Most sessions reach WhatsApp no more."""
    PAGE_UNREAD = "page_unread"
    """Several sessions show a page that is not understood."""
    BREAKER_OPEN = "breaker_open"
    """No browsers are started but single trials."""
    DISK_FULL = "disk_full"
    """There is no room for one more session, so no connect is taken."""
    NO_ROOM = "no_room"
    """Sessions that are wanted wait for memory or disk."""
    KEYS_LOST = "keys_lost"
    """Snapshots were sealed with keys that are not there any more: none can be opened, and none is taken."""


@dataclass(frozen=True, slots=True)
class Raised:
    alert: Alert
    client: ClientCode | None
    text: str


class Alerts:
    def __init__(self, publish: Callable[..., Any]) -> None:
        self._publish = publish
        self._raised: dict[tuple[Alert, ClientCode | None], Raised] = {}

    def set(self, alert: Alert, text: str, client: ClientCode | None = None) -> None:
        """Begin it, with what is said of it; empty: it is over. Told only when that is news."""
        key, text = (alert, client), plain(text)
        if text and key not in self._raised:
            self._raised[key] = Raised(alert, client, text)
            self._publish("alert.raised", level="error", client=client, alert=alert.value, text=text)
        elif not text and key in self._raised:
            del self._raised[key]
            self._publish("alert.cleared", client=client, alert=alert.value)

    def raised(self) -> Sequence[Raised]:
        return list(self._raised.values())
