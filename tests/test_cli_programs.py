"""The command as a program: exit codes, signals, terminals, and a walk through a real daemon whose browser poses."""

import codecs
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import segno
from commands import ADMIN, Port, always
from conftest import POSING, decoded
from programs import address, call, end, running
from rich.console import Console
from rich.text import Text
from views import CONNECTED, SCAN, blocks

from waguard.api import qr
from waguard.cli import follow
from waguard.cli.tokens import ENV_TOKEN
from waguard.core.shown import QrView

CODE = "2@" + "Ab+/" * 22 + "," + ",".join(["c29tZXRoaW5nIG9mIDMyIGJ5dGVzIGluIGJhc2U2NDo="] * 3) + ",1"
"""As long as WhatsApp's."""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What the programs see: no configuration, no token, no size of a terminal but the test's."""
    ours = ("WAGUARD_", "INVOCATION_ID", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return {**kept, "WAGUARD_CONFIG": os.devnull, "WAGUARD_SESSIONS__DIR": str(tmp_path / "sessions")}


# --- exit codes and streams -----------------------------------------------------------------------------


def test_a_wrong_configuration_ends_run_in_a_way_that_systemd_understands(environ: dict[str, str]) -> None:
    environ["WAGUARD_API__PORT"] = "many"
    assert call(environ, "run")[0] == 2
    code, _, said = call(environ | {"INVOCATION_ID": "0" * 32}, "run")
    assert code == 78
    assert said.startswith("WAGUARD_API__PORT: api.port: ")


def test_what_a_person_has_to_mend_is_not_tried_again_and_what_else_there_is_is(
    environ: dict[str, str],
) -> None:
    environ["INVOCATION_ID"] = "0" * 32
    with Port() as taken:
        environ["WAGUARD_API__PORT"] = taken.url.rpartition(":")[2]
        code, _, said = call(environ, "run")
    assert (code, json.loads(said)["code"]) == (1, "already_running")
    environ["WAGUARD_BROWSER__PATH"] = "/usr/bin/true"  # as in the middle of an upgrade
    assert call(environ, "run")[0] == 1
    environ["WAGUARD_BROWSER__PATH"] = "/nowhere/chromium"
    code, _, said = call(environ, "run")
    assert code == 78
    told = json.loads(said)
    assert (told["event"], told["level"], told["code"]) == ("daemon.failed", "error", "browser_not_found")
    assert "there is no file /nowhere/chromium." in told["error"]


@pytest.mark.parametrize("arguments", [("status",), ("config", "show"), ("token",), ("--help",)])
def test_a_reader_that_is_gone_is_no_accident(environ: dict[str, str], arguments: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        with Port() as port:
            port.handlers["GET /v1/sessions"] = always({"sessions": []})
            environ |= {ENV_TOKEN: ADMIN, "WAGUARD_API__ADMIN_TOKEN": ADMIN}
            environ["WAGUARD_API__PORT"] = port.url.rpartition(":")[2]
            assert call(environ, *arguments, stdout=write)[0] != 0
    finally:
        os.close(write)


def test_a_terminal_that_has_no_blocks_is_no_accident(environ: dict[str, str]) -> None:
    with Port() as port:
        port.bring_up([SCAN])
        environ |= {ENV_TOKEN: ADMIN, "PYTHONIOENCODING": "ascii"}
        code, said, _ = call(environ, "connect", "demo", "--url", port.url)
    assert code == 0
    assert "\\u2588" in said


# --- the simulator ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_simulate_serves_until_it_is_told_to_stop(environ: dict[str, str], number: signal.Signals) -> None:
    with running(environ, "simulate", "--port", "0", "--quick") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"{url}phone/devices", timeout=10) as devices:
            assert json.load(devices) == {"devices": []}
        said = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        assert f"WAGUARD_WHATSAPP__URL={url} waguard run" in said
        assert f"{url}phone/scan" in said
        port = url.rstrip("/").rpartition(":")[2]
        code, _, refused = call(environ, "simulate", "--port", port)
        assert code == 1
        assert "[already_running]\nChoose another one with --port.\n" in refused
        assert end(process, number) == (0, "")


# --- on a terminal ----------------------------------------------------------------------------------------


class Terminal:
    """The other end of a terminal."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end in the middle of a letter
        self.said = ""
        self.shown = ""
        """What `until` has gone over."""
        self.resize(45, 110)

    def resize(self, lines: int, columns: int) -> None:
        termios.tcsetwinsize(self.slave, (lines, columns))

    def until(self, text: str) -> str:
        """What was shown up to and with ``text``."""
        while text not in self.said:
            self._read()
        shown, _, self.said = self.said.partition(text)
        self.shown += shown + text
        return shown + text

    def left(self, process: subprocess.Popen[str], number: signal.Signals) -> int:
        """Send the signal, and read on until the program has ended: a terminal that is full would hold it up."""
        process.send_signal(number)
        deadline = time.monotonic() + 30
        while process.poll() is None:
            assert time.monotonic() < deadline
            if select.select([self.master], [], [], 0.05)[0]:
                self._read()
        return process.returncode

    def rest(self) -> str:
        """What was shown until the program ended; ours is then the last copy of the slave."""
        fcntl.fcntl(self.master, fcntl.F_SETFL, os.O_NONBLOCK)
        try:
            while True:
                self._read()
        except BlockingIOError:
            return self.said

    def _read(self) -> None:
        self.said += self._decoder.decode(os.read(self.master, 65536))

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@contextmanager
def connecting(environ: Mapping[str, str], port: Port, terminal: Terminal) -> Iterator[subprocess.Popen[str]]:
    environ = {**environ, ENV_TOKEN: ADMIN, "TERM": "xterm-256color"}
    arguments = ("connect", "demo", "--url", port.url)
    with running(environ, *arguments, stdout=terminal.slave, stderr=terminal.slave) as process:
        yield process


HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
PAPER = "\x1b[38;5;16;48;5;231m"


def test_on_a_terminal_the_code_is_shown_and_taken_away_again(
    environ: dict[str, str], terminal: Terminal
) -> None:
    with Port() as port:
        port.bring_up([SCAN, SCAN, CONNECTED])
        with connecting(environ, port, terminal) as process:
            terminal.until("\x1b[32mconnected")
            assert process.wait(30) == 0
            shown = terminal.shown + terminal.rest()
    post = next(request for request in port.requests if request.method == "POST")
    assert post.query["wait"] == "connected"
    before, _, after = shown.partition("\x1b[32mconnected")
    assert "awaiting_scan" in before
    assert PAPER in before
    assert PAPER not in after
    assert shown.count(HIDE) == shown.count(SHOW) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_on_a_terminal_it_can_be_left_at_any_time(
    environ: dict[str, str], terminal: Terminal, number: signal.Signals
) -> None:
    with Port() as port:
        port.bring_up([SCAN], ends=False)
        with connecting(environ, port, terminal) as process:
            terminal.until(PAPER)
            code = terminal.left(process, number)
            shown = terminal.rest()
    assert code == 130
    assert SHOW in shown
    assert "Traceback" not in shown
    assert "demo goes on in the background. See: waguard status demo" in shown


def test_a_window_that_is_too_small_is_told_and_may_grow(environ: dict[str, str], terminal: Terminal) -> None:
    terminal.resize(3, 110)
    with Port() as port:
        port.bring_up([SCAN], ends=False)
        with connecting(environ, port, terminal) as process:
            terminal.until("Make it larger")
            terminal.resize(45, 110)
            terminal.until(PAPER)
            terminal.left(process, signal.SIGINT)


@pytest.mark.parametrize("runtime", [True, False])
def test_in_80x24_the_code_is_a_picture_in_a_file_that_goes_with_the_command(
    environ: dict[str, str], terminal: Terminal, in_memory: Path, *, runtime: bool
) -> None:
    terminal.resize(24, 80)
    place = str(in_memory)
    environ |= {"XDG_RUNTIME_DIR": place} if runtime else {"XDG_RUNTIME_DIR": "/nowhere", "TMPDIR": place}
    with Port() as port:
        port.bring_up([replace(SCAN, qr=QrView(CODE, 0.2, 0.0))], ends=False)
        with connecting(environ, port, terminal) as process:
            terminal.until("This window has 24 lines of 80 columns")
            (shown,) = re.findall(rf"{place}/waguard-\w+\.png", terminal.until(".png"))
            assert Path(shown).stat().st_mode & 0o777 == 0o600
            assert decoded(Path(shown).read_bytes()) == CODE
            terminal.left(process, signal.SIGINT)
    assert not list(in_memory.iterdir())


def test_when_the_code_is_scanned_its_picture_goes(
    environ: dict[str, str], terminal: Terminal, in_memory: Path
) -> None:
    terminal.resize(24, 80)
    with Port() as port:
        port.bring_up([replace(SCAN, qr=QrView(CODE, 0.2, 0.0)), CONNECTED], ends=False)
        with connecting({**environ, "XDG_RUNTIME_DIR": str(in_memory)}, port, terminal) as process:
            terminal.until(".png")
            terminal.until("connected")
            assert not list(in_memory.iterdir())
            terminal.left(process, signal.SIGINT)


# --- the QR code ------------------------------------------------------------------------------------------


def picture(text: str, **options: object) -> tuple[Console, object]:
    settings = {"width": 110, "height": 45, "force_terminal": True, "color_system": "256", **options}
    console = Console(file=io.StringIO(), _environ={}, **settings)  # type: ignore[arg-type]
    return console, follow._picture(QrView(text, 0.0, 0.0), console, "Make it larger.")


def blocks_of(text: str, quiet: int) -> list[str]:
    return qr.text(QrView(text, 0.0, 0.0), quiet).decode().splitlines()


@pytest.mark.parametrize("text", [CODE, CODE * 2, "short"])
def test_the_code_on_a_terminal_is_the_code(text: str) -> None:
    """Each half of each cell by its colour: dark exactly where the code is, light around it."""
    console, shown = picture(text, height=200, width=200)
    matrix: list[list[int]] = []
    for line in console.render_lines(shown, pad=False):  # type: ignore[arg-type]
        top, bottom = [], []
        for segment in line:
            if segment.style is None or segment.style.bgcolor is None:
                continue
            assert segment.style.color is not None
            ink, paper = (colour.get_truecolor() for colour in (segment.style.color, segment.style.bgcolor))
            assert (tuple(ink), tuple(paper)) == ((0, 0, 0), (255, 255, 255))
            top += [int(cell in "█▀") for cell in segment.text]
            bottom += [int(cell in "█▄") for cell in segment.text]
        matrix += [row for row in (top, bottom) if row]
    wanted = [list(row) for row in segno.make(text, error="l", micro=False).matrix]
    size = len(wanted)
    assert [row[2 : 2 + size] for row in matrix[2 : 2 + size]] == wanted
    around = [*matrix[:2], *matrix[2 + size :], *(row[:2] + row[2 + size :] for row in matrix)]
    assert len(matrix) >= size + 4
    assert not any(map(any, around)), "a scanner needs a quiet zone"


def test_without_colours_the_code_is_as_the_daemon_drew_it() -> None:
    for options in ({"color_system": None}, {"no_color": True}):
        assert SCAN.qr is not None
        console, shown = picture(SCAN.qr.text, **options)
        console.print(shown)
        assert blocks(SCAN) in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_code_that_does_not_fit_is_not_shown_in_part() -> None:
    lines = blocks_of(CODE, 1)
    for height, width in ((len(lines), len(lines[0])), (len(lines) + 1, len(lines[0]) - 1)):
        _, shown = picture(CODE, height=height, width=width)
        assert isinstance(shown, Text)
        assert f"needs {len(lines) + 1} of {len(lines[0])}" in shown.plain
    for quiet in (1, 2):  # the smaller quiet zone only where the better one does not fit
        lines = blocks_of(CODE, quiet)
        console, shown = picture(CODE, height=len(lines) + 1, width=80, color_system=None)
        console.print(shown)
        said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert said[: len(lines)] == lines
        assert len(said) == len(lines) + 1


def test_a_code_of_whatsapps_needs_more_than_24_lines() -> None:
    """Else it would have to be shown there: two modules a line are as many as there are in letters of every terminal."""
    assert len(blocks_of(CODE, 0)) > 24


def test_a_terminal_that_has_no_blocks_is_told_so(tmp_path: Path) -> None:
    with (tmp_path / "ascii").open("w", encoding="ascii") as file:
        console = Console(file=file, width=110, height=45, force_terminal=True, _environ={})
        shown = follow._picture(QrView(CODE, 0.0, 0.0), console, "Make it larger.")
    assert isinstance(shown, Text)
    assert "ascii has no letters" in shown.plain


# --- a real daemon ----------------------------------------------------------------------------------------


def test_a_walk_through_a_real_daemon(environ: dict[str, str], sessions_dir: Path) -> None:
    environ |= {
        "WAGUARD_BROWSER__PATH": str(POSING),
        "WAGUARD_API__PORT": "0",
        "WAGUARD_API__CLIENTS": '["demo"]',
        "WAGUARD_LIMITS__RESERVE_MEMORY_MB": "0",
        "WAGUARD_LIMITS__SESSION_MEMORY_MB": "0",
        "WAGUARD_LIMITS__RESERVE_DISK_MB": "0",
        "WAGUARD_SESSIONS__DIR": str(sessions_dir),
    }
    with running(environ, "run") as daemon:
        assert daemon.stderr is not None
        url = address(daemon.stderr)
        admin, client = (
            call(environ, *arguments)[1].strip() for arguments in (("token",), ("token", "demo"))
        )
        assert len({admin, client, ""}) == 3
        said = ""
        environ["WAGUARD_API__PORT"] = url.rpartition(":")[2]
        for arguments, shown in (
            (("connect", "demo"), "demo is awaiting_scan"),
            (("status",), r"(?m)^demo\tawaiting_scan\t"),
            (("status", "demo"), r"pid \d+"),
            (("restart", "demo", "--json", "--no-qr"), '"profile": "kept"'),
            (("doctor", "--json"), "a waguard answers at"),
            (("disconnect", "demo"), "demo is stopped"),
            (("cleanup", "demo", "--yes"), "demo is clean"),
        ):
            code, out, err = call(environ, *arguments)
            assert code == 0 or arguments[0] == "doctor", (arguments, err)
            assert re.search(shown, out), (arguments, out)
            said += out + err
        code, _, err = call(environ | {ENV_TOKEN: client}, "status", "demo2")
        assert code == 1
        assert "[forbidden]" in err
        code, _, err = call(environ, "run")
        assert code == 1
        assert f"Another waguard owns {sessions_dir}" in err
        code, log = end(daemon, signal.SIGINT)
        assert code == 0
        assert "daemon.stopped" in log
        assert not any(token in said + err + log for token in (admin, client))
