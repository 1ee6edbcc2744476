"""The check before a launch, against profiles that a real Chromium wrote: no damage unseen, no sound one called damaged."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import damage
import pytest
from bare_browser import BINARY, NOBODY, make_profile
from clients import logged_in
from conftest import Daemon, Journal
from damage import LARGE, ODD, SMALL, STILL_UNSEEN, UNSEEN, Chromium, Way, locked
from written import VERSION, Written

from waguard.core.model import ClientCode, Status, Verdict, Wait
from waguard.errors import DiskFull, ProfileLocked, ProfileNotOwned, ProfileTooNew, SessionFailed
from waguard.profile import examiners, in_use, leveldb, login_files, witness
from waguard.profile.examiners import Report, singleton
from waguard.profile.examiners.subject import Doubt, Subject
from waguard.profile.witness import Witness
from waguard.session.registry import Registry
from waguard.simulator.server import Cadence, Simulator
from waguard.system.files import Below

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")]

DEMO = ClientCode("demo")


@contextmanager
def damaged(written: Written, way: Way) -> Iterator[Callable[..., Report]]:
    """A copy that is damaged in this way, to be looked at; a look changes nothing."""
    profile = make_profile(written.profile)
    owner = NOBODY if os.geteuid() == 0 else os.geteuid()

    def look(*, witnessed: bool, connected: bool = False) -> Report:
        known = written.witness if witnessed else None
        return examiners.examine(Subject(profile, VERSION, written.origin, owner, known, connected))

    try:
        way.do(profile)
        for path in (profile, *profile.rglob("*")):
            if os.geteuid() == 0:
                os.chown(path, owner, owner, follow_symlinks=False)
        yield look
    finally:
        shutil.rmtree(profile)


def check(written: Written, way: Way, *, witnessed: bool, connected: bool = False) -> Report:
    with damaged(written, way) as look:
        return look(witnessed=witnessed, connected=connected)


def test_every_damage_is_found_and_no_sound_profile_is_called_damaged(
    small: Written, large: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, wrong = [], []
    unseen = set().union(*UNSEEN.values())
    for written, ways in ((small, SMALL), (large, LARGE), (small, ODD)):
        for way in ways:
            sound = way in ODD
            after = Chromium.KEPT if sound else way.chromium
            with damaged(written, way) as look:
                verdicts = [look(witnessed=known).verdict for known in (True, False)]
            rows.append(f"{way.name:<66} {after:<6} {verdicts[0]:<8} {verdicts[1]}")
            if sound:
                right = Verdict.DAMAGED not in verdicts
            else:
                right = verdicts[0] is Verdict.DAMAGED
                # Without a witness: what costs the login is found but for the list, and nothing else is called so.
                expected = after is Chromium.LOST and way.name not in unseen
                right &= (verdicts[1] is Verdict.DAMAGED) == expected
            if not right:
                wrong.append(rows[-1])
    with capsys.disabled():
        print(f"\n\n{'profile':<66} {'login':<6} {'witness':<8} without")  # noqa: T201 (the issue asks for the table)
        print("\n".join(rows))  # noqa: T201
    assert not wrong
    assert len(SMALL) + len(LARGE) >= 25
    assert len(ODD) >= 25


def test_of_a_client_that_was_connected_less_is_unseen(small: Written, large: Written) -> None:
    """Without a witness, but known to have been connected: the login's own marks tell."""
    unseen = {
        way.name
        for written, ways in ((small, SMALL), (large, LARGE))
        for way in ways
        if way.chromium is Chromium.LOST
        and check(written, way, witnessed=False, connected=True).verdict is not Verdict.DAMAGED
    }
    assert unseen == STILL_UNSEEN
    for way in ODD:
        assert check(small, way, witnessed=False, connected=True).verdict is not Verdict.DAMAGED, way.name
    assert check(large, ODD[0], witnessed=False, connected=True).verdict is not Verdict.DAMAGED


def test_what_cannot_be_seen_is_listed_in_the_design() -> None:
    design = (Path(__file__).parent.parent / "docs" / "explanation" / "profiles.md").read_text()
    for kind in UNSEEN:
        assert kind in " ".join(design.split())
    names = {way.name for way in (*SMALL, *LARGE)}
    assert set().union(*UNSEEN.values()) <= names


def test_a_profile_that_was_never_used_is_sound(tmp_path: Path) -> None:
    assert (
        examiners.examine(Subject(tmp_path, VERSION, "https_web.whatsapp.com_0", os.geteuid())).verdict
        is Verdict.SOUND
    )
    (tmp_path / "Default").mkdir()
    assert (
        examiners.examine(Subject(tmp_path, VERSION, "https_web.whatsapp.com_0", os.geteuid())).verdict
        is Verdict.SOUND
    )


def test_a_browser_that_is_older_than_the_profile_is_refused(small: Written) -> None:
    uid = small.profile.stat().st_uid
    newer = Witness("157.0.1.2", small.witness.files)
    with pytest.raises(ProfileTooNew, match="version 157; version 156"):
        examiners.examine(Subject(small.profile, VERSION, small.origin, uid, newer))
    with pytest.raises(ProfileTooNew):
        check(small, Way("newer", lambda p: (p / "Last Version").write_text("999.0.0.0")), witnessed=True)
    assert (
        examiners.examine(Subject(small.profile, "157.0.0.0", small.origin, uid, small.witness)).verdict
        is Verdict.SOUND
    )


def test_a_profile_of_somebody_else_is_refused_and_not_replaced(small: Written) -> None:
    with pytest.raises(ProfileNotOwned, match="not the browser's own"):
        examiners.examine(Subject(small.profile, VERSION, small.origin, 12345, small.witness))


IN_A_CONTAINER = (
    *(["unshare", "--user", "--map-root-user"] if os.geteuid() else ["unshare"]),
    *("--pid", "--uts", "--fork", "--kill-child"),
)


@pytest.mark.parametrize("within", [(), IN_A_CONTAINER], ids=["here", "in a container"])
def test_a_browser_that_has_a_database_open_is_in_the_way(tmp_path: Path, within: tuple[str, ...]) -> None:
    lock = tmp_path / "Default" / "IndexedDB" / "https_web.whatsapp.com_0.indexeddb.leveldb" / "LOCK"
    lock.parent.mkdir(parents=True)
    lock.touch()
    subject = Subject(tmp_path, VERSION, "https_web.whatsapp.com_0", os.geteuid())
    with locked(lock, *within), pytest.raises(ProfileLocked, match=r"indexeddb\.leveldb/LOCK locked"):
        singleton_of(subject)
    assert singleton_of(subject) == []


@pytest.mark.parametrize("pid", [1, os.getpid(), "x\x1b[2J"], ids=["the first", "this one", "none"])
def test_a_number_of_a_process_that_is_another_one_by_now_is_in_nobodys_way(
    tmp_path: Path, pid: object
) -> None:
    (tmp_path / "SingletonLock").symlink_to(f"{os.uname().nodename}-{pid}")
    (doubt,) = singleton_of(Subject(tmp_path, VERSION, "https_web.whatsapp.com_0", os.geteuid()))
    assert (doubt.verdict, doubt.path) == (Verdict.SUSPECT, "SingletonLock")
    assert doubt.what.isprintable()


def test_no_lock_in_a_profile_leads_elsewhere_or_keeps_anybody_waiting(tmp_path: Path) -> None:
    held, place = tmp_path / "LOCK", tmp_path / "profile" / "Default"
    held.touch()
    for name in ("fifo", "link", "loop", "directory"):
        (place / name).mkdir(parents=True)
    os.mkfifo(place / "fifo" / "LOCK")
    (place / "link" / "LOCK").symlink_to(held)
    (place / "loop" / "LOCK").symlink_to("LOCK")
    (place / "directory" / "LOCK").mkdir()
    (place / "above").symlink_to(tmp_path)
    with locked(held):
        assert in_use.holder(place) is None


def singleton_of(subject: Subject) -> list[Doubt]:
    return list(singleton.examine(subject))


def test_looking_changes_nothing(small: Written) -> None:
    def snapshot() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in small.profile.rglob("*")
        }

    before = snapshot()
    examiners.examine(
        Subject(small.profile, VERSION, small.origin, small.profile.stat().st_uid, small.witness)
    )
    assert snapshot() == before


def test_leveldb_is_read_as_chromium_writes_it(large: Written) -> None:
    for database in large.profile.rglob("CURRENT"):
        assert not [
            doubt for doubt in leveldb.examine(Below(database.parent), strict=True) if doubt != "it is empty"
        ]


# --- in the product ---------------------------------------------------------------------------------------------


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(cadence=Cadence(sync_s=0.05)) as simulator:
        yield simulator


async def test_a_damaged_profile_is_put_aside_before_the_browser_can_touch_it(
    start: Daemon, simulator: Simulator, sessions_dir: Path, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        profile = await logged_in(supervisor, simulator, sessions_dir)
        file = damage.log(damage.local_storage(profile))
        damage.shorten(file, 1)
        left = file.read_bytes()
        again = await supervisor.connect(DEMO)
        assert (again.status, again.profile) == (Status.AWAITING_SCAN, "fresh")
        assert again.check is not None
        assert (again.check.verdict, file.name in again.check.why) == (Verdict.DAMAGED, True)
        (retired,) = (sessions_dir / ".retired").iterdir()
        assert retired.name == f"demo.{profile.name}.damaged"
        assert damage.log(damage.local_storage(retired)).read_bytes() == left
        (told,) = journal.named("profile.damaged")
        assert told.level == "error"


async def test_browsers_killed_at_any_moment_leave_profiles_that_are_kept(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    """Also while it writes its first login down."""
    restart = {"base_s": 0.01, "max_s": 0.05, "budget": 100}
    async with start(whatsapp={"url": simulator.url}, page={"poll_s": 0.05}, restart=restart) as (
        supervisor,
        _,
    ):
        view = await supervisor.connect(DEMO)
        assert view.qr is not None
        simulator.scan(view.qr.text, "34600000000")
        session = supervisor._sessions[DEMO]
        for pause in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.1, 1.6, 0.1, 0.3):
            await asyncio.sleep(pause)  # chance is the point here
            view = supervisor.view(DEMO)
            attempt = view.attempt
            assert view.browser is not None
            os.kill(view.browser.pids[0], signal.SIGKILL)
            async with asyncio.timeout(20):
                await session.until(lambda: supervisor.view(DEMO).attempt != attempt)  # noqa: B023 (awaited here)
            await supervisor.connect(DEMO)
        assert not journal.named("profile.damaged")


@pytest.mark.parametrize("tail", [b"\x11\x22\x33\x44\x40\x00\x01torn", bytes(600)], ids=["torn", "zeros"])
async def test_a_torn_record_at_the_end_of_a_log_costs_no_login_later_either(
    start: Daemon, simulator: Simulator, sessions_dir: Path, journal: Journal, tail: bytes
) -> None:
    """Chromium would write on behind it, and wipe IndexedDB at the start after that."""
    async with start(whatsapp={"url": simulator.url}) as (supervisor, _):
        profile = await logged_in(supervisor, simulator, sessions_dir)
        profile.with_name(f"{profile.name}.json").unlink()  # as if the daemon had died with the browser
        for _, place in damage.PLACES:
            with damage.log(place(profile)).open("ab") as log:
                log.write(tail)
        for _ in range(3):
            again = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
            assert (again.status, again.profile) == (Status.CONNECTED, "kept")
            browser = supervisor._sessions[DEMO]._instance.browser
            assert browser is not None
            assert browser.page is not None
            write = "localStorage.setItem('x', Math.random()); indexedDB.open('x' + Math.random()); 1"
            await browser.page.evaluate(write)
            await supervisor.disconnect(DEMO)
        assert not journal.named("profile.damaged")
        (mended,) = journal.named("profile.mended")
        assert len(mended.fields["cut"]) == 2


def test_a_log_that_is_nothing_but_torn_is_no_damage_where_there_are_tables(large: Written) -> None:
    def tear(profile: Path) -> None:
        for _, place in damage.PLACES:
            damage.log(place(profile)).write_bytes(b"\x11\x22\x33\x44\x40\x00\x01torn")

    assert check(large, Way("torn", tear), witnessed=False).verdict is Verdict.SUSPECT


def test_what_is_witnessed_is_on_disk_first(small: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = set(), os.fsync

    def noted(fd: int) -> None:
        synced.add(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    marks = witness.take(small.profile, small.origin, {})
    assert {small.profile / name for name in marks} <= synced
    assert {one.path for one in login_files.databases(small.profile, small.origin)} <= synced


async def test_what_was_cut_off_does_not_count_as_lost_when_the_launch_goes_no_further(
    start: Daemon, simulator: Simulator, sessions_dir: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(whatsapp={"url": simulator.url}, restart={"budget": 0}) as (supervisor, _):
        profile = await logged_in(supervisor, simulator, sessions_dir)
        for _, place in damage.PLACES:
            damage.append(damage.log(place(profile)))
        beside, origin = profile.with_name(f"{profile.name}.json"), login_files.origin_of(simulator.url)
        known = await asyncio.to_thread(witness.read, beside)
        assert known is not None
        # As after a browser that was killed while it wrote: the tear is witnessed too.
        marks = await asyncio.to_thread(witness.take, profile, origin, {})
        await asyncio.to_thread(witness.write, beside, Witness(known.browser, marks))

        def full(*_: object) -> None:
            raise DiskFull("Cannot write session.json: No space left on device.")

        with monkeypatch.context() as patch:
            patch.setattr(Registry, "write", full)
            with pytest.raises(SessionFailed, match="No space left"):
                await supervisor.connect(DEMO)
        assert journal.named("profile.mended")
        view = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (view.status, view.profile) == (Status.CONNECTED, "kept")
        assert not journal.named("profile.damaged")
