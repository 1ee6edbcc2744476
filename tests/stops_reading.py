"""A client of the relay that has everything that starts wait for it, has the page talk to it, and then neither reads nor ends. Run by test_relay_drivers.py."""

import asyncio
import sys
import time
from typing import Any

import aiohttp

TALKS = "window.flood = setInterval(() => console.log('x'.repeat(1e5)), 10)"


async def main(address: str, token: str) -> None:
    number = 0
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
        http.ws_connect(address) as ws,
    ):

        async def ask(method: str, session: str | None = None, **params: Any) -> None:
            nonlocal number
            number += 1
            named = {} if session is None else {"sessionId": session}
            await ws.send_json({"id": number, "method": method, "params": params, **named})

        waits: dict[str, Any] = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        await ask("Target.setAutoAttach", **waits)
        async for message in ws:
            said = message.json()
            if said.get("method") == "Target.attachedToTarget":
                session = said["params"]["sessionId"]
                await ask("Runtime.enable", session)
                await ask("Target.setAutoAttach", session, **waits)
                await ask("Runtime.evaluate", session, expression=TALKS)
            if said.get("method") == "Runtime.consoleAPICalled":
                break
        print("here", flush=True)  # noqa: T201 (whoever has started it waits for that)
        time.sleep(600)


asyncio.run(main(*sys.argv[1:]))
