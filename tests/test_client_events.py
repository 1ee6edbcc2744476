"""The client library's feed of events: whatever comes between, nothing is missed, and nothing told twice."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bad_road import Road, bad_road
from conftest import POSING, Daemon, Journal
from control_port import ADMIN, API
from service import TOKEN as SERVICE_TOKEN
from service import Service
from waiting import until

from waguard.client import Client
from waguard.client import events as feeds
from waguard.core.model import ClientCode
from waguard.core.shown import EventView
from waguard.errors import InvalidRequest, NoAnswer, NoDaemon, TokenRevoked

DEMO = ClientCode("demo")


@pytest.fixture
def following(pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The admin's client of a daemon, by a bad road."""
    monkeypatch.setattr(feeds, "_MOST_S", 0.2)

    @asynccontextmanager
    async def opening(silent_s: float = 60.0, **api: Any) -> AsyncIterator[tuple[Client, Road]]:
        async with (
            pose("ok", api={**API, **api}) as (_, url),
            bad_road(url) as road,
            Client(road.url, ADMIN, silent_s=silent_s) as waguard,
        ):
            yield waguard, road

    return opening


def tell(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        journal.bus.publish("download.done", client=DEMO, file=str(number), bytes=number)


def number(event: EventView) -> int:
    return int(event.fields.get("bytes", 0))


async def test_cuts_lose_nothing_and_repeat_nothing(following: Any, journal: Journal) -> None:
    """At any moment, in the middle of a frame too."""
    chance, most = random.Random(17), 3000
    async with following() as (waguard, road):

        async def publish() -> None:
            for one in range(1, most + 1):
                tell(journal, one)
                if chance.random() < 0.01:
                    road.cut()
                if one % 10 == 0:
                    await asyncio.sleep(chance.random() * 0.005)

        async with aclosing(waguard.events(kinds=["download"])) as events:
            assert (await anext(events)).name == "feed.ready"
            publishing = asyncio.create_task(publish())
            async with asyncio.timeout(60):
                assert [number(await anext(events)) for _ in range(most)] == [*range(1, most + 1)]
            await publishing
        assert road.taken > 3


async def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """What an app is told over the end of a daemon and the start of the next one is what the history has."""
    settings = {"browser": {"path": str(POSING), "extra_flags": ["--posing=ok"]}}
    async with Service(tmp_path, settings) as service, Client(service.url, SERVICE_TOKEN) as waguard:
        service.begin()
        await service.ready()
        told: list[EventView] = []

        async def hear() -> None:
            async for event in waguard.events():
                told.append(event)  # noqa: PERF401 (each as it comes)

        def heard(name: str, count: int) -> bool:
            return [one.name for one in told].count(name) >= count

        hearing = asyncio.create_task(hear())
        await until(lambda: told)
        for round_, code in enumerate(("demo", "other", "third"), 1):
            await waguard.session(code).connect()
            await until(partial(heard, "attempt.done", round_))
            await service.end(signal.SIGKILL)
            service.begin()
            await service.ready()
            await until(partial(heard, "daemon.ready", round_))
        hearing.cancel()
        await asyncio.wait([hearing])
        ready, *rest = told
        assert "feed.missed" not in {one.name for one in rest}
        assert [one.name for one in told].count("feed.ready") == 1
        again: list[EventView] = []
        async with aclosing(waguard.events(after=ready.id or "")) as events:
            while len(again) < len(rest):
                event = await anext(events)
                again += [event] if event.name != "feed.ready" else []
        assert again == rest
        ids = [one.id for one in rest]
        assert None not in ids
        assert len({*ids}) == len(ids)


async def test_a_silent_connection_is_dead(following: Any, journal: Journal) -> None:
    async with (
        following(silent_s=1.5, heartbeat_s=1) as (waguard, road),
        aclosing(waguard.events(kinds=["download"])) as events,
    ):
        assert (await anext(events)).name == "feed.ready"
        tell(journal, 1)
        assert number(await anext(events)) == 1
        road.is_deaf, taken = True, road.taken
        tell(journal, 2)
        coming = asyncio.ensure_future(anext(events))
        await until(lambda: road.taken > taken)
        road.is_deaf = False
        road.cut()
        assert number(await coming) == 2
        taken = road.taken
        later = asyncio.ensure_future(anext(events))
        await asyncio.wait([later], timeout=3.5)
        assert road.taken == taken, "heartbeats are signs of life"
        tell(journal, 3)
        assert number(await later) == 3


async def test_what_cannot_be_told_any_more_is_said(following: Any) -> None:
    async with following() as (waguard, _):
        async with aclosing(waguard.events(after="1-1")) as events:
            assert [(await anext(events)).name for _ in range(2)] == ["feed.ready", "feed.missed"]
        with pytest.raises(InvalidRequest, match="is not the id of an event"):
            await anext(waguard.events(after="x"))
        with pytest.raises(InvalidRequest, match="There is no event"):
            await anext(waguard.events(kinds=["session.chnaged"]))


async def test_without_an_id_a_gap_is_told(following: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has taken nothing yet, so there is no id to come back with."""
    from waguard.history.feed import Feed  # noqa: PLC0415

    monkeypatch.setattr(Feed, "place", lambda *_: None)
    async with following() as (waguard, road), aclosing(waguard.events()) as events:
        assert (await anext(events)).name == "feed.ready"
        road.cut()
        missed = await anext(events)
        assert (missed.name, missed.fields) == ("feed.missed", {"events": None})


async def test_the_end_of_its_token_ends_the_feed(following: Any) -> None:
    async with following() as (waguard, road):
        made = await waguard.create_token("bot", ["read"], ["demo"])
        async with Client(road.url, made.token) as other, aclosing(other.events()) as events:
            await anext(events)
            await waguard.revoke_token("bot")
            with pytest.raises(TokenRevoked):
                await anext(events)


async def test_a_daemon_that_is_not_there_or_is_gone_for_long_is_given_up(following: Any) -> None:
    async with following() as (waguard, road):
        events = waguard.events(gone_s=0.5)
        await anext(events)
        road.lose_answers = 10_000
        road.cut()
        with pytest.raises(NoAnswer, match="broke off"):
            await anext(events)
        url = road.url
    async with Client(url, ADMIN) as waguard:
        with pytest.raises(NoDaemon):
            await anext(waguard.events())


async def test_whoever_stops_reading_leaves_no_connection(following: Any) -> None:
    """Of the two that may read at a time one token is half."""
    async with following(event_readers=2) as (waguard, road):
        for _ in range(5):
            async for event in waguard.events():
                assert event.name == "feed.ready"
                break
            await until(lambda: not road.open)
