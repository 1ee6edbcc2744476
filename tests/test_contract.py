"""What every app may count on at the control port: asked for once, on condition, page by page, told as it goes; and the document that says so."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import pytest
import schemathesis
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request
from conftest import POSING, Daemon, Journal
from control_port import ADMIN, API, TOKEN, Port, is_problem
from feed_reader import FeedReader, Frame
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from service import TOKEN as SERVICE_TOKEN
from service import Service

from waguard.api import conditional, once, openapi
from waguard.api.accept import wants_events
from waguard.api.stages import told
from waguard.core.access import ADMIN as THE_ADMIN
from waguard.core.access import Caller, of_client
from waguard.core.model import ClientCode

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
CALLER = of_client(DEMO)


@pytest.fixture
def port(pose: Daemon) -> Any:
    @asynccontextmanager
    async def opening(posing: str = "ok", **sections: Any) -> AsyncIterator[Port]:
        api = {**API, **sections.pop("api", {})}
        async with pose(posing, api=api, **sections) as (supervisor, url), aiohttp.ClientSession() as http:
            yield Port(url, supervisor, http)

    return opening


# --- once ---------------------------------------------------------------------------------------------------


async def test_what_is_asked_for_twice_is_done_once(port: Any, journal: Journal) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO)
        first = await asked.ask("POST", "/v1/sessions/demo/cleanup", Idempotency_Key='"a-key"')
        again = await asked.ask("POST", "/v1/sessions/demo/cleanup", Idempotency_Key="a-key")
        assert first.status == again.status == 200
        assert again.body == first.body
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.headers["Content-Type"] == first.headers["Content-Type"]
        done = journal.named("cleanup.step")
        assert len(done) == len({one.fields["step"] for one in done})
        other = await asked.ask("POST", "/v1/sessions/demo/cleanup", TOKEN, Idempotency_Key="a-key")
        assert "Idempotency-Replayed" not in other.headers, "another's key is another key"


async def test_a_token_is_made_once_and_told_again(port: Any) -> None:
    async with port() as asked:
        body = '{"name": "crm", "scopes": ["read"], "clients": ["*"]}'
        made = [await asked.ask("POST", "/v1/tokens", body=body, Idempotency_Key="k") for _ in range(2)]
        assert made[0].json == made[1].json
        changed = await asked.ask("POST", "/v1/tokens", body=body.replace("crm", "crm2"), Idempotency_Key="k")
        assert "another request" in is_problem(changed, 422, "idempotency_key_reused")["detail"]
        await asked.ask("POST", "/v1/tokens/crm/revoke")
        assert len((await asked.ask("GET", "/v1/tokens")).json["tokens"]) == 1


async def test_who_hangs_up_finds_what_has_come_of_it(port: Any, journal: Journal) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO)

        async def restart() -> Any:
            return await asked.ask("POST", "/v1/sessions/demo/restart", Idempotency_Key="k")

        left = asyncio.ensure_future(restart())
        async with asyncio.timeout(20):
            while not [
                one for one in journal.named("session.changed") if one.fields["process"] == "stopping"
            ]:
                await asyncio.sleep(0.01)
        left.cancel()
        both = await asyncio.gather(restart(), restart())
        assert [(one.status, one.headers["Idempotency-Replayed"]) for one in both] == [(200, "true")] * 2
        assert len(journal.named("browser.spawned")) == 2, "connected, and restarted once"


async def test_what_has_failed_is_done_again(port: Any) -> None:
    async with port() as asked:
        missing = await asked.ask("POST", "/v1/sessions/demo/restart", Idempotency_Key="k")
        is_problem(missing, 404, "session_not_found")
        await asked.supervisor.connect(DEMO)
        done = await asked.ask("POST", "/v1/sessions/demo/restart", Idempotency_Key="k")
        assert done.status == 200
        assert "Idempotency-Replayed" not in done.headers


@pytest.mark.parametrize("key", ["", '""', "with space", "x" * 256, "\u00e9", '"open'])
async def test_what_is_no_key_gets_a_clear_answer(port: Any, key: str) -> None:
    async with port() as asked:
        answer = await asked.ask("POST", "/v1/sessions/demo/connect", Idempotency_Key=key)
        assert "Idempotency-Key" in is_problem(answer, 400, "invalid_request")["detail"]
        assert not asked.supervisor.views()


async def test_a_body_without_a_length_or_two_keys_are_refused(port: Any) -> None:
    async with port() as asked:
        head = (
            f"POST /v1/sessions/demo/import HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\n"
        )
        body = "Transfer-Encoding: chunked\r\nIdempotency-Key: k\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        chunked = await asked.raw(f"{head}{body}".encode())
        assert chunked is not None
        assert "Content-Length" in is_problem(chunked, 400, "invalid_request")["detail"]
        two = await asked.raw(
            f"{head}Content-Length: 0\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\n\r\n".encode()
        )
        assert two is not None
        is_problem(two, 400, "invalid_request")


async def test_old_answers_make_room_and_a_clients_are_none_of_the_admins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(once, "_MOST_OF_ONE", 2)
    kept, done = once.Once(), list[str]()

    async def ask(key: str, caller: Caller = CALLER) -> str:
        async def work() -> web.Response:
            done.append(key)
            return web.Response(text=f"{len(done)}")

        request = make_mocked_request("POST", "/", headers={"Idempotency-Key": key})
        return str((await kept.answer(request, caller, b"", work)).text)

    assert [await ask(key) for key in ("a", "b", "a", "c", "b", "a")] == ["1", "2", "1", "3", "2", "4"]
    assert await ask("a", of_client(ClientCode("admin"))) == "5"
    assert await ask("a", THE_ADMIN) == "6"
    failed = web.Response(text="failed")
    failed[once.FAILED] = True
    assert not once._is_to_be_kept(failed)


# --- on condition -------------------------------------------------------------------------------------------


async def test_of_two_admins_who_saw_the_same_one_is_first(port: Any) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO)
        seen = (await asked.ask("GET", "/v1/sessions/demo")).headers["ETag"]
        assert (await asked.ask("GET", "/v1/sessions/demo")).headers["ETag"] == seen
        answers = await asyncio.gather(
            *(
                asked.ask("POST", f"/v1/sessions/demo/{verb}", If_Match=seen)
                for verb in ("cleanup", "restart")
            )
        )
        assert sorted(one.status for one in answers) == [200, 412]
        late = next(one for one in answers if one.status == 412)
        problem = is_problem(late, 412, "precondition_failed")
        assert problem["etag"] != seen
        now = (await asked.ask("GET", "/v1/sessions/demo")).headers["ETag"]
        assert now == problem["etag"]
        assert (await asked.ask("POST", "/v1/sessions/demo/disconnect", If_Match=now)).status == 200


async def test_a_condition_is_for_a_session_that_there_is(port: Any) -> None:
    async with port() as asked:
        absent = await asked.ask("POST", "/v1/sessions/demo/connect", If_Match='"0123456789abcdef"')
        is_problem(absent, 412, "precondition_failed")
        wrong = await asked.ask("POST", "/v1/sessions/demo/connect", If_Match="no tag")
        is_problem(wrong, 400, "invalid_request")
        assert not asked.supervisor.views()


async def test_who_waits_for_a_scan_holds_up_no_other(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional, "_TURN_S", 0.1)
    async with port() as asked:
        await asked.supervisor.connect(DEMO)
        seen = (await asked.ask("GET", "/v1/sessions/demo")).headers["ETag"]
        path = "/v1/sessions/demo/connect?wait=connected"
        waits = asyncio.ensure_future(asked.ask("POST", path, If_Match=seen))
        await asyncio.sleep(0)
        assert (await asked.ask("POST", "/v1/sessions/demo/disconnect", If_Match=seen)).status == 200
        await waits


# --- told as it goes ----------------------------------------------------------------------------------------


async def stages(asked: Port, path: str, token: str = ADMIN, **headers: str) -> list[Frame]:
    named = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream", **headers}
    async with asked.http.post(asked.url + path, headers=named) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        reader, found = FeedReader(response), list[Frame]()
        while not found or found[-1].event not in {"result", "problem"}:
            found.append(await reader.next())
        with pytest.raises(EOFError):
            await reader.next()
        return found


async def test_a_connect_tells_its_stages_and_then_its_answer(port: Any) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO2)
        *told, result = await stages(asked, "/v1/sessions/demo/connect", TOKEN)
        assert result.event == "result"
        assert (result.data["client"], result.data["status"]) == ("demo", "awaiting_scan")
        assert {one.data["client"] for one in told} == {"demo"}
        done = [one.data["fields"]["stage"] for one in told if one.event == "stage.done"]
        assert done[:1] == ["admit"] or done[:1] == ["prepare"]
        assert done[-1] == "open"
        *told, result = await stages(asked, "/v1/sessions/demo/cleanup")
        steps = [one.data["fields"]["step"] for one in told if one.event == "cleanup.step"]
        assert steps == [one["step"] for one in result.data["steps"]]


async def test_what_fails_is_told_as_any_error_is(port: Any) -> None:
    async with port() as asked:
        (problem,) = await stages(asked, "/v1/sessions/nobody/restart")
        assert problem.event == "problem"
        assert (problem.data["status"], problem.data["code"]) == (404, "session_not_found")
        wrong = await asked.ask("POST", "/v1/sessions/demo/connect?wait=never", Accept="text/event-stream")
        is_problem(wrong, 400, "invalid_request")


async def test_a_caller_that_has_gone_already_has_nothing_begun_and_is_no_bug(journal: Journal) -> None:
    begun: list[str] = []
    ended = asyncio.get_running_loop().create_future()

    async def work() -> web.Response:
        begun.append("work")
        return web.Response()

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        try:
            answer = await told(
                request,
                journal.bus,
                DEMO,
                work,
                lambda _: web.Response(),
                lambda _: nullcontext(),
                beat_s=1.0,
                paths=False,
            )
        except Exception as error:
            ended.set_exception(error)
            raise
        ended.set_result(None)
        return answer

    app = web.Application()
    app.router.add_post("/", handle)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await http.post(server.make_url("/"))
        async with asyncio.timeout(10):
            await ended
    assert not begun


async def test_a_token_that_ends_ends_the_telling(port: Any) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO)
        told = '{"name": "crm", "scopes": ["connect"], "clients": ["demo"]}'
        made = (await asked.ask("POST", "/v1/tokens", body=told)).json["token"]
        headers = {"Authorization": f"Bearer {made}", "Accept": "text/event-stream"}
        async with asked.http.post(
            asked.url + "/v1/sessions/demo/connect?wait=connected", headers=headers
        ) as answer:
            await asked.ask("POST", "/v1/tokens/crm/revoke")
            ended = await FeedReader(answer).next()
            assert (ended.event, ended.data) == ("feed.ended", {"why": "This token was revoked."})


@given(st.text(max_size=40))
def test_only_who_likes_events_best_gets_them(header: str) -> None:
    assert wants_events(header) is (bool(header) and wants_events(header))
    assert wants_events(f"text/event-stream, {'application/json;q=0.5'}")
    assert not wants_events("application/json, text/event-stream;q=0.9")


# --- page by page -------------------------------------------------------------------------------------------


async def test_the_list_is_asked_for_by_status_and_text_page_by_page(port: Any) -> None:
    async with port() as asked:
        for code in ("demo", "demo2", "other"):
            await asked.supervisor.connect(ClientCode(code))
        await asked.supervisor.disconnect(DEMO2)

        async def codes(query: str, token: str = ADMIN) -> tuple[list[str], str | None]:
            found = (await asked.ask("GET", f"/v1/sessions{query}", token)).json
            return [one["client"] for one in found["sessions"]], found["next"]

        assert await codes("") == (["demo", "demo2", "other"], None)
        assert await codes("?limit=2") == (["demo", "demo2"], "demo2")
        assert await codes("?limit=2&cursor=demo2") == (["other"], None)
        assert await codes("?text=DEMO&status=awaiting_scan") == (["demo"], None)
        assert await codes("?status=stopped,awaiting_scan&text=o&limit=1") == (["demo"], "demo")
        assert await codes("?limit=1", TOKEN) == (["demo"], None)
        wrong = await asked.ask("GET", "/v1/sessions?status=dead")
        assert "status" in is_problem(wrong, 400, "invalid_request")["detail"]


# --- the document -------------------------------------------------------------------------------------------


def test_the_document_is_openapi() -> None:
    validate(dict(openapi.document()))


def numbers(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each property and option that is a number, and where it is."""

    def kinds(schema: Mapping[str, Any]) -> set[str]:
        return {schema.get("type", "")} | {kind for one in schema.get("anyOf", ()) for kind in kinds(one)}

    for name, shape in document["components"]["schemas"].items():
        for field, schema in shape.get("properties", {}).items():
            if kinds(schema) & {"number", "integer"}:
                yield name, field
            inner = schema.get("additionalProperties")
            if isinstance(inner, dict) and kinds(inner) & {"number", "integer"}:
                yield name, field
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for one in operation.get("parameters", ()):
                if kinds(one["schema"]) & {"number", "integer"}:
                    yield f"{method} {path}", one["name"]


UNIT = re.compile(r".*_(s|ms|at|mb|bytes)|ms|bytes|at|since|until|seconds|hours")
COUNTS = {
    **dict.fromkeys(
        (
            "attempts",
            "automatic_restarts",
            "by_itself",
            "called_off",
            "count",
            "dead_letters",
            "events",
            "failed",
            "failures",
            "late",
            "limit",
            "messages",
            "waiting",
        ),
        "how many",
    ),
    **dict.fromkeys(("recovered", "refused", "tried", "usable", "why", "worked"), "how many"),
    "before": "how many, or the id of a row",
    "http_status": "of HTTP",
    "id": "of a row",
    "number": "of a message",
    "share": "of one",
    "status": "of HTTP",
    "values": "how many",
    "success_rate": "of one",
}
"""Numbers without a unit, and what they are."""


def test_each_number_has_its_unit_in_its_name() -> None:
    found = {field for _, field in numbers(openapi.document())}
    assert {one for one in found if not UNIT.fullmatch(one)} <= set(COUNTS), found


async def test_whatever_is_asked_the_answer_is_one_of_the_document(tmp_path: Path) -> None:
    """Schemathesis asks every route but those that stay open, with what the document allows: no 5xx, and nothing that is not in it."""
    settings = {
        "browser": {"path": str(POSING), "extra_flags": ["--posing=connected"]},
        "api": {"costly_per_minute": 0},
        "snapshots": {"settle_s": 0.1},
    }
    async with Service(tmp_path, settings) as service:
        service.begin()
        await service.ready()
        wrong = await asyncio.to_thread(asked_at_random, service.url)
    assert not wrong, "\n".join(wrong)
    assert not [line for line in service.lines if line["event"] == "internal.error"]


def asked_at_random(url: str) -> list[str]:
    """What was answered otherwise."""
    wrong: list[str] = []
    document = schemathesis.openapi.from_dict(dict(openapi.document()))
    for found in document.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if not operation.path.endswith(("/v1/events", "/cdp")):
            ask_one(operation, url, wrong)
    return wrong


def ask_one(operation: Any, url: str, wrong: list[str]) -> None:
    codes = itertools.cycle(["demo", None])

    @hypothesis.settings(
        max_examples=8,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        if "code" in case.path_parameters and (code := next(codes)):
            case.path_parameters["code"] = code
        if case.query and "timeout_s" in case.query:
            case.query["timeout_s"] = 10
        answer = case.call(base_url=url, headers={"Authorization": f"Bearer {SERVICE_TOKEN}"}, timeout=30)
        try:
            # Who is let in has tests of its own, and wrong tokens are made to wait; no schema says what there is, and in which state.
            case.validate_response(answer, excluded_checks=[ignored_auth, positive_data_acceptance])
        except (AssertionError, BaseExceptionGroup) as error:
            if answer.status_code >= 500 and answer.json()["code"] in {"snapshot_failed", "page_failed"}:
                return  # what poses as Chromium writes no login, and shows no picture
            said = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
            wrong.extend(f"{operation.label} {answer.status_code}: {one}" for one in said)

    ask()
