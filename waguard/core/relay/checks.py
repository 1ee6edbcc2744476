"""What a rule of the relay's policy may look at besides the method: from where a command comes, and what its parameters say. Pure.

The docstring of a check is its cell in the printed table.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Params = Mapping[str, Any]


class Where(StrEnum):
    """What the DevTools session of the command is with."""

    BROWSER = "browser"
    PAGE = "page"
    OWN = "own"


PLACES: Mapping[Where, str] = {
    Where.BROWSER: "the browser itself",
    Where.PAGE: "the session's page, its frames and its workers",
    Where.OWN: "a page in a context that the client has made itself",
}
EVERYWHERE = frozenset(Where)
UPLOADS = "/uploads"
"""What clients call the folder of their uploads, wherever it is."""
WHATSAPP = "https://web.whatsapp.com"


@dataclass(frozen=True, slots=True)
class Seat:
    """From where a command comes."""

    where: Where
    owner: bool = False
    """Whether the page is this client's."""
    home: str = ""
    """The origin of the page."""
    contexts: Collection[str] = ()
    """Those that the client has made."""
    handles: Collection[str] = ()
    """Of streams that were opened for it."""
    uploads: Collection[str] = ()
    """Paths of what was uploaded for the session."""


Check = Callable[[Params, Seat], str]
"""Why a command with these parameters is refused all the same; empty if it is not."""


def goes(params: Params, seat: Seat) -> str:
    """In the page only its own origin, to which `https://web.whatsapp.com` leads too, and `about:blank`; elsewhere `http:`, `https:`, `data:` and
    `about:blank`.
    """
    return why_not_there(params.get("url"), seat)


def why_not_there(url: object, seat: Seat) -> str:
    if not isinstance(url, str):
        return ""  # the browser says what is wrong with it
    if url == "about:blank":
        return ""
    if seat.where is Where.OWN:
        return "" if re.match(r"https?://|data:", url, re.IGNORECASE) else "only http:, https: and data:"
    return "" if at_home(url, seat.home) else "it is not of the page's origin"


def led_home(method: str, params: dict[str, Any], seat: Seat) -> dict[str, Any]:
    """Bots go to WhatsApp's own address, whatever they are told: where the page has another, such as the simulator's, they get that."""
    url = params.get("url")
    if (
        method == "Page.navigate"
        and seat.where is Where.PAGE
        and isinstance(url, str)
        and at_home(url, WHATSAPP)
    ):
        return {**params, "url": seat.home + url[len(WHATSAPP) :]}
    return params


def at_home(url: str, home: str) -> bool:
    """Whether it is of that origin, by its first letters: nothing is parsed that the browser could read in another way."""
    start, rest = url[: len(home)], url[len(home) :]
    return start.lower() == home.lower() and (not rest or rest[0] in "/?#")


def _text(params: Params, name: str) -> str:
    """Empty if it is none: nothing is called so."""
    value = params.get(name)
    return value if isinstance(value, str) else ""


def in_own_context(params: Params, seat: Seat) -> str:
    """`browserContextId` names a context that the client has made."""
    return "" if _text(params, "browserContextId") in seat.contexts else "it is not of a context of its own"


def without_proxy(params: Params, _seat: Seat) -> str:
    """Without `proxyServer`, `proxyBypassList`, `originsWithUniversalNetworkAccess`."""
    reaching = {"proxyServer", "proxyBypassList", "originsWithUniversalNetworkAccess"} & params.keys()
    return f"{', '.join(sorted(reaching))} would reach past the fence" if reaching else ""


def in_no_others_context(params: Params, seat: Seat) -> str:
    """`browserContextId` is left out, or names a context that the client has made."""
    return in_own_context(params, seat) if "browserContextId" in params else ""


def as_stream(params: Params, _seat: Seat) -> str:
    """`transferMode` is `ReturnAsStream`; without `tracingBackend`, `perfettoConfig`."""
    if params.get("transferMode") != "ReturnAsStream" or {"tracingBackend", "perfettoConfig"} & params.keys():
        return "only with transferMode ReturnAsStream, and of what Chromium itself records"
    return ""


def own_handle(params: Params, seat: Seat) -> str:
    """`handle` came in an answer or an event of the client's."""
    return "" if _text(params, "handle") in seat.handles else "the stream is not this client's"


def checks_certificates(params: Params, _seat: Seat) -> str:
    """`ignore` is false."""
    return "TLS keeps the login" if params.get("ignore") is not False else ""


def of_the_page(params: Params, _seat: Seat) -> str:
    """Without `nativeVirtualKeyCode`, `isSystemKey`."""
    keys = {"nativeVirtualKeyCode", "isSystemKey"} & params.keys()
    return f"{', '.join(sorted(keys))} makes it a shortcut of the browser's" if keys else ""


def keeps_its_address(params: Params, seat: Seat) -> str:
    """In the page `url` is left out, or of its origin."""
    return why_not_there(params.get("url"), seat) if seat.where is Where.PAGE else ""


def drags_no_files(params: Params, _seat: Seat) -> str:
    """Without `files`, and each of `items` is `text/plain` or `text/html`: an address that is dropped is opened, a file's too."""
    data = params.get("data")
    if not isinstance(data, dict):
        return ""
    items = data.get("items") or []
    plain = isinstance(items, list) and all(
        isinstance(one, dict) and one.get("mimeType") in {"text/plain", "text/html"} for one in items
    )
    return "" if plain and not data.get("files") else "what is dropped may be a file of the host"


def uploaded(params: Params, seat: Seat) -> str:
    """Each of `files` is the path of an upload of this session, letter by letter."""
    files = params.get("files") or []
    if isinstance(files, list) and all(isinstance(one, str) and one in seat.uploads for one in files):
        return ""
    return "it names a file that is no upload of this session: see POST /v1/sessions/CODE/uploads"
