"""Who wanted it stands in the events that come of it, and no token does."""

import asyncio
import os
import signal
from collections.abc import Callable

import aiohttp
import pytest
from conftest import Daemon, Journal
from pydantic import SecretStr

from waguard.core.actor import Actor, ActorKind, acting, who_acts
from waguard.core.catalogue import EVENTS, OF_AN_ACTOR
from waguard.core.model import ClientCode, Process
from waguard.observe.bus import Event

DEMO = ClientCode("demo")
ADMIN, TOKEN = "admin-admin-admin-admin", "demo-demo-demo-demo"
API = {"admin_token": SecretStr(ADMIN), "client_tokens": {"demo": SecretStr(TOKEN)}}


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await asyncio.sleep(0.005)


def actors(journal: Journal, name: str) -> list[str | None]:
    return [one.fields.get("actor") for one in journal.named(name)]


def is_told(event: Event, actor: str, request: str) -> None:
    named = {name: event.fields.get(name) for name in OF_AN_ACTOR}
    assert named == {"actor": actor, "origin": "127.0.0.1", "request": request}


def test_who_acts_is_known_in_the_block_alone() -> None:
    one, other = Actor(ActorKind.SCHEDULE, "reap"), Actor(ActorKind.STARTUP)
    with acting(one):
        with acting(other):
            assert who_acts() is other
        assert who_acts() is one
    assert who_acts() is None
    assert (str(one), str(other)) == ("schedule:reap", "startup")
    assert other.fields == {"actor": "startup"}


async def test_what_a_request_causes_says_whose_it_was(pose: Daemon, journal: Journal) -> None:
    async with pose("connected", api=API) as (_, url), aiohttp.ClientSession() as http:

        async def asked(verb: str, token: str) -> str:
            headers = {"Authorization": f"Bearer {token}"}
            async with http.post(f"{url}/v1/sessions/demo/{verb}", headers=headers) as answer:
                assert answer.status == 200
                return answer.headers["X-Request-Id"]

        first = await asked("connect", TOKEN)
        (done,) = journal.named("attempt.done")
        is_told(done, "token:demo", first)
        for event in journal.named("session.changed"):
            is_told(event, "token:demo", first)
        (answered,) = journal.named("request.done")
        is_told(answered, "token:demo", first)

        journal.events.clear()
        second = await asked("cleanup", ADMIN)
        assert journal.named("cleanup.step")
        for event in (*journal.named("cleanup.step"), *journal.named("session.changed")):
            is_told(event, "token:admin", second)
    assert ADMIN not in str(journal.events)
    assert TOKEN not in str(journal.events)


async def test_a_snapshot_says_who_asked_for_it(pose: Daemon, journal: Journal) -> None:
    async with pose("connected", snapshots={"settle_s": 0.05}) as (supervisor, _):
        await supervisor.connect(DEMO)
        await until(lambda: journal.named("snapshot.taken"))
        with acting(Actor(ActorKind.TOKEN, "demo")):
            await supervisor.snapshot(DEMO)
        await supervisor.schedule.run_now("snapshot")
    told = {one.fields["reason"]: one.fields.get("actor") for one in journal.named("snapshot.taken")}
    assert told == {"settled": None, "request": "token:demo", "schedule": "schedule:snapshot"}


async def test_what_comes_by_itself_afterwards_is_nobodys_wish(pose: Daemon, journal: Journal) -> None:
    """Not even that of whoever has asked last."""
    async with pose("connected", restart={"base_s": 0.01, "max_s": 0.01}) as (supervisor, _):
        with acting(Actor(ActorKind.TOKEN, "admin")):
            await supervisor.connect(DEMO)
        assert {*actors(journal, "session.changed")} == {"token:admin"}
        journal.events.clear()
        os.kill(supervisor._sessions[DEMO].browser_pids[0], signal.SIGKILL)
        await until(lambda: journal.named("attempt.done"))
        assert {*actors(journal, "session.changed")} == {"remedy:recovery"}
        assert actors(journal, "attempt.done") == ["remedy:recovery"]
        await supervisor.sweeper.sweep()
    assert None in actors(journal, "sweep.done")


async def test_whoever_joins_causes_nothing(pose: Daemon, journal: Journal) -> None:
    async with pose("never-ready", deadlines={"start": 0.3, "close": 0.2}, restart={"base_s": 30.0}) as (
        supervisor,
        _,
    ):

        async def connect(name: str) -> None:
            with acting(Actor(ActorKind.TOKEN, name)), pytest.raises(Exception, match="start"):
                await supervisor.connect(DEMO)

        first = asyncio.ensure_future(connect("admin"))
        await until(lambda: DEMO in supervisor._sessions)
        await supervisor._sessions[DEMO].until(
            lambda: supervisor._sessions[DEMO].state.process is Process.STARTING
        )
        await asyncio.gather(first, connect("demo"))
        assert actors(journal, "attempt.done") == ["token:admin"]


async def test_the_schedule_and_the_start_say_so(pose: Daemon, journal: Journal) -> None:
    async with pose("connected") as (supervisor, _):
        await supervisor.connect(DEMO)
        journal.events.clear()
        await supervisor.schedule.run_now("reap")
        assert actors(journal, "sweep.done") == ["schedule:reap"]
        supervisor.leave()  # it was wanted; no pipes are kept here, so it ends all the same
    journal.events.clear()
    async with pose("connected") as (supervisor, _):
        await until(lambda: journal.named("attempt.done"))
        assert actors(journal, "attempt.done") == ["startup"]


def test_what_a_wish_may_cause_is_declared() -> None:
    declared = {name for name, kind in EVENTS.items() if kind.asked}
    assert {"session.changed", "attempt.done", "request.done", "snapshot.taken", "cleanup.step"} <= declared
    for name in declared:
        assert not {*EVENTS[name].fields} & {*OF_AN_ACTOR}
