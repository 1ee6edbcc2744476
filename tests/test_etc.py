"""What a sandbox sees of the machine's /etc: as it is now, also when a file there is replaced by a rename."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from bare_browser import BINARIES
from conftest import Journal

from waguard.sandbox.etc import NAMES, Etc
from waguard.system.threads import in_thread

NAME = "wa.test"


def replace(path: Path, text: str) -> None:
    beside = path.with_name("new")
    beside.write_text(text)
    beside.rename(path)


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    source = tmp_path / "etc"
    source.mkdir()
    for name in NAMES:
        (source / name).write_text(f"first {name}")
    found = Etc(tmp_path / "copies", source)
    found.make()
    return found


async def test_copies_follow_their_originals_and_stay_in_one_directory(
    etc: Etc, tmp_path: Path, journal: Journal
) -> None:
    await etc.look(journal.bus)
    assert sorted(path.name for path in etc.path.iterdir()) == sorted(NAMES)
    assert not journal.events
    before = etc.path.stat()
    source = tmp_path / "etc"
    replace(source / "resolv.conf", "nameserver 192.0.2.1")
    (source / "hosts").unlink()
    (source / "localtime").unlink()
    (source / "localtime").symlink_to("/usr/share/zoneinfo/Europe/Madrid")
    await etc.look(journal.bus)
    assert (etc.path / "resolv.conf").read_text() == "nameserver 192.0.2.1"
    assert not (etc.path / "hosts").exists()
    # From its place the zone's name is read.
    assert (etc.path / "localtime").readlink() == Path("/usr/share/zoneinfo/Europe/Madrid")
    (changed,) = journal.named("etc.changed")
    assert changed.fields["files"] == ["resolv.conf", "hosts", "localtime"]
    await etc.look(journal.bus)
    # The next daemon's.
    (etc.path / ".hosts.cut-off").write_text("")
    other = Etc(etc.path, source)
    await in_thread(other.make)
    await other.look(journal.bus)
    assert sorted(path.name for path in etc.path.iterdir()) == sorted(set(NAMES) - {"hosts"})
    assert etc.path.stat().st_ino == before.st_ino
    assert len(journal.events) == 1


async def test_what_cannot_be_copied_is_told_once_and_tried_again(
    etc: Etc, tmp_path: Path, journal: Journal
) -> None:
    await etc.look(journal.bus)
    hosts = tmp_path / "etc" / "hosts"
    hosts.unlink()
    hosts.mkdir()
    for _ in range(2):
        await etc.look(journal.bus)
    assert [event.name for event in journal.events] == ["etc.failed"]
    assert (etc.path / "hosts").read_text() == "first hosts"
    hosts.rmdir()
    replace(hosts, "second")
    await etc.look(journal.bus)
    assert (etc.path / "hosts").read_text() == "second"


# --- a real sandbox on a machine whose files are replaced -------------------------------------------------------

SERVE = "import asyncio; from waguard import daemon; from waguard.config.load import load; asyncio.run(daemon.serve(load()))"
APART = f"""
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$PLACE"
cp -a /etc/. "$PLACE"
mount --bind "$PLACE" /etc
echo 'nameserver 127.0.0.1' > /etc/resolv.conf
exec "$PYTHON" -c '{SERVE}'
"""
"""A daemon with an /etc of its own, in which no name server answers."""


@asynccontextmanager
async def daemon_apart(sessions: Path, place: Path, url: str) -> AsyncIterator[tuple[int, str]]:
    """Its pid and the address of its control port."""
    place.mkdir()
    environ = {
        **os.environ,
        "PLACE": str(place),
        "PYTHON": sys.executable,
        "WAGUARD_CONFIG": "/dev/null",
        "WAGUARD_SESSIONS__DIR": str(sessions),
        "WAGUARD_WHATSAPP__URL": url,
        "WAGUARD_API__PORT": "0",
        "WAGUARD_SANDBOX__KIND": "bubblewrap",
        "WAGUARD_LIMITS__SESSION_MEMORY_MB": "0",
        "WAGUARD_PAGE__POLL_S": "0.1",
        "WAGUARD_LOG__FORMAT": "json",
    }
    process = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "sh", "-c", APART, env=environ, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while (line := json.loads(await process.stderr.readline()))["event"] != "daemon.ready":
                pass
        drain = asyncio.create_task(process.stderr.read())
        yield process.pid, line["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
        await drain


@pytest.mark.browser
@pytest.mark.skipif(not BINARIES, reason="no Chromium is installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have an /etc of its own")
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
async def test_a_page_is_reached_when_its_name_is_known_again(sessions_dir: Path, tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        assert request.url.host == NAME
        asked.set()
        return web.Response(text="here it is")

    server = TestServer(web.Application())
    server.app.router.add_get("/", answer)
    async with server:
        url = f"http://{NAME}:{server.port}/"
        async with daemon_apart(sessions_dir, tmp_path / "etc", url) as (pid, address):
            token = json.loads((sessions_dir / ".tokens.json").read_text())["admin"]
            headers = {"Authorization": f"Bearer {token}"}
            async with aiohttp.ClientSession(address, headers=headers) as http:

                async def browser() -> Any:
                    async with http.get("/v1/sessions/demo") as found:
                        return (await found.json())["browser"]

                async with http.post("/v1/sessions/demo/connect") as found:
                    assert "net::ERR_NAME_NOT_RESOLVED" in await found.text()
                before = await browser()
                known = f"{{ cat /etc/hosts; echo 127.0.0.1 {NAME}; }} >/etc/new && mv /etc/new /etc/hosts"
                mover = await asyncio.create_subprocess_exec(
                    "nsenter", f"--target={pid}", "--mount", "sh", "-c", known
                )
                assert await mover.wait() == 0
                async with asyncio.timeout(60):
                    await asked.wait()
                assert (await browser())["pids"] == before["pids"], "it has been restarted"
