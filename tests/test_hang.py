"""Real Chromium whose processes hang without being stopped, as far as the daemon is told: each has its own probe."""

import os
import signal
from collections.abc import AsyncIterator

import pytest
from clients import log_in
from conftest import Daemon, Journal
from waiting import until

from waguard.core.model import ClientCode, Link
from waguard.health.probes.census import BROWSER, GPU, NETWORK, RENDERER, Member
from waguard.simulator.server import Cadence, Simulator
from waguard.supervisor.supervisor import Supervisor

DEMO = ClientCode("demo")
SECTIONS = {
    "page": {"read_s": 0.3, "poll_s": 0.05},
    "probes": {"process_s": 0.2, "browser_s": 0.2, "network_s": 0.2, "gpu_s": 0.2, "answer_s": 0.4},
    # A process that a signal has stopped stands for one that hangs: of the stop itself the daemon is not to know.
    "health": {"stopped_s": 3600.0, "hung_s": 0.5, "blocked_s": 0.6, "busy_s": 1.0, "verify_s": 5.0},
}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(cadence=Cadence(sync_s=0.1)) as simulator:
        yield simulator


async def members(supervisor: Supervisor, role: str) -> list[Member]:
    found = await supervisor._sessions[DEMO]._watch.probing.members()
    return [one for one in found if one.role == role]


@pytest.mark.parametrize(
    ("role", "fault", "remedy"),
    [
        (NETWORK, "network_hung", "renew"),
        (GPU, "gpu_hung", "renew"),
        (RENDERER, "page_blocked", "reload"),
        (BROWSER, "browser_hung", "restart"),
    ],
)
async def test_the_process_that_hangs_is_found_and_cured_without_a_scan(
    start: Daemon, simulator: Simulator, journal: Journal, role: str, fault: str, remedy: str
) -> None:
    async with start(whatsapp={"url": simulator.url}, **SECTIONS) as (supervisor, _):
        (before,) = await log_in(supervisor, simulator, DEMO)
        if role == BROWSER:  # whatever kills it earlier loses the login
            await until(lambda: bool(journal.named("snapshot.taken")), "the login on disk")
        for one in await members(supervisor, role):
            os.kill(one.row.pid, signal.SIGSTOP)
        await until(lambda: bool(journal.named("health.recovered")), "cured")
        cured = journal.named("health.recovered")[0].fields
        assert (cured["fault"], cured["remedy"]) == (fault, remedy), journal.named("health.finding")
        await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected")
        after = supervisor.view(DEMO)
        assert (after.browser == before.browser) == (remedy != "restart")
        assert after.generation == before.generation
        assert len(simulator.devices) == 1


async def test_a_page_that_waits_for_ever_is_blocked_and_loaded_again(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    """Its main thread sleeps in a request that is never answered; nothing of the browser hangs."""
    async with start(whatsapp={"url": simulator.url}, **SECTIONS) as (supervisor, _):
        (before,) = await log_in(supervisor, simulator, DEMO)
        await simulator.inject("never_answers")
        browser = supervisor._sessions[DEMO]._instance.browser
        assert browser is not None
        assert browser.page is not None
        sent = "const x = new XMLHttpRequest(); x.open('GET', '/sw.js', false); x.send()"
        browser.page._session.send("Runtime.evaluate", {"expression": sent})
        await until(lambda: simulator.hanging == 1, "asked")
        await simulator.clear_faults()  # what comes after that request is answered
        await until(lambda: bool(journal.named("health.recovered")), "cured")
        cured = journal.named("health.recovered")[0].fields
        assert (cured["fault"], cured["remedy"]) == ("page_blocked", "reload")
        await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected")
        assert supervisor.view(DEMO).browser == before.browser
