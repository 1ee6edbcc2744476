"""Who shares the pipe of a browser with the daemon, on real Chromium: what one does to itself, and that nobody else notices."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from clients import BRISK, log_in
from conftest import Daemon, Journal
from loop_lag import lag
from pyppeteer_guest import LIMITS, MIB, driving

from waguard.browser.devtools import DevTools
from waguard.browser.find import KNOWN
from waguard.browser.page import Page
from waguard.core.model import ClientCode, Link
from waguard.simulator.server import Simulator
from waguard.supervisor.supervisor import Supervisor

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not any(path.is_file() for path in KNOWN), reason="no Chromium is installed"),
]

DEMO = ClientCode("demo")
# Not as fast as a page can: the browser writes each message by two system calls (`PipeWriterASCIIZ`), and what a page says faster than that waits
# in the browser, before whatever we ask of it, for as long as anybody there listens.
FLOODS = "() => { window.flood = setInterval(() => { for (let i = 0; i < 20; i++) console.log('x'.repeat(500)); }, 5); }"


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(cadence=BRISK) as simulator:
        yield simulator


@asynccontextmanager
async def logged_in(
    start: Daemon, simulator: Simulator, journal: Journal
) -> AsyncIterator[tuple[Supervisor, DevTools, Page]]:
    """A session that is connected, stays so, and finds nothing wrong."""
    async with start(whatsapp={"url": simulator.url}, page={"poll_s": 0.05}) as (supervisor, _):
        (before,) = await log_in(supervisor, simulator, DEMO)
        browser = supervisor._sessions[DEMO]._instance.browser
        assert browser is not None
        assert browser.devtools is not None
        assert browser.page is not None
        guests = await guests_of(browser.devtools)
        yield supervisor, browser.devtools, browser.page
        await goes_on(browser.page)
        assert await guests_of(browser.devtools) == guests
        after = supervisor.view(DEMO)
        assert (after.link, after.attempt) == (Link.CONNECTED, before.attempt)
        assert not journal.named("health.finding")


async def goes_on(page: Page) -> None:
    """The daemon's own sessions, that with the page and that with the browser, are answered as ever."""
    async with asyncio.timeout(10):
        assert await page.look("6 * 7") == 42
        await page._devtools.browser.send("Browser.getVersion")


async def guests_of(devtools: DevTools) -> int:
    """As the browser sees it: each has a session with a target of its own of the kind ``browser``."""
    found: list[str] = []
    end = devtools.browser.observe(
        "Target.targetCreated", lambda params: found.append(params["targetInfo"]["type"])
    )
    for only in ([{"type": "browser"}, {"exclude": True}], [{"type": "page"}]):
        await devtools.browser.send(
            "Target.setDiscoverTargets", {"discover": False}
        )  # else it is not said anew
        await devtools.browser.send("Target.setDiscoverTargets", {"discover": True, "filter": only})
    end()
    return found.count("browser")


async def test_pyppeteer_drives_the_page_that_the_daemon_watches(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with logged_in(start, simulator, journal) as (_, devtools, page):
        async with driving(devtools, page.target) as (connection, driver):
            assert await driver.evaluate("() => 6 * 7") == 42
            assert (await driver.screenshot())[:4] == b"\x89PNG"
            asked: list[int] = []
            await driver.exposeFunction("tell", asked.append)
            await driver.evaluate("() => tell(7)")
            assert asked == [7]
            assert await driver.evaluate("text => text", '\ud83d alone, \0 and \'x","sessionId":"B"}\'') == (
                '\ud83d alone, \0 and \'x","sessionId":"B"}\''
            )
            await goes_on(page)
            assert connection.guest.lane.unread == 0
        assert await connection.dropped == "it has left"


async def test_a_guest_that_does_not_read_what_it_asked_for_is_dropped_and_costs_nobody_else(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    few = replace(LIMITS, unread=20 * MIB)
    async with (
        logged_in(start, simulator, journal) as (_, devtools, page),
        driving(devtools, page.target, few) as (connection, driver),
    ):
        await driver.evaluate(FLOODS)
        connection.reads = False
        async with asyncio.timeout(30):
            why = await asyncio.shield(connection.dropped)
        assert why == f"more than {20 * MIB} bytes wait to be read"
        assert sum(connection.sizes) > 15 * MIB
        assert connection.guest.lane.unread <= 20 * MIB
        await goes_on(page)
        await page.evaluate("clearInterval(window.flood)")


async def test_a_guest_that_gets_too_long_a_message_is_dropped_and_costs_nobody_else(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    few = replace(LIMITS, message=MIB)
    async with (
        logged_in(start, simulator, journal) as (_, devtools, page),
        driving(devtools, page.target, few) as (connection, driver),
        driving(devtools, page.target) as (_, other),
    ):
        with pytest.raises(asyncio.CancelledError):
            await driver.evaluate("() => 'x'.repeat(50_000_000)")
        assert await connection.dropped == f"a message of more than {MIB} bytes"
        await goes_on(page)
        assert await other.evaluate("() => 6 * 7") == 42
        assert len(await other.evaluate("() => 'x'.repeat(5_000_000)")) == 5_000_000


async def test_ninety_megabytes_for_a_guest_keep_the_daemons_loop_for_no_time(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with logged_in(start, simulator, journal) as (_, devtools, page):
        sizes: list[int] = []
        dropped: list[str] = []
        guest = await devtools.guests.admit(
            "raw", LIMITS, lambda message: sizes.append(message.size), dropped.append
        )
        guest.send("Target.attachToTarget", {"targetId": page.target, "flatten": True})
        async with asyncio.timeout(10):
            while len(guest.lane.sessions) < 2 or len(sizes) < 2:
                await asyncio.sleep(0.01)
        (session,) = guest.lane.sessions - {guest.session}
        guest.send("Runtime.evaluate", {"expression": "'x'.repeat(90_000_000)"}, session)
        async with lag() as worst, asyncio.timeout(60):
            while max(sizes) < 90_000_000:
                await devtools.browser.send("Browser.getVersion")
                await asyncio.sleep(0.01)
        print(f"the loop stood still for {worst[0] * 1000:.0f} ms at most")  # noqa: T201 (a figure)
        assert worst[0] < 0.5
        assert guest.lane.unread == sum(sizes)
        guest.leave()
        assert dropped == ["it has left"]


async def test_what_a_guest_uploads_does_not_keep_the_daemons_own_waiting(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with (
        logged_in(start, simulator, journal) as (_, devtools, page),
        driving(devtools, page.target) as (connection, driver),
    ):
        text = "x" * (4 * MIB)
        uploads = [asyncio.ensure_future(driver.evaluate("text => text.length", text)) for _ in range(4)]
        await asyncio.sleep(0)
        assert connection.guest.lane.unsent > 8 * MIB  # the pipe takes some at once
        async with asyncio.timeout(30):
            await devtools.browser.send("Browser.getVersion")
        assert sum(one.done() for one in uploads) < 3  # it went before what had waited
        async with asyncio.timeout(60):
            assert await asyncio.gather(*uploads) == [len(text)] * 4
