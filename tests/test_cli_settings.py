"""Settings of a client on the command line: what is shown, what is sent, and that no password is an argument."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ADMIN, Port, answer, call, store_tokens

from waguard.config.clients import ClientSettings
from waguard.core.shown_settings import SettingsView, SettingView

PATH = "/v1/sessions/demo/settings"
PUT = {
    "language": "es-ES",
    "proxy": {"url": "http://proxy.example:3128", "user": "demo", "password_set": True},
}
AS_FOR_ALL = {"labels": [], "extra_flags": [], "snapshots_scheduled": True, "memory_max_mb": 4096}


def view(**more: Any) -> SettingsView:
    held: dict[str, SettingView] = {
        key: SettingView(PUT[key], "put") if key in PUT else SettingView(AS_FOR_ALL.get(key), "all")
        for key in ClientSettings.model_fields
    }
    return SettingsView("demo", held, more.pop("needs_restart", []), **more)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Port]:
    monkeypatch.chdir(tmp_path)
    store_tokens()
    with Port() as serving:
        yield serving


def asked(daemon: Port, sent: list[Any], shown: SettingsView | None = None) -> None:
    async def look(_request: Any) -> Any:
        return answer(view())

    async def put(request: Any) -> Any:
        sent.append(await request.json())
        return answer(shown or view())

    daemon.handlers |= {f"GET {PATH}": look, f"PUT {PATH}": put}


def command(daemon: Port, *arguments: str, **more: Any) -> Any:
    return call("settings", *arguments, "--url", daemon.url, env={"WAGUARD_TOKEN": ADMIN}, **more)


def test_they_are_shown_with_where_they_come_from(daemon: Port) -> None:
    asked(daemon, [])
    for words in (("demo",), ("show", "demo")):
        rows = [line.split("\t") for line in command(daemon, *words).stdout.splitlines()]
        assert ["language", "es-ES", "put at run time"] in rows
        assert ["proxy", "http://proxy.example:3128 as demo, with a password", "put at run time"] in rows
        assert any(row[:2] == ["memory_max_mb", "4096"] for row in rows)
    assert json.loads(command(daemon, "demo", "--json").stdout)["client"] == "demo"


def test_what_is_set_is_sent_with_what_was_and_the_password_stays(daemon: Port) -> None:
    sent: list[Any] = []
    asked(daemon, sent, view(needs_restart=["language"]))
    result = command(daemon, "set", "demo", "labels=sales, team=north", "memory_max_mb=2048")
    proxy = {"url": "http://proxy.example:3128", "user": "demo"}
    kept = {"language": "es-ES", "proxy": proxy, "restart": False}
    assert sent[-1] == {**kept, "labels": ["sales", "team=north"], "memory_max_mb": 2048}
    assert "others until its next start: language. Now: waguard restart demo" in result.stdout
    command(daemon, "set", "demo", "snapshots_scheduled=false", "proxy.user=other", "--restart")
    assert sent[-1] == {
        **kept,
        "snapshots_scheduled": False,
        "proxy": {**proxy, "user": "other"},
        "restart": True,
    }
    command(daemon, "unset", "demo", "proxy")
    assert sent[-1] == {"language": "es-ES", "restart": False}


def test_a_proxy_of_the_configuration_is_changed_in_part(daemon: Port) -> None:
    sent: list[Any] = []
    asked(daemon, sent)
    shown = view()
    of_file = {"url": "http://file.example:1", "user": "demo", "password_set": True}
    shown.settings["proxy"] = SettingView(of_file, "file")  # type: ignore[index] # ours to change

    async def look(_request: Any) -> Any:
        return answer(shown)

    daemon.handlers[f"GET {PATH}"] = look
    command(daemon, "set", "demo", "proxy.user=other")
    assert sent[-1]["proxy"] == {"url": "http://file.example:1", "user": "other"}
    result = command(daemon, "unset", "demo", "proxy.url")
    assert (result.exit_code, " proxy" in " ".join(result.output.split())) == (2, True)


def test_a_password_comes_from_a_file_or_from_stdin(daemon: Port, tmp_path: Path) -> None:
    sent: list[Any] = []
    asked(daemon, sent)
    (tmp_path / "password").write_text("geheim\nmore\n")
    command(daemon, "set", "demo", "--proxy-password-file", "password")
    assert sent[-1]["proxy"]["password"] == "geheim"
    command(daemon, "set", "demo", "--proxy-password-file", "-", input="other\n")
    assert sent[-1]["proxy"]["password"] == "other"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (['proxy={"url": "http://a.example:1", "password": "geheim"}'], "write proxy.url=VALUE"),
        (["proxy.password=geheim"], "not for the command line"),
        (["languge=x"], "there is no such key"),
        (["language"], "write KEY=VALUE"),
        ([], "name what is to be set"),
        (["--proxy-password-file", "none"], "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(daemon: Port, arguments: list[str], said: str) -> None:
    sent: list[Any] = []
    asked(daemon, sent)
    result = command(daemon, "set", "demo", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not sent
