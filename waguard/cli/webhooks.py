"""The commands that ask the daemon about webhooks, and about messages that have not arrived."""

from typing import Annotated

import typer
from rich.text import Text

from waguard.cli import terminal, units
from waguard.cli.access import each
from waguard.cli.as_json import Json, print_json
from waguard.cli.exits import ExitCode
from waguard.cli.sessions import Url, agreed, ask
from waguard.cli.table import Column, table
from waguard.core.deliveries import State
from waguard.core.plain_text import plain
from waguard.core.shown_webhooks import WebhookMade, WebhookStatus

Id = Annotated[str, typer.Argument(help="The webhook's id.", metavar="ID")]


def create(
    ctx: typer.Context,
    address: Annotated[
        str, typer.Argument(help="Where events are posted to: https://...", metavar="ADDRESS")
    ],
    client: Annotated[
        list[str] | None,
        typer.Option("--client", help="Only of this client code. Several: again, or with commas."),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Only these events: session.changed, or session. Several: likewise."),
    ] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Make a webhook and print the secret that its messages are signed with, once."""
    clients, kinds = each(client or []), each(kind or [])
    _shown(ask(ctx, url, lambda daemon: daemon.create_webhook(address, clients, kinds)), "Made", json=json)


def list_webhooks(ctx: typer.Context, url: Url = None, json: Json = False) -> None:
    """List the webhooks, and how their messages get on."""
    found = ask(ctx, url, lambda daemon: daemon.webhooks())
    if json:
        print_json(found)
        return
    if not found.webhooks:
        terminal.output().print("There are none. Make one: waguard webhook create https://...")
        return
    columns = (
        Column("ID"),
        Column("STATE"),
        Column("WAITING"),
        Column("DEAD"),
        Column("DELIVERED"),
        Column("ADDRESS", text=True),
        Column("TROUBLE", text=True),
        Column("OF", spare=True),
    )
    rows = [
        (
            one.id,
            Text("enabled", "green") if one.enabled else Text("disabled", "red"),
            str(one.waiting or ""),
            Text(str(one.dead_letters or ""), "red"),
            f"{units.age(one.delivered_at)} ago" if one.delivered_at is not None else "",
            plain(one.url),
            one.why_disabled or one.error,
            _of(one),
        )
        for one in found.webhooks
    ]
    table(columns, rows, terminal.output())


def _of(one: WebhookStatus) -> str:
    return "; ".join(filter(None, [", ".join(one.clients), ", ".join(one.kinds)])) or "all events"


def ping(ctx: typer.Context, webhook: Id, url: Url = None, json: Json = False) -> None:
    """Send a message of the type ping, and say what the receiver has answered; ends with 1 if it was not taken."""
    done = ask(ctx, url, lambda daemon: daemon.test_webhook(webhook))
    if json:
        print_json(done)
    elif done.ok:
        terminal.output().print(f"It has answered {done.http_status} after {done.duration_ms:.0f} ms.")
    else:
        terminal.errors().print(done.error)
    raise typer.Exit(ExitCode.DONE if done.ok else ExitCode.FAILED)


def rotate(
    ctx: typer.Context,
    webhook: Id,
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap", help="How long messages are signed with the earlier secret too.", metavar="TIME"
        ),
    ] = "1d",
    url: Url = None,
    json: Json = False,
) -> None:
    """Give a webhook another secret and print it, once."""
    overlap_s = units.seconds(overlap)
    if overlap_s is None:
        raise typer.BadParameter(f"--overlap {overlap}: write a number and s, m, h or d, such as 1d; or 0s")
    _shown(ask(ctx, url, lambda daemon: daemon.rotate_webhook(webhook, overlap_s)), "Rotated", json=json)


def enable(ctx: typer.Context, webhook: Id, url: Url = None, json: Json = False) -> None:
    """Send messages again: it goes on where it was."""
    _changed(ctx, webhook, url, enabled=True, json=json)


def disable(ctx: typer.Context, webhook: Id, url: Url = None, json: Json = False) -> None:
    """Send no messages until it is enabled; they wait meanwhile."""
    _changed(ctx, webhook, url, enabled=False, json=json)


def _changed(ctx: typer.Context, webhook: str, url: str | None, *, enabled: bool, json: bool) -> None:
    view = ask(ctx, url, lambda daemon: daemon.change_webhook(webhook, enabled=enabled))
    if json:
        print_json(view)
    else:
        terminal.output().print(f"{view.id} is {'enabled' if view.enabled else 'disabled'}.")


def delete(
    ctx: typer.Context,
    webhook: Id,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed without a terminal.")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Delete a webhook, with the messages that have not arrived."""
    agreed("What has not arrived is deleted too.", f"waguard webhook delete {webhook}", yes=yes)
    view = ask(ctx, url, lambda daemon: daemon.delete_webhook(webhook))
    if json:
        print_json(view)
    else:
        terminal.output().print(f"{view.id} is deleted.")


def messages(
    ctx: typer.Context,
    webhook: Id,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Those that wait for their next attempt.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most.")] = 20,
    url: Url = None,
    json: Json = False,
) -> None:
    """List dead letters, which were tried for a day, the newest first; or what still waits."""
    state = State.WAITING if waiting else State.DEAD
    found = ask(ctx, url, lambda daemon: daemon.webhook_messages(webhook, state, limit))
    if json:
        print_json(found)
        return
    if not found.messages:
        terminal.output().print("Nothing waits." if waiting else "There are no dead letters.")
        return
    columns = (
        Column("ID"),
        Column("AT"),
        Column("CLIENT"),
        Column("EVENT"),
        Column("TRIED"),
        Column("TROUBLE", text=True),
    )
    rows = [
        (one.id, units.when(one.at), one.client or "", one.name, str(one.attempts or ""), plain(one.error))
        for one in found.messages
    ]
    table(columns, rows, terminal.output())


def redrive(
    ctx: typer.Context,
    webhook: Id,
    message: Annotated[
        list[str] | None, typer.Argument(help="Ids of dead letters; none: all.", metavar="[MESSAGE]...")
    ] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Send dead letters again, and try now what waits."""
    done = ask(ctx, url, lambda daemon: daemon.redrive_webhook(webhook, message or []))
    if json:
        print_json(done)
    else:
        letters = "1 dead letter is" if done.messages == 1 else f"{done.messages} dead letters are"
        terminal.output().print(f"{letters} sent again; what waits is tried now.")


def _shown(made: WebhookMade, done: str, *, json: bool) -> None:
    """The secret alone on stdout, so that a script can take it; what there is to know of it on stderr."""
    if json:
        print_json(made)
        return
    typer.echo(made.secret)
    about = made.about
    terminal.errors().print(
        f"{done} {about.id}: {plain(about.url)}. Its secret is shown this once: store it now."
    )
