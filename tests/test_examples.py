"""Each example runs as it stands, against a daemon and the simulator, all of them at once: one owns the page, the others are beside it."""

import asyncio
import csv
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import pytest
from bare_browser import BINARY
from clients import BRISK, DEMO, log_in, pid_of, token
from conftest import Daemon
from npm import DRIVERS, installed, needs_npm
from simulated import Client

from waguard.core.model import Status
from waguard.simulator.server import Simulator

EXAMPLES = Path(__file__).parent.parent / "examples"
PACKAGES = {
    "whatsapp_web_js_answer.cjs": ("whatsapp-web.js@1.34.7",),
    "puppeteer_screenshot.mjs": DRIVERS,
    "playwright_listen.mjs": DRIVERS,
}
ANA, BEN = "5215550001111", "5215550002222"
PATIENCE_S = 60.0

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium is installed"),
    needs_npm,
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright for Python is not installed"),
]


class Runner:
    """Of examples, each in a directory as a reader has it."""

    def __init__(self, place: Path, url: str, token: str) -> None:
        self.place, self.url = place, url
        self.environment = {**os.environ, "WAGUARD_TOKEN": token}

    @asynccontextmanager
    async def begun(self, name: str) -> AsyncIterator[Process]:
        address = f"{self.url.replace('http', 'ws', 1)}/v1/sessions/demo/cdp"
        script, program = EXAMPLES / name, "node"
        if name in PACKAGES:  # node looks for packages beside the script
            modules = installed(*PACKAGES[name])
            script = Path(shutil.copy(script, modules.parent))
        else:
            program = sys.executable
        said_to = self.url if name.startswith("pyppeteer") else address
        process = await asyncio.create_subprocess_exec(
            *(program, str(script), said_to), cwd=self.place, env=self.environment, stdout=PIPE, stderr=PIPE
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def run(self, name: str) -> str:
        async with self.begun(name) as process, asyncio.timeout(PATIENCE_S):
            said, wrong = await process.communicate()
        assert process.returncode == 0, f"{name}: {wrong.decode()}"
        return said.decode()


async def line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await stream.readline()).decode().strip()


@pytest.mark.timeout(240)  # npm takes its time
async def test_each_example_does_what_it_says(start: Daemon, tmp_path: Path) -> None:
    async with (
        Simulator(cadence=BRISK) as simulator,
        aiohttp.ClientSession(base_url=simulator.url) as http,
        start(whatsapp={"url": simulator.url}) as (supervisor, url),
        AsyncExitStack() as stack,
    ):
        (before,) = await log_in(supervisor, simulator, DEMO)
        phone, runner = Client(http), Runner(tmp_path, url, token(supervisor))
        bot = await stack.enter_async_context(runner.begun("whatsapp_web_js_answer.cjs"))
        assert (await line(bot.stdout)).startswith("ready 34600000000@c.us")
        listener = await stack.enter_async_context(runner.begun("playwright_listen.mjs"))
        assert await line(listener.stderr) == "listening"
        await phone.write(ANA, body="!ping", name="Ana")
        assert json.loads(await line(listener.stdout)) == {
            "from": f"{ANA}@c.us",
            "type": "chat",
            "body": "!ping",
        }
        async with asyncio.timeout(10):
            while [one["body"] for one in await phone.written()] != ["!ping", "pong"]:
                await asyncio.sleep(0.05)
        await phone.write(BEN, body="Are you open?", name="Ben")
        assert json.loads(await line(listener.stdout))["body"] == "Are you open?"
        async with asyncio.TaskGroup() as group:
            others = ("puppeteer_screenshot.mjs", "playwright_unread.py", "pyppeteer_export.py")
            tasks = [group.create_task(runner.run(name)) for name in others]
        screenshot, unread, exported = (task.result() for task in tasks)
        assert screenshot == "WhatsApp\n"
        assert (tmp_path / "session.png").read_bytes()[:4] == b"\x89PNG"
        assert unread == "1\tBen\n"
        rows = [row[1:] for row in csv.reader(exported.splitlines())]
        assert rows == [
            [f"{ANA}@c.us", "False", "chat", "!ping"],
            [f"{ANA}@c.us", "True", "chat", "pong"],
            [f"{BEN}@c.us", "False", "chat", "Are you open?"],
        ]
        bot.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            assert await bot.wait() == 0
        after = supervisor.view(DEMO)
        assert (after.status, pid_of(after), after.attempt) == (
            Status.CONNECTED,
            pid_of(before),
            before.attempt,
        )


def test_each_example_is_run() -> None:
    run = {*PACKAGES, "playwright_unread.py", "pyppeteer_export.py", "demo.py"}
    run |= {"crm.py", "crm.mjs"}  # tests/test_crm.py
    run |= {"webhook_receiver.py", "webhook_receiver.mjs"}  # tests/test_webhooks_port.py
    assert {one.name for one in EXAMPLES.iterdir() if one.is_file()} == run
