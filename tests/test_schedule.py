"""When a job runs next, over any clock and zone; and that it then does: once, never twice at a time, and remembered."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from conftest import Journal
from hypothesis import assume, example, given
from hypothesis import strategies as st
from waiting import until

from waguard.core.shown import JobView
from waguard.errors import ShuttingDown, StorageFailed
from waguard.schedule.rule import LOCAL, Rule, believed, jitter_bound_s, next_run
from waguard.schedule.runner import Schedule

BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
ZONES = ("UTC0", BERLIN, "EST5EDT,M3.2.0,M11.1.0", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0")
SPRING, AUTUMN = (
    1_774_746_000.0,
    1_792_890_000.0,
)  # 29 March and 25 October 2026, 01:00 UTC: Berlin's clocks change
DAY, HOUR = 86_400.0, 3600.0
TINY = Rule("0.01s", interval_s=0.01)
NEVER = Rule.parse("never")
FAR = Rule.parse("1d")

moments = st.floats(1.6e9, 2.2e9)
intervals = st.integers(1, 366 * 86_400).map(lambda seconds: Rule(f"{seconds}s", interval_s=seconds))
crons = st.builds(
    lambda *fields: Rule.parse(" ".join(fields)),
    st.sampled_from(["0", "30", "*", "*/7", "15,45", "0-59/10"]),
    st.sampled_from(["*", "2", "0", "1-3", "*/6", "2,3", "0-23"]),
    st.sampled_from(["*", "1", "29", "L"]),
    st.sampled_from(["*", "3,10", "2"]),
    st.sampled_from(["*", "SUN", "1-5"]),
)
rules = intervals | crons


@contextmanager
def zone(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        try:
            yield
        finally:
            patch.undo()
            time.tzset()


def at(rule: Rule, since: float, now: float) -> float:
    found = next_run(rule, since, now)
    assert found is not None
    return found


def clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%d %H:%M:%S")  # noqa: DTZ006 (what a clock on the wall shows)


def runs(rule: Rule, since: float, until: float) -> list[float]:
    """The times at which a daemon that is always up begins its runs."""
    found = []
    while (since := at(rule, since, since)) < until:
        found.append(since)
    return found


# --- what may be written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("45s", Rule("45s", interval_s=45)),
        (" 30m ", Rule("30m", interval_s=1800)),
        ("6h", Rule("6h", interval_s=6 * 3600)),
        ("366d", Rule("366d", interval_s=366 * 86_400)),
        ("30  3 * * *", Rule("30 3 * * *", cron="30 3 * * *")),
        ("*/5 0-6 1,15 jan MON-FRI", Rule("*/5 0-6 1,15 jan MON-FRI", cron="*/5 0-6 1,15 jan MON-FRI")),
        ("", Rule("never")),
        ("never", Rule("never")),
    ],
)
def test_rules_that_are_understood(text: str, rule: Rule) -> None:
    assert Rule.parse(text) == rule
    assert Rule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("0s", '\'0s\' is not between "1s" and "366d"'),
        ("367d", "'367d' is not between"),
        ("999999999d", "is not between"),
        ("9999999999d", "is not a schedule"),
        ("-5m", "is not a schedule"),
        ("1.5h", "'1.5h' is not a schedule: write an interval"),
        ("6H", "is not a schedule"),
        ("٣s", "is not a schedule"),
        ("6", "is not a schedule"),
        ("6 h", "is not a schedule"),
        ("@daily", "is not a schedule"),
        ("30 3 * *", "is not a schedule"),
        ("0 30 3 * * *", "is not a schedule"),
        ("61 3 * * *", "Bad minute"),
        ("30 24 * * *", "Bad hour"),
        ("30 3 30 2 *", "Bad day-of-month"),
        ("30 3 * 13 *", "Bad month"),
        ("30 3 * * 8", "Bad day-of-week"),
        ("0 0 */5 2 MON#5", "no day is ever like that"),
        ("every day at half three", 'not a cron expression of minute, hour, day, month and weekday ("30 3'),
    ],
)
def test_what_is_wrong_with_a_rule_is_said(text: str, wrong: str) -> None:
    with pytest.raises(ValueError) as refused:
        Rule.parse(text)
    assert wrong in str(refused.value)


@given(st.text(max_size=20) | st.text("0123456789*/-,#LW JANMO", max_size=24))
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    try:
        rule = Rule.parse(text)
    except ValueError as refused:
        said = str(refused)
        assert repr(text) in said or repr(" ".join(text.split())) in said
    else:
        assert (next_run(rule, SPRING, SPRING) is None) == (rule == NEVER)


# --- when it runs next --------------------------------------------------------------------------------


@given(rules, moments, moments, st.sampled_from(ZONES))
@example(Rule.parse("0-59/10 0-23 * * *"), AUTUMN + 600, AUTUMN + 600, BERLIN)  # CronSim: an hour ago
def test_the_next_run_is_never_past_and_always_later_than_the_last(
    rule: Rule, since: float, now: float, tz: str
) -> None:
    with zone(tz):
        assert at(rule, since, now) >= now
        assert at(rule, now, now) > now


@given(rules, moments, st.floats(0, 400 * DAY), st.sampled_from(ZONES))
def test_what_was_missed_is_caught_up_once(rule: Rule, since: float, away: float, tz: str) -> None:
    with zone(tz):
        now = at(rule, since, since) + away
        assert at(rule, since, now) == now
        assert at(rule, now, now) > now


@given(intervals, moments, moments)
def test_an_interval_is_never_waited_for_longer_than_it_is(rule: Rule, since: float, now: float) -> None:
    assert now <= at(rule, since, now) <= now + rule.interval_s
    if since <= now <= since + rule.interval_s:
        assert at(rule, since, now) == since + rule.interval_s


@given(rules, moments, moments, moments, moments, st.sampled_from(ZONES))
def test_a_later_last_run_or_a_later_look_is_never_an_earlier_run(
    rule: Rule, a: float, b: float, c: float, d: float, tz: str
) -> None:
    since, later, now, then = sorted((a, b, c, d))
    with zone(tz):
        assert at(rule, since, now) <= at(rule, later, now) <= at(rule, later, then)


@given(rules, moments, st.floats(61, 400 * DAY))
def test_a_last_run_in_the_future_counts_as_now(rule: Rule, now: float, ahead: float) -> None:
    assert at(rule, now + ahead, now) == at(rule, now, now)


@given(crons, moments, st.floats(0, 60))
def test_a_clock_that_is_put_right_makes_no_time_of_day_come_twice(
    rule: Rule, since: float, back: float
) -> None:
    ran = at(rule, since, since)
    assert at(rule, believed(rule, ran, ran - back), ran - back) == at(rule, ran, ran)


@given(rules, moments, st.floats(0, 1e6))
def test_jitter_is_a_tenth_of_the_gap_at_most(rule: Rule, since: float, jitter_s: float) -> None:
    due = at(rule, since, since)
    bound = jitter_bound_s(rule, due, jitter_s)
    assert 0 <= bound <= jitter_s
    assert bound <= (at(rule, due, due) - due) / 10


def test_never_is_never() -> None:
    assert next_run(NEVER, 0, 1e9) is None
    assert jitter_bound_s(NEVER, 0, 60) == 0


# --- local time ---------------------------------------------------------------------------------------


@given(moments.map(int), st.sampled_from(ZONES))
@example(int(AUTUMN) - 1, BERLIN)
@example(int(AUTUMN), BERLIN)
def test_local_time_is_what_the_clock_on_the_wall_shows_and_leads_back(seconds: int, tz: str) -> None:
    with zone(tz):
        local = datetime.fromtimestamp(seconds, LOCAL)
        assert local.strftime("%d %H:%M:%S") == clock(seconds)
        assert local.timestamp() == seconds
    assert (LOCAL.utcoffset(None), LOCAL.dst(local), LOCAL.tzname(local)) == (None, None, None)


@pytest.mark.parametrize(
    ("change", "cron", "wanted"),
    [
        (SPRING, "30 2 * * *", ["28 02:30:00", "29 03:00:00", "30 02:30:00"]),
        (SPRING, "0,30 2,3 * * *", ["03:00:00", "03:30:00"]),
        (SPRING, "30 * * * *", ["01:30:00", "03:30:00", "04:30:00"]),
        (AUTUMN, "30 2 * * *", ["24 02:30:00", "25 02:30:00", "26 02:30:00"]),
        (AUTUMN, "0,30 2,3 * * *", ["02:00:00", "02:30:00", "03:00:00", "03:30:00"]),
        (AUTUMN, "30 * * * *", ["02:30:00", "02:30:00", "03:30:00"]),  # an hour apart
    ],
)
def test_clocks_go_forward_and_back(change: float, cron: str, wanted: Sequence[str]) -> None:
    days = " " in wanted[0]
    first, last = (-1.2 * DAY, 1.2 * DAY) if days else (-1.001 * HOUR, 1.6 * HOUR)
    with zone(BERLIN):
        found = [clock(begun) for begun in runs(Rule.parse(cron), change + first, change + last)]
    assert [text if days else text[3:] for text in found] == list(wanted)


@given(crons, st.sampled_from([SPRING, AUTUMN]), st.floats(-3 * HOUR, 3 * HOUR), st.floats(0, 90))
def test_around_a_change_no_time_of_day_comes_twice_within_a_minute(
    rule: Rule, change: float, offset: float, late: float
) -> None:
    """Also when a run begins late, or was asked for by hand."""
    with zone(BERLIN):
        since = change + offset
        first = at(rule, since, since)
        second = at(rule, first + late, first + late)
        assume(second < change + DAY)
        assert second > first + late
        assert clock(second)[:8] != clock(first)[:8] or second - first >= HOUR


# --- the runner ---------------------------------------------------------------------------------------


class Work:
    """Something to do that tells when it is done, waits as long as it is held, and notes whether it ever overlapped."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.done = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()
        self.count = self.inside = self.most = 0
        self.raises: BaseException | None = None

    async def __call__(self) -> None:
        self.count += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.begun.set()
        try:
            await self.free.wait()
            if self.raises is not None:
                raise self.raises
        finally:
            self.inside -= 1
            self.done.set()

    async def runs(self, times: int) -> None:
        """Returns when it was done so many times more."""
        for _ in range(times):
            self.done.clear()
            async with asyncio.timeout(10):
                await self.done.wait()


class Clock:
    def __init__(self) -> None:
        self.time = AUTUMN

    def __call__(self) -> float:
        return self.time


LOOK_S = 0.005
"""A clock that a test turns is looked at soon."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "schedule.json"


@asynccontextmanager
async def running(
    path: Path,
    journal: Journal,
    *jobs: tuple[str, Rule, Work],
    now: Callable[[], float] = time.time,
    jitter_s: float = 0.0,
) -> AsyncIterator[Schedule]:
    jobs_of = Schedule(path, jitter_s, journal.bus.publish, now, LOOK_S)
    for job in jobs:
        jobs_of.add(*job)
    async with asyncio.timeout(10):
        await jobs_of.start()
    try:
        yield jobs_of
    finally:
        async with asyncio.timeout(10):
            await jobs_of.close()


def only(jobs: Schedule) -> JobView:
    (view,) = jobs.views()
    return view


async def test_a_job_runs_again_and_again_without_overlap(path: Path, journal: Journal) -> None:
    work = Work()
    async with running(path, journal, ("purge", TINY, work)) as jobs:
        await work.runs(3)
        await until(lambda: len(journal.named("schedule.done")) >= 3)
        view = only(jobs)
    assert work.most == 1
    assert view.last_ok is True
    assert view.last_error == ""
    assert view.last_at is not None
    assert abs(view.last_at - time.time()) < 60
    fields = journal.named("schedule.done")[0].fields
    assert fields.keys() == {"job", "duration_ms"}
    assert fields["job"] == "purge"


async def test_the_first_run_is_one_interval_after_the_start_and_the_wall_clock_counts(
    path: Path, journal: Journal
) -> None:
    work, now = Work(), Clock()
    async with running(path, journal, ("purge", Rule.parse("6h"), work), now=now) as jobs:
        first = JobView("purge", "6h", AUTUMN + 6 * HOUR, None, None, None, "", running=False)
        assert only(jobs) == first
        now.time += 6 * HOUR - 1
        await asyncio.sleep(0.03)
        assert only(jobs) == first
        now.time += 10 * DAY  # a laptop that slept
        await work.runs(1)
        await until(lambda: not only(jobs).running)
        assert only(jobs).last_at == now.time
        assert only(jobs).next_at == now.time + 6 * HOUR
    assert work.count == 1


@pytest.mark.parametrize("rule", [Rule.parse("6h"), Rule.parse("0 */6 * * *")])
async def test_a_clock_that_jumps_back_makes_no_job_wait_longer_than_a_period(
    path: Path, journal: Journal, rule: Rule
) -> None:
    work, now = Work(), Clock()
    async with running(path, journal, ("purge", rule, work), now=now) as jobs:
        now.time -= 300 * DAY
        await until(lambda: only(jobs).next_at == at(rule, now.time, now.time))
        now.time += 3 * HOUR
        await asyncio.sleep(0.02)  # looks in between do not put it off
        now.time += 3 * HOUR
        await work.runs(1)


async def test_never_runs_only_when_asked(path: Path, journal: Journal) -> None:
    work = Work()
    async with running(path, journal, ("reap", NEVER, work)) as jobs:
        assert only(jobs) == JobView("reap", "never", None, None, None, None, "", running=False)
        async with asyncio.timeout(10):
            view = await jobs.run_now("reap")
        assert view == only(jobs)
        assert (view.next_at, view.last_ok) == (None, True)
        with pytest.raises(KeyError):
            await jobs.run_now("rap")


async def test_a_run_by_hand_puts_an_interval_off(path: Path, journal: Journal) -> None:
    now = Clock()
    async with running(path, journal, ("reap", FAR, Work()), now=now) as jobs:
        now.time += HOUR
        assert (await jobs.run_now("reap")).next_at == AUTUMN + HOUR + DAY


async def test_whoever_asks_while_it_runs_joins_that_run(path: Path, journal: Journal) -> None:
    work = Work()
    work.free.clear()
    async with running(path, journal, ("reap", TINY, work)) as jobs, asyncio.timeout(10):
        await work.begun.wait()
        assert only(jobs).running
        asked = [asyncio.create_task(jobs.run_now("reap")) for _ in range(3)]
        impatient = asyncio.create_task(jobs.run_now("reap"))
        await asyncio.sleep(0.03)
        impatient.cancel()
        await asyncio.wait([impatient])
        assert (work.count, work.inside) == (1, 1)
        began = time.time()
        work.free.set()
        views = await asyncio.gather(*asked)
        assert all(view.last_at is not None and view.last_at < began for view in views)
    assert work.most == 1


async def test_a_job_that_fails_says_so_and_runs_again(path: Path, journal: Journal) -> None:
    work = Work()
    work.raises = StorageFailed("Cannot open \udcff.", hint="Look.")
    async with running(path, journal, ("purge", TINY, work)) as jobs:
        await until(lambda: len(journal.named("schedule.failed")) >= 2)
        assert only(jobs).last_ok is False
        work.raises = asyncio.CancelledError()  # of something the work waited for
        await until(lambda: only(jobs).last_error == "CancelledError()")
        work.raises = None
        await until(lambda: only(jobs).last_ok)
        assert only(jobs).last_error == ""
    failed = journal.named("schedule.failed")[0]
    assert failed.level == "error"
    assert failed.fields == {"job": "purge", "error": "Cannot open \\udcff. Look."}
    assert not journal.named("schedule.write_failed")


async def test_the_last_run_is_remembered(path: Path, journal: Journal) -> None:
    work, now = Work(), Clock()
    work.raises = ValueError("odd")
    async with running(path, journal, ("reap", FAR, work), ("other", FAR, Work()), now=now) as jobs:
        before = await jobs.run_now("reap")
        await jobs.run_now("other")
    now.time += DAY / 2
    async with running(path, journal, ("reap", FAR, work), now=now) as jobs:
        assert only(jobs) == before
        assert (before.last_error, before.next_at) == ("ValueError('odd')", AUTUMN + DAY)
        await jobs.run_now("reap")
    assert json.loads(path.read_bytes()).keys() == {"reap", "other"}, (
        "one that is not there at present is kept"
    )
    for event in journal.named("internal.error"):
        assert (event.fields["where"], "in __call__" in event.fields["trace"]) == ("schedule.reap", True)
        journal.events.remove(event)


async def test_what_was_missed_while_the_daemon_was_down_runs_once(path: Path, journal: Journal) -> None:
    work, now = Work(), Clock()
    rule = Rule.parse("30 3 * * *")
    async with running(path, journal, ("purge", rule, work), now=now) as jobs:
        await jobs.run_now("purge")
    now.time += 10 * DAY
    work.done.clear()
    async with running(path, journal, ("purge", rule, work), now=now) as jobs:
        async with asyncio.timeout(10):
            await work.done.wait()
        await until(lambda: not only(jobs).running)
        await asyncio.sleep(0.03)
    assert work.count == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"purge": {"at": 17',
        b"\xff",
        b"[]",
        b'{"purge": {"at": 1e300, "ms": 1}}',
        b'{"purge": {"at": 1}}',
    ],
)
async def test_a_file_that_cannot_be_understood_counts_as_none(
    path: Path, journal: Journal, data: bytes
) -> None:
    path.write_bytes(data)
    async with running(path, journal, ("purge", FAR, Work())) as jobs:
        assert only(jobs).last_at is None
        await jobs.run_now("purge")
    (event,) = journal.named("schedule.unreadable")
    assert event.level == "warning"
    assert event.fields["path"] == str(path)
    assert event.fields["error"]
    assert json.loads(path.read_bytes())["purge"]["error"] == ""


async def test_a_disk_that_refuses_stops_no_job(path: Path, journal: Journal) -> None:
    path.mkdir()
    work = Work()
    async with running(path, journal, ("purge", TINY, work)) as jobs:
        await until(lambda: len(journal.named("schedule.write_failed")) >= 2)
        assert only(jobs).last_ok is True
    assert [event.fields["error"] for event in journal.named("schedule.unreadable")] == [
        "it is a directory and no file"
    ]
    event = journal.named("schedule.write_failed")[0]
    assert event.level == "warning"
    assert str(path) in event.fields["error"]


async def test_jobs_that_end_together_are_all_remembered(path: Path, journal: Journal) -> None:
    names = [f"job{number}" for number in range(20)]
    async with running(path, journal, *((name, NEVER, Work()) for name in names)) as jobs:
        await asyncio.gather(*(jobs.run_now(name) for name in names))
    assert json.loads(path.read_bytes()).keys() == set(names)
    assert list(path.parent.iterdir()) == [path]


async def test_closed_while_it_runs(path: Path, journal: Journal) -> None:
    """The run is called off and waited for, is not remembered as one, and who waited for it is told."""
    work = Work()
    work.free.clear()
    async with running(path, journal, ("reap", FAR, work)) as jobs:
        asked = asyncio.create_task(jobs.run_now("reap"))
        await work.begun.wait()
        async with asyncio.timeout(10):
            await jobs.close()
            await jobs.close()
            assert work.inside == 0
            with pytest.raises(ShuttingDown):
                await asked
        with pytest.raises(ShuttingDown):
            await jobs.run_now("reap")
        assert only(jobs) == replace(only(jobs), last_at=None, last_ok=None, running=False)
    assert not journal.events
    assert not path.exists()


async def test_jitter_puts_a_run_off_and_is_drawn_anew(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", draw)
    jobs = [("a", FAR, Work()), ("b", Rule.parse("1m"), Work())]
    async with running(path, journal, *jobs, now=Clock(), jitter_s=300) as schedule:
        assert [view.next_at for view in schedule.views()] == [AUTUMN + DAY + 300, AUTUMN + 60 + 6]
        await schedule.run_now("a")
    assert drawn == [(0, 300), (0, 6), (0, 300)]


async def test_jobs_are_added_once_and_before_the_start(path: Path, journal: Journal) -> None:
    async with running(path, journal, ("reap", FAR, Work())) as jobs:
        with pytest.raises(ValueError, match="late"):
            jobs.add("late", FAR, Work())
    twice = Schedule(path, 0, journal.bus.publish)
    twice.add("reap", FAR, Work())
    with pytest.raises(ValueError, match="once"):
        twice.add("reap", FAR, Work())
    with pytest.raises(ShuttingDown):
        await twice.run_now("reap")
