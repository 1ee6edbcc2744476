"""A client's profile goes down the ladder, is sealed and copied; and a crash at any step leaves the login whole, once."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import damage
import pytest
from bare_browser import BINARY
from crashes import STEPS, crashes_that_show
from house import DEMO, DEMO2, GO, USER, House
from trees import tree
from written import VERSION, Written

from waguard.core.model import Source, Verdict
from waguard.errors import ProfileLocked, SnapshotFailed, SnapshotNotFound, SnapshotRefused, WaguardError
from waguard.profile import witness
from waguard.profile.generation import Place
from waguard.profile.witness import Witness
from waguard.sandbox.plain import Plain
from waguard.session.custody import Custody
from waguard.session.ladder import Ladder
from waguard.snapshots.packing import About
from waguard.system.files import PARTIAL

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")]


@pytest.fixture
def house(in_memory: Path, small: Written) -> Iterator[House]:
    root = in_memory / "sessions"
    house = House(root, small)
    yield house
    house.custody.drop_lock()


# --- the ladder ---------------------------------------------------------------------------------------------


def test_a_sound_profile_is_kept(house: House) -> None:
    generation = house.log_in()
    taken = house.take()
    assert (taken.how, taken.profile.generation, taken.snapshot) == ("kept", generation, "")


def test_a_take_that_was_called_off_leaves_no_lock(house: House) -> None:
    house.log_in()
    stop = threading.Event()
    stop.set()
    with suppress(WaguardError):
        Ladder(house.custody).take(stop, None, has_login=True, generation=house.generation)
    assert (house.custody.locked, house.custody.lock_fd, house.custody.taking) == ("", -1, False)


def test_without_a_profile_there_is_an_empty_one(house: House) -> None:
    taken = Ladder(house.custody).take(GO, None)
    assert (taken.how, taken.check) == ("fresh", None)
    assert not list(taken.profile.path.iterdir())


def test_a_damaged_profile_is_replaced_by_its_snapshot_and_put_aside_whole(house: House) -> None:
    generation = house.log_in()
    snapshot = house.snapshot()
    house.spoil()
    before = tree(house.profiles.profile(generation).path)
    taken = house.take()
    assert (taken.how, taken.snapshot) == ("restored", snapshot.id)
    assert taken.check is not None
    assert taken.check.verdict is Verdict.DAMAGED
    assert house.has_login(taken.profile.path)
    assert taken.profile.lineage == house.profiles.profile(generation).lineage
    assert house.retired() == [f"{generation}.damaged"]
    (retired,) = house.profiles.aside.all()
    after = tree(retired.path)
    assert after.pop(".waguard-sequence") == b"%d" % retired.sequence
    assert after == before
    assert house.take().how == "kept", "and is sound from then on"


def test_a_spoilt_snapshot_gives_way_to_an_older_one(house: House) -> None:
    house.log_in()
    older, newer = house.snapshot(), house.snapshot()
    data = bytearray(newer.path.read_bytes())
    data[len(data) // 2] ^= 1
    newer.path.write_bytes(data)
    house.spoil()
    taken = house.take()
    assert (taken.how, taken.snapshot) == ("restored", older.id)
    assert [one.split(":")[0] for one in taken.refused] == [newer.id]
    assert "changed" in taken.refused[0]


def test_when_no_snapshot_can_be_used_the_answer_says_why(house: House) -> None:
    generation = house.log_in()
    snapshot = house.snapshot()
    snapshot.path.write_bytes(b"torn")
    house.spoil()
    taken = house.take()
    assert (taken.how, taken.snapshot) == ("fresh", "")
    assert taken.check is not None
    assert "MANIFEST" in taken.check.why
    assert house.retired() == [f"{generation}.damaged"]


def test_a_profile_that_somebody_deleted_by_hand_comes_back(house: House) -> None:
    generation = house.log_in()
    snapshot = house.snapshot()
    shutil.rmtree(house.profiles.profile(generation).path)
    taken = house.take()
    assert (taken.how, taken.snapshot) == ("restored", snapshot.id)
    assert taken.check is not None
    assert "nobody has dropped it" in taken.check.why


def test_what_was_dropped_does_not_come_back(house: House) -> None:
    house.log_in()
    house.snapshot()
    house.custody.retire("cleanup", has_login=True)
    assert house.take().how == "fresh"
    assert house.take(Source()).how == "fresh"
    current = house.profiles.current(DEMO)
    assert current is not None
    shutil.rmtree(current.path)
    assert house.take().how == "fresh", "its lineage has ended"


def test_a_snapshot_that_is_asked_for_takes_the_profiles_place(house: House) -> None:
    generation = house.log_in()
    snapshot = house.snapshot()
    house.custody.retire("cleanup", has_login=True)
    fresh = house.take().profile.generation
    taken = house.take(Source(snapshot.id))
    assert (taken.how, taken.snapshot) == ("restored", snapshot.id)
    assert house.has_login(taken.profile.path)
    assert house.retired() == [f"{generation}.cleanup", f"{fresh}.restore"]


@pytest.mark.parametrize("what", ["missing", "torn", "another client's"])
def test_a_snapshot_that_cannot_be_used_changes_nothing(house: House, what: str) -> None:
    generation = house.log_in()
    snapshot = house.snapshot()
    chosen = snapshot.id
    if what == "missing":
        chosen = "20300101T000000-01234567"
    elif what == "torn":
        os.truncate(snapshot.path, snapshot.size - 1)
    else:
        shutil.move(house.root / ".backups" / "demo", house.root / ".backups" / "demo2")
        house.custody = Custody(
            DEMO2, house.written.origin, VERSION, house.profiles, house.snapshots, Plain(None)
        )
        house.profiles.create(DEMO2)
    before = tree(house.root)
    with pytest.raises((SnapshotNotFound, SnapshotRefused)):
        house.take(Source(chosen))
    assert tree(house.root) == before
    assert house.profiles.profile(generation).path.is_dir()


def test_what_the_browser_found_damaged_is_not_used_again(house: House) -> None:
    house.log_in()
    snapshot = house.snapshot()
    taken = house.take(damage_reason="the browser has wiped it")
    assert (taken.how, taken.snapshot) == ("restored", snapshot.id)


# --- sealed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_sealed_profile_leaves_nothing_plain_and_comes_back_as_it_was(
    tmp_path: Path, small: Written, elsewhere: bool
) -> None:
    house = House(tmp_path / "sessions", small, tmp_path / "run" if elsewhere else None)
    generation = house.log_in()
    house.custody.seal(GO, has_login=True)
    assert house.profiles.find(DEMO)[0] is Place.SEALED
    for top in (house.root, tmp_path / "run"):
        for path in top.rglob("*"):
            assert not path.is_file() or b"last-wid-md" not in path.read_bytes(), path
    taken = house.take()
    assert (taken.how, taken.profile.generation) == ("kept", generation)
    assert house.has_login(taken.profile.path)
    if elsewhere:
        assert not list((house.root / ".profiles").glob("*/")), "nothing plain on the disk"
    house.custody.drop_lock()


def test_a_sealed_profile_that_was_touched_gives_way_to_a_snapshot(house: House) -> None:
    house.log_in()
    snapshot = house.snapshot()
    house.custody.seal(GO, has_login=True)
    (sealed,) = (house.root / ".profiles").glob("*.wgb")
    data = bytearray(sealed.read_bytes())
    data[-1] ^= 1
    sealed.write_bytes(data)
    taken = house.take()
    assert (taken.how, taken.snapshot) == ("restored", snapshot.id)
    assert taken.check is not None
    assert "changed" in taken.check.why


def test_the_last_sealed_form_stands_in_for_a_plain_one_that_is_damaged(house: House) -> None:
    house.log_in()
    house.custody.seal(GO, has_login=True)
    assert house.take().how == "kept"
    house.spoil()
    taken = house.take()
    assert taken.how == "restored"
    assert house.has_login(taken.profile.path)


def test_a_sealed_profile_that_is_dropped_stays_as_a_snapshot(house: House) -> None:
    house.log_in()
    house.custody.seal(GO, has_login=True)
    house.custody.retire("cleanup", has_login=True)
    assert house.profiles.find(DEMO)[0] is Place.NONE
    (snapshot,) = house.snapshots.of(DEMO)
    assert house.has_login(house.take(Source(snapshot.id)).profile.path)


# --- a copy -------------------------------------------------------------------------------------------------


def test_a_damaged_profile_makes_no_snapshot(house: House) -> None:
    house.log_in()
    house.spoil()
    with pytest.raises(SnapshotRefused, match=r"The profile is damaged: .*MANIFEST"):
        house.snapshot()
    assert house.snapshots.of(DEMO) == []


def test_a_profile_that_others_use_is_not_copied(house: House, tmp_path: Path) -> None:
    generation = house.log_in()
    fd = house.profiles.lock(house.profiles.profile(generation))
    (tmp_path / "room").mkdir()
    with pytest.raises(ProfileLocked):
        house.custody.copy(tmp_path / "room", "request", has_login=True, held_still=None)
    os.close(fd)


def test_without_a_profile_there_is_nothing_to_copy(house: House, tmp_path: Path) -> None:
    with pytest.raises(SnapshotFailed, match="no profile to take a snapshot of"):
        house.custody.copy(tmp_path, "request", has_login=True, held_still=None)


# --- a crash at every step ------------------------------------------------------------------------------------


def whole(house: House, generation: str) -> None:
    """What a daemon finds that starts after a crash: the login, once, and nothing half done."""
    house.again()
    house.sweep()
    assert house.sweep() == [], "a second sweep finds nothing"
    assert not list(house.root.rglob(f"*{PARTIAL}"))
    for snapshot in house.snapshots.of(DEMO):
        house.snapshots.read(GO, snapshot.path, DEMO)
    taken = house.take()
    assert house.has_login(taken.profile.path), taken
    directories = [path for path in (house.root / ".profiles").iterdir() if path.is_dir()]
    assert directories == [taken.profile.path], "one profile, and it is the client's"
    assert taken.profile.lineage == generation.split("-")[1]


class Crashes:
    """The same start for each crash: a copy of the house as it was."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._kept = house.root.with_name("kept")
        self._generation = house.generation
        shutil.copytree(house.root, self._kept, symlinks=True)

    def back(self) -> None:
        shutil.rmtree(self.house.root)
        shutil.copytree(self._kept, self.house.root, symlinks=True)
        for path in (self.house.root / ".profiles").glob("*/**/*"):
            if USER is not None:
                os.chown(path, USER.uid, USER.gid, follow_symlinks=False)
        for path in (self.house.root / ".profiles").glob("*/"):
            if USER is not None:
                os.chown(path, USER.uid, USER.gid)
        self.house.generation = self._generation
        self.house.again()


@pytest.mark.parametrize("work", ["ladder", "asked for", "seal", "unseal", "copy"])
def test_a_daemon_that_dies_at_any_step_loses_no_login(house: House, work: str) -> None:
    generation = house.log_in()
    snapshot = house.snapshot() if work in {"ladder", "asked for"} else None
    if work == "ladder":
        house.spoil()
    if work == "unseal":
        house.custody.seal(GO, has_login=True)
    crashes = Crashes(house)

    def do() -> None:
        match work:
            case "ladder" | "unseal":
                assert house.take().how == ("restored" if work == "ladder" else "kept")
            case "asked for":
                assert snapshot is not None
                assert house.take(Source(snapshot.id)).how == "restored"
            case "seal":
                assert house.custody.seal(GO, has_login=True)
            case _:
                house.snapshot()

    points = 0
    for _ in crashes_that_show(do, STEPS, house.root):
        points += 1
        shutil.rmtree(house.root / "room", ignore_errors=True)  # the test's own
        whole(house, generation)
        crashes.back()
    assert points > 15


def test_a_daemon_that_dies_at_any_step_of_a_cleanup_has_dropped_it_whole_or_not_at_all(house: House) -> None:
    generation = house.log_in()
    crashes = Crashes(house)

    def clean() -> None:
        _, profile = house.profiles.find(DEMO)
        house.custody.retire("cleanup", has_login=True)
        assert profile is not None
        house.profiles.drop_lock(profile)

    outcomes = set()
    for _ in crashes_that_show(clean, STEPS, house.root):
        house.again()
        house.sweep()
        assert house.sweep() == []
        taken = house.take()
        outcomes.add(taken.how)
        kept = taken.profile.path if taken.how == "kept" else house.profiles.aside.all()[0].path
        assert house.has_login(kept)
        assert house.retired() == ([] if taken.how == "kept" else [f"{generation}.cleanup"])
        crashes.back()
    assert outcomes == {"kept", "fresh"}


def test_about_says_what_it_was_taken_of(house: House) -> None:
    generation = house.log_in()
    about = house.snapshot("schedule").about
    assert isinstance(about, About)
    assert (about.client, about.generation, about.reason, about.browser) == (
        "demo",
        generation,
        "schedule",
        VERSION,
    )
    assert about.login
    assert not about.live


def test_a_plain_profile_from_before_there_was_a_runtime_directory_is_found_and_sealed(house: House) -> None:
    house.log_in()
    house.runtime = house.root / "run"
    house.again()
    house.profiles.make_room()
    assert house.profiles.find(DEMO)[0] is Place.PLAIN
    house.custody.seal(GO, has_login=True)
    assert house.profiles.find(DEMO)[0] is Place.SEALED
    taken = house.take()
    assert (taken.how, taken.profile.path.parent) == ("kept", house.runtime)
    assert house.has_login(taken.profile.path)


def test_after_the_host_has_died_a_snapshot_that_is_newer_goes_before_the_sealed_form(house: House) -> None:
    house.log_in()
    house.custody.seal(GO, has_login=True)
    profile = house.take().profile
    witness.write(profile.witness, Witness(VERSION))  # a browser was started
    snapshot = house.snapshot()
    shutil.rmtree(profile.path)  # it was on a tmpfs
    taken = house.take()
    assert (taken.how, taken.snapshot) == ("restored", snapshot.id)
    house.custody.seal(GO, has_login=True)
    assert house.take().how == "kept"


def test_a_login_whose_mark_may_be_in_a_table_is_not_called_empty(house: House) -> None:
    house.log_in()
    profile = house.profiles.current(DEMO)
    assert profile is not None
    store = damage.local_storage(profile.path)
    for log in store.glob("*.log"):
        log.rename(log.with_suffix(".ldb"))
        log.with_suffix(".ldb").write_bytes(b"packed")
    place = house.custody.retire("cleanup", has_login=False)
    assert place is not None
    assert place.name.endswith(".cleanup")
