"""A hostile neighbourhood: whatever strangers and pages do to the control port, sessions stay connected and others are answered."""

import asyncio
import gzip
import io
import json
import re
import resource
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from bare_browser import AGENT, BINARY, Page, browser, make_profile
from clients import BRISK, log_in, page_of
from commands import call
from conftest import Daemon, Journal
from control_port import ADMIN, API, TOKEN, Port
from harmful import harmful
from waiting import until
from yarl import URL

from waguard.access import refusals
from waguard.config.sections import Log
from waguard.core.model import ClientCode, Status
from waguard.observe import logs
from waguard.sandbox.fence import Fence
from waguard.simulator import pages
from waguard.simulator.server import Simulator

CODES = ClientCode("demo"), ClientCode("demo2")
REQUEST_S = 0.5
"""What a header, and each piece of a body, may take here."""
MOST_MORE = 96 << 20
"""Bytes of memory that an attack may cost while it lasts, the attacker's own among them: it is in this process."""
LATEST_S = 8.0
"""When a connection is closed at the latest; aiohttp of itself would go on reading what comes behind an answer for ten seconds."""
THOUSAND = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
"""Connections, where so many may be open."""
LATER = {"settle_s": 3600.0}
"""Nothing is saved meanwhile, however slow the machine is."""
CLOSED = 0
"""In place of a status: closed without a word."""


# --- what an attack must not change ---------------------------------------------------------------------------


def memory(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def kept(port: Port, sessions_dir: Path) -> Any:
    """All that a request could have made."""
    told = [
        (await port.ask("GET", path)).json
        for path in (
            "/v1/tokens",
            *(f"/v1/sessions/{code}/{kind}" for code in CODES for kind in ("values", "uploads", "snapshots")),
        )
    ]
    return told, sorted(one.name for one in sessions_dir.iterdir())


async def answers_meanwhile(port: Port, over: asyncio.Event) -> int:
    """How often a well-behaved caller, on a connection of its own each time, was answered."""
    answered = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
        while not answered or not over.is_set():
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with asyncio.timeout(10), http.get(port.url + "/v1/sessions", headers=headers) as answer:
                assert answer.status == 200
                (view,) = (await answer.json())["sessions"]
                assert view["status"] == "connected"
            answered += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await over.wait()
    return answered


@asynccontextmanager
async def unmoved(port: Port, journal: Journal, sessions_dir: Path, kind: str) -> AsyncIterator[None]:
    """Around an attack: it changes nothing, keeps nobody waiting, and leaves nothing behind."""
    before, told = await kept(port, sessions_dir), len(journal.events)
    tasks, files, used = len(asyncio.all_tasks()), open_files(), memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest that it was is from now on
    over = asyncio.Event()
    caller = asyncio.create_task(answers_meanwhile(port, over))
    try:
        yield
    finally:
        over.set()
        await asyncio.wait([caller])
    assert caller.result(), kind
    assert memory("VmHWM") - used < MOST_MORE, kind
    await until(lambda: open_files() <= files, f"files as before {kind}")
    await until(lambda: len(asyncio.all_tasks()) <= tasks, f"tasks as before {kind}")
    assert await kept(port, sessions_dir) == before, kind
    assert {one.client: one.status for one in port.supervisor.views()} == dict.fromkeys(
        CODES, Status.CONNECTED
    )
    changes = [one for one in journal.events[told:] if one.name in {"session.changed", "internal.error"}]
    assert not changes, kind


@pytest.fixture
def attacked(pose: Daemon, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A daemon with two sessions that are connected, for ``async with``."""
    monkeypatch.setattr(refusals, "WAITS_S", 0.0)  # there are many

    @asynccontextmanager
    async def opening(**api: Any) -> AsyncIterator[Port]:
        async with (
            pose("connected", api={**API, "request_s": REQUEST_S, **api}, snapshots=LATER) as (
                supervisor,
                url,
            ),
            aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http,
        ):
            for code in CODES:
                await supervisor.connect(code)
            await until(lambda: all(one.status is Status.CONNECTED for one in supervisor.views()))
            yield Port(url, supervisor, http)

    return opening


# --- bytes of a stranger, each kind a line --------------------------------------------------------------------


def asks(line: str, *headers: str, body: bytes = b"", host: str = "localhost") -> bytes:
    head = "\r\n".join([f"{line} HTTP/1.1", f"Host: {host}", *headers])
    return head.encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


MAY = f"Authorization: Bearer {ADMIN}"
CONNECT = "POST /v1/sessions/smuggled/connect"
SMUGGLED = asks(CONNECT, MAY)
"""Whoever takes this for a request starts a session."""
DRY = "POST /v1/reap?dry_run=true"
TEN_MB = b"x" * (10 << 20)
CHUNKED, PLAIN_TEXT = "Transfer-Encoding: chunked", "Content-Type: text/plain"
BOMB = gzip.compress(bytes(64 << 20), 9)
VALUE = "PUT /v1/sessions/demo/values/k"


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    sends: bytes
    right: frozenset[int]
    """Statuses of its answers, or `CLOSED`; each of them is right."""


def kind(name: str, sends: bytes, *right: int) -> Kind:
    return Kind(name, sends, frozenset(right))


KINDS = [
    # Names that are not this port's.
    *(
        kind(f"host {host!r}", asks(CONNECT, MAY, host=host), 403)
        for host in (
            "rebound.example",
            "localhost.rebound.example",
            "127.0.0.1.nip.io",
            "localhost@x",
            "",
            "[::1]x",
        )
    ),
    kind("no host", asks(CONNECT, MAY).replace(b"Host: localhost\r\n", b""), 400),
    kind("two hosts", asks(CONNECT, "Host: rebound.example", MAY), 400),
    # Pages, as their browser tells of them.
    *(
        kind(f"site {site}", asks(CONNECT, MAY, f"Sec-Fetch-Site: {site}", "Origin: null", PLAIN_TEXT), 403)
        for site in ("cross-site", "same-site", "x")
    ),
    kind("a feed for a page", asks("GET /v1/events", MAY, "Origin: https://evil.example"), 403),
    kind("a feed for a sandboxed page", asks("GET /v1/events", MAY, "Origin: null"), 403),
    kind("a relay for a page", asks("GET /v1/sessions/demo/cdp", MAY, "Origin: https://evil.example"), 403),
    *(
        kind(
            f"{line} for a page",
            asks(line, MAY, "Sec-Fetch-Site: cross-site", "Accept: text/event-stream"),
            403,
        )
        for line in (
            CONNECT,
            VALUE,
            "POST /v1/events/tickets",
            "POST /v1/sessions/demo/cdp/tickets",
            "DELETE /v1/sessions/demo/values/k",
        )
    ),
    # Much.
    kind("10 MB", asks(CONNECT, MAY, f"Content-Length: {len(TEN_MB)}", body=TEN_MB), 413),
    kind("10 MB without a token", asks(CONNECT, f"Content-Length: {len(TEN_MB)}", body=TEN_MB), 413),
    kind(
        "10 MB in a chunk", asks(CONNECT, MAY, CHUNKED, body=b"a00000\r\n" + TEN_MB + b"\r\n0\r\n\r\n"), 413
    ),
    kind("10 MB as a value", asks(VALUE, MAY, CHUNKED, body=b"a00000\r\n" + TEN_MB + b"\r\n0\r\n\r\n"), 413),
    kind("many tiny chunks", asks(CONNECT, MAY, CHUNKED, body=b"1\r\nx\r\n" * 300_000 + b"0\r\n\r\n"), 413),
    kind("a chunk's long extension", asks(CONNECT, MAY, CHUNKED, body=b"1;" + b"x" * 4_000_000), 400, 408),
    kind("a chunk of no size", asks(CONNECT, MAY, CHUNKED, body=b"ffffffffffffffffff\r\nx"), 400),
    kind("a chunk of less than none", asks(CONNECT, MAY, CHUNKED, body=b"-1\r\nx\r\n0\r\n\r\n"), 400),
    *(
        kind(
            f"a gzip bomb, {line}",
            asks(line, MAY, "Content-Encoding: gzip", f"Content-Length: {len(BOMB)}", body=BOMB),
            413,
        )
        for line in (CONNECT, VALUE)
    ),
    kind("one huge header", asks(CONNECT, MAY, "X: " + "x" * 4_000_000), 400),
    kind("ten thousand headers", asks(CONNECT, MAY, *(f"X{n}: y" for n in range(10_000))), 400),
    kind("a header without an end", b"GET /livez HTTP/1.1\r\nX: " + b"x" * 4_000_000, 400),
    kind("a huge name of a header", asks(CONNECT, MAY, "X" * 1_000_000 + ": x"), 400),
    kind("a very long path", asks(f"GET /{'a/' * 500_000}", MAY), 400),
    # Headers that two readers would read as two things.
    kind("a folded header", asks(CONNECT, MAY, "X: a\r\n b"), 400),
    kind("NUL in a header", asks(CONNECT, MAY, "X: a\0b"), 400),
    kind("a bare CR in a header", asks(CONNECT, MAY, "X: a\rb"), 400),
    kind("a space before the colon", asks(CONNECT, MAY, "Content-Length : 0"), 400),
    kind("both lengths", asks(DRY, MAY, CHUNKED, "Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED), 400),
    kind("the other way", asks(DRY, MAY, "Content-Length: 5", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED), 400),
    kind(
        "two lengths",
        asks(DRY, MAY, "Content-Length: 0", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
        400,
    ),
    kind("a length with a sign", asks(DRY, MAY, f"Content-Length: +{len(SMUGGLED)}", body=SMUGGLED), 400),
    kind("an unknown coding", asks(DRY, MAY, "Transfer-Encoding: xchunked", body=SMUGGLED), 400),
    kind(
        "a folded coding", asks(DRY, MAY, "Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n" + SMUGGLED), 400
    ),
    kind(
        "a body with a bad end of a chunk", asks(DRY, MAY, CHUNKED, body=b"2\r\n{}0\r\n\r\n" + SMUGGLED), 400
    ),
    # Paths and methods.
    *(
        kind(f"path {path[:30]!r}", asks(f"GET {path}", MAY), *right)
        for path, *right in (
            ("/v1/../../etc/passwd", 404),
            ("/v1/sessions/..", 400, 404),
            ("/v1/sessions/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 400),
            ("/v1/sessions/%252e%252e", 400),
            ("/v1/sessions/demo%00", 400),
            ("/v1/sessions/%c0%ae%c0%ae", 400),
            ("/v1/sessions/demo/values/..%2f..%2fsession.json", 400),
            ("/v1/sessions/demo/downloads/..%2f..%2fsession.json", 400, 404),
            ("//evil.example/v1/sessions", 404),
            ("\\v1\\sessions", 400, 404),
        )
    ),
    kind("an absolute form", asks("GET http://evil.example/v1/sessions/x", MAY, host="evil.example"), 403),
    kind("no path", asks("POST *", MAY), 400, 404),
    kind("no path at all", asks("OPTIONS *"), 400, 401),
    kind("CONNECT", asks("CONNECT evil.example:443", MAY), 400, 404),
    *(
        kind(name, asks(f"{name} /v1/sessions/demo/connect", MAY), 405)
        for name in ("TRACE", "OPTIONS", "PATCH", "LOCK")
    ),
    kind(
        "a method by another name",
        asks(
            "GET /v1/sessions/demo/disconnect", MAY, "X-HTTP-Method-Override: POST", "X-Method-Override: POST"
        ),
        405,
    ),
    kind("TLS", bytes.fromhex("1603010200010001fc0303") + bytes(500), 400),
    kind("another version", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
]


async def statuses(port: Port, sends: bytes) -> set[int]:
    """Of all answers to these bytes, until the port has closed the connection."""
    address = URL(port.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    said = bytearray()

    async def send() -> None:
        with suppress(ConnectionError):
            writer.write(sends)
            await writer.drain()

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(LATEST_S):
            with suppress(ConnectionError):
                while piece := await reader.read(1 << 16):
                    said += piece
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return {int(one) for one in re.findall(rb"HTTP/1\.[01] (\d{3}) ", said)} or {CLOSED}


async def test_no_bytes_of_a_stranger_move_a_session(
    attacked: Any, journal: Journal, sessions_dir: Path
) -> None:
    wrong = {}
    async with attacked() as port:
        for one in KINDS:
            async with unmoved(port, journal, sessions_dir, one.name):
                found = await statuses(port, one.sends)
            if not found <= one.right:
                wrong[one.name] = found
    assert not wrong


# --- those that stay ------------------------------------------------------------------------------------------


@dataclass
class Crowd:
    """Connections of an attacker's, all gone after the block."""

    port: Port
    writers: list[asyncio.StreamWriter]
    readers: list[asyncio.StreamReader]

    async def come(self, number: int, first: bytes) -> None:
        address = URL(self.port.url)
        for _ in range(number):
            with suppress(ConnectionError):
                reader, writer = await asyncio.open_connection(address.host, address.port)
                self.readers.append(reader)
                self.writers.append(writer)
                writer.write(first)

    async def trickle(self, piece: bytes) -> None:
        """Each sends a little, again and again, until the port has closed them all."""
        ending = asyncio.create_task(self.ended())
        try:
            while not ending.done():
                for writer in self.writers:
                    if not writer.is_closing():
                        writer.write(piece)
                await asyncio.wait([ending], timeout=0.05)
        finally:
            ending.cancel()
            await asyncio.wait([ending])
        await ending

    async def ended(self) -> None:
        """The port has closed them all."""
        async with asyncio.timeout(LATEST_S):
            for reader in self.readers:
                with suppress(ConnectionError):
                    while await reader.read(1 << 16):
                        pass

    def let_go(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


@asynccontextmanager
async def crowd(port: Port) -> AsyncIterator[Crowd]:
    made = Crowd(port, [], [])
    try:
        yield made
    finally:
        made.let_go()
        for writer in made.writers:
            with suppress(ConnectionError):
                await writer.wait_closed()


async def slow_headers(many: Crowd) -> None:
    await many.come(50, b"GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\n")
    await many.trickle(b"X: y\r\n")


async def slow_bodies(many: Crowd) -> None:
    await many.come(50, asks(CONNECT, MAY, "Content-Length: 1000000", body=b"{"))
    await many.ended()


async def bodies_of_refused(many: Crowd) -> None:
    """Who is refused and goes on sending is not listened to for long."""
    await many.come(50, asks(CONNECT, "Content-Length: 1000000", body=b"{"))
    await many.trickle(b"x")


async def half_closed(many: Crowd) -> None:
    await many.come(50, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
    for writer in many.writers:
        writer.write_eof()
    await many.ended()


async def idle(many: Crowd) -> None:
    await many.come(THOUSAND, b"")
    await many.ended()


async def pipelines(many: Crowd) -> None:
    """Requests without end, and nobody reads an answer."""
    await many.come(1, b"")
    (writer,), sent = many.writers, 0
    cast("asyncio.Transport", writer.transport).pause_reading()
    some = asks("GET /livez") * 1000
    while sent < 128 << 20 and not writer.is_closing():
        writer.write(some)
        sent += len(some)
        try:
            async with asyncio.timeout(2 * REQUEST_S):
                await writer.drain()
        except (TimeoutError, ConnectionError):
            return  # it takes no more, which is right


async def feeds(many: Crowd) -> None:
    """Many readers of the feed who read nothing; there are only so many for one token."""
    await many.come(THOUSAND, asks("GET /v1/events", MAY))
    for reader in many.readers:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            async with asyncio.timeout(10):
                assert (await reader.readuntil(b"\r\n"))[9:12] in {b"200", b"429"}


STAY: list[Callable[[Crowd], Awaitable[None]]] = [
    slow_headers,
    slow_bodies,
    bodies_of_refused,
    half_closed,
    idle,
    pipelines,
    feeds,
]


@pytest.mark.parametrize("attack", STAY)
async def test_no_crowd_moves_a_session(
    attacked: Any, journal: Journal, sessions_dir: Path, attack: Callable[[Crowd], Awaitable[None]]
) -> None:
    async with attacked() as port, unmoved(port, journal, sessions_dir, attack.__name__), crowd(port) as many:
        await attack(many)


async def test_a_thousand_pipelined_requests_are_answered_in_turn_or_not_at_all(
    attacked: Any, journal: Journal, sessions_dir: Path
) -> None:
    async with attacked() as port, unmoved(port, journal, sessions_dir, "pipelined"):
        assert await statuses(port, asks("GET /livez") * 1000) <= {200, CLOSED}


# --- what is logged or shown of them --------------------------------------------------------------------------

EVIL = ["\x1b]0;x\x07", "\x1b[2J", "\x9b31m", "a\r\nb", "\u202eevil", "\u2066x", "\u2028x", "\x00", "\x7f"]


def quoted(text: str) -> str:
    return "".join(f"%{one:02x}" for one in text.encode())


def fields_of(evil: str) -> list[bytes]:
    """Each field that a caller sets, with this in it."""
    q, raw = quoted(evil), evil.replace("\r\n", "\r").replace("\0", "\x01")
    named = json.dumps({"name": evil, "scopes": ["read"], "clients": ["*"]})
    of = json.dumps({"name": "n", "scopes": ["read"], "clients": [evil]})
    return [
        asks(f"GET /{q}", MAY),
        asks(f"GET /v1/sessions?{q}={q}", MAY),
        asks(f"GET /v1/sessions?text={q}&cursor={q}", MAY),
        asks(f"GET /v1/sessions?status={q}", MAY),
        asks(f"GET /v1/sessions/{q}", MAY),
        asks(f"POST /v1/sessions/{q}/connect?wait={q}", MAY, "Accept: text/event-stream"),
        asks(f"POST /v1/sessions/demo/connect?wait={q}", MAY, "Accept: text/event-stream"),
        asks(f"GET /v1/sessions/demo/snapshots/{q}", MAY),
        asks(f"GET /v1/sessions/demo/downloads/{q}", MAY),
        asks(f"GET /v1/sessions/demo/values/{q}", MAY),
        asks(f"PUT /v1/sessions/demo/values/{q}", MAY, "Content-Length: 1", body=b"v"),
        asks(VALUE, MAY, f"Content-Type: text/{raw}", "Content-Length: 1", body=b"v"),
        asks(f"POST /v1/sessions/demo/uploads?name={q}", MAY, "Content-Length: 1", body=b"u"),
        asks(f"GET /v1/events?kind={q}", MAY, "Origin: x"),
        asks(f"GET /v1/events?client={q}", MAY),
        asks(f"GET /v1/events?after={q}", MAY),
        asks("GET /v1/events", MAY, f"Last-Event-ID: {raw}", "Origin: x"),
        asks(f"GET /v1/events?ticket={q}"),
        asks("GET /v1/events", MAY, f"Origin: https://{raw}"),
        asks("GET /v1/sessions", MAY, host=raw),
        asks("GET /v1/sessions", f"Authorization: Bearer {raw}"),
        asks(
            "GET /v1/sessions", MAY, f"User-Agent: {raw}", f"X-Forwarded-For: {raw}", f"X-Request-Id: {raw}"
        ),
        asks("POST /v1/events/tickets", MAY, f"X-Forwarded-Proto: {raw}"),
        asks(DRY, MAY, f"Idempotency-Key: {raw}"),
        asks("POST /v1/sessions/x/disconnect", MAY, f"If-Match: {raw}"),
        asks(DRY, MAY, f"Expect: {raw}"),
        asks(DRY, MAY, f"Content-Encoding: {raw}"),
        asks(DRY, MAY, f"Accept: {raw}"),
        *(
            asks("POST /v1/tokens", MAY, f"Content-Length: {len(body.encode())}", body=body.encode())
            for body in (named, of)
        ),
        asks(f"{raw} /v1/sessions", MAY),
    ]


@pytest.fixture
def lines(journal: Journal, log_as_before: None) -> Callable[[str], io.StringIO]:
    """The log in a form, from now on."""

    def opened(form: str) -> io.StringIO:
        stream = io.StringIO()
        journal.bus.subscribe(logs.configure(Log.model_validate({"format": form, "level": "debug"}), stream))
        return stream

    return opened


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_field_of_a_request_writes_to_a_terminal(
    attacked: Any, lines: Callable[[str], io.StringIO], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = lines(form)
    async with attacked() as port:
        address = URL(port.url)

        async def said(sends: bytes) -> bytes:
            """The whole answer; of the feed its first event."""
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(sends.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                async with asyncio.timeout(10):
                    head = await reader.readuntil(b"\r\n\r\n")
                    if b"text/event-stream" in head:
                        return head + await reader.readuntil(b"data: ") + await reader.readline()
                    return head + await reader.read()
            finally:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

        for evil in EVIL:
            for sends in fields_of(evil):
                answer = (await said(sends)).decode()
                assert answer.startswith("HTTP/1."), sends
                head, _, body = answer.partition("\r\n\r\n")
                assert not harmful(head.replace("\r\n", "\n")), sends
                assert not harmful(body.replace("\r\n", "\n")), sends
        assert {one.client: one.status for one in port.supervisor.views()} == dict.fromkeys(
            CODES, Status.CONNECTED
        )
        assert not harmful((await port.ask("GET", "/v1/sessions/demo/uploads")).body.decode())
        monkeypatch.setenv("WAGUARD_TOKEN", ADMIN)
        for command in (["status"], ["token", "list"], ["values", "list", "demo"], ["history", "demo"]):
            shown = await asyncio.to_thread(call, *command, "--url", port.url)
            assert shown.exit_code == 0, shown.output
            assert not harmful(shown.output), command
    assert "request.done" in log.getvalue()
    assert not harmful(log.getvalue())


# --- pages, in a genuine browser ------------------------------------------------------------------------------

EVIL_PAGE = """<!doctype html><title>evil</title><body>
<iframe name=into></iframe>
<form method=post target=into action="{url}/v1/sessions/made/connect" enctype="text/plain">
  <input name='{{"fresh":true,"x":"' value='"}}'></form>
<img src="{url}/v1/sessions/made/disconnect"><script src="{url}/v1/sessions"></script>
<iframe sandbox="allow-scripts" srcdoc="<script>{script}</script>"></iframe>
<iframe src="data:text/html,<script>{script}</script>"></iframe>
<script>document.forms[0].submit()</script>
"""
SCRIPT = "fetch('{url}/v1/sessions/made/connect',{{method:'POST',mode:'no-cors',body:'x'}})"
TRIES = """(async () => {
    const url = URL_, admin = {Authorization: "Bearer ADMIN_"};
    const tried = async (path, options) => {
        try { const answer = await fetch(url + path, options); return answer.type + answer.status; }
        catch (error) { return "refused"; }
    };
    const heard = (made) => new Promise(done => {
        made.onopen = () => done("open"); made.onerror = () => { made.close(); done("refused"); };
    });
    const connect = "/v1/sessions/made/connect", post = {method: "POST"};
    return {
        "simple": await tried(connect, {...post, body: "{}"}),
        "without CORS": await tried(connect, {...post, mode: "no-cors", body: "{}"}),
        "preflighted": await tried(connect, {...post, headers: admin}),
        "preflighted by its type": await tried(connect, {...post, headers: {"Content-Type": "application/json"}}),
        "another method": await tried("/v1/sessions/demo/values/k", {method: "PUT", body: "x"}),
        "a look": await tried("/v1/sessions"),
        "alive": await tried("/livez"),
        "by a redirect": await tried("", {}).then(() => fetch("/away", {...post, body: "x"}).then(a => a.type, () => "refused")),
        "a beacon": navigator.sendBeacon(url + connect, "x"),
        "the feed": await heard(new EventSource(url + "/v1/events?ticket=TICKET_")),
        "a WebSocket": await heard(new WebSocket(url.replace("http", "ws") + "/v1/sessions/demo/cdp")),
    };
})()"""


def tries_at(port: Port, ticket: str) -> str:
    return TRIES.replace("URL_", json.dumps(port.url)).replace("ADMIN_", ADMIN).replace("TICKET_", ticket)


@pytest.fixture
def profile() -> Iterator[Path]:
    made = make_profile()
    yield made
    shutil.rmtree(made)


async def loaded(tab: Page, url: str) -> None:
    await tab.go(url)
    async with asyncio.timeout(20):
        while await tab.evaluate("location.href + document.readyState") != f"{url}complete":
            await asyncio.sleep(0.05)


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
async def test_no_page_of_a_genuine_browser_moves_a_session(
    attacked: Any, journal: Journal, sessions_dir: Path, profile: Path
) -> None:
    async with attacked() as port:
        home = web.Application()

        async def page(_: web.Request) -> web.Response:
            script = SCRIPT.format(url=port.url)
            return web.Response(text=EVIL_PAGE.format(url=port.url, script=script), content_type="text/html")

        async def away(_: web.Request) -> web.Response:
            raise web.HTTPTemporaryRedirect(f"{port.url}/v1/sessions/made/connect")

        home.router.add_get("/", page)
        home.router.add_post("/away", away)
        ticket = (await port.ask("POST", "/v1/events/tickets")).json["ticket"]
        tries = tries_at(port, ticket)
        rules = "--host-resolver-rules=MAP *.example 127.0.0.1"
        told = len(journal.named("request.done"))
        async with (
            unmoved(port, journal, sessions_dir, "pages"),
            TestServer(home) as server,
            browser(profile, AGENT, rules) as running,
        ):
            tab = await running.page(hints=False)
            for host in ("127.0.0.1", "evil.example"):
                await loaded(tab, f"http://{host}:{server.port}/")
                found = await tab.evaluate(tries, awaitPromise=True)
                assert found.pop("without CORS") in {"opaque0", "refused"}
                assert found.pop("a beacon") in {True, False}
                assert set(found.values()) == {"refused"}, found
            rebound = f"http://rebound.example:{URL(port.url).port}"
            await loaded(tab, f"{rebound}/v1/sessions")
            assert "host_not_allowed" in await tab.evaluate("document.body.innerText")
            again = "fetch('/v1/sessions/made/connect', {method: 'POST', headers: {Authorization: 'Bearer ADMIN_'}})"
            told_it = await tab.evaluate(
                f"{again.replace('ADMIN_', ADMIN)}.then(answer => answer.status)", awaitPromise=True
            )
            assert told_it == 403
    refused = {
        (one.fields["method"], one.fields["route"].rpartition("/")[2]): one.fields["http_status"]
        for one in journal.named("request.done")[told:]
        if one.fields["http_status"] != 200
    }
    # They came through the browser, and were refused here before anybody's token was looked at.
    assert refused.keys() >= {
        ("POST", "connect"),
        ("OPTIONS", "(none)"),
        ("GET", "events"),
        ("GET", "cdp"),
        ("GET", "sessions"),
    }
    assert set(refused.values()) <= {403, 405}


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
@pytest.mark.parametrize("fenced", [True, False], ids=["fenced", "every_port"])
async def test_no_page_that_it_keeps_moves_a_session(
    start: Daemon, journal: Journal, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch, *, fenced: bool
) -> None:
    """The page of a session does what a stranger's would; its browser does not get to the port at all, or is refused there."""
    monkeypatch.setattr(refusals, "WAITS_S", 0.0)
    monkeypatch.setattr(
        pages, "_POLICY", ""
    )  # WhatsApp's own would keep the page from it; whoever has the page has that
    async with (
        Simulator(cadence=BRISK) as simulator,
        start(
            whatsapp={"url": simulator.url},
            sandbox={"connect_ports": [443] if fenced else []},
            api={**API, "request_s": REQUEST_S},
            snapshots=LATER,
        ) as (supervisor, url),
        aiohttp.ClientSession() as http,
    ):
        await log_in(supervisor, simulator, *CODES)
        port = Port(url, supervisor, http)
        ticket = (await port.ask("POST", "/v1/events/tickets")).json["ticket"]
        page = page_of(supervisor, CODES[0])
        told = len(journal.named("request.done"))
        async with unmoved(port, journal, sessions_dir, "its own page"):
            found = await page.promised(tries_at(port, ticket))
            assert found.pop("by a redirect") == "basic"  # of the simulator's, which has none
            assert found.pop("without CORS") in ({"refused"} if fenced else {"opaque0", "refused"})
            assert found.pop("a beacon") in {True, False}
            assert set(found.values()) == {"refused"}, found
            own = "fetch('/', {method: 'POST', mode: 'no-cors', body: 'x'}).then(answer => answer.type)"
            assert await page.promised(own) == "basic"  # what it may reach it does
        done = [one.fields for one in journal.named("request.done")[told:]]
        refused = {one["route"].rpartition("/")[2] for one in done if one["http_status"] != 200}
        if fenced and not Fence.gap_here([443]):
            assert not refused
        else:
            assert refused >= {"connect", "(none)", "events", "cdp", "sessions"}
