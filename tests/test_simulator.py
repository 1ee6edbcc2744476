"""The stand-in for WhatsApp Web: its server alone, then real browsers on its page, read as the product reads."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bare_browser import AGENT, BINARY, HEADLESS_AGENT, BareBrowser, Page, Refused, browser, make_profile
from simulated import Client, Wire, simulated

from waguard.core.model import Link, Reading, Reason
from waguard.errors import AlreadyRunning, ConfigError
from waguard.simulator.faults import FAULTS, VALUES
from waguard.simulator.server import Cadence, Simulator, serve

STEADY = Cadence(first_s=60, next_s=60, sync_s=0.01)
BRIEF = Cadence(first_s=0.05, next_s=0.01, refs=2, sync_s=0.01)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with simulated(STEADY) as client:
        yield client


# --- the server alone -----------------------------------------------------------------------------------


async def test_a_scan_links_the_page_that_shows_the_code(client: Client) -> None:
    async with client.page() as wire:
        code = await wire.code()
        status, body = await client.ask("POST", "/phone/scan", json={"qr": code, "phone": "5215550001111"})
        assert (status, body) == (200, {"wid": "5215550001111:1@c.us"})
        paired = await wire.hear("pair-success")
    assert await client.link(paired["wid"]) == "offline"
    async with client.page() as wire:
        await wire.log_in(paired["wid"], paired["key"])
        _, body = await client.ask("GET", "/phone/devices")
        [device] = body["devices"]
        assert device["connected_since"] > 0
        assert (device["link"], device["tabs"]) == ("connected", 1)


async def test_a_phone_has_many_devices(client: Client) -> None:
    for number in (1, 2):
        async with client.page() as wire:
            _, body = await client.ask(
                "POST", "/phone/scan", json={"qr": await wire.code(), "phone": "5215550001111"}
            )
            assert body == {"wid": f"5215550001111:{number}@c.us"}


async def test_newer_forms_of_the_code_scan_too(client: Client) -> None:
    async with client.page() as wire:
        await client.scan(
            f"https://wa.me/settings/linked_devices#{await wire.code()},https://faq.whatsapp.com/r/ld\n"
        )


async def test_a_code_is_good_once(client: Client) -> None:
    async with client.page() as wire:
        code = await wire.code()
        await client.scan(code)
        status, body = await client.ask("POST", "/phone/scan", data=code)
    assert (status, body["error"]) == (410, "qr_expired")


async def test_codes_expire_one_by_one_and_the_page_may_ask_for_more() -> None:
    async with simulated(BRIEF) as client, client.page() as wire:
        first, second = await wire.code(), await wire.next_code()
        assert first != second
        await wire.hear("qr-idle")
        for code in (first, second):
            status, body = await client.ask("POST", "/phone/scan", data=code)
            assert (status, body["error"]) == (410, "qr_expired")
        await wire.say("refs")
        assert await wire.next_code() not in {first, second}


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/phone/scan", "2@never,shown", 404, "qr_unknown"),
        ("/phone/scan", " ", 400, "qr_missing"),
        ("/phone/scan", b"\xff", 400, "body_invalid"),
        ("/phone/scan", {"qr": "2@a", "phone": "+1"}, 400, "phone_invalid"),
        ("/phone/scan", {"code": "2@a"}, 400, "body_invalid"),
        ("/phone/scan", ["2@a"], 400, "body_invalid"),
        ("/phone/logout", {"wid": "nobody"}, 404, "wid_unknown"),
        ("/phone/logout", {}, 400, "wid_missing"),
        ("/phone/logout", "[" * 10_000, 400, "body_invalid"),
        ("/faults", {"fault": "gremlins"}, 400, "fault_unknown"),
        ("/faults", {"fault": "spin", "wid": "nobody"}, 404, "wid_unknown"),
        ("/faults", {"fault": "spin", "ref": "2@nobody"}, 404, "qr_unknown"),
        ("/faults", {"fault": "spin", "wid": "a", "ref": "b"}, 400, "target_invalid"),
    ],
)
async def test_a_bad_request_is_told_why(
    client: Client, path: str, body: Any, status: int, error: str
) -> None:
    options = {"data": body} if isinstance(body, str | bytes) else {"json": body}
    got, told = await client.ask("POST", path, **options)
    assert (got, told["error"]) == (status, error)
    assert told["message"]


async def test_a_wrong_key_is_refused(client: Client) -> None:
    wid, _ = await client.pair()
    async with client.page() as wire:
        await wire.hello()
        await wire.say("login", wid=wid, key="forged")
        assert (await wire.hear("failure"))["code"] == 401


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", '{"kind": "pair"}', '{"kind": "login", "wid": 1}', "[" * 60_000]
)
async def test_a_page_that_talks_nonsense_is_told_so(client: Client, text: str) -> None:
    async with client.page() as wire:
        await wire.ws.send_str(text)
        assert (await wire.hear("failure"))["code"] == 400


async def test_codes_too_large_to_paint_are_refused(client: Client) -> None:
    async with client.page() as wire:
        await wire.hello()
        await wire.say("pair", keys=["x" * 5000, "", "", ""])
        assert (await wire.hear("failure"))["code"] == 400


@pytest.mark.parametrize("by", ["phone", "page"])
async def test_logout_ends_the_login(client: Client, by: str) -> None:
    wid, key = await client.pair()
    async with client.page() as wire:
        await wire.log_in(wid, key)
        if by == "phone":
            assert await client.ask("POST", "/phone/logout", json={"wid": wid}) == (200, {"wid": wid})
        else:
            await wire.say("logout")
        assert (await wire.hear("stream-error"))["reason"] == "device_removed"
    assert await client.link(wid) is None
    async with client.page() as wire:
        await wire.hello()
        await wire.say("login", wid=wid, key=key)
        assert (await wire.hear("failure"))["code"] == 401


async def test_the_same_login_elsewhere_replaces_the_first(client: Client) -> None:
    wid, key = await client.pair()
    async with client.page() as first, client.page(cookie="b") as second:
        await first.log_in(wid, key)
        await second.log_in(wid, key)
        assert (await first.hear("stream-error"))["reason"] == "replaced"
        await first.ws.close()
        assert await client.link(wid) == "connected"


@pytest.mark.parametrize(
    "headers",
    [
        {"User-Agent": HEADLESS_AGENT},
        {"User-Agent": f"{AGENT} Electron/30.0.0"},
        {"User-Agent": "WhatsApp/2.24"},
        {"Sec-CH-UA": '"HeadlessChrome";v="156"'},
    ],
)
async def test_some_browsers_get_no_app(client: Client, headers: dict[str, str]) -> None:
    async with client.http.get("/", headers=headers) as answer:
        assert answer.status == 200
        assert "WhatsApp works with Google Chrome 100+" in await answer.text()


async def test_the_page_forbids_inline_scripts(client: Client) -> None:
    nonces = set()
    for _ in range(2):
        async with client.http.get("/") as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            nonce = policy.partition("'nonce-")[2].partition("'")[0]
            assert f'nonce="{nonce}" src="/page.js"' in await answer.text()
            nonces.add(nonce)
    assert len(nonces) == 2


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"Host": "attacker.example"}, "host_refused"),
        ({"Host": "localhost.attacker.example:80"}, "host_refused"),
        ({"Host": "["}, "host_refused"),
        ({"Sec-Fetch-Site": "cross-site"}, "site_refused"),
        ({"Sec-Fetch-Site": "same-site"}, "site_refused"),
    ],
)
@pytest.mark.parametrize("path", ["/phone/scan", "/phone/logout", "/phone/message", "/media", "/faults"])
async def test_other_web_pages_control_nothing(
    client: Client, path: str, headers: dict[str, str], error: str
) -> None:
    status, body = await client.ask("POST", path, headers=headers, json={"fault": "spin"})
    assert (status, body["error"]) == (403, error)
    assert (await client.ask("GET", "/faults"))[1]["active"] == []


@pytest.mark.parametrize("path", ["/phone/scan", "/phone/logout"])
async def test_reading_changes_nothing(client: Client, path: str) -> None:
    async with client.http.get(path) as answer:
        assert answer.status == 405


async def test_faults_come_and_go(client: Client) -> None:
    async with client.page() as wire, client.page(cookie="b") as other:
        code = await wire.code()
        await other.hello()
        _, body = await client.ask("POST", "/faults", json={"fault": "memory_growth", "ref": code[:20]})
        assert body == {
            "fault": "memory_growth",
            "value": None,
            "wid": None,
            "ref": code[:20],
            "effect": FAULTS["memory_growth"],
        }
        assert (await wire.hear("faults"))["names"] == ["memory_growth"]
        assert (await other.hear("faults"))["names"] == []
        _, body = await client.ask("GET", "/faults")
        assert body == {
            "active": [{"fault": "memory_growth", "value": None, "wid": None, "ref": code[:20]}],
            "known": FAULTS,
            "values": {name: {"default": one.default, "known": one.known} for name, one in VALUES.items()},
        }
        _, body = await client.ask("DELETE", "/faults?fault=memory_growth")
        assert body["active"] == []
        assert (await wire.hear("faults"))["names"] == []


async def test_a_fault_of_a_device_waits_for_its_next_page(client: Client) -> None:
    wid, _ = await client.pair()
    await client.ask("POST", "/faults", json={"fault": "never_loads", "wid": wid})
    async with client.page() as wire, client.page(cookie="b") as other:
        assert await wire.hello() == ["never_loads"]
        assert await other.hello() == []


async def test_a_fault_can_be_told_how_much(client: Client) -> None:
    async with client.page() as wire:
        await wire.hello()
        for value, told in (({}, "20"), ({"value": "0.2"}, "0.2")):
            status, body = await client.ask("POST", "/faults", json={"fault": "boot", **value})
            assert (status, body["value"]) == (200, told)
            assert (await wire.hear("faults"))["values"] == {"boot": told}


@pytest.mark.parametrize(
    ("fault", "value", "said"),
    [
        ("boot", "soon", "boot takes seconds, 0 to 3600; not 'soon'."),
        ("boot", "-1", "boot takes seconds, 0 to 3600; not '-1'."),
        ("boot", "nan", "boot takes seconds, 0 to 3600; not 'nan'."),
        ("spin", "1", "spin takes no value."),
        ("answers", "404", "answers takes 500, 429, 503, 407, portal, empty; not '404'."),
    ],
)
async def test_a_value_that_a_fault_does_not_take_changes_nothing(
    client: Client, fault: str, value: str, said: str
) -> None:
    status, body = await client.ask("POST", "/faults", json={"fault": fault, "value": value})
    assert (status, body["error"], body["message"]) == (400, "value_invalid", said)
    assert (await client.ask("GET", "/faults"))[1]["active"] == []


async def test_a_fault_of_one_ends_without_that_of_another(client: Client) -> None:
    (wid, _), (other, _) = await client.pair(), await client.pair(cookie="b")
    for whose in (wid, other):
        await client.ask("POST", "/faults", json={"fault": "spin", "wid": whose})
    _, body = await client.ask("DELETE", f"/faults?fault=spin&wid={wid}")
    assert body["active"] == [{"fault": "spin", "value": None, "wid": other, "ref": None}]
    _, body = await client.ask("DELETE", "/faults?fault=busy")
    assert body["active"] == [{"fault": "spin", "value": None, "wid": other, "ref": None}]


@pytest.mark.parametrize(
    ("value", "status", "length"), [("500", 500, 8), ("429", 429, 8), ("503", 503, 8), ("empty", 200, 0)]
)
async def test_a_wrong_answer_is_for_one_load(client: Client, value: str, status: int, length: int) -> None:
    for _ in range(2):
        await client.ask("POST", "/faults", json={"fault": "answers", "value": value})
    found = []
    for _ in range(3):
        async with client.http.get(f"{client.url}") as answer:
            found.append((answer.status, len(await answer.read())))
    assert found[:2] == [(status, length)] * 2
    assert found[2][0] == 200
    assert found[2][1] > 1000


@pytest.mark.parametrize("fault", ["spin_once", "spin_until_load", "blank", "reload"])
async def test_what_hits_once_hits_the_open_pages_or_else_the_next(client: Client, fault: str) -> None:
    async with client.page() as wire:
        code = await wire.code()
        await client.ask("POST", "/faults", json={"fault": fault, "ref": code[:20]})
        assert (await wire.hear("faults"))["names"] == [fault]
    async with client.page() as wire:
        assert await wire.hello() == []
    await client.ask("POST", "/faults", json={"fault": fault})
    for names in ([fault], []):
        async with client.page() as wire:
            assert await wire.hello() == names


async def test_a_stale_code_stays_until_the_page_loads_again() -> None:
    async with simulated(BRIEF) as client:
        await client.ask("POST", "/faults", json={"fault": "stale_qr"})
        async with client.page() as wire:
            code = await wire.code()
            await asyncio.sleep(0.5)
            status, body = await client.ask("POST", "/phone/scan", data=code)
            assert (status, body["error"]) == (410, "qr_expired")
            await client.ask("DELETE", "/faults")
            assert (await wire.hear("faults"))["names"] == []
            with pytest.raises(TimeoutError):
                await wire.ws.receive(timeout=0.1)
        async with client.page() as wire:
            assert await wire.code() != await wire.next_code()


async def test_a_socket_is_dropped_once(client: Client) -> None:
    async with client.page() as wire:
        await wire.hello()
        await client.ask("POST", "/faults", json={"fault": "drop_socket"})
        assert await wire.ended()
    async with client.page() as wire:
        assert await wire.hello() == []
    await client.ask("POST", "/faults", json={"fault": "drop_socket"})
    async with client.page() as wire:
        await wire.say("hello")
        assert await wire.ended()
    async with client.page() as wire:
        assert await wire.hello() == []


async def test_offline_lasts_until_it_is_cleared(client: Client) -> None:
    await client.ask("POST", "/faults", json={"fault": "offline"})
    for _ in range(2):
        async with client.page() as wire:
            await wire.say("hello")
            assert await wire.ended()
    await client.ask("DELETE", "/faults")
    async with client.page() as wire:
        assert await wire.hello() == []


async def test_never_answers_keeps_http_and_sockets_waiting_until_the_end() -> None:
    async with simulated(STEADY) as client:
        await client.ask("POST", "/faults", json={"fault": "never_answers"})
        wire = await client.http.ws_connect("/ws")
        await wire.send_json({"kind": "hello"})
        page = asyncio.create_task(client.http.get("/"))
        # The answer to a later request proves that the earlier ones were taken and left waiting.
        assert (await client.ask("GET", "/faults"))[0] == 200
        with pytest.raises(TimeoutError):
            await wire.receive(timeout=0.05)
        assert not page.done()
        page.cancel()
        await asyncio.wait([page])
        await wire.close()


async def test_closing_is_prompt_with_pages_open_and_requests_hanging() -> None:
    async with Simulator() as simulator, aiohttp.ClientSession(base_url=simulator.url) as http:
        wire = Wire(await http.ws_connect("/ws"))
        await wire.code()
        await Client(http).ask("POST", "/faults", json={"fault": "never_answers"})
        page = asyncio.create_task(http.get("/", headers={"User-Agent": AGENT}))
        await Client(http).ask("GET", "/faults")
        async with asyncio.timeout(0.5):
            await simulator.__aexit__(None, None, None)
        assert not page.done() or page.result()
        page.cancel()
        await asyncio.wait([page])


async def test_serve_says_when_it_is_ready() -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve("localhost", 0, Cadence.QUICK, ready.set_result))
    url = await ready
    async with aiohttp.ClientSession() as http, http.get(f"{url}phone/devices") as answer:
        assert await answer.json() == {"devices": []}
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_taken_port_and_a_public_address_are_refused() -> None:
    async with Simulator() as simulator:
        port = int(simulator.url.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(AlreadyRunning):
            await Simulator(port=port).__aenter__()
    with pytest.raises(ConfigError):
        Simulator(host="0.0.0.0")


# --- real browsers ----------------------------------------------------------------------------------------

needs_browser = [pytest.mark.browser, pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")]


def with_browser(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    for mark in needs_browser:
        test = mark(test)
    return test


@pytest.fixture
def profile() -> Iterator[Path]:
    path = make_profile()
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def opened(url: str, profile: Path, **options: Any) -> AsyncIterator[tuple[BareBrowser, Page]]:
    async with browser(profile, **options) as running:
        page = await running.page()
        await page.go(url)
        yield running, page


def shows_code(reading: Reading) -> bool:
    return reading.qr is not None


def is_connected(reading: Reading) -> bool:
    return reading.link is Link.CONNECTED


def is_lost(reason: Reason) -> Callable[[Reading], bool]:
    return lambda reading: reading.link is Link.LOST and reading.reason is reason


async def scanned(client: Client, page: Page) -> str:
    code = (await page.until(shows_code)).qr
    assert code is not None
    wid = await client.scan(code)
    await page.until(is_connected)
    return wid


@with_browser
async def test_codes_rotate_run_out_and_are_fetched_anew(profile: Path) -> None:
    cadence = Cadence(first_s=0.6, next_s=0.4, refs=3)
    async with simulated(cadence) as client, opened(client.url, profile) as (_, page):
        seen: list[str] = []

        def all_seen(reading: Reading) -> bool:
            if reading.qr is not None and reading.qr not in seen:
                seen.append(reading.qr)
            return reading.qr_exhausted

        last = await page.until(all_seen)
        assert len(seen) == 3
        assert (last.link, last.qr) == (Link.AWAITING_SCAN, None)
        assert await page.part("click", "fresh_codes") is True
        fresh = await page.until(shows_code)
        assert fresh.qr not in seen
        assert await page.part("click", "fresh_codes") is False


@with_browser
async def test_a_scan_logs_in_and_the_profile_keeps_the_login(profile: Path) -> None:
    links: list[Link] = []

    def connected(reading: Reading) -> bool:
        links.append(reading.link)
        return is_connected(reading)

    async with simulated(Cadence()) as client:
        url = client.url
        async with opened(url, profile) as (running, page):
            code = (await page.until(shows_code)).qr
            assert code is not None
            assert await page.evaluate("document.querySelector('[data-ref]').dataset.ref") == code
            await client.ask("POST", "/faults", json={"fault": "syncing"})
            wid = await client.scan(code)
            await page.until(lambda reading: reading.link is Link.SYNCING)
            await client.ask("DELETE", "/faults")
            await page.until(is_connected)
            await running.close()
        assert await client.link(wid) == "offline"
        async with opened(url, profile) as (_, page):
            await page.until(connected)
            assert Link.AWAITING_SCAN not in links
            assert await client.link(wid) == "connected"


@with_browser
@pytest.mark.parametrize("half", ["localStorage", "IndexedDB"])
async def test_both_halves_of_the_login_are_needed(client: Client, profile: Path, half: str) -> None:
    lose = {
        "localStorage": "localStorage.clear()",
        "IndexedDB": """new Promise(done => {
            indexedDB.deleteDatabase('signal-storage').onsuccess = () => done();
        })""",
    }
    async with opened(client.url, profile) as (_, page):
        await scanned(client, page)
        await page.evaluate(lose[half], awaitPromise=True)
        await page.go(client.url)
        await page.until(shows_code)


@with_browser
@pytest.mark.parametrize("by", ["phone", "page"])
async def test_logout_shows_why_a_new_code_is_needed(client: Client, profile: Path, by: str) -> None:
    async with opened(client.url, profile) as (_, page):
        wid = await scanned(client, page)
        if by == "phone":
            await client.ask("POST", "/phone/logout", json={"wid": wid})
        else:
            await page.evaluate("document.querySelector('[data-testid=menu-logout]').click()")
        reading = await page.until(shows_code)
        assert reading.reason is Reason.LOGGED_OUT
        assert await page.evaluate("localStorage.length") == 0
        await scanned(client, page)


@with_browser
async def test_a_logout_whose_code_cannot_come_is_a_lost_link(client: Client, profile: Path) -> None:
    async with opened(client.url, profile) as (_, page):
        await scanned(client, page)
        await client.ask("POST", "/faults", json={"fault": "storage_refused"})
        await page.go(client.url)
        await page.until(is_lost(Reason.LOGGED_OUT))


@with_browser
async def test_a_second_tab_takes_over_and_gives_back(client: Client, profile: Path) -> None:
    async with opened(client.url, profile) as (running, first):
        await scanned(client, first)
        second = await running.page()
        await second.go(client.url)
        await second.until(is_connected)
        await first.until(is_lost(Reason.CONFLICT))
        await first.evaluate("document.querySelector('[data-testid=popup-controls-ok]').click()")
        await first.until(is_connected)
        await second.until(is_lost(Reason.CONFLICT))


@with_browser
async def test_another_browser_with_the_same_login_takes_over(client: Client, profile: Path) -> None:
    url = client.url
    async with opened(url, profile) as (running, page):
        await scanned(client, page)
        await running.close()
    copy = make_profile(copy_of=profile)
    try:
        async with opened(url, profile) as (_, first):
            await first.until(is_connected)
            async with opened(url, copy) as (_, second):
                await second.until(is_connected)
                await first.until(is_lost(Reason.CONFLICT))
    finally:
        shutil.rmtree(copy)


@with_browser
async def test_a_headless_browser_is_refused(client: Client, profile: Path) -> None:
    async with browser(profile, HEADLESS_AGENT) as running:
        page = await running.page(hints=False)
        await page.go(client.url)
        await page.until(is_lost(Reason.REFUSED))


@with_browser
async def test_a_network_that_goes_and_comes_back(client: Client, profile: Path) -> None:
    async with opened(client.url, profile) as (_, page):
        wid = await scanned(client, page)
        await client.ask("POST", "/faults", json={"fault": "drop_socket"})
        await page.until(is_connected)
        await client.ask("POST", "/faults", json={"fault": "offline", "wid": wid})
        await page.until(is_lost(Reason.OFFLINE))
        await client.ask("DELETE", "/faults")
        await page.until(is_connected)


def shows(*signs: str) -> Callable[[Reading], bool]:
    return lambda reading: set(signs) <= set(reading.signs)


@with_browser
async def test_a_socket_is_in_whatever_state_is_asked_for_until_that_is_over(
    client: Client, profile: Path
) -> None:
    async with opened(client.url, profile) as (_, page):
        await scanned(client, page)
        await client.ask("POST", "/faults", json={"fault": "opening"})
        await page.until(shows("Socket.state=OPENING", "Socket.stream=DISCONNECTED", "panes"))
        await client.ask("DELETE", "/faults")
        await page.until(is_connected)
        await client.ask("POST", "/faults", json={"fault": "socket_state", "value": "TOS_BLOCK"})
        await page.until(shows("Socket.state=TOS_BLOCK", "Stream.mode=TOS_BLOCK"))
        await page.go(client.url)
        await page.until(shows("Socket.state=TOS_BLOCK", "panes"))
        await client.ask("DELETE", "/faults")
        await page.until(is_connected)


@with_browser
async def test_a_sync_that_never_ends_moves_or_does_not(client: Client, profile: Path) -> None:
    async with opened(client.url, profile) as (_, page):
        await scanned(client, page)
        for value, moves in (("stuck", False), ("moves", True)):
            await client.ask("POST", "/faults", json={"fault": "syncing", "value": value})
            await page.go(client.url)
            await page.until(lambda reading: reading.link is Link.SYNCING)
            before = await page.evaluate("document.querySelector('progress').value")
            await asyncio.sleep(0.6)
            assert (await page.evaluate("document.querySelector('progress').value") != before) is moves
        await client.ask("DELETE", "/faults")
        await page.until(is_connected)


async def between(page: Page, expression: str) -> Any:
    """Of a page that may just be on its way to another document, and then answers nothing: None."""
    with contextlib.suppress(Refused):
        return await page.evaluate(expression)
    return None


@with_browser
async def test_a_page_loads_itself_again_once(client: Client, profile: Path) -> None:
    async with opened(client.url, profile) as (_, page):
        await page.until(shows_code)
        began = await page.evaluate("performance.timeOrigin")
        await client.ask("POST", "/faults", json={"fault": "reload"})
        async with asyncio.timeout(10):
            while (again := await between(page, "performance.timeOrigin")) in {None, began}:
                await asyncio.sleep(0.05)
        await page.until(shows_code)
        assert await page.evaluate("performance.timeOrigin") == again


@with_browser
async def test_a_page_goes_blank_once(client: Client, profile: Path) -> None:
    async with opened(client.url, profile) as (_, page):
        await page.until(shows_code)
        await client.ask("POST", "/faults", json={"fault": "blank"})
        async with asyncio.timeout(10):
            while await between(page, "location.href") != "about:blank":
                await asyncio.sleep(0.05)
        await page.go(client.url)
        await page.until(shows_code)


@with_browser
async def test_storage_that_is_refused_shows(client: Client, profile: Path) -> None:
    async with opened(client.url, profile) as (_, page):
        await page.until(shows_code)
        await client.ask("POST", "/faults", json={"fault": "storage_refused"})
        assert not any("storage" in sign for sign in (await page.read()).signs)
        await page.go(client.url)
        reading = await page.until(lambda reading: "storage error: indexedDB" in reading.signs)
        assert reading.qr is None
        await client.ask("DELETE", "/faults")
        await page.go(client.url)
        await page.until(shows_code)


@with_browser
async def test_nobody_listens_at_the_address(profile: Path) -> None:
    async with Simulator() as simulator:
        url = simulator.url
    async with opened(url, profile) as (_, page):
        await page.until(is_lost(Reason.OFFLINE))


async def answers(page: Page) -> bool:
    try:
        async with asyncio.timeout(0.5):
            await page.evaluate("1")
    except TimeoutError:
        return False
    return True


@with_browser
async def test_pages_hang_as_asked(client: Client, profile: Path) -> None:
    url = client.url
    async with opened(url, profile) as (_, page):
        code = (await page.until(shows_code)).qr
        assert code is not None
        await client.ask("POST", "/faults", json={"fault": "spin", "ref": code[:40]})
        async with asyncio.timeout(10):  # the page hears of it a moment later
            while await answers(page):
                pass
        await page.call("Runtime.terminateExecution")
        await page.until(shows_code)
        await client.ask("DELETE", "/faults")

        await client.ask("POST", "/faults", json={"fault": "never_loads"})
        await page.go(url)
        await page.until(lambda reading: "splash" in reading.signs)
        reading = await page.read()
        assert (reading.link, reading.page_version) == (Link.LOADING, None)
        await client.ask("DELETE", "/faults")

        await page.go(url)
        await page.until(shows_code)
        before = (await page.call("Runtime.getHeapUsage"))["backingStorageSize"]
        await client.ask("POST", "/faults", json={"fault": "memory_growth"})
        async with asyncio.timeout(10):
            while (await page.call("Runtime.getHeapUsage"))["backingStorageSize"] < before + (8 << 20):
                await asyncio.sleep(0.05)


async def falls_silent(page: Page) -> None:
    async with asyncio.timeout(10):  # the page hears of a fault a moment later
        while await answers(page):
            pass


@with_browser
async def test_a_loop_that_ends_for_good_and_one_that_only_a_load_ends(client: Client, profile: Path) -> None:
    async with opened(client.url, profile) as (_, page):
        await scanned(client, page)
        await client.ask("POST", "/faults", json={"fault": "spin_once"})
        await falls_silent(page)
        await page.call("Runtime.terminateExecution")
        await page.until(is_connected)
        await client.ask("DELETE", "/faults")  # other faults that come and go do not bring it back
        assert await answers(page)

        await client.ask("POST", "/faults", json={"fault": "spin_until_load"})
        await falls_silent(page)
        await page.call("Runtime.terminateExecution")
        await falls_silent(page)
        # A page that never rests is loaded again only in a new process.
        with contextlib.suppress(TimeoutError):  # what is gone does not answer
            async with asyncio.timeout(1):
                await page.call("Page.crash")
        await page.go(client.url)
        await page.until(is_connected)


@with_browser
async def test_a_page_boots_as_slowly_as_it_is_asked_to(client: Client, profile: Path) -> None:
    await client.ask("POST", "/faults", json={"fault": "boot", "value": "1.5"})
    async with opened(client.url, profile) as (_, page):
        assert (await page.until(lambda reading: "splash" in reading.signs)).link is Link.LOADING
        while not await page.evaluate("document.querySelector('progress')?.value > 10"):
            await asyncio.sleep(0.02)
        await page.until(shows_code)
        assert await page.evaluate("performance.now() >= 1500")


@with_browser
async def test_a_busy_page_works_rests_and_stays_connected(profile: Path) -> None:
    cadence = Cadence(sync_s=0.01, busy_s=2.0, rest_s=0.5)
    async with simulated(cadence) as client, opened(client.url, profile) as (_, page):
        await scanned(client, page)
        await client.ask("POST", "/faults", json={"fault": "busy"})
        for _ in range(2):
            await falls_silent(page)
            await page.until(is_connected)
        await client.ask("DELETE", "/faults")
        await page.until(is_connected)
        await asyncio.sleep(3)
        assert await answers(page)
