"""Server-sent events: how one is written, and how long who reads them may stand still.

As https://html.spec.whatwg.org/multipage/server-sent-events.html has them: the id that came last is what a reader comes back with.
"""

import asyncio
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter

from waguard.api.discreet import without_paths
from waguard.api.words import in_http
from waguard.core.plain_text import plain_json

TYPE = "text/event-stream"
_STALLS_S = 60.0
"""So long nothing of what was sent may arrive, before the connection is given up."""
_AGAIN_MS = 2000
"""How long a reader is to wait before it comes back."""
_ANY = TypeAdapter(Any)


def event(name: str, view: object, *, paths: bool, place: object = None) -> bytes:
    """``place``: the id by which it is found again; None: the reader keeps the one before."""
    told = view if paths else without_paths(view)
    data = plain_json(in_http(_ANY.dump_json(told).decode()))
    return framed(name, data, place)


def framed(name: str, data: str, place: object = None) -> bytes:
    """``data`` is one line of JSON."""
    return f"{_id(place)}event: {name}\ndata: {data}\n\n".encode()


def beat(place: object = None) -> bytes:
    """A sign of life; it moves the reader's place on, too."""
    return f": beat\n{_id(place)}\n".encode()


def _id(place: object) -> str:
    return f"id: {place}\n" if place is not None else ""


class Stream:
    def __init__(self, request: web.Request) -> None:
        self._request = request
        # A proxy such as nginx would gather them otherwise.
        headers = {"Content-Type": TYPE, "X-Accel-Buffering": "no"}
        self.response = web.StreamResponse(headers=headers)

    async def open(self) -> None:
        await self.response.prepare(self._request)
        await self.write(f"retry: {_AGAIN_MS}\n\n".encode())

    async def write(self, data: bytes) -> None:
        """Raises `ConnectionResetError` for a reader that has gone, or has stood still for too long."""
        try:
            async with asyncio.timeout(_STALLS_S):
                await self.response.write(data)
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the reader stands still") from None
