"""Values that apps keep with a session: the rules, and their owner against a model, with files, clocks and daemons that go wrong."""

import asyncio
import hashlib
import json
import os
import shutil
import string
import tempfile
import threading
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from crashes import crash_points
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from waguard.config.sections import Deadlines
from waguard.core.condition import ALWAYS, Condition
from waguard.core.model import ClientCode
from waguard.core.values import (
    MOST_ALL,
    MOST_BYTES,
    MOST_VALUES,
    Value,
    check_key,
    check_room,
    check_size,
    check_type,
)
from waguard.errors import (
    DeadlineExceeded,
    DiskFull,
    InvalidRequest,
    NoSuchValue,
    PreconditionFailed,
    StorageFailed,
    TenureLost,
    ValuesFull,
    ValueTooLarge,
    WaguardError,
)
from waguard.profile.aside import Aside
from waguard.session.value_files import ValueFiles, name_of
from waguard.session.values import Values
from waguard.system import threads
from waguard.system.files import PARTIAL

T = TypeVar("T")
DEMO = ClientCode("demo")
NOW = 1_900_000_000.0
ONE = Value("one", "text/plain", 3, "5f3a", NOW, 60.0)
STAYS = replace(ONE, ttl_s=None)

# --- the rules -----------------------------------------------------------------------------------------------

KEYS = "A-Z a-z 0-9 . _ : @ = + ~ -"


@pytest.mark.parametrize(
    "key",
    ["a", "0", "last", "true_34600000001@c.us_3EB0C0FFEE", "a" * 128, "x." + PARTIAL, "a:b=c+d~e-f"],
)
def test_keys(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "_a",
        "-a",
        "a b",
        "a\n",
        "\0",
        "a" * 129,
        "é",
        "\u0661",
        "a\ud800",
        "a%2F",
        "a\\b",
        "<a>",
    ],
)
def test_what_is_no_key_is_told_what_would_be_one(key: str) -> None:
    with pytest.raises(InvalidRequest, match="is no key") as refused:
        check_key(key)
    assert KEYS in refused.value.hint


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, "application/octet-stream"),
        ("application/json", "application/json"),
        (" text/plain; charset=utf-8 ", "text/plain; charset=utf-8"),
        ('multipart/form-data; boundary="a b"', 'multipart/form-data; boundary="a b"'),
        ("application/vnd.api+json;a=b ;c=d", "application/vnd.api+json;a=b ;c=d"),
    ],
)
def test_types(given: str | None, kept: str) -> None:
    assert check_type(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "",
        "text",
        "text/",
        "/plain",
        "text/plain;",
        "text/plain; a",
        "a/b\r\nX-Odd: c",
        "a/é",
        "a/" + "b" * 200,
    ],
)
def test_what_is_no_type_is_not_sent_back(given: str) -> None:
    with pytest.raises(InvalidRequest, match="is none"):
        check_type(given)


@given(st.text(string.ascii_letters + string.punctuation + " \t\r\n\0é", max_size=60))
def test_a_type_that_is_taken_is_one_line_of_ascii(given: str) -> None:
    try:
        kept = check_type(given)
    except InvalidRequest:
        return
    assert kept.isascii()
    assert kept.isprintable() or "\t" in kept
    assert not {*kept} & {"\r", "\n", "\0"}


def test_how_much() -> None:
    check_size(MOST_BYTES)
    with pytest.raises(ValueTooLarge, match="64 KiB"):
        check_size(MOST_BYTES + 1)
    full = [replace(ONE, bytes=MOST_BYTES)] * (MOST_ALL // MOST_BYTES)
    check_room(full, 0, "demo")
    check_room(full[1:], MOST_BYTES, "demo")
    with pytest.raises(ValuesFull, match="demo would have 1048577 bytes, and 1 MiB is the most"):
        check_room(full, 1, "demo")
    many = [replace(ONE, bytes=0)] * MOST_VALUES
    check_room(many[1:], 0, "demo")
    with pytest.raises(ValuesFull, match="more than 1000 values") as refused:
        check_room(many, 0, "demo")
    assert refused.value.hint.endswith("waguard values demo")


@given(st.floats(1, 1e9), st.floats(-1e10, 1e10))
def test_none_outlives_its_time_twice_however_the_clock_leaps(ttl_s: float, later_s: float) -> None:
    value = replace(ONE, ttl_s=ttl_s)
    assert value.is_over(NOW + later_s) is not (-ttl_s <= (NOW + later_s) - NOW < ttl_s)
    assert value.expires_at == NOW + ttl_s
    assert STAYS.expires_at is None
    assert not STAYS.is_over(NOW + later_s)


@pytest.mark.parametrize(
    ("match", "none_match", "there", "met"),
    [
        (None, None, ONE, True),
        (None, None, None, True),
        ('"5f3a"', None, ONE, True),
        ('"other" ,  "5f3a"', None, ONE, True),
        ('"other"', None, ONE, False),
        ('"5f3a"', None, None, False),
        ('W/"5f3a"', None, ONE, False),
        ("*", None, ONE, True),
        ("*", None, None, False),
        (None, "*", ONE, False),
        (None, " * ", None, True),
        (None, '"5f3a"', ONE, False),
        (None, 'W/"5f3a"', ONE, False),
        (None, '"other"', ONE, True),
        (None, '"5f3a"', None, True),
        ('"5f3a"', "*", ONE, False),
    ],
)
def test_conditions(match: str | None, none_match: str | None, there: Value | None, met: bool) -> None:
    condition = Condition.of(match, none_match)
    if met:
        condition.check(there)
        return
    with pytest.raises(PreconditionFailed) as refused:
        condition.check(there)
    assert refused.value.details == ({"etag": '"5f3a"'} if there is not None else {})


@pytest.mark.parametrize(
    "header", ["", "5f3a", '"5f3a', '"a" "b"', '"a",', "*, *", '"a\0"', '"a b"', 'w/"a"']
)
def test_what_has_no_etags_is_refused_and_not_left_out(header: str) -> None:
    for both in ((header, None), (None, header)):
        with pytest.raises(InvalidRequest, match=r"If-(None-)?Match header .* has no ETags"):
            Condition.of(*both)


def test_who_has_it_already() -> None:
    assert Condition.of(None, '"5f3a"').is_known(ONE)
    assert not Condition.of(None, '"other"').is_known(ONE)
    assert not ALWAYS.is_known(ONE)


# --- their owner, against a model -------------------------------------------------------------------------------


class Store:
    """The owner of one client's values, in a directory of sessions that is there."""

    def __init__(self, root: Path, seconds: float = 30.0) -> None:
        self.root, self.seconds = root, seconds
        self.now = NOW
        self.said: list[dict[str, Any]] = []
        self.lost = False
        (root / ".retired").mkdir(mode=0o700)
        (root / "demo").mkdir(mode=0o700)
        self.restart()

    def restart(self) -> None:
        self.files = ValueFiles(self.root, DEMO)
        self.aside = Aside(self.root, (self.root,))
        self.values = Values(
            DEMO,
            self.files,
            self.aside,
            Deadlines(prepare=self.seconds),
            self._check_tenure,
            self._publish,
            lambda: self.now,
        )

    def _check_tenure(self) -> None:
        if self.lost:
            raise TenureLost("It is another daemon's.")

    def _publish(self, name: str, **fields: Any) -> None:
        assert name == "values.unreadable"
        self.said.append(fields)

    async def put(self, key: str, said: bytes = b"x", **more: Any) -> Value:
        return await self.values.put(key, said, "text/plain", **more)

    async def keys(self) -> list[str]:
        return [one.key for one in await self.values.all()]

    def path(self, key: str) -> Path:
        return self.files.folder / name_of(key)

    def unreadable(self) -> list[str]:
        return sorted(path.name for path in (self.root / "demo").glob("*.unreadable"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


NAMES = st.sampled_from(["a", "b", "c", "A", "last:34600000001@c.us"])
BODIES = st.binary(max_size=30) | st.sampled_from([b"", b"\n", b"{}\n{}", bytes(MOST_BYTES), bytes(30_000)])


class Life(RuleBasedStateMachine):
    """What is kept is what a dictionary keeps: byte for byte, as long as it is to live, whatever the daemon and the clock do."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = Store(Path(tempfile.mkdtemp(prefix="waguard-values-")))
        self.model: dict[str, tuple[bytes, Value]] = {}
        self.retired = 0

    def teardown(self) -> None:
        self.loop.run_until_complete(_end())
        self.loop.close()
        shutil.rmtree(self.store.root)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def living(self) -> dict[str, tuple[bytes, Value]]:
        return {key: one for key, one in self.model.items() if not one[1].is_over(self.store.now)}

    @rule(key=NAMES, said=BODIES, ttl_s=st.none() | st.sampled_from([1.0, 50.0, 1e6]), condition=st.data())
    def put(self, key: str, said: bytes, ttl_s: float | None, condition: st.DataObject) -> None:
        others = self.living()
        there = others.pop(key, None)
        wanted = self._condition(condition)
        try:
            value = self.do(self.store.put(key, said, ttl_s=ttl_s, condition=wanted))
        except PreconditionFailed:
            assert not self._met(wanted, there)
        except ValuesFull:
            assert sum(len(body) for body, _ in others.values()) + len(said) > MOST_ALL
        else:
            assert self._met(wanted, there)
            assert not there or value.etag != there[1].etag
            assert value == Value(key, "text/plain", len(said), value.version, self.store.now, ttl_s)
            self.model[key] = said, value

    @rule(key=NAMES, condition=st.data())
    def delete(self, key: str, condition: st.DataObject) -> None:
        there = self.living().get(key)
        wanted = self._condition(condition)
        try:
            self.do(self.store.values.delete(key, wanted))
        except PreconditionFailed:
            assert not self._met(wanted, there)
        except NoSuchValue:
            assert there is None
        else:
            assert self._met(wanted, there)
            del self.model[key]

    def _condition(self, data: st.DataObject) -> Condition:
        tags = st.none() | st.sampled_from(['"x"', "*", *(one.etag for _, one in self.model.values())])
        return Condition.of(data.draw(tags), data.draw(tags))

    def _met(self, wanted: Condition, there: tuple[bytes, Value] | None) -> bool:
        etags = {"*", there[1].etag} if there else set()
        return (wanted.match is None or bool(wanted.match & etags)) and not (
            wanted.none_match is not None and wanted.none_match & etags
        )

    @rule(seconds=st.sampled_from([0.5, 60.0, 2e6, -30.0, -3e6]))
    def wait(self, seconds: float) -> None:
        self.store.now += seconds

    @rule()
    def restart(self) -> None:
        self.store.restart()

    @rule()
    def sweep(self) -> None:
        over = self.model.keys() - self.living().keys()
        dropped = self.do(self.store.values.drop_over())
        assert dropped <= len(over)  # what was over may have gone by a write
        self.model = self.living()
        left = [path.name for path in self.store.files.folder.glob("*")]
        assert sorted(left) == sorted(map(name_of, self.model))

    @rule()
    def clean(self) -> None:
        living = self.living()
        told = self.do(self.store.values.retire())
        size = sum(len(body) for body, _ in living.values())
        if told is None:
            assert not living
        else:
            self.retired += 1
            assert told.startswith(f"{len(living)} ({size} bytes) retired as demo.")
        self.model = {}
        assert len(self.store.aside.all()) == self.retired
        assert not self.store.files.folder.exists()

    @invariant()
    def it_is_what_the_model_has(self) -> None:
        living = self.living()
        assert self.do(self.store.values.all()) == [living[key][1] for key in sorted(living)]
        for key in ("a", "b", "c", "A", "last:34600000001@c.us"):
            if key in living:
                assert self.do(self.store.values.get(key)) == (living[key][1], living[key][0])
            else:
                with pytest.raises(NoSuchValue):
                    self.do(self.store.values.get(key))
        assert self.store.said == []
        # A restored clock must not bring back what a write has deleted meanwhile.
        self.model = {key: one for key, one in self.model.items() if self.store.path(key).exists()}


async def _end() -> None:
    threads.of_this_loop().end()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


# --- what goes wrong ---------------------------------------------------------------------------------------------


async def test_a_full_client_is_told_so_and_keeps_what_it_has(store: Store) -> None:
    for number in range(16):
        await store.put(f"v{number}", bytes(MOST_BYTES))
    with pytest.raises(ValuesFull):
        await store.put("more")
    assert len(await store.keys()) == 16
    await store.put("v3", bytes(MOST_BYTES - 1))  # in the place of its own
    await store.put("more")
    with pytest.raises(ValueTooLarge):
        await store.put("v3", bytes(MOST_BYTES + 1))
    assert (await store.values.get("v3"))[0].bytes == MOST_BYTES - 1


async def test_what_is_over_makes_room_on_disk_too(store: Store) -> None:
    for number in range(16):
        await store.put(f"v{number}", bytes(MOST_BYTES), ttl_s=60.0)
    store.now += 60
    assert await store.keys() == []
    await store.put("new", bytes(MOST_BYTES))
    assert [path.name for path in store.files.folder.iterdir()] == [name_of("new")]


async def test_two_who_write_at_a_time_do_not_overwrite_each_other(store: Store) -> None:
    """A counter that many add to, each by what it has read."""
    await store.put("count", b"0")
    tries = 0

    async def add() -> None:
        nonlocal tries
        while True:
            tries += 1
            value, said = await store.values.get("count")
            try:
                await store.put(
                    "count", str(int(said) + 1).encode(), condition=Condition.of(value.etag, None)
                )
            except PreconditionFailed:
                continue
            return

    await asyncio.gather(*(add() for _ in range(10)))
    assert (await store.values.get("count"))[1] == b"10"
    assert tries > 10, "some had to try again"
    first = [store.put("once", str(one).encode(), condition=Condition.of(None, "*")) for one in range(10)]
    done = await asyncio.gather(*first, return_exceptions=True)
    assert sum(isinstance(one, Value) for one in done) == 1


@pytest.mark.parametrize(
    "kind", ["nothing", "half a head", "half of it", "other bytes", "longer", "another's"]
)
async def test_a_torn_one_is_put_aside_and_told_and_the_others_stay(store: Store, kind: str) -> None:
    await store.put("torn", b"x" * 100)
    await store.put("whole", b"w")
    path = store.path("torn")
    data = path.read_bytes()
    spoilt = {
        "nothing": b"",
        "half a head": data[:40],
        "half of it": data[:-50],
        "other bytes": data[:-50] + b"y" * 50,
        "longer": data + b"z",
        "another's": store.path("whole").read_bytes(),
    }[kind]
    path.write_bytes(spoilt)
    store.restart()
    with pytest.raises(NoSuchValue):
        await store.values.get("torn")
    assert await store.keys() == ["whole"]
    (told,) = store.said
    assert told["error"].startswith("A value cannot be read: ")
    assert Path(told["kept_as"]).parent == store.root / "demo", "no name is made of the key"
    (aside,) = store.unreadable()
    assert (store.root / "demo" / aside).read_bytes() == spoilt
    await store.put("torn", b"new")
    assert (await store.values.get("torn"))[1] == b"new"


@pytest.mark.parametrize(
    "head",
    [
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1}',
        b'{"format": 0}',
        b"\xff",
        b"[" * 1500,
        b"x" * 5000,
    ],
)
async def test_heads_of_all_kinds(store: Store, head: bytes) -> None:
    await store.put("odd")
    for written in (head, head + b"\nx"):
        store.path("odd").write_bytes(written)
        store.restart()
        assert await store.keys() == []
    assert len(store.unreadable()) == len(store.said) == 2


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("bytes", -1),
        ("bytes", 10**30),
        ("bytes", "many"),
        ("key", "another"),
        ("key", None),
        ("written_at", "soon"),
        ("ttl_s", 0),
        ("ttl_s", -5),
        ("sha256", "0"),
    ],
)
async def test_fields_of_all_kinds(store: Store, field: str, wrong: object) -> None:
    await store.put("odd", b"x")
    line, _, said = store.path("odd").read_bytes().partition(b"\n")
    store.path("odd").write_bytes(json.dumps({**json.loads(line), field: wrong}).encode() + b"\n" + said)
    with pytest.raises(NoSuchValue):
        await store.values.get("odd")
    assert len(store.said) == 1


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _directory(path: Path) -> None:
    path.mkdir()


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("made", [_fifo, _link, _directory, _huge])
async def test_what_is_no_file_is_waited_for_by_nobody(store: Store, made: Any) -> None:
    await store.put("whole")
    made(store.path("odd"))
    store.restart()
    assert await store.keys() == ["whole"]
    made(store.path("odd"))
    with pytest.raises(NoSuchValue):
        await store.values.get("odd")
    assert len(store.unreadable()) == len(store.said) == 2
    assert await store.keys() == ["whole"]


async def test_a_folder_that_is_none_is_put_aside_whole(store: Store) -> None:
    for made in (_fifo, _link):
        made(store.files.folder)
        store.restart()
        assert await store.keys() == []
    store.files.folder.mkdir()
    for number in range(MOST_VALUES + 1):
        (store.files.folder / name_of(str(number))).touch()
    store.restart()
    assert await store.keys() == []
    assert len(store.unreadable()) == 3
    assert all(one.startswith("values.") for one in store.unreadable())
    assert [one["error"].partition(":")[0] for one in store.said] == ["The values cannot be read"] * 3
    await store.put("new")
    assert await store.keys() == ["new"]


async def test_one_of_a_newer_version_is_left_as_it_is(store: Store) -> None:
    await store.put("old")
    said = store.path("old").read_bytes().partition(b"\n")[2]
    newer = json.dumps({"format": 2, "name": "new", "sealed": True}).encode() + b"\n" + said
    store.path("new").write_bytes(newer)
    store.restart()
    assert await store.keys() == ["old"]
    for ask in (
        store.values.get("new"),
        store.put("new"),
        store.put("new", condition=Condition.of(None, "*")),
    ):
        with pytest.raises(StorageFailed, match="newer version"):
            await ask
    with pytest.raises(NoSuchValue):
        await store.values.delete("new")
    assert store.path("new").read_bytes() == newer
    assert await store.values.drop_over() == 0
    assert store.said == []


async def test_what_is_not_ours_among_them_is_left(store: Store) -> None:
    await store.put("a")
    for name in ("README", f"{name_of('x')}.0123abcd{PARTIAL}", name_of("x").upper()):
        (store.files.folder / name).touch()
    store.restart()
    assert await store.keys() == ["a"]
    assert store.said == []
    assert len([*store.files.folder.iterdir()]) == 4


async def test_a_failed_write_says_so_and_keeps_the_one_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("a", b"before")
    real, left = os.fsync, [OSError(28, "No space left on device"), OSError(5, "Input/output error")]

    def fsync(fd: int) -> None:
        if left:
            raise left.pop(0)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskFull, match="No space left"):
        await store.put("a", b"after")
    with pytest.raises(StorageFailed, match="Input/output error"):
        await store.put("b", b"after")
    assert (await store.values.get("a"))[1] == b"before"
    assert await store.keys() == ["a"]
    assert not [*store.files.folder.glob(f"*{PARTIAL}")]
    await store.put("a", b"after")
    assert (await store.values.get("a"))[1] == b"after"


async def test_a_write_of_which_nobody_knows_is_looked_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has its name, and the directory could not be synced: whatever is there then is what is told."""
    first = await store.put("a", b"before")
    real, synced = os.fsync, 0

    def fsync(fd: int) -> None:
        nonlocal synced
        synced += 1
        if synced == 2:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageFailed):
        await store.put("a", b"after")
    there, said = await store.values.get("a")
    assert said == b"after"
    (listed,) = await store.values.all()
    assert listed == there
    with pytest.raises(PreconditionFailed):
        await store.put("a", condition=Condition.of(first.etag, None))
    await store.put("a", condition=Condition.of(there.etag, None))


async def test_who_hangs_up_leaves_nothing_half_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = ValueFiles.write

    def write(files: ValueFiles, value: Value, said: bytes) -> None:
        begun.set()
        assert go_on.wait(10)
        real(files, value, said)

    monkeypatch.setattr(ValueFiles, "write", write)
    putting = asyncio.create_task(store.put("a", b"said"))
    assert await asyncio.to_thread(begun.wait, 10)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert not store.values.untouched
    go_on.set()
    assert (await store.values.get("a"))[1] == b"said", "its turn comes first"
    assert await store.keys() == ["a"]


async def test_a_disk_that_hangs_is_waited_for_no_longer_than_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, seconds=0.1)
    await store.put("a", b"before")
    go_on, real = threading.Event(), ValueFiles.write

    def write(files: ValueFiles, value: Value, said: bytes) -> None:
        assert go_on.wait(30)
        real(files, value, said)

    monkeypatch.setattr(ValueFiles, "write", write)
    monkeypatch.setattr(threads.of_this_loop(), "_timing", threads.Timing(grace=0.05))
    try:
        with pytest.raises(DeadlineExceeded, match=r"reading or writing values took longer than 0\.1 s"):
            await store.put("a", b"after")
        with pytest.raises(WaguardError) as refused:
            await store.values.get("a")
        assert refused.value.code == "storage_hangs"
    finally:
        go_on.set()
    while True:  # until the thread is back
        try:
            assert (await store.values.get("a"))[1] == b"after"
        except WaguardError as error:
            assert error.code == "storage_hangs"  # noqa: PT017 (it is asked again)
            await asyncio.sleep(0.01)
            continue
        break


def test_a_daemon_that_dies_at_any_step_leaves_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    files = ValueFiles(tmp_path, DEMO)
    old, new = (Value("a", "text/plain", 3, version, NOW) for version in ("old", "new"))
    seen = set()

    def again() -> None:
        shutil.rmtree(tmp_path / "demo", ignore_errors=True)
        files.write(old, b"old")

    again()
    for _ in crash_points(lambda: files.write(new, b"new")):
        value, said = files.read("a") or (old, b"")
        assert (value, said) in {(old, b"old"), (new, b"new")}
        assert [*files.all(lambda *_: pytest.fail("nothing is put aside"))] == ["a"]
        seen.add(said)
        again()
    assert seen == {b"old", b"new"}


def test_a_daemon_that_dies_at_any_step_of_the_first_one_leaves_none_or_it(tmp_path: Path) -> None:
    files, value = ValueFiles(tmp_path, DEMO), Value("a", "text/plain", 3, "new", NOW)
    seen = set()
    for _ in crash_points(lambda: files.write(value, b"new")):
        there = files.read("a")
        assert there in {None, (value, b"new")}
        seen.add(there)
        shutil.rmtree(tmp_path / "demo", ignore_errors=True)
    assert seen == {None, (value, b"new")}


async def test_another_daemons_client_gets_nothing_written(store: Store) -> None:
    await store.put("a", b"x", ttl_s=1.0)
    before = store.path("a").read_bytes()
    store.lost, store.now = True, NOW + 10
    values = store.values
    changing = (
        store.put("a"),
        values.delete("a"),
        values.drop_over(),
        values.retire(),
        values.bring_back("x", "y"),
    )
    for ask in (*changing, values.get("a"), values.all()):  # who reads puts aside what is torn
        with pytest.raises(TenureLost):
            await ask
    assert store.path("a").read_bytes() == before


async def test_it_is_kept_in_a_file_of_the_daemons_alone(store: Store) -> None:
    await store.put("a", b"1\n2")
    path = store.path("a")
    assert path.name == hashlib.sha256(b"a").hexdigest() + ".value"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.read_bytes().endswith(b"}\n1\n2")


async def test_retired_they_are_beside_the_profiles(store: Store) -> None:
    assert await store.values.retire() is None
    await store.put("a", b"12345")
    await store.put("b", b"6")
    told = await store.values.retire()
    (retired,) = await asyncio.to_thread(store.aside.all)
    assert told == f"2 (6 bytes) retired as {retired.path.name}"
    assert (retired.code, retired.reason, retired.saved) == ("demo", "values", True)
    assert store.values.untouched
    await store.put("c")
    await store.values.delete("c")
    assert await store.values.retire() is None, "an empty folder is no news"
    assert await asyncio.to_thread(store.aside.all) == [retired]
    await asyncio.to_thread(store.aside.delete, retired.path)
    assert await asyncio.to_thread(store.aside.all) == []
