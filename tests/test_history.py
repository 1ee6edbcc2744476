"""What has happened is kept: over restarts, kill -9, a full disk and a torn file, and nobody ever waits for it."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, Journal
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from waiting import until

from waguard.config.sections import Config
from waguard.core.feed import TOLD
from waguard.core.model import ClientCode, Stage, Status
from waguard.core.stats import Happening
from waguard.errors import HistoryFailed
from waguard.history.database import FILE
from waguard.history.history import SHOWN, Bounds, History
from waguard.history.learned import Learned
from waguard.observe.bus import Event

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
NOW = 1_795_000_000.0
DAY_S = 86_400.0
ATTEMPT: dict[str, Any] = {
    "attempt": "a1",
    "why": "connect",
    "outcome": "usable",
    "link": "connected",
    "code": None,
    "stage": None,
    "duration_ms": 2600.0,
    "stages": {"prepare": 100.0, "start": 500.0, "open": 2000.0},
    "profile": "kept",
}


QUICK = Bounds(gather_s=0.01, retry_s=0.02)


@asynccontextmanager
async def keeping(
    root: Path,
    journal: Journal,
    *,
    keep_days: float = 90.0,
    now: Callable[[], float] = lambda: NOW,
    bounds: Bounds = QUICK,
) -> AsyncIterator[tuple[History, Learned]]:
    """A history and what was learned from it, both subscribed."""
    history, learned = History(root, keep_days, journal.bus, now, bounds), Learned(Config(), now)
    await history.start(learned)
    journal.bus.subscribe(history.heard)
    journal.bus.subscribe(learned.heard)
    try:
        yield history, learned
    finally:
        await history.close()


async def kept(root: Path, code: ClientCode = DEMO, most: int = 100_000) -> Sequence[Happening]:
    """What a daemon that starts now would know, the oldest first."""
    async with keeping(root, Journal()) as (history, _):
        return [*reversed(await history.happened(code, most))]


# --- kept ---------------------------------------------------------------------------------------------------


async def test_what_happened_is_told_again_after_a_restart(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal) as (history, _):
        journal.bus.publish("attempt.done", client=DEMO, pid=4711, **ATTEMPT)
        journal.bus.publish("session.changed", client=DEMO, status="connected", was="starting")
        journal.bus.publish("attempt.done", client=DEMO2, **ATTEMPT)
        await until(lambda: not history._left)
        assert [one.name for one in await history.happened(DEMO, 10)] == ["session.changed", "attempt.done"]
    first, second = await kept(tmp_path)
    assert (first.at, first.client, first.name, first.fields) == (NOW, DEMO, "attempt.done", ATTEMPT)
    assert second.fields == {"status": "connected", "was": "starting"}
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_nothing_else_is_kept(tmp_path: Path, journal: Journal) -> None:
    """No event that is not named, and of those that are no field that is not."""
    async with keeping(tmp_path, journal):
        for name in (*SHOWN, "session.qr_shown", "internal.note"):
            secrets = {"qr": "2@secret", "token": "secret", "text": "secret"}
            journal.bus.hand(Event(name, client=DEMO, fields=secrets))
        journal.bus.publish("daemon.ready", url="secret")
        journal.bus.publish("health.finding", client=DEMO, evidence=["x" * 10_000] * 1000, fault="offline")
    found = await kept(tmp_path)
    assert [one.name for one in found] == [*SHOWN, "health.finding"]
    assert b"secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len(found[-1].fields["evidence"]) * len(found[-1].fields["evidence"][0]) <= 25_000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=5,
)


@settings(max_examples=15)
@given(
    events=st.lists(st.tuples(st.sampled_from([DEMO, DEMO2]), st.sampled_from(SHOWN), VALUES)),
    limit=st.integers(1, 10),
)
def test_page_by_page_all_of_a_client_comes_back_once_the_newest_first(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[ClientCode, str, Any]], limit: int
) -> None:
    async def keep_and_read() -> list[tuple[str, Any]]:
        root, journal = tmp_path_factory.mktemp("kept"), Journal()
        async with keeping(root, journal):
            for code, name, value in events:
                journal.bus.publish(name, client=code, **{min(TOLD[name]): value})
        found: list[tuple[str, Any]] = []
        async with keeping(root, Journal()) as (history, _):
            before = None
            while page := await history.happened(DEMO, limit, before):
                assert len(page) <= limit
                found += [(one.name, one.fields[min(TOLD[one.name])]) for one in page]
                before = page[-1].id
        return found

    assert (
        asyncio.run(keep_and_read()) == [(name, value) for code, name, value in events if code == DEMO][::-1]
    )


async def test_findings_come_with_what_became_of_them(tmp_path: Path, journal: Journal) -> None:
    def find(fault: str, *tried: tuple[str, str]) -> None:
        journal.bus.publish("health.finding", client=DEMO, fault=fault, lasted_ms=900, remedies=["reload"], why="by cost", evidence=["e"])  # fmt: skip
        for remedy, outcome in tried:
            journal.bus.publish("health.remedy", client=DEMO, fault=fault, remedy=remedy, outcome=outcome, duration_ms=5)  # fmt: skip
        if tried and tried[-1][1] == "cured":
            journal.bus.publish("health.recovered", client=DEMO, fault=fault, remedy=tried[-1][0], duration_ms=7)  # fmt: skip

    async with keeping(tmp_path, journal) as (history, _):
        find("page_blocked", ("reload", "failed"), ("restart", "cured"))
        find("offline")
        find("page_blocked", ("reload", "cured"))
        await until(lambda: not history._left)
        assert await history.findings(DEMO2, 10) == ()
        newest, middle, oldest = await history.findings(DEMO, 10)
        assert [one.fault for one in (newest, middle, oldest)] == ["page_blocked", "offline", "page_blocked"]
        assert [(tried.remedy, tried.outcome) for tried in oldest.tried] == [("reload", "failed"), ("restart", "cured")]  # fmt: skip
        assert (oldest.recovered_by, oldest.recovered_ms, middle.recovered_by) == ("restart", 7.0, None)
        assert (newest.lasted_ms, newest.planned, newest.why) == (900.0, ("reload",), "by cost")
        (paged,) = await history.findings(DEMO, 1, before=middle.id)
        assert paged == oldest


async def test_what_is_past_its_time_is_deleted(tmp_path: Path, journal: Journal) -> None:
    clock = [NOW]
    async with keeping(tmp_path, journal, keep_days=30, now=lambda: clock[0]) as (history, _):
        for day in range(40):
            clock[0] = NOW + day * DAY_S
            journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT)
            journal.bus.publish("health.activity", client=DEMO, cpu_s=1.0, period_s=60.0)
        await until(lambda: not history._left)
        await history.prune()
        assert len(await history.happened(DEMO, 100)) == 31
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("SELECT count(*), sum(seen_s) FROM activity").fetchone() == (29, 29 * 60.0)


async def test_never_more_are_kept_than_there_is_room_for(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal, bounds=replace(QUICK, kept=10)) as (history, _):
        for number in range(25):
            journal.bus.publish("attempt.done", client=DEMO, attempt=str(number))
        await until(lambda: not history._left)
        await history.prune()
        found = await history.happened(DEMO, 100)
    assert [one.fields["attempt"] for one in found] == [*map(str, range(24, 14, -1))]


async def test_with_no_days_nothing_is_kept_and_no_file_is_made(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal, keep_days=0) as (history, learned):
        journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT)
        assert await history.happened(DEMO, 10) == ()
        assert (await history.stats(1)).attempts.count == 0
        assert (history.state, learned._own[DEMO, "open"][0]) == ("off", 2.0)
    assert not [*tmp_path.iterdir()]


# --- learned ------------------------------------------------------------------------------------------------


def live(journal: Journal) -> None:
    """A week in which one client is slow and the other's reloads help nothing."""
    for _ in range(20):
        journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT | {"stages": {"open": 20_000.0}})
        journal.bus.publish("attempt.done", client=DEMO2, **ATTEMPT | {"stages": {"open": 2000.0}})
    for _ in range(4):
        blocked: dict[str, Any] = {"client": DEMO2, "fault": "page_blocked", "duration_ms": 5000.0}
        journal.bus.publish("health.remedy", remedy="reload", outcome="failed", **blocked)
        journal.bus.publish("health.remedy", remedy="restart", outcome="cured", **blocked)
    journal.bus.publish("health.activity", client=DEMO, cpu_s=30.0, period_s=60.0)
    journal.bus.publish("request.done", client=DEMO, method="POST", http_status=200)
    journal.bus.publish("request.done", client=DEMO, method="GET", http_status=200)
    journal.bus.publish("request.done", client=DEMO, method="POST", http_status=409)


def told(learned: Learned) -> object:
    return (
        [learned.deadline(code, stage) for code in (DEMO, DEMO2, None) for stage in Stage],
        [learned.activity(code) for code in (DEMO, DEMO2)],
        learned._activity[DEMO].amounts,
    )


async def test_what_was_learned_is_the_same_after_a_restart(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal) as (_, learned):
        live(journal)
        before = told(learned)
        assert learned.deadline(DEMO, Stage.OPEN).seconds == 40.0
        assert learned.deadline(DEMO2, Stage.OPEN).seconds == 11.25
        assert learned.deadline(DEMO2, Stage.KILL).seconds == Config().deadlines.kill
        assert learned.activity(DEMO) == 31.0
    async with keeping(tmp_path, Journal()) as (_, learned):
        assert told(learned) == before


async def test_what_clients_do_is_kept_when_nothing_else_happens_too(
    tmp_path: Path, journal: Journal
) -> None:
    async with keeping(tmp_path, journal, bounds=replace(QUICK, idle_s=0.02, busy_s=0.01)) as (history, _):
        journal.bus.publish("health.activity", client=DEMO, cpu_s=1.0, period_s=60.0)
        await until(lambda: not history._left)
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            journal.bus.publish("health.activity", client=DEMO, cpu_s=2.0, period_s=60.0)
            await until(lambda: journal.named("history.write_failed"))
            assert history._left
        await until(lambda: not history._left)
    async with keeping(tmp_path, Journal()) as (_, learned):
        assert (learned.activity(DEMO), sum(learned._activity[DEMO].seen)) == (3.0, 120.0)


def test_learning_can_be_switched_off() -> None:
    learned = Learned(Config.model_validate({"learning": {"enabled": False}}), lambda: NOW)
    journal = Journal()
    journal.bus.subscribe(learned.heard)
    live(journal)
    assert learned.deadline(DEMO2, Stage.OPEN).seconds == 45.0


def test_it_stays_small_and_takes_what_it_does_not_know() -> None:
    learned, journal = Learned(Config(), lambda: NOW), Journal()
    journal.bus.subscribe(learned.heard)
    for number in range(5000):
        journal.bus.publish("attempt.done", client=DEMO, stages={"open": 1000.0 + number, "scan": 5.0})
        journal.bus.publish("health.remedy", client=DEMO, fault="offline", remedy="reload", outcome="cured", duration_ms=1)  # fmt: skip
    for name in (*SHOWN, "request.done", "health.activity"):
        unknown = {"stages": None, "remedy": "prayer", "fault": "curse", "outcome": "cured"}
        journal.bus.hand(Event(name, client=DEMO, fields=unknown))
    assert sum(map(len, learned._own.values())) == 60
    assert sum(map(len, learned._all.values())) == 1000


def test_a_client_is_quiet_when_it_does_least_and_what_is_long_ago_fades() -> None:
    clock = [NOW]
    learned, journal = Learned(Config(), lambda: clock[0], lambda: clock[0]), Journal()
    journal.bus.subscribe(learned.heard)
    for hour in range(24 * 7):
        clock[0] = NOW + hour * 3600
        busy = time.localtime(clock[0]).tm_hour not in {13, 14, 15}
        journal.bus.publish("health.activity", client=DEMO, cpu_s=60.0 if busy else 1.0, period_s=3600.0)
    found = set()
    for hour in range(24):
        clock[0] = NOW + DAY_S * 7 + hour * 3600
        if learned.quiet(DEMO):
            found.add(time.localtime(clock[0]).tm_hour)
    assert found == {13, 14, 15}
    before = learned.activity(DEMO)
    clock[0] += 14 * DAY_S
    journal.bus.publish("health.activity", client=DEMO, cpu_s=0.0, period_s=60.0)
    assert learned.activity(DEMO) == pytest.approx(before / 2, rel=0.1)


def test_a_clock_that_jumps_ages_nothing_that_was_learned() -> None:
    """For an hour in 2037, and for one in 1970 before the machine has heard of the time: both are no weeks."""
    clock = [NOW]
    learned, journal = Learned(Config(), lambda: clock[0], lambda: 0.0), Journal()
    journal.bus.subscribe(learned.heard)
    for at in (NOW, NOW + 500 * 7 * DAY_S, 0.0, NOW):
        clock[0] = at
        journal.bus.publish("health.activity", client=DEMO, cpu_s=60.0, period_s=3600.0)
    assert learned.activity(DEMO) == pytest.approx(4 * 60.0)


# --- speed --------------------------------------------------------------------------------------------------


async def test_a_hundred_thousand_events(tmp_path: Path, journal: Journal) -> None:
    took = 0.0
    async with keeping(tmp_path, Journal()) as (history, learned):
        for number in range(100_000):
            began = time.thread_time()
            history.heard(event := _event("attempt.done", ClientCode(f"client{number % 100}")))
            learned.heard(event)
            took += time.thread_time() - began
            if number % 10_000 == 0:
                await until(lambda: not history._outbox, seconds=30.0)
        await until(lambda: not history._left, seconds=30.0)
        assert len(await history.happened(ClientCode("client7"), 10_000)) == 1000
        stats = await history.stats(1)
        assert (stats.attempts.count, stats.attempts.success_rate) == (100_000, 1.0)
    assert took < 5, "whoever publishes has better things to do than wait: microseconds each"


def _event(name: str, code: ClientCode) -> Event:
    return Event(name, client=code, fields=ATTEMPT)


async def test_more_than_can_wait_is_counted(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal, bounds=replace(QUICK, waiting=10)) as (history, _):
        for _ in range(25):
            journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT)
        await until(lambda: journal.named("history.lost"))
        assert not history._left
    assert [event.fields["events"] for event in journal.named("history.lost")] == [15]
    assert len(await kept(tmp_path)) == 10


# --- trouble ------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from pathlib import Path
from waguard.config.sections import Config
from waguard.core.model import ClientCode
from waguard.observe.bus import Bus
from waguard.history import history
from waguard.history.learned import Learned

async def main():
    bus = Bus()
    kept = history.History(Path(sys.argv[1]), 90, bus, bounds=history.Bounds(gather_s=0.001))
    await kept.start(Learned(Config()))
    bus.subscribe(kept.heard)
    number = 0
    while True:
        for _ in range(50):
            bus.publish("attempt.done", client=ClientCode("demo"), attempt=str(number))
            number += 1
        while kept._left:
            await asyncio.sleep(0)
        print(number, flush=True)

asyncio.run(main())
"""


async def test_what_was_committed_outlives_a_kill_in_the_middle_of_writing(tmp_path: Path) -> None:
    for _ in range(2):  # the second goes on with what the first has left
        before = len(await kept(tmp_path))
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        said = 0
        while said < 500:
            said = int(process.stdout.readline())
        await asyncio.sleep(random.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        said = int([str(said).encode(), *process.stdout.read().split()][-1])
        process.wait()
        process.stdout.close()
        found = (await kept(tmp_path))[before:]
        assert len(found) >= said
        assert [int(one.fields["attempt"]) for one in found] == [*range(len(found))]


def fill(disk: Path) -> None:
    with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("at_the_start", [True, False])
async def test_on_a_full_disk_events_wait_until_there_is_space(
    disk: Path, journal: Journal, *, at_the_start: bool
) -> None:
    if at_the_start:
        fill(disk)
    async with keeping(disk, journal) as (history, _):
        journal.bus.publish("health.activity", client=DEMO, cpu_s=2.0, period_s=60.0)
        if not at_the_start:
            journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT | {"attempt": "first"})
            await until(lambda: not history._left)
            fill(disk)
        for number in range(3000):
            journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT | {"attempt": str(number)})
        await until(lambda: journal.named("history.write_failed"))
        assert "full" in history.state or "unable to open" in history.state or "I/O" in history.state
        await asyncio.sleep(0.1)  # several more tries
        assert len(journal.named("history.write_failed")) == 1
        (disk / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        await until(lambda: journal.named("history.recovered"))
        await until(lambda: not history._left)
        assert history.state == "on"
    found = [one.fields["attempt"] for one in await kept(disk)]
    assert found == [*([] if at_the_start else ["first"]), *map(str, range(3000))]
    async with keeping(disk, Journal()) as (_, learned):
        assert learned.activity(DEMO) == 2.0


async def test_somebody_else_who_holds_the_file_is_waited_for(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal, bounds=replace(QUICK, busy_s=0.01)) as (history, _):
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT)
            await until(lambda: journal.named("history.write_failed"))
            assert history.state == "database is locked"
        await until(lambda: journal.named("history.recovered"))
    assert len(await kept(tmp_path)) == 1


def rubbish(path: Path) -> None:
    path.write_bytes(b"These are not the rows you are looking for." * 500)


def torn(path: Path) -> None:
    os.truncate(path, 4096 * 2 + 100)


def flipped(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(random.Random(page).randbytes(200))


@pytest.mark.parametrize("damage", [rubbish, torn, flipped])
async def test_a_file_that_is_no_history_is_put_aside_and_begun_anew(
    tmp_path: Path, journal: Journal, damage: Callable[[Path], None]
) -> None:
    async with keeping(tmp_path, journal):
        for _ in range(2000):
            journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT)
    path = tmp_path / FILE
    damage(path)
    was = path.read_bytes()
    async with keeping(tmp_path, journal) as (history, _):
        journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT | {"attempt": "new"})
        await until(lambda: not history._left)
        assert [one.fields["attempt"] for one in await history.happened(DEMO, 10)] == ["new"]
    (told,) = journal.named("history.unreadable")
    aside = Path(told.fields["kept_as"])
    assert aside.read_bytes()[4096:] == was[4096:]
    assert aside.match(".history.????????.unreadable")
    assert [one.fields["attempt"] for one in await kept(tmp_path)] == ["new"]
    assert not journal.named("history.write_failed")


@pytest.mark.parametrize("number", [2**62 + 1, 2**63 - 1])
async def test_a_history_that_has_no_room_behind_its_last_row_is_put_aside(
    tmp_path: Path, journal: Journal, number: int
) -> None:
    async with keeping(tmp_path, journal):
        journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT)
    with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
        db.execute("UPDATE events SET id = ?", (number,))
    async with keeping(tmp_path, journal) as (history, _):
        journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT | {"attempt": "new"})
        await until(lambda: not history._left)
        assert [one.fields["attempt"] for one in await history.happened(DEMO, 10)] == ["new"]
    (told,) = journal.named("history.unreadable")
    assert str(number) in told.fields["error"]


async def test_a_daemon_with_a_torn_history_starts_and_serves(
    pose: Daemon, sessions_dir: Path, journal: Journal
) -> None:
    sessions_dir.mkdir()
    rubbish(sessions_dir / FILE)
    async with pose("connected") as (supervisor, _):
        assert (await supervisor.connect(DEMO)).status is Status.CONNECTED
    assert len(journal.named("history.unreadable")) == 1
    assert (await kept(sessions_dir))[-1].fields["link"] == "connected", "in the new one"


# As SQLite takes them, whatever the column says; a text is written into an INTEGER column as it is.
ODD_ROWS = {
    "an hour out of range": ("activity", ("demo", 10**15, 1.0, 60.0)),
    "an hour before all": ("activity", ("demo", -(10**9), 1.0, 60.0)),
    "an hour of text": ("activity", ("demo", "noon", 1.0, 60.0)),
    "half an hour": ("activity", ("demo", 0.5, 1.0, 60.0)),
    "an hour of bytes": ("activity", ("demo", b"\xff", 1.0, 60.0)),
    "an amount of text": ("activity", ("demo", 498_100, "much", 60.0)),
    "an amount without end": ("activity", ("demo", 498_101, float("inf"), 60.0)),
    "less than no time": ("activity", ("demo", 498_102, 1.0, -60.0)),
    "a client of bytes": ("activity", (b"demo", 498_103, 1.0, 60.0)),
    "a time of text": ("events", (None, "noon", "demo", "attempt.done", "{}")),
    "a time without end": ("events", (None, float("inf"), "demo", "attempt.done", "{}")),
    "a number for fields": ("events", (None, NOW, "demo", "attempt.done", 5)),
    "fields of bytes": ("events", (None, NOW, "demo", "attempt.done", b"\xff{")),
    "half the fields": ("events", (None, NOW, "demo", "attempt.done", '{"stages": ')),
    "a list of fields": ("events", (None, NOW, "demo", "attempt.done", "[]")),
    "fields nested too deep": ("events", (None, NOW, "demo", "attempt.done", '{"a": %s}' % ("[" * 10**5))),
    "what no encoding has": ("events", (None, NOW, "demo", "attempt.done", r'{"stage": "\ud800"}')),
}


def put_in(root: Path, table: str, row: tuple[Any, ...]) -> None:
    with closing(sqlite3.connect(root / FILE)) as db, db:
        db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


@pytest.mark.parametrize("kind", ODD_ROWS)
async def test_a_row_that_is_none_of_ours_is_told_and_passed_over(
    tmp_path: Path, journal: Journal, kind: str
) -> None:
    async with keeping(tmp_path, live_journal := Journal()) as (_, learned):
        live(live_journal)
        before = told(learned)
    put_in(tmp_path, *ODD_ROWS[kind])
    async with keeping(tmp_path, journal) as (history, learned):
        assert told(learned) == before
        (event,) = journal.named("history.rows_ignored")
        assert (event.level, event.fields["rows"]) == ("warning", 1)
        assert event.fields["first"].startswith(f"{ODD_ROWS[kind][0]}: (")
        # Likewise in what is asked for, and a page that it stood on is as long as any.
        assert len(await history.happened(DEMO, 20)) == 20
        assert (await history.stats(1)).attempts.count == 40
    assert len(journal.named("history.rows_ignored")) == 1


ODD_VALUES: tuple[Any, ...] = ("much", [1], {"a": 1}, True, -5, 10**400, float("inf"), float("nan"), None)


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: repr(value)[:20])
async def test_a_value_of_another_type_counts_as_not_there(
    tmp_path: Path, journal: Journal, value: Any
) -> None:
    odd: dict[str, dict[str, Any]] = {
        "attempt.done": {
            "outcome": "usable",
            "duration_ms": value,
            "stages": {"open": value},
            "profile": value,
        },
        "stage.late": {"stage": value, "deadline_s": value, "at_work": True},
        "health.finding": {"fault": "offline", "lasted_ms": value, "evidence": value, "remedies": value},
        "health.remedy": {"fault": "offline", "remedy": "reload", "outcome": "cured", "duration_ms": value},
        "health.recovered": {"fault": "offline", "remedy": value, "duration_ms": value},
        "connect.refused": {"code": value},
    }
    async with keeping(tmp_path, live_journal := Journal()) as (_, learned):
        live(live_journal)
        before = told(learned)
    for name, fields in odd.items():
        put_in(tmp_path, "events", (None, NOW, "demo", name, json.dumps(fields)))
    put_in(tmp_path, "events", (None, NOW, "demo", "attempt.done", json.dumps({"stages": value})))
    async with keeping(tmp_path, journal) as (history, learned):
        assert told(learned) == before
        assert len(await history.happened(DEMO, 100)) == 27
        (finding,) = await history.findings(DEMO, 10)
        assert (finding.lasted_ms, [tried.duration_ms for tried in finding.tried]) == (0.0, [0.0])
        stats = await history.stats(1)
        assert (stats.attempts.count, stats.slow[0].p90_ms) == (42, 20_000.0)
        for answer in (stats, finding, await history.happened(DEMO, 100)):
            assert TypeAdapter(Any).dump_json(answer)
    assert not journal.named("history.rows_ignored")


async def test_a_daemon_starts_whatever_the_hours_are(
    pose: Daemon, sessions_dir: Path, journal: Journal
) -> None:
    sessions_dir.mkdir()
    async with keeping(sessions_dir, Journal()):
        pass
    for table, row in ODD_ROWS.values():
        put_in(sessions_dir, table, row)
    async with pose("connected") as (supervisor, _):
        assert (await supervisor.connect(DEMO)).status is Status.CONNECTED
    (event,) = journal.named("history.rows_ignored")
    assert event.fields["rows"] == len(ODD_ROWS)


async def test_what_no_encoding_has_is_kept_so_that_it_can_be_read(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal):
        journal.bus.publish("health.finding", client=DEMO, fault="offline", evidence=["it shows \ud800"])
    async with keeping(tmp_path, journal) as (history, _):
        (finding,) = await history.findings(DEMO, 1)
        assert finding.evidence == ("it shows \\ud800",)
        assert TypeAdapter(Any).dump_json(finding)


async def test_an_empty_file_is_begun(tmp_path: Path, journal: Journal) -> None:
    (tmp_path / FILE).touch(0o600)
    async with keeping(tmp_path, journal):
        journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT)
    assert len(await kept(tmp_path)) == 1
    assert not [event for event in journal.events if event.name.startswith("history.")]


@pytest.mark.parametrize("crashed", [False, True])
async def test_a_file_of_a_newer_version_is_left_as_it_is(
    tmp_path: Path, journal: Journal, *, crashed: bool
) -> None:
    with closing(sqlite3.connect(tmp_path / "made", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE elsewhere (x)")
        db.execute("PRAGMA user_version = 2")
        if not crashed:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for ending in ("", "-wal"):
            (tmp_path / f"{FILE}{ending}").write_bytes((tmp_path / f"made{ending}").read_bytes())
    was = (tmp_path / FILE).read_bytes()
    async with keeping(tmp_path, journal) as (history, learned):
        journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT)
        assert (history.state, await history.happened(DEMO, 10)) == ("off", ())
        assert learned.deadline(DEMO, Stage.OPEN).seconds == 45.0
        assert not history._left
    assert len(journal.named("history.too_new")) == 1
    if not crashed:
        assert (tmp_path / FILE).read_bytes() == was
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("elsewhere",)]


async def test_a_disk_that_hangs_holds_up_neither_an_event_nor_the_end(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    try:
        async with keeping(tmp_path, journal, bounds=replace(QUICK, end_s=0.05)) as (history, _):
            write = history._write
            monkeypatch.setattr(history, "_write", lambda db: (released.wait(), write(db)))
            began = time.monotonic()
            for _ in range(100):
                journal.bus.publish("attempt.done", client=DEMO, **ATTEMPT)
                await asyncio.sleep(0)
        assert time.monotonic() - began < 2
        assert [event.fields["events"] for event in journal.named("history.lost")] == [100]
    finally:
        released.set()
        await until(lambda: all(one.name != "history" for one in threading.enumerate()))
        history._database.drop()


async def test_a_file_that_cannot_be_read_is_an_error_of_who_asks(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(tmp_path, journal) as (history, _):
        await history._database.close()
        monkeypatch.setattr(history._database, "_path", tmp_path / "nowhere" / FILE)
        with pytest.raises(HistoryFailed, match="Cannot read"):
            await history.happened(DEMO, 10)


@pytest.mark.parametrize("turns", range(3))
async def test_to_end_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, journal: Journal, turns: int
) -> None:
    for round_ in range(4):
        async with keeping(tmp_path, Journal()) as (history, _):
            for number in range(100):
                history.heard(_event("attempt.done", DEMO))
                if number % 20 == 0:
                    await asyncio.sleep(0.005 * turns * round_)
    assert len(await kept(tmp_path)) == 400
