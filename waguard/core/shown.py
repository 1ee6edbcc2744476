"""What is shown, to the control port and by it to the command line: shapes alone, which both sides know. Who makes them is elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from waguard.core.access import Scope, TokenState
from waguard.core.health.faults import Fault
from waguard.core.health.plans import Remedy
from waguard.core.model import Alert, ClientCode, Link, Login, Process, Status, Verdict, Wanted
from waguard.core.stats import AttemptStats, Episode, FaultStats, Happening, Slow
from waguard.core.undo import Deed

NEWEST = "newest"
"""In the place of an id."""


@dataclass(frozen=True, slots=True)
class Alive:
    status: str = "ok"


@dataclass(frozen=True, slots=True)
class QrView:
    text: str
    age_s: float
    """Seconds since this code was first seen; WhatsApp's first lives 60 s, each next one 20 s."""
    seen_at: float
    """Unix time, seconds."""


@dataclass(frozen=True, slots=True)
class PairingView:
    code: str
    """Eight characters; on the phone: Linked devices, Link a device, Link with phone number instead."""
    expires_at: float
    """Unix time, seconds; about, as WhatsApp does not say it. A QR code comes back then, at the latest."""


@dataclass(frozen=True, slots=True)
class BrowserView:
    pids: Sequence[int]
    """The processes whose end is the end of all."""
    sandbox: str
    started_at: float = field(compare=False)
    """Unix time, seconds, as the clock goes now: of a browser whose age is known, whatever the clock said when it was started."""


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
    """Unix time of the last change of status, as the clock goes now, seconds."""
    attempt: str | None
    """Id of the last launch; the same as in the log."""
    qr: QrView | None
    """What is on the page to be scanned now; none while there is nothing to scan."""
    profile: str | None
    """``kept``, ``fresh``, ``restored`` or ``returned`` (by an undo); none while there is none."""
    snapshot: str | None
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
    labels: Sequence[str] = ()
    """What it is chosen by: see `[clients.CODE]` of the configuration."""


@dataclass(slots=True)
class Step:
    """One step of a cleanup, as it went."""

    step: str
    outcome: str = "nothing"
    """done | nothing (there was nothing to do) | skipped (the next step does it the hard way) | failed"""
    ms: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CleanupView:
    client: str
    ok: bool
    """Whether no step failed."""
    steps: Sequence[Step]
    ms: float


@dataclass(frozen=True, slots=True)
class TicketView:
    ticket: str
    url: str
    """Of the WebSocket or the feed, the ticket in it."""
    lasts_s: float
    """How long, and once."""


@dataclass(frozen=True, slots=True)
class EventView:
    id: str | None
    """By which a reader goes on behind it; null: the disk has not taken it, and it may be told again."""
    at: float
    """Unix time, seconds."""
    client: str | None
    """Null: it is about no client."""
    name: str
    fields: Mapping[str, Any]
    """As the catalogue of events has them."""


@dataclass(frozen=True, slots=True)
class FeedReady:
    """The first thing that a reader is told: from here on."""

    id: str | None


@dataclass(frozen=True, slots=True)
class FeedMissed:
    """There was more before what comes next, which cannot be told any more: ask for the sessions as they are."""

    events: int | None
    """About how many, wanted or not; null: nobody knows."""


@dataclass(frozen=True, slots=True)
class FeedEnded:
    why: str


@dataclass(frozen=True, slots=True)
class UploadView:
    id: str
    name: str
    """As the page will see it: the one that was given, without what no name should have."""
    path: str
    """What drivers name: `uploadFile`, `DOM.setFileInputFiles`. No path of the daemon's host."""
    bytes: int
    expires_at: float
    """Unix time, seconds; the next sweep after that deletes it."""


@dataclass(frozen=True, slots=True)
class UploadList:
    uploads: Sequence[UploadView]


@dataclass(frozen=True, slots=True)
class DownloadView:
    id: str
    """The `guid` of the browser's events about it."""
    name: str
    """As the page would have it, without what no name should have."""
    bytes: int
    at: float
    """When it had come whole, unix time, seconds."""
    expires_at: float
    """Unix time, seconds; the next sweep after that deletes it."""


@dataclass(frozen=True, slots=True)
class DownloadList:
    downloads: Sequence[DownloadView]
    most_mb: int
    """As much of them is kept, the newest; 0: downloads are denied."""


@dataclass(frozen=True, slots=True)
class FileDeleted:
    deleted: str
    """The id."""


@dataclass(frozen=True, slots=True)
class ValueView:
    """What is known of a value besides what it says."""

    key: str
    type: str
    """Its Content-Type, as it came."""
    bytes: int
    etag: str
    """Another one each time that it is written: for `If-Match` and `If-None-Match`."""
    written_at: float
    """Unix time, seconds."""
    expires_at: float | None
    """Unix time, seconds: the end of its time to live; null: it has none."""


@dataclass(frozen=True, slots=True)
class ValueList:
    values: Sequence[ValueView]
    """By their keys."""
    bytes: int
    """Of all of them."""
    most_bytes: int
    """So many of all of them are kept."""


@dataclass(frozen=True, slots=True)
class ValueDeleted:
    deleted: str
    """The key."""


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """What the control port shows of a snapshot."""

    id: str
    """Empty: an import was tried, and nothing is kept of it."""
    client: str
    taken_at: float | None
    """Unix time, seconds; none if the file does not even say what it is."""
    reason: str
    """``settled`` (the first after a login), ``schedule``, ``request``, ``import``, ``sealed``; or why the profile was put
    aside: ``cleanup``, ``fresh``, ``restore``, ``undo``, ``damaged``, ``ownerless``."""
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


@dataclass(frozen=True, slots=True)
class UndoView:
    """What an undo would take back, and what would be there then."""

    client: str
    act: Deed
    """``cleanup``, ``fresh``, ``restore`` (also of an import) or ``undo``."""
    at: float
    """When that was, unix time, seconds."""
    generation: str
    """Of the profile that would come back."""
    login: bool
    """Whether the client was connected with it."""
    values: int
    """How many values of apps would come back."""
    replaces: str | None
    """Generation of the profile that is there now, and would be put aside."""


@dataclass(slots=True)
class Leftover:
    kind: str
    """``browser_without_session``, ``sandbox_without_browser``, ``leftover_launch``, ``zombie``, ``foreign_holder``,
    ``cgroup_without_session``,
    ``expired_values``, ``half_written``, ``stale_lock``, ``profile_without_owner``, ``not_sealed``,
    ``not_saved``, ``wrong_clock``, ``expired``, ``cache``, ``over_quota``.
    """
    subject: str
    """A pid, or the path below the sessions directory."""
    evidence: str
    action: str
    """What is done about it: ``kill``, ``collect``, ``delete``, ``retire``, ``seal``, ``save``, ``date``, ``prune``, or ``report``."""
    client: str | None = None
    outcome: str = "would"
    """``would`` (a dry run), ``done``, ``reported``, ``nothing`` (it was no longer so), ``failed``."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found, and did."""

    dry_run: bool
    findings: Sequence[Leftover]
    ms: float


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it is shown. ``next_at`` is None for never; passed already, it is due as soon as the present run ends."""

    name: str
    rule: str
    next_at: float | None
    last_at: float | None
    last_ms: float | None
    last_ok: bool | None
    last_error: str
    running: bool


@dataclass(frozen=True, slots=True)
class Raised:
    alert: Alert
    client: ClientCode | None
    text: str


@dataclass(frozen=True, slots=True)
class DeadlineView:
    """A deadline that is in force."""

    client: str | None
    """None: of a client that is not known yet."""
    stage: str
    seconds: float
    configured_s: float
    why: str


@dataclass(frozen=True, slots=True)
class StatsView:
    since: float
    """Unix time, seconds."""
    until: float
    client: str | None
    """Only of this one; none: of all."""
    history: str
    """``on``, ``off``, or why it cannot be written now."""
    alerts: Sequence[Raised]
    """Those that stand now."""
    attempts: AttemptStats
    faults: Sequence[FaultStats]
    deadlines: Sequence[DeadlineView]
    """Of the client; else of one that is not known yet, and where one is slow."""
    slow: Sequence[Slow]


@dataclass(frozen=True, slots=True)
class TokenView:
    id: str
    name: str
    state: TokenState
    scopes: Sequence[Scope]
    clients: Sequence[str]
    """The client codes that it is for; `*` alone: all."""
    created_at: float
    """Unix time, seconds."""
    created_by: str
    """Who made it, as events have it."""
    expires_at: float | None
    """Unix time, seconds; null: never."""
    used_at: float | None
    """When it was last shown, Unix time, seconds; after a crash of the daemon up to ten minutes old."""
    revoked_at: float | None
    """Unix time, seconds."""
    labels: Sequence[str] = ()
    """It is for every client that has one of these, too."""


@dataclass(frozen=True, slots=True)
class TokenMade:
    token: str
    """What its bearer sends. It is shown here, and can be shown by nobody any more."""
    about: TokenView


# --- answers that are a list ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionList:
    sessions: Sequence[SessionView]
    next: str | None = None
    """The `cursor` of the page behind this one; null: there is none."""


@dataclass(frozen=True, slots=True)
class AllSessions(SessionList):
    """What the admin is told."""

    sandbox: SandboxView | None = None


@dataclass(frozen=True, slots=True)
class SnapshotList:
    snapshots: Sequence[SnapshotView]


@dataclass(frozen=True, slots=True)
class SnapshotTried:
    """The answer to a dry run."""

    snapshot: SnapshotView
    dry_run: bool = True


@dataclass(frozen=True, slots=True)
class UndoTried:
    """The answer to a dry run."""

    undo: UndoView
    dry_run: bool = True


@dataclass(frozen=True, slots=True)
class HistoryList:
    history: Sequence[Happening]


@dataclass(frozen=True, slots=True)
class FindingList:
    findings: Sequence[Episode]


@dataclass(frozen=True, slots=True)
class TokenList:
    tokens: Sequence[TokenView]
    """The newest first; also those that ended in the last 30 days."""


@dataclass(frozen=True, slots=True)
class JobList:
    jobs: Sequence[JobView]
