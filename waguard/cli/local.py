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


def check(
    ctx: typer.Context,
    code: Annotated[str | None, typer.Argument(help="This client's alone.", metavar="[CODE]")] = None,
    all_logins: Annotated[bool, typer.Option("--all-logins", help="Of all clients.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds that a snapshot or a profile may take.")
    ] = 300.0,
    json: Json = False,
) -> None:
    """Open every snapshot, and examine every profile that no browser uses; change nothing. Exit code 4 if one is not as it should be."""
    if all_logins is (code is not None):
        raise typer.BadParameter("say of whom: a client's code, or --all-logins")
    client = client_code(code) if code is not None else None
    from waguard.cli import show, terminal  # noqa: PLC0415 (`token` needs nothing of this)
    from waguard.cli.check import look_at  # noqa: PLC0415 (likewise)

    found = look_at(ctx.obj, client, timeout)
    if json:
        print_json(found)
    else:
        show.checked(found, terminal.output())
    if not all(one.ok for one in found):
        raise typer.Exit(ExitCode.FOUND)
