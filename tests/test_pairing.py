"""Linking by phone number, from the request to the connected session, with the simulator's page and phone."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bare_browser import BINARY
from clients import DEMO, log_in, token
from conftest import Daemon, Journal
from hypothesis import given
from hypothesis import strategies as st
from simulated import Client
from waiting import until

from waguard.core.model import Status, Wait
from waguard.errors import NoPage, NoPairingCode, PageFailed, PairingRefused
from waguard.simulator.server import Cadence, Simulator
from waguard.whatsapp.page import PROBE, pairing_code

PHONE = "5215550001111"
STEADY = Cadence(first_s=60, next_s=60, code_s=60, code_tries=2, sync_s=0.05)


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_what_is_no_code_is_none_and_has_a_reason(answer: Any) -> None:
    code, refused = pairing_code(answer)
    assert bool(code) != bool(refused)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"code": "ABCD1234"}, ("ABCD1234", "")),
        ({"code": "ABCD-1234"}, ("", "it does not say why")),
        ({"code": "abcd1234"}, ("", "it does not say why")),
        ({"refused": "rate-overlimit"}, ("", "rate-overlimit")),
        ({"refused": "\u202e"}, ("", "it does not say why")),
    ],
)
def test_a_code_is_eight_characters_and_a_reason_a_word(answer: object, told: tuple[str, str]) -> None:
    assert pairing_code(answer) == told


async def test_a_session_without_a_page_has_no_code(pose: Daemon) -> None:
    async with pose() as (supervisor, _):
        await supervisor.connect(DEMO)
        await supervisor.disconnect(DEMO)
        with pytest.raises(NoPage):
            await supervisor.pairing_code(DEMO, PHONE)


async def test_a_session_that_is_connected_waits_for_no_phone(pose: Daemon) -> None:
    async with pose("connected") as (supervisor, _):
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        with pytest.raises(NoPairingCode) as caught:
            await supervisor.pairing_code(DEMO, PHONE)
        assert caught.value.details["status"] == "connected"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "phone: "),
        ({"phone": "12"}, "phone: "),
        ({"phone": "+1 555"}, "phone: "),
        ({"phone": PHONE, "wait": "qr"}, "wait: is unknown"),
    ],
)
async def test_a_number_that_is_none_is_told_so(pose: Daemon, options: dict[str, str], said: str) -> None:
    async with pose() as (supervisor, url), aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {token(supervisor)}"}
        address = f"{url}/v1/sessions/demo/pairing-code"
        async with http.post(address, json=options, headers=headers) as answer:
            told = await answer.json()
            assert (answer.status, told["code"]) == (400, "invalid_request")
            assert said in told["detail"]


# --- with a browser ----------------------------------------------------------------------------------------


@pytest.fixture
async def phone() -> AsyncIterator[Client]:
    async with Simulator(cadence=STEADY) as simulator, aiohttp.ClientSession(simulator.url) as http:
        yield Client(http)


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
async def test_a_code_links_the_session_and_no_log_has_it(
    start: Daemon, phone: Client, journal: Journal
) -> None:
    async with start(whatsapp={"url": phone.url}) as (supervisor, url), aiohttp.ClientSession() as http:
        await supervisor.connect(DEMO)
        headers = {"Authorization": f"Bearer {token(supervisor)}"}
        address = f"{url}/v1/sessions/demo/pairing-code"
        async with http.post(address, json={"phone": f"+{PHONE}"}, headers=headers) as answer:
            told = await answer.json()
            assert answer.status == 200, told
        assert 150 < told["expires_at"] - time.time() < 170
        await until(lambda: supervisor.view(DEMO).qr is None, "the code in the QR code's place")
        assert supervisor.view(DEMO).status is Status.AWAITING_SCAN
        wid = await phone.enter(told["code"])
        view = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (view.wid, wid) == (wid, f"{PHONE}:1@c.us")
        (given,) = journal.named("session.pairing_code")
        assert given.fields["actor"].startswith("token:")
    logged = str(journal.events)
    assert told["code"] not in logged
    assert PHONE not in logged


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
async def test_the_command_shows_the_code(start: Daemon, phone: Client) -> None:
    async with start(whatsapp={"url": phone.url}) as (supervisor, url):
        await supervisor.connect(DEMO)
        waguard = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("waguard")), "pair", "demo", PHONE, "--url", url),
            env={**os.environ, "WAGUARD_TOKEN": token(supervisor)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await waguard.communicate()
        assert waguard.returncode == 0, said.decode()
        code, *_ = said.decode().splitlines()
        assert await phone.enter(code) == f"{PHONE}:1@c.us"
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
async def test_a_number_that_has_had_too_many_is_refused_with_the_reason(
    start: Daemon, phone: Client
) -> None:
    async with start(whatsapp={"url": phone.url}) as (supervisor, _):
        await supervisor.connect(DEMO)
        first, second = [(await supervisor.pairing_code(DEMO, PHONE)).code for _ in range(2)]
        assert first != second
        with pytest.raises(PairingRefused, match="rate-overlimit"):
            await supervisor.pairing_code(DEMO, PHONE)
        await phone.enter(second)  # which is good still
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
async def test_a_code_that_expires_makes_room_for_a_qr_code(start: Daemon, journal: Journal) -> None:
    cadence = Cadence(first_s=60, next_s=60, code_s=1.0, sync_s=0.05)
    async with (
        Simulator(cadence=cadence) as simulator,
        # A page that shows no QR code for so long would be at fault.
        start(whatsapp={"url": simulator.url}, health={"qr_s": 0.3}, page={"poll_s": 0.05}) as (
            supervisor,
            _,
        ),
    ):
        await supervisor.connect(DEMO)
        await supervisor.pairing_code(DEMO, PHONE)
        await until(lambda: supervisor.view(DEMO).qr is None, "the code")
        await until(lambda: supervisor.view(DEMO).qr is not None, "a QR code")
        (view,) = await log_in(supervisor, simulator, DEMO)
        assert view.status is Status.CONNECTED
    assert not journal.named("health.finding")


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
async def test_a_page_that_does_not_know_of_it_is_told_so(
    start: Daemon, phone: Client, tmp_path: Path
) -> None:
    probe = tmp_path / "probe.js"
    ours = PROBE
    probe.write_text(ours.replace("WAWebAltDeviceLinkingApi", "WAWebMovedElsewhere"), encoding="utf-8")
    async with start(whatsapp={"url": phone.url, "probe": probe}) as (supervisor, _):
        await supervisor.connect(DEMO)
        with pytest.raises((PairingRefused, PageFailed), match=r"WAWebMovedElsewhere|does not say why"):
            await supervisor.pairing_code(DEMO, PHONE)
        assert supervisor.view(DEMO).status is Status.AWAITING_SCAN
