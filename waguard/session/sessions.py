"""All sessions of a daemon, by client code, each with its task; and the clients of whom it is not known what they have."""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from waguard.core.catalogue import mistake
from waguard.core.model import ClientCode
from waguard.session.registry import Record
from waguard.session.resources import Services
from waguard.session.task import Session


class Sessions(dict[ClientCode, Session]):
    def __init__(self, publish: Callable[..., Any]) -> None:
        super().__init__()
        self._publish = publish
        self._tasks: dict[ClientCode, asyncio.Task[None]] = {}
        self.unread: dict[ClientCode, str] = {}
        """Whose records could not be read, and why. What runs of theirs is left alone, and nothing is started beside it."""

    def add(self, code: ClientCode, record: Record, services: Services) -> Session:
        self[code] = session = Session(code, record, services)
        # A context of its own: what it logs belongs to no request, least of all to the one that happened to make it.
        context = contextvars.Context()
        self._tasks[code] = asyncio.create_task(session.run(), name=f"{code}:session", context=context)
        return session

    def drop(self, session: Session) -> None:
        """It was only asked about; nobody waits for its end."""
        del self[session.code]
        ending = self._tasks.pop(session.code)
        ending.add_done_callback(self._tell_ended)
        ending.cancel()

    async def close(self) -> None:
        """End them all at once; returns when each has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            self._tell_ended(task)

    def _tell_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._publish("session.shutdown_failed", **mistake(task.get_name(), error))
