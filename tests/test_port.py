"""The control port under callers who keep its connections, and a daemon that is out of files, threads or processes."""

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from conftest import POSING, Daemon, Journal
from pydantic import SecretStr
from service import Service

from waguard import daemon
from waguard.access import refusals
from waguard.core.model import ClientCode, Process, Status, Wanted
from waguard.errors import DeadlineExceeded, LimitReached, StorageFailed
from waguard.session.task import Session
from waguard.system import host, shortage
from waguard.system.repeats import Repeats

ADMIN, TOKEN = "an-admin-token-of-the-tests", "demos-token-of-the-tests"
API = {"admin_token": SecretStr(ADMIN), "client_tokens": {"demo": SecretStr(TOKEN)}}
DEMO = ClientCode("demo")
HEAD = f"POST /v1/sessions/demo/connect HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connections(url: str, number: int = 1, first: bytes = b"") -> AsyncIterator[list[Stream]]:
    """So many, each having sent so much."""
    parts, opened = urlsplit(url), []
    try:
        for _ in range(number):
            opened.append(await asyncio.open_connection(parts.hostname, parts.port))
            opened[-1][1].write(first)
        yield opened
    finally:
        for _, writer in opened:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def ended(stream: Stream) -> bytes:
    """What the port has said on it until it closed it."""
    async with asyncio.timeout(10):
        try:
            return await stream[0].read()
        except ConnectionError:
            return b""


async def asked(url: str, method: str, path: str, token: str = ADMIN, **options: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as http,
        http.request(method, url + path, headers=headers, **options) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


# --- who does not get on --------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", b"G", b"GET / HTTP/1.1\r\n", HEAD.encode()])
async def test_a_connection_without_a_whole_header_is_closed(pose: Daemon, first: bytes) -> None:
    async with pose(api={**API, "request_s": 0.3}) as (_, url), connections(url, 3, first) as opened:
        for stream in opened:
            assert await ended(stream) == b""


async def test_a_header_that_trickles_in_is_given_no_more_time(pose: Daemon) -> None:
    async with (
        pose(api={**API, "request_s": 0.5}) as (_, url),
        connections(url, 1, HEAD.encode()) as [stream],
    ):

        async def trickle() -> None:
            while True:
                stream[1].write(b"X: y\r\n")
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        assert await ended(stream) == b""
        trickling.cancel()
        await asyncio.wait([trickling])


@pytest.mark.parametrize("path", ["connect", "import"])
async def test_a_body_that_does_not_come_is_answered_408(pose: Daemon, path: str) -> None:
    head = HEAD.replace("/connect", f"/{path}") + "Content-Length: 9\r\nConnection: close\r\n\r\n{"
    async with pose(api={**API, "request_s": 0.3}) as (supervisor, url):
        async with connections(url, 1, head.encode()) as [(reader, _)]:
            async with asyncio.timeout(10):
                said = await reader.readuntil(b"\r\n\r\n")
                body = json.loads(await reader.readuntil(b"}"))
        assert said.startswith(b"HTTP/1.1 408 ")
        assert body["code"] == "request_timeout"
        assert "for 0.3 s there was nothing new" in body["detail"]
        assert not supervisor.views()


async def test_nor_is_it_waited_for_on_the_old_routes(pose: Daemon) -> None:
    head = HEAD.replace("/v1/sessions/demo/connect", "/api/whatsapp/connect").replace(ADMIN, TOKEN)
    async with (
        pose(api={**API, "request_s": 0.3}) as (_, url),
        connections(url, 1, f"{head}Content-Length: 9\r\n\r\n{{".encode()) as [(reader, _)],
        asyncio.timeout(10),
    ):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")


# --- more than there is room for ------------------------------------------------------------------------


async def test_connections_without_a_token_make_room(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "most", lambda: 8)
    async with pose(api=API) as (_, url), connections(url, 40, HEAD.encode()):
        assert (await asked(url, "GET", "/v1/sessions"))[0] == 200
        status, problem = await asked(url, "GET", "/v1/sessions", "wrong")
        assert (status, problem["code"]) == (401, "unauthorized")
    (told,) = journal.named("port.full")
    assert told.fields["connections"] >= 8
    assert told.level == "warning"


async def test_who_has_shown_a_token_makes_room_last(pose: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "most", lambda: 8)
    head = f"GET /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {ADMIN}\r\n\r\n".encode()
    async with pose(api=API) as (_, url), connections(url, 1, head) as [(reader, writer)]:
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 200 ")
            async with connections(url, 40):
                writer.write(head)
                assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 200 ")


async def test_a_known_caller_who_waits_makes_room_for_nobody(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "most", lambda: 8)
    async with pose("never-loads", api=API) as (supervisor, url):
        waiting = asyncio.create_task(
            asked(url, "POST", "/v1/sessions/demo/connect?wait=connected&timeout_s=15", TOKEN)
        )
        async with asyncio.timeout(10):
            while not supervisor.views():
                await asyncio.sleep(0.01)
        async with connections(url, 40):
            assert (await asked(url, "POST", "/v1/sessions/demo/disconnect"))[0] == 200
            status, problem = await waiting
        assert (status, problem["code"]) == (409, "interrupted")


async def test_when_all_wait_whoever_comes_is_closed_and_they_go_on(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "most", lambda: 4)
    async with pose("never-loads", api=API) as (supervisor, url):
        path = "/v1/sessions/demo/connect?wait=connected&timeout_s=15"
        waiting = [asyncio.create_task(asked(url, "POST", path)) for _ in range(4)]
        closed = 0
        async with asyncio.timeout(10):
            while not closed:
                async with connections(url) as [stream]:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.1):
                            closed += await stream[0].read() == b""
        assert journal.named("port.full")[-1].fields["closed"] == "the new one"
        await supervisor.disconnect(DEMO)
        assert {status for status, _ in await asyncio.gather(*waiting)} == {409}


async def test_what_strangers_do_fills_no_log(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "WAITS_S", 0.0)  # there are hundreds
    async with pose(api=API) as (_, url):
        async with aiohttp.ClientSession() as http:
            for _ in range(300):
                async with http.get(url + "/v1/sessions") as answer:
                    assert answer.status == 401
        assert len(journal.named("request.done")) == 20


def test_what_is_the_same_is_said_again_after_a_while_with_how_often_it_was_not() -> None:
    now = 0.0
    repeats = Repeats(2, 10.0, lambda: now)
    assert [repeats.left_out("a") for _ in range(5)] == [0, 0, None, None, None]
    assert repeats.left_out("b") == 0
    now = 9.9
    assert repeats.left_out("a") is None
    now = 10.0
    assert [repeats.left_out("a") for _ in range(3)] == [4, 0, None]
    for number in range(10_000):
        repeats.left_out(number)
        now += 1
    assert len(repeats._whiles) <= 101


@pytest.mark.parametrize("path", ["/v1/sessions", "/livez", "/nowhere"])
async def test_what_is_expected_and_unknown_is_refused_without_a_trace(
    pose: Daemon, journal: Journal, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    async with pose(api=API) as (_, url), aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {ADMIN}", "Expect": "x"}
        async with http.get(url + path, headers=headers) as answer:
            assert answer.status == 417
            assert answer.headers["X-Request-Id"]
            if path != "/nowhere":
                assert (await answer.json(content_type=None))["code"] == "expectation_failed"
        body = aiohttp.BytesPayload(b"{}")
        status, _ = await asked(url, "POST", "/v1/reap?dry_run=true", data=body, expect100=True)
        assert status == 200
    assert not caplog.records
    assert not journal.named("internal.error")


async def test_a_clients_error_names_no_path_of_the_daemons(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pose(api=API) as (supervisor, url):

        async def broken(code: ClientCode, **_: Any) -> Any:
            raise StorageFailed(
                "Cannot write /var/lib/waguard/sessions/demo/session.json: No space.",
                hint=f"ls /var/lib/waguard; see https://a/b/c, then waguard connect {code}",
                lock=Path("/srv/x/.locks/demo"),
                stderr=["[1] /usr/lib/chromium/chromium: no"],
            )

        monkeypatch.setattr(supervisor, "connect", broken)
        path = "/v1/sessions/demo/connect"
        status, told = await asked(url, "POST", path, TOKEN)
        assert (status, told["code"]) == (500, "storage_failed")
        assert told["detail"] == "Cannot write .../session.json: No space."
        assert told["hint"] == "ls .../waguard; see https://a/b/c, then POST /v1/sessions/demo/connect"
        assert told["lock"] == ".../demo"
        assert told["stderr"] == ["[1] .../chromium: no"]
        _, told = await asked(url, "POST", path)
        assert "/var/lib/waguard/sessions/demo/session.json" in told["detail"]
        assert told["lock"] == "/srv/x/.locks/demo"
        status, told = await asked(url, "GET", "/no/where", TOKEN)
        assert (status, told["detail"]) == (404, "There is no /no/where.")


# --- out of files ---------------------------------------------------------------------------------------


@contextmanager
def no_more_files() -> Iterator[None]:
    """Those that are open stay, and there are no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortage, "RETRY_S", 0.3)


async def until(session: Session, *processes: Process) -> None:
    async with asyncio.timeout(10):
        await session.until(lambda: session.state.process in processes)


async def test_a_browser_that_crashes_while_there_are_no_files_comes_back_when_there_are(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    async with pose("connected", restart={"budget": 1, "base_s": 0.01, "max_s": 0.01}) as (supervisor, _):
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        pid = session.browser_pids[0]
        with no_more_files():
            os.kill(pid, signal.SIGKILL)
            for _ in range(3):
                await until(session, Process.BACKOFF)
                failure = session.state.failure
                await until(session, Process.PREPARING)
        assert failure is not None
        assert failure.code == "limit_reached"
        assert "as many files open as it may: 3 (ulimit -n" in failure.message
        async with asyncio.timeout(10):
            await session.until(lambda: supervisor.view(DEMO).status is Status.CONNECTED)
        assert len(session.state.restarts) <= 1
    assert not host.process_row(pid)


async def test_a_disconnect_while_there_are_no_files_is_done_when_there_are(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    async with pose("ignores-close", deadlines={"close": 0.1}) as (supervisor, _):
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        with no_more_files():
            going = asyncio.ensure_future(supervisor.disconnect(DEMO))
            await until(session, Process.BACKOFF, Process.DOWN)
        await going
        assert (session.state.wanted, session.state.process) == (Wanted.DOWN, Process.DOWN)


async def test_a_connect_while_there_are_no_files_is_told_the_limit(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    async with pose("ok") as (supervisor, _):
        with no_more_files(), pytest.raises(LimitReached, match="as many files open as it may") as caught:
            await supervisor.connect(DEMO)
        assert caught.value.details["retry_after_s"] == 0.3
        assert caught.value.details["resource"] == "open_files"
        assert not supervisor.views(), "nothing was touched"
        assert (await supervisor.connect(DEMO)).status is Status.AWAITING_SCAN


def test_for_want_of_files_nobody_is_gone() -> None:
    with no_more_files():
        for look in (
            lambda: host.process_row(os.getpid()),
            lambda: host.environment_has(os.getpid(), "A=b"),
            lambda: host.environment_value(os.getpid(), "A"),
            lambda: host.all_threads_stopped(os.getpid()),
            lambda: host.namespace_pids(os.getpid()),
        ):
            with pytest.raises(OSError, match="Too many open files"):
                look()


# --- a daemon with few files, as a program --------------------------------------------------------------


async def test_half_open_connections_shut_nobody_out_of_a_daemon_with_few_files(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    browser = {"path": str(POSING), "extra_flags": ["--posing=connected"]}
    async with Service(tmp_path, {"browser": browser}) as service:
        service.under = ["/usr/bin/prlimit", "--nofile=256:256"]
        await service.start()
        await service.ask("POST", "/v1/sessions/demo/connect")
        async with connections(service.url, 400, HEAD.encode()):
            before = (await service.view("demo"))["browser"]["pids"]
            os.kill(before[0], signal.SIGKILL)

            async def again() -> bool:
                view = await service.view("demo")
                return bool(
                    view["browser"] and view["browser"]["pids"] != before and view["status"] == "connected"
                )

            await service.until(again, "connected again")
        assert service.events("port.full")
        assert not service.events("internal.error")
        assert (tmp_path / "log").stat().st_size < 100_000


# --- out of processes -----------------------------------------------------------------------------------


def test_no_more_processes_or_threads_is_told_with_the_limit() -> None:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NPROC)
    for error in (
        BlockingIOError(11, "Resource temporarily unavailable"),
        RuntimeError("can't start new thread"),
    ):
        with pytest.raises(LimitReached, match="No more processes or threads") as caught, shortage.told():
            raise error
        assert caught.value.details["resource"] == "processes"
        if os.geteuid() != 0 and soft != resource.RLIM_INFINITY:
            assert f"this user may have {soft} (ulimit -u" in caught.value.message
    with pytest.raises(RuntimeError, match="else"), shortage.told():
        raise RuntimeError("something else")


async def test_a_page_that_gets_no_process_is_late_for_that_and_not_for_the_network(pose: Daemon) -> None:
    async with pose("no-renderer", deadlines={"open": 0.5}) as (supervisor, _):
        with pytest.raises(DeadlineExceeded) as caught:
            await supervisor.connect(DEMO)
        assert caught.value.hint.startswith("No more processes or threads can be started")
        assert "network" not in caught.value.hint


async def test_a_browser_that_gets_no_processes_is_the_hosts_limit_and_costs_no_budget(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    async with pose("no-threads") as (supervisor, _):
        with pytest.raises(LimitReached) as caught:
            await supervisor.connect(DEMO)
        assert caught.value.details["resource"] == "processes"
        assert "pthread_create" in caught.value.details["stderr"][-1]
        session = supervisor._sessions[DEMO]
        await until(session, Process.STARTING)
        await until(session, Process.BACKOFF)
        assert session.state.restarts == ()
        assert not supervisor._services.gate.alerts.raised()
