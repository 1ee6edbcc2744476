"""What the login's files were when their browser had ended: nobody may change them until the next one starts.

Kept beside the profile, where no browser can reach it, as ``.profiles/<generation>.json``. It is made void before a
browser starts and taken anew when that browser is proved gone; where the daemon died in between there is none, and
the structure of the files has to do.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
from pydantic import TypeAdapter, ValidationError

from waguard.files import saying, sync_directory, write_atomically
from waguard.profile.login import database_files, databases

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


_WITNESS = TypeAdapter(Witness)


def read(path: Path) -> Witness | None:
    """None if there is none, or none that can be understood: it proves nothing then."""
    try:
        return _WITNESS.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write(path: Path, witness: Witness) -> None:
    """Raises `DiskFull`, `ProfileFailed`."""
    write_atomically(path, _WITNESS.dump_json(witness) + b"\n")


def take(profile: Path, origin: str, before: Mapping[str, Mark]) -> Mapping[str, Mark]:
    """The marks of the login's files now, which are made to outlive a power cut: else they would bear false witness.

    A table never changes, so those of ``before`` are not read again. Raises `ProfileFailed`.
    """
    marks = {}
    with saying(f"read {profile}"):
        for database in databases(profile, origin):
            sync_directory(database)
        for path in database_files(profile, origin):
            name = str(path.relative_to(profile))
            known = before.get(name) if path.suffix == ".ldb" else None
            status = path.stat()
            same = known is not None and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns)
            marks[name] = known if known is not None and same else _mark(path, sync=True)
    return marks


def compare(profile: Path, marks: Mapping[str, Mark]) -> Iterator[tuple[str, str, bool]]:
    """Of each file that is not what it was: path, evidence, and whether it has only grown. Raises `OSError`."""
    left = _TABLES_READ
    for name, mark in sorted(marks.items(), reverse=True):
        path = profile / name
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            yield name, "it is gone since its browser ended", False
            continue
        if path.suffix == ".ldb":
            left -= size
        if size != mark.size:
            grown = size > mark.size and path.suffix != ".ldb" and _mark(path, mark.size) == mark
            yield name, f"it had {mark.size} bytes when its browser ended and has {size}", grown
        elif (left >= 0 or path.suffix != ".ldb") and _mark(path) != mark:
            yield name, "its content has changed since its browser ended", False


def _mark(path: Path, most: int = -1, *, sync: bool = False) -> Mark:
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        data = file.read(most)
        return Mark(len(data), int(google_crc32c.value(data)), os.fstat(file.fileno()).st_mtime_ns)
