"""Whatever is installed of headless-shell, Chromium and Chrome can be used, in either sandbox."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from bare_browser import BINARIES
from clients import BRISK, log_in
from conftest import Daemon, Journal
from processes import alive
from waiting import until

from waguard.core.model import ClientCode, Status, Wait
from waguard.errors import SnapshotFailed, WaguardError
from waguard.sandbox.identity import Identity
from waguard.simulator.server import Cadence, Simulator
from waguard.supervisor.supervisor import Supervisor
from waguard.system import host

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not BINARIES, reason="no Chromium is installed")]

FULL = Path("/usr/lib/chromium/chromium")
DEMO = ClientCode("demo")
HANDLER = "chrome_crashpad"
"""As the kernel shortens it: chrome_crashpad_handler."""


@pytest.fixture(params=BINARIES, ids=lambda path: path.name)
def binary(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def members(supervisor: Supervisor) -> dict[Identity, str]:
    """What the sandbox knows to be of the browser, with its name."""
    browser = supervisor._sessions[DEMO]._instance.browser
    assert browser is not None
    return {one: Path(f"/proc/{one.pid}/comm").read_text().strip() for one in browser.run.members()}


def crashing(supervisor: Supervisor) -> bool:
    return any(host.crashing(one.pid) for one in members(supervisor))


@pytest.mark.parametrize("kind", ["bubblewrap", "plain"])
async def test_each_binary_loads_a_page_keeps_a_login_and_leaves_nothing(
    start: Daemon, binary: Path, kind: str
) -> None:
    async with (
        Simulator(cadence=Cadence(sync_s=0.2)) as simulator,
        start(whatsapp={"url": simulator.url}, sandbox={"kind": kind}, browser={"path": binary}) as (
            supervisor,
            _,
        ),
    ):
        assert (await supervisor.connect(DEMO)).status is Status.AWAITING_SCAN
        simulator.scan(supervisor.qr(DEMO).text, "34600000000")
        assert (await supervisor.connect(DEMO, wait=Wait.CONNECTED)).status is Status.CONNECTED
        before = members(supervisor)
        full = "headless" not in binary.name
        assert [name for name in before.values() if name == HANDLER] == [HANDLER] * 2 * full
        # However it ends, all of it does.
        os.kill(next(one.pid for one, name in before.items() if name != HANDLER), signal.SIGKILL)
        await supervisor.cleanup(DEMO)
        assert not alive({one.pid for one in before})
        assert (await supervisor.connect(DEMO)).status is Status.AWAITING_SCAN


@pytest.mark.skipif(FULL not in BINARIES, reason="no full Chromium is installed")
async def test_no_snapshot_comes_between_a_page_that_crashes_and_its_crash_handler(
    start: Daemon, journal: Journal
) -> None:
    """What holds still goes on by the signal by which the handler tells that it is done: the page would die too soon, and the browser hang."""
    async with (
        Simulator(cadence=BRISK) as simulator,
        start(whatsapp={"url": simulator.url}, browser={"path": FULL}) as (supervisor, _),
    ):
        await log_in(supervisor, simulator, DEMO)
        browser = supervisor._sessions[DEMO]._instance.browser
        assert browser is not None
        assert browser.page is not None
        await until(lambda: journal.named("snapshot.taken"), "the one that is taken by itself")
        handlers = [one.pid for one, name in members(supervisor).items() if name == HANDLER]
        for handler in handlers:
            os.kill(handler, signal.SIGSTOP)
        try:
            browser.page._session.send("Page.crash")
            async with asyncio.timeout(10):
                while not await asyncio.to_thread(crashing, supervisor):
                    await asyncio.sleep(0.01)
            with pytest.raises(SnapshotFailed):
                await supervisor.snapshot(DEMO)
        finally:
            for handler in handlers:
                os.kill(handler, signal.SIGCONT)
        await until(lambda: journal.named("health.recovered"), "recovered")
        (cured,) = journal.named("health.recovered")
        assert (cured.fields["fault"], cured.fields["remedies"]) == ("page_crashed", ["reload"])
        assert (await supervisor.snapshot(DEMO)).live


@pytest.mark.skipif(FULL not in BINARIES, reason="no full Chromium is installed")
async def test_what_a_browser_says_that_loads_no_page_is_in_the_answer(start: Daemon, tmp_path: Path) -> None:
    program = tmp_path / "browser"
    # Its network service dies at each start.
    program.write_text(f'#!/bin/sh\nexec {FULL} --disable-crashpad-for-testing "$@"\n')
    program.chmod(0o755)
    async with (
        Simulator() as simulator,
        start(
            whatsapp={"url": simulator.url},
            browser={"path": program},
            deadlines={"open": 3.0},
            restart={"budget": 0},
        ) as (supervisor, _),
    ):
        with pytest.raises(WaguardError) as caught:
            await supervisor.connect(DEMO)
        said = "\n".join(caught.value.details["stderr"])
        assert "Network service crashed or was terminated" in said
        await supervisor.disconnect(DEMO)


@pytest.mark.parametrize("kind", ["bubblewrap", "plain"])
@pytest.mark.parametrize(
    ("zone", "shown"), [("America/Sao_Paulo", "America/Sao_Paulo"), ("../../etc/passwd", "")]
)
async def test_a_page_has_the_daemons_time_zone(
    start: Daemon, binary: Path, kind: str, zone: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    async with (
        Simulator() as simulator,
        start(whatsapp={"url": simulator.url}, sandbox={"kind": kind}, browser={"path": binary}) as (
            supervisor,
            _,
        ),
    ):
        await supervisor.connect(DEMO)
        browser = supervisor._sessions[DEMO]._instance.browser
        assert browser is not None
        assert browser.page is not None
        found = await browser.page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
        machine = Path("/etc/localtime").resolve().relative_to("/usr/share/zoneinfo")
        utc = {"UTC", "Etc/UTC"}
        assert found == (shown or str(machine)) or {found, str(machine)} <= utc
