"""The service on a machine with a systemd, as an app and an admin see it."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from ports import free_port
from systemd_box import Systemd

CODES = ("one", "two", "three")
PORT = free_port()
"""The network is the machine's."""
TOKEN = "an-admin-token-of-the-tests"
CONFIG = """
[sessions]
dir = "/var/lib/waguard/sessions"
[api]
port = {port}
admin_token = "{token}"
[whatsapp]
url = "{url}"
[limits]
reserve_memory_mb = 0
session_memory_mb = 0
[probes]
process_s = 0.5
[health]
stopped_s = 1.0
"""


class Service:
    """What an app and an admin see of it."""

    def __init__(self, machine: Systemd, port: int = PORT) -> None:
        self.machine, self.port = machine, port
        self.refused = self.answered = 0

    async def run(self, *command: str) -> str:
        return await asyncio.to_thread(self.machine.run, *command)

    async def ask(self, method: str, path: str) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers) as answer:
            body = await answer.json()
            assert answer.status == 200, body
            return body

    async def connected(self) -> bool:
        found = {one["client"]: one["status"] for one in (await self.ask("GET", "/v1/sessions"))["sessions"]}
        return found == dict.fromkeys(CODES, "connected")

    async def until_connected(self, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not await self.connected():
            assert time.monotonic() < deadline, await self.ask("GET", "/v1/sessions")
            await asyncio.sleep(0.05)

    def processes(self, *codes: str) -> dict[str, Any]:
        """Pids and start ticks on record."""
        records = [f"/var/lib/waguard/sessions/{code}/session.json" for code in codes or CODES]
        said = self.machine.run(
            "sh", "-c", 'for record; do tr -d "\\n" < "$record"; echo; done', "sh", *records
        )
        found = [json.loads(line)["launch"]["processes"] for line in said.splitlines()]
        return dict(zip(codes or CODES, found, strict=True))

    def events(self, name: str, since: float) -> list[dict[str, Any]]:
        """What was logged under this name since then."""
        found = self.machine.journal(f"WAGUARD_EVENT={name}", f"--since=@{since:.6f}")
        return [json.loads(entry["WAGUARD_FIELDS"]) for entry in found]

    @asynccontextmanager
    async def asked_all_the_time(self) -> AsyncIterator[None]:
        """By an app that opens a connection for each question."""

        async def asking() -> None:
            while True:
                try:
                    await self.connected()
                    self.answered += 1
                except aiohttp.ClientConnectorError:
                    self.refused += 1
                except (aiohttp.ClientError, AssertionError):
                    pass  # cut off in the middle, with its daemon
                await asyncio.sleep(0.02)

        task = asyncio.create_task(asking())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def first_look(self, since: float) -> float:
        """Seconds from then until the daemon that came after has seen the first page."""
        for entry in self.machine.journal("-u", "waguard", f"--since=@{since:.6f}", "-o", "json"):
            with contextlib.suppress(KeyError):  # what systemd says
                said = json.loads(entry["WAGUARD_FIELDS"])
                if said["event"] == "session.changed" and said.get("status") == "connected":
                    return int(entry["__REALTIME_TIMESTAMP"]) / 1e6 - since
        raise AssertionError("no page was seen")


async def until_adopted(service: Service, since: float) -> None:
    deadline = time.monotonic() + 30
    while True:
        found = await asyncio.to_thread(service.machine.journal, "-u", "waguard", f"--since=@{since:.6f}")
        events = [entry["MESSAGE"] for entry in found if "session.adopted" in str(entry["MESSAGE"])]
        if len(events) == len(CODES) and await service.connected():
            return
        assert time.monotonic() < deadline, [entry["MESSAGE"] for entry in found]
        await asyncio.sleep(0.1)


async def saved(service: Service, code: str) -> bool:
    return bool((await service.ask("GET", f"/v1/sessions/{code}/snapshots"))["snapshots"])


async def until(service: Service, code: str, done: Callable[[Service, str], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 60
    while not await done(service, code):
        assert time.monotonic() < deadline, (done.__name__, await service.ask("GET", f"/v1/sessions/{code}"))
        await asyncio.sleep(0.1)
