"""The tasks of one session. What goes wrong in one for no known reason is reported, and leaves nobody waiting."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from waguard.core.catalogue import mistake
from waguard.core.model import Failure
from waguard.core.session.events import Event
from waguard.errors import LimitReached, WaguardError
from waguard.session.inbox import Inbox
from waguard.session.instance import Instance
from waguard.system import shortage

Look = Callable[[], Coroutine[Any, Any, None]]
Work = Callable[[], Coroutine[Any, Any, Event | None]]
"""What it comes to is the event that it returns, if any."""

_LOOK_AGAIN_S = 1.0
"""After a look for which there were no files or threads left, or whose disk does not answer."""


class Crew:
    def __init__(self, instance: Instance, inbox: Inbox) -> None:
        self._instance = instance
        self._inbox = inbox

    def work(self, work: Work, name: str, broke: Callable[[Failure], Event]) -> asyncio.Task[None]:
        """A slow order; ``broke`` is the event if it fails for no known reason."""

        async def guarded() -> None:
            try:
                if (event := await work()) is not None:
                    self._inbox.put(event)
            except Exception as error:  # noqa: BLE001 (a mistake of ours must not leave the session waiting)
                if (limit := _limit(error)) is None:
                    self.report(name, error)
                failure = Failure.of(limit) if limit else Failure("internal", f"{name}: {error!r}")
                self._inbox.put(broke(failure))

        return self._task(guarded, name)

    def look_on(self, look: Look, name: str) -> asyncio.Task[None]:
        """Something that goes on beside the orders, and tells the inbox by itself."""

        async def guarded() -> None:
            while True:
                try:
                    await look()
                except Exception as error:  # noqa: BLE001 (likewise)
                    if _limit(error) is not None or (isinstance(error, WaguardError) and error.passing):
                        await asyncio.sleep(_LOOK_AGAIN_S)
                        continue
                    self.report(name, error)
                return

        return self._task(guarded, name)

    def report(self, where: str, error: Exception) -> None:
        self._instance.publish("internal.error", **mistake(where, error))

    def _task(self, look: Look, name: str) -> asyncio.Task[None]:
        return asyncio.create_task(look(), name=f"{self._instance.code}:{name}")


def _limit(error: Exception) -> LimitReached | None:
    return error if isinstance(error, LimitReached) else shortage.reached(error)
