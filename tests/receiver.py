"""A receiver of webhooks, as an app would have one: it checks each message with the library of the specification, and keeps what it takes."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from ports import free_port
from standardwebhooks.webhooks import Webhook as Verifier

NEVER = 0
"""In the place of a status: it does not answer."""
TORN = -1
"""It hangs up."""


@dataclass
class Arrived:
    id: str
    body: dict[str, Any]
    status: int
    """What was answered."""
    headers: dict[str, str] = field(repr=False)

    @property
    def client(self) -> str:
        return str(self.body["data"].get("client") or "")

    @property
    def event(self) -> dict[str, Any]:
        """Its fields."""
        found: dict[str, Any] = self.body["data"].get("fields", {})
        return found


class Receiver:
    def __init__(self, trust: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.url = f"http{'s' if trust else ''}://127.0.0.1:{self.port}/hooks/secret-path?key=secret-key"
        self.secrets: list[str] = []
        """Each message is signed with every one of these."""
        self.arrived: list[Arrived] = []
        self.answer: Callable[[Arrived], int] = lambda _one: 200
        self.headers: dict[str, str] = {}
        self.under_way: dict[str, int] = {}
        self.most_under_way = 0
        self._trust = trust
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Event()

    async def up(self) -> None:
        """Raises `OSError`."""
        application = web.Application()
        application.router.add_post("/hooks/secret-path", self._take)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._trust).start()

    async def down(self) -> None:
        """Who connects is refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        headers = dict(request.headers)
        for secret in self.secrets:
            Verifier(secret).verify(text, headers)
        body = json.loads(text)
        one = Arrived(headers["webhook-id"], body, 200, headers)
        one.status = self.answer(one)
        client = one.client
        assert not self.under_way.get(client), "of each client one at a time"
        self.under_way[client] = 1
        self.most_under_way = max(self.most_under_way, sum(self.under_way.values()))
        self.arrived.append(one)
        self._changed.set()
        try:
            if one.status == NEVER:
                await asyncio.Event().wait()
            if one.status == TORN:
                assert request.transport is not None
                request.transport.abort()
        finally:
            self.under_way[client] = 0
        return web.Response(status=max(one.status, 200), headers=self.headers)

    async def until(self, done: Callable[[], object], what: str = "", seconds: float = 20.0) -> None:
        """Whenever something has arrived it looks whether it is so."""
        try:
            async with asyncio.timeout(seconds):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s: {what}; {self.arrived}") from None

    def taken(self, client: str | None = None) -> list[Arrived]:
        """What was answered with 2xx, each the first time."""
        found = {one.id: one for one in reversed(self.arrived) if 200 <= one.status < 300}
        order = [one for one in self.arrived if found.get(one.id) is one]
        return [one for one in order if client in {None, one.client}]


@asynccontextmanager
async def receiving(trust: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(trust)
    await receiver.up()
    try:
        yield receiver
    finally:
        with contextlib.suppress(OSError):
            await receiver.down()
