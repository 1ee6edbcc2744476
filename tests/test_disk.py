"""A disk that is full, for real: a clear error, no lost login, and full service again when there is space.

The sessions directory is a small tmpfs, which runs out of space or of inodes.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bare_browser import BINARY
from conftest import Daemon, Journal
from house import House
from poses import shows
from posing_chromium import CONNECTED
from waiting import until
from written import Written

from waguard.core.model import ClientCode, Link, Source, Status, Wait
from waguard.errors import DiskFull, SessionFailed, SnapshotRefused, WaguardError
from waguard.profile.generation import Place, new_generation
from waguard.simulator.server import Cadence, Simulator
from waguard.supervisor.supervisor import REAP, Supervisor
from waguard.system.files import PARTIAL

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")]

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
ADMIN = "admin-admin-admin-admin"
RESERVE = {"reserve_memory_mb": 0, "session_memory_mb": 0, "reserve_disk_mb": 4}
QUICK = {"poll_s": 0.02, "poll_loading_s": 0.02}
KB, MB = 1024, 1024 * 1024
LOGIN = "Default/WebStorage/QuotaManager"
"""Of the login's part, copied whole, and its content is nobody's business."""


class Disk:
    """A small file system that can be filled and emptied again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / ".filler"

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes."""
        self._filler.mkdir(exist_ok=True)
        with suppress(OSError), (self._filler / "bytes").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(MB))
        path = self._filler / "bytes"
        os.truncate(path, path.stat().st_size - leave)

    def use_up_inodes(self, leave: int = 0) -> None:
        """Leave so many files to be made."""
        self._filler.mkdir(exist_ok=True)
        for number in range(os.statvfs(self.path).f_favail - leave):
            (self._filler / str(number)).touch()

    def empty(self) -> None:
        shutil.rmtree(self._filler)

    def resize(self, size: str, *, inodes: int) -> None:
        options = f"remount,size={size},nr_inodes={inodes}"
        subprocess.run(["mount", "-o", options, str(self.path)], check=True)

    def tree(self) -> Mapping[str, bytes | None]:
        """All there is but what fills it, and the history, which goes on whatever is refused."""
        found: dict[str, bytes | None] = {}
        for top, directories, files in os.walk(self.path):
            if Path(top) == self.path:
                directories[:] = [name for name in directories if name != self._filler.name]
            for name in (*directories, *files):
                path = Path(top, name)
                if name.startswith((".history.db", ".looked", ".audit.")):
                    continue
                found[str(path.relative_to(self.path))] = path.read_bytes() if path.is_file() else None
        return found


@pytest.fixture
def disk(sessions_dir: Path) -> Iterator[Disk]:
    sessions_dir.mkdir()
    options = ["-t", "tmpfs", "-o", "size=16m,nr_inodes=1500,mode=711", "tmpfs", str(sessions_dir)]
    mounted = subprocess.run(["mount", *options], check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a tmpfs here: {mounted.stderr.strip()}")
    yield Disk(sessions_dir)
    subprocess.run(["umount", str(sessions_dir)], check=True)


Fill = Callable[[Disk], None]
FULL: Mapping[str, Fill] = {"space": Disk.fill, "inodes": Disk.use_up_inodes}
full = pytest.mark.parametrize("fill", FULL.values(), ids=FULL.keys())


def profile_of(code: ClientCode, root: Path) -> Path:
    return (root / code / "profile").resolve()


async def place_of(code: ClientCode, supervisor: Supervisor) -> Place:
    place, _ = await asyncio.to_thread(supervisor._resources.profiles.find, code)
    return place


def plant(root: Path, written: Written) -> Path:
    """Lay a login into Demo's profile, with half a megabyte besides that is copied whole; the profile."""
    profile = profile_of(DEMO, root)
    for name in ("IndexedDB", "Local Storage"):
        shutil.copytree(written.profile / "Default" / name, profile / "Default" / name)
    (profile / LOGIN).parent.mkdir(parents=True)
    (profile / LOGIN).write_bytes(os.urandom(512 * KB))
    if os.geteuid() == 0:
        owner = profile.stat()
        for path in profile.rglob("*"):
            os.chown(path, owner.st_uid, owner.st_gid)
    return profile


def url_of(origin: str) -> str:
    scheme, host, port = origin.split("_")
    return f"{scheme}://{host}:{port}/"


@pytest.fixture
def logged_in(pose: Daemon, disk: Disk, small: Written, journal: Journal) -> Daemon:
    """A daemon whose Demo is connected, with a login on disk that Chromium wrote and its first snapshot; its browser poses."""

    @asynccontextmanager
    async def starting(**sections: dict[str, Any]) -> AsyncIterator[tuple[Supervisor, str]]:
        sections = {"whatsapp": {"url": url_of(small.origin)}, "page": QUICK, **sections}
        async with pose("connected", **sections) as (supervisor, url):
            await supervisor.connect(DEMO)
            plant(disk.path, small)
            await until(lambda: journal.named("snapshot.taken"))
            session = supervisor._sessions[DEMO]
            await until(lambda: not session.login.unsaved and session._instance.recorded)
            yield supervisor, url

    return starting


def of_kind(kind: str, journal: Journal) -> Sequence[Mapping[str, Any]]:
    """What sweeps have told of it."""
    return [event.fields for event in journal.named("sweep.finding") if event.fields["kind"] == kind]


def no_partials(disk: Disk) -> bool:
    return not any(PARTIAL in name for name in disk.tree())


# --- connect ------------------------------------------------------------------------------------------------


@full
async def test_a_connect_without_room_is_refused_and_touches_nothing(
    pose: Daemon, disk: Disk, journal: Journal, fill: Fill
) -> None:
    async with (
        pose("connected", limits=RESERVE, page=QUICK, api={"admin_token": ADMIN}) as (supervisor, url),
        aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {ADMIN}"}) as http,
    ):
        running = await supervisor.connect(DEMO)
        fill(disk)
        before, changes = disk.tree(), len(journal.named("session.changed"))
        async with http.post("/v1/sessions/demo2/connect") as answer:
            problem = await answer.json()
        assert (answer.status, problem["code"]) == (507, "disk_full")
        assert "Sessions that are up go on" in problem["hint"]
        assert disk.tree() == before
        assert [view.client for view in supervisor.views()] == [DEMO]
        again = await supervisor.connect(DEMO)
        assert (again.status, again.attempt) == (Status.CONNECTED, running.attempt)
        assert len(journal.named("session.changed")) == changes
        disk.empty()
        assert (await supervisor.connect(DEMO2)).status is Status.CONNECTED


@full
async def test_a_connect_that_meets_the_full_disk_itself_says_so_and_costs_nothing(
    logged_in: Daemon, disk: Disk, fill: Fill
) -> None:
    """Without a reserve, or when the last of it goes in the middle of a connect."""
    async with logged_in(restart={"budget": 0}) as (supervisor, _):
        profile = profile_of(DEMO, disk.path)
        data = (profile / LOGIN).read_bytes()
        await supervisor.disconnect(DEMO)
        fill(disk)
        for code in (DEMO, DEMO2):
            with pytest.raises(SessionFailed, match="No space left on device") as caught:
                await supervisor.connect(code)
            assert caught.value.details["cause"] == "disk_full"
        assert profile_of(DEMO, disk.path) == profile
        assert no_partials(disk)
        disk.empty()
        view = await supervisor.connect(DEMO)
        assert (view.status, view.profile) == (Status.CONNECTED, "kept")
        assert (await supervisor.connect(DEMO2)).status is Status.CONNECTED
        assert (profile / LOGIN).read_bytes() == data


@full
async def test_a_value_for_which_there_is_no_room_leaves_the_one_before(
    pose: Daemon, disk: Disk, fill: Fill
) -> None:
    async with (
        pose("connected", page=QUICK, api={"admin_token": ADMIN}) as (supervisor, url),
        aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {ADMIN}"}) as http,
    ):
        await supervisor.connect(DEMO)
        path = "/v1/sessions/demo/values/a"
        async with http.put(path, data=b"before") as answer:
            assert answer.status == 200
        fill(disk)
        async with http.put(path, data=bytes(64 * KB)) as answer:
            problem = await answer.json()
        assert (answer.status, problem["code"]) == (507, "disk_full")
        async with http.get(path) as answer:
            assert await answer.read() == b"before"
        assert no_partials(disk)
        disk.empty()
        async with http.put(path, data=bytes(64 * KB)) as answer:
            assert answer.status == 200


async def test_a_session_that_cannot_restart_for_lack_of_space_comes_back_with_it(
    logged_in: Daemon, disk: Disk
) -> None:
    restart = {"base_s": 0.01, "max_s": 0.05, "budget": 100}
    async with logged_in(restart=restart) as (supervisor, _):
        view = supervisor.view(DEMO)
        disk.fill()
        with pytest.raises(DiskFull):
            await supervisor.restart(DEMO)
        disk.empty()
        session = supervisor._sessions[DEMO]
        async with asyncio.timeout(10):
            await session.until(lambda: session.state.link is Link.CONNECTED)
        assert supervisor.view(DEMO).generation == view.generation


async def tidied(journal: Journal) -> None:
    """What the start does not wait for, after what it does wait for."""
    await until(lambda: len(journal.named("sweep.done")) == 2)


def put_aside(disk: Disk, hours: float, name: str) -> str:
    """A profile of 2 MB and 300 files, retired so long ago."""
    place = disk.path / ".retired" / f"demo.{new_generation()}.{name}"
    place.mkdir()
    for number in range(300):
        (place / str(number)).touch()
    (place / "data").write_bytes(bytes(2 * MB))
    since = place.stat().st_mtime - hours * 3600
    os.utime(place, (since, since))
    return place.name


@full
async def test_retired_profiles_make_room_the_oldest_first_and_no_more_than_needed(
    pose: Daemon, disk: Disk, journal: Journal, fill: Fill
) -> None:
    disk.resize("16m", inodes=3000)
    async with pose("connected", limits=RESERVE) as (supervisor, _):
        await tidied(journal)
        only_copy = put_aside(disk, 90, "damaged")
        newer = put_aside(disk, 10, "restore.saved")
        oldest = put_aside(disk, 50, "cleanup")
        old = put_aside(disk, 30, "ownerless.saved")
        if fill is Disk.fill:
            disk.fill(MB)  # and of the reserve of 4 MB three are still missing
        else:
            disk.use_up_inodes(500)
        assert (await supervisor.connect(DEMO)).status is Status.CONNECTED
        left = {path.name for path in (disk.path / ".retired").iterdir()}
        assert left == {only_copy, newer}
        assert [event.fields["profile"] for event in journal.named("profile.deleted")] == [oldest, old]


async def test_what_is_the_only_copy_makes_no_room(pose: Daemon, disk: Disk, journal: Journal) -> None:
    async with pose("connected", limits=RESERVE) as (supervisor, _):
        await tidied(journal)
        kept = {put_aside(disk, 90, "damaged"), put_aside(disk, 90, "restore")}
        disk.fill(MB)
        with pytest.raises(DiskFull, match=r"1 MiB of disk are free .* limits\.reserve_disk_mb = 4"):
            await supervisor.connect(DEMO)
        assert {path.name for path in (disk.path / ".retired").iterdir()} == kept


# --- a cleanup ----------------------------------------------------------------------------------------------


async def test_a_cleanup_on_a_full_disk_is_done_and_its_snapshot_made_up_for(
    logged_in: Daemon, disk: Disk, journal: Journal
) -> None:
    async with logged_in() as (supervisor, _):
        disk.fill()
        report = await supervisor.cleanup(DEMO)
        assert report.ok
        await until(lambda: of_kind("not_saved", journal))
        (told,) = of_kind("not_saved", journal)
        assert told["outcome"] == "failed"
        assert "No space left on device" in told["detail"]
        (retired,) = (disk.path / ".retired").iterdir()
        assert retired.name.endswith(".cleanup")
        assert no_partials(disk)
        disk.empty()
        await supervisor.sweeper.sweep()
        (retired,) = (disk.path / ".retired").iterdir()
        assert retired.name.endswith(".cleanup.saved")
        assert [one.reason for one in await supervisor.snapshots(DEMO)] == ["cleanup", "settled"]
        assert (await supervisor.connect(DEMO)).status is Status.CONNECTED


# --- snapshots ----------------------------------------------------------------------------------------------

ROOM: Mapping[str, tuple[Fill, str]] = {
    "no space": (Disk.fill, "copy"),
    "space for the copy": (lambda disk: disk.fill(800 * KB), "write"),
    "no inode": (Disk.use_up_inodes, "create"),
    "an inode for the room": (lambda disk: disk.use_up_inodes(1), "copy"),
    "some inodes": (lambda disk: disk.use_up_inodes(4), "copy"),
}


@pytest.mark.parametrize(("fill", "doing"), ROOM.values(), ids=ROOM.keys())
@pytest.mark.parametrize("running", [True, False])
async def test_a_snapshot_on_a_full_disk_fails_and_leaves_nothing_behind(
    logged_in: Daemon, disk: Disk, journal: Journal, fill: Fill, doing: str, running: bool
) -> None:
    async with logged_in() as (supervisor, _):
        if not running:
            await supervisor.disconnect(DEMO)
        fill(disk)
        before, changes = disk.tree(), len(journal.named("session.changed"))
        with pytest.raises(DiskFull, match=f"Cannot {doing} .*: No space left on device"):
            await supervisor.snapshot(DEMO)
        assert disk.tree() == before
        assert len(journal.named("session.changed")) == changes
        disk.empty()
        snapshot = await supervisor.snapshot(DEMO)
        assert snapshot.live is running
        await supervisor.check_snapshot(DEMO, snapshot.id)
        assert supervisor.view(DEMO).status is (Status.CONNECTED if running else Status.STOPPED)


async def test_a_scheduled_snapshot_on_a_full_disk_is_told(
    logged_in: Daemon, disk: Disk, journal: Journal
) -> None:
    async with logged_in() as (supervisor, _):
        for fill in FULL.values():
            fill(disk)
            view = await supervisor.schedule.run_now("snapshot")
            assert view.last_error == "No snapshot could be made of demo."
            (told,) = journal.named("snapshot.failed")
            assert told.fields["code"] == "disk_full"
            disk.empty()
            journal.events.clear()
            assert (await supervisor.schedule.run_now("snapshot")).last_ok


async def test_the_first_snapshot_of_a_login_is_made_as_soon_as_there_is_space(
    pose: Daemon, disk: Disk, journal: Journal, small: Written
) -> None:
    sections = {"whatsapp": {"url": url_of(small.origin)}, "snapshots": {"settle_s": 0.1}, "page": QUICK}
    async with pose("ok", **sections) as (supervisor, _):
        await supervisor.connect(DEMO)
        plant(disk.path, small)
        disk.fill()
        shows(supervisor, CONNECTED)
        await until(lambda: journal.named("snapshot.failed"))
        disk.empty()
        await until(lambda: journal.named("snapshot.taken"))
        (snapshot,) = await supervisor.snapshots(DEMO)
        assert snapshot.reason == "settled"


# --- sealed -------------------------------------------------------------------------------------------------


@full
async def test_what_cannot_be_sealed_stays_plain_until_there_is_space(
    logged_in: Daemon, disk: Disk, journal: Journal, fill: Fill
) -> None:
    async with logged_in(profile={"at_rest": "sealed"}) as (supervisor, _):
        profile = profile_of(DEMO, disk.path)
        data = (profile / LOGIN).read_bytes()
        fill(disk)
        await supervisor.disconnect(DEMO)
        (told,) = journal.named("profile.seal_failed")
        assert (told.level, told.fields["code"]) == ("error", "disk_full")
        assert await place_of(DEMO, supervisor) is Place.PLAIN
        assert (profile / LOGIN).read_bytes() == data
        assert no_partials(disk)
        disk.empty()
        await supervisor.sweeper.sweep()
        assert [one["detail"] for one in of_kind("not_sealed", journal)] == ["sealed"]
        assert await place_of(DEMO, supervisor) is Place.SEALED
        fill(disk)
        with pytest.raises(WaguardError, match="No space left on device"):
            await supervisor.connect(DEMO)
        await supervisor.disconnect(DEMO)
        assert await place_of(DEMO, supervisor) is Place.SEALED
        assert no_partials(disk)
        disk.empty()
        assert (await supervisor.connect(DEMO)).profile == "kept"
        assert (profile / LOGIN).read_bytes() == data


# --- a restore ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [True, False])
@full
async def test_a_restore_on_a_full_disk_is_refused_and_touches_nothing(
    logged_in: Daemon, disk: Disk, journal: Journal, fill: Fill, running: bool
) -> None:
    async with logged_in() as (supervisor, _):
        profile = profile_of(DEMO, disk.path)
        data = (profile / LOGIN).read_bytes()
        (snapshot,) = await supervisor.snapshots(DEMO)
        if not running:
            await supervisor.disconnect(DEMO)
        fill(disk)
        before, changes = disk.tree(), len(journal.named("session.changed"))
        with pytest.raises(DiskFull):
            await supervisor.restore(DEMO, snapshot.id)
        assert disk.tree() == before
        assert len(journal.named("session.changed")) == changes, "what runs goes on"
        disk.empty()
        view = await supervisor.restore(DEMO, snapshot.id)
        assert (view.status, view.profile) == (Status.CONNECTED, "restored")
        assert (profile_of(DEMO, disk.path) / LOGIN).read_bytes() == data
        assert profile_of(DEMO, disk.path) != profile


@full
def test_what_is_to_be_replaced_stays_until_there_is_space(disk: Disk, small: Written, fill: Fill) -> None:
    house = House(disk.path, small)
    generation = house.log_in()
    snapshot = house.snapshot()
    house.spoil()
    fill(disk)
    before = disk.tree()
    for source in (None, Source(snapshot.id)):
        with pytest.raises(DiskFull):
            house.take(source)
        assert disk.tree() == before
    disk.empty()
    taken = house.take()
    assert (taken.how, taken.snapshot) == ("restored", snapshot.id)
    assert house.has_login(taken.profile.path)
    assert house.retired() == [f"{generation}.damaged"]


# --- the registry and the schedule --------------------------------------------------------------------------


@full
async def test_a_record_that_cannot_be_written_leaves_the_old_one_and_is_written_later(
    logged_in: Daemon, disk: Disk, journal: Journal, fill: Fill
) -> None:
    record = disk.path / "demo" / "session.json"
    async with logged_in() as (supervisor, _):
        fill(disk)
        before = record.read_bytes()
        assert (await supervisor.disconnect(DEMO)).status is Status.STOPPED
        assert record.read_bytes() == before
        assert {event.fields["code"] for event in journal.named("registry.write_failed")} == {"disk_full"}
        assert no_partials(disk)
        disk.empty()
        await supervisor.disconnect(DEMO)
        written = json.loads(record.read_text())
        assert (written["wanted"], written["launch"], written["login"]) == ("down", None, True)


@full
async def test_a_login_made_on_a_full_disk_is_written_down_in_the_end(
    pose: Daemon, disk: Disk, fill: Fill
) -> None:
    async with pose("ok", page=QUICK) as (supervisor, _):
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        fill(disk)
        shows(supervisor, CONNECTED)
        async with asyncio.timeout(10):
            await session.until(lambda: session.state.link is Link.CONNECTED)
        disk.empty()
        await supervisor.disconnect(DEMO)
        assert json.loads((disk.path / "demo" / "session.json").read_text())["login"] is True


@full
async def test_runs_that_cannot_be_remembered_leave_the_old_ones(
    pose: Daemon, disk: Disk, journal: Journal, fill: Fill
) -> None:
    file = disk.path / ".schedule.json"
    async with pose("connected") as (supervisor, _):
        await supervisor.schedule.run_now(REAP)
        before = file.read_bytes()
        fill(disk)
        assert (await supervisor.schedule.run_now(REAP)).last_ok
        assert file.read_bytes() == before
        (told,) = journal.named("schedule.write_failed")
        assert "No space left on device" in told.fields["error"]
        assert no_partials(disk)
        disk.empty()
        await supervisor.schedule.run_now(REAP)
        assert file.read_bytes() != before


# --- a real browser -----------------------------------------------------------------------------------------

WRITES_ON = """(() => {
  const page = globalThis;
  page.written = page.refused = 0;
  const settled = request => new Promise((resolve, reject) => {
    request.onsuccess = request.oncomplete = () => resolve(request.result);
    request.onerror = request.onabort = () => reject(request.error);
  });
  const put = async () => {
    const opening = indexedDB.open('more', 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore('store');
    const database = await settled(opening);
    try {
      const transaction = database.transaction('store', 'readwrite', { durability: 'strict' });
      transaction.objectStore('store').put(crypto.getRandomValues(new Uint8Array(60000)), Math.random());
      await settled(transaction);
    } finally {
      database.close();
    }
  };
  const go = async () => {
    for (let i = 0; i < 20; i += 1) localStorage.setItem(`more${i}`, String(Math.random()).repeat(500));
    await put().then(() => { page.written += 1; }, () => { page.refused += 1; });
    setTimeout(go, 20);
  };
  go();
})()"""


async def run_full(supervisor: Supervisor, disk: Disk) -> None:
    """The disk fills up under what the page writes."""
    disk.fill(300 * KB)
    await until_more(supervisor, "refused")
    assert supervisor.view(DEMO).status is Status.CONNECTED
    async with asyncio.timeout(20):
        while not await is_refused(supervisor, disk):
            pass


async def is_refused(supervisor: Supervisor, disk: Disk) -> bool:
    """Whether a snapshot finds the disk full; until it does, the browser may still have made a little space."""
    disk.fill()
    try:
        await supervisor.snapshot(DEMO)
    except DiskFull:
        return True
    return False


async def is_damaged(supervisor: Supervisor, how: str = "") -> bool:
    try:
        await supervisor.snapshot(DEMO)
    except SnapshotRefused as refused:
        return "The profile is damaged" in refused.message and how in refused.message
    return False


@pytest.mark.parametrize(
    ("returns", "how"), [("when it has ended", "kept"), ("while it runs", "restored")], ids=["ended", "runs"]
)
async def test_a_disk_that_fills_up_under_a_browser_costs_no_scan(
    start: Daemon, disk: Disk, journal: Journal, returns: str, how: str
) -> None:
    """Without space Chromium's IndexedDB only fails. With space again it goes on behind the torn end of its log, which it
    takes for damage at the next start: what the login is worth then is what its last snapshot is worth.
    """
    disk.resize("128m", inodes=20_000)
    async with (
        Simulator(cadence=Cadence(sync_s=0.05)) as simulator,
        start(whatsapp={"url": simulator.url}, page={"poll_s": 0.1}) as (supervisor, _),
    ):
        view = await supervisor.connect(DEMO)
        assert view.qr is not None
        simulator.scan(view.qr.text, "34600000000")
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        await until(lambda: journal.named("snapshot.taken"))  # the login has reached the disk
        scans = len(journal.named("session.qr_shown"))
        await on_page(supervisor, WRITES_ON)
        await until_more(supervisor, "written")
        await run_full(supervisor, disk)
        if returns == "while it runs":
            disk.empty()
            await until_more(supervisor, "written")
            while not await is_damaged(supervisor):  # the last write before may have fitted whole
                await run_full(supervisor, disk)
                disk.empty()
                await until_more(supervisor, "written")
            await supervisor.disconnect(DEMO)
        else:
            await supervisor.disconnect(DEMO)
            disk.empty()
        again = await supervisor.connect(DEMO)
        assert (again.status, again.profile) == (Status.CONNECTED, how)
        await supervisor.disconnect(DEMO)
        disk.fill(64 * KB)  # just enough for the record: it starts on a disk where it cannot write
        assert (await supervisor.connect(DEMO)).status is Status.CONNECTED
        await supervisor.disconnect(DEMO)
        disk.empty()
        again = await supervisor.connect(DEMO)
        assert (again.status, again.profile) == (Status.CONNECTED, "kept")
        assert len(journal.named("session.qr_shown")) == scans


@pytest.mark.parametrize("then", ["stops", "is sealed", "reloads"])
async def test_a_login_that_the_browser_wipes_under_its_page_is_restored(
    start: Daemon, disk: Disk, journal: Journal, then: str
) -> None:
    """Chromium does so when it opens again what a full disk has torn: then the files are whole, and the page goes on."""
    disk.resize("128m", inodes=20_000)
    async with (
        Simulator(cadence=Cadence(sync_s=0.05)) as simulator,
        start(
            whatsapp={"url": simulator.url},
            page={"poll_s": 0.1},
            profile={"at_rest": "sealed" if then == "is sealed" else "plain"},
        ) as (supervisor, _),
    ):
        view = await supervisor.connect(DEMO)
        assert view.qr is not None
        simulator.scan(view.qr.text, "34600000000")
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        await until(lambda: journal.named("snapshot.taken"))
        (good,) = await supervisor.snapshots(DEMO)
        await on_page(supervisor, WRITES_ON)
        await until_more(supervisor, "written")
        async with asyncio.timeout(60):
            while not await is_damaged(supervisor, "has been wiped while the browser used it"):
                disk.fill(300 * KB)
                await until_more(supervisor, "refused")
                disk.fill()
                disk.empty()
                await until_more(supervisor, "written")
        assert supervisor.view(DEMO).status is Status.CONNECTED
        if then != "reloads":
            await supervisor.disconnect(DEMO)
            if then == "stops":
                with pytest.raises(
                    SnapshotRefused, match=r"has been wiped|is damaged"
                ):  # a full disk may tear another file too
                    await supervisor.snapshot(DEMO)
            again = await supervisor.connect(DEMO)
            assert (again.status, again.profile) == (Status.CONNECTED, "restored")
        else:
            await on_page(supervisor, "location.reload()")
            await until(lambda: journal.named("profile.restored"))
            await supervisor.connect(DEMO, wait=Wait.CONNECTED)
            assert journal.named("login.lost")
        assert not journal.named("snapshot.login_refused")
        assert len(simulator.devices) == 1
        assert good.id in [one.id for one in await supervisor.snapshots(DEMO)]


async def on_page(supervisor: Supervisor, expression: str) -> Any:
    browser = supervisor._sessions[DEMO]._instance.browser
    assert browser is not None
    assert browser.page is not None
    return await browser.page.evaluate(expression)


async def until_more(supervisor: Supervisor, what: str) -> None:
    """Of what the page counts."""
    before = await on_page(supervisor, what)
    async with asyncio.timeout(20):
        while await on_page(supervisor, what) == before:
            await asyncio.sleep(0.05)


async def test_a_history_that_cannot_be_written_costs_no_login_and_goes_on_when_there_is_space(
    logged_in: Daemon, disk: Disk, journal: Journal
) -> None:
    async with logged_in(limits={**RESERVE, "reserve_disk_mb": 0}) as (supervisor, _):
        disk.fill()
        for _ in range(5000):
            journal.bus.publish("attempt.done", client=DEMO, outcome="usable", why="connect")
        await until(lambda: journal.named("history.write_failed"))
        assert "full" in supervisor.history.state
        assert supervisor.view(DEMO).status is Status.CONNECTED
        disk.empty()
        await until(lambda: journal.named("history.recovered"))
        assert (await supervisor.restart(DEMO, wait=Wait.CONNECTED)).profile == "kept"
        assert (await supervisor.history.stats(1)).attempts.usable >= 5000
    assert len(journal.named("history.write_failed")) == 1
