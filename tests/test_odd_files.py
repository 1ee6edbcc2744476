"""What a browser that was taken over can put in the place of a file costs nobody else anything: it is damage, and told."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest
from conftest import Daemon, Journal
from snapshots import ABOUT, GO, ORIGIN, RING

from waguard.access import configured
from waguard.config.sections import Config
from waguard.core.model import ClientCode, Status, Verdict
from waguard.errors import RecordUnavailable, SnapshotRefused, StorageFailed
from waguard.history.database import FILE
from waguard.history.history import History
from waguard.history.learned import Learned
from waguard.profile import examiners, leveldb, login_files, witness
from waguard.profile.examiners import Report
from waguard.profile.examiners.subject import Subject
from waguard.profile.store import Profiles
from waguard.session import handover
from waguard.session.instance import Instance
from waguard.session.registry import Record, Registry
from waguard.snapshots import keys
from waguard.snapshots.store import Snapshots, about_of
from waguard.system.files import Below, NotPlain

DEMO = ClientCode("demo")
INDEXED_DB = f"Default/IndexedDB/{ORIGIN}.indexeddb.leveldb"
LOCAL_STORAGE = "Default/Local Storage/leveldb"
NAMES = (
    f"{LOCAL_STORAGE}/000003.log",
    f"{LOCAL_STORAGE}/CURRENT",
    f"{LOCAL_STORAGE}/MANIFEST-000001",
    f"{INDEXED_DB}/000003.log",
    f"{INDEXED_DB}/000005.ldb",
    f"Default/IndexedDB/{ORIGIN}.indexeddb.blob/1/00/1",
    "Local State",
    "Last Version",
    "Default/Preferences",
    "Default/Cookies",
)
SPARSE = 2 * 1024**3 + 1


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            there.bind(path.name)
        finally:
            os.chdir(here)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, SPARSE)


ODD: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a socket": bound,
    "a directory": Path.mkdir,
    "a link": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("/nowhere"),
    "bytes": sparse,
}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Whole databases with nothing in them but a mark."""
    top = tmp_path / "profile"
    batch = b"_https://web.whatsapp.com\0\1last-wid-md{}"
    edit = b"\x02\x03\x03\x04\x04\x01"
    for database in (INDEXED_DB, LOCAL_STORAGE):
        (top / database).mkdir(parents=True)
        (top / database / "CURRENT").write_bytes(b"MANIFEST-000001\n")
        (top / database / "MANIFEST-000001").write_bytes(record(edit))
        (top / database / "000003.log").write_bytes(record(batch))
    (top / f"Default/IndexedDB/{ORIGIN}.indexeddb.blob/1/00").mkdir(parents=True)
    for name in ("Local State", "Default/Preferences"):
        (top / name).write_bytes(b"{}")
    for path in (top, *top.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return top


def record(data: bytes) -> bytes:
    crc = int(google_crc32c.value(b"\1" + data))
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little") + len(data).to_bytes(2, "little") + b"\1" + data


def look(profile: Path) -> Report:
    return examiners.examine(Subject(profile, "156.0.0.0", ORIGIN, os.geteuid(), login_on_disk=True))


def put(profile: Path, name: str, kind: str) -> None:
    (profile / name).unlink(missing_ok=True)
    ODD[kind](profile / name)


def test_the_profile_of_these_tests_is_sound(profile: Path) -> None:
    assert look(profile).evidence == ()
    assert login_files.has_mark(profile, ORIGIN)
    assert not login_files.has_mark(profile, "https_other.example_0")


def test_a_mark_that_was_deleted_since_is_none(profile: Path) -> None:
    key = b"_https://web.whatsapp.com\0\1last-wid-md"
    put_it, deleted = b"\1" + bytes([len(key)]) + key + b"\2{}", b"\0" + bytes([len(key)]) + key
    log = profile / LOCAL_STORAGE / "000003.log"
    for batches, there in (
        ([put_it], True),
        ([put_it, deleted], False),
        ([put_it, deleted, put_it], True),
        ([put_it * 3 + deleted], False),
    ):
        log.write_bytes(b"".join(record(b"\0" * 12 + batch) for batch in batches))
        assert login_files.has_mark(profile, ORIGIN) is there
        assert login_files.lacks_mark(Below(profile, LOCAL_STORAGE), ORIGIN) is not there
    # However the file is cut into pieces.
    for gap in range(len(key) + 20):
        log.write_bytes(b"\0" * (login_files._PIECE - gap) + deleted + b"\0" * 9)
        assert not login_files.has_mark(profile, ORIGIN)
    # As it is in a later file, whatever an earlier one says.
    log.with_name("000005.log").write_bytes(record(b"\0" * 12 + put_it))
    assert login_files.has_mark(profile, ORIGIN)


@pytest.mark.timeout(20, func_only=True)
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_file_is_damage_and_waited_for_by_nobody(profile: Path, name: str, kind: str) -> None:
    put(profile, name, kind)
    report = look(profile)
    assert report.verdict is Verdict.DAMAGED
    assert {one.path for one in report.evidence if one.verdict is Verdict.DAMAGED} & {name}
    assert kind.removesuffix(" to nothing") in next(one.what for one in report.evidence if one.path == name)
    login_files.has_mark(profile, ORIGIN)
    if "leveldb/" in name:
        with pytest.raises(StorageFailed, match=kind.removesuffix(" to nothing")):
            witness.take(profile, ORIGIN, {})


@pytest.mark.timeout(20, func_only=True)
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_file_is_not_left_out_of_a_snapshot(
    profile: Path, tmp_path: Path, name: str, kind: str
) -> None:
    put(profile, name, kind)
    (tmp_path / "sessions").mkdir()
    snapshots = Snapshots(tmp_path / "sessions", RING)
    snapshots.make_room()
    with pytest.raises(SnapshotRefused, match=kind.removesuffix(" to nothing")):
        snapshots.take(GO, profile, ABOUT)
    assert not snapshots.of(DEMO)


@pytest.mark.timeout(20, func_only=True)
@pytest.mark.parametrize("place", ["Default", "Default/Local Storage", LOCAL_STORAGE, INDEXED_DB])
def test_a_directory_that_has_become_a_link_leads_nowhere(profile: Path, tmp_path: Path, place: str) -> None:
    theirs = tmp_path / "theirs"
    (profile / place).rename(theirs)
    (profile / place).symlink_to(theirs)
    assert look(profile).verdict is Verdict.DAMAGED
    assert not (login_files.has_mark(profile, ORIGIN) and place != INDEXED_DB)
    assert not [name for name in login_files.part(profile, ORIGIN) if name.startswith(f"{place}/")]


def test_a_directory_that_is_exchanged_meanwhile_leads_nowhere(profile: Path, tmp_path: Path) -> None:
    """Whoever has looked and then opens by name is led astray at some time."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "000003.log").write_bytes(b"theirs")
    store, aside = profile / LOCAL_STORAGE, profile / "aside"
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            store.rename(aside)
            store.symlink_to(theirs)
            store.unlink()
            aside.rename(store)

    thread = threading.Thread(target=exchange)
    thread.start()
    read: set[bytes] = set()
    try:
        until, looked = time.monotonic() + 30, 0
        while looked < 3000 or (not read and time.monotonic() < until):
            looked += 1
            try:
                read.add(Below(profile, f"{LOCAL_STORAGE}/000003.log").data(1000))
            except (NotPlain, FileNotFoundError):
                continue
    finally:
        over.set()
        thread.join()
    assert read
    assert b"theirs" not in read


@pytest.mark.timeout(60, func_only=True)
def test_more_files_than_a_database_has_are_damage(profile: Path) -> None:
    for number in range(20_001):
        (profile / LOCAL_STORAGE / f"junk{number}").touch()
    assert look(profile).verdict is Verdict.DAMAGED
    assert not login_files.has_mark(profile, ORIGIN)


def test_a_number_without_an_end_is_no_number(profile: Path) -> None:
    manifest = Below(profile, f"{LOCAL_STORAGE}/MANIFEST-000001")
    manifest.path.write_bytes(record(b"\x02" + b"\xff" * 30_000))
    with pytest.raises(leveldb.Unreadable, match="64 bits"):
        leveldb.read_manifest(manifest)


def test_a_log_of_any_length_takes_no_memory(profile: Path) -> None:
    """The longest that is sane; and what is longer is not begun."""
    (profile / LOCAL_STORAGE / "000003.log").write_bytes(b"\0" * 60_000_000)
    sparse(profile / INDEXED_DB / "000005.log")
    script = f"""
import pathlib, resource
from waguard.errors import StorageFailed
from waguard.profile import examiners, login_files, mend, witness
from waguard.profile.examiners.subject import Subject
profile = pathlib.Path({str(profile)!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(examiners.examine(Subject(profile, "156.0", {ORIGIN!r}, {os.geteuid()}, login_on_disk=True)).verdict)
print(login_files.has_mark(profile, {ORIGIN!r}))
try:
    witness.take(profile, {ORIGIN!r}, {{}})
except StorageFailed as error:
    print(error.message)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    verdict, marked, message, grown = done.stdout.splitlines()
    assert (verdict, marked) == ("damaged", "False")
    assert message.endswith(f"it has {SPARSE} bytes, and {64 * 2**20} is the most that is sane.")
    assert int(grown) < 30_000  # KiB


# --- files of our own -------------------------------------------------------------------------------------------


@pytest.fixture
def profiles(tmp_path: Path) -> Profiles:
    made = Profiles(tmp_path / "sessions", None)
    made.make_room()
    return made


KINDS = pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "a link to nothing"])


@pytest.mark.timeout(20, func_only=True)
@KINDS
def test_a_record_that_is_no_file_cannot_be_read_and_is_nobodys_to_put_aside(
    profiles: Profiles, kind: str
) -> None:
    registry = Registry(profiles)
    put(profiles.home(DEMO), "session.json", kind)
    with pytest.raises(StorageFailed, match=kind) as caught:
        registry.read(DEMO)
    assert caught.value.code == "storage_failed"


@pytest.mark.timeout(20, func_only=True)
@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a directory", "bytes"])
def test_secrets_that_are_no_file_are_refused(tmp_path: Path, kind: str) -> None:
    put(tmp_path, ".backup.keys", kind)
    with pytest.raises(StorageFailed, match=kind):
        keys.load(tmp_path / ".backup.keys", make=True)
    put(tmp_path, configured.FILE, kind)
    with pytest.raises(StorageFailed, match=kind):
        configured.load(Config.model_validate({"sessions": {"dir": tmp_path}}))


def test_secrets_may_be_links_as_those_of_kubernetes_are(tmp_path: Path) -> None:
    real = tmp_path / "..data"
    real.mkdir()
    made = keys.load(real / "keys", make=True)
    (tmp_path / "keys").symlink_to("..data/keys")
    assert keys.load(tmp_path / "keys", make=False).newest == made.newest


@pytest.mark.timeout(20, func_only=True)
@KINDS
def test_a_witness_or_snapshot_that_is_no_file_says_nothing(tmp_path: Path, kind: str) -> None:
    put(tmp_path, "file", kind)
    assert witness.read(tmp_path / "file") is None
    assert about_of(tmp_path / "file") is None


@pytest.mark.timeout(20, func_only=True)
@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a directory", "a link"])
@pytest.mark.parametrize("ending", ["", "-wal"])
async def test_a_history_that_is_no_file_is_put_aside(
    tmp_path: Path, journal: Journal, kind: str, ending: str
) -> None:
    put(tmp_path, FILE + ending, kind)
    history = History(tmp_path, 90.0, journal.bus, lambda: 1.0)
    await history.start(Learned(Config(), lambda: 1.0))
    await history.close()
    assert kind in journal.named("history.unreadable")[0].fields["error"]
    assert (tmp_path / FILE).is_file()


ODD_RECORDS = {
    "a generation that is no name": b'{"login": true, "generation": "a\\u0000b"}',
    "a generation of another place": b'{"generation": "../../etc"}',
    "a launch of another place": b'{"launch": {"token": "/../../a", "kind": "plain", "generation": "", "started_at": 1}}',
    "numbers without end": b'{"launch": {"token": "a", "kind": "plain", "generation": "", "started_at": 1e999, "processes":'
    b' [{"pid": 1e300, "start_ticks": -1, "boot_id": ""}]}}',
}


@pytest.mark.parametrize("kind", ODD_RECORDS)
async def test_a_record_with_an_odd_value_costs_no_other_client_the_start(
    pose: Daemon, sessions_dir: Path, journal: Journal, kind: str
) -> None:
    (sessions_dir / "odd").mkdir(parents=True)
    (sessions_dir / "odd" / "session.json").write_bytes(ODD_RECORDS[kind])
    async with pose("connected") as (supervisor, _):
        assert (await supervisor.connect(DEMO)).status is Status.CONNECTED
        assert (await supervisor.connect(ClientCode("odd"))).status is Status.CONNECTED
    (told,) = journal.named("registry.corrupt")
    assert Path(told.fields["kept_as"]).read_bytes() == ODD_RECORDS[kind]


async def test_a_mistake_of_ours_about_one_client_costs_no_other_one_the_start(
    pose: Daemon, sessions_dir: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = handover.find_profile

    async def stumble(instance: Instance) -> Record:
        if instance.code == "odd":
            raise ZeroDivisionError
        return await find(instance)

    monkeypatch.setattr(handover, "find_profile", stumble)
    (sessions_dir / "odd").mkdir(parents=True)
    async with pose("connected") as (supervisor, _):
        assert (await supervisor.connect(DEMO)).status is Status.CONNECTED
        with pytest.raises(RecordUnavailable, match="the log has the reason"):
            await supervisor.connect(ClientCode("odd"))
    (told,) = journal.named("internal.error")
    assert (told.client, told.fields["where"]) == ("odd", "adopt")
    assert "in stumble" in told.fields["trace"]
    journal.events.remove(told)


# --- in the product ---------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(sessions_dir: Path) -> Callable[[ClientCode], None]:
    """Makes a FIFO of the client's log, as its browser might."""

    def spoil(code: ClientCode) -> None:
        profile = (sessions_dir / code / "profile").resolve()
        owner, store = profile.stat().st_uid, profile / LOCAL_STORAGE
        store.mkdir(parents=True, exist_ok=True)
        (store / "000003.log").unlink(missing_ok=True)
        os.mkfifo(store / "000003.log")
        for path in profile.rglob("*"):
            os.chown(path, owner, owner)

    return spoil


@pytest.mark.timeout(60, func_only=True)
async def test_fifos_of_one_client_cost_no_other_one_anything(
    pose: Daemon, journal: Journal, hostile: Callable[[ClientCode], None]
) -> None:
    many = [ClientCode(f"hostile{number}") for number in range(8)]
    async with pose("connected", snapshots={"settle_s": 0.1}) as (supervisor, _):
        for code in many:
            await supervisor.connect(code)
            hostile(code)
        for code in many:
            with pytest.raises(SnapshotRefused, match="a FIFO"):
                await supervisor.snapshot(code)
        await supervisor.connect(DEMO)
        async with asyncio.timeout(10):
            await supervisor.snapshot(DEMO)
            for code in many:
                await supervisor.disconnect(code)
                await supervisor.connect(code)
    told = [event for event in journal.named("profile.damaged") if event.client in many]
    assert len(told) == len(many)
    assert all("a FIFO" in event.fields["evidence"][0] for event in told)
