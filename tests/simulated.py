"""The simulator's HTTP side as its phone has it, and pages that are no browsers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import aiohttp
from bare_browser import AGENT

from waguard.simulator.server import Cadence, Simulator

KEYS = ["noise=", "identity=", "adv=", "1"]


class Client:
    """The simulator's HTTP side, and pages that are no browsers."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http
        self.url = str(http._base_url)

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.http.request(method, path, **options) as answer:
            return answer.status, await answer.json()

    @asynccontextmanager
    async def page(self, *, cookie: str = "a") -> AsyncIterator["Wire"]:
        async with self.http.ws_connect("/ws", headers={"Cookie": f"simulator_browser={cookie}"}) as ws:
            yield Wire(ws)

    async def scan(self, qr: str) -> str:
        status, body = await self.ask("POST", "/phone/scan", data=qr)
        assert status == 200, body
        wid = body["wid"]
        assert isinstance(wid, str)
        return wid

    async def enter(self, code: str) -> str:
        """A pairing code, on the phone that it is for."""
        status, body = await self.ask("POST", "/phone/link", json={"code": code})
        assert status == 200, body
        return str(body["wid"])

    async def pair(self, **options: Any) -> tuple[str, str]:
        async with self.page(**options) as wire:
            await self.scan(await wire.code())
            paired = await wire.hear("pair-success")
            await wire.say("paired")
            assert (await wire.hear("stream-error"))["code"] == 515
        return paired["wid"], paired["key"]

    async def write(self, sender: str, **values: str) -> Any:
        """Have somebody write to the only device."""
        status, body = await self.ask("POST", "/phone/message", json={"from": sender, **values})
        assert status == 200, body
        return body

    async def written(self) -> Any:
        """All messages."""
        _, body = await self.ask("GET", "/phone/messages")
        return body["messages"]

    async def put(self, content: bytes, mimetype: str) -> str:
        """Media, for messages; their path."""
        status, body = await self.ask(
            "POST", "/media", data=BytesIO(content), headers={"Content-Type": mimetype}
        )
        assert status == 200, body
        return str(body["path"])

    async def get(self, path: str) -> tuple[bytes, str]:
        async with self.http.get(path) as answer:
            assert answer.status == 200
            return await answer.read(), answer.content_type

    async def link(self, wid: str) -> str | None:
        _, body = await self.ask("GET", "/phone/devices")
        return next((device["link"] for device in body["devices"] if device["wid"] == wid), None)


class Wire:
    """A page's WebSocket."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def say(self, kind: str, **values: Any) -> None:
        await self.ws.send_json({"kind": kind, **values})

    async def hear(self, kind: str) -> Any:
        message = await self.ws.receive_json()
        assert message["kind"] == kind, message
        return message

    async def hello(self) -> list[str]:
        await self.say("hello")
        names: list[str] = (await self.hear("welcome"))["names"]
        return names

    async def code(self) -> str:
        await self.hello()
        await self.say("pair", keys=KEYS)
        return await self.next_code()

    async def next_code(self) -> str:
        return ",".join([(await self.hear("qr"))["ref"], *KEYS])

    async def pairing_code(self, phone: str) -> str:
        await self.say("code", phone=phone)
        return str((await self.hear("code"))["code"])

    async def log_in(self, wid: str, key: str) -> Any:
        await self.hello()
        await self.say("login", wid=wid, key=key)
        await self.hear("success")
        return await self.hear("synced")

    async def ended(self) -> bool:
        return (await self.ws.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


@asynccontextmanager
async def simulated(cadence: Cadence) -> AsyncIterator[Client]:
    agent = {"User-Agent": AGENT}
    async with (
        Simulator(cadence=cadence) as simulator,
        aiohttp.ClientSession(
            base_url=simulator.url, headers=agent, cookie_jar=aiohttp.DummyCookieJar()
        ) as http,
    ):
        yield Client(http)
