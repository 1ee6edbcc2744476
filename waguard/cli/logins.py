"""The commands that keep logins: snapshots, what is brought along, what is given out; and the reaper."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from waguard.asking import verbs
from waguard.cli import archive, show, terminal, units
from waguard.cli.as_json import Json, print_json
from waguard.cli.client import Control
from waguard.cli.errors import FileExists, NoFile
from waguard.cli.exits import ExitCode
from waguard.cli.sessions import Code, NoQr, Timeout, Url, WaitFor, agreed, ask, bring_up, known, until
from waguard.core.model import client_code
from waguard.core.shown import NEWEST, UndoView
from waguard.profile.login_files import origin_of

DryRun = Annotated[bool, typer.Option("--dry-run", help="Report what would be done, and do nothing.")]


def snapshot(ctx: typer.Context, code: Code, url: Url = None, json: Json = False) -> None:
    """Take a snapshot of a client's login now; its session goes on meanwhile."""
    client = client_code(code)
    view = ask(ctx, url, lambda daemon: daemon.snapshot(client), waiting=f"Taking a snapshot of {client}")
    if json:
        print_json(view)
    else:
        terminal.output().print(f"{client} has a snapshot: {view.id} ({units.size(view.bytes)}).")


def snapshots(ctx: typer.Context, code: Code, url: Url = None, json: Json = False) -> None:
    """List a client's snapshots, the newest first."""
    client = client_code(code)
    found = ask(ctx, url, lambda daemon: daemon.snapshots(client))
    if json:
        print_json(found)
    elif found.snapshots:
        show.snapshots(found.snapshots, terminal.output())
    else:
        terminal.output().print(f"{client} has no snapshots yet. Take one: waguard snapshot {client}")


def restore(
    ctx: typer.Context,
    code: Code,
    snapshot_id: Annotated[
        str | None,
        typer.Argument(help="Which snapshot; by default the newest that has a login.", metavar="[ID]"),
    ] = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: WaitFor = None,
    no_qr: NoQr = False,
    timeout: Timeout = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Put a snapshot in the place of a client's login, and connect with it; what was there is put aside."""
    client = client_code(code)
    chosen = snapshot_id or NEWEST
    if dry_run:
        view = ask(ctx, url, lambda daemon: daemon.check_snapshot(client, chosen))
        if json:
            print_json(view)
        else:
            terminal.output().print(
                f"The snapshot {view.id} is whole ({units.size(view.bytes)}, taken {units.when(view.taken_at)}). "
                f"It would take the place of the profile of {client}, which would be put aside."
            )
        return
    snapshot = f"the snapshot {snapshot_id}" if snapshot_id else "its newest snapshot"
    command = f"waguard restore {client}{f' {snapshot_id}' if snapshot_id else ''}"
    agreed(f"{client} will be restarted with {snapshot}.", command, yes=yes)
    limit = until(wait)
    bring_up(
        ctx,
        client,
        verbs.restore(client, chosen, wait=limit, timeout_s=timeout),
        url=url,
        with_qr=not no_qr,
        json=json,
    )


def undo(
    ctx: typer.Context,
    code: Code,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed without a terminal.")] = False,
    wait: WaitFor = None,
    no_qr: NoQr = False,
    timeout: Timeout = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Take back a client's last cleanup, fresh, restore or import, and connect with what was there; what is there now is put aside."""
    client, limit = client_code(code), until(wait)
    if dry_run or not yes:
        view = ask(ctx, url, lambda daemon: daemon.check_undo(client))
        if dry_run:
            if json:
                print_json(view)
            else:
                terminal.output().print(_told(view))
            return
        agreed(_told(view), f"waguard undo {client}", yes=yes)
    bring_up(
        ctx,
        client,
        verbs.undo(client, wait=limit, timeout_s=timeout),
        url=url,
        with_qr=not no_qr,
        json=json,
    )


def _told(view: UndoView) -> str:
    login = "with its login" if view.login else "without a login"
    values = f", and {view.values} values of apps" if view.values else ""
    now = (
        ""
        if view.replaces is None
        else f" The profile {view.replaces}, which is there now, would be put aside."
    )
    return (
        f"This would take back the {view.act} of {view.client} of {units.when(view.at)}: the profile "
        f"{view.generation} would come back {login}{values}.{now}"
    )


def bring(
    ctx: typer.Context,
    code: Code,
    path: Annotated[
        Path,
        typer.Argument(
            help="A Chromium user data directory or a profile in it, whatsapp-web.js's .wwebjs_auth/session-ID or RemoteAuth "
            "zip, wppconnect's tokens/ID; one of these as a zip, tar, tar.gz or tar.zst; or a file that waguard export wrote.",
            metavar="PATH",
        ),
    ],
    login: Annotated[
        str,
        typer.Option(
            "--login", help="Which one, where there are several.", metavar="NAME", show_default=False
        ),
    ] = "",
    dry_run: DryRun = False,
    wait: WaitFor = None,
    timeout: Timeout = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Take over a login from elsewhere: checked, copied, never moved; then connect with it, without a scan."""
    client, limit = client_code(code), until(wait)
    with tempfile.TemporaryFile() as packed:
        left = archive.write(path, packed, origin=_origin(ctx, url), wanted=login)
        packed.seek(0)
        if dry_run:
            view = ask(ctx, url, lambda daemon: daemon.try_import(client, packed, login=left))
            if json:
                print_json(view)
            else:
                terminal.output().print(f"{path} holds a login that can be taken over. Nothing was changed.")
            return
        bring_up(
            ctx,
            client,
            verbs.bring(client, packed, login=left, wait=limit, timeout_s=timeout),
            url=url,
            with_qr=True,
            json=json,
        )


def export(
    ctx: typer.Context,
    code: Code,
    file: Annotated[Path, typer.Argument(help="Where to; it must not be there yet.", metavar="FILE")],
    snapshot_id: Annotated[
        str | None,
        typer.Option("--snapshot", help="Which snapshot; by default one is taken now.", metavar="ID"),
    ] = None,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Not encrypted, a tar.zst: whoever has it has the client's WhatsApp."),
    ] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Write a client's login into a file, encrypted with the daemon's key, or plain."""
    client = client_code(code)
    if file.exists():
        raise FileExists(f"{file} is there already.", hint="Name another one, or remove it.")
    if not file.parent.is_dir():
        raise NoFile(f"There is no directory {file.parent}.")

    def fetch(daemon: Control) -> str:
        chosen = snapshot_id or (daemon.snapshot(client)).id
        daemon.export(client, chosen, file, plain=plain)
        return chosen

    chosen = ask(ctx, url, fetch, waiting=f"Writing {file}")
    size = file.stat().st_size
    if json:
        print_json({"client": client, "snapshot": chosen, "file": str(file), "bytes": size})
    else:
        terminal.output().print(f"{file} holds the snapshot {chosen} of {client} ({units.size(size)}).")


def reap(ctx: typer.Context, dry_run: DryRun = False, url: Url = None, json: Json = False) -> None:
    """Find and remove what browsers, crashes and time have left behind. Exit code 1 if a part of it failed."""
    found = ask(ctx, url, lambda daemon: daemon.reap(dry_run=dry_run), waiting="Looking")
    if json:
        print_json(found)
    else:
        show.sweep(found, terminal.output())
    if any(finding.outcome == "failed" for finding in found.findings):
        raise typer.Exit(ExitCode.FAILED)


def schedule(ctx: typer.Context, url: Url = None, json: Json = False) -> None:
    """Show the automatic jobs: when each ran last, and when it runs next."""
    found = ask(ctx, url, lambda daemon: daemon.schedule())
    if json:
        print_json(found)
    else:
        show.schedule(found.jobs, terminal.output())


def _origin(ctx: typer.Context, url: str | None) -> str:
    """The page's whose logins are meant, as far as is known here."""
    return origin_of(known(ctx.obj, url)[0].whatsapp.url)
