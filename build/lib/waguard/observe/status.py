"""One line on how the daemon is, for whoever asks the service manager: ``systemctl status``."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from waguard.core.model import Status
from waguard.core.shown import Raised
from waguard.observe.bus import Event

_PAUSE_S = 0.2
"""At most one line in this time."""
_ORDER = {status: number for number, status in enumerate(Status)}
_NEWS = frozenset({"session.changed", "request.done", "alert.raised", "alert.changed", "alert.cleared"})
"""After these the line may be another one; a request may have made a session, or an end of one."""


class StatusLine:
    """Counts the sessions by state, with what is wrong with all of them; ``tell`` gets the line when it changes.

    It asks how they are, since one that rests since before the start is told by no event, nor is one that is forgotten.
    """

    def __init__(
        self,
        tell: Callable[[str], object],
        statuses: Callable[[], Sequence[Status]],
        alerts: Callable[[], Sequence[Raised]],
    ) -> None:
        self._tell = tell
        self._statuses = statuses
        self._alerts = alerts
        self._timer: asyncio.TimerHandle | None = None
        self._url = self._told = ""

    def heard(self, event: Event) -> None:
        if event.name == "daemon.ready":
            self._url = str(event.fields["url"])
            self.close()
            self._say()  # whoever has waited for the start sees it at once
        elif event.name in _NEWS and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE_S, self._say)

    def line(self) -> str:
        counts = Counter(self._statuses())
        told = ", ".join(f"{counts[one]} {one}" for one in sorted(counts, key=_ORDER.__getitem__))
        alerts = "".join(f"; {one.alert}: {one.text}" for one in self._alerts() if one.client is None)
        return f"{told or 'no sessions'}; {self._url or 'starting'}{alerts}".replace("\n", " ")

    def _say(self) -> None:
        self._timer = None
        line = self.line()
        if line != self._told:
            self._told = line
            self._tell(line)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
