"""`waguard token`: what is asked of the daemon, and what people and scripts see."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import ADMIN, TOKEN, Port, always, answer, call, store_tokens
from rich.cells import cell_len
from rich.console import Console
from typer.testing import Result

from waguard.access import configured
from waguard.cli import show
from waguard.core.access import Scope, TokenState
from waguard.core.shown import TokenList, TokenMade, TokenView
from waguard.errors import TokenNotFound

SHOWN = "wgt_01234567_" + "s" * 43
VIEW = TokenView(
    "01234567",
    "crm",
    TokenState.ACTIVE,
    [Scope.READ, Scope.CONNECT],
    ["demo"],
    1_800_000_000.0,
    "token:admin",
    1_807_790_400.0,  # noon in London, so the same day nearly everywhere
    None,
    None,
)


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Port]:
    monkeypatch.chdir(tmp_path)
    store_tokens()
    with Port() as serving:
        yield serving


def ask(port: Port, *arguments: str) -> Result:
    return call("token", *arguments, "--url", port.url, env={"WAGUARD_TOKEN": ADMIN})


def keep_bodies(port: Port, route: str) -> list[dict[str, Any]]:
    bodies: list[dict[str, Any]] = []

    async def handler(request: Any) -> Any:
        bodies.append(json.loads(await request.read()))
        return answer(TokenMade(SHOWN, VIEW))

    port.handlers[route] = handler
    return bodies


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (
            ("crm", "--scope", "read", "--scope", "connect", "--client", "demo"),
            {"scopes": ["read", "connect"], "clients": ["demo"], "labels": [], "expires_in_s": 90 * 86_400.0},
        ),
        (
            ("crm", "--scope", "read, connect", "--client", "demo,demo2", "--expires", "12h"),
            {
                "scopes": ["read", "connect"],
                "clients": ["demo", "demo2"],
                "labels": [],
                "expires_in_s": 43_200.0,
            },
        ),
        (
            ("crm", "--scope", "admin", "--all-clients", "--expires", "never"),
            {"scopes": ["admin"], "clients": ["*"], "labels": [], "expires_in_s": "never"},
        ),
    ],
)
def test_a_token_is_alone_on_stdout(port: Port, arguments: Sequence[str], asked: dict[str, Any]) -> None:
    bodies = keep_bodies(port, "POST /v1/tokens")
    result = ask(port, "create", *arguments)
    assert result.stdout == f"{SHOWN}\n"
    assert bodies == [{"name": "crm", **asked}]
    assert "Made crm (01234567): read, connect of demo; expires 2027-" in result.stderr
    assert "It is shown this once: store it now." in result.stderr
    assert SHOWN not in result.stderr
    assert json.loads(ask(port, "create", *arguments, "--json").stdout)["token"] == SHOWN


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--scope", "read"), "--client CODE, --label LABEL, or --all-clients"),
        (
            ("--scope", "read", "--client", "demo", "--all-clients"),
            "--client CODE, --label LABEL, or --all-clients",
        ),
        (("--scope", "read", "--client", "demo", "--expires", "soon"), "such as 90d; or never"),
        (("--client", "demo"), "--scope"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_asked(
    port: Port, arguments: Sequence[str], why: str
) -> None:
    result = ask(port, "create", "crm", *arguments)
    assert result.exit_code == 2
    assert why in result.stderr
    assert port.requests == []


def test_rotated_and_revoked(port: Port) -> None:
    port.handlers["POST /v1/tokens/crm/rotate"] = always(TokenMade(SHOWN, VIEW))
    port.handlers["POST /v1/tokens/crm/revoke"] = always(VIEW)
    result = ask(port, "rotate", "crm", "--overlap", "2d")
    assert result.stdout == f"{SHOWN}\n"
    assert port.requests[-1].query["overlap_s"] == "172800"
    assert ask(port, "rotate", "crm", "--overlap", "long").exit_code == 2
    assert ask(port, "revoke", "crm").stdout == "crm (01234567) is revoked.\n"
    port.handlers["POST /v1/tokens/other/revoke"] = always(
        TokenNotFound("There is no token 'other'.", hint="waguard token list shows them.")
    )
    result = ask(port, "revoke", "other")
    assert result.exit_code == 1
    assert result.stderr == "There is no token 'other'. [token_not_found]\nwaguard token list shows them.\n"


def test_the_list(port: Port) -> None:
    port.handlers["GET /v1/tokens"] = always(TokenList([VIEW]))
    head, row = ask(port, "list").stdout.splitlines()
    assert head.split("\t") == ["NAME", "STATE", "EXPIRES", "SCOPES", "USED", "ID"]
    assert row.split("\t") == ["crm", "active", "2027-04-15", "read, connect of demo", "-", "01234567"]
    assert json.loads(ask(port, "list", "--json").stdout)["tokens"][0]["id"] == "01234567"
    port.handlers["GET /v1/tokens"] = always(TokenList([]))
    assert "waguard token create NAME" in ask(port, "list").stdout


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_list_on_a_terminal(width: int) -> None:
    every = [one for one in Scope if one is not Scope.OPEN]
    names = ["crm", "a-bot-with-a-long-name-that-somebody-gave-it", "dashboard"]
    views = [
        TokenView(
            "0" * 8, name, state, every, ["demo", "demo2", "demo3", "demo4"], 0.0, "", 1.8e9, 1.79e9, None
        )
        for name, state in zip(names, TokenState, strict=True)
    ]
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, _environ={})
    show.tokens(views, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(cell_len, text.splitlines())) <= width
    for name in names:
        assert name in text
    for state in TokenState:
        assert state in text


@pytest.mark.parametrize("arguments", [(), ("show",)])
def test_those_of_the_configuration_need_no_daemon(port: Port, arguments: Sequence[str]) -> None:
    assert call("token", *arguments).stdout == f"{ADMIN}\n"
    assert call("token", *arguments, "demo").stdout == f"{TOKEN}\n"
    assert port.requests == []


def test_a_client_that_is_called_like_a_command_is_shown_by_show(port: Port) -> None:
    stored = {"admin": ADMIN, "clients": {"list": TOKEN}}
    (Path("sessions") / configured.FILE).write_text(json.dumps(stored))
    assert call("token", "show", "list").stdout == f"{TOKEN}\n"
    assert "list" in call("token", "--help").stdout
    assert port.requests == []
