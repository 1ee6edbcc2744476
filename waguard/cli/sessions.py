"""The commands that ask the daemon about sessions."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from waguard.asking import verbs
from waguard.asking.ask import ADDRESS, Ask
from waguard.cli import happenings, show, terminal, units
from waguard.cli.as_json import Json, print_json
from waguard.cli.client import Control, control
from waguard.cli.errors import NotAgreed
from waguard.cli.exits import ExitCode
from waguard.cli.service import Service, configured, installed
from waguard.cli.tokens import given
from waguard.config.sections import Config
from waguard.core.model import ClientCode, Wait, client_code
from waguard.core.shown import SessionView
from waguard.core.stats import Happening
from waguard.errors import WaguardError

T = TypeVar("T")

_LOOK_BACK, _LATELY = 100, 8
"""How many events are looked through for what happened lately, and how many of them are shown."""

Code = Annotated[str, typer.Argument(help="The client's code.", metavar="CODE")]


def _http(url: str | None) -> str | None:
    if url is not None and not re.match(ADDRESS, url):
        raise typer.BadParameter("write http://HOST:PORT, or unix:///PATH")
    return url


Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The daemon's address, instead of the configuration's: http or unix.",
        metavar="URL",
        callback=_http,
    ),
]
WaitFor = Annotated[
    Wait | None,
    typer.Option(help="What to wait for; by default connected on a terminal, else qr.", show_default=False),
]
NoQr = Annotated[bool, typer.Option("--no-qr", help="Do not show the QR code.")]
Timeout = Annotated[
    float | None,
    typer.Option(min=0.1, max=3600, help="Seconds to wait; by default as long as the daemon's stages take."),
]


def connect(
    ctx: typer.Context,
    code: Code,
    wait: WaitFor = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start with an empty profile: the login is dropped.")
    ] = False,
    no_qr: NoQr = False,
    timeout: Timeout = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Start a client's session, show its QR code as it rotates, report when it is connected."""
    client, limit = client_code(code), until(wait)
    bring_up(
        ctx,
        client,
        verbs.connect(client, wait=limit, fresh=fresh, timeout_s=timeout),
        url=url,
        with_qr=not no_qr,
        json=json,
    )


def restart(
    ctx: typer.Context,
    code: Code,
    wait: WaitFor = None,
    no_qr: NoQr = False,
    timeout: Timeout = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Close a client's browser and start it again on the same profile."""
    client, limit = client_code(code), until(wait)
    bring_up(
        ctx,
        client,
        verbs.restart(client, wait=limit, timeout_s=timeout),
        url=url,
        with_qr=not no_qr,
        json=json,
    )


def status(
    ctx: typer.Context,
    code: Annotated[str | None, typer.Argument(help="Only this client, in detail.", metavar="[CODE]")] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Show what runs."""
    if code is not None:
        client = client_code(code)
        if json:
            print_json(ask(ctx, url, lambda daemon: daemon.session(client)))
        else:
            view, lately, saved = ask(ctx, url, lambda daemon: _in_detail(daemon, client))
            show.session(view, terminal.output(), lately=lately, saved=saved)
        return
    found = ask(ctx, url, lambda daemon: daemon.sessions())
    if json:
        print_json(found)
    elif found.sessions:
        show.sessions(found.sessions, terminal.output())
    else:
        terminal.output().print("No sessions yet. Start one: waguard connect CODE")


def _in_detail(daemon: Control, code: ClientCode) -> tuple[SessionView, Sequence[Happening], str]:
    """A session, what happened to it lately, and what there is of snapshots; what cannot be told now is left out."""
    view = daemon.session(code)
    lately: Sequence[Happening] = ()
    saved = ""
    with suppress(WaguardError):
        found = (daemon.history(code, limit=_LOOK_BACK)).history
        lately = [one for one in found if one.name in happenings.TURNS][:_LATELY]
    with suppress(WaguardError):
        usable = [one for one in (daemon.snapshots(code)).snapshots if one.login and not one.refused]
        ages = [one.taken_at for one in usable if one.taken_at is not None]
        saved = (
            f"{len(usable)} with a login, the newest {units.age(max(ages))} old"
            if ages
            else "none with a login"
        )
    return view, lately, saved


def history(
    ctx: typer.Context,
    code: Code,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 50,
    url: Url = None,
    json: Json = False,
) -> None:
    """Show what happened to a client: starts, findings, remedies, changes of state."""
    client = client_code(code)
    found = ask(ctx, url, lambda daemon: daemon.history(client, limit=limit))
    if json:
        print_json(found)
    elif found.history:
        happenings.history(found.history, terminal.output())
    else:
        terminal.output().print(f"There is no history of {client}.")


def pair(
    ctx: typer.Context,
    code: Code,
    phone: Annotated[str, typer.Argument(help="Its number, with the country code.", metavar="PHONE")],
    url: Url = None,
    json: Json = False,
) -> None:
    """Link by phone number: show the code that is to be entered on the phone, instead of scanning a QR code."""
    client = client_code(code)
    view = ask(ctx, url, lambda daemon: daemon.pairing_code(client, phone))
    if json:
        print_json(view)
    else:
        left = max(0, round(view.expires_at - time.time()))
        console = terminal.output()
        console.print(f"{view.code[:4]}-{view.code[4:]}")
        console.print(
            f"Enter it on the phone within {left} s: Linked devices, Link a device, Link with phone number instead."
        )
        console.print(f"Then: waguard connect {client} --wait connected")


def disconnect(ctx: typer.Context, code: Code, url: Url = None, json: Json = False) -> None:
    """Close a client's browser and keep its login."""
    client = client_code(code)
    view = ask(ctx, url, lambda daemon: daemon.disconnect(client))
    if json:
        print_json(view)
    else:
        terminal.output().print(show.headline(view))


def cleanup(
    ctx: typer.Context,
    code: Code,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed without a terminal.")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Close a client's browser and drop its login; report each step. Exit code 1 if a step failed."""
    client = client_code(code)
    agreed(f"{client} will have to scan a QR code again.", f"waguard cleanup {client}", yes=yes)
    view = ask(ctx, url, lambda daemon: daemon.cleanup(client))
    if json:
        print_json(view)
    else:
        show.cleanup(view, terminal.output())
    if not view.ok:
        raise typer.Exit(ExitCode.FAILED)


def agreed(what: str, command: str, *, yes: bool) -> None:
    """Before a login goes: a person is asked, and where there is none it has to be said. Raises `NotAgreed`."""
    if yes:
        return
    if not terminal.on_terminal():
        raise NotAgreed(what, hint=f"There is no terminal to confirm on. If you mean it: {command} --yes")
    typer.confirm(f"{what} Go on?", abort=True, err=True)


def until(wait: Wait | None) -> Wait:
    return wait or (Wait.CONNECTED if terminal.output().is_terminal else Wait.QR)


def bring_up(
    ctx: typer.Context,
    code: ClientCode,
    verb: Ask[SessionView],
    *,
    url: str | None,
    with_qr: bool,
    json: bool,
) -> None:
    from waguard.cli.follow import follow  # noqa: PLC0415 (it draws QR codes: no look needs it)

    try:
        if json:
            print_json(ask(ctx, url, lambda daemon: daemon.do(verb)))
        else:
            console = terminal.output()
            ask(
                ctx,
                url,
                lambda daemon: follow(daemon, code, verb, console=console, with_qr=with_qr),
            )
    except KeyboardInterrupt:
        terminal.errors().print(f"{code} goes on in the background. See: waguard status {code}")
        raise


def ask(
    ctx: typer.Context,
    url: str | None,
    request: Callable[[Control], T],
    *,
    waiting: str = "",
) -> T:
    """One conversation with the daemon; ``waiting`` is shown on a terminal as long as it lasts."""
    config, service = known(ctx.obj, url)
    if waiting and (console := terminal.errors()).is_terminal:
        with console.status(f"{waiting} ..."):
            return ask(ctx, url, request)

    with control(config, service, url) as daemon:
        return request(daemon)


def known(path: Path | None, url: str | None) -> tuple[Config, Service | None]:
    """Whoever has the daemon's address and a token, as an app's user has, needs no configuration."""
    try:
        loaded, service = configured(path)
    except WaguardError:
        if path is not None or url is None or not given():
            raise
        with suppress(WaguardError):
            return Config(), installed()
        return Config(), None
    return loaded.config, service
