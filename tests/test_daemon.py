"""One daemon at a time, and whatever an earlier one left: told, reaped by identity, and nobody else touched."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import POSING, Daemon, Journal
from processes import alive, stop
from service import Service
from victim import LIFE, Victim

from waguard import daemon
from waguard.config.load import Loaded
from waguard.config.sections import Config, Sessions
from waguard.core.model import ClientCode, Status
from waguard.errors import AlreadyRunning, ConfigError, DeadlineExceeded, WaguardError
from waguard.sandbox.identity import TOKEN_VARIABLE, Identity

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")


@pytest.fixture(params=["bubblewrap", "plain"])
def sandbox(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"kind": request.param}


# --- one at a time --------------------------------------------------------------------------------------------


async def test_a_second_daemon_on_the_same_directory_is_refused(pose: Daemon, sessions_dir: Path) -> None:
    async with pose() as (supervisor, _):
        view = await supervisor.connect(DEMO)
        with pytest.raises(AlreadyRunning) as caught:
            async with pose():
                pass
        assert str(sessions_dir) in caught.value.message
        assert "fuser -v" in caught.value.hint
        assert supervisor.view(DEMO).browser == view.browser
    async with pose() as (supervisor, _):
        assert (await supervisor.connect(DEMO)).profile == "kept"


async def test_a_port_that_is_taken_is_said_and_nothing_is_touched(
    pose: Daemon, sessions_dir: Path, tmp_path: Path
) -> None:
    async with pose() as (_, url):
        port = int(url.rpartition(":")[2])
        other = sessions_dir.parent / "other"
        left_by_an_earlier_one = other / "demo" / "session.json"
        left_by_an_earlier_one.parent.mkdir(parents=True)
        left_by_an_earlier_one.write_text("torn")
        with pytest.raises(AlreadyRunning) as caught:
            async with pose(api={"port": port}, sessions={"dir": other}):
                pass
        assert f"Port {port} on 127.0.0.1 cannot be opened" in caught.value.message
        assert "address already in use" in caught.value.message.lower()
        assert "api.port" in caught.value.hint
        assert left_by_an_earlier_one.read_text() == "torn"
        async with pose(sessions={"dir": other}):
            assert not left_by_an_earlier_one.exists()


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"browser": {"path": "/nowhere/chromium"}}, "there is no file /nowhere/chromium"),
        ({"browser": {"path": "/etc/passwd"}}, "is not executable"),
        ({"browser": {"path": "/usr/bin/true"}}, "does not tell a version"),
        ({"whatsapp": {"probe": "/nowhere/probe.js"}}, "whatsapp.probe"),
        ({"sessions": {"dir": "/dev/null/sessions"}}, "Cannot use /dev/null/sessions"),
    ],
)
async def test_what_keeps_it_from_starting_is_said_and_the_directory_is_free_again(
    start: Daemon, pose: Daemon, sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(WaguardError) as caught:
        async with start(**{"browser": {"path": POSING}, **sections}):
            pass
    assert said in str(caught.value)
    async with pose():
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could be in somebody's way")
async def test_root_does_not_work_in_what_belongs_to_somebody_else(pose: Daemon, sessions_dir: Path) -> None:
    sessions_dir.mkdir()
    os.chown(sessions_dir, 65534, 65534)
    with pytest.raises(ConfigError, match=rf"{sessions_dir} belongs to nobody") as caught:
        async with pose():
            pass
    assert "systemctl start waguard" in caught.value.hint
    assert not [*sessions_dir.iterdir()]
    with pytest.raises(ConfigError, match="belongs to nobody"):
        await asyncio.to_thread(daemon.check, Loaded(Config(sessions=Sessions(dir=sessions_dir)), None, {}))


async def test_a_probe_of_ones_own_must_be_text(pose: Daemon, tmp_path: Path) -> None:
    probe = tmp_path / "probe.js"
    probe.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"whatsapp.probe: .* cannot be read"):
        async with pose(whatsapp={"probe": probe}):
            pass


@pytest.mark.parametrize("posing", ["never-ready", "ignores-close", "leaves-a-stray"])
async def test_a_daemon_that_ends_ends_every_browser_whatever_it_does(
    pose: Daemon, sandbox: dict[str, str], posing: str, journal: Journal, sessions_dir: Path
) -> None:
    """A missed deadline in a task that is being cancelled: Python 3.11.2, which Debian 12 has, loses count there."""
    async with pose(posing, sandbox=sandbox, deadlines={"close": 0.2}) as (supervisor, _):
        for code in (DEMO, DEMO2):
            with contextlib.suppress(DeadlineExceeded):
                await supervisor.connect(code, timeout_s=0.3)
    assert {event.client for event in journal.named("stage.done") if event.fields["stage"] == "kill"} == {
        DEMO,
        DEMO2,
    }
    assert not journal.named("session.shutdown_failed")
    for code in (DEMO, DEMO2):
        assert json.loads((sessions_dir / code / "session.json").read_bytes())["launch"] is None


# --- what it finds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b"", b'{"wanted": "up", "lau', b'{"schema": 99}', b"\0" * 512])
async def test_a_record_that_cannot_be_understood_is_set_aside(
    pose: Daemon, sessions_dir: Path, journal: Journal, torn: bytes
) -> None:
    async with pose() as (supervisor, _):
        views = await asyncio.gather(supervisor.connect(DEMO), supervisor.connect(DEMO2))
    (sessions_dir / "demo" / "session.json").write_bytes(torn)
    async with pose() as (supervisor, _):
        (event,) = journal.named("registry.corrupt")
        assert event.client == DEMO
        assert "cannot be understood" in event.fields["error"]
        assert Path(event.fields["kept_as"]).read_bytes() == torn
        again = await asyncio.gather(supervisor.connect(DEMO), supervisor.connect(DEMO2))
        assert [view.generation for view in again] == [view.generation for view in views], "profiles are kept"


async def test_a_directory_that_is_no_clients_is_told_and_left(
    pose: Daemon, sessions_dir: Path, journal: Journal
) -> None:
    for name in ("lost+found", "a b", "ünï"):
        (sessions_dir / name).mkdir(parents=True)
        (sessions_dir / name / "session.json").write_text("theirs")
    async with pose() as (supervisor, _):
        found = {event.fields["directory"] for event in journal.named("registry.foreign_directory")}
        assert found == {"lost+found", "a b", "ünï"}
        assert supervisor.views() == []
    assert (sessions_dir / "a b" / "session.json").read_text() == "theirs"


# --- killed -----------------------------------------------------------------------------------------------------


@pytest.fixture
def live(sessions_dir: Path) -> Iterator[Callable[..., Victim]]:
    """Start a daemon in a process of its own and have it connect these codes."""
    processes: list[subprocess.Popen[bytes]] = []

    def living(
        *codes: str, posing: str = "ok", die: str = "", sandbox: dict[str, str] | None = None, **sections: Any
    ) -> Victim:
        config = {
            "sessions": {"dir": str(sessions_dir)},
            "browser": {"path": str(POSING), "extra_flags": [f"--posing={posing}"]},
            "limits": {
                "reserve_memory_mb": 0,
                "session_memory_mb": 0,
                "reserve_disk_mb": 0,
                "concurrent_starts": 8,
            },
            "api": {"port": 0},
            "sandbox": sandbox or {},
            **sections,
        }
        paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            [sys.executable, "-c", LIFE, json.dumps(config), die, *codes],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
        )
        processes.append(process)
        return Victim(process, sessions_dir)

    yield living
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def decoy() -> Iterator[Callable[[Sequence[str]], "subprocess.Popen[bytes]"]]:
    """A stranger with the command line and the looks of a browser of ours; it must be alive at the end."""
    decoys: list[subprocess.Popen[bytes]] = []

    def starting(argv: Sequence[str]) -> "subprocess.Popen[bytes]":
        env = {"PATH": "/usr/bin:/bin", TOKEN_VARIABLE: "0123456789abcdef0123456789abcdef"}
        decoys.append(subprocess.Popen(list(argv), env=env, start_new_session=True))
        return decoys[-1]

    yield starting
    dead = [process.args for process in decoys if process.poll() is not None]
    for process in decoys:
        process.kill()
        process.wait()
    assert not dead, "strangers were killed"


async def reaps(pose: Daemon, victim: Victim, *codes: str, sandbox: dict[str, str] | None = None) -> None:
    """The next daemon ends all of it before it takes a connect; then each code connects, on the profile it had."""
    had = {code: launch["generation"] for code, launch in victim.launches().items()}
    left = set().union(*victim.processes().values())
    async with pose(sandbox=sandbox or {}) as (supervisor, _):
        assert supervisor.ready
        assert not alive(left)
        assert victim.launches() == {}
        views = await asyncio.gather(*(supervisor.connect(ClientCode(code)) for code in codes))
        for view in views:
            assert view.status is Status.AWAITING_SCAN
            if view.client in had:
                assert (view.profile, view.generation) == ("kept", had[view.client])


async def test_the_next_daemon_reaps_five_of_which_one_is_stopped(
    live: Callable[..., Victim],
    pose: Daemon,
    decoy: Callable[[Sequence[str]], "subprocess.Popen[bytes]"],
    sandbox: dict[str, str],
    journal: Journal,
) -> None:
    codes = ["demo", "demo2", "demo-2", "xdemo", "other"]
    victim = live(*codes, posing="ignores-close", sandbox=sandbox)
    await victim.says("all up")
    families = victim.processes()
    assert set(families) == set(codes)
    assert all(families.values())
    stop(families["demo"])
    victim.kill()
    assert alive(families["demo"]) == families["demo"], "it could not notice that its pipe is closed"
    await reaps(pose, victim, *codes, sandbox=sandbox)
    assert DEMO in {event.client for event in journal.named("reaper.killed")}


async def test_strangers_with_the_same_command_line_survive_the_reaping(
    live: Callable[..., Victim],
    pose: Daemon,
    decoy: Callable[[Sequence[str]], "subprocess.Popen[bytes]"],
    sandbox: dict[str, str],
) -> None:
    victim = live("demo", "demo2", posing="never-ready", sandbox=sandbox)
    await victim.says("browser.spawned demo", "browser.spawned demo2")
    for pid in set().union(*victim.processes().values()):
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
        if (
            str(POSING) in argv
        ):  # the browser itself, which sleeps in this pose; the sandbox's own would not start twice
            decoy(argv[argv.index(str(POSING)) :])
    decoy([str(POSING), "--posing=never-ready", f"{TOKEN_VARIABLE}={victim.launches()['demo']['token']}"])
    victim.kill()
    await reaps(pose, victim, "demo", "demo2", sandbox=sandbox)


@pytest.mark.parametrize("die", ["before-spawn", "after-spawn"])
async def test_a_daemon_that_dies_around_the_spawn_has_left_its_intent(
    live: Callable[..., Victim], pose: Daemon, sandbox: dict[str, str], die: str
) -> None:
    """No identity is on disk; the token tells."""
    victim = live("demo", posing="never-ready", die=die, sandbox=sandbox)
    assert victim.wait() == -signal.SIGKILL
    launch = victim.launches()["demo"]
    assert launch["processes"] == []
    if die == "before-spawn":
        assert not victim.processes()["demo"]
    await reaps(pose, victim, "demo", sandbox=sandbox)


async def test_a_stray_in_a_session_of_its_own_is_reaped(
    live: Callable[..., Victim], pose: Daemon, sandbox: dict[str, str]
) -> None:
    victim = live("demo", posing="leaves-a-stray", sandbox=sandbox)
    await victim.says("all up")
    family = victim.processes()["demo"]
    victim.kill()
    # The browser ends with its pipe; its stray does not.
    assert alive(family)
    await reaps(pose, victim, "demo", sandbox=sandbox)
    assert not alive(family)


async def test_killed_at_any_moment_the_next_one_reaps_all(
    live: Callable[..., Victim], pose: Daemon, sandbox: dict[str, str]
) -> None:
    chance = random.Random(11)
    codes = ["demo", "demo2", "demo3"]
    for _ in range(3):
        victim = live(*codes, posing="ignores-close", sandbox=sandbox)
        await victim.says("daemon.ready")
        await asyncio.sleep(chance.uniform(0, 0.15))
        victim.kill()
        await reaps(pose, victim, *codes, sandbox=sandbox)


async def test_what_is_on_disk_of_another_boot_or_another_process_kills_nobody(
    pose: Daemon,
    decoy: Callable[[Sequence[str]], "subprocess.Popen[bytes]"],
    sessions_dir: Path,
    sandbox: dict[str, str],
    journal: Journal,
) -> None:
    stranger = decoy(["/usr/bin/sleep", "3620"])
    identity = Identity.of(stranger.pid)
    assert identity is not None
    wrong = {
        "boot": (identity.start_ticks, "00000000-0000-0000-0000-000000000000"),
        "ticks": (identity.start_ticks - 1, identity.boot_id),
    }
    for code, (ticks, boot) in wrong.items():
        record = {
            "wanted": "up",
            "launch": {
                "token": "f" * 32,
                "kind": sandbox["kind"],
                "generation": "20240102T030405-0123abcd",
                "started_at": 1.0,
                "processes": [{"pid": stranger.pid, "start_ticks": ticks, "boot_id": boot}],
            },
        }
        (sessions_dir / code).mkdir(parents=True)
        (sessions_dir / code / "session.json").write_text(json.dumps(record))
    async with pose(sandbox=sandbox) as (supervisor, _):
        assert len(supervisor.views()) == 2
        assert not journal.named("reaper.killed")
        assert not journal.named("reaper.failed")
        with contextlib.suppress(KeyError):
            assert json.loads((sessions_dir / "boot" / "session.json").read_bytes())["launch"] is None


# --- started by cron, ssh and supervisors ---------------------------------------------------------------

_IGNORING = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.mark.parametrize(
    "under",
    [
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"],
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh"],
        ["/bin/sh", "-c", 'umask 000; exec "$@"', "sh"],
        [sys.executable, "-c", _IGNORING],
    ],
    ids=["nothing open", "stdout closed", "umask 000", "SIGCHLD ignored"],
)
async def test_a_daemon_is_well_however_it_was_started(tmp_path: Path, under: list[str]) -> None:
    """A browser that is killed is told as killed and comes back; the daemon's own files are nobody else's to write."""
    tmp_path.chmod(0o711)
    browser = {"path": str(POSING), "extra_flags": ["--posing=connected"]}
    async with Service(tmp_path, {"browser": browser}) as service:
        service.under = under
        await service.start()
        await service.ask("POST", "/v1/sessions/demo/connect")
        before = (await service.view("demo"))["browser"]["pids"]
        os.kill(before[0], signal.SIGKILL)

        async def again() -> bool:
            view = await service.view("demo")
            return bool(
                view["browser"] and view["browser"]["pids"] != before and view["status"] == "connected"
            )

        await service.until(again, "connected again")

        async def told() -> bool:
            return "SIGKILL" in json.dumps(await service.ask("GET", "/v1/sessions/demo/history"))

        await service.until(told, "in the history")
        assert (await service.ask("POST", "/v1/sessions/demo/cleanup"))["ok"]
        assert await service.end(signal.SIGTERM) == 0
        writable = [
            path
            for path in service.sessions.rglob("*")
            if not path.is_symlink() and path.stat().st_mode & 0o022
        ]
        assert not writable
        assert not [line for line in service.events("library.log") if "child process" in str(line)]
