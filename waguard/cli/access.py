"""The commands that ask the daemon about tokens: make, list, rotate, revoke. Printing those of the configuration needs no daemon."""

from typing import Annotated, Literal

import typer

from waguard.cli import show, terminal, units
from waguard.cli.as_json import Json, print_json
from waguard.cli.sessions import Url, ask
from waguard.core.access import EVERY_CLIENT, OF_TOKENS
from waguard.core.shown import TokenMade, TokenView

Name = Annotated[str, typer.Argument(help="The token's name, or its id.", metavar="NAME")]


def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for, such as the app's name.", metavar="NAME")],
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope", help=f"What it may do: {', '.join(OF_TOKENS)}. Several: again, or with commas."
        ),
    ],
    client: Annotated[
        list[str] | None,
        typer.Option("--client", help="Of which client code. Several: again, or with commas."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Of whoever has this label. Several: again, or with commas."),
    ] = None,
    all_clients: Annotated[
        bool, typer.Option("--all-clients", help="Of all clients, also those to come.")
    ] = False,
    expires: Annotated[
        str, typer.Option("--expires", help="After how long: 12h, 90d; or never.", metavar="TIME")
    ] = "90d",
    url: Url = None,
    json: Json = False,
) -> None:
    """Make a token and print it, once: only its digest is kept."""
    if all_clients is bool(client or label):
        raise typer.BadParameter("say for whom: --client CODE, --label LABEL, or --all-clients")
    lasts: float | Literal["never"] | None = "never" if expires == "never" else units.seconds(expires)
    if lasts is None:
        raise typer.BadParameter(
            f"--expires {expires}: write a number and s, m, h or d, such as 90d; or never"
        )
    codes = [EVERY_CLIENT] if all_clients else each(client or [])
    made = ask(
        ctx, url, lambda daemon: daemon.create_token(name, each(scope), codes, lasts, each(label or []))
    )
    _shown(made, "Made", json=json)


def list_tokens(ctx: typer.Context, url: Url = None, json: Json = False) -> None:
    """List the tokens that were made: what each may do, until when, and when it was last used."""
    found = ask(ctx, url, lambda daemon: daemon.tokens())
    if json:
        print_json(found)
    elif found.tokens:
        show.tokens(found.tokens, terminal.output())
    else:
        terminal.output().print(
            "There are none but those of the configuration. Make one: waguard token create NAME --scope read --client CODE"
        )


def rotate(
    ctx: typer.Context,
    name: Name,
    overlap: Annotated[
        str, typer.Option("--overlap", help="How long its earlier secret is still taken.", metavar="TIME")
    ] = "1h",
    url: Url = None,
    json: Json = False,
) -> None:
    """Give a token another secret and a new term, and print it, once."""
    overlap_s = units.seconds(overlap)
    if overlap_s is None:
        raise typer.BadParameter(f"--overlap {overlap}: write a number and s, m, h or d, such as 1h; or 0s")
    made = ask(ctx, url, lambda daemon: daemon.rotate_token(name, overlap_s))
    _shown(made, "Rotated", json=json)


def revoke(ctx: typer.Context, name: Name, url: Url = None, json: Json = False) -> None:
    """Take a token back, at once; who is attached by it is detached."""
    view = ask(ctx, url, lambda daemon: daemon.revoke_token(name))
    if json:
        print_json(view)
    else:
        terminal.output().print(f"{view.name} ({view.id}) is revoked.")


def each(given: list[str]) -> list[str]:
    return [one.strip() for words in given for one in words.split(",") if one.strip()]


def _shown(made: TokenMade, done: str, *, json: bool) -> None:
    """The token alone on stdout, so that a script can take it; what there is to know of it on stderr."""
    if json:
        print_json(made)
        return
    typer.echo(made.token)
    terminal.errors().print(f"{done} {_about(made.about)} It is shown this once: store it now.")


def _about(view: TokenView) -> str:
    until = "never expires" if view.expires_at is None else f"expires {units.when(view.expires_at)}"
    return f"{view.name} ({view.id}): {', '.join(view.scopes)} of {show.clients_of(view)}; {until}."
