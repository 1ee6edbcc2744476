"""Many that want to start at once: each has its turn, in the order of their coming, and knows how many are before it."""

import asyncio
import contextlib
import random
from typing import Any

import pytest
from conftest import Daemon, Journal

from waguard.admission.turns import Turns
from waguard.core.labels import Priority
from waguard.core.model import ClientCode, Status, Wait
from waguard.errors import DeadlineExceeded

ROOM = {"reserve_memory_mb": 0, "session_memory_mb": 0, "reserve_disk_mb": 0, "memory_pressure": 0}
CODES = [ClientCode(f"c{number}") for number in range(100)]


async def test_a_hundred_connects_at_once_are_all_answered_however_long_the_queue(
    pose: Daemon, journal: Journal
) -> None:
    """A hundred, four at a time, of half a second at least, take far longer than the queue may stand still."""
    limits = {"concurrent_starts": 4, **ROOM}
    seldom = {"poll_s": 5.0}  # those that are up need no more
    async with pose("slow", limits=limits, deadlines={"admit": 5.0}, page=seldom) as (supervisor, _):
        began = asyncio.get_running_loop().time()
        asked = [asyncio.create_task(supervisor.connect(code)) for code in CODES]
        views = await asyncio.gather(*asked)
        assert asyncio.get_running_loop().time() - began > 5.0
        assert {view.status for view in views} == {Status.AWAITING_SCAN}
        assert not journal.named("stage.late")
        spawned = [event.client for event in journal.named("browser.spawned")]
        assert len(spawned) == 100
        queued = {event.client: event.fields["before"] for event in journal.named("session.queued")}
        assert sorted(queued.values()) == list(range(96))
        place = {code: number for number, code in enumerate(spawned)}
        assert all(abs(place[code] - before) <= 8 for code, before in queued.items() if code), (
            "in their order"
        )


async def test_who_waits_is_shown_how_many_are_before_it_and_told_when_its_own_time_is_over(
    pose: Daemon,
) -> None:
    a, b, c = CODES[:3]
    async with pose("never-ready", limits={"concurrent_starts": 1, **ROOM}, deadlines={"close": 0.2}) as (
        supervisor,
        _,
    ):
        first = asyncio.create_task(supervisor.connect(a, timeout_s=20))
        async with asyncio.timeout(10):
            while not supervisor.views() or supervisor.view(a).process.value != "starting":
                await asyncio.sleep(0.01)
        await supervisor.connect(b, wait=Wait.NONE)
        with pytest.raises(
            DeadlineExceeded, match=r"c2 waits for its turn to start after 0\.5 s: 1 wait before it"
        ) as caught:
            await supervisor.connect(c, timeout_s=0.5)
        assert (caught.value.details["stage"], caught.value.details["before"]) == ("admit", 1)
        assert [supervisor.view(code).before for code in (a, b, c)] == [None, 0, 1]
        await supervisor.disconnect(b)
        assert [supervisor.view(code).before for code in (b, c)] == [None, 0], "who leaves makes room"
        await supervisor.disconnect(a)
        async with asyncio.timeout(10):
            while supervisor.view(c).process.value != "starting":
                await asyncio.sleep(0.01)
        assert supervisor.view(c).before is None
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_queue_that_does_not_move_is_a_missed_deadline(pose: Daemon) -> None:
    limits, deadlines = {"concurrent_starts": 1, **ROOM}, {"admit": 0.3, "close": 0.2}
    async with pose("never-ready", limits=limits, deadlines=deadlines) as (supervisor, _):
        await supervisor.connect(CODES[0], wait=Wait.NONE)
        with pytest.raises(DeadlineExceeded, match=r"for 0\.3 s no start has finished") as caught:
            await supervisor.connect(CODES[1])
        assert caught.value.details["stage"] == "admit"


async def test_turns_are_taken_in_order_and_a_place_is_never_lost() -> None:
    """Whoever is called off, also just as it is its turn, leaves the others what they had."""
    chance = random.Random(7)
    for _ in range(200):
        turns, places = Turns(2), 2
        inside: list[ClientCode] = []
        entered: list[ClientCode] = []

        async def come(
            code: ClientCode, turns: Turns = turns, inside: Any = inside, entered: Any = entered
        ) -> None:
            if not turns.take(code):
                await turns.wait(code, 5.0)
            inside.append(code)
            entered.append(code)
            assert len(inside) <= 2
            try:
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
            finally:
                inside.remove(code)
                turns.give_back(code)

        tasks = [asyncio.create_task(come(code)) for code in CODES[:8]]
        for _ in range(6):
            await asyncio.sleep(0)
            if chance.random() < 0.7:
                chance.choice(tasks).cancel()
        async with asyncio.timeout(5):
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        assert entered == sorted(entered)
        for code in CODES[:places]:
            assert turns.take(code)
        assert turns.before(CODES[0]) is None


async def test_how_long_a_turn_takes_is_known_from_the_last_ones() -> None:
    turns = Turns(1)
    assert turns.take(CODES[0])
    assert not any(turns.take(code) for code in CODES[1:3])
    waiting = [asyncio.create_task(turns.wait(code, 1.0)) for code in CODES[1:3]]
    await asyncio.sleep(0)
    assert [turns.before(code) for code in CODES[:3]] == [None, 0, 1]
    assert turns.expected_s(CODES[1]) is None
    turns.give_back(CODES[0])
    assert turns.before(CODES[2]) == 0
    assert turns.expected_s(CODES[2]) is not None
    turns.give_back(CODES[1])
    turns.give_back(CODES[2])
    await asyncio.gather(*waiting)


async def test_who_has_a_higher_priority_goes_first_and_others_in_the_order_of_their_coming() -> None:
    turns, entered = Turns(1), list[ClientCode]()
    assert turns.take(CODES[0])

    async def come(code: ClientCode, priority: Priority) -> None:
        assert not turns.take(code, priority.rank)
        await turns.wait(code, 5.0)
        entered.append(code)
        turns.give_back(code)

    wanted = (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.NORMAL, Priority.HIGH)
    tasks = [asyncio.create_task(come(code, one)) for code, one in zip(CODES[1:], wanted, strict=False)]
    await asyncio.sleep(0)
    assert turns.before(CODES[3]) == 0
    turns.give_back(CODES[0])
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    assert entered == [CODES[number] for number in (3, 5, 2, 4, 1)]
