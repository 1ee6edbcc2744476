"""A client of the relay without a driver: it sends commands and keeps what it hears."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp


@asynccontextmanager
async def raw_client(address: str, secret: str) -> AsyncIterator["RawClient"]:
    """``address``: of a session's `/cdp`."""
    headers = {"Authorization": f"Bearer {secret}"}
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(address, headers=headers, autoclose=False) as ws,
    ):
        yield RawClient(ws)


class RawClient:
    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.heard: list[dict[str, Any]] = []
        self._asked = 100

    async def send(self, number: int, method: str, session: str = "", **params: Any) -> None:
        named = {"sessionId": session} if session else {}
        await self.ws.send_json({"id": number, "method": method, "params": params, **named})

    async def ask(self, method: str, session: str = "", **params: Any) -> Any:
        """The whole answer."""
        self._asked += 1
        number = self._asked
        await self.send(number, method, session, **params)
        return await self.until(lambda said: said.get("id") == number)

    async def until(self, wanted: Callable[[Mapping[str, Any]], bool]) -> Any:
        async with asyncio.timeout(30):
            while True:
                said = await self.ws.receive_json()
                self.heard.append(said)
                if wanted(said):
                    return said

    def told(self, method: str) -> list[Mapping[str, Any]]:
        """Parameters of each such event."""
        return [said["params"] for said in self.heard if said.get("method") == method]

    async def attach(self) -> str:
        """To the page."""
        infos = (await self.ask("Target.getTargets"))["result"]["targetInfos"]
        (page,) = [one["targetId"] for one in infos if one["type"] == "page"]
        session: str = (await self.ask("Target.attachToTarget", targetId=page, flatten=True))["result"][
            "sessionId"
        ]
        return session

    async def pause(self) -> None:
        """The page, in the middle of a script."""
        session = await self.attach()
        await self.ask("Debugger.enable", session)
        await self.send(1, "Runtime.evaluate", session, expression="debugger")
        await self.until(lambda said: said.get("method") == "Debugger.paused")

    async def closed(self) -> int | None:
        """The code with which it is, when it is."""
        async with asyncio.timeout(15):
            async for message in self.ws:
                assert message.type is aiohttp.WSMsgType.TEXT
        return self.ws.close_code
