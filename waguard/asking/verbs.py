"""All that a daemon can be asked for, each as the request that does so. What its answers mean is told by `core.shown`.

A verb about a session takes its client code first. ``if_match``: it is done only if the session, or the value, still has this ETag; else
`PreconditionFailed`. ``told`` is called with each event on the way. ``timeout_s``: for how many seconds the daemon is to wait; None: as long as its
stages take.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

from waguard.asking import how
from waguard.asking.ask import EVENTS, Answer, Ask, Told, parsed
from waguard.core.model import ClientCode, Status, Wait
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
    SessionView,
    SnapshotList,
    SnapshotView,
    StatsView,
    Sweep,
    TicketView,
    TokenList,
    TokenMade,
    TokenView,
    UndoTried,
    UndoView,
    UploadList,
    UploadView,
    ValueDeleted,
    ValueList,
    ValueView,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A session as it was seen, for verbs that are to be carried out only if nobody has changed it since."""

    view: SessionView
    etag: str


@dataclass(frozen=True, slots=True)
class Value:
    said: bytes
    type: str
    """Its Content-Type, as it came."""
    etag: str


# --- sessions -----------------------------------------------------------------------------------------------------


def list_sessions(
    *, status: Collection[Status] = (), text: str = "", limit: int | None = None, cursor: str = ""
) -> Ask[AllSessions]:
    """The sessions that the token is for, in the order of their codes; ``next`` is the ``cursor`` of the page behind. ``sandbox`` is the admin's to know."""
    wanted = {"status": ",".join(status), "text": text, "limit": str(limit or ""), "cursor": cursor}
    query = {name: value for name, value in wanted.items() if value}
    return Ask("GET", "/v1/sessions", how.view(AllSessions), query)


def show(code: ClientCode) -> Ask[SessionView]:
    """The session as it is now."""
    return Ask("GET", how.path(code), how.view(SessionView))


def look(code: ClientCode) -> Ask[Seen]:
    """The session as it is now, with its ETag."""
    return Ask(
        "GET",
        how.path(code),
        lambda answer: Seen(parsed(SessionView, answer), answer.headers.get("etag", "")),
    )


def connect(
    code: ClientCode,
    *,
    wait: Wait = Wait.QR,
    fresh: bool = False,
    timeout_s: float | None = None,
    if_match: str = "",
    told: Told = None,
) -> Ask[SessionView]:
    """Have this client's browser up; answered as soon as it is as ``wait`` says. ``fresh``: with a new profile."""
    return how.up(
        how.path(code, "connect"), wait, timeout_s, if_match, told, {"fresh": "true"} if fresh else {}
    )


def restart(
    code: ClientCode,
    *,
    wait: Wait = Wait.QR,
    timeout_s: float | None = None,
    if_match: str = "",
    told: Told = None,
) -> Ask[SessionView]:
    """Close the browser and start it again on the same profile."""
    return how.up(how.path(code, "restart"), wait, timeout_s, if_match, told)


def disconnect(code: ClientCode, *, if_match: str = "", told: Told = None) -> Ask[SessionView]:
    """Close the browser and keep the profile; answered when the browser is proved gone."""
    return how.act(how.path(code, "disconnect"), SessionView, if_match, told)


def cleanup(code: ClientCode, *, if_match: str = "", told: Told = None) -> Ask[CleanupView]:
    """End everything of this client and put its profile aside: it will have to scan again. ``ok`` and each step say how it went."""
    return how.act(how.path(code, "cleanup"), CleanupView, if_match, told)


def undo(
    code: ClientCode,
    *,
    wait: Wait = Wait.QR,
    timeout_s: float | None = None,
    if_match: str = "",
    told: Told = None,
) -> Ask[SessionView]:
    """Take back the last cleanup, fresh, restore or import, and connect with what that has put aside."""
    return how.up(how.path(code, "undo"), wait, timeout_s, if_match, told)


def check_undo(code: ClientCode) -> Ask[UndoView]:
    """What an undo would take back. Nothing is done."""
    return Ask(
        "POST", how.path(code, "undo"), lambda answer: parsed(UndoTried, answer).undo, how.DRY_RUN, slow=True
    )


def qr(code: ClientCode) -> Ask[QrView]:
    """The QR code on the page now. Raises `NoQrCode` if there is none."""
    return Ask("GET", how.path(code, "qr"), how.view(QrView))


def qr_picture(
    code: ClientCode, media: Literal["image/svg+xml", "image/png", "text/plain"] = "image/svg+xml"
) -> Ask[bytes]:
    """It, drawn."""
    return Ask("GET", how.path(code, "qr"), how.body, headers={"Accept": media})


def pairing_code(code: ClientCode, phone: str, *, if_match: str = "") -> Ask[PairingView]:
    """A code by which the phone with this number, with its country code, links itself instead of scanning the QR code."""
    return how.act(how.path(code, "pairing-code"), PairingView, if_match, body={"phone": phone})


def screenshot(code: ClientCode) -> Ask[bytes]:
    """A picture of the page, PNG."""
    return Ask("GET", how.path(code, "screenshot"), how.body, slow=True)


def history(code: ClientCode, *, limit: int = 50, before: int | None = None) -> Ask[HistoryList]:
    """What has happened to the client, the newest first; ``before``: the id that the last page ended with."""
    return Ask("GET", how.path(code, "history"), how.view(HistoryList), how.page(limit, before))


def findings(code: ClientCode, *, limit: int = 50, before: int | None = None) -> Ask[FindingList]:
    """What was found wrong with the client, and what became of it, the newest first."""
    return Ask("GET", how.path(code, "findings"), how.view(FindingList), how.page(limit, before))


# --- snapshots ----------------------------------------------------------------------------------------------------


def snapshots(code: ClientCode) -> Ask[SnapshotList]:
    """The client's snapshots, the newest first."""
    return Ask("GET", how.path(code, "snapshots"), how.view(SnapshotList))


def snapshot(code: ClientCode, *, if_match: str = "") -> Ask[SnapshotView]:
    """Take a snapshot now."""
    return how.act(how.path(code, "snapshots"), SnapshotView, if_match)


def export(code: ClientCode, snapshot_id: str, into: IO[bytes], *, plain: bool = False) -> Ask[None]:
    """Write a snapshot into a file: sealed as it is, or ``plain``, the tar.zst that is in it. Each piece of it has the daemon's patience."""
    query = {"form": "plain" if plain else "sealed"}
    path = how.path(code, "snapshots", snapshot_id)
    return Ask("GET", path, how.nothing, query, {"Accept": "*/*"}, into=into, slow=True)


def restore(
    code: ClientCode,
    snapshot_id: str = "newest",
    *,
    wait: Wait = Wait.QR,
    timeout_s: float | None = None,
    if_match: str = "",
    told: Told = None,
) -> Ask[SessionView]:
    """Put a snapshot in the place of the client's profile, which is put aside, and connect with it."""
    return how.up(how.path(code, "snapshots", snapshot_id, "restore"), wait, timeout_s, if_match, told)


def check_snapshot(code: ClientCode, snapshot_id: str = "newest") -> Ask[SnapshotView]:
    """Whether it could be restored. Nothing is done."""
    path = how.path(code, "snapshots", snapshot_id, "restore")
    return Ask("POST", path, how.snapshot_tried, how.DRY_RUN, slow=True)


def bring(
    code: ClientCode,
    archive: IO[bytes],
    *,
    login: str = "",
    wait: Wait = Wait.QR,
    timeout_s: float | None = None,
    if_match: str = "",
    told: Told = None,
) -> Ask[SessionView]:
    """Make a snapshot of the login in an archive, and connect with it. ``login``: which one, if there are several."""
    query = {"login": login} if login else {}
    return how.up(how.path(code, "import"), wait, timeout_s, if_match, told, query, archive)


def try_import(code: ClientCode, archive: IO[bytes], *, login: str = "") -> Ask[SnapshotView]:
    """Whether the archive's login could be taken over. Nothing is done."""
    query = how.DRY_RUN | ({"login": login} if login else {})
    return Ask(
        "POST", how.path(code, "import"), how.snapshot_tried, query, how.OCTETS_BODY, archive, slow=True
    )


# --- the page and its files ---------------------------------------------------------------------------------------


def browser_version(code: ClientCode, *, takeover: bool = False) -> Ask[dict[str, str]]:
    """What a driver asks for; `webSocketDebuggerUrl` has a ticket in it."""
    query = {"takeover": "true"} if takeover else {}
    return Ask("GET", how.path(code, "cdp", "json", "version"), how.view(dict[str, str]), query)


def page_ticket(code: ClientCode) -> Ask[TicketView]:
    """A ticket for the session's WebSocket, in the place of a token: once, within a minute."""
    return how.act(how.path(code, "cdp", "tickets"), TicketView)


def uploads(code: ClientCode) -> Ask[UploadList]:
    """What was uploaded for the session's browser, the oldest first."""
    return Ask("GET", how.path(code, "uploads"), how.view(UploadList))


def upload(code: ClientCode, name: str, file: IO[bytes], *, if_match: str = "") -> Ask[UploadView]:
    """Store a file; what its page's `uploadFile` names is ``path``."""
    headers = {**how.OCTETS_BODY, **how.condition(if_match)}
    return Ask(
        "POST", how.path(code, "uploads"), how.view(UploadView), {"name": name}, headers, file, slow=True
    )


def delete_upload(code: ClientCode, upload_id: str) -> Ask[FileDeleted]:
    """Delete it; a page that still has to read it reads no more."""
    return Ask("DELETE", how.path(code, "uploads", upload_id), how.view(FileDeleted))


def downloads(code: ClientCode) -> Ask[DownloadList]:
    """What the session's page has downloaded, the oldest first."""
    return Ask("GET", how.path(code, "downloads"), how.view(DownloadList))


def download(code: ClientCode, download_id: str, into: IO[bytes]) -> Ask[None]:
    """Write what is in one of them into a file."""
    path = how.path(code, "downloads", download_id)
    return Ask("GET", path, how.nothing, headers={"Accept": "*/*"}, into=into, slow=True)


def delete_download(code: ClientCode, download_id: str) -> Ask[FileDeleted]:
    """Delete it."""
    return Ask("DELETE", how.path(code, "downloads", download_id), how.view(FileDeleted))


# --- values -------------------------------------------------------------------------------------------------------


def values(code: ClientCode) -> Ask[ValueList]:
    """The values that apps keep with the session, without what they say."""
    return Ask("GET", how.path(code, "values"), how.view(ValueList))


def value(code: ClientCode, key: str) -> Ask[Value]:
    """One of them. Raises `NoSuchValue`."""

    def read(answer: Answer) -> Value:
        return Value(answer.body, answer.headers.get("content-type", ""), answer.headers.get("etag", ""))

    return Ask("GET", how.path(code, "values", key), read, headers={"Accept": "*/*"})


def put_value(
    code: ClientCode,
    key: str,
    said: bytes,
    *,
    type: str = "application/octet-stream",  # noqa: A002 (as the view has it)
    ttl_s: float | None = None,
    if_match: str = "",
    only_new: bool = False,
) -> Ask[ValueView]:
    """Keep a value; it is on disk when this is answered. ``ttl_s``: after so many seconds it is gone by itself. ``only_new``: only if it is not there."""
    headers = {
        "Content-Type": type,
        **how.condition(if_match),
        **({"If-None-Match": "*"} if only_new else {}),
    }
    query = {} if ttl_s is None else {"ttl_s": f"{ttl_s:g}"}
    return Ask("PUT", how.path(code, "values", key), how.view(ValueView), query, headers, said)


def delete_value(code: ClientCode, key: str, *, if_match: str = "") -> Ask[ValueDeleted]:
    """Delete it, for good."""
    return Ask(
        "DELETE", how.path(code, "values", key), how.view(ValueDeleted), headers=how.condition(if_match)
    )


# --- the daemon ---------------------------------------------------------------------------------------------------


def events(*, after: str = "", clients: Collection[str] = (), kinds: Collection[str] = ()) -> Ask[None]:
    """The feed, from now on or from behind the event with the id ``after``."""
    wanted = {"after": after, "client": ",".join(clients), "kind": ",".join(kinds)}
    query = {name: value for name, value in wanted.items() if value}
    return Ask("GET", "/v1/events", how.nothing, query, {"Accept": EVENTS})


def events_ticket() -> Ask[TicketView]:
    """A ticket for the feed, for a page: once, within a minute."""
    return Ask("POST", "/v1/events/tickets", how.view(TicketView))


def alive() -> Ask[Alive]:
    """Whether the daemon turns."""
    return Ask("GET", "/livez", how.view(Alive))


def not_ready() -> Ask[Sequence[str]]:
    """Why no connect is taken now, by code; nothing: they are taken."""

    def read(answer: Answer) -> Sequence[str]:
        reasons: Sequence[str] = parsed(dict[str, Any], answer).get("reasons", ())
        return reasons

    return Ask("GET", "/readyz", read, good=frozenset({200, 503}))


def openapi() -> Ask[dict[str, Any]]:
    """The OpenAPI document."""
    return Ask("GET", "/v1/openapi.json", how.view(dict[str, Any]))


def stats(client: str | None = None, hours: float = 168.0) -> Ask[StatsView]:
    """What the last hours come to, of one client or of all."""
    query = {"hours": f"{hours:g}"} | ({"client": client} if client is not None else {})
    return Ask("GET", "/v1/stats", how.view(StatsView), query, slow=True)


def schedule() -> Ask[JobList]:
    """The jobs of the schedule: when each ran last, how that went, and when it runs next."""
    return Ask("GET", "/v1/schedule", how.view(JobList))


def reap(*, dry_run: bool = False) -> Ask[Sweep]:
    """Sweep now. ``dry_run``: only report what would be done."""
    return Ask("POST", "/v1/reap", how.view(Sweep), {"dry_run": str(dry_run).lower()}, slow=True)


def tokens() -> Ask[TokenList]:
    """The tokens that were made at run time, the newest first."""
    return Ask("GET", "/v1/tokens", how.view(TokenList))


def create_token(
    name: str,
    scopes: Sequence[str],
    clients: Sequence[str],
    expires_in_s: float | Literal["never"] = 90 * 86_400.0,
) -> Ask[TokenMade]:
    """Make a token. What its bearer shows is in this answer, and is kept nowhere."""
    told = {"name": name, "scopes": [*scopes], "clients": [*clients], "expires_in_s": expires_in_s}
    return Ask("POST", "/v1/tokens", how.view(TokenMade), headers=how.JSON_BODY, body=how.as_json(told))


def rotate_token(token: str, overlap_s: float = 3600.0) -> Ask[TokenMade]:
    """Give a token, by its id or name, another secret and a new term; the earlier one is good for ``overlap_s`` more."""
    path = f"/v1/tokens/{how.quoted(token)}/rotate"
    return Ask("POST", path, how.view(TokenMade), {"overlap_s": f"{overlap_s:g}"})


def revoke_token(token: str) -> Ask[TokenView]:
    """Take a token back, at once."""
    return Ask("POST", f"/v1/tokens/{how.quoted(token)}/revoke", how.view(TokenView))
