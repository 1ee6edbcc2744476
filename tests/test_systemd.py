"""What is told to a service manager, and what it hands over: on a real socket, without one behind it."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import POSING, Journal

from waguard import daemon
from waguard.browser.launch import PROXY
from waguard.config.sections import Config
from waguard.core.model import Alert, ClientCode, Status
from waguard.observe.alerts import Alerts
from waguard.observe.bus import Bus, Event
from waguard.observe.status import StatusLine
from waguard.sandbox.reaper import LaunchRecord
from waguard.session.pipes import pipe_names
from waguard.system import systemd
from waguard.system.systemd import Manager


class Ear:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(self.address)

    def heard(self) -> list[tuple[str, list[int]]]:
        """What has been told since: text and fds; whoever asks owns the fds."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, fds, _flags, _address = socket.recv_fds(self._socket, 4096, 16)
                found.append((data.decode(), list(fds)))
        return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(tmp_path / "notify")
    yield ear
    ear.close()


def test_without_a_manager_nothing_is_told_or_kept() -> None:
    manager = Manager({})
    manager.tell("READY=1")
    assert not manager.keeps_fds
    assert manager.take(systemd.CONTROL) is None
    manager.keep({"a": 0})
    assert not manager.pass_on({"a": 0})
    manager.drop("a")


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    manager = Manager({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "FDSTORE": "16"})
    manager.tell("READY=1")
    manager.keep({"one": 0})
    assert not manager.pass_on({"one": 0})


def test_alive_is_told_four_times_as_often_as_asked_for(ear: Ear) -> None:
    manager = Manager({"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "20000000"})
    assert manager.watchdog_s == 20.0
    for now in range(100, 121):
        manager.alive(float(now))
    assert [text for text, _ in ear.heard()] == ["WATCHDOG=1"] * 5


@pytest.mark.parametrize("given", [{"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}, {}])
def test_a_watchdog_that_is_not_for_us_is_told_nothing(ear: Ear, given: dict[str, str]) -> None:
    manager = Manager({"NOTIFY_SOCKET": ear.address} | given)
    manager.alive(1000.0)
    assert not ear.heard()


@pytest.mark.parametrize("stores", ["16", "0", ""])
def test_fds_are_kept_under_their_names_where_there_is_a_store(ear: Ear, stores: str) -> None:
    manager = Manager({"NOTIFY_SOCKET": ear.address, "FDSTORE": stores})
    read, write = os.pipe()
    try:
        manager.keep({"demo.t.answer": read})
        manager.drop("demo.t.answer")
        heard = ear.heard()
        assert [text for text, _ in heard] == (
            ["FDSTORE=1\nFDNAME=demo.t.answer\nFDPOLL=0", "FDSTOREREMOVE=1\nFDNAME=demo.t.answer"]
            if stores == "16"
            else []
        )
        for _, fds in heard:
            for fd in fds:
                assert os.fstat(fd).st_ino == os.fstat(read).st_ino
                os.close(fd)
    finally:
        os.close(read)
        os.close(write)


@pytest.fixture
def readable() -> Iterator[int]:
    read, write = os.pipe()
    yield read
    os.close(read)
    os.close(write)


def texts(heard: list[tuple[str, list[int]]]) -> list[str]:
    """What was told, in short and without the fds, which are closed."""
    for _, fds in heard:
        for fd in fds:
            os.close(fd)
    return [text.replace("1\nFDNAME=", " ").removesuffix("\nFDPOLL=0") for text, _ in heard]


def occupy(ear: Ear) -> None:
    """Tell it things until its socket takes no more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
                other.connect(ear.address)  # each has a buffer of its own, too
                other.send(b"STATUS=busy")


def test_what_a_busy_manager_must_hear_is_told_later_in_order(ear: Ear, readable: int) -> None:
    manager = Manager({"NOTIFY_SOCKET": ear.address, "FDSTORE": "16", "WATCHDOG_USEC": "4"})
    manager.keep({"old": readable})
    assert texts(ear.heard()) == ["FDSTORE= old"]
    occupy(ear)
    manager.drop("old")
    manager.keep({"new": readable, "brief": readable})
    manager.drop("brief")  # it was never kept
    manager.tell("READY=1")
    manager.tell("STATUS=well", again=False)
    assert not manager.pass_on({"new": readable})  # the next daemon would not get it
    assert set(texts(ear.heard())) == {"STATUS=busy"}
    manager.alive(1.0)
    assert texts(ear.heard()) == ["FDSTOREREMOVE= old", "FDSTORE= new", "READY=1", "WATCHDOG=1"]
    assert manager.pass_on({"new": readable})
    assert not manager.pass_on({"old": readable})
    manager.alive(2.0)
    assert texts(ear.heard()) == ["WATCHDOG=1"]


def test_only_what_there_is_room_for_is_kept_and_that_is_said_once(ear: Ear, readable: int) -> None:
    said: list[str] = []
    environment = {"NOTIFY_SOCKET": ear.address, "FDSTORE": "5"}
    manager = Manager(environment, lambda name, **_fields: said.append(name))
    one, two, three = ({f"{code}.{pipe}": readable for pipe in "ac"} for code in ("one", "two", "three"))
    for fds in (one, two, three, three):
        manager.keep(fds)
    assert texts(ear.heard()) == [f"FDSTORE= {name}" for name in [*one, *two]]
    assert [manager.pass_on(fds) for fds in (one, two, three)] == [True, True, False]
    assert said == ["daemon.store_full"]
    for name in one:
        manager.drop(name)
    manager.keep(three)
    assert manager.pass_on(three)
    texts(ear.heard())


def test_the_default_limit_of_browsers_fits_twice_whatever_their_codes() -> None:
    launch = LaunchRecord("0123456789abcdef", "bubblewrap", "", 0.0)
    names = [
        name
        for number in range(2 * Config().limits.max_sessions)
        for pipe, name in pipe_names(ClientCode(str(number).zfill(64)), launch).items()
        if pipe != PROXY
    ]
    assert systemd._fit(names)


_MANY = """
import os, resource, sys
from waguard.system.systemd import Manager, handing_over

most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
manager = Manager({})
manager.in_place = True
count = 0
while manager.pass_on({f"{count:0250}": 0}):
    count += 1
told = "import os; print(os.environ['LISTEN_FDS'])"
os.execve(sys.executable, [sys.executable, "-c", told], os.environ | handing_over(manager.inherited_fds()))
"""


def test_what_is_handed_over_at_most_can_be_executed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MANY], check=False, capture_output=True, text=True, timeout=20
    )
    assert int(done.stdout) == systemd.NAMES_BYTES // 252, done.stderr


_TAKEN = """
import os, sys
from waguard.system.systemd import Manager, handing_over

if len(sys.argv) > 1:
    a, b = os.pipe()
    c, d = os.pipe()
    os.write(b, b"first"); os.write(d, b"second")
    environment = {**os.environ, **handing_over({"two": c, "one": a})}
    os.execve(sys.executable, [sys.executable, "-c", sys.argv[1]], environment)
manager = Manager()
assert manager.handed() == ["one", "two"], manager.handed()
one, two = manager.take("one"), manager.take("two")
assert not os.get_inheritable(one)
print(os.read(one, 9), os.read(two, 9), manager.take("one"), manager.handed())
"""


def test_what_is_handed_over_in_place_is_found_under_its_name() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN_")}
    done = subprocess.run(
        [sys.executable, "-c", _TAKEN, _TAKEN],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.stdout == "b'first' b'second' None []\n", done.stderr


@pytest.mark.parametrize("stores", [5, 0])
def test_handed_over_in_place_it_is_known_what_is_kept(ear: Ear, readable: int, stores: int) -> None:
    """So that the one that comes has it kept, and does not count on it before."""
    environment = {"NOTIFY_SOCKET": ear.address, "FDSTORE": str(stores)}
    manager = Manager(environment)
    manager.in_place = True
    manager.keep({"kept": readable})
    occupy(ear)
    manager.keep({"late": readable})
    assert manager.pass_on({"kept": readable, "late": readable})
    texts(ear.heard())
    inherited_fds = manager.inherited_fds()
    manager.drop("late")
    code = _INHERITED.format(names=list(inherited_fds), environment=environment)
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=20
    )
    assert done.stdout == "['kept', 'late']\n", done.stderr
    assert texts(ear.heard()) == (["FDSTORE= late"] if stores else [])
    for fd in inherited_fds.values():
        os.close(fd)


_INHERITED = """
import os
from waguard.system.systemd import Manager, handing_over

environment = {environment} | handing_over(dict.fromkeys({names}, 0))
manager = Manager(environment)
print(manager.handed())
manager.keep({{name: manager.take(name) for name in manager.handed()}})
"""


def test_what_is_for_another_process_is_not_touched() -> None:
    assert not Manager({"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c"}).handed()


async def test_sessions_of_before_the_start_are_counted_too(
    ear: Ear, sessions_dir: Path, journal: Journal
) -> None:
    """One that rests, and one that comes back; what is dropped is counted no more."""
    for code, wanted in (("rests", "down"), ("returns", "up")):
        (sessions_dir / code).mkdir(parents=True)
        (sessions_dir / code / "session.json").write_text(json.dumps({"wanted": wanted}))
    config = Config.model_validate(
        {
            "limits": dict.fromkeys(
                ("reserve_memory_mb", "session_memory_mb", "reserve_disk_mb", "memory_pressure"), 0
            ),
            "sessions": {"dir": sessions_dir},
            "api": {"port": 0},
            "browser": {"path": POSING, "extra_flags": ["--posing=connected"]},
        }
    )

    async def until_said(line: str) -> None:
        said: list[str] = []
        async with asyncio.timeout(20):
            while not any(line in text for text in said):
                said += [text for text, _ in ear.heard() if text.startswith("STATUS=")]
                await asyncio.sleep(0.01)

    async with daemon.running(config, journal.bus, Manager({"NOTIFY_SOCKET": ear.address})) as (
        supervisor,
        _,
    ):
        await until_said("STATUS=1 stopped, 1 connected; http")
        await supervisor.cleanup(ClientCode("rests"))
        journal.bus.publish("request.done", level="debug")
        await until_said("STATUS=1 connected; http")


async def test_the_status_line_counts_sessions_by_state() -> None:
    said: list[str] = []
    told = asyncio.Event()

    def tell(line: str) -> bool:
        said.append(line)
        told.set()
        return True

    known: dict[str, Status] = {}
    alerts = Alerts(lambda *_, **__: None)
    bus, line = Bus(), StatusLine(tell, lambda: [*known.values()], alerts.raised)
    bus.subscribe(line.heard)
    publish: Callable[..., None] = bus.publish

    def changed(code: str, status: Status) -> None:
        known[code] = status
        publish("session.changed", client=ClientCode(code), status=status.value)

    for code, status in (("a", "starting"), ("b", "connected"), ("a", "connected"), ("c", "awaiting_scan")):
        changed(code, Status(status))
    publish("daemon.ready", url="http://127.0.0.1:1")
    assert said == ["1 awaiting_scan, 2 connected; http://127.0.0.1:1"]  # one line for all of it
    told.clear()
    changed("c", Status.SYNCING)
    changed("c", Status.CONNECTED)
    async with asyncio.timeout(5):
        await told.wait()
    assert said[1:] == ["3 connected; http://127.0.0.1:1"]
    told.clear()
    alerts.set(Alert.DISK_FULL, "Only 1 MiB of disk")
    alerts.set(Alert.SESSION_FAILED, "it rests", ClientCode("a"))
    publish("alert.raised", level="error", alert="disk_full", text="Only 1 MiB of disk")
    async with asyncio.timeout(5):
        await told.wait()
    assert said[2:] == ["3 connected; http://127.0.0.1:1; disk_full: Only 1 MiB of disk"]
    told.clear()
    alerts.set(Alert.DISK_FULL, "")
    publish("alert.cleared", alert="disk_full")
    async with asyncio.timeout(5):
        await told.wait()
    assert said[3:] == ["3 connected; http://127.0.0.1:1"]
    told.clear()
    publish("session.changed", client=ClientCode("a"), status="connected")
    known["d"] = Status.STOPPED  # as one that rests since before the start, of which no event tells
    known.pop("b")  # nor is one that was forgotten
    async with asyncio.timeout(5):
        await told.wait()
    assert said[4:] == ["1 stopped, 2 connected; http://127.0.0.1:1"]
    line.close()


async def test_the_status_line_is_told_again_until_a_busy_manager_takes_it(ear: Ear) -> None:
    occupy(ear)
    manager, said = Manager({"NOTIFY_SOCKET": ear.address}), asyncio.Queue[bool]()

    def tell(line: str) -> bool:
        said.put_nowait(heard := manager.tell(f"STATUS={line}", again=False))
        return heard

    line = StatusLine(tell, lambda: [Status.CONNECTED], list)
    line.heard(Event("daemon.ready", fields={"url": "http://127.0.0.1:1"}))
    async with asyncio.timeout(5):
        assert [await said.get(), await said.get()] == [False, False]
        ear.heard()
        while not await said.get():
            pass
    assert [text for text, _ in ear.heard()] == ["STATUS=1 connected; http://127.0.0.1:1"]
    line.close()
