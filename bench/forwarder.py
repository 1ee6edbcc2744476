"""Passes bytes between whoever connects and HOST:PORT, and does nothing else: what any process of asyncio's in between costs. Run by relay.py."""

import asyncio
import sys


class There(asyncio.Protocol):
    """The connection to the address; what comes goes out at the other."""

    def __init__(self, other: asyncio.Transport) -> None:
        self._other = other

    def data_received(self, data: bytes) -> None:
        self._other.write(data)


class Here(asyncio.Protocol):
    """One that was accepted."""

    _other: asyncio.Transport

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect(transport))

    async def _connect(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        self._other, _ = await loop.create_connection(lambda: There(transport), *self._address)
        transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._other.write(data)


async def main() -> None:
    host, port = sys.argv[1:]
    server = await asyncio.get_running_loop().create_server(lambda: Here(host, int(port)), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
