#!/usr/bin/env python3
"""Passes bytes between one client and HOST:PORT, and does nothing else: what any process of asyncio's in between costs. Run by relay.py."""

import asyncio
import sys


class End(asyncio.Protocol):
    """One of the two connections; what comes at it goes out at the other."""

    other: asyncio.Transport

    def __init__(self, accepted: asyncio.Future[asyncio.Transport] | None = None) -> None:
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._accepted is not None:
            transport.pause_reading()
            self._accepted.set_result(transport)

    def data_received(self, data: bytes) -> None:
        self.other.write(data)


async def main() -> None:
    host, port = sys.argv[1:]
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[asyncio.Transport] = loop.create_future()
    here = End(accepted)
    server = await loop.create_server(lambda: here, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    client = await accepted
    here.other, there = await loop.create_connection(End, host, int(port))
    there.other = client
    client.resume_reading()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
