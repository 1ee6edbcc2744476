"""Whose login is in a profile: what tells two copies of one login from two logins.

The page keeps number and device under ``last-wid-md``, and the device's key, encrypted, under ``WANoiseInfo``. Either alone is enough
to know a login again. A number without a device is not: one may have several linked devices, each a login of its own.
"""

import hashlib
import hmac
import json
from collections.abc import Collection
from pathlib import Path

from waguard.profile import login_files, values
from waguard.profile.leveldb import Unreadable
from waguard.system.files import Below

_KEY = "WANoiseInfo"
_MOST_CHARACTERS = 64


def read(profile: Path, origin: str) -> frozenset[str] | None:
    """What names its login, nothing if there is none; None if it cannot be told. Never to be logged: it has the number."""
    store = Below(profile, login_files.database_names(origin)[1])
    keys = {login_files.key_of(origin, name): name for name in (login_files.MARK, _KEY)}
    try:
        if not store.is_directory():
            return frozenset()
        found = {keys[key]: value for key, value in values.read(store, keys).items()}
    except (Unreadable, OSError):
        return None
    wid = number(found.get(login_files.MARK, b""))
    names = {f"wid {wid}"} if ":" in wid else set()
    if key := found.get(_KEY):
        names.add(f"key {hashlib.sha256(key).hexdigest()}")
    return frozenset(names)


def number(value: bytes) -> str:
    """Number and device, as Local Storage has them: a byte for the encoding, then the page's JSON."""
    try:
        text = value[1:].decode("latin-1" if value[:1] == b"\1" else "utf-16-le")
        wid = json.loads(text)
    except ValueError:
        return ""
    return wid if isinstance(wid, str) and len(wid) <= _MOST_CHARACTERS else ""


def sealed(names: Collection[str], secret: bytes) -> list[str]:
    """The same for a header that anybody may read: without the key no number can be tried."""
    return sorted(
        hmac.digest(secret, b"waguard login\0" + name.encode("utf-8", "backslashreplace"), "sha256").hex()[
            :32
        ]
        for name in names
    )
