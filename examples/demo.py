#!/usr/bin/env python3
"""See waguard work, without a phone: `make demo`.

Starts a simulated WhatsApp Web and the daemon, walks two sessions through connect, scan, crash and cleanup, and says
of each step whether it was so. On a terminal everything then stays up to play with; otherwise it ends with exit code
0, or 1 if any step was not so. It works in a directory of its own: real logins are never touched.
"""

import argparse
import asyncio
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from waguard.cli.follow import on_paper

T = TypeVar("T")
View = dict[str, Any]
"""A session as the control port shows it."""

CODES = ("demo", "demo2")
WAGUARD = str(Path(sys.executable).with_name("waguard"))
LOG_LINES = 15
POLL_S = 0.05
STOP_S = 20.0
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class NotSo(Exception):
    """A step did not go as it should; the message says how."""


class Program:
    """A subprocess of the demo, and its log."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.process, self.log = name, process, log

    def must_run(self) -> None:
        if self.process.returncode is not None:
            raise NotSo(f"the {self.name} ended by itself (exit code {self.process.returncode})")

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


class Demo:
    def __init__(
        self, console: Console, room: Path, http: aiohttp.ClientSession, ports: tuple[int, int]
    ) -> None:
        self.console = console
        self.room = room
        self.http = http
        self.port, self.simulator_port = ports
        self.url = f"http://127.0.0.1:{self.port}"
        self.simulator_url = f"http://127.0.0.1:{self.simulator_port}"
        self.sessions = room / "sessions"
        self.programs: list[Program] = []
        self.tokens: View = {}
        self.before: dict[str, View] = {}
        """Both as they were once they were connected."""
        self.steps: Sequence[tuple[str, Callable[[], Awaitable[str]]]] = (
            ("the simulated WhatsApp Web is up", self.start_simulator),
            ("the daemon is up", self.start_daemon),
            ("demo and demo2 each have a browser and a QR code", self.connect),
            ("the phone scans both, both are connected", self.scan),
            ("the live sessions", self.show_sessions),
            ("demo's login is on disk", self.login_on_disk),
            ("demo's browser is killed (SIGKILL)", self.kill_browser),
            ("demo is back, without a scan", self.comes_back),
            ("demo is force-cleaned by the old CRM's route", self.force_cleanup),
            ("demo2 is untouched", self.demo2_untouched),
        )

    # --- the steps: each returns a remark, or raises NotSo ----------------------------------------------

    async def start_simulator(self) -> str:
        free(self.simulator_port, "--simulator-port")
        program = await self.start("simulator", "simulate", "--quick", "--port", str(self.simulator_port))
        await until(
            "the simulator", 20, partial(self.answers, program, f"{self.simulator_url}/phone/devices")
        )
        return self.simulator_url

    async def start_daemon(self) -> str:
        free(self.port, "--port")
        program = await self.start("daemon", "run")
        await until("the daemon to be ready", 30, partial(self.answers, program, f"{self.url}/readyz"))
        self.tokens = json.loads((self.sessions / ".tokens.json").read_text())
        return self.url

    async def connect(self) -> str:
        async with within("the QR codes of both", 60):
            views = await asyncio.gather(
                *(self.ask("POST", f"/v1/sessions/{code}/connect") for code in CODES)
            )
        for view in views:
            if not view["qr"]:
                raise NotSo(f"{view['client']} has no QR code: it is {view['status']}")
        async with self.http.get(
            f"{self.url}/v1/sessions/demo/qr", headers=self.bearer() | {"Accept": "text/plain"}
        ) as answer:
            code = await answer.text()
            shown = on_paper(code.splitlines()) if self.console.color_system else code.rstrip("\n")
            self.console.print(shown, markup=False, highlight=False, soft_wrap=True)
        return "this is demo's"

    async def scan(self) -> str:
        """As the phone would: by the text of the QR code, which may be replaced at any moment."""
        for code in CODES:
            await until(f"the scan of {code}", 20, partial(self.scanned, code))
        for code in CODES:
            self.before[code] = await until(f"{code} to be connected", 30, partial(self.connected, code))
        return ", ".join(await self.devices())

    async def show_sessions(self) -> str:
        table = Table("client", "status", "link", "profile", "sandbox", "pid", "launch")
        for view in (await self.ask("GET", "/v1/sessions"))["sessions"]:
            browser = view["browser"] or {"sandbox": None, "pids": []}
            row = [view[key] for key in ("client", "status", "link", "profile")]
            row += [browser["sandbox"], next(iter(browser["pids"]), None), view["attempt"]]
            table.add_row(*(str(cell or "-") for cell in row))
        self.console.print(table)
        return ""

    async def login_on_disk(self) -> str:
        """Chromium writes localStorage seconds late: a login younger than that does not outlive a SIGKILL."""
        store = self.sessions / "demo" / "profile" / "Default" / "Local Storage" / "leveldb"

        async def written() -> bool | None:
            return any(b"last-wid-md" in file.read_bytes() for file in store.glob("*.log")) or None

        await until("the login's marks on disk", 20, written)
        return "Chromium takes its time for that"

    async def kill_browser(self) -> str:
        pid = self.before["demo"]["browser"]["pids"][0]
        handle = os.pidfd_open(pid)
        try:
            # A pid may be given to another process; the handle may not. So: is the pid still demo's, now that we hold it?
            if pid not in (await self.view("demo"))["browser"]["pids"]:
                raise NotSo(f"pid {pid} is no longer demo's")
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            await until(f"the end of pid {pid}", 10, partial(ended, handle))
        finally:
            os.close(handle)
        return f"pid {pid} and all in its sandbox"

    async def comes_back(self) -> str:
        before = self.before["demo"]

        async def back() -> View | None:
            view = await self.view("demo")
            if view["qr"]:
                raise NotSo("demo asks for a new scan")
            anew = view["attempt"] != before["attempt"] and view["browser"] is not None
            return view if anew and view["status"] == "connected" else None

        devices = await self.devices()
        view = await until("demo to be connected again", 60, back)
        if await self.devices() != devices:
            raise NotSo("the phone has another list of devices than before")
        return f"launch {before['attempt']} -> {view['attempt']}, profile {view['profile']}"

    async def force_cleanup(self) -> str:
        async with within("the cleanup", 60):
            answer = await self.ask(
                "POST", "/api/whatsapp/force-cleanup", token=self.tokens["clients"]["demo"]
            )
        if not (answer["success"] and answer["clientCode"] == "demo"):
            raise NotSo(f"the answer was {answer}")
        view = await self.view("demo")
        if view["status"] != "stopped" or view["browser"] or view["generation"]:
            raise NotSo(
                f"demo is {view['status']}, with browser {view['browser']}, profile {view['generation']}"
            )
        return str(answer["message"])

    async def demo2_untouched(self) -> str:
        before, view = self.before["demo2"], await self.view("demo2")
        was, now = (
            {key: one[key] for key in ("status", "attempt", "generation")} | {"pids": one["browser"]["pids"]}
            for one in (before, view)
        )
        if (
            now != was
        ):  # when its browser was started is told as the clock goes now, which is a matter of milliseconds
            raise NotSo(f"it was {was} and is {now}")
        return f"still {view['status']}, same pid {view['browser']['pids'][0]}"

    # --- what the steps are made of -----------------------------------------------------------------------

    async def start(self, name: str, *arguments: str) -> Program:
        ours = ("WAGUARD_API__", "WAGUARD_SESSIONS__", "WAGUARD_WHATSAPP__", "WAGUARD_CONFIG")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        environment |= {
            "WAGUARD_CONFIG": os.devnull,
            "WAGUARD_WHATSAPP__URL": self.simulator_url + "/",
            "WAGUARD_SESSIONS__DIR": str(self.sessions),
            "WAGUARD_API__PORT": str(self.port),
            "WAGUARD_API__CLIENTS": json.dumps(CODES),
        }
        log = self.room / f"{name}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                WAGUARD,
                *arguments,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops them in order
            )
        program = Program(name, process, log)
        self.programs.append(program)
        return program

    def bearer(self, token: str = "") -> dict[str, str]:
        return {"Authorization": f"Bearer {token or self.tokens['admin']}"}

    async def ask(self, method: str, path: str, token: str = "") -> View:
        async with self.http.request(method, self.url + path, headers=self.bearer(token)) as answer:
            body: View = await answer.json(content_type=None)
            if not answer.ok:
                said = " ".join(str(body[key]) for key in ("detail", "message", "hint") if key in body)
                raise NotSo(f"{method} {path} answered {answer.status}: {said}")
            return body

    async def view(self, code: str) -> View:
        return await self.ask("GET", f"/v1/sessions/{code}")

    async def answers(self, program: Program, url: str) -> bool | None:
        program.must_run()
        try:
            async with self.http.get(url) as answer:
                return answer.ok or None
        except aiohttp.ClientConnectionError:
            return None

    async def scanned(self, code: str) -> bool | None:
        async with self.http.get(f"{self.url}/v1/sessions/{code}/qr", headers=self.bearer()) as answer:
            if not answer.ok:
                return None
            qr = (await answer.json())["text"]
        async with self.http.post(f"{self.simulator_url}/phone/scan", data=qr) as answer:
            return answer.ok or None

    async def connected(self, code: str) -> View | None:
        view = await self.view(code)
        return view if view["status"] == "connected" else None

    async def devices(self) -> list[str]:
        async with self.http.get(f"{self.simulator_url}/phone/devices") as answer:
            return sorted(device["wid"] for device in (await answer.json())["devices"])

    # --- the walk -------------------------------------------------------------------------------------------

    async def walk(self) -> bool:
        """Whether every step was so."""
        began = time.monotonic()
        for number, (title, step) in enumerate(self.steps):
            started = time.monotonic()
            try:
                with self.console.status(title):
                    remark = await step()
            except (NotSo, aiohttp.ClientError, OSError) as error:
                self.line("[red]✘[/]", title, str(error) or repr(error), started)
                for program in self.programs:
                    self.console.rule(f"end of the {program.name}'s log", style="dim")
                    self.console.print(program.tail(), markup=False, highlight=False, soft_wrap=True)
                self.console.print(
                    f"\n[bold red]not so[/]: {escape(title)} ({number} of {len(self.steps)} steps were so)"
                )
                return False
            self.line("[green]✔[/]", title, remark, started)
        self.console.print(
            f"\n[bold green]all {len(self.steps)} steps were so[/], in {time.monotonic() - began:.1f} s"
        )
        return True

    def line(self, mark: str, title: str, remark: str, started: float) -> None:
        took = f"{time.monotonic() - started:6.2f} s"
        self.console.print(
            f"{mark} {took}  {escape(title)}" + (f"  [dim]{escape(remark)}[/]" if remark else ""),
            highlight=False,
            soft_wrap=True,
        )

    async def stay(self) -> None:
        """Until Ctrl-C, or until one of the programs ends."""
        bearer = '-H "Authorization: Bearer $TOKEN"'
        self.console.print("\nEverything stays up until Ctrl-C. In another terminal, for example:\n")
        for command in (
            f"export WAGUARD_CONFIG={os.devnull} WAGUARD_SESSIONS__DIR={self.sessions} WAGUARD_API__PORT={self.port}",
            f"TOKEN={self.tokens['admin']}",
            f"{os.path.relpath(WAGUARD)} status",
            f"curl {bearer} {self.url}/v1/sessions",
            f"curl -X POST {bearer} {self.url}/v1/sessions/demo3/connect",
            f"curl {bearer} -H 'Accept: text/plain' {self.url}/v1/sessions/demo3/qr",
            f"tail -f {self.room}/daemon.log",
        ):
            self.console.print("  " + command, markup=False, highlight=False, soft_wrap=True)
        waits = [asyncio.create_task(program.process.wait()) for program in self.programs]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        for program in self.programs:
            program.must_run()

    async def stop(self) -> None:
        for number in ENDINGS:  # being stopped is what it does now, and that has deadlines
            asyncio.get_running_loop().add_signal_handler(number, lambda: None)
        for program in reversed(self.programs):
            with self.console.status(f"stopping the {program.name}"):
                await program.stop()


def free(port: int, option: str) -> None:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            raise NotSo(
                f"port {port} is taken, perhaps by another demo or daemon. See: ss -ltnp 'sport = :{port}'. "
                f"Stop it, or choose another port: make demo ARGS='{option} {port + 10}'"
            ) from None


async def ended(handle: int) -> bool | None:
    """Whether the process of a pidfd has ended: then it reads as ready."""
    return bool(select.select([handle], [], [], 0)[0]) or None


@asynccontextmanager
async def within(what: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise NotSo(f"waited {seconds:g} s for {what}") from None


async def until(what: str, seconds: float, look: Callable[[], Awaitable[T | None]]) -> T:
    async with within(what, seconds):
        while (found := await look()) is None:
            await asyncio.sleep(POLL_S)
    return found


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8717, help="of the daemon (default: 8717)")
    parser.add_argument("--simulator-port", type=int, default=8718, help="of the simulator (default: 8718)")
    options = parser.parse_args()

    task = asyncio.current_task()
    assert task is not None
    for number in ENDINGS:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    console = Console(highlight=False)
    passed = None
    async with AsyncExitStack() as stack:
        room = Path(tempfile.mkdtemp(prefix="waguard-demo-"))
        stack.callback(shutil.rmtree, room, ignore_errors=True)
        room.chmod(0o711)  # browsers of a daemon that is root are not, and must get to their profiles
        http = await stack.enter_async_context(aiohttp.ClientSession())
        demo = Demo(console, room, http, (options.port, options.simulator_port))
        stack.push_async_callback(demo.stop)
        try:
            passed = await demo.walk()
            if passed and sys.stdout.isatty():
                await demo.stay()
        except asyncio.CancelledError:
            console.print("\nstopping")
        except NotSo as error:
            console.print(f"\n{escape(str(error))}")
            passed = False
    return 130 if passed is None else int(not passed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
