"""What is shown of a session and of a snapshot: to the control port, and by it to the command line. Data, and how it is made."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from waguard.backup.store import Backup
from waguard.core import machine
from waguard.core.health import Fault, Remedy
from waguard.core.model import Link, Login, Process, Status, Wanted
from waguard.instance import Step
from waguard.profile.examiners.subject import Verdict
from waguard.session import Session


@dataclass(frozen=True, slots=True)
class QrView:
    text: str
    age_s: float
    """Seconds since this code was first seen; WhatsApp's first lives 60 s, each next one 20 s."""
    seen_at: float
    """Unix time, seconds."""


@dataclass(frozen=True, slots=True)
class BrowserView:
    pids: Sequence[int]
    """The processes whose end is the end of all."""
    sandbox: str
    started_at: float
    """Unix time, seconds."""


@dataclass(frozen=True, slots=True)
class SandboxView:
    """What the daemon starts browsers in."""

    kind: str
    problem: str
    """Why it is not bubblewrap, which is tried first; empty if it is, or ``plain`` is what the configuration wants."""


@dataclass(frozen=True, slots=True)
class FailureView:
    code: str
    message: str
    stage: str | None
    hint: str


@dataclass(frozen=True, slots=True)
class FindingView:
    fault: Fault
    evidence: Sequence[str]
    remedy: Remedy | None
    """Under way; none: it rests until the next try, or a person is needed."""
    tried: Sequence[Remedy]
    age_s: float
    """Seconds since it was found."""
    next_try_s: float | None
    """Seconds until the next thing is tried by itself, if nothing else happens; none: a person is needed."""


@dataclass(frozen=True, slots=True)
class CheckView:
    verdict: Verdict
    """``suspect``: it was used all the same. ``damaged``: it was put aside, and one of its snapshots, or a fresh one that
    needs a scan, has taken its place (``profile`` says which)."""
    why: str


@dataclass(frozen=True, slots=True)
class SessionView:
    """What the control port shows of a session."""

    client: str
    status: Status
    wanted: Wanted
    process: Process
    link: Link
    reason: str | None
    since: float
    """Unix time of the last change of status, seconds."""
    attempt: str | None
    """Id of the last launch; the same as in the log."""
    qr: QrView | None
    """What is on the page to be scanned now; none while there is nothing to scan."""
    profile: str | None
    """``kept``, ``fresh`` or ``restored``; none while there is none."""
    backup: str | None
    """Id of the snapshot that the profile was restored from for this launch."""
    check: CheckView | None
    """What the check before the last launch had to say of the profile that was there; none if nothing."""
    generation: str | None
    login: Login
    """What is on record of the profile's login, whether its browser runs or not."""
    saved: bool | None
    """Whether the login outlives a browser that is killed now: it is on disk, or a snapshot has it; none if there is no login."""
    wid: str | None
    """The number that is logged in on the page, as WhatsApp writes it; none while there is no such page."""
    push_name: str | None
    """What its owner is called there."""
    page_version: str | None
    signs: Sequence[str]
    """What on the page led to `link`."""
    browser: BrowserView | None
    stages_ms: dict[str, float]
    """Milliseconds that each stage of the last launch took."""
    automatic_restarts: int
    failure: FailureView | None
    finding: FindingView | None
    """What is wrong with it now, and what is being done about that."""
    next_try_s: float | None
    """Seconds until the next thing is tried by itself, if nothing else happens; none: nothing is waited for."""
    memory_mb: float | None
    """MiB that the browser's processes take for themselves, as of the last look."""
    before: int | None = None
    """How many wait before it for their turn to start; none if it does not wait."""
    queued_s: float | None = None
    """How long that will take, by how long the last starts took."""


@dataclass(frozen=True, slots=True)
class CleanupView:
    client: str
    ok: bool
    """Whether no step failed."""
    steps: Sequence[Step]
    ms: float


@dataclass(frozen=True, slots=True)
class BackupView:
    """What the control port shows of a snapshot."""

    id: str
    client: str
    taken_at: float | None
    """Unix time, seconds; none if the file does not even say what it is."""
    reason: str
    """``settled`` (the first after a login), ``schedule``, ``request``, ``import``, ``sealed``; or why the profile was put
    aside: ``cleanup``, ``fresh``, ``restore``, ``damaged``, ``ownerless``."""
    login: bool
    """Whether the client was connected with it."""
    refused: bool
    """WhatsApp has refused its login since; it is not restored by itself."""
    live: bool
    """Taken from a running browser."""
    browser: str
    generation: str
    bytes: int
    """On disk."""


def session_view(session: Session, sandbox: str) -> SessionView:
    state, memory, reading = session.state, session.memory, session.memory.reading
    pids = session.browser_pids
    return SessionView(
        client=session.code,
        status=machine.status(state),
        wanted=state.wanted,
        process=state.process,
        link=state.link,
        reason=state.reason.value if state.reason else None,
        since=round(session.since, 3),
        attempt=memory.attempt or None,
        qr=qr_view(session),
        profile=memory.how or None,
        backup=memory.backup or None,
        check=(
            CheckView(memory.check.verdict, memory.check.why)
            if memory.check is not None and memory.check.evidence
            else None
        ),
        generation=memory.profile.generation if memory.profile else None,
        login=session.instance.login,
        saved=session.instance.saved,
        wid=reading.wid if reading else None,
        push_name=reading.push_name if reading else None,
        page_version=reading.page_version if reading else None,
        signs=reading.signs if reading else (),
        browser=(
            BrowserView(pids, sandbox, round(memory.started_at, 3))
            if pids and memory.started_at is not None
            else None
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
        memory_mb=round(memory.usages[-1][1].memory_mb, 1) if memory.usages else None,
        before=session.before,
        queued_s=session.queued_s,
    )


def qr_view(session: Session) -> QrView | None:
    memory = session.memory
    if memory.qr is None or machine.status(session.state) is not Status.AWAITING_SCAN:
        return None
    return QrView(memory.qr, round(time.monotonic() - memory.qr_seen, 3), round(memory.qr_seen_at, 3))


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


def backup_view(backup: Backup) -> BackupView:
    about = backup.about
    return BackupView(
        id=backup.id,
        client=about.client if about else backup.path.parent.name,
        taken_at=round(about.taken_at, 3) if about else None,
        reason=about.reason if about else "unreadable",
        login=about is not None and about.login,
        refused=backup.refused,
        live=about is not None and about.live,
        browser=about.browser if about else "",
        generation=about.generation if about else "",
        bytes=backup.size,
    )
