"""Linking by phone number in the simulator: the code, its end, and the QR codes that come back."""

import shutil

import pytest
from bare_browser import BINARY, browser, make_profile
from simulated import Client, Wire, simulated

from waguard.core.model import Link
from waguard.simulator.server import Cadence

PHONE = "5215550001111"
STEADY = Cadence(first_s=60, next_s=60, code_s=60, code_tries=2, sync_s=0.01)
ASK = f"window.require('WAWebAltDeviceLinkingApi').startAltLinkingFlow('{PHONE}', true)"


async def asked(wire: Wire, phone: str = PHONE) -> str:
    await wire.code()
    return await wire.pairing_code(phone)


async def error(client: Client, code: str) -> tuple[int, str]:
    status, body = await client.ask("POST", "/phone/link", json={"code": code})
    return status, body["error"]


@pytest.mark.parametrize("typed", ["{}", "{}-", " {}\n"])
async def test_a_code_that_is_entered_links_the_page_to_its_phone(typed: str) -> None:
    async with simulated(STEADY) as client, client.page() as wire:
        code = await asked(wire)
        assert len(code) == 8
        assert await client.enter(typed.format(code.lower())) == f"{PHONE}:1@c.us"
        assert (await wire.hear("pair-success"))["wid"] == f"{PHONE}:1@c.us"
        assert await error(client, code) == (410, "code_expired")


async def test_a_code_takes_the_place_of_the_qr_code_and_expires_into_new_ones() -> None:
    cadence = Cadence(first_s=60, next_s=60, code_s=0.05)
    async with simulated(cadence) as client, client.page() as wire:
        shown = await wire.code()
        code = await wire.pairing_code(PHONE)
        status, body = await client.ask("POST", "/phone/scan", data=shown)
        assert (status, body["error"]) == (410, "qr_expired")
        fresh = await wire.next_code()
        assert await error(client, code) == (410, "code_expired")
        await client.scan(fresh)


async def test_the_qr_code_comes_back_when_it_is_asked_for() -> None:
    async with simulated(STEADY) as client, client.page() as wire:
        code = await asked(wire)
        await wire.say("refs")
        fresh = await wire.next_code()
        assert await error(client, code) == (410, "code_expired")
        await client.scan(fresh)


async def test_a_number_gets_so_many_codes_an_hour_and_each_ends_the_one_before() -> None:
    async with simulated(STEADY) as client, client.page() as wire, client.page(cookie="b") as other:
        first = await asked(wire)
        second = await wire.pairing_code(PHONE)
        assert first != second
        assert await error(client, first) == (410, "code_expired")
        await wire.say("code", phone=PHONE)
        assert (await wire.hear("code-refused"))["reason"] == "rate-overlimit"
        await asked(other, "5215550002222")
        assert await client.enter(second) == f"{PHONE}:1@c.us"


async def test_what_is_no_number_gets_no_code() -> None:
    async with simulated(STEADY) as client, client.page() as wire:
        await wire.code()
        await wire.say("code", phone="+1 555")
        assert (await wire.hear("code-refused"))["reason"] == "invalid phone number"


@pytest.mark.parametrize(
    ("body", "status", "error"), [({}, 400, "code_missing"), ({"code": "AAAAAAAA"}, 404, "code_unknown")]
)
async def test_a_code_that_nobody_has_shown_is_told_so(body: dict[str, str], status: int, error: str) -> None:
    async with simulated(STEADY) as client:
        got, told = await client.ask("POST", "/phone/link", json=body)
        assert (got, told["error"]) == (status, error)


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
async def test_a_page_with_a_code_awaits_its_scan_and_goes_back_to_qr_codes() -> None:
    profile = make_profile()
    try:
        async with simulated(STEADY) as client, browser(profile) as running:
            page = await running.page()
            await page.go(client.url)
            before = await page.until(lambda reading: reading.qr is not None)
            await page.evaluate(ASK, awaitPromise=True)
            reading = await page.until(lambda reading: "data-link-code" in reading.signs)
            assert (reading.link, reading.qr, reading.qr_exhausted) == (Link.AWAITING_SCAN, None, False)
            await page.evaluate("document.querySelector('button').click()")
            after = await page.until(lambda reading: reading.qr is not None)
            assert after.qr != before.qr
            code = await page.evaluate(ASK, awaitPromise=True)
            await client.enter(code)
            await page.until(lambda reading: reading.link is Link.CONNECTED)
    finally:
        shutil.rmtree(profile)
