"""The visit of one browser's page: its state, and what all who look at that page share."""

import asyncio
from collections.abc import Callable

from waguard.core.health.faults import Finding
from waguard.core.model import Failure, Link, Stage
from waguard.core.session import events
from waguard.core.session.visit import Event, NoWay, Visit, decide
from waguard.errors import PageFailed, PageUnreachable
from waguard.health.probes.memory import Usage
from waguard.session.crew import Look
from waguard.session.inbox import Inbox
from waguard.session.instance import Instance
from waguard.session.memory import Seen
from waguard.session.plans import Plans
from waguard.session.resources import SharedProbes
from waguard.session.usage import Usages


class PageVisit:
    """Owns the state of the visit, and what the page has shown."""

    def __init__(
        self,
        instance: Instance,
        shared: SharedProbes,
        plans: Plans,
        usages: Usages,
        inbox: Inbox,
        start: Callable[[Look, str], "asyncio.Task[None]"],
    ) -> None:
        self.instance = instance
        self.config = instance.resources.config
        self.shared = shared
        self._plans = plans
        self._usages = usages
        self._inbox = inbox
        self.start = start
        """Begin work that ends with the watch."""
        self.seen = Seen()
        self.look_now = asyncio.Event()
        self._state = Visit()

    @property
    def state(self) -> Visit:
        return self._state

    def now(self) -> float:
        """Seconds of the daemon's own waking time."""
        return self.shared.pulse.clock()

    def forget(self) -> None:
        """The browser goes, and what its page has shown with it."""
        self.seen = Seen()
        self._usages.forget()

    def note(self, event: Event) -> bool:
        """What has happened to the page; returns whether it is news."""
        self._state, news = decide(self._state, event)
        return news

    # --- what the session is told

    def tell(self, event: events.Event) -> None:
        self._inbox.put(event)

    async def complain(self, epoch: int, step: int, complaint: Finding, *, first: bool = True) -> None:
        """A complaint, with what may help here and now."""
        self.tell(await self._plans.found(epoch, step, complaint, self.seen.reading, first=first))

    def unreachable(self, epoch: int, step: int, failure: Failure) -> None:
        """There is no way to the page."""
        self.tell(self._plans.unreachable(epoch, step, failure))

    def no_way(self, epoch: int, step: int, error: PageUnreachable) -> None:
        """Likewise, and the browser says why; its forwarder knows better what is wrong with a proxy."""
        if trouble := self.instance.proxy_trouble:
            error = PageUnreachable(trouble, hint=f"Is it right? See: waguard settings {self.instance.code}")
        self.quote(error)
        self.note(NoWay(error.message))
        self.unreachable(epoch, step, Failure.of(error, Stage.OPEN))

    def quote(self, error: PageFailed) -> None:
        """It may be the browser itself that keeps a page from being loaded, and then it says so."""
        if (browser := self.instance.browser) is not None:
            browser.quote(error)

    async def used(self, usage: Usage) -> None:
        """What the browser takes: it may be time for a new one."""
        reading = self.seen.reading
        connected = reading is not None and reading.link is Link.CONNECTED
        if await self._usages.due(usage, connected=connected):
            self.tell(events.RecycleAsked())
