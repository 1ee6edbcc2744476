"""Whether a LevelDB database can be read as it was left, from its files alone: no lock taken, nothing written.

Formats: leveldb's doc/log_format.md, doc/table_format.md, doc/impl.md and db/version_edit.cc. What is looked at: CURRENT,
the MANIFEST it names, every log that is not in tables yet, and of each table that the MANIFEST names its size, its footer
and its index. Not the tables' data: for that there is the witness.
"""

import re
import struct
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import google_crc32c

from waguard.system.files import Below

_BLOCK = 32_768
_HEADER = struct.Struct("<IHB")
_MAGIC = 0xDB4775248B80FB57
FOOTER = 48
_MANIFEST = re.compile(rb"MANIFEST-\d{6,}\n")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_PIECE = 1024 * 1024
_MOST_TABLES = 20_000
_MOST_CURRENT = 64
_MOST_MANIFEST = 16 * 1024 * 1024
_MOST_LOG = 64 * 1024 * 1024
"""A log is begun anew when 4 MiB have been written to it, db_impl.cc, or whatever one batch had more."""
_MOST_TABLE = 256 * 1024 * 1024
"""A table is ended at 2 MiB, or behind the one value that had more."""


def most_bytes(name: str) -> int:
    """The sane size of a database's file of this name."""
    if name.endswith((".ldb", ".sst")):
        return _MOST_TABLE
    if name.endswith(".log"):
        return _MOST_LOG
    return _MOST_MANIFEST if name.startswith("MANIFEST") else _MOST_CURRENT


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


def examine(directory: Below, *, strict: bool) -> Iterator[str]:
    """Doubts that cost nothing by themselves. Raises `Unreadable` for what does, `NotPlain`, `OSError`.

    ``strict``: whoever opens it has LevelDB's ``paranoid_checks``, as IndexedDB and not Local Storage: then a record in a log that
    is not whole costs the database, and else itself alone.
    """
    names = directory.contents().keys()
    if "CURRENT" not in names:
        if any(name.endswith((".ldb", ".sst")) for name in names):
            raise Unreadable("CURRENT is missing, and without it the tables would be deleted")
        if names - {"LOCK", "LOG", "LOG.old"}:
            yield "CURRENT is missing; it is made anew from the log"
        return
    current = (directory / "CURRENT").data(_MOST_CURRENT)
    if not _MANIFEST.fullmatch(current):
        raise Unreadable(f"CURRENT does not name a MANIFEST: {current[:40]!r}")
    manifest = current[:-1].decode()
    if manifest not in names:
        raise Unreadable(f"CURRENT names {manifest}, which is missing")
    state = read_manifest(directory / manifest)
    for number, size in state.tables.items():
        _examine_table(directory, names, number, size)
    yield from _examine_logs(directory, names, state, strict=strict)


def read_manifest(path: Below) -> Versions:
    """Raises `Unreadable`, `NotPlain`, `OSError`."""
    name = path.path.name
    state = Versions()
    try:
        log = _read_log(path, _MOST_MANIFEST, lambda record: _apply(state, record))
    except (IndexError, ValueError) as error:
        raise Unreadable(f"{name}: a record makes no sense ({error})") from None
    if what := log.broken or log.gap:
        raise Unreadable(f"{name}: {what}")
    if None in (state.log_number, state.next_file, state.last_sequence):
        raise Unreadable(f"{name}: its beginning is missing")
    return state


def _apply(state: Versions, record: bytes) -> None:
    at = 0

    def number() -> int:
        nonlocal at
        value, at = varint(record, at)
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
                if len(state.tables) > _MOST_TABLES:
                    raise ValueError(f"more than {_MOST_TABLES} tables")
                text()
                text()
            case 9:  # the log before; not used since 2012
                number()
            case tag:
                raise ValueError(f"tag {tag}")


def _examine_table(directory: Below, names: Collection[str], number: int, size: int) -> None:
    name = next((name for name in (f"{number:06}.ldb", f"{number:06}.sst") if name in names), None)
    if name is None:
        raise Unreadable(f"table {number:06}.ldb is missing")
    with (directory / name).reading(_MOST_TABLE) as file:
        found = file.seek(0, 2)
        if found != size:
            raise Unreadable(f"{name} should have {size} bytes and has {found}")
        file.seek(max(0, size - FOOTER))
        footer = file.read(FOOTER)
        if len(footer) < FOOTER or int.from_bytes(footer[-8:], "little") != _MAGIC:
            raise Unreadable(f"{name} does not end as a table does")
        try:
            _, at = handle(footer, 0)
            (offset, length), _ = handle(footer, at)
        except (IndexError, ValueError):
            raise Unreadable(f"{name} does not end as a table does") from None
        if offset + length + 5 > size - FOOTER:
            raise Unreadable(f"{name}: its index lies outside")
        file.seek(offset)
        crc = checksum(file, length + 1)  # its type counts too
        stored = file.read(4)
    if int.from_bytes(stored, "little") != masked(crc):
        raise Unreadable(f"{name}: the checksum of its index is wrong")


def checksum(file: BinaryIO, size: int) -> int:
    """CRC-32C of the next so many bytes, or of those that are there."""
    crc = 0
    while size > 0 and (piece := file.read(min(size, _PIECE))):
        crc = int(google_crc32c.extend(crc, piece))
        size -= len(piece)
    return crc


def handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and length of a block; and where the next thing begins."""
    offset, at = varint(data, at)
    length, at = varint(data, at)
    return (offset, length), at


def as_varint(value: int) -> bytes:
    """A number as LevelDB writes it: seven bits a byte, the lowest first."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte; and where the next thing begins. Raises `IndexError` when it ends too soon, `ValueError`."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _examine_logs(
    directory: Below, names: Collection[str], state: Versions, *, strict: bool
) -> Iterator[str]:
    needed = state.log_number or 0
    if f"{needed:06}.log" not in names and needed:
        yield f"{needed:06}.log, which is not in tables yet, is missing"
    read = 0
    for name in _logs(names, needed):
        log = _read_log(directory / name)
        read += log.records
        if what := log.broken or (log.gap if strict else ""):
            raise Unreadable(f"{name}: {what}")
        if log.gap:
            yield f"{name}: {log.gap}"
        if log.torn and not log.records and not state.tables:
            raise Unreadable(f"{name}: nothing in it can be read")
        if log.torn:
            yield f"{name}: its last record was not written whole, as a kill leaves it"
    if not read and not state.tables:
        yield "it is empty"


def _logs(names: Collection[str], needed: int) -> list[str]:
    return sorted(name for name in names if re.fullmatch(r"\d{6,}\.log", name) and int(name[:-4]) >= needed)


def is_empty(directory: Below) -> bool:
    """Whether a database that can be read holds no record. Raises `Unreadable`, `NotPlain`, `OSError`."""
    names = directory.contents().keys()
    manifest = _manifest(directory, names)
    state = Versions() if manifest is None else read_manifest(manifest)
    needed = state.log_number or 0
    return not state.tables and not any(_read_log(directory / name).records for name in _logs(names, needed))


def named_tables(directory: Below) -> frozenset[str]:
    """File names of the tables that the database consists of now. Raises `Unreadable`, `NotPlain`, `OSError`."""
    manifest = _manifest(directory, directory.contents().keys())
    if manifest is None:
        return frozenset()
    return frozenset(f"{number:06}.ldb" for number in read_manifest(manifest).tables)


def _manifest(directory: Below, names: Collection[str]) -> Below | None:
    """The one that counts; none without a CURRENT. Raises `Unreadable` if it is not there."""
    if "CURRENT" not in names:
        return None
    name = (directory / "CURRENT").data(_MOST_CURRENT).decode("ascii", errors="replace").strip()
    if name not in names:
        raise Unreadable(f"CURRENT names {name[:40]}, which is missing")
    return directory / name


def files_in_use(directory: Below) -> tuple[list[str], list[str]]:
    """File names of the tables and the logs that have what counts now. Raises `Unreadable`, `NotPlain`, `OSError`."""
    names = directory.contents().keys()
    manifest = _manifest(directory, names)
    state = Versions() if manifest is None else read_manifest(manifest)
    tables = [name for number in sorted(state.tables) if (name := f"{number:06}.ldb") in names]
    return tables, _logs(names, state.log_number or 0)


def each_record(log: Below, each: Callable[[bytes], None]) -> None:
    """Give out each record of a log as far as it can be read. Raises `NotPlain`, `OSError`."""
    _read_log(log, _MOST_LOG, each)


def made_anew(directory: Below, since: float) -> bool:
    """Whether LevelDB says that the database was not there when it was opened; ``since`` is unix time, seconds.

    ``LOG`` is what the last opening says, db_impl.cc. Raises `NotPlain`, `OSError`.
    """
    log = directory / "LOG"
    status = log.status()
    if status is None or status.st_mtime < since:
        return False
    with log.reading(sys.maxsize) as file:
        return re.match(rb"\S+ \S+ Creating DB .+ since it was missing\.", file.readline(4096)) is not None


def torn_tails(directory: Below) -> Iterator[tuple[Below, int]]:
    """Each file whose last record is torn, and where its last whole one ends. Only of what `examine` can read.

    LevelDB skips a torn record, but Chromium has it go on with the same file: what is written behind the tear is then
    taken for damage at the next start, and IndexedDB is wiped.
    """
    names = directory.contents().keys()
    manifest = _manifest(directory, names)
    if manifest is None:
        return
    state = read_manifest(manifest)
    for path in (manifest, *(directory / name for name in _logs(names, state.log_number or 0))):
        log = _read_log(path)
        if log.torn and not log.broken:
            yield path, log.end


@dataclass(frozen=True, slots=True)
class _Log:
    records: int
    """How many can be read."""
    end: int
    """Where the last whole record ends."""
    broken: str = ""
    """What is wrong, if anything."""
    torn: bool = False
    """After the last whole record comes what a kill or a power cut leaves: part of one, or zeros."""
    gap: str = ""
    """Of a record in between there is only part, if of any. Whole ones follow."""


def _read_log(path: Below, most: int = _MOST_LOG, each: Callable[[bytes], None] | None = None) -> _Log:
    """``each`` is given each record. Block by block: no more of it is held than one, and the record that is asked for."""
    with path.reading(most) as file:
        return _scan_log(file, file.seek(0, 2), each)


def _scan_log(file: BinaryIO, size: int, each: Callable[[bytes], None] | None) -> _Log:
    records = whole = held = 0
    gap = ""
    parts: list[bytes] = []
    begun = False
    for start in range(0, size, _BLOCK):
        file.seek(start)
        block = file.read(min(_BLOCK, size - start))
        at = 0
        while _BLOCK - at >= _HEADER.size:
            if at + _HEADER.size > len(block):
                return _Log(records, whole, torn=at < len(block) or begun, gap=gap)
            crc, length, kind = _HEADER.unpack_from(block, at)
            end = at + _HEADER.size + length
            if end > len(block) and len(block) < _BLOCK:
                return _Log(records, whole, torn=True, gap=gap)
            if end > _BLOCK or not _WHOLE <= kind <= _LAST:
                file.seek(start + at)
                if records and _zeros(file):
                    return _Log(records, whole, torn=True, gap=gap)
                what = "zeros" if not crc and not length else "no record"
                return _Log(records, whole, f"{what} at byte {start + at}")
            if crc != masked(int(google_crc32c.value(block[at + 6 : end]))):
                return _Log(records, whole, f"the checksum at byte {start + at} is wrong")
            # log_reader.cc. A write that failed on a full disk leaves half a record, and LevelDB goes on behind it.
            if kind in {_WHOLE, _FIRST}:
                if held:
                    gap = gap or f"the record before byte {start + at} has no end"
                held, parts = 0, []
            elif not begun:
                gap = gap or f"the record at byte {start + at} has no beginning"
                at = end
                continue
            begun, held = True, held + length
            if each is not None:
                parts.append(block[at + _HEADER.size : end])
            if kind in {_WHOLE, _LAST}:
                records += 1
                whole, begun, held = start + end, False, 0
                if each is not None:
                    each(b"".join(parts))
                    parts = []
            at = end
    return _Log(records, whole, torn=begun, gap=gap)


def _zeros(file: BinaryIO) -> bool:
    """Whether nothing but zeros is left of it."""
    while piece := file.read(_PIECE):
        if piece.count(0) < len(piece):
            return False
    return True


def masked(crc: int) -> int:
    """Leveldb stores CRC-32C rotated and shifted (util/crc32c.h), so that a checksum of checksums is no trap."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
