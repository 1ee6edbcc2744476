"""An unmodified whatsapp-web.js drives the browser that the daemon keeps: its one changed line is where its browser is."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import aiohttp
import pytest
from bare_browser import BINARY
from bots import LONG, Bot, running
from clients import DEMO, pid_of, token
from conftest import Daemon, Journal
from npm import installed, needs_npm
from simulated import Client
from tls_front import tls_front

from waguard.core.model import Link, Status, Wait
from waguard.simulator.server import Cadence, Simulator
from waguard.supervisor.supervisor import Supervisor

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium is installed"),
    needs_npm,
    pytest.mark.timeout(1_800 if LONG else 120),
]
VERSIONS = ("1.31.0", "1.34.7")
SYNC_S = 1.5
ANA = "5215559998877"
MESSAGES, RETURNS = (1_000, 50) if LONG else (20, 3)


class World:
    def __init__(
        self, supervisor: Supervisor, url: str, simulator: Simulator, phone: Client, place: Path
    ) -> None:
        self.supervisor, self.url, self.place = supervisor, url, place
        self.simulator, self.phone = simulator, phone

    def bot(self, version: str) -> AbstractAsyncContextManager[Bot]:
        """The older one's puppeteer takes no headers, and makes one of the password in the address."""
        there, secret = self.url.removeprefix("http://"), token(self.supervisor)
        attach = {
            "browserWSEndpoint": f"ws://{there}/v1/sessions/demo/cdp",
            "headers": {"Authorization": f"Bearer {secret}"},
        }
        if version == VERSIONS[0]:
            attach = {"browserWSEndpoint": f"ws://x:{secret}@{there}/v1/sessions/demo/cdp"}
        modules = installed(f"whatsapp-web.js@{version}")
        return running("wwebjs.cjs", modules, self.place / ".wwebjs_auth", attach)

    async def until_link(self, link: Link) -> None:
        async with asyncio.timeout(20):
            while self.supervisor.view(DEMO).link is not link:
                await asyncio.sleep(0.05)


@pytest.fixture
async def world(start: Daemon, tmp_path: Path) -> AsyncIterator[World]:
    async with world_at(start, tmp_path) as world:
        yield world


@asynccontextmanager
async def world_at(start: Daemon, place: Path) -> AsyncIterator[World]:
    async with (
        Simulator(cadence=Cadence(sync_s=SYNC_S)) as simulator,
        tls_front(simulator.url, place) as flags,
        aiohttp.ClientSession(base_url=simulator.url) as http,
        # The real address leads to a port of this machine here.
        start(browser={"extra_flags": flags}, sandbox={"connect_ports": []}) as (supervisor, url),
    ):
        yield World(supervisor, url, simulator, Client(http), place)


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_comes_up_hears_answers_and_leaves_the_session_up(
    world: World, journal: Journal, version: str
) -> None:
    before = await world.supervisor.connect(DEMO, wait=Wait.QR)
    async with world.bot(version) as bot:
        wid = await world.phone.scan((await bot.until("qr"))["text"])
        for event in ("authenticated", "ready"):
            await bot.until(event)
        sent = [f"in {number}" for number in range(MESSAGES)]
        for body in sent:
            await world.phone.write(ANA, body=body)
        assert [(await bot.until("message"))["body"] for _ in sent] == sent
        answers = [f"out {number}" for number in range(MESSAGES)]
        last = await bot.do("many", to=f"{ANA}@c.us", bodies=answers)
        await bot.until("ack", id=last["id"], ack=2)
        assert [one["body"] for one in await world.phone.written() if one["from_me"]] == answers
        await bot.do("state")  # whatever it was told before has been heard
        assert not [one for one in bot.heard if one["event"] == "message"], "each once"
        await bot.do("destroy")
    await world.until_link(Link.CONNECTED)
    async with world.bot(version) as bot:
        await bot.until("ready")
        assert not [one for one in bot.heard if one["event"] in {"qr", "ready"}]
        await world.phone.write(ANA, body="again")
        assert (await bot.until("message"))["body"] == "again"
        bot.process.send_signal(signal.SIGKILL)
        await bot.process.wait()
    await world.until_link(Link.CONNECTED)
    after = world.supervisor.view(DEMO)
    assert (pid_of(after), after.attempt, after.status) == (pid_of(before), before.attempt, Status.CONNECTED)
    assert await world.phone.link(wid) == "connected"
    assert not journal.named("page.popups_closed")
    assert not journal.named("health.finding")
    assert not journal.named("relay.refused")


async def test_who_attaches_again_is_ready_once_however_quickly_the_page_resumes(
    world: World, journal: Journal
) -> None:
    """The first two times it has resumed before anybody listens."""
    chance, quick = Random(16), world.simulator.cadence
    before = await world.supervisor.connect(DEMO, wait=Wait.QR)
    async with world.bot(VERSIONS[-1]) as bot:
        wid = await world.phone.scan((await bot.until("qr"))["text"])
        await bot.until("ready")
    for turn in range(RETURNS):
        sync_s = 0.0 if turn < len(VERSIONS) else chance.uniform(0, 2)
        world.simulator.cadence = replace(quick, sync_s=sync_s)
        async with world.bot(VERSIONS[turn % len(VERSIONS)]) as bot:
            await bot.until("ready")
            await world.phone.write(ANA, body=f"for {turn}")
            assert (await bot.until("message"))["body"] == f"for {turn}"
            await bot.do("state")  # whatever it was told before has been heard
            assert not [one for one in bot.heard if one["event"] in {"qr", "ready", "message"}]
            if chance.random() < 0.5:
                await bot.do("destroy")
            else:
                bot.process.kill()
                await bot.process.wait()
    assert journal.named("relay.replayed")
    assert not journal.named("health.finding")
    assert await world.phone.link(wid) == "connected"
    after = world.supervisor.view(DEMO)
    assert (pid_of(after), after.attempt) == (pid_of(before), before.attempt)


async def test_a_logout_logs_out_and_the_browser_stays(world: World) -> None:
    before = await world.supervisor.connect(DEMO, wait=Wait.QR)
    async with world.bot(VERSIONS[-1]) as bot:
        await world.phone.scan((await bot.until("qr"))["text"])
        await bot.until("ready")
        await bot.do("logout")
    await world.until_link(Link.AWAITING_SCAN)
    assert pid_of(world.supervisor.view(DEMO)) == pid_of(before)


async def test_a_second_bot_has_to_ask_for_the_page(world: World, journal: Journal) -> None:
    await world.supervisor.connect(DEMO, wait=Wait.QR)
    async with world.bot(VERSIONS[-1]) as bot:
        await bot.until("qr")
        async with world.bot(VERSIONS[-1]) as other:
            with pytest.raises(AssertionError, match="has the page since"):
                await other.until("qr")
        await world.phone.scan(world.supervisor.qr(DEMO).text)
        await bot.until("ready")
    assert [one.fields["method"] for one in journal.named("relay.refused")][-1] == "Target.createTarget"
