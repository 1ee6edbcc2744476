"""The control port over real HTTP: who is let in, what is answered, and that a refusal changes nothing."""

import ast
import asyncio
import base64
import gzip
import io
import json
import re
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import aiohttp
import pytest
from conftest import Daemon, Journal, decoded
from control_port import ADMIN, API, TOKEN, TOKEN2, Answer, Port, is_problem, is_well_made
from pydantic import SecretStr
from trees import snapshot

from waguard.access import configured, refusals
from waguard.api import compat, problems, routes, snapshots, words
from waguard.config.sections import Api, Config, Log, Sessions
from waguard.core.access import About, Scope
from waguard.core.catalogue import EVENTS
from waguard.core.health.faults import Fault
from waguard.core.model import ClientCode, Failure, Process, Stage, Verdict, Wanted
from waguard.core.shown import CheckView, CleanupView, FailureView, FindingView, QrView, SnapshotView, Step
from waguard.core.stats import Happening
from waguard.errors import BY_CODE, BreakerOpen, ConfigError, LimitReached, StorageFailed
from waguard.observe import logs
from waguard.sandbox.bubblewrap import Bubblewrap
from waguard.supervisor.answering import outcome_of

DEMO = ClientCode("demo")
QR = "2@posing,noise,identity,adv,1"


@pytest.fixture
def port(pose: Daemon) -> Any:
    """A daemon with its control port and known tokens, for ``async with``."""

    @asynccontextmanager
    async def opening(posing: str = "ok", **sections: dict[str, Any]) -> AsyncIterator[Port]:
        api = {**API, **sections.pop("api", {})}
        async with (
            pose(posing, api=api, **sections) as (supervisor, url),
            aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http,
        ):
            yield Port(url, supervisor, http)

    return opening


# --- bad input ------------------------------------------------------------------------------------------------

BAD_CODES = [
    "..%2Fx",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%2fx",
    "a%20b",
    "a+b",
    "",
    "a" * 65,
    "x%3Breboot",
    "x;reboot",
    "%24(reboot)",
    "x%00",
    "%00",
    "x%0A",
    "demo%0d%0aSet-Cookie:a=b",
    "-demo",
    "_demo",
    ".profiles",
    ".retired",
    ".",
    "d%D0%B5mo",  # a Cyrillic e
    "%EF%BD%84emo",  # a full-width d
    "dem%D0%BE",
    "demo%E2%80%8B",  # a zero-width space at the end
    "%D9%A1%D9%A2",  # Arabic digits
    "%C3%A9",
    "%FF%FE",
    "%ED%A0%80",  # a lone surrogate
    "de%6do%25",
    "demo'--",
    "%7B%7D",
]

ROUTES = [
    ("POST", "/connect"),
    ("POST", "/disconnect"),
    ("POST", "/restart"),
    ("POST", "/cleanup"),
    ("GET", ""),
    ("GET", "/qr"),
    ("GET", "/screenshot"),
]


async def test_what_is_no_client_code_is_refused_everywhere(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        before = snapshot(sessions_dir)
        for code in BAD_CODES:
            for method, verb in ROUTES:
                answer = await asked.ask(method, f"/v1/sessions/{code}{verb}")
                problem = is_problem(answer, 400, "invalid_client_code")
                assert "is not a client code" in problem["detail"]
                assert "1 to 64 of A-Z a-z 0-9 _ -" in problem["hint"]
        assert snapshot(sessions_dir) == before
        assert asked.supervisor.views() == []


async def test_a_path_that_climbs_reaches_nothing(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        before = snapshot(sessions_dir)
        for path in ("/v1/sessions/../x/connect", "/v1/sessions/demo/../../connect", "/v1/sessions//connect"):
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\n"
            answer = await asked.raw(head.encode() + b"Content-Length: 0\r\n\r\n")
            assert answer is not None
            assert answer.status in {400, 404}
        assert snapshot(sessions_dir) == before


async def test_a_code_of_64_and_one_of_one_are_good(port: Any) -> None:
    async with port() as asked:
        for code in ("a" * 64, "0", "A-_9"):
            answer = await asked.ask("POST", f"/v1/sessions/{code}/connect?wait=none")
            assert (answer.status, answer.json["client"]) == (200, code)
        assert (await asked.ask("POST", "/v1/sessions/%64emo/connect?wait=none")).json["client"] == "demo"


BAD_BODIES: list[tuple[str, bytes, str]] = [
    ("", b"{", "not a JSON object"),
    ("", b"hello", "not a JSON object"),
    ("", b"[]", "not a JSON object"),
    ("", b'"wait"', "not a JSON object"),
    ("", b"null", "not a JSON object"),
    ("", b"5", "not a JSON object"),
    ("", b"\xff\xfe{}", "not a JSON object"),
    ("", b'{"wait": "\xed\xa0\x80"}', "not a JSON object"),
    ("", b"[" * 50_000, "not a JSON object"),
    ("", b'{"a":' * 10_000, "not a JSON object"),
    ("", b"wait=none", "not a JSON object"),
    ("", b'{"wait": "forever"}', "wait: Input should be 'none', 'qr' or 'connected'"),
    ("", b'{"wait": 1}', "wait: "),
    ("", b'{"wait": null}', "wait: "),
    ("", b'{"wait": ["qr"]}', "wait: "),
    ("", b'{"fresh": "maybe"}', "fresh: "),
    ("", b'{"fresh": 2}', "fresh: "),
    ("", b'{"timeout_s": 0}', "timeout_s: "),
    ("", b'{"timeout_s": -1}', "timeout_s: "),
    ("", b'{"timeout_s": 1e9}', "timeout_s: "),
    ("", b'{"timeout_s": "soon"}', "timeout_s: "),
    ("", b'{"timeout_s": {}}', "timeout_s: "),
    ("", b'{"wiat": "qr"}', "wiat: is unknown"),
    ("", b'{"": 1}', ": is unknown"),
    ("", '{"ünï\\u0000": 1}'.encode(), "is unknown"),
    ("?wait=forever", b"", "wait: Input should be"),
    ("?timeout_s=nan", b"", "timeout_s: "),
    ("?timeout_s=inf", b"", "timeout_s: "),
    ("?fresh=perhaps", b"", "fresh: "),
    ("?wiat=qr", b"", "wiat: is unknown"),
    ("?%FF=1", b"", "is unknown"),
    ("?wait=qr", b'{"wait": "forever"}', "wait: Input should be"),
]


@pytest.mark.parametrize("verb", ["connect", "restart", "disconnect", "cleanup"])
async def test_a_bad_request_is_refused_with_what_would_be_right(
    port: Any, sessions_dir: Path, verb: str
) -> None:
    async with port() as asked:
        before = snapshot(sessions_dir)
        for query, body, said in BAD_BODIES:
            answer = await asked.ask("POST", f"/v1/sessions/demo/{verb}{query}", body=body)
            problem = is_problem(answer, 400, "invalid_request")
            if verb == "connect":
                assert said in problem["detail"]
            options = {"connect": "wait, timeout_s, fresh", "restart": "wait, timeout_s"}.get(verb, "none")
            assert problem["hint"] in {
                'Send none, or for example {"wait": "qr"}.',
                f"Options of this route: {options}.",
            }
        assert snapshot(sessions_dir) == before
        assert asked.supervisor.views() == []


async def test_good_requests_in_every_form(port: Any) -> None:
    async with port() as asked:
        for query, body in (
            ("", b""),
            ("", b"  \n"),
            ("", b"{}"),
            ("", b'{"wait": "none", "timeout_s": 5, "fresh": false}'),
            ("?wait=none&timeout_s=5.5&fresh=false", b""),
            ("?wait=connected", b'{"wait": "none"}'),
        ):
            answer = await asked.ask("POST", f"/v1/sessions/demo/connect{query}", body=body)
            assert answer.status == 200, answer.body
            is_well_made(answer)


async def test_a_body_that_is_too_large_is_refused(port: Any, sessions_dir: Path) -> None:
    large = b'{"x": "' + b"y" * 2048 + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(large), 100):
            yield large[at : at + 100]

    async with port(api={"max_body_kb": 1}) as asked:
        before = snapshot(sessions_dir)
        for path in ("/v1/sessions/demo/connect", "/v1/sessions/demo/cleanup"):
            for body in (large, pieces()):  # with Content-Length, and chunked without
                answer = await asked.ask("POST", path, body=body)
                is_problem(answer, 413, "body_too_large")
        answer = await asked.ask("POST", "/api/whatsapp/connect", TOKEN, body=large)
        assert answer.status == 413
        assert answer.json["error"] == "body_too_large"
        answer = await asked.ask("POST", "/v1/sessions/demo/disconnect", body=b'{"x": "' + b"y" * 900 + b'"}')
        is_problem(answer, 400, "invalid_request")
        assert snapshot(sessions_dir) == before


async def test_a_body_that_breaks_off_or_is_badly_cut_is_the_callers_fault(
    port: Any, journal: Journal
) -> None:
    async with port() as asked:
        head = (
            f"POST /v1/sessions/demo/connect HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\n"
        )
        await asked.raw(f"{head}Content-Length: 100\r\n\r\n{{".encode(), hang_up=True)
        answer = await asked.raw(f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode())
        assert answer is None or answer.status == 400
        answer = await asked.raw(f"{head}Content-Length: abc\r\n\r\n".encode())
        assert answer is not None
        assert answer.status == 400
        assert (await asked.ask("GET", "/livez")).status == 200
        assert not journal.named("internal.error")
        assert asked.supervisor.views() == []


READING = {
    "/v1/sessions/demo/connect": ADMIN,
    "/v1/sessions/demo/disconnect": ADMIN,
    "/v1/sessions/demo/import": ADMIN,
    "/api/whatsapp/connect": TOKEN,
}
"""The routes of each kind that wait for a body, and whose."""
FALSE_BODIES: dict[str, tuple[str, bytes]] = {
    "a coding that is unknown": ("Content-Encoding: foo\r\nContent-Length: 3", b"abc"),
    "two codings": ("Content-Encoding: gzip, gzip\r\nContent-Length: 3", b"abc"),
    "a coding that aiohttp could have": ("Content-Encoding: br\r\nContent-Length: 3", b"abc"),
    "no gzip": ("Content-Encoding: gzip\r\nContent-Length: 16", b"abcdefghijklmnop"),
    "no deflate": ("Content-Encoding: deflate\r\nContent-Length: 16", b"abcdefghijklmnop"),
    "half a deflate": ("Content-Encoding: deflate\r\nContent-Length: 6", zlib.compress(b"{}" * 50)[:6]),
    "no chunks": ("Transfer-Encoding: chunked", b"zz\r\n"),
    "chunks that end badly": ("Transfer-Encoding: chunked", b"2\r\n{}\r\nzz\r\n"),
    "no transfer coding": ("Transfer-Encoding: foo", b"{}"),
    "no length": ("Content-Length: many", b"{}"),
    "less than no length": ("Content-Length: -1", b"{}"),
    "a length of chunks": ("Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    "a header with a NUL": ("X-Odd: a\0b\r\nContent-Length: 2", b"{}"),
    "a header without end": (f"X-Odd: {'a' * 20_000}\r\nContent-Length: 2", b"{}"),
}


def is_refused(answer: Answer | None, path: str) -> None:
    """As 400, in the route's form, or where nobody knows the route in the one of all others."""
    assert answer is not None
    if path.startswith("/api/") and "success" in answer.json:
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
        is_well_made(answer)
    else:
        is_problem(answer, 400, "invalid_request")


@pytest.mark.parametrize("kind", FALSE_BODIES)
async def test_a_body_that_is_not_as_its_headers_say_is_the_callers_fault_on_every_route(
    port: Any, journal: Journal, kind: str
) -> None:
    headers, body = FALSE_BODIES[kind]
    async with port() as asked:
        for path, token in READING.items():
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{headers}\r\n\r\n"
            is_refused(await asked.raw(head.encode() + body), path)
        assert not journal.named("internal.error")
        assert asked.supervisor.views() == []


@pytest.mark.parametrize(
    "kind", ["no gzip", "no deflate", "half a deflate", "no chunks", "chunks that end badly"]
)
async def test_likewise_of_one_that_a_handler_waits_for(port: Any, journal: Journal, kind: str) -> None:
    headers, body = FALSE_BODIES[kind]
    async with port() as asked:
        for path, token in READING.items():
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n{headers}\r\n\r\n"
            is_refused(await asked.raw(head.encode(), then=body), path)
        assert not journal.named("internal.error")
        assert asked.supervisor.views() == []


@pytest.mark.parametrize(
    "data",
    [
        b"GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"P@ST /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://[::1/livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n",
        b"\r\n\r\n\xff\xfe\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_in_the_form_of_all_errors(port: Any, data: bytes) -> None:
    async with port() as asked:
        problem = is_problem(await asked.raw(data), 400, "invalid_request")
        assert problem["detail"].startswith("This is not a valid HTTP request: ")
        assert "\n" not in problem["detail"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity", "GZIP"])
async def test_a_body_may_be_encoded(port: Any, coding: str) -> None:
    body = json.dumps({"wait": "none"}).encode()
    encoded = {"gzip": gzip.compress(body), "deflate": zlib.compress(body)}.get(coding.lower(), body)
    async with port() as asked:
        answer = await asked.ask("POST", "/v1/sessions/demo/connect", body=encoded, Content_Encoding=coding)
        assert answer.status == 200, answer.body


# --- who may ----------------------------------------------------------------------------------------------------

EVERYWHERE = [
    ("POST", "/v1/sessions/demo/connect"),
    ("POST", "/v1/sessions/demo/cleanup"),
    ("POST", "/v1/sessions/demo/disconnect"),
    ("POST", "/v1/sessions/demo/restart"),
    ("GET", "/v1/sessions"),
    ("GET", "/v1/sessions/demo"),
    ("GET", "/v1/sessions/demo/qr"),
    ("GET", "/v1/sessions/demo/screenshot"),
    ("POST", "/v1/sessions/demo/pairing-code"),
    ("GET", "/nowhere"),
    ("POST", "/api/whatsapp/connect"),
    ("POST", "/api/whatsapp/force-cleanup"),
]
# What poses as a browser paints no pictures.
PEACEFUL = [(method, path) for method, path in EVERYWHERE if not path.endswith("/screenshot")]
NO_TOKENS = [
    None,
    "Bearer",
    "Bearer ",
    "Bearer  ",
    "Bearer wrong-wrong-wrong-wrong",
    f"Bearer {ADMIN}x",
    f"Bearer {ADMIN[:-1]}",
    f"Bearer {ADMIN.upper()}",
    f"Bearer {ADMIN} {ADMIN}",
    f"Basic {base64.b64encode(f'admin:{ADMIN}'.encode()).decode()}",
    f"Token {ADMIN}",
    ADMIN,
    "Bearer ünïcödé",
    "Bearer " + "x" * 4000,
]


async def test_without_a_good_token_nothing_is_told_or_done(
    port: Any, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "WAITS_S", 0.0)  # there are hundreds
    async with port() as asked:
        before = snapshot(sessions_dir)
        for method, path in EVERYWHERE:
            for header in NO_TOKENS:
                headers = {} if header is None else {"Authorization": header}
                answer = await asked.ask(method, path, None, **headers)
                assert answer.status == 401, (path, header)
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                if path.startswith("/api/whatsapp/"):
                    assert list(answer.json) == ["success", "message", "error"]
                    assert answer.json["error"] == "unauthorized"
                else:
                    problem = is_problem(answer, 401, "unauthorized")
                    assert "token" in problem["detail"]
                    assert "waguard token" in problem["hint"]
        answer = await asked.raw(
            b"GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\xed\xa0\x80\r\n\r\n"
        )
        assert answer is not None
        is_problem(answer, 401, "unauthorized")
        assert snapshot(sessions_dir) == before


async def test_a_token_is_good_for_its_own_code_alone(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        assert (await asked.ask("POST", "/v1/sessions/demo2/connect", TOKEN2)).status == 200
        before = snapshot(sessions_dir)
        for method, verb in ROUTES:
            for code in ("demo2", "demo-2", "Demo", "nobody"):
                answer = await asked.ask(method, f"/v1/sessions/{code}{verb}", TOKEN)
                problem = is_problem(answer, 403, "forbidden")
                assert f"not for '{code}'" in problem["detail"]
        assert (await asked.ask("GET", "/v1/sessions", TOKEN)).json == {"sessions": [], "next": None}
        assert [s["client"] for s in (await asked.ask("GET", "/v1/sessions", TOKEN2)).json["sessions"]] == [
            "demo2"
        ]
        assert snapshot(sessions_dir) == before
        assert (await asked.ask("POST", "/v1/sessions/demo/connect", TOKEN)).status == 200
        assert [s["client"] for s in (await asked.ask("GET", "/v1/sessions")).json["sessions"]] == [
            "demo",
            "demo2",
        ]


GOOD_HOSTS = [
    "localhost",
    "LOCALHOST:1",
    "127.0.0.1",
    "127.0.0.1:8717",
    "[::1]",
    "[::1]:8717",
    "Proxy.Example:443",
]
BAD_HOSTS = [
    "evil.example",
    "evil.example:8717",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "localhost.",
    "evil.localhost",
    "127.0.0.2",
    "0.0.0.0",
    "[::2]",
    "[::1",
    "[::1]evil",
    "[evil]",
    "[::ffff:127.0.0.1]",
    "::1",
    "localhost:evil",
    "localhost:8717:8717",
    "evil@localhost",
    "[::1]@evil",
    "2130706433",
    ":8717",
    "loсalhost",  # noqa: RUF001 (a Cyrillic letter on purpose)
]


async def test_only_names_of_this_port_are_answered(port: Any, sessions_dir: Path) -> None:
    """A page of some other site may point a name of its own at this address (DNS rebinding)."""
    async with port(api={"allowed_hosts": ["proxy.example"]}) as asked:
        before = snapshot(sessions_dir)
        for host in GOOD_HOSTS:
            assert (await asked.ask("GET", "/livez", None, Host=host)).status == 200
            assert (await asked.ask("GET", "/v1/sessions", Host=host)).status == 200
        for host in BAD_HOSTS:
            for method, path in (*EVERYWHERE[:5], ("GET", "/livez"), ("GET", "/readyz")):
                answer = await asked.ask(method, path, Host=host)
                problem = is_problem(answer, 403, "host_not_allowed")
                assert "api.allowed_hosts" in problem["hint"]
        for head in (b"", b"Host:\r\n", b"Host: \xff\xfe\r\n"):
            answer = await asked.raw(b"GET /livez HTTP/1.1\r\n" + head + b"\r\n")
            assert answer is not None
            assert answer.status in {400, 403}
        assert snapshot(sessions_dir) == before


async def test_pages_of_other_sites_are_refused_even_with_a_token(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        before = snapshot(sessions_dir)
        for site in ("cross-site", "same-site", "", "anything"):
            for method, path in (*EVERYWHERE[:5], ("GET", "/livez")):
                is_problem(await asked.ask(method, path, Sec_Fetch_Site=site), 403, "cross_site")
        assert snapshot(sessions_dir) == before
        for site in ("none", "same-origin"):
            assert (await asked.ask("GET", "/v1/sessions", Sec_Fetch_Site=site)).status == 200
        answer = await asked.ask("OPTIONS", "/v1/sessions/demo/connect", Origin="https://evil.example")
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


async def test_changes_are_never_made_by_a_get(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        before = snapshot(sessions_dir)
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            for verb in ("connect", "disconnect", "restart", "cleanup"):
                answer = await asked.ask(method, f"/v1/sessions/demo/{verb}")
                assert answer.status == 405
                assert answer.headers["Allow"] == "POST"
                if method != "HEAD":
                    problem = is_problem(answer, 405, "method_not_allowed")
                    assert problem["detail"].endswith(f"takes POST, not {method}.")
            answer = await asked.ask(method, "/api/whatsapp/connect", TOKEN)
            assert answer.status == 405
        is_problem(await asked.ask("POST", "/v1/sessions/demo/qr"), 405, "method_not_allowed")
        assert snapshot(sessions_dir) == before


async def test_a_route_that_is_not_there(port: Any) -> None:
    async with port() as asked:
        for path in (
            "/",
            "/v1",
            "/v1/session",
            "/v1/sessions/demo/nothing",
            "/%FF",
            "/%C3%A9%00",
        ):
            problem = is_problem(await asked.ask("GET", path), 404, "not_found")
            assert "/v1/sessions" in problem["hint"]
        for method, verb in ROUTES[1:2] + ROUTES[4:]:
            problem = is_problem(
                await asked.ask(method, f"/v1/sessions/demo{verb}"), 404, "session_not_found"
            )
            assert problem["hint"] == "Start one: POST /v1/sessions/demo/connect"


# --- answers ----------------------------------------------------------------------------------------------------


async def test_a_connect_its_session_and_its_qr_code_in_every_form(port: Any) -> None:
    async with port() as asked:
        answer = await asked.ask("POST", "/v1/sessions/demo/connect")
        is_well_made(answer)
        assert answer.json["status"] == "awaiting_scan"
        assert answer.json["qr"]["text"] == QR
        shown = (await asked.ask("GET", "/v1/sessions/demo")).json
        assert shown["attempt"] == answer.json["attempt"]
        assert [s["client"] for s in (await asked.ask("GET", "/v1/sessions")).json["sessions"]] == ["demo"]

        async def qr(accept: str | None) -> Answer:
            headers = {} if accept is None else {"Accept": accept}
            found: Answer = await asked.ask("GET", "/v1/sessions/demo/qr", **headers)
            return found

        for accept in (
            None,
            "*/*",
            "application/json",
            "application/*",
            "text/html, */*;q=0.1",
            "APPLICATION/JSON",
            "text/plain;q=0.2, application/json;q=0.9",
            "image/png;q=0, application/json",
        ):
            answer = await qr(accept)
            assert (answer.status, answer.json["text"]) == (200, QR)
            assert answer.headers["Content-Type"].startswith("application/json")
            assert 0 <= answer.json["age_s"] < 60
        for accept in ("image/png", "image/avif,image/png;q=0.9", "image/*"):
            answer = await qr(accept)
            assert answer.headers["Content-Type"] == "image/png"
            assert decoded(answer.body) == QR
        answer = await qr("image/svg+xml")
        assert answer.headers["Content-Type"] == "image/svg+xml"
        assert b"<svg" in answer.body
        assert (await qr("application/json;q=0, text/*")).headers["Content-Type"].startswith("text/plain")
        answer = await qr("text/plain")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert {*"█▀▄ "} >= {*re.sub("\x1b\\[[0-9;]*m|\n", "", answer.body.decode())}
        for accept in ("image/gif", "text/html", "video/*, audio/*", "nonsense", ";;,,"):
            problem = is_problem(await qr(accept), 406, "not_acceptable")
            for known in ("application/json", "image/png", "image/svg+xml", "text/plain"):
                assert known in problem["detail"]

        answer = await asked.ask("POST", "/v1/sessions/demo/disconnect")
        assert answer.json["status"] == "stopped"
        problem = is_problem(await qr("image/png"), 404, "no_qr_code")
        assert problem["hint"] == "Start it: POST /v1/sessions/demo/connect"


async def test_a_connected_session_says_that_no_scan_is_needed(port: Any) -> None:
    async with port("connected") as asked:
        assert (await asked.ask("POST", "/v1/sessions/demo/connect?wait=connected")).json[
            "status"
        ] == "connected"
        problem = is_problem(await asked.ask("GET", "/v1/sessions/demo/qr"), 404, "no_qr_code")
        assert "no scan is needed" in problem["hint"]


async def test_a_code_that_is_a_typo_starts_nothing_and_drops_nothing(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        await asked.ask("POST", "/v1/sessions/demo/connect?wait=none")
        await asked.ask("POST", "/v1/sessions/demo2/connect?wait=none")
        for verb in ("restart", "cleanup", "disconnect"):
            answer = await asked.ask("POST", f"/v1/sessions/dmeo/{verb}")
            problem = is_problem(answer, 404, "session_not_found")
            assert problem["hint"].startswith("Did you mean demo"), verb
            assert "demo" in problem["close"]
        assert {view.client for view in asked.supervisor.views()} == {"demo", "demo2"}
        assert not (sessions_dir / "dmeo").exists()


async def test_a_clients_token_is_told_of_no_other_code(port: Any) -> None:
    async with port() as asked:
        await asked.ask("POST", "/v1/sessions/demo2/connect?wait=none")
        for verb in ("restart", "cleanup", "disconnect"):
            problem = is_problem(
                await asked.ask("POST", f"/v1/sessions/demo/{verb}", TOKEN), 404, "session_not_found"
            )
            assert "demo2" not in json.dumps(problem)


async def test_a_cleanup_can_be_asked_for_twice(port: Any) -> None:
    """Who has been here has left something: his code is no typo, whatever is still there."""
    async with port() as asked:
        await asked.ask("POST", "/v1/sessions/demo/connect")
        for outcomes in ({"done"}, {"nothing"}):
            answer = await asked.ask("POST", "/v1/sessions/demo/cleanup")
            assert (answer.status, answer.json["ok"]) == (200, True)
            (profile,) = (step for step in answer.json["steps"] if step["step"] == "profile")
            assert profile["outcome"] in outcomes
        assert (await asked.ask("GET", "/v1/sessions/demo")).status in {200, 404}


async def test_a_session_that_is_stopped_has_no_page_to_be_shown(port: Any) -> None:
    async with port() as asked:
        await asked.ask("POST", "/v1/sessions/demo/connect")
        await asked.ask("POST", "/v1/sessions/demo/disconnect")
        problem = is_problem(await asked.ask("GET", "/v1/sessions/demo/screenshot"), 409, "no_page")
        assert problem["hint"] == "Start it: POST /v1/sessions/demo/connect"
        assert "it is stopped" in problem["detail"]


async def test_a_cleanup_tells_its_steps(port: Any) -> None:
    async with port() as asked:
        await asked.ask("POST", "/v1/sessions/demo/connect")
        answer = await asked.ask("POST", "/v1/sessions/demo/cleanup")
        report = answer.json
        assert (report["client"], report["ok"]) == ("demo", True)
        assert [step["step"] for step in report["steps"]] == [
            "memory",
            "browser",
            "tree",
            "profile",
            "values",
            "files",
            "lock",
        ]
        assert all(set(step) == {"step", "outcome", "ms", "detail"} for step in report["steps"])


async def test_alive_and_ready_are_open_to_all(port: Any) -> None:
    async with port() as asked:
        for path in ("/livez", "/readyz"):
            for method in ("GET", "HEAD"):
                answer = await asked.ask(method, path, None)
                assert answer.status == 200
                is_well_made(answer)
            assert (await asked.ask("GET", path, "wrong")).json == {"status": "ok"}
        asked.supervisor.ready = False
        answer = await asked.ask("GET", "/readyz", None)
        assert (answer.status, answer.json) == (503, {"status": "not ready", "reasons": ["not_ready"]})
        assert (await asked.ask("GET", "/livez", None)).status == 200
        problem = is_problem(await asked.ask("POST", "/v1/sessions/demo/connect"), 503, "not_ready")
        assert problem["retry_after_s"] == 1


async def test_a_stage_that_is_missed_is_named(port: Any) -> None:
    async with port(
        "never-ready", deadlines={"start": 0.2, "close": 0.2}, restart={"base_s": 30.0, "max_s": 30.0}
    ) as asked:
        answer = await asked.ask("POST", "/v1/sessions/demo/connect")
        problem = is_problem(answer, 504, "deadline_exceeded")
        assert (problem["stage"], problem["deadline_s"]) == ("start", 0.2)
        assert "deadlines.start" in problem["hint"]
        answer = await asked.ask("POST", "/v1/sessions/demo2/connect?timeout_s=0.05")
        problem = is_problem(answer, 504, "deadline_exceeded")
        assert problem["deadline_s"] == 0.05


async def test_a_screenshot_that_does_not_come_names_the_setting_of_its_deadline(port: Any) -> None:
    async with port("not-drawn", page={"read_s": 0.3}) as asked:
        await asked.ask("POST", "/v1/sessions/demo/connect")
        answer = await asked.ask("GET", "/v1/sessions/demo/screenshot")
        problem = is_problem(answer, 504, "deadline_exceeded")
        assert problem["deadline_s"] == 0.3
        assert (
            problem["hint"]
            == "If this machine is slow rather than stuck, raise page.read_s in the configuration."
        )


async def test_a_browser_that_fails_is_a_bad_gateway_with_its_last_words(port: Any) -> None:
    async with port("dies-at-once", restart={"base_s": 30.0, "max_s": 30.0}) as asked:
        problem = is_problem(await asked.ask("POST", "/v1/sessions/demo/connect"), 502, "browser_failed")
        assert any("display of my dreams" in line for line in problem["stderr"])


# --- the old routes -----------------------------------------------------------------------------------------------

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def is_old(answer: Answer, status: int, expected: dict[str, Any]) -> None:
    """Exactly these keys, in this order, and the time."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    is_well_made(answer)
    found = answer.json
    if status == 200:
        assert re.fullmatch(STAMP, found["timestamp"])
        expected = {**expected, "timestamp": found["timestamp"]}
    assert list(found.items()) == list(expected.items())


async def test_the_old_connect_and_cleanup(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        old = {"clientCode": "demo2", "force": True}
        answer = await asked.ask("POST", "/api/whatsapp/connect", TOKEN, body=json.dumps(old).encode())
        waiting = {
            "success": True,
            "message": "Cliente inicializado, esperando QR",
            "status": "initializing",
            "hasQR": True,
        }
        is_old(answer, 200, waiting)
        assert [view.client for view in asked.supervisor.views()] == ["demo"], "the code is the token's"
        answer = await asked.ask("POST", "/api/whatsapp/force-cleanup", TOKEN, body=b"not even JSON")
        cleaned = {"success": True, "message": "Sesión limpiada completamente", "clientCode": "demo"}
        is_old(answer, 200, cleaned)
        assert asked.supervisor.view(DEMO).status.value == "stopped"
        is_old(
            await asked.ask("POST", "/api/whatsapp/force-cleanup", TOKEN2),
            200,
            {**cleaned, "clientCode": "demo2"},
        )


async def test_the_old_connect_of_one_that_is_connected(port: Any) -> None:
    async with port("connected") as asked:
        answer = await asked.ask("POST", "/api/whatsapp/connect", TOKEN)
        is_old(
            answer,
            200,
            {"success": True, "message": "Cliente ya conectado", "status": "connected", "hasQR": False},
        )


async def test_the_old_errors(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with port("dies-at-once", restart={"base_s": 30.0, "max_s": 30.0}) as asked:
        for path in ("connect", "force-cleanup"):
            answer = await asked.ask("POST", f"/api/whatsapp/{path}")
            said = "El token no permite esta operación. Use el token propio del cliente: waguard token CODE"
            is_old(answer, 403, {"success": False, "message": said, "error": "forbidden"})
        for answer, status, code in (
            (await asked.ask("POST", "/api/whatsapp/connect", None), 401, "unauthorized"),
            (await asked.ask("POST", "/api/whatsapp/connect", TOKEN, Host="evil"), 403, "host_not_allowed"),
            (await asked.ask("GET", "/api/whatsapp/connect", TOKEN), 405, "method_not_allowed"),
            (await asked.ask("POST", "/api/whatsapp/nothing", TOKEN), 404, "not_found"),
            (await asked.ask("POST", "/api/whatsapp/connect", TOKEN), 502, "browser_failed"),
        ):
            is_old(answer, status, {"success": False, "message": compat.SPANISH[code], "error": code})
        monkeypatch.setattr(
            asked.supervisor._config.limits,
            "__dict__",
            {**vars(asked.supervisor._config.limits), "session_memory_mb": 10**9},
        )
        answer = await asked.ask("POST", "/api/whatsapp/connect", TOKEN2)
        is_old(answer, 503, {"success": False, "message": compat.SPANISH["no_memory"], "error": "no_memory"})
        assert answer.headers["Retry-After"] == "60"


def test_every_error_has_a_spanish_sentence() -> None:
    assert compat.SPANISH.keys() >= {code for code, kind in BY_CODE.items() if kind.http}
    assert len({*compat.SPANISH.values()}) == len(compat.SPANISH)
    for code, sentence in compat.SPANISH.items():
        assert re.fullmatch(r"[A-ZÁÉÍÓÚÑ].*(\.|CODE)", sentence), code
        assert not {"the", "is", "not", "session"} & {*sentence.lower().split()}, code


# --- hints ----------------------------------------------------------------------------------------------------------

SAID = [
    ("Start it: waguard connect demo", "Start it: POST /v1/sessions/demo/connect"),
    ("waguard connect demo --fresh.", "POST /v1/sessions/demo/connect?fresh=true."),
    ("See: waguard status A-_9, or wait", "See: GET /v1/sessions/A-_9, or wait"),
    ("waguard restart CODE. The login is kept.", "POST /v1/sessions/CODE/restart. The login is kept."),
    ("See which there are: waguard snapshots demo", "See which there are: GET /v1/sessions/demo/snapshots"),
    ("waguard snapshot demo", "POST /v1/sessions/demo/snapshots"),
]


@pytest.mark.parametrize(("shell", "http"), SAID)
def test_a_hint_is_a_request_over_http_and_a_command_in_a_shell(shell: str, http: str) -> None:
    assert words.in_http(shell) == http
    assert words.in_shell(http) == shell
    assert words.in_http(http) == http
    assert words.in_shell(shell) == shell


@pytest.mark.parametrize(
    "text",
    ["Run: waguard doctor", "waguard token", "waguard status", "GET /v1/sessions", "waguard is not here"],
)
def test_what_has_no_request_stays(text: str) -> None:
    assert (words.in_http(text), words.in_shell(text)) == (text, text)


def test_whatever_a_hint_of_the_daemons_says_is_a_request_or_for_its_host() -> None:
    """A verb that is not known to `words` would reach callers over HTTP as a command."""
    root = Path(problems.__file__).parent.parent
    for_the_host = {"doctor", "token", "webhook", "settings", "run", "install", "status", "import"}
    for path in root.rglob("*.py"):
        if path.is_relative_to(root / "cli") or path == Path(words.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                # What stands in for a value is a code, or the like.
                said = re.sub(r"\{.*?\}", "CODE", ast.unparse(node.value))
                left = set(re.findall(r"\bwaguard ([a-z]+)", words.in_http(said)))
                assert left <= {*for_the_host, "set", "has"}, (path, said)


# --- when to try again ---------------------------------------------------------------------------------------------


def is_the_rest(answer: Answer, next_try_s: float | None) -> int:
    """That the header, the details and the session say the same; returns the seconds."""
    assert next_try_s is not None
    seconds = int(answer.headers["Retry-After"])
    if "retry_after_s" in answer.json:  # not in the old CRM's form
        assert answer.json["retry_after_s"] == seconds
    assert next_try_s <= seconds <= next_try_s + 5, "it was asked a moment later"
    return seconds


@pytest.mark.parametrize(
    ("path", "token"), [("/v1/sessions/demo/connect", ADMIN), ("/api/whatsapp/connect", TOKEN)]
)
async def test_a_session_that_failed_says_when_it_is_tried_again(port: Any, path: str, token: str) -> None:
    """Not the cool-down: the budget has to have room for one more, too."""
    restart = {"budget": 1, "window_s": 500.0, "base_s": 0.01, "max_s": 0.01, "cooldown_s": 20.0}
    async with port("dies-at-once", restart=restart) as asked:
        async with asyncio.timeout(20):
            while (answer := await asked.ask("POST", path, token)).status != 503:
                await asyncio.sleep(0.01)
        assert answer.json.get("code", answer.json.get("error")) == "session_failed"
        assert 400 < is_the_rest(answer, asked.supervisor.view(DEMO).next_try_s) <= 500


async def test_what_a_failure_said_of_when_was_so_when_it_came(port: Any) -> None:
    """A breaker that opened a while ago closes so much sooner."""
    async with port() as asked:
        session = asked.supervisor._wanted(DEMO)
        error = BreakerOpen("No browser is started now.", retry_after_s=300)
        session.state = replace(session.state, wanted=Wanted.UP, process=Process.BACKOFF)
        session._next_try = time.monotonic() + 40
        told = outcome_of(session, Failure.of(error, Stage.ADMIT))
        assert told.details["retry_after_s"] == 40
        session._next_try = time.monotonic() - 1
        assert outcome_of(session, Failure.of(error)).details["retry_after_s"] == 1
        session.state = replace(session.state, wanted=Wanted.DOWN)
        assert "retry_after_s" not in outcome_of(session, Failure.of(error)).details


def test_less_than_a_second_is_not_at_once() -> None:
    assert problems.headers_of(LimitReached("No more.", retry_after_s=0.3)) == {"Retry-After": "1"}
    assert problems.headers_of(LimitReached("No more.", retry_after_s=2)) == {"Retry-After": "2"}
    assert problems.headers_of(LimitReached("No more.")) == {}


# --- no room ------------------------------------------------------------------------------------------------------


async def test_no_memory_for_one_more(port: Any, sessions_dir: Path) -> None:
    async with port(limits={"session_memory_mb": 10**9}) as asked:
        before = snapshot(sessions_dir)
        for query in ("", "?fresh=true"):
            answer = await asked.ask("POST", f"/v1/sessions/demo/connect{query}")
            problem = is_problem(answer, 503, "no_memory")
            assert answer.headers["Retry-After"] == "60"
            assert "MiB of memory are free" in problem["detail"]
            assert "limits.session_memory_mb" in problem["hint"]
        assert snapshot(sessions_dir) == before


async def test_no_disk_for_one_more(port: Any, sessions_dir: Path) -> None:
    limits = {"reserve_memory_mb": 0, "session_memory_mb": 0, "reserve_disk_mb": 10**9}
    async with port(limits=limits) as asked:
        before = snapshot(sessions_dir)
        problem = is_problem(await asked.ask("POST", "/v1/sessions/demo/connect"), 507, "disk_full")
        assert "limits.reserve_disk_mb = 1000000000" in problem["detail"]
        assert snapshot(sessions_dir) == before


async def test_no_more_sessions_than_allowed_and_those_that_are_up_go_on(port: Any) -> None:
    limits = {"reserve_memory_mb": 0, "session_memory_mb": 0, "reserve_disk_mb": 0, "max_sessions": 1}
    async with port(limits=limits) as asked:
        assert (await asked.ask("POST", "/v1/sessions/demo/connect")).status == 200
        answer = await asked.ask("POST", "/v1/sessions/demo2/connect")
        problem = is_problem(answer, 503, "no_memory")
        assert "limits.max_sessions" in problem["detail"]
        assert "Retry-After" in answer.headers
        assert (await asked.ask("POST", "/v1/sessions/demo/connect")).json["status"] == "awaiting_scan"
        await asked.ask("POST", "/v1/sessions/demo/disconnect")
        assert (await asked.ask("POST", "/v1/sessions/demo2/connect")).status == 200


async def test_callers_at_the_same_time_do_not_get_past_the_limit(port: Any) -> None:
    limits = {"reserve_memory_mb": 0, "session_memory_mb": 0, "reserve_disk_mb": 0, "max_sessions": 2}
    async with port(limits=limits) as asked:
        answers = await asyncio.gather(*(asked.ask("POST", f"/v1/sessions/c{n}/connect") for n in range(6)))
        assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503, 503]


# --- the end ------------------------------------------------------------------------------------------------------


async def test_whoever_waits_while_it_shuts_down_is_told(port: Any) -> None:
    async with port("never-ready", deadlines={"close": 0.2}) as asked:
        waiting = [
            asyncio.create_task(asked.ask("POST", f"/v1/sessions/{code}/connect"))
            for code in ("demo", "demo", "demo2")
        ]
        while len(asked.supervisor.views()) < 2:
            await asyncio.sleep(0)
        asked.supervisor.refuse()
        async with asyncio.timeout(10):
            for task in waiting:
                is_problem(await task, 503, "shutting_down")
            for verb in ("connect", "restart", "cleanup"):
                is_problem(await asked.ask("POST", f"/v1/sessions/demo3/{verb}"), 503, "shutting_down")
        assert (await asked.ask("GET", "/readyz", None)).status == 503
        assert (await asked.ask("GET", "/livez", None)).status == 200
        assert (await asked.ask("GET", "/v1/sessions")).status == 200


async def test_the_daemon_ends_in_the_middle_of_connects(port: Any) -> None:
    opened = port("never-ready", deadlines={"close": 0.2})
    asked = await opened.__aenter__()
    waiting = [asyncio.create_task(asked.ask("POST", f"/v1/sessions/c{n}/connect")) for n in range(3)]
    while len(asked.supervisor.views()) < 3:
        await asyncio.sleep(0)
    # The caller's own connections end first when the block is left, so the daemon is ended by itself.
    asked.supervisor.refuse()
    for task in waiting:
        is_problem(await task, 503, "shutting_down")
    await opened.__aexit__(None, None, None)


# --- secrets --------------------------------------------------------------------------------------------------------


async def test_no_token_and_no_qr_code_is_in_any_log_line(port: Any, journal: Journal) -> None:
    written = io.StringIO()
    journal.bus.subscribe(logs.configure(Log(level="debug", format="json"), written))
    async with port() as asked:
        for token in (ADMIN, TOKEN, TOKEN2, "wrong-wrong-wrong", None):
            for method, path in PEACEFUL:
                await asked.ask(method, path, token)
        await asked.ask("POST", "/v1/sessions/demo/connect", TOKEN)
        for accept in ("application/json", "image/png", "text/plain"):
            await asked.ask("GET", "/v1/sessions/demo/qr", TOKEN, Accept=accept)
        await asked.ask("GET", f"/{ADMIN}")
        await asked.ask("POST", f"/v1/sessions/demo/connect?{TOKEN}=1")
        await asked.ask("POST", f"/v1/sessions/{ADMIN}/connect%20", TOKEN)
        await asked.ask("POST", "/v1/sessions/demo/connect", ADMIN, Host=TOKEN2)
        await asked.ask("POST", "/v1/sessions/demo/cleanup")
    lines = written.getvalue()
    assert len(lines.splitlines()) == len(journal.events) > 50
    for line in lines.splitlines():
        assert json.loads(line)["event"]
    told = lines + "".join(repr(event) for event in journal.events)
    for secret in (ADMIN, TOKEN, TOKEN2, "wrong-wrong-wrong", QR, "2@posing", "Bearer"):
        assert secret not in told
    ids = {json.loads(line).get("request") for line in lines.splitlines() if "request.done" in line}
    assert asked.ids <= ids, "what a caller was told is found in the log"


async def test_the_log_tells_who_asked_about_whom_and_whose_event_it_is(port: Any, journal: Journal) -> None:
    written = io.StringIO()
    journal.bus.subscribe(logs.configure(Log(level="debug", format="json"), written))
    async with port() as asked:
        await asked.ask("POST", "/v1/sessions/demo/connect", TOKEN)
        await asked.ask("GET", "/v1/sessions/demo")
        await asked.ask("GET", "/v1/sessions/nobody")
        await asked.ask("POST", "/v1/sessions/demo/cleanup")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    done = [line for line in lines if line["event"] == "request.done"]
    assert [(line["level"], line["client"], line["caller"]) for line in done] == [
        ("info", "demo", "demo"),
        ("debug", "demo", "admin"),
        ("info", "nobody", "admin"),
        ("info", "demo", "admin"),
    ]
    of_session = [line for line in lines if line.get("client") == "demo" and line not in done]
    assert of_session
    wishes = {line["request"] for line in done if line["method"] == "POST"}
    for line in of_session:  # a session outlives the request that made it: only what that has caused is its
        assert line.get("request") in (wishes if EVENTS[line["event"]].asked else {None}), line
    assert not [line for line in of_session if line["event"] == "stage.done" and "request" in line]
    up = next(line for line in of_session if line["event"] == "session.changed" and line["process"] == "up")
    assert {"attempt", "pid", "duration_ms"} <= up.keys()


async def test_a_caller_that_hangs_up_is_not_waited_for(port: Any, journal: Journal) -> None:
    async with port("never-ready", deadlines={"close": 0.2}) as asked:
        asking = asyncio.create_task(asked.ask("POST", "/v1/sessions/demo/connect"))
        while not journal.named("browser.spawned"):
            await asyncio.sleep(0.01)
        asking.cancel()
        async with asyncio.timeout(5):
            while not journal.named("request.done"):
                await asyncio.sleep(0.01)
        (done,) = journal.named("request.done")
        assert done.fields["http_status"] == 499
        assert (await asked.ask("GET", "/v1/sessions/demo")).json["process"] == "starting"


async def test_what_was_only_asked_about_is_not_listed(port: Any) -> None:
    limits = {"reserve_memory_mb": 10**9, "session_memory_mb": 0, "reserve_disk_mb": 0}
    async with port(limits=limits) as asked:
        is_problem(await asked.ask("POST", "/v1/sessions/demo/connect"), 503, "no_memory")
        is_problem(await asked.ask("POST", "/v1/sessions/demo2/cleanup"), 404, "session_not_found")
        assert (await asked.ask("GET", "/v1/sessions")).json["sessions"] == []
        is_problem(await asked.ask("GET", "/v1/sessions/demo"), 404, "session_not_found")


async def test_the_admin_is_told_in_what_browsers_are_started(
    port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bubblewrap, "find", staticmethod(lambda: None))
    async with port(sandbox={"kind": "auto"}) as asked:
        told = (await asked.ask("GET", "/v1/sessions")).json["sandbox"]
        assert told == {"kind": "plain", "problem": "bubblewrap is not installed."}
        assert "sandbox" not in (await asked.ask("GET", "/v1/sessions", TOKEN)).json
    async with port(sandbox={"kind": "plain"}) as asked:
        told = (await asked.ask("GET", "/v1/sessions")).json["sandbox"]
        assert told == {"kind": "plain", "problem": ""}


async def test_answers_tell_no_tokens(port: Any) -> None:
    async with port() as asked:
        for method, path in PEACEFUL:
            for token in (ADMIN, TOKEN, TOKEN2, "wrong-wrong-wrong"):
                answer = await asked.ask(method, path, token)
                assert token not in answer.body.decode("utf-8", "replace") + str(answer.headers)


# --- what a client's token is told of the daemon's host ---------------------------------------------------------------

SLASHES = "2@a/bc/d,/e/f/g==,/h/i,1"


def spoiled(told: Any, with_: str) -> Any:
    """The same, and every text that the daemon writes itself says that too."""
    if isinstance(told, StrEnum | QrView):
        return told
    if isinstance(told, str):
        return f"{told} {with_}"
    if isinstance(told, list | tuple):
        return [spoiled(one, with_) for one in told]
    if is_dataclass(told) and not isinstance(told, type):
        named = {one.name: getattr(told, one.name) for one in fields(told)}
        return replace(
            told,
            **{name: spoiled(one, with_) for name, one in named.items() if name not in {"id", "client"}},
        )
    return {key: spoiled(one, with_) for key, one in told.items()} if isinstance(told, Mapping) else told


WORDLESS = ("/qr", "/values")
"""Routes whose answer has no text of the daemon's."""


async def test_no_answer_to_a_clients_token_names_a_path_of_the_daemons(
    port: Any, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = (
        f"{sessions_dir}/demo/session.json:{sessions_dir}/.locks/demo ('{sessions_dir}/x', file://{sessions_dir}/y) "
        f"--user-data-dir={sessions_dir}/z; /etc/waguard/config.toml, [/usr/lib/chromium/chromium]."
    )
    async with port() as asked:
        await asked.ask("POST", "/v1/sessions/demo/connect", TOKEN)
        supervisor = asked.supervisor
        session = replace(
            supervisor.view(DEMO),
            qr=QrView(SLASHES, 1.0, 2.0),
            failure=FailureView("storage_failed", "No:", "profile", "Do:"),
            finding=FindingView(Fault.BROWSER_HUNG, ["seen:"], None, [], 1.0, None),
            check=CheckView(Verdict.DAMAGED, "Why:"),
        )
        snapshot = SnapshotView("1", "demo", 1.0, "request", True, False, True, "1.2", "g", 9)
        happening = Happening(1, 1.0, "demo", "health.finding", {"evidence": ["seen:"], "why": "So:"})
        cleanup = CleanupView("demo", ok=False, steps=[Step("retire", "failed", detail="No:")], ms=1.0)
        answers: dict[str, object] = {
            **dict.fromkeys(("view", "connect", "restart", "disconnect", "restore", "undo"), session),
            **dict.fromkeys(("check_snapshot", "snapshot", "bring"), snapshot),
            "views": [session],
            "snapshots": [snapshot],
            "cleanup": cleanup,
            "qr": session.qr,
        }
        for name, told in answers.items():
            answer = Mock if name in {"view", "views", "qr"} else AsyncMock
            monkeypatch.setattr(supervisor, name, answer(return_value=spoiled(told, places)))
        for name in ("happened", "findings"):
            told = spoiled([happening], places)
            monkeypatch.setattr(supervisor.history, name, AsyncMock(return_value=told))

        words = ("product", "protocolVersion", "userAgent", "jsVersion", "revision")
        version = AsyncMock(return_value=dict.fromkeys(words, f"It: {places}"))
        monkeypatch.setattr(supervisor, "browser_version", version)
        monkeypatch.setattr(supervisor, "page_target", AsyncMock(return_value=("T", f"At: {places}")))

        for route in routes.ROUTES:
            path = route.path.replace("{code}", "demo").replace("{id}", "1")
            if (
                route.view is bytes
                or route.scope is Scope.OPEN
                or route.about is About.OWN
                or path == "/v1/reap"
            ):
                continue
            # What they answer is a code and a time, or names that others have given: tests/test_file_name.py.
            if (
                path.endswith(("/pairing-code", "/tickets", "/settings"))
                or "loads" in path
                or "/values/" in path
                or path.startswith(("/v1/tokens", "/v1/webhooks"))
                or path in {"/v1/events", "/v1/openapi.json"}  # tests/test_events.py; the same for everybody
            ):
                continue
            admins = await asked.ask(route.method, path)
            answer = await asked.ask(route.method, path, TOKEN)
            if route.about is About.EVERY:
                is_problem(answer, 403, "forbidden")
                continue
            assert (admins.status, answer.status) == (200, 200), (path, answer.body)
            told = answer.body.decode()
            assert not [one for one in (str(sessions_dir), "/etc/", "/usr/") if one in told], (path, told)
            if not path.endswith(WORDLESS):
                assert str(sessions_dir) in admins.body.decode(), path
                assert (
                    ".../session.json:.../demo ('.../x', .../y) --user-data-dir=.../z; .../config.toml, [.../chromium]."
                    in told
                )
            if '"qr"' in told or path.endswith("/qr"):
                assert SLASHES in told, path


# --- the tokens' file -------------------------------------------------------------------------------------------------


@pytest.fixture
def config(sessions_dir: Path) -> Config:
    sessions_dir.mkdir()
    return Config(sessions=Sessions(dir=sessions_dir), api=Api(clients=["demo", "demo2"]))


def test_tokens_are_made_once_and_kept_to_ourselves(config: Config) -> None:
    path = config.sessions.dir / configured.FILE
    configured.load(config)
    first = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    made = json.loads(first)
    assert set(made) == {"admin", "clients"}
    assert set(made["clients"]) == {"demo", "demo2"}
    assert len({made["admin"], *made["clients"].values()}) == 3
    assert min(len(token) for token in (made["admin"], *made["clients"].values())) >= 43
    tokens = configured.load(config)
    assert path.read_bytes() == first, "they are not made anew"
    caller = tokens.caller(made["admin"])
    assert caller is not None
    assert caller.client is None
    caller = tokens.caller(made["clients"]["demo2"])
    assert caller is not None
    assert caller.client == "demo2"
    assert caller.may_see(ClientCode("demo2"))
    assert not caller.may_see(DEMO)


def test_a_code_that_is_added_gets_a_token_and_the_others_keep_theirs(config: Config) -> None:
    path = config.sessions.dir / configured.FILE
    configured.load(config)
    before = json.loads(path.read_bytes())
    configured.load(config.model_copy(update={"api": Api(clients=["demo3"])}))
    after = json.loads(path.read_bytes())
    assert after["admin"] == before["admin"]
    assert after["clients"].items() > before["clients"].items()
    assert "demo3" in after["clients"]


def test_tokens_of_the_configuration_replace_those_of_the_file(config: Config) -> None:
    configured.load(config)
    made = json.loads((config.sessions.dir / configured.FILE).read_bytes())
    api = Api(admin_token=SecretStr(ADMIN), client_tokens={"demo": SecretStr(TOKEN)})
    tokens = configured.load(config.model_copy(update={"api": api}))
    for token, client in ((ADMIN, None), (TOKEN, "demo"), (made["clients"]["demo2"], "demo2")):
        caller = tokens.caller(token)
        assert caller is not None
        assert caller.client == client
    for token in (made["admin"], made["clients"]["demo"], "", "\udcff"):
        assert tokens.caller(token) is None
    assert ADMIN not in repr(vars(tokens))


def test_a_token_of_the_configuration_that_is_somebody_elses_in_the_file_is_refused(config: Config) -> None:
    """Else a client's would be the admin's, or another client's."""
    configured.load(config)
    made = json.loads((config.sessions.dir / configured.FILE).read_bytes())
    for theirs in (made["admin"], made["clients"]["demo2"]):
        api = Api(client_tokens={"demo": SecretStr(theirs)})
        with pytest.raises(ConfigError, match="for somebody else") as caught:
            configured.load(config.model_copy(update={"api": api}))
        assert theirs not in str(caught.value)


def test_an_empty_token_is_nobodys_even_if_one_were_known() -> None:
    assert configured.ConfiguredTokens({"": None}).caller("") is None


def test_an_empty_directory_of_credentials_is_not_none(config: Config) -> None:
    """Else new tokens and keys would be made beside those that were meant."""
    with pytest.raises(StorageFailed, match="CREDENTIALS_DIRECTORY, which is empty"):
        configured.load(config, environ={"CREDENTIALS_DIRECTORY": ""})


def test_tokens_of_a_credential_are_taken_as_they_are(config: Config, tmp_path: Path) -> None:
    place = tmp_path / "credentials"
    place.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(place)}
    configured.load(config, environ=environ)  # it has others
    (config.sessions.dir / configured.FILE).unlink()
    given = {"admin": ADMIN, "clients": {"demo": TOKEN}}
    credential = place / configured.CREDENTIAL
    credential.write_text(json.dumps(given))
    credential.chmod(0o440)
    with pytest.raises(ConfigError, match="no token of demo2"):
        configured.load(config, environ=environ)
    tokens = configured.load(config.model_copy(update={"api": Api(clients=["demo"])}), environ=environ)
    caller = tokens.caller(TOKEN)
    assert caller is not None
    assert caller.client == "demo"
    assert not (config.sessions.dir / configured.FILE).exists()
    assert json.loads(credential.read_text()) == given


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777, 0o601])
def test_tokens_that_others_may_read_are_refused(config: Config, mode: int) -> None:
    configured.load(config)
    path = config.sessions.dir / configured.FILE
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        configured.load(config)
    assert f"(mode {mode:o})" in str(caught.value)
    assert caught.value.hint == f"chmod 600 {path}"
    assert path.stat().st_mode & 0o777 == mode, "it is not mended behind the admin's back"
    closed: list[str] = []
    configured.load(config, closed=closed.append)
    assert closed == [f"{path}: others could read it (mode {mode:o}), and cannot any more."]
    assert path.stat().st_mode & 0o777 == 0o600
    configured.load(config)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"admin"',
        b"\xff",
        b'{"admin": "0123456789abcdef"}',
        b'{"admin": 5, "clients": {}}',
        b'{"admin": "0123456789abcdef", "clients": []}',
        b'{"admin": "0123456789abcdef", "clients": {"demo": null}}',
        b'{"admin": "0123456789abcdef", "clients": {"a b": "0123456789abcdeg"}}',
        b'{"admin": "", "clients": {}}',
        b'{"admin": "short", "clients": {}}',
        b'{"admin": "0123456789abcdef", "clients": {"demo": ""}}',
        b'{"admin": "0123456789abcdef", "clients": {"demo": "0123456789abcdef"}}',
    ],
)
def test_a_tokens_file_that_cannot_be_understood_is_refused(config: Config, data: bytes) -> None:
    """An empty token would let in whoever sends none; two equal ones would make a client an admin."""
    path = config.sessions.dir / configured.FILE
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        configured.load(config)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == data
    for token in ("0123456789abcdef", "0123456789abcdeg"):
        assert token not in str(caught.value)


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_a_mistake_in_an_answer_that_is_under_way_breaks_it_off(
    port: Any, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes for whole what is half, nor for a part of it what is an error."""
    async with port("connected", snapshots={"settle_s": 0.05}) as asked:
        await asked.supervisor.connect(DEMO)
        path = f"/v1/sessions/demo/snapshots/{(await asked.supervisor.snapshot(DEMO)).id}"
        monkeypatch.setattr(snapshots, "PIECE", 64)
        pieces = [b"a" * 64, b"b" * 64]

        @asynccontextmanager
        async def breaking(*_: Any, **__: Any) -> AsyncIterator[Any]:
            yield Mock(read=lambda _: pieces.pop(0))

        monkeypatch.setattr(asked.supervisor, "snapshot_stream", breaking)
        with pytest.raises(aiohttp.ClientError):
            await asked.ask("GET", path)
        assert not pieces
        (event,) = journal.named("internal.error")
        assert (event.fields["error"], event.client) == ("IndexError('pop from empty list')", "demo")
        assert "in export" in event.fields["trace"]
        journal.events.remove(event)
        async with asyncio.timeout(5):
            while "/v1/sessions/{code}/snapshots/{id}" not in str(journal.named("request.done")[-1].fields):
                await asyncio.sleep(0.01)
        assert journal.named("request.done")[-1].fields["http_status"] == 500


async def test_a_mistake_of_ours_is_answered_and_told_to_the_log(port: Any, journal: Journal) -> None:
    async with port() as asked:

        def broken() -> None:
            raise ZeroDivisionError("a secret detail")

        asked.supervisor.views = broken
        answer = await asked.ask("GET", "/v1/sessions")
        problem = is_problem(answer, 500, "internal")
        assert "secret" not in answer.body.decode()
        assert problem["request"] == answer.headers["X-Request-Id"]
        (event,) = journal.named("internal.error")
        assert "ZeroDivisionError" in event.fields["error"]
        assert "in broken" in event.fields["trace"]
        journal.events.remove(event)


async def test_a_mistake_of_ours_on_the_old_routes_is_told_to_the_log_too(
    port: Any, journal: Journal
) -> None:
    async with port() as asked:

        async def broken(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        asked.supervisor.connect = broken
        answer = await asked.ask("POST", "/api/whatsapp/connect", TOKEN)
        assert (answer.status, answer.json["error"]) == (500, "internal")
        (event,) = journal.named("internal.error")
        assert event.client == "demo"
        assert "in broken" in event.fields["trace"]
        journal.events.remove(event)
