"""The control port's connections: no more than leave the daemon its files, and whoever has shown no token makes room first."""

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from aiohttp import web

from waguard.observe.repeats import Repeats

_MOST, _LEAST = 1024, 16
_SHARE = 4
"""One in so many of the daemon's files may be a connection; the rest is for browsers and its own work."""


def most() -> int:
    """Connections that there may be at a time."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else max(_LEAST, min(_MOST, files // _SHARE))


class Port:
    """Makes a protocol for each connection, once it `serves`."""

    def __init__(self, most: int, publish: Callable[..., Any]) -> None:
        self._most = most
        self._publish = publish
        self._repeats = Repeats(1)
        self._server: web.Server | None = None
        self._at_work: set[object] = set()
        self._known: set[object] = set()
        """Those of which there was a request of a known caller; the others make room before them."""

    def serves(self, server: web.Server) -> None:
        """Who handles what comes in."""
        self._server = server

    @contextmanager
    def at_work(self, request: web.Request) -> Iterator[None]:
        """While this is handled, of a caller who is known, its connection makes room for nobody."""
        self._at_work.add(request.protocol)
        self._known.add(request.protocol)
        try:
            yield
        finally:
            self._at_work.discard(request.protocol)

    def __call__(self) -> asyncio.Protocol:
        assert self._server is not None  # noqa: S101 (it serves before it is listened at)
        here = [one for one in self._server.connections if one.transport is not None]
        self._known.intersection_update(here)
        if len(here) < self._most:
            return self._protocol()
        idle = [one for one in here if one not in self._at_work]
        oldest = next((one for one in idle if one not in self._known), next(iter(idle), None))
        left_out = self._repeats.left_out(oldest is None)
        if left_out is not None:
            self._publish(
                "port.full",
                level="warning",
                connections=len(here),
                closed="the new one" if oldest is None else "the oldest without a request of a known caller",
                left_out=left_out,
            )
        if oldest is None:
            return _Closed()
        oldest.force_close()
        return self._protocol()

    def _protocol(self) -> asyncio.Protocol:
        assert self._server is not None  # noqa: S101 (likewise)
        return cast("asyncio.Protocol", self._server())


class _Closed(asyncio.Protocol):
    """Of a connection that there is no room for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
