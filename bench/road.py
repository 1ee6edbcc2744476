"""What may lie between pages and the simulator: a road that can be cut, and names that nobody resolves any more."""

import asyncio
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit


class Road:
    """Between the pages and the simulator: can be cut, and mended on the same port."""

    def __init__(self, name: str = "127.0.0.1") -> None:
        self.port = 0
        self._name = name
        """What the pages call it; the simulator hears of localhost."""
        self._there = ""
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def lead(self, url: str) -> str:
        self._there = urlsplit(url).netloc
        return f"http://{self._name}:{self.port}/"

    def cut(self) -> None:
        """Nobody listens, and what was open is reset."""
        if self._server is not None:
            self._server.close()
        self.reset()

    def reset(self) -> None:
        for end in tuple(self._ends):
            end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._there.rpartition(":")
        self._ends.add(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            self._ends.add(there_writer)
            name = f"Host: {self._name}".encode()
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass_on(reader, there_writer, name))
                both.create_task(_pass_on(there_reader, writer))
            self._ends.discard(there_writer)
        except OSError:
            pass
        finally:
            self._ends.discard(writer)
            writer.close()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, host: bytes = b"") -> None:
    with suppress(OSError):
        while piece := await source.read(2**16):
            target.write(piece.replace(host, b"Host: 127.0.0.1") if host else piece)
            await target.drain()
    target.close()


class Names(asyncio.DatagramProtocol):
    """A DNS server that knows every name as 127.0.0.1, as long as it answers at all."""

    ADDRESS = "127.53.0.1"

    def __init__(self) -> None:
        self.silent = False
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if self.silent or self._transport is None:
            return
        end = data.index(0, 12) + 5
        question = data[12:end]
        address = question[-4:] == b"\0\1\0\1"
        # The name is that of the question, for a second.
        record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if address else b""
        head = data[:2] + b"\x81\x80\0\1" + (b"\0\1" if address else b"\0\0") + b"\0\0\0\0"
        self._transport.sendto(head + question + record, addr)
