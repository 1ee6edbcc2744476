"""The feed at the control port: who reads it, how, and that a reader that stalls costs nobody anything."""

import asyncio
import json
import re
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from bare_browser import BINARY, Page, browser, make_profile
from conftest import POSING, Daemon, Journal
from control_port import ADMIN, API, TOKEN, Port, is_problem
from feed_reader import FeedReader, reading
from service import TOKEN as SERVICE_TOKEN
from service import Service

from waguard.access import refusals
from waguard.core.model import ClientCode

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")


@pytest.fixture
def port(pose: Daemon) -> Any:
    @asynccontextmanager
    async def opening(**sections: Any) -> AsyncIterator[Port]:
        api = {**API, **sections.pop("api", {})}
        async with (
            pose(api=api, **sections) as (supervisor, url),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        ):
            yield Port(url, supervisor, http)

    return opening


async def test_a_connect_is_told_as_it_goes(port: Any) -> None:
    async with port() as asked, reading(asked.http, asked.url, TOKEN) as reader:
        await asked.supervisor.connect(DEMO)
        found = await reader.until("attempt.done")
        assert {"session.changed", "session.qr_shown"} <= {one.event for one in found}
        changed = next(one for one in found if one.event == "session.changed")
        assert changed.data["client"] == "demo"
        assert changed.data["name"] == "session.changed"
        assert changed.data["id"] == changed.id
        assert changed.data["fields"]["status"] == "starting"


async def test_each_is_told_what_is_its_own(port: Any, journal: Journal) -> None:
    async with port() as asked, AsyncExitStack() as stack:
        http = asked.http
        own, all_of_them, some = [
            await stack.enter_async_context(reading(http, asked.url, token, query))
            for token, query in ((TOKEN, ""), (ADMIN, ""), (ADMIN, "?client=demo2&kind=alert,download.done"))
        ]
        journal.bus.publish("alert.raised", alert="memory", text="Memory is low.")
        journal.bus.publish(
            "alert.raised", client=DEMO2, alert="profile", text="It is in /var/lib/waguard/x."
        )
        journal.bus.publish("login.lost", client=DEMO2, why="Damage.")
        for client in (DEMO, DEMO2):
            journal.bus.publish("download.done", client=client, file="f", bytes=7)
        assert [(one.event, one.data["client"]) for one in await own.until("download.done")] == [
            ("download.done", "demo")
        ]
        assert [one.data["client"] for one in await all_of_them.until("download.done")] == [
            None,
            "demo2",
            "demo2",
            "demo",
        ]
        told = await some.until("download.done")
        assert [one.event for one in told] == ["alert.raised", "download.done"]
        assert "/var/lib/waguard" in told[0].data["fields"]["text"]


async def test_a_client_is_told_no_paths_and_nothing_can_begin_a_line(port: Any, journal: Journal) -> None:
    async with port() as asked, reading(asked.http, asked.url, TOKEN) as reader:
        why = "in /var/lib/waguard/demo\n\nevent: feed.ended\ndata: {}\n\n\x1b[2J\u2028\u202e"
        journal.bus.publish("login.lost", client=DEMO, why=why)
        journal.bus.publish("download.done", client=DEMO, file="f", bytes=7)
        lost, done = await reader.until("download.done")
        assert (lost.event, done.event) == ("login.lost", "download.done")
        assert lost.data["fields"]["why"] == why.replace("/var/lib/waguard/", ".../")


@pytest.mark.parametrize(
    ("query", "headers", "status", "code", "says"),
    [
        ("?client=demo2", {}, 403, "forbidden", "not for 'demo2'"),
        ("?client=no%20code", {}, 400, "invalid_request", "client"),
        ("?kind=session.chnaged", {}, 400, "invalid_request", "no event 'session.chnaged'"),
        ("?after=17", {}, 400, "invalid_request", "'17' is not the id of an event"),
        ("", {"Last_Event_ID": "x"}, 400, "invalid_request", "'x' is not the id of an event"),
        ("?client=demo&client=demo2", {}, 400, "invalid_request", "client: is given more than once"),
        ("?since=1", {}, 400, "invalid_request", "since: is unknown"),
        ("?ticket=nonsense", {}, 401, "unauthorized", "ticket"),
    ],
)
async def test_what_makes_no_sense_gets_a_clear_answer(
    port: Any, query: str, headers: dict[str, str], status: int, code: str, says: str
) -> None:
    async with port() as asked:
        answer = await asked.ask("GET", "/v1/events" + query, TOKEN, **headers)
        assert says in is_problem(answer, status, code)["detail"]


async def test_a_reader_that_comes_back_goes_on_where_it_was(port: Any, journal: Journal) -> None:
    async with port(api={"heartbeat_s": 1}) as asked:

        def tell(*numbers: int) -> None:
            for number in numbers:
                journal.bus.publish("download.done", client=DEMO, file=str(number), bytes=number)

        async with reading(asked.http, asked.url, TOKEN) as reader:
            tell(1, 2)
            await reader.until("download.done", bytes=2)
            place = reader.place
            assert place is not None
        tell(3, 4)
        for query, headers in (
            (f"?after={place}", {}),
            ("", {"Last_Event_ID": place}),
            ("?after=1-1", {"Last_Event_ID": place}),
        ):
            async with reading(asked.http, asked.url, TOKEN, query, **headers) as reader:
                found = await reader.until("download.done", bytes=4)
                assert [one.data["fields"]["bytes"] for one in found] == [3, 4]
        async with reading(asked.http, asked.url, TOKEN, "?after=1-1") as reader:
            missed = await reader.next()
            assert (missed.event, missed.data) == ("feed.missed", {"events": None})
        # What it does not want moves it on, by the heartbeat.
        async with reading(asked.http, asked.url, TOKEN, "?kind=login") as reader:
            before = reader.place
            tell(5)
            beat = await reader.frame()
            assert (beat.comment, beat.event) == ("beat", "")
            assert beat.id is not None
            assert beat.id != before


async def test_a_token_that_ends_ends_its_readers(port: Any) -> None:
    async with port() as asked:
        made = await asked.ask(
            "POST", "/v1/tokens", body='{"name": "crm", "scopes": ["read"], "clients": ["demo"]}'
        )
        async with reading(asked.http, asked.url, made.json["token"]) as reader:
            await asked.ask("POST", "/v1/tokens/crm/revoke")
            ended = await reader.next()
            assert (ended.event, ended.data) == ("feed.ended", {"why": "This token was revoked."})
            with pytest.raises(EOFError):
                await reader.next()


async def test_the_daemons_end_is_told_and_waits_for_no_reader(pose: Daemon) -> None:
    async with aiohttp.ClientSession() as http:
        async with pose(api=API) as (_, url), AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(reading(http, url, ADMIN)) for _ in range(3)]
            still = stack.pop_all()
        async with still:
            for reader in readers:
                assert (await reader.until("feed.ended"))[-1].data == {"why": "The daemon ends."}


async def test_there_is_an_end_to_readers_and_none_takes_all_places(port: Any) -> None:
    async with port(api={"event_readers": 4}) as asked, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(reading(asked.http, asked.url, TOKEN))
        full = await asked.ask("GET", "/v1/events", TOKEN)
        assert "as many readers" in is_problem(full, 429, "too_many_requests")["detail"]
        assert full.headers["Retry-After"] == "10"
        one = await stack.enter_async_context(reading(asked.http, asked.url, ADMIN))
        one.response.close()
        for _ in range(2):
            await until_read(asked, stack)


async def until_read(asked: Port, stack: AsyncExitStack) -> None:
    """A place that was left is free in a moment."""
    async with asyncio.timeout(10):
        while True:
            async with asked.http.get(
                f"{asked.url}/v1/events", headers={"Authorization": f"Bearer {ADMIN}"}
            ) as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.01)
    await stack.enter_async_context(reading(asked.http, asked.url, ADMIN))


async def test_a_ticket_is_good_for_one_reader(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "WAITS_S", 0.0)
    async with port() as asked:
        made = (await asked.ask("POST", "/v1/events/tickets", TOKEN)).json
        assert made["url"] == f"{asked.url}/v1/events?ticket={made['ticket']}"
        async with reading(asked.http, asked.url, None, f"?ticket={made['ticket']}") as reader:
            await asked.supervisor.connect(DEMO)
            await reader.until("session.qr_shown")
            again = await asked.ask("GET", f"/v1/events?ticket={made['ticket']}", None)
            is_problem(again, 401, "unauthorized")
        attach = await asked.ask("POST", "/v1/events/tickets", TOKEN)
        wrong = await asked.ask(
            "GET", f"/v1/sessions/demo/cdp/json/version?ticket={attach.json['ticket']}", None
        )
        is_problem(wrong, 401, "unauthorized")


async def test_readers_that_stall_cost_nobody_anything(port: Any, journal: Journal) -> None:
    """10,000 events, 50 readers, five of which read nothing until all is over: nobody misses one, and what waits for them is on disk."""
    events = 10_000
    everything = [*range(1, events + 1)]

    async def read(reader: FeedReader) -> list[int]:
        found: list[int] = []
        rest = b""
        while len(found) < events:
            *whole, rest = (rest + await reader.response.content.readany()).split(b"\n\n")
            found += [int(number) for one in whole for number in re.findall(rb'"bytes":(\d+)', one)]
        return found

    async with port() as asked, AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=1024)
        )
        readers = [
            await stack.enter_async_context(reading(http, asked.url, ADMIN, "?kind=download"))
            for _ in range(50)
        ]
        before = psutil.Process().memory_info().rss
        quick = [asyncio.ensure_future(read(one)) for one in readers[:45]]
        for number in everything:
            journal.bus.publish("download.done", client=DEMO, file=str(number), bytes=number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        journal.events.clear()
        async with asyncio.timeout(120):
            for one in quick:
                assert await one == everything
            assert psutil.Process().memory_info().rss - before < 128 * 1024 * 1024
            for stalled in readers[45:]:
                assert await read(stalled) == everything


async def test_kill_9_loses_nothing_that_was_told(tmp_path: Path) -> None:
    """What a reader had with an id is in the next daemon's history, and what comes after it is all there is."""
    settings = {"browser": {"path": str(POSING), "extra_flags": ["--posing=ok"]}}
    async with Service(tmp_path, settings) as service, aiohttp.ClientSession() as http:
        service.begin()
        await service.ready()
        headers = {"Authorization": f"Bearer {SERVICE_TOKEN}"}
        async with reading(http, service.url, SERVICE_TOKEN) as reader:
            async with http.post(f"{service.url}/v1/sessions/demo/connect", headers=headers) as answer:
                assert answer.status == 200
            seen = [one.data for one in await reader.until("attempt.done")]
            place = reader.place
            assert place is not None
            await service.end(signal.SIGKILL)
        service.begin()
        await service.ready()
        async with reading(http, service.url, SERVICE_TOKEN, Last_Event_ID=place) as reader:
            after = [one.data for one in await reader.until("daemon.ready")]
        async with reading(http, service.url, SERVICE_TOKEN, f"?after={place.split('-')[0]}-0") as reader:
            whole = [one.data for one in await reader.until("daemon.ready")]
            whole += [one.data for one in await reader.until("daemon.ready")]
        ids = [one["id"] for one in whole]
        assert ids == [f"{place.split('-')[0]}-{number}" for number in range(1, len(ids) + 1)]
        first = ids.index(seen[0]["id"])
        assert whole[first : first + len(seen)] == seen
        assert whole[first + len(seen) :][: len(after)] == after


# --- pages --------------------------------------------------------------------------------------------------

SHOP = "https://crm.example"


async def test_only_pages_of_allowed_origins_read_it(port: Any) -> None:
    async with port(api={"allowed_origins": [SHOP]}) as asked:
        evil = await asked.ask(
            "GET", "/v1/events", TOKEN, Origin="https://evil.example", Sec_Fetch_Site="cross-site"
        )
        is_problem(evil, 403, "cross_site")
        assert "Access-Control-Allow-Origin" not in evil.headers
        async with asked.http.get(
            f"{asked.url}/v1/events",
            headers={"Authorization": f"Bearer {TOKEN}", "Origin": SHOP, "Sec-Fetch-Site": "cross-site"},
        ) as answer:
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == SHOP
            assert answer.headers["Vary"] == "Origin"
        # Its page may ask for nothing else.
        ticket = await asked.ask(
            "POST", "/v1/events/tickets", TOKEN, Origin=SHOP, Sec_Fetch_Site="cross-site"
        )
        is_problem(ticket, 403, "cross_site")


@pytest.fixture
def profile() -> Iterator[Path]:
    made = make_profile()
    yield made
    shutil.rmtree(made)


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
async def test_a_page_follows_by_a_ticket(port: Any, profile: Path, journal: Journal) -> None:
    """A genuine `EventSource`, of a page of another origin, which a redirect has nothing to do with."""
    home = web.Application()

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<title>CRM</title>", content_type="text/html")

    home.router.add_get("/", page)
    async with (
        TestServer(home) as server,
        port(api={"allowed_origins": [str(server.make_url("")).rstrip("/")]}) as asked,
    ):
        ticket = (await asked.ask("POST", "/v1/events/tickets", TOKEN)).json
        async with browser(profile) as running:
            tab = await running.page(hints=False)
            await tab.go(str(server.make_url("/")))
            await until_loaded(tab)
            await tab.evaluate(
                f"""
                window.told = [];
                window.source = new EventSource({json.dumps(ticket["url"])});
                for (const name of ["feed.ready", "session.qr_shown", "download.done"])
                    source.addEventListener(name, e => told.push([name, e.lastEventId, JSON.parse(e.data)]));
                source.onerror = () => told.push(["error", source.readyState, null]);
                """
            )
            await until_told(tab, "feed.ready")
            await asked.supervisor.connect(DEMO)
            journal.bus.publish("download.done", client=DEMO, file="f", bytes=7)
            told = await until_told(tab, "download.done")
            assert [one[0] for one in told] == ["feed.ready", "session.qr_shown", "download.done"]
            assert told[-1][2]["fields"] == {"file": "f", "bytes": 7}
            assert told[-1][1] == told[-1][2]["id"]


async def until_loaded(tab: Page) -> None:
    async with asyncio.timeout(20):
        while await tab.evaluate("document.title") != "CRM":
            await asyncio.sleep(0.05)


async def until_told(tab: Page, name: str) -> list[Any]:
    async with asyncio.timeout(20):
        while True:
            told: list[Any] = await tab.evaluate("window.told")
            if name in [one[0] for one in told]:
                return told
            await asyncio.sleep(0.05)
