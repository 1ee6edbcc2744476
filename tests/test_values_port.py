"""Values that apps keep with a session, over HTTP and in the command line: exactly what came, who may, and what ends them."""

import asyncio
import gzip
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from clients import DEMO, DEMO2
from commands import ADMIN as ADMIN_OF_COMMANDS
from commands import Port as CommandPort
from commands import always, call, store_tokens
from conftest import Daemon, Journal, deleted
from control_port import API, TOKEN, TOKEN2, Answer, Port, is_problem, is_well_made
from trees import snapshot, tree
from waiting import until

from waguard.api import problems
from waguard.core.shown import ValueDeleted, ValueList, ValueView
from waguard.core.values import MOST_BYTES, Value
from waguard.errors import NoMemory, NoSuchValue
from waguard.session.value_files import ValueFiles, name_of
from waguard.supervisor.supervisor import Supervisor

VALUES = "/v1/sessions/demo/values"


@pytest.fixture
def port(pose: Daemon) -> Any:
    """Demo is known."""

    @asynccontextmanager
    async def opening(**sections: dict[str, Any]) -> AsyncIterator[Port]:
        async with (
            pose("connected", **{**sections, "api": {**API, **sections.get("api", {})}}) as (supervisor, url),
            aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http,
        ):
            await supervisor.connect(DEMO)
            yield Port(url, supervisor, http)

    return opening


async def put(port: Port, key: str, said: bytes = b"x", query: str = "", **headers: str) -> Answer:
    answer = await port.ask("PUT", f"{VALUES}/{key}{query}", TOKEN, body=said, **headers)
    assert answer.status == 200, answer.body
    return answer


async def get(port: Port, key: str, **headers: str) -> Answer:
    return await port.ask("GET", f"{VALUES}/{key}", TOKEN, **headers)


async def keys(port: Port) -> list[str]:
    return [one["key"] for one in (await port.ask("GET", VALUES, TOKEN)).json["values"]]


async def swept(supervisor: Supervisor, kind: str, *, dry_run: bool = False) -> list[tuple[str, str]]:
    found = await supervisor.reap(dry_run=dry_run)
    return [(one.subject, one.outcome) for one in found.findings if one.kind == kind]


def folder(sessions_dir: Path) -> Path:
    return sessions_dir / "demo" / "values"


def retired(sessions_dir: Path) -> list[Path]:
    return sorted((sessions_dir / ".retired").glob("demo.*.values"))


# --- what comes back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b'{"last": "3EB0C0FFEE"}', "application/json"),
        (b"\x00\xff\r\n\r\n" + bytes(range(256)), "application/octet-stream"),
        (b"", "text/plain; charset=utf-8"),
        (b"<script>alert(1)</script>", "text/html"),
        (b'{"detail": "no", "code": "internal"}', "application/problem+json"),
        (b"x" * MOST_BYTES, "image/png"),
    ],
)
async def test_what_was_put_comes_back_byte_for_byte_with_its_type(port: Any, said: bytes, kind: str) -> None:
    async with port() as asked:
        before = time.time()
        answer = await put(asked, "last:34600000001@c.us", said, Content_Type=kind)
        view = answer.json
        assert {**view, "written_at": 0, "etag": ""} == {
            "key": "last:34600000001@c.us",
            "type": kind,
            "bytes": len(said),
            "etag": "",
            "written_at": 0,
            "expires_at": None,
        }
        assert before - 1 < view["written_at"] < time.time() + 1
        assert answer.headers["ETag"] == view["etag"]
        for method, body in (("GET", said), ("HEAD", b"")):
            for key in ("last:34600000001@c.us", "last%3A34600000001%40c.us"):
                answer = await asked.ask(method, f"{VALUES}/{key}", TOKEN)
                assert (answer.status, answer.body) == (200, body)
                assert answer.headers["Content-Type"] == kind
                assert answer.headers.get("Content-Length", "0") == str(len(said))
                assert answer.headers["ETag"] == view["etag"]
                assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
                is_well_made(answer)
        listed = (await asked.ask("GET", VALUES, TOKEN)).json
        assert listed == {"values": [view], "bytes": len(said), "most_bytes": 1024 * 1024}


async def test_without_a_type_it_is_bytes_and_a_coding_is_taken_off(port: Any) -> None:
    async with port() as asked:
        assert (await put(asked, "a")).json["type"] == "application/octet-stream"
        await put(asked, "zipped", gzip.compress(b"said" * 100), Content_Encoding="gzip")
        assert (await get(asked, "zipped")).body == b"said" * 100
        bomb = gzip.compress(bytes(10 * 1024 * 1024))
        answer = await asked.ask("PUT", f"{VALUES}/bomb", body=bomb, Content_Encoding="gzip")
        is_problem(answer, 413, "value_too_large")
        assert await keys(asked) == ["a", "zipped"]


async def test_of_two_who_write_the_second_is_told(port: Any) -> None:
    async with port() as asked:
        first = (await put(asked, "a", b"1", If_None_Match="*")).headers["ETag"]
        answer = await asked.ask("PUT", f"{VALUES}/a", body=b"2", If_None_Match="*")
        problem = is_problem(answer, 412, "precondition_failed")
        assert problem["etag"] == first
        second = (await put(asked, "a", b"1", If_Match=first)).headers["ETag"]
        assert second != first, "also if it says the same"
        for method in ("PUT", "DELETE", "GET"):
            answer = await asked.ask(method, f"{VALUES}/a", TOKEN, If_Match=first)
            assert is_problem(answer, 412, "precondition_failed")["etag"] == second
        answer = await asked.ask("PUT", f"{VALUES}/none", body=b"2", If_Match="*")
        assert "etag" not in is_problem(answer, 412, "precondition_failed")
        answer = await get(asked, "a", If_None_Match=f'"other", W/{second}')
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", second)
        assert (await get(asked, "a", If_None_Match=first)).status == 200
        answer = await asked.ask("PUT", f"{VALUES}/a", body=b"2", If_Match="unquoted")
        is_problem(answer, 400, "invalid_request")
        assert (await get(asked, "a")).body == b"1"
        answer = await asked.ask("DELETE", f"{VALUES}/a", TOKEN, If_Match=f'"other", {second}')
        assert (answer.status, answer.json) == (200, {"deleted": "a"})
        is_problem(await asked.ask("DELETE", f"{VALUES}/a", TOKEN), 404, "no_such_value")


async def test_two_headers_of_a_name_are_one_list(port: Any) -> None:
    async with port() as asked:
        etag = (await put(asked, "a")).headers["ETag"]
        head = f"GET {VALUES}/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        answer = await asked.raw(f'{head}If-Match: "other"\r\nIf-Match: {etag}\r\n\r\n'.encode())
        assert answer is not None
        assert answer.status == 200


# --- what is refused ---------------------------------------------------------------------------------------------


async def test_what_is_refused_changes_nothing(port: Any, sessions_dir: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(20_000)

    async with port() as asked:
        await put(asked, "a", b"before")
        before = snapshot(folder(sessions_dir))
        for key in ("", "..", "a%2Fb", "%00", "_a", "x" * 129, "%ED%A0%80", "a%20b"):
            for method in ("GET", "PUT", "DELETE"):
                answer = await asked.ask(method, f"{VALUES}/{key}", TOKEN)
                assert "is no key" in is_problem(answer, 400, "invalid_request")["detail"]
        for query in ("?ttl_s=0", "?ttl_s=-1", "?ttl_s=nan", "?ttl_s=soon", "?ttl_s=1e12", "?tll_s=5"):
            answer = await asked.ask("PUT", f"{VALUES}/a{query}", body=b"after")
            assert "ttl_s" in is_problem(answer, 400, "invalid_request")["hint"]
        for kind in ("text", "text/plain;", "a/" + "b" * 300):
            answer = await asked.ask("PUT", f"{VALUES}/a", body=b"after", Content_Type=kind)
            assert "application/json" in is_problem(answer, 400, "invalid_request")["hint"]
        for body in (BytesIO(bytes(MOST_BYTES + 1)), pieces()):  # with its length, and without
            answer = await asked.ask("PUT", f"{VALUES}/a", body=body)
            assert "64 KiB" in is_problem(answer, 413, "value_too_large")["detail"]
        assert snapshot(folder(sessions_dir)) == before
        is_problem(await get(asked, "b"), 404, "no_such_value")


async def test_the_limit_of_other_bodies_is_none_of_values(port: Any) -> None:
    async with port(api={"max_body_kb": 1}) as asked:
        await put(asked, "a", bytes(MOST_BYTES))


async def test_a_client_has_a_mebibyte(port: Any) -> None:
    async with port() as asked:
        for number in range(16):
            await put(asked, str(number), bytes(MOST_BYTES))
        answer = await asked.ask("PUT", f"{VALUES}/more", TOKEN, body=b"x")
        problem = is_problem(answer, 409, "values_full")
        assert problem["hint"].endswith("GET /v1/sessions/demo/values")
        assert (await asked.ask("GET", VALUES, TOKEN)).json["bytes"] == 1024 * 1024
        await asked.supervisor.connect(DEMO2)
        assert (await asked.ask("PUT", "/v1/sessions/demo2/values/a", TOKEN2, body=b"x")).status == 200
        assert (await asked.ask("DELETE", f"{VALUES}/3", TOKEN)).status == 200
        await put(asked, "more")


async def test_a_client_that_nobody_knows_gets_no_directory(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        before = snapshot(sessions_dir)
        for method, path in (("PUT", "/a"), ("GET", "/a"), ("DELETE", "/a"), ("GET", "")):
            answer = await asked.ask(method, f"/v1/sessions/demo2/values{path}", TOKEN2)
            is_problem(answer, 404, "session_not_found")
        assert snapshot(sessions_dir) == before


async def test_a_clients_values_are_nobody_elses(port: Any) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO2)
        await put(asked, "a", b"demo's")
        for method, path in (("PUT", "/a"), ("GET", "/a"), ("DELETE", "/a"), ("GET", "")):
            is_problem(await asked.ask(method, f"{VALUES}{path}", TOKEN2), 403, "forbidden")
        is_problem(await asked.ask("GET", "/v1/sessions/demo2/values/a", TOKEN2), 404, "no_such_value")
        assert (await get(asked, "a")).body == b"demo's"


async def test_no_log_has_a_key_or_what_a_value_says(port: Any, sessions_dir: Path, journal: Journal) -> None:
    async with port() as asked:
        await put(asked, "k34600000001", b"s34600000002", "?ttl_s=1000")
        await get(asked, "k34600000001")
        (path,) = folder(sessions_dir).iterdir()
        path.with_name(f"{path.name}.0123abcd.partial").touch()
        path.write_bytes(path.read_bytes()[:-2])
        os.utime(path.with_name(f"{path.name}.0123abcd.partial"), (1, 1))
        assert await swept(asked.supervisor, "half_written") == [
            (f"demo/values/{path.name}.0123abcd.partial", "done")
        ]
        is_problem(await get(asked, "k34600000001"), 404, "no_such_value")
        await put(asked, "k34600000001", b"s34600000002")
        await asked.ask("DELETE", f"{VALUES}/k34600000001", TOKEN)
        await asked.supervisor.cleanup(DEMO)
    (told,) = journal.named("values.unreadable")
    assert (told.client, told.level, told.fields["actor"]) == ("demo", "error", "token:demo")
    written = [f"{event.name} {event.fields}" for event in journal.events]
    assert not [one for one in written if "34600000001" in one or "34600000002" in one]
    assert [one for one in written if "PUT" in one and "/values/{key}" in one]


# --- how long ----------------------------------------------------------------------------------------------------


async def test_they_outlive_browsers_and_daemons(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        await put(asked, "a", b"kept", Content_Type="text/plain")
        await put(asked, "soon", b"x", "?ttl_s=3600")
        before = (await asked.ask("GET", VALUES, TOKEN)).json
        assert before["values"][1]["expires_at"] - before["values"][1]["written_at"] == 3600
        for verb in ("restart", "disconnect", "connect?fresh=true"):
            assert (await asked.ask("POST", f"/v1/sessions/demo/{verb}", TOKEN)).status == 200
            assert (await asked.ask("GET", VALUES, TOKEN)).json == before
        await asked.supervisor.disconnect(DEMO)
    async with port() as asked:
        assert (await asked.ask("GET", VALUES, TOKEN)).json == before
        assert (await get(asked, "a")).body == b"kept"
        assert not retired(sessions_dir)


async def test_a_session_that_has_values_is_not_forgotten_when_a_connect_is_refused(pose: Daemon) -> None:
    """It has no login, and nothing else to be remembered for."""
    limits = {
        "reserve_memory_mb": 0,
        "session_memory_mb": 10**9,
        "reserve_disk_mb": 0,
        "memory_pressure": 0,
    }
    async with pose("qr") as (supervisor, _):
        await supervisor.connect(DEMO)
        with supervisor.values(DEMO) as values:
            await values.put("a", b"x", "text/plain")
        await supervisor.disconnect(DEMO)
    async with pose("qr", limits=limits) as (supervisor, _):
        with pytest.raises(NoMemory):
            await supervisor.connect(DEMO)
        with supervisor.values(DEMO) as values:
            assert (await values.get("a"))[1] == b"x"


async def test_what_is_over_is_gone_and_the_sweep_takes_it_from_the_disk(
    port: Any, sessions_dir: Path
) -> None:
    async with port() as asked:
        await put(asked, "stays")
        await put(asked, "goes", query="?ttl_s=1")
        gone = folder(sessions_dir) / name_of("goes")
        await until(lambda: time.time() > gone.stat().st_mtime + 1.1, "its time")
        is_problem(await get(asked, "goes"), 404, "no_such_value")
        assert await keys(asked) == ["stays"]
        assert await swept(asked.supervisor, "expired_values", dry_run=True) == [("demo/values", "would")]
        assert gone.exists()
        assert await swept(asked.supervisor, "expired_values") == [("demo/values", "done")]
        assert [path.name for path in folder(sessions_dir).iterdir()] == [name_of("stays")]
        assert await swept(asked.supervisor, "expired_values") == []
        assert (await get(asked, "stays")).status == 200


async def test_a_cleanup_retires_them_in_a_step_of_its_own(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        await put(asked, "a", b"12345")
        await put(asked, "b", b"6")
        before = tree(folder(sessions_dir))
        steps = (await asked.ask("POST", "/v1/sessions/demo/cleanup", TOKEN)).json["steps"]
        assert [one["step"] for one in steps][3:5] == ["profile", "values"]
        (place,) = retired(sessions_dir)
        assert (steps[4]["outcome"], steps[4]["detail"]) == ("done", f"2 (6 bytes) retired as {place.name}")
        assert tree(place) == before
        assert not folder(sessions_dir).exists()
        is_problem(await get(asked, "a"), 404, "no_such_value")
        steps = (await asked.ask("POST", "/v1/sessions/demo/cleanup", TOKEN)).json["steps"]
        assert (steps[4]["outcome"], steps[4]["detail"]) == ("nothing", "")
        await asked.supervisor.connect(DEMO)
        assert await keys(asked) == []
        await put(asked, "a", b"anew")
        assert (place.name, "done") not in await swept(asked.supervisor, "expired")
        assert tree(place) == before
        assert (await get(asked, "a")).body == b"anew"


@pytest.mark.parametrize("at_rest", ["plain", "sealed"])
async def test_retired_they_go_after_the_time_of_profiles(
    port: Any, sessions_dir: Path, journal: Journal, at_rest: str
) -> None:
    """Also where nothing plain stays of a profile: there is no sealed form of them."""
    sections: dict[str, Any] = {"profile": {"at_rest": at_rest}}
    async with port(**sections) as asked:
        await put(asked, "a")
        await asked.supervisor.cleanup(DEMO)
        await asked.supervisor.reap(dry_run=False)
        (place,) = retired(sessions_dir)
    async with port(**sections, sessions={"retired_keep_hours": 0.0}):
        await until(lambda: not retired(sessions_dir), "deleted")
    assert place.name in deleted(journal)


async def test_a_write_beside_a_cleanup_is_either_retired_or_a_new_one(
    port: Any, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session is not forgotten as long as it has something."""
    begun, go_on = threading.Event(), threading.Event()
    real = ValueFiles.write

    def write(files: ValueFiles, value: Value, said: bytes) -> None:
        begun.set()
        assert go_on.wait(10)
        real(files, value, said)

    async with port() as asked:
        monkeypatch.setattr(ValueFiles, "write", write)
        putting = asyncio.create_task(put(asked, "a", b"before"))
        assert await asyncio.to_thread(begun.wait, 10)
        cleaning = asyncio.create_task(asked.supervisor.cleanup(DEMO))
        session = asked.supervisor._sessions[DEMO]
        await until(lambda: session.values._asked == 2, "it waits for its turn")
        late = asyncio.create_task(put(asked, "a", b"after"))
        await until(lambda: session.values._asked == 3, "and the next one")
        go_on.set()
        await putting
        report = await cleaning
        await late
        assert next(one.detail for one in report.steps if one.step == "values").startswith("1 (6 bytes)")
        assert (await get(asked, "a")).body == b"after"
        assert len(retired(sessions_dir)) == 1


# --- the command line ---------------------------------------------------------------------------------------------

VIEW = ValueView("last:1@c.us", "application/json", 21, '"5f3a"', 1_800_000_000.0, None)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandPort]:
    monkeypatch.chdir(tmp_path)
    store_tokens()
    with CommandPort() as serving:
        yield serving


def command(daemon: CommandPort, *arguments: str) -> Any:
    return call("values", *arguments, "--url", daemon.url, env={"WAGUARD_TOKEN": ADMIN_OF_COMMANDS})


def test_they_are_listed(daemon: CommandPort) -> None:
    daemon.handlers["GET /v1/sessions/demo/values"] = always(ValueList([VIEW], 21, 1024))
    for words in (("demo",), ("list", "demo")):
        result = command(daemon, *words)
        assert result.exit_code == 0
        assert result.stdout.splitlines()[-1].split("\t")[:2] == ["last:1@c.us", "21 B"]
    assert '"etag": "\\"5f3a\\""' in command(daemon, "demo", "--json").stdout
    daemon.handlers["GET /v1/sessions/demo/values"] = always(ValueList([], 0, 1024))
    assert command(daemon, "demo").stdout == "No app keeps values with demo.\n"


def test_one_is_printed_as_it_is(daemon: CommandPort) -> None:
    said = b"\x1b[2J\xff\r\n\x00"

    async def handler(_request: Any) -> Any:
        return aiohttp.web.Response(body=said, content_type="text/html")

    daemon.handlers["GET /v1/sessions/demo/values/last:1@c.us"] = handler
    result = command(daemon, "get", "demo", "last:1@c.us")
    assert (result.exit_code, result.stdout_bytes) == (0, said)


def test_one_is_deleted_by_who_means_it(daemon: CommandPort) -> None:
    daemon.handlers["DELETE /v1/sessions/demo/values/a"] = always(ValueDeleted("a"))
    result = command(daemon, "delete", "demo", "a")
    assert result.exit_code == 1
    assert "waguard values delete demo a --yes" in result.stderr
    assert not daemon.requests
    result = command(daemon, "delete", "demo", "a", "--yes")
    assert (result.exit_code, result.stdout) == (0, "demo has no value a any more.\n")


def test_what_is_not_there_is_told_with_the_command_that_lists(daemon: CommandPort) -> None:
    async def handler(_request: Any) -> Any:
        error = NoSuchValue("demo has no value 'a'.", hint="See which there are: waguard values demo")
        return problems.response(error, admin=True)

    daemon.handlers["GET /v1/sessions/demo/values/a"] = handler
    result = command(daemon, "get", "demo", "a")
    assert result.exit_code == 1
    assert "demo has no value 'a'. [no_such_value]" in result.stderr
    assert "waguard values demo" in result.stderr
