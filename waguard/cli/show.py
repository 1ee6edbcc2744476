"""Sessions, snapshots, sweeps and checks as tables and lists for people."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from waguard.api.words import in_shell
from waguard.cli.checks import Checked, CheckResult, ClientChecked, Grade, What
from waguard.cli.happenings import STYLES, history
from waguard.cli.table import Column, facts, table
from waguard.cli.units import age, milliseconds, number, size, stages, when
from waguard.core.access import EVERY_CLIENT, TokenState
from waguard.core.model import Login, Status
from waguard.core.shown import (
    CleanupView,
    FindingView,
    JobView,
    SessionView,
    SnapshotView,
    Sweep,
    TokenView,
    ValueView,
)
from waguard.core.stats import Happening

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
_TOKEN_STATES = {TokenState.ACTIVE: "green", TokenState.EXPIRED: "yellow", TokenState.REVOKED: "dim"}
_GRADES = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.PROBLEM: "bold red"}


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
        text.append(one, f"not bold {STYLES[status]}").append(", " if left else "", "not bold")
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
        ("profile", f"{view.profile} ({view.snapshot or view.generation})" if view.profile else ""),
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


def cleanup(view: CleanupView, console: Console) -> None:
    columns = (Column("STEP"), Column("OUTCOME"), Column("MS"), Column("DETAIL", text=True))
    rows = [
        (step.step, Text(step.outcome, _OUTCOMES.get(step.outcome, "")), f"{step.ms:.1f}", step.detail)
        for step in view.steps
    ]
    table(columns, rows, console)
    console.print(f"{view.client} is {'clean' if view.ok else 'not clean'} ({milliseconds(view.ms)}).")
    if console.is_terminal and any(one.step == "profile" and one.outcome == "done" for one in view.steps):
        console.print(Text(f"Take it back: waguard undo {view.client}", "dim"))


def snapshots(views: Sequence[SnapshotView], console: Console) -> None:
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


def values(views: Sequence[ValueView], console: Console) -> None:
    columns = (
        Column("KEY"),
        Column("SIZE"),
        Column("WRITTEN"),
        Column("EXPIRES"),
        Column("TYPE", spare=True),
    )
    rows = [
        (
            view.key,
            f"{view.bytes} B",
            when(view.written_at),
            "never" if view.expires_at is None else when(view.expires_at),
            view.type,
        )
        for view in views
    ]
    table(columns, rows, console)


def tokens(views: Sequence[TokenView], console: Console) -> None:
    columns = (
        Column("NAME"),
        Column("STATE"),
        Column("EXPIRES"),
        Column("SCOPES", text=True),
        Column("USED", spare=True),
        Column("ID", spare=True),
    )
    rows = [
        (
            view.name,
            Text(view.state, _TOKEN_STATES[view.state]),
            "never" if view.expires_at is None else when(view.expires_at).partition(" ")[0],
            f"{', '.join(view.scopes)} of {clients_of(view)}",
            f"{age(view.used_at)} ago" if view.used_at is not None else "",
            view.id,
        )
        for view in views
    ]
    table(columns, rows, console)


def clients_of(view: TokenView) -> str:
    whose = [*view.clients, *(f"label {one}" for one in view.labels)]
    return "all clients" if EVERY_CLIENT in view.clients else ", ".join(whose)


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


def doctor(results: Sequence[CheckResult], console: Console) -> None:
    columns = (Column("GRADE"), Column("WHAT"), Column("SEEN", text=True))
    rows = []
    for result in results:
        seen = Text(result.seen)
        if result.hint:
            seen.append(f"\n-> {result.hint}", "bold")
        rows.append((Text(result.grade.value, _GRADES[result.grade]), result.check, seen))
    table(columns, rows, console)
    counts = [f"{sum(one.grade is grade for one in results)} {grade}" for grade in Grade]
    console.print(", ".join(counts))


def checked(found: Sequence[ClientChecked], console: Console) -> None:
    """A row for each client: those with something wrong first."""
    columns = (Column("CLIENT"), Column("PROFILE"), Column("SNAPSHOTS"), Column("WHY", text=True))
    rows = [
        (
            one.client,
            _states(one, What.PROFILE) or Text("-"),
            _states(one, What.SNAPSHOT) or Text("-"),
            "\n".join(_why(each) for each in one.checked if each.why),
        )
        for one in sorted(found, key=lambda one: one.ok)
    ]
    if rows:
        table(columns, rows, console)
    opened = sum(each.what is What.SNAPSHOT and each.ok for one in found for each in one.checked)
    wrong = sum(not each.ok for one in found for each in one.checked)
    outcome = Text(_count(wrong, "problem"), "bold red" if wrong else "green")
    counted = f"{_count(len(found), 'client')}, {_count(opened, 'snapshot')} opened, "
    console.print(Text(counted).append(outcome).append("."))


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' if number != 1 else ''}"


def _why(each: Checked) -> str:
    return f"snapshot {each.id}: {each.why}" if each.what is What.SNAPSHOT and each.id else each.why


def _states(one: ClientChecked, what: What) -> Text:
    """How many are how; of the profile there is one."""
    parts = []
    counts = Counter((each.state, each.ok) for each in one.checked if each.what is what)
    for (state, ok), count in sorted(counts.items(), key=lambda item: item[0][1]):
        words = state.replace("_", " ")
        text = words if what is What.PROFILE else f"{count} {words}"
        parts.append(Text(text, "red" if not ok else "yellow" if state in {"suspect", "in_use"} else "green"))
    return Text(", ").join(parts)


def _status(view: SessionView) -> Text:
    return Text(view.status.value, STYLES[view.status])


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
