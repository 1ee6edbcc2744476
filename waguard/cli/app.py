"""The command ``waguard``."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from waguard import __version__
from waguard.cli import install, logins, sessions, settings, show, stats, tokens
from waguard.cli.edge import Edge
from waguard.cli.findings import Grade
from waguard.cli.service import configured
from waguard.config.load import load
from waguard.core.model import client_code

app = typer.Typer(
    cls=Edge,
    help="Supervises WhatsApp Web browsers: one isolated Chromium per client code.",
    no_args_is_help=True,
    add_completion=False,
    # A traceback with the values of variables would show tokens.
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)


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


@app.command()
def run(
    ctx: typer.Context,
    *,
    check: Annotated[bool, typer.Option("--check", help="Only check whether it could start.")] = False,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C. SIGHUP restarts it and leaves the browsers up."""
    from waguard import daemon  # noqa: PLC0415 (browsers and all: no other command needs it)
    from waguard.system.systemd import handing_over  # noqa: PLC0415 (likewise)

    loaded = load(ctx.obj)
    if check:
        daemon.check(loaded)
    elif (heirlooms := asyncio.run(daemon.serve(loaded))) is not None:
        environment = os.environ | handing_over(heirlooms)
        os.execve(sys.executable, daemon.again(), environment)  # noqa: S606 (our own command line)


for command in sessions.COMMANDS:
    app.command()(command)
for name, about_logins in logins.COMMANDS.items():
    app.command(name=name)(about_logins)
app.command()(stats.stats)
app.command()(install.install)


@app.command()
def simulate(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8718,
    quick: Annotated[bool, typer.Option("--quick", help="QR codes rotate every few seconds.")] = False,
) -> None:
    """Serve a stand-in for WhatsApp Web, so that no phone is needed."""
    from waguard.simulator.server import Cadence, serve  # noqa: PLC0415 (no other command needs it)

    async def until_stopped() -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (this is one)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            await serve("127.0.0.1", port, Cadence.QUICK if quick else Cadence.REAL, _introduce)

    asyncio.run(until_stopped())


def _introduce(url: str) -> None:
    typer.echo(f"""\
The simulated WhatsApp Web is at {url}

Point a daemon at it:    WAGUARD_WHATSAPP__URL={url} waguard run
Connect a client:        waguard connect demo
Scan, as its phone would:
  curl -s -H "Authorization: Bearer $(waguard token)" http://127.0.0.1:8717/v1/sessions/demo/qr |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["text"])' |
    curl --data-binary @- {url}phone/scan
Linked devices:          curl {url}phone/devices
Faults there are:        curl {url}faults

Ctrl-C ends it.""")


@app.command()
def token(
    ctx: typer.Context,
    code: Annotated[
        str | None, typer.Argument(help="This client's, instead of the admin's.", metavar="[CODE]")
    ] = None,
) -> None:
    """Print the admin's token or a client's, to hand it to an app."""
    loaded, service = configured(ctx.obj)
    if code is not None:
        typer.echo(tokens.client_token(loaded.config, client_code(code), service))
    else:
        typer.echo(tokens.admin_token(loaded.config, service))


@app.command(name="doctor")
def examine(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False
) -> None:
    """Report what this machine lacks, and the command that fixes it. Exit code 1 if there is a problem."""
    from waguard.cli import doctor  # noqa: PLC0415 (it looks at all there is: no other command needs it)

    findings = doctor.examine(ctx.obj)
    if as_json:
        sessions.print_json(findings)
    else:
        show.doctor(findings, show.output())
    if any(finding.grade is Grade.PROBLEM for finding in findings):
        raise typer.Exit(1)


app.add_typer(settings.commands, name="config")
