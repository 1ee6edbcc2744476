"""Threads in bulkheads: whoever hangs stops itself, and is reported."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from conftest import Journal
from hypothesis import given, settings
from hypothesis import strategies as st

from waguard.core.model import Alert, Stage
from waguard.errors import DeadlineExceeded, StorageHangs
from waguard.observe.alerts import Alerts
from waguard.observe.hangs import Hangs
from waguard.system.deadline import within
from waguard.system.threads import Hang, Kind, Threads, Timing, in_thread, working_for

QUICK = Timing(grace=0.1, told=0.2, last=0.3)
PATIENCE_S = 20.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Whatever waits for it hangs until the test opens it."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads(QUICK)
    yield threads
    threads.end()


def begin(
    threads: Threads, client: str, work: Callable[[], object], kind: Kind = Kind.FILES
) -> "asyncio.Task[object]":
    with working_for(client):
        return asyncio.create_task(threads.run(work, kind, None))


async def quickly(threads: Threads, client: str, kind: Kind = Kind.FILES) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await begin(threads, client, lambda: "done", kind) == "done"


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not done():
            await asyncio.sleep(0.01)


async def test_clients_that_hang_take_only_their_own_share(threads: Threads, gate: threading.Event) -> None:
    """More of them than there are threads."""
    hanging = [
        begin(threads, f"hung{n}", gate.wait, kind)
        for n in range(8)
        for kind in (Kind.FILES, Kind.PROFILES)
        for _ in range(4)
    ]
    await quickly(threads, "demo")
    await quickly(threads, "demo", Kind.PROFILES)
    await quickly(threads, "")
    gate.set()
    assert all(await asyncio.gather(*hanging))
    await quickly(threads, "demo")


async def test_what_is_quick_waits_for_nothing_that_is_long(threads: Threads, gate: threading.Event) -> None:
    long = [begin(threads, f"c{n}", gate.wait, Kind.COPIES) for n in range(20)]
    began = time.monotonic()
    for kind in set(Kind) - {Kind.COPIES}:
        await quickly(threads, "demo", kind)
    assert time.monotonic() - began < Kind.COPIES.lent_s / 2
    gate.set()
    await asyncio.gather(*long)


async def test_a_call_that_is_left_behind_stops_its_client_until_it_ends(
    threads: Threads, gate: threading.Event
) -> None:
    told: list[Hang] = []
    threads.heard = told.append
    went_on = threading.Event()

    def hang() -> None:
        gate.wait()
        went_on.set()

    async def prepare() -> None:
        async with within(Stage.PREPARE, 0.05, "preparing the profile"):
            await threads.run(hang, Kind.PROFILES, None)

    with working_for("demo"), pytest.raises(DeadlineExceeded):
        await prepare()
    assert threads.hanging == {"demo"}
    for kind in (Kind.FILES, Kind.PROFILES, Kind.COPIES):
        with pytest.raises(
            StorageHangs, match="Stage prepare: preparing the profile has not ended"
        ) as caught:
            await begin(threads, "demo", lambda: None, kind)
        assert caught.value.details["stage"] == "prepare"
        await quickly(threads, "other", kind)
        await quickly(threads, "", kind)
    await quickly(threads, "demo", Kind.MACHINE)  # no disk
    assert [(one.client, one.stage, one.over) for one in told] == [("demo", "prepare", False)]
    gate.set()
    await until(lambda: not threads.hanging)
    assert went_on.is_set()
    await quickly(threads, "demo")
    assert [one.over for one in told] == [False, True]


async def test_what_waits_for_a_thread_and_is_called_off_never_begins(
    threads: Threads, gate: threading.Event
) -> None:
    hanging = [begin(threads, "demo", gate.wait) for _ in range(Kind.FILES.each)]
    began = threading.Event()
    waiting = begin(threads, "demo", began.set)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await asyncio.gather(*hanging)
    await quickly(threads, "demo")
    assert not began.is_set()


async def test_at_the_end_of_the_daemon_nothing_is_waited_for_without_a_limit(
    threads: Threads, gate: threading.Event
) -> None:
    threads.ending = True
    with pytest.raises(StorageHangs):
        await begin(threads, "demo", gate.wait)
    began = time.monotonic()
    with pytest.raises(StorageHangs):  # at once
        await begin(threads, "demo", gate.wait)
    assert time.monotonic() - began < QUICK.last
    await quickly(threads, "other")


async def test_what_is_long_has_its_callers_deadline_at_the_end_too(
    threads: Threads, gate: threading.Event
) -> None:
    """Sealing a profile may have to wait for others': given up unbegun, what it would save is lost."""
    threads.ending = True
    ahead = [begin(threads, f"client{number}", gate.wait, Kind.COPIES) for number in range(Kind.COPIES.most)]
    seal = begin(threads, "demo", lambda: "sealed", Kind.COPIES)
    done, _ = await asyncio.wait([seal], timeout=3 * QUICK.last)
    assert not done
    gate.set()
    async with asyncio.timeout(PATIENCE_S):
        assert await seal == "sealed"
    await asyncio.gather(*ahead)


async def test_a_client_by_the_name_of_a_kind_stops_nobody_else(
    threads: Threads, gate: threading.Event
) -> None:
    left = begin(threads, Kind.FILES.name, gate.wait)
    await quickly(threads, "other")
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    await quickly(threads, "")


async def test_a_disk_that_hangs_is_logged_and_an_alert_until_it_answers(
    threads: Threads, gate: threading.Event, journal: Journal
) -> None:
    alerts = Alerts(journal.bus.publish)
    threads.heard = Hangs(journal.bus.publish, alerts).heard
    hanging = [begin(threads, "demo", gate.wait) for _ in range(2)]
    await until(lambda: len(journal.named("storage.hangs")) == 2)
    (alert,) = alerts.raised()
    assert (alert.alert, alert.client) == (Alert.STORAGE_HANGS, "demo")
    gate.set()
    await asyncio.gather(*hanging)
    (answers,) = journal.named("storage.answers")
    assert answers.client == "demo"
    assert answers.fields["waited_s"] >= QUICK.told
    assert not alerts.raised()


async def test_a_call_of_its_own_is_of_nobody(gate: threading.Event) -> None:
    gate.set()
    assert await in_thread(gate.wait)
    assert await in_thread(gate.wait, kind=Kind.COPIES)


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b", "c"]), st.sampled_from([Kind.FILES, Kind.PROFILES])),
        max_size=40,
    )
)
@settings(max_examples=30)
def test_no_client_has_more_than_its_share_and_everything_is_done(calls: list[tuple[str, Kind]]) -> None:
    at_work: Counter[tuple[str, Kind]] = Counter()
    most: Counter[tuple[str, Kind]] = Counter()
    counting = threading.Lock()

    def work(one: tuple[str, Kind]) -> int:
        with counting:
            at_work[one] += 1
            most[one] = max(most[one], at_work[one])
        time.sleep(0.0005)  # so that others come in between
        with counting:
            at_work[one] -= 1
        return 1

    async def run() -> int:
        threads = Threads()
        tasks = [begin(threads, one[0], lambda one=one: work(one), one[1]) for one in calls]  # type: ignore[misc]
        done = await asyncio.gather(*tasks)
        threads.end()
        return len(done)

    assert asyncio.run(run()) == len(calls)
    assert all(most[client, kind] <= kind.each for client, kind in most if client)
    assert all(count <= kind.most for (_, kind), count in most.items())
