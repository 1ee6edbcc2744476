"""Where in a Chromium user data directory the login is, and what else has to come along for it to work."""

import re
import stat
from collections.abc import Collection, Iterator, Mapping
from os import stat_result
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from waguard.profile import leveldb
from waguard.system.files import Below, NotPlain, as_storage_error, oddity

_SMALL = (
    "Local State",
    "Last Version",
    "Default/Preferences",
    "Default/Cookies",
    "Default/Cookies-journal",
    "Default/Network/Cookies",
    "Default/Network/Cookies-journal",
    "Default/WebStorage/QuotaManager",
    "Default/WebStorage/QuotaManager-journal",
)
_LOCAL_STORAGE = "Default/Local Storage/leveldb"
_INDEXED_DB = "Default/IndexedDB"
_RECORDS = re.compile(r"CURRENT|MANIFEST-[0-9]{6,20}|[0-9]{6,20}\.(log|ldb)")
"""The files of a LevelDB database that hold something."""
_BLOB = re.compile(r"[0-9a-f]{1,16}(/[0-9a-f]{1,16}){0,2}")
"""Database, the number's second byte, number: in hex, as Chromium names them."""
MARK = "last-wid-md"
"""The key under which WhatsApp Web keeps who is logged in; Chromium writes localStorage last, and late."""
_SEARCHED = 64 * 1024 * 1024
"""So many bytes are searched for the mark at most, the newest first."""
_MOST_SMALL = 64 * 1024 * 1024
_MOST_BLOB = 2 * 1024**3
_PIECE = 1024 * 1024
MOST_BYTES = 8 * 1024**3
"""Of a login's part altogether: what is sparse takes as much to read."""
MOST_FILES = 100_000
CACHES = (
    "Default/Cache",
    "Default/Code Cache",
    "Default/GPUCache",
    "Default/DawnGraphiteCache",
    "Default/DawnWebGPUCache",
    "GraphiteDawnCache",
    "GrShaderCache",
    "ShaderCache",
    ".config/chromium/Crash Reports",
    ".config/google-chrome/Crash Reports",
)
"""What Chromium makes anew when it is gone, at the cost of a slower page; never where a site keeps what it stores."""


def origin_of(url: str) -> str:
    """The page's origin as Chromium names its files: ``https_web.whatsapp.com_0``."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}_{host}_{parts.port or 0}"


def databases(profile: Path, origin: str) -> list[Below]:
    """The LevelDB databases that a login of the page needs, those that are there: both of them. Behind a link, which a
    hostile browser could make to what is another client's, is none.
    """
    return [place for name in database_names(origin) if (place := Below(profile, name)).is_directory()]


def database_names(origin: str) -> tuple[str, str]:
    """Where they are, below the profile."""
    return f"{_INDEXED_DB}/{origin}.indexeddb.leveldb", _LOCAL_STORAGE


def database_files(profile: Path, origin: str) -> Mapping[Below, stat_result]:
    """Of those databases the files that hold something. Raises `NotPlain` if they have more than is sane, `OSError`."""
    found = {
        database / name: status
        for database in databases(profile, origin)
        for name, status in sorted(database.contents().items())
        if holds_records(name)
    }
    if sum(status.st_size for status in found.values()) > MOST_BYTES:
        raise NotPlain(f"its databases have more than {MOST_BYTES} bytes", profile)
    return found


def holds_login(profile: Path, origin: str) -> bool:
    """Whether there may be a login in it: both databases have been begun."""
    return len({path.path.parent for path in database_files(profile, origin)}) == 2


def has_mark(profile: Path, origin: str) -> bool:
    """Whether the login's mark can be seen on disk. It can be there unseen: tables are compressed. Raises `StorageFailed`."""
    store = Below(profile, _LOCAL_STORAGE)
    with as_storage_error(f"read {store.path}"):
        try:
            return store.is_directory() and _has_mark(store, key_of(origin))
        except NotPlain:  # that is for the check to tell
            return False


def lacks_mark(database: Below, origin: str) -> bool:
    """Whether a database should have the login's mark and has not: Local Storage, as long as all of it is in its log."""
    if database.name != _LOCAL_STORAGE:
        return False
    try:
        tables = any(name.endswith(".ldb") for name in database.contents() if holds_records(name))
        return not tables and not _has_mark(database, key_of(origin))
    except NotPlain:  # nobody can tell
        return False


def address_of(origin: str) -> str:
    """The origin as people write it: ``https://web.whatsapp.com``."""
    scheme, _, rest = origin.partition("_")
    host, _, port = rest.rpartition("_")
    return f"{scheme}://{host}{'' if port == '0' else f':{port}'}"


def origins(profile: Path) -> Collection[str]:
    """Of the pages that have stored anything in it. Raises `OSError`."""
    place = Below(profile, _INDEXED_DB)
    names = place.contents() if place.is_directory() else ()
    ending = ".indexeddb.leveldb"
    return sorted(name.removesuffix(ending) for name in names if name.endswith(ending))


def key_of(origin: str, name: str = MARK) -> bytes:
    """A key, the mark's for one, as Chromium writes it: of all pages' in the one Local Storage, the one of this page."""
    return f"_{address_of(origin)}\0\1{name}".encode()


def _has_mark(database: Below, mark: bytes) -> bool:
    """Whether the newest file that mentions the mark does not say at last that it was deleted: a logout leaves both in the log."""
    deleted = b"\0" + leveldb.as_varint(len(mark)) + mark
    left = _SEARCHED
    for name in sorted(database.contents(), reverse=True):
        if holds_records(name) and left > 0:
            try:
                with (database / name).reading(leveldb.most_bytes(name)) as file:
                    there: bool | None = None
                    seen = b""
                    while left > 0 and (piece := file.read(_PIECE)):
                        text = seen + piece
                        at = text.rfind(mark)
                        if at >= 0 and at + len(mark) > len(seen):
                            there = not text[: at + len(mark)].endswith(deleted)
                        seen = piece[1 - len(deleted) :]
                        left -= len(piece)
            except FileNotFoundError:  # a running browser deletes what it no longer needs
                continue
            if there is not None:
                return there
    return False


def belongs(path: str, origin: str) -> bool:
    """Whether a file, named by its path below the profile, is of the login's part."""
    if path in _SMALL:
        return True
    parts = PurePosixPath(path).parts
    if "/".join(parts[:3]) == _LOCAL_STORAGE:
        return len(parts) == 4 and holds_records(parts[3])
    if "/".join(parts[:2]) != _INDEXED_DB or len(parts) < 4:
        return False
    if parts[2] == f"{origin}.indexeddb.leveldb":
        return len(parts) == 4 and holds_records(parts[3])
    return parts[2] == f"{origin}.indexeddb.blob" and _BLOB.fullmatch("/".join(parts[3:])) is not None


def candidate(path: str) -> bool:
    """Whether a file may be of the login's part, whichever page's it is."""
    return path in _SMALL or path.startswith((f"{_LOCAL_STORAGE}/", f"{_INDEXED_DB}/"))


def immutable(path: str) -> bool:
    """Whether such a file never changes once it is complete: a table, or a blob."""
    return path.endswith(".ldb") or ".indexeddb.blob/" in path


def part(profile: Path, origin: str) -> Iterator[str]:
    """The files of the login's part, as paths below the profile. Links are not followed. Raises `NotPlain`, `OSError`."""
    return (name for name, odd in _named(profile, origin) if not odd)


def oddities(profile: Path, origin: str) -> Iterator[tuple[str, str]]:
    """What has a name of the login's part and is no plain file of a sane size, and what it is. Raises like `part`."""
    return ((name, odd) for name, odd in _named(profile, origin) if odd)


def most_bytes(name: str) -> int:
    """The sane size of a file of the login's part."""
    if name in _SMALL:
        return _MOST_SMALL
    return _MOST_BLOB if ".indexeddb.blob/" in name else leveldb.most_bytes(PurePosixPath(name).name)


def _named(profile: Path, origin: str) -> Iterator[tuple[str, str]]:
    """Whatever has a name of the login's part, and what keeps it from being a plain file of a sane size."""
    count = size = 0
    for name, status in _there(profile, origin):
        if isinstance(status, str):
            yield name, status
            continue
        count, size = count + 1, size + status.st_size
        if count > MOST_FILES or size > MOST_BYTES:
            raise NotPlain(f"a login has more than {MOST_FILES} files or {MOST_BYTES} bytes", profile)
        yield name, oddity(status, most_bytes(name))


def _there(profile: Path, origin: str) -> Iterator[tuple[str, stat_result | str]]:
    """Each with what it is, or with why there is no way to it."""
    for name in _SMALL:
        try:
            if (status := Below(profile, name).status()) is not None:
                yield name, status
        except NotPlain as error:
            yield name, error.what
    for name, depth in ((_LOCAL_STORAGE, 1), (f"{_INDEXED_DB}/{origin}.indexeddb.leveldb", 1)):
        yield from _inside(Below(profile, name), origin, depth)
    yield from _inside(Below(profile, f"{_INDEXED_DB}/{origin}.indexeddb.blob"), origin, 3)


def _inside(directory: Below, origin: str, depth: int) -> Iterator[tuple[str, stat_result | str]]:
    try:
        there = directory.contents()
    except FileNotFoundError:
        return
    except NotPlain as error:
        yield directory.name, error.what
        return
    for name, status in sorted(there.items()):
        path = directory / name
        if stat.S_ISDIR(status.st_mode) and depth > 1:
            yield from _inside(path, origin, depth - 1)
        elif belongs(path.name, origin):
            yield path.name, status


def holds_records(name: str) -> bool:
    """Whether a database's file of this name does."""
    return _RECORDS.fullmatch(name) is not None
