"""Proxies that ask who somebody is: HTTP and SOCKS 5. They count, and write down what went through."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from tls_front import certificate

from waguard.core.proxying import basic

USER, PASSWORD = "demo", "geheim-wie-sonst-nichts"


@dataclass
class Seen:
    url: str = ""
    password: str = PASSWORD
    through: list[str] = field(default_factory=list)
    """Host and port of each that was let through."""
    refused: int = 0
    answer: bytes = b""
    """What it answers to everything, if anything."""
    writers: set[asyncio.StreamWriter] = field(default_factory=set)


@asynccontextmanager
async def https_proxy(place: Path) -> AsyncIterator[Seen]:
    """Spoken to by TLS; who has signed for it is in ``place``."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    named = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    await asyncio.to_thread(lambda: tls.load_cert_chain(certificate(place, "127.0.0.1", named)))
    async with http_proxy(tls) as seen:
        yield seen


@asynccontextmanager
async def http_proxy(tls: ssl.SSLContext | None = None) -> AsyncIterator[Seen]:
    seen = Seen()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *headers = head.split("\r\n")[:-2]
        method, target, _ = line.split(" ")
        told = {name.lower(): value for name, _, value in (one.partition(": ") for one in headers)}
        if told.get("proxy-authorization") != basic(USER, seen.password):
            seen.refused += 1
            writer.write(
                b'HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
            )
            return
        if seen.answer:
            writer.write(seen.answer)
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        seen.through.append(f"{parts.hostname}:{parts.port or 80}")
        theirs, to_them = await asyncio.open_connection(parts.hostname, parts.port or 80)
        seen.writers.add(to_them)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Fine\r\n\r\n")
        else:
            path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
            kept = "\r\n".join(one for one in headers if not one.lower().startswith("proxy-"))
            to_them.write(f"{method} {path} HTTP/1.1\r\n{kept}\r\n\r\n".encode())
        await _splice(reader, writer, theirs, to_them)

    async with _serving(seen, serve, "https" if tls else "http", tls):
        yield seen


@asynccontextmanager
async def socks_proxy() -> AsyncIterator[Seen]:
    seen = Seen()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        if 2 not in await reader.readexactly(count):
            writer.write(b"\x05\xff")
            return
        writer.write(b"\x05\x02")
        _, size = await reader.readexactly(2)
        user = await reader.readexactly(size)
        password = await reader.readexactly((await reader.readexactly(1))[0])
        if (user, password) != (USER.encode(), seen.password.encode()):
            seen.refused += 1
            writer.write(b"\x01\x01")
            return
        writer.write(b"\x01\x00")
        _, _, _, kind = await reader.readexactly(4)
        if kind == 1:
            host = ".".join(map(str, await reader.readexactly(4)))
        else:
            assert kind == 3
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        port = int.from_bytes(await reader.readexactly(2))
        seen.through.append(f"{host}:{port}")
        theirs, to_them = await asyncio.open_connection(host, port)
        seen.writers.add(to_them)
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await _splice(reader, writer, theirs, to_them)

    async with _serving(seen, serve, "socks5"):
        yield seen


@asynccontextmanager
async def _serving(
    seen: Seen, serve: object, scheme: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    tasks = set[asyncio.Task[None]]()

    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        seen.writers.add(writer)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await serve(reader, writer)  # type: ignore[operator]
                await writer.drain()
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serving, "127.0.0.1", 0, ssl=tls)
    seen.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in seen.writers:
            writer.transport.abort()


async def _splice(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    theirs: asyncio.StreamReader,
    to_them: asyncio.StreamWriter,
) -> None:
    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65_536):
                target.write(piece)
                await target.drain()
            if target.can_write_eof():
                target.write_eof()
            else:  # TLS has no half of an end
                target.close()

    await asyncio.gather(copy(reader, to_them), copy(theirs, writer))
