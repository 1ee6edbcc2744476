"""One open page as the server sees it, and the phone's list of linked devices."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from waguard.simulator.messages import Mailbox


@dataclass(slots=True, eq=False)
class Device:
    """A linked device: one login. It outlives its pages."""

    wid: str
    key: str = field(repr=False)
    browser: str
    mailbox: Mailbox = field(default_factory=Mailbox, repr=False)
    tab: "Tab | None" = None
    connected_since: float | None = None
    """Unix time, seconds."""

    def view(self) -> dict[str, Any]:
        """As `GET /phone/devices` shows it."""
        link = "offline" if self.tab is None else "connected" if self.tab.synced else "syncing"
        tabs = int(self.tab is not None)
        return {"wid": self.wid, "link": link, "tabs": tabs, "connected_since": self.connected_since}


@dataclass(slots=True, eq=False)
class Tab:
    """A page's WebSocket, and the one thing that goes on for it: its codes come and go, or its chats sync."""

    ws: web.WebSocketResponse
    transport: asyncio.Transport | None
    browser: str
    keys: str = ""
    qr: str | None = None
    """The whole string of the code on screen, while a phone can scan it."""
    code: str | None = None
    """The pairing code on screen, while a phone can enter it."""
    phone: str = ""
    """Whose phone may: the number that the code was asked for."""
    device: Device | None = None
    synced: bool = False
    caught_up: bool = False
    """Has had every message that waited for it."""
    mute: bool = False
    _work: asyncio.Task[None] | None = None

    async def send(self, kind: str, **values: Any) -> None:
        if not self.mute:
            with contextlib.suppress(ConnectionError):  # its handler sees the end too
                await self.ws.send_json({"kind": kind, **values})

    def drop(self) -> None:
        """End the connection without a word: a page that hangs would never answer a polite close."""
        if self.transport is not None:
            self.transport.abort()

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start ``work`` in the place of what goes on."""
        if self._work is not None:
            self._work.cancel()
        self._work = asyncio.create_task(work, name=f"simulator:{name}")

    async def end(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
