"""The commands of the documentation, typed as they stand there: a daemon and the simulator as programs, one page after the other.

Not all: see `ELSEWHERE`. Only the ports are others', and what a reader fills in (`CODE`, `TEXT`, ...) is filled in.
"""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bare_browser import BINARY
from bots import bot, running
from npm import installed, needs_npm
from ports import free_port
from simulated import Client as Phone
from tls_front import tls_front
from trees import tree

from waguard.simulator.server import Cadence, Simulator

ROOT = Path(__file__).parent.parent
PAGES = (
    "docs/how-to/simulator.md",
    "README.md",
    "docs/tutorial.md",
    "docs/how-to/app.md",
    "docs/how-to/tokens.md",
    "docs/how-to/settings.md",
    "docs/how-to/events.md",
    "docs/how-to/webhooks.md",
    "docs/how-to/drive.md",
    "docs/how-to/snapshots.md",
    "docs/how-to/move-logins.md",
    "docs/how-to/audit.md",
    "docs/how-to/service.md",
)
"""In the order in which they are followed."""
MOVE = "docs/how-to/move-from-whatsapp-web-js.md"
"""Followed by somebody else, with another bot's logins."""
ELSEWHERE: Mapping[str, str] = {
    r"make (demo|test|setup|check|docs|coverage|deb)\b": "CI runs each; they install, or take minutes",
    r"WAGUARD_API__PORT=9000 .*make run$": "it is on a port, and in a place, of the host's",
    r"sudo waguard install\b": "tests/test_install.py, in a systemd of its own",
    r"sudo apt-get\b": "tests/test_deb.py, likewise",
    r"docker\b": "tests/test_container.py, where there is docker",
    r"curl .*/downloads/ID$": "tests/test_transfer.py, with a page that has downloaded something",
    r".*waguard webhook \w+ ID\b": "tests/test_webhooks_port.py, with a receiver",
    r"\.venv/bin/python -m pytest\b": "this is pytest",
}
"""Commands that are not typed here, and who runs them."""
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTINGS = """
[api]
port = {api}
clients = ["demo"]
[limits]
reserve_memory_mb = 0
session_memory_mb = 0
reserve_disk_mb = 0
memory_pressure = 0
[page]
poll_s = 0.1
[snapshots]
settle_s = 0.2
"""
SIMULATED = """
[whatsapp]
url = "http://127.0.0.1:{simulator}/"
"""
AT_THE_REAL_ADDRESS = """
[browser]
extra_flags = {flags}
[sandbox]
connect_ports = []
"""
PATIENCE_S = 30.0
CODE = "ABCD-EFGH"
"""To be entered on the phone, as the documentation has it."""


def commands(page: str) -> Iterator[str]:
    for block in BLOCK.findall((ROOT / page).read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            if command := re.sub(r"\s+# .*$", "", line).strip():
                yield command


def answers_shown(page: str) -> Iterator[str]:
    for block in re.findall(r"^```json\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        yield from block.splitlines()


def is_elsewhere(command: str) -> bool:
    return any(re.match(pattern, command) for pattern in ELSEWHERE)


def get(url: str, token: str = "", data: bytes | None = None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
        return json.loads(answer.read())


class Reader:
    """Who follows the documentation, in a directory of its own, and has a phone."""

    def __init__(self, place: Path, page: str = SIMULATED) -> None:
        """``page``: settings that say where the page is."""
        self.place = place
        self.ports = {"8717": free_port(), "8718": free_port()}
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("WAGUARD_")
        } | {"PATH": f"{place}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        self.filled = {"CODE": "demo", "photo.jpg": str(place / "photo.jpg")}
        self.answers: list[Any] = []
        self.programs: list[subprocess.Popen[bytes]] = []
        program = shlex.join(
            [sys.executable, "-c", "import sys; from waguard.cli.main import main; sys.exit(main())"]
        )
        for path in (place / "bin" / "waguard", place / ".venv" / "bin" / "waguard"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            path.chmod(0o755)
        curl = place / "bin" / "curl"
        curl.write_text(
            f'#!/bin/sh\nexec {shutil.which("curl")} -sS --fail-with-body --max-time {PATIENCE_S:.0f} "$@"\n'
        )
        curl.chmod(0o755)
        (place / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
        settings = (SETTINGS + page).format(api=self.ports["8717"], simulator=self.ports["8718"])
        (place / "config.toml").write_text(settings)

    def url(self, port: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def begin(self, command: str, ready: str) -> None:
        """Type what goes on until Ctrl-C, in a terminal of its own."""
        self.programs.append(
            subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                cwd=self.place,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        self.until(lambda: get(ready), ready)

    def until(self, done: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                if found := done():
                    return found
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not {what} within {PATIENCE_S:g} s")

    def type(self, command: str) -> str:
        """What it prints; it has to go well."""
        name, _, inside = command.partition("=$(")
        command = inside.removesuffix(")") or command
        for word, value in self.filled.items():
            command = re.sub(rf"(?<![\w$-]){re.escape(word)}(?![\w-])", value, command)
        for port, here in self.ports.items():
            command = command.replace(f":{port}", f":{here}")
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.place,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if inside:
            self.environment[name] = self.filled["TOKEN"] = done.stdout.strip()
        return done.stdout

    def learn(self, said: str) -> None:
        """What an answer has that a later command is to be given."""
        answer = json.loads(said) if said.startswith("{") else {}
        self.answers.append({**answer, "timestamp": "..."} if "timestamp" in answer else answer)
        if code := re.match(r"([0-9A-Z]{4})-([0-9A-Z]{4})$", said, re.MULTILINE):
            answer["code"] = "".join(code.groups())
        for word, key in (("TEXT", "text"), ("PATH", "path"), (CODE, "code")):
            if key in answer:
                self.filled[word] = answer[key]
        for device in answer.get("devices", ()):
            self.filled["WID"] = device["wid"]

    # --- what is so before a command, where the text around it says so -----------------------------------

    def session(self) -> Any:
        return get(self.url("8717", "/v1/sessions/demo"), self.admin)

    @cached_property
    def admin(self) -> str:
        return self.type("waguard token").strip()

    def awaiting(self) -> None:
        """It waits for the phone: whatever was linked is not any more."""
        self.type("waguard connect demo --wait none")
        for device in get(self.url("8718", "/phone/devices"))["devices"]:
            get(self.url("8718", "/phone/logout"), data=json.dumps({"wid": device["wid"]}).encode())
        self.until(lambda: self.session()["qr"] or CODE in self.filled, "a code")

    def connected(self) -> None:
        """By the code that the page shows: one to be entered, or one to be scanned."""
        self.type("waguard connect demo --wait none")

        def linked() -> bool:
            if (view := self.session())["status"] == "connected":
                return True
            if code := self.filled.pop(CODE, ""):
                get(self.url("8718", "/phone/link"), data=json.dumps({"code": code}).encode())
            elif view["qr"]:
                get(self.url("8718", "/phone/scan"), data=view["qr"]["text"].encode())
                self.until(lambda: not self.session()["qr"], "taken")
            return False

        self.until(linked, "connected")

    def saved(self) -> None:
        self.connected()
        listed = self.url("8717", "/v1/sessions/demo/snapshots")
        self.until(lambda: any(one["login"] for one in get(listed, self.admin)["snapshots"]), "saved")

    def a_code_for_the_phone(self) -> None:
        self.awaiting()
        asked = self.url("8717", "/v1/sessions/demo/pairing-code")
        self.learn(json.dumps(get(asked, self.admin, b'{"phone": "5215550001111"}')))

    def another_bots_login(self) -> None:
        """In the profile that it was told to use."""
        self.saved()
        self.type("waguard disconnect demo")
        profile = (self.place / "sessions" / "demo" / "profile").resolve()
        copy = self.place / "session-demo"
        shutil.copytree(profile, copy, symlinks=True, ignore=shutil.ignore_patterns("Singleton*"))
        self.filled["/srv/crm/.wwebjs_auth/session-demo"] = str(copy)

    def entered(self) -> None:
        del self.filled[CODE]

    def no_fault(self) -> None:
        self.type("curl -X DELETE http://127.0.0.1:8718/faults")

    def close(self) -> None:
        for program in reversed(self.programs):
            program.terminate()
            program.wait(PATIENCE_S)


BEFORE: Mapping[str, Callable[[Reader], None]] = {
    "/api/whatsapp/connect": Reader.awaiting,
    "/demo/qr": Reader.awaiting,
    "wait=connected": Reader.connected,
    "/pairing-code": Reader.awaiting,
    "/uploads": Reader.connected,
    "waguard pair ": Reader.awaiting,
    "/phone/message": Reader.connected,
    "/phone/link": Reader.a_code_for_the_phone,
    "waguard snapshots": Reader.saved,
    "--dry-run": Reader.another_bots_login,
}
AFTER: Mapping[str, Callable[[Reader], None]] = {"/faults": Reader.no_fault, "/phone/link": Reader.entered}
ADDED = {"waguard restore": " --yes", "waguard undo": " --yes"}
"""Who types it answers a question."""


@pytest.fixture
def reader(sessions_dir: Path) -> Iterator[Reader]:
    reader = Reader(sessions_dir.parent)
    yield reader
    reader.close()


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None or shutil.which("curl") is None, reason="needs Chromium and curl")
@pytest.mark.timeout(300)
def test_each_command_does_what_it_is_there_for(reader: Reader) -> None:
    typed = 0
    for page in PAGES:
        for command in commands(page):
            if is_elsewhere(command):
                continue
            if command.endswith("waguard simulate"):
                port = reader.ports["8718"]
                reader.begin(f"waguard simulate --port {port}", reader.url("8718", "/phone/devices"))
            elif command.endswith("make run"):  # what it does, once
                if len(reader.programs) == 1:
                    reader.begin("waguard run", reader.url("8717", "/readyz"))
            else:
                for part, prepare in BEFORE.items():
                    if part in command:
                        prepare(reader)
                added = "".join(more for part, more in ADDED.items() if part in command)
                reader.learn(reader.type(command + added))
                for part, repair in AFTER.items():
                    if part in command:
                        repair(reader)
            typed += 1
    assert typed > 30
    shown = [json.loads(line) for page in PAGES for line in answers_shown(page)]
    given = [one for one in shown if one["success"]]  # the others: tests/test_docs.py
    assert len(given) == 2
    assert all(one in reader.answers for one in given), reader.answers


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
@needs_npm
@pytest.mark.timeout(300)
async def test_a_bot_of_whatsapp_web_js_moves_with_its_login(sessions_dir: Path) -> None:
    """Its folder is its own making, and stays as it was; afterwards it is the same bot, but for one line."""
    place, modules = sessions_dir.parent, installed("whatsapp-web.js@1.34.7")
    folder = place / ".wwebjs_auth"
    async with (
        Simulator(cadence=Cadence(sync_s=0.5)) as simulator,
        tls_front(simulator.url, place) as flags,
        aiohttp.ClientSession(base_url=simulator.url) as http,
    ):
        async with bot("wwebjs.cjs", modules, folder, flags) as before:
            await before.until("listens")
            await Phone(http).scan((await before.last("qr"))["text"])
            await before.until("ready")
            await before.do("destroy")
        logins = await asyncio.to_thread(tree, folder)
        reader = Reader(place, AT_THE_REAL_ADDRESS.replace("{flags}", json.dumps(flags)))
        reader.filled["/srv/crm/.wwebjs_auth"] = str(folder)
        try:
            await asyncio.to_thread(moves, reader)
            assert len(simulator.devices) == 1, "no second scan"
            headers = {"Authorization": f"Bearer {reader.environment['WAGUARD_TOKEN']}"}
            address = reader.url("8717", "/v1/sessions/demo/cdp").replace("http", "ws", 1)
            attach = {"browserWSEndpoint": address, "headers": headers}
            async with running("wwebjs.cjs", modules, place / "elsewhere", attach) as after:
                await after.until("ready")
                assert not [one for one in after.heard if one["event"] == "qr"]
        finally:
            await asyncio.to_thread(reader.close)
        assert await asyncio.to_thread(tree, folder) == logins


def moves(reader: Reader) -> None:
    reader.begin("waguard run", reader.url("8717", "/readyz"))
    for command in commands(MOVE):
        reader.type(command)
    reader.until(lambda: reader.session()["status"] == "connected", "connected")
    assert reader.session()["profile"] == "restored"


def test_each_command_of_the_documentation_is_typed_by_somebody() -> None:
    pages = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    others = {str(page.relative_to(ROOT)) for page in pages} - {*PAGES, MOVE}
    left = [(page, one) for page in others for one in commands(page) if not is_elsewhere(one)]
    assert not left
    there = [one for page in (*PAGES, MOVE, *others) for one in commands(page)]
    assert all(any(re.match(pattern, one) for one in there) for pattern in ELSEWHERE)
