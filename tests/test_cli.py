"""The command line, as people and scripts use it, against a control port that answers what the test says."""

import asyncio
import codecs
import json
import os
import socket
import stat
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from aiohttp import web
from commands import _ANY, ADMIN, TOKEN, Port, always, answer, call, store_tokens
from typer.testing import Result
from views import CONNECTED, DOWN, FAILED, SCAN, SNAPSHOT, STARTING, blocks

from waguard import __version__
from waguard.access import configured
from waguard.api import problems
from waguard.cli import edge, follow, terminal, tokens, units
from waguard.cli.exits import ExitCode
from waguard.config import load as loading
from waguard.config.load import load
from waguard.config.sections import Config
from waguard.core.model import Login
from waguard.core.shown import CleanupView, FailureView, PairingView, QrView, Step
from waguard.errors import BrowserFailed, Foreign, SessionNotFound

_FIELDS: list[tuple[float, str, dict[str, Any]]] = [
    (9, "attempt.done", {"why": "recovery", "outcome": "usable", "link": "connected", "duration_ms": 2100.0}),
    (
        8,
        "session.changed",
        {"status": "connected", "process": "up", "was": "recovering", "duration_ms": 2000.0},
    ),
    (7, "health.recovered", {"fault": "page_blocked", "remedy": "restart", "duration_ms": 9000.0}),
    (
        6,
        "health.remedy",
        {"fault": "page_blocked", "remedy": "restart", "outcome": "cured", "duration_ms": 2200.0},
    ),
    (5, "stage.late", {"stage": "open", "deadline_s": 45.0}),
    (4, "of.the.future", {"some": "thing"}),
    (
        3,
        "health.remedy",
        {"fault": "page_blocked", "remedy": "reload", "outcome": "failed", "duration_ms": 5000.0},
    ),
    (
        -2,
        "health.finding",
        {"fault": "page_blocked", "evidence": ["no answer for 31 s"], "remedies": ["reload", "restart"]},
    ),
]
HAPPENED = [
    {"id": 100 + int(at), "at": 1e9 + at, "client": "demo", "name": name, "fields": fields}
    for at, name, fields in _FIELDS
]


@pytest.fixture
def port() -> Iterator[Port]:
    with Port() as port:
        yield port


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration and no token but the test's."""
    for name in [name for name in os.environ if name.startswith(("WAGUARD_", "INVOCATION_ID"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(follow, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def with_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tokens.ENV_TOKEN, ADMIN)


def ask(port: Port, *arguments: str, **options: Any) -> Result:
    result = call(*arguments, "--url", port.url, **options)
    assert ADMIN not in result.output
    return result


def free_address() -> str:
    """Where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


# --- the frame ----------------------------------------------------------------------------------------


def test_version_and_help() -> None:
    assert call("--version").stdout == f"waguard {__version__}\n"
    listed = call("--help").stdout
    for command in ("run", "connect", "status", "disconnect", "restart", "cleanup", "simulate", "doctor"):
        assert command in listed
        assert "Usage: waguard" in call(command, "--help").stdout
    assert call("nonsense").exit_code == 2


@pytest.mark.parametrize(
    "command",
    [("status",), ("connect", "demo"), ("token",), ("run",), ("config", "check"), ("config", "show")],
)
def test_a_wrong_configuration_is_said_line_by_line(command: Sequence[str]) -> None:
    Path("config.toml").write_text('[api]\nport = "x"\nhots = "::1"\n')
    result = call(*command)
    assert result.exit_code == 2
    assert result.stdout == ""
    first, second = sorted(result.stderr.splitlines())
    assert first.startswith("config.toml:2: api.port: ")
    assert second.startswith("config.toml:3: api.hots: ")


def test_under_systemd_a_wrong_configuration_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOCATION_ID", "0" * 32)
    monkeypatch.setenv("WAGUARD_API__PORT", "x")
    assert call("run").exit_code == 78
    assert call("status").exit_code == 2


def test_a_start_that_fails_with_pipes_of_browsers_in_hand_is_tried_again_but_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edge, "_BETWEEN_S", 0.3)
    monkeypatch.setenv("INVOCATION_ID", "0" * 32)
    monkeypatch.setenv("WAGUARD_API__PORT", "x")
    for names, code, least_s in (("control", 78, 0.0), ("control:one.0123.answer", 1, 0.3)):
        monkeypatch.setenv("LISTEN_FDNAMES", names)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        began = time.monotonic()
        assert call("run").exit_code == code
        assert time.monotonic() - began >= least_s
    assert call("run", "--check").exit_code == 2


def test_a_configuration_can_be_named(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[api]\nport = 9000\n")
    assert str(other) in call("--config", str(other), "config", "check").stdout
    assert call("--config", "/nowhere/waguard.toml", "config", "check").exit_code == 2


@pytest.mark.parametrize("code", ["../x", "a b", "", "x" * 65, "x;reboot", "d\u0435mo"])
@pytest.mark.parametrize("command", ["connect", "status", "disconnect", "restart", "cleanup", "token"])
def test_what_is_no_client_code_is_refused_here(command: str, code: str) -> None:
    result = call(command, code)
    assert result.exit_code == 2
    assert "is not a client code. [invalid_client_code]" in result.stderr


# --- tokens -------------------------------------------------------------------------------------------


def _shown(port: Port) -> str:
    assert ask(port, "status").exit_code == 0
    return port.requests[-1].headers["Authorization"]


def test_which_token_is_shown(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    port.handlers["GET /v1/sessions"] = always({"sessions": []})
    store_tokens()
    assert _shown(port) == f"Bearer {ADMIN}"
    monkeypatch.setenv("WAGUARD_API__ADMIN_TOKEN", "from-the-configuration")
    assert _shown(port) == "Bearer from-the-configuration"
    monkeypatch.setenv(tokens.ENV_TOKEN, " from-the-environment\n")
    assert _shown(port) == "Bearer from-the-environment"


def test_token_prints_what_an_app_is_to_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    store_tokens()
    assert call("token").stdout == f"{ADMIN}\n"
    assert call("token", "demo").stdout == f"{TOKEN}\n"
    monkeypatch.setenv("WAGUARD_API__CLIENT_TOKENS", '{ demo = "from-the-configuration" }')
    monkeypatch.setenv("WAGUARD_API__ADMIN_TOKEN", "admin-of-the-configuration")
    assert call("token", "demo").stdout == "from-the-configuration\n"
    assert call("token").stdout == "admin-of-the-configuration\n"
    result = call("token", "demo2")
    assert result.exit_code == 1
    assert 'api.clients (clients = ["demo2"])' in result.stderr


def test_tokens_that_are_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    result = call("status")
    assert result.exit_code == 1
    assert f"There is no {tmp_path / 'sessions' / configured.FILE}" in result.stderr
    assert "waguard run" in result.stderr
    (tmp_path / "sessions" / configured.FILE).mkdir(parents=True)
    assert "cannot be read: Is a directory. [no_token]\nRun this as the daemon's user" in call("token").stderr
    (tmp_path / "sessions" / configured.FILE).rmdir()
    (tmp_path / "sessions" / configured.FILE).write_text(f'{{"admin": "{ADMIN}"')
    assert "not of the form" in call("token").stderr
    assert ADMIN not in call("token").output
    (tmp_path / "sessions" / configured.FILE).write_text('{"admin": "", "clients": {}}')
    result = call("token")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "admin must have at least 16 characters" in result.stderr


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_token_is_not_the_admins(port: Port, monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    store_tokens()
    monkeypatch.setenv(tokens.ENV_TOKEN, empty)
    result = ask(port, "status")
    assert result.exit_code == 1
    assert "WAGUARD_TOKEN is empty. [token_unfit]" in result.stderr
    assert "unset WAGUARD_TOKEN" in result.stderr
    assert not port.requests


def test_a_token_with_a_line_break_is_none(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tokens.ENV_TOKEN, "a\nb")
    result = ask(port, "status")
    assert result.exit_code == 1
    assert "WAGUARD_TOKEN holds control characters" in result.stderr
    assert not port.requests


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration that is there for others, as the service's is."""
    place = tmp_path / "closed"
    place.mkdir(mode=0o000)
    monkeypatch.setattr(loading, "SEARCHED", (place / "config.toml",))
    call("--help")  # what there is to import, since others may not read where Python is
    codecs.lookup("idna")  # likewise
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield place / "config.toml"
    finally:
        os.seteuid(me)


@pytest.mark.parametrize("command", [("status",), ("token",), ("connect", "demo"), ("config", "show")])
def test_a_configuration_of_others_is_said_to_be_so(closed: Path, command: Sequence[str]) -> None:
    result = call(*command)
    assert result.exit_code == 2
    assert f"{closed}: cannot be read: Permission denied." in result.output
    assert "sudo waguard" in result.output


def test_an_app_needs_no_configuration(port: Port, closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port.handlers["GET /v1/sessions/demo"] = always(DOWN)
    assert ask(port, "status", "demo").exit_code == 2  # whose token?
    monkeypatch.setenv(tokens.ENV_TOKEN, TOKEN)
    assert call("status", "demo").exit_code == 2  # at which address?
    result = ask(port, "status", "demo")
    assert result.exit_code == 0, result.output
    assert port.requests[-1].headers["Authorization"] == f"Bearer {TOKEN}"
    assert call("--config", str(closed), "status", "--url", port.url).exit_code == 2


# --- what may be wrong with the daemon ------------------------------------------------------------------


@pytest.mark.usefixtures("with_token")
class TestDaemon:
    def test_none_is_there(self) -> None:
        url = free_address()
        for arguments in (("status",), ("connect", "demo"), ("cleanup", "demo", "--yes")):
            result = call(*arguments, "--url", url)
            assert result.exit_code == ExitCode.NO_DAEMON
            assert result.stderr == f"No daemon answers at {url}. [no_daemon]\nStart it: waguard run\n"

    def test_its_port_is_only_in_its_log(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WAGUARD_API__PORT", "0")
        assert "name it with --url" in call("status").stderr

    def test_the_address_is_the_configurations(self, port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
        port.handlers["GET /v1/sessions"] = always({"sessions": []})
        monkeypatch.setenv("WAGUARD_API__PORT", port.url.rpartition(":")[2])
        assert call("status").stdout == "No sessions yet. Start one: waguard connect CODE\n"

    @pytest.mark.parametrize("url", ["foo", "http://", "ftp://localhost", "127.0.0.1:8717"])
    def test_an_address_that_is_none(self, url: str) -> None:
        result = call("status", "--url", url)
        assert result.exit_code == 2
        assert "write http://HOST:PORT" in result.stderr

    def test_its_errors_are_told_with_code_and_hint(self, port: Port) -> None:
        error = BrowserFailed("It did not start.", hint="Run: waguard doctor", stage="start", stderr=["x"])
        port.handlers["POST /v1/sessions/demo/disconnect"] = always(error)
        result = ask(port, "disconnect", "demo")
        assert result.exit_code == 1
        said = "It did not start. [browser_failed]\nRun: waguard doctor\nThe browser says: x\n"
        assert result.stderr == said
        port.handlers["POST /v1/sessions/demo/disconnect"] = always(
            Foreign("of_the_future", "Too new for this command.")
        )
        assert ask(port, "disconnect", "demo").stderr == "Too new for this command. [of_the_future]\n"

    def test_what_its_hints_say_to_do_is_said_as_commands(self, port: Port) -> None:
        hint = "Start it: POST /v1/sessions/demo/connect?fresh=true"
        port.handlers["POST /v1/sessions/demo/disconnect"] = always(BrowserFailed("No.", hint=hint))
        said = ask(port, "disconnect", "demo").stderr
        assert said == "No. [browser_failed]\nStart it: waguard connect demo --fresh\n"
        failed = replace(FAILED, failure=FailureView("refused", "No.", None, "GET /v1/sessions/demo"))
        port.handlers["GET /v1/sessions/demo"] = always(failed)
        assert "\twaguard status demo\n" in ask(port, "status", "demo").stdout
        port.handlers["GET /v1/sessions"] = always({"sessions": [failed]})
        assert "refused: No. waguard status demo" in ask(port, "status").stdout

    @pytest.mark.parametrize(
        "response",
        [
            {"status": 404, "text": "<html>", "content_type": "text/html"},
            {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
            {"status": 200, "text": "<html>", "content_type": "text/html"},
            {"status": 200, "text": '{"sessions": [{"client": "demo"}]}', "content_type": "application/json"},
            {"status": 500, "text": "[]", "content_type": "application/problem+json"},
        ],
    )
    def test_what_answers_is_another_program(self, port: Port, response: dict[str, Any]) -> None:
        async def other(_request: web.BaseRequest) -> web.Response:
            return web.Response(**response)

        port.handlers["GET /v1/sessions"] = other
        result = ask(port, "status")
        assert result.exit_code == 1
        assert f"What answers at {port.url} is not this version of waguard." in result.stderr

    def test_it_dies_while_it_is_asked(self, port: Port) -> None:
        async def die(request: web.BaseRequest) -> web.Response:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        port.handlers["POST /v1/sessions/demo/cleanup"] = die
        result = ask(port, "cleanup", "demo", "--yes")
        assert result.exit_code == ExitCode.NO_DAEMON
        assert f"{port.url} broke off: " in result.stderr


# --- looking ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_token")
class TestStatus:
    def test_for_programs_each_is_a_line_that_nothing_was_cut_from(self, port: Port) -> None:
        port.handlers["GET /v1/sessions"] = always({"sessions": [SCAN, replace(FAILED, client="demo2")]})
        result = ask(port, "status")
        lines = [line.split("\t") for line in result.stdout.splitlines()]
        assert lines[0][:4] == ["CLIENT", "STATUS", "SINCE", "TROUBLE"]
        assert lines[1][:2] == ["demo2", "failed"], "those in trouble first"
        assert lines[1][3] == "browser_failed: The browser ended. Run: waguard doctor"
        assert (*lines[2][:2], lines[2][3], lines[2][-1]) == ("demo", "awaiting_scan", "-", "4711")
        assert {len(line) for line in lines} == {len(lines[0])}
        assert "\x1b" not in result.stdout

    def test_one(self, port: Port) -> None:
        port.handlers["GET /v1/sessions/demo"] = always(SCAN)
        said = ask(port, "status", "demo").stdout
        assert "stages\tadmit 0 ms, prepare 12 ms, start 206 ms, open 1.2 s\n" in said
        assert "pid 4711, 4712 in bubblewrap" in said
        assert "login\tnone: a scan is needed\n" in said
        port.handlers["GET /v1/sessions/demo"] = always(FAILED)
        said = ask(port, "status", "demo").stdout
        assert "The browser ended. [browser_failed] in stage start" in said
        assert "Run: waguard doctor" in said
        who = replace(CONNECTED, wid="34600000001:7@c.us", push_name="Tienda", login=Login.ON_DISK)
        port.handlers["GET /v1/sessions/demo"] = always(who)
        said = ask(port, "status", "demo").stdout
        assert "number\t+34600000001 Tienda\n" in said
        assert "login\ton disk\n" in said

    def test_one_with_what_happened_lately(self, port: Port) -> None:
        port.handlers["GET /v1/sessions/demo"] = always(CONNECTED)
        port.handlers["GET /v1/sessions/demo/history"] = always({"history": HAPPENED})
        port.handlers["GET /v1/sessions/demo/snapshots"] = always(
            {"snapshots": [SNAPSHOT, {**SNAPSHOT, "login": False}]}
        )
        said = ask(port, "status", "demo").stdout
        assert "snapshots\t1 with a login, the newest " in said
        assert said.endswith(
            """\
WHEN	WHAT
2001-09-09 01:46:49	restarted automatically (recovery): connected after 2.1 s
2001-09-09 01:46:47	page_blocked is over by restart, 9.0 s after it was found
2001-09-09 01:46:46	restart against page_blocked: cured after 2.2 s
2001-09-09 01:46:43	reload against page_blocked: failed after 5.0 s
2001-09-09 01:46:38	found page_blocked: no answer for 31 s; to be tried: reload, restart
"""
        )

    def test_the_history_has_all_of_it(self, port: Port) -> None:
        port.handlers["GET /v1/sessions/demo/history"] = always({"history": HAPPENED})
        said = ask(port, "history", "demo", "--limit", "7").stdout
        assert port.requests[-1].query["limit"] == "7"
        assert len(said.splitlines()) == len(HAPPENED) + 1
        assert "connected, up; was recovering for 2.0 s\n" in said
        assert "stage open was not done within 45 s\n" in said
        assert "of.the.future {'some': 'thing'}\n" in said, "what a later daemon keeps"
        assert json.loads(ask(port, "history", "demo", "--json").stdout)["history"] == HAPPENED
        port.handlers["GET /v1/sessions/demo/history"] = always({"history": []})
        assert ask(port, "history", "demo").stdout == "There is no history of demo.\n"

    def test_as_json(self, port: Port) -> None:
        port.handlers["GET /v1/sessions"] = always({"sessions": [SCAN, DOWN]})
        port.handlers["GET /v1/sessions/demo"] = always(SCAN)
        one = json.loads(_ANY.dump_json(SCAN))
        assert json.loads(ask(port, "status", "demo", "--json").stdout) == one
        assert json.loads(ask(port, "status", "--json").stdout)["sessions"][0] == one

    def test_of_nobody(self, port: Port) -> None:
        result = ask(port, "status", "demo")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "[session_not_found]" in result.stderr

    def test_more_than_this_version_knows(self, port: Port) -> None:
        view = {**json.loads(_ANY.dump_json(SCAN)), "battery": 0.5}
        port.handlers["GET /v1/sessions/demo"] = always(view)
        assert ask(port, "status", "demo").exit_code == 0


@pytest.mark.parametrize(
    ("ago", "said"), [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (200_000, "2 d")]
)
def test_ages(ago: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9 + ago)
    assert units.age(1e9) == said


# --- the verbs ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_token")
class TestConnect:
    def test_each_change_and_each_code_is_told_once(self, port: Port) -> None:
        second = replace(SCAN, qr=QrView("2@e,f,g,h,1", 0.7, 0.0))
        port.bring_up([STARTING, STARTING, SCAN, second, second, CONNECTED])
        result = ask(port, "connect", "demo", "--wait", "connected")
        assert result.exit_code == 0
        assert [line.partition(" s  ")[2] or line for line in result.stdout.splitlines()] == [
            "admit took 0 ms",
            "prepare took 12 ms",
            "demo is starting",
            "start took 206 ms",
            "open took 1.2 s",
            "demo is awaiting_scan",
            *blocks(SCAN).splitlines(),
            *blocks(second).splitlines(),
            "demo is connected",
        ]
        assert "\x1b" not in result.stdout

    def test_a_script_gets_its_answer_with_the_code(self, port: Port) -> None:
        port.bring_up([SCAN])
        result = ask(port, "connect", "demo")
        assert blocks(SCAN) in result.stdout
        post = next(request for request in port.requests if request.method == "POST")
        assert dict(post.query) == {"wait": "qr"}

    def test_options_are_handed_on(self, port: Port) -> None:
        port.bring_up([SCAN])
        result = ask(port, "connect", "demo", "--fresh", "--wait", "connected", "--timeout", "90", "--no-qr")
        assert "█" not in result.stdout
        assert "▀" not in result.stdout
        post = next(request for request in port.requests if request.method == "POST")
        assert dict(post.query) == {"wait": "connected", "fresh": "true", "timeout_s": "90"}

    def test_as_json(self, port: Port) -> None:
        port.handlers["POST /v1/sessions/demo/connect"] = always(SCAN)
        assert json.loads(ask(port, "connect", "demo", "--json").stdout) == json.loads(_ANY.dump_json(SCAN))
        assert len(port.requests) == 1

    def test_why_it_is_not_connected(self, port: Port) -> None:
        port.bring_up([FAILED], outcome=BrowserFailed("The browser ended.", hint="Run: waguard doctor"))
        result = ask(port, "connect", "demo")
        assert result.exit_code == 1
        assert "demo is failed: The browser ended." in result.stdout
        assert result.stderr == "The browser ended. [browser_failed]\nRun: waguard doctor\n"

    def test_what_is_up_already_shows_no_stages_of_its_old_launch(self, port: Port) -> None:
        port.bring_up([CONNECTED], before=CONNECTED)
        said = ask(port, "connect", "demo").stdout
        assert [line.partition(" s  ")[2] for line in said.splitlines()] == ["demo is connected"]
        again = replace(CONNECTED, attempt="b0000000", stages_ms={"admit": 0.2, "open": 900.0})
        port.bring_up([again], before=CONNECTED, verb="restart")
        said = ask(port, "restart", "demo").stdout
        assert [line.partition(" s  ")[2] for line in said.splitlines()] == [
            "admit took 0 ms",
            "open took 900 ms",
            "demo is connected",
        ]

    def test_whoever_joins_a_start_sees_how_far_it_is(self, port: Port) -> None:
        port.bring_up([CONNECTED], before=STARTING)
        assert "prepare took 12 ms" in ask(port, "connect", "demo").stdout

    def test_a_session_that_the_daemon_does_not_know_yet(self, port: Port) -> None:
        asked = asyncio.Event()

        async def look(_request: web.BaseRequest) -> web.Response:
            asked.set()
            return problems.response(SessionNotFound("There is no session."), admin=True)

        async def work(_request: web.BaseRequest) -> web.Response:
            await asked.wait()
            return answer(CONNECTED)

        port.handlers |= {"GET /v1/sessions/demo": look, "POST /v1/sessions/demo/connect": work}
        assert "demo is connected" in ask(port, "connect", "demo").stdout

    def test_restart_is_followed_too(self, port: Port) -> None:
        port.bring_up([STARTING, CONNECTED], verb="restart")
        assert "demo is connected" in ask(port, "restart", "demo").stdout
        post = next(request for request in port.requests if request.method == "POST")
        assert dict(post.query) == {"wait": "qr"}


def test_disconnect(port: Port, with_token: None) -> None:
    port.handlers["POST /v1/sessions/demo/disconnect"] = always(DOWN)
    assert ask(port, "disconnect", "demo").stdout == "demo is stopped\n"
    assert json.loads(ask(port, "disconnect", "demo", "--json").stdout)["status"] == "stopped"


def test_pair(port: Port, with_token: None) -> None:
    view = PairingView("ABCD1234", time.time() + 160)
    port.handlers["POST /v1/sessions/demo/pairing-code"] = always(view)
    shown = ask(port, "pair", "demo", "5215550001111").stdout
    assert shown.startswith("ABCD-1234\n")
    assert "waguard connect demo --wait connected" in shown
    assert json.loads(ask(port, "pair", "demo", "5215550001111", "--json").stdout)["code"] == "ABCD1234"
    assert not port.requests[-1].query, "a number is in no address"


@pytest.mark.usefixtures("with_token")
class TestCleanup:
    STEPS = (Step("memory", "done", 0.1), Step("tree", "done", 23.4, "proved gone"), Step("lock"))
    CLEAN = CleanupView("demo", ok=True, steps=STEPS, ms=25.0)
    NOT = CleanupView("demo", ok=False, steps=[Step("tree", "failed", 9999.0, "pid 7 stays.")], ms=10_000.0)
    ROUTE = "POST /v1/sessions/demo/cleanup"

    def test_each_step_is_told(self, port: Port) -> None:
        port.handlers[self.ROUTE] = always(self.CLEAN)
        result = ask(port, "cleanup", "demo", "--yes")
        assert result.exit_code == 0
        assert [line.split() for line in result.stdout.splitlines()] == [
            ["STEP", "OUTCOME", "MS", "DETAIL"],
            ["memory", "done", "0.1", "-"],
            ["tree", "done", "23.4", "proved", "gone"],
            ["lock", "nothing", "0.0", "-"],
            ["demo", "is", "clean", "(25", "ms)."],
        ]

    def test_not_clean_is_no_success(self, port: Port) -> None:
        port.handlers[self.ROUTE] = always(self.NOT)
        result = ask(port, "cleanup", "demo", "--yes")
        assert result.exit_code == 1
        assert "pid 7 stays." in result.stdout
        result = ask(port, "cleanup", "demo", "--json", "-y")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["steps"][0]["outcome"] == "failed"

    @pytest.mark.parametrize(
        ("command", "what"),
        [
            (("cleanup", "demo"), "demo will have to scan a QR code again. [not_agreed]"),
            (("restore", "demo"), "demo will be restarted with its newest snapshot. [not_agreed]"),
            (("restore", "demo", "20260101T000000-1"), "with the snapshot 20260101T000000-1. [not_agreed]"),
        ],
    )
    def test_where_nobody_can_be_asked_no_login_goes_unasked(
        self, port: Port, command: tuple[str, ...], what: str
    ) -> None:
        result = ask(port, *command)
        assert result.exit_code == 1
        assert what in result.stderr
        assert f"If you mean it: waguard {' '.join(command)} --yes" in " ".join(result.stderr.split())
        assert not port.requests

    def test_a_person_is_asked(self, port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
        port.handlers[self.ROUTE] = always(self.CLEAN)
        monkeypatch.setattr(terminal, "on_terminal", lambda: True)
        refused = ask(port, "cleanup", "demo", input="n\n")
        assert refused.exit_code == 1
        assert "will have to scan" in refused.stderr
        assert not port.requests

        def interrupted(*_: object, **_options: object) -> bool:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                raise typer.Abort from None

        with monkeypatch.context() as at_question:
            at_question.setattr(typer, "confirm", interrupted)
            assert ask(port, "cleanup", "demo").exit_code == 130
        assert not port.requests
        agreed = ask(port, "cleanup", "demo", "--json", input="y\n")
        assert json.loads(agreed.stdout.removeprefix(" y\n"))["ok"], "what was typed, then JSON alone"
        assert ask(port, "cleanup", "demo", "--yes").exit_code == 0
        assert len(port.requests) == 2


# --- the configuration ----------------------------------------------------------------------------------


def test_config_check_says_what_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("config", "check").stdout.startswith("ok: defaults: there is neither config.toml nor ")
    Path("config.toml").write_text("[api]\nport = 9000\n")
    monkeypatch.setenv("WAGUARD_LOG__LEVEL", "debug")
    assert call("config", "check").stdout.splitlines() == [
        f"ok: {tmp_path / 'config.toml'}",
        "log.level is set by WAGUARD_LOG__LEVEL",
    ]


SETTINGS = """
[sessions]
dir = "/srv/wäguard \\"1\\""
[browser]
extra_flags = ["--lang=es", "--proxy-server=http://localhost:3128"]
[api]
port = 9000
admin_token = "admin-admin-admin-admin"
client_tokens = { demo = "demo-demo-demo-demo" }
"""


def test_config_show_can_be_pasted_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.toml").write_text(SETTINGS)
    monkeypatch.setenv("WAGUARD_RESTART__BASE_S", "0.25")
    shown = call("config", "show").stdout
    assert ADMIN not in shown
    assert TOKEN not in shown
    origins = {line.split()[0]: line.partition(" # ")[2] for line in shown.splitlines() if " # " in line}
    assert origins["port"] == "config.toml:7"
    assert origins["base_s"] == "WAGUARD_RESTART__BASE_S"
    assert origins["host"] == "default"
    pasted = tmp_path / "pasted.toml"
    pasted.write_text(shown)
    effective = load(Path("config.toml")).config
    open_parts = effective.model_copy(
        update={"api": effective.api.model_copy(update={"admin_token": None, "client_tokens": {}})}
    )
    assert load(pasted, environ={}).config == open_parts
    assert tomllib.loads(shown).keys() == Config.model_fields.keys() - {"clients"}, "of whom there are none"


def test_config_show_has_what_is_set_of_single_clients_without_passwords(tmp_path: Path) -> None:
    proxy = "{url = 'http://b:1', user = 'a', password = 'geheim'}"
    Path("config.toml").write_text(f"[clients.demo]\nlanguage = 'es-ES'\n[clients.other]\nproxy = {proxy}\n")
    shown = call("config", "show").stdout
    assert tomllib.loads(shown)["clients"] == {"demo": {"language": "es-ES"}}
    assert '# other = { "proxy" = {' in shown
    assert "geheim" not in shown + call("config", "show", "--json").stdout


def test_config_show_as_json() -> None:
    Path("config.toml").write_text(SETTINGS)
    shown = json.loads(call("config", "show", "--json").stdout)
    assert shown["file"] == "config.toml"
    settings = shown["settings"]
    assert settings["api.port"] == {"value": 9000, "origin": "config.toml:7"}
    assert settings["api.admin_token"] == {"value": "******", "origin": "config.toml:8"}
    assert settings["api.client_tokens"]["value"] == {"demo": "******"}
    assert settings["browser.path"] == {"value": None, "origin": "default"}


def test_the_token_file_is_only_read(tmp_path: Path) -> None:
    store_tokens()
    path = tmp_path / "sessions" / configured.FILE
    path.chmod(0o600)
    before = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
    call("token")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == before
