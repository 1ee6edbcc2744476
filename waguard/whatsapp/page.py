"""What WhatsApp Web says: from the raw signs that `probe.js` collects to a `Reading`. Pure.

The page may be hostile, changed, or half loaded: every sign is checked before it is used, several independent
ones (the app's modules, the document) lead to the same verdict, and what does not add up is `Link.UNKNOWN`.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from waguard.core.address import elsewhere
from waguard.core.model import PASSKEYS, Link, Reading, Reason

PROBE = files(__package__).joinpath("probe.js").read_text(encoding="utf-8")
"""The page's reader: an expression, which makes an object of functions."""


def part(probe: str, name: str, argument: object = None) -> str:
    """The expression that calls one of the reader's functions.

    A reader made before there were parts is an expression that is the signs themselves.
    """
    called = f"probe.{name}({json.dumps(argument)})"
    return f"(probe => typeof probe.{name} === 'function' ? {called} : probe)({probe.strip().rstrip(';')}\n)"


def together(signs: object, words: object) -> object:
    """What both looks have seen: in the document, and in the page's own world."""
    if not isinstance(signs, Mapping) or not isinstance(words, Mapping):
        return signs
    return {**signs, **{name: word for name, word in words.items() if word is not None}}


def pairing_code(answer: object) -> tuple[str, str]:
    """Of what the page has said to `probe.js`'s ``pairing``: the code, or else why there is none."""
    said = answer if isinstance(answer, Mapping) else {}
    code = _match(_CODE, said.get("code"))
    return code or "", "" if code else _match(_WORD, said.get("refused")) or "it does not say why"


@dataclass(frozen=True, slots=True)
class Missable:
    """What a client may have missed, and how it is known that it would have heard; see `probe.js`."""

    listens: str
    bindings: frozenset[str]


def missable(probe: str) -> Missable | None:
    """As the page's reader has it; None for one that does not."""
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        said = json.loads(_MISSABLE.search(probe)[1])  # type: ignore[index]
        if isinstance(said["listens"], str) and said["listens"]:
            return Missable(said["listens"], frozenset(map(str, said["bindings"])))
    return None


PAIRING_S = 160.0
"""A pairing code lives about so long."""
ERROR_PAGE = "error page"
"""The sign of a page that the browser shows itself, since it reached none."""

_MISSABLE = re.compile(r"^\s*missable: (\{.*\}),$", re.MULTILINE)
_MOST = 2.0**53
_HTTP_ERROR = 400
_QR = re.compile(r"[\x20-\x7e]{1,1024}")
_CODE = re.compile(r"[0-9A-Z]{8}")
_PLACE = re.compile(r"[\w.:/\[\]-]+", re.ASCII)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,20}:[\w./:-]{0,253}", re.ASCII)
_WORD = re.compile(r"[\w .:+-]{1,64}", re.ASCII)
_WID = re.compile(r"\d{1,20}(:\d{1,4})?@[a-z.]{1,16}", re.ASCII)
_LONGEST_NAME = 64

_REFUSED = {
    "DEPRECATED_VERSION": Reason.OUTDATED,
    "TOS_BLOCK": Reason.TERMS_BLOCKED,
    "SMB_TOS_BLOCK": Reason.TERMS_BLOCKED,
    "PROXYBLOCK": Reason.PROXY_BLOCKED,
}
_UNPAIRED = frozenset({"UNPAIRED", "UNPAIRED_IDLE"})
_OPENING = frozenset({"UNLAUNCHED", "OPENING", "PAIRING"})
_ON_THE_WAY = _OPENING | _UNPAIRED


def read(signs: object, *, logged_out: bool = False, home: str = "") -> Reading:
    """What the page says. Never raises; whatever is not of the expected form counts as not seen.

    ``logged_out``: its address was once one that `says_logged_out`. ``home``: the address of WhatsApp Web.
    """
    return _Signs.of(signs if isinstance(signs, Mapping) else {}, logged_out=logged_out, home=home).reading()


_KINDS = frozenset({"use_here", "whats_new", "update", "restricted", *(one.value for one in PASSKEYS)})
_PASSKEYS: Mapping[str | None, Reason] = {one.value: one for one in PASSKEYS}
_UNKNOWN = "unknown"


def _dialog(value: object) -> str | None:
    """Its kind, one of those that are known, or that it is none of them."""
    if value is None:
        return None
    return value if isinstance(value, str) and value in _KINDS else _UNKNOWN


def says_logged_out(address: str) -> bool:
    """Whether this is where a page goes that was logged out. It may leave it at once."""
    try:
        return "post_logout" in parse_qs(urlsplit(address).query, keep_blank_values=True)
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class _Signs:
    """The signs after the check: a word or code is None when it is absent or not one, a flag when it is unknown."""

    url: str
    logged_out: bool
    away: bool
    """The page is at another origin than WhatsApp Web's."""
    dialog: str | None
    version: str | None
    state: str | None
    stream: str | None
    mode: str | None
    qr: str | None
    storage_error: str | None
    app: bool | None
    splash: bool | None
    synced: bool | None
    reload: bool | None
    pairing: bool | None
    """It shows a code that is to be entered on the phone."""
    panes: bool | None
    progress: bool | None
    use_here: bool | None
    refused: bool | None
    logged_in: bool | None
    online: bool | None
    wid: str | None
    push_name: str | None
    ready: str | None
    error: str | None
    status: int | None
    """Of the document's HTTP answer."""
    bar: float | None
    resources: float | None

    @classmethod
    def of(cls, raw: Mapping[Any, Any], *, logged_out: bool, home: str) -> Self:
        def flag(name: str) -> bool | None:
            value = raw.get(name)
            return value if isinstance(value, bool) else None

        def number(name: str) -> float | None:
            value = raw.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                return None
            return float(value) if 0 <= value <= _MOST else None

        url = raw.get("url")
        url = url[:2048] if isinstance(url, str) else ""
        return cls(
            url=url,
            logged_out=logged_out or says_logged_out(url),
            away=bool(home) and elsewhere(url, home),
            dialog=_dialog(raw.get("dialog")),
            version=_match(_WORD, raw.get("version")),
            state=_match(_WORD, raw.get("state")),
            stream=_match(_WORD, raw.get("stream")),
            mode=_match(_WORD, raw.get("mode")),
            qr=_match(_QR, raw.get("qr")),
            storage_error=_match(_WORD, raw.get("storage_error")),
            app=flag("app"),
            splash=flag("splash"),
            synced=flag("synced"),
            reload=flag("reload"),
            pairing=flag("pairing"),
            panes=flag("panes"),
            progress=flag("progress"),
            use_here=flag("use_here"),
            refused=flag("refused"),
            logged_in=flag("logged_in"),
            online=flag("online"),
            wid=_match(_WID, _unquoted(raw.get("wid"))),
            push_name=_name(raw.get("push_name")),
            ready=_match(_WORD, raw.get("ready")),
            error=_match(_WORD, raw.get("error")),
            status=int(number("status") or 0) or None,
            bar=number("bar"),
            resources=number("resources"),
        )

    def reading(self) -> Reading:
        link, reason = self._link()
        exhausted = (
            link is Link.AWAITING_SCAN
            and reason not in PASSKEYS
            and (self.reload is True or self.state == "UNPAIRED_IDLE")
        )
        somebody = self.logged_in is True and link is not Link.AWAITING_SCAN
        return Reading(
            link,
            reason,
            # A code that is used up stays in the document, but no phone can scan it any more.
            qr=self.qr if link is Link.AWAITING_SCAN and not exhausted and reason not in PASSKEYS else None,
            marks=self.logged_in,
            qr_exhausted=exhausted,
            pairing=link is Link.AWAITING_SCAN and self.pairing is True,
            dialog=self.dialog if link is not Link.LOST else None,
            cut_off=self._cut_off(link),
            wrong=link is Link.UNKNOWN and self._wrong(),
            page_version=self.version,
            wid=self.wid if somebody else None,
            push_name=self.push_name if somebody else None,
            signs=self._seen(),
            progress=f"{self.ready} {self.bar} {self.resources}",
        )

    def _link(self) -> tuple[Link, Reason | None]:
        """First match wins: what ends the link for good comes before what only describes it."""
        paired = self._paired()
        if self.url.startswith("chrome-error:"):
            return Link.LOST, Reason.OFFLINE
        if self.away:
            return Link.LOST, Reason.ELSEWHERE
        if (refused := _REFUSED.get(self.state or "") or _REFUSED.get(self.mode or "")) is not None:
            return Link.LOST, refused
        if self._refused():
            return Link.LOST, Reason.REFUSED
        if self._conflict():
            return Link.LOST, Reason.CONFLICT
        if self.dialog in _PASSKEYS and not self.panes and self.state in {None, *_ON_THE_WAY}:
            return Link.AWAITING_SCAN, _PASSKEYS[self.dialog]
        if self._awaits_scan():
            return Link.AWAITING_SCAN, Reason.LOGGED_OUT if self.logged_out else None
        if self.logged_out and not paired:
            return Link.LOST, Reason.LOGGED_OUT
        if self.state == "TIMEOUT" or (paired and self._offline()):
            return Link.LOST, Reason.OFFLINE
        if (up := self._up()) is not None:
            return up, None
        if self.panes and self.state in _UNPAIRED:  # no page that boots: chats come after the link
            return Link.LOST, Reason.LOGGED_OUT if self.logged_out else Reason.UNPAIRED
        if self.splash or self.state in _ON_THE_WAY:
            return Link.LOADING, None
        return Link.UNKNOWN, None

    def _cut_off(self, link: Link) -> bool:
        """It has a login, and is on its way to WhatsApp."""
        if link is Link.SYNCING and self.panes:
            return self.state in _OPENING
        return link in {Link.SYNCING, Link.LOADING} and self.state == "OPENING" and self._paired()

    def _paired(self) -> bool:
        return bool(self.logged_in or self.panes or self.state in {"PAIRING", "CONNECTED"})

    def _wrong(self) -> bool:
        """A whole page, and none of WhatsApp's."""
        whole = self.ready in {"interactive", "complete"} and not self.url.startswith("chrome-error:")
        return whole and (self.app is False or (self.status or 0) >= _HTTP_ERROR)

    def _refused(self) -> bool:
        return self.refused is True and self.qr is None and self.state is None and not self.panes

    def _conflict(self) -> bool:
        if "CONFLICT" in {self.state, self.mode}:
            return True
        # Other dialogues have the same button, but they lie over chats or a QR code.
        usable = self.panes or self.qr is not None or self.state == "CONNECTED" or self.state in _UNPAIRED
        return self.use_here is True and not usable

    def _awaits_scan(self) -> bool:
        if self.qr is not None or self.pairing:
            return self.state is None or self.state in _UNPAIRED
        # A page that has a login would not say so while it boots.
        idle = self.logged_in is True and not self.panes and self.state in _UNPAIRED
        return idle or self.state == "UNPAIRED_IDLE"

    def _offline(self) -> bool:
        if self.mode == "OFFLINE":
            return True
        # Machines without a way out say so too, and reach what is on loopback: not enough alone.
        return self.online is False and self.state == "OPENING"

    def _up(self) -> Link | None:
        """Logged in: syncing, or connected. The socket's word counts, and the document's where it says nothing."""
        if self.state == "CONNECTED":
            return Link.CONNECTED if self.synced and self.stream != "SYNCING" else Link.SYNCING
        if self.state is None and self.panes:
            return Link.CONNECTED
        if self.state in _OPENING and self.panes:
            return Link.SYNCING
        if self.state is None and self.logged_in and self.progress:
            return Link.SYNCING
        return None

    def _seen(self) -> tuple[str, ...]:
        words = (
            *(("Socket.state", self.state), ("Socket.stream", self.stream), ("Stream.mode", self.mode)),
            ("dialog", self.dialog),
            ("at", _match(_PLACE, self.url.partition("?")[0][:100]) if self.away else None),
        )
        flags = (
            ("post_logout", self.logged_out),
            (ERROR_PAGE, self.url.startswith("chrome-error:")),
            (f"net::{self.error}", self.error is not None),
            (
                f"HTTP {self.status}",
                self.status is not None and (self.status >= _HTTP_ERROR or self._wrong()),
            ),
            (_place(self.url), self._wrong()),
            ("Socket.hasSynced", self.synced),
            ("data-ref", self.qr is not None),
            ("reload button", self.reload),
            ("data-link-code", self.pairing),
            ("panes", self.panes),
            ("progress", self.progress),
            ("Use Here", self.use_here),
            ("browser refused", self.refused),
            ("login marks", self.logged_in),
            ("splash", self.splash),
            ("app", self.app),
            ("navigator offline", self.online is False),
        )
        return (
            *(f"{name}={value}" for name, value in words if value is not None),
            *(name for name, value in flags if value),
            *((f"storage error: {self.storage_error}",) if self.storage_error is not None else ()),
        )


def _match(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _unquoted(value: object) -> object:
    """Texts in its storage are JSON."""
    return value[1:-1] if isinstance(value, str) and value[:1] == value[-1:] == '"' else value


def _name(value: object) -> str | None:
    """A name that its owner has chosen: whatever could move what is around it on a screen is left out."""
    if not isinstance(value, str):
        return None
    return "".join(one for one in value[:_LONGEST_NAME] if one.isprintable()).strip() or None


def masked(wid: str) -> str:
    """A number as logs may have it."""
    number = wid.partition("@")[0].partition(":")[0]
    return f"...{number[-3:]}" if len(number) > 6 else "..."


def _place(url: str) -> str:
    """Where that is, without what may be secret in it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "an address that is none"
    place = f"{parts.scheme}://{host}" if host else url[:64].partition("?")[0]
    return place if _ADDRESS.fullmatch(place) else "an address that is not told"
