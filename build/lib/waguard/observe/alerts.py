"""What somebody should know now: told once when it begins, when it becomes another matter, and once when it is over."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from waguard.core.model import Alert, ClientCode
from waguard.core.plain_text import plain
from waguard.core.shown import Raised
from waguard.system.repeats import Repeats

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TOLD_S = 60.0
"""What changes to and fro is told so often."""


class Alerts:
    def __init__(self, publish: Callable[..., Any]) -> None:
        self._publish = publish
        self._raised: dict[tuple[Alert, ClientCode | None], Raised] = {}
        self._repeats = Repeats(1, _TOLD_S)

    def set(self, alert: Alert, text: str, client: ClientCode | None = None) -> None:
        """Begin it, with what is said of it, or say that anew; empty: it is over. Told only when that is news, and other numbers are
        none: those are at level debug.
        """
        key, text = (alert, client), plain(text)
        before = self._raised.get(key)
        if not text:
            if self._raised.pop(key, None) is not None:
                self._publish("alert.cleared", client=client, alert=alert.value)
        elif before is None:
            self._raised[key] = Raised(alert, client, text)
            self._publish("alert.raised", client=client, alert=alert.value, text=text)
        elif text != before.text:
            self._raised[key] = Raised(alert, client, text)
            news = self._is_news(before, text)
            level = "error" if news else "debug"
            self._publish("alert.changed", level=level, client=client, alert=alert.value, text=text)

    def _is_news(self, before: Raised, text: str) -> bool:
        substance, was = _NUMBER.sub("0", text), _NUMBER.sub("0", before.text)
        return (
            substance != was and self._repeats.left_out((before.alert, before.client, substance)) is not None
        )

    def raised(self) -> Sequence[Raised]:
        return list(self._raised.values())
