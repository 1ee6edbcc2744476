"""The commands that look at this machine, and need no daemon."""

from typing import Annotated

import typer

from waguard.cli import tokens
from waguard.cli.as_json import Json, print_json
from waguard.cli.checks import Grade
from waguard.cli.exits import ExitCode
from waguard.cli.service import configured
from waguard.core.model import client_code


def token(
    ctx: typer.Context,
    code: Annotated[
        str | None, typer.Argument(help="This client's, instead of the admin's.", metavar="[CODE]")
    ] = None,
    json: Json = False,
) -> None:
    """Print the admin's token or a client's, to hand it to an app."""
    loaded, service = configured(ctx.obj)
    if code is not None:
        found = tokens.client_token(loaded.config, client_code(code), service)
    else:
        found = tokens.admin_token(loaded.config, service)
    if json:
        print_json({"client": code, "token": found})
    else:
        typer.echo(found)


def doctor(ctx: typer.Context, json: Json = False) -> None:
    """Report what this machine lacks, and the command that fixes it. Exit code 4 if there is a problem."""
    from waguard.cli import show, terminal  # noqa: PLC0415 (`token` needs nothing of this)
    from waguard.cli.doctor import examine  # noqa: PLC0415 (likewise)

    results = examine(ctx.obj)
    if json:
        print_json(results)
    else:
        show.doctor(results, terminal.output())
    if any(result.grade is Grade.PROBLEM for result in results):
        raise typer.Exit(ExitCode.FOUND)
