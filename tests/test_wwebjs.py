"""A login that an unmodified whatsapp-web.js has made is taken over: https://web.whatsapp.com as it is, the simulator behind it."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bare_browser import BINARY
from clients import token
from conftest import Daemon
from tls_front import tls_front
from trees import tree

from waguard.core.model import ClientCode, Status, Wait
from waguard.simulator.server import Cadence, Simulator

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium is installed"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="no npm is installed"),
]
VERSION = "1.34.7"


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """whatsapp-web.js as npm has it, without the browser that it would download."""
    place = tmp_path_factory.mktemp("npm")
    command = [
        "npm",
        "install",
        "--prefix",
        str(place),
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--silent",
    ]
    try:
        subprocess.run([*command, f"whatsapp-web.js@{VERSION}"], check=True, capture_output=True, timeout=90)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"whatsapp-web.js cannot be had from npm: {error}")
    return place / "node_modules"


async def test_its_login_connects_without_a_scan_and_its_folder_stays_as_it_was(
    start: Daemon, modules: Path, tmp_path: Path
) -> None:
    auth = tmp_path / ".wwebjs_auth"
    async with (
        Simulator(cadence=Cadence(sync_s=0.05)) as simulator,
        tls_front(simulator.url, tmp_path) as flags,
    ):
        script = Path(__file__).with_name("wwebjs.cjs")
        node = await asyncio.create_subprocess_exec(
            *map(str, ("node", script, modules, simulator.url, auth, BINARY, *flags)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(60):
                said, _ = await node.communicate()
        finally:
            if node.returncode is None:
                node.kill()
                await node.wait()
        assert said.decode().strip().endswith("authenticated"), said.decode()
        before = await asyncio.to_thread(tree, auth)
        # The real address leads to a port of this machine here.
        sections = {"browser": {"extra_flags": flags}, "sandbox": {"connect_ports": []}}
        async with start(**sections) as (supervisor, url):
            command = ["import", "demo", str(auth), "--url", url, "--wait", "connected", "--json"]
            environ = {**os.environ, "WAGUARD_TOKEN": token(supervisor)}
            waguard = await asyncio.create_subprocess_exec(
                *(str(Path(sys.executable).with_name("waguard")), *command),
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            said, _ = await waguard.communicate()
            assert waguard.returncode == 0, said.decode()
            view = await supervisor.connect(ClientCode("demo"), wait=Wait.CONNECTED)
            assert (view.status, view.profile) == (Status.CONNECTED, "restored")
        assert len(simulator.devices) == 1, "no second scan"
    assert await asyncio.to_thread(tree, auth) == before
