"""Snapshots: what can be opened is what was sealed, whole; anything else is refused, with the reason."""

import gzip
import io
import os
import random
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import zstandard
from crashes import STEPS, crash_points
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snapshots import ABOUT, GO, KEY, ORIGIN, OTHER, RING
from trees import tree

from waguard.core.model import ClientCode
from waguard.errors import ConfigError, SnapshotFailed, SnapshotNotFound, SnapshotRefused
from waguard.profile import login_files
from waguard.snapshots import bring, keys, packing
from waguard.snapshots.keys import Key, Keyring
from waguard.snapshots.seal import Opener, Sealer, read_header
from waguard.snapshots.store import Snapshots
from waguard.system.files import PARTIAL

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
MARKER = b"the wid of somebody: 34600000000"


def sealed(data: bytes, key: Key = KEY) -> bytes:
    file = io.BytesIO()
    sealer = Sealer(file, key, {"a": 1})
    for start in range(0, len(data), 300_000):
        sealer.write(data[start : start + 300_000])
    sealer.finish()
    return file.getvalue()


def opened(data: bytes, ring: Keyring = RING) -> bytes:
    return io.BufferedReader(Opener(io.BytesIO(data), ring)).read()


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile with a login, and with much that is none."""
    top = tmp_path / "profile"
    files = {
        f"Default/IndexedDB/{ORIGIN}.indexeddb.leveldb/000003.log": MARKER * 100,
        f"Default/IndexedDB/{ORIGIN}.indexeddb.leveldb/000005.ldb": os.urandom(1_500_000),
        f"Default/IndexedDB/{ORIGIN}.indexeddb.leveldb/CURRENT": b"MANIFEST-000001\n",
        f"Default/IndexedDB/{ORIGIN}.indexeddb.leveldb/LOCK": b"",
        f"Default/IndexedDB/{ORIGIN}.indexeddb.blob/1/00/1": b"a picture",
        "Default/IndexedDB/https_other.example_0.indexeddb.leveldb/000003.log": b"not ours",
        "Default/Local Storage/leveldb/000003.log": b"last-wid-md" + MARKER,
        "Default/Preferences": b"{}",
        "Default/Cache/Cache_Data/data_0": b"cached" * 1000,
        "Default/History": b"where somebody was",
        "Local State": b"{}",
    }
    for name, data in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    (tmp_path / "sessions").mkdir()
    made = Snapshots(tmp_path / "sessions", RING)
    made.make_room()
    return made


# --- sealing ------------------------------------------------------------------------------------------------

CHUNK = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 17])
def test_what_is_opened_is_what_was_sealed(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert opened(sealed(data)) == data


@settings(max_examples=150)
@given(at=st.integers(0, 2 * CHUNK + 400), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(at: int, bit: int) -> None:
    data = bytearray(_LONG)
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(SnapshotRefused):
        opened(bytes(data))


@settings(max_examples=150)
@given(size=st.integers(0, 2 * CHUNK + 400))
def test_a_file_that_is_cut_anywhere_is_found(size: int) -> None:
    with pytest.raises(SnapshotRefused):
        opened(_LONG[: min(size, len(_LONG) - 1)])


_LONG = sealed(bytes(2 * CHUNK))


def test_chunks_that_change_places_are_found_and_so_is_one_more() -> None:
    start = len(_LONG) - 2 * (CHUNK + 16)
    header, one, two = _LONG[:start], _LONG[start : start + CHUNK + 16], _LONG[start + CHUNK + 16 :]
    for wrong in (header + two + one, header + two, header + one + one + two, header + one + two + one):
        with pytest.raises(SnapshotRefused):
            opened(wrong)
    assert opened(header + one + two) == bytes(2 * CHUNK)


def test_the_same_twice_does_not_look_the_same() -> None:
    assert sealed(MARKER)[-100:] != sealed(MARKER)[-100:]


def test_a_wrong_key_is_said_and_an_older_key_still_opens() -> None:
    with pytest.raises(SnapshotRefused, match="the key k2, which keys does not have") as caught:
        opened(sealed(MARKER, OTHER))
    assert caught.value.details["reason"] == "wrong_key"
    assert opened(sealed(MARKER, OTHER), Keyring([KEY, OTHER], Path("keys"))) == MARKER
    with pytest.raises(SnapshotRefused, match="changed, cut off, or sealed by others"):
        opened(sealed(MARKER, Key("k1", bytes(32))))


@pytest.mark.parametrize(
    "data", [b"", b"WGB1", b"PK\x03\x04 a zip", b"WGB1\x00\x00\x00\x02[]", b"WGB1\xff\xff\xff\xff{}"]
)
def test_what_is_no_snapshot_is_said(data: bytes) -> None:
    with pytest.raises(SnapshotRefused):
        read_header(io.BytesIO(data))


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / ".backup.keys"
    made = keys.load(path, make=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.load(path, make=True).newest == made.newest
    assert made.newest.secret.hex() not in repr(made)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read it"):
        keys.load(path, make=True)


def test_a_new_line_in_front_rotates(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    old = keys.load(path, make=True).newest
    before = sealed(MARKER, old)
    fresh = tmp_path / "fresh"
    new = keys.load(fresh, make=True).newest
    path.write_text("# rotated\n" + fresh.read_text() + path.read_text())
    ring = keys.load(path, make=False)
    assert [key.id for key in ring.keys] == [new.id, old.id]
    assert opened(before, ring) == MARKER


@pytest.mark.parametrize("text", ["", "# nothing\n", "not base64!\n", "c2hvcnQ=\n"])
def test_a_file_that_is_none_of_keys_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"not a file of keys.*openssl rand"):
        keys.load(path, make=True)
    assert path.read_text() == text


def test_a_named_file_must_be_there_and_a_credential_goes_before_the_default(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no"):
        keys.load(tmp_path / "missing", make=False)
    (tmp_path / "waguard.keys").touch()
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert keys.place(None, Path("sessions"), environ) == tmp_path / "waguard.keys"
    assert keys.place(Path("mine"), Path("sessions"), environ) == Path("mine")
    assert keys.place(None, Path("sessions"), {}) == Path("sessions/.backup.keys")


# --- snapshots ----------------------------------------------------------------------------------------------


def test_a_snapshot_has_the_logins_part_and_nothing_else(
    profile: Path, snapshots: Snapshots, tmp_path: Path
) -> None:
    snapshot = snapshots.take(GO, profile, ABOUT)
    out = tmp_path / "out"
    out.mkdir()
    about = snapshots.read(GO, snapshot.path, DEMO, out)
    here = tree(profile)
    left_out = {
        name for name in here if "other.example" in name or name.endswith(("LOCK", "History", "data_0"))
    }
    assert len(left_out) == 4
    assert tree(out) == {name: data for name, data in here.items() if name not in left_out}
    assert (about.files, about.reason, about.generation) == (7, "request", ABOUT.generation)
    assert (out / "Default").stat().st_mode & 0o777 == 0o700
    assert (out / "Local State").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("link", ["Default", "Default/Local Storage", "Default/IndexedDB", "Local State"])
def test_links_in_a_profile_bring_nothing_into_a_snapshot(profile: Path, tmp_path: Path, link: str) -> None:
    """A hostile browser could point them at another client's."""
    theirs = tmp_path / "theirs"
    (profile / link).rename(theirs)
    (profile / link).symlink_to(theirs)
    found = list(login_files.part(profile, ORIGIN))
    assert not [name for name in found if name == link or name.startswith(f"{link}/")]
    assert len(login_files.databases(profile, ORIGIN)) < 2 or link == "Local State"


def test_nothing_of_a_login_can_be_read_in_a_snapshot(profile: Path, snapshots: Snapshots) -> None:
    data = snapshots.take(GO, profile, ABOUT).path.read_bytes()
    for word in (MARKER, b"34600000000", b"last-wid-md", b"IndexedDB", b"a picture"):
        assert word not in data


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[: len(data) // 2], "damaged"),
        (lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:], "damaged"),
        (lambda data: data + b"x", "damaged"),
        (lambda data: data.replace(b'"client":"demo"', b'"client":"dem2"'), "other_client"),
        (lambda data: data.replace(b'"reason":"request"', b'"reason":"reqest1"'), "damaged"),
        (lambda data: b"", "no_snapshot"),
        (lambda data: b"something else", "no_snapshot"),
    ],
)
def test_a_spoilt_snapshot_is_refused_with_the_reason(
    profile: Path, snapshots: Snapshots, spoil: object, reason: str, tmp_path: Path
) -> None:
    snapshot = snapshots.take(GO, profile, ABOUT)
    snapshot.path.write_bytes(spoil(snapshot.path.read_bytes()))  # type: ignore[operator]  # a parameter
    with pytest.raises(SnapshotRefused) as caught:
        snapshots.read(GO, snapshot.path, DEMO)
    assert caught.value.details["reason"] == reason


def test_another_clients_snapshot_is_refused(profile: Path, snapshots: Snapshots) -> None:
    snapshot = snapshots.take(GO, profile, ABOUT)
    with pytest.raises(SnapshotRefused, match="of another client: demo") as caught:
        snapshots.read(GO, snapshot.path, DEMO2)
    assert caught.value.details["reason"] == "other_client"


def forged(members: dict[str, bytes], manifest: bytes | None, tmp_path: Path) -> Path:
    """A snapshot that whoever has the key could make."""
    path = tmp_path / "forged.wgb"
    with path.open("wb") as file:
        sealer = Sealer(file, KEY, {**packing._ABOUT.dump_python(ABOUT)})
        with (
            zstandard.ZstdCompressor().stream_writer(sealer, closefd=False) as packed,  # type: ignore[arg-type]
            tarfile.open(fileobj=packed, mode="w|") as tar,
        ):
            for name, data in {
                **members,
                **({".manifest.json": manifest} if manifest is not None else {}),
            }.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        sealer.finish()
    return path


@pytest.mark.parametrize(
    ("members", "manifest", "what"),
    [
        ({"Default/../../../etc/passwd": b"x"}, b"{}", "no part of a login"),
        ({"/etc/passwd": b"x"}, b"{}", "no part of a login"),
        ({f"Default/IndexedDB/{ORIGIN}.indexeddb.blob/../../x": b"x"}, b"{}", "no part of a login"),
        ({"Local State": b"x"}, None, "its manifest is missing"),
        ({"Local State": b"x"}, b"{}", "Local State is not what its manifest says"),
        ({}, b'{"Local State": [1, "00"]}', "Local State is not what its manifest says"),
        ({}, b"not json", "its manifest is missing"),
    ],
)
def test_a_snapshot_that_lies_is_refused_and_writes_nowhere_else(
    members: dict[str, bytes], manifest: bytes | None, what: str, tmp_path: Path
) -> None:
    path = forged(members, manifest, tmp_path)
    out = tmp_path / "a" / "b" / "out"
    out.mkdir(parents=True)
    with pytest.raises(SnapshotRefused, match=what), path.open("rb") as file:
        packing.read(GO, file, RING, "demo", out)
    assert set(tree(tmp_path)) <= {"forged.wgb", "a/b/out/Local State"}


def test_a_snapshot_that_is_called_off_leaves_nothing(
    profile: Path, snapshots: Snapshots, tmp_path: Path
) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(SnapshotFailed, match="called off"):
        snapshots.take(stop, profile, ABOUT)
    assert not list((tmp_path / "sessions" / ".backups" / "demo").iterdir())


def test_a_crash_at_any_step_of_a_snapshot_leaves_none_or_a_whole_one(
    profile: Path, snapshots: Snapshots
) -> None:
    seen = set()
    for _ in crash_points(lambda: snapshots.take(GO, profile, ABOUT), among=STEPS):
        found = snapshots.of(DEMO)
        seen.add(len(found))
        for snapshot in found:
            snapshots.read(GO, snapshot.path, DEMO)
            snapshots.delete(snapshot)
        place = snapshots._root / "demo"
        for path in place.iterdir() if place.is_dir() else ():
            assert path.name.endswith(PARTIAL)
            path.unlink()
    assert seen == {0, 1}


# --- the store ----------------------------------------------------------------------------------------------


def test_the_newest_comes_first_and_what_cannot_be_read_last(profile: Path, snapshots: Snapshots) -> None:
    ids = [snapshots.take(GO, profile, replace(ABOUT, taken_at=at)).id for at in (5e8, 7e8, 6e8)]
    (snapshots._root / "demo" / "20300101T000000-01234567.wgb").write_bytes(b"torn")
    (snapshots._root / "demo" / "notes.txt").write_text("mine")
    found = snapshots.of(DEMO)
    assert [one.id for one in found] == [ids[2], ids[1], ids[0], "20300101T000000-01234567"], (
        "whatever the clock said"
    )
    assert found[-1].about is None
    assert snapshots.of(DEMO2) == []
    assert snapshots.get(DEMO, ids[0], ORIGIN).id == ids[0]
    for wrong in ("", "../demo2/x", "20300101T000000-0123456", "*"):
        with pytest.raises(SnapshotNotFound, match="no snapshot"):
            snapshots.get(DEMO, wrong, ORIGIN)


def test_which_is_the_newest_is_counted_and_not_timed(profile: Path, snapshots: Snapshots) -> None:
    """The clock was in 2038 when the first were taken."""
    wrong = [snapshots.take(GO, profile, replace(ABOUT, taken_at=2_145_916_800.0 + n)).id for n in range(3)]
    right = snapshots.take(GO, profile, replace(ABOUT, taken_at=1.0)).id
    assert [one.id for one in snapshots.of(DEMO)] == [right, *reversed(wrong)]
    assert snapshots.get(DEMO, "newest", ORIGIN).id == right
    assert snapshots.candidates(DEMO, "0123abcd", ORIGIN)[0].id == right
    snapshots.delete(snapshots.get(DEMO, wrong[0], ORIGIN))
    assert (
        snapshots.take(GO, profile, replace(ABOUT, taken_at=0.0)).id
        == snapshots.get(DEMO, "newest", ORIGIN).id
    )


def test_snapshots_whose_headers_do_not_count_stay_readable_and_in_their_order(
    profile: Path, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the version before has written them."""
    with monkeypatch.context() as before:
        before.setattr(
            packing,
            "asdict",
            lambda about: {name: value for name, value in asdict(about).items() if name != "sequence"},
        )
        old = [snapshots.take(GO, profile, replace(ABOUT, taken_at=at)) for at in (200.0, 100.0)]
    assert [one.id for one in snapshots.of(DEMO)] == [one.id for one in old], "by the clock, as ever"
    assert snapshots.sequence(DEMO) == 0
    assert all(one.about is not None and one.about.sequence == 0 for one in snapshots.of(DEMO))
    (tmp_path / "out").mkdir()
    snapshots.read(GO, old[0].path, DEMO, tmp_path / "out")
    new = snapshots.take(GO, profile, replace(ABOUT, taken_at=300.0))
    assert [one.id for one in snapshots.of(DEMO)] == [new.id, *(one.id for one in old)]


def test_what_was_put_aside_is_not_the_newest_when_it_is_saved_at_last(
    profile: Path, snapshots: Snapshots
) -> None:
    before = snapshots.take(GO, profile, ABOUT).id
    noted = snapshots.sequence(DEMO)
    after = snapshots.take(GO, profile, ABOUT).id
    about = replace(ABOUT, reason="cleanup", taken_at=3e9, sequence=noted)
    aside = snapshots.take(GO, profile, about, counted=False).id
    assert [one.id for one in snapshots.of(DEMO)] == [after, aside, before]


def test_only_logins_of_the_same_lineage_that_whatsapp_takes_may_stand_in(
    profile: Path, snapshots: Snapshots
) -> None:
    about = replace(ABOUT, generation="20260101T000000-0123abcd-ffff")
    usable = snapshots.take(GO, profile, replace(about, taken_at=10.0))
    refused = snapshots.take(GO, profile, replace(about, taken_at=20.0))
    snapshots.take(GO, profile, replace(about, taken_at=30.0, login=False))
    snapshots.take(GO, profile, replace(about, taken_at=40.0, generation="20260101T000000-deadbeef"))
    snapshots.mark_refused(DEMO, refused.id)
    assert [one.id for one in snapshots.candidates(DEMO, "0123abcd", ORIGIN)] == [usable.id]
    assert snapshots.get(DEMO, refused.id, ORIGIN).refused
    elsewhere = snapshots.get(DEMO, "newest", ORIGIN)
    assert elsewhere.about is not None
    assert elsewhere.about.taken_at == 40.0, "of any lineage, since somebody asks for it"
    with pytest.raises(SnapshotNotFound, match="no snapshot with a login"):
        snapshots.get(DEMO2, "newest", ORIGIN)
    snapshots.mark_refused(DEMO, refused.id)
    snapshots.mark_refused(DEMO, "20300101T000000-01234567")


# --- what comes from elsewhere --------------------------------------------------------------------------------


def packed(top: Path, target: Path, prefix: str = "") -> Path:
    with tarfile.open(target, "w") as tar:
        tar.add(top, prefix or ".")
    return target


def test_of_an_archive_only_the_login_is_taken(profile: Path, tmp_path: Path) -> None:
    (profile / "Default" / "Local Storage" / "leveldb" / "evil.log").symlink_to("/etc/passwd")
    archive, out = packed(profile, tmp_path / "a.tar"), tmp_path / "out"
    out.mkdir()
    assert bring.lay_out(GO, archive, RING, "demo", out, ORIGIN, 10**9) == 7
    assert set(tree(out)) == set(login_files.part(profile, ORIGIN))


def test_an_archive_with_another_pages_login_says_whose(profile: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(
        SnapshotRefused, match=r"no login of http_here_1 in it.*https_web.whatsapp.com_0"
    ) as caught:
        bring.lay_out(GO, packed(profile, tmp_path / "a.tar"), RING, "demo", out, "http_here_1", 10**9)
    assert caught.value.details["reason"] == "no_login"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b""), "no_login"),
        (lambda path: path.write_bytes(b"PK\x03\x04" * 1000), "damaged"),
        (lambda path: os.truncate(path, 200_000), "damaged"),
    ],
)
def test_a_torn_archive_is_refused(profile: Path, tmp_path: Path, spoil: object, reason: str) -> None:
    archive, out = packed(profile, tmp_path / "a.tar"), tmp_path / "out"
    out.mkdir()
    spoil(archive)  # type: ignore[operator]  # a parameter
    with pytest.raises(SnapshotRefused) as caught:
        bring.lay_out(GO, archive, RING, "demo", out, ORIGIN, 10**9)
    assert caught.value.details["reason"] in {reason, "damaged"}


def test_an_archive_that_is_too_large_is_refused(profile: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(SnapshotRefused, match=r"more than 0 MiB.*max_import_mb"):
        bring.lay_out(GO, packed(profile, tmp_path / "a.tar"), RING, "demo", out, ORIGIN, 1000)


@pytest.mark.parametrize("form", ["plain", "gz", "zst"])
def test_directories_on_top_and_packed_forms_make_no_difference(
    profile: Path, tmp_path: Path, form: str
) -> None:
    (profile / "Local State").write_bytes(b"{}")
    archive, out = packed(profile, tmp_path / "a.tar", "old/.wwebjs_auth/session-demo"), tmp_path / "out"
    data = archive.read_bytes()
    forms = {"plain": data, "gz": gzip.compress(data), "zst": zstandard.ZstdCompressor().compress(data)}
    archive.write_bytes(forms[form])
    out.mkdir()
    bring.lay_out(GO, archive, RING, "demo", out, ORIGIN, 10**9)
    assert tree(out) == {
        name: data for name, data in tree(profile).items() if login_files.belongs(name, ORIGIN)
    }


def test_of_several_logins_the_one_that_is_named_is_taken(profile: Path, tmp_path: Path) -> None:
    (profile / "Local State").write_bytes(b"first")
    archive, out = tmp_path / "a.tar", tmp_path / "out"
    with tarfile.open(archive, "w") as tar:
        tar.add(profile, "auth/session-a")
        (profile / "Local State").write_bytes(b"second")
        tar.add(profile, "auth/session-b\x1b[2J")
        tar.add(profile / "Default", "auth/session-a/Profile 1")
    out.mkdir()

    def brought(wanted: str = "") -> dict[str, bytes]:
        bring.lay_out(GO, archive, RING, "demo", out, ORIGIN, 10**9, wanted=wanted)
        return tree(out)

    names = ["auth/session-a", "auth/session-a/Profile 1", "auth/session-b\\x1b[2J"]
    for wanted in ("", "auth/session-c"):
        with pytest.raises(SnapshotRefused) as caught:
            brought(wanted)
        assert caught.value.details == {"reason": "several_logins", "logins": names}
        assert caught.value.message.isprintable()
        assert tree(out) == {}
    found = {}
    for name in names:
        found[name] = brought(name)
        shutil.rmtree(out)
        out.mkdir()
    assert [found[name]["Local State"] for name in names] == [b"first", b"first", b"second"]
    assert [len(files) for files in found.values()] == [len(found[names[0]])] * 3


def test_a_snapshot_and_its_plain_form_can_be_brought_back(
    profile: Path, snapshots: Snapshots, tmp_path: Path
) -> None:
    snapshot = snapshots.take(GO, profile, ABOUT)
    with snapshots.open(snapshot, plain=True) as file:
        plain = tmp_path / "plain.tar.zst"
        plain.write_bytes(b"".join(iter(partial(file.read, 100_000), b"")))
    for number, archive in enumerate((snapshot.path, plain)):
        out = tmp_path / f"out{number}"
        out.mkdir()
        assert bring.lay_out(GO, archive, RING, "demo", out, ORIGIN, 10**9) == 7
    with pytest.raises(SnapshotRefused, match="of another client"):
        bring.lay_out(GO, snapshot.path, RING, "demo2", tmp_path, ORIGIN, 10**9)


def bomb(target: Path, entry: tarfile.TarInfo, mib: int) -> Path:
    """A header, and so much nothing behind it, which is small when packed."""
    with target.open("wb") as raw, zstandard.ZstdCompressor(level=1).stream_writer(raw) as packed:
        packed.write(entry.tobuf(tarfile.GNU_FORMAT))
        for _ in range(mib):
            packed.write(bytes(2**20))
    return target


def test_an_archive_that_unpacks_for_ever_can_be_called_off_and_ends_at_its_limit(tmp_path: Path) -> None:
    junk = tarfile.TarInfo("junk")
    junk.size = 2**40
    archive, called_off = bomb(tmp_path / "a.tar.zst", junk, 64), threading.Event()
    called_off.set()
    with pytest.raises(SnapshotFailed, match="called off"):
        bring.lay_out(called_off, archive, RING, "demo", tmp_path, ORIGIN, 10**9)
    with pytest.raises(SnapshotRefused, match="Unpacked the archive has more than 16 MiB"):
        bring.lay_out(GO, archive, RING, "demo", tmp_path, ORIGIN, 2**23)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, 2**33
    with pytest.raises(SnapshotRefused, match="a header is too long"):
        bring.lay_out(GO, bomb(tmp_path / "a.tar.zst", entry, 4), RING, "demo", tmp_path, ORIGIN, 10**9)


def chain(kind: bytes, count: int) -> bytes:
    """Headers that each lengthen the next one."""
    entry = tarfile.TarInfo("x")
    body = b"11 path=xy\n" if kind in {tarfile.XHDTYPE, tarfile.XGLTYPE} else b"name\0"
    entry.type, entry.size = kind, len(body)
    return (entry.tobuf(tarfile.GNU_FORMAT) + body.ljust(512, b"\0")) * count


def checksum(header: bytes | bytearray) -> int:
    """Of a tar header, which counts its own place as spaces."""
    return sum(header) - sum(header[148:156]) + 8 * ord(" ")


def sparse(version: str) -> bytes:
    if version == "old":
        entry = tarfile.TarInfo("x")
        entry.type = tarfile.GNUTYPE_SPARSE
        block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
        block[386:410] = b"not a num\0".ljust(24, b"\0")
        block[148:156] = b"%06o\0 " % checksum(block)
        return bytes(block)
    entry = tarfile.TarInfo("x")
    entry.size = 512
    entry.pax_headers = {"GNU.sparse.major": version, "GNU.sparse.minor": "0", "GNU.sparse.map": "1,x,3"}
    return entry.tobuf(tarfile.PAX_FORMAT) + b"99999999\n1\nx\n".ljust(512, b"\0")


@pytest.mark.parametrize(
    "data",
    [
        *(chain(kind, 2000) for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)),
        *(sparse(version) for version in ("old", "0", "1")),
    ],
    ids=["pax", "global pax", "long names", "sparse old", "sparse 0", "sparse 1"],
)
def test_headers_without_end_and_maps_that_are_none_are_refused(tmp_path: Path, data: bytes) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(data + bytes(1024))
    with pytest.raises(SnapshotRefused) as caught:
        bring.lay_out(GO, archive, RING, "demo", tmp_path, ORIGIN, 10**9)
    assert caught.value.details["reason"] == "damaged"


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["junk"] * 100_001, "The archive has more than 100000 files"),
        (
            [f"Default/IndexedDB/{ORIGIN}.indexeddb.blob/2/00/{number:x}" for number in range(10_001)],
            "The login has more than 10000 files",
        ),
        ([f"{number}/Local Storage/leveldb/000003.log" for number in range(1001)], "more than 1000 logins"),
    ],
    ids=["files", "files of the login", "logins"],
)
def test_an_archive_of_too_many_files_is_refused(
    profile: Path, tmp_path: Path, names: Sequence[str], what: str
) -> None:
    archive, out = packed(profile, tmp_path / "a.tar"), tmp_path / "out"
    out.mkdir()
    headers = {name: tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT) for name in dict.fromkeys(names)}
    data = archive.read_bytes().rstrip(b"\0")
    archive.write_bytes(
        data + bytes(-len(data) % 512) + b"".join(headers[name] for name in names) + bytes(1024)
    )
    with pytest.raises(SnapshotRefused, match=what) as caught:
        bring.lay_out(GO, archive, RING, "demo", out, ORIGIN, 10**9)
    assert caught.value.details["reason"] == "too_large"


def test_a_size_beyond_all_measure_is_not_skipped_over(tmp_path: Path) -> None:
    junk = tarfile.TarInfo("junk")
    junk.size = 2**62
    archive = tmp_path / "a.tar"
    archive.write_bytes(junk.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(SnapshotRefused, match="Unpacked the archive has more than"):
        bring.lay_out(GO, archive, RING, "demo", tmp_path, ORIGIN, 10**9)


@pytest.fixture(scope="module")
def small_archives() -> dict[str, bytes]:
    """One of each form, with every kind of header that a login's archive may have."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in (f"{ORIGIN}.indexeddb.leveldb/000003.log", "x" * 120, "é"):
            entry = tarfile.TarInfo(f"top/Default/IndexedDB/{name}")
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"abc"))
        entry = tarfile.TarInfo("top/Default/Local Storage/leveldb/000003.log")
        tar.addfile(entry)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        long = entry.replace(name="y" * 150)
        target.write(long.tobuf(tarfile.GNU_FORMAT))
        tar.offset += 3 * 512
    data = target.getvalue()
    forms = {"tar": data, "gz": gzip.compress(data), "zst": zstandard.ZstdCompressor().compress(data)}
    whole = io.BytesIO()
    sealer = Sealer(whole, RING.newest, {"client": "demo"})
    sealer.write(forms["zst"])
    sealer.finish()
    return forms | {"wgb": whole.getvalue()}


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 2**16),
        st.sampled_from(["flip", "cut", "zero", "field", "double"]),
        st.binary(min_size=1, max_size=24),
    ),
    max_size=6,
)
FIELDS = ((124, 12), (156, 1), (148, 8), (386, 24), (257, 8), (0, 100))
"""Of a header: size, kind, checksum, sparse map, magic, name."""


def spoiled(data: bytes, changes: Sequence[tuple[int, str, bytes]]) -> bytes:
    for where, how, what in changes:
        at = where % max(len(data), 1)
        match how:
            case "flip":
                data = data[:at] + what + data[at + len(what) :]
            case "cut":
                data = data[:at]
            case "zero":
                data = data[:at] + bytes(len(what)) + data[at:]
            case "double":
                data = data[:at] + data[at - at % 512 :]
            case "field" if len(data) >= 512:
                start, length = FIELDS[what[0] % len(FIELDS)]
                begin = at - at % 512
                header = bytearray(data[begin : begin + 512].ljust(512, b"\0"))
                header[start : start + length] = what[1:].ljust(length, b"\0")[:length]
                header[148:156] = b"%06o\0 " % checksum(header)
                data = data[:begin] + bytes(header) + data[begin + 512 :]
    return data


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=st.sampled_from(["tar", "tar", "gz", "zst", "wgb"]), changes=CHANGES)
def test_whatever_is_sent_is_a_login_or_refused_with_a_reason(
    small_archives: dict[str, bytes], tmp_path: Path, form: str, changes: list[tuple[int, str, bytes]]
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as room:
        archive, out = Path(room) / "a", Path(room) / "out"
        archive.write_bytes(spoiled(small_archives[form], changes))
        out.mkdir()
        try:
            assert bring.lay_out(GO, archive, RING, "demo", out, ORIGIN, 10**7) >= 2
            return
        except SnapshotRefused as error:
            refused = error
        assert changes
        assert refused.details["reason"]


@pytest.mark.parametrize(
    "name",
    ["a" * 300, "a/" * 1500 + "x", "1/00/\udcff", "../1", "1/00/1/1"],
    ids=["long", "deep", "no-text", "up", "deeper"],
)
def test_no_name_is_a_blobs_that_chromium_would_not_give_one(name: str) -> None:
    assert login_files.belongs(f"Default/IndexedDB/{ORIGIN}.indexeddb.blob/1/00/1f", ORIGIN)
    assert not login_files.belongs(f"Default/IndexedDB/{ORIGIN}.indexeddb.blob/{name}", ORIGIN)
    assert not login_files.belongs(f"Default/Local Storage/leveldb/{name}.ldb", ORIGIN)


def test_a_header_with_a_time_that_is_none_says_nothing(profile: Path, snapshots: Snapshots) -> None:
    snapshot = snapshots.take(GO, profile, replace(ABOUT, taken_at=1.25))
    snapshot.path.write_bytes(snapshot.path.read_bytes().replace(b'"taken_at":1.25', b'"taken_at":9e99', 1))
    assert [one.about for one in snapshots.of(DEMO)] == [None]
