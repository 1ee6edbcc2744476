"""What is shown of a session, of a snapshot and of an undo: to the control port, and by it to the command line. Data, and how it is made."""

import time
from collections.abc import Collection
from typing import Any

from waguard.config.clients import ClientSettings, Proxy
from waguard.config.put import Settings
from waguard.core.model import ClientCode, Status
from waguard.core.session.state import summary_of
from waguard.core.shown import (
    BrowserView,
    CheckView,
    FailureView,
    FindingView,
    QrView,
    SessionView,
    SnapshotView,
    UndoView,
)
from waguard.core.shown_settings import SettingsView, SettingView
from waguard.session.task import Session
from waguard.session.undo import Plan
from waguard.snapshots.store import Snapshot


def session_view(session: Session, sandbox: str, labels: Collection[str] = ()) -> SessionView:
    state, memory, reading = session.state, session.memory, session.seen.reading
    pids, age_s = session.browser_pids, session.browser_age_s
    return SessionView(
        client=session.code,
        status=summary_of(state),
        wanted=state.wanted,
        process=state.process,
        link=state.link,
        reason=state.reason.value if state.reason else None,
        since=round(session.since, 3),
        attempt=memory.attempt or None,
        qr=qr_view(session),
        profile=memory.how or None,
        snapshot=memory.snapshot or None,
        check=(
            CheckView(memory.check.verdict, memory.check.why)
            if memory.check is not None and memory.check.evidence
            else None
        ),
        generation=memory.profile.generation if memory.profile else None,
        login=session.login.state.word,
        saved=session.login.state.outlives_a_kill,
        wid=reading.wid if reading else None,
        push_name=reading.push_name if reading else None,
        page_version=reading.page_version if reading else None,
        signs=reading.signs if reading else (),
        browser=(
            BrowserView(pids, sandbox, round(time.time() - age_s, 3)) if pids and age_s is not None else None
        ),
        stages_ms=dict(memory.stages),
        automatic_restarts=memory.automatic_restarts,
        failure=(
            FailureView(
                state.failure.code,
                state.failure.message,
                state.failure.stage.value if state.failure.stage else None,
                state.failure.hint,
            )
            if state.failure
            else None
        ),
        finding=_finding_view(session),
        next_try_s=_next_try_s(session),
        memory_mb=session.usages.memory_mb,
        before=session.start.before,
        queued_s=session.start.queued_s,
        labels=sorted(labels),
    )


def settings_view(code: ClientCode, settings: Settings, session: Session | None) -> SettingsView:
    """Raises `StorageFailed`."""
    held, origins = settings.of(code), settings.origins(code)
    shown = {
        key: SettingView(_told(getattr(held, key)), origins.get(key, "all"))
        for key in ClientSettings.model_fields
    }
    launched = session.launched_with if session is not None else {}
    return SettingsView(code, shown, held.needs_restart(launched))


def _told(value: Any) -> Any:
    if not isinstance(value, Proxy):
        return value
    has_password = value.password is not None or value.password_file is not None
    return {"url": value.url, "user": value.user, "password_set": has_password}


def qr_view(session: Session) -> QrView | None:
    seen = session.seen
    if seen.qr is None or summary_of(session.state) is not Status.AWAITING_SCAN:
        return None
    return QrView(seen.qr, round(time.monotonic() - seen.qr_seen, 3), round(seen.qr_seen_at, 3))


def _finding_view(session: Session) -> FindingView | None:
    treatment = session.state.treatment
    if treatment is None:
        return None
    finding = treatment.finding
    age = round(time.monotonic() - treatment.found, 3)
    next_try_s = _next_try_s(session)
    return FindingView(finding.fault, finding.evidence, treatment.remedy, treatment.tried, age, next_try_s)


def _next_try_s(session: Session) -> float | None:
    at = session.next_try
    return None if at is None else round(max(0.0, at - time.monotonic()), 1)


def undo_view(code: ClientCode, plan: Plan) -> UndoView:
    act = plan.act
    return UndoView(
        code, act.what, round(act.at, 3), act.generation, plan.login, plan.values, plan.current or None
    )


def snapshot_view(snapshot: Snapshot) -> SnapshotView:
    about = snapshot.about
    return SnapshotView(
        id=snapshot.id,
        client=about.client if about else snapshot.path.parent.name,
        taken_at=round(about.taken_at, 3) if about else None,
        reason=about.reason if about else "unreadable",
        login=about is not None and about.login,
        refused=snapshot.refused,
        live=about is not None and about.live,
        browser=about.browser if about else "",
        generation=about.generation if about else "",
        bytes=snapshot.size,
    )
