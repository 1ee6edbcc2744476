"""What people see: rich on a terminal, plain elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from waguard.api.words import in_shell
from waguard.cli.findings import Finding, Grade
from waguard.cli.table import Column, facts, table
from waguard.core.model import Login, Status
from waguard.core.plain_text import plain
from waguard.core.shown import BackupView, CleanupView, FindingView, JobView, SessionView, Sweep
from waguard.core.stats import Happening

_STYLES = {
    Status.CONNECTED: "green",
    Status.AWAITING_SCAN: "yellow",
    Status.SYNCING: "cyan",
    Status.STARTING: "cyan",
    Status.RECOVERING: "magenta",
    Status.LOGGED_OUT: "red",
    Status.FAILED: "bold red",
    Status.STOPPED: "dim",
}
_URGENT = (Status.FAILED, Status.LOGGED_OUT, Status.RECOVERING)
_CALM = (Status.AWAITING_SCAN, Status.STARTING, Status.SYNCING, Status.CONNECTED, Status.STOPPED)
_WELL = len(_URGENT) + 1
_LOGINS = {
    Login.NONE: "none: a scan is needed",
    Login.RESTORED: "from a snapshot; WhatsApp has not taken it yet",
    Login.NEW: "new, not on disk yet",
    Login.ON_DISK: "on disk",
}
_OUTCOMES = {"done": "green", "nothing": "dim", "skipped": "yellow", "failed": "red", "reported": "yellow"}
_GRADES = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.PROBLEM: "bold red"}
Fields = Mapping[str, Any]
_UNBROKEN = 10_000
"""Columns of what is not a terminal: whoever reads it there breaks lines itself."""


class Harmless(Console):
    """What others say (a page, an archive, another program) reaches a terminal as text alone, whatever prints it."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:  # our own
                yield segment
            else:
                yield Segment(plain(segment.text, lines=True), segment.style)


def output() -> Console:
    return _console(Harmless(highlight=False, markup=False, emoji=False))


def errors() -> Console:
    return _console(Harmless(highlight=False, markup=False, emoji=False, stderr=True))


def _console(console: Console) -> Console:
    if not console.is_terminal:
        console.width = _UNBROKEN
    return console


def on_terminal() -> bool:
    """Whether a person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def headline(view: SessionView) -> Text:
    """The session in one line."""
    text = Text(f"{view.client} is ").append(_status(view))
    if view.reason:
        text.append(f" ({view.reason})")
    if view.failure:
        text.append(f": {view.failure.message}")
    return text


def sessions(views: Sequence[SessionView], console: Console) -> None:
    """All of them: those in trouble first."""
    if console.is_terminal:
        console.print(_summary(views, console.width))
        console.print()
    columns = (
        Column("CLIENT"),
        Column("STATUS"),
        Column("SINCE"),
        Column("TROUBLE", text=True),
        Column("NUMBER", spare=True),
        Column("MEMORY", spare=True),
        Column("RESTARTS", spare=True),
        Column("LOGIN", spare=True),
        Column("PROFILE", spare=True),
        Column("PID", spare=True),
    )
    rows = [
        (
            view.client,
            _status(view),
            age(view.since),
            _trouble(view),
            number(view.wid),
            f"{view.memory_mb:.0f} MiB" if view.memory_mb is not None else "",
            str(view.automatic_restarts or ""),
            view.login.value,
            view.profile or "",
            str(view.browser.pids[0]) if view.browser else "",
        )
        for view in sorted(views, key=lambda one: (_rank(one), one.client))
    ]
    table(columns, rows, console)
    if console.is_terminal and any(_rank(view) < _WELL for view in views):
        console.print()
        console.print(Text("Details of one: waguard status CODE", "dim"))


def _summary(views: Sequence[SessionView], width: int) -> Text:
    """How many there are in which state; lines end between two of them."""
    text = Text(f"{len(views)} session{'s' if len(views) != 1 else ''}: ", "bold")
    at = text.cell_len
    counts = Counter(view.status for view in views).most_common()
    for left, (status, count) in zip(reversed(range(len(counts))), counts, strict=True):
        one = f"{count} {status}"
        if at + len(one) + 1 > width:
            text.rstrip()
            text.append("\n")
            at = 0
        text.append(one, f"not bold {_STYLES[status]}").append(", " if left else "", "not bold")
        at += len(one) + 2
    return text


def _rank(view: SessionView) -> int:
    """What needs somebody, or is being mended, comes first."""
    if view.status in _URGENT:
        return _URGENT.index(view.status)
    return _WELL - 1 if view.finding or view.failure else _WELL + _CALM.index(view.status)


def session(
    view: SessionView, console: Console, *, lately: Sequence[Happening] = (), saved: str = ""
) -> None:
    """One of them: ``lately`` is what happened to it, the newest first, and ``saved`` what snapshots there are."""
    browser = view.browser
    rows: list[tuple[str, str | Text]] = [
        ("client", view.client),
        ("status", Text.assemble(_status(view), f", for {age(view.since)}")),
    ]
    if found := view.finding:
        rows.append(("finding", _finding(found).append(f", {found.age_s:.0f} s ago")))
        tried = ", ".join(found.tried)
        rows += [("tried", f"{tried}, without success")] if tried else []
    if failure := view.failure:
        stage = f" in stage {failure.stage}" if failure.stage else ""
        rows.append(("failure", f"{failure.message} [{failure.code}]{stage}"))
        if failure.hint:
            rows.append(("", in_shell(failure.hint)))
    rows += [
        ("next try", f"in {view.next_try_s:.0f} s" if view.next_try_s is not None else ""),
        ("wanted", view.wanted.value),
        ("process", view.process.value),
        ("queue", _queue(view)),
        ("link", _link(view)),
        ("number", " ".join(filter(None, (number(view.wid), view.push_name)))),
        ("login", _LOGINS[view.login]),
        ("snapshots", saved),
        ("profile", f"{view.profile} ({view.backup or view.generation})" if view.profile else ""),
        ("check", f"{view.check.verdict}: {view.check.why}" if view.check else ""),
        ("qr code", f"{view.qr.age_s:.0f} s old" if view.qr else ""),
        ("signs", ", ".join(view.signs)),
        ("page", view.page_version or ""),
        (
            "browser",
            f"pid {', '.join(map(str, browser.pids))} in {browser.sandbox}, up for {age(browser.started_at)}"
            if browser
            else "",
        ),
        ("memory", f"{view.memory_mb:.0f} MiB" if view.memory_mb is not None else ""),
        ("launch", view.attempt or ""),
        ("stages", stages(view.stages_ms)),
        ("restarts", f"{view.automatic_restarts} automatic" if view.automatic_restarts else ""),
    ]
    facts([(name, value) for name, value in rows if str(value)], console)
    if lately:
        console.print()
        console.print(Text(f"Recent events (all of them: waguard history {view.client})", "dim"))
        history(lately, console)


def _queue(view: SessionView) -> str:
    """How many wait before it for their turn to start."""
    if view.before is None:
        return ""
    about = f", about {view.queued_s:.0f} s" if view.queued_s is not None else ""
    return f"{view.before} ahead of it{about}" if view.before else f"next to start{about}"


def history(found: Sequence[Happening], console: Console) -> None:
    columns = (Column("WHEN"), Column("WHAT", text=True))
    table(columns, [(when(one.at), happening(one)) for one in found], console)


def cleanup(view: CleanupView, console: Console) -> None:
    columns = (Column("STEP"), Column("OUTCOME"), Column("MS"), Column("DETAIL", text=True))
    rows = [
        (step.step, Text(step.outcome, _OUTCOMES.get(step.outcome, "")), f"{step.ms:.1f}", step.detail)
        for step in view.steps
    ]
    table(columns, rows, console)
    console.print(f"{view.client} is {'clean' if view.ok else 'not clean'} ({milliseconds(view.ms)}).")


def backups(views: Sequence[BackupView], console: Console) -> None:
    columns = (
        Column("ID"),
        Column("TAKEN"),
        Column("LOGIN"),
        Column("WHY", spare=True),
        Column("SIZE", spare=True),
        Column("BROWSER", spare=True),
    )
    rows = [
        (
            view.id,
            when(view.taken_at),
            Text("refused", "red") if view.refused else Text("yes", "green") if view.login else Text("no"),
            view.reason,
            size(view.bytes),
            view.browser,
        )
        for view in views
    ]
    table(columns, rows, console)


def sweep(found: Sweep, console: Console) -> None:
    if found.findings:
        columns = (
            Column("WHAT"),
            Column("CLIENT"),
            Column("OUTCOME"),
            Column("ACTION", text=True),
            Column("SUBJECT", text=True),
            Column("DETAIL", text=True),
        )
        rows = [
            (
                one.kind,
                one.client or "",
                Text(one.outcome, _OUTCOMES.get(one.outcome, "")),
                one.action,
                one.subject,
                f"{one.detail.removesuffix('.')}; {one.evidence}" if one.detail else one.evidence,
            )
            for one in found.findings
        ]
        table(columns, rows, console)
    count = len(found.findings) or "nothing"
    console.print(f"{'Dry run: ' if found.dry_run else ''}{count} found ({milliseconds(found.ms)}).")


def schedule(jobs: Sequence[JobView], console: Console) -> None:
    columns = (
        Column("JOB"),
        Column("NEXT"),
        Column("LAST"),
        Column("OUTCOME"),
        Column("RULE", spare=True),
        Column("DETAIL", text=True),
    )
    outcomes = {True: Text("done", "green"), False: Text("failed", "red"), None: Text("")}
    rows = [
        (
            job.name,
            when(job.next_at),
            when(job.last_at),
            Text("runs now", "cyan") if job.running else outcomes[job.last_ok],
            job.rule,
            job.last_error,
        )
        for job in jobs
    ]
    table(columns, rows, console)


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
    return Text.assemble((status, _STYLES.get(status, "")), f"{reason}, ", (before, "dim"))


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


def number(wid: str | None) -> str:
    """As people write it: whatsapp's own form has more."""
    return f"+{wid.partition('@')[0].partition(':')[0]}" if wid else ""


def when(at: float | None) -> str:
    """A unix time as people here write it."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def size(count: int) -> str:
    """Bytes, for people."""
    if count < 1024:
        return f"{count} bytes"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def doctor(findings: Sequence[Finding], console: Console) -> None:
    columns = (Column("GRADE"), Column("WHAT"), Column("SEEN", text=True))
    rows = []
    for finding in findings:
        seen = Text(finding.seen)
        if finding.mend:
            seen.append(f"\n-> {finding.mend}", "bold")
        rows.append((Text(finding.grade.value, _GRADES[finding.grade]), finding.check, seen))
    table(columns, rows, console)
    counts = [f"{sum(one.grade is grade for one in findings)} {grade}" for grade in Grade]
    console.print(", ".join(counts))


def stages(ms: dict[str, float]) -> str:
    return ", ".join(f"{stage} {milliseconds(took)}" for stage, took in ms.items())


def milliseconds(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def age(since: float) -> str:
    """How long ago a unix time was."""
    seconds = max(0, int(time.time() - since))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _status(view: SessionView) -> Text:
    return Text(view.status.value, _STYLES[view.status])


def _link(view: SessionView) -> str:
    return f"{view.link} ({view.reason})" if view.reason else view.link.value


def _trouble(view: SessionView) -> Text:
    if view.finding is not None:
        return _finding(view.finding)
    if view.failure is not None:
        hint = f" {in_shell(view.failure.hint)}" if view.failure.hint else ""
        return Text.assemble((view.failure.code, "yellow"), f": {view.failure.message}", (hint, "dim"))
    return Text(view.reason if view.reason and view.reason != view.status else "")


def _finding(found: FindingView) -> Text:
    """What is wrong, what is being done, and what shows it."""
    following = f"next try in {found.next_try_s:.0f} s" if found.next_try_s is not None else ""
    doing = f"trying {found.remedy}" if found.remedy else following or "a person is needed"
    return Text.assemble((str(found.fault), "yellow"), f", {doing}: ", ("; ".join(found.evidence), "dim"))
