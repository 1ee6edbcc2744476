"""How a request of an app's comes to the daemon and its answer back: within deadlines, and sent again where that does no harm."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
from yarl import URL

from waguard.asking.ask import (
    ADDRESS,
    EVENTS,
    JSON,
    LOOK_S,
    PROBLEM,
    UNIX,
    Answer,
    Ask,
    broke_off,
    late,
    left,
    stranger,
)
from waguard.asking.frames import Frame, Frames, happening
from waguard.core.feed import ENDED
from waguard.core.shown import EventView
from waguard.errors import InvalidRequest, NoAnswer, NoDaemon

T = TypeVar("T")

_AGAIN_S, _PAUSE_S = 10.0, 0.2
"""For so long what broke off is asked for again, since a daemon that is started anew is back by then; and what is between two tries."""
_PIECE = 256 * 1024
_ENDS: Mapping[str, tuple[int, str]] = {"result": (200, JSON), "problem": (500, PROBLEM)}
"""What a verb that tells how it gets on tells last, and what it would have answered then."""


class Wire:
    """To one daemon. ``patience_s``: how long it takes at most, if it keeps its deadlines; ``silent_s``: a stream without a sign of life for so long is dead."""

    def __init__(self, url: str, token: str | None, patience_s: float, silent_s: float) -> None:
        """Raises `InvalidRequest`."""
        if not re.match(ADDRESS, url):
            raise InvalidRequest(
                "The daemon's address is none.", hint="Write http://HOST:PORT, or unix:///PATH."
            )
        self.url, self.is_socket = url.rstrip("/"), url.startswith(UNIX)
        self._headers = {"Accept": JSON, "Accept-Encoding": "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._patience_s, self._silent_s = patience_s, silent_s
        self._http: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        path = urlsplit(self.url).path
        connector = aiohttp.UnixConnector(path, limit=0) if self.is_socket else aiohttp.TCPConnector(limit=0)
        self._http = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )
        # It would send again what has a condition, too.
        self._http._retry_connection = False  # noqa: SLF001 (there is no other way; a test would notice)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def do(self, ask: Ask[T]) -> T:
        """What comes of it. Raises what is answered, `NoDaemon`, `NoAnswer`, `NotWaguard`."""
        limit_s = ask.limit_s(self._patience_s)
        try:
            # However long a file is: only that nothing comes has a deadline.
            async with asyncio.timeout(None if ask.into is not None else limit_s) as deadline:
                return ask.result(await self._answer(ask, limit_s), self.url)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise self._late(ask, limit_s) from None

    async def _answer(self, ask: Ask[T], limit_s: float) -> Answer:
        has_key = ask.method == "POST" and (ask.once or ask.may_be_repeated)
        headers = {"Idempotency-Key": str(uuid4())} if has_key else {}
        headers |= {"Accept": EVENTS} if ask.told is not None else {}
        start = (
            await asyncio.to_thread(ask.file.tell) if ask.file is not None and ask.may_be_repeated else None
        )
        until: float | None = None
        first: NoAnswer | NoDaemon | None = None
        while True:
            if ask.file is not None and start is not None:
                await asyncio.to_thread(ask.file.seek, start)
            try:
                return await (self._once if ask.told is None else self._told)(ask, headers, limit_s)
            except (NoAnswer, NoDaemon) as error:
                if not ask.may_be_repeated or (first is None and isinstance(error, NoDaemon)):
                    raise
                now, first = time.monotonic(), first or error
                until = until or now + _AGAIN_S
                if now + _PAUSE_S > until:
                    raise first from None  # that nobody is there now does not say that nothing was asked
            await asyncio.sleep(_PAUSE_S)

    async def _once(self, ask: Ask[T], headers: Mapping[str, str], limit_s: float) -> Answer:
        async with self._sent(ask, headers, limit_s) as response:
            if ask.into is None or response.status not in ask.good:
                return await _whole(response)
            async for piece in response.content.iter_chunked(_PIECE):
                await asyncio.to_thread(ask.into.write, piece)
            return Answer(response.status, {}, b"")

    async def _told(self, ask: Ask[T], headers: Mapping[str, str], _limit_s: float) -> Answer:
        assert ask.told is not None  # noqa: S101 (else it would be asked otherwise)
        async with aclosing(self.frames(ask, headers)) as frames:
            async for frame in frames:
                if frame.event in _ENDS:
                    status, media = _ENDS[frame.event]
                    return Answer(status, {"content-type": media}, frame.data.encode())
                if frame.event == ENDED:
                    break
                if frame.event:
                    ask.told(self.event(frame))
        raise NoAnswer(f"{self.url} broke off before the end was told.", hint=NoAnswer.do)

    async def frames(self, ask: Ask[Any], headers: Mapping[str, str]) -> AsyncGenerator[Frame, None]:
        """Server-sent events until their end. Raises what is answered instead, `NoDaemon`, `NoAnswer`, `NotWaguard`."""
        taken = Frames()
        async with self._sent(ask, headers, self._silent_s) as response:
            if response.content_type != EVENTS:
                answer = await _whole(response)
                ask.result(answer, self.url)
                raise stranger(self.url, f"It answered {answer.status} {answer.media_type}.")
            async for piece in response.content.iter_any():
                try:
                    found = [*taken.feed(piece)]
                except ValueError as error:
                    raise stranger(self.url, f"It told {error}.") from None
                for frame in found:
                    yield frame

    def event(self, frame: Frame) -> EventView:
        """Raises `NotWaguard`."""
        try:
            return happening(frame, time.time())
        except ValueError:
            raise stranger(self.url, f"It told {frame.event[:80]!r} in a form that is not known.") from None

    @asynccontextmanager
    async def _sent(
        self, ask: Ask[Any], headers: Mapping[str, str], silent_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """``silent_s``: nothing may come for so long."""
        if self._http is None:
            raise RuntimeError("A Client is used inside `async with`")
        headers = {**self._headers, **ask.headers, **headers}
        if ask.file is not None and ask.file.seekable():
            headers["Content-Length"] = str(await asyncio.to_thread(left, ask.file))
        below = "http://localhost" if self.is_socket else self.url
        try:
            async with self._http.request(
                ask.method,
                URL(below + ask.target, encoded=True),
                headers=headers,
                data=ask.body if ask.file is None else _pieces(ask.file),
                allow_redirects=False,  # the token is for nobody else
                timeout=aiohttp.ClientTimeout(sock_connect=LOOK_S, sock_read=silent_s),
            ) as response:
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise NoDaemon(f"No daemon answers at {self.url}.", hint="Start it: waguard run") from None
        except aiohttp.ServerTimeoutError:
            raise self._late(ask, silent_s) from None
        except aiohttp.ClientError as error:
            raise broke_off(self.url, error) from None

    def _late(self, ask: Ask[Any], limit_s: float) -> NoAnswer:
        return late(self.url, f"{ask.method} {ask.path} within {limit_s:g} s")


async def _whole(response: aiohttp.ClientResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status, headers, await response.read())


async def _pieces(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    while piece := await asyncio.to_thread(file.read, _PIECE):
        yield piece
