"""pyppeteer as a guest on the daemon's pipe: its own `Connection`, `Browser` and `Page`, with a guest in place of its WebSocket.

So the tests drive a page that a daemon watches as an app would, by an API made for that, and what they show holds for a real driver.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pyee import EventEmitter
from pyppeteer.browser import Browser
from pyppeteer.connection import Connection
from pyppeteer.errors import NetworkError
from pyppeteer.page import Page

from waguard.browser.channel import Limits, Message, Refused
from waguard.browser.devtools import DevTools
from waguard.browser.guests import Guest

MIB = 1024 * 1024
LIMITS = Limits(message=96 * MIB, command=96 * MIB, unsent=192 * MIB, unread=192 * MIB)


class GuestConnection(Connection):  # type: ignore[misc]  # pyppeteer ships no types
    """What pyppeteer sends goes through the guest, and what the guest hears is pyppeteer's at once, unless it is told to stop reading."""

    guest: Guest

    def __init__(self) -> None:
        EventEmitter.__init__(self)  # not Connection's own, which opens a WebSocket
        self._loop = asyncio.get_running_loop()
        self._callbacks: dict[int, Any] = {}
        self._sessions: dict[str, Any] = {}
        self.dropped = asyncio.get_running_loop().create_future()
        self.reads = True
        self.sizes: list[int] = []

    def send(self, method: str, params: dict[str, Any] | None = None) -> "asyncio.Future[Any]":
        callback: Any = self._loop.create_future()
        callback.error, callback.method = NetworkError(), method
        try:
            self._callbacks[self.guest.send(method, params)] = callback
        except Refused as error:
            raise ConnectionError(str(error)) from None
        return callback  # type: ignore[no-any-return]

    def heard(self, message: Message) -> None:
        self.sizes.append(message.size)
        if not self.reads:
            return
        said = json.loads(message.whole())
        self.guest.done(message)
        if message.number in self._callbacks:
            self._on_response(said)
        else:
            self._on_query(said)

    def left(self, why: str) -> None:
        for callback in self._callbacks.values():
            callback.cancel()
        for session in self._sessions.values():
            for callback in session._callbacks.values():
                callback.cancel()
        self.dropped.set_result(why)


@asynccontextmanager
async def driving(
    devtools: DevTools, target: str, limits: Limits = LIMITS
) -> AsyncIterator[tuple[GuestConnection, Page]]:
    """A genuine `Page` of this target."""
    connection = GuestConnection()
    connection.guest = await devtools.guests.admit("pyppeteer", limits, connection.heard, connection.left)
    try:
        browser = await Browser.create(connection, [], ignoreHTTPSErrors=False, defaultViewport=None)
        yield connection, await browser._targets[target].page()
    finally:
        connection.guest.leave()
