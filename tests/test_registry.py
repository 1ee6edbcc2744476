"""What outlives the daemon is read back as it was written, or refused; it is never guessed at."""

import json
from pathlib import Path
from typing import Any

import pytest
from crashes import crash_points
from hypothesis import given, settings
from hypothesis import strategies as st

from waguard.core.model import ClientCode, Wanted
from waguard.errors import DiskFull, RecordCorrupt, StorageFailed
from waguard.profile.store import Profiles
from waguard.sandbox.identity import Identity
from waguard.sandbox.reaper import LaunchRecord
from waguard.session.registry import Record, Registry

DEMO = ClientCode("demo")
LAUNCH = LaunchRecord("token", "bubblewrap", "20240102T030405-0123abcd", 1.5, (Identity(1, 2, "boot"),))
FULL = Record(Wanted.UP, LAUNCH)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def registry(root: Path) -> Registry:
    profiles = Profiles(root, None)
    profiles.make_room()
    return Registry(profiles)


@pytest.fixture
def path(registry: Registry, root: Path) -> Path:
    registry.write(DEMO, FULL)
    return root / "demo" / "session.json"


def test_nothing_is_known_of_a_new_code(registry: Registry) -> None:
    assert registry.read(DEMO) == Record(Wanted.DOWN, None)


@pytest.mark.parametrize("record", [Record(), Record(Wanted.UP), FULL])
def test_what_is_written_is_read(registry: Registry, root: Path, record: Record) -> None:
    registry.write(DEMO, record)
    assert registry.read(DEMO) == record
    assert (root / "demo" / "session.json").stat().st_mode & 0o777 == 0o600
    assert registry.read(ClientCode("demo2")) == Record()


_identities = st.builds(Identity, st.integers(), st.integers(), st.text())
_names = st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True)
_finite = st.floats(allow_nan=False, allow_infinity=False)
_launches = st.builds(
    LaunchRecord, _names, st.text(), _names, _finite, st.lists(_identities, max_size=3).map(tuple)
)


@settings(max_examples=50)
@given(record=st.builds(Record, st.sampled_from(Wanted), st.none() | _launches))
def test_any_record_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, record: Record
) -> None:
    profiles = Profiles(tmp_path_factory.getbasetemp() / "any", None)
    profiles.make_room()
    registry = Registry(profiles)
    registry.write(DEMO, record)
    assert registry.read(DEMO) == record


def test_a_torn_record_is_refused_wherever_it_was_torn(registry: Registry, path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole.rstrip())):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordCorrupt, match="cannot be understood"):
            registry.read(DEMO)


def _launch(**changes: str) -> bytes:
    return json.dumps({"token": "t", "kind": "plain", "generation": "", "started_at": 1.0} | changes).encode()


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file"),
    "zeros": (b"\0" * 4096, "the file"),
    "not UTF-8": (b'{"wanted": "\xff"}', "the file"),
    "a list": (b"[]", "the file"),
    "null": (b"null", "the file"),
    "nested too deep": (b"[" * 100_000, "the file"),
    "a newer schema": (b'{"schema": 2, "wanted": "up"}', "schema"),
    "no schema at all": (b'{"schema": null}', "schema"),
    "a schema of nothing": (b'{"schema": 0}', "schema"),
    "an unknown wish": (b'{"wanted": "sideways"}', "wanted"),
    "half a launch": (b'{"launch": {"token": "x"}}', "launch.kind"),
    "a launch of text": (b'{"launch": "x"}', "launch"),
    "a launch that everybody carries": (b'{"launch": %s}' % _launch(token=""), "launch.token"),
    "a launch of another place": (b'{"launch": %s}' % _launch(token="/../../a"), "launch.token"),
    "a launch on no profile": (b'{"launch": %s}' % _launch(generation="a\0b"), "launch.generation"),
    "no generation": (b'{"generation": "a\\u0000b"}', "generation"),
    "a generation of another place": (b'{"generation": "../../etc"}', "generation"),
    "no snapshot": (b'{"restored": "../a"}', "restored"),
    "no snapshot elsewhere": (b'{"elsewhere": {"x": {"restored": "a/b"}}}', "elsewhere.x.restored"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_understood_is_refused_with_the_place(
    registry: Registry, path: Path, kind: str
) -> None:
    data, where = BROKEN[kind]
    path.write_bytes(data)
    with pytest.raises(RecordCorrupt) as caught:
        registry.read(DEMO)
    assert str(path) in str(caught.value)
    assert f"cannot be understood: {where}: " in str(caught.value)


@pytest.mark.parametrize("key", ["pid", "start_ticks"])
@pytest.mark.parametrize("value", ["self", None, 1.5, [1], {}])
def test_an_identity_that_is_none_is_refused(registry: Registry, path: Path, key: str, value: Any) -> None:
    data = json.loads(path.read_bytes())
    data["launch"]["processes"][0][key] = value
    path.write_text(json.dumps(data))
    with pytest.raises(RecordCorrupt, match=f"launch.processes.0.{key}"):
        registry.read(DEMO)


def test_keys_of_a_later_release_are_ignored(registry: Registry, path: Path) -> None:
    data = json.loads(path.read_bytes())
    data["colour"] = data["launch"]["colour"] = "red"
    path.write_text(json.dumps(data))
    assert registry.read(DEMO) == FULL


def test_numbers_beyond_any_pid_are_nobody(registry: Registry, path: Path) -> None:
    data = json.loads(path.read_bytes())
    data["launch"]["processes"] = [
        {"pid": pid, "start_ticks": 1, "boot_id": "x"} for pid in (0, -1, 2**40, 10**300)
    ]
    path.write_text(json.dumps(data))
    launch = registry.read(DEMO).launch
    assert launch is not None
    assert [Identity.of(identity.pid) for identity in launch.processes] == [None] * 4
    assert not any(identity.current() for identity in launch.processes)


def test_a_record_that_may_not_be_read_is_said(registry: Registry, path: Path) -> None:
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageFailed, match=r"Cannot read .*: it is a directory"):
        registry.read(DEMO)


def test_set_aside_it_can_be_looked_at_and_a_new_one_begins(registry: Registry, path: Path) -> None:
    path.write_bytes(b"torn{")
    aside = registry.set_aside(DEMO)
    assert aside.read_bytes() == b"torn{"
    assert aside.parent == path.parent
    assert registry.read(DEMO) == Record()
    registry.write(DEMO, FULL)
    assert registry.read(DEMO) == FULL


def test_set_aside_twice_keeps_both(registry: Registry, path: Path) -> None:
    path.write_bytes(b"first")
    first = registry.set_aside(DEMO)
    path.write_bytes(b"second")
    second = registry.set_aside(DEMO)
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")


def test_even_a_directory_can_be_set_aside(registry: Registry, path: Path) -> None:
    for _ in range(2):
        path.unlink(missing_ok=True)
        (path / "inner").mkdir(parents=True)
        assert (registry.set_aside(DEMO) / "inner").is_dir()
        assert registry.read(DEMO) == Record()


def test_a_crash_while_writing_leaves_the_old_or_the_new(registry: Registry, path: Path) -> None:
    new = Record(Wanted.DOWN, None)
    seen = set()
    for _ in crash_points(lambda: registry.write(DEMO, new)):
        record = registry.read(DEMO)
        assert record in {FULL, new}
        seen.add(record)
        registry.write(DEMO, FULL)
    assert seen == {FULL, new}


def test_a_full_disk_leaves_the_old(registry: Registry, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(DiskFull):
            registry.write(DEMO, Record())
    assert registry.read(DEMO) == FULL
    assert [entry.name for entry in path.parent.iterdir()] == ["session.json"]


def test_a_link_in_its_place_is_replaced_and_not_written_through(
    registry: Registry, path: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises(StorageFailed, match=r"Cannot read .*: it is a link"):
        registry.read(DEMO)
    registry.write(DEMO, FULL)
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
