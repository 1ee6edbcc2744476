"""Where profiles live: one rename to leave, one lock to hold, nothing of others ever followed or deleted."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Daemon, Journal, deleted
from crashes import crash_points
from processes import held_elsewhere

from waguard.core.model import ClientCode, Status
from waguard.errors import NotOurs, ProfileLocked, StorageFailed
from waguard.profile import aside
from waguard.profile.generation import Profile
from waguard.profile.store import Profiles
from waguard.sandbox import User, reaper
from waguard.system import files, host
from waguard.system.files import partial

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
GENERATION = "20240102T030405-0123abcd"


@pytest.fixture
def profiles(tmp_path: Path) -> Profiles:
    profiles = Profiles(tmp_path / "sessions", None)
    profiles.make_room()
    return profiles


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A directory outside; the test fails if anything in it changes."""
    place = tmp_path / "precious"
    place.mkdir()
    (place / "letter").write_text("dear")
    place.chmod(0o755)
    before = (place.stat().st_ino, place.stat().st_mtime_ns, place.stat().st_mode)
    yield place
    assert (place.stat().st_ino, place.stat().st_mtime_ns, place.stat().st_mode) == before
    assert (place / "letter").read_text() == "dear"
    assert [entry.name for entry in place.iterdir()] == ["letter"]


def holders(lock: Path) -> list[int]:
    return [holder.identity.pid for holder in reaper.lock_holders([lock])]


def test_what_goes_meanwhile_has_nothing_that_is_not_completed(
    profiles: Profiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep looks while a cleanup deletes."""
    gone, stays = (root / ".transfer" / code / "uploads" for code in ("demo", "demo2"))
    for place in (gone, stays):
        place.mkdir(parents=True)
    real = os.scandir
    with partial(stays / "x") as left:
        left.mkdir()
        assert profiles.partials() == [left]

        def scandir(place: Path) -> object:
            if place == gone and gone.exists():
                gone.rmdir()
            return real(place)

        monkeypatch.setattr(os, "scandir", scandir)
        assert profiles.partials() == [left]
    assert not gone.exists()


def filled(profiles: Profiles, code: ClientCode = DEMO) -> Profile:
    profile = profiles.create(code)
    (profile.path / "Default").mkdir()
    (profile.path / "Default" / "mark").write_text(profile.generation)
    return profile


def test_what_is_deleted_has_lost_its_name_before(
    profiles: Profiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an undo beside it brings back all of a profile, or finds none."""
    filled(profiles)
    place = profiles.retire(DEMO, "cleanup")
    assert place is not None
    real, seen = files.remove_tree, []

    def remove_tree(top: Path) -> None:
        seen.append((place.exists(), profiles.aside.all()))
        real(top)

    monkeypatch.setattr(aside, "remove_tree", remove_tree)
    profiles.aside.delete(place)
    assert seen == [(False, [])]
    assert list(place.parent.iterdir()) == []


# --- rooms ------------------------------------------------------------------------------------------------


def test_the_rooms_are_closed_to_others(profiles: Profiles, root: Path) -> None:
    profile = profiles.create(DEMO)
    os.close(profiles.lock(profile))
    modes = {
        root: 0o711,
        root / ".profiles": 0o711,
        root / ".retired": 0o700,
        root / "demo": 0o700,
        profile.path: 0o700,
        profile.lock: 0o600,
    }
    assert {path: path.stat().st_mode & 0o777 for path in modes} == modes
    profiles.make_room()
    profiles.home(DEMO)


def test_a_file_in_the_place_of_a_room_is_said(tmp_path: Path) -> None:
    (tmp_path / "sessions").touch()
    with pytest.raises(StorageFailed, match=r"Cannot create .*sessions"):
        Profiles(tmp_path / "sessions", None).make_room()


def test_codes_are_the_directories_that_do_not_begin_with_a_dot(profiles: Profiles, root: Path) -> None:
    for name in ("demo2", "demo", "not a code", ".hidden"):
        (root / name).mkdir()
    (root / "file").touch()
    assert profiles.codes() == ["demo", "demo2", "not a code"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a profile away")
def test_a_profile_belongs_to_the_browsers_user_and_nothing_else_does(
    tmp_path: Path, sessions_dir: Path
) -> None:
    profiles = Profiles(sessions_dir, User("nobody", 65534, 65534))
    profiles.make_room()
    profile = profiles.create(DEMO)
    owners = {path: path.stat().st_uid for path in (sessions_dir / "demo", profile.path.parent, profile.path)}
    assert list(owners.values()) == [0, 0, 65534]


# --- the current profile ------------------------------------------------------------------------------------


def test_the_newest_profile_is_current(profiles: Profiles, root: Path) -> None:
    assert profiles.current(DEMO) is None
    first, second = profiles.create(DEMO), profiles.create(DEMO)
    assert first.generation != second.generation
    assert profiles.current(DEMO) == second
    assert profiles.current(DEMO2) is None
    assert (root / "demo" / "profile").readlink() == Path("../.profiles") / second.generation
    assert sorted(entry.name for entry in (root / "demo").iterdir()) == ["profile"]


@pytest.mark.parametrize(
    "target",
    [
        "../../precious",
        "../../etc",
        "/etc",
        "/",
        "..",
        "../.profiles",
        "../.profiles/..",
        "../.profiles/" + GENERATION,
        "../../precious/../precious/" + GENERATION,
        "../.profiles/" + GENERATION + "x",
        "../.retired/demo." + GENERATION + ".cleanup",
    ],
)
def test_a_link_that_points_elsewhere_is_never_followed(
    profiles: Profiles, root: Path, precious: Path, target: str
) -> None:
    home = profiles.home(DEMO)
    (home / "profile").symlink_to(target)
    assert profiles.current(DEMO) is None
    assert profiles.retire(DEMO, "cleanup") is None
    assert not (home / "profile").is_symlink()
    assert not list((root / ".retired").iterdir())
    (home / "profile").symlink_to(target)
    profile = profiles.create(DEMO)
    assert profiles.current(DEMO) == profile
    assert not list(profile.path.iterdir())


def test_a_link_to_a_generation_elsewhere_means_ours(profiles: Profiles, root: Path, tmp_path: Path) -> None:
    """Only the name counts: a directory of that name somewhere else is nobody's profile."""
    elsewhere = tmp_path / "evil" / GENERATION
    elsewhere.mkdir(parents=True)
    (profiles.home(DEMO) / "profile").symlink_to(elsewhere)
    assert profiles.current(DEMO) is None
    profiles.retire(DEMO, "cleanup")
    assert elsewhere.is_dir()


def test_a_directory_in_the_place_of_the_link_is_left_alone(profiles: Profiles, root: Path) -> None:
    """Somebody's own profile, put there by hand."""
    theirs = profiles.home(DEMO) / "profile"
    theirs.mkdir()
    (theirs / "Preferences").write_text("{}")
    assert profiles.current(DEMO) is None
    for attempt in (lambda: profiles.retire(DEMO, "cleanup"), lambda: profiles.create(DEMO)):
        with pytest.raises(StorageFailed, match=r"demo|profiles"):
            attempt()
    assert (theirs / "Preferences").read_text() == "{}"
    assert [entry.name for entry in (root / "demo").iterdir()] == ["profile"], "nothing left beside it"
    assert not list((root / ".profiles").iterdir()), "no profile left without an owner"


def test_a_crash_while_creating_leaves_the_old_or_the_new(profiles: Profiles) -> None:
    old = filled(profiles)
    seen = set()
    for _ in crash_points(lambda: profiles.create(DEMO)):
        current = profiles.current(DEMO)
        assert current is not None
        seen.add(current == old)
        if current != old:
            assert not list(current.path.iterdir())
            link = profiles.home(DEMO) / "profile"
            link.unlink()
            link.symlink_to(Path("../.profiles") / old.generation)
        assert (old.path / "Default" / "mark").exists()
    assert seen == {True, False}
    assert profiles.create(DEMO)


# --- the lock -----------------------------------------------------------------------------------------------


def test_the_lock_is_exclusive_and_goes_with_its_last_copy(profiles: Profiles) -> None:
    profile = profiles.create(DEMO)
    fd = profiles.lock(profile)
    copy = os.dup(fd)
    os.close(fd)
    with pytest.raises(ProfileLocked) as caught:
        profiles.lock(profile)
    assert caught.value.details["lock"] == str(profile.lock)
    assert "fuser" in caught.value.hint
    os.close(copy)
    os.close(profiles.lock(profile))


def test_a_lock_held_by_another_process_names_it(profiles: Profiles) -> None:
    profile, other = profiles.create(DEMO), profiles.create(DEMO2)
    os.close(profiles.lock(profile))
    with held_elsewhere(profile.lock) as pid:
        with pytest.raises(ProfileLocked):
            profiles.lock(profile)
        assert holders(profile.lock) == [pid]
        os.close(profiles.lock(other))
    os.close(profiles.lock(profile))
    assert holders(profile.lock) == []
    assert holders(profile.lock.with_name("missing.lock")) == []


def test_having_the_file_open_is_not_holding_the_lock(profiles: Profiles) -> None:
    profile = profiles.create(DEMO)
    os.close(profiles.lock(profile))
    with (
        profile.lock.open() as file,
        subprocess.Popen(["/usr/bin/cat"], stdin=subprocess.PIPE, pass_fds=[file.fileno()]) as process,
    ):
        assert holders(profile.lock) == []
        os.close(profiles.lock(profile))
        process.kill()


def test_dropping_a_lock_proves_that_nobody_holds_it(profiles: Profiles) -> None:
    profile = profiles.create(DEMO)
    os.close(profiles.lock(profile))
    with held_elsewhere(profile.lock), pytest.raises(ProfileLocked):
        profiles.drop_lock(profile)
    assert profile.lock.exists()
    profiles.drop_lock(profile)
    assert not profile.lock.exists()
    profiles.drop_lock(profile)
    assert not profile.lock.exists()


async def test_a_connect_on_a_locked_profile_names_the_holder_and_goes_on_once_it_is_gone(
    pose: Daemon, sessions_dir: Path
) -> None:
    async with pose(restart={"base_s": 30.0, "max_s": 30.0}) as (supervisor, _):
        view = await supervisor.connect(DEMO)
        await supervisor.disconnect(DEMO)
        with held_elsewhere(sessions_dir / ".profiles" / f"{view.generation}.lock") as pid:
            with pytest.raises(ProfileLocked) as caught:
                await supervisor.connect(DEMO)
            assert caught.value.details["pids"] == [pid]
            row = host.process_row(pid)
            assert row is not None
            assert row.state not in "ZX", "a stranger is not killed"
        after = await supervisor.connect(DEMO)
        assert (after.status, after.generation) == (Status.AWAITING_SCAN, view.generation)


# --- leaving --------------------------------------------------------------------------------------------------


def test_a_profile_leaves_whole_by_one_rename(profiles: Profiles, root: Path) -> None:
    profile, other = filled(profiles), filled(profiles, DEMO2)
    inode = profile.path.stat().st_ino
    place = profiles.retire(DEMO, "cleanup")
    assert place == root / ".retired" / f"demo.{profile.generation}.cleanup"
    assert place.stat().st_ino == inode
    assert (place / "Default" / "mark").read_text() == profile.generation
    assert not profile.path.exists()
    assert profiles.current(DEMO) is None
    assert profiles.retire(DEMO, "cleanup") is None
    assert profiles.current(DEMO2) == other


def test_a_crash_while_retiring_loses_nothing(profiles: Profiles, root: Path) -> None:
    profile = filled(profiles)
    long_ago = time.time() - 1e6
    os.utime(profile.path, (long_ago, long_ago))
    place = root / ".retired" / f"demo.{profile.generation}.cleanup"
    seen = set()
    for _ in crash_points(lambda: profiles.retire(DEMO, "cleanup")):
        here, there = profile.path.exists(), place.exists()
        assert here != there, "in one place, whole"
        seen.add(there)
        mark = (place if there else profile.path) / "Default" / "mark"
        assert mark.read_text() == profile.generation
        assert profiles.current(DEMO) == (None if there else profile)
        if there:
            assert profiles.aside.all()[0].since > time.time() - 3600, "its retention time counts from now"
            place.rename(profile.path)
            link = profiles.home(DEMO) / "profile"
            link.unlink(missing_ok=True)
            link.symlink_to(Path("../.profiles") / profile.generation)
        os.utime(profile.path, (long_ago, long_ago))
    assert seen == {True, False}


def test_after_a_crash_behind_the_rename_the_next_steps_go_on(profiles: Profiles, root: Path) -> None:
    profile = filled(profiles)
    profile.path.rename(root / ".retired" / f"demo.{profile.generation}.cleanup")
    assert profiles.current(DEMO) is None
    assert profiles.retire(DEMO, "cleanup") is None
    assert profiles.create(DEMO) == profiles.current(DEMO)


def test_a_full_place_for_the_retired_is_said_and_the_profile_stays(
    profiles: Profiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = filled(profiles)
    (root / ".retired").rmdir()
    with pytest.raises(StorageFailed, match="Cannot retire the profile of demo: No such file"):
        profiles.retire(DEMO, "cleanup")
    assert profiles.current(DEMO) == profile


# --- deleting -------------------------------------------------------------------------------------------------


def aged(path: Path, seconds: float) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_only_our_own_names_count_oldest_first(profiles: Profiles, root: Path, precious: Path) -> None:
    retired = root / ".retired"
    ours = [f"demo.{GENERATION}.cleanup.saved", f"x-_9.{GENERATION}.fresh", f"demo2.{GENERATION}.logged_out"]
    for number, name in enumerate(ours):
        (retired / name).mkdir()
        aged(retired / name, 100 + number)
    foreign = ["lost+found", "demo", GENERATION, f"demo.{GENERATION}", f"demo.{GENERATION}.", ".hidden"]
    foreign += [f"a b.{GENERATION}.cleanup", f"demo.{GENERATION}.cleanup.old", f"demo.{GENERATION}.Cleanup"]
    for name in foreign:
        (retired / name).mkdir()
        aged(retired / name, 1e6)
    aged_file = retired / f"file.{GENERATION}.cleanup"
    aged_file.touch()
    aged(aged_file, 1e6)
    (retired / f"link.{GENERATION}.cleanup").symlink_to(precious)
    found = profiles.aside.all()
    assert [one.path for one in found] == [retired / name for name in reversed(ours)]
    assert [(one.code, one.reason, one.lineage, one.saved) for one in found] == [
        ("demo2", "logged_out", "0123abcd", False),
        ("x-_9", "fresh", "0123abcd", False),
        ("demo", "cleanup", "0123abcd", True),
    ]
    for one in found:
        profiles.aside.delete(one.path)
    left = {entry.name for entry in retired.iterdir()}
    assert left == {*foreign, aged_file.name, f"link.{GENERATION}.cleanup"}


def test_links_in_a_retired_profile_are_deleted_and_not_followed(
    profiles: Profiles, root: Path, precious: Path
) -> None:
    profile = filled(profiles)
    (profile.path / "Default" / "out").symlink_to(precious)
    (profile.path / "up").symlink_to("../../demo2")
    other = filled(profiles, DEMO2)
    place = profiles.retire(DEMO, "cleanup")
    assert place is not None
    profiles.aside.delete(place)
    assert not place.exists()
    assert (other.path / "Default" / "mark").exists()


@pytest.mark.parametrize(
    "path",
    [
        "precious",
        "sessions/demo2",
        "sessions/.profiles",
        "sessions/.retired",
        "sessions/.retired/..",
        "sessions/.retired/lost+found",
        f"sessions/.profiles/demo.{GENERATION}.cleanup",
        f"sessions/.retired/demo.{GENERATION}.cleanup/../lost+found",
    ],
)
def test_nothing_but_retired_profiles_is_ever_deleted(
    profiles: Profiles, tmp_path: Path, precious: Path, path: str
) -> None:
    other = filled(profiles, DEMO2)
    for name in (".retired/lost+found", f".retired/demo.{GENERATION}.cleanup"):
        (tmp_path / "sessions" / name).mkdir()
    (tmp_path / f"sessions/.profiles/demo.{GENERATION}.cleanup").mkdir()
    with pytest.raises(NotOurs, match="not deleted"):
        profiles.aside.delete(tmp_path / path)
    assert (tmp_path / path).exists()
    assert (other.path / "Default" / "mark").exists()


def test_a_link_with_the_name_of_a_retired_profile_is_not_followed(
    profiles: Profiles, root: Path, precious: Path
) -> None:
    link = root / ".retired" / f"demo.{GENERATION}.cleanup"
    link.symlink_to(precious)
    with pytest.raises(StorageFailed):
        profiles.aside.delete(link)


async def test_a_daemon_deletes_what_has_expired_and_nothing_else(
    pose: Daemon, sessions_dir: Path, journal: Journal
) -> None:
    retired = sessions_dir / ".retired"
    for name in (f"demo.{GENERATION}.cleanup", f"demo2.{GENERATION}.fresh", "lost+found"):
        (retired / name / "Default").mkdir(parents=True)
        aged(retired / name, 0 if name.startswith("demo2") else 7200)
    async with pose(sessions={"retired_keep_hours": 1.0}):
        async with asyncio.timeout(10):
            while not deleted(journal):
                await asyncio.sleep(0.01)
    left = sorted(entry.name for entry in retired.iterdir())
    assert left == [f"demo2.{GENERATION}.fresh.empty", "lost+found"], "not saved: there was nothing in it"


def test_what_is_put_aside_says_which_snapshot_was_the_newest_then(profiles: Profiles) -> None:
    """Whatever its browser has put in the place of the note."""
    for made in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/etc/hostname"), Path.touch):
        profile = profiles.create(DEMO)
        made(profile.path / ".waguard-sequence")
        profiles.retire(DEMO, "cleanup", sequence=7)
        assert [one.sequence for one in profiles.aside.all() if one.generation == profile.generation] == [7]
    profile = profiles.create(DEMO)
    (profile.path / ".waguard-sequence").mkdir()
    profiles.retire(DEMO, "cleanup")
    assert 0 in [one.sequence for one in profiles.aside.all()]
