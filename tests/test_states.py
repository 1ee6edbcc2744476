"""No state that only a person can leave: the word is right, something is found, and the next step has its time."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from conftest import Daemon, Journal
from poses import DEMO, OTHERS, QUICK, alerts, connected, take_up
from waiting import until

from waguard.core.health.faults import Fault
from waguard.core.health.patience import SUSPECTED_S
from waguard.core.model import Link, Process, Reason, Stage, Status, Wait
from waguard.core.shown import FindingView, SessionView
from waguard.errors import DeadlineExceeded, PageFailed, Refused
from waguard.supervisor.supervisor import Supervisor


def finding(supervisor: Supervisor) -> FindingView:
    found = supervisor.view(DEMO).finding
    assert found is not None
    return found


async def until_view(supervisor: Supervisor, done: Callable[[SessionView], bool], what: str) -> SessionView:
    await until(lambda: done(supervisor.view(DEMO)), what)
    return supervisor.view(DEMO)


def lost(reason: Reason) -> Callable[[SessionView], bool]:
    return lambda view: (view.link, view.reason) == (Link.LOST, reason)


def rests(view: SessionView) -> bool:
    return view.finding is not None and view.finding.remedy is None and view.finding.next_try_s is not None


async def test_an_outage_of_whatsapps_own_is_told_with_its_status_and_ends_when_it_ends(
    pose: Daemon, journal: Journal
) -> None:
    async with pose("connected", **QUICK) as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(code) for code in OTHERS[:2]))
        before = await supervisor.connect(DEMO)
        take_up(supervisor, DEMO, "outage", always=True)
        view = await until_view(
            supervisor, lambda view: lost(Reason.WRONG_PAGE)(view) and rests(view), "rests"
        )
        assert view.status is Status.RECOVERING
        assert (finding(supervisor).fault, finding(supervisor).tried) == ("page_wrong", ("reload",))
        assert "HTTP 500" in finding(supervisor).evidence[0]
        (told,) = journal.named("health.finding")
        assert "HTTP 500" in told.fields["evidence"][0]
        with pytest.raises(PageFailed, match=r"not WhatsApp Web.*HTTP 500"):
            await supervisor.connect(DEMO)
        take_up(supervisor, DEMO, "connected", always=True)
        await until(lambda: connected(supervisor, DEMO), "connected")
        after = supervisor.view(DEMO)
        assert (after.browser, after.finding, after.next_try_s) == (before.browser, None, None)
        assert not after.automatic_restarts


async def test_an_outage_for_everybody_is_one_alert_and_no_restart(pose: Daemon, journal: Journal) -> None:
    codes = OTHERS[:3]
    async with pose("connected", **QUICK) as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(code) for code in codes))
        for code in codes:
            take_up(supervisor, code, "outage", always=True)
        await until(lambda: alerts(journal, "network_down"), "one alert")
        for code in codes:
            take_up(supervisor, code, "connected", always=True)
        await until(lambda: connected(supervisor, *codes), "connected")
        assert alerts(journal, "network_down") == ["raised", "cleared"]
        assert {one.fields["remedy"] for one in journal.named("health.remedy")} <= {"reload"}


async def test_a_first_connect_that_meets_an_outage_is_told_so_before_its_deadline(pose: Daemon) -> None:
    async with pose("outage", **QUICK) as (supervisor, _):
        async with asyncio.timeout(10):
            with pytest.raises(PageFailed, match="HTTP 500") as caught:
                await supervisor.connect(DEMO)
        assert "tried again automatically" in caught.value.hint


async def test_a_page_that_is_not_reached_is_told_with_the_browsers_own_word(
    pose: Daemon, journal: Journal
) -> None:
    async with pose("no-way", **QUICK) as (supervisor, _):
        with pytest.raises(PageFailed, match="ERR_CONNECTION_REFUSED"):
            await supervisor.connect(DEMO)
        view = await until_view(supervisor, rests, "rests")
        assert (view.link, view.reason, view.automatic_restarts) == (Link.LOST, Reason.OFFLINE, 0)
        assert "net::ERR_CONNECTION_REFUSED" in finding(supervisor).evidence[0]
        told = journal.named("health.finding")[0]
        assert "net::ERR_CONNECTION_REFUSED" in told.fields["evidence"][0]


async def test_pages_that_nobody_understands_set_off_no_restarts_and_one_alert(
    pose: Daemon, journal: Journal
) -> None:
    codes = OTHERS[:3]
    sections = {**QUICK, "deadlines": {"open": 1.0}}
    async with pose("connected", **sections) as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(code) for code in codes))
        before = [supervisor.view(code).browser for code in codes]
        for code in codes:
            take_up(supervisor, code, "unread", always=True)
        await until(lambda: alerts(journal, "page_unread"), "one alert")
        await until(
            lambda: all(supervisor.view(code).link is Link.UNKNOWN for code in codes), "all of them unknown"
        )
        for code in codes:
            view = supervisor.view(code)
            assert rests(view)
        assert [supervisor.view(code).browser for code in codes] == before
        for code in codes:
            take_up(supervisor, code, "connected", always=True)
        await until(lambda: connected(supervisor, *codes), "connected")
        assert alerts(journal, "page_unread") == ["raised", "cleared"]


async def test_who_opens_its_way_to_whatsapp_for_ever_is_offline_and_not_syncing(
    pose: Daemon, journal: Journal
) -> None:
    health = {**QUICK["health"], "offline_s": 30.0}
    async with pose("connected", **{**QUICK, "health": health}) as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(code) for code in OTHERS[:2]))
        await supervisor.connect(DEMO)
        take_up(supervisor, DEMO, "opening", always=True)
        # Found after ten seconds, and treated when `health.offline_s` is over: it may end by itself.
        view = await until_view(supervisor, lost(Reason.OFFLINE), "offline")
        assert (view.status, finding(supervisor).fault, finding(supervisor).remedy) == (
            Status.RECOVERING,
            "offline",
            None,
        )
        assert "Socket.state=OPENING" in finding(supervisor).evidence[0]
        next_try_s = finding(supervisor).next_try_s
        assert next_try_s is not None
        assert 10 < next_try_s <= 20
        take_up(supervisor, DEMO, "connected", always=True)
        await until(lambda: connected(supervisor, DEMO), "connected")
        assert supervisor.view(DEMO).finding is None
        assert not journal.named("health.remedy")


async def test_when_all_only_open_their_way_it_is_the_network(pose: Daemon, journal: Journal) -> None:
    codes = OTHERS[:3]
    async with pose("connected", **QUICK) as (supervisor, _):
        await asyncio.gather(*(supervisor.connect(code) for code in codes))
        for code in codes:
            take_up(supervisor, code, "opening", always=True)
        await until(lambda: alerts(journal, "network_down"), "one alert")
        await until(lambda: all(lost(Reason.OFFLINE)(supervisor.view(code)) for code in codes), "all offline")
        for code in codes:
            take_up(supervisor, code, "connected", always=True)
        await until(lambda: connected(supervisor, *codes), "connected")
        assert {one.fields["remedy"] for one in journal.named("health.remedy")} <= {"reload"}


async def test_a_sync_that_does_not_get_on_is_found_and_loaded_again(pose: Daemon, journal: Journal) -> None:
    health = {**QUICK["health"], "sync_s": 0.5}
    async with pose("connected", **{**QUICK, "health": health}) as (supervisor, _):
        await supervisor.connect(DEMO)
        take_up(supervisor, DEMO, "syncing", always=True)
        await until(lambda: journal.named("health.finding"), "found")
        (found,) = journal.named("health.finding")
        assert (found.fields["fault"], found.fields["remedies"]) == ("sync_stuck", ["reload", "restart"])
        take_up(supervisor, DEMO, "connected", always=True)
        await until(lambda: journal.named("health.recovered"), "recovered")


async def test_a_sync_that_was_found_is_not_over_before_it_moves(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cast("dict[Fault, float]", SUSPECTED_S), Fault.SYNC_STUCK, 0.3)
    health = {**QUICK["health"], "sync_s": 1.5}
    async with pose("connected", **{**QUICK, "health": health}) as (supervisor, _):
        await supervisor.connect(DEMO)
        take_up(supervisor, DEMO, "syncing", always=True)
        await until(lambda: bool(journal.named("health.remedy")), "treated")
        told = [one for one in journal.events if one.name.startswith("health.")]
        assert [one.name for one in told[:2]] == ["health.finding", "health.remedy"]
        assert told[1].fields["remedy"] == "reload"


async def test_a_page_that_does_not_answer_is_not_called_connected(pose: Daemon, journal: Journal) -> None:
    health = {**QUICK["health"], "blocked_s": 600.0, "busy_s": 600.0}
    async with pose("connected", **{**QUICK, "health": health}) as (supervisor, _):
        await supervisor.connect(DEMO)
        take_up(supervisor, DEMO, "silent", always=True)
        view = await until_view(supervisor, lambda view: view.link is Link.UNKNOWN, "unknown")
        assert view.status is Status.RECOVERING
        assert (finding(supervisor).fault, finding(supervisor).remedy) == ("page_silent", None)
        next_try_s = finding(supervisor).next_try_s
        assert next_try_s is not None
        assert next_try_s > 60  # when it is known by then that it hangs
        assert not journal.named("health.remedy")


async def test_an_outdated_page_is_loaded_again_by_itself_and_the_advice_costs_no_login(
    pose: Daemon, journal: Journal
) -> None:
    async with pose("connected", **QUICK) as (supervisor, _):
        before = await supervisor.connect(DEMO)
        take_up(supervisor, DEMO, "outdated")
        await until(lambda: journal.named("health.recovered"), "recovered")
        assert journal.named("health.recovered")[0].fields["remedy"] == "reload"
        assert not alerts(journal, "person_needed")
        await until(lambda: connected(supervisor, DEMO), "connected")
        assert supervisor.view(DEMO).browser == before.browser


async def test_who_is_refused_is_told_why_and_what_costs_nothing(pose: Daemon) -> None:
    async with pose("conflict", **QUICK) as (supervisor, _):
        with pytest.raises(Refused) as caught:
            await supervisor.connect(DEMO)
        assert caught.value.details["reason"] == "conflict"
        assert "waguard restart" in caught.value.hint


# --- slow is not stuck ----------------------------------------------------------------------------------------


def teach(supervisor: Supervisor, stage: Stage, seconds: float) -> None:
    for _ in range(10):
        supervisor.learned.recall("attempt.done", DEMO, {"stages": {stage.value: seconds * 1000}})


async def test_an_honest_slow_boot_is_let_whatever_was_learned(pose: Daemon, journal: Journal) -> None:
    """Ten quick starts, then one that takes longer than all deadlines and gets on all the time."""
    async with pose("boots", **QUICK, deadlines={"open": 0.6}) as (supervisor, _):
        teach(supervisor, Stage.OPEN, 0.01)
        view = await supervisor.connect(DEMO)
        assert view.link is Link.CONNECTED
        assert not journal.named("health.finding")
        assert not journal.named("stage.late")
        (slow,) = journal.named("stage.slow")
        assert slow.fields["expected_s"] == 0.15
        assert view.stages_ms["open"] > 1400


async def test_a_page_that_does_not_get_on_is_late_when_its_configured_deadline_has_passed(
    pose: Daemon, journal: Journal
) -> None:
    async with pose("never-loads", **QUICK, deadlines={"open": 0.8}) as (supervisor, _):
        teach(supervisor, Stage.OPEN, 0.01)
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded) as caught:
            await supervisor.connect(DEMO)
        took = asyncio.get_running_loop().time() - began
        # Answered when the deadline that it names has passed, and not when the reload's has passed too.
        assert caught.value.details["deadline_s"] == 0.8
        assert 0.8 <= took < 4 * 0.8
        assert finding(supervisor).fault == "page_not_loaded"


async def test_a_start_that_hangs_is_not_given_more_time_for_it(pose: Daemon, journal: Journal) -> None:
    async with pose("never-ready", deadlines={"start": 2.0}) as (supervisor, _):
        await supervisor.connect(DEMO, wait=Wait.NONE)
        await until(lambda: len(journal.named("stage.late")) >= 3, "late again and again")
        late = [(one.fields["deadline_s"], one.fields["at_work"]) for one in journal.named("stage.late")]
        assert late == [(2.0, False)] * 3
        take_up(supervisor, DEMO, "connected", always=True)
        await until(lambda: supervisor.view(DEMO).process is Process.UP, "up")
