"""What scripts rely on: exit codes that are in the one table, and JSON from each command that prints data."""

import ast
import json
import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from checkout import ROOT, text
from commands import ADMIN, Port, always, answer, call, store_tokens
from typer.core import TyperGroup

from waguard.cli.app import app
from waguard.cli.exits import ExitCode
from waguard.core.shown import SnapshotView
from waguard.errors import SnapshotNotFound

WITHOUT_JSON = {
    "run": "its log is JSON: log.format",
    "simulate": "it prints how it is used, once, and serves",
    "values get": "the value, byte for byte",
    "audit export": "JSON lines anyhow",
    "config schema": "JSON anyhow",
    "completion": "for a shell to read",
}
"""Commands that print no document of their own, and why."""
GIVEN = {
    "PHONE": "5215550001111",
    "KEY": "k",
    "NAME": "crm",
    "CODE": "demo",
    "PATH": "login",
    "FILE": "file",
    "KEY...": "language",
    "KEY=VALUE...": "language=es",
    "ID": "w",
    "ADDRESS": "https://example.com/",
}
MORE = {
    "token create": ("--scope", "read", "--all-clients"),
    "settings set": ("language=es",),
    **dict.fromkeys(("cleanup", "restore", "undo", "values delete", "webhook delete"), ("--yes",)),
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("WAGUARD_", "INVOCATION_ID"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def port() -> Iterator[Port]:
    with Port() as port:
        yield port


def commands(group: Any = None, above: str = "") -> Iterator[tuple[str, Any]]:
    """Each by its words, as it is typed."""
    among: Any = group or typer.main.get_command(app)
    for name, command in among.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


COMMANDS = dict(commands())


def options(command: Any) -> set[str]:
    return {word for parameter in command.params for word in parameter.opts}


# --- exit codes ---------------------------------------------------------------------------------------


def test_every_end_of_a_command_is_in_the_table() -> None:
    ends = []
    for path in (ROOT / "waguard" / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                "sys.exit",
                "typer.Exit",
                "os._exit",
                "SystemExit",
            }:
                ends += [(path.name, ast.unparse(one)) for one in node.args]
    assert {code for _, code in ends} >= {"ExitCode.FOUND", "ExitCode.FAILED", "ExitCode.INTERRUPTED"}
    asked = {("edge.py", "_exit_code(error, starts=starts)")}  # mypy knows what that returns
    assert [one for one in ends if not one[1].startswith("ExitCode.") and one not in asked] == []


def test_the_library_s_own_ends_are_those_of_the_table() -> None:
    assert call("status", "--nonsense").exit_code == ExitCode.USAGE
    assert call("--config", "/nowhere/config.toml", "status").exit_code == ExitCode.USAGE
    assert call("--version").exit_code == ExitCode.DONE
    assert call("cleanup", "demo").exit_code == ExitCode.FAILED  # there is nobody to confirm it


def test_the_table_is_the_units_and_the_documentation_s() -> None:
    assert f"RestartPreventExitStatus={ExitCode.LASTING:d}\n" in text("systemd/waguard.service")
    page = text("docs/reference/commands.md")
    assert all(f"| {code:d} | {code.says} |" in page for code in ExitCode)


# --- JSON ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS)
def test_each_command_prints_json_or_has_a_reason_not_to(words: str) -> None:
    assert ("--json" in options(COMMANDS[words])) is (words not in WITHOUT_JSON)


def typed(words: str) -> list[str]:
    """With what it has to be given."""
    arguments = [one for one in COMMANDS[words].params if isinstance(one, typer.core.TyperArgument)]
    needed = [GIVEN[str(one.metavar)] for one in arguments if one.required]
    return [*words.split(), *needed, *MORE.get(words, ())]


ASKING = [words for words, command in COMMANDS.items() if {"--json", "--url"} <= options(command)]


@pytest.mark.parametrize("words", ASKING)
def test_an_error_is_a_document_too(words: str, tmp_path: Path) -> None:
    (tmp_path / "login").write_bytes(b"x")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        result = call(*typed(words), "--json", "--url", url, env={"WAGUARD_TOKEN": ADMIN})
    assert (result.exit_code, result.stdout) == (ExitCode.NO_DAEMON, "")
    said = json.loads(result.stderr)
    assert said == {
        "code": "no_daemon",
        "message": f"No daemon answers at {url}.",
        "hint": "Start it: waguard run",
        "details": {},
    }


def test_an_error_has_its_details(port: Port) -> None:
    port.handlers["GET /v1/sessions/demo/snapshots"] = always(
        SnapshotNotFound("None.", hint="Look.", more=[1])
    )
    result = call("snapshots", "demo", "--json", "--url", port.url, env={"WAGUARD_TOKEN": ADMIN})
    assert result.exit_code == ExitCode.FAILED
    said = json.loads(result.stderr)
    assert (said["code"], said["hint"], said["details"]["more"]) == ("snapshot_not_found", "Look.", [1])
    Path("config.toml").write_text('[api]\nport = "x"\nhots = 1\n')
    result = call("config", "check", "--json")
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert [one.partition(": ")[0] for one in json.loads(result.stderr)["details"]["problems"]] == [
        "config.toml:2",
        "config.toml:3",
    ]


def test_the_token_is_the_same_in_both_forms() -> None:
    store_tokens()
    for words, client in (((), None), (("demo",), "demo")):
        found = json.loads(call("token", *words, "--json").stdout)
        assert found == {"client": client, "token": call("token", *words).stdout.strip()}


def test_config_check_says_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.toml").write_text("[api]\nport = 9000\n")
    (tmp_path / "conf.d").mkdir()
    for name in ("10.toml", "20.toml~"):
        (tmp_path / "conf.d" / name).touch()
    monkeypatch.setenv("WAGUARD_LOG__LEVEL", "debug")
    assert json.loads(call("config", "check", "--json").stdout) == {
        "ok": True,
        "files": [f"{tmp_path}/config.toml", f"{tmp_path}/conf.d/10.toml"],
        "left_out": [f"{tmp_path}/conf.d/20.toml~"],
        "variables": {"log.level": "WAGUARD_LOG__LEVEL"},
    }


def test_an_export_says_what_is_where(port: Port, tmp_path: Path) -> None:
    async def sealed(_request: Any) -> Any:
        return answer("x" * 10)

    taken = SnapshotView("s1", "demo", 1e9, "request", True, False, True, "144", "g", 12)
    port.handlers["POST /v1/sessions/demo/snapshots"] = always(taken)
    port.handlers["GET /v1/sessions/demo/snapshots/s1"] = sealed
    file = tmp_path / "out.wgb"
    done = call("export", "demo", str(file), "--json", "--url", port.url, env={"WAGUARD_TOKEN": ADMIN})
    assert json.loads(done.stdout) == {"client": "demo", "snapshot": "s1", "file": str(file), "bytes": 12}


def test_what_is_printed_without_a_daemon_is_one_document() -> None:
    for words in (("doctor",), ("audit", "show"), ("audit", "verify"), ("config", "show")):
        assert json.loads(call(*words, "--json").stdout) is not None
    assert tomllib.loads(call("config", "show").stdout)
