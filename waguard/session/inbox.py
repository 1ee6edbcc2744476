"""What a session is to take, in the order in which it came: facts, and wishes of somebody who waits until they are taken."""

import asyncio

from waguard.core.actor import Actor, who_acts
from waguard.core.session.events import Event
from waguard.errors import WaguardError

Item = tuple[Event, Actor | None, asyncio.Future[None] | None]


class Inbox:
    def __init__(self) -> None:
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._taking: asyncio.Future[None] | None = None
        """Of the wish that is being taken."""

    def put(self, event: Event) -> None:
        self._items.put_nowait((event, None, None))

    def ask(self, event: Event) -> asyncio.Future[None]:
        """A wish; done when it has been taken."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._items.put_nowait((event, who_acts(), taken))
        return taken

    def empty(self) -> bool:
        return self._items.empty()

    async def next(self) -> tuple[Event, Actor | None]:
        """Wait for what is to be taken now, and whose wish it is, if it is one."""
        event, actor, self._taking = await self._items.get()
        return event, actor

    def taken(self) -> None:
        """The one that was next is dealt with."""
        taking, self._taking = self._taking, None
        if taking is not None and not taking.done():
            taking.set_result(None)

    def refuse(self, error: WaguardError) -> None:
        """Nothing is taken any more: whoever waits is told so."""
        waiting = [self._taking]
        while not self._items.empty():
            waiting.append(self._items.get_nowait()[2])
        for one in waiting:
            if one is not None and not one.done():
                one.set_exception(error)
