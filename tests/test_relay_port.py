"""The relay at the control port: who is let in and by what, what is told of it, and how an attachment ends."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from clients import DEMO
from conftest import Daemon, Journal
from control_port import ADMIN, API, TOKEN, TOKEN2

from waguard.access.tickets import LASTS_S, Tickets
from waguard.core.access import Caller, of_client
from waguard.core.health.plans import Remedy
from waguard.core.model import ClientCode
from waguard.relay.client import CLOSINGS, Closing
from waguard.supervisor.supervisor import Supervisor

UPGRADE = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip
PATH = "/v1/sessions/demo/cdp"
MIB = 1024 * 1024


@dataclass
class Relay:
    supervisor: Supervisor
    url: str
    http: aiohttp.ClientSession

    async def refused(self, query: str = "", path: str = PATH, **headers: str) -> tuple[int, str]:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await self.http.ws_connect(self.url + path + query, headers=headers)
        async with self.http.get(self.url + path + query, headers={**UPGRADE, **headers}) as answer:
            assert answer.status == error.value.status
            return answer.status, (await answer.json())["code"]

    async def attached(self, query: str = "", **headers: str) -> aiohttp.ClientWebSocketResponse:
        return await self.http.ws_connect(self.url + PATH + query, headers=headers)

    async def ticket(self, token: str = TOKEN) -> dict[str, Any]:
        async with self.http.post(f"{self.url}{PATH}/tickets", headers=bearer(token)) as answer:
            assert answer.status == 200
            found: dict[str, Any] = await answer.json()
            return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'x:{password}'.encode()).decode()}"}


async def ask(ws: aiohttp.ClientWebSocketResponse, method: str, **params: Any) -> dict[str, Any]:
    await ws.send_str(json.dumps({"id": 1, "method": method, "params": params}))
    async with asyncio.timeout(10):
        found: dict[str, Any] = json.loads((await ws.receive()).data)
    return found


async def end_of(ws: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """Code and reason."""
    async with asyncio.timeout(10):
        message = await ws.receive()
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return ws.close_code, str(message.extra)


@pytest.fixture
def relay(pose: Daemon) -> Any:
    @asynccontextmanager
    async def serving(**sections: dict[str, Any]) -> AsyncIterator[Relay]:
        api = {**API, **sections.pop("api", {})}
        async with (
            aiohttp.ClientSession() as http,
            pose("connected", api=api, **sections) as (supervisor, url),
        ):
            await supervisor.connect(DEMO)
            yield Relay(supervisor, url, http)

    return serving


async def test_who_is_let_in_and_by_what(relay: Any) -> None:
    async with relay() as port:
        for headers in (bearer(TOKEN), bearer(ADMIN), basic(TOKEN), basic((await port.ticket())["ticket"])):
            async with await port.attached(**headers) as ws:
                assert (await ask(ws, "Browser.getVersion"))["result"]["product"] == "posing"
        for headers in (
            {},
            bearer("wrong"),
            basic("wrong"),
            basic(""),
            {"Authorization": "Basic %"},
            {"Authorization": "Basic"},
        ):
            assert await port.refused(**headers) == (401, "unauthorized")
        assert await port.refused(**bearer(TOKEN2)) == (403, "forbidden")
        assert await port.refused(**basic(TOKEN2)) == (403, "forbidden")
        # What a driver's routes take in the place of a token is none elsewhere.
        for path in ("/v1/sessions", "/v1/sessions/demo"):
            assert await port.refused(path=path, **basic(TOKEN)) == (401, "unauthorized")


async def test_a_ticket_is_for_one_session_once(relay: Any) -> None:
    async with relay() as port:
        made = await port.ticket()
        assert made["url"] == f"{port.url.replace('http', 'ws', 1)}{PATH}?ticket={made['ticket']}"
        async with await port.http.ws_connect(made["url"]) as ws:
            assert "result" in await ask(ws, "Browser.getVersion")
        assert await port.refused(f"?ticket={made['ticket']}") == (401, "unauthorized")
        # A ticket that is given counts, whatever else comes with it.
        assert await port.refused("?ticket=x", **bearer(TOKEN)) == (401, "unauthorized")
        other = (await port.ticket())["ticket"]
        assert await port.refused(f"?ticket={other}", path="/v1/sessions/demo2/cdp") == (401, "unauthorized")
        assert await port.refused(f"?ticket={other}") == (401, "unauthorized"), "void, since it was tried"


async def test_of_many_who_race_with_a_ticket_one_is_let_in(relay: Any) -> None:
    async with relay() as port:
        for _ in range(3):
            made = await port.ticket()
            tries = [port.http.ws_connect(made["url"]) for _ in range(8)]
            came = await asyncio.gather(*tries, return_exceptions=True)
            (ws,) = [one for one in came if isinstance(one, aiohttp.ClientWebSocketResponse)]
            refused = [one.status for one in came if isinstance(one, aiohttp.WSServerHandshakeError)]
            assert refused == [401] * 7
            await ws.close()
        made = await port.ticket()
        # It is no token: a header of the kind for those has none of its rights, and does not use it up.
        assert await port.refused(**bearer(made["ticket"])) == (401, "unauthorized")
        async with await port.http.ws_connect(made["url"]) as ws:
            assert "result" in await ask(ws, "Browser.getVersion")


def redeemed(tickets: Tickets, ticket: str) -> Caller | None:
    found = tickets.redeem(ticket, ClientCode("demo"))
    return found.caller if found is not None else None


def test_tickets_of_one_client_cost_another_none() -> None:
    tickets, caller = Tickets(), of_client(ClientCode("demo"))
    ticket = tickets.issue(caller, ClientCode("demo"))
    for _ in range(1000):
        tickets.issue(of_client(ClientCode("demo2")), ClientCode("demo2"))
    assert redeemed(tickets, ticket) is caller


async def test_a_ticket_makes_none_that_lives_longer(relay: Any) -> None:
    async with relay() as port:
        made = (await port.ticket())["ticket"]
        async with port.http.post(f"{port.url}{PATH}/tickets", headers=basic(made)) as answer:
            assert (answer.status, (await answer.json())["hint"]) == (401, "Send the token.")
        made = (await port.ticket())["ticket"]
        async with port.http.get(f"{port.url}{PATH}/json/version", headers=basic(made)) as answer:
            told = await answer.json()
        async with await port.http.ws_connect(told["webSocketDebuggerUrl"]) as ws:
            assert "result" in await ask(ws, "Browser.getVersion")


def test_a_ticket_in_the_place_of_another_lives_no_longer() -> None:
    now, demo, caller = 0.0, ClientCode("demo"), of_client(ClientCode("demo"))
    tickets = Tickets(lambda: now)
    now = LASTS_S - 0.1
    ticket = tickets.issue(caller, demo, LASTS_S)
    now = LASTS_S
    assert redeemed(tickets, ticket) is None


def test_a_ticket_that_comes_late_is_none_and_there_is_no_end_of_them() -> None:
    now, demo, caller = 0.0, ClientCode("demo"), of_client(ClientCode("demo"))
    tickets = Tickets(lambda: now)
    first, second = tickets.issue(caller, demo), tickets.issue(caller, demo)
    now = LASTS_S - 0.1
    assert redeemed(tickets, first) is caller
    now = LASTS_S
    assert tickets.redeem(second, demo) is None
    oldest = tickets.issue(caller, demo)
    for _ in range(1000):
        newest = tickets.issue(caller, demo)
    assert tickets.redeem(oldest, demo) is None
    assert redeemed(tickets, newest) is caller


async def test_a_page_of_another_site_is_refused_unless_it_is_configured(relay: Any) -> None:
    async with relay(api={"allowed_origins": ["https://tools.example"]}) as port:
        for origin in (
            "https://evil.example",
            "null",
            "http://tools.example",
            "https://tools.example.evil",
            "",
        ):
            assert await port.refused(**bearer(TOKEN), Origin=origin) == (403, "cross_site")
        came = {"Origin": "https://tools.example", "Sec-Fetch-Site": "cross-site"}
        async with await port.attached(**bearer(TOKEN), **came) as ws:
            assert "result" in await ask(ws, "Browser.getVersion")
        assert await port.refused(**bearer(TOKEN), **{"Sec-Fetch-Site": "cross-site"}) == (403, "cross_site")


async def test_what_drivers_ask_for_before_they_attach(relay: Any) -> None:
    async with relay() as port:
        for end in ("", "/"):
            async with port.http.get(
                f"{port.url}{PATH}/json/version{end}?takeover=true", headers=basic(TOKEN)
            ) as answer:
                version = await answer.json()
            assert version["Browser"] == version["Protocol-Version"] == "posing"
            assert version["webSocketDebuggerUrl"].endswith("&takeover=true")
            async with await port.http.ws_connect(version["webSocketDebuggerUrl"]) as ws:
                assert "result" in await ask(ws, "Browser.getVersion")
            async with port.http.get(f"{port.url}{PATH}/json/list{end}", headers=bearer(TOKEN)) as answer:
                (page,) = await answer.json()
            assert (page["id"], page["type"]) == ("T", "page")
        async with port.http.get(f"{port.url}{PATH}", headers=bearer(TOKEN)) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, "invalid_request")
        for path in ("/json/version", "/json/list", "/tickets"):
            assert (await port.refused(path=PATH + path))[0] in {401, 405}


async def test_nothing_is_compressed(relay: Any) -> None:
    async with (
        relay() as port,
        port.http.ws_connect(port.url + PATH, headers=bearer(TOKEN), compress=15) as ws,
    ):
        assert ws.compress == 0


async def test_a_session_without_a_page_and_one_that_is_full_say_so(relay: Any) -> None:
    async with relay(relay={"clients": 2}) as port:
        one, two = [await port.attached(**bearer(TOKEN)) for _ in range(2)]
        for path in (PATH, f"{PATH}/json/version"):
            assert await port.refused(path=path, **bearer(TOKEN)) == (503, "too_many_attached")
        await two.close()
        async with asyncio.timeout(10):
            while port.supervisor._sessions[DEMO].driving.attached > 1:
                await asyncio.sleep(0.01)
        async with await port.attached(**bearer(TOKEN)) as ws:
            assert "result" in await ask(ws, "Browser.getVersion")
        await port.supervisor.disconnect(DEMO)
        assert await end_of(one) == (Closing.REMEDY, "its browser is closed")
        assert await port.refused(**bearer(TOKEN)) == (409, "no_page")
        assert await port.refused(path="/v1/sessions/nobody/cdp", **bearer(ADMIN)) == (
            404,
            "session_not_found",
        )


async def test_what_comes_of_it_is_told_with_who_it_was(relay: Any, journal: Journal) -> None:
    async with relay() as port, await port.attached(**bearer(TOKEN)) as ws:
        assert (await ask(ws, "Target.createTarget", url="about:blank"))["result"] == {"targetId": "T"}
        for _ in range(30):
            assert "is refused" in (await ask(ws, "Browser.crash"))["error"]["message"]
        assert (await ask(ws, "Browser.close"))["result"] == {}
        assert await end_of(ws) == (Closing.DONE, CLOSINGS[Closing.DONE])
        assert port.supervisor.view(DEMO).browser is not None
    names = [one.name for one in journal.events if one.name.startswith("relay.")]
    assert names == [
        "relay.attached",
        "relay.page_taken",
        *["relay.refused"] * 20,
        "relay.page_left",
        "relay.detached",
    ]
    events = [one for one in journal.events if one.name in names]
    assert {(one.client, one.fields["actor"], one.fields["origin"]) for one in events} == {
        (DEMO, "token:demo", "127.0.0.1")
    }
    assert len({one.fields["request"] for one in events}) == 1
    assert journal.named("relay.refused")[0].fields["method"] == "Browser.crash"


async def test_a_page_that_is_owned_is_refused_with_who_and_since_or_taken_over(relay: Any) -> None:
    async with (
        relay() as port,
        await port.attached(**bearer(TOKEN)) as one,
        await port.attached(**basic(ADMIN)) as two,
    ):
        assert "result" in await ask(one, "Target.createTarget", url="about:blank")
        why = (await ask(two, "Target.createTarget", url="about:blank"))["error"]["message"]
        assert "token:demo from 127.0.0.1, request " in why
        assert "has the page since 20" in why
        assert "?takeover=true takes it" in why
        async with await port.attached("?takeover=true", **bearer(ADMIN)) as three:
            assert "result" in await ask(two, "Browser.getVersion")
            assert (await ask(three, "Target.createTarget", url="about:blank"))["result"] == {"targetId": "T"}
            code, reason = await end_of(one)
            assert (code, reason.startswith("token:admin from 127.0.0.1")) == (Closing.TAKEN_OVER, True)
            assert "error" in await ask(two, "Target.createTarget", url="about:blank")
            await three.close()
        async with asyncio.timeout(10):
            while "error" in await ask(two, "Target.createTarget", url="about:blank"):
                await asyncio.sleep(0.01)


async def test_a_remedy_and_the_end_of_the_daemon_tell_clients_why(relay: Any) -> None:
    async with relay() as port:
        one, two = [await port.attached(**bearer(TOKEN)) for _ in range(2)]
        await ask(one, "Target.createTarget", url="about:blank")
        lease = port.supervisor._sessions[DEMO].lease
        await lease.pull(Remedy.RENEW, "network_hung")
        assert "result" in await ask(one, "Browser.getVersion")
        await lease.pull(Remedy.RELOAD, "reload, because of page_blocked")
        for ws in (one, two):
            assert await end_of(ws) == (Closing.REMEDY, "reload, because of page_blocked")
        left = await port.attached(**bearer(TOKEN))
        ending = asyncio.create_task(end_of(left))
    assert await ending == (Closing.DAEMON, "the daemon ends: attach again to the next one")


async def test_frames_that_are_none_cost_nothing_but_an_answer(relay: Any) -> None:
    async with relay() as port, await port.attached(**bearer(TOKEN)) as ws:
        for frame, code in (
            ("{", -32700),
            ("[]", -32600),
            ('{"id":1,"method":"Browser.getVersion"}\0{}', -32700),
        ):
            await ws.send_str(frame)
            assert json.loads((await ws.receive()).data)["error"]["code"] == code
        assert "result" in await ask(ws, "Browser.getVersion")
        await ws.send_bytes(b"{}")
        assert await end_of(ws) == (Closing.NO_TEXT, CLOSINGS[Closing.NO_TEXT])


async def test_a_browser_that_ends_ends_its_attachments(relay: Any) -> None:
    async with relay() as port, await port.attached(**bearer(TOKEN)) as ws:
        browser = port.supervisor._sessions[DEMO]._instance.browser
        await browser.kill()
        assert await end_of(ws) == (Closing.BROWSER, "The browser closed its pipe.")


async def test_who_gives_no_sign_of_life_owns_the_page_no_more(relay: Any) -> None:
    """Its machine is gone, or it is stopped: nothing is read of it any more, and nothing ends."""
    async with relay(relay={"silent_s": 0.6}) as port:
        lives = await port.attached(**bearer(TOKEN))
        reading = asyncio.create_task(lives.receive())
        silent = await port.http.ws_connect(port.url + PATH, headers=bearer(TOKEN), autoping=False)
        takes = json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}})
        await silent.send_str(takes)
        heard = []
        async with asyncio.timeout(10):
            while (message := await silent.receive()).type is not aiohttp.WSMsgType.CLOSE:
                heard.append(message.type)
        assert {*heard} == {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING}
        assert silent.close_code == Closing.SILENT
        assert str(message.extra).startswith("it has answered no ping for 0.6 s")
        assert not reading.done()
        await lives.send_str(takes)
        assert json.loads((await reading).data)["result"] == {"targetId": "T"}


async def test_whoever_attaches_in_a_loop_does_not_fill_the_history(relay: Any, journal: Journal) -> None:
    async with relay() as port:
        for _ in range(25):
            async with await port.attached(**bearer(TOKEN)) as ws:
                assert "result" in await ask(ws, "Target.createTarget", url="about:blank")
                assert (await ask(ws, "Browser.close"))["result"] == {}
        async with await port.attached(**bearer(ADMIN)):
            pass
    told = [(one.name, one.fields["actor"]) for one in journal.events if one.name.startswith("relay.")]
    for name in ("relay.attached", "relay.page_taken", "relay.page_left", "relay.detached"):
        assert told.count((name, "token:demo")) == 20
    assert told.count(("relay.attached", "token:admin")) == 1


async def by_hand(url: str, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that writes its frames itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    headers = {"Host": url.removeprefix("http://"), **UPGRADE, **bearer(token)}
    lines = [f"GET {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_command_in_several_frames_is_one_and_what_is_no_frame_ends_it(relay: Any) -> None:
    async with relay() as port:
        reader, writer = await by_hand(port.url, TOKEN)
        begun, rest = b'{"id":1,"method":"Browser', b'.getVersion"}'
        writer.write(struct.pack("!BB4x", 0x01, 0x80 | len(begun)) + begun)
        writer.write(struct.pack("!BB4x", 0x89, 0x84) + b"here")
        assert await reader.readexactly(6) == b"\x8a\x04here", "a pong, in the midst of the message"
        for byte in struct.pack("!BB4x", 0x80, 0x80 | len(rest)) + rest:
            writer.write(bytes([byte]))
            await writer.drain()
        kind, _, size = struct.unpack("!BBH", await reader.readexactly(4))
        assert kind == 0x81
        assert json.loads(await reader.readexactly(size))["id"] == 1
        writer.write(b"\x81\x02{}")
        async with asyncio.timeout(10):
            said = await reader.read()
        writer.close()
    assert int.from_bytes(said[2:4]) == Closing.PROTOCOL
    assert said[4:].decode().startswith(f"{CLOSINGS[Closing.PROTOCOL]}: ")


async def begin_long_command(
    url: str, token: str, mib: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has sent so much of a command of 90 MiB, and is attached."""
    reader, writer = await by_hand(url, token)
    begun = b'{"id":1,"method":"Runtime.evaluate","params":{"expression":"'
    writer.write(struct.pack("!BBQ4x", 0x81, 0xFF, 90 * MIB) + begun)
    for _ in range(mib):
        writer.write(b"A" * MIB)
        await writer.drain()
    return reader, writer


async def test_who_has_most_in_memory_goes_and_nobody_else(relay: Any) -> None:
    """Of all sessions: each alone would be within its limits."""
    async with relay(relay={"memory_mb": 64}) as port:
        await port.supervisor.connect(ClientCode("demo2"))
        path = port.url + PATH.replace("demo", "demo2")
        async with port.http.ws_connect(path, headers=bearer(TOKEN2)) as small:
            _, least = await begin_long_command(port.url, TOKEN, 10)
            reader, most = await begin_long_command(port.url, TOKEN, 56)
            async with asyncio.timeout(10):
                said = await reader.readexactly((await reader.readexactly(2))[1])
            assert int.from_bytes(said[:2]) == Closing.TOO_MUCH
            assert b"this one" in said
            assert "result" in await ask(small, "Browser.getVersion")
            assert port.supervisor._sessions[DEMO].driving.attached == 1
            for writer in (least, most):
                writer.transport.abort()
            async with asyncio.timeout(10):
                while port.supervisor._sessions[DEMO].driving.attached:
                    await asyncio.sleep(0.01)
