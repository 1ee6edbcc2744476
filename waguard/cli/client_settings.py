"""The commands that ask the daemon about the settings of one client: show, set and unset them."""

import json as as_json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from waguard.cli import terminal
from waguard.cli.as_json import Json, print_json
from waguard.cli.client import Control
from waguard.cli.sessions import Code, Url, ask
from waguard.cli.table import Column, table
from waguard.config.clients import ClientSettings
from waguard.core.model import ClientCode, client_code
from waguard.core.shown_settings import SettingsView

_LISTS = frozenset({"labels", "extra_flags"})
_TEXTS = frozenset({"language", "time_zone", "user_agent", "priority"})
_OF_PROXY = ("proxy.url", "proxy.user")
_FROM = {"put": "put at run time", "file": "the configuration", "all": ""}
Restart = Annotated[
    bool, typer.Option("--restart", help="Start its browser anew, if one runs that has others.")
]


def show(ctx: typer.Context, code: Code, url: Url = None, json: Json = False) -> None:
    """Show the settings of a client, and where each comes from."""
    client = client_code(code)
    _shown(ask(ctx, url, lambda daemon: daemon.settings(client)).view, json=json)


def change(
    ctx: typer.Context,
    code: Code,
    given: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Keys of [clients] in config.toml, each with its value; a list has commas. For a proxy: {', '.join(_OF_PROXY)}.",
            metavar="KEY=VALUE...",
        ),
    ] = None,
    password_file: Annotated[
        str,
        typer.Option(
            "--proxy-password-file",
            help="The file whose first line is its password; - is stdin.",
            metavar="FILE",
        ),
    ] = "",
    restart: Restart = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Set some settings of a client and keep the others that were set so."""
    client = client_code(code)
    changes = dict(map(_pair, given or []))
    if password_file:
        changes["proxy.password"] = _first_line(password_file)
    if not changes:
        raise typer.BadParameter("name what is to be set: language=es-ES")

    def changed(view: SettingsView) -> dict[str, Any]:
        wanted = _put(view)
        for key, value in changes.items():
            if key.startswith("proxy."):
                now = wanted.get("proxy") or _of_now(view)
                wanted["proxy"] = {**now, key.removeprefix("proxy."): value}
            else:
                wanted[key] = value
        return wanted

    _shown(ask(ctx, url, lambda daemon: _replaced(daemon, client, changed, restart=restart)), json=json)


def unset(
    ctx: typer.Context,
    code: Code,
    keys: Annotated[list[str], typer.Argument(help="Keys that were set.", metavar="KEY...")],
    restart: Restart = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Take settings of a client back: the configuration holds again."""
    client = client_code(code)
    for key in keys:
        _check_key(key, known=[*ClientSettings.model_fields])

    def left(view: SettingsView) -> dict[str, Any]:
        return {key: value for key, value in _put(view).items() if key not in keys}

    _shown(ask(ctx, url, lambda daemon: _replaced(daemon, client, left, restart=restart)), json=json)


def _replaced(
    daemon: Control, client: ClientCode, by: Callable[[SettingsView], dict[str, Any]], *, restart: bool
) -> SettingsView:
    """Unless somebody else puts others meanwhile: then that is said, and theirs hold."""
    seen = daemon.settings(client)
    return daemon.put_settings(client, by(seen.view), restart=restart, if_match=seen.etag)


def _put(view: SettingsView) -> dict[str, Any]:
    """What was put before, as it is put again; a password that is not sent stays."""
    found = {key: one.value for key, one in view.settings.items() if one.origin == "put"}
    if found.get("proxy"):
        found["proxy"] = _of_now(view)
    return found


def _of_now(view: SettingsView) -> dict[str, Any]:
    """Of the proxy that holds, wherever it comes from, what may be sent."""
    proxy = view.settings["proxy"].value or {}
    return {key: proxy[key] for key in ("url", "user") if key in proxy}


def _pair(text: str) -> tuple[str, Any]:
    key, divided, value = text.partition("=")
    if key == "proxy.password":
        raise typer.BadParameter("a password is not for the command line: --proxy-password-file FILE, or -")
    if key == "proxy":
        raise typer.BadParameter(
            f"write {' and '.join(f'{one}=VALUE' for one in _OF_PROXY)}; its password: --proxy-password-file FILE, or -"
        )
    if not divided:
        raise typer.BadParameter(f"{text}: write KEY=VALUE")
    if key in _OF_PROXY:
        return key, value
    _check_key(key, known=[*(one for one in ClientSettings.model_fields if one != "proxy"), *_OF_PROXY])
    if key in _LISTS:
        return key, [one.strip() for one in value.split(",") if one.strip()]
    if key in _TEXTS:
        return key, value
    try:
        return key, as_json.loads(value)
    except ValueError:
        return key, value  # the daemon says what would be right


def _check_key(key: str, known: Sequence[str]) -> None:
    if key not in known:
        raise typer.BadParameter(f"{key}: there is no such key. Known are: {', '.join(known)}")


def _first_line(name: str) -> str:
    try:
        text = sys.stdin.readline() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--proxy-password-file {name}: cannot be read: {error}") from None
    return text.splitlines()[0] if text else ""


def _shown(view: SettingsView, *, json: bool) -> None:
    if json:
        print_json(view)
        return
    console = terminal.output()
    rows = [(key, _told(one.value), _FROM[one.origin]) for key, one in view.settings.items()]
    table((Column("KEY"), Column("VALUE", text=True), Column("SET BY")), rows, console)
    if view.restarted:
        console.print("Its browser is being started anew.")
    elif view.needs_restart:
        names = ", ".join(view.needs_restart)
        console.print(
            f"Its browser has others until its next start: {names}. Now: waguard restart {view.client}"
        )


def _told(value: Any) -> str:
    match value:
        case {"url": url, "user": user, "password_set": has_password}:
            return f"{url}{f' as {user}' if user else ''}{', with a password' if has_password else ''}"
        case list():
            return ", ".join(value)
        case bool():
            return "yes" if value else "no"
        case None:
            return ""
    return str(value)
