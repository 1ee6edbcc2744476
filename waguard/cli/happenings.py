"""What has happened to a session, a sentence each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from waguard.cli.table import Column, table
from waguard.cli.units import milliseconds, when
from waguard.core.model import Status
from waguard.core.stats import Happening

STYLES = {
    Status.CONNECTED: "green",
    Status.AWAITING_SCAN: "yellow",
    Status.SYNCING: "cyan",
    Status.STARTING: "cyan",
    Status.RECOVERING: "magenta",
    Status.LOGGED_OUT: "red",
    Status.FAILED: "bold red",
    Status.STOPPED: "dim",
}
Fields = Mapping[str, Any]


def history(found: Sequence[Happening], console: Console) -> None:
    columns = (Column("WHEN"), Column("WHAT", text=True))
    table(columns, [(when(one.at), happening(one)) for one in found], console)


def happening(one: Happening) -> Text:
    """What has happened, in a sentence; what a later version tells is shown as it is."""
    tell = _HAPPENED.get(one.name)
    try:
        return tell(one.fields) if tell is not None else Text(f"{one.name} {dict(one.fields)}")
    except (KeyError, TypeError, ValueError):
        return Text(f"{one.name} {dict(one.fields)}")


def _changed(fields: Fields) -> Text:
    status = fields["status"]
    reason = f" ({fields['reason']})" if fields.get("reason") else ""
    before = f"{fields['process']}; was {fields['was']} for {milliseconds(fields['duration_ms'])}"
    return Text.assemble((status, STYLES.get(status, "")), f"{reason}, ", (before, "dim"))


def _attempt(fields: Fields) -> Text:
    how = {"connect": "started", "restart": "restarted", "return": "started with the daemon"}.get(
        fields["why"], f"restarted automatically ({fields['why']})"
    )
    took = milliseconds(fields["duration_ms"])
    if fields["outcome"] == "usable":
        return Text(f"{how}: {fields['link']} after {took}", "green")
    why = ", ".join(filter(None, (fields.get("code"), fields.get("stage") and f"stage {fields['stage']}")))
    return Text(f"{how}: {fields['outcome']} after {took}{f' [{why}]' if why else ''}", "red")


def _found(fields: Fields) -> Text:
    remedies = ", ".join(fields.get("remedies") or ()) or "nothing"
    return (
        Text("found ")
        .append(fields["fault"], "yellow")
        .append(f": {'; '.join(fields['evidence'])}; to be tried: {remedies}", "dim")
    )


def _remedy(fields: Fields) -> Text:
    style = {"cured": "green", "failed": "red"}.get(fields["outcome"], "")
    took = milliseconds(fields["duration_ms"])
    return Text(f"{fields['remedy']} against {fields['fault']}: ").append(
        f"{fields['outcome']} after {took}", style
    )


def _recovered(fields: Fields) -> Text:
    by = f"by {fields['remedy']}" if fields["remedy"] != "none" else "by itself"
    return Text(
        f"{fields['fault']} is over {by}, {milliseconds(fields['duration_ms'])} after it was found", "green"
    )


def _late(fields: Fields) -> Text:
    return Text(f"stage {fields['stage']} was not done within {fields['deadline_s']:g} s", "yellow")


_HAPPENED: Mapping[str, Callable[[Fields], Text]] = {
    "session.changed": _changed,
    "attempt.done": _attempt,
    "health.finding": _found,
    "health.remedy": _remedy,
    "health.recovered": _recovered,
    "stage.late": _late,
}
TURNS = _HAPPENED.keys() - {"session.changed", "stage.late"}
"""What of it shows how a session fares; the others are the steps between."""
