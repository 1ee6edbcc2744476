"""Whoever drives a page may end at any moment, and so may the daemon: the browser, the login and the link stay what they were."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest
from bare_browser import BINARY
from bots import LONG, Bot, running
from clients import DEMO, pid_of, token
from conftest import Daemon, Journal
from npm import installed, needs_npm
from raw_client import raw_client
from service import TOKEN, Service
from simulated import Client
from tls_front import tls_front

from waguard.core.model import Link, Reason, Wait
from waguard.relay.client import Closing
from waguard.simulator.server import Cadence, Simulator

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium is installed"),
    needs_npm,
    pytest.mark.timeout(1_800 if LONG else 120),
]
SEED = 16
ROUNDS = 50 if LONG else 8
ANA = "5215559998877"


def bot(url: str, secret: str, place: Path) -> AbstractAsyncContextManager[Bot]:
    attach = {
        "browserWSEndpoint": f"ws://{url.removeprefix('http://')}/v1/sessions/demo/cdp?takeover=true",
        "headers": {"Authorization": f"Bearer {secret}"},
    }
    return running("wwebjs.cjs", installed("whatsapp-web.js@1.34.7"), place / ".wwebjs_auth", attach)


async def test_a_bot_that_is_killed_or_stopped_at_any_moment_costs_nothing(
    start: Daemon, journal: Journal, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    async with (
        Simulator(cadence=Cadence(sync_s=0.2)) as simulator,
        tls_front(simulator.url, tmp_path) as flags,
        aiohttp.ClientSession(base_url=simulator.url) as http,
        start(browser={"extra_flags": flags}, sandbox={"connect_ports": []}, relay={"silent_s": 3.0}) as (
            supervisor,
            url,
        ),
    ):
        phone, secret = Client(http), token(supervisor)
        before = await supervisor.connect(DEMO, wait=Wait.QR)
        async with bot(url, secret, tmp_path) as first:
            wid = await phone.scan((await first.until("qr"))["text"])
            await first.until("ready")
        for number in range(ROUNDS):
            async with bot(url, secret, tmp_path) as mortal:
                moment = chance.uniform(0.2, 2.5)
                if chance.random() < 0.2:
                    await mortal.until("ready")
                await asyncio.sleep(moment)
                how = chance.choice([signal.SIGKILL, signal.SIGSTOP])
                mortal.process.send_signal(how)
                if number % 2 and how is signal.SIGSTOP:  # else the next one takes the page from it
                    async with asyncio.timeout(15):
                        while supervisor._sessions[DEMO].driving.attached:
                            await asyncio.sleep(0.05)
                if how is signal.SIGKILL:
                    await mortal.process.wait()
                else:
                    mortal.process.send_signal(signal.SIGKILL)
        async with bot(url, secret, tmp_path) as last:
            await last.until("ready")
            await phone.write(ANA, body="still there?")
            assert (await last.until("message"))["body"] == "still there?"
            assert not [one for one in last.heard if one["event"] in {"qr", "ready"}]
            assert await phone.link(wid) == "connected"
            after = supervisor.view(DEMO)
            assert (pid_of(after), after.attempt) == (pid_of(before), before.attempt)
            assert not journal.named("health.finding")
            await last.do("logout")
        async with asyncio.timeout(20):
            while supervisor.view(DEMO).link is not Link.AWAITING_SCAN:
                await asyncio.sleep(0.05)
        assert pid_of(supervisor.view(DEMO)) == pid_of(before)
    assert {one.fields["fault"] for one in journal.named("health.finding")} <= {"logged_out"}, (
        "it was asked for"
    )
    assert not journal.named("page.popups_closed"), "a second tab"
    assert Reason.CONFLICT not in {one.fields["reason"] for one in journal.named("session.changed")}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(cadence=Cadence(sync_s=0.2)) as simulator:
        yield simulator


async def test_clients_of_a_daemon_that_ends_attach_to_the_next_one(
    simulator: Simulator, sessions_dir: Path, tmp_path: Path
) -> None:
    """One has paused the page and does not go on, one is whatsapp-web.js: the page goes on with the next daemon, in the same browser."""
    async with (
        tls_front(simulator.url, tmp_path) as flags,
        Service(
            sessions_dir.parent, {"browser": {"extra_flags": flags}, "sandbox": {"connect_ports": []}}
        ) as service,
    ):
        await service.start()
        await service.ask("POST", "/v1/sessions/demo/connect")
        async with bot(service.url, TOKEN, tmp_path) as first:
            simulator.scan((await first.until("qr"))["text"], "34600000000")
            await first.until("ready")
        processes = service.launch("demo")["processes"]
        for how in (signal.SIGUSR2, signal.SIGKILL):  # a restart as of systemctl, and a crash
            async with (
                bot(service.url, TOKEN, tmp_path) as driving,
                raw_client(f"{service.url}/v1/sessions/demo/cdp", TOKEN) as other,
            ):
                await driving.until("ready")
                await other.pause()
                await service.end(how)
                gone = {signal.SIGUSR2: Closing.DAEMON, signal.SIGKILL: aiohttp.WSCloseCode.ABNORMAL_CLOSURE}
                assert await other.closed() == gone[how]
                await service.start()
            await service.until(lambda: service.events("session.adopted"), "adopted")
            async with bot(service.url, TOKEN, tmp_path) as again:
                await again.until("ready")
                assert not [one for one in again.heard if one["event"] in {"qr", "ready"}]
                await again.do("destroy")
            assert service.launch("demo")["processes"] == processes
        assert service.events("relay.strangers_ended")
        assert not service.events("health.finding")
        (device,) = simulator.devices
        assert device.view()["link"] == "connected"
