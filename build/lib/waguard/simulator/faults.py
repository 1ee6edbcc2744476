"""What the simulator can be asked to do wrong."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

FAULTS = {
    "never_loads": "The page stays at its splash. From the next load.",
    "never_answers": (
        "HTTP and WebSocket are accepted and never answered. From the next load; open pages get no answer from now on."
    ),
    "spin": "An endless loop in the page. Open pages at once, others when they load.",
    "spin_once": "An endless loop, once: in the open pages, or else in the next that loads.",
    "spin_until_load": (
        "An endless loop that begins anew whenever something ends it, until the page is loaded again. "
        "Once: in the open pages, or else in the next that loads."
    ),
    "busy": (
        "Honest heavy work: again and again the page works for half a minute without a pause, then rests for some "
        "seconds. Open pages at once, others when they load."
    ),
    "memory_growth": (
        "The page takes 16 MiB more every second, until the fault is cleared. Open pages at once, others when they load."
    ),
    "memory_burst": (
        "The page takes memory as quickly as it can, up to so many MiB. Open pages at once, others when they load; until the "
        "page is loaded again. Once: in the open pages, or else in the next that loads."
    ),
    "storage_refused": ("There is no IndexedDB: a login is lost, and no QR code comes. From the next load."),
    "stale_qr": (
        "QR codes do not rotate: the page keeps showing one that no phone takes any more, without a reload button. "
        "From when the code on screen has expired, until the page is loaded again."
    ),
    "hostile_prototype": (
        "The page replaces what JavaScript and the document bring: whoever asks there for a text gets 400,000 lists, or 8 MB. "
        "Open pages at once, others when they load; until the page is loaded again."
    ),
    "popups": (
        "The page opens windows, as many as it can, until the fault is cleared. Open pages at once, others when they load."
    ),
    "elsewhere": (
        "The page goes to the same page at another origin: localhost for 127.0.0.1, and the other way round. Once: the open "
        "pages, or else the next that loads."
    ),
    "dialog": (
        "A dialog lies over the chats until it is clicked away: what is new (left alone it unlinks the device after five "
        "minutes; or its click does not land), a request to take over, an update, or one that nobody knows. Connected pages at "
        "once, others when they have synced."
    ),
    "passkey": (
        "A scan is not taken before a passkey was used, or confirmed on the phone: not as long as the fault lasts. From the "
        "next scan."
    ),
    "restricted": (
        "A dialog says that the account is restricted for a time, or has reached a limit of new chats; all else works. "
        "Connected pages at once, others when they have synced."
    ),
    "drop_socket": "The WebSocket is dropped, once: of the open pages, or else of the next that opens one.",
    "offline": "No WebSocket stays open: those of open pages are dropped, new ones refused.",
    "opening": (
        "The page's socket opens for ever, and what is on screen stays. Open pages at once, others when they load."
    ),
    "socket_state": (
        "The page says that its socket is in this state, and does nothing else about it. Open pages at once, others when "
        "they load."
    ),
    "syncing": (
        "The chats never come: the page goes on to sync them, and its bar stands still or moves. From the next login of a page."
    ),
    "answers": (
        "WhatsApp Web is not what is answered: HTTP 500, 429, 503 or 407, a captive portal's page, or nothing with HTTP 200. "
        "Once, for the next load; asked for again, for one load more."
    ),
    "blank": "The page goes to about:blank. Once: the open pages, or else the next that loads.",
    "reload": "The page loads itself again. Once: the open pages, or else the next that loads.",
    "strips_post_logout": (
        "After a logout the address does not keep post_logout: it loses it at_once when the page's script runs or when that has "
        "booted, it navigates elsewhere before anything else, or it was never_there. From the next load; never_there at once."
    ),
    "unpaired_with_marks": (
        "The page takes no notice of the login in its storage and shows a QR code: open pages at once, until_reload or "
        "until_restart (of the browser), or always, and then others too when they load. A scan ends it."
    ),
    "boot": "The page shows its splash, whose bar moves, for so many seconds before it boots. From the next load.",
}
"""Name -> what it does, and whether it applies to pages that are open already."""


@dataclass(frozen=True, slots=True)
class Values:
    """What a fault may be told, as text."""

    default: str
    known: str
    fits: Callable[[str], bool]


def one_of(default: str, *others: str) -> Values:
    words = (default, *others)
    return Values(default, ", ".join(words), lambda value: value in words)


def seconds(default: str, most: float) -> Values:
    return number(default, most, "seconds")


def number(default: str, most: float, unit: str) -> Values:
    def fits(value: str) -> bool:
        try:
            number = float(value)
        except ValueError:
            return False
        return math.isfinite(number) and 0 <= number <= most

    return Values(default, f"{unit}, 0 to {most:g}", fits)


VALUES: Mapping[str, Values] = {
    "boot": seconds("20", 3600),
    "dialog": one_of("whats_new", "whats_new_stuck", "use_here", "update", "unknown"),
    "passkey": one_of("required", "confirmation"),
    "restricted": one_of("timelock", "capping"),
    "memory_burst": number("3000", 16_384, "MiB"),
    "strips_post_logout": one_of("at_once", "booted", "navigates", "never_there"),
    "unpaired_with_marks": one_of("always", "until_reload", "until_restart"),
    "syncing": one_of("stuck", "moves"),
    "answers": one_of("500", "429", "503", "407", "portal", "empty"),
    "socket_state": one_of(
        "TIMEOUT",
        *("UNLAUNCHED", "OPENING", "PAIRING", "UNPAIRED", "UNPAIRED_IDLE", "CONNECTED", "CONFLICT"),
        *("PROXYBLOCK", "TOS_BLOCK", "SMB_TOS_BLOCK", "DEPRECATED_VERSION"),
    ),
}
"""The faults that take a value; each has a default."""

DROPPED_ONCE = frozenset({"drop_socket"})
ONCE = DROPPED_ONCE | {"spin_once", "spin_until_load", "blank", "reload", "memory_burst", "elsewhere"}
DROPS = DROPPED_ONCE | {"offline"}


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    browser: str | None = None
    """Only for the pages of this browser, which `Simulator` knows by a cookie; None: for all."""
    wid: str | None = None
    ref: str | None = None
    """What the caller named the browser by."""
    value: str | None = None

    def hits(self, browser: str) -> bool:
        return self.browser is None or self.browser == browser
