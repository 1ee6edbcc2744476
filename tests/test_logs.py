"""The log: one JSON object a line, or readable on a terminal; when it cannot be written the rest goes on."""

import asyncio
import errno
import io
import json
import logging
import os
import pty
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from waguard.config.sections import Log
from waguard.core.model import ClientCode
from waguard.observe import logs
from waguard.observe.bus import Bus, Event
from waguard.observe.patient import Patient

DEMO = ClientCode("demo")


pytestmark = pytest.mark.usefixtures("log_as_before")


def written(event: Event, **settings: Any) -> str:
    stream = io.StringIO()
    logs.configure(Log(**settings), stream)(event)
    return stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_json_object_a_line_where_nobody_reads() -> None:
    event = Event(
        "session.changed",
        "warning",
        DEMO,
        {"duration_ms": 1.5, "pids": [1, 2], "ü": "\n\u2028", "none": None},
    )
    line = written(event)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", found.pop("timestamp"))
    assert found == {
        "event": "session.changed",
        "level": "warning",
        "client": "demo",
        "duration_ms": 1.5,
        "pids": [1, 2],
        "ü": "\n\u2028",
        "none": None,
    }


def test_what_json_does_not_know_is_shown_somehow() -> None:
    found = json.loads(written(Event("x", fields={"path": Path("/a"), "set": {1}, "error": KeyError("k")})))
    assert "/a" in found["path"]
    assert "KeyError" in found["error"]


@pytest.mark.parametrize("key", ["event", "level", "client", "timestamp", "name"])
def test_no_field_can_take_the_place_of_an_event(key: str) -> None:
    found = json.loads(written(Event("real.name", "error", DEMO, {key: "forged"})))
    assert (found["event"], found["level"], found["client"]) == ("real.name", "error", "demo")


def test_a_readable_line_where_a_terminal_reads() -> None:
    stream = Terminal()
    logs.configure(Log(), stream)(Event("daemon.ready", client=DEMO, fields={"url": "http://127.0.0.1:1"}))
    line = stream.getvalue()
    plain = re.sub("\x1b\\[[0-9;]*m", "", line)
    assert plain != line, "in colour"
    assert "daemon.ready" in plain
    assert "client=demo" in plain
    assert "url=http://127.0.0.1:1" in plain
    with pytest.raises(ValueError):
        json.loads(plain)


def test_a_real_terminal_is_seen() -> None:
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w", encoding="utf-8") as stream:
        logs.configure(Log(), stream)(Event("daemon.ready"))
        line = os.read(controller, 4096)
    os.close(controller)
    assert b"daemon.ready" in line
    assert not line.startswith(b"{")


def test_the_form_can_be_demanded() -> None:
    assert "{" not in written(Event("x"), format="console")
    stream = Terminal()
    logs.configure(Log(format="json"), stream)(Event("x"))
    assert json.loads(stream.getvalue())["event"] == "x"
    assert "\x1b" not in written(Event("x"), format="console"), "no colours where no terminal is"


def test_less_than_the_level_is_not_written() -> None:
    shown = {
        level: [
            other
            for other in ("debug", "info", "warning", "error")
            if written(Event("x", other), level=level)
        ]
        for level in ("debug", "info", "warning", "error")
    }
    assert shown == {
        "debug": ["debug", "info", "warning", "error"],
        "info": ["info", "warning", "error"],
        "warning": ["warning", "error"],
        "error": ["error"],
    }


class Dead(io.StringIO):
    """Refuses every write."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, _text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        ValueError("I/O operation on closed file"),
    ],
)
def test_a_dead_stream_silences_only_the_log(error: Exception) -> None:
    stream = Dead(error)
    bus, heard = Bus(), []
    bus.subscribe(logs.configure(Log(), stream))
    bus.subscribe(lambda event: heard.append(event.name))
    bus.publish("daemon.stopping", browsers=1)
    bus.publish("internal.error", where="a test")
    logging.getLogger("asyncio").error("three")
    assert heard == ["daemon.stopping", "internal.error"]


@pytest.mark.parametrize("kill", ["close", "reader", "full"])
def test_a_real_stream_that_dies_silences_only_the_log(kill: str) -> None:
    read, write = os.pipe()
    stream: TextIO = os.fdopen(os.open("/dev/full", os.O_WRONLY) if kill == "full" else write, "w")
    writes = logs.configure(Log(), stream)
    if kill == "full":
        os.close(write)
    if kill == "close":
        stream.close()
    os.close(read)
    for _ in range(3):
        writes(Event("x", fields={"text": "y" * 10_000}))
    try:
        stream.close()
    except OSError:
        assert kill != "close"


def test_a_reader_that_stops_reading_holds_nobody_up_and_is_told_what_it_missed() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, Patient(stream, most=100) as slow, os.fdopen(read) as reader:
        writes = logs.configure(Log(), slow)
        for number in range(500):  # 100 wait, and some are in the pipe
            writes(Event("x", fields={"number": number, "text": "y" * 4096}))
        lines: list[dict[str, object]] = []
        while not lines or lines[-1]["event"] != "log.lost":
            lines.append(json.loads(reader.readline()))
            writes(Event("more"))
    numbers = [int(str(line["number"])) for line in lines if line["event"] == "x"]
    assert numbers == list(range(len(numbers))), "in order, without a gap"
    assert len(numbers) >= 100
    assert int(str(lines[-1]["lines"])) > 0


def test_a_reader_that_never_reads_is_not_waited_for_at_the_end() -> None:
    read, write = os.pipe()
    with os.fdopen(read):
        with os.fdopen(write, "w") as stream, Patient(stream, most=100, last_words_s=0.05) as writing:
            for _ in range(500):
                writing.write("y" * 4096 + "\n")
        assert stream.closed


def test_what_was_said_last_is_written_before_the_end() -> None:
    read, write = os.pipe()
    with os.fdopen(read) as reader:
        with os.fdopen(write, "w") as stream, Patient(stream) as slow:
            for number in range(100):
                slow.write(f"{number}\n")
        assert reader.read().split() == [str(number) for number in range(100)]


def test_text_that_has_no_encoding_is_no_end() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    writes = logs.configure(Log(format="console"), stream)
    writes(Event("x", fields={"text": "ünïcödé \ud800"}))
    writes(Event("plain"))
    stream.flush()
    assert b"plain" in stream.buffer.getvalue()


def test_what_libraries_say_has_the_same_form_and_quotes_no_request() -> None:
    stream = io.StringIO()
    logs.configure(Log(), io.StringIO())
    logs.configure(Log(), stream)  # twice: said once all the same
    logging.getLogger("asyncio").debug("not this")
    for name in ("aiohttp.server", "asyncio"):
        try:
            raise ValueError(f"Authorization: Bearer {'SECRET'.lower()}")
        except ValueError:
            logging.getLogger(name).exception("Error handling %s", "it")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["logger"], first["message"]) == (
        "library.log",
        "aiohttp.server",
        "Error handling it",
    )
    assert first["level"] == "error"
    assert first["error"] == "ValueError"
    assert "secret" not in json.dumps(first)
    assert "in test_what_libraries_say" in first["trace"], "where it was is no secret"
    assert "Traceback" in second["trace"]


async def test_a_task_nobody_looked_at_is_a_line_of_the_log() -> None:
    stream = io.StringIO()
    logs.configure(Log(), stream)
    loop = asyncio.get_running_loop()
    loop.call_exception_handler({"message": "Something odd", "exception": KeyError("k")})
    found = json.loads(stream.getvalue())
    assert found["event"] == "library.log"
    assert "Something odd" in found["message"]
    assert found["error"] == "KeyError('k')"


async def test_lines_of_one_request_carry_its_id() -> None:
    stream = io.StringIO()
    write: Callable[[Event], None] = logs.configure(Log(), stream)

    async def request(number: str) -> None:
        with structlog.contextvars.bound_contextvars(request=number):
            for _ in range(3):
                write(Event("step", fields={"n": number}))
                await asyncio.sleep(0)

    await asyncio.gather(*(request(str(n)) for n in range(4)))
    write(Event("outside"))
    *lines, last = (json.loads(line) for line in stream.getvalue().splitlines())
    assert len(lines) == 12
    assert all(line["request"] == line["n"] for line in lines)
    assert "request" not in last
