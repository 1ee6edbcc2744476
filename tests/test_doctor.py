"""Each check sees what there is, names what is missing, and gives the command that mends it."""

import asyncio
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import aiohttp
import pytest
from bare_browser import BINARIES
from conftest import POSING, Daemon
from typer.testing import CliRunner

from waguard.browser import find
from waguard.cli import doctor
from waguard.cli.app import app
from waguard.cli.checks import Grade, Seen, browsers, machine, running, storage
from waguard.cli.client import Control
from waguard.cli.errors import NoUser
from waguard.cli.exits import ExitCode
from waguard.cli.peer import Proof
from waguard.cli.service import Service
from waguard.cli.wire import Wire
from waguard.config.sections import Config
from waguard.core.model import ClientCode
from waguard.core.shown import AllSessions, SandboxView
from waguard.errors import BrowserNotFound, ConfigError, DiskFull, NoDaemon, Unauthorized, WaguardError
from waguard.sandbox import User
from waguard.sandbox.bubblewrap import Bubblewrap
from waguard.snapshots import keys
from waguard.snapshots.keys import Keyring
from waguard.snapshots.seal import Sealer
from waguard.system import host

FULL = Path("/usr/lib/chromium/chromium")
NOBODY = User("nobody", 65534, 65534)


def config(**sections: dict[str, Any]) -> Config:
    return Config.model_validate(sections)


def browsers_run_as(user: User | None) -> Callable[[str, Path], User | None]:
    return lambda _name, _place: user


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WAGUARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


# --- as a whole ---------------------------------------------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, *seen: Seen) -> None:
    checks = [(f"check {number}", lambda _config, one=one: one) for number, one in enumerate(seen)]
    monkeypatch.setattr(doctor, "CHECKS", checks)
    monkeypatch.setattr(doctor, "MACHINE", [])
    monkeypatch.setattr(doctor, "SERVICE", [])


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False)


def test_on_this_machine_every_check_has_a_verdict() -> None:
    findings = doctor.examine(None)
    checks = [name for name, _ in (*doctor.MACHINE, *doctor.CHECKS, *doctor.SERVICE)]
    assert [finding.check for finding in findings] == ["config", *checks]
    for finding in findings:
        assert finding.seen
        assert "Traceback" not in finding.seen
        assert finding.grade is Grade.OK or finding.hint, f"{finding.check} does not say what to do"


def test_a_warning_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, Seen("fine"), Seen("hm", Grade.WARNING, "apt-get install hm"))
    result = call()
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["GRADE", "WHAT", "SEEN"],
        ["ok", "config", "defaults,", "there", "is", "no", "file"],
        ["ok", "check", "0", "fine"],
        ["warning", "check", "1", "hm", "->", "apt-get", "install", "hm"],
        ["2", "ok,", "1", "warning,", "0", "problem"],
    ]


def test_a_problem_is(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, Seen("broken", Grade.PROBLEM, "mend it"))
    assert call().exit_code == ExitCode.FOUND
    result = call("--json")
    assert result.exit_code == ExitCode.FOUND
    assert json.loads(result.stdout)[1] == {
        "check": "check 0",
        "grade": "problem",
        "seen": "broken",
        "hint": "mend it",
    }


def test_a_check_that_fails_is_a_problem_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_browser(_config: Config) -> Seen:
        raise BrowserNotFound("No browser found.", hint=find.INSTALL_HINT)

    def no_program(_config: Config) -> Seen:
        return Seen(str(Path("/nowhere").stat()))

    monkeypatch.setattr(doctor, "MACHINE", [])
    monkeypatch.setattr(doctor, "SERVICE", [])
    monkeypatch.setattr(doctor, "CHECKS", [("a", no_browser), ("b", no_program), ("c", machine.memory)])
    _, first, second, third = doctor.examine(None)
    assert (first.grade, first.seen, first.hint) == (Grade.PROBLEM, "No browser found.", find.INSTALL_HINT)
    assert (second.grade, third.grade) == (Grade.PROBLEM, Grade.OK)
    assert "/nowhere" in second.seen


def test_with_a_wrong_configuration_only_the_machine_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, Seen("of the defaults"))
    monkeypatch.setattr(doctor, "MACHINE", [("python", machine.python)])
    Path("config.toml").write_text("[api]\nport = -1\n")
    wrong, fine = doctor.examine(None)
    assert (wrong.grade, fine.grade, fine.check) == (Grade.PROBLEM, Grade.OK, "python")
    assert wrong.seen.startswith("config.toml:2: api.port: ")
    assert wrong.hint == "Fix what it names. Checks that depend on it were skipped."


def test_a_configuration_of_others_has_no_line_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_path: Path | None) -> NoReturn:
        raise ConfigError("/etc/waguard/config.toml: cannot be read: Permission denied.", hint="sudo")

    monkeypatch.setattr(doctor, "configured", closed)
    monkeypatch.setattr(doctor, "MACHINE", [])
    assert [finding.hint for finding in doctor.examine(None)] == [
        "sudo Checks that depend on it were skipped."
    ]


# --- one by one ---------------------------------------------------------------------------------------


def test_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.python().grade is Grade.OK
    monkeypatch.setattr(sys, "version_info", (3, 10, 9, "final", 0))
    assert machine.python().grade is Grade.PROBLEM


def test_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsers, "unprivileged_user", browsers_run_as(None))
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert browsers.user(Config()) == Seen(f"browsers run as {me}, like the daemon")
    monkeypatch.setattr(browsers, "unprivileged_user", browsers_run_as(NOBODY))
    seen = browsers.user(Config())
    assert (seen.grade, seen.hint.split()[0]) == (Grade.WARNING, "useradd")
    monkeypatch.setattr(browsers, "unprivileged_user", browsers_run_as(User("waguard", 999, 999)))
    assert browsers.user(Config()).grade is Grade.OK
    monkeypatch.setattr(browsers, "drop_privileges", lambda _user: ["/nowhere/setpriv"])
    assert browsers.user(Config()).hint == "apt-get install util-linux"


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsers, "unprivileged_user", browsers_run_as(None))
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    assert "4000000" in browsers.user(Config()).what


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses whom browsers run as")
def test_a_user_that_does_not_exist() -> None:
    with pytest.raises(ConfigError) as caught:
        browsers.user(config(browser={"user": "no-such-user"}))
    assert "useradd" in caught.value.hint


def _program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.browser
@pytest.mark.parametrize("binary", BINARIES, ids=lambda path: path.name)
@pytest.mark.parametrize("kind", ["bubblewrap", "plain"])
def test_a_browser_that_loads_a_page(binary: Path, kind: str) -> None:
    seen = browsers.browser(config(browser={"path": binary}, sandbox={"kind": kind}))
    assert seen.grade is Grade.OK
    assert seen.what.startswith(f"{binary}, ")
    assert f", loads a page in {kind}" in seen.what
    assert ("less than half the memory" in seen.what) is ("headless" not in binary.name)


@pytest.mark.browser
@pytest.mark.skipif(FULL not in BINARIES, reason="no full Chromium is installed")
def test_a_browser_that_starts_and_loads_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsers, "_TRIAL_S", 5.0)
    # Its network service dies at each start.
    for parent in (tmp_path, tmp_path.parent):
        parent.chmod(0o711)  # browsers run as somebody else
    broken = _program(tmp_path / "browser", f'exec {FULL} --disable-crashpad-for-testing "$@"')
    seen = browsers.browser(config(browser={"path": broken}, deadlines={"start": 5}))
    assert seen.grade is Grade.PROBLEM
    assert f"{broken}, " in seen.what
    assert "loads no page: " in seen.what  # for its navigation fails, or does not end, as it comes
    assert "Network service crashed or was terminated" in seen.what


def test_a_browser_that_does_not_start() -> None:
    posing = {"path": POSING, "extra_flags": ["--posing=dies-at-once"]}
    seen = browsers.browser(config(browser=posing))
    assert seen.grade is Grade.PROBLEM
    assert "loads no page: The browser ended before it answered." in seen.what
    assert "It reports: posing: cannot open the display of my dreams" in seen.what
    assert seen.hint


def test_no_browser(tmp_path: Path) -> None:
    with pytest.raises(BrowserNotFound) as caught:
        browsers.browser(config(browser={"path": tmp_path / "none"}))
    assert "apt-get install" in caught.value.hint


def test_bubblewrap_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bubblewrap, "find", staticmethod(lambda: None))
    seen = browsers.bubblewrap(Config())
    assert (seen.grade, seen.hint) == (Grade.WARNING, "Install it: apt-get install bubblewrap")
    assert "plain is used instead" in seen.what
    assert browsers.bubblewrap(config(sandbox={"kind": "bubblewrap"})).grade is Grade.PROBLEM
    assert browsers.bubblewrap(config(sandbox={"kind": "plain"})).grade is Grade.OK


def test_bubblewrap_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = _program(tmp_path / "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    monkeypatch.setattr(Bubblewrap, "find", staticmethod(lambda: broken))
    monkeypatch.setattr(browsers, "_SYSCTL", tmp_path)
    seen = browsers.bubblewrap(Config())
    assert seen.grade is Grade.WARNING
    assert "No permissions to create new namespace" in seen.what
    assert "container" in seen.hint


UNSHARE_FAILS = "unshare: unshare failed: Operation not permitted"


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("user/max_user_namespaces", "0", "echo user.max_user_namespaces=15000 > "),
        ("kernel/unprivileged_userns_clone", "0", "echo kernel.unprivileged_userns_clone=1 > "),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "echo kernel.apparmor_restrict_unprivileged_userns=0 > ",
        ),
        ("kernel/apparmor_restrict_unprivileged_userns", "0", "In a container: allow"),
    ],
)
def test_user_namespaces_that_are_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str, hint: str
) -> None:
    (tmp_path / key).parent.mkdir()
    (tmp_path / key).write_text(f"{value}\n")
    monkeypatch.setattr(browsers, "_SYSCTL", tmp_path)
    commands: list[Sequence[str]] = []

    def run(command: Sequence[str], **_options: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=1, stderr=f"{UNSHARE_FAILS}\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(browsers, "unprivileged_user", browsers_run_as(NOBODY))
    seen = browsers.user_namespaces(Config())
    assert (seen.grade, seen.what) == (Grade.PROBLEM, f"do not work unprivileged: {UNSHARE_FAILS}")
    assert seen.hint.startswith(hint)
    assert "--reuid=65534" in commands[0], "tried as the user that browsers run as"
    assert browsers.user_namespaces(config(browser={"chromium_sandbox": False})).grade is Grade.WARNING


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"reserve_memory_mb": 256, "session_memory_mb": 300}
    monkeypatch.setattr(host, "available_memory_mb", lambda: 556)
    assert machine.memory(config(limits=limits)) == Seen("556 MiB free, room for 1 sessions")
    monkeypatch.setattr(host, "available_memory_mb", lambda: 555)
    assert machine.memory(config(limits=limits)).grade is Grade.PROBLEM
    assert machine.memory(config(limits={**limits, "session_memory_mb": 0})).grade is Grade.OK


def test_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "free_disk_mb", lambda _path: 255)
    assert machine.disk(config(limits={"reserve_disk_mb": 255})).grade is Grade.OK
    seen = machine.disk(config(limits={"reserve_disk_mb": 256}))
    assert (seen.grade, seen.hint.split()[5]) == (Grade.PROBLEM, "du")


def test_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "a" / "sessions"
    wanted = config(sessions={"dir": root})
    assert storage.sessions(wanted) == Seen(f"{root} will be created")
    root.mkdir(parents=True)
    root.chmod(0o711)
    assert storage.sessions(wanted) == Seen(f"{root} can be written")
    root.chmod(0o777)
    assert storage.sessions(wanted).hint == f"chmod go-w {root}"
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    seen = storage.sessions(wanted)
    assert (seen.grade, seen.hint) == (
        Grade.WARNING,
        f"Run the daemon as its owner, or: chown -R 4000000 {root}",
    )
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert storage.sessions(wanted).grade is Grade.PROBLEM
    root.rmdir()
    root.write_text("a file")
    monkeypatch.undo()
    assert storage.sessions(wanted).grade is Grade.PROBLEM


def unit(**values: Any) -> Service:
    given = {"user": "nobody", "group": "nogroup", "state": "active", "environment": {}, "credentials": {}}
    return Service(**{**given, "kept_fds": 0, "listens": "", **values})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_sessions_are_their_services_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "sessions"
    wanted, service = config(sessions={"dir": root}), unit()
    record = root / "demo" / "session.json"
    record.parent.mkdir(parents=True)
    record.touch()
    hint = f"chown -R nobody:nogroup {root}"
    for path in (root, root / "demo", record):  # from the top down, as they are mended
        seen = storage.sessions(wanted, service)
        grade = Grade.PROBLEM if path == root else Grade.WARNING
        assert seen == Seen(f"{path} belongs to root, not to nobody", grade, hint)
        os.chown(path, NOBODY.uid, NOBODY.gid)
    assert storage.sessions(wanted, service) == Seen(f"{root} can be written")
    inside = root / ".profiles" / "generation" / "Default"  # the browser's business, and there is much of it
    inside.mkdir(parents=True)
    for path in (root / ".profiles", root / ".profiles" / "generation"):
        os.chown(path, NOBODY.uid, NOBODY.gid)
    assert storage.sessions(wanted, service).grade is Grade.OK
    # A daemon of root beside it has no more to say there.
    seen = storage.sessions(wanted)
    assert (seen.grade, seen.hint) == (
        Grade.WARNING,
        "Run the daemon as its owner: runuser -u nobody -- waguard run",
    )
    monkeypatch.setattr(storage, "_registry", lambda root: [root, root / "written.partial"])
    assert storage.sessions(wanted, service).grade is Grade.OK, "what has vanished is not missed"
    with pytest.raises(NoUser, match="no user no-such-user"):
        storage.sessions(wanted, unit(user="no-such-user"))


def test_keys_that_systemd_hands_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, file = config(sessions={"dir": tmp_path / "sessions"}), tmp_path / "keys"
    service = unit(credentials={keys.CREDENTIAL: file})
    seen = storage.snapshot_keys(wanted, service)
    assert (seen.grade, seen.what) == (
        Grade.PROBLEM,
        f"{file} is missing: the service, whose LoadCredential=waguard.keys names it, does not start",
    )
    assert seen.hint.startswith("Make it: (umask 077; openssl")
    sealed = tmp_path / "sessions" / ".backups" / "demo" / "one.wgb"
    sealed.parent.mkdir(parents=True)
    sealed.touch()
    seen = storage.snapshot_keys(wanted, service)
    assert seen.what.endswith("does not start and no snapshot that was taken so far can be opened")
    assert seen.hint == "Restore your copy of it"
    ring = keys.load(file, make=True)
    write_sealed(sealed, ring)
    seen = storage.snapshot_keys(wanted, service)
    assert seen == Seen(f"{file}: 1, snapshots are sealed with {ring.newest.id}")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "only root can read" in storage.snapshot_keys(wanted, service).what
    # Beside the sessions they are made at the first start, which this is not.
    seen = storage.snapshot_keys(wanted)
    assert (seen.grade, seen.hint) == (Grade.PROBLEM, "Restore your copy of it")
    assert "at the first start" not in seen.what


def test_a_port_that_systemd_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_ANSWER_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as kept:  # nobody answers
        number = kept.getsockname()[1]
        wanted, listens = config(api={"port": number}), f"127.0.0.1:{number} (Stream)"
        what = f"127.0.0.1:{number} is kept by systemd for the service, which is "
        for service, grade in (
            (unit(state="failed", kept_fds=1), Grade.WARNING),
            (unit(state="activating", kept_fds=7), Grade.WARNING),
            (unit(state="inactive", listens=listens), Grade.OK),
        ):
            seen = running.port(wanted, service)
            assert (seen.grade, seen.what) == (grade, what + service.state)
        for service in (unit(), unit(listens="127.0.0.1:1 (Stream)")):
            assert running.port(wanted, service).grade is Grade.PROBLEM
        monkeypatch.setattr(running, "_is_waguard", lambda *_: True)
        assert "answers" in running.port(wanted, unit(kept_fds=1)).what
        assert "kept" in running.port(wanted, unit(kept_fds=1, state="inactive")).what, "asked, it is started"


def write_sealed(path: Path, ring: Keyring) -> None:
    with path.open("wb") as file:
        sealer = Sealer(file, ring.newest, {})
        sealer.write(b"a login")
        sealer.finish()


def test_keys_that_open_no_snapshot(tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    place = sessions / ".backups" / "demo"
    place.mkdir(parents=True)
    wanted = config(sessions={"dir": sessions})
    of_others = keys.load(tmp_path / "others", make=True)
    ring = keys.load(sessions / ".backup.keys", make=True)
    write_sealed(place / "20260101.wgb", of_others)
    write_sealed(place / "20260102.wgb", ring)
    write_sealed(place / "20260103.refused.wgb", of_others)
    assert storage.snapshot_keys(wanted).grade is Grade.OK
    write_sealed(place / "20260104.wgb", of_others)
    seen = storage.snapshot_keys(wanted)
    assert seen.grade is Grade.PROBLEM
    assert (
        f"{place}/20260104.wgb cannot be opened: It was sealed with the key {of_others.newest.id}"
        in seen.what
    )
    assert seen.hint == "Put that key back, on a line of its own."


def test_snapshot_keys(tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    sessions.mkdir()
    beside = config(sessions={"dir": sessions})
    assert "made at the first start" in storage.snapshot_keys(beside).what
    keys.load(sessions / ".backup.keys", make=True)
    assert storage.snapshot_keys(beside).grade is Grade.OK
    sealed = config(sessions={"dir": sessions}, profile={"at_rest": "sealed"})
    assert storage.snapshot_keys(sealed).grade is Grade.WARNING
    with pytest.raises(ConfigError, match="there is no"):
        storage.snapshot_keys(config(snapshots={"key_file": tmp_path / "missing"}))


def test_port() -> None:
    assert running.port(config(api={"port": 0})).grade is Grade.OK
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        number = other.getsockname()[1]
        seen = running.port(config(api={"port": number}))
        assert (seen.grade, seen.what) == (
            Grade.PROBLEM,
            f"127.0.0.1:{number} is taken by another program",
        )
        assert f"ss -ltnp 'sport = :{number}'" in seen.hint
    assert running.port(config(api={"port": number})) == Seen(f"127.0.0.1:{number} is free")


def running_daemon(monkeypatch: pytest.MonkeyPatch, answer: SandboxView | WaguardError | None) -> None:
    class Running:
        def sessions(self) -> AllSessions:
            if isinstance(answer, WaguardError):
                raise answer
            return AllSessions([], sandbox=answer)

    @contextmanager
    def control(*_: object) -> Iterator[Running]:
        yield Running()

    monkeypatch.setattr(running, "control", control)


@pytest.mark.parametrize(
    ("answer", "grade", "what"),
    [
        (SandboxView("bubblewrap", ""), Grade.OK, "runs, with browsers in bubblewrap"),
        (SandboxView("plain", ""), Grade.OK, "runs, with browsers in plain"),
        (
            SandboxView("plain", "bubblewrap failed (exit code 1)."),
            Grade.WARNING,
            "runs, with browsers in plain instead of bubblewrap: bubblewrap failed (exit code 1).",
        ),
        (None, Grade.OK, "runs; only the admin is shown its sandbox"),
        (NoDaemon("No daemon answers."), Grade.OK, "No daemon answers."),
        (Unauthorized("Not known here.", hint="x"), Grade.WARNING, "Not known here."),
    ],
)
def test_daemon(
    monkeypatch: pytest.MonkeyPatch, answer: SandboxView | WaguardError | None, grade: Grade, what: str
) -> None:
    running_daemon(monkeypatch, answer)
    seen = running.daemon(Config())
    assert (seen.grade, seen.what) == (grade, what)
    assert ("a line of waguard.service" in running.daemon(Config(), unit()).hint) == ("instead" in what)


def test_a_daemon_that_is_down_is_not_started_by_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    running_daemon(monkeypatch, WaguardError("It was asked."))
    for state in ("inactive", "activating"):
        assert running.daemon(Config(), unit(state=state)) == Seen(f"waguard.service is {state}")
        assert running.alerts(Config(), unit(state=state)) == Seen("there is no daemon to ask")
    seen = running.daemon(Config(), unit(state="failed"))
    assert (seen.grade, seen.what) == (Grade.PROBLEM, "waguard.service has failed")
    seen = running.daemon(Config(), unit(state="activating", restarts=7))
    assert (seen.grade, seen.what) == (
        Grade.PROBLEM,
        "waguard.service keeps ending: systemd has restarted it 7 times",
    )
    assert "journalctl -u waguard" in seen.hint
    seen = running.daemon(Config(), unit(state="inactive", enabled=True))
    assert (seen.grade, seen.what) == (Grade.WARNING, "waguard.service is enabled, and down")
    by_its_socket = unit(state="inactive", enabled=True, listens="127.0.0.1:8717 (Stream)")
    assert running.daemon(Config(), by_its_socket).grade is Grade.OK


async def test_what_a_running_daemon_says_is_wrong(pose: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(config: Config, url: str) -> Seen:
        @contextmanager
        def control(*_: object) -> Iterator[Control]:
            proof = Proof(config, None, url, own=False, here=False)
            with Wire(url, json.loads(own)["admin"], proof, "") as wire:
                yield Control(wire, 10.0)

        monkeypatch.setattr(running, "control", control)
        return running.alerts(config)

    own = ""
    reserve = {"reserve_disk_mb": 10**9, "reserve_memory_mb": 0, "session_memory_mb": 0}
    async with pose(limits=reserve) as (supervisor, url):
        for _ in range(3):
            with pytest.raises(DiskFull):
                await supervisor.connect(ClientCode("demo"))
        assert await supervisor.refusals() == ["disk_full"]
        async with aiohttp.request("GET", f"{url}/readyz") as answer:
            assert (answer.status, await answer.json()) == (
                503,
                {"status": "not ready", "reasons": ["disk_full"]},
            )
        async with aiohttp.request("GET", f"{url}/livez") as answer:
            assert answer.status == 200
        config = supervisor._config
        own = await asyncio.to_thread((config.sessions.dir / ".tokens.json").read_text)
        seen = await asyncio.to_thread(ask, config, url)
        assert (seen.grade, seen.what.split(":")[0]) == (Grade.PROBLEM, "disk_full")
        monkeypatch.setattr(host, "free_disk_mb", lambda _path: 10**10)
        assert await supervisor.refusals() == []
        await supervisor.connect(ClientCode("demo"))
        async with asyncio.timeout(20):  # the history is written a little later
            while (seen := await asyncio.to_thread(ask, config, url)).what != (
                "none; of 4 connects of the last hour 3 had no success: disk_full 3"
            ):
                await asyncio.sleep(0.05)
        assert seen.grade is Grade.OK


def test_fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_FONTS", (tmp_path / "none", tmp_path))
    (tmp_path / "fonts.cache").touch()
    seen = machine.fonts()
    assert (seen.grade, seen.hint) == (Grade.WARNING, "apt-get install fonts-liberation")
    (tmp_path / "truetype").mkdir()
    (tmp_path / "truetype" / "Some.ttf").touch()
    assert machine.fonts().grade is Grade.OK


def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"mb": 64}
    monkeypatch.setattr(machine, "_SHM", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free["mb"] * host.MB))
    assert machine.shared_memory().grade is Grade.WARNING
    free["mb"] = 256
    assert machine.shared_memory().grade is Grade.OK
    monkeypatch.setattr(machine, "_SHM", tmp_path / "none")
    assert machine.shared_memory().grade is Grade.WARNING
