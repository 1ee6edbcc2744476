"""Requests that are for a session as their caller has seen it: If-Match with the ETag that the session was shown with.

One of them at a time for each client, from its look at the session to its end, or for ten seconds: of two admins with the same ETag one is first, and the
other is told that the session has changed.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from weakref import WeakValueDictionary

from waguard.core.condition import Condition
from waguard.core.model import ClientCode
from waguard.core.shown import SessionView
from waguard.errors import SessionNotFound

_TURN_S = 10.0
"""So long one of them may take before the next one has its look: whoever waits for a scan changes nothing meanwhile."""


@dataclass(frozen=True, slots=True)
class Tag:
    etag: str


def tag_of(view: SessionView) -> Tag:
    """Another one as soon as it is another session to an admin: its status, its browser, its profile, its login."""
    seen = (view.status, view.wanted, view.attempt, view.generation, view.snapshot, view.login)
    return Tag(f'"{hashlib.sha256(repr([str(one) for one in seen]).encode()).hexdigest()[:16]}"')


class Conditional:
    def __init__(self, view: Callable[[ClientCode], SessionView]) -> None:
        self._view = view
        self._turns: WeakValueDictionary[ClientCode, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, code: ClientCode, if_match: str | None) -> AsyncIterator[None]:
        """Raises `PreconditionFailed`, `InvalidRequest`."""
        if if_match is None:
            yield
            return
        condition, turn = Condition.of(if_match, None), self._turns.setdefault(code, asyncio.Lock())
        condition.check(self._now(code))
        async with AsyncExitStack() as stack:
            # Whoever has it so long had the time to change something, and waits for something else.
            with suppress(TimeoutError):
                async with asyncio.timeout(_TURN_S):
                    await stack.enter_async_context(turn)
            condition.check(self._now(code))
            yield

    def _now(self, code: ClientCode) -> Tag | None:
        try:
            return tag_of(self._view(code))
        except SessionNotFound:
            return None
