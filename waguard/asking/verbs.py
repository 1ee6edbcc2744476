"""All that a daemon can be asked for about one session, each as the request that does so; the rest is in `daemon`. What its answers mean is told by `core.shown`.

A verb about a session takes its client code first. ``if_match``: it is done only if the session, or the value, still has this ETag; else
`PreconditionFailed`. ``told`` is called with each event on the way. ``timeout_s``: for how many seconds the daemon is to wait; None: as long as its
stages take.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Generic, Literal, TypeVar

from waguard.asking.ask import Answer, Ask, Told, parsed
from waguard.asking.parts import (
    DRY_RUN,
    JSON_BODY,
    OCTET_BODY,
    OCTETS,
    act,
    as_json,
    body,
    nothing,
    of,
    only_if,
    page,
    snapshot_tried,
    up,
    view,
)
from waguard.core.model import ClientCode, Wait
from waguard.core.shown import (
    CleanupView,
    DownloadList,
    FileDeleted,
    FindingList,
    HistoryList,
    PairingView,
    QrView,
    SessionView,
    SnapshotList,
    SnapshotView,
    TicketView,
    UndoTried,
    UndoView,
    UploadList,
    UploadView,
    ValueDeleted,
    ValueList,
    ValueView,
)
from waguard.core.shown_settings import SettingsView

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """Something as it was seen, for verbs that are to be carried out only if nobody has changed it since."""

    view: T
    etag: str


@dataclass(frozen=True, slots=True)
class Value:
    said: bytes
    type: str
    """Its Content-Type, as it came."""
    etag: str


def _seen(kind: type[T]) -> Callable[[Answer], Seen[T]]:
    return lambda answer: Seen(parsed(kind, answer), answer.headers.get("etag", ""))


# --- sessions -----------------------------------------------------------------------------------------------------


def show(code: ClientCode) -> Ask[SessionView]:
    """The session as it is now."""
    return Ask("GET", of(code), view(SessionView))


def look(code: ClientCode) -> Ask[Seen[SessionView]]:
    """The session as it is now, with its ETag."""
    return Ask("GET", of(code), _seen(SessionView))


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
    query = {"fresh": "true"} if fresh else {}
    return up(of(code, "connect"), wait, timeout_s, if_match, told, query, once=fresh)


def restart(
    code: ClientCode,
    *,
    wait: Wait = Wait.QR,
    timeout_s: float | None = None,
    if_match: str = "",
    told: Told = None,
) -> Ask[SessionView]:
    """Close the browser and start it again on the same profile."""
    return up(of(code, "restart"), wait, timeout_s, if_match, told)


def disconnect(code: ClientCode, *, if_match: str = "", told: Told = None) -> Ask[SessionView]:
    """Close the browser and keep the profile; answered when the browser is proved gone."""
    return act(of(code, "disconnect"), SessionView, if_match, told)


def cleanup(code: ClientCode, *, if_match: str = "", told: Told = None) -> Ask[CleanupView]:
    """End everything of this client and put its profile aside: it will have to scan again. ``ok`` and each step say how it went."""
    return act(of(code, "cleanup"), CleanupView, if_match, told, once=True)


def undo(
    code: ClientCode,
    *,
    wait: Wait = Wait.QR,
    timeout_s: float | None = None,
    if_match: str = "",
    told: Told = None,
) -> Ask[SessionView]:
    """Take back the last cleanup, fresh, restore or import, and connect with what that has put aside."""
    return up(of(code, "undo"), wait, timeout_s, if_match, told, once=True)


def check_undo(code: ClientCode) -> Ask[UndoView]:
    """What an undo would take back. Nothing is done."""
    return Ask("POST", of(code, "undo"), lambda answer: parsed(UndoTried, answer).undo, DRY_RUN, slow=True)


def qr(code: ClientCode) -> Ask[QrView]:
    """The QR code on the page now. Raises `NoQrCode` if there is none."""
    return Ask("GET", of(code, "qr"), view(QrView))


def qr_picture(
    code: ClientCode, media: Literal["image/svg+xml", "image/png", "text/plain"] = "image/svg+xml"
) -> Ask[bytes]:
    """It, drawn."""
    return Ask("GET", of(code, "qr"), body, headers={"Accept": media})


def pairing_code(code: ClientCode, phone: str, *, if_match: str = "") -> Ask[PairingView]:
    """A code by which the phone with this number, with its country code, links itself instead of scanning the QR code."""
    return act(of(code, "pairing-code"), PairingView, if_match, body={"phone": phone})


def screenshot(code: ClientCode) -> Ask[bytes]:
    """A picture of the page, PNG."""
    return Ask("GET", of(code, "screenshot"), body, slow=True)


def history(code: ClientCode, *, limit: int = 50, before: int | None = None) -> Ask[HistoryList]:
    """What has happened to the client, the newest first; ``before``: the id that the last page ended with."""
    return Ask("GET", of(code, "history"), view(HistoryList), page(limit, before))


def findings(code: ClientCode, *, limit: int = 50, before: int | None = None) -> Ask[FindingList]:
    """What was found wrong with the client, and what became of it, the newest first."""
    return Ask("GET", of(code, "findings"), view(FindingList), page(limit, before))


# --- snapshots ----------------------------------------------------------------------------------------------------


def snapshots(code: ClientCode) -> Ask[SnapshotList]:
    """The client's snapshots, the newest first."""
    return Ask("GET", of(code, "snapshots"), view(SnapshotList))


def snapshot(code: ClientCode, *, if_match: str = "") -> Ask[SnapshotView]:
    """Take a snapshot now."""
    return act(of(code, "snapshots"), SnapshotView, if_match)


def export(code: ClientCode, snapshot_id: str, into: IO[bytes], *, plain: bool = False) -> Ask[None]:
    """Write a snapshot into a file: sealed as it is, or ``plain``, the tar.zst that is in it. Each piece of it has the daemon's patience."""
    query = {"form": "plain" if plain else "sealed"}
    path = of(code, "snapshots", snapshot_id)
    return Ask("GET", path, nothing, query, {"Accept": "*/*"}, into=into, slow=True)


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
    path = of(code, "snapshots", snapshot_id, "restore")
    return up(path, wait, timeout_s, if_match, told, once=True)


def check_snapshot(code: ClientCode, snapshot_id: str = "newest") -> Ask[SnapshotView]:
    """Whether it could be restored. Nothing is done."""
    path = of(code, "snapshots", snapshot_id, "restore")
    return Ask("POST", path, snapshot_tried, DRY_RUN, slow=True)


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
    return up(of(code, "import"), wait, timeout_s, if_match, told, query, archive, once=True)


def try_import(code: ClientCode, archive: IO[bytes], *, login: str = "") -> Ask[SnapshotView]:
    """Whether the archive's login could be taken over. Nothing is done."""
    query = DRY_RUN | ({"login": login} if login else {})
    return Ask("POST", of(code, "import"), snapshot_tried, query, OCTET_BODY, archive, slow=True)


# --- the page and its files ---------------------------------------------------------------------------------------


def browser_version(code: ClientCode, *, takeover: bool = False) -> Ask[dict[str, str]]:
    """What a driver asks for; `webSocketDebuggerUrl` has a ticket in it."""
    query = {"takeover": "true"} if takeover else {}
    return Ask("GET", of(code, "cdp", "json", "version"), view(dict[str, str]), query)


def page_ticket(code: ClientCode) -> Ask[TicketView]:
    """A ticket for the session's WebSocket, in the place of a token: once, within a minute."""
    return act(of(code, "cdp", "tickets"), TicketView)


def uploads(code: ClientCode) -> Ask[UploadList]:
    """What was uploaded for the session's browser, the oldest first."""
    return Ask("GET", of(code, "uploads"), view(UploadList))


def upload(code: ClientCode, name: str, file: IO[bytes], *, if_match: str = "") -> Ask[UploadView]:
    """Store a file; what its page's `uploadFile` names is ``path``."""
    headers = {**OCTET_BODY, **only_if(if_match)}
    return Ask("POST", of(code, "uploads"), view(UploadView), {"name": name}, headers, file, slow=True)


def delete_upload(code: ClientCode, upload_id: str) -> Ask[FileDeleted]:
    """Delete it; a page that still has to read it reads no more."""
    return Ask("DELETE", of(code, "uploads", upload_id), view(FileDeleted))


def downloads(code: ClientCode) -> Ask[DownloadList]:
    """What the session's page has downloaded, the oldest first."""
    return Ask("GET", of(code, "downloads"), view(DownloadList))


def download(code: ClientCode, download_id: str, into: IO[bytes]) -> Ask[None]:
    """Write what is in one of them into a file."""
    path = of(code, "downloads", download_id)
    return Ask("GET", path, nothing, headers={"Accept": "*/*"}, into=into, slow=True)


def delete_download(code: ClientCode, download_id: str) -> Ask[FileDeleted]:
    """Delete it."""
    return Ask("DELETE", of(code, "downloads", download_id), view(FileDeleted))


# --- values -------------------------------------------------------------------------------------------------------


def values(code: ClientCode) -> Ask[ValueList]:
    """The values that apps keep with the session, without what they say."""
    return Ask("GET", of(code, "values"), view(ValueList))


def value(code: ClientCode, key: str) -> Ask[Value]:
    """One of them. Raises `NoSuchValue`."""

    def read(answer: Answer) -> Value:
        return Value(answer.body, answer.headers.get("content-type", ""), answer.headers.get("etag", ""))

    return Ask("GET", of(code, "values", key), read, headers={"Accept": "*/*"})


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
    headers = {"Content-Type": type, **only_if(if_match), **({"If-None-Match": "*"} if only_new else {})}
    query = {} if ttl_s is None else {"ttl_s": f"{ttl_s:g}"}
    return Ask("PUT", of(code, "values", key), view(ValueView), query, headers, said)


def delete_value(code: ClientCode, key: str, *, if_match: str = "") -> Ask[ValueDeleted]:
    """Delete it, for good."""
    return Ask("DELETE", of(code, "values", key), view(ValueDeleted), headers=only_if(if_match))


# --- settings -----------------------------------------------------------------------------------------------------


def settings(code: ClientCode) -> Ask[Seen[SettingsView]]:
    """The client's settings, and where each comes from, with their ETag."""
    return Ask("GET", of(code, "settings"), _seen(SettingsView))


def put_settings(
    code: ClientCode, wanted: Mapping[str, Any], *, restart: bool = False, if_match: str = ""
) -> Ask[SettingsView]:
    """Put these in the place of those that were put before; `needs_restart` names what the running browser has not. ``restart``: start it again, if so."""
    headers = {**JSON_BODY, **only_if(if_match)}
    body = as_json({**wanted, "restart": restart})
    return Ask("PUT", of(code, "settings"), view(SettingsView), headers=headers, body=body, slow=True)
