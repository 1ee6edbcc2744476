"""Every route of the control port: who may, what it takes, what it answers, who handles it. Nothing else is served.

Who is let in, what is read, the reference and the OpenAPI document are made from this table.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, Literal, TypeVar

from waguard.api import (
    admin,
    alive,
    cdp,
    compat,
    contract,
    events,
    files,
    qr,
    sessions,
    settings,
    snapshots,
    sse,
    stats,
    tokens,
    values,
    webhooks,
)
from waguard.api.acts import ACTS, Act
from waguard.api.asked import Asked
from waguard.api.schemas import (
    AnyOptions,
    AttachOptions,
    ConnectOptions,
    EventOptions,
    ExportOptions,
    ImportOptions,
    ListOptions,
    MessageOptions,
    Options,
    PageOptions,
    PairingOptions,
    QueryOptions,
    ReapOptions,
    RedriveOptions,
    RestoreOptions,
    RotateOptions,
    SecretOptions,
    SettingsOptions,
    StatsOptions,
    TokenOptions,
    UploadOptions,
    ValueOptions,
    WaitOptions,
    WebhookChanges,
    WebhookOptions,
)
from waguard.core.access import About, Scope
from waguard.core.shown import (
    Alive,
    AllSessions,
    CleanupView,
    DownloadList,
    FileDeleted,
    FindingList,
    HistoryList,
    JobList,
    PairingView,
    QrView,
    SessionList,
    SessionView,
    SnapshotList,
    SnapshotTried,
    SnapshotView,
    StatsView,
    Sweep,
    TicketView,
    TokenList,
    TokenMade,
    TokenView,
    UndoTried,
    UploadList,
    UploadView,
    ValueDeleted,
    ValueList,
    ValueView,
)
from waguard.core.shown_settings import SettingsView
from waguard.core.shown_webhooks import (
    MessageList,
    Redriven,
    WebhookList,
    WebhookMade,
    WebhookTried,
    WebhookView,
)

O = TypeVar("O", bound=Options)  # noqa: E741 (one letter is the custom for type variables)
JSON = ("application/json",)
PNG = ("image/png",)
OCTETS = ("application/octet-stream",)
ANY = ("*/*",)
ARCHIVE = ("application/octet-stream", "application/zstd")


class Streamed(Enum):
    NO = auto()
    IN = auto()
    """The body is read piece by piece, with a limit of its own."""
    OUT = auto()
    """The answer is; there is no HEAD, which would send it all the same."""
    BOTH = auto()
    """It becomes a WebSocket; there is no HEAD either."""
    EVENTS = auto()
    """The answer is server-sent events, as long as its reader likes; nor is there a HEAD."""


@dataclass(frozen=True, slots=True)
class Route(Generic[O]):
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    """What stands in braces is any text without a slash, even none: a wrong one is to get an answer that says what is right."""
    scope: Scope
    options: type[O]
    view: Any
    """What the handler returns, as data; it may return a whole answer instead. `bytes` are of ``media``."""
    handler: Callable[[Asked, O], Awaitable[object]]
    media: Sequence[str] = JSON
    streamed: Streamed = Streamed.NO
    takes: Sequence[str] = OCTETS
    """Of which media its body may be, where that is read piece by piece."""
    clients: About | None = None
    """Where it is about neither the one in its path, nor all."""

    @property
    def about(self) -> About:
        return self.clients or (About.ONE if "{code}" in self.path else About.EVERY)

    @property
    def costly(self) -> bool:
        """Whether it is limited how often a token may ask for it."""
        return self.handler in COSTLY

    @property
    def tells(self) -> bool:
        """Whether it tells how it gets on, where that is asked for."""
        return self.handler in TELLING

    @property
    def act(self) -> Act | None:
        """As what the audit records it; None: it is none."""
        return ACTS.get(self.handler)

    @property
    def attaches(self) -> bool:
        """Whether drivers and pages ask it, which cannot send any header they like."""
        return self.path.startswith(CDP) or self.streamed is Streamed.EVENTS

    @property
    def says(self) -> str:
        """What it does, in a sentence."""
        return " ".join((self.handler.__doc__ or "").split()).replace("``", "`")


ONE, OLD = "/v1/sessions/{code}", compat.PREFIX
CDP = ONE + "/cdp"
VALUE = ONE + "/values/{key}"
EVENTS, TOKENS = "/v1/events", "/v1/tokens"
WEBHOOKS = "/v1/webhooks"
HOOK = WEBHOOKS + "/{id}"
OPEN, READ, CONNECT, CLEANUP = Scope.OPEN, Scope.READ, Scope.CONNECT, Scope.CLEANUP
BACKUP, DRIVE, ADMIN = Scope.BACKUP, Scope.DRIVE, Scope.ADMIN
ALLOWED, OWN = About.ALLOWED, About.OWN
Restored = SessionView | SnapshotTried
TELLING = frozenset(
    {
        *(sessions.connect, sessions.restart, sessions.disconnect, sessions.cleanup),
        *(snapshots.restore, snapshots.bring, sessions.undo),
    }
)
COSTLY = frozenset(
    {
        *(sessions.connect, sessions.restart, sessions.disconnect, sessions.cleanup, sessions.undo),
        *(sessions.pairing_code, sessions.screenshot),
        *(snapshots.take, snapshots.export, snapshots.restore, snapshots.bring),
        *(admin.reap, compat.connect, compat.force_cleanup),
    }
)

ROUTES: Sequence[Route[Any]] = (
    Route("GET", "/livez", OPEN, QueryOptions, Alive, alive.livez),
    Route("GET", "/readyz", OPEN, QueryOptions, Alive, alive.readyz),
    Route(
        "GET",
        "/v1/sessions",
        READ,
        ListOptions,
        AllSessions | SessionList,
        sessions.list_sessions,
        clients=ALLOWED,
    ),
    Route("GET", ONE, READ, Options, SessionView, sessions.show),
    Route("POST", ONE + "/connect", CONNECT, ConnectOptions, SessionView, sessions.connect),
    Route("POST", ONE + "/restart", CONNECT, WaitOptions, SessionView, sessions.restart),
    Route("POST", ONE + "/disconnect", CONNECT, Options, SessionView, sessions.disconnect),
    Route("POST", ONE + "/cleanup", CLEANUP, Options, CleanupView, sessions.cleanup),
    Route("POST", ONE + "/undo", BACKUP, RestoreOptions, SessionView | UndoTried, sessions.undo),
    Route("GET", ONE + "/qr", CONNECT, Options, QrView, sessions.show_qr, (*JSON, *qr.FORMATS)),
    Route("POST", ONE + "/pairing-code", CONNECT, PairingOptions, PairingView, sessions.pairing_code),
    Route("GET", ONE + "/screenshot", DRIVE, Options, bytes, sessions.screenshot, PNG),
    Route("GET", ONE + "/history", READ, PageOptions, HistoryList, stats.history),
    Route("GET", ONE + "/findings", READ, PageOptions, FindingList, stats.findings),
    Route("GET", ONE + "/snapshots", READ, Options, SnapshotList, snapshots.list_snapshots),
    Route("POST", ONE + "/snapshots", BACKUP, Options, SnapshotView, snapshots.take),
    Route(
        "GET", ONE + "/snapshots/{id}", BACKUP, ExportOptions, bytes, snapshots.export, ARCHIVE, Streamed.OUT
    ),
    Route("POST", ONE + "/snapshots/{id}/restore", BACKUP, RestoreOptions, Restored, snapshots.restore),
    Route("POST", ONE + "/import", BACKUP, ImportOptions, Restored, snapshots.bring, JSON, Streamed.IN),
    Route("GET", CDP, DRIVE, AttachOptions, bytes, cdp.attach, OCTETS, Streamed.BOTH),
    Route("GET", CDP + "/json/version", DRIVE, AttachOptions, dict[str, str], cdp.version),
    Route("GET", CDP + "/json/version/", DRIVE, AttachOptions, dict[str, str], cdp.version),
    Route("GET", CDP + "/json/list", DRIVE, AttachOptions, list[dict[str, str]], cdp.targets),
    Route("GET", CDP + "/json/list/", DRIVE, AttachOptions, list[dict[str, str]], cdp.targets),
    Route("POST", CDP + "/tickets", DRIVE, Options, TicketView, cdp.ticket),
    Route("GET", ONE + "/uploads", DRIVE, Options, UploadList, files.list_uploads),
    Route("POST", ONE + "/uploads", DRIVE, UploadOptions, UploadView, files.upload, JSON, Streamed.IN),
    Route("DELETE", ONE + "/uploads/{id}", DRIVE, Options, FileDeleted, files.delete_upload),
    Route("GET", ONE + "/downloads", DRIVE, Options, DownloadList, files.list_downloads),
    Route("GET", ONE + "/downloads/{id}", DRIVE, Options, bytes, files.download, OCTETS, Streamed.OUT),
    Route("DELETE", ONE + "/downloads/{id}", DRIVE, Options, FileDeleted, files.delete_download),
    Route("GET", ONE + "/settings", ADMIN, Options, SettingsView, settings.show),
    Route("PUT", ONE + "/settings", ADMIN, SettingsOptions, SettingsView, settings.put),
    Route("GET", ONE + "/values", DRIVE, Options, ValueList, values.list_values),
    Route("GET", VALUE, DRIVE, Options, bytes, values.get, ANY),
    Route("PUT", VALUE, DRIVE, ValueOptions, ValueView, values.put, JSON, Streamed.IN, ANY),
    Route("DELETE", VALUE, DRIVE, Options, ValueDeleted, values.delete),
    Route(
        "GET",
        EVENTS,
        READ,
        EventOptions,
        events.Views,
        events.follow,
        (sse.TYPE,),
        Streamed.EVENTS,
        clients=ALLOWED,
    ),
    Route("POST", EVENTS + "/tickets", READ, Options, TicketView, events.ticket, clients=ALLOWED),
    Route("GET", "/v1/openapi.json", READ, Options, dict[str, Any], contract.document, clients=ALLOWED),
    Route("GET", "/v1/stats", READ, StatsOptions, StatsView, stats.stats),
    Route("GET", "/v1/schedule", READ, Options, JobList, admin.schedule),
    Route("GET", TOKENS, ADMIN, Options, TokenList, tokens.list_tokens),
    Route("POST", TOKENS, ADMIN, TokenOptions, TokenMade, tokens.create),
    Route("POST", TOKENS + "/{id}/rotate", ADMIN, RotateOptions, TokenMade, tokens.rotate),
    Route("POST", TOKENS + "/{id}/revoke", ADMIN, Options, TokenView, tokens.revoke),
    Route("GET", WEBHOOKS, ADMIN, Options, WebhookList, webhooks.list_webhooks),
    Route("POST", WEBHOOKS, ADMIN, WebhookOptions, WebhookMade, webhooks.create),
    Route("PATCH", HOOK, ADMIN, WebhookChanges, WebhookView, webhooks.change),
    Route("DELETE", HOOK, ADMIN, Options, WebhookView, webhooks.delete),
    Route("POST", HOOK + "/rotate", ADMIN, SecretOptions, WebhookMade, webhooks.rotate),
    Route("POST", HOOK + "/test", ADMIN, Options, WebhookTried, webhooks.ping),
    Route("GET", HOOK + "/messages", ADMIN, MessageOptions, MessageList, webhooks.list_messages),
    Route("POST", HOOK + "/redrive", ADMIN, RedriveOptions, Redriven, webhooks.redrive),
    Route("POST", "/v1/reap", ADMIN, ReapOptions, Sweep, admin.reap),
    Route(
        "POST",
        OLD + "connect",
        CONNECT,
        AnyOptions,
        compat.Connected,
        compat.connect,
        compat.MEDIA,
        clients=OWN,
    ),
    Route(
        "POST",
        OLD + "force-cleanup",
        CLEANUP,
        AnyOptions,
        compat.Cleaned,
        compat.force_cleanup,
        compat.MEDIA,
        clients=OWN,
    ),
)
