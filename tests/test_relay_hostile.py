"""Three clients with sockets of their own against a real browser, in an order that a number decides: nobody hears or leaves what is another's.

`test_relay_model` has the same against a model of the browser, and far more of it. What a client may reach with a browser is tried here too.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from bare_browser import BINARY
from clients import BRISK, DEMO, log_in, pid_of, token
from conftest import Daemon, Journal

from waguard.browser.devtools import DevTools
from waguard.browser.strangers import end_strangers
from waguard.core.model import Link
from waguard.simulator.server import Simulator

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium is installed"),
]
STEPS = 180
GARBAGE = [
    "",
    "{",
    "[]",
    '{"id":1,"method":"Browser.getVersion"}\0{}',
    '{"id":5,"method":7}',
    "\ud83d",
    "[" * 400,
]


@dataclass
class Raw:
    """A client without a driver: what it has sent, all that it was told, and what is its alone."""

    ws: aiohttp.ClientWebSocketResponse
    secret: str
    frames: list[dict[str, Any]] = field(default_factory=list)
    asked: dict[int, str] = field(default_factory=dict)
    """Numbers of commands, each in its session."""
    sessions: list[str] = field(default_factory=list)
    contexts: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    """Of contexts of its own."""
    gone: set[str] = field(default_factory=set)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    hearing: "asyncio.Task[None] | None" = None

    @property
    def ids(self) -> set[str]:
        """Which nobody else may see."""
        return {self.secret, *self.sessions, *self.contexts, *self.pages}

    async def hear(self) -> None:
        async for message in self.ws:
            said = json.loads(message.data)
            self.frames.append(said)
            match said:
                case {"method": "Target.attachedToTarget", "params": {"sessionId": str(session)}}:
                    self.sessions.append(session)
                case {"method": "Target.detachedFromTarget", "params": {"sessionId": str(session)}}:
                    self.gone.add(session)
                case {"result": {"browserContextId": str(context)}}:
                    self.contexts.append(context)
                case {"result": {"targetId": str(target)}} if said["id"] % 10 == 7:
                    self.pages.append(target)
            self.heard.set()

    async def ask(self, number: int, method: str, session: str = "", **params: Any) -> None:
        self.asked[number] = session
        named = {"sessionId": session} if session else {}
        if not self.ws.closed:
            await self.ws.send_str(json.dumps({"id": number, "method": method, "params": params, **named}))

    def unanswered(self) -> list[int]:
        """But for what was asked in sessions that are gone."""
        answered = Counter(said["id"] for said in self.frames if "id" in said)
        assert max((count for number, count in answered.items() if number in self.asked), default=0) <= 1
        return [one for one, at in self.asked.items() if one not in answered and at not in self.gone]

    async def rest(self) -> None:
        async with asyncio.timeout(20):
            while self.unanswered():
                self.heard.clear()
                await self.heard.wait()


class Three:
    def __init__(self, http: aiohttp.ClientSession, url: str, token: str, chance: random.Random) -> None:
        self._http, self._chance = http, chance
        self._url = f"{url}/v1/sessions/demo/cdp"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._number = 100
        self.here: list[Raw] = []
        self.ever: list[Raw] = []

    async def come(self) -> None:
        owns = self._chance.random() < 0.5
        query = "?takeover=true" if owns else ""
        ws = await self._http.ws_connect(self._url + query, headers=self._headers, max_msg_size=0)
        raw = Raw(ws, f"secret{len(self.ever)}of")
        raw.hearing = asyncio.create_task(raw.hear())
        self.here.append(raw)
        self.ever.append(raw)

    async def leave(self, raw: Raw, *, politely: bool) -> None:
        self.here.remove(raw)
        if politely:
            await raw.ws.close()
        else:
            raw.ws._response.close()
        assert raw.hearing is not None
        await raw.hearing

    async def step(self) -> None:
        for one in [one for one in self.here if one.ws.closed]:
            await self.leave(one, politely=True)  # taken over
        while len(self.here) < 3:
            await self.come()
        chance = self._chance
        raw = chance.choice(self.here)
        self._number += 10
        number, session = self._number, chance.choice(["", *raw.sessions])
        foreign = chance.choice([*(one for other in self.ever for one in other.ids), "nobody's"])
        script = f"'{raw.secret} {number} ' + 'x'.repeat({chance.choice([0, 10, 300_000])})"
        match chance.randrange(22):
            case 0 | 1 | 2 | 3:
                await raw.ask(number, "Runtime.evaluate", session, expression=script)
            case 4 | 5 | 6:
                flat = chance.random() < 0.8
                target = chance.choice(self.known(raw))
                await raw.ask(number, "Target.attachToTarget", "", targetId=target, flatten=flat)
            case 7:
                await raw.ask(number, "Target.createBrowserContext")
            case 8 | 9 if raw.contexts:
                url = chance.choice(["about:blank", "data:text/html,own", "file:///etc/passwd"])
                context = chance.choice(raw.contexts)
                await raw.ask(number + 7, "Target.createTarget", url=url, browserContextId=context)
            case 10:
                await raw.ask(number, "Runtime.evaluate", foreign, expression="1")
            case 11:
                method = chance.choice(
                    ["Target.attachToTarget", "Target.closeTarget", "Target.getTargetInfo"]
                )
                await raw.ask(number, method, targetId=foreign, flatten=True)
            case 12:
                method = chance.choice(["Target.detachFromTarget", "Target.disposeBrowserContext"])
                await raw.ask(number, method, sessionId=foreign, browserContextId=foreign)
            case 13:
                await raw.ws.send_str(chance.choice(GARBAGE).encode("utf-8", "replace").decode())
            case 14:
                await raw.ask(number, "Target.setDiscoverTargets", discover=True, filter=[{}])
            case 15:
                waits = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
                await raw.ask(number, "Target.setAutoAttach", session, **waits)
            case 16:
                await raw.ask(number, "Target.createTarget", url="about:blank")
            case 17:
                await raw.ask(number, "Target.closeTarget", targetId=chance.choice(self.known(raw)))
            case 18 if raw.sessions:
                await raw.ask(number, "Target.detachFromTarget", sessionId=chance.choice(raw.sessions))
            case 19:
                await raw.ask(
                    number, chance.choice(["Runtime.enable", "Debugger.enable", "No.such"]), session
                )
            case 20 if chance.random() < 0.4:
                await self.leave(raw, politely=chance.random() < 0.5)
            case _:
                await raw.ask(number, "Target.getTargets", filter=[{}])

    @staticmethod
    def known(raw: Raw) -> list[str]:
        """Targets that it was told of."""
        told = [info for said in raw.frames for info in said.get("result", {}).get("targetInfos", ())]
        return [*{info["targetId"]: None for info in told}, *raw.pages] or ["none"]


@asynccontextmanager
async def connected(
    start: Daemon, journal: Journal
) -> AsyncIterator[tuple[DevTools, str, str, aiohttp.ClientSession]]:
    """A session that stays as it is, with nothing left in its browser."""
    async with (
        Simulator(cadence=BRISK) as simulator,
        start(page={"poll_s": 0.05}, whatsapp={"url": simulator.url}) as (supervisor, url),
        aiohttp.ClientSession() as http,
    ):
        (before,) = await log_in(supervisor, simulator, DEMO)
        browser = supervisor._sessions[DEMO]._instance.browser
        assert browser is not None
        assert browser.page is not None
        assert browser.devtools is not None
        yield browser.devtools, url, token(supervisor), http
        driving = supervisor._sessions[DEMO].driving
        async with asyncio.timeout(10):
            while driving.attached or supervisor.view(DEMO).link is not Link.CONNECTED:
                await asyncio.sleep(0.02)
        after = supervisor.view(DEMO)
        assert (pid_of(after), after.attempt) == (pid_of(before), before.attempt)
        assert await browser.page.look("6 * 7") == 42
        assert await end_strangers(browser.devtools) == 0
        told = await browser.devtools.browser.send("Target.getBrowserContexts")
        assert told["browserContextIds"] == []
        channel = browser.devtools._channel
        assert channel._lanes == {channel.own}
        assert not journal.named("health.finding")


async def test_three_clients_in_whatever_order(start: Daemon, journal: Journal) -> None:
    await interleave(start, journal, seed=16, steps=STEPS)


async def interleave(start: Daemon, journal: Journal, seed: int, steps: int) -> None:
    async with connected(start, journal) as (_, url, secret, http):
        three = Three(http, url, secret, random.Random(seed))
        for _ in range(steps):
            await three.step()
        for raw in three.here:
            if not raw.ws.closed:
                await raw.rest()
        for raw in [*three.here]:
            await three.leave(raw, politely=True)
        for raw in three.ever:
            text = json.dumps(raw.frames)
            for other in three.ever:
                strange = [one for one in other.ids - raw.ids if one in text]
                assert other is raw or not strange, (seed, strange)


FILES = [
    "file:///etc/passwd",
    "file:///profile/Default/Cookies",
    "view-source:file:///etc/passwd",
    "filesystem:file:///x",
]
TRIES = "(async () => {{ try {{ {} }} catch (error) {{ return 'failed ' + error; }} }})()"


async def test_a_client_reaches_no_file_and_not_the_control_port(start: Daemon, journal: Journal) -> None:
    """By an address, a script, a page of its own or a request that it holds: as whoever owns the page, with a ticket in its hands."""
    async with connected(start, journal) as (_, url, secret, http):
        three = Three(http, url, secret, random.Random(0))
        await three.come()
        (raw,) = three.here
        number = 0

        async def ask(method: str, session: str = "", **params: Any) -> dict[str, Any]:
            nonlocal number
            number += 10
            await raw.ask(number, method, session, **params)
            await raw.rest()
            (said,) = [one for one in raw.frames if one.get("id") == number]
            return said

        async def attached(target: str) -> str:
            said = await ask("Target.attachToTarget", targetId=target, flatten=True)
            return str(said["result"]["sessionId"])

        async def tried(session: str, script: str) -> str:
            asked = {"expression": TRIES.format(script), "awaitPromise": True, "userGesture": True}
            return str((await ask("Runtime.evaluate", session, **asked))["result"]["result"].get("value"))

        page = await attached((await ask("Target.createTarget", url="about:blank"))["result"]["targetId"])
        context = (await ask("Target.createBrowserContext"))["result"]["browserContextId"]
        own_page = await ask("Target.createTarget", url="about:blank", browserContextId=context)
        own = await attached(own_page["result"]["targetId"])
        for session in (page, own):
            for file in FILES:
                assert "is refused" in (await ask("Page.navigate", session, url=file))["error"]["message"]
                read = f"const told = await fetch('{file}'); return await told.text();"
                assert (await tried(session, read)).startswith("failed")
                await tried(session, f"location = '{file}'")
                await tried(session, f"window.open('{file}')")
        for file in FILES:
            opened = await ask("Target.createTarget", url=file, browserContextId=context)
            assert "is refused" in opened["error"]["message"]
        for mime in ("text/uri-list", "text/plain", "text/html"):
            data = {"items": [{"mimeType": mime, "data": FILES[0]}], "dragOperationsMask": 1}
            for event in ("dragEnter", "dragOver", "drop"):
                await ask("Input.dispatchDragEvent", page, type=event, x=50, y=50, data=data)
        await asyncio.sleep(0.5)  # what it would open, it opens by itself and tells nobody
        infos = (await ask("Target.getTargets", filter=[{}]))["result"]["targetInfos"]
        assert not [info["url"] for info in infos if "file:" in info["url"]]

        headers = {"Authorization": f"Bearer {secret}"}
        async with http.post(f"{url}/v1/sessions/demo/cdp/tickets", headers=headers) as answer:
            ticket = (await answer.json())["url"]
        opens = f"return await new Promise(done => {{ const ws = new WebSocket('{ticket}'); ws.onopen = () => done('open'); ws.onerror = () => done('refused'); }})"
        asks = f"const told = await fetch('{url}/v1/sessions', {{headers: {{Authorization: 'Bearer x'}}}}); return 'read ' + told.status;"
        for session in (page, own):
            assert await tried(session, opens) == "refused"
            assert (await tried(session, asks)).startswith("failed")
        async with http.ws_connect(ticket) as ws:  # which was not used up
            assert not ws.closed
        await three.leave(raw, politely=True)
