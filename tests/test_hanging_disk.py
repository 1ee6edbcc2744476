"""Disks that hang in the kernel, of two clients of a daemon that runs as a program: they stop those two, and nobody else."""

import asyncio
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import POSING
from hanging_disk import HangingDisk, hanging_disks
from service import Service

HUNG = ("hung1", "hung2")
OTHERS = ("a", "b", "c", "d")
AS_LONG = 5.0
"""Times as long as before may a connect take, and as many seconds: if it waited for a disk it would take for ever."""


@asynccontextmanager
async def serving(sessions_dir: Path) -> AsyncIterator[tuple[Service, list[HangingDisk]]]:
    """All clients have been connected once."""
    settings: dict[str, Any] = {
        "browser": {"path": str(POSING), "extra_flags": ["--posing=ok"]},
        "limits": {"concurrent_starts": 2},
        "deadlines": {"prepare": 3.0, "kill": 5.0},
    }
    for code in HUNG:
        (sessions_dir / code).mkdir(parents=True, mode=0o700)
    with hanging_disks(*(sessions_dir / code for code in HUNG)) as disks:
        async with Service(sessions_dir.parent, settings) as service:
            await service.start()
            try:
                yield service, disks
            finally:
                for disk in disks:
                    disk.answer()


async def connect(service: Service, code: str) -> float:
    """How long it takes, in seconds."""
    began = time.monotonic()
    await service.ask("POST", f"/v1/sessions/{code}/connect")
    return time.monotonic() - began


async def disconnect(service: Service, code: str) -> None:
    await service.ask("POST", f"/v1/sessions/{code}/disconnect")


async def asked(service: Service, method: str, path: str, **options: Any) -> Any:
    """The body, whatever the status."""
    with pytest.raises(AssertionError) as refused:
        await service.ask(method, path, **options)
    return refused.value.args[0]


async def trickle() -> AsyncIterator[bytes]:
    """An import that takes as long as the test."""
    while True:
        yield bytes(1000)
        await asyncio.sleep(0.05)


async def import_for_ever(service: Service, code: str) -> None:
    with suppress(aiohttp.ClientError, AssertionError):
        await service.ask("POST", f"/v1/sessions/{code}/import", data=trickle())


async def sweep(service: Service) -> None:
    with suppress(AssertionError):  # it cannot look while a disk hangs
        await service.ask("POST", "/v1/reap")


@pytest.mark.parametrize("what", ["record", "profile"])
async def test_disks_of_two_clients_that_hang_cost_no_other_client_anything(
    sessions_dir: Path, what: str
) -> None:
    async with serving(sessions_dir) as (service, disks):
        for code, disk in zip(HUNG, disks, strict=True):
            await connect(service, code)
            await disconnect(service, code)
            if what == "profile":
                disk.path = (sessions_dir / code / "profile").resolve()
        before = [await connect(service, code) for code in OTHERS]
        for code in OTHERS:
            await disconnect(service, code)
        for disk in disks:
            disk.hang()
        busy = [
            *(asyncio.create_task(import_for_ever(service, code)) for code in ("e", "f")),
            *(asyncio.create_task(asked(service, "POST", f"/v1/sessions/{code}/connect")) for code in HUNG),
            asyncio.create_task(sweep(service)),
        ]
        for _ in range(2):
            for code in OTHERS:
                took = await connect(service, code)
                assert took < AS_LONG * statistics.median(before) + AS_LONG, before
                await disconnect(service, code)
            busy += [
                asyncio.create_task(asked(service, "POST", f"/v1/sessions/{code}/{verb}"))
                for code in HUNG
                for verb in ("connect", "cleanup")
            ]
        for code in HUNG:
            await service.until(lambda code=code: service.events("storage.hangs", code), f"{code} told")  # type: ignore[misc]
            assert service.events("storage.hangs", code)[0]["stage"] == "prepare"
        alerts = (await service.ask("GET", "/v1/stats"))["alerts"]
        assert {one["client"] for one in alerts if one["alert"] == "storage_hangs"} == set(HUNG)
        refused = await asked(service, "POST", f"/v1/sessions/{HUNG[0]}/connect")
        # Or one of the cleanups before has its turn just then.
        assert refused["code"] in {"storage_hangs", "deadline_exceeded", "interrupted"}, refused
        assert refused["stage"] == "prepare"
        # Still hanging, it is told to end.
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)
        assert await service.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_daemon_starts_beside_a_disk_that_hangs_and_its_client_comes_in_when_it_answers(
    sessions_dir: Path, how: signal.Signals
) -> None:
    """Once, whatever comes back beside it: its browser is taken over if it is up, and started if not."""
    async with serving(sessions_dir) as (service, disks):
        for code in (*HUNG, *OTHERS):
            await connect(service, code)
        for code in (*HUNG, *OTHERS):  # a daemon that is killed has written it
            await service.until(partial(service.events, "attempt.done", code), f"{code} in the log")
        before = service.launch(HUNG[0])
        await service.end(how)  # all are wanted
        disks[0].hang()
        await service.start()
        for code in OTHERS:
            await connect(service, code)
        refused = await asked(service, "POST", f"/v1/sessions/{HUNG[0]}/connect")
        assert refused["code"] in {"storage_hangs", "record_unavailable"}
        disks[0].answer()

        async def back() -> bool:
            views = (await service.ask("GET", "/v1/sessions"))["sessions"]
            status = {one["client"]: one["status"] for one in views}
            return {status.get(code) for code in (*HUNG, *OTHERS)} == {"awaiting_scan"}

        await service.until(back, "back", 60)
        adopted = how is signal.SIGKILL
        for code in (*HUNG, *OTHERS):
            assert len(service.events("session.adopted", code)) == adopted
            assert len(service.events("browser.spawned", code)) == 2 - adopted
        assert (service.launch(HUNG[0]) == before) is adopted
        assert not service.events("internal.error")
