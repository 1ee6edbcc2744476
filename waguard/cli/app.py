"""The command ``waguard``."""

import sys
from collections import UserDict
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from waguard import __version__
from waguard.cli.edge import Edge

COMMANDS: Mapping[str, str] = {
    "run": "serve:run",
    "connect": "sessions:connect",
    "status": "sessions:status",
    "history": "sessions:history",
    "pair": "sessions:pair",
    "disconnect": "sessions:disconnect",
    "restart": "sessions:restart",
    "cleanup": "sessions:cleanup",
    "undo": "logins:undo",
    "snapshot": "logins:snapshot",
    "snapshots": "logins:snapshots",
    "restore": "logins:restore",
    "import": "logins:bring",
    "export": "logins:export",
    "reap": "logins:reap",
    "check": "local:check",
    "schedule": "logins:schedule",
    "stats": "stats:stats",
    "values": "app:values",
    "settings": "app:settings",
    "install": "install:install",
    "simulate": "serve:simulate",
    "token": "app:tokens",
    "webhook": "app:webhooks",
    "audit": "audit:commands",
    "doctor": "local:doctor",
    "config": "settings:commands",
    "completion": "completion:completion",
}
TOKEN_COMMANDS: Mapping[str, str] = {
    "show": "local:token",
    "create": "access:create",
    "list": "access:list_tokens",
    "rotate": "access:rotate",
    "revoke": "access:revoke",
}
WEBHOOK_COMMANDS: Mapping[str, str] = {
    "list": "webhooks:list_webhooks",
    "create": "webhooks:create",
    "test": "webhooks:ping",
    "rotate": "webhooks:rotate",
    "enable": "webhooks:enable",
    "disable": "webhooks:disable",
    "delete": "webhooks:delete",
    "messages": "webhooks:messages",
    "redrive": "webhooks:redrive",
}
VALUE_COMMANDS: Mapping[str, str] = {
    "list": "values:list_values",
    "get": "values:get",
    "delete": "values:delete",
}
SETTINGS_COMMANDS: Mapping[str, str] = {
    "show": "client_settings:show",
    "set": "client_settings:change",
    "unset": "client_settings:unset",
}
"""Where each is, in this room. What a command needs is imported when it is called, or its help is asked for."""


class _Commands(UserDict[str, Any]):
    def __getitem__(self, name: str) -> Any:
        if isinstance(place := self.data[name], str):
            self.data[name] = _command(name, place)
        return self.data[name]


def _command(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(import_module(f"waguard.cli.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        found = alone
    found.rich_markup_mode = app.rich_markup_mode
    command = typer.main.get_command(found)
    command.name = name
    return command


class _Program(Edge):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(COMMANDS)


app = typer.Typer(
    cls=_Program,
    help="Supervises WhatsApp Web browsers: one isolated Chromium per client code.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with the values of variables would show tokens.
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)


class _Group(TyperGroup):
    """Of commands, one of which is meant where none is named."""

    table: Mapping[str, str]
    meant: str

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(self.table)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] != "--help" and args[0] not in self.commands):
            args = [self.meant, *args]
        return super().parse_args(ctx, args)


class _Tokens(_Group):
    """``waguard token`` and ``waguard token CODE`` print what the configuration has."""

    table, meant = TOKEN_COMMANDS, "show"


class _Values(_Group):
    """``waguard values CODE`` lists them."""

    table, meant = VALUE_COMMANDS, "list"


class _Settings(_Group):
    """``waguard settings CODE`` shows them."""

    table, meant = SETTINGS_COMMANDS, "show"


class _Webhooks(_Group):
    """``waguard webhook`` lists them."""

    table, meant = WEBHOOK_COMMANDS, "list"


tokens = typer.Typer(
    cls=_Tokens,
    help="Print the admin's token or a client's; make, list, rotate and revoke tokens for apps.",
    add_completion=False,
)
tokens.callback()(lambda: None)
values = typer.Typer(
    cls=_Values,
    help="List the values that apps keep with a client's session; print or delete one.",
    add_completion=False,
)
values.callback()(lambda: None)
settings = typer.Typer(
    cls=_Settings,
    help="Show the settings of a client, and where each comes from; set or unset some.",
    add_completion=False,
)
settings.callback()(lambda: None)
webhooks = typer.Typer(
    cls=_Webhooks,
    help="Have events posted to a receiver: make, list, test, enable, disable and delete webhooks; see and redrive what has not arrived.",
    add_completion=False,
)
webhooks.callback()(lambda: None)


def _version(*, asked: bool) -> None:
    if asked:
        typer.echo(f"waguard {__version__}")
        raise typer.Exit


@app.callback()
def configure(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The configuration; by default WAGUARD_CONFIG, ./config.toml, /etc/waguard/config.toml.",
            show_default=False,
        ),
    ] = None,
    _show_version: Annotated[
        bool, typer.Option("--version", callback=lambda asked: _version(asked=asked), is_eager=True)
    ] = False,
) -> None:
    ctx.obj = config
