"""The reaper's sweep over made messes: what is ours is dealt with, what only looks like ours is not touched.

Processes are real: browsers that pose, in bubblewrap and without, left by daemons that were really killed.
"""

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import POSING, Daemon, Journal
from control_port import ADMIN, API, TOKEN
from processes import alive, held_elsewhere, stop
from programs import address, call, end, running
from trees import snapshot
from victim import LIFE, Victim
from waiting import until

from waguard.core.model import ClientCode, Process, Status, Wait
from waguard.core.shown import Leftover, Sweep
from waguard.errors import NoMemory, NotReady, ProfileLocked, SnapshotFailed, WaguardError
from waguard.profile.generation import Retired, new_generation
from waguard.profile.login_files import CACHES
from waguard.profile.store import Profiles
from waguard.sandbox import reaper
from waguard.sandbox.identity import TOKEN_VARIABLE
from waguard.session.ending import Ending
from waguard.session.ladder import Ladder, Taken
from waguard.session.launch import Launcher
from waguard.session.registry import Registry
from waguard.session.task import Session
from waguard.snapshots.packing import About
from waguard.supervisor.startup import Startup
from waguard.supervisor.supervisor import Supervisor
from waguard.system import files, host
from waguard.system.systemd import Manager
from waguard.upkeep.keeper import Keeper
from waguard.upkeep.tidying import Tidying

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
OLD, OLD2, OLD3 = (f"20240102T030405-0123abc{last}" for last in "def")
ORIGIN = "https_web.whatsapp.com_0"
LOGIN = (f"Default/IndexedDB/{ORIGIN}.indexeddb.leveldb/CURRENT", "Default/Local Storage/leveldb/CURRENT")
MB = 1024 * 1024
HOUR = 3600.0

Start = Callable[..., AbstractAsyncContextManager[Supervisor]]


@pytest.fixture(params=["bubblewrap", "plain"])
def sandbox(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"kind": request.param}


@pytest.fixture
def unswept(pose: Daemon, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A daemon that neither sweeps nor brings back sessions by itself, so that a mess stays until the test has it swept."""

    async def nothing(*_: object, **__: object) -> None:
        pass

    @asynccontextmanager
    async def opening(posing: str = "ok", **sections: dict[str, Any]) -> AsyncIterator[Supervisor]:
        monkeypatch.setattr(Tidying, "_sweep", nothing)
        monkeypatch.setattr(Startup, "bring_back", nothing)
        async with pose(posing, **sections) as (supervisor, _):
            yield supervisor

    return opening


class Store:
    """Stands in for a service manager that keeps fds."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self._path)
        self._names: set[str] = set()

    def manager(self, *_: object) -> Manager:
        return Manager({"NOTIFY_SOCKET": self._path, "FDSTORE": "64"})

    def pipes(self) -> set[str]:
        """Names of what is kept beside the control port."""
        with suppress(BlockingIOError):
            while True:
                data, fds, _flags, _address = socket.recv_fds(self._socket, 4096, 16)
                for fd in fds:
                    os.close(fd)
                said = dict(line.split("=", 1) for line in data.decode().splitlines())
                if "FDSTORE" in said:
                    self._names.add(said["FDNAME"])
                elif "FDSTOREREMOVE" in said:
                    self._names.remove(said["FDNAME"])
        return self._names - {"control"}

    def close(self) -> None:
        self.pipes()
        self._socket.close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """What is kept for the next daemon by those of this test."""
    store = Store(tmp_path / "notify")
    monkeypatch.setattr("waguard.daemon.Manager", store.manager)
    yield store
    store.close()


@pytest.fixture
def root(sessions_dir: Path) -> Path:
    for name in (".profiles", ".retired"):
        (sessions_dir / name).mkdir(parents=True)
    return sessions_dir


def lay(path: Path, *, kb: int = 0, age_s: float = 0.0) -> Path:
    """A file with its parents; the age is that of the topmost new one among them."""
    top = path
    while not top.parent.exists():
        top = top.parent
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(kb * 1024) if kb else b"x")
    aged(top, age_s)
    return path


def aged(path: Path, age_s: float) -> Path:
    os.utime(path, (time.time() - age_s,) * 2, follow_symlinks=False)
    return path


def retired(root: Path, name: str, *, age_s: float = 0.0, kb: int = 0, login: bool = False) -> Path:
    place = root / ".retired" / name
    lay(place / "Default" / "mark", kb=kb)
    for file in LOGIN if login else ():
        lay(place / file)
    return aged(place, age_s)


def owned(root: Path, code: str, generation: str) -> Path:
    """A client's link to a profile, which is made."""
    lay(root / ".profiles" / generation / "Default" / "mark")
    (root / code).mkdir()
    (root / code / "profile").symlink_to(Path("../.profiles") / generation)
    return root / ".profiles" / generation


def findings(sweep: Sweep, *, zombies: bool = False) -> list[Leftover]:
    """Without the zombies, unless the test is about them: this process inherits those of every sandbox (see conftest)."""
    return [one for one in sweep.findings if zombies or one.kind != "zombie"]


def told(sweep: Sweep, *, zombies: bool = False) -> list[tuple[str, str, str]]:
    return [(one.kind, one.subject, one.action) for one in findings(sweep, zombies=zombies)]


def outcomes(sweep: Sweep) -> set[str]:
    return {one.outcome for one in findings(sweep)}


def explained(sweep: Sweep) -> None:
    for one in sweep.findings:
        assert one.kind
        assert one.subject
        assert len(one.evidence) > 10
        assert one.outcome in {"would", "done", "reported"}, one


async def swept(supervisor: Supervisor) -> Sweep:
    """A sweep, before which a dry one has said the same and changed nothing below the sessions."""
    top = supervisor._resources.profiles.root
    before = snapshot(top)
    dry = await supervisor.reap(dry_run=True)
    assert snapshot(top) == before
    assert outcomes(dry) <= {"would"}
    explained(dry)
    real = await supervisor.reap(dry_run=False)
    assert told(real) == told(dry)
    return real


async def finds(supervisor: Supervisor, *expected: tuple[str, str, str]) -> list[Leftover]:
    """It finds exactly this and does it, and then finds nothing any more but what is only reported."""
    sweep = await swept(supervisor)
    assert told(sweep) == list(expected)
    assert all(one.outcome == ("reported" if one.action == "report" else "done") for one in findings(sweep))
    again = await supervisor.reap(dry_run=False)
    assert told(again) == [one for one in expected if one[2] == "report"]
    return findings(sweep)


@asynccontextmanager
async def being_made(path: Path) -> AsyncIterator[Path]:
    made = files.partial(path)
    try:
        yield await asyncio.to_thread(made.__enter__)
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)


def events(journal: Journal) -> list[dict[str, Any]]:
    """What was found, but for zombies: see `findings`."""
    found = [{**event.fields, "client": event.client} for event in journal.named("sweep.finding")]
    return [one for one in found if one["kind"] != "zombie"]


# --- processes --------------------------------------------------------------------------------------------------


@contextmanager
def daemon(
    sessions: Path, *codes: str, posing: str, sandbox: dict[str, str], **sections: Any
) -> Iterator[Victim]:
    """A daemon in a process of its own, which connects these codes."""
    config = {
        "sessions": {"dir": str(sessions)},
        "browser": {"path": str(POSING), "extra_flags": [f"--posing={posing}"]},
        "limits": {
            "reserve_memory_mb": 0,
            "session_memory_mb": 0,
            "reserve_disk_mb": 0,
            "concurrent_starts": 8,
        },
        "api": {"port": 0},
        "sandbox": sandbox,
        **sections,
    }
    paths = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", LIFE, json.dumps(config), "", *codes]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE
    ) as process:
        try:
            yield Victim(process, sessions)
        finally:
            process.kill()


def inside(pid: int) -> list[int]:
    """Its pids in each of its namespaces."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return [0]
    return [int(one) for one in status.partition("NSpid:")[2].splitlines()[0].split()]


async def with_strays(victim: Victim, *codes: str) -> dict[str, dict[int, int]]:
    """Of each client's sandbox what is in it: pid inside -> pid here; 1 is its init, 2 the browser, and one is its stray,
    which the init has adopted.
    """
    found: dict[str, dict[int, int]] = {}

    def complete() -> bool:
        for code, family in victim.processes().items():
            rows = [row for pid in family if (row := host.process_row(pid)) and len(inside(pid)) > 1]
            found[code] = {inside(row.pid)[-1]: row.pid for row in rows}
            strays = [row for row in rows if row.ppid == found[code].get(1) and row.pid != found[code].get(2)]
            if len(rows) != 3 or len(strays) != 1:
                return False
        return set(found) == set(codes)

    await until(complete)
    return found


def posing_in(family: set[int]) -> set[int]:
    """Those of them that pose as a browser."""
    found = set()
    for pid in family:
        with suppress(OSError):
            if str(POSING).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2]:
                found.add(pid)
    return found


async def orphans(
    sessions: Path, *codes: str, sandbox: dict[str, str], posing: str = "never-ready"
) -> dict[str, set[int]]:
    """The processes of browsers whose daemon was killed by SIGKILL, and which do not notice."""
    with daemon(sessions, *codes, posing=posing, sandbox=sandbox) as victim:
        await victim.says(*(f"browser.spawned {code}" for code in codes))
        await until(lambda: all(posing_in(victim.processes().get(code, set())) for code in codes))
        families = victim.processes()
        victim.kill()
    left = set().union(*families.values())
    assert alive(left) == left
    return families


def unrecorded(sessions: Path, code: str, how: str = "removed") -> None:
    """No record knows the client's launch."""
    record = sessions / code / "session.json"
    if how == "torn":
        record.write_bytes(record.read_bytes()[:40])
    else:
        record.unlink()


@pytest.fixture
def strangers() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start processes that are none of ours; each must be alive at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *argv: str, executable: str | None = None, token: str | None = None, fds: Sequence[int] = ()
    ) -> "subprocess.Popen[bytes]":
        env = {"PATH": "/usr/bin:/bin", **({TOKEN_VARIABLE: token} if token is not None else {})}
        process = subprocess.Popen(argv, executable=executable, env=env, start_new_session=True, pass_fds=fds)
        started.append(process)
        return process

    yield start
    dead = [process.args for process in started if process.poll() is not None]
    for process in started:
        process.kill()
        process.wait()
    assert not dead, "strangers were killed"


def decoys(root: Path, start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    """Processes with one sign of ours each, never the one that counts."""
    profile = next(iter((root / ".profiles").glob("2*")), root / ".profiles" / OLD)
    start("chromium", "3600", executable="/usr/bin/sleep")
    start("/usr/bin/tail", "-f", "/dev/null", f"--pid={os.getpid()}")
    start("sleep", "3600", executable="/usr/bin/sleep", token=secrets.token_hex(16))
    start(sys.executable, "-c", "import time; time.sleep(3600)", f"--user-data-dir={profile}")
    start(
        str(POSING), "--posing=never-ready", f"--user-data-dir={profile}", str(profile.with_suffix(".lock"))
    )


@pytest.mark.parametrize("record", ["removed", "torn"])
async def test_an_orphan_that_no_record_knows_is_found_by_its_lock_at_the_start(
    pose: Daemon,
    root: Path,
    sandbox: dict[str, str],
    record: str,
    journal: Journal,
    strangers: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    left = await orphans(root, "demo", "demo2", sandbox=sandbox)
    generation = (root / "demo" / "profile").readlink().name
    for code in left:
        unrecorded(root, code, record)
    decoys(root, strangers)
    async with pose(sandbox=sandbox) as (supervisor, _):
        assert not alive(left["demo"] | left["demo2"])
        found = events(journal)
        assert {(one["client"], one["kind"], one["outcome"]) for one in found} == {
            ("demo", "browser_without_session", "done"),
            ("demo2", "browser_without_session", "done"),
        }
        assert {int(one["subject"]) for one in found} <= left["demo"] | left["demo2"]
        view = await supervisor.connect(DEMO)
        assert (view.status, view.profile, view.generation) == (Status.AWAITING_SCAN, "kept", generation)


async def test_an_orphan_is_ended_while_the_daemon_runs_and_its_own_browsers_are_not(
    unswept: Start,
    root: Path,
    sandbox: dict[str, str],
    strangers: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    left = await orphans(root, "demo", "demo2", sandbox=sandbox)
    shutil.rmtree(root / "demo")
    unrecorded(root, "demo2")
    decoys(root, strangers)
    async with unswept(sandbox=sandbox) as supervisor:
        view = await supervisor.connect(ClientCode("other"))
        assert view.browser is not None
        dry = await supervisor.reap(dry_run=True)
        assert alive(left["demo"] | left["demo2"]) == left["demo"] | left["demo2"]
        real = await supervisor.reap(dry_run=False)
        assert told(real) == told(dry)
        assert {(one.kind, one.client, one.outcome) for one in findings(real)} == {
            ("browser_without_session", None, "done"),
            ("browser_without_session", "demo2", "done"),
        }
        assert not alive(left["demo"] | left["demo2"])
        assert not findings(await supervisor.reap(dry_run=False)), "its profile is still young"
        assert supervisor.view(ClientCode("other")).browser == view.browser


async def test_a_sandbox_whose_browser_is_gone_and_that_a_stray_keeps_is_ended(
    unswept: Start, root: Path
) -> None:
    with daemon(root, "demo", posing="leaves-a-stray", sandbox={"kind": "bubblewrap"}) as victim:
        await victim.says("all up")
        family = (await with_strays(victim, "demo"))["demo"]
        victim.kill()
    await until(lambda: family[2] not in alive(set(family.values())))
    unrecorded(root, "demo")
    async with unswept() as supervisor:
        (found,) = await finds(supervisor, ("sandbox_without_browser", str(family[1]), "kill"))
        assert found.client == "demo"
        assert not alive(set(family.values()))


async def test_a_launch_on_record_that_resisted_at_the_start_is_met_by_the_sweep(
    unswept: Start, root: Path, sandbox: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = (await orphans(root, "demo", sandbox=sandbox))["demo"]

    async def resists(_: object) -> None:
        raise PermissionError("Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(reaper, "reap", resists)
        async with unswept(sandbox=sandbox) as supervisor:
            patch.undo()
            assert alive(left) == left
            (found,) = await finds(supervisor, ("leftover_launch", "demo", "kill"))
            assert any(str(pid) in found.evidence for pid in left)
            assert not alive(left)
            assert json.loads((root / "demo" / "session.json").read_bytes())["launch"] is None
            assert (await supervisor.connect(DEMO)).profile == "kept"


async def test_what_fails_is_told_and_keeps_nothing_else_from_being_done(
    unswept: Start, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = (await orphans(root, "demo", sandbox={"kind": "plain"}))["demo"]
    unrecorded(root, "demo")
    lay(root / ".profiles" / f"{OLD}.lock")

    async def resists(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    async with unswept(sandbox={"kind": "plain"}) as supervisor:
        with monkeypatch.context() as patch:
            patch.setattr(reaper, "end_tree", resists)
            sweep = await supervisor.reap(dry_run=False)
        assert [(one.kind, one.outcome, one.detail) for one in findings(sweep)] == [
            ("browser_without_session", "failed", "Operation not permitted"),
            ("stale_lock", "done", "deleted"),
        ]
        assert alive(left) == left
        await supervisor.reap(dry_run=False)
        assert not alive(left)


async def test_zombies_that_were_inherited_are_collected_and_a_child_of_ones_own_is_not(
    unswept: Start,
) -> None:
    def zombies() -> set[int]:
        rows = host.process_table()
        return {row.pid for row in rows if row.ppid == os.getpid() and row.state == "Z"}

    async with unswept() as supervisor:
        await supervisor.reap(dry_run=False)
        others = zombies()  # of tests before this one, in our own session
        own = subprocess.Popen(["/usr/bin/true"])
        await until(lambda: zombies() == {own.pid} | others)
        subprocess.run(["/usr/bin/setsid", "-f", "/usr/bin/true"], check=True)
        await until(lambda: len(zombies() - others) == 2)
        (inherited,) = zombies() - {own.pid} - others
        for dry_run in (True, False):
            sweep = await supervisor.reap(dry_run=dry_run)
            assert told(sweep, zombies=True) == [("zombie", str(inherited), "collect")]
        assert zombies() == {own.pid} | others
        assert not told(await supervisor.reap(dry_run=False), zombies=True)
    assert own.wait() == 0


async def test_a_stranger_that_holds_our_lock_is_reported_and_left(unswept: Start, root: Path) -> None:
    """Whether the profile is somebody's or nobody's; and what it holds is neither retired nor pruned."""
    owned(root, "demo", OLD)
    lay(root / ".profiles" / OLD / "Default" / "Cache" / "data", kb=2048)
    lay(root / ".profiles" / OLD2 / "Default" / "mark")
    locks = [lay(root / ".profiles" / f"{one}.lock") for one in (OLD, OLD2, OLD3)]
    async with unswept(profile={"cache_limit_mb": 1}) as supervisor:
        with ExitStack() as stack:
            pids = [stack.enter_context(held_elsewhere(lock)) for lock in locks]
            found = await finds(supervisor, *(("foreign_holder", str(pid), "report") for pid in pids))
            assert [one.client for one in found] == ["demo", None, None]
            assert alive(set(pids)) == set(pids)
        assert {one[0] for one in told(await supervisor.reap(dry_run=False))} == {
            "profile_without_owner",
            "stale_lock",
            "cache",
        }


async def test_a_token_alone_makes_nobody_ours_and_an_empty_one_never_does(
    unswept: Start, root: Path, strangers: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    lock = lay(root / ".profiles" / f"{OLD}.lock")
    other = lay(root.parent / "other.lock")
    with lock.open() as file, other.open() as elsewhere:
        for one in (file, elsewhere):
            subprocess.run(["/usr/bin/flock", "-n", str(one.fileno())], pass_fds=[one.fileno()], check=True)
        holder = strangers("/usr/bin/sleep", "3600", token="", fds=[file.fileno()])
        strangers("/usr/bin/sleep", "3600", token="")
        strangers("/usr/bin/sleep", "3600", token=secrets.token_hex(16), fds=[elsewhere.fileno()])
    async with unswept() as supervisor:
        await finds(supervisor, ("foreign_holder", str(holder.pid), "report"))


async def test_browsers_of_another_daemon_are_its_own(
    unswept: Start, root: Path, sandbox: dict[str, str]
) -> None:
    other = root.parent / "other"
    with daemon(other, "demo", posing="ok", sandbox=sandbox) as victim:
        await victim.says("all up")
        family = victim.processes()["demo"]
        async with unswept(sandbox=sandbox) as supervisor:
            await supervisor.connect(DEMO)
            assert not findings(await swept(supervisor))
        assert alive(family) == family
        victim.kill()
    await until(lambda: not alive(family))  # by the end of its pipe


async def test_all_below_an_orphan_is_ended_also_what_carries_no_token(root: Path) -> None:
    """As Chromium's zygotes and renderers do not."""
    lock = lay(root / ".profiles" / f"{OLD}.lock")
    script = "import os, subprocess; p = subprocess.Popen(['/usr/bin/sleep', '3600'], env={}, start_new_session=True); print(p.pid, flush=True); p.wait()"
    with lock.open() as file:
        subprocess.run(["/usr/bin/flock", "-n", str(file.fileno())], pass_fds=[file.fileno()], check=True)
        leader = subprocess.Popen(
            [sys.executable, "-c", script],
            env={TOKEN_VARIABLE: secrets.token_hex(16)},
            stdout=subprocess.PIPE,
            pass_fds=[file.fileno()],
            start_new_session=True,
        )
    with leader:
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        holders = await asyncio.to_thread(lambda: reaper.lock_holders([lock]))
        assert [(one.identity.pid, one.ours, one.empty) for one in holders] == [(leader.pid, True, False)]
        async with asyncio.timeout(10):
            assert await reaper.end_holders(holders) == [leader.pid]
        assert not alive({leader.pid, child})


# --- processes: races -------------------------------------------------------------------------------------------


async def test_whoever_has_let_go_of_the_lock_since_the_look_is_not_killed(
    unswept: Start, root: Path, sandbox: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of ours between fork and exec has a copy of every lock the daemon holds."""
    async with unswept(sandbox=sandbox) as supervisor:
        view = await supervisor.connect(DEMO)
        assert view.browser is not None
        lock = lay(root / ".profiles" / f"{OLD}.lock")
        look, first = host.flock_holders, [True]

        def passing(paths: Any) -> dict[Path, list[int]]:
            found = look(paths)
            if first:
                first.clear()
                assert view.browser is not None
                found[lock] = [view.browser.pids[0]]
            return found

        with held_elsewhere(lock):
            monkeypatch.setattr(host, "flock_holders", passing)
            sweep = await supervisor.reap(dry_run=False)
        kinds = [(one.kind, one.outcome) for one in findings(sweep)]
        assert kinds == [("browser_without_session", "nothing")]
        assert supervisor.view(DEMO).browser == view.browser
        assert alive(set(view.browser.pids)) == set(view.browser.pids)


async def test_a_browser_that_came_up_during_the_look_is_no_orphan(
    unswept: Start, sandbox: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, looking, go = host.process_table, threading.Event(), threading.Event()

    def slow() -> list[host.ProcessRow]:
        if threading.current_thread() is not threading.main_thread() and not looking.is_set():
            looking.set()
            go.wait(20)
        return table()

    async with unswept(sandbox=sandbox) as supervisor:
        await supervisor.connect(DEMO)
        await supervisor.disconnect(DEMO)
        with monkeypatch.context() as patch:
            patch.setattr(host, "process_table", slow)
            for dry_run in (True, False):
                looking.clear()
                go.clear()
                sweeping = asyncio.ensure_future(supervisor.reap(dry_run=dry_run))
                await until(looking.is_set)
                view = await supervisor.connect(DEMO)
                go.set()
                assert not findings(await sweeping)
                assert supervisor.view(DEMO).browser == view.browser
                await supervisor.disconnect(DEMO)


async def test_a_browser_that_a_cleanup_is_closing_is_no_orphan(unswept: Start) -> None:
    """The cleanup has forgotten its profile first of all; a SIGKILL would cost what it has not written down."""
    async with unswept("ignores-close", deadlines={"close": 0.5}) as supervisor:
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        cleaning = asyncio.ensure_future(supervisor.cleanup(DEMO))
        await until(lambda: session.memory.profile is None and session._instance.browser is not None)
        assert not findings(await swept(supervisor))
        assert session._instance.browser is not None
        assert (await cleaning).ok


async def test_a_connect_that_overtakes_the_reaping_of_its_leftover_keeps_its_record_and_its_pipes(
    unswept: Start, root: Path, sandbox: dict[str, str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a browser would run that no record knows, or that the next daemon could not go on with."""
    async with unswept(sandbox=sandbox) as supervisor:
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        launch = session.launch_on_record
        await supervisor.disconnect(DEMO)
        assert store.pipes() == set()
        await session._instance.save(launch=launch)
        reap, slow, go = reaper.reap, asyncio.Event(), asyncio.Event()

        async def late(launch: reaper.LaunchRecord) -> Sequence[int]:
            killed = await reap(launch)
            if not slow.is_set():
                slow.set()
                await go.wait()
            return killed

        monkeypatch.setattr(reaper, "reap", late)
        sweeping = asyncio.ensure_future(supervisor.reap(dry_run=False))
        await slow.wait()
        view = await supervisor.connect(DEMO)
        go.set()
        await sweeping
        record = json.loads((root / "demo" / "session.json").read_bytes())
        assert record["launch"] is not None
        assert record["launch"]["generation"] == view.generation
        assert store.pipes() == {f"{record['launch']['token']}{end}" for end in (".a", ".c", ".s.demo")}
        assert not findings(await supervisor.reap(dry_run=True))
        assert supervisor.view(DEMO).browser == view.browser


async def test_a_connect_whose_holder_a_sweep_ends_first_succeeds(
    unswept: Start, root: Path, sandbox: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await orphans(root, "demo", sandbox=sandbox)
    unrecorded(root, "demo")
    async with unswept(sandbox=sandbox, restart={"budget": 0}) as supervisor:
        end_holders = Launcher._end_holders

        async def after_a_sweep(self: Launcher, lock: Path) -> None:
            await supervisor.reap(dry_run=False)
            await end_holders(self, lock)

        monkeypatch.setattr(Launcher, "_end_holders", after_a_sweep)
        assert (await supervisor.connect(DEMO)).profile == "kept"


async def test_sweeps_disturb_no_session_that_connects_or_is_cleaned(
    pose: Daemon, sandbox: dict[str, str], journal: Journal
) -> None:
    codes = [ClientCode(f"demo{number}") for number in range(5)]
    sections: dict[str, Any] = {"sessions": {"retired_keep_hours": 0}, "profile": {"cache_limit_mb": 1}}
    async with pose(sandbox=sandbox, restart={"budget": 0}, **sections) as (supervisor, _):
        done = asyncio.Event()
        sweeps: list[Sweep] = []

        async def sweep() -> None:
            while not done.is_set():
                sweeps.append(await supervisor.reap(dry_run=len(sweeps) % 3 == 0))
                await asyncio.sleep(0)

        async def live(code: ClientCode) -> None:
            for turn in range(3):
                view = await supervisor.connect(code, fresh=turn == 1)
                assert (view.status, view.automatic_restarts) == (Status.AWAITING_SCAN, 0)
                await supervisor.disconnect(code)
                again = await supervisor.connect(code)
                assert (again.profile, again.generation) == ("kept", view.generation)
                report = await supervisor.cleanup(code)
                assert report.ok, report.steps

        sweeping = asyncio.ensure_future(sweep())
        await asyncio.gather(*(live(code) for code in codes))
        done.set()
        await sweeping
        assert len(sweeps) > 3
        for one in (finding for sweep in sweeps for finding in findings(sweep)):
            assert one.kind in {"expired", "not_saved", "zombie", "stale_lock"}, one
            assert one.outcome != "failed", one
        assert not journal.named("session.failure")
        assert not journal.named("reaper.killed")


@pytest.mark.parametrize("count", [1, 20])
async def test_the_process_table_is_looked_at_once_whatever_the_number_of_sessions(
    unswept: Start, root: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    for number in range(count):
        owned(root, f"demo{number}", f"20240102T030405-{number:08x}")
    async with unswept() as supervisor:
        assert len(supervisor.views()) == count
        with ExitStack() as stack:
            for number in range(count):
                lock = lay(root / ".profiles" / f"20240102T030405-{number:08x}.lock")
                if number < 3:
                    stack.enter_context(held_elsewhere(lock))
            await supervisor.reap(dry_run=False)  # the zombies of its trial of bubblewrap are collected
            looks, table = [], host.process_table

            def counted() -> list[host.ProcessRow]:
                looks.append(1)
                return table()

            monkeypatch.setattr(host, "process_table", counted)
            for dry_run in (True, False):
                found = findings(await supervisor.reap(dry_run=dry_run))
                assert {one.kind for one in found} == {"foreign_holder"}
        assert len(looks) == 2


# --- files ------------------------------------------------------------------------------------------------------


async def test_half_written_files_go_wherever_we_write_and_others_stay(unswept: Start, root: Path) -> None:
    gone = [
        lay(root / f"{name}.0123abcd.partial")
        for name in (".tokens.json", "demo/session.json", f".profiles/{OLD}.json", f".backups/demo/{OLD}.wgb")
    ]
    for name in (".profiles/demo.copy", f".profiles/{OLD}"):
        lay(root / f"{name}.0123abcd.partial" / "Default" / "mark")
        gone.append(root / f"{name}.0123abcd.partial")
    for path in gone:
        aged(path, 2 * HOUR)
    link = root / "demo" / "profile.0123abcd.partial"
    link.symlink_to(root.parent)
    gone.append(aged(link, 2 * HOUR))
    others = (
        "download.partial",
        "demo/x.0123ABCD.partial",
        "demo/.0123abcd.partial",
        "demo/x.0123abcd.partial.old",
        "not a code/x.0123abcd.partial",
        f".profiles/{OLD2}/Default/x.0123abcd.partial",
        "demo/deep/x.0123abcd.partial",
    )
    for name in others:
        aged(lay(root / name), 2 * HOUR)
    (root / "demo2").mkdir()
    (root / "demo2" / "profile").symlink_to(Path("../.profiles") / OLD2)
    (root / "demo3").symlink_to(root / "not a code")
    young = lay(root / "demo" / "y.0123abcd.partial")
    async with unswept() as supervisor:
        async with being_made(root / "demo" / "session.json") as beside:
            beside.write_text("in the middle")
            aged(beside, 2 * HOUR)
            wanted = sorted(str(path.relative_to(root)) for path in gone)
            found = await swept(supervisor)
            assert sorted(told(found)) == sorted(("half_written", name, "delete") for name in wanted)
            assert beside.exists()
        assert not any(path.exists() or path.is_symlink() for path in gone)
        assert root.parent.is_dir()
        assert all((root / name).exists() for name in others)
        assert young.exists(), "another program may be writing it"


async def test_at_its_start_nobody_else_writes_and_nothing_is_being_made(
    pose: Daemon, root: Path, journal: Journal
) -> None:
    young = new_generation()
    lay(root / ".profiles" / young / "Default" / "mark")
    partial = lay(root / "y.0123abcd.partial")
    async with pose():
        assert {one["kind"] for one in events(journal)} == {"half_written", "profile_without_owner"}
        assert not partial.exists()
        assert not (root / ".profiles" / young).exists()


async def test_what_is_just_being_restored_is_not_touched(unswept: Start, root: Path) -> None:
    """A generation of which there are a partial directory, a witness and perhaps a lock, and no link yet."""
    young = new_generation("0123abcd")
    async with unswept() as supervisor:
        async with being_made(root / ".profiles" / young) as beside:
            lay(beside / "Default" / "mark")
            for ending in ("json", "lock"):
                lay(root / ".profiles" / f"{young}.{ending}")
            assert not findings(await swept(supervisor))
            beside.rename(root / ".profiles" / young)
        assert not findings(await swept(supervisor))
    assert (root / ".profiles" / young / "Default" / "mark").exists()
    assert (root / ".profiles" / f"{young}.json").exists()


async def test_a_profile_without_an_owner_is_put_aside_and_saved(unswept: Start, root: Path) -> None:
    for file in LOGIN:
        lay(root / ".profiles" / OLD / file)
    lay(root / ".profiles" / f"{OLD}.lock")
    lay(root / ".profiles" / f"{OLD}.json")
    lay(root / ".profiles" / OLD2 / "Default" / "mark")
    owned(root, "demo", OLD3)
    async with unswept() as supervisor:
        found = await finds(
            supervisor,
            ("profile_without_owner", OLD, "retire, save"),
            ("profile_without_owner", OLD2, "retire, save"),
        )
        assert "saved as" in found[0].detail
    assert sorted(path.name for path in (root / ".retired").iterdir()) == [
        f"_.{OLD}.ownerless.saved",
        f"_.{OLD2}.ownerless.empty",
    ]
    assert sorted(path.name for path in (root / ".profiles").iterdir()) == [OLD3]
    assert len(list((root / ".backups" / "_").iterdir())) == 1


async def test_nobody_waits_at_the_start_for_what_is_saved(
    pose: Daemon, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in LOGIN:
        lay(root / ".profiles" / OLD / file)
    retired(root, f"demo.{OLD2}.cleanup", login=True)
    save, asked, may = Keeper.save, asyncio.Event(), asyncio.Event()

    async def slowly(self: Keeper, one: Retired) -> tuple[Retired, str]:
        asked.set()
        await may.wait()
        return await save(self, one)

    monkeypatch.setattr(Keeper, "save", slowly)
    async with asyncio.timeout(20):
        async with pose() as (supervisor, _):
            assert supervisor.ready
            assert not (root / ".profiles" / OLD).exists()  # but what could be in the way of a launch is not
            await asked.wait()
            await supervisor.connect(DEMO)
            may.set()
            while not all(one.name.endswith(".saved") for one in (root / ".retired").iterdir()):
                await asyncio.sleep(0.02)
    assert len(list((root / ".retired").iterdir())) == 2


async def test_a_profile_whose_owner_has_no_session_is_not_without_an_owner(
    unswept: Start, root: Path
) -> None:
    """Its record is gone, a connect was refused, and so the session was forgotten; the link still says whose it is."""
    profile = owned(root, "demo", OLD)
    async with unswept(limits={"reserve_memory_mb": 10**9}) as supervisor:
        with pytest.raises(NoMemory):
            await supervisor.connect(DEMO)
        assert not supervisor.views()
        (root / "demo").rename(root / "demo.put aside by hand")
        for name in ("demo.put aside by hand", "demo"):
            assert not findings(await swept(supervisor))
            with suppress(FileNotFoundError):
                (root / name).rename(root / "demo")
    assert profile.is_dir()


async def test_no_sweep_before_the_daemon_knows_its_clients(
    pose: Daemon, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned(root, "demo", OLD)
    read, refused = Registry.read, []
    async with asyncio.timeout(20):
        loop = asyncio.get_running_loop()
        start = Supervisor.start

        async def starting(self: Supervisor) -> None:
            with pytest.raises(NotReady):
                await self.reap(dry_run=False)
            refused.append(loop.time())
            await start(self)

        monkeypatch.setattr(Supervisor, "start", starting)
        async with pose():
            assert refused
            assert Registry.read is read
    assert (root / ".profiles" / OLD).is_dir()


async def test_one_clients_link_that_cannot_be_read_keeps_no_daemon_from_starting(
    pose: Daemon, root: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    """With one owner unknown, no profile can be told to be without one."""
    owned(root, "demo", OLD)
    (root / "lost+found").mkdir()
    readlink = Path.readlink

    def refuse(self: Path) -> Path:
        if self.name == "profile" and self.parent.name in refusing:
            raise OSError(5, "Input/output error")
        return readlink(self)

    monkeypatch.setattr(Path, "readlink", refuse)
    refusing = {"demo"}
    async with pose() as (supervisor, _):
        assert (await supervisor.connect(DEMO2)).status is Status.AWAITING_SCAN
        event, *_ = journal.named("sweep.failed")
        assert "Input/output error" in event.fields["error"]
        refusing = {"lost+found"}
        assert not findings(await supervisor.reap(dry_run=True))
    assert (root / ".profiles" / OLD).is_dir()


async def test_a_stale_lock_goes_and_one_that_is_held_stays(unswept: Start, root: Path) -> None:
    stale, held = (lay(root / ".profiles" / f"{one}.lock") for one in (OLD, OLD2))
    witness = lay(root / ".profiles" / f"{OLD}.json")
    alone = lay(root / ".profiles" / f"{OLD3}.json")
    owned(root, "demo", "20240102T030405-00000000")
    kept = lay(root / ".profiles" / "20240102T030405-00000000.lock")
    async with unswept() as supervisor:
        with held_elsewhere(held) as pid:
            await finds(
                supervisor,
                ("foreign_holder", str(pid), "report"),
                ("stale_lock", f".profiles/{OLD}.lock", "delete"),
                ("stale_lock", f".profiles/{OLD3}.json", "delete"),
            )
        assert [path.exists() for path in (stale, witness, alone, held, kept)] == [False] * 3 + [True] * 2


NOT_OURS = (
    ".profiles/lost+found/x",
    ".profiles/Default/x",
    f".profiles/{OLD}x/x",
    f".profiles/{OLD}.bak/x",
    f".profiles/{OLD}.lock.bak",
    f".profiles/x{OLD}.lock",
    ".profiles/20240102T030405-0123ABCD/x",
    ".profiles/20249902T030405-0123abcd/x",
    ".profiles/20240231T030405-0123abcd.lock",
    f".retired/demo.{OLD}/x",
    f".retired/demo.{OLD}.Cleanup/x",
    f".retired/demo.{OLD}.cleanup.old/x",
    f".retired/a b.{OLD}.cleanup/x",
    f".retired/file.{OLD}.cleanup",
    ".retired/lost+found/x",
    "not a code/profile/x",
    "lost+found/x",
)


@pytest.mark.parametrize("at_start", [True, False])
async def test_what_bears_no_name_of_ours_and_what_links_point_at_is_not_touched(
    pose: Daemon, unswept: Start, root: Path, journal: Journal, at_start: bool
) -> None:
    precious = lay(root.parent / "precious" / "letter")
    for name in NOT_OURS:
        lay(root / name, age_s=1e6)
    (root / ".profiles" / OLD2).symlink_to(precious)
    (root / ".retired" / f"demo.{OLD2}.cleanup").symlink_to(precious)
    (root / ".retired" / f"demo.{OLD3}.fresh.saved").symlink_to(precious)
    aged(precious, 1e6)
    quota = {"sessions": {"quota_mb": 1}}
    before = snapshot(root.parent)

    def unchanged() -> bool:
        after = snapshot(root.parent)
        # What the daemon itself makes in them is no touch.
        return all(
            after[name] == seen for name, seen in before.items() if Path(name) not in {root, root.parent}
        )

    if at_start:
        async with pose(**quota):
            assert not events(journal)
    else:
        async with unswept(**quota) as supervisor:
            assert not findings(await swept(supervisor))
    assert unchanged()


def test_nobody_gets_a_lock_whose_file_is_gone(tmp_path: Path) -> None:
    """Two could then have it at once."""
    profiles = Profiles(tmp_path / "sessions", None)
    profiles.make_room()
    profile, done = profiles.profile(OLD), threading.Event()

    def drop() -> None:
        while not done.is_set():
            with suppress(ProfileLocked):
                profiles.drop_lock(profile)
            time.sleep(0)  # else it takes the interpreter's lock again before anybody else wakes up

    dropping = threading.Thread(target=drop)
    dropping.start()
    try:
        for _ in range(1000):
            fd = profiles.lock(profile)  # never refused for what only removes it
            assert os.fstat(fd).st_nlink == 1
            os.close(fd)
    finally:
        done.set()
        dropping.join()


async def test_an_ownerless_profile_that_somebody_has_taken_since_the_look_stays(
    unswept: Start, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(root / ".profiles" / OLD / "Default" / "mark")
    lock = lay(root / ".profiles" / f"{OLD}.lock")
    async with unswept() as supervisor:
        monkeypatch.setattr(Profiles, "held", lambda *_: False)
        with held_elsewhere(lock):
            (found,) = findings(await supervisor.reap(dry_run=False))
        assert (found.kind, found.outcome) == ("profile_without_owner", "failed")
        assert (root / ".profiles" / OLD / "Default" / "mark").exists()


async def test_a_sealed_profile_without_an_owner_becomes_a_snapshot_of_its_clients(
    unswept: Start, root: Path
) -> None:
    staged = root.parent / "staged"
    for file in LOGIN:
        lay(staged / file)
    async with unswept() as supervisor:
        about = About("demo", OLD, "sealed", 1.0, "156.0.0.0", ORIGIN, live=False, login=True)
        snapshots, sealed = supervisor._resources.snapshots, root / ".profiles" / f"{OLD}.wgb"
        await asyncio.to_thread(snapshots.write, threading.Event(), staged, sealed, about)
        torn = root / ".profiles" / f"{OLD2}.wgb"
        torn.write_bytes(sealed.read_bytes()[:20])
        (found, _) = await finds(
            supervisor,
            ("profile_without_owner", OLD, "retire, save"),
            ("profile_without_owner", OLD2, "report"),
        )
        assert found.client == "demo"
        assert not sealed.exists()
        assert torn.exists(), "a person may know whose it is"
        (kept,) = await supervisor.snapshots(DEMO)
        assert (kept.generation, kept.login, kept.reason) == (OLD, True, "sealed")


# --- retired ----------------------------------------------------------------------------------------------------


async def test_retired_profiles_are_saved_and_go_in_their_time(unswept: Start, root: Path) -> None:
    places = [
        retired(root, f"demo.{OLD}.cleanup", age_s=5 * HOUR, login=True),
        retired(root, f"demo.{OLD2}.cleanup.saved", age_s=4 * HOUR),
        retired(root, f"demo.{OLD3}.damaged", age_s=3 * HOUR, login=True),
        retired(root, f"demo2.{OLD}.restore", age_s=1 * HOUR, login=True),
        retired(root, f"demo2.{OLD2}.fresh.empty", age_s=1 * HOUR),
    ]
    async with unswept(sessions={"retired_keep_hours": 2}) as supervisor:
        found = await finds(
            supervisor,
            ("expired", places[0].name, "save, then delete"),
            ("expired", places[1].name, "delete"),
            ("not_saved", places[3].name, "save"),
        )
        assert [one.client for one in found] == ["demo", "demo", "demo2"]
        assert [len(await supervisor.snapshots(code)) for code in (DEMO, DEMO2)] == [1, 1]
    left = sorted(path.name for path in (root / ".retired").iterdir())
    assert left == [f"demo.{OLD3}.damaged", f"demo2.{OLD}.restore.saved", f"demo2.{OLD2}.fresh.empty"]


async def test_what_cannot_be_saved_is_not_deleted(
    unswept: Start, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = retired(root, f"demo.{OLD}.restore", age_s=1e6, login=True, kb=2048)
    async with unswept(sessions={"quota_mb": 1}) as supervisor:

        def full(*_: object, **__: object) -> None:
            raise WaguardError("No space left on device.")

        monkeypatch.setattr(type(supervisor._resources.snapshots), "take", full)
        (found,) = findings(await supervisor.reap(dry_run=False))
        assert (found.kind, found.outcome, found.detail) == ("expired", "failed", "No space left on device.")
    assert (place / LOGIN[0]).exists()


async def test_what_was_put_aside_under_a_browser_that_resists_waits(
    unswept: Start, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with unswept(sessions={"retired_keep_hours": 0, "quota_mb": 1}) as supervisor:
        await supervisor.connect(DEMO)

        async def resists(*_: object) -> None:
            raise PermissionError("Operation not permitted")

        with monkeypatch.context() as patch:
            patch.setattr(Ending, "_end_browser", resists)
            patch.setattr(Ending, "ask_to_close", resists)
            assert not (await supervisor.cleanup(DEMO)).ok
            (place,) = (root / ".retired").iterdir()
            lay(place / "Default" / "big", kb=2048)
            assert not findings(await supervisor.reap(dry_run=False))
            await supervisor.sweeper.make_room(lambda: False)
            assert place.exists()
        assert (await supervisor.cleanup(DEMO)).ok
        await supervisor.reap(dry_run=False)
        assert not place.exists()


# --- space ------------------------------------------------------------------------------------------------------


def give(profile: Path) -> None:
    """To the browser's user, as all else in a profile."""
    owner = profile.stat()
    for path in profile.rglob("*"):
        os.chown(path, owner.st_uid, owner.st_gid)


async def test_caches_are_pruned_in_a_stopped_profile_and_never_what_a_site_keeps(
    unswept: Start, root: Path
) -> None:
    profile = owned(root, "demo", OLD)
    kept = (
        *LOGIN,
        "Default/Local Storage/leveldb/000003.log",
        "Default/Service Worker/CacheStorage/x",
        "Default/Cookies",
        "Default/mark",
    )
    for name in kept:
        lay(profile / name, kb=300)
    for name in CACHES:
        lay(profile / name / "deep" / "data", kb=200)
    small = owned(root, "demo2", OLD2)
    lay(small / "Default" / "Cache" / "data", kb=900)
    async with unswept(profile={"cache_limit_mb": 1}) as supervisor:
        (found,) = await finds(supervisor, ("cache", OLD, "prune"))
        assert found.client == "demo"
        told = re.match(r"its caches take (\d\.\d) MiB", found.evidence)
        assert told is not None
        assert 1.6 <= float(told[1]) < 3  # a file system may give more room than is written
    left = sorted(str(path.relative_to(profile)) for path in profile.rglob("*") if path.is_file())
    assert left == sorted(kept)
    assert (small / "Default" / "Cache" / "data").exists()


async def test_caches_of_a_running_session_are_not_pruned(unswept: Start, root: Path) -> None:
    async with unswept(profile={"cache_limit_mb": 1}) as supervisor:
        view = await supervisor.connect(DEMO)
        profile = root / ".profiles" / str(view.generation)
        lay(profile / "Default" / "Cache" / "data", kb=2048)
        give(profile)
        assert not findings(await swept(supervisor))
        assert (profile / "Default" / "Cache" / "data").exists()
        await supervisor.disconnect(DEMO)
        await finds(supervisor, ("cache", str(view.generation), "prune"))
        assert not (profile / "Default" / "Cache").exists()
        assert (await supervisor.connect(DEMO)).generation == view.generation


async def test_what_a_browser_has_linked_from_its_profile_is_not_pruned(unswept: Start, root: Path) -> None:
    """The profile is the browser's to write in, and a hostile one would have the daemon delete for it."""
    precious = lay(root.parent / "precious" / "Cache" / "letter", kb=2048).parent
    first, second = owned(root, "demo", OLD), owned(root, "demo2", OLD2)
    shutil.rmtree(first / "Default")
    (first / "Default").symlink_to(root.parent / "precious")
    (second / "Default" / "Cache").symlink_to(precious / "Cache" if precious.name != "Cache" else precious)
    lay(second / "ShaderCache" / "data", kb=2048)
    (second / "ShaderCache" / "out").symlink_to(root.parent / "precious")
    async with unswept(profile={"cache_limit_mb": 1}) as supervisor:
        await finds(supervisor, ("cache", OLD2, "prune"))
    assert (root.parent / "precious" / "Cache" / "letter").stat().st_size == 2 * MB
    assert not (second / "ShaderCache").exists()


async def test_a_connect_that_arrives_in_the_middle_of_a_prune_waits_and_succeeds(
    unswept: Start, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with unswept(profile={"cache_limit_mb": 1}) as supervisor:
        view = await supervisor.connect(DEMO)
        await supervisor.disconnect(DEMO)
        profile = root / ".profiles" / str(view.generation)
        lay(profile / "Default" / "Cache" / "data", kb=2048)
        give(profile)
        rmtree, pruning, go = shutil.rmtree, threading.Event(), threading.Event()

        def slow(path: Any, *arguments: Any, **options: Any) -> None:
            pruning.set()
            go.wait(20)
            rmtree(path, *arguments, **options)

        monkeypatch.setattr(shutil, "rmtree", slow)
        sweeping = asyncio.ensure_future(supervisor.reap(dry_run=False))
        await until(pruning.is_set)
        session = supervisor._sessions[DEMO]
        connecting = asyncio.ensure_future(supervisor.connect(DEMO))
        await session.until(lambda: session.state.process is Process.PREPARING)
        # One that changes its mind, and one more: none of them takes the lock from the prune.
        await supervisor.disconnect(DEMO)
        again = asyncio.ensure_future(supervisor.connect(DEMO))
        await session.until(lambda: session.state.process is Process.PREPARING)
        assert session._instance.browser is None
        go.set()
        (found,) = findings(await sweeping)
        assert (found.kind, found.outcome) == ("cache", "done")
        after = await again
        assert (after.status, after.generation) == (Status.AWAITING_SCAN, view.generation)
        await asyncio.wait([connecting])
        connecting.exception()


async def test_a_snapshot_asked_for_in_the_middle_of_a_connect_takes_no_lock_from_it(
    unswept: Start, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with unswept(restart={"budget": 0}) as supervisor:
        view = await supervisor.connect(DEMO)
        await supervisor.disconnect(DEMO)
        take, taking, go = Ladder.take, threading.Event(), threading.Event()

        def slow(self: Ladder, *arguments: Any, **options: Any) -> Taken:
            taking.set()
            go.wait(20)
            return take(self, *arguments, **options)

        monkeypatch.setattr(Ladder, "take", slow)
        connecting = asyncio.ensure_future(supervisor.connect(DEMO))
        await until(taking.is_set)
        saving = asyncio.ensure_future(supervisor.snapshot(DEMO))
        using = supervisor._sessions[DEMO]._instance.using
        await until(lambda: using._waiters)
        go.set()
        after = await connecting
        await asyncio.wait([saving])
        assert isinstance(saving.exception(), SnapshotFailed)
        assert (after.status, after.generation) == (Status.AWAITING_SCAN, view.generation)
        profiles = supervisor._resources.profiles
        assert await asyncio.to_thread(lambda: profiles.held(profiles.profile(str(view.generation))))


async def test_over_its_quota_goes_what_may_the_oldest_first(unswept: Start, root: Path) -> None:
    names = {
        f"demo.{OLD}.restore": 9,  # not saved, and nobody wanted it gone: saved by this sweep, and goes by the next
        f"demo.{OLD2}.damaged": 8,  # the only copy
        f"demo.{OLD3}.cleanup.saved": 7,
        f"demo2.{OLD}.fresh": 6,  # saved by this sweep, under whatever name it goes
        f"demo2.{OLD2}.restore.saved": 5,
    }
    for name, hours in names.items():
        retired(root, name, age_s=hours * HOUR, kb=1024, login=True)
    profile = owned(root, "demo", "20240102T030405-00000000")
    async with unswept(sessions={"quota_mb": 6, "retired_keep_hours": 24}) as supervisor:
        assert not [one for one in findings(await supervisor.reap(dry_run=True)) if one.kind == "over_quota"]
    async with unswept(sessions={"quota_mb": 4, "retired_keep_hours": 24}) as supervisor:
        sweep = await swept(supervisor)
        assert [(*one, found.outcome) for one, found in zip(told(sweep), findings(sweep), strict=True)] == [
            ("not_saved", f"demo.{OLD}.restore", "save", "done"),
            ("not_saved", f"demo2.{OLD}.fresh", "save", "done"),
            ("over_quota", f"demo.{OLD3}.cleanup.saved", "delete", "done"),
            ("over_quota", f"demo2.{OLD}.fresh", "delete", "done"),
        ]
    async with unswept(sessions={"quota_mb": 1, "retired_keep_hours": 24}) as supervisor:
        await finds(
            supervisor,
            ("over_quota", f"demo.{OLD}.restore.saved", "delete"),
            ("over_quota", f"demo2.{OLD2}.restore.saved", "delete"),
            ("over_quota", ".", "report"),
        )
    assert [path.name for path in (root / ".retired").iterdir()] == [f"demo.{OLD2}.damaged"]
    assert profile.is_dir()


async def test_what_expires_makes_room_and_costs_no_other(unswept: Start, root: Path) -> None:
    expired = retired(root, f"demo.{OLD}.cleanup.saved", age_s=30 * HOUR, kb=2048)
    young = retired(root, f"demo.{OLD2}.cleanup.saved", age_s=1 * HOUR, kb=1024)
    owned(root, "demo", OLD3)
    lay(root / ".profiles" / OLD3 / "Default" / "Cache" / "data", kb=2048)
    sections: dict[str, Any] = {
        "sessions": {"quota_mb": 2, "retired_keep_hours": 24},
        "profile": {"cache_limit_mb": 1},
    }
    async with unswept(**sections) as supervisor:
        await finds(supervisor, ("expired", expired.name, "delete"), ("cache", OLD3, "prune"))
    assert young.is_dir()


async def test_what_is_still_plain_is_sealed(unswept: Start, root: Path) -> None:
    async with unswept() as supervisor:
        view = await supervisor.connect(DEMO)
    expired = retired(root, f"demo.{OLD}.damaged", login=True)
    async with unswept(profile={"at_rest": "sealed"}) as supervisor:
        other = await supervisor.connect(DEMO2)
        await finds(
            supervisor,
            ("expired", expired.name, "save, then delete"),
            ("not_sealed", str(view.generation), "seal"),
        )
        assert not (root / ".profiles" / str(view.generation)).exists()
        assert (root / ".profiles" / str(other.generation)).is_dir()
        assert (await supervisor.connect(DEMO)).generation == view.generation


async def test_what_lies_in_a_runtime_directory_is_swept_too(unswept: Start, root: Path) -> None:
    runtime = root.parent / "runtime"
    lay(runtime / f"{OLD}.0123abcd.partial" / "mark", age_s=2 * HOUR)
    aged(runtime / f"{OLD}.0123abcd.partial", 2 * HOUR)
    lay(runtime / OLD2 / "Default" / "mark")
    lay(runtime / "lost+found" / "mark")
    sections: dict[str, Any] = {"profile": {"at_rest": "sealed", "runtime_dir": runtime}}
    async with unswept(**sections) as supervisor:
        view = await supervisor.connect(DEMO)
        sweep = await swept(supervisor)
        assert told(sweep) == [
            ("half_written", str(runtime / f"{OLD}.0123abcd.partial"), "delete"),
            ("profile_without_owner", OLD2, "retire, save"),
        ]
        assert outcomes(sweep) == {"done"}
        await finds(supervisor, ("expired", f"_.{OLD2}.ownerless.empty", "delete"))
        assert sorted(path.name for path in runtime.iterdir()) == sorted(
            [".retired", "lost+found", str(view.generation)]
        )


# --- all at once ------------------------------------------------------------------------------------------------


def family_now() -> set[tuple[int, int]]:
    """All that lives below this process: pid and start."""
    rows = host.process_table()
    below = host.descendants(os.getpid(), rows)
    return {(row.pid, row.start_ticks) for row in below if row.state not in "ZX"}


async def test_a_mess_of_everything(
    unswept: Start,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    strangers: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    with daemon(
        root, "demo", "demo2", "demo3", posing="leaves-a-stray", sandbox={"kind": "bubblewrap"}
    ) as victim:
        await victim.says("all up")
        families = await with_strays(victim, "demo", "demo2", "demo3")
        # So that they do not notice that their pipe is closed.
        stop(families[code][2] for code in ("demo", "demo3"))
        victim.kill()
    await until(lambda: not alive({families["demo2"][2]}))
    left = alive({pid for family in families.values() for pid in family.values()})
    unrecorded(root, "demo")
    unrecorded(root, "demo2", "torn")
    subprocess.run(["/usr/bin/setsid", "-f", "/usr/bin/true"], check=True)

    for number, name in enumerate(("demo4", "demo5")):
        owned(root, name, f"20240102T030405-0000000{number}")
    lock = lay(root / ".profiles" / "20240102T030405-00000000.lock")
    lay(root / ".profiles" / "20240102T030405-00000001" / "Default" / "Code Cache" / "data", kb=2048)
    lay(root / "demo4" / "session.json.0123abcd.partial", age_s=2 * HOUR)
    aged(root / "demo4" / "session.json.0123abcd.partial", 2 * HOUR)
    lay(root / ".profiles" / f"{OLD}.lock")
    lay(root / ".profiles" / OLD2 / LOGIN[0])
    places = [
        retired(root, f"demo6.{OLD}.cleanup", age_s=30 * HOUR, login=True),
        retired(root, f"demo6.{OLD3}.cleanup.saved", age_s=20 * HOUR, kb=3072),
        retired(root, f"demo6.{OLD2}.fresh", age_s=1 * HOUR, login=True),
    ]
    for name in NOT_OURS:
        lay(root / name, age_s=1e6)
    letter = lay(root.parent / "precious" / "letter", age_s=1e6)
    (root / ".profiles" / OLD3).symlink_to(letter)
    (root / ".retired" / f"demo9.{OLD3}.cleanup").symlink_to(letter)
    decoys(root, strangers)
    names = [str(root / name) for name in NOT_OURS]
    untouched = {name: seen for name, seen in snapshot(root).items() if name in names}

    async def nothing(_: Session) -> None:
        pass

    monkeypatch.setattr(Session, "take_over", nothing)
    sections: dict[str, Any] = {
        "sessions": {"quota_mb": 2, "retired_keep_hours": 24},
        "profile": {"cache_limit_mb": 1},
    }
    with held_elsewhere(lock) as holder:
        async with unswept(**sections) as supervisor:
            running_one = await supervisor.connect(ClientCode("other"))
            dead = [
                row.pid
                for row in host.process_table()
                if row.ppid == os.getpid() and row.state == "Z" and row.session != os.getsid(0)
            ]
            before, processes = snapshot(root.parent), family_now()
            dry = await supervisor.reap(dry_run=True)
            assert snapshot(root.parent) == before
            assert family_now() == processes
            assert outcomes(dry) == {"would"}
            explained(dry)
            expected = [
                ("leftover_launch", "demo3", "kill"),
                ("foreign_holder", str(holder), "report"),
                ("browser_without_session", str(families["demo"][1]), "kill"),
                ("sandbox_without_browser", str(families["demo2"][1]), "kill"),
                ("half_written", "demo4/session.json.0123abcd.partial", "delete"),
                ("stale_lock", f".profiles/{OLD}.lock", "delete"),
                ("profile_without_owner", OLD2, "retire, save"),
                ("expired", places[0].name, "save, then delete"),
                ("not_saved", places[2].name, "save"),
                ("cache", "20240102T030405-00000001", "prune"),
                ("over_quota", places[1].name, "delete"),
            ]
            assert sorted(told(dry)) == sorted(expected)
            zombies = {one.subject for one in dry.findings if one.kind == "zombie"}
            assert zombies == {str(pid) for pid in dead}
            assert zombies

            real = await supervisor.reap(dry_run=False)
            assert told(real) == told(dry)
            explained(real)
            assert [one.kind for one in findings(real) if one.outcome == "reported"] == ["foreign_holder"]
            assert {one.outcome for one in findings(real)} == {"done", "reported"}, findings(real)
            assert not alive(left)
            assert alive({holder}) == {holder}

            again = await supervisor.reap(dry_run=False)
            assert told(again) == [("foreign_holder", str(holder), "report")]
            assert outcomes(again) == {"reported"}
            assert supervisor.view(ClientCode("other")).browser == running_one.browser
            after = snapshot(root)
            assert {name: after[name] for name in untouched} == untouched
            assert letter.exists()
            for code in ("demo", "demo2", "demo3"):
                view = await supervisor.connect(ClientCode(code), wait=Wait.QR)
                assert (view.status, view.profile) == (Status.AWAITING_SCAN, "kept")


# --- from outside -----------------------------------------------------------------------------------------------


async def test_over_http_only_the_admin_may_and_a_dry_run_can_be_asked_for_in_both_ways(
    pose: Daemon, root: Path
) -> None:
    async with pose(api=API) as (_, url), aiohttp.ClientSession() as http:

        async def ask(token: str, query: str = "", **options: Any) -> tuple[int, dict[str, Any]]:
            headers = {"Authorization": f"Bearer {token}"}
            async with http.post(f"{url}/v1/reap{query}", headers=headers, **options) as answer:
                return answer.status, await answer.json(content_type=None)

        wishes: list[dict[str, Any]] = [{}, {"json": {"dry_run": True}}]
        await ask(ADMIN, **wishes[1])  # waits for the daemon's own
        place = retired(root, f"demo.{OLD}.cleanup.saved", age_s=1e6)
        for options in wishes:
            status, problem = await ask(TOKEN, **options)
            assert (status, problem["code"]) == (403, "forbidden")
        for wrong in ({"dry_run": "perhaps"}, {"dryrun": True}):
            status, problem = await ask(ADMIN, json=wrong)
            assert (status, problem["code"]) == (400, "invalid_request")
        assert (await ask("x" * 20))[0] == 401
        assert place.exists(), "nothing has changed when one refuses"
        for query, options in zip(("?dry_run=true", ""), wishes, strict=True):
            status, sweep = await ask(ADMIN, query, **options)
            assert (status, sweep["dry_run"]) == (200, True)
            (found,) = sweep["findings"]
            assert (found["kind"], found["subject"], found["action"]) == ("expired", place.name, "delete")
            assert (found["outcome"], found["client"]) == ("would", "demo")
            assert "kept for 168 h" in found["evidence"]
            assert place.exists()
        status, sweep = await ask(ADMIN)
        assert (status, sweep["dry_run"]) == (200, False)
        assert [one["outcome"] for one in sweep["findings"]] == ["done"]
        assert not place.exists()
        assert (await ask(ADMIN))[1]["findings"] == []


def test_reap_as_a_program(sessions_dir: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("WAGUARD_")} | {
        "WAGUARD_CONFIG": os.devnull,
        "WAGUARD_SESSIONS__DIR": str(sessions_dir),
        "WAGUARD_BROWSER__PATH": str(POSING),
        "WAGUARD_API__PORT": "0",
    }
    environ.pop("INVOCATION_ID", None)
    with running(environ, "run") as process:
        assert process.stderr is not None
        environ["WAGUARD_API__PORT"] = address(process.stderr).rpartition(":")[2]
        assert call(environ, "reap", "--dry-run")[0] == 0  # waits for the daemon's own
        place = retired(sessions_dir, f"demo.{OLD}.cleanup.saved", age_s=1e6)
        lay(sessions_dir / ".profiles" / f"{OLD2}.lock")
        subjects = [f".profiles/{OLD2}.lock", place.name]
        for outcome, options in (("would", ["--dry-run"]), ("done", [])):
            code, out, err = call(environ, "reap", "--json", *options)
            assert (code, err) == (0, "")
            sweep = json.loads(out)
            assert sweep["dry_run"] is bool(options)
            assert [(one["subject"], one["outcome"]) for one in sweep["findings"]] == [
                (subject, outcome) for subject in subjects
            ]
            assert place.exists() is bool(options)
        code, out, _ = call(environ, "reap", "--dry-run")
        assert code == 0
        lay(sessions_dir / ".profiles" / f"{OLD2}.lock")
        code, out, _ = call(environ, "reap", "--dry-run")
        assert f"{OLD2}.lock" in out.replace("\n", "")
        assert end(process, signal.SIGINT)[0] == 0


@pytest.mark.parametrize("then_s", [-46 * 365 * 24 * HOUR, 11 * 365 * 24 * HOUR])
async def test_what_was_put_aside_while_the_clock_was_wrong_is_kept_from_now_on(
    unswept: Start, root: Path, monkeypatch: pytest.MonkeyPatch, then_s: float
) -> None:
    """And what was put aside before that; the other way round, too: a clock that is wrong now deletes nothing."""
    before = retired(root, f"demo.{OLD2}.cleanup.saved", age_s=1 * HOUR)
    async with unswept() as supervisor:
        assert not findings(await supervisor.reap(dry_run=False))
        place = retired(root, f"demo.{OLD}.cleanup.saved", age_s=-then_s)
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", partial(lambda now: now() + then_s, time.time))
            found = findings(await supervisor.reap(dry_run=False))
            assert {(one.kind, one.action, one.outcome) for one in found} == {("wrong_clock", "date", "done")}
        found = await finds(
            supervisor, ("wrong_clock", place.name, "date"), ("wrong_clock", before.name, "date")
        )
        assert abs(place.stat().st_mtime - time.time()) < HOUR
        for one in (place, before):
            aged(one, 200 * HOUR)
        await finds(supervisor, ("expired", place.name, "delete"), ("expired", before.name, "delete"))


async def test_what_was_made_in_the_future_goes_in_its_time(unswept: Start, root: Path) -> None:
    made = "20370102T030405-0123abcd"
    young = retired(root, f"demo.{made}.cleanup.saved", age_s=1 * HOUR)
    async with unswept() as supervisor:
        assert not findings(await supervisor.reap(dry_run=False))
        aged(young, 200 * HOUR)
        await finds(supervisor, ("expired", young.name, "delete"))
    early = retired(root, f"demo.{OLD}.cleanup.saved", age_s=46 * 365 * 24 * HOUR)
    async with unswept() as supervisor:
        (found,) = await finds(supervisor, ("wrong_clock", early.name, "date"))
        assert "before it was made" in found.evidence
