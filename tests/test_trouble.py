"""Sessions in trouble: verbs that overtake each other, disks that are full or hang, pages that are gone.

Whatever happens, every verb gets an answer, the session is of use afterwards, and no login is lost.
"""

import asyncio
import errno
import json
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, Journal, deleted
from poses import shows

from waguard.browser import launch
from waguard.browser import page as browser_page
from waguard.browser.find import Binary
from waguard.config.sections import Browser
from waguard.core.health.plans import Remedy
from waguard.core.model import ClientCode, Link, Process, Status, Wait, Wanted
from waguard.errors import (
    DiskFull,
    Interrupted,
    LimitReached,
    NotProvedGone,
    SessionFailed,
    ShuttingDown,
    StorageFailed,
)
from waguard.profile.store import Profiles
from waguard.sandbox import reaper
from waguard.sandbox.bubblewrap import Bubblewrap
from waguard.sandbox.choose import bubblewrap_problem
from waguard.sandbox.identity import TOKEN_VARIABLE
from waguard.sandbox.plain import Plain
from waguard.session.registry import Record, Registry
from waguard.supervisor.supervisor import Supervisor
from waguard.system import host
from waguard.system.threads import in_thread

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
QUICK = {"poll_s": 0.02, "poll_loading_s": 0.02, "read_s": 0.2, "unknown_after": 2}


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Closed until the test opens it; a thread that waits at it hangs as a thread at a dead disk does."""
    gate = threading.Event()
    yield gate
    gate.set()


async def stopping(supervisor: Supervisor, verb: Awaitable[Any]) -> asyncio.Future[Any]:
    """The verb, once its session is on the way down."""
    going = asyncio.ensure_future(verb)
    session = supervisor._sessions[DEMO]
    await session.until(lambda: session.state.process is Process.STOPPING)
    return going


async def answered(*asked: asyncio.Future[Any], seconds: float = 5.0) -> None:
    """Each has an answer, whichever."""
    _, pending = await asyncio.wait(asked, timeout=seconds)
    for one in pending:
        one.cancel()
    for one in asked:
        if not one.cancelled() and one.done():
            one.exception()
    assert not pending


# --- verbs that overtake each other -------------------------------------------------------------------------


async def test_a_disconnect_that_a_connect_overtakes_is_told(pose: Daemon) -> None:
    async with pose("ignores-close", deadlines={"close": 0.3}) as (supervisor, _):
        await supervisor.connect(DEMO)
        going = await stopping(supervisor, supervisor.disconnect(DEMO))
        await supervisor.connect(DEMO)
        async with asyncio.timeout(5):
            with pytest.raises(Interrupted, match="overtaken"):
                await going


async def test_a_cleanup_right_after_a_disconnect_leaves_no_watcher(pose: Daemon) -> None:
    async with pose("connected", page=QUICK) as (supervisor, _):
        await supervisor.connect(DEMO)
        going = await stopping(supervisor, supervisor.disconnect(DEMO))
        assert (await supervisor.cleanup(DEMO)).ok
        await going
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert {name for name in names if name.startswith("demo:")} == {"demo:session"}


async def test_a_cleanup_asked_for_just_as_a_kill_fails_is_done(pose: Daemon) -> None:
    async with pose("ok") as (supervisor, _):
        await supervisor.connect(DEMO)
        ending, asked = supervisor._sessions[DEMO]._ending, asyncio.Event()
        end = ending.end

        async def resists(*, polite: bool) -> None:
            del polite
            await asked.wait()
            raise NotProvedGone("It resists.", stage="kill")

        ending.end = resists  # type: ignore[method-assign]
        going = await stopping(supervisor, supervisor.disconnect(DEMO))
        cleaning = asyncio.ensure_future(supervisor.cleanup(DEMO))
        asked.set()
        await asyncio.sleep(0)
        ending.end = end  # type: ignore[method-assign]
        await answered(going, cleaning)
        assert supervisor.view(DEMO).status is Status.STOPPED


# --- a step that breaks -------------------------------------------------------------------------------------


async def test_a_cleanup_whose_step_breaks_is_answered_and_its_other_steps_run(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pose("ok") as (supervisor, _):
        await supervisor.connect(DEMO)

        def refuse(_fd: int) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", refuse)
            report = await supervisor.cleanup(DEMO)
        outcomes = {step.step: step.outcome for step in report.steps}
        assert (outcomes["tree"], outcomes["profile"]) == ("failed", "done")
        assert "Too many open files" in report.steps[2].detail
        assert (await supervisor.cleanup(DEMO)).ok
        assert (await supervisor.connect(DEMO)).status is Status.AWAITING_SCAN


@pytest.mark.parametrize("verb", ["disconnect", "cleanup", "restart"])
async def test_a_full_disk_swallows_no_verb_and_is_forgotten(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    async with pose("ok", restart={"budget": 0}) as (supervisor, _):

        def full(*_: object) -> None:
            raise DiskFull("Cannot write session.json: No space left on device.")

        with monkeypatch.context() as patch:
            patch.setattr(Registry, "write", full)
            with pytest.raises(SessionFailed, match="No space left"):
                await supervisor.connect(DEMO)
            await answered(asyncio.ensure_future(getattr(supervisor, verb)(DEMO)))
        for again in ("connect", "restart", "cleanup", "connect", "disconnect"):
            async with asyncio.timeout(5):
                await getattr(supervisor, again)(DEMO)


async def test_a_link_that_cannot_be_read_is_not_replaced(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pose("ok", restart={"budget": 0}) as (supervisor, _):
        before = await supervisor.connect(DEMO)
        await supervisor.disconnect(DEMO)
        readlink = Path.readlink

        def refuse(self: Path) -> Path:
            if self.name == "profile":
                raise OSError(errno.EIO, "Input/output error")
            return readlink(self)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "readlink", refuse)
            with pytest.raises(SessionFailed, match="Input/output error"):
                await supervisor.connect(DEMO)
        assert (await supervisor.connect(DEMO)).generation == before.generation


async def test_a_retired_profile_that_cannot_be_deleted_keeps_no_other(
    pose: Daemon, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    rmtree = shutil.rmtree

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if "demo2" in str(path):
            raise OSError(errno.EIO, "Input/output error")
        rmtree(path, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    async with pose("ok", sessions={"retired_keep_hours": 0}) as (supervisor, _):
        for code in (DEMO2, DEMO):
            await supervisor.connect(code)
            await supervisor.cleanup(code)
        async with asyncio.timeout(5):
            while not deleted(journal):
                await asyncio.sleep(0.01)
        left = [place.name.partition(".")[0] for place in (sessions_dir / ".retired").iterdir()]
        assert left == ["demo2"]
        assert any(event.fields["outcome"] == "failed" for event in journal.named("sweep.finding"))


async def test_a_profile_retired_by_a_fresh_connect_is_deleted_in_its_time(
    pose: Daemon, sessions_dir: Path
) -> None:
    async with pose("ok", sessions={"retired_keep_hours": 0}) as (supervisor, _):
        await supervisor.connect(DEMO)
        await supervisor.connect(DEMO, fresh=True)
        async with asyncio.timeout(5):
            while list((sessions_dir / ".retired").iterdir()):
                await asyncio.sleep(0.01)


async def test_a_cleanup_outlives_a_power_cut(pose: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pose("ok") as (supervisor, _):
        await supervisor.connect(DEMO)
        fsync, synced = os.fsync, set()

        def noted(fd: int) -> None:
            synced.add(Path(f"/proc/self/fd/{fd}").readlink().name)
            fsync(fd)

        monkeypatch.setattr(os, "fsync", noted)
        await supervisor.cleanup(DEMO)
        assert {"demo", ".profiles", ".retired"} <= synced


async def test_strays_that_are_dead_already_leave_no_zombie(pose: Daemon) -> None:
    def zombies() -> set[int]:
        return {row.pid for row in host.process_table() if row.ppid == os.getpid() and row.state == "Z"}

    before = zombies()
    async with pose("leaves-a-dead", sandbox={"kind": "plain"}) as (supervisor, _):
        for _ in range(3):
            await supervisor.connect(DEMO)
            assert (await supervisor.cleanup(DEMO)).ok
        assert not zombies() - before


@pytest.mark.parametrize("kind", ["plain", "bubblewrap"])
async def test_a_start_that_runs_out_of_fds_leaves_none(tmp_path: Path, kind: str) -> None:
    sandbox = Plain(None) if kind == "plain" else Bubblewrap(Path("/usr/bin/bwrap"), None)
    binary, settings = Binary(Path("/usr/bin/true"), "1.2.3.4"), Browser()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (tmp_path / "lock").open("w") as lock:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        held: list[int] = []
        try:
            with suppress(OSError):
                while True:
                    held.append(os.dup(lock.fileno()))
            for free in range(1, 30):
                os.close(held.pop())
                before = open_fds()
                try:
                    browser = launch.Browser.spawn(sandbox, binary, settings, tmp_path, lock.fileno(), "t")
                except LimitReached:
                    assert open_fds() == before
                else:
                    assert free > 6, "that was enough"
                    break
            async with asyncio.timeout(10):
                await browser.kill()
            browser.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in held:
                os.close(fd)


def open_fds() -> set[int]:
    found = set()
    for fd in range(256):
        with suppress(OSError):
            os.fstat(fd)
            found.add(fd)
    return found


# --- a disk that hangs --------------------------------------------------------------------------------------


async def test_a_thread_is_waited_for_however_often_it_is_called_off(gate: threading.Event) -> None:
    task = asyncio.create_task(in_thread(gate.wait, 30))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    assert not (await asyncio.wait([task], timeout=0.1))[0]
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_slow_disk_retires_no_profile_of_a_later_attempt(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    retire = Profiles.retire

    def slow(self: Profiles, code: ClientCode, reason: str, **options: bool) -> Path | None:
        gate.wait(30)
        return retire(self, code, reason, **options)

    async with pose("connected", deadlines={"prepare": 0.1}) as (supervisor, _):
        await supervisor.connect(DEMO)
        monkeypatch.setattr(Profiles, "retire", slow)
        session = supervisor._sessions[DEMO]
        fresh = asyncio.ensure_future(supervisor.connect(DEMO, fresh=True))
        await session.until(lambda: session.state.process is Process.PREPARING)
        await asyncio.sleep(0.2)  # past the deadline: it is called off by it, and then by these
        asked = [asyncio.ensure_future(verb(DEMO)) for verb in (supervisor.disconnect, supervisor.connect)]
        await asyncio.sleep(0.2)
        gate.set()
        await answered(fresh, *asked)
        view = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        profile = await asyncio.to_thread(supervisor._resources.profiles.current, DEMO)
        assert profile is not None
        assert profile.generation == view.generation


async def test_a_disk_that_hangs_leaves_nobody_waiting(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    lock = Profiles.lock
    monkeypatch.setattr(Profiles, "lock", lambda self, profile: (gate.wait(30), lock(self, profile))[1])
    deadlines = {"prepare": 0.2, "kill": 0.2, "close": 0.2}
    async with pose("ok", deadlines=deadlines) as (supervisor, _):
        first = asyncio.ensure_future(supervisor.connect(DEMO, timeout_s=0.5))
        await asyncio.sleep(0.1)
        others = [
            asyncio.ensure_future(verb) for verb in (supervisor.cleanup(DEMO), supervisor.disconnect(DEMO))
        ]
        await answered(first, *others)
        gate.set()
        monkeypatch.undo()
        async with asyncio.timeout(5):
            await supervisor.disconnect(DEMO)
            assert (await supervisor.connect(DEMO)).status is Status.AWAITING_SCAN


async def test_the_record_on_disk_is_the_last_one(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch, sessions_dir: Path
) -> None:
    async with pose("ok") as (supervisor, _):
        await supervisor.connect(DEMO)
        write, first = Registry.write, [True]

        def slow(self: Registry, code: ClientCode, record: Any) -> None:
            if record.launch is None and first:
                first.clear()
                time.sleep(0.3)  # one slow fsync
            write(self, code, record)

        monkeypatch.setattr(Registry, "write", slow)
        again = asyncio.ensure_future(supervisor.restart(DEMO, wait=Wait.NONE))
        while first:
            await asyncio.sleep(0)
        await supervisor.disconnect(DEMO)
        await again
    assert json.loads((sessions_dir / "demo" / "session.json").read_text())["wanted"] == "down"


# --- a page that is gone, strange, or loads for ever ------------------------------------------------------------


async def test_a_page_that_is_closed_comes_back(pose: Daemon) -> None:
    async with pose("connected", page=QUICK) as (supervisor, _):
        before = await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        assert session._instance.browser is not None
        devtools = session._instance.browser.devtools
        assert devtools is not None
        detached = {"method": "Target.detachedFromTarget", "params": {"sessionId": "S", "targetId": "T"}}
        devtools._received(json.dumps(detached).encode() + b"\0")
        async with asyncio.timeout(5):
            await session.until(lambda: session.memory.attempt != before.attempt)
        assert (await supervisor.connect(DEMO)).status is Status.CONNECTED


async def test_a_page_that_says_nothing_known_is_unknown_after_some_looks_and_a_connect_mends_it(
    pose: Daemon,
) -> None:
    async with pose("connected", page=QUICK, deadlines={"open": 1.0}) as (supervisor, _):
        before = await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        shows(supervisor, {"url": "https://web.whatsapp.com/", "app": True, "ready": "complete"})
        async with asyncio.timeout(10):
            await session.until(lambda: session.state.link is Link.UNKNOWN)
        view = supervisor.view(DEMO)
        assert (view.status, view.attempt) == (Status.RECOVERING, before.attempt)
        assert view.finding is not None
        assert (view.finding.fault, view.finding.tried) == ("page_unread", (Remedy.RELOAD,))
        assert view.finding.next_try_s is not None
        assert 25 < view.finding.next_try_s <= 60
        again = await supervisor.connect(DEMO)
        assert (again.status, again.profile) == (Status.CONNECTED, "kept")
        assert again.attempt != before.attempt


async def test_a_page_that_loads_again_and_never_ends_is_replaced(pose: Daemon) -> None:
    async with pose("connected", page=QUICK, deadlines={"open": 0.3}) as (supervisor, _):
        before = await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        shows(supervisor, {"url": "https://web.whatsapp.com/", "splash": True})
        async with asyncio.timeout(5):
            await session.until(lambda: session.memory.attempt not in {"", before.attempt})
            await session.until(lambda: session.state.link is Link.CONNECTED)


async def test_only_what_is_needed_of_the_page_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `Page` on, each alert() of the page would hang it until somebody closes it."""
    sent = []

    class Session:
        def observe(self, *_: object) -> None:
            pass

        async def send(self, method: str, *_: object) -> None:
            sent.append(method)

    class DevTools:
        browser = Session()

        async def attach(self, _target: object) -> Session:
            return Session()

    async def first(_devtools: object) -> str:
        return "T"

    monkeypatch.setattr(browser_page, "_first_page", first)
    await browser_page.Page.attach(DevTools())  # type: ignore[arg-type]
    assert sent == ["Inspector.enable", "Performance.enable"]


# --- the daemon's start and end -------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["set_aside", "reap"])
async def test_one_clients_leftover_keeps_no_daemon_from_starting(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch, sessions_dir: Path, journal: Journal, trouble: str
) -> None:
    async with pose("ok") as (supervisor, _):
        await supervisor.connect(DEMO)
    record = sessions_dir / "demo" / "session.json"
    if trouble == "set_aside":
        record.write_text("torn")

        def read_only(*_: object) -> None:
            raise StorageFailed("Cannot rename: Read-only file system.")

        monkeypatch.setattr(Registry, "set_aside", read_only)
    else:
        launch = {
            "token": "f" * 32,
            "kind": "plain",
            "generation": "20240102T030405-0123abcd",
            "started_at": 1.0,
        }
        record.write_text(json.dumps({"wanted": "up", "launch": launch}))

        async def not_permitted(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(reaper, "reap", not_permitted)
    async with pose("ok") as (supervisor, _):
        assert (await supervisor.connect(DEMO2)).status is Status.AWAITING_SCAN
    (told,) = journal.named("registry.corrupt" if trouble == "set_aside" else "reaper.failed")
    assert told.client == DEMO


async def test_a_record_that_cannot_be_read_for_a_moment_is_read_again(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    async with pose("ok") as (supervisor, _):
        await supervisor.connect(DEMO)
    read, failures = Registry.read, iter(range(2))

    def reading(self: Registry, code: ClientCode) -> Record:
        for _ in failures:
            raise StorageFailed("Cannot read: Too many open files.")
        return read(self, code)

    monkeypatch.setattr(Registry, "read", reading)
    async with pose("ok") as (supervisor, _):
        assert supervisor.view(DEMO).wanted is Wanted.UP
    assert not journal.named("registry.unavailable")


@pytest.mark.parametrize("verb", ["connect", "cleanup"])
async def test_a_verb_in_hand_when_the_daemon_ends_is_answered(
    pose: Daemon, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    write, began = Registry.write, threading.Event()

    def slow(self: Registry, code: ClientCode, record: Any) -> None:
        began.set()
        time.sleep(0.2)
        write(self, code, record)

    async with pose("ok") as (supervisor, _):
        await supervisor.connect(DEMO2)
        code = DEMO if verb == "connect" else DEMO2
        monkeypatch.setattr(Registry, "write", slow)
        asked = asyncio.ensure_future(getattr(supervisor, verb)(code))
        await asyncio.to_thread(began.wait, 5)
    await answered(asked)
    assert isinstance(asked.exception(), ShuttingDown)


async def test_a_verb_after_the_end_is_answered(pose: Daemon) -> None:
    async with pose("ok") as (supervisor, _):
        await supervisor.connect(DEMO)
    for verb in (supervisor.disconnect, supervisor.cleanup, supervisor.connect):
        async with asyncio.timeout(2):
            with pytest.raises(ShuttingDown):
                await verb(DEMO)


async def test_a_trial_of_bubblewrap_that_fails_kills_nobody_elses(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    other = subprocess.Popen(["/usr/bin/sleep", "60"], env={TOKEN_VARIABLE: "trial"})
    try:
        assert await bubblewrap_problem(broken, None) is not None
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
