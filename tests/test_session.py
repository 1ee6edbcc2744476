"""Sessions against a program that poses as Chromium: every fault has a name."""

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest
from conftest import Daemon, Journal
from processes import commanded

from waguard.core.model import ClientCode, Link, Process, Status, Wait
from waguard.errors import (
    BrowserFailed,
    DeadlineExceeded,
    Interrupted,
    NoQrCode,
    SessionFailed,
    SessionNotFound,
)
from waguard.session.task import Session
from waguard.supervisor.supervisor import Supervisor

DEMO = ClientCode("demo")
DEMO2 = ClientCode("demo2")


@pytest.fixture(params=["bubblewrap", "plain"])
def sandbox(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"kind": request.param}


async def test_connect_shows_a_qr_code_and_disconnect_keeps_the_profile(
    pose: Daemon, sandbox: dict[str, str], sessions_dir: Path
) -> None:
    async with pose("ok", sandbox=sandbox) as (supervisor, _):
        view = await supervisor.connect(DEMO)
        assert (view.status, view.profile) == (Status.AWAITING_SCAN, "fresh")
        assert supervisor.qr(DEMO).text.startswith("2@posing")
        assert set(view.stages_ms) == {"admit", "prepare", "start", "open"}
        generation = view.generation
        view = await supervisor.disconnect(DEMO)
        assert (view.status, view.browser) == (Status.STOPPED, None)
        view = await supervisor.connect(DEMO)
        assert (view.generation, view.profile) == (generation, "kept")
        view = await supervisor.connect(DEMO, fresh=True)
        assert view.generation != generation
        assert [p.name for p in (sessions_dir / ".retired").iterdir()] == [f"demo.{generation}.fresh.empty"]


async def test_callers_join_one_attempt(pose: Daemon, journal: Journal) -> None:
    async with pose("slow") as (supervisor, _):
        views = await asyncio.gather(*(supervisor.connect(DEMO) for _ in range(5)))
        assert len({view.attempt for view in views}) == 1
        assert len(journal.named("browser.spawned")) == 1


async def test_a_dead_browser_comes_back(pose: Daemon, sandbox: dict[str, str]) -> None:
    async with pose("connected", sandbox=sandbox) as (supervisor, _):
        before = await supervisor.connect(DEMO)
        assert before.status is Status.CONNECTED
        assert before.browser is not None
        os.kill(before.browser.pids[0], signal.SIGKILL)
        session = supervisor._sessions[DEMO]
        async with asyncio.timeout(10):
            await session.until(
                lambda: session.memory.attempt != before.attempt and session.state.link is Link.CONNECTED
            )
        after = supervisor.view(DEMO)
        assert (after.automatic_restarts, after.generation) == (1, before.generation)


async def test_dies_at_once_says_so_with_its_last_words(pose: Daemon, sandbox: dict[str, str]) -> None:
    async with pose("dies-at-once", sandbox=sandbox, restart={"budget": 0}) as (supervisor, _):
        with pytest.raises(SessionFailed) as caught:
            await supervisor.connect(DEMO)
        assert caught.value.details["cause"] == "browser_failed"
        view = supervisor.view(DEMO)
        assert (view.status, view.browser) == (Status.FAILED, None)


async def test_a_crash_loop_ends_with_its_budget_and_an_operator_may_try_again(
    pose: Daemon, journal: Journal
) -> None:
    async with pose("dies-at-once", restart={"budget": 2, "base_s": 0.01, "max_s": 0.01}) as (supervisor, _):
        with pytest.raises(BrowserFailed) as caught:
            await supervisor.connect(DEMO)
        assert any("display of my dreams" in line for line in caught.value.details["stderr"])
        session = supervisor._sessions[DEMO]
        async with asyncio.timeout(10):
            await session.until(lambda: session.state.process is Process.FAILED)
        assert len(journal.named("browser.spawned")) == 3
        with pytest.raises(BrowserFailed):
            await supervisor.connect(DEMO)


@pytest.mark.parametrize(
    ("posing", "stage", "deadlines"),
    [("never-ready", "start", {"start": 0.4}), ("never-loads", "open", {"open": 0.4})],
)
async def test_a_missed_deadline_names_its_stage(
    pose: Daemon, posing: str, stage: str, deadlines: dict[str, float]
) -> None:
    async with pose(posing, deadlines=deadlines, restart={"base_s": 10.0, "max_s": 10.0}) as (supervisor, _):
        with pytest.raises(DeadlineExceeded) as caught:
            await supervisor.connect(DEMO)
        assert caught.value.details["stage"] == stage


async def test_dies_when_open(pose: Daemon) -> None:
    async with pose("dies-when-open", restart={"base_s": 10.0, "max_s": 10.0}) as (supervisor, _):
        with pytest.raises(BrowserFailed):
            await supervisor.connect(DEMO)


async def test_a_pipe_with_rubbish_on_it_is_no_browser(pose: Daemon) -> None:
    async with pose("talks-rubbish", restart={"budget": 0}, deadlines={"close": 0.5}) as (supervisor, _):
        with pytest.raises(SessionFailed):
            await supervisor.connect(DEMO)


async def test_a_crashed_renderer_is_restarted(pose: Daemon, journal: Journal) -> None:
    restart = {"budget": 1, "base_s": 0.01, "max_s": 0.01}
    async with pose("crashes", restart=restart, deadlines={"open": 0.5}) as (supervisor, _):
        await supervisor.connect(DEMO, wait=Wait.NONE)
        session = supervisor._sessions[DEMO]
        async with asyncio.timeout(10):
            await session.until(lambda: session.state.process is Process.FAILED)
        assert len(journal.named("browser.spawned")) == 2


async def test_who_is_held_still_for_a_snapshot_is_closed_politely_after_it(
    pose: Daemon, sandbox: dict[str, str], journal: Journal
) -> None:
    async with pose("qr", sandbox=sandbox) as (supervisor, _):
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        browser, held, go_on = session._instance.browser, threading.Event(), threading.Event()
        assert browser is not None

        def snapshot() -> None:
            with session.lease.still(browser, "a snapshot", 60.0):
                held.set()
                go_on.wait(10)

        copying = asyncio.create_task(asyncio.to_thread(snapshot))
        await asyncio.to_thread(held.wait, 10)
        closing = asyncio.create_task(supervisor.disconnect(DEMO))
        try:
            await supervisor._sessions[DEMO].until(lambda: supervisor.view(DEMO).process is Process.STOPPING)
            assert await asyncio.to_thread(browser.run.stopped)
        finally:
            go_on.set()
            await copying
        await closing
        closed = [one for one in journal.named("stage.done") if one.fields["stage"] == "close"]
        assert len(closed) == 1


async def test_ignoring_a_polite_close_costs_its_deadline_and_no_more(
    pose: Daemon, sandbox: dict[str, str], journal: Journal
) -> None:
    async with pose("ignores-close", sandbox=sandbox, deadlines={"close": 0.2}) as (supervisor, _):
        await supervisor.connect(DEMO)
        report = await supervisor.cleanup(DEMO)
        assert report.ok
        assert [step.step for step in report.steps] == [
            "memory", "browser", "tree", "profile", "values", "files", "lock",
        ]  # fmt: skip
        assert 200 <= report.steps[1].ms < 5000
        assert report.steps[1].outcome == "skipped"
        assert journal.named("browser.close_ignored")
        assert not commanded(b"--posing=ignores-close")
        assert (await supervisor.connect(DEMO)).status is Status.AWAITING_SCAN


async def test_a_stray_is_gone_with_its_browser(pose: Daemon, sandbox: dict[str, str]) -> None:
    async with pose("leaves-a-stray", sandbox=sandbox) as (supervisor, _):
        await supervisor.connect(DEMO)
        async with asyncio.timeout(10):  # the one in the middle may just be going
            while len(commanded(b"leaves-a-stray")) < 2:
                await asyncio.sleep(0.01)
        report = await supervisor.cleanup(DEMO)
        assert report.ok
        assert not commanded(b"leaves-a-stray")


async def test_a_silent_page_is_called_hung_and_a_connect_starts_it_anew(pose: Daemon) -> None:
    page = {"read_s": 0.1}
    async with pose("silent", page=page, deadlines={"open": 0.5}, restart={"budget": 0}) as (supervisor, _):
        with pytest.raises(DeadlineExceeded):  # and it goes on to be cured
            await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        async with asyncio.timeout(10):
            await session.until(lambda: session.state.process is Process.FAILED)
        with pytest.raises(DeadlineExceeded):
            await supervisor.connect(DEMO)


async def test_late_answers_are_harmless(pose: Daemon) -> None:
    """A look that timed out is answered afterwards: the channel goes on."""
    async with pose("late-answers", page={"read_s": 0.1}) as (supervisor, _):
        view = await supervisor.connect(DEMO, wait=Wait.NONE)
        session = supervisor._sessions[DEMO]
        async with asyncio.timeout(10):
            await session.until(lambda: session.state.process is Process.UP)
        devtools = session._instance.browser.devtools  # type: ignore[union-attr]  # it is up
        assert devtools is not None
        async with asyncio.timeout(20):
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await session._instance.browser.page.evaluate("1")  # type: ignore[union-attr]  # it is up
            assert (await devtools.browser.send("Browser.getVersion"))["product"] == "posing"
        assert view.process in {Process.PREPARING, Process.STARTING, Process.UP}


async def test_a_disconnect_calls_off_a_connect(pose: Daemon) -> None:
    async with pose("never-ready") as (supervisor, _):
        waiting = asyncio.create_task(supervisor.connect(DEMO))
        session = await _session(supervisor)
        async with asyncio.timeout(10):
            await session.until(lambda: session.state.process is Process.STARTING)
        view = await supervisor.disconnect(DEMO)
        assert view.status is Status.STOPPED
        with pytest.raises(Interrupted):
            await waiting


async def _session(supervisor: Supervisor) -> Session:
    while DEMO not in supervisor._sessions:
        await asyncio.sleep(0)
    return supervisor._sessions[DEMO]


async def test_cleanup_of_one_leaves_the_others(pose: Daemon) -> None:
    codes = [ClientCode(code) for code in ("demo", "demo2", "demo-2", "xdemo")]
    async with pose("connected") as (supervisor, _):
        before = await asyncio.gather(*(supervisor.connect(code) for code in codes))
        report = await supervisor.cleanup(DEMO)
        assert report.ok
        assert supervisor.view(DEMO).status is Status.STOPPED
        for was in before[1:]:
            now = supervisor.view(ClientCode(was.client))
            assert (now.browser, now.status, now.attempt) == (was.browser, Status.CONNECTED, was.attempt)


async def test_cleanup_of_nothing_is_quick_and_writes_nothing(pose: Daemon, sessions_dir: Path) -> None:
    async with pose() as (supervisor, _):
        with pytest.raises(SessionNotFound):
            await supervisor.cleanup(DEMO)
        (sessions_dir / DEMO).mkdir(mode=0o700)  # somebody was here
        before = set(sessions_dir.rglob("*"))
        report = await supervisor.cleanup(DEMO)
        assert report.ok
        assert {step.outcome for step in report.steps} == {"nothing"}
        assert set(sessions_dir.rglob("*")) - before <= {sessions_dir / ".looked"}  # the first sweep's


async def test_cleanup_during_a_start(pose: Daemon) -> None:
    async with pose("never-ready") as (supervisor, _):
        waiting = asyncio.create_task(supervisor.connect(DEMO))
        session = await _session(supervisor)
        async with asyncio.timeout(10):
            await session.until(lambda: session.state.process is Process.STARTING)
        first, second = await asyncio.gather(supervisor.cleanup(DEMO), supervisor.cleanup(DEMO))
        assert first.ok
        assert second.ok
        with pytest.raises(Interrupted):
            await waiting


async def test_asking_about_what_is_not_there(pose: Daemon) -> None:
    async with pose("connected") as (supervisor, _):
        with pytest.raises(SessionNotFound):
            supervisor.view(DEMO)
        with pytest.raises(SessionNotFound):
            await supervisor.disconnect(DEMO)
        await supervisor.connect(DEMO)
        with pytest.raises(NoQrCode) as caught:
            supervisor.qr(DEMO)
        assert "no scan" in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_a_profile_that_browsers_had_as_somebody_else_is_given_to_those_of_now(
    pose: Daemon, sessions_dir: Path
) -> None:
    async with pose("ok") as (supervisor, _):
        generation = (await supervisor.connect(DEMO)).generation
        await supervisor.disconnect(DEMO)
        profile = sessions_dir / ".profiles" / str(generation)
        ours = profile.stat().st_uid
        foreign = profile / "of-root"
        (profile / "Default" / "Local Storage" / "leveldb").mkdir(parents=True)
        for path in (profile, *profile.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        foreign.touch()
        outside = sessions_dir.parent / "outside"
        outside.touch()
        os.chown(outside, 65534, 65534)
        (profile / "link").symlink_to(outside)
        os.chown(profile / "link", 65534, 65534, follow_symlinks=False)
        assert (await supervisor.connect(DEMO)).generation == generation
        await supervisor.disconnect(DEMO)
    assert {path.lstat().st_uid for path in (profile, *profile.rglob("*")) if path != foreign} == {ours}
    assert ours != 65534
    assert (foreign.stat().st_uid, outside.stat().st_uid) == (0, 65534)
