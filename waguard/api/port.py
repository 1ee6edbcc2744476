"""The control port's connections: no more than leave the daemon its files, and whoever has shown no token makes room first."""

import asyncio
import resource
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.web_protocol import _ErrInfo

from waguard.api import problems
from waguard.errors import Internal, InvalidRequest, WaguardError
from waguard.system.repeats import Repeats

_MOST, _LEAST = 1024, 16
_SHARE = 4
"""One in so many of the daemon's files may be a connection; the rest is for browsers and its own work."""

_LINGERS_S = 10.0
"""So long what comes behind an answer is read at the most."""

ENCODINGS = frozenset({"identity", "gzip", "deflate"})
"""Of a body, as `Content-Encoding` has them."""
ENCODED = "Send the body as it is, or as gzip or deflate."


def most() -> int:
    """Connections that there may be at a time."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else max(_LEAST, min(_MOST, files // _SHARE))


class Port:
    """Makes a protocol for each connection, once it `serves`."""

    def __init__(self, most: int, publish: Callable[..., Any], request_s: float) -> None:
        self.settings: Mapping[str, Any] = {
            "access_log": None,
            # From the connection or the last answer on, until a whole header is there.
            "keepalive_timeout": request_s,
            # What comes of a body behind its answer is read, so that who still sends gets the answer, but for no longer.
            "lingering_time": min(request_s, _LINGERS_S),
        }
        """Of each connection; the server has to have the same."""
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
        # As `Server.__call__` does it, but for the class.
        made = _Protocol(self._server, loop=asyncio.get_running_loop(), **self.settings)
        return cast("asyncio.Protocol", made)


class _Protocol(web.RequestHandler):
    """What is no request at all never gets to the application: it is answered in the same form as what does.

    Where a body turns out to be false in its middle, aiohttp queues that as a request of its own behind the one that waits for the
    body. There is no public way to see that queue, so a class and two attributes of aiohttp's are used here that may change;
    `tests/test_api.py` has each kind of false body.
    """

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        at_work = self._current_request
        if at_work is None or at_work.content.is_eof() or not self._messages:
            return
        if isinstance(self._messages[-1][0], _ErrInfo):
            # It was this request's body. aiohttp would answer it as another one, once nobody waits for the body any more.
            self._messages.pop()
            at_work.content.set_exception(web.RequestPayloadError("not as its headers say"))
            at_work.content.feed_eof()
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # logs it
        answer = problems.response(_problem(status, exc, message or ""), admin=False)
        problems.stamp(answer, secrets.token_hex(4))
        answer.force_close()
        return answer


def _problem(status: int, error: BaseException | None, message: str) -> WaguardError:
    if isinstance(error, ContentEncodingError):
        return InvalidRequest(
            "The body is not of its Content-Encoding, or that is not read here.", hint=ENCODED
        )
    if 400 <= status < 500:
        what = message.split("\n", maxsplit=1)[0].rstrip(".:")[:200]  # what follows quotes the request
        return InvalidRequest(f"This is not a valid HTTP request: {what}.")
    return Internal("An unexpected error; the log has the details.")


class _Closed(asyncio.Protocol):
    """Of a connection that there is no room for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
