"""Stands in for a service manager that keeps fds (systemd): the real daemon, as a program, is started, killed and started again."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
from ports import free_port

_LAUNCHER = """
import os, sys
from waguard.system.systemd import handing_over
fds = {name: int(fd) for name, fd in (pair.rsplit("=", 1) for pair in sys.argv[1].split() if pair)}
for fd in fds.values():
    os.set_inheritable(fd, False)  # only the copies are for the daemon
os.execve(sys.executable, [sys.executable, *sys.argv[2:]], os.environ | handing_over(fds))
"""
"""Puts the fds where they belong, and says whose they are: only the process itself knows its pid before it begins."""
TOKEN = "an-admin-token-of-the-tests"
_PROGRAM = "import sys; from waguard.cli.main import main; sys.exit(main())"


class Service:
    """One service: its socket, its kept fds, and one daemon at a time."""

    def __init__(self, place: Path, settings: Mapping[str, Any]) -> None:
        self.place = place
        self.sessions = place / "sessions"
        self.lines: list[dict[str, Any]] = []
        self.kept: dict[str, int] = {}
        self.told: list[str] = []
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._ear.bind(str(place / "notify"))
        self._log = (place / "log").open("w+b")
        self._read = 0
        self._ready = asyncio.Event()
        self.stores = 512
        """How many fds it keeps."""
        self.under: list[str] = []
        """The command that the daemon is started by, such as ``prlimit --nofile=256``."""
        self.process: subprocess.Popen[bytes] | None = None
        self._config = place / "config.toml"
        self.configure(**settings)

    def configure(self, **sections: Any) -> None:
        """Write the configuration anew; what is running does not know."""
        given: dict[str, dict[str, Any]] = {
            "sessions": {"dir": str(self.sessions)},
            "limits": {
                "reserve_memory_mb": 0,
                "session_memory_mb": 0,
                "reserve_disk_mb": 0,
                "memory_pressure": 0,
            },
            "restart": {"base_s": 0.01, "max_s": 0.05},
            "log": {"format": "json"},
            "page": {"poll_s": 0.1},
            "api": {"admin_token": TOKEN, "port": self.port},
        }
        for section, values in sections.items():
            given[section] = given.get(section, {}) | values
        lines = []
        for section, values in given.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        self._config.write_text("\n".join(lines))

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._ear, self._hear)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it as the manager would, then give up what is kept."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            await self.end(signal.SIGTERM)
        asyncio.get_running_loop().remove_reader(self._ear)
        for fd in self.kept.values():
            os.close(fd)
        for one in (self._ear, self._log):
            one.close()

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, fds, _flags, _address = socket.recv_fds(self._ear, 4096, 16)
                self._heard(data.decode(), list(fds))

    def _heard(self, text: str, fds: list[int]) -> None:
        said = dict(line.split("=", 1) for line in text.splitlines())
        if "FDSTORE" in said:
            (fd,) = fds
            assert said["FDNAME"] not in self.kept, "kept twice"
            self.kept[said["FDNAME"]] = fd
        elif "FDSTOREREMOVE" in said:
            os.close(self.kept.pop(said["FDNAME"]))
        else:
            self.told.append(text)
        if "READY" in said:
            self._ready.set()

    def begin(self, package: Path | None = None) -> None:
        """Start a daemon, with what is kept; of another build if ``package`` has one. `ready` waits for it."""
        self._ready.clear()
        told = " ".join(f"{name}={fd}" for name, fd in self.kept.items())
        command = ["-c", _PROGRAM, "--config", str(self._config), "run"]
        paths = [str(package or Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WAGUARD_")}
        self.process = subprocess.Popen(
            [*self.under, sys.executable, "-c", _LAUNCHER, told, *command],
            env=environment
            | {
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "NOTIFY_SOCKET": str(self.place / "notify"),
                "FDSTORE": str(self.stores),
            },
            cwd=self.place,  # else the checkout's package would be found first
            stdin=subprocess.DEVNULL,
            stderr=self._log,
            pass_fds=tuple(self.kept.values()),
        )

    @property
    def pipes(self) -> list[str]:
        """Names of what is kept beside the control port."""
        return [name for name in self.kept if name != "control"]

    async def ready(self) -> None:
        async with asyncio.timeout(30):
            await self._ready.wait()

    async def start(self, package: Path | None = None) -> None:
        self.begin(package)
        await self.ready()

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait until the daemon has ended; how."""
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 30)

    # --- what it says, what it is asked

    def events(self, name: str, client: str | None = None) -> list[dict[str, Any]]:
        """What was logged under this name so far, by all its daemons."""
        self._log.flush()
        with (self.place / "log").open("rb") as log:
            log.seek(self._read)
            while (line := log.readline()).endswith(b"\n"):
                self._read = log.tell()
                with contextlib.suppress(ValueError):
                    self.lines.append(json.loads(line))
        return [
            line for line in self.lines if line.get("event") == name and client in {None, line.get("client")}
        ]

    def last(self, lines: int = 30) -> str:
        """What it said last, for whoever reads why a test failed."""
        self.events("")  # reads on
        return "\n".join(str(line) for line in self.lines[-lines:])

    async def until(
        self, done: Callable[[], Awaitable[object] | object], what: str, seconds: float = 20.0
    ) -> None:
        deadline = time.monotonic() + seconds
        while True:
            found = done()
            if await found if isinstance(found, Awaitable) else found:
                return
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.last()}"
            await asyncio.sleep(0.02)

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        timeout = aiohttp.ClientTimeout(total=60)
        async with (
            aiohttp.ClientSession(self.url, headers=headers, timeout=timeout) as session,
            session.request(method, path, **options) as answer,
        ):
            body = await answer.json()
            assert answer.status == 200, body
            return body

    async def view(self, code: str) -> Any:
        return await self.ask("GET", f"/v1/sessions/{code}")

    def launch(self, code: str) -> dict[str, Any]:
        """What is on disk of the client's launch."""
        found = json.loads((self.sessions / code / "session.json").read_bytes())["launch"]
        assert isinstance(found, dict), "none is on record"
        return found
