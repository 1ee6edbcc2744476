#!/usr/bin/env python3
"""What keeping a login costs: the check before a launch, snapshot and restore, the freeze of a browser that runs, a sweep.

The profile is written by Chromium itself on the simulated WhatsApp Web: IndexedDB is filled to 60 MB through the page,
with random data, since what WhatsApp Web stores is encrypted; 200 MB of caches are laid beside it. The floor of snapshot
and restore is ``tar | zstd -3`` of the same files, which neither encrypts, nor proves, nor sees anything onto the disk. It
takes turns with ours, so that a machine that changes its speed changes both; a ratio is the median of the turns' own.

A sweep is a dry run of a daemon that has so many sessions, all stopped: by themselves, beside as many processes that are
nobody's, and with an orphan of an earlier daemon on each profile's lock.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import aiohttp
import zstandard
from figures import Figures, options, room, rounds, simulator

from waguard import daemon
from waguard.browser import find
from waguard.config.sections import Config
from waguard.core.model import ClientCode, Source, Status, Verdict, Wait
from waguard.observe.bus import Bus, Event
from waguard.profile import examiners, login_files, witness
from waguard.profile.examiners.subject import Subject
from waguard.profile.generation import Profile, new_generation
from waguard.profile.store import Profiles
from waguard.sandbox import unprivileged_user
from waguard.sandbox.identity import TOKEN_VARIABLE
from waguard.sandbox.plain import Plain
from waguard.session.custody import Custody
from waguard.session.ladder import Ladder
from waguard.snapshots import keys
from waguard.snapshots.store import Snapshot, Snapshots
from waguard.supervisor.supervisor import Supervisor
from waguard.system import host
from waguard.system.files import bytes_below
from waguard.system.host import MB

T = TypeVar("T")

CODE = ClientCode("bench")
DATABASE_MB, CACHES_MB = 60, 200
CHECK_AIM_MS = 100.0
FROZEN_AIM_MS = 50.0
RATIO_AIM = 4.0
SIZE_AIM = 1.05
GROWTH_AIM = 1.5
PATIENCE_S = 60.0
ZSTD = shutil.which("zstd")
GO = threading.Event()
WRITE = """(() => {
  const page = globalThis, megabytes = %d, forever = megabytes === 0, rows = forever ? 8 : 64;
  page.benchWritten = 0;
  (async () => {
    const opening = indexedDB.open('bench', 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore('store');
    const database = await new Promise((resolve, reject) => {
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = reject;
    });
    for (let key = 0; forever || page.benchWritten < megabytes * 2 ** 20;) {
      await new Promise((resolve, reject) => {
        const transaction = database.transaction('store', 'readwrite', { durability: 'strict' });
        const store = transaction.objectStore('store');
        for (let i = 0; i < rows; i += 1, key += 1) {
          store.put(crypto.getRandomValues(new Uint8Array(8192)), forever ? key %% 2048 : key);
        }
        transaction.oncomplete = resolve;
        transaction.onerror = reject;
      });
      page.benchWritten += rows * 8192;
      if (forever) await new Promise(resolve => setTimeout(resolve, 20));
    }
  })();
})()"""
"""So many MiB, or with 0 some in the place of others without an end; the page goes on with it by itself."""


def main() -> None:
    chosen = options(__doc__)
    figures = Figures("profile")
    turns, lives = (3, 4) if chosen.quick else (15, 10)
    with room() as place, simulator() as page:
        bench = Bench(place / "sessions", page)
        live = asyncio.run(bench.live(lives))
        offline = bench.at_rest(turns, place)
    steps = (10, 100) if chosen.quick else (10, 100, 1000)
    swept = {count: asyncio.run(sweeps(count)) for count in steps}

    figures.add("check_ms", median(offline.check) * 1000, at_most=CHECK_AIM_MS)
    figures.add("check_without_witness_ms", median(offline.check_bare) * 1000, at_most=CHECK_AIM_MS)
    figures.add("check_cold_ms", median(offline.check_cold) * 1000)
    figures.add("snapshot_ms", median(offline.pack) * 1000)
    figures.add("snapshot_floor_ms", median(offline.pack_floor) * 1000)
    snapshot = ratio(offline.pack, offline.pack_floor)
    figures.add("snapshot_over_floor_ratio", snapshot, at_most=RATIO_AIM)
    figures.add("restore_ms", median(offline.unpack) * 1000)
    figures.add("restore_floor_ms", median(offline.unpack_floor) * 1000)
    restore = ratio(offline.unpack, offline.unpack_floor)
    figures.add("restore_over_floor_ratio", restore, at_most=RATIO_AIM)
    figures.add("floor_is_the_zstd_program", ZSTD is not None)
    figures.add("profile_mb", offline.profile_mb)
    figures.add("login_mb", offline.login_mb)
    figures.add("snapshot_mb", offline.size / MB)
    figures.add("size_over_floor_ratio", offline.size / offline.size_floor, at_most=SIZE_AIM)
    figures.add("live_snapshot_ms", median(live.took))
    figures.add("frozen_ms", median(live.frozen), at_most=FROZEN_AIM_MS)
    figures.add("frozen_worst_ms", max(live.frozen))
    figures.add("live_snapshots", len(live.frozen))
    figures.add("written_meanwhile_mb", live.written / MB)
    figures.add("link_changes_meanwhile", live.changes, at_most=0)
    for count, kinds in swept.items():
        for kind, took in kinds.items():
            figures.add(f"sweep_{kind}_{count}_ms", took * 1000)
            figures.add(f"sweep_{kind}_{count}_each_ms", took * 1000 / count)
    fewer, more = steps[-2:]
    for kind in swept[more]:
        growth = swept[more][kind] / more / (swept[fewer][kind] / fewer)
        figures.add(f"sweep_{kind}_growth_ratio", growth, at_most=GROWTH_AIM)
    figures.add("turns", turns)
    program = "tar | zstd" if ZSTD else "tarfile | zstandard"
    figures.close(
        chosen.json,
        f"check {median(offline.check) * 1000:.0f} ms; snapshot of {offline.login_mb:.0f} MB "
        f"{median(offline.pack) * 1000:.0f} ms, {snapshot:.1f} times {program}, "
        f"restore {median(offline.unpack) * 1000:.0f} ms, {restore:.1f} times; "
        f"a browser is held still for {median(live.frozen):.0f} ms; "
        f"a sweep of {more} sessions with orphans takes {swept[more]['orphans']:.2f} s",
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def timed(work: Callable[..., T], *arguments: object) -> tuple[float, T]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - began, result


# --- one profile ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Live:
    """Snapshots of a session that runs and writes."""

    frozen: list[float]
    took: list[float]
    changes: int
    written: float


class AtRest:
    """The same profile, once its browser has ended. Seconds."""

    def __init__(self) -> None:
        self.check: list[float] = []
        self.check_bare: list[float] = []
        self.check_cold: list[float] = []
        self.pack: list[float] = []
        self.pack_floor: list[float] = []
        self.unpack: list[float] = []
        self.unpack_floor: list[float] = []
        self.size = self.size_floor = 0
        self.profile_mb = self.login_mb = 0.0


class Bench:
    def __init__(self, root: Path, page: str) -> None:
        self._root, self._page = root, page
        self._origin = login_files.origin_of(page)
        self._user = unprivileged_user("", root)
        self._profiles = Profiles(root, self._user)

    async def live(self, count: int) -> Live:
        """Log in, fill the profile, take snapshots while the page writes; everything has ended when it returns."""
        heard: list[Event] = []
        async with supervising(self._root, self._page, heard) as supervisor, aiohttp.ClientSession() as http:
            view = await supervisor.connect(CODE)
            assert view.qr is not None
            async with http.post(f"{self._page}phone/scan", data=view.qr.text) as answer:
                answer.raise_for_status()
            view = await supervisor.connect(CODE, wait=Wait.CONNECTED)
            assert view.generation is not None
            await evaluate(supervisor, WRITE % DATABASE_MB)
            await until_written(supervisor, DATABASE_MB * MB)
            async with asyncio.timeout(PATIENCE_S):
                while not named(heard, "snapshot.taken"):  # of the new login, by itself
                    await asyncio.sleep(0.05)
            lay_caches(self._profiles.profile(view.generation).path)
            await evaluate(supervisor, WRITE % 0)
            before = await until_written(supervisor, MB)
            heard.clear()
            for _ in rounds(count):
                await supervisor.snapshot(CODE)
            written = await until_written(supervisor, before) - before
            taken = [event.fields for event in named(heard, "snapshot.taken")]
            changes = len(named(heard, "session.changed"))
            assert all(one["live"] for one in taken), taken
            assert supervisor.view(CODE).status is Status.CONNECTED
            await supervisor.disconnect(CODE)
        return Live(
            [one["frozen_ms"] for one in taken], [one["duration_ms"] for one in taken], changes, written
        )

    def at_rest(self, turns: int, place: Path) -> AtRest:
        found, profile = AtRest(), self._current()
        version = asyncio.run(find.probe(find.locate(None), PATIENCE_S)).version
        known = witness.read(profile.witness)
        assert known is not None
        assert known.files
        uid = self._profiles.uid
        names = list(login_files.part(profile.path, self._origin))
        found.profile_mb = bytes_below(profile.path) / MB
        found.login_mb = sum((profile.path / name).stat().st_size for name in names) / MB

        def check(known: witness.Witness | None) -> float:
            subject = Subject(profile.path, version, self._origin, uid, known, login_on_disk=True)
            took, report = timed(examiners.examine, subject)
            assert report.verdict is Verdict.SOUND, report.why
            return took

        for _ in range(turns):
            found.check.append(check(known))
            found.check_bare.append(check(None))
            forget([profile.path / name for name in names])
            found.check_cold.append(check(known))
        snapshots = Snapshots(self._root, keys.load(keys.place(None, self._root), make=False))
        custody = Custody(CODE, self._origin, version, self._profiles, snapshots, Plain(self._user))
        listed = place / "listed"
        for number in rounds(turns + 1):
            top, archive, laid = self._current().path, place / "floor.tar.zst", place / "floor"
            laid.mkdir()
            listed.write_text("\n".join(login_files.part(top, self._origin)))
            pack_floor, _ = timed(pack, top, listed, archive)
            pack_ours, snapshot = timed(self._snapshot, custody, snapshots)
            unpack_floor, _ = timed(unpack, archive, laid)
            # The whole way: opened, proved, seen onto the disk, checked, made current.
            unpack_ours, _ = timed(partial(Ladder(custody).take, has_login=True), GO, Source(snapshot.id))
            custody.drop_lock()
            found.size, found.size_floor = snapshot.size, archive.stat().st_size
            if number:  # the first warms the page cache
                found.pack_floor.append(pack_floor)
                found.pack.append(pack_ours)
                found.unpack_floor.append(unpack_floor)
                found.unpack.append(unpack_ours)
            shutil.rmtree(laid)
            for one in snapshots.of(CODE):
                snapshots.delete(one)
            for retired in self._profiles.aside.all():
                self._profiles.aside.delete(retired.path)
        return found

    def _current(self) -> Profile:
        profile = self._profiles.current(CODE)
        assert profile is not None
        return profile

    def _snapshot(self, custody: Custody, snapshots: Snapshots) -> Snapshot:
        staged = self._profiles.staging(CODE)
        staged.mkdir(mode=0o700)
        about = custody.copy(staged, "bench", has_login=True, held_still=None)
        snapshot = snapshots.take(GO, staged, about)
        shutil.rmtree(staged)
        return snapshot


def lay_caches(profile: Path) -> None:
    """200 MB where Chromium has its caches, half of it compressible, in files of 20 to 500 KB and some large ones."""
    owner = profile.stat()
    sizes = [20_000, 60_000, 150_000, 500_000, 4_000_000]
    left, number = CACHES_MB * MB, 0
    while left > 0:
        kind = ("Cache/Cache_Data", "Code Cache/js", "Cache/Cache_Data", "GPUCache")[number % 4]
        directory = profile / "Default" / kind
        if not directory.is_dir():
            directory.mkdir(parents=True)
            for one in (directory, directory.parent):
                os.chown(one, owner.st_uid, owner.st_gid)
        size = min(left, sizes[number % len(sizes)])
        path = directory / f"bench_{number:06x}"
        path.write_bytes(os.urandom(size) if number % 2 else (b"function(e,t,n){return e};" * size)[:size])
        os.chown(path, owner.st_uid, owner.st_gid)
        left, number = left - size, number + 1


def forget(paths: Sequence[Path]) -> None:
    """As after a restart of the machine: none of it is in memory."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# --- the floor ------------------------------------------------------------------------------------------------


def pack(top: Path, names: Path, archive: Path) -> None:
    if ZSTD is None:
        with (
            archive.open("wb") as raw,
            zstandard.ZstdCompressor(level=3).stream_writer(raw) as packed,
            tarfile.open(fileobj=packed, mode="w|") as tar,
        ):
            for name in names.read_text().splitlines():
                tar.add(top / name, name)
        return
    with subprocess.Popen(
        ["tar", "-C", str(top), "-T", str(names), "-cf", "-"], stdout=subprocess.PIPE
    ) as tar_program:
        subprocess.run([ZSTD, "-3", "-q", "-f", "-o", str(archive)], stdin=tar_program.stdout, check=True)
    assert tar_program.returncode == 0


def unpack(archive: Path, into: Path) -> None:
    if ZSTD is None:
        with (
            archive.open("rb") as raw,
            zstandard.ZstdDecompressor().stream_reader(raw) as packed,
            tarfile.open(fileobj=packed, mode="r|") as tar,
        ):
            tar.extractall(into, filter="data")
        return
    with subprocess.Popen([ZSTD, "-d", "-q", "-c", str(archive)], stdout=subprocess.PIPE) as zstd:
        subprocess.run(["tar", "-C", str(into), "-xf", "-"], stdin=zstd.stdout, check=True)
    assert zstd.returncode == 0


# --- sweeps ---------------------------------------------------------------------------------------------------

FILES: Sequence[str] = (
    "Local State",
    "Last Version",
    "Default/Preferences",
    "Default/Cookies",
    *(
        f"Default/{where}/{name}"
        for where in ("Local Storage/leveldb", "IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb")
        for name in ("000003.log", "000005.ldb", "CURRENT", "LOCK", "MANIFEST-000001")
    ),
    *(f"Default/Cache/Cache_Data/f_{number:06x}" for number in range(20)),
    *(f"Default/Code Cache/js/{number:016x}_0" for number in range(10)),
)


async def sweeps(count: int) -> dict[str, float]:
    """Seconds of a dry run with so many sessions, by what runs beside them."""
    with room() as place:
        root = place / "sessions"
        locks = settle(root, count)
        async with supervising(root, "http://127.0.0.1:9/", []) as supervisor:
            took = {"rest": await sweep(supervisor, "")}
            with sleepers([None] * count):
                took["ordinary"] = await sweep(supervisor, "")
            with sleepers(locks):
                took["orphans"] = await sweep(supervisor, "browser_without_session", count)
    return took


async def sweep(supervisor: Supervisor, kind: str, expected: int = 0) -> float:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        found = (await supervisor.sweeper.sweep(dry_run=True)).findings
        took.append(time.perf_counter() - began)
        assert len(found) == expected, found[:3]
        assert all(one.kind == kind for one in found), found[:3]
    return median(took)


def settle(root: Path, count: int) -> Sequence[Path]:
    """What so many stopped sessions leave on the disk; the locks of their profiles."""
    profiles = Profiles(root, unprivileged_user("", root))
    profiles.make_room()
    locks = []
    for number in rounds(count):
        profile = profiles.profile(new_generation())
        home = profiles.home(ClientCode(f"s{number}"))
        (home / "session.json").write_text('{"wanted": "down", "login": true}\n')
        (home / "profile").symlink_to(Path("..") / ".profiles" / profile.generation)
        for name in FILES:
            path = profile.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"0123456789abcdef" * 64)
        profile.witness.write_text('{"browser": "156.0.0.0", "files": {}}\n')
        profile.lock.touch(0o600)
        locks.append(profile.lock)
        old = f"{home.name}.{new_generation()}.cleanup.saved"
        (root / ".retired" / old / "Default").mkdir(parents=True)
    return locks


@contextmanager
def sleepers(locks: Sequence[Path | None]) -> Iterator[None]:
    """A process that sleeps for each: one with a lock is what an earlier daemon has left there."""
    running = []
    try:
        for path in locks:
            environ, fds = {}, []
            if path is not None:
                fds = [os.open(path, os.O_RDWR)]
                fcntl.flock(fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
                environ = {TOKEN_VARIABLE: secrets.token_hex(16)}
            running.append(
                subprocess.Popen(
                    ["/usr/bin/sleep", "600"], env=environ, pass_fds=fds, stdin=subprocess.DEVNULL
                )
            )
            for fd in fds:
                os.close(fd)
            # A program that has just begun has no environment to be seen yet, and so is nobody's.
            entry = "".join(f"{name}={value}" for name, value in environ.items())
            while entry and not host.environment_has(running[-1].pid, entry):
                time.sleep(0.001)
        yield
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


# --- the daemon -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def supervising(root: Path, page: str, heard: list[Event]) -> AsyncIterator[Supervisor]:
    config = Config.model_validate(
        {
            "sessions": {"dir": root},
            "whatsapp": {"url": page},
            "api": {"port": 0, "admin_token": "bench-bench-bench-bench", "costly_per_minute": 0},
        }
    )
    bus = Bus()
    bus.subscribe(heard.append)
    async with daemon.running(config, bus) as (supervisor, _):
        yield supervisor


async def evaluate(supervisor: Supervisor, expression: str) -> Any:
    browser = supervisor._sessions[CODE]._instance.browser  # noqa: SLF001 (no verb of ours writes to a page)
    assert browser is not None
    assert browser.page is not None
    return await browser.page.evaluate(expression)


async def until_written(supervisor: Supervisor, size: float) -> float:
    """Wait until the page has written so many bytes; how many it has."""
    async with asyncio.timeout(PATIENCE_S):
        while (written := float(await evaluate(supervisor, "globalThis.benchWritten"))) < size:
            await asyncio.sleep(0.05)
    return written


def named(heard: Sequence[Event], name: str) -> Sequence[Event]:
    return [event for event in heard if event.name == name]


if __name__ == "__main__":
    main()
