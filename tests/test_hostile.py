"""What a browser that was taken over writes, and what whoever has a client's token sends, costs no other client anything."""

import asyncio
import contextlib
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from clients import token
from conftest import Daemon, Journal
from waiting import until

from waguard.core.model import ClientCode
from waguard.errors import SnapshotFailed, SnapshotRefused
from waguard.system.files import partial, remove_tree, walk

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
QUICK = {"settle_s": 0.1}


def nest(top: Path) -> None:
    """Directories in each other, more than Python can go down by calling itself."""
    top.mkdir(parents=True, exist_ok=True)
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a", dir_fd=fd)
        fd, above = os.open("a", os.O_RDONLY, dir_fd=fd), fd
        os.close(above)
    os.close(fd)


def test_what_is_nested_too_deep_is_said_so(tmp_path: Path) -> None:
    with partial(tmp_path / "made") as made:
        nest(made)
        assert len(list(walk(made))) > 1000
        with pytest.raises(OSError, match="nested too deep"):
            remove_tree(made)
    subprocess.run(["rm", "-rf", made], check=True)


async def test_no_cache_keeps_the_daemon_from_starting(pose: Daemon, sessions_dir: Path) -> None:
    async with pose() as (supervisor, _):
        await supervisor.connect(DEMO)
        await supervisor.disconnect(DEMO)
    cache = (sessions_dir / "demo" / "profile").resolve() / "Default" / "Cache"
    nest(cache)
    try:
        async with pose() as (supervisor, _):
            await supervisor.connect(DEMO2)
    finally:
        subprocess.run(["rm", "-rf", cache], check=True)


async def test_links_in_a_circle_cost_no_other_client_its_snapshot(
    pose: Daemon, journal: Journal, sessions_dir: Path
) -> None:
    async with pose("connected", snapshots=QUICK) as (supervisor, _):
        for code in (DEMO, DEMO2):
            await supervisor.connect(code)
        place = (sessions_dir / "demo" / "profile").resolve() / "Default" / "IndexedDB"
        place.parent.mkdir(exist_ok=True)
        place.symlink_to("IndexedDB")
        await supervisor.schedule.run_now("snapshot")
        taken = {one.client for one in journal.named("snapshot.taken") if one.fields["reason"] == "schedule"}
        assert DEMO2 in taken


async def test_a_snapshot_that_was_asked_for_is_still_there_afterwards(pose: Daemon) -> None:
    """Those of a sealed profile all have the time when it was sealed."""
    async with pose("connected", profile={"at_rest": "sealed"}, snapshots={**QUICK, "keep_last": 1}) as (
        supervisor,
        _,
    ):
        await supervisor.connect(DEMO)
        await asyncio.sleep(0.3)
        await supervisor.disconnect(DEMO)
        for _ in range(8):
            made = (await supervisor.snapshot(DEMO)).id
            assert made in [one.id for one in await supervisor.snapshots(DEMO)]


async def test_an_export_has_the_headers_of_every_answer_and_no_head(pose: Daemon) -> None:
    async with pose("connected", snapshots=QUICK) as (supervisor, url):
        await supervisor.connect(DEMO)
        snapshot = (await supervisor.snapshot(DEMO)).id
        headers = {"Authorization": f"Bearer {token(supervisor)}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            address = f"{url}/v1/sessions/demo/snapshots/{snapshot}"
            async with http.get(address) as answer:
                assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
                assert len(answer.headers["X-Request-Id"]) == 8
            async with http.head(address) as answer:
                assert answer.status == 405


async def test_an_import_that_cannot_be_unpacked_is_the_callers_mistake(pose: Daemon) -> None:
    async with pose() as (supervisor, url):
        headers = {"Authorization": f"Bearer {token(supervisor)}", "Content-Encoding": "gzip"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{url}/v1/sessions/demo/import", data=b"no gzip") as answer,
        ):
            assert (answer.status, (await answer.json())["code"]) == (400, "invalid_request")


async def test_whoever_sends_slowly_keeps_no_snapshot_waiting(pose: Daemon) -> None:
    sent = asyncio.Event()

    async def slowly() -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"x"
            sent.set()
            await asyncio.sleep(3600)

        headers = {"Authorization": f"Bearer {token(supervisor)}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            await http.post(f"{url}/v1/sessions/demo/import", data=pieces())

    async with pose("connected", snapshots=QUICK) as (supervisor, url):
        await supervisor.connect(DEMO2)
        senders = [asyncio.create_task(slowly()) for _ in range(3)]
        await sent.wait()
        await asyncio.sleep(0.3)
        async with asyncio.timeout(10):
            await supervisor.snapshot(DEMO2)
        for sender in senders:
            sender.cancel()
        await asyncio.wait(senders)


async def test_an_import_leaves_the_disk_that_is_reserved(pose: Daemon, sessions_dir: Path) -> None:
    async with pose(limits={"reserve_disk_mb": 2**40}) as (supervisor, url):
        headers = {"Authorization": f"Bearer {token(supervisor)}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{url}/v1/sessions/demo/import", data=bytes(2**20)) as answer,
        ):
            said = await answer.json()
            assert (answer.status, said["code"]) == (507, "disk_full")
            assert str(sessions_dir) not in said["detail"]


async def test_archives_that_take_long_keep_no_snapshot_waiting(pose: Daemon, sessions_dir: Path) -> None:
    junk = tarfile.TarInfo("junk").tobuf(tarfile.GNU_FORMAT)
    body = junk * 99_000
    last = asyncio.Barrier(2)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 2**20):
            yield body[start : start + 2**20]
        await last.wait()  # both are unpacked from the same moment on
        yield bytes(1024)

    async def bring(code: ClientCode) -> int:
        headers = {"Authorization": f"Bearer {token(supervisor)}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{url}/v1/sessions/{code}/import", data=pieces()) as answer,
        ):
            return answer.status

    def spooled() -> int:
        return sum(file.stat().st_size > len(body) for file in sessions_dir.glob(".profiles/*/archive"))

    async with pose("connected", snapshots=QUICK) as (supervisor, url):
        await supervisor.connect(DEMO2)
        imports = [asyncio.create_task(bring(ClientCode(f"other{number}"))) for number in range(2)]
        await until(lambda: spooled() == len(imports), "both archives have arrived", 60)
        await supervisor.snapshot(DEMO2)
        assert not any(task.done() for task in imports)
        for task in imports:
            task.cancel()
        await asyncio.wait(imports)


async def test_a_client_has_one_import_at_a_time(pose: Daemon) -> None:
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x"
        sent.set()
        await go_on.wait()

    async def at_once(data: bytes) -> AsyncIterator[bytes]:
        yield data

    async with pose() as (supervisor, _):
        first = asyncio.create_task(supervisor.bring(DEMO, slowly(), keep=True))
        await sent.wait()
        with pytest.raises(SnapshotFailed, match="Another import of demo is under way"):
            await supervisor.bring(DEMO, at_once(b"x"), keep=True)
        with pytest.raises(SnapshotRefused):
            await supervisor.bring(DEMO2, at_once(b"x"), keep=True)
        go_on.set()
        with pytest.raises(SnapshotRefused):
            await first
        with pytest.raises(SnapshotRefused):
            await supervisor.bring(DEMO, at_once(b"x"), keep=True)


async def test_whoever_takes_no_export_any_more_is_left_and_never_sent_two_answers(
    pose: Daemon, journal: Journal, sessions_dir: Path
) -> None:
    def exported() -> list[int]:
        done = [one.fields for one in journal.named("request.done")]
        return [one["http_status"] for one in done if one["route"].endswith("/snapshots/{id}")]

    async with pose("connected", snapshots=QUICK, api={"request_s": 0.5}) as (supervisor, url):
        await supervisor.connect(DEMO)
        blob = (
            sessions_dir
            / "demo"
            / "profile"
            / "Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.blob/1/00/1"
        )
        blob.parent.mkdir(parents=True)
        blob.write_bytes(os.urandom(32 << 20))  # more than sockets hold
        snapshot = (await supervisor.snapshot(DEMO)).id
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=4096)
        try:
            request = f"GET /v1/sessions/demo/snapshots/{snapshot} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            writer.write(f"{request}Authorization: Bearer {token(supervisor)}\r\n\r\n".encode())
            await until(lambda: bool(exported()), "left")
            received = b""
            async with asyncio.timeout(10.0):
                with contextlib.suppress(ConnectionError):
                    while piece := await reader.read(1 << 20):
                        received += piece
            assert received.count(b"HTTP/1.1 ") == 1
            assert len(received) < 32 << 20
        finally:
            writer.close()
        assert exported() == [408]
