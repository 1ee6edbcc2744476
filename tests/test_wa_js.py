"""An unmodified wa-js, which wppconnect puts into each page, finds its modules in the simulator's."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
from bare_browser import BINARY
from clients import BRISK, DEMO, log_in, token
from conftest import Daemon
from npm import installed, needs_npm
from simulated import Client as Phone

from waguard.client import Client
from waguard.simulator.server import Simulator

ANA = "5215550001111"
PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def script() -> str:
    path: Path = installed("@wppconnect/wa-js@3.23.4") / "@wppconnect" / "wa-js" / "dist" / "wppconnect-wa.js"
    return path.read_text()


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
@needs_npm
async def test_it_sends_and_hears(start: Daemon) -> None:
    async with (
        Simulator(cadence=BRISK) as simulator,
        aiohttp.ClientSession(base_url=simulator.url) as http,
        start(whatsapp={"url": simulator.url}) as (supervisor, url),
        Client(url, token(supervisor)) as waguard,
    ):
        await log_in(supervisor, simulator, DEMO)
        phone, page = Phone(http), await waguard.session("demo").page()
        await page.evaluate(await asyncio.to_thread(script), force_expr=True)
        await page.waitForFunction("() => window.WPP?.isFullReady", timeout=20_000)
        heard: asyncio.Queue[str] = asyncio.Queue()
        await page.exposeFunction("heard", heard.put_nowait)
        await page.evaluate(
            "() => { WPP.on('chat.new_message', ({ id, body }) => id.fromMe || heard(body)); }"
        )
        await phone.write(ANA, body="Are you open?", name="Ana")
        async with asyncio.timeout(10):
            assert await heard.get() == "Are you open?"
        assert await page.evaluate("() => [WPP.conn.isRegistered(), WPP.conn.isMainReady()]") == [True, True]
        await page.evaluate("to => WPP.chat.sendTextMessage(to, 'Yes').then(() => null)", f"{ANA}@c.us")
        await page.evaluate(
            "(to, png) => WPP.chat.sendFileMessage(to, png, { type: 'image', caption: 'This' }).then(() => null)",
            f"{ANA}@c.us",
            PNG,
        )
        async with asyncio.timeout(10):
            while len(written := await phone.written()) < 3:
                await asyncio.sleep(0.05)
        assert [(one["from_me"], one["body"]) for one in written] == [
            (False, "Are you open?"),
            (True, "Yes"),
            (True, "This"),
        ]
        assert written[-1]["media"]["mimetype"] == "image/png"
