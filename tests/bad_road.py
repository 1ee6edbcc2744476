"""A way to a daemon on which things get lost: what a network does to the client library."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Road:
    """Passes bytes on, until it is told otherwise."""

    def __init__(self, url: str) -> None:
        self._there = urlsplit(url)
        self.open: set[asyncio.WriteTransport] = set()
        """Both ends of each connection."""
        self.url = ""
        self.lose_answers = 0
        """Of so many the first bytes do not arrive: both ends are cut instead."""
        self.is_deaf = False
        """What the daemon says is swallowed."""
        self.taken = 0
        """Connections, so far."""

    def cut(self) -> None:
        for one in self.open:
            one.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        back_reader, back_writer = await asyncio.open_connection(self._there.hostname, self._there.port)
        both = {writer.transport, back_writer.transport}
        self.open |= both
        try:
            await asyncio.gather(self._pump(reader, back_writer), self._pump(back_reader, writer, back=True))
        except OSError:
            pass
        finally:
            self.open -= both
            for one in both:
                one.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False
    ) -> None:
        while data := await reader.read(65_536):
            if back and self.lose_answers:
                self.lose_answers -= 1
                raise ConnectionResetError
            if not (back and self.is_deaf):
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def bad_road(url: str) -> AsyncIterator[Road]:
    road = Road(url)
    carrying: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(road._carry(reader, writer))
        carrying.add(task)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    road.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield road
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)
