"""Pages that mean harm, on real Chromium: they cost their own session something, and nobody else."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from conftest import Daemon, Journal
from test_browser import BRISK, log_in

from waguard.browser.find import KNOWN
from waguard.browser.page import Page
from waguard.core.model import ClientCode, Link
from waguard.simulator.server import Simulator
from waguard.supervisor import Supervisor

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not any(path.is_file() for path in KNOWN), reason="no Chromium is installed"),
]

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(cadence=BRISK) as simulator:
        yield simulator


def page_of(supervisor: Supervisor, code: ClientCode) -> Page:
    browser = supervisor._sessions[code]._instance.browser
    assert browser is not None
    assert browser.page is not None
    return browser.page


@contextlib.asynccontextmanager
async def lag() -> AsyncIterator[list[float]]:
    """The longest that the loop stood still within the block, in seconds."""
    worst = [0.0]

    async def tick() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            worst[0] = max(worst[0], time.monotonic() - began - 0.01)

    ticking = asyncio.create_task(tick())
    try:
        yield worst
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])


async def test_a_page_with_hostile_prototypes_is_read_right_and_keeps_nobody_waiting(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}, page={"poll_s": 0.05}) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO, DEMO2)
        await simulator.inject("hostile_prototype", wid=simulator.devices[0].wid)  # of `DEMO`: scanned first
        page = page_of(supervisor, DEMO)
        async with asyncio.timeout(10):
            while not await page.evaluate("''.slice(0).length > 1000"):
                await asyncio.sleep(0.02)
        async with lag() as worst:
            until = time.monotonic() + 3.0  # some dozens of looks at each page
            while (began := time.monotonic()) < until:
                await supervisor.screenshot(DEMO2)
                assert time.monotonic() - began < 3.0
        print(f"the loop stood still for {worst[0] * 1000:.0f} ms at most")  # noqa: T201 (a figure)
        assert worst[0] < 0.5
        for code in (DEMO, DEMO2):
            view = supervisor.view(code)
            assert view.link is Link.CONNECTED
            assert view.qr is None
        assert not journal.named("health.finding")
        assert len(journal.named("browser.spawned")) == 2
