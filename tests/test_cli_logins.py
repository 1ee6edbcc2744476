"""The commands that keep logins, against a daemon that answers what it is told; and the archives they make."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from waguard.api.problems import Problem
from waguard.cli import archive
from waguard.cli.client import Control, control
from waguard.config import Config
from waguard.core.answer import Wait
from waguard.core.model import ClientCode
from waguard.errors import BackupRefused

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


def packed(source: Path) -> dict[str, bytes]:
    target = io.BytesIO()
    archive.write(source, target)
    target.seek(0)
    with tarfile.open(fileobj=target, mode="r|") as tar:
        found = {}
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            found[entry.name] = file.read()
    return found


# --- archives -------------------------------------------------------------------------------------------------


def test_every_form_of_a_profile_gives_the_same_archive(tmp_path: Path) -> None:
    place = laid_out(tmp_path / ".wwebjs_auth" / "session-demo")
    forms = [place, place.parent, place / "Default", zipped(place), zipped(place, "session-demo/")]
    assert [packed(form) for form in forms] == [LOGIN] * len(forms)


def test_links_are_not_followed(tmp_path: Path) -> None:
    place = laid_out(tmp_path / "profile")
    (place / "Default" / "Local Storage" / "leveldb" / "CURRENT").symlink_to("/etc/passwd")
    assert packed(place) == LOGIN


def test_of_several_one_must_be_named(tmp_path: Path) -> None:
    for name in ("session-a", "session-b"):
        laid_out(tmp_path / name)
    with pytest.raises(Problem, match="holds several: session-a, session-b"):
        packed(tmp_path)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: None, "There is no"),
        (lambda path: path.mkdir(), "has no Default in it"),
        (lambda path: path.write_bytes(b"text"), "neither a directory nor a zip"),
        (
            lambda path: path.write_bytes(b"PK\x05\x06" + bytes(10)),
            "neither a directory nor a zip|cannot be read",
        ),
    ],
)
def test_what_is_no_login_is_said(tmp_path: Path, make: Any, what: str) -> None:
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(Problem, match=what):
        packed(path)


def test_a_profile_that_a_browser_uses_is_refused(tmp_path: Path) -> None:
    place = laid_out(tmp_path / "profile")
    lock = place / "SingletonLock"
    lock.symlink_to(f"{os.uname().nodename}-{os.getpid()}")
    with pytest.raises(Problem, match=f"A browser is using .*pid {os.getpid()}"):
        packed(place)
    lock.unlink()
    lock.symlink_to("another.host-1")
    assert packed(place) == LOGIN


# --- the daemon's answers ---------------------------------------------------------------------------------------

BACKUP = {
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
                "code": "backup_refused",
                "detail": "It is damaged.",
                "reason": "damaged",
                "status": 422,
            }
            return web.json_response(problem, status=422, content_type="application/problem+json")
        if request.path.endswith("/backups") and request.method == "GET":
            return web.json_response({"backups": [BACKUP]})
        if "dry_run" in request.query and "reap" not in request.path:
            return web.json_response({"dry_run": True, "backup": BACKUP})
        if request.path == "/v1/reap":
            return web.json_response({"dry_run": True, "findings": [], "ms": 1.0})
        if request.path == "/v1/schedule":
            return web.json_response({"jobs": []})
        if request.method == "GET":
            return web.Response(body=b"a file", content_type="application/octet-stream")
        return web.json_response(BACKUP)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    config = Config.model_validate({"api": {"admin_token": "0123456789abcdef"}})
    async with control(config, None, url) as talking:
        yield talking, asked
    await runner.cleanup()


async def test_each_command_asks_for_what_it_means(
    daemon: tuple[Control, list[tuple[str, str, dict[str, str], int]]], tmp_path: Path
) -> None:
    talking, asked = daemon
    assert (await talking.backup(DEMO)).id == BACKUP["id"]
    assert len((await talking.backups(DEMO)).backups) == 1
    assert (await talking.check_backup(DEMO, "a/b")).reason == "request"
    assert (await talking.try_import(DEMO, io.BytesIO(b"tar"))).login
    assert not (await talking.reap(dry_run=True)).findings
    assert not (await talking.schedule()).jobs
    await talking.export(DEMO, "x", tmp_path / "out", plain=True)
    assert (tmp_path / "out").read_bytes() == b"a file"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
    with pytest.raises(BackupRefused, match="It is damaged") as caught:
        await talking.restore(DEMO, "torn", wait=Wait.QR, timeout_s=None)
    assert caught.value.details["reason"] == "damaged"
    base = "/v1/sessions/demo"
    assert [(method, path, query) for method, path, query, _ in asked] == [
        ("POST", f"{base}/backups", {}),
        ("GET", f"{base}/backups", {}),
        ("POST", f"{base}/backups/a/b/restore", {"dry_run": "true"}),
        ("POST", f"{base}/import", {"dry_run": "true"}),
        ("POST", "/v1/reap", {"dry_run": "true"}),
        ("GET", "/v1/schedule", {}),
        ("GET", f"{base}/backups/x", {"form": "plain"}),
        ("POST", f"{base}/backups/torn/restore", {"wait": "qr"}),
    ]


def test_the_views_of_the_daemon_are_those_that_the_commands_read() -> None:
    from waguard.cli.client import BACKUP as ADAPTER  # noqa: PLC0415 (only here)

    assert json.loads(ADAPTER.dump_json(ADAPTER.validate_python(BACKUP))) == BACKUP
