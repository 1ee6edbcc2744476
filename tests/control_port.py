"""A control port in this process, a caller of it, and what every answer of it has to be."""

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from waguard.supervisor.supervisor import Supervisor

ADMIN, TOKEN, TOKEN2 = "admin-admin-admin-admin", "demo-demo-demo-demo", "demo2-demo2-demo2"
API = {
    "admin_token": SecretStr(ADMIN),
    "client_tokens": {"demo": SecretStr(TOKEN), "demo2": SecretStr(TOKEN2)},
}


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


def is_problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """The one form of all errors; returns it."""
    assert (answer.status, answer.json.get("code")) == (status, code), answer.body
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    problem = answer.json
    assert problem["type"] == "about:blank"
    assert problem["status"] == status
    assert problem["title"] == code.replace("_", " ")
    assert re.search(r"\w+ \w+.*\.$", problem["detail"]), "a sentence"
    is_well_made(answer)
    return problem


def is_well_made(answer: Answer) -> None:
    assert re.fullmatch(r"[0-9a-f]{8}", answer.headers["X-Request-Id"])
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@dataclass
class Port:
    """A control port and a caller of it."""

    url: str
    supervisor: Supervisor
    http: aiohttp.ClientSession
    ids: set[str] = field(default_factory=set)

    async def ask(
        self, method: str, path: str, token: str | None = ADMIN, *, body: Any = None, **headers: str
    ) -> Answer:
        """``path`` goes out as it is, percent signs and all; header names have ``_`` for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named.setdefault("Authorization", f"Bearer {token}")
        url = URL(self.url + path, encoded=True)
        async with self.http.request(method, url, data=body, headers=named) as response:
            answer = Answer(response.status, response.headers.copy(), await response.read())
        if "X-Request-Id" in answer.headers:
            assert answer.headers["X-Request-Id"] not in self.ids
            self.ids.add(answer.headers["X-Request-Id"])
        return answer

    async def raw(self, data: bytes, *, hang_up: bool = False, then: bytes = b"") -> Answer | None:
        """Bytes as they are, on a connection of their own; ``then`` when the server says that it goes on."""
        address = URL(self.url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            writer.write(data)
            await writer.drain()
            if hang_up:
                return None
            async with asyncio.timeout(10):
                if then:
                    assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
                    writer.write(then)
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers: CIMultiDict[str] = CIMultiDict()
                for line in head.split("\r\n")[1:-2]:
                    name, _, value = line.partition(": ")
                    headers.add(name, value)
                body = await reader.readexactly(int(headers["Content-Length"]))
            return Answer(int(head.split()[1]), headers, body)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
