"""Pages that mean harm, on real Chromium: they cost their own session something, and nobody else."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bare_browser import BINARIES
from clients import BRISK, log_in, page_of, pid_of
from conftest import Daemon, Journal
from loop_lag import lag
from processes import family
from waiting import until

from waguard.browser.find import KNOWN
from waguard.core.health.faults import Fault
from waguard.core.model import ClientCode, Link
from waguard.errors import PageFailed
from waguard.health.probes.falls import Falls
from waguard.simulator.server import Simulator
from waguard.supervisor.supervisor import Supervisor
from waguard.system import host

PROC = Path("/proc")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not any(path.is_file() for path in KNOWN), reason="no Chromium is installed"),
]

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(cadence=BRISK) as simulator:
        yield simulator


async def test_a_page_with_hostile_prototypes_is_read_right_and_keeps_nobody_waiting(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}, page={"poll_s": 0.05}) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO, DEMO2)
        await simulator.inject("hostile_prototype", wid=simulator.devices[0].wid)  # of `DEMO`: scanned first
        page = page_of(supervisor, DEMO)
        async with asyncio.timeout(10):
            while not await page.evaluate("''.slice(0).length > 1000"):
                await asyncio.sleep(0.02)
        async with lag() as worst:
            until = time.monotonic() + 3.0  # some dozens of looks at each page
            while (began := time.monotonic()) < until:
                await supervisor.screenshot(DEMO2)
                assert time.monotonic() - began < 3.0
        print(f"the loop stood still for {worst[0] * 1000:.0f} ms at most")  # noqa: T201 (a figure)
        assert worst[0] < 0.5
        for code in (DEMO, DEMO2):
            view = supervisor.view(code)
            assert view.link is Link.CONNECTED
            assert view.qr is None
        assert not journal.named("health.finding")
        assert len(journal.named("browser.spawned")) == 2


OLD_READER = """// As readers were before they had parts.
(() => {
  const sign = look => { try { return look(); } catch { return null; } };
  const socket = sign(() => window.require('WAWebSocketModel').Socket);
  return {
    url: location.href,
    state: sign(() => socket.state),
    synced: sign(() => socket.hasSynced === true),
    qr: sign(() => document.querySelector('[data-ref]').getAttribute('data-ref')),
  };
})();
"""


async def test_a_reader_that_was_made_before_there_were_parts_still_reads(
    start: Daemon, simulator: Simulator, tmp_path: Path
) -> None:
    reader = tmp_path / "probe.js"
    reader.write_text(OLD_READER)
    async with start(whatsapp={"url": simulator.url, "probe": reader}) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
        assert view.link is Link.CONNECTED


# --- other pages ------------------------------------------------------------------------------------------------


async def pages(supervisor: Supervisor, code: ClientCode) -> list[str]:
    """Those that its browser has."""
    browser = supervisor._sessions[code]._instance.browser
    assert browser is not None
    found = (await browser._connected_pipe().browser.send("Target.getTargets"))["targetInfos"]
    return [one["targetId"] for one in found if one["type"] == "page"]


async def test_a_page_opens_no_windows_and_others_that_open_are_closed(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        (before,) = await log_in(supervisor, simulator, DEMO)
        page = page_of(supervisor, DEMO)
        await page.evaluate(
            "opened = 0; open = (of => () => { opened += of() !== null; asked += 1; })(open); asked = 0"
        )
        await simulator.inject("popups")
        async with asyncio.timeout(20):
            while await page.evaluate("asked") < 100:
                await asyncio.sleep(0.05)
        await simulator.clear_faults()
        assert await page.evaluate("opened") == 0
        assert not journal.named("page.popups_closed")
        # With a user's gesture a full Chromium opens one, and so do we.
        for _ in range(20):
            await page._devtools.browser.send("Target.createTarget", {"url": "about:blank"})
        async with asyncio.timeout(20):
            while len(await pages(supervisor, DEMO)) > 1:
                await asyncio.sleep(0.05)
        assert await pages(supervisor, DEMO) == [page.target]
        assert len(journal.named("page.popups_closed")) == 1
        after = supervisor.view(DEMO)
        assert (after.link, after.attempt) == (Link.CONNECTED, before.attempt)
        assert not journal.named("health.finding")


async def test_a_page_that_goes_to_another_origin_is_brought_back(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    """The page there looks like WhatsApp Web that nobody is logged in to; that says nothing of the login."""
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        (before,) = await log_in(supervisor, simulator, DEMO)
        await simulator.inject("elsewhere")
        await until(lambda: bool(journal.named("health.recovered")), "brought back")
        (found,) = journal.named("health.finding")
        assert found.fields["fault"] == "elsewhere"
        assert "localhost" in found.fields["evidence"][0]
        await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected")
        after = supervisor.view(DEMO)
        assert (after.browser, after.attempt, after.profile) == (before.browser, before.attempt, "fresh")
        words = [(one.fields["link"], one.fields["reason"]) for one in journal.named("session.changed")]
        assert ("lost", "elsewhere") in words or ("loading", None) in words
        assert not [one for one in words if one[1] == "logged_out"]


# --- dialogs --------------------------------------------------------------------------------------------------


def finding_of(supervisor: Supervisor) -> str:
    treatment = supervisor._sessions[DEMO].state.treatment
    return "" if treatment is None else treatment.finding.fault.value


def alerts_of(journal: Journal) -> list[str]:
    return [one.fields["text"] for one in journal.named("alert.raised")]


async def test_what_is_new_is_clicked_away_before_it_costs_the_login(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        await simulator.inject("dialog", value="whats_new")
        await until(lambda: bool(journal.named("health.recovered")), "clicked")
        (found,), (remedy,) = journal.named("health.finding"), journal.named("health.remedy")
        assert found.fields["fault"] == "notice_open"
        assert "whats_new" in found.fields["evidence"][0]
        assert "WhatsApp Web" not in found.fields["evidence"][0], "what it says is nobody's business"
        assert (remedy.fields["remedy"], remedy.fields["outcome"]) == ("dismiss", "cured")
        assert not alerts_of(journal)
        assert (supervisor.view(DEMO).link, len(simulator.devices)) == (Link.CONNECTED, 1)


async def test_a_click_that_does_not_land_is_told(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}, health={"verify_s": 0.5}) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        await simulator.inject("dialog", value="whats_new_stuck")
        await until(lambda: bool(alerts_of(journal)), "told")
        assert alerts_of(journal)[0].startswith("A notice lies over the page")
        (remedy, *_) = journal.named("health.remedy")
        assert (remedy.fields["remedy"], remedy.fields["outcome"]) == ("dismiss", "failed")


@pytest.mark.parametrize(
    ("value", "fault", "kind"),
    [("unknown", "dialog_open", "unknown"), ("use_here", "dialog_open", "use_here")],
)
async def test_a_dialog_that_is_not_known_to_be_harmless_is_a_persons(
    start: Daemon, simulator: Simulator, journal: Journal, value: str, fault: str, kind: str
) -> None:
    async with start(whatsapp={"url": simulator.url}, health={"dialog_s": 0.5}) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        await simulator.inject("dialog", value=value)
        await until(lambda: bool(alerts_of(journal)), "told")
        assert finding_of(supervisor) == fault
        assert f"kind {kind};" in journal.named("health.finding")[0].fields["evidence"][0]
        assert supervisor.view(DEMO).link is Link.CONNECTED, "no conflict"
        assert not journal.named("health.remedy")
        await simulator.clear_faults()
        await until(lambda: bool(journal.named("alert.cleared")), "over")


@pytest.mark.parametrize("value", ["timelock", "capping"])
async def test_a_restricted_account_is_told_and_stays_connected(
    start: Daemon, simulator: Simulator, journal: Journal, value: str
) -> None:
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        await simulator.inject("restricted", value=value)
        await until(lambda: bool(alerts_of(journal)), "told")
        assert alerts_of(journal)[0].startswith("WhatsApp has restricted this account for a time")
        assert (finding_of(supervisor), supervisor.view(DEMO).link) == ("restricted", Link.CONNECTED)
        assert not journal.named("health.remedy")


@pytest.mark.parametrize(
    ("value", "word"), [("required", "passkey_required"), ("confirmation", "passkey_confirmation")]
)
async def test_a_passkey_is_waited_for_and_the_page_is_not_stuck(
    start: Daemon, simulator: Simulator, journal: Journal, value: str, word: str
) -> None:
    health, deadlines = {"qr_s": 1.0}, {"open": 2.0}
    async with start(whatsapp={"url": simulator.url}, health=health, deadlines=deadlines) as (supervisor, _):
        await supervisor.connect(DEMO)
        await simulator.inject("passkey", value=value)
        simulator.scan(supervisor.qr(DEMO).text, "34600000000")
        await until(lambda: supervisor.view(DEMO).reason == word, "said")
        view = await supervisor.connect(DEMO)
        assert (view.link, view.qr) == (Link.AWAITING_SCAN, None)
        await asyncio.sleep(4)  # twice as long as a page that loads may take
        assert (finding_of(supervisor), supervisor.view(DEMO).reason) == (word, word)
        assert "passkey" in alerts_of(journal)[0]
        assert not journal.named("health.remedy")
        await simulator.clear_faults()
        await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected")
        await until(lambda: bool(journal.named("alert.cleared")), "over")


async def test_a_passkey_that_is_wanted_after_a_logout_is_told_as_one(
    start: Daemon, simulator: Simulator
) -> None:
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        await simulator.log_out(simulator.devices[0].wid)
        await until(lambda: supervisor.view(DEMO).qr is not None, "a new code")
        assert supervisor.view(DEMO).reason == "logged_out"
        await simulator.inject("passkey", value="required")
        simulator.scan(supervisor.qr(DEMO).text, "34600000000")
        await until(lambda: supervisor.view(DEMO).reason == "passkey_required", "said")


# --- memory ---------------------------------------------------------------------------------------------------


async def test_a_page_that_takes_memory_quickly_loses_it_between_two_looks(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    """A look of a minute is not waited for, and the browser stays."""
    recycle, cgroup = {"soft_memory_mb": 500, "hard_memory_mb": 600}, {"memory_max_mb": 8000}
    async with start(whatsapp={"url": simulator.url}, recycle=recycle, cgroup=cgroup) as (supervisor, _):
        (before,) = await log_in(supervisor, simulator, DEMO)
        watch = supervisor._sessions[DEMO]._watch
        async with asyncio.timeout(70):  # its first look falls anywhere into the first minute
            while not supervisor._sessions[DEMO].usages.memory_mb:
                await asyncio.sleep(0.1)
                watch.probing.wake(Fault.MEMORY_HIGH)
        began = time.monotonic()
        await simulator.inject("memory_burst", value="6000")
        await until(lambda: bool(journal.named("health.recovered")), "cured", 30)
        assert time.monotonic() - began < 15
        (remedy,) = journal.named("health.remedy")
        assert (remedy.fields["fault"], remedy.fields["remedy"]) == ("memory_high", "reload")
        assert remedy.fields["outcome"] == "cured"
        await until(lambda: supervisor.view(DEMO).link is Link.CONNECTED, "connected")
        after = supervisor.view(DEMO)
        assert (after.browser, after.attempt) == (before.browser, before.attempt)


@pytest.mark.parametrize("binary", BINARIES, ids=lambda path: path.name)
@pytest.mark.parametrize("kind", ["bubblewrap", "plain"])
async def test_browsers_stand_behind_the_daemon_and_no_page_takes_more_than_it_may(
    start: Daemon, simulator: Simulator, kind: str, binary: Path
) -> None:
    sections: dict[str, Any] = {"sandbox": {"kind": kind}, "cgroup": {"memory_max_mb": 1500}}
    sections["browser"] = {"path": binary}
    recycle = {"soft_memory_mb": 0, "hard_memory_mb": 0}
    async with start(whatsapp={"url": simulator.url}, recycle=recycle, **sections) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
        around = {pid_of(view)} if kind == "bubblewrap" else set()
        for pid in family(pid_of(view)) - around:
            command, place = (PROC / f"{pid}/cmdline").read_bytes(), PROC / str(pid)
            score = int((place / "oom_score_adj").read_text())
            assert score >= (300 if b"--type=renderer" in command else 100), command
            (data,) = [one for one in (place / "limits").read_text().splitlines() if "Max data size" in one]
            assert data.split()[3:5] == [str(1500 << 20)] * 2
            assert os.getpriority(os.PRIO_PROCESS, pid) >= os.getpriority(os.PRIO_PROCESS, 0) + 5, command
            assert os.sched_getscheduler(pid) == os.SCHED_BATCH, command
            autogroup = place / "autogroup"
            if autogroup.exists() and b"crashpad" not in command:  # which waits in a session of its own
                assert autogroup.read_text().endswith(" nice 5\n"), command
        page, takes = page_of(supervisor, DEMO), "new Uint8Array(200 << 20).fill(1)"
        assert await page.evaluate(f"(globalThis.taken = [{takes}]).length") == 1
        with pytest.raises(PageFailed):
            await page.evaluate(f"while (true) taken.push({takes})")
        most = await asyncio.to_thread(lambda: max(map(host.anonymous_mb, family(pid_of(view)))))
        assert most < 1500
        assert supervisor.view(DEMO).browser == view.browser


def test_a_fall_of_memory_is_told_once_for_so_much_of_it() -> None:
    falls = Falls()
    told = []
    for available in (8000, 7900, 7801, 7799, 7700, 7600, 9000, 8900, 8500):
        before = falls._fallen
        falls.tick(available)
        told.append(before.is_set())
    assert told == [False, False, False, True, False, False, False, False, True]
