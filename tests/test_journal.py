"""The log as entries of systemd's journal: on a real socket, read by a parser of the protocol that has nothing to do with ours."""

import array
import contextlib
import fcntl
import io
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from waguard.config.sections import Log
from waguard.core.model import ClientCode
from waguard.observe import journal, logs
from waguard.observe.bus import Event
from waguard.observe.journal import Journal
from waguard.observe.patient import Patient

DEMO = ClientCode("demo")
ALL_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


pytestmark = pytest.mark.usefixtures("log_as_before")


def parse(data: bytes) -> dict[str, bytes]:
    """One entry: ``NAME=value`` lines, or a name, 8 bytes of length, and the value."""
    found: dict[str, bytes] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest.startswith(b"\n")
            rest = rest[1:]
        assert name.decode().replace("_", "A").isalnum()
        assert name.decode().isupper()
        assert name.decode() not in found
        found[name.decode()] = value
        data = rest
    return found


class Journald:
    """The other end. It can go away, come back, and stop reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = 0
        """Entries that came as a file."""
        self.come()

    def come(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(10)
        self._socket.bind(str(self.path))

    def go(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def next(self) -> dict[str, bytes]:
        data, control, _flags, _address = self._socket.recvmsg(1_000_000, socket.CMSG_SPACE(4))
        for _level, kind, content in control:
            assert kind == socket.SCM_RIGHTS
            assert not data, "the fd and nothing else"
            (fd,) = array.array("i", content)
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == ALL_SEALS
            with os.fdopen(fd, "rb") as file:
                file.seek(0)
                data = file.read()
            self.files += 1
        return parse(data)

    def until(self, enough: Callable[[dict[str, bytes]], bool]) -> list[dict[str, bytes]]:
        found = [self.next()]
        while not enough(found[-1]):
            found.append(self.next())
        return found


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    found = Journald(tmp_path / "socket")
    yield found
    found.go()


@pytest.fixture
def stderr(tmp_path: Path) -> Iterator[io.TextIOWrapper]:
    with (tmp_path / "stderr").open("a", encoding="utf-8") as stream:
        yield stream


def said(stream: io.TextIOWrapper) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(stream.name).read_text(encoding="utf-8").splitlines()]


@contextlib.contextmanager
def writing(
    journald: Journald,
    stderr: io.TextIOWrapper,
    most: int = 10_000,
    last_words_s: float = 2.0,
    **settings: Any,
) -> Iterator[Callable[[Event], None]]:
    outlet = Journal(stderr, journald.path)
    with Patient(stderr, most, outlet, last_words_s) as stream:
        yield logs.configure(Log(**settings), stream, entries=True)


def test_an_event_is_one_entry_that_is_found_by_its_fields(
    journald: Journald, stderr: io.TextIOWrapper
) -> None:
    fields = {"attempt": "a1b2", "status": "connected", "pids": [1, 2], "why": "it said so", "none": None}
    with writing(journald, stderr) as write, structlog.contextvars.bound_contextvars(request="r1"):
        write(Event("session.changed", "warning", DEMO, fields))
    found = journald.next()
    whole = json.loads(found.pop("WAGUARD_FIELDS"))
    assert whole.pop("timestamp")
    assert whole == fields | {
        "event": "session.changed",
        "level": "warning",
        "client": "demo",
        "request": "r1",
    }
    message = found.pop("MESSAGE").decode()
    assert message.startswith("demo: session.changed ")
    assert set(message.split(" ", 2)[2].replace('"it said so"', "x").split()) >= {
        "attempt=a1b2",
        "status=connected",
        "why=x",
    }
    assert found == {
        "PRIORITY": b"4",
        "SYSLOG_IDENTIFIER": b"waguard",
        "WAGUARD_CLIENT": b"demo",
        "WAGUARD_EVENT": b"session.changed",
        "WAGUARD_ATTEMPT": b"a1b2",
        "WAGUARD_REQUEST": b"r1",
    }
    assert not said(stderr)


def test_levels_are_priorities_and_less_than_the_level_is_not_sent(
    journald: Journald, stderr: io.TextIOWrapper
) -> None:
    with writing(journald, stderr, level="debug") as write:
        write(Event("a", "debug"))
        write(Event("b", "info"))
        write(Event("c", "error"))
    assert [journald.next()["PRIORITY"] for _ in range(3)] == [b"7", b"6", b"3"]
    with writing(journald, stderr, level="error") as write:
        write(Event("d", "warning"))
        write(Event("e", "error"))
    assert journald.next()["WAGUARD_EVENT"] == b"e"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a\nPRIORITY=0\nb\n",
        "=",
        "ünï\u2028cödé",
        "\ud800",
        "\x00\x1b[31m",
        "a=b c\n\n\x00",
        "x" * 3000,
    ],
)
def test_whatever_a_value_is_it_is_only_a_value(
    journald: Journald, stderr: io.TextIOWrapper, text: str
) -> None:
    with writing(journald, stderr) as write:
        write(Event("x", fields={"attempt": text, "text": text, "PRIORITY": text, "event": text}))
    found = journald.next()
    assert found["WAGUARD_ATTEMPT"] == text.encode("utf-8", "backslashreplace")
    assert (found["PRIORITY"], found["WAGUARD_EVENT"]) == (b"6", b"x")
    whole = json.loads(found["WAGUARD_FIELDS"])
    assert whole["text"] == (text if text != "\ud800" else "\\ud800") or whole["text"] == text
    assert b"\x1b" not in found["MESSAGE"]
    assert b"\x00" not in found["MESSAGE"]


def test_a_trace_is_shown_line_by_line(journald: Journald, stderr: io.TextIOWrapper) -> None:
    with writing(journald, stderr):
        try:
            raise ValueError("odd")
        except ValueError:
            logging.getLogger("asyncio").exception("It failed")
    first, *rest = journald.next()["MESSAGE"].decode().splitlines()
    assert first.startswith("library.log ")
    assert "Traceback (most recent call last):" in rest


def test_what_is_too_large_for_a_datagram_goes_as_a_sealed_file(
    journald: Journald, stderr: io.TextIOWrapper
) -> None:
    with writing(journald, stderr) as write:
        for size in (100, 150_000, 3_000_000):
            write(Event("x", fields={"text": "y" * size}))
            assert len(json.loads(journald.next()["WAGUARD_FIELDS"])["text"]) == size
    assert journald.files >= 1


def test_a_journal_that_restarts_loses_nothing_and_holds_nobody_up(
    journald: Journald, stderr: io.TextIOWrapper
) -> None:
    with writing(journald, stderr) as write:
        for number in range(10):
            write(Event("x", fields={"n": number}))
        journald.until(lambda entry: json.loads(entry["WAGUARD_FIELDS"]).get("n") == 9)
        for _ in range(2):
            journald.go()
            began = time.monotonic()
            for number in range(10, 1000):
                write(Event("x", fields={"n": number}))
            assert time.monotonic() - began < 1
            _until(lambda: said(stderr))
            journald.come()
            back, *found = journald.until(lambda entry: json.loads(entry["WAGUARD_FIELDS"]).get("n") == 999)
            assert back["WAGUARD_EVENT"] == b"log.journal_back"
            assert [json.loads(entry["WAGUARD_FIELDS"])["n"] for entry in found] == list(range(10, 1000))
            (told,) = said(stderr)
            assert told["event"] == "log.journal_away"
            assert str(journald.path) in told["error"]
            stderr.truncate(0)


def _until(true: Callable[[], object]) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_a_journal_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed(
    journald: Journald, stderr: io.TextIOWrapper
) -> None:
    with writing(journald, stderr, most=100, last_words_s=0.1) as write:
        began = time.monotonic()
        for number in range(3000):  # 100 wait, and some are in the socket
            write(Event("x", fields={"n": number}))
        assert time.monotonic() - began < 5
        journald.next()
        # The place that was made is taken by whoever says that some are missing.
        found: list[dict[str, bytes]] = []
        while not found or found[-1]["WAGUARD_EVENT"] != b"log.lost":
            write(Event("more"))
            found.append(journald.next())
        numbers = [json.loads(one["WAGUARD_FIELDS"])["n"] for one in found if one["WAGUARD_EVENT"] == b"x"]
        assert numbers == list(range(1, len(numbers) + 1)), "in order, without a gap"
        assert json.loads(found[-1]["WAGUARD_FIELDS"])["lines"] > 0
        assert not said(stderr)


@pytest.mark.parametrize("away", [True, False])
def test_a_journal_that_never_reads_is_not_waited_for_at_the_end(
    journald: Journald, stderr: io.TextIOWrapper, away: bool
) -> None:
    if away:
        journald.go()
    began = time.monotonic()
    with writing(journald, stderr, most=100, last_words_s=0.2) as write:
        for _ in range(3000):
            write(Event("x"))
    assert time.monotonic() - began < 10
    assert [told["event"] for told in said(stderr)] == (["log.journal_away"] if away else [])
    assert not any(thread.name == "log" for thread in threading.enumerate()), "and nothing is left"


def test_the_journal_is_seen_by_device_and_inode(
    journald: Journald, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SOCKET", journald.path)
    monkeypatch.setattr(Journal.__init__, "__defaults__", (journald.path,))
    ours, theirs = socket.socketpair()
    with theirs, os.fdopen(ours.detach(), "w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        named = f"{status.st_dev}:{status.st_ino}"
        assert journal.is_journal(stream, {"JOURNAL_STREAM": named})
        assert not journal.is_journal(other, {"JOURNAL_STREAM": named})
        for wrong in ("", ":", "1", "x:y", f"{named}0"):
            assert not journal.is_journal(stream, {"JOURNAL_STREAM": wrong})
        monkeypatch.setenv("JOURNAL_STREAM", named)
        with logs.opened(Log(), stream) as write:
            write(Event("by.itself"))
        assert journald.next()["WAGUARD_EVENT"] == b"by.itself"
        with logs.opened(Log(format="json"), stream) as write:
            write(Event("as.demanded"))
        assert json.loads(theirs.recv(4096))["event"] == "as.demanded"
        with logs.opened(Log(format="journal"), other) as write:
            write(Event("as.demanded"))
        assert journald.next()["WAGUARD_EVENT"] == b"as.demanded"


_PRIVATE = """
import json, os, socket, subprocess, sys, time
from pathlib import Path

run = Path("/run")
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(run)], check=True)
settings = run / "systemd/journald.conf.d"
settings.mkdir(parents=True)
(settings / "test.conf").write_text("[Journal]\\nStorage=volatile\\nAudit=no\\nReadKMsg=no\\nRateLimitBurst=0\\n")
(run / "systemd/journal").mkdir()
journal = run / "systemd/journal/socket"
kept = run / "log/journal" / Path("/etc/machine-id").read_text().strip()
kept.mkdir(parents=True)

def begin():
    process = subprocess.Popen(["/lib/systemd/systemd-journald"])
    until(journal.is_socket, "it has a socket")
    return process

def until(true, what):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)

def found(*matches):
    done = subprocess.run(["journalctl", "-o", "json", "--all", *matches], capture_output=True, text=True, timeout=20)
    return [json.loads(line) for line in done.stdout.splitlines()]

journald = begin()
try:
    stderr = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stderr.connect(str(run / "systemd/journal/stdout"))
    stderr.sendall(b"waguard\\n\\n6\\n1\\n0\\n0\\n0\\n")
    os.dup2(stderr.fileno(), 2)
    status = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    from waguard.config.sections import Log
    from waguard.observe.bus import Event
    from waguard.observe import logs
    with logs.opened(Log()) as write:
        for number in range(100):
            write(Event("session.changed", client=sys.argv[1], fields={"n": number}))
        until(lambda: len(found("WAGUARD_EVENT=session.changed")) == 100, "all are there")
        journald.kill()
        journald.wait()
        journal.unlink()
        for number in range(100, 400):
            write(Event("session.changed", client=sys.argv[1], fields={"n": number}))
        write(Event("session.large", "error", sys.argv[1], {"text": "y" * 1_000_000}))
        write(Event("session.changed", "info", "other", {}))
        journald = begin()
        until(lambda: found("WAGUARD_CLIENT=other"), "the last one is there")
    changed = found(f"WAGUARD_CLIENT={sys.argv[1]}", "WAGUARD_EVENT=session.changed")
    assert [json.loads(one["WAGUARD_FIELDS"])["n"] for one in changed] == list(range(400))
    (large,) = found("WAGUARD_EVENT=session.large")
    assert len(json.loads(large["WAGUARD_FIELDS"])["text"]) == 1_000_000
    assert large["PRIORITY"] == "3"
    (back,) = found("WAGUARD_EVENT=log.journal_back")
    print("all of it")
except BaseException as error:
    print(repr(error))
finally:
    journald.kill()
    journald.wait()
"""
"""In a mount namespace of its own: a journal that nobody else knows of."""


def test_a_journal_of_our_own_has_all_of_it_and_loses_nothing_over_its_restart() -> None:
    if os.geteuid() != 0 or not Path("/lib/systemd/systemd-journald").exists() or not shutil.which("unshare"):
        pytest.skip("this needs root, systemd-journald and unshare")
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", _PRIVATE, "demo"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90, env=environment)
    if "mount" in done.stderr and not done.stdout:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.stdout == "all of it\n", done.stderr


def test_a_real_journal_finds_it_by_client_and_event(stderr: io.TextIOWrapper) -> None:
    if not journal.SOCKET.is_socket() or shutil.which("journalctl") is None:
        pytest.skip("there is no systemd-journald here")
    code, mark = ClientCode(f"t{secrets.token_hex(6)}"), "y" * 300_000
    with logs.opened(Log(format="journal"), stderr) as write:
        write(Event("session.changed", client=code, fields={"text": "a\nPRIORITY=0\n", "status": "up"}))
        write(Event("session.other", client=code))
        write(Event("session.large", client=code, fields={"text": mark}))

    def found(*matches: str) -> list[dict[str, Any]]:
        command = ["journalctl", "-o", "json", "--all", f"WAGUARD_CLIENT={code}", *matches]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
        return [json.loads(line) for line in done.stdout.splitlines()]

    _until(lambda: len(found()) == 3)
    (changed,) = found("WAGUARD_EVENT=session.changed")
    assert changed["MESSAGE"].startswith(f"{code}: session.changed ")
    assert (changed["PRIORITY"], changed["SYSLOG_IDENTIFIER"]) == ("6", "waguard")
    (large,) = found("WAGUARD_EVENT=session.large")
    assert json.loads(large["WAGUARD_FIELDS"])["text"] == mark
