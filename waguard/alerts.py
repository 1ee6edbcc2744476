"""What somebody should know now: told once when it begins, and once when it is over."""

from collections.abc import Callable, Sequence
from typing import Any

from waguard.core.model import Alert, ClientCode
from waguard.core.shown import Raised
from waguard.plain_text import plain


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
