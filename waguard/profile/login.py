"""Where in a Chromium user data directory the login is, and what else has to come along for it to work."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from waguard.files import saying, walk

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
_MARK = b"last-wid-md"
"""The key under which WhatsApp Web keeps who is logged in; Chromium writes localStorage last, and late."""
CACHES = (
    "Default/Cache",
    "Default/Code Cache",
    "Default/GPUCache",
    "Default/DawnGraphiteCache",
    "Default/DawnWebGPUCache",
    "GraphiteDawnCache",
    "GrShaderCache",
    "ShaderCache",
)
"""What Chromium makes anew when it is gone, at the cost of a slower page; never where a site keeps what it stores."""


def origin_of(url: str) -> str:
    """The page's origin as Chromium names its files: ``https_web.whatsapp.com_0``."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}_{host}_{parts.port or 0}"


def databases(profile: Path, origin: str) -> list[Path]:
    """The LevelDB databases that a login of the page needs, those that are there: both of them."""
    both = [profile / name for name in database_names(origin)]
    return [database for database in both if database.is_dir() and _real(profile, database)]


def database_names(origin: str) -> tuple[str, str]:
    """Where they are, below the profile."""
    return f"{_INDEXED_DB}/{origin}.indexeddb.leveldb", _LOCAL_STORAGE


def database_files(profile: Path, origin: str) -> list[Path]:
    """Of those databases the files that hold something."""
    return [
        path
        for database in databases(profile, origin)
        for path in sorted(database.iterdir())
        if _holds_records(path.name)
    ]


def holds_login(profile: Path, origin: str) -> bool:
    """Whether there may be a login in it: both databases have been begun."""
    return len({path.parent for path in database_files(profile, origin)}) == 2


def marked(profile: Path, origin: str) -> bool:
    """Whether the login's mark can be seen on disk. It can be there unseen: tables are compressed."""
    store = profile / _LOCAL_STORAGE
    with saying(f"read {store}"):
        files = [path for path in database_files(profile, origin) if path.parent == store]
        return any(_MARK in _bytes_of(path) for path in files)


def unmarked(database: Path) -> bool:
    """Whether a database should have the login's mark and has not: Local Storage, as long as all of it is in its log."""
    files = [path for path in database.iterdir() if _holds_records(path.name)]
    if not database.match(_LOCAL_STORAGE) or any(path.suffix == ".ldb" for path in files):
        return False
    return not any(_MARK in path.read_bytes() for path in files)


def belongs(path: str, origin: str) -> bool:
    """Whether a file, named by its path below the profile, is of the login's part."""
    if path in _SMALL:
        return True
    parts = PurePosixPath(path).parts
    if "/".join(parts[:3]) == _LOCAL_STORAGE:
        return len(parts) == 4 and _holds_records(parts[3])
    if "/".join(parts[:2]) != _INDEXED_DB or len(parts) < 4:
        return False
    if parts[2] == f"{origin}.indexeddb.leveldb":
        return len(parts) == 4 and _holds_records(parts[3])
    return parts[2] == f"{origin}.indexeddb.blob" and _BLOB.fullmatch("/".join(parts[3:])) is not None


def candidate(path: str) -> bool:
    """Whether a file may be of the login's part, whichever page's it is."""
    return path in _SMALL or path.startswith((f"{_LOCAL_STORAGE}/", f"{_INDEXED_DB}/"))


def origins_in(path: str) -> set[str]:
    """The origin that a file of IndexedDB belongs to."""
    parts = PurePosixPath(path).parts
    if "/".join(parts[:2]) != _INDEXED_DB or len(parts) < 3 or not parts[2].endswith(".indexeddb.leveldb"):
        return set()
    return {parts[2].removesuffix(".indexeddb.leveldb")}


def immutable(path: str) -> bool:
    """Whether such a file never changes once it is complete: a table, or a blob."""
    return path.endswith(".ldb") or ".indexeddb.blob/" in path


def part(profile: Path, origin: str) -> Iterator[str]:
    """The files of the login's part, as paths below the profile. Links are not followed. Raises `OSError`."""
    for name in _SMALL:
        if _is_file(profile / name) and _real(profile, profile / name):
            yield name
    for top in (_LOCAL_STORAGE, _INDEXED_DB):
        if not _real(profile, profile / top):
            continue
        for directory, files in walk(profile / top):
            for file in sorted(files):
                name = str((directory / file).relative_to(profile))
                if belongs(name, origin) and _is_file(profile / name):
                    yield name


def _holds_records(name: str) -> bool:
    return _RECORDS.fullmatch(name) is not None


def _real(profile: Path, path: Path) -> bool:
    """Whether no link leads there: a hostile browser could make one, to what is another client's."""
    try:
        return path.resolve() == profile.resolve() / path.relative_to(profile)
    except RuntimeError:  # links that go round in a circle
        return False


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a running browser deletes what it no longer needs
        return b""


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
