"""The client library, against real daemons: what it asks, what it raises, and that what was lost on the way is done once."""

import asyncio
import io
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bad_road import Road, bad_road
from clients import DEMO
from conftest import Daemon, Journal
from control_port import ADMIN, API, TOKEN, TOKEN2
from waiting import until

from waguard.asking import verbs
from waguard.client import Client, Session
from waguard.client import client as clients_of
from waguard.client import page as pages
from waguard.client import wire as wires
from waguard.core.model import ClientCode, Status, Wait
from waguard.core.shown import EventView, SessionView
from waguard.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    Forbidden,
    Interrupted,
    InvalidClientCode,
    InvalidRequest,
    NoAnswer,
    NoDaemon,
    NoPage,
    NoQrCode,
    NoSuchValue,
    NotWaguard,
    PreconditionFailed,
    SessionNotFound,
    SnapshotRefused,
    Unauthorized,
    WaguardError,
)
from waguard.supervisor.supervisor import Supervisor


@pytest.fixture
def asking(pose: Daemon) -> Callable[..., Any]:
    """A daemon, and the admin's client of it, by a bad road."""

    @asynccontextmanager
    async def opening(pose_of: str = "ok", **sections: Any) -> AsyncIterator[tuple[Supervisor, Client, Road]]:
        api = {**API, **sections.pop("api", {})}
        async with (
            pose(pose_of, api=api, **sections) as (supervisor, url),
            bad_road(url) as road,
            Client(road.url, ADMIN) as waguard,
        ):
            yield supervisor, waguard, road

    return opening


async def test_without_a_page_it_raises_what_the_daemon_answers(pose: Daemon) -> None:
    async with pose("ok", api=API) as (supervisor, url):
        async with Client(url, TOKEN) as waguard:
            demo = waguard.session("demo")
            with pytest.raises(SessionNotFound):
                await demo.page()
            await supervisor.connect(DEMO)
            await supervisor.disconnect(DEMO)
            with pytest.raises(NoPage, match="demo has no page now"):
                await demo.page()
            with pytest.raises(InvalidClientCode):
                waguard.session("../demo")
        async with Client(url, TOKEN2) as other:
            with pytest.raises(Forbidden):
                await other.session("demo").page()
        async with Client(url, "wrong-wrong-wrong-wrong") as wrong:
            with pytest.raises(Unauthorized, match="unknown"):
                await wrong.session("demo").page()
    async with Client(url, TOKEN) as waguard:
        with pytest.raises(NoDaemon, match=f"No daemon answers at {url}"):
            await waguard.session("demo").page()


async def test_a_page_that_fails_leaves_nothing_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[object] = []

    class Browser:
        async def newPage(self) -> None:  # noqa: N802 (as pyppeteer has it)
            raise BrokenPipeError

        async def disconnect(self) -> None:
            gone.append(self)
            if len(gone) > 1:
                raise ConnectionResetError

    async def attach(_: str) -> Browser:
        return Browser()

    async def version(_: Session, **_options: Any) -> dict[str, str]:
        return {"webSocketDebuggerUrl": ""}

    monkeypatch.setattr(pages, "attach", attach)
    monkeypatch.setattr(Session, "browser_version", version)
    waguard = Client(token=TOKEN)
    with pytest.raises(ConnectionResetError):
        async with waguard:
            with pytest.raises(BrokenPipeError):
                await waguard.session("demo").page()
            assert len(gone) == 1
            await waguard.attached("")
            await waguard.attached("")
    assert len(gone) == 3


def test_its_token_is_given_or_in_the_environment() -> None:
    with pytest.raises(Unauthorized, match="There is no token"):
        Client(environ={})
    with pytest.raises(Unauthorized, match="There is no token"):
        Client(token="", environ={"WAGUARD_TOKEN": TOKEN})
    Client(environ={"WAGUARD_TOKEN": TOKEN})
    Client("unix:///run/waguard/api.sock", environ={})
    with pytest.raises(InvalidRequest, match="address is none"):
        Client("127.0.0.1:8717", TOKEN)


async def test_a_session_from_its_beginning_to_its_end(asking: Any) -> None:
    told: list[EventView] = []
    async with asking() as (_, waguard, _):
        assert (await waguard.alive()).status == "ok"
        assert not await waguard.not_ready()
        demo = waguard.session("demo")
        view = await demo.connect(told=told.append)
        assert (view.client, view.status) == ("demo", Status.AWAITING_SCAN)
        names = [one.name for one in told]
        assert names.index("session.changed") < names.index("stage.done") < names.index("attempt.done")
        assert {one.client for one in told} == {"demo"}
        assert view.qr is not None
        assert (await demo.qr()).text == view.qr.text
        assert (await demo.qr_picture()).startswith(b"<?xml")
        assert [one.name for one in (await demo.history(limit=2)).history]
        assert (await demo.cleanup()).ok
        with pytest.raises(NoQrCode) as none:
            await demo.qr()
        assert none.value.hint
        assert none.value.details["status"] == 404
        assert (await demo.check_undo()).act == "cleanup"


async def test_all_sessions_page_by_page(asking: Any) -> None:
    codes = [f"demo{number}" for number in range(5)]
    async with asking() as (supervisor, waguard, _):
        for code in codes:
            await supervisor.connect(ClientCode(code), wait=Wait.NONE)
        assert [one.client async for one in waguard.sessions(page=2)] == codes
        assert [one.client async for one in waguard.sessions(text="o3")] == ["demo3"]
        assert [one async for one in waguard.sessions(status=[Status.CONNECTED])] == []


async def test_a_session_is_changed_only_as_it_was_seen(asking: Any) -> None:
    async with asking() as (_, waguard, _):
        demo = waguard.session("demo")
        await demo.connect()
        seen = await demo.look()
        assert (await demo.disconnect(if_match=seen.etag)).status is Status.STOPPED
        with pytest.raises(PreconditionFailed, match="It has changed since"):
            await demo.connect(if_match=seen.etag)


async def test_values_are_kept_as_they_came_and_changed_as_they_were_seen(asking: Any) -> None:
    async with asking() as (_, waguard, _):
        demo = waguard.session("demo")
        await demo.connect()
        written = await demo.put_value("a:b", b"\x00\xff", type="text/x; charset=y", only_new=True, ttl_s=60)
        assert written.expires_at is not None
        value = await demo.value("a:b")
        assert (value.said, value.type, value.etag) == (b"\x00\xff", "text/x; charset=y", written.etag)
        await demo.put_value("a:b", b"", if_match=value.etag)
        for late in (
            demo.put_value("a:b", b"x", if_match=value.etag),
            demo.put_value("a:b", b"x", only_new=True),
            demo.delete_value("a:b", if_match=value.etag),
        ):
            with pytest.raises(PreconditionFailed):
                await late
        assert [one.bytes for one in (await demo.values()).values] == [0]
        await demo.delete_value("a:b")
        with pytest.raises(NoSuchValue):
            await demo.value("a:b")


async def test_files_go_there_and_back(asking: Any) -> None:
    async with asking("connected", relay={"upload_mb": 1}) as (_, waguard, _):
        demo = waguard.session("demo")
        await demo.connect()
        file = io.BytesIO(b"not this" + b"x" * 300_000)
        file.seek(8)
        stored = await demo.upload("a b.pdf", file)
        assert (stored.bytes, stored.name) == (300_000, "a b.pdf")
        assert not file.closed
        with pytest.raises(BodyTooLarge):
            await demo.upload("large", io.BytesIO(bytes(64 << 20)))
        assert [one.id for one in (await demo.uploads()).uploads] == [stored.id]
        await demo.delete_upload(stored.id)
        taken = await demo.snapshot()
        into = io.BytesIO()
        await demo.export(taken.id, into)
        assert len(into.getvalue()) == taken.bytes
        into.seek(0)
        with pytest.raises(SnapshotRefused) as refused:  # it has come whole, and was none of a browser's
            await demo.try_import(into)
        assert refused.value.details["reason"] == "no_login"


async def test_by_the_unix_socket_no_token_is_needed(pose: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "control"
    async with (
        pose("ok", api={**API, "socket": path, "socket_uids": [0]}),
        Client(f"unix://{path}", environ={}) as waguard,
    ):
        assert (await waguard.session("demo").connect()).status is Status.AWAITING_SCAN
        with pytest.raises(InvalidRequest, match="by a unix socket"):
            await waguard.session("demo").page()
    async with Client(f"unix://{path}", environ={}) as waguard:
        with pytest.raises(NoDaemon):
            await waguard.alive()


# --- a bad road -----------------------------------------------------------------------------------------------


async def test_what_was_done_and_not_answered_is_done_once(asking: Any) -> None:
    async with asking("connected") as (_, waguard, road):
        demo = waguard.session("demo")
        await demo.connect()
        road.lose_answers = 2
        made = await waguard.create_token("bot", ["read"], ["demo"])
        assert road.lose_answers == 0
        assert [one.id for one in (await waguard.tokens()).tokens] == [made.about.id]
        road.lose_answers = 1
        stored = await demo.upload("a.pdf", io.BytesIO(b"x" * 500_000))
        assert [one.id for one in (await demo.uploads()).uploads] == [stored.id]
        road.lose_answers = 1
        assert (await demo.put_value("x", b"said")).bytes == 4
        road.lose_answers = 1
        with pytest.raises(NoAnswer, match="broke off"):
            await demo.put_value("x", b"again", only_new=True)
        assert road.lose_answers == 0


async def test_a_long_verb_goes_on_being_told_after_a_cut(asking: Any, journal: Journal) -> None:
    told: list[str] = []
    async with asking() as (_, waguard, road):

        def tell(event: EventView) -> None:
            told.append(event.name)
            if len(told) == 1:
                road.cut()

        view = await waguard.session("demo").connect(told=tell)
        assert view.status is Status.AWAITING_SCAN
        assert [one.fields["why"] for one in journal.named("attempt.done")] == ["connect"]


async def test_what_is_never_answered_is_given_up(asking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "_AGAIN_S", 0.5)
    async with asking() as (_, waguard, road):
        road.lose_answers = 1000
        with pytest.raises(NoAnswer, match="broke off"):
            await waguard.tokens()
        assert road.lose_answers > 900
        road.lose_answers, road.is_deaf = 0, True
        with pytest.raises(NoAnswer, match=r"did not answer POST /v1/sessions/demo/connect within 0\.5 s"):
            async with Client(road.url, ADMIN, patience_s=0.5) as hasty:
                await hasty.session("demo").connect()
        with pytest.raises(NoAnswer, match=r"connect within 0\.3 s"):
            async with Client(road.url, ADMIN, silent_s=0.3) as hasty:
                await hasty.session("demo").connect(told=lambda _: None)


async def test_what_broke_off_is_not_said_to_be_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "_AGAIN_S", 0.5)

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        server.close()
        writer.close()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    async with Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", ADMIN) as waguard:
        with pytest.raises(NoAnswer, match="broke off"):
            await waguard.session("demo").connect()


async def test_what_is_no_daemon_is_said_to_be_none() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
            if b"GET /v1/s" in asked
            else b"SSH-2.0-OpenSSH\r\n"
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Client(url, ADMIN) as waguard:
        with pytest.raises(NotWaguard, match="It answered 302"):
            await waguard.list_sessions()
        with pytest.raises(NotWaguard, match="It answered 302"):
            await waguard.session("demo").show()
        with pytest.raises(NoAnswer, match="broke off"):
            await waguard.do(verbs.delete_value(DEMO, "x"))


@pytest.mark.parametrize(
    "told", ["event: session.changed\ndata: {}\n\n", "event: result\ndata: {}\n\n", "data: \xff\n\n"]
)
async def test_what_tells_something_else_is_no_daemon(told: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + told.encode("latin-1"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Client(url, ADMIN) as waguard:
        with pytest.raises(NotWaguard, match="is not this version of waguard"):
            await waguard.session("demo").connect(told=lambda _: None)


async def test_whoever_does_not_take_a_connection_is_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wires, "LOOK_S", 0.3)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            async with Client(f"http://127.0.0.1:{full.getsockname()[1]}", ADMIN) as waguard:
                with pytest.raises(NoDaemon):
                    await waguard.alive()


async def test_whoever_is_called_off_leaves_nothing(asking: Any) -> None:
    async with asking() as (supervisor, waguard, _):
        demo = waguard.session("demo")
        await demo.connect()
        for called_off in (
            demo.connect(wait=Wait.CONNECTED),
            demo.connect(wait=Wait.CONNECTED, told=lambda _: None),
            demo.wait_connected(),
        ):
            task = asyncio.create_task(called_off)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await task
        assert supervisor.view(DEMO).status is Status.AWAITING_SCAN


async def test_it_is_used_inside_its_block() -> None:
    with pytest.raises(RuntimeError, match="inside `async with`"):
        await Client(token=TOKEN).alive()


# --- waiting --------------------------------------------------------------------------------------------------


async def test_a_wait_ends_when_it_is_connected_and_nobody_polls(asking: Any, journal: Journal) -> None:
    seen: list[Status] = []
    async with asking("boots") as (_, waguard, _):
        demo = waguard.session("demo")
        await demo.connect(wait=Wait.NONE)
        view = await demo.wait_connected(timeout_s=20, seen=lambda view: seen.append(view.status))
        assert view.status is Status.CONNECTED
        assert seen[0] is Status.STARTING
        events = [one for one in journal.events if one.name.startswith("session.")]
        assert len(looks(journal)) <= 1 + len(events)
        assert (await demo.wait_connected(timeout_s=20)).status is Status.CONNECTED, "at once"


async def test_a_change_right_behind_a_look_is_not_missed(
    asking: Any, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is looked at is old by the time that it is answered."""
    show = Session.show

    async def late(session: Session) -> SessionView:
        view = await show(session)
        await until(lambda: "connected" in [one.fields["link"] for one in journal.named("session.changed")])
        return view

    monkeypatch.setattr(Session, "show", late)
    async with asking("boots") as (_, waguard, _):
        await waguard.session("demo").connect(wait=Wait.NONE)
        seen: list[SessionView] = []
        await waguard.session("demo").wait_connected(timeout_s=30, seen=seen.append)
        assert seen[0].status is Status.STARTING


async def test_a_look_that_fails_for_a_moment_does_not_end_the_wait(
    asking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients_of, "_PAUSE_S", 0.05)
    fails: list[WaguardError] = [NoAnswer("It broke off."), NoDaemon("Nobody is there.")]
    real = Session.show

    async def show(self: Session) -> SessionView:
        if fails:
            raise fails.pop()
        return await real(self)

    monkeypatch.setattr(Session, "show", show)
    async with asking("connected") as (_, waguard, _):
        demo = waguard.session("demo")
        await demo.connect(wait=Wait.CONNECTED)
        assert (await demo.wait_connected(timeout_s=30)).status is Status.CONNECTED
        assert not fails


def looks(journal: Journal) -> list[object]:
    return [one for one in journal.named("request.done") if one.fields["route"] == "/v1/sessions/{code}"]


async def test_a_wait_says_what_is_in_the_way(asking: Any) -> None:
    async with asking() as (_, waguard, _):
        demo = waguard.session("demo")
        with pytest.raises(SessionNotFound):
            await demo.wait_connected()
        await demo.connect()
        with pytest.raises(
            DeadlineExceeded, match=r"within 0\.3 s: it is awaiting_scan\. Show its QR"
        ) as late:
            await demo.wait_connected(timeout_s=0.3)
        assert late.value.details["stage"] == "connected"

        async def end() -> None:
            await demo.disconnect()

        ends: list[asyncio.Task[None]] = []
        with pytest.raises(Interrupted, match="demo is not to be up"):
            await demo.wait_connected(
                seen=lambda _: ends.append(asyncio.create_task(end())) if not ends else None
            )
        await ends[0]


@pytest.mark.parametrize(("pose_of", "code"), [("dies-at-once", "browser_failed"), ("conflict", "refused")])
async def test_what_waiting_does_not_mend_ends_the_wait(asking: Any, pose_of: str, code: str) -> None:
    async with asking(pose_of) as (_, waguard, _):
        demo = waguard.session("demo")
        await demo.connect(wait=Wait.NONE)
        with pytest.raises(WaguardError) as caught:
            await demo.wait_connected(timeout_s=60)
        assert caught.value.code == code


# --- what the documentation shows -----------------------------------------------------------------------------

HOW_TO = Path(__file__).parent.parent / "docs/how-to"


def shown(page: str) -> str:
    """The first Python of a page."""
    found = re.search(r"^```python\n(.*?)^```$", (HOW_TO / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


async def test_what_the_documentation_shows(asking: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async with asking("boots") as (_, waguard, road):
        program = shown("app.md").replace("Client()", f"Client({road.url!r})")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            env={**os.environ, "WAGUARD_TOKEN": ADMIN},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
        assert process.returncode == 0
        assert said.decode().splitlines()[-2].startswith("connected")
        names: dict[str, Any] = {"Client": Client}
        exec(shown("events.md"), names)
        following = asyncio.ensure_future(names["follow"](waguard, ""))
        await until(lambda: "CONNECTED" in capsys.readouterr().out)
        following.cancel()
        await asyncio.wait([following])
