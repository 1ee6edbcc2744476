"""A client of the relay that asks for, sends and hears as much as it can, one after the other, and says so. Run by test_relay_drivers.py."""

import asyncio
import json
import sys
from typing import Any

import aiohttp

MESSAGES, FRAMES = 50_000, 20_000
OBJECTS = "Array.from({length: 1.9e6}, (_, number) => ({number, text: 'some'}))"
UPLOAD = f"'{'A' * 60_000_000}'.length"


async def main(address: str, token: str) -> None:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
        http.ws_connect(address, max_msg_size=0) as ws,
    ):
        heard, number = 0, 0

        async def ask(method: str, session: str | None = None, **params: Any) -> str:
            nonlocal heard, number
            number += 1
            named = {} if session is None else {"sessionId": session}
            await ws.send_json({"id": number, "method": method, "params": params, **named})
            while not (said := await ws.receive_str()).startswith(f'{{"id":{number},'):
                heard += 1
            return said

        said = await ask("Target.getTargets")
        (target,) = [
            one["targetId"] for one in json.loads(said)["result"]["targetInfos"] if one["type"] == "page"
        ]
        said = await ask("Target.attachToTarget", targetId=target, flatten=True)
        session = json.loads(said)["result"]["sessionId"]

        def tell(what: str, much: int) -> None:
            print(what, much, flush=True)  # noqa: T201 (whoever has started it waits for that)

        await ask("Runtime.enable", session)
        heard = 0
        await ask(
            "Runtime.evaluate", session, expression=f"for (let i = 0; i < {MESSAGES}; i++) console.log(i)"
        )
        tell("console", heard)
        await ask("Runtime.disable", session)
        tell("objects", len(await ask("Runtime.evaluate", session, expression=OBJECTS, returnByValue=True)))
        tell("upload", '"value":60000000' in await ask("Runtime.evaluate", session, expression=UPLOAD))
        heard = 0
        for _ in range(FRAMES):
            await ws.send_str("{}")
        await ask("Browser.getVersion")
        tell("frames", heard)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
