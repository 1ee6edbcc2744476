"""Daemons whose browsers pose and go wrong: what is found, what is done, and who is left alone."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import POSING, Daemon, Journal
from poses import DEMO, OTHERS, QUICK, alerts, connected, take_up
from waiting import until

from waguard.core.health.breaker import BreakerPolicy
from waguard.core.health.faults import Fault, finding
from waguard.core.model import ClientCode, Process, Status, Wait
from waguard.core.session import events
from waguard.errors import BreakerOpen, SessionFailed
from waguard.history.learned import Learned
from waguard.session.ladder import Ladder, Taken
from waguard.supervisor.supervisor import Supervisor
from waguard.system import host


def kill(supervisor: Supervisor, code: ClientCode) -> None:
    os.kill(supervisor._sessions[code].browser_pids[0], signal.SIGKILL)


@pytest.mark.parametrize(
    ("pose", "fault", "remedy"),
    [
        ("stops", "process_stopped", "continue"),
        ("loops", "page_looping", "terminate"),
        ("loops-on", "page_looping", "reload"),
        ("blocked", "page_blocked", "reload"),
        ("gone", "page_crashed", "reload"),
        ("cut-off", "offline", "reload"),
        ("no-network", "network_hung", "renew"),
        ("not-drawn", "gpu_hung", "renew"),
        ("never-drawn", "gpu_hung", "restart"),
        ("deaf", "browser_hung", "restart"),
        ("error-page", "page_wrong", "reload"),
        ("outdated", "outdated", "reload"),
    ],
)
async def test_each_fault_is_cured_by_the_cheapest_remedy_that_works(
    start: Daemon, journal: Journal, pose: str, fault: str, remedy: str
) -> None:
    browser = {"path": POSING, "extra_flags": ["--posing=connected"]}
    async with start(**{**QUICK, "browser": browser}) as (supervisor, _):
        if fault == "offline":  # others are not: else it would be the network
            await asyncio.gather(*(supervisor.connect(code) for code in OTHERS[:3]))
        before = await supervisor.connect(DEMO)
        take_up(supervisor, DEMO, pose)
        await until(
            lambda: journal.named("health.recovered"), f"recovered: {journal.named('health.finding')}"
        )
        (cured,) = journal.named("health.recovered")
        assert (cured.client, cured.fields["fault"], cured.fields["remedy"]) == (DEMO, fault, remedy)
        await until(lambda: connected(supervisor, DEMO), "connected")
        assert (supervisor.view(DEMO).browser == before.browser) is (remedy != "restart")


async def test_the_age_of_a_browser_is_not_told_by_a_clock_that_jumps(
    start: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was recycled, or never, and up for weeks, when the machine had heard of the time at last."""
    monkeypatch.setattr(Learned, "quiet", lambda *_: True)
    wall, kernel, jump_s = time.time, time.clock_gettime, 200 * 3600.0
    posing = {"browser": {"path": POSING, "extra_flags": ["--posing=connected"]}}
    probes = {"probes": {**QUICK["probes"], "memory_s": 0.1}}
    async with start(**{**QUICK, **posing, **probes, "recycle": {"max_age_h": 100.0}}) as (supervisor, _):
        await supervisor.connect(DEMO)
        usages = supervisor._sessions[DEMO].usages._looks
        monkeypatch.setattr(time, "time", lambda: wall() + jump_s)
        enough = len(usages) + 3
        await until(lambda: len(usages) >= enough, "what it takes was looked at since")
        assert not journal.named("session.recycled")
        view = supervisor.view(DEMO)
        assert view.browser is not None
        assert 0 <= time.time() - view.browser.started_at < 60
        assert 0 <= time.time() - view.since < 60
        monkeypatch.setattr(time, "clock_gettime", lambda which: kernel(which) + jump_s)
        await until(lambda: journal.named("session.recycled"), "recycled")
        assert journal.named("session.recycled")[0].fields["why"].startswith("it is 200 hours old")
        monkeypatch.undo()


async def test_what_a_page_shows_before_a_reload_has_left_it_is_no_verdict_on_the_reload(
    start: Daemon, journal: Journal
) -> None:
    browser = {"path": POSING, "extra_flags": ["--posing=connected"]}
    async with start(**{**QUICK, "browser": browser}) as (supervisor, _):
        await supervisor.connect(DEMO)
        take_up(supervisor, DEMO, "leaves-late", always=True)
        await until(lambda: len(journal.named("health.remedy")) == 2, "two reloads have been made")
        told = [one.fields for one in journal.named("health.remedy")]
        assert [(one["fault"], one["remedy"], one["outcome"]) for one in told] == [
            ("page_wrong", "reload", "failed")
        ] * 2
        assert not journal.named("health.recovered")


async def test_what_needs_a_person_is_not_forgotten_over_the_cure_of_something_else(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def under_way(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("waguard.health.remedies.apply", under_way)
    async with pose("connected", **{**QUICK, "probes": {"answer_s": 60.0}}) as (supervisor, _):
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        epoch = session.state.epoch
        await session._watch._visit.complain(epoch, 0, finding(Fault.GPU_HUNG, "it is not drawn", 1.0))
        await until(lambda: supervisor.view(DEMO).finding is not None, "a cure is under way")
        take_up(supervisor, DEMO, "conflict", always=True)
        await until(lambda: supervisor.view(DEMO).reason == "conflict", "open elsewhere")
        session._inbox.put(events.Recovered(epoch, Fault.GPU_HUNG))
        await until(lambda: alerts(journal, "person_needed") == ["raised"], "a person is asked")
        now = supervisor.view(DEMO).finding
        assert now is not None
        assert now.fault is Fault.CONFLICT
        assert [one.fields["fault"] for one in journal.named("health.finding")] == ["gpu_hung", "conflict"]


async def test_a_crash_loop_ends_with_its_budget_and_20_others_go_on(pose: Daemon, journal: Journal) -> None:
    restart = {"budget": 3, "window_s": 2.0, "base_s": 0.01, "max_s": 0.01, "cooldown_s": 1.0}
    async with pose("connected", restart=restart) as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(code) for code in (DEMO, *OTHERS)))
        before = {code: supervisor.view(code).browser for code in OTHERS}
        take_up(supervisor, DEMO, "dies-at-once", always=True)
        kill(supervisor, DEMO)
        await until(lambda: supervisor.view(DEMO).process is Process.FAILED, "failed")
        failed_at = time.monotonic()
        spawned = [event.client for event in journal.named("browser.spawned")]
        assert spawned.count(DEMO) == 1 + 3
        await until(lambda: alerts(journal, "session_failed") == ["raised"], "told")
        count = len(journal.named("browser.spawned"))
        await until(lambda: len(journal.named("browser.spawned")) > count, "the try after the cool-down")
        assert time.monotonic() - failed_at >= 1.0
        take_up(supervisor, DEMO, "connected", always=True)
        await until(lambda: connected(supervisor, DEMO), "back")
        assert alerts(journal, "session_failed")[-1] == "cleared"
        assert {code: supervisor.view(code).browser for code in OTHERS} == before
        assert not alerts(journal, "breaker_open")


async def test_a_broken_binary_is_found_once_and_not_by_each_client(
    start: Daemon, journal: Journal, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waguard.daemon.BreakerPolicy", lambda: BreakerPolicy(base_s=0.5, max_s=0.5))
    binary = sessions_dir.parent / "installed" / "posing_chromium.py"
    binary.parent.mkdir()
    binary.parent.chmod(0o755)
    shutil.copy(POSING, binary)
    browser = {"path": binary, "extra_flags": ["--posing=connected"]}
    async with start(browser=browser) as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(code) for code in OTHERS))
        binary.write_text("#!/nowhere/at/all\n")  # an upgrade that went wrong
        for code in OTHERS:
            kill(supervisor, code)
        await until(lambda: alerts(journal, "breaker_open"), "open")
        with pytest.raises(BreakerOpen):
            await supervisor.connect(DEMO)
        await until(lambda: all(supervisor.view(c).process is Process.BACKOFF for c in OTHERS), "held")
        assert len(journal.named("browser.spawned")) <= len(OTHERS) + 2
        shutil.copy(POSING, binary)
        await until(lambda: connected(supervisor, *OTHERS), "all back", 30)
        assert alerts(journal, "breaker_open") == ["raised", "cleared"]
        assert not alerts(journal, "session_failed")


def versions(place: Path, *versions: str) -> dict[str, Path]:
    """Programs that pose as Chromium, by the version that they tell."""
    found = {}
    for version in versions:
        (directory := place / version).mkdir(parents=True)
        program = found[version] = directory / POSING.name
        program.write_text(POSING.read_text().replace("Chromium 156.0.0.0", f"Chromium {version}"))
        program.chmod(0o755)
        directory.chmod(0o755)
    return found


def point(link: Path, program: Path) -> None:
    (beside := link.with_name("beside")).symlink_to(program)
    beside.replace(link)


def once_prepared(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Change something when a session is admitted and has its profile, and its browser is not launched yet."""
    take = Ladder.take

    def taking(*args: Any, **more: Any) -> Taken:
        taken = take(*args, **more)
        change()
        return taken

    monkeypatch.setattr(Ladder, "take", taking)


async def test_a_launch_runs_what_the_link_points_to_then(
    start: Daemon, journal: Journal, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = versions(sessions_dir.parent / "opt", "156.0.0.1", "156.0.0.2", "156.0.0.3")
    point(link := sessions_dir.parent / "chromium", programs["156.0.0.1"])
    async with start(browser={"path": link, "extra_flags": ["--posing=connected"]}) as (supervisor, _):

        async def runs() -> tuple[str, bool]:
            await supervisor.connect(DEMO, wait=Wait.CONNECTED)
            session = supervisor._sessions[DEMO]
            told = session.memory.version
            return told, any(
                str(programs[told]).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
                for pid in session.browser_pids
            )

        assert await runs() == ("156.0.0.1", True)
        await supervisor.disconnect(DEMO)
        point(link, programs["156.0.0.2"])
        assert await runs() == ("156.0.0.2", True)
        await supervisor.disconnect(DEMO)
        once_prepared(monkeypatch, lambda: point(link, programs["156.0.0.3"]))
        assert await runs() == ("156.0.0.3", True)
    told = [(one.fields["version_before"], one.fields["version"]) for one in journal.named("browser.changed")]
    assert told == [("156.0.0.1", "156.0.0.2"), ("156.0.0.2", "156.0.0.3")]


async def test_a_browser_that_became_older_once_it_was_admitted_gets_no_profile_of_a_newer_one(
    start: Daemon, journal: Journal, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = versions(sessions_dir.parent / "opt", "156.0.0.1", "157.0.0.1")
    point(link := sessions_dir.parent / "chromium", programs["157.0.0.1"])
    async with start(
        browser={"path": link, "extra_flags": ["--posing=connected"]}, restart={"budget": 0}
    ) as (
        supervisor,
        _,
    ):
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        await supervisor.disconnect(DEMO)
        once_prepared(monkeypatch, lambda: point(link, programs["156.0.0.1"]))
        with pytest.raises(SessionFailed, match="was used by browser version 157; version 156 would drop"):
            await supervisor.connect(DEMO)
        await supervisor.disconnect(DEMO)
    assert len(journal.named("browser.spawned")) == 1


async def test_the_network_that_is_gone_for_most_restarts_nothing(pose: Daemon, journal: Journal) -> None:
    codes = OTHERS[:5]
    async with pose("connected", **QUICK) as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(code) for code in codes))
        before = {code: supervisor.view(code).browser for code in codes}
        for code in codes[1:]:
            take_up(supervisor, code, "offline", always=True)
        await until(lambda: len(journal.named("health.finding")) == len(codes) - 1, "found")
        await until(lambda: alerts(journal, "network_down"), "said")
        for code in codes[1:]:
            take_up(supervisor, code, "connected", always=True)
        await until(lambda: len(journal.named("health.recovered")) == len(codes) - 1, "recovered")
        assert alerts(journal, "network_down") == ["raised", "cleared"]
        assert {code: supervisor.view(code).browser for code in codes} == before
        assert {one.fields["remedy"] for one in journal.named("health.remedy")} <= {"reload"}


async def test_what_was_up_comes_back_those_used_most_first(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = {"other1": 3.0, "other2": 9.0, "other0": 1.0}
    monkeypatch.setattr("waguard.history.learned.Learned.activity", lambda _, code: used.get(code, 0.0))
    up, down = OTHERS[:3], OTHERS[3]
    async with pose("connected") as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(code) for code in (*up, down)))
        await supervisor.disconnect(down)
    count = len(journal.named("browser.spawned"))
    async with pose("connected", limits={"concurrent_starts": 1}) as (supervisor, _):
        await until(lambda: connected(supervisor, *up), "back")
        came = [event.client for event in journal.named("browser.spawned")][count:]
        assert came == ["other2", "other1", "other0"]
        assert supervisor.view(down).status is Status.STOPPED
        whys = [one.fields["why"] for one in journal.named("attempt.done")][-3:]
        assert whys == ["return"] * 3


async def test_what_finds_no_memory_waits_for_it(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waguard.admission.gate._NO_ROOM_S", 0.2)
    free = [1_000_000]
    monkeypatch.setattr(host, "available_memory_mb", lambda: free[0])
    limits = {"session_memory_mb": 100, "reserve_memory_mb": 0, "reserve_disk_mb": 0}
    async with pose("connected", limits=limits) as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(code) for code in OTHERS[:3]))
    count, free[0] = len(journal.named("browser.spawned")), 50
    async with pose("connected", limits=limits) as (supervisor, _):
        await until(lambda: all(supervisor.view(c).process is Process.BACKOFF for c in OTHERS[:3]), "held")
        assert len(journal.named("browser.spawned")) == count
        free[0] = 1_000_000
        await until(lambda: connected(supervisor, *OTHERS[:3]), "back")
        assert alerts(journal, "no_room") == ["raised", "cleared"]
        assert all(not supervisor.view(code).automatic_restarts for code in OTHERS[:3])


async def test_a_disconnect_calls_a_cure_off_and_it_stays_down(pose: Daemon, journal: Journal) -> None:
    async with pose("never-loads", deadlines={"open": 0.3}) as (supervisor, _):
        await supervisor.connect(DEMO, wait=Wait.NONE)
        await until(lambda: journal.named("health.finding"), "found")
        await supervisor.disconnect(DEMO)
        outcomes = [one.fields["outcome"] for one in journal.named("health.remedy")]
        assert outcomes[-1] == "called_off"
        count = len(journal.named("browser.spawned"))
        view = supervisor.view(DEMO)
        assert (view.status, view.finding) == (Status.STOPPED, None)
        assert len(journal.named("browser.spawned")) == count
