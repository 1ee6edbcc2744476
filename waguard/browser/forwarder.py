"""A browser's way to its proxy, which asks for a password that no browser may know: it asks us, on a port of loopback that is open to it alone,
and we ask the proxy.

Nothing is stored, looked into, or decided here. Names are resolved by the proxy. The listening socket may be handed from daemon to
daemon, as the browser's pipes are; connections end with the daemon.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from waguard.core.proxying import (
    SOCKS_FAILED,
    Asked,
    basic,
    closing,
    socks_connect,
    socks_greeting,
    socks_login,
    status_of,
)
from waguard.system.tasks import forget
from waguard.system.threads import Kind, Lone, in_thread

HOST = "127.0.0.1"
ANSWER_S = 20.0
"""Deadline of the proxy's answer, and of a browser's whole request."""
_SLOW_S = 300.0
"""Deadline of a server's answer to a request without a tunnel, which may be slow by design."""
_PIECE = 64 * 1024
_MOST = 256
"""Connections of one browser: Chromium has 32 to a proxy (net/socket/client_socket_pool_manager.cc)."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where, and as whom."""

    url: str
    user: str
    password: str = ""
    ca_file: Path | None = None
    """Whose certificates are taken beside the machine's own, where ``url`` is https."""

    def __repr__(self) -> str:
        return f"Upstream({self.url!r})"


class _Trouble(Exception):
    """Why nobody gets through the proxy."""


class _Refused(Exception):
    """The proxy answers, and does not get there."""


def door() -> socket.socket:
    """A listening socket that only this machine reaches. Raises `OSError`."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.bind((HOST, 0))
        made.listen(128)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


class Forwarder:
    """Owns the listening socket and all connections. Its lookups of the proxy's name have a thread of their own: one that hangs holds up nobody else."""

    def __init__(
        self,
        listening: socket.socket,
        upstream: Upstream,
        is_ours: Callable[[tuple[str, int], tuple[str, int]], Awaitable[bool]],
        tell: Callable[[str], None],
    ) -> None:
        """``is_ours``: whether the one who connects, by both ends of the connection, is the browser. ``tell``: of the proxy's trouble; empty: it works."""
        self._listening = listening
        self._upstream = upstream
        self._is_ours = is_ours
        self._tell = tell
        self._server: asyncio.Server | None = None
        self._tasks = set[asyncio.Task[None]]()
        self._ours = 0
        """Connections of the browser's."""
        self._tls: ssl.SSLContext | None = None
        self._names = Lone("names-proxy")

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    @property
    def fd(self) -> int:
        return self._listening.fileno()

    async def start(self) -> None:
        # The server closes the socket that it has; what is handed on is ours.
        self._server = await asyncio.start_server(
            self._serve, sock=self._listening.dup(), start_serving=False
        )
        await self._server.start_serving()

    def use(self, upstream: Upstream) -> None:
        """From here on; what goes through another one ends."""
        if upstream != self._upstream:
            self._upstream, self._tls = upstream, None
            self._end()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._end()
        self._names.end()
        self._listening.close()

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (the server makes one for each)
        self._tasks.add(task)
        try:
            peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
            async with asyncio.timeout(ANSWER_S):
                ours = await self._is_ours(peer, own)
            if ours and self._ours < _MOST:
                self._ours += 1
                try:
                    await self._pass_on(reader, writer)
                finally:
                    self._ours -= 1
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # it has gone, it is none, or we end
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(ANSWER_S):
            asked = Asked.of(await reader.readuntil(b"\r\n\r\n"))
        try:
            theirs, to_them = await self._reached(asked)
            try:
                await _both(_copy(reader, to_them), self._answers(asked, theirs, writer))
            finally:
                to_them.transport.abort()
        except _Trouble as error:
            self._tell(str(error))
            await _refuse(asked, writer)
        except _Refused:
            self._tell("")  # it works
            await _refuse(asked, writer)

    async def _answers(
        self, asked: Asked, theirs: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if asked.tunnels:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            async with asyncio.timeout(_SLOW_S):
                head = await theirs.readuntil(b"\r\n\r\n")
            _check_status(head)
            writer.write(closing(head))
        self._tell("")
        await _copy(theirs, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()  # until it has all of it

    async def _reached(self, asked: Asked) -> Streams:
        """A connection that is through to where the browser wants. Raises `_Trouble`, `_Refused`."""
        upstream, parts = self._upstream, urlsplit(self._upstream.url)
        streams: Streams | None = None
        done = False
        try:
            async with asyncio.timeout(ANSWER_S):
                if parts.scheme == "https" and self._tls is None:
                    self._tls = await in_thread(partial(_trusting, upstream.ca_file), kind=Kind.FILES)
                tls = self._tls if parts.scheme == "https" else None
                streams = await self._connected(parts.hostname or "", parts.port or 0, tls)
                connection = streams[1].get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                ask = _by_socks if parts.scheme == "socks5" else _by_http
                await ask(upstream, asked, *streams)
            done = True
        except TimeoutError:
            raise _Trouble(f"does not answer within {ANSWER_S:g} s") from None
        except (EOFError, asyncio.LimitOverrunError):
            raise _Trouble("ends the connection, or answers what makes no sense") from None
        except ssl.SSLError as error:
            raise _Trouble(f"cannot be reached by TLS: {error.reason}") from None
        except OSError as error:
            raise _Trouble(f"cannot be reached: {error.strerror or error}") from None
        except ValueError as error:
            raise _Refused(str(error)) from None
        finally:
            if streams is not None and not done:
                streams[1].transport.abort()
        return streams

    async def _connected(self, name: str, port: int, tls: ssl.SSLContext | None) -> Streams:
        """At the first of its addresses that takes it. Raises `OSError`."""
        looking = self._names.submit(partial(socket.getaddrinfo, name, port, type=socket.SOCK_STREAM))
        forget(looking)
        failed = OSError("its name has no address")
        for *_, address in await looking:
            try:
                return await asyncio.open_connection(
                    str(address[0]), port, ssl=tls, server_hostname=name if tls is not None else None
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                failed = error
        raise failed


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Raises `OSError`."""
    made = ssl.create_default_context()
    if ca_file is not None:
        made.load_verify_locations(ca_file)
    return made


async def _by_http(
    upstream: Upstream, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    writer.write(asked.to_proxy(basic(upstream.user, upstream.password)))
    if asked.tunnels and (status := _check_status(await reader.readuntil(b"\r\n\r\n"))) != 200:
        raise _Refused(f"answers {status}")


def _check_status(head: bytes) -> int:
    """Raises `_Trouble`, `ValueError`."""
    if (status := status_of(head)) == 407:
        raise _Trouble("refuses its user and password (HTTP 407)")
    return status


async def _by_socks(
    upstream: Upstream, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    writer.write(socks_greeting(upstream.user))
    version, method = await reader.readexactly(2)
    if version != 5:
        raise _Trouble("answers no SOCKS 5")
    if method == 2 and upstream.user:
        writer.write(socks_login(upstream.user, upstream.password))
        if (await reader.readexactly(2))[1] != 0:
            raise _Trouble("refuses its user and password")
    elif method != 0:
        raise _Trouble("wants to know another way who asks: a user and a password")
    writer.write(socks_connect(asked.host, asked.port))
    _, code, _, kind = await reader.readexactly(4)
    size = (await reader.readexactly(1))[0] if kind == 3 else 4 if kind == 1 else 16
    await reader.readexactly(size + 2)
    if code != 0:
        raise _Refused(f"does not get there: {SOCKS_FAILED.get(code, f'code {code}')}")
    if not asked.tunnels:
        writer.write(asked.to_origin())


async def _both(*work: Coroutine[Any, Any, None]) -> None:
    """Until one of them is done: no browser goes on with half a connection. Raises what that did."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()


async def _refuse(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """An answer to what asks for no tunnel would be shown as the page: there is none."""
    if asked.tunnels:
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.write_eof()
