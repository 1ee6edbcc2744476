"""What a LevelDB database holds under some keys, read from its files alone, while a browser writes to it or not.

Formats as in `leveldb`; db/write_batch.cc, table/block_builder.cc, and snappy's format_description.txt. Each entry has a sequence
number, and the highest one counts, so that it does not matter in which order the files are read.
"""

import struct
from collections.abc import Callable, Collection, Iterator, Mapping

from waguard.profile import leveldb
from waguard.profile.leveldb import Unreadable
from waguard.system.files import Below

_BATCH = struct.Struct("<QI")
_MOST_BLOCK = 1024 * 1024
"""Bytes, unpacked too. A block has 4 KiB, or whatever one value had more."""
_MOST_BYTES = 32 * 1024 * 1024
"""That are looked through altogether: a page may keep 10 MiB there, and of tables only few blocks are read."""
_TRAILER = 8
"""Behind each key: its sequence number and its kind."""
_DELETED, _VALUE = 0, 1
_PLAIN, _SNAPPY = 0, 1
"""Kinds of blocks."""


def read(directory: Below, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
    """Those of the keys that are there. Raises `Unreadable`, `NotPlain`, `OSError`."""
    found: dict[bytes, tuple[int, bytes | None]] = {}
    left = _MOST_BYTES

    def spend(count: int) -> None:
        nonlocal left
        left -= count
        if left < 0:
            raise ValueError(f"more than {_MOST_BYTES} bytes would have to be read")

    def note(key: bytes, sequence: int, value: bytes | None) -> None:
        if key in keys and (key not in found or found[key][0] <= sequence):
            found[key] = sequence, value

    def note_batch(record: bytes) -> None:
        spend(len(record))
        for key, sequence, value in _batch(record):
            note(key, sequence, value)

    tables, logs = leveldb.files_in_use(directory)
    try:
        for name in tables:
            for key, sequence, value in _table(directory / name, keys, spend):
                note(key, sequence, value)
        for name in logs:
            leveldb.each_record(directory / name, note_batch)
    except (IndexError, ValueError, struct.error) as error:
        raise Unreadable(f"{directory.path}: {error}") from None
    return {key: value for key, (_, value) in found.items() if value is not None}


def _batch(record: bytes) -> Iterator[tuple[bytes, int, bytes | None]]:
    sequence, count = _BATCH.unpack_from(record)
    at = _BATCH.size
    for number in range(count):
        kind = record[at]
        key, at = _text(record, at + 1)
        value = None
        if kind == _VALUE:
            value, at = _text(record, at)
        elif kind != _DELETED:
            raise ValueError(f"an entry of kind {kind}")
        yield key, sequence + number, value


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = leveldb.varint(data, at)
    if at + length > len(data):
        raise ValueError("a text ends too soon")
    return data[at : at + length], at + length


def _table(
    path: Below, keys: Collection[bytes], spend: Callable[[int], None]
) -> Iterator[tuple[bytes, int, bytes | None]]:
    """The entries of the blocks that the keys may be in."""
    with path.reading(leveldb.most_bytes(path.path.name)) as file:

        def block(offset: int, length: int) -> bytes:
            if length > _MOST_BLOCK:
                raise ValueError("a block is too long")
            file.seek(offset)
            data = file.read(length + 1)
            if len(data) != length + 1 or data[-1] not in {_PLAIN, _SNAPPY}:
                raise ValueError("a block cannot be read")
            found = _unpacked(data[:-1]) if data[-1] == _SNAPPY else data[:-1]
            spend(len(found))
            return found

        size = file.seek(0, 2)
        file.seek(max(0, size - leveldb.FOOTER))
        footer = file.read(leveldb.FOOTER)
        _, at = leveldb.handle(footer, 0)
        (offset, length), _ = leveldb.handle(footer, at)
        before = b""
        for last, place in _entries(block(offset, length)):
            until = last[:-_TRAILER]
            if any(before <= key <= until for key in keys):
                (start, length), _ = leveldb.handle(place, 0)
                for key, value in _entries(block(start, length)):
                    number = int.from_bytes(key[-_TRAILER:], "little")
                    yield key[:-_TRAILER], number >> 8, value if number & 0xFF == _VALUE else None
            before = until


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each key is what it has in common with the one before, and the rest."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    at, key = 0, b""
    while at < end:
        common, at = leveldb.varint(block, at)
        more, at = leveldb.varint(block, at)
        length, at = leveldb.varint(block, at)
        if common > len(key) or at + more + length > end:
            raise ValueError("an entry lies outside")
        key = key[:common] + block[at : at + more]
        at += more
        yield key, block[at : at + length]
        at += length


def _unpacked(data: bytes) -> bytes:
    """Snappy."""
    size, at = leveldb.varint(data, 0)
    if size > _MOST_BLOCK:
        raise ValueError("a block is too long")
    out = bytearray()
    while at < len(data) and len(out) <= size:
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            length = tag >> 2
            if length >= 60:
                more = length - 59
                length = int.from_bytes(data[at : at + more], "little")
                at += more
            length += 1
            out += data[at : at + length]
            at += length
            continue
        if tag & 3 == 1:
            length, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at]
            at += 1
        else:
            more = 2 if tag & 3 == 2 else 4
            length, offset = (tag >> 2) + 1, int.from_bytes(data[at : at + more], "little")
            at += more
        if not 0 < offset <= len(out):
            raise ValueError("a copy lies outside")
        start = len(out) - offset
        out += (out[start:] * (length // offset + 1))[:length]  # it may overlap with what it makes
    if len(out) != size:
        raise ValueError("a block unpacks to another length")
    return bytes(out)
