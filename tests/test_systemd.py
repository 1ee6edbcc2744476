"""What is told to a service manager, and what it hands over: on a real socket, without one behind it."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from waguard import systemd
from waguard.core.model import ClientCode
from waguard.events import Bus
from waguard.observe.status import StatusLine
from waguard.systemd import Manager


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
    assert not manager.tell("READY=1")
    assert not manager.keeps_fds
    assert manager.take(systemd.CONTROL) is None
    manager.keep({"a": 0})
    manager.drop("a")


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert not Manager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell("READY=1")


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


_TAKEN = """
import os, sys
from waguard.systemd import Manager, handing_over

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


def test_what_is_for_another_process_is_not_touched() -> None:
    assert not Manager({"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c"}).handed()


async def test_the_status_line_counts_sessions_by_state() -> None:
    said: list[str] = []
    told = asyncio.Event()

    def tell(line: str) -> None:
        said.append(line)
        told.set()

    bus, line = Bus(), StatusLine(tell)
    bus.subscribe(line.heard)
    publish: Callable[..., None] = bus.publish
    for code, status in (("a", "starting"), ("b", "connected"), ("a", "connected"), ("c", "awaiting_scan")):
        publish("session.changed", client=ClientCode(code), status=status)
    publish("daemon.ready", url="http://127.0.0.1:1")
    assert said == ["1 awaiting_scan, 2 connected; http://127.0.0.1:1"]  # one line for all of it
    told.clear()
    publish("session.changed", client=ClientCode("c"), status="syncing")
    publish("session.changed", client=ClientCode("c"), status="connected")
    async with asyncio.timeout(5):
        await told.wait()
    assert said[1:] == ["3 connected; http://127.0.0.1:1"]
    line.close()
