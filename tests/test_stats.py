"""What the history comes to: to the exact figures, over the control port, and on an 80-column terminal."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from conftest import Daemon, Journal
from control_port import ADMIN, API, TOKEN, Port, is_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from rich.console import Console
from typer.testing import CliRunner, Result
from waiting import until

from waguard.api.stats import view
from waguard.cli.app import app
from waguard.cli.stats import render
from waguard.config.sections import Config
from waguard.core.health.faults import Fault
from waguard.core.health.plans import Remedy
from waguard.core.model import Alert, ClientCode, Stage
from waguard.core.shown import Raised, StatsView
from waguard.core.stats import Happening, RemedyStats, Spread, StageStats, episodes, slow, summary
from waguard.history.learned import Learned

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")


ALERT = Raised(Alert.NETWORK_DOWN, None, "2 of 3 sessions do not reach WhatsApp.")


class Made:
    """A history, as it is told."""

    def __init__(self) -> None:
        self.rows: list[Happening] = []

    def put(self, name: str, client: str = DEMO, **fields: Any) -> None:
        self.rows.append(Happening(len(self.rows) + 1, float(len(self.rows)), client, name, fields))

    def attempt(self, client: str = DEMO, outcome: str = "usable", **fields: Any) -> None:
        stages = fields.setdefault("stages", {})
        fields.setdefault("duration_ms", sum(stages.values()))
        self.put(
            "attempt.done", client, **{"why": "connect", "outcome": outcome, "profile": "kept", **fields}
        )

    def fault(self, fault: str, lasted_ms: float, *tried: tuple[str, str, float], client: str = DEMO) -> None:
        """The finding, the remedies, and if the last one cured it the recovery after all of them together."""
        self.put("health.finding", client, fault=fault, lasted_ms=lasted_ms, evidence=["seen"])
        for remedy, outcome, ms in tried:
            self.put("health.remedy", client, fault=fault, remedy=remedy, outcome=outcome, duration_ms=ms)
        if tried and tried[-1][1] == "cured":
            took = sum(ms for _, _, ms in tried)
            self.put("health.recovered", client, fault=fault, remedy=tried[-1][0], duration_ms=took)


@pytest.fixture
def made() -> Made:
    """Demo's week: 100 connects of 1 to 100 ms in `open`, 5 that failed, 2 called off; and demo2's single one."""
    made = Made()
    for ms in range(1, 101):
        made.attempt(stages={"start": 100.0, "open": float(ms)})
    for code in ("page_failed", "deadline_exceeded", "deadline_exceeded", "deadline_exceeded"):
        made.attempt(outcome="failed", code=code, stage="open", stages={"start": 100.0})
    made.attempt(outcome="failed", code="deadline_exceeded", stages={"start": 100.0}, why="recovery")
    made.put("stage.late", stage="open", deadline_s=45.0)
    made.put("stage.late", stage="restore", deadline_s=60.0)
    for _ in range(2):
        made.attempt(outcome="called_off")
    for code in ("disk_full", "breaker_open", "disk_full"):
        made.put("connect.refused", code=code)
    made.fault("page_blocked", 6000, ("reload", "failed", 5000), ("restart", "cured", 3000))
    made.fault("page_blocked", 8000, ("reload", "cured", 4000))
    made.fault("page_blocked", 7000, ("reload", "called_off", 10))
    made.fault("offline", 900)
    made.put("health.recovered", fault="offline", remedy="none", duration_ms=1500)
    made.attempt(DEMO2, stages={"start": 1.0, "open": 7.0})
    return made


# --- figures ------------------------------------------------------------------------------------------------


def test_the_exact_figures_of_attempts(made: Made) -> None:
    found = summary(made.rows, 0.0, 3600.0, DEMO).attempts
    assert (found.count, found.usable, found.failed, found.called_off) == (107, 100, 5, 2)
    assert found.refused == 3
    assert found.success_rate == round(100 / 108, 4)
    assert found.ms == Spread(100, 150.0, 190.0, 199.0)
    assert found.failures == {"deadline_exceeded": 4, "disk_full": 2, "page_failed": 1, "breaker_open": 1}
    assert list(found.failures)[:2] == ["deadline_exceeded", "disk_full"]
    assert found.why == {"connect": 106, "recovery": 1}
    starts, opens = 105 * 100.0, 5050.0
    assert found.stages == [
        StageStats("start", Spread(105, 100.0, 100.0, 100.0), round(starts / (starts + opens), 4), 0),
        StageStats("open", Spread(100, 50.0, 90.0, 99.0), round(opens / (starts + opens), 4), 1),
        StageStats("restore", None, 0.0, 1),
    ]


def test_the_exact_figures_of_faults(made: Made) -> None:
    blocked, offline = summary(made.rows, 0.0, 3600.0).faults
    assert (blocked.fault, blocked.count, blocked.recovered, blocked.by_itself) == ("page_blocked", 3, 2, 0)
    assert blocked.detect == Spread(3, 7000.0, 8000.0, 8000.0)
    assert blocked.recover == Spread(2, 4000.0, 8000.0, 8000.0)
    assert blocked.remedies == [
        RemedyStats("reload", 2, 1, Spread(2, 4000.0, 5000.0, 5000.0)),
        RemedyStats("restart", 1, 1, Spread(1, 3000.0, 3000.0, 3000.0)),
    ]
    assert (offline.count, offline.recovered, offline.by_itself, offline.remedies) == (1, 1, 1, [])
    assert offline.recover == Spread(1, 1500.0, 1500.0, 1500.0)


def test_of_all_and_of_one(made: Made) -> None:
    assert summary(made.rows, 0.0, 1.0).attempts.count == 108
    demo2 = summary(made.rows, 0.0, 1.0, DEMO2)
    assert (demo2.attempts.count, demo2.attempts.ms, demo2.faults) == (1, Spread(1, 8.0, 8.0, 8.0), [])
    nothing = summary(made.rows, 0.0, 1.0, "nobody")
    assert (nothing.attempts.count, nothing.attempts.success_rate, nothing.attempts.ms) == (0, None, None)


def test_faults_of_two_clients_are_not_mixed_up(made: Made) -> None:
    made.fault("page_crashed", 1.0)
    made.fault("page_crashed", 2.0, ("reload", "cured", 5.0), client=DEMO2)
    demo, demo2 = [one for one in episodes(made.rows) if one.fault == "page_crashed"]
    assert (demo.client, demo.recovered_by, demo.tried) == (DEMO, None, [])
    assert (demo2.client, demo2.recovered_by, len(demo2.tried)) == (DEMO2, "reload", 1)


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "outcome": st.sampled_from(["usable", "failed", "called_off", "cured"]),
        "stages": st.none() | st.dictionaries(st.sampled_from([*Stage, "more"]), st.floats(0, 1e6)),
        "duration_ms": st.none() | st.floats(0, 1e6),
        "fault": st.sampled_from([*Fault, "curse"]),
        "remedy": st.sampled_from([*Remedy, "none", "prayer"]),
        "lasted_ms": st.floats(0, 1e6),
        "stage": st.sampled_from(Stage),
        "deadline_s": st.floats(0, 100),
    },
)
NAMES = st.sampled_from(
    ["attempt.done", "stage.late", "health.finding", "health.remedy", "health.recovered", "session.changed"]
)


@settings(max_examples=40)
@given(told=st.lists(st.tuples(NAMES, st.sampled_from([DEMO, DEMO2]), FIELDS)))
def test_any_history_comes_to_something_that_can_be_sent_and_shown(
    told: list[tuple[str, ClientCode, dict[str, Any]]],
) -> None:
    made, learned = Made(), Learned(Config())
    for name, client, fields in told:
        made.put(name, client, **fields)
        learned.recall(name, client, fields)
    for found in (summary(made.rows, 0.0, 3600.0), summary(made.rows, 0.0, 3600.0, DEMO)):
        attempts = found.attempts
        assert attempts.usable + attempts.failed + attempts.called_off <= attempts.count
        assert sum(one.share for one in attempts.stages) <= 1.01
        for fault in found.faults:
            assert fault.by_itself <= fault.recovered <= fault.count
            assert all(one.worked <= one.tried for one in fault.remedies)
        sent = view(found, learned, "on", ())
        assert TypeAdapter(StatsView).validate_json(TypeAdapter(StatsView).dump_json(sent))
        assert shown(sent)


# --- who is slow --------------------------------------------------------------------------------------------


def week(made: Made, client: str, open_ms: float, **fields: Any) -> None:
    for number in range(20):
        made.attempt(client, stages={"start": 400.0, "open": open_ms + number}, **fields)


def test_a_client_whose_page_is_slow_is_named_with_the_reason() -> None:
    made = Made()
    week(made, DEMO, 20_000)
    for number in range(5):
        week(made, f"other{number}", 2000)
    (found,) = slow(made.rows)
    assert (found.client, found.stage, found.p90_ms, found.others_ms) == (DEMO, "open", 20_017.0, 2017.0)
    assert found.why == (
        "90 % of 20 took up to 20.0 s, those of others 2.0 s; its page is slow to load: many chats, or a slow network"
    )
    assert summary(made.rows, 0.0, 1.0, "other1").slow == []
    assert summary(made.rows, 0.0, 1.0, DEMO).slow == [found]


def test_an_empty_profile_and_missed_deadlines_are_reasons() -> None:
    made = Made()
    week(made, DEMO2, 2000)
    week(made, DEMO, 20_000, profile="fresh")
    made.put("stage.late", stage="open", deadline_s=45.0)
    (found,) = slow(made.rows)
    assert "and 1 missed the deadline" in found.why
    assert found.why.endswith("most begin with an empty or a restored profile, so with cold caches")


def test_of_one_alone_of_few_and_of_little_nothing_is_said() -> None:
    alone, few, little = Made(), Made(), Made()
    week(alone, DEMO, 20_000)
    week(few, DEMO, 2000)
    few.attempt(DEMO2, stages={"open": 60_000.0})
    week(little, DEMO, 10)
    week(little, DEMO2, 300)
    assert [slow(made.rows) for made in (alone, few, little)] == [[], [], []]


@given(opens=st.lists(st.floats(1, 100_000), min_size=2, max_size=12))
def test_never_more_than_half_are_slow_and_the_slowest_comes_first(opens: Sequence[float]) -> None:
    made = Made()
    for number, ms in enumerate(opens):
        for _ in range(5):
            made.attempt(f"client{number}", stages={"open": ms})
    found = slow(made.rows)
    assert len(found) <= len(opens) / 2
    assert all(one.p90_ms >= 2 * one.others_ms for one in found)
    behind = [one.p90_ms - one.others_ms for one in found]
    assert behind == sorted(behind, reverse=True)


# --- shown --------------------------------------------------------------------------------------------------


def shown(sent: Any, *, colour: bool = False) -> str:
    console = Console(
        width=80, force_terminal=colour, color_system="standard" if colour else None, highlight=False
    )
    with console.capture() as captured:
        render(sent, console)
    return captured.get()


def learned_from(made: Made) -> Learned:
    learned = Learned(Config())
    for one in made.rows:
        learned.recall(one.name, ClientCode(one.client), one.fields)
    return learned


def test_it_reads_well_on_80_columns(made: Made) -> None:
    week(made, DEMO2, 20_000)
    text = shown(view(summary(made.rows, 0.0, 168 * 3600.0), learned_from(made), "on", ()))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[:2] == [
        "all clients, the last 7 days: 128 attempts, 93.8% successful, 3 refused, 2 ",
        "called off",
    ]
    for figures in (
        ["connect", "121", "160 ms", "20.4 s", "20.4 s", "2"],
        ["page_blocked", "3", "2", "7.0 s", "8.0 s", "4.0 s", "8.0 s"],
        ["reload", "worked 1 of 2", "4.0 s", "5.0 s"],
        ["(by itself)", "1 time"],
        ["a new client", "open"],
        ["demo2", "open", "90 % of 21"],
    ):
        assert any(all(one in line for one in figures) for line in lines), figures


def test_a_terminal_has_colours_and_others_have_none(made: Made) -> None:
    sent = view(summary(made.rows, 0.0, 3600.0), learned_from(made), "database or disk is full", [ALERT])
    assert "\x1b[" in shown(sent, colour=True)
    assert "\x1b[" not in shown(sent)
    assert "cannot be written now: database or disk is full" in shown(sent)
    assert "network_down: 2 of 3 sessions" in shown(sent)
    assert "no history is kept" in shown(view(summary((), 0.0, 1.0), Learned(Config()), "off", ()))


# --- over the control port ----------------------------------------------------------------------------------


@pytest.fixture
def port(pose: Daemon) -> Any:
    @asynccontextmanager
    async def opening(**sections: dict[str, Any]) -> Any:
        async with (
            pose("connected", api=API, **sections) as (supervisor, url),
            aiohttp.ClientSession() as http,
        ):
            yield Port(url, supervisor, http)

    return opening


async def test_a_daemon_keeps_tells_and_learns(port: Any, journal: Journal, made: Made) -> None:
    week(made, DEMO2, 20_000)
    async with port() as daemon:
        await daemon.supervisor.connect(DEMO)
        for one in made.rows:
            journal.bus.publish(one.name, client=ClientCode(one.client), **one.fields)
        await until(lambda: not daemon.supervisor.history._left)
        answer = await daemon.ask("GET", "/v1/stats?client=demo&hours=1")
        assert answer.json["attempts"]["count"] >= 107
        assert answer.json["history"] == "on"
        (opened,) = [one for one in answer.json["deadlines"] if one["stage"] == "open"]
        assert (opened["client"], opened["configured_s"]) == (DEMO, 45.0)
        every = (await daemon.ask("GET", "/v1/stats")).json
        assert [one["client"] for one in every["slow"]] == [DEMO2]
        assert [one["client"] for one in every["deadlines"]] == [None, None, None, DEMO2]
        blocked = next(one for one in every["faults"] if one["fault"] == "page_blocked")
        (reload,) = [one for one in blocked["remedies"] if one["remedy"] == "reload"]
        assert (reload["worked"], reload["tried"]) == (1, 2)
        slow_ = daemon.supervisor.learned.deadline(DEMO2, Stage.OPEN)
        assert slow_.seconds == pytest.approx(2 * 20.018)
        # Its own history, for the client itself too.
        path = "/v1/sessions/demo"
        happened = (await daemon.ask("GET", f"{path}/history?limit=3", TOKEN)).json["history"]
        more = (await daemon.ask("GET", f"{path}/history?before={happened[-1]['id']}&limit=1000")).json
        ids = [one["id"] for one in (*happened, *more["history"])]
        assert len(happened) == 3
        assert ids == sorted(ids, reverse=True)
        assert "connected" in {one["fields"].get("status") for one in more["history"]}
        (newest, *_) = (await daemon.ask("GET", f"{path}/findings", TOKEN)).json["findings"]
        assert (newest["fault"], newest["recovered_by"], newest["recovered_ms"]) == (
            "offline",
            "none",
            1500.0,
        )
    # The ends of the sessions are in it, and a daemon that starts anew goes by it.
    async with port() as daemon:
        (last, *_) = (await daemon.ask("GET", "/v1/sessions/demo/history")).json["history"]
        assert last["name"] in {"session.changed", "attempt.done", "health.recovered"}
        assert daemon.supervisor.learned.deadline(DEMO2, Stage.OPEN).seconds == slow_.seconds
        await daemon.supervisor.cleanup(DEMO)
        assert len((await daemon.ask("GET", "/v1/sessions/demo/history?limit=1000")).json["history"]) > 100
    assert not [event for event in journal.events if event.name.startswith("history.")]


async def test_who_may_ask_and_what(port: Any) -> None:
    async with port() as daemon:
        is_problem(await daemon.ask("GET", "/v1/stats", None), 401, "unauthorized")
        is_problem(await daemon.ask("GET", "/v1/stats?client=demo", TOKEN), 403, "forbidden")
        for kind in ("history", "findings"):
            path = f"/v1/sessions/demo2/{kind}"
            is_problem(await daemon.ask("GET", path, TOKEN), 403, "forbidden")
            assert (await daemon.ask("GET", path)).json == {kind: []}, (
                "nothing is known of it, and that is no error"
            )
            for wrong in ("limit=0", "limit=1001", "limit=x", "before=-1", "after=1"):
                is_problem(await daemon.ask("GET", f"{path}?{wrong}"), 400, "invalid_request")
        for wrong in ("hours=0", "hours=inf", "hours=x", "since=1"):
            is_problem(await daemon.ask("GET", f"/v1/stats?{wrong}"), 400, "invalid_request")
        is_problem(await daemon.ask("GET", "/v1/stats?client=../x"), 400, "invalid_client_code")


async def test_a_daemon_without_a_history_and_without_learning(port: Any, sessions_dir: Any) -> None:
    async with port(history={"keep_days": 0}, learning={"enabled": False}) as daemon:
        await daemon.supervisor.connect(DEMO)
        found = (await daemon.ask("GET", "/v1/stats")).json
        assert (found["history"], found["attempts"]["count"]) == ("off", 0)
        assert {one["why"] for one in found["deadlines"]} == {"as configured"}
        assert (await daemon.ask("GET", "/v1/sessions/demo/history")).json == {"history": []}
    assert not [*sessions_dir.glob(".history*")]


async def test_the_command(port: Any, journal: Journal, made: Made) -> None:
    def command(*words: str) -> Result:
        return CliRunner().invoke(app, ["stats", *words], env={"WAGUARD_API__ADMIN_TOKEN": ADMIN})

    async with port() as daemon:
        for one in made.rows:
            journal.bus.publish(one.name, client=ClientCode(one.client), **one.fields)
        await until(lambda: not daemon.supervisor.history._left)
        plain = await asyncio.to_thread(command, "demo", "--hours", "2", "--url", daemon.url)
        assert plain.exit_code == 0, plain.output
        assert plain.stdout.startswith("demo, the last 2 hours: 107 attempts, 92.6% successful")
        as_json = await asyncio.to_thread(command, "--json", "--url", daemon.url)
        assert json.loads(as_json.stdout)["attempts"]["count"] == 108
        wrong = await asyncio.to_thread(command, "no code", "--url", daemon.url)
        assert wrong.exit_code == 2
