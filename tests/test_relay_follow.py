"""A client that follows its session stays attached when the browser ends: it is told in the protocol's terms, and goes on in the next one."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bare_browser import BINARY
from clients import BRISK, DEMO, log_in, pid_of, token
from conftest import Daemon, Journal
from npm import DRIVERS, installed, needs_npm
from raw_client import raw_client

from waguard.core.model import Link, Wait
from waguard.relay.client import Closing
from waguard.relay.wire import NO_SESSION
from waguard.simulator.server import Simulator
from waguard.supervisor.supervisor import Supervisor

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium is installed"),
]


class World:
    def __init__(self, supervisor: Supervisor, url: str, home: str) -> None:
        self.supervisor, self.home = supervisor, home
        self.pid = pid_of(supervisor.view(DEMO))
        self.address = f"{url.replace('http', 'ws', 1)}/v1/sessions/demo/cdp?follow=true"
        self.secret = token(supervisor)

    async def until_connected(self) -> None:
        async with asyncio.timeout(30):
            while self.supervisor.view(DEMO).link is not Link.CONNECTED:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def world_at(start: Daemon, follow_s: float) -> AsyncIterator[World]:
    async with (
        Simulator(cadence=BRISK) as simulator,
        start(relay={"follow_s": follow_s}, whatsapp={"url": simulator.url}) as (supervisor, url),
    ):
        await log_in(supervisor, simulator, DEMO)
        yield World(supervisor, url, simulator.url)


@pytest.fixture
async def world(start: Daemon) -> AsyncIterator[World]:
    async with world_at(start, 40.0) as world:
        yield world


async def test_it_is_told_what_has_gone_and_what_has_come(world: World, journal: Journal) -> None:
    async with raw_client(world.address, world.secret) as client:
        await client.ask("Target.setDiscoverTargets", discover=True, filter=[{}])
        await client.ask("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
        before = (await client.ask("Target.createTarget", url="about:blank"))["result"]["targetId"]
        attached = client.told("Target.attachedToTarget")
        (page,) = [one["sessionId"] for one in attached if one["targetInfo"]["type"] == "page"]
        there = {one["targetInfo"]["targetId"] for one in client.told("Target.targetCreated")}
        waits = {"expression": "new Promise(() => {})", "awaitPromise": True}
        await client.send(4, "Runtime.evaluate", page, **waits)
        restarting = asyncio.create_task(world.supervisor.restart(DEMO, wait=Wait.QR))
        client.heard.clear()
        answer = await client.until(lambda said: said.get("id") == 4)
        assert "waguard: the browser has gone" in answer["error"]["message"]
        answer = await client.ask("Browser.getVersion")
        assert "waguard: the browser has gone" in answer["error"]["message"]
        assert (await client.ask("Runtime.evaluate", page, expression="1"))["error"]["code"] == NO_SESSION
        gone = {one["sessionId"] for one in client.told("Target.detachedFromTarget")}
        assert gone == {one["sessionId"] for one in attached}
        assert {one["targetId"] for one in client.told("Target.targetDestroyed")} == there
        await client.until(
            lambda said: (
                said.get("method") == "Target.attachedToTarget"
                and said["params"]["targetInfo"]["type"] == "page"
            )
        )
        await restarting
        (again,) = client.told("Target.attachedToTarget")
        target = again["targetInfo"]["targetId"]
        assert target != before
        answer = await client.ask("Target.createTarget", url="about:blank")
        assert answer["result"] == {"targetId": target}
        answer = await client.ask("Runtime.evaluate", again["sessionId"], expression="6 * 7")
        assert answer["result"]["result"]["value"] == 42
        assert [one.fields["reason"] for one in journal.named("relay.detached")] == ["its browser is closed"]
        assert len(journal.named("relay.attached")) == 2
        await world.until_connected()


async def test_a_browser_that_does_not_come_back_is_waited_for_so_long(
    start: Daemon, journal: Journal
) -> None:
    async with world_at(start, 0.5) as world, raw_client(world.address, world.secret) as client:
        await world.supervisor.disconnect(DEMO)
        assert await client.closed() == Closing.BROWSER
        assert world.supervisor._sessions[DEMO].driving.attached == 0
        assert len(journal.named("relay.attached")) == 1
        assert len(journal.named("relay.detached")) == 1, "with its browser, and that is all"


@needs_npm
@pytest.mark.parametrize("driver", ["puppeteer", "playwright"])
async def test_a_driver_goes_on_in_the_next_browser(world: World, driver: str) -> None:
    script = Path(__file__).with_name("follows.mjs")
    address = world.address if driver == "puppeteer" else world.address.replace("ws:", "http:", 1)
    node = await asyncio.create_subprocess_exec(
        *map(str, ("node", script, installed(*DRIVERS), driver, address, world.secret, world.home)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert node.stdout is not None
    try:
        async with asyncio.timeout(90):
            assert json.loads(await node.stdout.readline())["event"] == "attached"
            os.kill(world.pid, signal.SIGKILL)  # its login is of a moment ago, and may not be on the disk
            told = json.loads(await node.stdout.readline())
            assert told["event"] == "closed"
            assert "waguard: the browser has gone" in told["said"][1]
            told = json.loads(await node.stdout.readline())
            assert (told["event"], told["said"]) == ("again", [True, True, 42, ["from the page"]])
            assert json.loads(await node.stdout.readline())["event"] == "disconnected"
            assert await node.wait() == 0
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()
    assert pid_of(world.supervisor.view(DEMO)) != world.pid
