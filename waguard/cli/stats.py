"""The command that shows what was: how long connects take, what goes wrong and what helps, who is slow and why."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from waguard.cli import terminal, units
from waguard.cli.as_json import Json, print_json
from waguard.cli.sessions import Url, ask
from waguard.core.model import client_code
from waguard.core.shown import DeadlineView, StatsView
from waguard.core.stats import AttemptStats, FaultStats, Slow, Spread

_GAP = (0, 2, 0, 0)
_BAR = 10


def stats(
    ctx: typer.Context,
    code: Annotated[str | None, typer.Argument(help="Only this client.", metavar="[CODE]")] = None,
    hours: Annotated[float, typer.Option(min=0.1, max=24 * 3650, help="How many hours back.")] = 168.0,
    url: Url = None,
    json: Json = False,
) -> None:
    """Show how long connects take, what goes wrong and what helps, and what is slow and why."""
    client = client_code(code) if code is not None else None
    found = ask(ctx, url, lambda daemon: daemon.stats(client, hours), waiting="Counting")
    if json:
        print_json(found)
    else:
        render(found, terminal.output())


def render(view: StatsView, console: Console) -> None:
    console.print(_headline(view))
    if view.history not in {"on", "off"}:
        console.print(Text(f"The history cannot be written now: {view.history}.", "red"))
    for one in view.alerts:
        console.print(Text(f"{one.alert}: ", "bold red").append(one.text, "not bold"))
    if view.attempts.stages:
        _part(console, "Durations", _durations(view.attempts))
    if view.attempts.failures:
        failures = (f"{code} {count}" for code, count in view.attempts.failures.items())
        _part(console, "What connects failed with", Text(", ".join(failures)))
    if view.faults:
        _part(console, "What went wrong", _faults(view.faults))
    _part(console, "Deadlines in force", _deadlines(view.deadlines))
    if view.slow:
        _part(console, "What is slow", _slow(view.slow))


def _headline(view: StatsView) -> Text:
    hours = (view.until - view.since) / 3600
    span = f"{hours:.3g} hours" if hours < 48 else f"{hours / 24:.3g} days"
    attempts = view.attempts
    text = Text(view.client or "all clients", "bold").append(f", the last {span}: ", "not bold")
    if view.history == "off":
        return text.append("no history is kept.", "not bold")
    text.append(f"{attempts.count} attempts", "not bold")
    if attempts.success_rate is not None:
        rate = attempts.success_rate
        style = "green" if rate >= 0.95 else "yellow" if rate >= 0.8 else "red"
        text.append(", ", "not bold").append(f"{rate:.1%} successful", f"not bold {style}")
    if attempts.refused:
        text.append(f", {attempts.refused} refused", "not bold red")
    if attempts.called_off:
        text.append(f", {attempts.called_off} called off", "not bold dim")
    return text


def _durations(attempts: AttemptStats) -> Table:
    table = _table("", "COUNT", "P50", "P90", "P99", "LATE", "SHARE OF THE TIME")
    late = sum(stage.late for stage in attempts.stages)
    table.add_row(Text("connect", "bold"), *_spread(attempts.ms), _late(late), "")
    for stage in attempts.stages:
        bar = Text("█" * round(stage.share * _BAR), "cyan").append(f" {stage.share:.0%}", "dim")
        table.add_row(f"  {stage.stage}", *_spread(stage.ms), _late(stage.late), bar)
    return table


def _spread(spread: Spread | None) -> Iterable[str]:
    if spread is None:
        return "0", "-", "-", "-"
    return str(spread.count), *map(units.milliseconds, (spread.p50_ms, spread.p90_ms, spread.p99_ms))


def _late(count: int) -> Text:
    return Text(str(count), "yellow") if count else Text("-", "dim")


def _faults(faults: Iterable[FaultStats]) -> Table:
    table = _table("", "FOUND", "CURED", "FOUND AFTER P50", "P90", "CURED AFTER P50", "P90")
    for fault in faults:
        all_ = fault.recovered == fault.count
        table.add_row(
            Text(fault.fault, "bold"),
            str(fault.count),
            Text(str(fault.recovered), "green" if all_ else "red"),
            *_middle(fault.detect),
            *_middle(fault.recover),
        )
        for remedy in fault.remedies:
            worked = f"worked {remedy.worked} of {remedy.tried}"
            style = "green" if remedy.worked == remedy.tried else "yellow" if remedy.worked else "red"
            table.add_row(f"  {remedy.remedy}", "", "", Text(worked, style), "", *_middle(remedy.ms))
        if fault.by_itself:
            table.add_row("  (by itself)", "", "", Text(f"{_times(fault.by_itself)}", "dim"))
    return table


def _times(count: int) -> str:
    return "1 time" if count == 1 else f"{count} times"


def _middle(spread: Spread | None) -> Iterable[str]:
    return ("-", "-") if spread is None else map(units.milliseconds, (spread.p50_ms, spread.p90_ms))


def _deadlines(deadlines: Iterable[DeadlineView]) -> Table:
    table = Table.grid(
        _folded(), Column(no_wrap=True), Column(justify="right", no_wrap=True), _folded(), padding=_GAP
    )
    for one in deadlines:
        longer, shorter = one.seconds > one.configured_s, one.seconds < one.configured_s
        seconds = Text(f"{one.seconds:.1f} s", "yellow" if longer else "green" if shorter else "")
        table.add_row(
            Text(one.client or "a new client", "" if one.client else "dim"),
            one.stage,
            seconds,
            Text(one.why, "dim"),
        )
    return table


def _slow(slow: Iterable[Slow]) -> Table:
    table = Table.grid(_folded(), Column(no_wrap=True), _folded(), padding=_GAP)
    for one in slow:
        table.add_row(Text(one.client, "bold"), Text(one.stage, "yellow"), one.why)
    return table


def _part(console: Console, title: str, body: Table | Text) -> None:
    console.print()
    console.print(Text(title, "bold cyan"))
    console.print(Padding(body, (0, 0, 0, 2), expand=False))


def _folded() -> Column:
    """Of names and words: what is too long goes on in the next line."""
    return Column(overflow="fold")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=_GAP, header_style="dim")
    for column in columns:
        left = column in {"", "SHARE OF THE TIME"}
        table.add_column(
            column, justify="left" if left else "right", no_wrap=not column.startswith(("FOUND A", "CURED A"))
        )
    return table
