"""What people see: rich on a terminal, plain elsewhere."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from waguard.cli.doctor import Finding, Grade
from waguard.core.model import Status
from waguard.schedule import JobView
from waguard.sweep.sweeper import Sweep
from waguard.views import BackupView, CleanupView, FindingView, SessionView

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
_OUTCOMES = {"done": "green", "nothing": "dim", "skipped": "yellow", "failed": "red", "reported": "yellow"}
_GRADES = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.PROBLEM: "bold red"}
_UNBROKEN = 10_000
"""Columns of what is not a terminal: whoever reads it there breaks lines itself."""


def output() -> Console:
    return _console(Console(highlight=False, markup=False, emoji=False))


def errors() -> Console:
    return _console(Console(highlight=False, markup=False, emoji=False, stderr=True))


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
    table = _table(
        "CLIENT", "STATUS", "LINK", "PROFILE", "SINCE", "QR", "RESTARTS", "MEMORY", "PID", "TROUBLE"
    )
    for view in views:
        table.add_row(
            view.client,
            _status(view),
            _link(view),
            view.profile or "-",
            age(view.since),
            "yes" if view.qr else "-",
            str(view.automatic_restarts),
            f"{view.memory_mb:.0f} MiB" if view.memory_mb is not None else "-",
            str(view.browser.pids[0]) if view.browser else "-",
            _trouble(view),
        )
    console.print(table)


def session(view: SessionView, console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    rows: list[tuple[str, str | Text]] = [
        ("client", view.client),
        ("status", _status(view).append(f", for {age(view.since)}")),
        ("wanted", view.wanted.value),
        ("process", view.process.value),
        ("link", _link(view)),
        ("signs", ", ".join(view.signs) or "-"),
        ("qr code", f"{view.qr.age_s:.0f} s old" if view.qr else "-"),
        ("profile", f"{view.profile} ({view.backup or view.generation})" if view.profile else "-"),
        ("check", f"{view.check.verdict}: {view.check.why}" if view.check else "-"),
        ("page", view.page_version or "-"),
        ("restarts", f"{view.automatic_restarts} by itself"),
        ("launch", view.attempt or "-"),
        ("stages", stages(view.stages_ms) or "-"),
    ]
    if browser := view.browser:
        pids = ", ".join(map(str, browser.pids))
        rows.append(("browser", f"pid {pids} in {browser.sandbox}, up for {age(browser.started_at)}"))
    if view.memory_mb is not None:
        rows.append(("memory", f"{view.memory_mb:.0f} MiB"))
    if found := view.finding:
        rows.append(("finding", _finding(found).append(f", {found.age_s:.0f} s ago")))
        tried = ", ".join(found.tried)
        rows += [("tried", f"{tried}, in vain")] if tried else []
    if failure := view.failure:
        stage = f" in stage {failure.stage}" if failure.stage else ""
        rows.append(("failure", f"{failure.message} [{failure.code}]{stage}"))
        if failure.hint:
            rows.append(("", failure.hint))
    for name, value in rows:
        table.add_row(Text(name, "dim"), value)
    console.print(table)


def cleanup(view: CleanupView, console: Console) -> None:
    table = _table("STEP", "OUTCOME", "MS", "DETAIL")
    for step in view.steps:
        outcome = Text(step.outcome, _OUTCOMES.get(step.outcome, ""))
        table.add_row(step.step, outcome, f"{step.ms:.1f}", step.detail)
    console.print(table)
    console.print(f"{view.client} is {'clean' if view.ok else 'not clean'} ({milliseconds(view.ms)}).")


def backups(views: Sequence[BackupView], console: Console) -> None:
    table = _table("ID", "TAKEN", "WHY", "SIZE", "LOGIN", "BROWSER")
    for view in views:
        usable = (
            Text("refused", "red") if view.refused else Text("yes", "green") if view.login else Text("no")
        )
        table.add_row(
            view.id, when(view.taken_at), view.reason, size(view.bytes), usable, view.browser or "-"
        )
    console.print(table)


def sweep(found: Sweep, console: Console) -> None:
    if found.findings:
        table = _table("WHAT", "CLIENT", "SUBJECT", "ACTION", "OUTCOME", "DETAIL")
        for one in found.findings:
            outcome = Text(one.outcome, _OUTCOMES.get(one.outcome, ""))
            detail = f"{one.detail.removesuffix('.')}; {one.evidence}" if one.detail else one.evidence
            table.add_row(one.kind, one.client or "-", one.subject, one.action, outcome, detail)
        console.print(table)
    count = len(found.findings) or "nothing"
    console.print(f"{'Dry run: ' if found.dry_run else ''}{count} found ({milliseconds(found.ms)}).")


def schedule(jobs: Sequence[JobView], console: Console) -> None:
    table = _table("JOB", "RULE", "NEXT", "LAST", "OUTCOME", "DETAIL")
    for job in jobs:
        ok = {True: Text("done", "green"), False: Text("failed", "red"), None: Text("-")}[job.last_ok]
        outcome = Text("runs now", "cyan") if job.running else ok
        table.add_row(job.name, job.rule, when(job.next_at), when(job.last_at), outcome, job.last_error)
    console.print(table)


def when(at: float | None) -> str:
    """A unix time as people here write it."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def size(count: int) -> str:
    """Bytes, for people."""
    if count < 1024:
        return f"{count} bytes"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def doctor(findings: Sequence[Finding], console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        seen = Text(finding.seen)
        if finding.mend:
            seen.append(f"\n-> {finding.mend}", "bold")
        table.add_row(Text(finding.grade.value, _GRADES[finding.grade]), finding.check, seen)
    console.print(table)
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
    if view.failure is None:
        return Text("-")
    return Text(f"{view.failure.message} [{view.failure.code}]").append(f" {view.failure.hint}", "dim")


def _finding(found: FindingView) -> Text:
    """What is wrong, what shows it, and what is being done."""
    doing = f"trying {found.remedy}" if found.remedy else "waiting"
    return Text(str(found.fault), "yellow").append(f": {'; '.join(found.evidence)} ({doing})", "dim")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column not in {"LAST FAILURE", "DETAIL"})
    return table
