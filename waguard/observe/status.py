"""One line on how the daemon is, for whoever asks the service manager: ``systemctl status``."""

import asyncio
from collections import Counter
from collections.abc import Callable

from waguard.core.model import ClientCode, Status
from waguard.events import Event

_PAUSE_S = 0.2
"""At most one line in this time."""
_ORDER = {status.value: number for number, status in enumerate(Status)}


class StatusLine:
    """Counts the sessions by state, with what is wrong with all of them; ``tell`` gets the line when it changes."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._known: dict[ClientCode, str] = {}
        self._alerts: dict[str, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._url = ""

    def heard(self, event: Event) -> None:
        if event.name == "daemon.ready":
            self._url = str(event.fields["url"])
            self.close()
            self._say()  # whoever has waited for the start sees it at once
            return
        if event.name == "session.changed" and event.client is not None:
            self._known[event.client] = str(event.fields["status"])
        elif event.name == "alert.raised" and event.client is None:
            self._alerts[str(event.fields["alert"])] = str(event.fields["text"])
        elif event.name == "alert.cleared" and event.client is None:
            self._alerts.pop(str(event.fields["alert"]), None)
        else:
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE_S, self._say)

    def line(self) -> str:
        counts = Counter(self._known.values())
        told = ", ".join(f"{counts[one]} {one}" for one in sorted(counts, key=lambda one: _ORDER[one]))
        alerts = "".join(f"; {alert}: {text}" for alert, text in self._alerts.items())
        return f"{told or 'no sessions'}; {self._url or 'starting'}{alerts}".replace("\n", " ")

    def _say(self) -> None:
        self._timer = None
        self._tell(self.line())

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
