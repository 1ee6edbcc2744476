"""The commands that keep logins, against a daemon that answers what it is told; and the archives they make."""

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from damage import locked
from pydantic import TypeAdapter

from waguard.asking import verbs
from waguard.cli import archive
from waguard.cli.client import Control, control
from waguard.config.sections import Config
from waguard.core.model import ClientCode, Wait
from waguard.core.shown import SnapshotView
from waguard.errors import NoAnswer, ProfileLocked, SnapshotRefused, WaguardError

DEMO = ClientCode("demo")
ORIGIN = "https_web.whatsapp.com_0"
FILES = {
    f"Default/IndexedDB/{ORIGIN}.indexeddb.leveldb/000003.log": b"log",
    "Default/Local Storage/leveldb/000003.log": b"marks",
    "Local State": b"{}",
    "Default/Cache/data_0": b"cached",
    "Default/History": b"visited",
}
LOGIN = {name: data for name, data in FILES.items() if "Cache" not in name and "History" not in name}


def laid_out(top: Path) -> Path:
    for name, data in FILES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


def zipped(top: Path, prefix: str = "") -> Path:
    path = top.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as target:
        for name, data in FILES.items():
            target.writestr(prefix + name, data)
    return path


def packed(source: Path, wanted: str = "", origin: str = ORIGIN) -> dict[str, bytes]:
    target = io.BytesIO()
    archive.write(source, target, origin=origin, wanted=wanted)
    target.seek(0)
    with tarfile.open(fileobj=target, mode="r|") as tar:
        found = {}
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            found[entry.name] = file.read()
    return found


# --- archives -------------------------------------------------------------------------------------------------


def backslashed(top: Path) -> Path:
    """As PowerShell of old packs a directory."""
    path = top.parent.parent / "backslashed.zip"
    with zipfile.ZipFile(path, "w") as target:
        for name, data in FILES.items():
            info = zipfile.ZipInfo("x")
            info.filename = f"session-demo/{name}".replace("/", "\\")
            target.writestr(info, data)
    return path


def from_a_mac(top: Path) -> Path:
    path = top.parent.parent / "mac.zip"
    with zipfile.ZipFile(path, "w") as target:
        for name, data in FILES.items():
            directory, _, file = name.rpartition("/")
            target.writestr(f"session-demo/{name}", data)
            target.writestr(f"__MACOSX/session-demo/{directory}/._{file}", b"\0\5\x16\7")
    return path


def test_every_form_of_a_profile_gives_the_same_archive(tmp_path: Path) -> None:
    place = laid_out(tmp_path / ".wwebjs_auth" / "session-demo")
    forms = [place, place.parent, place / "Default", zipped(place), zipped(place, "a/session-demo/")]
    forms += [backslashed(place), from_a_mac(place)]
    assert [packed(form) for form in forms] == [LOGIN] * len(forms)
    (place / "Default").rename(place / "Profile 1")
    (place / "Default").mkdir()
    link = tmp_path / "link"
    link.symlink_to(place)
    assert [packed(form) for form in (place, place / "Profile 1", link / "Profile 1")] == [LOGIN] * 3


def test_links_are_not_followed(tmp_path: Path) -> None:
    place = laid_out(tmp_path / "profile")
    (place / "Default" / "Local Storage" / "leveldb" / "CURRENT").symlink_to("/etc/passwd")
    os.mkfifo(place / "Default" / "Local Storage" / "leveldb" / "000007.log")
    assert packed(place) == LOGIN


def test_of_several_one_must_be_named(tmp_path: Path) -> None:
    for name in ("session-a", "b\x1b[2J/session-b"):
        laid_out(tmp_path / name)
    (tmp_path / "session-a" / "Local State").write_bytes(b"of a")
    zip_of_two = tmp_path / "two.zip"
    with zipfile.ZipFile(zip_of_two, "w") as target:
        for top in ("b\x1b[2J/session-b", "session-a"):
            for name, data in FILES.items():
                target.writestr(
                    f"{top}/{name}", b"of a" if (top, name) == ("session-a", "Local State") else data
                )
    for source in (tmp_path, zip_of_two):
        with pytest.raises(
            SnapshotRefused, match=r"several logins in it: b\\x1b\[2J/session-b, session-a\."
        ) as caught:
            packed(source)
        assert caught.value.details["logins"] == ["b\\x1b[2J/session-b", "session-a"]
        with pytest.raises(SnapshotRefused, match="no login 'session-c' in it, but"):
            packed(source, "session-c")
        assert packed(source, "session-a") == LOGIN | {"Local State": b"of a"}
        assert packed(source, "b\\x1b[2J/session-b") == LOGIN


def test_another_pages_logins_do_not_count_where_there_is_one_of_this_page(tmp_path: Path) -> None:
    here, elsewhere = laid_out(tmp_path / "here"), laid_out(tmp_path / "elsewhere")
    database = elsewhere / "Default" / "IndexedDB"
    (database / f"{ORIGIN}.indexeddb.leveldb").rename(database / "http_localhost_3000.indexeddb.leveldb")
    assert packed(tmp_path) == packed(here) == LOGIN
    moved = {name.replace(ORIGIN, "http_localhost_3000"): data for name, data in LOGIN.items()}
    assert packed(elsewhere) == moved, "the daemon may know of another page than the configuration here"


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: None, "There is no"),
        (lambda path: path.mkdir(), "no login of https_web.whatsapp.com_0 in it"),
        (lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)), "no login of"),
        (lambda path: path.write_bytes(b"PK\x05\x06" + bytes([255] * 16) + bytes(2)), "cannot be read"),
    ],
)
def test_what_is_no_login_is_said(tmp_path: Path, make: Any, what: str) -> None:
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(WaguardError, match=what):
        packed(path)


def test_what_may_not_be_read_is_said_and_not_left_out(tmp_path: Path) -> None:
    place = laid_out(tmp_path / "profile")
    store = place / "Default" / "Local Storage"
    store.chmod(0)
    code = (
        "import io, os, sys; from pathlib import Path; from waguard.cli import archive\n"
        "os.setgroups([]) if os.geteuid() == 0 else None; os.setuid(65534) if os.geteuid() == 0 else None\n"
        "archive.write(Path(sys.argv[1]), io.BytesIO(), origin='https_web.whatsapp.com_0')"
    )
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(directory.stat().st_mode | 0o755)
    done = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True, check=False)
    assert "StorageFailed" in done.stderr
    assert "Permission denied" in done.stderr


def test_a_profile_that_a_browser_uses_is_refused(tmp_path: Path) -> None:
    place = laid_out(tmp_path / "profile")
    lock = place / "Default" / "Local Storage" / "leveldb" / "LOCK"
    lock.touch()
    assert packed(place) == LOGIN, "a file that nobody holds is no lock"
    with locked(lock) as pid, pytest.raises(ProfileLocked, match=f"A browser is using .*pid {pid}"):
        packed(place)
    assert packed(place) == LOGIN


def test_the_number_of_a_process_that_is_none_of_the_profiles_says_nothing(tmp_path: Path) -> None:
    place = laid_out(tmp_path / "profile")
    lock = place / "SingletonLock"
    for holder in (f"{os.uname().nodename}-{os.getpid()}", "another.host-1", "none"):
        lock.symlink_to(holder)
        assert packed(place) == LOGIN
        lock.unlink()


# --- the daemon's answers ---------------------------------------------------------------------------------------

SNAPSHOT = {
    "id": "20260101T000000-01234567",
    "client": "demo",
    "taken_at": 1.0,
    "reason": "request",
    "login": True,
    "refused": False,
    "live": False,
    "browser": "156",
    "generation": "20260101T000000-01234567",
    "bytes": 5000,
}


@pytest.fixture
async def daemon() -> AsyncIterator[tuple[Control, list[tuple[str, str, dict[str, str], int]]]]:
    """A control port that writes down what it is asked, and refuses the snapshot ``torn``."""
    asked: list[tuple[str, str, dict[str, str], int]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        asked.append((request.method, request.path, dict(request.query), len(body)))
        if "torn" in request.path:
            problem = {
                "code": "snapshot_refused",
                "detail": "It is damaged.",
                "reason": "damaged",
                "status": 422,
            }
            return web.json_response(problem, status=422, content_type="application/problem+json")
        if request.path.endswith("/snapshots") and request.method == "GET":
            return web.json_response({"snapshots": [SNAPSHOT]})
        if "dry_run" in request.query and "reap" not in request.path:
            return web.json_response({"dry_run": True, "snapshot": SNAPSHOT})
        if request.path == "/v1/reap":
            return web.json_response({"dry_run": True, "findings": [], "ms": 1.0})
        if request.path == "/v1/schedule":
            return web.json_response({"jobs": []})
        if request.method == "GET":
            return web.Response(body=b"a file", content_type="application/octet-stream")
        return web.json_response(SNAPSHOT)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    config = Config.model_validate({"api": {"admin_token": "0123456789abcdef"}})
    with control(config, None, url) as talking:
        yield talking, asked
    await runner.cleanup()


async def test_each_command_asks_for_what_it_means(
    daemon: tuple[Control, list[tuple[str, str, dict[str, str], int]]], tmp_path: Path
) -> None:
    talking, asked = daemon
    assert (await asyncio.to_thread(talking.snapshot, DEMO)).id == SNAPSHOT["id"]
    assert len((await asyncio.to_thread(talking.snapshots, DEMO)).snapshots) == 1
    assert (await asyncio.to_thread(talking.check_snapshot, DEMO, "a/b")).reason == "request"
    assert (await asyncio.to_thread(talking.try_import, DEMO, io.BytesIO(b"tar"))).login
    assert not (await asyncio.to_thread(talking.reap, dry_run=True)).findings
    assert not (await asyncio.to_thread(talking.schedule)).jobs
    await asyncio.to_thread(talking.export, DEMO, "x", tmp_path / "out", plain=True)
    assert (tmp_path / "out").read_bytes() == b"a file"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
    with pytest.raises(SnapshotRefused, match="It is damaged") as caught:
        await asyncio.to_thread(talking.do, verbs.restore(DEMO, "torn", wait=Wait.QR))
    assert caught.value.details["reason"] == "damaged"
    base = "/v1/sessions/demo"
    assert [(method, path, query) for method, path, query, _ in asked] == [
        ("POST", f"{base}/snapshots", {}),
        ("GET", f"{base}/snapshots", {}),
        ("POST", f"{base}/snapshots/a/b/restore", {"dry_run": "true"}),
        ("POST", f"{base}/import", {"dry_run": "true"}),
        ("POST", "/v1/reap", {"dry_run": "true"}),
        ("GET", "/v1/schedule", {}),
        ("GET", f"{base}/snapshots/x", {"form": "plain"}),
        ("POST", f"{base}/snapshots/torn/restore", {"wait": "qr"}),
    ]


MIB = 1 << 20
LARGE = 192


@pytest.fixture
async def sender() -> AsyncIterator[str]:
    """A control port whose snapshots have 192 MiB, and end too soon when they are called ``torn``."""

    async def send(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(LARGE):
            await answer.write(b"x" * MIB)
        if "torn" in request.path:
            assert request.transport is not None
            request.transport.abort()
        return answer

    app = web.Application()
    app.router.add_get("/{path:.*}", send)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_an_export_takes_no_memory_however_large_it_is(sender: str, in_memory: Path) -> None:
    script = f"""
import pathlib, resource
from waguard.cli.client import control
from waguard.config.sections import Config
with control(Config.model_validate({{"api": {{"admin_token": "0123456789abcdef"}}}}), None, {sender!r}) as daemon:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    daemon.export("demo", "x", pathlib.Path({str(in_memory / "out")!r}), plain=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60.0):
        grown, _ = await program.communicate()
    assert (in_memory / "out").stat().st_size == LARGE * MIB
    assert int(grown) < 32 * 1024  # KiB


async def test_an_export_that_ends_too_soon_leaves_no_file(sender: str, in_memory: Path) -> None:
    config = Config.model_validate({"api": {"admin_token": "0123456789abcdef"}})
    with control(config, None, sender) as talking, pytest.raises(NoAnswer, match="broke off"):
        await asyncio.to_thread(talking.export, DEMO, "torn", in_memory / "out", plain=False)
    assert list(in_memory.iterdir()) == []


def test_the_views_of_the_daemon_are_those_that_the_commands_read() -> None:
    view = TypeAdapter(SnapshotView).validate_python(SNAPSHOT)
    assert json.loads(TypeAdapter(Any).dump_json(view)) == SNAPSHOT
