"""Whether a LevelDB database can be read as it was left, from its files alone: no lock taken, nothing written.

Formats: leveldb's doc/log_format.md, doc/table_format.md, doc/impl.md and db/version_edit.cc. What is looked at: CURRENT,
the MANIFEST it names, every log that is not in tables yet, and of each table that the MANIFEST names its size, its footer
and its index. Not the tables' data: for that there is the witness.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c

_BLOCK = 32_768
_HEADER = struct.Struct("<IHB")
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MANIFEST = re.compile(rb"MANIFEST-\d{6,}\n")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class Unreadable(Exception):
    """The database cannot be read as it was left; the message is the evidence."""


@dataclass(slots=True)
class Versions:
    """What a MANIFEST adds up to."""

    log_number: int | None = None
    next_file: int | None = None
    last_sequence: int | None = None
    tables: dict[int, int] = field(default_factory=dict)
    """Number -> size in bytes."""


def examine(directory: Path) -> Iterator[str]:
    """Doubts that cost nothing by themselves. Raises `Unreadable` for what does, `OSError`."""
    names = {path.name for path in directory.iterdir()}
    if "CURRENT" not in names:
        if any(name.endswith((".ldb", ".sst")) for name in names):
            raise Unreadable("CURRENT is missing, and without it the tables would be deleted")
        if names - {"LOCK", "LOG", "LOG.old"}:
            yield "CURRENT is missing; it is made anew from the log"
        return
    current = (directory / "CURRENT").read_bytes()
    if not _MANIFEST.fullmatch(current):
        raise Unreadable(f"CURRENT does not name a MANIFEST: {current[:40]!r}")
    manifest = current[:-1].decode()
    if manifest not in names:
        raise Unreadable(f"CURRENT names {manifest}, which is missing")
    state = read_manifest(directory / manifest)
    for number, size in state.tables.items():
        _examine_table(directory, names, number, size)
    yield from _examine_logs(directory, names, state)


def read_manifest(path: Path) -> Versions:
    """Raises `Unreadable`, `OSError`."""
    log = _read_log(path.read_bytes())
    if log.broken:
        raise Unreadable(f"{path.name}: {log.broken}")
    state = Versions()
    try:
        for record in log.records:
            _apply(state, record)
    except (IndexError, ValueError) as error:
        raise Unreadable(f"{path.name}: a record makes no sense ({error})") from None
    if None in (state.log_number, state.next_file, state.last_sequence):
        raise Unreadable(f"{path.name}: its beginning is missing")
    return state


def _apply(state: Versions, record: bytes) -> None:
    at = 0

    def number() -> int:
        nonlocal at
        value, at = _varint(record, at)
        return value

    def text() -> None:
        nonlocal at
        length = number()
        at += length
        if at > len(record):
            raise ValueError("it ends too soon")

    while at < len(record):
        match number():
            case 1:  # comparator
                text()
            case 2:
                state.log_number = number()
            case 3:
                state.next_file = number()
            case 4:
                state.last_sequence = number()
            case 5:  # where the next compaction of a level begins
                number()
                text()
            case 6:
                number()
                state.tables.pop(number(), None)
            case 7:
                number()
                table = number()
                state.tables[table] = number()
                text()
                text()
            case 9:  # the log before; not used since 2012
                number()
            case tag:
                raise ValueError(f"tag {tag}")


def _examine_table(directory: Path, names: set[str], number: int, size: int) -> None:
    name = next((name for name in (f"{number:06}.ldb", f"{number:06}.sst") if name in names), None)
    if name is None:
        raise Unreadable(f"table {number:06}.ldb is missing")
    with (directory / name).open("rb") as file:
        found = file.seek(0, 2)
        if found != size:
            raise Unreadable(f"{name} should have {size} bytes and has {found}")
        file.seek(max(0, size - _FOOTER))
        footer = file.read(_FOOTER)
        if len(footer) < _FOOTER or int.from_bytes(footer[-8:], "little") != _MAGIC:
            raise Unreadable(f"{name} does not end as a table does")
        try:
            _, at = _handle(footer, 0)
            (offset, length), _ = _handle(footer, at)
        except IndexError:
            raise Unreadable(f"{name} does not end as a table does") from None
        if offset + length + 5 > size - _FOOTER:
            raise Unreadable(f"{name}: its index lies outside")
        file.seek(offset)
        index = file.read(length + 5)
    if not _matches(int.from_bytes(index[-4:], "little"), index[:-4]):
        raise Unreadable(f"{name}: the checksum of its index is wrong")


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and length of a block; and where the next thing begins."""
    offset, at = _varint(data, at)
    length, at = _varint(data, at)
    return (offset, length), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte; and where the next thing begins. Raises `IndexError` when it ends too soon."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _examine_logs(directory: Path, names: set[str], state: Versions) -> Iterator[str]:
    needed = state.log_number or 0
    if f"{needed:06}.log" not in names and needed:
        yield f"{needed:06}.log, which is not in tables yet, is missing"
    read = 0
    for name in _logs(names, needed):
        log = _read_log((directory / name).read_bytes())
        read += len(log.records)
        if log.broken:
            raise Unreadable(f"{name}: {log.broken}")
        if log.torn and not log.records and not state.tables:
            raise Unreadable(f"{name}: nothing in it can be read")
        if log.torn:
            yield f"{name}: its last record was not written whole, as a kill leaves it"
    if not read and not state.tables:
        yield "it is empty"


def _logs(names: set[str], needed: int) -> list[str]:
    return sorted(name for name in names if re.fullmatch(r"\d{6,}\.log", name) and int(name[:-4]) >= needed)


def is_empty(directory: Path) -> bool:
    """Whether a database that can be read holds no record. Raises `Unreadable`, `OSError`."""
    if named_tables(directory):
        return False
    current = directory / "CURRENT"
    needed = 0
    if current.is_file():
        needed = read_manifest(directory / current.read_text(encoding="ascii").strip()).log_number or 0
    names = {path.name for path in directory.iterdir()}
    return not any(_read_log((directory / name).read_bytes()).records for name in _logs(names, needed))


def named_tables(directory: Path) -> frozenset[str]:
    """File names of the tables that the database consists of now. Raises `Unreadable`, `OSError`."""
    current = directory / "CURRENT"
    if not current.is_file():
        return frozenset()
    manifest = directory / current.read_text(encoding="ascii", errors="replace").strip()
    if not manifest.is_file():
        raise Unreadable(f"CURRENT names {manifest.name[:40]}, which is missing")
    return frozenset(f"{number:06}.ldb" for number in read_manifest(manifest).tables)


def made_anew(directory: Path, since: float) -> bool:
    """Whether LevelDB says that the database was not there when it was opened; ``since`` is unix time, seconds.

    ``LOG`` is what the last opening says, db_impl.cc. Raises `OSError`.
    """
    log = directory / "LOG"
    if not log.is_file() or log.stat().st_mtime < since:
        return False
    with log.open("rb") as file:
        return re.match(rb"\S+ \S+ Creating DB .+ since it was missing\.", file.readline(4096)) is not None


def torn_tails(directory: Path) -> Iterator[tuple[Path, int]]:
    """Each file whose last record is torn, and where its last whole one ends. Only of what `examine` can read.

    LevelDB skips a torn record, but Chromium has it go on with the same file: what is written behind the tear is then
    taken for damage at the next start, and IndexedDB is wiped.
    """
    current = directory / "CURRENT"
    if not current.is_file():
        return
    manifest = directory / current.read_text(encoding="ascii").strip()
    state = read_manifest(manifest)
    names = {path.name for path in directory.iterdir()}
    for path in (manifest, *(directory / name for name in _logs(names, state.log_number or 0))):
        log = _read_log(path.read_bytes())
        if log.torn and not log.broken:
            yield path, log.end


@dataclass(frozen=True, slots=True)
class _Log:
    records: list[bytes]
    end: int
    """Where the last whole record ends."""
    broken: str = ""
    """What is wrong, if anything."""
    torn: bool = False
    """After the last whole record comes what a kill or a power cut leaves: part of one, or zeros."""


def _read_log(data: bytes) -> _Log:
    records: list[bytes] = []
    parts: list[bytes] = []
    at = whole = 0
    while True:
        left = _BLOCK - at % _BLOCK
        if left < _HEADER.size:
            at += left
            continue
        if at + _HEADER.size > len(data):
            return _Log(records, whole, torn=at < len(data) or bool(parts))
        checksum, length, kind = _HEADER.unpack_from(data, at)
        end = at + _HEADER.size + length
        if end > len(data) and len(data) - at < left:
            return _Log(records, whole, torn=True)
        if length > left - _HEADER.size or not _WHOLE <= kind <= _LAST:
            if records and not any(data[at:]):
                return _Log(records, whole, torn=True)
            what = "zeros" if not checksum and not length else "no record"
            return _Log(records, whole, f"{what} at byte {at}")
        if not _matches(checksum, data[at + 6 : end]):
            return _Log(records, whole, f"the checksum at byte {at} is wrong")
        parts.append(data[at + _HEADER.size : end])
        if kind in {_WHOLE, _LAST}:
            records.append(b"".join(parts))
            parts = []
            whole = end
        at = end


def _matches(masked: int, data: bytes) -> bool:
    """Leveldb stores CRC-32C rotated and shifted (util/crc32c.h), so that a checksum of checksums is no trap."""
    crc = int(google_crc32c.value(data))
    return masked == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
