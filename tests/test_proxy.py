"""A client's proxy that wants a password: the page loads through it, and no browser, log or file has the password."""

import asyncio
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import aiohttp
import pytest
import zstandard
from bare_browser import BINARY
from clients import BRISK, DEMO, DEMO2, log_in
from conftest import Daemon, Journal
from proxies import PASSWORD, USER, Seen, http_proxy, https_proxy, socks_proxy
from service import Service
from tls_front import AUTHORITY
from waiting import until

from waguard.browser.forwarder import Forwarder, Upstream, door
from waguard.browser.launch import Browser
from waguard.config.clients import ClientSettings, Proxy
from waguard.core.condition import ALWAYS
from waguard.core.model import Alert, ClientCode, Status
from waguard.errors import PageFailed
from waguard.sandbox.fence import Fence, started
from waguard.session.instance import Instance
from waguard.session.way_out import WayOut
from waguard.simulator.server import Simulator
from waguard.supervisor.supervisor import Supervisor
from waguard.system import host

PROXIES: dict[str, Callable[[], AbstractAsyncContextManager[Seen]]] = {
    "http": http_proxy,
    "socks5": socks_proxy,
}
CREDENTIALS = (PASSWORD.encode(), base64.b64encode(f"{USER}:{PASSWORD}".encode()))
in_chromium = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium is installed"),
]


def of(seen: Seen, password: str = PASSWORD) -> dict[str, Any]:
    return {"demo": {"proxy": {"url": seen.url, "user": USER, "password": password}}}


def marked(test: Any) -> Any:
    for mark in in_chromium:
        test = mark(test)
    return test


# --- the forwarder ----------------------------------------------------------------------------------------------


class Forwarded:
    """A forwarder, and what it was told."""

    def __init__(
        self, seen: Seen, *, ours: bool = True, password: str = PASSWORD, ca_file: Path | None = None
    ) -> None:
        self.told: list[str] = []

        async def is_ours(_peer: object, _own: object) -> bool:
            return ours

        self.forwarder = Forwarder(
            door(), Upstream(seen.url, USER, password, ca_file), is_ours, self.told.append
        )

    async def __aenter__(self) -> Self:
        await self.forwarder.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.forwarder.close()

    async def ask(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.forwarder.port)
        try:
            writer.write(data)
            async with asyncio.timeout(10):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[Seen]:
    """A proxy that closes when it has answered, and never if it answers nothing."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Fine\r\n\r\n" + answer)
        await writer.drain()
        if not answer:
            await over.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield Seen(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        over.set()


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_request_and_a_tunnel_get_through(kind: str) -> None:
    async with Simulator() as simulator, PROXIES[kind]() as seen, Forwarded(seen) as way:
        place = simulator.url.removeprefix("http://").rstrip("/")
        plain = f"GET {simulator.url}phone/devices HTTP/1.1\r\nHost: {place}\r\nProxy-Connection: keep-alive\r\n\r\n"
        answer = await way.ask(plain.encode())
        assert answer.startswith(b"HTTP/1.1 ")
        assert b"\r\nConnection: close\r\n" in answer or kind == "socks5"
        inner = f"GET / HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n"
        answer = await way.ask(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n{inner}".encode())
        assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200")
        assert seen.through == [place] * 2
        assert way.told == ["", ""]


async def test_a_proxy_is_spoken_to_by_tls_and_has_to_be_the_one_that_is_meant(tmp_path: Path) -> None:
    async with Simulator() as simulator, https_proxy(tmp_path) as seen:
        place = simulator.url.removeprefix("http://").rstrip("/")
        inner = f"GET / HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n"
        asked = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n{inner}".encode()
        async with Forwarded(seen, ca_file=tmp_path / AUTHORITY) as way:
            answer = await way.ask(asked)
            assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200")
            assert way.told == [""]
        async with Forwarded(seen) as way:
            assert (await way.ask(asked)).startswith(b"HTTP/1.1 502 ")
            assert way.told == ["cannot be reached by TLS: CERTIFICATE_VERIFY_FAILED"]
        seen.url = seen.url.replace("127.0.0.1", "localhost")
        async with Forwarded(seen, ca_file=tmp_path / AUTHORITY) as way:
            assert (await way.ask(asked)).startswith(b"HTTP/1.1 502 ")
            assert way.told == ["cannot be reached by TLS: CERTIFICATE_VERIFY_FAILED"]
        assert seen.through == [place]


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_wrong_password_is_the_proxys_trouble_and_asks_the_browser_for_none(kind: str) -> None:
    async with PROXIES[kind]() as seen, Forwarded(seen, password="other") as way:
        answer = await way.ask(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 502 ")
        # What is shown in its place would look like a page.
        assert await way.ask(b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n") == b""
        assert seen.refused == 2
        assert all(one.startswith("refuses its user and password") for one in way.told)


async def test_whoever_is_not_the_browser_gets_nothing() -> None:
    async with http_proxy() as seen, Forwarded(seen, ours=False) as way:
        assert await way.ask(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n") == b""
        assert not seen.through


async def test_strangers_take_no_place_of_the_browsers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waguard.browser.forwarder._MOST", 1)
    over = asyncio.Event()
    strangers = iter([True] * 3)

    async def is_ours(_peer: object, _own: object) -> bool:
        if next(strangers, False):
            await over.wait()
            return False
        return True

    async with http_proxy() as seen, Forwarded(seen) as way:
        seen.answer = b"HTTP/1.1 200 Fine\r\n\r\n"
        monkeypatch.setattr(way.forwarder, "_is_ours", is_ours)
        request = b"CONNECT a.example:443 HTTP/1.1\r\n\r\n"
        asking = [asyncio.create_task(way.ask(request)) for _ in range(3)]
        await until(lambda: len(way.forwarder._tasks) == 3)
        assert (await way.ask(request)).startswith(b"HTTP/1.1 200 ")
        over.set()
        assert await asyncio.gather(*asking) == [b""] * 3
        await until(lambda: not way.forwarder._tasks)


@pytest.mark.parametrize(
    "request_",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x05\x01\x00\r\n\r\n", b"CONNECT a HTTP/1.1\r\n\r\n", b"x" * 70_000],
)
async def test_what_is_no_request_to_a_proxy_ends(request_: bytes) -> None:
    async with http_proxy() as seen, Forwarded(seen) as way:
        assert await way.ask(request_) == b""
        assert not seen.through


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 No\r\n\r\n", b"HTTP/1.1 200 Fine\r\n", b"nothing\r\n\r\n"])
async def test_a_proxy_that_answers_otherwise_lets_nobody_through(answer: bytes) -> None:
    async with http_proxy() as seen, Forwarded(seen) as way:
        seen.answer = answer
        assert (await way.ask(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 502 ")


async def test_a_proxy_that_is_not_there_is_its_trouble() -> None:
    async with http_proxy() as seen:
        pass
    async with Forwarded(seen) as way:
        assert (await way.ask(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 502 ")
        assert "cannot be reached" in way.told[0]


async def test_a_name_that_hangs_takes_nobody_elses_proxy_down(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    begun, over, known = threading.Event(), threading.Event(), socket.getaddrinfo

    def look(name: str, *args: Any, **more: Any) -> Any:
        if name == "hangs.example":
            begun.set()
            over.wait(30)
        return known("127.0.0.1" if name == "proxy.example" else name, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    request = b"CONNECT a.example:443 HTTP/1.1\r\n\r\n"
    async with http_proxy() as seen:
        seen.answer = b"HTTP/1.1 200 Fine\r\n\r\n"
        hangs, named = (
            Seen(url=seen.url.replace("127.0.0.1", name)) for name in ("hangs.example", "proxy.example")
        )
        async with Forwarded(hangs) as one, Forwarded(named) as other:
            asking = asyncio.create_task(one.ask(request))
            try:
                await until(begun.is_set)
                assert (await other.ask(request)).startswith(b"HTTP/1.1 200 ")
                await until(lambda: not other.forwarder._tasks)
            finally:
                asking.cancel()
                over.set()


async def test_what_the_browser_closes_ends_whatever_the_proxy_does() -> None:
    async with listening(b"") as seen, Forwarded(seen) as way:
        reader, writer = await asyncio.open_connection("127.0.0.1", way.forwarder.port)
        writer.write(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await until(lambda: not way.forwarder._tasks)


async def test_what_the_proxy_closes_arrives_whole() -> None:
    async with listening(b"x" * 8_000_000) as seen, Forwarded(seen) as way:
        reader, writer = await asyncio.open_connection("127.0.0.1", way.forwarder.port)
        writer.write(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.1)
        assert len((await reader.read()).partition(b"\r\n\r\n")[2]) == 8_000_000
        writer.close()
        await until(lambda: not way.forwarder._tasks)


async def test_a_start_that_is_called_off_leaves_no_port_open() -> None:
    made = door()
    port = made.getsockname()[1]
    way = WayOut(cast("Instance", None))
    starting = asyncio.create_task(way._start(made, Upstream("http://127.0.0.1:1", "")))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_another_proxy_ends_what_goes_through_the_one_before() -> None:
    async with Simulator() as simulator, http_proxy() as seen, Forwarded(seen) as way:
        place = simulator.url.removeprefix("http://").rstrip("/")
        reader, writer = await asyncio.open_connection("127.0.0.1", way.forwarder.port)
        writer.write(f"CONNECT {place} HTTP/1.1\r\n\r\n".encode())
        assert b"200" in await reader.readuntil(b"\r\n\r\n")
        way.forwarder.use(Upstream("http://127.0.0.1:1", ""))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.transport.abort()


def test_who_holds_the_other_end_is_known_by_the_socket_itself() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        inode = host.tcp_inode(one.getsockname(), one.getpeername())
        assert inode is not None
        assert host.has_socket(os.getpid(), inode)
        assert not host.has_socket(os.getppid(), inode)
        assert not host.has_socket(2**22 + 1, inode)
        assert host.tcp_inode(("127.0.0.1", 1), one.getpeername()) is None


# --- with a browser ---------------------------------------------------------------------------------------------


def browser_of(supervisor: Supervisor, code: ClientCode = DEMO) -> Browser:
    found = supervisor._sessions[code]._instance.browser
    assert found is not None
    return found


def way_of(supervisor: Supervisor) -> Forwarder:
    found = browser_of(supervisor).forwarder
    assert found is not None
    return found


async def put(supervisor: Supervisor, **proxy: Any) -> None:
    wanted = ClientSettings(proxy=Proxy(**proxy))
    await supervisor.put_settings(DEMO, wanted, ALWAYS, restart=False)


@marked
@pytest.mark.parametrize(
    ("kind", "sandbox"),
    [("http", "bubblewrap"), ("https", "bubblewrap"), ("http", "plain"), ("socks5", "plain")],
)
async def test_the_page_loads_through_it_with_a_service_worker_and_nobody_has_the_password(
    start: Daemon, sessions_dir: Path, journal: Journal, tmp_path: Path, kind: str, sandbox: str
) -> None:
    by = https_proxy(tmp_path) if kind == "https" else PROXIES[kind]()
    async with Simulator(cadence=BRISK) as simulator, by as seen:
        sections = {
            "whatsapp": {"url": simulator.url},
            "sandbox": {"kind": sandbox},
            "browser": {"ca_file": tmp_path / AUTHORITY} if kind == "https" else {},
            "clients": of(seen),
        }
        async with start(**sections) as (supervisor, _):
            view = await supervisor.connect(DEMO)
            assert view.qr is not None
            simulator.scan(view.qr.text, "34600000000")
            await until(lambda: supervisor.view(DEMO).status is Status.CONNECTED)
            assert seen.through
            assert not seen.refused
            page = browser_of(supervisor).page
            assert page is not None
            controlled = "!!(navigator.serviceWorker && navigator.serviceWorker.controller)"
            before = len(seen.through)
            await page.open(simulator.url)
            async with asyncio.timeout(20):
                while not await page.look(controlled):
                    await asyncio.sleep(0.05)
            assert len(seen.through) > before, (
                "it is loaded through it with the service worker in control, too"
            )
            await until(lambda: supervisor.view(DEMO).status is Status.CONNECTED)
            granted = await page.settled(
                "navigator.permissions.query({name: 'geolocation'}).then(p => p.state)"
            )
            assert granted == "denied"
            await supervisor.snapshot(DEMO)
            async with supervisor.snapshot_stream(DEMO, "newest", plain=True) as file:
                whole = await asyncio.to_thread(file.read)
            members = browser_of(supervisor).run.members()
            assert len(members) > 2
            for one in members:
                _holds_nothing(one.pid)
            # Another program of this machine does not get out by it.
            port = way_of(supervisor).port
            async with aiohttp.ClientSession() as http:
                with pytest.raises(aiohttp.ClientError):
                    await http.get(simulator.url, proxy=f"http://127.0.0.1:{port}")
            await until(lambda: bool(journal.named("proxy.stranger")))
    _open(whole)
    for path in sessions_dir.rglob("*"):
        if path.is_file():
            assert not any(one in path.read_bytes() for one in CREDENTIALS), path
    told = repr(journal.events).encode()
    assert not any(one in told for one in CREDENTIALS)


def _open(archive: bytes) -> None:
    data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(archive)).read()
    assert data
    assert not any(one in data for one in CREDENTIALS)


def _holds_nothing(pid: int) -> None:
    """Neither its arguments, nor its environment, nor its memory: what a core dump would have."""
    for name in ("cmdline", "environ"):
        data = Path(f"/proc/{pid}/{name}").read_bytes()
        assert not any(one in data for one in CREDENTIALS), name
    looked = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode, *_ = line.split()
            first, last = (int(one, 16) for one in span.split("-"))
            if not mode.startswith("rw") or last - first > 1 << 30:
                continue
            at = first
            while at < last:
                try:
                    memory.seek(at)
                    data = memory.read(min(16 << 20, last - at))
                except (OSError, ValueError):
                    break
                if not data:
                    break
                looked += len(data)
                assert not any(one in data for one in CREDENTIALS), line
                at += len(data)
    assert looked > 100_000


@marked
async def test_a_wrong_password_is_said_to_be_one_and_the_right_one_helps_without_another_browser(
    start: Daemon, journal: Journal
) -> None:
    async with Simulator(cadence=BRISK) as simulator, http_proxy() as seen:
        sections = {"whatsapp": {"url": simulator.url}, "clients": of(seen, "another")}
        async with start(**sections) as (supervisor, _):
            with pytest.raises(
                PageFailed, match=r"The proxy .* refuses its user and password \(HTTP 407\)\."
            ) as caught:
                await supervisor.connect(DEMO)
            assert "waguard settings demo" in caught.value.hint
            raised = {one.alert: one.text for one in supervisor.alerts()}
            assert "refuses its user and password" in raised[Alert.PROXY_FAILED]
            assert Alert.NETWORK_DOWN not in raised
            await put(supervisor, url=seen.url, user=USER, password=PASSWORD)
            await until(lambda: supervisor.view(DEMO).status is Status.AWAITING_SCAN)
            assert not [one for one in supervisor.alerts() if one.alert is Alert.PROXY_FAILED]
            assert len(journal.named("browser.spawned")) == 1
    assert "another" not in repr([event for event in journal.events if event.name != "settings.changed"])


_TRIES = """
import socket, sys
for what, port in (("tcp", sys.argv[1]), ("tcp", sys.argv[2]), ("udp", "53")):
    try:
        with socket.socket(type=socket.SOCK_STREAM if what == "tcp" else socket.SOCK_DGRAM) as one:
            one.connect(("127.0.0.1", int(port)))
            print("through")
    except OSError as error:
        print(error.strerror)
"""


async def test_there_is_no_way_out_but_the_one_to_the_proxy() -> None:
    async with http_proxy() as seen, http_proxy() as other:
        mine, theirs = (one.url.rpartition(":")[2] for one in (seen, other))
        fence = Fence.make([443, int(theirs)])
        if fence.gap:
            pytest.skip(fence.gap)
        run = partial(
            subprocess.run, [sys.executable, "-c", _TRIES, mine, theirs], capture_output=True, text=True
        )
        done = await asyncio.to_thread(started, fence, run, int(mine))
        assert done.stdout.split("\n")[:3] == ["through", "Permission denied", "Permission denied"]
        fence.close()


@marked
async def test_another_clients_browser_does_not_get_out_by_it(start: Daemon) -> None:
    async with (
        Simulator(cadence=BRISK) as simulator,
        http_proxy() as seen,
        start(whatsapp={"url": simulator.url}, clients=of(seen)) as (supervisor, _),
    ):
        await supervisor.connect(DEMO)
        await supervisor.connect(DEMO2)
        page, before = browser_of(supervisor, DEMO2).page, len(seen.through)
        assert page is not None
        with pytest.raises(PageFailed):
            await page.open(f"http://127.0.0.1:{way_of(supervisor).port}/")
        assert len(seen.through) == before


@marked
async def test_a_proxy_that_goes_away_is_what_is_found_and_not_the_network(
    start: Daemon, journal: Journal
) -> None:
    async with AsyncExitStack() as proxy, Simulator(cadence=BRISK) as simulator:
        seen = await proxy.enter_async_context(http_proxy())
        sections = {"whatsapp": {"url": simulator.url}, "clients": of(seen), "health": {"offline_s": 0.5}}
        async with start(**sections) as (supervisor, _):
            await log_in(supervisor, simulator, DEMO)
            await proxy.aclose()
            await until(lambda: bool(journal.named("health.finding")), "a finding", 30)
            found = journal.named("health.finding")[0].fields
            assert found["fault"] == "offline"
            assert "cannot be reached" in found["why"]
            await until(
                lambda: Alert.PROXY_FAILED in {one.alert for one in supervisor.alerts()}, "an alert", 30
            )
            assert Alert.NETWORK_DOWN not in {one.alert for one in supervisor.alerts()}


@marked
@pytest.mark.parametrize("sandbox", ["bubblewrap", "plain"])
async def test_the_page_has_the_clients_language_and_time_zone(start: Daemon, sandbox: str) -> None:
    async with Simulator(cadence=BRISK) as simulator:
        own = {
            "language": "es-ES",
            "time_zone": "Australia/Darwin",
            "user_agent": "Mozilla/5.0 (Own) Chrome/156",
        }
        sections = {
            "whatsapp": {"url": simulator.url},
            "sandbox": {"kind": sandbox},
            "clients": {"demo": own},
        }
        async with start(**sections) as (supervisor, _):
            await supervisor.connect(DEMO)
            page = browser_of(supervisor).page
            assert page is not None
            said = (
                "[navigator.language, Intl.DateTimeFormat().resolvedOptions().timeZone, navigator.userAgent]"
            )
            assert await page.look(said) == list(own.values())
            said = "new Date(2026, 0, 1).getTimezoneOffset()"
            assert await page.look(said) == -570


@marked
async def test_the_next_daemon_goes_on_with_the_way_out_and_no_core_dump_has_the_password(
    tmp_path: Path,
) -> None:
    async with Simulator(cadence=BRISK) as simulator, http_proxy() as seen:
        settings = {"whatsapp": {"url": simulator.url}}
        async with Service(tmp_path, settings) as service:
            service.under = ["prlimit", "--core=unlimited"]
            await service.start()
            proxy = {"url": seen.url, "user": USER, "password": PASSWORD}
            await service.ask("PUT", "/v1/sessions/demo/settings", data=json.dumps({"proxy": proxy}))
            await service.ask("POST", "/v1/sessions/demo/connect")
            assert len(service.pipes) == 4
            before = len(seen.through)
            await service.end(signal.SIGUSR2)
            await service.start()
            await service.until(lambda: len(seen.through) > before, "its page comes back through the proxy")
            assert service.events("session.adopted")
            # Whatever end the daemon or a browser comes to: a core dump has none of their memory.
            assert service.process is not None
            pids = [service.process.pid, *(await service.view("demo"))["browser"]["pids"]]
            for pid in pids:
                assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) == 0
            assert await service.end(signal.SIGABRT) == -signal.SIGABRT
            if Path("/proc/sys/kernel/core_pattern").read_text().strip() == "core":
                (core,) = tmp_path.glob("core*")
                assert not any(one in core.read_bytes() for one in CREDENTIALS)
            await service.start()
            told = [json.dumps(line) for line in service.lines]
            assert not any(PASSWORD in line for line in told)
