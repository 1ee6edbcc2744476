"""All that a daemon can be asked for, each as the request that does so. What its answers mean is told by `core.shown`.

A verb about a session takes its client code first. ``if_match``: it is done only if the session, or the value, still has this ETag; else
`PreconditionFailed`. ``told`` is called with each event on the way. ``timeout_s``: for how many seconds the daemon is to wait; None: as long as its
stages take.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Any, Literal, TypeVar
from urllib.parse import quote

from waguard.asking.ask import EVENTS, JSON, Answer, Ask, parsed
from waguard.core.model import ClientCode, Status, Wait
from waguard.core.shown import (
    Alive,
    AllSessions,
    CleanupView,
    DownloadList,
    EventView,
    FileDeleted,
    FindingList,
    HistoryList,
    JobList,
    PairingView,
    QrView,
    SessionView,
    SettingsView,
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
    UndoView,
    UploadList,
    UploadView,
    ValueDeleted,
    ValueList,
    ValueView,
)

T = TypeVar("T")
Told = Callable[[EventView], None] | None
OCTETS = "application/octet-stream"


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
    *,
    status: Collection[Status] = (),
    labels: Collection[str] = (),
    text: str = "",
    limit: int | None = None,
    cursor: str = "",
) -> Ask[AllSessions]:
    """The sessions that the token is for, in the order of their codes; ``next`` is the ``cursor`` of the page behind. ``sandbox`` is the admin's to know."""
    wanted = {
        "status": ",".join(status),
        "label": ",".join(labels),
        "text": text,
        "limit": str(limit or ""),
        "cursor": cursor,
    }
    query = {name: value for name, value in wanted.items() if value}
    return Ask("GET", "/v1/sessions", _view(AllSessions), query)


def show(code: ClientCode) -> Ask[SessionView]:
    """The session as it is now."""
    return Ask("GET", _of(code), _view(SessionView))


def look(code: ClientCode) -> Ask[Seen]:
    """The session as it is now, with its ETag."""
    return Ask(
        "GET",
        _of(code),
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
    return _up(_of(code, "connect"), wait, timeout_s, if_match, told, {"fresh": "true"} if fresh else {})


def restart(
    code: ClientCode,
    *,
    wait: Wait = Wait.QR,
    timeout_s: float | None = None,
    if_match: str = "",
    told: Told = None,
) -> Ask[SessionView]:
    """Close the browser and start it again on the same profile."""
    return _up(_of(code, "restart"), wait, timeout_s, if_match, told)


def disconnect(code: ClientCode, *, if_match: str = "", told: Told = None) -> Ask[SessionView]:
    """Close the browser and keep the profile; answered when the browser is proved gone."""
    return _act(_of(code, "disconnect"), SessionView, if_match, told)


def cleanup(code: ClientCode, *, if_match: str = "", told: Told = None) -> Ask[CleanupView]:
    """End everything of this client and put its profile aside: it will have to scan again. ``ok`` and each step say how it went."""
    return _act(_of(code, "cleanup"), CleanupView, if_match, told)


def undo(
    code: ClientCode,
    *,
    wait: Wait = Wait.QR,
    timeout_s: float | None = None,
    if_match: str = "",
    told: Told = None,
) -> Ask[SessionView]:
    """Take back the last cleanup, fresh, restore or import, and connect with what that has put aside."""
    return _up(_of(code, "undo"), wait, timeout_s, if_match, told)


def check_undo(code: ClientCode) -> Ask[UndoView]:
    """What an undo would take back. Nothing is done."""
    return Ask("POST", _of(code, "undo"), lambda answer: parsed(UndoTried, answer).undo, _DRY_RUN, slow=True)


def qr(code: ClientCode) -> Ask[QrView]:
    """The QR code on the page now. Raises `NoQrCode` if there is none."""
    return Ask("GET", _of(code, "qr"), _view(QrView))


def qr_picture(
    code: ClientCode, media: Literal["image/svg+xml", "image/png", "text/plain"] = "image/svg+xml"
) -> Ask[bytes]:
    """It, drawn."""
    return Ask("GET", _of(code, "qr"), _bytes, headers={"Accept": media})


def pairing_code(code: ClientCode, phone: str, *, if_match: str = "") -> Ask[PairingView]:
    """A code by which the phone with this number, with its country code, links itself instead of scanning the QR code."""
    return _act(_of(code, "pairing-code"), PairingView, if_match, body={"phone": phone})


def screenshot(code: ClientCode) -> Ask[bytes]:
    """A picture of the page, PNG."""
    return Ask("GET", _of(code, "screenshot"), _bytes, slow=True)


def history(code: ClientCode, *, limit: int = 50, before: int | None = None) -> Ask[HistoryList]:
    """What has happened to the client, the newest first; ``before``: the id that the last page ended with."""
    return Ask("GET", _of(code, "history"), _view(HistoryList), _page(limit, before))


def findings(code: ClientCode, *, limit: int = 50, before: int | None = None) -> Ask[FindingList]:
    """What was found wrong with the client, and what became of it, the newest first."""
    return Ask("GET", _of(code, "findings"), _view(FindingList), _page(limit, before))


# --- snapshots ----------------------------------------------------------------------------------------------------


def snapshots(code: ClientCode) -> Ask[SnapshotList]:
    """The client's snapshots, the newest first."""
    return Ask("GET", _of(code, "snapshots"), _view(SnapshotList))


def snapshot(code: ClientCode, *, if_match: str = "") -> Ask[SnapshotView]:
    """Take a snapshot now."""
    return _act(_of(code, "snapshots"), SnapshotView, if_match)


def export(code: ClientCode, snapshot_id: str, into: IO[bytes], *, plain: bool = False) -> Ask[None]:
    """Write a snapshot into a file: sealed as it is, or ``plain``, the tar.zst that is in it. Each piece of it has the daemon's patience."""
    query = {"form": "plain" if plain else "sealed"}
    path = _of(code, "snapshots", snapshot_id)
    return Ask("GET", path, _nothing, query, {"Accept": "*/*"}, into=into, slow=True)


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
    return _up(_of(code, "snapshots", snapshot_id, "restore"), wait, timeout_s, if_match, told)


def check_snapshot(code: ClientCode, snapshot_id: str = "newest") -> Ask[SnapshotView]:
    """Whether it could be restored. Nothing is done."""
    path = _of(code, "snapshots", snapshot_id, "restore")
    return Ask("POST", path, _snapshot_tried, _DRY_RUN, slow=True)


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
    return _up(_of(code, "import"), wait, timeout_s, if_match, told, query, archive)


def try_import(code: ClientCode, archive: IO[bytes], *, login: str = "") -> Ask[SnapshotView]:
    """Whether the archive's login could be taken over. Nothing is done."""
    query = _DRY_RUN | ({"login": login} if login else {})
    return Ask("POST", _of(code, "import"), _snapshot_tried, query, _OCTETS, archive, slow=True)


# --- the page and its files ---------------------------------------------------------------------------------------


def browser_version(code: ClientCode, *, takeover: bool = False) -> Ask[dict[str, str]]:
    """What a driver asks for; `webSocketDebuggerUrl` has a ticket in it."""
    query = {"takeover": "true"} if takeover else {}
    return Ask("GET", _of(code, "cdp", "json", "version"), _view(dict[str, str]), query)


def page_ticket(code: ClientCode) -> Ask[TicketView]:
    """A ticket for the session's WebSocket, in the place of a token: once, within a minute."""
    return _act(_of(code, "cdp", "tickets"), TicketView)


def uploads(code: ClientCode) -> Ask[UploadList]:
    """What was uploaded for the session's browser, the oldest first."""
    return Ask("GET", _of(code, "uploads"), _view(UploadList))


def upload(code: ClientCode, name: str, file: IO[bytes], *, if_match: str = "") -> Ask[UploadView]:
    """Store a file; what its page's `uploadFile` names is ``path``."""
    headers = {**_OCTETS, **_if(if_match)}
    return Ask("POST", _of(code, "uploads"), _view(UploadView), {"name": name}, headers, file, slow=True)


def delete_upload(code: ClientCode, upload_id: str) -> Ask[FileDeleted]:
    """Delete it; a page that still has to read it reads no more."""
    return Ask("DELETE", _of(code, "uploads", upload_id), _view(FileDeleted))


def downloads(code: ClientCode) -> Ask[DownloadList]:
    """What the session's page has downloaded, the oldest first."""
    return Ask("GET", _of(code, "downloads"), _view(DownloadList))


def download(code: ClientCode, download_id: str, into: IO[bytes]) -> Ask[None]:
    """Write what is in one of them into a file."""
    path = _of(code, "downloads", download_id)
    return Ask("GET", path, _nothing, headers={"Accept": "*/*"}, into=into, slow=True)


def delete_download(code: ClientCode, download_id: str) -> Ask[FileDeleted]:
    """Delete it."""
    return Ask("DELETE", _of(code, "downloads", download_id), _view(FileDeleted))


# --- values -------------------------------------------------------------------------------------------------------


def values(code: ClientCode) -> Ask[ValueList]:
    """The values that apps keep with the session, without what they say."""
    return Ask("GET", _of(code, "values"), _view(ValueList))


def value(code: ClientCode, key: str) -> Ask[Value]:
    """One of them. Raises `NoSuchValue`."""

    def read(answer: Answer) -> Value:
        return Value(answer.body, answer.headers.get("content-type", ""), answer.headers.get("etag", ""))

    return Ask("GET", _of(code, "values", key), read, headers={"Accept": "*/*"})


def put_value(
    code: ClientCode,
    key: str,
    said: bytes,
    *,
    type: str = OCTETS,  # noqa: A002 (as the view has it)
    ttl_s: float | None = None,
    if_match: str = "",
    only_new: bool = False,
) -> Ask[ValueView]:
    """Keep a value; it is on disk when this is answered. ``ttl_s``: after so many seconds it is gone by itself. ``only_new``: only if it is not there."""
    headers = {"Content-Type": type, **_if(if_match), **({"If-None-Match": "*"} if only_new else {})}
    query = {} if ttl_s is None else {"ttl_s": f"{ttl_s:g}"}
    return Ask("PUT", _of(code, "values", key), _view(ValueView), query, headers, said)


def delete_value(code: ClientCode, key: str, *, if_match: str = "") -> Ask[ValueDeleted]:
    """Delete it, for good."""
    return Ask("DELETE", _of(code, "values", key), _view(ValueDeleted), headers=_if(if_match))


# --- settings -----------------------------------------------------------------------------------------------------


def settings(code: ClientCode) -> Ask[SettingsView]:
    """The client's settings, and where each comes from."""
    return Ask("GET", _of(code, "settings"), _view(SettingsView))


def put_settings(
    code: ClientCode, wanted: Mapping[str, Any], *, restart: bool = False, if_match: str = ""
) -> Ask[SettingsView]:
    """Put these in the place of those that were put before; `needs_restart` names what the running browser has not. ``restart``: start it again, if so."""
    headers = {**_JSON, **_if(if_match)}
    body = _json({**wanted, "restart": restart})
    return Ask("PUT", _of(code, "settings"), _view(SettingsView), headers=headers, body=body, slow=True)


# --- the daemon ---------------------------------------------------------------------------------------------------


def events(
    *,
    after: str = "",
    clients: Collection[str] = (),
    labels: Collection[str] = (),
    kinds: Collection[str] = (),
) -> Ask[None]:
    """The feed, from now on or from behind the event with the id ``after``."""
    wanted = {"after": after, "client": ",".join(clients), "label": ",".join(labels), "kind": ",".join(kinds)}
    query = {name: value for name, value in wanted.items() if value}
    return Ask("GET", "/v1/events", _nothing, query, {"Accept": EVENTS})


def events_ticket() -> Ask[TicketView]:
    """A ticket for the feed, for a page: once, within a minute."""
    return Ask("POST", "/v1/events/tickets", _view(TicketView))


def alive() -> Ask[Alive]:
    """Whether the daemon turns."""
    return Ask("GET", "/livez", _view(Alive))


def not_ready() -> Ask[Sequence[str]]:
    """Why no connect is taken now, by code; nothing: they are taken."""

    def read(answer: Answer) -> Sequence[str]:
        reasons: Sequence[str] = parsed(dict[str, Any], answer).get("reasons", ())
        return reasons

    return Ask("GET", "/readyz", read, good=frozenset({200, 503}))


def openapi() -> Ask[dict[str, Any]]:
    """The OpenAPI document."""
    return Ask("GET", "/v1/openapi.json", _view(dict[str, Any]))


def stats(client: str | None = None, hours: float = 168.0) -> Ask[StatsView]:
    """What the last hours come to, of one client or of all."""
    query = {"hours": f"{hours:g}"} | ({"client": client} if client is not None else {})
    return Ask("GET", "/v1/stats", _view(StatsView), query, slow=True)


def schedule() -> Ask[JobList]:
    """The jobs of the schedule: when each ran last, how that went, and when it runs next."""
    return Ask("GET", "/v1/schedule", _view(JobList))


def reap(*, dry_run: bool = False) -> Ask[Sweep]:
    """Sweep now. ``dry_run``: only report what would be done."""
    return Ask("POST", "/v1/reap", _view(Sweep), {"dry_run": str(dry_run).lower()}, slow=True)


def tokens() -> Ask[TokenList]:
    """The tokens that were made at run time, the newest first."""
    return Ask("GET", "/v1/tokens", _view(TokenList))


def create_token(
    name: str,
    scopes: Sequence[str],
    clients: Sequence[str],
    expires_in_s: float | Literal["never"] = 90 * 86_400.0,
    labels: Sequence[str] = (),
) -> Ask[TokenMade]:
    """Make a token, for these clients and all that have one of these labels. What its bearer shows is in this answer, and is kept nowhere."""
    whose = {"clients": [*clients], "labels": [*labels]}
    told = {"name": name, "scopes": [*scopes], **whose, "expires_in_s": expires_in_s}
    return Ask("POST", "/v1/tokens", _view(TokenMade), headers=_JSON, body=_json(told))


def rotate_token(token: str, overlap_s: float = 3600.0) -> Ask[TokenMade]:
    """Give a token, by its id or name, another secret and a new term; the earlier one is good for ``overlap_s`` more."""
    path = f"/v1/tokens/{_quoted(token)}/rotate"
    return Ask("POST", path, _view(TokenMade), {"overlap_s": f"{overlap_s:g}"})


def revoke_token(token: str) -> Ask[TokenView]:
    """Take a token back, at once."""
    return Ask("POST", f"/v1/tokens/{_quoted(token)}/revoke", _view(TokenView))


# --- how ----------------------------------------------------------------------------------------------------------

_DRY_RUN = {"dry_run": "true"}
_JSON, _OCTETS = {"Content-Type": JSON}, {"Content-Type": OCTETS}


def _view(kind: type[T]) -> Callable[[Answer], T]:
    return lambda answer: parsed(kind, answer)


def _snapshot_tried(answer: Answer) -> SnapshotView:
    return parsed(SnapshotTried, answer).snapshot


def _bytes(answer: Answer) -> bytes:
    return answer.body


def _nothing(_: Answer) -> None:
    return None


def _json(told: object) -> bytes:
    return json.dumps(told).encode()


def _of(code: ClientCode, *parts: str) -> str:
    return "/".join(["/v1/sessions", code, *map(_quoted, parts)])


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _page(limit: int, before: int | None) -> Mapping[str, str]:
    return {"limit": str(limit)} | ({} if before is None else {"before": str(before)})


def _if(match: str) -> Mapping[str, str]:
    return {"If-Match": match} if match else {}


def _act(path: str, kind: type[T], if_match: str = "", told: Told = None, body: object = None) -> Ask[T]:
    """What the daemon may take its time for."""
    headers = {**_if(if_match), **(_JSON if body is not None else {})}
    sent = None if body is None else _json(body)
    return Ask("POST", path, _view(kind), headers=headers, body=sent, slow=True, told=told)


def _up(
    path: str,
    wait: Wait,
    timeout_s: float | None,
    if_match: str,
    told: Told,
    query: Mapping[str, str] = MappingProxyType({}),
    archive: IO[bytes] | None = None,
) -> Ask[SessionView]:
    query = {**query, "wait": wait.value}
    if timeout_s is not None:
        query["timeout_s"] = f"{timeout_s:g}"
    headers = {**_if(if_match), **(_OCTETS if archive is not None else {})}
    return Ask(
        "POST",
        path,
        _view(SessionView),
        query,
        headers,
        archive,
        slow=True,
        timeout_s=timeout_s or 0.0,
        told=told,
    )
