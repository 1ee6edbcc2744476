"""What a session announces, as transcripts and over any run of events. What does not match prints its difference."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from playbook import FAILURE, POLICY, RUNS, Run, exited, found, seen, steps_of

from waguard.core import catalogue
from waguard.core.health.faults import Fault
from waguard.core.model import Link, Process
from waguard.core.session import events as e
from waguard.core.session import orders as o
from waguard.core.session.news import Known, News, news
from waguard.core.session.state import State, summary_of
from waguard.core.session.table import decide

LEFT_OUT = ("duration_ms", "evidence", "lasted_ms", "wanted", "process", "link", "stages", "profile", "why")


class Session:
    """Steps of a session, each with the lines that it announces."""

    def __init__(self) -> None:
        self.state, self.now = State(), 1000.0
        self.known = Known(changed=self.now)

    def __call__(self, event: e.Event, *lines: str, after_s: float = 1.0) -> None:
        self.now += after_s
        before = self.state
        if isinstance(event, e.Answer):
            event = replace(event, step=before.step)
        self.state, orders = decide(before, event, self.now, POLICY)
        if any(isinstance(order, o.Prepare) for order in orders):
            self.known = replace(self.known, attempt_began=self.now)
        why = event.why if isinstance(event, e.NotCured) else ""
        said = [*news(before, self.state, self.now, replace(self.known, why_not=why))]
        if any(one.name == "attempt.done" for one in said):
            self.known = replace(self.known, attempt_began=0.0)
        assert "\n".join(map(line, said)) == "\n".join(lines)


def line(one: News) -> str:
    told = " ".join(f"{name}={value}" for name, value in one.fields.items() if name not in LEFT_OUT and value)
    return f"{one.name} {told}".strip()


def connected(session: Session) -> None:
    session(e.ConnectAsked(), "session.changed status=starting was=stopped")
    session(e.Prepared(1), "session.changed status=starting was=starting")
    session(e.Started(1), "session.changed status=starting was=starting")
    session(
        seen(1, Link.CONNECTED),
        "session.changed status=connected was=starting",
        "attempt.done outcome=usable",
    )


def test_a_scan() -> None:
    session = Session()
    session(e.ConnectAsked(), "session.changed status=starting was=stopped")
    session(e.Prepared(1), "session.changed status=starting was=starting")
    session(e.Started(1), "session.changed status=starting was=starting")
    session(
        seen(1, Link.AWAITING_SCAN, qr="2@x"),
        "session.changed status=awaiting_scan was=starting",
        "attempt.done outcome=usable",
    )
    session(seen(1, Link.CONNECTED), "session.changed status=connected was=awaiting_scan")
    session(e.DisconnectAsked(), "session.changed status=stopped was=connected")
    session(e.Gone(1), "session.changed status=stopped was=stopped")


def test_a_start_that_fails_is_one_attempt() -> None:
    session = Session()
    session(e.ConnectAsked(), "session.changed status=starting was=stopped")
    session(e.Prepared(1), "session.changed status=starting was=starting")
    session(
        e.Failed(1, FAILURE),
        "session.changed status=recovering was=starting",
        "session.failure code=browser_failed error=it fell stage=start",
        "health.finding fault=start_failed remedies=['restart']",
        "attempt.done outcome=failed code=browser_failed stage=start",
    )


def test_a_reload_that_helps() -> None:
    session = Session()
    connected(session)
    session(
        found(1, Fault.PAGE_CRASHED),
        "session.changed status=recovering was=connected",
        "health.finding fault=page_crashed remedies=['reload', 'restart']",
    )
    session(
        seen(1, Link.CONNECTED),
        "session.changed status=connected was=recovering",
        "health.remedy fault=page_crashed remedy=reload outcome=cured",
        "health.recovered fault=page_crashed remedy=reload remedies=['reload']",
    )


def test_what_passes_by_itself() -> None:
    session = Session()
    connected(session)
    session(
        found(1, Fault.PAGE_SILENT),
        "session.changed status=recovering was=connected",
        "health.finding fault=page_silent",
    )
    session(
        seen(1, Link.CONNECTED),
        "session.changed status=connected was=recovering",
        "health.recovered fault=page_silent remedy=none",
    )


def test_a_browser_that_ends_and_is_stopped_meanwhile() -> None:
    session = Session()
    connected(session)
    session(
        exited(1),
        "session.changed status=recovering reason=crashed was=connected",
        "session.failure code=browser_failed error=it fell stage=start",
        "health.finding fault=browser_exited remedies=['restart']",
    )
    session(
        e.DisconnectAsked(),
        "session.changed status=stopped reason=crashed was=recovering",
        "health.remedy fault=browser_exited remedy=restart outcome=called_off",
    )


@given(RUNS)
def test_any_run_announces_what_is_and_each_thing_once(run: Run) -> None:
    said = summary_of(run[0]).value
    for before, _event, state, _orders, now in steps_of(run):
        told: Sequence[News] = [*news(before, state, now, Known(attempt_began=1.0))]
        names = [one.name for one in told]
        assert len(names) == len(set(names))
        for one in told:
            catalogue.level_of(one.name, one.level, one.fields)
        for one in told:
            if one.name == "session.changed":
                assert one.fields["was"] == said
                said = one.fields["status"]
        assert said == summary_of(state).value or "session.changed" not in names
        if "health.recovered" in names:
            assert before.treatment is not None
            assert state.treatment is None
        if "attempt.done" not in names:
            assert state.process in {Process.PREPARING, Process.STARTING, Process.UP}
