"""Whose login a profile has: read as Chromium writes it, from logs and from tables, and by whoever has made the files hostile."""

import io
import os
import struct
from pathlib import Path

import pytest
from bare_browser import BINARY
from hypothesis import given
from hypothesis import strategies as st
from written import Written

from waguard.profile import identity, leveldb, login_files, values
from waguard.profile.leveldb import Unreadable
from waguard.system.files import Below

needs_browser = pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
ORIGIN = "https_web.whatsapp.com_0"
STORE = "Default/Local Storage/leveldb"


def number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(data: bytes) -> bytes:
    return number(len(data)) + data


def batch(sequence: int, *entries: tuple[bytes, bytes | None]) -> bytes:
    packed = b"".join(
        b"\0" + text(key) if value is None else b"\1" + text(key) + text(value) for key, value in entries
    )
    return struct.pack("<QI", sequence, len(entries)) + packed


def record(data: bytes) -> bytes:
    """Whole, in a log."""
    crc = leveldb.checksum(io.BytesIO(b"\1" + data), len(data) + 1)
    return struct.pack("<IHB", leveldb.masked(crc), len(data), 1) + data


def logged(place: Path, *records: bytes) -> Below:
    place.mkdir(parents=True)
    (place / "000003.log").write_bytes(b"".join(map(record, records)))
    return Below(place)


@needs_browser
@pytest.mark.browser
@pytest.mark.parametrize("which", ["small", "large"])
def test_a_login_that_chromium_wrote_is_known_again(request: pytest.FixtureRequest, which: str) -> None:
    written: Written = request.getfixturevalue(which)
    names = identity.read(written.profile, written.origin)
    assert names is not None
    assert sorted(name.partition(" ")[0] for name in names) == ["key", "wid"]
    assert "wid 34600000000:1@c.us" in names
    assert identity.read(written.profile, ORIGIN) == frozenset(), "another page has none in it"


@needs_browser
@pytest.mark.browser
def test_every_key_of_a_table_is_found(large: Written) -> None:
    store = Below(large.profile, STORE)
    keys = [login_files.key_of(large.origin, f"fill{number}") for number in range(40)]
    found = values.read(store, keys)
    assert sorted(found) == sorted(keys)
    assert all(
        value[:1] == b"\1" and len(set(value[1:].decode().split("0."))) == 2 for value in found.values()
    )


def test_the_newest_entry_counts_and_a_deleted_one_is_none(tmp_path: Path) -> None:
    store = logged(
        tmp_path / "store",
        batch(7, (b"a", b"new"), (b"b", None)),
        batch(1, (b"a", b"old"), (b"b", b"old"), (b"c", b"kept")),
    )
    assert values.read(store, [b"a", b"b", b"c", b"d"]) == {b"a": b"new", b"c": b"kept"}


@pytest.mark.parametrize(
    ("wid", "names"),
    [
        ('"5215512345678:12@c.us"', {"wid 5215512345678:12@c.us"}),
        ('"5215512345678@c.us"', set()),
        ('{"a": 1}', set()),
        ("no JSON", set()),
    ],
)
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_a_number_without_a_device_names_no_login(
    tmp_path: Path, wid: str, names: set[str], encoding: str
) -> None:
    value = (b"\1" if encoding == "latin-1" else b"\0") + wid.encode(encoding)
    logged(tmp_path / STORE, batch(1, (login_files.key_of(ORIGIN), value)))
    assert identity.read(tmp_path, ORIGIN) == frozenset(names)


def test_snappy_is_unpacked(tmp_path: Path) -> None:
    """By hand, of format_description.txt: a literal, a copy that overlaps with what it makes, one with two bytes of offset."""
    packed = (
        number(16) + bytes([3 << 2]) + b"abcd" + bytes([(8 - 4) << 2 | 1, 2]) + bytes([3 << 2 | 2, 12, 0])
    )
    assert values._unpacked(packed) == b"abcdcdcdcdcdabcd"


@pytest.mark.parametrize("odd", ["fifo", "link", "sparse", "rubbish", "none"])
def test_what_a_hostile_browser_left_there_tells_nothing_and_costs_nothing(tmp_path: Path, odd: str) -> None:
    store = tmp_path / STORE
    store.mkdir(parents=True)
    log = store / "000003.log"
    match odd:
        case "fifo":
            os.mkfifo(log)
        case "link":
            log.symlink_to("/dev/zero")
        case "sparse":
            log.touch()
            os.truncate(log, 2**40)
        case "rubbish":
            log.write_bytes(record(batch(1, (b"a", b"b"))[:-3]))
        case "none":
            store.rmdir()
    assert identity.read(tmp_path, ORIGIN) == (frozenset() if odd == "none" else None)


@given(data=st.binary(max_size=200))
def test_no_bytes_are_too_odd_to_be_refused(data: bytes) -> None:
    for parse in (
        values._unpacked,
        lambda block: list(values._entries(block)),
        lambda r: list(values._batch(r)),
    ):
        try:
            parse(data)
        except (IndexError, ValueError, struct.error):
            continue


def test_reading_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_MOST_BYTES", 100)
    store = logged(tmp_path / "store", batch(1, (b"a", bytes(200))))
    with pytest.raises(Unreadable, match="more than 100 bytes"):
        values.read(store, [b"a"])


def test_what_a_header_says_tells_no_number() -> None:
    names = ["wid 5215512345678:12@c.us"]
    said = identity.sealed(names, b"k" * 32)
    assert said == identity.sealed(names, b"k" * 32) != identity.sealed(names, b"l" * 32)
    assert "5215512345678" not in str(said)
