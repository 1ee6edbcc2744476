"""A cgroup for each browser: on the real cgroup2 of this machine, in a subtree that is made and removed here."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import POSING, Daemon, Journal
from processes import stop
from service import Service

from waguard.core.model import ClientCode
from waguard.errors import NoMemory
from waguard.sandbox import Run, Sandbox, Spec, cgroup, unprivileged_user
from waguard.sandbox.bubblewrap import Bubblewrap
from waguard.sandbox.cgroup import Ceiling, Cgroups, Kills, Leaf
from waguard.sandbox.plain import Plain
from waguard.system import host

DEMO = ClientCode("demo")
BWRAP = Bubblewrap.find()
STRAY = "sleep 300 & read go; sleep 300 & setsid sleep 300 & (env -i /usr/bin/setsid /usr/bin/sleep 300 &) ; echo ready; wait"
"""The last one leaves tree, session and environment: without a cgroup, `Plain` cannot know whose it is."""


def _lines(path: Path, name: str) -> list[str]:
    return (path / name).read_text().splitlines()


@pytest.fixture
def own() -> Path:
    found = cgroup._own()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def subtree(own: Path) -> Iterator[Path]:
    """One that is delegated, as systemd would have it, with nobody in it."""
    path = own / f"waguard-test-{secrets.token_hex(4)}"
    try:
        path.mkdir()
        os.setxattr(path, "user.delegate", b"1")
    except OSError as error:
        with contextlib.suppress(OSError):
            path.rmdir()
        pytest.skip(f"no subtree can be made in {own}: {error.strerror}")
    yield path
    leaf = Leaf(path)
    stop = threading.Event()
    timer = threading.Timer(5, stop.set)
    timer.start()
    leaf.end(stop)
    timer.cancel()
    timer.join()
    assert not path.exists(), f"left: {list(path.iterdir())}"


@pytest.fixture
def ours(subtree: Path) -> Cgroups:
    """As a daemon has it that was started in a subgroup; this process stays where it is."""
    found = Cgroups.find(Ceiling(), subtree / "main")
    assert isinstance(found, Cgroups)
    return found


def inside(leaf: Leaf) -> set[int]:
    """Whoever is in it; not by the code under test, which may not be called in the loop."""
    return {int(line) for line in _lines(leaf.path, "cgroup.procs")}


def end(leaf: Leaf) -> cgroup.Used | None:
    return leaf.end(threading.Event())


def sleeper(leaf: Path) -> "subprocess.Popen[bytes]":
    leaf.mkdir(exist_ok=True)
    process = subprocess.Popen(["/usr/bin/sleep", "300"])
    (leaf / "cgroup.procs").write_text(str(process.pid))
    return process


# --- whose it is ----------------------------------------------------------------------------------------------


def test_what_was_not_delegated_is_left_alone(subtree: Path) -> None:
    os.removexattr(subtree, "user.delegate")
    assert "not delegated" in str(Cgroups.find(Ceiling(), subtree))
    assert not [one for one in subtree.iterdir() if one.is_dir()]
    assert Cgroups.find(Ceiling(), "There is none.") == "There is none."


_FIND = """
import codecs, json, os, subprocess, sys, threading
from pathlib import Path
from types import SimpleNamespace
from waguard.sandbox.cgroup import Ceiling, Cgroups
from waguard.sandbox.identity import Identity
Path(sys.argv[1], "cgroup.procs").write_text("0")
codecs.lookup("ascii")  # what is not loaded by now may be where that user cannot read
os.setuid(int(sys.argv[2]))
said = []
for _ in range(2):
    found = Cgroups.find(Ceiling(memory_mb=4096, pids=4096))
    if isinstance(found, str):
        sys.exit(found)
    line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    said.append([str(found.root), line.rpartition("/")[2], sorted(found.controllers), found.why_no_limits])
child = subprocess.Popen(["/usr/bin/sleep", "300"])
found.take("demo", "0123abcd", SimpleNamespace(kind="bubblewrap"), [Identity.of(child.pid)])
assert found.leaf("demo", "0123abcd").pids() == [child.pid]
found.leaf("demo", "0123abcd").end(threading.Event())
assert child.wait(5) == -9
print(json.dumps(said))
"""


def _find(place: Path, uid: int) -> list[Any]:
    """What a daemon of this user finds that is started there, and again; it has put a child into a leaf, and ended it."""
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, "-c", _FIND, str(place), str(uid)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
        env=environment,
    )
    assert not done.returncode, done.stderr
    return list(json.loads(done.stdout))


def _give(place: Path, uid: int) -> None:
    """As systemd does with what it delegates to a service of this user's."""
    for one in (place, *(place / f"cgroup.{name}" for name in ("procs", "threads", "subtree_control"))):
        os.chown(one, uid, -1)


USERS = [os.geteuid(), *([65534] if os.geteuid() == 0 else [])]


@pytest.mark.parametrize("uid", USERS)
def test_a_daemon_that_was_started_in_the_subtree_moves_down_and_enables_nothing(
    subtree: Path, uid: int
) -> None:
    _give(subtree, uid)
    first, again = _find(subtree, uid)
    assert first[:3] == [str(subtree), "daemon", []]
    assert "DelegateSubgroup=" in first[3]
    assert again == first, "executed anew in place"
    assert not _lines(subtree, "cgroup.subtree_control")


@pytest.mark.parametrize("uid", USERS)
def test_a_daemon_that_was_started_in_a_subgroup_stays_and_has_what_there_is(subtree: Path, uid: int) -> None:
    (subtree / "main").mkdir()
    _give(subtree, uid)
    _give(subtree / "main", uid)
    first, again = _find(subtree / "main", uid)
    there = sorted({"memory", "pids"} & set((subtree / "cgroup.controllers").read_text().split()))
    assert first[:3] == [str(subtree), "main", there]
    assert bool(first[3]) == (len(there) < 2)
    assert again == first


def test_empty_leaves_of_an_earlier_daemon_are_removed_and_nothing_else(subtree: Path) -> None:
    for name in ("session-demo.0123abcd", "session-demo.0123abcd/below", "session-", "other", ".control"):
        (subtree / name).mkdir()
    process = sleeper(subtree / "session-one.0123abcd")
    try:
        assert isinstance(Cgroups.find(Ceiling(), subtree / "main"), Cgroups)
        left = {one.name for one in subtree.iterdir() if one.is_dir()}
        assert left == {"session-one.0123abcd", "session-", "other", ".control"}
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("mounts", "line", "found"),
    [
        ("30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "0::/a.slice/b", "/sys/fs/cgroup/a.slice/b"),
        ("30 1 0:26 / /a\\040b rw shared:4 - cgroup2 cgroup2 rw", "0::/c", "/a b/c"),
        ("30 1 0:26 /a /cg rw - cgroup2 cgroup2 rw", "0::/a/b", "/cg/b"),
        ("30 1 0:26 /a /cg rw - cgroup2 cgroup2 rw", "0::/ab", "outside"),
        ("30 1 0:26 / /cg rw - cgroup cgroup rw,pids", "0::/ab", "no cgroup v2"),
        ("30 1 0:26 / /cg rw - cgroup2 cgroup2 rw", "3:pids:/ab", "no cgroup v2"),
        ("", "", "no cgroup v2"),
    ],
)
def test_where_we_are(monkeypatch: pytest.MonkeyPatch, mounts: str, line: str, found: str) -> None:
    texts = {"/proc/self/mountinfo": mounts, "/proc/self/cgroup": line}
    monkeypatch.setattr(cgroup, "_text", texts.__getitem__)
    assert found in str(cgroup._own())


# --- a launch -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["bubblewrap", "plain"])
def kind(request: pytest.FixtureRequest) -> Sandbox:
    if request.param == "plain":
        return Plain(unprivileged_user(""))
    if BWRAP is None:
        pytest.skip("bubblewrap is not installed")
    return Bubblewrap(BWRAP, unprivileged_user(""))


async def until(true: Callable[[], bool]) -> None:
    """Look until it is so."""
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.01)


def living(pids: set[int]) -> list[int]:
    return [row.pid for row in map(host.process_row, pids) if row is not None and row.state not in "ZX"]


@asynccontextmanager
async def started(kind: Sandbox, token: str, script: str, lock: Path) -> AsyncIterator[tuple[Run, int, int]]:
    """A run that waits to be let go, its output, and its input."""
    read, write = os.pipe()
    said, say = os.pipe()
    lock_fd = os.open(lock, os.O_RDWR | os.O_CREAT)
    spec = Spec(
        ["/usr/bin/sh", "-c", script],
        None,
        lock_fd,
        token,
        {"PATH": "/usr/bin:/bin"},
        {0: said, 1: write, 2: write},
    )
    run = kind.start(spec)
    for fd in (write, said, lock_fd):
        os.close(fd)
    try:
        async with asyncio.timeout(20):
            yield run, read, say
            await run.kill()
    finally:
        run.close()
        os.close(read)
        os.close(say)


async def test_all_of_a_launch_is_in_its_leaf_and_nothing_outlives_it(
    kind: Sandbox, ours: Cgroups, tmp_path: Path
) -> None:
    token = secrets.token_hex(16)
    leaf = ours.leaf(DEMO, token)
    assert await asyncio.to_thread(end, leaf) is None, "there is none yet"
    async with started(kind, token, STRAY, tmp_path / "lock") as (run, output, say):
        identities = await run.identify()
        if kind.kind == "plain":  # it runs already, and has had a child
            await until(lambda: len(run.members()) == 2)
        await asyncio.to_thread(ours.take, DEMO, token, run, identities)
        assert leaf.path.name == f"session-demo.{token[:8]}"
        assert {one.pid for one in identities} <= inside(leaf)
        run.release()
        os.write(say, b"go\n")
        assert await asyncio.to_thread(os.read, output, 100) == b"ready\n"
        await until(lambda: len(inside(leaf)) == len(identities) + 4 + (kind.kind != "plain"))
        pids = inside(leaf)
        assert {one.pid for one in await asyncio.to_thread(run.members)} <= pids
        await run.kill()
        assert bool(living(pids)) == (kind.kind == "plain"), "only namespaces keep everybody in"
        used = await asyncio.to_thread(end, leaf)
    assert used is not None
    assert used.cpu_s is not None
    assert used.cpu_s > 0
    assert not leaf.path.exists()
    assert not living(pids)
    # Subreaper or not, whoever they were left to collects them.
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def test_one_that_is_frozen_is_ended_too_and_what_it_has_made_below_is_removed(ours: Cgroups) -> None:
    leaf = ours.leaf(DEMO, "0123abcd")
    process = sleeper(leaf.path)
    below = sleeper(leaf.path / "below")
    (leaf.path / "cgroup.freeze").write_text("1")
    assert end(leaf) is not None
    assert process.wait(5) == below.wait(5) == -signal.SIGKILL
    assert not leaf.path.exists()


def test_waiting_for_its_end_can_be_called_off(ours: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = ours.leaf(DEMO, "0123abcd")
    process = sleeper(leaf.path)
    monkeypatch.setattr(
        leaf, "_write", lambda *_: None
    )  # a kill that does not come through, as of one in state D
    stop = threading.Event()
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    leaf.end(stop)
    timer.join()
    assert leaf.path.exists()
    assert process.poll() is None
    monkeypatch.undo()
    end(leaf)
    process.wait(5)


def test_limits_are_set_where_there_are_controllers(subtree: Path) -> None:
    (subtree / "main").mkdir()
    found = Cgroups.find(Ceiling(memory_mb=64, pids=50), subtree / "main")
    assert isinstance(found, Cgroups)
    if found.controllers < {"memory", "pids"}:
        pytest.skip(found.why_no_limits)
    run = cast("Run", SimpleNamespace(kind="bubblewrap"))
    found.take(DEMO, "0123abcd", run, ())
    leaf = found.leaf(DEMO, "0123abcd")
    assert _lines(leaf.path, "memory.max") == [str(64 * host.MB)]
    assert _lines(leaf.path, "pids.max") == ["50"]
    hungry = "import os, sys; open(sys.argv[1], 'w').write('0'); b'x' * (1 << 30)"
    done = subprocess.run(
        [sys.executable, "-c", hungry, str(leaf.path / "cgroup.procs")], check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    used = end(leaf)
    assert used is not None
    assert used.memory_peak_mb is None or used.memory_peak_mb <= 65


def test_limits_are_written_as_the_kernel_reads_them(tmp_path: Path) -> None:
    """On files that only look so: for where there are no controllers."""
    ceiling = Ceiling(memory_mb=64, pids=0)
    cgroups = Cgroups(tmp_path, controllers=frozenset({"memory", "pids"}), why_no_limits="", ceiling=ceiling)
    leaf = cgroups.leaf(DEMO, "0123abcd")
    leaf.path.mkdir()
    for name in ("memory.max", "pids.max"):
        (leaf.path / name).touch()
    cgroups.take(DEMO, "0123abcd", cast("Run", SimpleNamespace(kind="bubblewrap")), ())
    assert (leaf.path / "memory.max").read_text() == str(64 * 1024 * 1024)
    assert not (leaf.path / "pids.max").read_text()
    texts = {
        "memory.current": "1048576",
        "memory.peak": "2097152\n",
        "pids.current": "7",
        "cpu.stat": "x 1\n",
    }
    for name, text in texts.items():
        (leaf.path / name).write_text(text)
    assert leaf.used() == cgroup.Used(None, 1.0, 2.0, 7)
    assert leaf.kills() == Kills()
    (leaf.path / "memory.events").write_text("low 0\nhigh 0\nmax 41\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert leaf.kills() == Kills(killed=2, full=3)
    (leaf.path / "memory.events").write_text("torn")
    assert leaf.kills() == Kills()


# --- the daemon -----------------------------------------------------------------------------------------------


async def test_each_browser_of_a_daemon_has_its_own(
    pose: Daemon, journal: Journal, subtree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "_own", lambda: subtree / "main")
    demo2 = ClientCode("demo2")
    async with pose("connected") as (supervisor, _):
        await asyncio.gather(supervisor.connect(DEMO), supervisor.connect(demo2))
        leaves = {one.name.partition(".")[0]: Leaf(one) for one in subtree.glob("session-*")}
        assert set(leaves) == {"session-demo", "session-demo2"}
        for code in (DEMO, demo2):
            browser = supervisor._sessions[code]._instance.browser
            assert browser is not None
            members = await asyncio.to_thread(browser.run.members)
            assert {one.pid for one in members} | set(browser.run.pids()) == inside(leaves[f"session-{code}"])
        await supervisor.disconnect(DEMO)
        assert [one.name.partition(".")[0] for one in subtree.glob("session-*")] == ["session-demo2"]
        await supervisor.cleanup(demo2)
        assert not list(subtree.glob("session-*"))
    assert not journal.named("cgroup.failed")
    assert len(journal.named("cgroup.removed")) == 2


@pytest.mark.parametrize(
    ("full", "where"), [(1, "at cgroup.memory_max_mb = 4096"), (0, "since the machine has no more")]
)
async def test_what_the_kernel_has_killed_is_said_once(
    pose: Daemon, journal: Journal, subtree: Path, monkeypatch: pytest.MonkeyPatch, full: int, where: str
) -> None:
    """A renderer, and then the browser, for which nothing more was counted."""
    monkeypatch.setattr(cgroup, "_own", lambda: subtree / "main")
    monkeypatch.setattr(Leaf, "kills", lambda _self: Kills(1, full))  # the kernel here may not count them

    async def found(count: int) -> None:
        async with asyncio.timeout(10):
            while len(journal.named("health.finding")) < count:
                await asyncio.sleep(0.02)

    async with pose("connected") as (supervisor, _):
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        assert session.memory.profile is not None
        (session.memory.profile.path / "posing").write_text("gone")
        await found(1)
        os.kill(session.browser_pids[0], signal.SIGKILL)
        await found(2)
    crashed, ended, *_ = (event.fields for event in journal.named("health.finding"))
    assert (crashed["fault"], ended["fault"]) == ("page_crashed", "browser_exited")
    why = f"the kernel ended one of its processes {where}"
    assert crashed["evidence"] == ["the browser says so", why]
    assert len(ended["evidence"]) == 1


async def test_a_cgroup_that_cannot_be_made_is_told_and_does_without(
    pose: Daemon, journal: Journal, subtree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "_own", lambda: subtree / "main")
    (subtree / "cgroup.max.descendants").write_text("0")
    async with pose("connected") as (supervisor, _):
        assert (await supervisor.connect(DEMO)).status == "connected"
    (failed,) = journal.named("cgroup.failed")
    assert failed.client == DEMO


async def test_the_next_daemon_finds_the_leaves_of_the_one_before(
    own: Path, subtree: Path, sessions_dir: Path
) -> None:
    browser = {"path": str(POSING), "extra_flags": ["--posing=connected"]}

    @contextlib.contextmanager
    def as_service() -> Iterator[None]:
        """What is started meanwhile is started there, as by a service manager."""
        (subtree / "cgroup.procs").write_text("0")
        try:
            yield
        finally:
            (own / "cgroup.procs").write_text("0")

    def leaves() -> dict[str, set[int]]:
        return {one.name.partition(".")[0]: inside(Leaf(one)) for one in subtree.glob("session-*")}

    async with Service(sessions_dir.parent, {"browser": browser}) as service:
        with as_service():
            service.begin()
        await service.ready()
        for code in ("one", "two"):
            await service.ask("POST", f"/v1/sessions/{code}/connect")
        assert service.process is not None
        assert inside(Leaf(subtree / "daemon")) == {service.process.pid}
        assert not inside(Leaf(subtree))
        before = leaves()
        assert set(before) == {"session-one", "session-two"}
        await service.end(signal.SIGKILL)
        (subtree / "session-gone.0123abcd").mkdir()
        unknown = sleeper(subtree / "session-unknown.0123abcd")
        assert leaves() == before | {"session-gone": set(), "session-unknown": {unknown.pid}}
        # The service manager has lost the pipes of one of them, and it does not notice: it has to be ended.
        stop(before["session-two"])
        token = service.launch("two")["token"]
        for name in [name for name in service.kept if name.startswith(token)]:
            os.close(service.kept.pop(name))
        with as_service():
            service.begin()
        await service.ready()
        assert unknown.wait(5) == -signal.SIGKILL
        assert leaves()["session-one"] == before["session-one"]
        await service.until(
            lambda: len(leaves()) == 2 and all(leaves().values()), "started again in another leaf"
        )
        assert leaves()["session-two"] != before["session-two"]
        assert not service.events("cgroup.failed")
        kinds = {one["subject"]: one["kind"] for one in service.events("sweep.finding")}
        assert kinds.pop("session-unknown.0123abcd") == "cgroup_without_session"
        assert not [name for name in kinds if name.startswith("session-")], "its end has removed it"
        (found, _) = service.events("cgroup.found")
        assert found["path"] == str(subtree)
        await service.end(signal.SIGTERM)
        assert not leaves()


# --- pressure -------------------------------------------------------------------------------------------------


def test_the_worst_pressure_counts_and_none_is_none(tmp_path: Path) -> None:
    texts = {
        "calm": "some avg10=9.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.50 avg60=0.00 avg300=0.00 total=1\n",
        "worse": "some avg10=9.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=33.25 avg60=0.00 avg300=0.00 total=1\n",
        "old": "some avg10=9.00 avg60=0.00 avg300=0.00 total=1\n",
        "torn": "full avg10",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    calm, worse, *useless = (tmp_path / name for name in (*texts, "absent"))
    assert host.stalled(calm, worse, *useless) == 33.25
    assert host.stalled(calm) == 1.5
    assert host.stalled(*useless) is None


def test_this_kernel_tells_its_pressure(ours: Cgroups) -> None:
    if not host.MEMORY_PRESSURE.exists():
        pytest.skip("no PSI here")
    assert host.stalled(host.MEMORY_PRESSURE) is not None
    assert host.stalled(ours.memory_pressure) == 0.0


async def test_nobody_starts_where_nothing_gets_on(
    pose: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pressure = tmp_path / "pressure"
    pressure.write_text("full avg10=20.01 avg60=0.00 avg300=0.00 total=1\n")
    monkeypatch.setattr(host, "MEMORY_PRESSURE", pressure)
    limits = {"reserve_memory_mb": 0, "session_memory_mb": 0, "reserve_disk_mb": 0, "memory_pressure": 20.0}
    async with pose("connected", limits=limits) as (supervisor, _):
        with pytest.raises(NoMemory, match=r"20\.01 %") as refused:
            await supervisor.connect(DEMO)
        assert refused.value.details["retry_after_s"] > 0
        pressure.unlink()  # a kernel without PSI
        assert (await supervisor.connect(DEMO)).status == "connected"
