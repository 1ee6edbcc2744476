"""``waguard audit``: what was done with special rights, and whether the records of it are whole. No daemon is asked: its files are read."""

import json as json_lines
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from waguard.audit.chain import FILE, HEAD, head_of, reading, rows
from waguard.cli import terminal
from waguard.cli.as_json import Json, print_json
from waguard.cli.errors import AuditUnread, FileExists
from waguard.cli.exits import ExitCode
from waguard.cli.service import configured
from waguard.cli.table import Column, table
from waguard.cli.units import when
from waguard.core.audit import Anchor, Break, Record, RecordedAct, Row, breaks, deeds, record_of
from waguard.core.catalogue import OF_A_CLIENT
from waguard.core.model import client_code
from waguard.observe.journal import message
from waguard.system.files import replacing
from waguard.system.sqlite import TooNewError

commands = typer.Typer(
    help="Show, verify and export the records of what was done with special rights.",
    no_args_is_help=True,
    add_completion=False,
)
_JOURNAL_S = 20.0
"""Deadline of journalctl."""
_ANCHORS = 10_000
"""As many of the journal's newest are looked at."""
_TOLD = 20
"""Lines of what is wrong."""
_LOOKS = 3
"""A daemon that runs writes the anchor after the record: what it is just at is no break."""
_UNSAID = frozenset(
    {*OF_A_CLIENT, *("process", "link", "was", "wanted", "duration_ms", "stages", "left_out", "lasted_ms")}
)
"""What `--json` has, and a table leaves out."""
_STYLES = {"ok": "green", "no end": "yellow"}

Look = Callable[[str], Iterable[Row]]
"""The records, the newest first; those that have this in them."""


@commands.command()
def show(
    ctx: typer.Context,
    code: Annotated[str | None, typer.Argument(help="Only of this client.", metavar="[CODE]")] = None,
    last: Annotated[int, typer.Option("--last", min=1, max=100_000, help="How many, the newest first.")] = 50,
    json: Json = False,
) -> None:
    """Show what was done: who, when, what, with what outcome. `no end`: it is under way, or the daemon died in it."""
    having = f'"client":"{client_code(code)}"' if code is not None else ""
    with _looking(_path(ctx)) as look:
        found = [*islice(deeds(_records(look(having))), last)]
    if json:
        print_json(found)
    elif found:
        columns = (
            *(Column("WHEN"), Column("ACT"), Column("CLIENT"), Column("OUTCOME"), Column("WHO")),
            *(Column("NUMBER", spare=True), Column("FROM", spare=True), Column("WHAT", text=True)),
        )
        table(columns, [_line(one) for one in found], terminal.output())
    else:
        terminal.output().print("Nothing is recorded." if code is None else f"Nothing is recorded of {code}.")


def _path(ctx: typer.Context) -> Path:
    loaded, _ = configured(ctx.obj)
    return loaded.config.sessions.dir.absolute() / FILE


@contextmanager
def _looking(path: Path) -> Iterator[Look]:
    """At the file, which may not be there. Raises `AuditUnread`."""
    try:
        with ExitStack() as stack:
            if path.exists():
                db = stack.enter_context(reading(path))
                yield lambda having: rows(db, having)
            else:
                yield lambda _having: ()
    except TooNewError:
        raise AuditUnread(f"{path} was written by a newer waguard.", hint="Use that one.") from None
    except (sqlite3.Error, OSError) as error:
        raise AuditUnread(
            f"{path} cannot be read: {error}.", hint="Run this as root, or as the daemon's user."
        ) from None


def _records(found: Iterable[Row]) -> Iterator[Record]:
    return (record for row in found if (record := record_of(row)) is not None)


def _line(deed: RecordedAct) -> Sequence[str | Text]:
    note, end = deed.record.note, deed.end
    outcome = "no end" if end is None else end.note.outcome
    what = [_said(note.told)]
    if end is not None and end is not deed.record:
        events = end.note.told.get("events", [])
        what += [_said({name: told for name, told in end.note.told.items() if name != "events"})]
        what += [_said(one) for one in events if isinstance(one, dict)]
    return (
        when(note.at),
        note.act,
        note.client,
        Text(outcome, _STYLES.get(outcome, "red" if outcome else "")),
        note.actor,
        str(deed.record.number),
        note.origin,
        "; ".join(filter(None, what)),
    )


def _said(told: Mapping[str, Any]) -> str:
    """What a person wants of it."""
    return message({"event": "", **{name: one for name, one in told.items() if name not in _UNSAID}}).strip()


@dataclass(frozen=True, slots=True)
class Verified:
    whole: bool
    count: int
    first: int | None
    """The first record that is there."""
    last: int | None
    breaks: Sequence[Break]
    head: str | None
    """The anchor beside the file; none if it is not there, or cannot be read."""
    without_end: Sequence[int]
    """Acts that were asked for and have no end: they are under way, or the daemon has died in them."""


@commands.command()
def verify(
    ctx: typer.Context,
    head: Annotated[
        str | None,
        typer.Option(
            "--head", help="An anchor that was kept elsewhere, of any record.", metavar="NUMBER:HASH"
        ),
    ] = None,
    since: Annotated[
        int,
        typer.Option("--from", min=1, help="The first record that has to be there.", metavar="NUMBER"),
    ] = 1,
    no_journal: Annotated[
        bool, typer.Option("--no-journal", help="Do not compare with the anchors in systemd's journal.")
    ] = False,
    json: Json = False,
) -> None:
    """Report whether a record was changed, removed, added or cut off, with its number. Exit code 4 if one was."""
    given = Anchor.parse(head) if head is not None else None
    if head is not None and given is None:
        raise typer.BadParameter("--head: write NUMBER:HASH, as the file .audit.head has it")
    path = _path(ctx)
    journal, said = ((), "not asked") if no_journal else in_journal(path)
    result = _verified(path, [*journal, *([given] if given else [])], since)
    for _ in range(_LOOKS - 1):
        if result.whole:
            break
        result = _verified(path, [*journal, *([given] if given else [])], since)
    if json:
        print_json({**asdict(result), "journal": said})
    else:
        _report(result, said, terminal.output())
    if not result.whole:
        raise typer.Exit(ExitCode.FOUND)


def _verified(path: Path, anchors: Sequence[Anchor], since: int) -> Verified:
    beside = head_of(path.with_name(HEAD))
    known = [*anchors, *([beside] if beside else [])]
    with _looking(path) as look:
        found = breaks(look(""), known, since)
        numbers = [row.number for row in look("")]
        without_end = [one.record.number for one in deeds(_records(look(""))) if one.end is None]
    whole = not found and (bool(known) or not numbers)
    first, last = min(numbers, default=None), max(numbers, default=None)
    return Verified(
        whole, len(numbers), first, last, found, str(beside) if beside else None, sorted(without_end)
    )


def in_journal(path: Path) -> tuple[Sequence[Anchor], str]:
    """The anchors of this file that the journal has by the user whose file it is, and what there is to say of that."""
    program = shutil.which("journalctl")
    if program is None or not path.parent.exists():
        return (), "There is no journal here."
    # Anybody may write such an entry, and nobody as another user: journald itself adds this field.
    owner = (path if path.exists() else path.parent).stat().st_uid
    matches = [f"_UID={owner}", "WAGUARD_EVENT=audit.recorded"]
    command = [program, "--quiet", "--no-pager", "--output=json", "--all", "--output-fields=WAGUARD_FIELDS"]
    command += ["--reverse", f"--lines={_ANCHORS}", *matches]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_JOURNAL_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return (), f"The journal cannot be read: {error}"
    found = [one for line in done.stdout.splitlines() if (one := _anchor(line, path)) is not None]
    if done.returncode != 0 and not found:
        return (), f"The journal cannot be read: {done.stderr.strip() or 'journalctl says nothing'}"
    return found, f"The journal has {len(found)} anchors of it."


def _anchor(line: str, path: Path) -> Anchor | None:
    """That of an entry; None if it is of another file, or not as we write it."""
    try:
        told = json_lines.loads(json_lines.loads(line)["WAGUARD_FIELDS"])
        return Anchor.parse(f"{told['number']}:{told['hash']}") if told["path"] == str(path) else None
    except (ValueError, KeyError, TypeError):
        return None


def _report(result: Verified, journal: str, console: Console) -> None:
    if result.last is None:
        console.print("Nothing is recorded.")
    else:
        how = ("whole.", "green") if result.whole else ("broken.", "red")
        how = how if result.whole or result.breaks else ("no anchor of them is known.", "red")
        console.print(Text(f"{result.count} records, {result.first} to {result.last}: ").append(*how))
    for one in result.breaks[:_TOLD]:
        console.print(Text(str(one), "red"))
    if (more := len(result.breaks) - _TOLD) > 0:
        console.print(Text(f"And {more} more: waguard audit verify --json", "red"))
    if result.head is not None:
        console.print(f"The anchor beside the file is {result.head}")
    elif result.last is not None:
        console.print(Text(f"The anchor beside the file, {HEAD}, is not there, or cannot be read.", "yellow"))
    console.print(journal)
    if result.without_end:
        numbers = ", ".join(map(str, result.without_end[-_TOLD:]))
        console.print(
            Text(f"Without an end, since they are under way or the daemon died in them: {numbers}.", "yellow")
        )


@commands.command()
def export(
    ctx: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Into this file, which must not be there yet.", metavar="FILE"),
    ] = None,
) -> None:
    """Print all records, the oldest first, a JSON object a line, so that others can verify them."""
    if output is not None and output.exists():
        raise FileExists(f"{output} is there already.", hint="Name another one, or remove it.")
    with _looking(_path(ctx)) as look:
        kept = sorted(look(""), key=lambda row: row.number)
    lines = (
        json_lines.dumps({"number": row.number, "hash": row.hash, "record": row.text}) + "\n" for row in kept
    )
    if output is None:
        for line in lines:
            typer.echo(line, nl=False)
        return
    with replacing(output) as file:
        file.writelines(line.encode() for line in lines)
    terminal.errors().print(f"{output} has {len(kept)} records.")
