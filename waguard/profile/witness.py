"""What the login's files were when their browser had ended: nobody may change them until the next one starts.

Kept beside the profile, where no browser can reach it, as ``.profiles/<generation>.json``. It is made void before a
browser starts and taken anew when that browser is proved gone; where the daemon died in between there is none, and
the structure of the files has to do.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from waguard.profile import leveldb
from waguard.profile.login_files import database_files, databases, most_bytes
from waguard.system.files import Below, as_storage_error, read_state, sync_directory, write_atomically

_TABLES_READ = 64 * 1024 * 1024
"""So many bytes of tables are read again before a launch, the newest first; of the others the size has to do."""


@dataclass(frozen=True, slots=True)
class Mark:
    size: int
    crc: int
    """CRC-32C of the whole file."""
    mtime_ns: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Witness:
    browser: str
    """Version of the browser that used the profile last."""
    files: Mapping[str, Mark] | None = None
    """Path below the profile -> its mark; none while a browser may be writing."""
    lost: str = ""
    """What is known to have been lost of the login, though the files are whole."""


_WITNESS = TypeAdapter(Witness)


def read(path: Path) -> Witness | None:
    """None if there is none, or none that can be understood: it proves nothing then."""
    try:
        return _WITNESS.validate_json(read_state(path))
    except (OSError, ValidationError):
        return None


def write(path: Path, witness: Witness) -> None:
    """Raises `DiskFull`, `StorageFailed`."""
    write_atomically(path, _WITNESS.dump_json(witness) + b"\n")


def take(profile: Path, origin: str, before: Mapping[str, Mark]) -> Mapping[str, Mark]:
    """The marks of the login's files now, which are made to outlive a power cut: else they would bear false witness.

    A table never changes, so those of ``before`` are not read again. Raises `StorageFailed`.
    """
    marks = {}
    with as_storage_error(f"read {profile}"):
        for database in databases(profile, origin):
            sync_directory(database.path)
        for file, status in database_files(profile, origin).items():
            known = before.get(file.name) if file.name.endswith(".ldb") else None
            same = known is not None and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns)
            marks[file.name] = known if known is not None and same else _mark(file, sync=True)
    return marks


def compare(profile: Path, marks: Mapping[str, Mark]) -> Iterator[tuple[str, str, bool]]:
    """Of each file that is not what it was: path, evidence, and whether it has only grown. Raises `NotPlain`, `OSError`."""
    left = _TABLES_READ
    for name, mark in sorted(marks.items(), reverse=True):
        file, table = Below(profile, name), name.endswith(".ldb")
        status = file.status()
        if status is None:
            yield name, "it is gone since its browser ended", False
            continue
        size = status.st_size
        if table:
            left -= size
        if size != mark.size:
            grown = size > mark.size and not table and _mark(file, mark.size) == mark
            yield name, f"it had {mark.size} bytes when its browser ended and has {size}", grown
        elif (left >= 0 or not table) and _mark(file) != mark:
            yield name, "its content has changed since its browser ended", False


def _mark(file: Below, size: int | None = None, *, sync: bool = False) -> Mark:
    """Of the file, or of its first so many bytes."""
    with file.reading(most_bytes(file.name)) as opened:
        if sync:
            os.fsync(opened.fileno())
        status = os.fstat(opened.fileno())
        size = status.st_size if size is None else min(size, status.st_size)
        return Mark(size, leveldb.checksum(opened, size), status.st_mtime_ns)
