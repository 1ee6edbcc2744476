"""The commands that ask the daemon about values that apps keep with a session: list, print and delete them."""

import sys
from typing import Annotated

import typer

from waguard.cli import show, terminal
from waguard.cli.as_json import Json, print_json
from waguard.cli.sessions import Code, Url, agreed, ask
from waguard.core.model import client_code
from waguard.core.plain_text import plain

Key = Annotated[str, typer.Argument(help="The value's key.", metavar="KEY")]


def list_values(ctx: typer.Context, code: Code, url: Url = None, json: Json = False) -> None:
    """List the values that apps keep with a client's session, without what they say."""
    client = client_code(code)
    found = ask(ctx, url, lambda daemon: daemon.values(client))
    if json:
        print_json(found)
    elif found.values:
        show.values(found.values, terminal.output())
    else:
        terminal.output().print(f"No app keeps values with {client}.")


def get(ctx: typer.Context, code: Code, key: Key, url: Url = None) -> None:
    """Print what a value says: byte for byte, but harmless on a terminal."""
    client = client_code(code)
    said = ask(ctx, url, lambda daemon: daemon.value(client, key)).said
    if sys.stdout.isatty():
        typer.echo(plain(said.decode(errors="replace"), len(said), lines=True))
    else:
        sys.stdout.buffer.write(said)


def delete(
    ctx: typer.Context,
    code: Code,
    key: Key,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed without a terminal.")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Delete a value, for good."""
    client = client_code(code)
    agreed("The app will not find this value again.", f"waguard values delete {client} {key}", yes=yes)
    done = ask(ctx, url, lambda daemon: daemon.delete_value(client, key))
    if json:
        print_json(done)
    else:
        terminal.output().print(f"{client} has no value {done.deleted} any more.")
