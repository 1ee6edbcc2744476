"""Webhooks of a daemon as it runs: at its port, by the command line, and through SIGKILLs with a receiver that is away for an hour."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import service
from audits import acts
from commands import Port as Answering
from commands import always, answer, call, store_tokens
from conftest import POSING, Daemon, Journal
from control_port import ADMIN, API, TOKEN, Port, is_problem
from ports import free_port
from receiver import NEVER, TORN, receiving
from service import Service

from waguard.core.audit import Kind
from waguard.core.deliveries import State
from waguard.core.shown_webhooks import (
    MessageList,
    MessageView,
    Redriven,
    WebhookList,
    WebhookMade,
    WebhookStatus,
    WebhookTried,
    WebhookView,
)
from waguard.errors import WebhookNotFound
from waguard.history.database import FILE as HISTORY

EXAMPLES = Path(__file__).parent.parent / "examples"
HOUR_S = 3600.0
LOCAL = {"allowed_networks": ["127.0.0.0/8"]}
PROGRAM = """
import sys, time
from functools import partial
from pathlib import Path
from waguard import daemon
from waguard.cli.main import main
from waguard.webhooks.delivery import Bounds
moved = Path({clock!r})
daemon.Webhooks = partial(
    daemon.Webhooks, clock=lambda: time.monotonic() + float(moved.read_text()), bounds=Bounds(look_s=0.1)
)
sys.exit(main())
"""
"""The daemon, whose webhooks have a clock that the test moves."""


@asynccontextmanager
async def port(pose: Daemon, **sections: Any) -> AsyncIterator[Port]:
    async with (
        pose("connected", api=API, webhooks=LOCAL, **sections) as (supervisor, url),
        aiohttp.ClientSession() as http,
    ):
        yield Port(url, supervisor, http)


async def asked_for(
    at: Port, method: str, path: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    data = json.dumps(body).encode() if body is not None else None
    answer = await at.ask(method, f"/v1/webhooks{path}", body=data)
    assert answer.status == 200, answer.body
    return answer.json


# --- at the port ------------------------------------------------------------------------------------------------


async def test_a_webhook_is_made_tried_changed_and_deleted(
    pose: Daemon, sessions_dir: Path, journal: Journal
) -> None:
    async with receiving() as receiver, port(pose) as at:
        made = await asked_for(at, "POST", "", {"url": receiver.url, "kinds": ["session"], "clients": "demo"})
        receiver.secrets = [made["secret"]]
        about = made["about"]
        hook = f"/{about['id']}"
        assert (about["clients"], about["kinds"], about["enabled"]) == (["demo"], ["session"], True)
        assert await asked_for(at, "POST", f"{hook}/test") | {"duration_ms": 0} == {
            "ok": True,
            "http_status": 200,
            "error": "",
            "duration_ms": 0,
        }
        await at.ask("POST", "/v1/sessions/demo/connect")
        await receiver.until(lambda: receiver.arrived[-1].event.get("status") == "connected")
        rotated = await asked_for(at, "POST", f"{hook}/rotate", {"overlap_s": 60})
        receiver.secrets.append(rotated["secret"])
        receiver.answer = lambda _one: 500
        await at.ask("POST", "/v1/sessions/demo/disconnect")
        await receiver.until(lambda: receiver.arrived[-1].status == 500)
        (listed,) = (await asked_for(at, "GET", ""))["webhooks"]
        assert listed["id"] == about["id"]
        assert listed["waiting"] >= 1
        waits = (await asked_for(at, "GET", f"{hook}/messages?state=waiting"))["messages"]
        first = waits[-1]
        assert (first["client"], first["state"], first["error"]) == ("demo", "waiting", "It answers: 500.")
        assert first["attempts"] >= 1
        assert first["next_at"] > first["at"]
        assert (await asked_for(at, "GET", f"{hook}/messages"))["messages"] == []
        receiver.answer = lambda _one: 200
        assert await asked_for(at, "POST", f"{hook}/redrive") == {"messages": 0}
        await receiver.until(lambda: receiver.arrived[-1].event.get("status") == "stopped")
        disabled = await asked_for(at, "PATCH", hook, {"enabled": False})
        assert (disabled["enabled"], disabled["url"]) == (False, receiver.url)
        assert (await asked_for(at, "PATCH", f"{hook}?enabled=true"))["enabled"] is True
        assert (await asked_for(at, "DELETE", hook))["id"] == about["id"]
        assert (await asked_for(at, "GET", ""))["webhooks"] == []
    (done,) = [await asyncio.to_thread(acts, sessions_dir)]
    asked = [one.record.note for one in reversed(done) if one.record.note.kind is Kind.ASKED]
    names = [one.act for one in asked if one.act.startswith("webhook")]
    assert sorted(names) == sorted(
        ["webhook-create", "webhook-rotate", "webhook-change", "webhook-change", "webhook-delete"]
    )
    kept = b"".join(path.read_bytes() for path in sessions_dir.glob(".audit*"))
    said = f"{[event.fields for event in journal.events]}".encode() + kept
    for secret in (made["secret"], rotated["secret"], "secret-path", "secret-key"):
        assert secret.encode() not in said


async def test_what_is_no_webhook_gets_a_clear_answer_and_changes_nothing(pose: Daemon) -> None:
    async with port(pose) as at:
        wrong = [
            ({}, "url: Field required."),
            ({"url": "http://crm.example/"}, "url: begins with http://"),
            ({"url": "https://10.0.0.1/"}, "url: 10.0.0.1 is no public address."),
            (
                {"url": "https://crm.example/", "kinds": ["sesion.changed"]},
                "There is no event 'sesion.changed'.",
            ),
            ({"url": "https://crm.example/", "clients": ["no code"]}, "clients: "),
            ({"url": "https://crm.example/", "secret": "mine"}, "secret: is unknown."),
        ]
        for body, said in wrong:
            answer = await at.ask("POST", "/v1/webhooks", body=json.dumps(body).encode())
            assert said in is_problem(answer, 400, "invalid_request")["detail"]
        for method, path in (
            ("PATCH", ""),
            ("DELETE", ""),
            ("POST", "/rotate"),
            ("POST", "/test"),
            ("GET", "/messages"),
            ("POST", "/redrive"),
        ):
            is_problem(await at.ask(method, f"/v1/webhooks/none{path}"), 404, "webhook_not_found")
            is_problem(await at.ask(method, f"/v1/webhooks/none{path}", TOKEN), 403, "forbidden")
        assert (await asked_for(at, "GET", ""))["webhooks"] == []


async def test_a_daemon_does_not_wait_for_a_receiver_that_never_answers(pose: Daemon) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda _one: NEVER
        async with port(pose) as at:
            await asked_for(at, "POST", "", {"url": receiver.url})
            await at.ask("POST", "/v1/sessions/demo/connect")
            await receiver.until(lambda: len(receiver.arrived) >= 2)
            async with asyncio.timeout(5):
                assert (await at.ask("GET", "/v1/sessions/demo", ADMIN)).status == 200


# --- through SIGKILLs ---------------------------------------------------------------------------------------------


class Killed:
    """A daemon that is killed again and again, and what its history has."""

    def __init__(self, daemon: Service, clock: Path) -> None:
        self.daemon = daemon
        self._clock = clock
        self.moved_s = 0.0
        self.moves(0.0)

    def moves(self, seconds: float) -> None:
        """The clock of its webhooks."""
        self.moved_s += seconds
        new = self._clock.with_suffix(".new")
        new.write_text(str(self.moved_s))
        new.replace(self._clock)

    async def kill(self) -> None:
        await self.daemon.end(signal.SIGKILL)
        await self.daemon.start()

    def told(self) -> Mapping[str, list[str]]:
        """Client -> ids of all events, in order."""
        with closing(sqlite3.connect(self.daemon.sessions / HISTORY)) as db:
            (history,) = db.execute("PRAGMA application_id").fetchone()
            found: dict[str, list[str]] = {}
            for number, client in db.execute("SELECT id, client FROM events ORDER BY id"):
                found.setdefault(client, []).append(f"{history:x}-{number}")
        return found


async def test_a_receiver_that_is_away_for_an_hour_gets_all_in_order_through_sigkills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers 500, hangs up, never answers, refuses, and takes what nobody can write down before the kill."""
    clock = tmp_path / "clock"
    monkeypatch.setattr(service, "_PROGRAM", PROGRAM.format(clock=str(clock)))
    settings = {
        "browser": {"path": str(POSING), "extra_flags": ["--posing=connected"]},
        "webhooks": LOCAL | {"answer_s": 0.5},
    }
    async with receiving() as receiver, Service(tmp_path, settings) as daemon:
        killed = Killed(daemon, clock)
        await daemon.start()
        made = await daemon.ask("POST", "/v1/webhooks", json={"url": receiver.url})
        receiver.secrets = [made["secret"]]
        since = {client: len(ids) for client, ids in killed.told().items()}
        ways: list[Callable[[Any], int] | None] = [
            lambda _one: 200,
            lambda _one: 500,
            lambda _one: NEVER,
            None,  # refuses
            lambda one: 500 if one.client == "demo" else 200,
            lambda _one: TORN,
        ]
        for way in ways:
            await (receiver.down() if way is None else asyncio.sleep(0))
            receiver.answer = way or receiver.answer
            seen = len(receiver.arrived)
            for client in ("demo", "demo2"):
                for verb in ("connect", "disconnect"):
                    await daemon.ask("POST", f"/v1/sessions/{client}/{verb}")
            await daemon.ask(
                "POST", f"/v1/webhooks/{made['about']['id']}/redrive"
            )  # whatever waits is tried now
            if way is not None:
                await receiver.until(lambda seen=seen: len(receiver.arrived) > seen)  # type: ignore[misc]
            await killed.kill()
            await (receiver.up() if way is None else asyncio.sleep(0))
            killed.moves(HOUR_S / len(ways))
        receiver.answer = lambda _one: 200
        killed.moves(3 * HOUR_S)

        def missing() -> dict[str, list[str]]:
            arrived = {one.id for one in receiver.taken()}
            told = {client: ids[since.get(client, 0) :] for client, ids in killed.told().items()}
            return {
                client: left
                for client, ids in told.items()
                if (left := [one for one in ids if one not in arrived])
            }

        await daemon.until(lambda: not missing(), "all have arrived", seconds=60)
        told = killed.told()
    for client in ("", "demo", "demo2"):
        order = [one.id for one in receiver.taken(client)]
        assert order == told[client][since.get(client, 0) :], "each once, the first time in order"
    bodies: dict[str, Any] = {}
    for one in receiver.arrived:
        assert bodies.setdefault(one.id, one.body) == one.body, "what comes again is the same"
    assert len(receiver.arrived) > len(bodies), "some have come again"
    assert not [line for line in daemon.lines if line["event"] == "internal.error"]


# --- by the command line ------------------------------------------------------------------------------------------


VIEW = WebhookView("0a1b2c3d", "https://crm.example/hooks", [], ["session"], True, "", 1.0, "token:admin")
URL = f"https://crm.example/{'x' * 40}"
STATUS = WebhookStatus(
    *("0a1b2c3d", URL, ["demo"], [], False, "It has answered 410 Gone.", 1.0, "token:admin"), 12, 3, None, ""
)
MESSAGE = MessageView(
    7, "5f3a90c1-1284", "demo", "session.changed", 1.0, State.DEAD, 11, None, "It answers: 500."
)
SECRET = "whsec_c2VjcmV0"
HOOK = "/v1/webhooks/0a1b2c3d"


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    store_tokens()

    def ask(answers: Mapping[str, object], *words: str) -> tuple[int, str, str, list[str]]:
        with Answering() as there:
            there.handlers = {request: always(view) for request, view in answers.items()}
            done = call("webhook", *words, "--url", there.url)
            asked = [f"{one.method} {one.path_qs}" for one in there.requests]
        return done.exit_code, done.stdout, done.stderr, asked

    return ask


def test_several_are_named_with_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store_tokens()
    sent: list[Any] = []

    async def make(request: Any) -> Any:
        sent.append(await request.json())
        return answer(WebhookMade(SECRET, VIEW))

    with Answering() as there:
        there.handlers["POST /v1/webhooks"] = make
        call(
            "webhook", "create", VIEW.url, "--kind", "session, page,", "--client", "demo", "--url", there.url
        )
    assert (sent[0]["clients"], sent[0]["kinds"]) == (["demo"], ["session", "page"])


def test_the_secret_stands_alone_on_stdout(asking: Callable[..., Any]) -> None:
    made = WebhookMade(SECRET, VIEW)
    code, out, err, asked = asking({"POST /v1/webhooks": made}, "create", VIEW.url, "--kind", "session")
    assert (code, out, asked) == (0, f"{SECRET}\n", ["POST /v1/webhooks"])
    assert "0a1b2c3d" in err
    code, out, _, asked = asking({f"POST {HOOK}/rotate": made}, "rotate", VIEW.id, "--overlap", "2h")
    assert (code, out, asked) == (0, f"{SECRET}\n", [f"POST {HOOK}/rotate?overlap_s=7200"])
    code, _, err, asked = asking({}, "rotate", VIEW.id, "--overlap", "soon")
    assert (code, asked) == (2, [])


def test_webhooks_are_listed(asking: Callable[..., Any]) -> None:
    code, out, _, _ = asking({"GET /v1/webhooks": WebhookList([STATUS])}, "list")
    assert code == 0
    assert out.splitlines()[1].split("\t") == [
        *("0a1b2c3d", "disabled", "12", "3", "-", URL, "It has answered 410 Gone.", "demo"),
    ]
    _, out, _, _ = asking({"GET /v1/webhooks": WebhookList([])}, "list")
    assert "waguard webhook create" in out
    _, out, _, _ = asking({"GET /v1/webhooks": WebhookList([STATUS])}, "list", "--json")
    assert json.loads(out)["webhooks"][0]["dead_letters"] == 3


def test_what_has_not_arrived_is_listed_and_redriven(asking: Callable[..., Any]) -> None:
    listed = {f"GET {HOOK}/messages": MessageList([MESSAGE])}
    code, out, _, asked = asking(listed, "messages", VIEW.id)
    assert (code, asked) == (0, [f"GET {HOOK}/messages?state=dead&limit=20"])
    assert out.splitlines()[1].split("\t")[2:] == ["demo", "session.changed", "11", "It answers: 500."]
    nothing = {f"GET {HOOK}/messages": MessageList([])}
    assert asking(nothing, "messages", VIEW.id)[1] == "There are no dead letters.\n"
    assert asking(nothing, "messages", VIEW.id, "--waiting")[1] == "Nothing waits.\n"
    _, out, _, _ = asking({f"POST {HOOK}/redrive": Redriven(1)}, "redrive", VIEW.id, MESSAGE.id)
    assert out == "1 dead letter is sent again; what waits is tried now.\n"
    _, out, _, _ = asking({f"POST {HOOK}/redrive": Redriven(7)}, "redrive", VIEW.id)
    assert out.startswith("7 dead letters are")


def test_a_webhook_is_tried_disabled_and_deleted(asking: Callable[..., Any]) -> None:
    good, bad = WebhookTried(True, 204, "", 12.3), WebhookTried(False, 500, "It answers: 500.", 1.0)
    assert asking({f"POST {HOOK}/test": good}, "test", VIEW.id)[:2] == (
        0,
        "It has answered 204 after 12 ms.\n",
    )
    code, out, err, _ = asking({f"POST {HOOK}/test": bad}, "test", VIEW.id)
    assert (code, out, err) == (1, "", "It answers: 500.\n")
    code, out, _, asked = asking({f"PATCH {HOOK}": VIEW}, "enable", VIEW.id)
    assert (code, out, asked) == (0, "0a1b2c3d is enabled.\n", [f"PATCH {HOOK}"])
    assert asking({f"PATCH {HOOK}": STATUS}, "disable", VIEW.id)[1] == "0a1b2c3d is disabled.\n"
    assert asking({}, "delete", VIEW.id)[3] == [], "it has to be said"
    assert asking({f"DELETE {HOOK}": VIEW}, "delete", VIEW.id, "--yes")[:2] == (0, "0a1b2c3d is deleted.\n")
    missing = WebhookNotFound("There is no webhook 'x'.", hint="waguard webhook list shows them.")
    code, _, err, _ = asking({"DELETE /v1/webhooks/x": missing}, "delete", "x", "--yes")
    assert code == 1
    assert "waguard webhook list" in err


# --- the examples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["webhook_receiver.py", "webhook_receiver.mjs"])
async def test_the_example_takes_each_message_once_and_none_of_a_stranger(
    pose: Daemon, tmp_path: Path, program: str
) -> None:
    runs = sys.executable if program.endswith(".py") else shutil.which("node")
    if runs is None:
        pytest.skip("there is no node")
    place = free_port()
    async with port(pose) as at:
        hook = {"url": f"http://127.0.0.1:{place}/", "kinds": ["cleanup"]}
        made = await asked_for(at, "POST", "", hook)
        other = await asked_for(at, "POST", "", hook)
        process = await asyncio.create_subprocess_exec(
            *(runs, str(EXAMPLES / program), str(place)),
            env={**os.environ, "WEBHOOK_SECRET": made["secret"]},
            stdout=PIPE,
        )
        assert process.stdout is not None
        try:
            path = f"/{made['about']['id']}/test"
            async with asyncio.timeout(30):
                while not (tried := await asked_for(at, "POST", path))["ok"]:
                    assert tried["http_status"] is None, "it is not up yet"
                assert (await process.stdout.readline()).startswith(b"ping")
                stranger = await asked_for(at, "POST", f"/{other['about']['id']}/test")
            assert stranger["http_status"] == 401
        finally:
            process.kill()
            await process.wait()
