"""Unmodified drivers attach to the session that the daemon keeps: each uses its page, and the session stays what it was."""

import asyncio
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import floods
import pytest
from bare_browser import BINARY
from bots import speaking
from clients import BRISK, DEMO, DEMO2, log_in, pid_of, token
from conftest import Daemon, Journal
from loop_lag import lag
from npm import DRIVERS, installed, needs_npm
from pyppeteer.errors import NetworkError
from pyppeteer.page import Page
from pyppeteer_guest import LIMITS, MIB

from waguard.browser.channel import Message
from waguard.browser.find import KNOWN
from waguard.browser.strangers import end_strangers
from waguard.client import Client
from waguard.core.model import Link
from waguard.history.learned import Learned
from waguard.relay import client
from waguard.relay.client import Closing
from waguard.session import watch
from waguard.simulator.server import Simulator
from waguard.supervisor.supervisor import Supervisor

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium is installed"),
]
WORKER = "new Promise(done => { new Worker('{path}').onmessage = told => done(told.data); })"
PROGRAMS = ("puppeteer-core", "puppeteer24", "playwright-core", "playwright_python")
TOGETHER = ("puppeteer-core", "puppeteer24", "playwright_python")
"""Two playwrights would call each other's functions: it has one name for what it exposes."""


@asynccontextmanager
async def logged_in(
    start: Daemon, journal: Journal, **sections: dict[str, Any]
) -> AsyncIterator[tuple[Supervisor, Simulator, str]]:
    """A session that is connected, and stays so in the same browser, with one page and nothing wrong."""
    async with (
        Simulator(cadence=BRISK) as simulator,
        start(**{"page": {"poll_s": 0.05}, **sections, "whatsapp": {"url": simulator.url}}) as (
            supervisor,
            url,
        ),
    ):
        (before,) = await log_in(supervisor, simulator, DEMO)
        yield supervisor, simulator, url
        async with asyncio.timeout(10):
            while (after := supervisor.view(DEMO)).link is not Link.CONNECTED:
                await asyncio.sleep(0.05)
        assert (pid_of(after), after.attempt) == (pid_of(before), before.attempt)
        assert supervisor._sessions[DEMO].driving.attached == 0
        assert not journal.named("health.finding")


async def ask(ws: aiohttp.ClientWebSocketResponse, method: str, session: str = "", **params: Any) -> Any:
    named = {"sessionId": session} if session else {}
    await ws.send_json({"id": 1, "method": method, "params": params, **named})
    async with asyncio.timeout(10):
        while (said := await ws.receive_json()).get("id") != 1:
            pass
    return said["result"]


async def page_of(ws: aiohttp.ClientWebSocketResponse) -> str:
    infos = (await ask(ws, "Target.getTargets"))["targetInfos"]
    (page,) = [str(one["targetId"]) for one in infos if one["type"] == "page"]
    return page


def program(driver: str, *told: str) -> Sequence[str]:
    beside = Path(__file__).parent
    if driver == "playwright_python":
        return (sys.executable, str(beside / "playwright_driver.py"), *told)
    return ("node", str(beside / "drivers.mjs"), str(installed(*DRIVERS)), driver, *told)


@needs_npm
@pytest.mark.skipif(find_spec("playwright") is None, reason="playwright for Python is not installed")
@pytest.mark.parametrize("browser", [one for one in KNOWN if one.is_file()], ids=lambda one: one.name)
@pytest.mark.timeout(240)  # npm takes its time
async def test_drivers_attach_alone_and_together_and_leave_the_session_as_it_was(
    start: Daemon, journal: Journal, tmp_path: Path, browser: Path
) -> None:
    async with (
        logged_in(start, journal, browser={"path": browser}) as (supervisor, simulator, url),
        AsyncExitStack() as stack,
    ):
        told = (f"{url}/v1/sessions/demo/cdp", token(supervisor), simulator.url)
        drivers = {
            name: await stack.enter_async_context(speaking(program(name, *told), tmp_path))
            for name in PROGRAMS
        }
        async with Client(url, token(supervisor)) as waguard:
            own = tmp_path / "own.txt"
            own.write_text("what it chose")
            with own.open("rb") as chosen:
                uploaded = (await waguard.session("demo").upload(own.name, chosen)).path
        for name, driver in drivers.items():
            # Playwright reads the file itself, and sends what is in it.
            file = uploaded if name.startswith("puppeteer") else str(own)
            came = await driver.do("alone", name="one", file=file)
            assert "waguard: Page.navigate is refused" in came.pop("elsewhere"), name
            assert came.pop("chosen") == "what it chose", name
            alone = {"reloaded": True, "pages": [1, 1], "closed": True, "again": 42, "own": 2}
            assert came == {**used("one"), **alone}, name
        refused = {(one.fields["method"], one.fields["reason"]) for one in journal.named("relay.refused")}
        assert refused == {("Page.navigate", "it is not of the page's origin")}
        async with Client(url, token(supervisor)) as waguard:
            page = await waguard.session("demo").page()
            async with intercepting(page), asyncio.TaskGroup() as group:
                tasks = {name: group.create_task(drivers[name].do("beside", name=name)) for name in TOGETHER}
            for name, task in tasks.items():
                came = task.result()
                assert "the page is not this client's" in came.pop("refused"), name
                assert came == used(name)
            assert supervisor._sessions[DEMO].driving.attached == 1 + len(TOGETHER)
            assert await page.evaluate("() => 6 * 7") == 42


@asynccontextmanager
async def intercepting(page: Page) -> AsyncIterator[None]:
    """Answers what drivers ask for beside it. Pyppeteer's own way is by a command that Chromium no longer has."""
    session = await page.target.createCDPSession()
    answers: list[asyncio.Future[Any]] = []

    def answer(params: dict[str, Any]) -> None:
        body = b64encode(f"to {params['request']['url'].rpartition('/')[2]}".encode()).decode()
        answered = {"requestId": params["requestId"], "responseCode": 200, "body": body}
        answers.append(asyncio.ensure_future(session.send("Fetch.fulfillRequest", answered)))

    session.on("Fetch.requestPaused", answer)
    await session.send("Fetch.enable", {"patterns": [{"urlPattern": f"*/{name}"} for name in TOGETHER]})
    yield
    await asyncio.gather(*answers)


def used(name: str) -> dict[str, Any]:
    """What comes of using the page, by a driver of this name."""
    return {
        "evaluate": 42,
        "exposed": ["from the page"],
        "console": name,
        "intercepted": f"to {name}",
        "screenshot": "PNG",
        "half": "\ud83d alone",
    }


async def test_the_client_library_gives_pyppeteers_own_page(start: Daemon, journal: Journal) -> None:
    async with logged_in(start, journal) as (supervisor, simulator, url):
        async with Client(url, token(supervisor)) as waguard:
            page = await waguard.session("demo").page()
            assert type(page) is Page
            browser = page.browser
            with pytest.raises(NetworkError, match=r"token:admin .* has the page since"):
                await waguard.session("demo").page()
            assert len(await browser.pages()) == 1
            assert await page.evaluate("() => 6 * 7") == 42
            asked: list[int] = []
            await page.exposeFunction("tell", asked.append)
            await page.evaluate("() => tell(7)")
            assert asked == [7]
            assert (await page.screenshot())[:4] == b"\x89PNG"
            heard: list[str] = []
            page.on("console", lambda message: heard.append(message.text))
            await page.evaluate("() => console.log('listen')")
            assert heard == ["listen"]
            await page.goto(simulator.url)
            assert await page.evaluate("text => text", "\ud83d alone") == "\ud83d alone"
            await page.close()
            again = await browser.newPage()
            assert await again.evaluate("() => 6 * 7") == 42
            context = await browser.createIncognitoBrowserContext()
            own = await context.newPage()
            assert await own.evaluate("() => 1 + 1") == 2
            await context.close()
            taken = await waguard.session("demo").page(takeover=True)
            assert await taken.evaluate("() => 6 * 7") == 42
        refused, lost, *_ = [one.fields["reason"] for one in journal.named("relay.detached")]
        assert refused == "it has closed the connection"
        assert lost.endswith("has taken the page over")
        assert not journal.named("page.popups_closed")


async def test_what_a_client_has_left_in_the_page_goes_in_a_quiet_hour(
    start: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_REFRESH_S", 0.1)
    looks: list[str] = []

    def quiet(_learned: Learned, code: str) -> bool:
        looks.append(code)
        return True

    monkeypatch.setattr(Learned, "quiet", quiet)

    async def looked() -> None:
        """At this page as it is now, twice: the first look may have begun before."""
        looks.clear()
        async with asyncio.timeout(10):
            while len(looks) < 3:
                await asyncio.sleep(0.02)

    async with logged_in(start, journal) as (supervisor, simulator, url):
        loads = simulator.loads
        async with Client(url, token(supervisor)) as waguard:
            page = await waguard.session("demo").page()
            await page.evaluate("() => { globalThis.mine = 1; }")
        await looked()
        async with Client(url, token(supervisor)) as waguard:
            page = await waguard.session("demo").page()
            await page.exposeFunction("left", print)
            await looked()
            assert await page.evaluate("() => typeof left") == "function"
        assert simulator.loads == loads
        async with asyncio.timeout(10):
            while simulator.loads == loads or supervisor.view(DEMO).link is not Link.CONNECTED:
                await asyncio.sleep(0.02)
        await looked()
        assert (simulator.loads, len(journal.named("page.refreshed"))) == (loads + 1, 1)


async def test_what_a_client_keeps_waiting_is_no_fault_and_ends(start: Daemon, journal: Journal) -> None:
    """A dialog, and a pause: the page does not answer, which is no finding, and goes on when the client's time is over."""
    async with (
        logged_in(
            start,
            journal,
            relay={"blocked_s": 3.0},
            health={"blocked_s": 1.0},
            page={"poll_s": 0.05, "read_s": 0.3},
        ) as (supervisor, _, url),
        Client(url, token(supervisor)) as waguard,
    ):
        page = await waguard.session("demo").page()
        driven = supervisor._sessions[DEMO]._instance.browser
        assert driven is not None
        assert driven.page is not None
        for waits in ("() => confirm('?')", "() => { debugger; return false; }"):
            if "debugger" in waits:
                await page._client.send("Debugger.enable")
            began = asyncio.get_running_loop().time()
            answer = asyncio.ensure_future(page.evaluate(waits))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    await asyncio.shield(answer)
            async with asyncio.timeout(10):
                assert await answer is False
            assert 2.5 < asyncio.get_running_loop().time() - began < 6
            assert await driven.page.look("6 * 7") == 42
        waited = [one.fields["why"] for one in journal.named("relay.page_waits")]
        assert waited == ["dialog", "pause"]


async def test_a_long_script_of_a_clients_is_no_fault_and_one_without_end_is_ended(
    start: Daemon, journal: Journal
) -> None:
    """While it runs the page answers nobody. The client whose it is stays."""
    async with (
        logged_in(
            start,
            journal,
            relay={"blocked_s": 3.0},
            health={"blocked_s": 0.5, "busy_s": 0.5},
            page={"poll_s": 0.05, "read_s": 0.3},
        ) as (supervisor, _, url),
        Client(url, token(supervisor)) as waguard,
    ):
        page = await waguard.session("demo").page()
        driven = supervisor._sessions[DEMO]._instance.browser
        assert driven is not None
        assert driven.page is not None
        waits = asyncio.ensure_future(page.evaluate("() => new Promise(done => { globalThis.done = done; })"))
        assert (
            await page.evaluate(
                "() => { for (const end = Date.now() + 2000; Date.now() < end;); return 'through'; }"
            )
            == "through"
        )
        assert {one.fields["why"] for one in journal.named("relay.page_waits")} == {"script"}
        async with asyncio.timeout(10):
            with pytest.raises(NetworkError, match="terminated"):
                await page.evaluate("() => { for (;;); }")
        assert await driven.page.look("6 * 7") == 42
        await page.evaluate("() => done('waited')")
        assert await waits == "waited"
        assert not journal.named("relay.detached")


async def test_a_client_that_goes_on_blocking_is_detached(start: Daemon, journal: Journal) -> None:
    async with logged_in(start, journal, relay={"blocked_s": 0.3}) as (supervisor, _, url):
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(
                f"{url}/v1/sessions/demo/cdp", headers={"Authorization": f"Bearer {token(supervisor)}"}
            ) as ws,
        ):
            session = (await ask(ws, "Target.attachToTarget", targetId=await page_of(ws), flatten=True))[
                "sessionId"
            ]
            await ask(ws, "Debugger.enable", session)
            await ws.send_json(
                {
                    "id": 9,
                    "method": "Runtime.evaluate",
                    "sessionId": session,
                    "params": {"expression": "for (;;) debugger"},
                }
            )
            async with asyncio.timeout(20):
                async for message in ws:
                    assert message.type is aiohttp.WSMsgType.TEXT
            assert ws.close_code == Closing.HELD_UP
        driven = supervisor._sessions[DEMO]._instance.browser
        assert driven is not None
        assert driven.page is not None
        await driven.page.terminate()


async def test_who_is_stopped_with_everybody_waiting_for_it_costs_nobody_else_anything(
    start: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has had workers wait for it, has a page talk to it, and does not read. Others go on, and it is the one that goes."""
    monkeypatch.setattr(client, "LIMITS", replace(client.LIMITS, unread=20 * MIB))
    async with logged_in(start, journal) as (supervisor, simulator, url):
        address, secret = f"{url}/v1/sessions/demo/cdp", token(supervisor)
        program = Path(__file__).with_name("stops_reading.py")
        stopped = await asyncio.create_subprocess_exec(
            sys.executable, str(program), address, secret, stdout=subprocess.PIPE
        )
        try:
            assert stopped.stdout is not None
            async with asyncio.timeout(20):
                assert await stopped.stdout.readline() == b"here\n"
            headers = {"Authorization": f"Bearer {secret}"}
            async with (
                lag() as worst,
                aiohttp.ClientSession() as http,
                http.ws_connect(address, headers=headers) as ws,
            ):
                script: Any = {"data": b"postMessage(7)", "headers": {"Content-Type": "text/javascript"}}
                async with http.post(f"{simulator.url}media", **script) as answered:
                    worker = WORKER.replace("{path}", (await answered.json())["path"])
                target = await page_of(ws)
                session = (await ask(ws, "Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
                answer = await ask(ws, "Runtime.evaluate", session, expression=worker, awaitPromise=True)
                assert answer["result"]["value"] == 7
                async with asyncio.timeout(40):
                    while supervisor._sessions[DEMO].driving.attached > 1:
                        await asyncio.sleep(0.05)
                answer = await ask(ws, "Runtime.evaluate", session, expression="clearInterval(flood), 6 * 7")
                assert answer["result"]["value"] == 42
            assert worst[0] < 0.5
        finally:
            stopped.kill()
            await stopped.wait()
        reasons = [one.fields["reason"] for one in journal.named("relay.detached")]
        assert reasons[0] == f"more than {20 * MIB} bytes wait to be read"


async def test_who_floods_costs_nobody_else_anything(start: Daemon, journal: Journal) -> None:
    """Console messages, 60 MB of objects, as much in one command, frames that are none: others are answered meanwhile, and nothing is found wrong."""
    async with logged_in(start, journal) as (supervisor, simulator, url):
        await log_in(supervisor, simulator, DEMO2)
        addresses = [f"{url}/v1/sessions/{code}/cdp" for code in (DEMO, DEMO2)]
        secret = token(supervisor)
        program = Path(__file__).with_name("floods.py")
        flood = await asyncio.create_subprocess_exec(
            sys.executable, str(program), addresses[0], secret, stdout=subprocess.PIPE
        )
        try:
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {secret}"}) as http:
                beside, elsewhere = [await http.ws_connect(address) for address in addresses]
                target = await page_of(elsewhere)
                session = (await ask(elsewhere, "Target.attachToTarget", targetId=target, flatten=True))[
                    "sessionId"
                ]
                reading = asyncio.ensure_future(flood.communicate())
                async with asyncio.timeout(120):
                    while not reading.done():
                        answer = await ask(elsewhere, "Runtime.evaluate", session, expression="6 * 7")
                        assert answer["result"]["value"] == 42
                        assert (await ask(beside, "Browser.getVersion"))["product"]
                        await asyncio.wait([reading], timeout=0.05)
                said, _ = reading.result()
                assert supervisor._sessions[DEMO].driving.attached == 1
                for ws in (beside, elsewhere):
                    await ws.close()
        finally:
            if flood.returncode is None:
                flood.kill()
                await flood.wait()
        told = dict(line.split() for line in said.decode().splitlines())
        assert int(told["objects"]) > 50_000_000
        assert {**told, "objects": ""} == {
            "console": str(floods.MESSAGES), "objects": "", "upload": "True", "frames": str(floods.FRAMES),
        }  # fmt: skip
        assert len(journal.named("browser.spawned")) == 2


@pytest.mark.parametrize("browser", [one for one in KNOWN if one.is_file()], ids=lambda one: one.name)
async def test_a_dialog_goes_with_its_client(start: Daemon, journal: Journal, browser: Path) -> None:
    async with logged_in(start, journal, browser={"path": str(browser)}) as (supervisor, _, url):
        headers = {"Authorization": f"Bearer {token(supervisor)}"}
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"{url}/v1/sessions/demo/cdp", headers=headers) as ws,
        ):
            target = await page_of(ws)
            session = (await ask(ws, "Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
            await ask(ws, "Page.enable", session)
            alert = {"id": 9, "method": "Runtime.evaluate", "params": {"expression": "alert(1)"}}
            await ws.send_json({**alert, "sessionId": session})
            async with asyncio.timeout(10):
                while (await ws.receive_json()).get("method") != "Page.javascriptDialogOpening":
                    pass
        driven = supervisor._sessions[DEMO]._instance.browser
        assert driven is not None
        assert driven.page is not None
        async with asyncio.timeout(10):
            assert await driven.page.look("6 * 7") == 42


@pytest.mark.parametrize("browser", [one for one in KNOWN if one.is_file()], ids=lambda one: one.name)
@pytest.mark.parametrize(
    "script",
    ["for (const end = Date.now() + 2000; Date.now() < end;);", "for (;;);"],
    ids=["long", "endless"],
)
async def test_a_script_whose_client_has_died_is_no_fault_and_ends(
    start: Daemon, journal: Journal, browser: Path, script: str
) -> None:
    async with (
        logged_in(
            start,
            journal,
            browser={"path": str(browser)},
            relay={"blocked_s": 3.0},
            health={"blocked_s": 0.5, "busy_s": 0.5},
            page={"poll_s": 0.05, "read_s": 0.3},
        ) as (supervisor, simulator, url),
        aiohttp.ClientSession() as http,
    ):
        loads = simulator.loads
        driven = supervisor._sessions[DEMO]._instance.browser
        assert driven is not None
        assert driven.page is not None
        headers = {"Authorization": f"Bearer {token(supervisor)}"}
        async with http.ws_connect(f"{url}/v1/sessions/demo/cdp", headers=headers) as ws:
            target = await page_of(ws)
            session = (await ask(ws, "Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
            await ask(ws, "Runtime.enable", session)
            expression = f"console.log('runs'); {script}"
            evaluate = {"id": 9, "method": "Runtime.evaluate", "params": {"expression": expression}}
            await ws.send_json({**evaluate, "sessionId": session})
            async with asyncio.timeout(10):
                while (await ws.receive_json()).get("method") != "Runtime.consoleAPICalled":
                    pass
            assert ws._response.connection is not None
            assert ws._response.connection.transport is not None
            ws._response.connection.transport.abort()
        async with asyncio.timeout(10):
            assert await driven.page.look("6 * 7") == 42
        lease = supervisor._sessions[DEMO].lease
        async with asyncio.timeout(10):
            while lease.stalled:
                await asyncio.sleep(0.02)
        assert [one.fields["why"] for one in journal.named("relay.page_waits")] == ["script"]
        assert not journal.named("health.finding")
        assert simulator.loads == loads


async def test_clients_of_a_daemon_that_died_are_detached_by_the_next_one(
    start: Daemon, journal: Journal
) -> None:
    async with logged_in(start, journal) as (supervisor, _, _url):
        browser = supervisor._sessions[DEMO]._instance.browser
        assert browser is not None
        assert browser.devtools is not None
        assert browser.page is not None
        devtools = browser.devtools
        assert await end_strangers(devtools) == 0
        gone: list[str] = []
        browser.devtools.browser.observe(
            "Target.detachedFromTarget", lambda params: gone.append(params["sessionId"])
        )
        heard: list[str | None] = []

        def hear(message: Message) -> None:
            heard.append(message.method)
            devtools.guests.done(message)

        guest = await devtools.guests.admit("left", LIMITS, hear, gone.append)
        guest.send("Target.attachToTarget", {"targetId": browser.page.target, "flatten": True})
        async with asyncio.timeout(10):
            while len(guest.lane.sessions) < 2:
                await asyncio.sleep(0.01)
        (session,) = guest.lane.sessions - {guest.session}
        # A full Chromium leaves a dialog open then: that the page is silent is found, and it is loaded again.
        blocks = "headless" in supervisor._sessions[DEMO]._instance.resources.installed.current.path.name
        if blocks:
            guest.send("Page.enable", {}, session)
            guest.send("Runtime.evaluate", {"expression": "alert(1)"}, session)
            async with asyncio.timeout(10):
                while "Page.javascriptDialogOpening" not in heard:
                    await asyncio.sleep(0.01)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await browser.page.look("6 * 7")
        assert await end_strangers(browser.devtools) == 1
        async with asyncio.timeout(5):
            assert await browser.page.look("6 * 7") == 42
        assert await end_strangers(browser.devtools) == 0
        guest.leave()
        assert guest.session in gone
