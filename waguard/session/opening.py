"""The deadline of the stage `open`: whether a page that loads becomes usable in time, or gets on at least."""

import asyncio
import time
from functools import partial

from waguard.core.health import patience
from waguard.core.health.faults import Fault, Finding, finding
from waguard.core.model import Failure, Link, Stage
from waguard.session.visit import PageVisit
from waguard.system import shortage


class Opening:
    def __init__(self, visit: PageVisit) -> None:
        self._visit = visit
        self._timer: asyncio.TimerHandle | None = None
        self._late: asyncio.Task[None] | None = None
        """Says that the deadline has passed."""
        self.opened = self._began = 0.0
        """When it ran from, by the monotonic clock and by the daemon's waking time."""
        self.deadline_s = self._expected = 0.0
        self.moved = 0.0
        """When the page got on last, or was at work."""

    @property
    def runs(self) -> bool:
        return self._timer is not None

    def arm(self, epoch: int, step: int, deadline_s: float, expected_s: float) -> None:
        """It runs from here. ``expected_s``: what was learned that it takes; that is told, and bounds no patience."""
        self.disarm()
        self.opened, self._began = time.monotonic(), self._visit.now()
        self.moved = self._began
        self.deadline_s, self._expected = deadline_s, expected_s
        self._set_timer(epoch, step, min(deadline_s, expected_s))

    def _set_timer(self, epoch: int, step: int, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, partial(self._passed, epoch, step))

    def done(self, *, usable: bool) -> None:
        """The page is usable, or will not become so by waiting."""
        if self._timer is not None and usable:
            self._visit.instance.stage_done(Stage.OPEN, self.opened)
        self.disarm()

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._late is not None:  # what it was to say is said of another page by now
            self._late.cancel()
            self._late = None

    def _passed(self, epoch: int, step: int) -> None:
        now, deadline = self._visit.now(), self.deadline_s
        took, stage = now - self._began, Stage.OPEN.value
        if took >= self._expected < deadline:
            self._visit.instance.publish("stage.slow", stage=stage, expected_s=round(self._expected, 3))
            self._expected = deadline
        left = patience.left_s(self._began, self.moved, deadline, now)
        if left > 0:  # the page gets on, or the daemon itself has slept
            self._set_timer(epoch, step, min(left, self._expected - took) if took < self._expected else left)
            return
        self._timer = None
        at_work = took >= patience.LONGER * deadline
        self._visit.instance.publish(
            "stage.late", stage=stage, deadline_s=round(deadline, 3), at_work=at_work
        )
        self._tell_late(epoch, step, took)

    def _tell_late(self, epoch: int, step: int, took: float) -> None:
        reading, browser = self._visit.seen.reading, self._visit.instance.browser
        said = browser.last_words() if browser is not None else ()
        details = (
            ("stage", Stage.OPEN.value),
            ("deadline_s", self.deadline_s),
            *((("stderr", list(said)),) if said else ()),
        )
        limit = shortage.of_last_words(said)
        if self._visit.state.away:
            what = (
                f"Stage open: {self._visit.config.whatsapp.url} has not answered within {round(took, 1):g} s."
            )
            silent = Failure(
                "deadline_exceeded", what, Stage.OPEN, str(limit or "Is the network up?"), details
            )
            self._visit.unreachable(epoch, step, silent)
            return
        shown = ", ".join(reading.signs) if reading is not None else ""
        late = Failure(
            "deadline_exceeded",
            f"Stage open: the page was not usable within {round(took, 1):g} s; it shows {shown or 'nothing'}.",
            Stage.OPEN,
            str(
                limit
                or "Is the network up? If WhatsApp Web is just slow here, raise deadlines.open in the configuration."
            ),
            details,
        )
        evidence = (f"it shows {shown or 'nothing'}", *(f"the browser says: {line}" for line in said[-1:]))
        complaint = Finding(Fault.PAGE_NOT_LOADED, late, evidence, took)
        if reading is not None and reading.link is Link.UNKNOWN and not reading.wrong:
            complaint = finding(Fault.PAGE_UNREAD, f"it shows {shown or 'nothing'}", took)
        self._late = self._visit.start(partial(self._visit.complain, epoch, step, complaint), "late")
