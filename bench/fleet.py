"""What the benches of health share: a daemon whose log is read, its sessions, the processes of their browsers."""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from figures import heard_daemon, program, room

CALLS_S = 150.0
"""So long may a call of the control port take."""


@dataclass(frozen=True, slots=True)
class Line:
    """One of the daemon's log."""

    at: float
    """By the monotonic clock, when it was read."""
    event: str
    client: str | None
    fields: Mapping[str, Any]

    def told(self) -> str:
        """For people: what the log says, without what is told elsewhere."""
        shown = {k: v for k, v in self.fields.items() if k not in {"event", "timestamp", "level", "attempt"}}
        return f"{self.event} {json.dumps(shown, ensure_ascii=False)}"


class Journal:
    """All that the daemon has said since it was ready."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def hear(self, text: str) -> None:
        try:
            said = json.loads(text)
        except ValueError:
            said = {"event": "not.json", "text": text.rstrip()}
        self.lines.append(Line(time.monotonic(), str(said.get("event")), said.get("client"), said))

    def all(self, *events: str, client: str | None = None, since: float = 0.0) -> list[Line]:
        return [
            line
            for line in tuple(self.lines)
            if line.event in events and line.at >= since and client in {None, line.client}
        ]

    async def first(
        self,
        *events: str,
        client: str | None = None,
        since: float = 0.0,
        seconds: float,
        when: Callable[[Line], bool] = lambda _: True,
    ) -> Line | None:
        """The first such line since then; None if there is none within ``seconds`` from now."""
        deadline = time.monotonic() + seconds
        while True:
            for line in self.all(*events, client=client, since=since):
                if when(line):
                    return line
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(0.02)


@dataclass(slots=True)
class Fleet:
    """A daemon and the simulator that its sessions are on."""

    url: str
    page_url: str
    place: Path
    sessions: Path
    pid: int
    page_pid: int
    journal: Journal
    token: str = field(repr=False)
    _daemon: aiohttp.ClientSession = field(repr=False)
    _phone: aiohttp.ClientSession = field(repr=False)

    # --- the control port -----------------------------------------------------------------------------

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self._daemon.request(method, path, **options) as answer:
            raw = await answer.read()
            return answer.status, json.loads(raw) if "json" in answer.content_type else raw

    async def do(self, code: str, verb: str, **options: Any) -> Any:
        """POST that must go well; the answer."""
        status, body = await self.ask("POST", f"/v1/sessions/{code}/{verb}", **options)
        if status != 200:
            raise Unexpected(f"{verb} of {code}: {status} {body}")
        return body

    async def connect(self, code: str, wait: str = "qr", timeout_s: float = 120.0) -> Any:
        return await self.do(code, "connect", params={"wait": wait, "timeout_s": f"{timeout_s:g}"})

    async def view(self, code: str) -> Any:
        status, body = await self.ask("GET", f"/v1/sessions/{code}")
        if status != 200:
            raise Unexpected(f"view of {code}: {status} {body}")
        return body

    async def until(self, code: str, done: Callable[[Any], bool], seconds: float = 60.0) -> Any:
        """The view, once it is so."""
        deadline = time.monotonic() + seconds
        while not done(view := await self.view(code)):
            if time.monotonic() > deadline:
                said = {key: view[key] for key in ("status", "process", "link", "reason", "signs", "failure")}
                raise Unexpected(f"{code} is not so within {seconds:g} s: {said}")
            await asyncio.sleep(0.1)
        return view

    # --- the phone and the faults ---------------------------------------------------------------------

    async def page(self, method: str, path: str, **options: Any) -> Any:
        async with self._phone.request(method, path, **options) as answer:
            return await answer.json()

    async def scan(self, text: str) -> str:
        answer = await self.page("POST", "/phone/scan", data=text)
        if "wid" not in answer:
            raise Unexpected(f"the phone does not take the code: {answer}")
        return str(answer["wid"])

    async def log_in(self, code: str) -> str:
        """Connect and scan; the device's wid, once the session is connected."""
        view = await self.connect(code)
        try:
            wid = await self.scan(view["qr"]["text"])
        except Unexpected:  # it has rotated meanwhile
            wid = await self.scan((await self.until(code, lambda view: view["qr"] is not None))["qr"]["text"])
        await self.until(code, lambda view: view["status"] == "connected")
        return wid

    async def link(self, wid: str) -> str | None:
        """How the phone sees its device; None: not linked any more."""
        devices = (await self.page("GET", "/phone/devices"))["devices"]
        return next((device["link"] for device in devices if device["wid"] == wid), None)

    async def inject(self, fault: str, **target: str) -> None:
        answer = await self.page("POST", "/faults", json={"fault": fault, **target})
        if "effect" not in answer:
            raise Unexpected(f"no fault {fault}: {answer}")

    async def clear(self, fault: str, **target: str) -> None:
        await self.page("DELETE", "/faults", params={"fault": fault, **target})

    # --- processes ------------------------------------------------------------------------------------

    async def processes(self, code: str) -> dict[str, list[psutil.Process]]:
        """The processes of a session's browser by kind; ``init`` is the first of its sandbox."""
        browser = (await self.view(code))["browser"]
        if browser is None:
            raise Unexpected(f"{code} has no browser")
        return kinds(browser["pids"][0])


class Unexpected(Exception):
    """The daemon or the page did not what a bench needs."""


def kinds(init: int) -> dict[str, list[psutil.Process]]:
    """Everything below the first process of a sandbox by what it is for, from their own command lines."""
    first = psutil.Process(init)
    found: dict[str, list[psutil.Process]] = {"init": [first]}
    for process in first.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.setdefault(_kind(process.cmdline()), []).append(process)
    return found


def _kind(arguments: list[str]) -> str:
    # A renderer's command line may come back as one text.
    words = " ".join(arguments).split()
    given = dict(word.removeprefix("--").partition("=")[::2] for word in words if word.startswith("--"))
    if not words:
        return "ended"
    if "type" not in given:
        return "browser" if "remote-debugging-pipe" in given else "other"
    if given["type"] == "utility":
        return given.get("utility-sub-type", "utility").partition(".")[0]
    return given["type"].removesuffix("-process")


@asynccontextmanager
async def fleet(
    settings: Mapping[str, str] | None = None,
    *,
    quick: bool = True,
    sessions: Path | None = None,
    road: Callable[[str], str] = lambda url: url,
    through: Sequence[str] = (),
) -> AsyncIterator[Fleet]:
    """A daemon of its own on a simulator of its own; ``road`` may lay something between page and simulator."""
    journal = Journal()
    arguments = ["simulate", "--port", "0", *(["--quick"] if quick else [])]
    with contextlib.ExitStack() as stack:
        # In threads: what starts or ends must not hold up what is measured beside it.
        place = stack.enter_context(room())
        page, page_pid = await asyncio.to_thread(
            stack.enter_context, program(arguments, r"is at (\S+)", subprocess.PIPE)
        )
        ours = sessions or place / "sessions"
        daemon = heard_daemon(ours, road(page), settings, journal.hear, through)
        url, token, pid = await asyncio.to_thread(daemon.__enter__)
        try:
            async with (
                aiohttp.ClientSession(
                    url,
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=aiohttp.ClientTimeout(total=CALLS_S),
                ) as control,
                aiohttp.ClientSession(page, timeout=aiohttp.ClientTimeout(total=30)) as phone,
            ):
                yield Fleet(url, page, place, ours, pid, page_pid, journal, token, control, phone)
        finally:
            await asyncio.to_thread(daemon.__exit__, None, None, None)
