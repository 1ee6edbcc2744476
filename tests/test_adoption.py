"""Browsers outlive their daemon: the next one goes on with them as they are, and with what is not whole it does not."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bare_browser import BINARY
from conftest import POSING
from processes import stop
from service import Service

import waguard
from waguard.sandbox.identity import Identity, carriers
from waguard.simulator.server import Cadence, Simulator
from waguard.system import host

CODES = ("one", "two", "three")
PACKAGE = Path(waguard.__file__).parent


@pytest.fixture
async def posing(sessions_dir: Path) -> AsyncIterator[Service]:
    browser = {"path": str(POSING), "extra_flags": ["--posing=connected"]}
    async with Service(sessions_dir.parent, {"browser": browser, "probes": {"process_s": 0.2}}) as service:
        yield service


async def up(service: Service, *codes: str) -> None:
    """Up, and in the log: what a daemon has not written yet when it is killed is missing there."""
    await asyncio.gather(*(service.ask("POST", f"/v1/sessions/{code}/connect") for code in codes))
    for code in codes:
        await service.until(partial(service.events, "attempt.done", code), f"{code}'s attempt in the log")


async def connected(service: Service, *codes: str) -> bool:
    return all([(await service.view(code))["status"] == "connected" for code in codes])


async def browsers(service: Service, *codes: str) -> dict[str, list[int]]:
    return {code: (await service.view(code))["browser"]["pids"] for code in codes}


def processes(service: Service, *codes: str) -> dict[str, Any]:
    """The identities on record."""
    return {code: service.launch(code)["processes"] for code in codes}


async def die(service: Service, how: str) -> None:
    """End the daemon in a way that leaves the browsers, and start the next one."""
    if how == "reload":
        ready = len([text for text in service.told if "READY=1" in text])
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        await service.until(lambda: len([t for t in service.told if "READY=1" in t]) > ready, "ready again")
        return
    number = {"kill": signal.SIGKILL, "restart": signal.SIGUSR2}[how]
    await service.end(number)
    await service.start()


@pytest.mark.parametrize("how", ["kill", "restart", "reload"])
async def test_the_next_daemon_goes_on_with_what_is_up(posing: Service, how: str) -> None:
    await posing.start()
    await up(posing, *CODES)
    before = processes(posing, *CODES)
    assert len(posing.pipes) == 3 * len(CODES)
    for _ in range(2):  # what was adopted can be adopted again
        await die(posing, how)
        assert processes(posing, *CODES) == before
        await posing.until(lambda: connected(posing, *CODES), "connected")
    assert all(Identity(**one).current() for launch in before.values() for one in launch)
    assert {e["client"] for e in posing.events("session.adopted")} == set(CODES)
    assert len(posing.events("browser.spawned")) == len(CODES)
    # It is whole: it can be closed politely, and started again.
    assert (await posing.ask("POST", "/v1/sessions/one/disconnect"))["status"] == "stopped"
    assert len(posing.pipes) == 3 * (len(CODES) - 1)
    await up(posing, "one")
    assert not posing.events("browser.close_ignored")
    assert not posing.events("internal.error")


async def test_uploads_outlive_the_daemon_and_a_browser_of_a_version_before_them_takes_none(
    posing: Service,
) -> None:
    uploads = "/v1/sessions/one/uploads"
    await posing.start()
    await up(posing, "one")
    first = await posing.ask("POST", f"{uploads}?name=a", data=b"x")
    await die(posing, "restart")
    second = await posing.ask("POST", f"{uploads}?name=b", data=b"x")
    assert (await posing.ask("GET", uploads))["uploads"] == [first, second]
    await posing.end(signal.SIGUSR2)
    record = posing.sessions / "one" / "session.json"
    known = json.loads(record.read_text())
    del known["launch"]["uploads"], known["launch"]["downloads"]
    record.write_text(json.dumps(known))
    await posing.start()
    with pytest.raises(AssertionError, match=r"no_uploads.*POST /v1/sessions/one/restart"):
        await posing.ask("POST", f"{uploads}?name=c", data=b"x")
    await posing.ask("POST", "/v1/sessions/one/restart")
    third = await posing.ask("POST", f"{uploads}?name=c", data=b"x")
    assert (await posing.ask("GET", uploads))["uploads"] == [first, second, third]
    assert len(posing.events("browser.spawned")) == 2
    assert not posing.events("internal.error")


async def test_logins_that_were_not_saved_before_are_saved_by_the_next_daemon(posing: Service) -> None:
    browser = {"path": str(POSING), "extra_flags": ["--posing=connected"]}
    posing.configure(browser=browser, snapshots={"settle_s": 3600})  # longer than the first one lives
    await posing.start()
    await up(posing, *CODES)
    await posing.until(lambda: connected(posing, *CODES), "connected")
    posing.configure(browser=browser, snapshots={"settle_s": 0.1})
    await die(posing, "kill")
    await posing.until(lambda: len(posing.events("snapshot.taken")) == len(CODES), "saved")
    assert {(one["client"], one["reason"]) for one in posing.events("snapshot.taken")} == {
        (code, "settled") for code in CODES
    }
    assert len(posing.events("browser.spawned")) == len(CODES)


@pytest.mark.parametrize("how", ["restart", "reload"])
async def test_whose_record_cannot_be_read_is_left_alone_until_it_can(posing: Service, how: str) -> None:
    await posing.start()
    await up(posing, "one", "two")
    before = processes(posing, "one", "two")
    record = posing.sessions / "one" / "session.json"
    await posing.end(signal.SIGKILL)
    record.rename(record.with_suffix(".away"))
    record.symlink_to(record)  # to read it is an error (ELOOP), as it is of a disk that fails
    await posing.start()
    await posing.until(lambda: posing.events("registry.unavailable", "one"), "told")
    await posing.ask("POST", "/v1/reap")
    for verb in ("connect", "cleanup", "disconnect"):
        with pytest.raises(AssertionError, match="Cannot read"):
            await posing.ask("POST", f"/v1/sessions/one/{verb}")
    assert len(posing.pipes) == 6
    record.with_suffix(".away").rename(record)
    await die(posing, how)
    await posing.until(lambda: connected(posing, "one", "two"), "connected")
    assert processes(posing, "one", "two") == before


async def test_snapshots_that_cannot_be_read_cost_no_browser(posing: Service, tmp_path: Path) -> None:
    broken = changed(
        tmp_path,
        "snapshots/store.py",
        "        found = []\n",
        "        raise StorageFailed('Input/output error')\n",
    )
    store = broken / "waguard" / "snapshots" / "store.py"
    store.write_text("from waguard.errors import StorageFailed\n" + store.read_text())
    await posing.start()
    await up(posing, *CODES)
    await posing.until(lambda: connected(posing, *CODES), "connected")
    before = processes(posing, *CODES)
    await posing.end(signal.SIGKILL)
    await posing.start(broken)
    await posing.until(lambda: connected(posing, *CODES), "connected")
    assert processes(posing, *CODES) == before


@pytest.mark.parametrize("wrong", [0.0, 4e9])
async def test_the_age_of_a_browser_that_was_adopted_is_that_of_its_processes(
    posing: Service, wrong: float
) -> None:
    """Whatever the clock said when an earlier daemon started it."""
    await posing.start()
    await up(posing, "one")
    await posing.end(signal.SIGKILL)
    path = posing.sessions / "one" / "session.json"
    record = json.loads(path.read_bytes())
    record["launch"]["started_at"] = wrong
    path.write_text(json.dumps(record))
    await posing.start()
    await posing.until(lambda: connected(posing, "one"), "connected")
    (began, *_) = (one["start_ticks"] * host.TICKS_S for one in record["launch"]["processes"])
    up_for_s = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    started_at = (await posing.view("one"))["browser"]["started_at"]
    assert time.time() - started_at == pytest.approx(up_for_s, abs=10)


@pytest.mark.parametrize("adopted", [False, True])
async def test_no_older_browser_uses_the_profile_of_one_that_was_adopted(
    posing: Service, adopted: bool
) -> None:
    browser = posing.place / "chromium-posing"
    posing.configure(browser={"path": str(browser), "extra_flags": ["--posing=connected"]})

    def install(version: str) -> None:
        new = browser.with_suffix(".new")
        new.write_text(POSING.read_text().replace("Chromium 156.", f"Chromium {version}."))
        new.chmod(0o755)
        new.rename(browser)

    install("156")
    await posing.start()
    await up(posing, "one")
    install("155")
    if adopted:
        await die(posing, "restart")
        await posing.until(lambda: connected(posing, "one"), "connected")
    await posing.ask("POST", "/v1/sessions/one/disconnect")
    with pytest.raises(AssertionError, match="profile_too_new"):
        await up(posing, "one")


async def test_a_stop_ends_what_was_adopted_and_keeps_nothing(posing: Service) -> None:
    await posing.start()
    await up(posing, *CODES)
    tokens = [posing.launch(code)["token"] for code in CODES]
    await die(posing, "kill")
    assert await posing.end(signal.SIGTERM) == 0
    assert not posing.pipes
    assert not [one for token in tokens for one in carriers(token)]
    assert not posing.events("browser.close_ignored")
    await posing.start()  # they come back, since nobody has asked for less
    await posing.until(lambda: connected(posing, *CODES), "back")
    assert len(posing.events("browser.spawned")) == 2 * len(CODES)


async def test_without_a_store_a_restart_is_a_stop(posing: Service) -> None:
    posing.stores = 0
    await posing.start()
    await up(posing, "one")
    token = posing.launch("one")["token"]
    assert await posing.end(signal.SIGUSR2) == 0
    assert not carriers(token)


async def test_what_is_not_whole_is_ended_and_started_again_and_nothing_else(posing: Service) -> None:
    """A pipe lost, a browser dead, one hung, a record torn, another boot's record, pipes of nobody."""
    codes = ("whole", "lost", "dead", "hung", "torn", "other")
    await posing.start()
    await up(posing, *codes)
    before = processes(posing, *codes)
    launches = {code: posing.launch(code) for code in codes}
    await posing.end(signal.SIGKILL)

    os.close(posing.kept.pop(f"{launches['lost']['token']}.a"))
    os.kill(before["dead"][0]["pid"], signal.SIGKILL)
    stop(below(before["hung"][0]["pid"]))
    (posing.sessions / "torn" / "session.json").write_text('{"wanted": "up", "laun')
    record = posing.sessions / "other" / "session.json"
    told = json.loads(record.read_text())
    for one in told["launch"]["processes"]:
        one["start_ticks"] += 1  # somebody else has these pids now
    record.write_text(json.dumps(told))
    read, write = os.pipe()
    os.close(write)
    posing.kept["nobody.0123.answer"] = read

    await posing.start()
    await posing.until(lambda: connected(posing, *codes), "connected")
    adopted = {event["client"] for event in posing.events("session.adopted")}
    assert adopted == {"whole", "hung"}
    after = processes(posing, *codes)
    assert {code for code in codes if after[code] == before[code]} == {"whole", "hung"}
    await posing.until(lambda: posing.events("health.recovered", "hung"), "cured")
    assert [event["remedy"] for event in posing.events("health.recovered", "hung")] == ["continue"]
    assert not carriers(launches["torn"]["token"])
    # Whoever has the pids of `other` is no launch of ours as far as the record tells; the sweep finds it by its lock.
    await posing.until(lambda: not carriers(launches["other"]["token"]), "the one that no record knows")
    assert "nobody.0123.answer" not in posing.kept
    assert len(posing.pipes) == 3 * len(codes)


def below(pid: int) -> list[int]:
    return [row.pid for row in host.descendants(pid, host.process_table())]


async def test_what_was_to_be_down_is_closed_politely_by_the_next_one(posing: Service) -> None:
    await posing.start()
    await up(posing, "one")
    token = posing.launch("one")["token"]
    await posing.end(signal.SIGKILL)
    record = posing.sessions / "one" / "session.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"wanted": "down"}))
    await posing.start()
    await posing.until(lambda: not carriers(token), "gone")
    assert not posing.events("browser.close_ignored")
    assert (await posing.view("one"))["status"] == "stopped"
    await posing.until(lambda: not posing.pipes, "its pipes too")


async def test_a_reload_that_could_not_start_changes_nothing(posing: Service) -> None:
    await posing.start()
    await up(posing, "one")
    good = (posing.place / "config.toml").read_text()
    (posing.place / "config.toml").write_text(good + "\n[nonsense]\nx = 1\n")
    assert posing.process is not None
    posing.process.send_signal(signal.SIGHUP)
    await posing.until(lambda: posing.events("daemon.reload_failed"), "told")
    assert "nonsense" in posing.events("daemon.reload_failed")[0]["error"]
    assert await connected(posing, "one")
    (posing.place / "config.toml").write_text(good)
    await die(posing, "reload")
    await posing.until(lambda: connected(posing, "one"), "connected")


@pytest.fixture
async def movable(
    sessions_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Service, dict[str, Any], Path]]:
    """A service whose programs can be broken: what its configuration begins with, and where they are."""
    programs = tmp_path / "programs"
    programs.mkdir()
    programs.chmod(0o755)
    shutil.copy(POSING, programs / POSING.name)
    (programs / "bwrap").write_text('#!/bin/sh\nexec /usr/bin/bwrap "$@"\n')
    (programs / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    settings = {
        "browser": {"path": str(programs / POSING.name), "extra_flags": ["--posing=connected"]},
        "sandbox": {"kind": "bubblewrap"},
    }
    async with Service(sessions_dir.parent, settings) as service:
        yield service, settings, programs


@pytest.mark.parametrize("what", ["port", "browser", "sandbox", "sessions"])
async def test_a_reload_whose_start_would_fail_changes_nothing(
    movable: tuple[Service, dict[str, Any], Path], what: str
) -> None:
    service, settings, programs = movable
    await service.start()
    await up(service, "one")
    before = processes(service, "one")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = {
            "port": f"Port {port} on 127.0.0.1 cannot be opened: Address already in use.",
            "browser": f"{programs / POSING.name} --version does not tell a version.",
            "sandbox": "sandbox.kind is bubblewrap, but:",
            "sessions": "sessions.dir: Cannot use /dev/null/sessions: this user may make nothing in /dev/null.",
        }[what]
        if what == "port":
            service.configure(**settings, api={"port": port})
        elif what == "sessions":
            service.configure(**settings, sessions={"dir": "/dev/null/sessions"})
        else:
            program = programs / ("bwrap" if what == "sandbox" else POSING.name)
            program.write_text("#!/bin/sh\nexit 127\n")
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        await service.until(lambda: service.events("daemon.reload_failed"), "told")
    assert told in service.events("daemon.reload_failed")[0]["error"]
    assert processes(service, "one") == before
    assert await connected(service, "one")


@pytest.mark.parametrize("how", ["gone", "broken"])
async def test_browsers_outlive_the_program_they_are_made_of(
    movable: tuple[Service, dict[str, Any], Path], how: str
) -> None:
    """The next daemon goes on with them, starts none, and looks again by itself."""
    service, _, programs = movable
    await service.start()
    await up(service, "one", "two")
    before = processes(service, "one", "two")
    await service.end(signal.SIGKILL)
    os.kill(before["two"][0]["pid"], signal.SIGKILL)
    program = programs / POSING.name
    program.rename(programs / "away")
    if how == "broken":
        program.write_text("#!/bin/sh\nexit 127\n")
        program.chmod(0o755)
    await service.start()
    await service.until(lambda: connected(service, "one"), "connected")
    assert processes(service, "one")["one"] == before["one"]
    (raised,) = service.events("alert.raised")
    assert raised["alert"] == "breaker_open"
    assert str(program) in raised["text"]
    (programs / "away").rename(program)
    await service.until(lambda: connected(service, "one", "two"), "both, by itself")
    await service.until(lambda: bool(service.events("alert.cleared")), "the breaker closed")
    assert [event["alert"] for event in service.events("alert.cleared")] == ["breaker_open"]
    assert len(service.events("browser.spawned", "one")) == 1


@pytest.mark.parametrize("how", ["start", "reload"])
async def test_the_watchdog_hears_of_a_start_that_takes_its_time(
    movable: tuple[Service, dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "500000")  # twice a turn of the loop
    service, _, programs = movable
    if how == "reload":
        await service.start()
        service.told.clear()
    (programs / POSING.name).write_text("#!/bin/sh\nsleep 1\necho Chromium 156.0.0.0\n")
    if how == "reload":
        await die(service, "reload")
        del service.told[: service.told.index(next(one for one in service.told if "RELOADING=1" in one))]
    else:
        await service.start()
    ready = service.told.index(next(one for one in service.told if "READY=1" in one))
    assert service.told[:ready].count("WATCHDOG=1") >= 4


@pytest.mark.parametrize("stores", [512, 0])
async def test_a_stop_during_the_trial_of_a_reload_is_a_stop(posing: Service, stores: int) -> None:
    """Also of a browser that would not notice that its pipes are closed."""
    posing.stores = stores
    await posing.start()
    await up(posing, "one")
    token = posing.launch("one")["token"]
    stop(below(processes(posing, "one")["one"][0]["pid"]))
    assert posing.process is not None
    posing.process.send_signal(signal.SIGHUP)
    await posing.until(lambda: trials(posing), "the trial")
    assert await posing.end(signal.SIGTERM) == 0
    assert not carriers(token)
    assert not posing.pipes
    assert [event["browsers"] for event in posing.events("daemon.stopping")] == ["closed"]


def trials(service: Service) -> list[int]:
    """Who is trying just now whether the daemon could start anew."""
    assert service.process is not None
    return [row.pid for row in host.process_table() if row.ppid == service.process.pid and is_trial(row.pid)]


def is_trial(pid: int) -> bool:
    try:
        return b"--check" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize(
    "moment",
    [
        '        bus.publish("daemon.stopped")\n',  # it has arrived, and the loop does not turn any more
        "    for _ in range(_TURNS):\n        await asyncio.sleep(0)\n",  # the loop has turned; threads are idle
    ],
)
async def test_a_stop_at_the_last_moment_is_the_next_ones(
    posing: Service, tmp_path: Path, moment: str
) -> None:
    """It adopts what is up, and closes it politely."""
    space = " " * (len(moment) - len(moment.lstrip()))
    stopped = f"{moment}{space}os.kill(os.getpid(), signal.SIGTERM)\n"
    await posing.start(changed(tmp_path, "daemon.py", moment, stopped))
    await up(posing, "one")
    token = posing.launch("one")["token"]
    assert await posing.end(signal.SIGHUP) == 0
    assert [event["browsers"] for event in posing.events("daemon.stopping")] == ["left", "closed"]
    assert posing.events("session.adopted", "one")
    assert not carriers(token)
    assert not posing.pipes
    assert not posing.events("browser.close_ignored")


def changed(place: Path, name: str = "__init__.py", old: str = "", new: str = "") -> Path:
    """Another build, whose file of this name has ``new`` in the place of ``old``."""
    build = place / "build"
    shutil.copytree(PACKAGE, build / "waguard")
    text = (build / "waguard" / name).read_text()
    assert old in text
    (build / "waguard" / name).write_text(text.replace(old, new))
    return build


@pytest.mark.parametrize("how", ["kill", "reload"])
async def test_the_next_version_adopts_and_so_does_the_one_before(
    posing: Service, tmp_path: Path, how: str
) -> None:
    build = changed(tmp_path)
    start = build / "waguard" / "__init__.py"
    await posing.start(build)
    await up(posing, *CODES)
    before = processes(posing, *CODES)
    start.write_text(re.sub(r'__version__ = ".*"', '__version__ = "99.0.0"', start.read_text()))
    if how == "reload":
        await die(posing, how)
    else:
        await posing.end(signal.SIGKILL)
        await posing.start(build)
    # The log is written by a thread: it may come after READY=1.
    await posing.until(lambda: len(posing.events("daemon.ready")) == 2, "both are ready")
    versions = [event["version"] for event in posing.events("daemon.ready")]
    assert versions == [waguard.__version__, "99.0.0"]
    await posing.until(lambda: connected(posing, *CODES), "connected")
    await posing.end(signal.SIGUSR2)
    await posing.start()  # back
    await posing.until(lambda: connected(posing, *CODES), "connected")
    assert processes(posing, *CODES) == before


async def test_a_browser_that_there_is_no_room_to_keep_is_closed_at_a_restart(posing: Service) -> None:
    posing.stores = 4  # one browser and the control port
    await posing.start()
    for code in CODES:
        await up(posing, code)
    assert len(posing.kept) == 4
    await posing.until(lambda: posing.events("daemon.store_full"), "told")
    before = processes(posing, *CODES)
    await die(posing, "reload")  # needs no store
    await posing.until(lambda: connected(posing, *CODES), "connected")
    assert processes(posing, *CODES) == before
    tokens = [posing.launch(code)["token"] for code in CODES]
    await posing.end(signal.SIGUSR2)
    assert [bool(carriers(token)) for token in tokens] == [True, False, False]
    assert not posing.events("browser.close_ignored")
    assert len(posing.events("daemon.store_full")) == 2  # each daemon says it once
    await posing.start()
    await posing.until(lambda: connected(posing, *CODES), "connected")
    assert processes(posing, "one")["one"] == before["one"]


async def test_no_request_is_refused_while_there_is_no_daemon(posing: Service) -> None:
    await posing.start()
    await up(posing, "one")
    await posing.end(signal.SIGKILL)
    waiting = asyncio.create_task(posing.view("one"))
    await posing.start()
    assert (await waiting)["client"] == "one"


async def test_a_port_that_the_configuration_has_moved_is_opened_where_it_is_now(posing: Service) -> None:
    await posing.start()
    await up(posing, "one")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    old, posing.url = posing.url, f"http://127.0.0.1:{port}"
    config = posing.place / "config.toml"
    config.write_text(config.read_text().replace(f"port = {posing.port}", f"port = {port}"))
    await die(posing, "restart")
    await posing.until(lambda: connected(posing, "one"), "connected")
    assert [event["level"] for event in posing.events("daemon.port_moved")] == ["warning"]
    with pytest.raises(aiohttp.ClientConnectorError):
        async with aiohttp.request("GET", f"{old}/livez"):
            pass


# --- Chromium -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(cadence=Cadence(sync_s=0.1)) as simulator:
        yield simulator


@pytest.fixture
async def real(sessions_dir: Path, simulator: Simulator) -> AsyncIterator[Service]:
    if BINARY is None:
        pytest.skip("no Chromium is installed")
    settings = {
        "whatsapp": {"url": simulator.url},
        "probes": {"process_s": 0.2, "browser_s": 0.2, "network_s": 0.5, "answer_s": 0.5},
    }
    async with Service(sessions_dir.parent, settings) as service:
        yield service


async def test_chromium_and_its_page_go_on(real: Service, simulator: Simulator) -> None:
    await real.start()
    await up(real, *CODES)
    for code in CODES:
        simulator.scan((await real.view(code))["qr"]["text"], "34600000000")
    await real.until(lambda: connected(real, *CODES), "connected")
    before, loads = processes(real, *CODES), simulator.loads
    tabs = [device.tab for device in simulator.devices]
    for how in ("kill", "reload"):  # the others, of a real systemd: tests/test_service.py
        await die(real, how)
        await real.until(lambda: connected(real, *CODES), f"connected after {how}")
    assert processes(real, *CODES) == before
    assert [device.tab for device in simulator.devices] == tabs
    assert simulator.loads == loads
    assert not real.events("health.finding")
    # A renderer that dies while nobody listens.
    await real.end(signal.SIGKILL)
    for pid in renderers(before["one"][0]["pid"]):
        os.kill(pid, signal.SIGKILL)
    await real.start()
    await real.until(lambda: real.events("health.recovered", "one"), "cured")
    cured = [(event["fault"], event["remedy"]) for event in real.events("health.recovered")]
    assert cured == [("page_crashed", "reload")]
    await real.until(lambda: connected(real, *CODES), "connected")
    assert processes(real, *CODES) == before
    assert len(simulator.devices) == len(CODES)  # nobody has had to scan


async def test_a_page_that_was_sent_nowhere_yet_is_opened_by_the_next_daemon(
    real: Service, simulator: Simulator
) -> None:
    """As if the first one had died right before it."""
    await real.start()
    await up(real, "one")
    before, loads = processes(real, "one"), simulator.loads
    await real.end(signal.SIGKILL)
    launch = real.launch("one")
    blank = {
        "id": 5,
        "method": "Page.navigate",
        "params": {"url": "about:blank"},
        "sessionId": launch["page"],
    }
    os.write(real.kept[f"{launch['token']}.c"], json.dumps(blank).encode() + b"\0")
    await real.until(lambda: not simulator._tabs, "it has left")
    await real.start()
    await real.until(lambda: len(real.events("session.qr_shown")) == 2, "open again")
    assert (processes(real, "one"), simulator.loads) == (before, loads + 1)
    assert not real.events("health.finding")


def wipe(profile: Path) -> None:
    """Another directory in the place of the login's database, as Chromium makes it while the page goes on."""
    database = next((profile / "Default" / "IndexedDB").glob("*.leveldb"))
    shutil.copytree(database, away := database.with_suffix(".old"))
    shutil.rmtree(database)
    shutil.copytree(away, database, copy_function=shutil.copy)
    for path in (database, *database.iterdir()):
        os.chown(path, profile.stat().st_uid, profile.stat().st_gid)


async def test_a_login_that_was_wiped_is_not_handed_over(real: Service, simulator: Simulator) -> None:
    """The next daemon could not tell the new database from the one that had the login."""
    await real.start()
    await up(real, "one")
    simulator.scan((await real.view("one"))["qr"]["text"], "34600000000")
    await real.until(lambda: real.events("snapshot.taken"), "saved")
    wipe((real.sessions / "one" / "profile").resolve())
    await real.end(signal.SIGUSR2)
    await real.start()
    await real.until(lambda: real.events("profile.restored"), "restored")
    await real.until(lambda: connected(real, "one"), "connected")
    assert not real.events("session.adopted")
    assert "has been wiped" in real.events("profile.damaged")[0]["evidence"][0]


@pytest.mark.parametrize("daemons", [1, 2])
async def test_a_login_that_was_wiped_between_two_daemons_is_not_taken_for_a_good_one(
    real: Service, simulator: Simulator, daemons: int
) -> None:
    await real.start()
    await up(real, "one")
    simulator.scan((await real.view("one"))["qr"]["text"], "34600000000")
    await real.until(lambda: real.events("snapshot.taken"), "saved")
    await real.end(signal.SIGKILL)
    wipe((real.sessions / "one" / "profile").resolve())
    await real.start()
    await real.until(lambda: connected(real, "one"), "connected: the page goes on")
    for _ in range(1, daemons):  # what one has not got to see, the next one does
        await die(real, "kill")
        await real.until(lambda: connected(real, "one"), "connected")
    with pytest.raises(AssertionError, match="has been wiped"):
        await real.ask("POST", "/v1/sessions/one/snapshots")
    await real.ask("POST", "/v1/sessions/one/restart")
    await real.until(lambda: real.events("profile.restored"), "restored")
    await real.until(lambda: connected(real, "one"), "connected")
    assert len(real.events("session.adopted")) == daemons
    assert "has been wiped" in real.events("profile.damaged")[0]["evidence"][0]


async def test_the_next_daemon_knows_what_became_of_a_login(real: Service, simulator: Simulator) -> None:
    async def scan(shown: int) -> None:
        await real.until(lambda: len(real.events("session.qr_shown")) >= shown, "a code")
        simulator.scan((await real.view("one"))["qr"]["text"], "34600000000")
        await real.until(lambda: connected(real, "one"), "connected")

    await real.start()
    await up(real, "one")
    await scan(1)
    await real.until(lambda: len(real.events("snapshot.taken")) == 1, "the snapshot of the first login")
    before = processes(real, "one")
    await real.end(signal.SIGKILL)
    await simulator.log_out(simulator.devices[0].wid)
    await real.start()
    # There is a snapshot that it could be restored from, and that would be of no use.
    await real.until(lambda: len(real.events("session.qr_shown")) > 1, "logged out, and nothing else")
    assert not [real.events(name) for name in ("login.lost", "login.doubted") if real.events(name)]
    assert processes(real, "one") == before

    place = real.sessions / ".backups" / "one"
    place.rename(place.with_name("away"))
    place.touch()  # no snapshot can be made
    await scan(2)
    await real.until(lambda: real.events("snapshot.failed"), "no snapshot of the second login")
    await real.end(signal.SIGKILL)
    place.unlink()
    place.with_name("away").rename(place)
    await real.start()
    await real.until(lambda: len(real.events("snapshot.taken")) == 2, "the snapshot of the second login")
    assert processes(real, "one") == before

    def record() -> Any:
        return json.loads((real.sessions / "one" / "session.json").read_bytes())

    await real.until(lambda: not record()["unsaved"], "that it is saved is on record")
    await die(real, "kill")
    await real.until(lambda: connected(real, "one"), "connected")
    assert (record()["login"], record()["launch"]["accepted"]) == (True, True)
    assert len(real.events("snapshot.taken")) == 2


@pytest.mark.parametrize("strips", ["at_once", "navigates"])
async def test_a_logout_that_nobody_saw_is_told_by_the_next_daemon(
    real: Service, simulator: Simulator, strips: str
) -> None:
    await real.start()
    await up(real, "one")
    await real.until(lambda: real.events("session.qr_shown"), "a code")
    simulator.scan((await real.view("one"))["qr"]["text"], "34600000000")
    await real.until(lambda: real.events("snapshot.taken"), "connected, and a snapshot")
    before = processes(real, "one")
    await real.end(signal.SIGKILL)
    await simulator.inject("strips_post_logout", strips)
    await simulator.log_out(simulator.devices[0].wid)
    await real.until(lambda: any(tab.qr for tab in simulator._tabs), "it is logged out, and shows a code")
    await real.start()
    await real.until(lambda: len(real.events("session.qr_shown")) == 2, "the new code")
    assert (await real.view("one"))["reason"] == "logged_out"
    assert not real.events("login.lost")
    assert processes(real, "one") == before


def renderers(init: int) -> list[int]:
    """The page's, and the spare ones that Chromium keeps where it is not the headless-shell."""
    return [pid for pid in below(init) if b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()]
