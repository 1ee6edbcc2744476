"""The CRM of the examples, as somebody sees it who links a phone: in a real browser, told and not asked for."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from bare_browser import BINARY
from clients import BRISK, token
from conftest import Daemon, decoded
from playwright.async_api import Page, async_playwright, expect
from ports import free_port

from waguard.core.model import ClientCode
from waguard.simulator.server import Simulator

EXAMPLES = Path(__file__).parent.parent / "examples"
DEMO = ClientCode("demo")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium is installed"),
]


@asynccontextmanager
async def crm(waguard: str, secret: str) -> AsyncIterator[str]:
    port = free_port()
    environment = {**os.environ, "WAGUARD_URL": waguard, "WAGUARD_TOKEN": secret}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / "crm.py"), str(port), env=environment, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            await process.stdout.readline()
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        await process.communicate()


async def scanned(page: Page, simulator: Simulator) -> str:
    """What a phone does that is held before the page."""
    code = page.get_by_alt_text("QR code to scan")
    await expect(code).to_be_visible(timeout=20_000)
    async with asyncio.timeout(20):
        while True:
            with suppress(ValueError):  # the picture is not there yet
                text = decoded(await page.screenshot())
                break
            await asyncio.sleep(0.05)
    simulator.scan(text, "5215550001111")
    return text


async def test_from_connect_to_connected_nobody_polls(start: Daemon) -> None:
    async with (
        Simulator(cadence=BRISK) as simulator,
        start(whatsapp={"url": simulator.url}) as (supervisor, url),
        crm(url, token(supervisor)) as home,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=BINARY, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 480, "height": 640})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url.removeprefix(home).split("?")[0]))
        await page.goto(home)
        await expect(page.get_by_role("heading")).to_have_text("Not connected yet")
        await page.get_by_role("button", name="Connect").click()
        await scanned(page, simulator)
        await expect(page.get_by_role("heading")).to_have_text("connected", timeout=20_000)
        await expect(page.get_by_alt_text("QR code to scan")).to_be_hidden()
        told = len(await supervisor.history.happened(DEMO, 100)) + asked.count("qr.svg") + 2
        assert asked.count("events") == 1
        assert asked.count("session") <= told, "it asks when it is told something, and else never"
        await browser.close()


@pytest.mark.skipif(shutil.which("node") is None, reason="no node is installed")
async def test_with_nodes_fetch_too(start: Daemon) -> None:
    async with (
        Simulator(cadence=BRISK) as simulator,
        start(whatsapp={"url": simulator.url}) as (supervisor, url),
    ):
        process = await asyncio.create_subprocess_exec(
            "node",
            str(EXAMPLES / "crm.mjs"),
            url,
            env={**os.environ, "WAGUARD_TOKEN": token(supervisor)},
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                assert "\u2588" in (await process.stdout.readline()).decode(), "a code"
                while not (qr := supervisor.view(DEMO).qr):
                    await asyncio.sleep(0.05)
                simulator.scan(qr.text, "5215550001111")
                while (await process.stdout.readline()).decode().strip() != "connected":
                    pass
        finally:
            process.terminate()
            await process.communicate()
