"""One attempt to deliver a message: to an address that it may go to, within a deadline. What is answered besides the status is not read."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType

from waguard import __version__
from waguard.core.deliveries import Answer, answered
from waguard.core.webhook import Network, Webhook, literal, may_reach
from waguard.system.tasks import forget
from waguard.system.threads import Lone

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class _Refused(OSError):
    """The host is nowhere that a message may be sent."""

    def __str__(self) -> str:
        return "Its host is at no public address, and webhooks.allowed_networks does not allow that one."


class Sender:
    """Of one webhook: its lookups of names have a thread of their own, so that a name server that hangs holds up nobody else."""

    def __init__(
        self,
        name: str,
        allowed: Sequence[Network],
        answer_s: float,
        wall: Callable[[], float],
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """``answer_s``: deadline of an attempt, from the lookup to the status. ``trust``: certificates, in place of the machine's."""
        self._allowed = allowed
        self._answer_s = answer_s
        self._wall = wall
        self._trust = trust
        self._names = Lone(f"names-{name}")

    def end(self) -> None:
        self._names.end()

    async def send(self, webhook: Webhook, message: str, body: bytes) -> Answer:
        """What has come of it; it raises nothing."""
        began = time.monotonic()

        def failed(error: str) -> Answer:
            return Answer(None, error, duration_ms=_ms(began))

        try:
            async with asyncio.timeout(self._answer_s):
                return await self._send(webhook, message, body, began)
        except TimeoutError:
            return failed(f"It has not answered within {self._answer_s:g} s.")
        except aiohttp.ClientConnectorCertificateError:
            return failed("Its certificate is none of this host's, or is not trusted.")
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _Refused):
                return failed(str(error.os_error))
            return failed(f"It cannot be reached: {error.os_error.strerror or 'no connection'}.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return failed(f"What answers speaks no HTTP, or hangs up: {type(error).__name__}.")

    async def _send(self, webhook: Webhook, message: str, body: bytes, began: float) -> Answer:
        headers = {"User-Agent": f"waguard/{__version__}", **webhook.headers(message, body, self._wall())}
        scheme = urlsplit(webhook.url).scheme
        connector = aiohttp.TCPConnector(
            resolver=_Resolver(self._names),
            socket_factory=partial(self._socket, scheme),
            use_dns_cache=False,
            force_close=True,
            ssl=self._trust or True,
        )
        # No proxy and no cookie of anybody's; and where a redirect leads nobody has looked at.
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            ) as http,
            http.post(webhook.url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            after = answer.headers.get("Retry-After", "")
            return answered(answer.status, after, self._wall(), _ms(began))

    def _socket(self, scheme: str, to: AddrInfoType) -> socket.socket:
        """For the very address that is connected to next, whatever its name was looked up as before. Raises `_Refused`."""
        address = literal(str(to[4][0]))
        if address is None or not may_reach(address, scheme, self._allowed):
            raise _Refused
        return socket.socket(to[0], to[1], to[2])


class _Resolver(AbstractResolver):
    def __init__(self, names: Lone) -> None:
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        looking = self._names.submit(partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM))
        forget(looking)
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=proto, flags=_NUMERIC
            )
            for kind, _, proto, _, address in await looking
        ]

    async def close(self) -> None:
        """It holds nothing."""


def _ms(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
