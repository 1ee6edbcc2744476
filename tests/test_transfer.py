"""Files between a session's browser and its client: who may bring and fetch them, within which bounds, and when they go."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bare_browser import BINARIES, BINARY
from clients import DEMO
from conftest import Daemon, Journal
from control_port import ADMIN, API, TOKEN, TOKEN2, Port, is_problem
from pyppeteer.errors import NetworkError
from pyppeteer.page import Page
from waiting import until

from waguard.client import Client
from waguard.core.model import ClientCode
from waguard.session import uploads
from waguard.simulator.server import Simulator

UPLOADS = "/v1/sessions/demo/uploads"
DOWNLOADS = "/v1/sessions/demo/downloads"
DEMO2 = ClientCode("demo2")
GUID = "c999a3ff-4927-4562-8557-4ae5ab3b2a84"


@pytest.fixture
def port(pose: Daemon) -> Any:
    """Demo is up."""

    @asynccontextmanager
    async def opening(**sections: dict[str, Any]) -> AsyncIterator[Port]:
        async with (
            pose("connected", api=API, **sections) as (supervisor, url),
            aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http,
        ):
            await supervisor.connect(DEMO)
            yield Port(url, supervisor, http)

    return opening


async def store(port: Port, body: bytes, name: str = "a.pdf", token: str = TOKEN) -> dict[str, Any]:
    answer = await port.ask("POST", f"{UPLOADS}?name={name}", token, body=BytesIO(body))
    assert answer.status == 200, answer.body
    return answer.json


async def listed(port: Port, path: str = UPLOADS) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await port.ask("GET", path, TOKEN)).json[path.rpartition("/")[2]]
    return found


def home(sessions_dir: Path, code: str = "demo") -> Path:
    return sessions_dir / ".transfer" / code


def files(sessions_dir: Path, code: str = "demo") -> list[str]:
    place = home(sessions_dir, code)
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir())


def put(sessions_dir: Path, kind: str, name: str, content: bytes = b"old", age_s: float = 0.0) -> None:
    """A file that is there, since so long."""
    place = home(sessions_dir) / kind / name
    place.mkdir()
    (place / "old.pdf").write_bytes(content)
    os.utime(place, (time.time() - age_s,) * 2)


def paths(port: Port, code: ClientCode = DEMO) -> dict[str, str]:
    """What the relay's policy takes."""
    return port.supervisor._sessions[code].transfer.uploads.paths


# --- uploads -------------------------------------------------------------------------------------------------


async def test_what_is_uploaded_is_there_for_its_browser_until_it_is_deleted(
    port: Any, sessions_dir: Path, journal: Journal
) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO2)
        assert await listed(asked) == []
        one = await store(asked, b"first", "..%2Fa%20b.pdf")
        two = await store(asked, b"", "empty", ADMIN)
        assert (one["name"], one["bytes"], two["bytes"]) == ("a b.pdf", 5, 0)
        assert one["path"] == f"/uploads/{one['id']}/a b.pdf"
        assert abs(one["expires_at"] - time.time() - 24 * 3600) < 60
        assert await listed(asked) == [one, two]
        assert files(sessions_dir) == sorted(f"uploads/{x['id']}/{x['name']}" for x in (one, two))
        inside = asked.supervisor._sessions[DEMO]._instance.record.launch.uploads
        assert paths(asked) == {x["path"]: f"{inside}/{x['id']}/{x['name']}" for x in (one, two)}
        assert paths(asked, DEMO2) == {}
        answer = await asked.ask("DELETE", f"{UPLOADS}/{one['id']}", TOKEN)
        assert (answer.status, answer.json) == (200, {"deleted": one["id"]})
        assert await listed(asked) == [two]
        assert [*paths(asked)] == [two["path"]]
        for stranger in (one["id"], two["id"].upper(), "..", "..%2F..", "x", "", two["id"] + "%00"):
            is_problem(await asked.ask("DELETE", f"{UPLOADS}/{stranger}", TOKEN), 404, "no_such_file")
        stored = [(event.fields["file"], event.fields["actor"]) for event in journal.named("upload.stored")]
        assert stored == [(one["id"], "token:demo"), (two["id"], "token:admin")]
        assert [event.fields["actor"] for event in journal.named("upload.deleted")] == ["token:demo"]


async def test_who_may(port: Any) -> None:
    async with port() as asked:
        kept = await store(asked, b"x")
        ticket = (await asked.ask("POST", "/v1/sessions/demo/cdp/tickets", TOKEN)).json["ticket"]
        for method, path in (
            ("POST", f"{UPLOADS}?name=x"),
            ("GET", UPLOADS),
            ("DELETE", f"{UPLOADS}/{kept['id']}"),
            ("GET", DOWNLOADS),
            ("GET", f"{DOWNLOADS}/{GUID}"),
            ("DELETE", f"{DOWNLOADS}/{GUID}"),
        ):
            is_problem(await asked.ask(method, path, None), 401, "unauthorized")
            is_problem(await asked.ask(method, path, "wrong-wrong-wrong"), 401, "unauthorized")
            # A ticket is for a WebSocket.
            is_problem(
                await asked.ask(method, path, None, Authorization=f"Bearer {ticket}"), 401, "unauthorized"
            )
            is_problem(await asked.ask(method, path, TOKEN2), 403, "forbidden")
            is_problem(await asked.ask(method, path.replace("demo", "typo"), ADMIN), 404, "session_not_found")
        assert await listed(asked) == [kept]


async def pieces(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(size)


async def test_uploads_are_bounded_and_what_is_too_much_leaves_nothing(
    port: Any, sessions_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mib = 2**20
    async with port(relay={"upload_mb": 2, "uploads_mb": 3}) as asked:
        path = f"{UPLOADS}?name=x"
        too_large = is_problem(
            await asked.ask("POST", path, TOKEN, body=BytesIO(bytes(2 * mib + 1))), 413, "body_too_large"
        )
        assert "relay.upload_mb = 2 MiB" in too_large["detail"]
        is_problem(await asked.ask("POST", path, TOKEN, body=pieces(9, mib // 4)), 413, "body_too_large")
        whole = await store(asked, bytes(2 * mib))
        full = is_problem(
            await asked.ask("POST", path, TOKEN, body=BytesIO(bytes(mib + 1))), 409, "uploads_full"
        )
        assert "relay.uploads_mb = 3 MiB" in full["detail"]
        is_problem(await asked.ask("POST", path, TOKEN, body=pieces(5, mib // 4)), 409, "uploads_full")
        # One that breaks off.
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\nabc"
        await asked.raw(head.encode(), hang_up=True)
        async with asyncio.timeout(10):
            while [one for one in files(sessions_dir) if "partial" in one]:
                await asyncio.sleep(0.01)
        assert files(sessions_dir) == [f"uploads/{whole['id']}/a.pdf"]
        await asked.ask("DELETE", f"{UPLOADS}/{whole['id']}", TOKEN)
        await store(asked, bytes(2 * mib))
        monkeypatch.setattr(uploads, "_MOST_FILES", 1)
        is_problem(await asked.ask("POST", path, TOKEN, body=b"x"), 409, "uploads_full")
    async with port(relay={"uploads_mb": 0}) as asked:
        is_problem(await asked.ask("POST", path, TOKEN, body=b"x"), 409, "no_uploads")


async def test_a_disk_that_is_full_takes_none(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        room = asked.supervisor._gate.room
        room._limits = room._limits.model_copy(update={"reserve_disk_mb": 2**40})
        answer = await asked.ask("POST", f"{UPLOADS}?name=x", TOKEN, body=b"x")
        assert "1 MiB for what is to be written" in is_problem(answer, 507, "disk_full")["detail"]
        assert files(sessions_dir) == []


async def test_a_browser_of_an_earlier_version_has_none_until_it_is_started_again(port: Any) -> None:
    async with port() as asked:
        session = asked.supervisor._sessions[DEMO]
        launch = replace(session._instance.record.launch, uploads="", downloads="")
        await session._instance.save(launch=launch)
        await session.transfer.begin(session._instance.browser, launch)
        problem = is_problem(
            await asked.ask("POST", f"{UPLOADS}?name=x", TOKEN, body=b"x"), 409, "no_uploads"
        )
        assert problem["hint"] == "Start it again: POST /v1/sessions/demo/restart"
        await asked.ask("POST", "/v1/sessions/demo/restart", TOKEN)
        kept = await store(asked, b"x")
        assert [*paths(asked)] == [kept["path"]]


# --- downloads -----------------------------------------------------------------------------------------------


async def test_a_download_is_fetched_as_a_file_and_never_shown(port: Any, sessions_dir: Path) -> None:
    async with port() as asked:
        assert (await asked.ask("GET", DOWNLOADS, TOKEN)).json == {"downloads": [], "most_mb": 0}
        place = home(sessions_dir) / "received" / GUID
        place.mkdir()
        (place / 'März "7"; x.html').write_bytes(b"<script>alert(1)</script>")
        (found,) = await listed(asked, DOWNLOADS)
        assert (found["id"], found["name"], found["bytes"]) == (GUID, 'März "7"; x.html', 25)
        answer = await asked.ask("GET", f"{DOWNLOADS}/{GUID}", TOKEN)
        assert (answer.status, answer.body) == (200, b"<script>alert(1)</script>")
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Length"] == "25"
        assert answer.headers["Content-Disposition"] == (
            "attachment; filename=\"M?rz _7_; x.html\"; filename*=UTF-8''M%C3%A4rz%20%227%22%3B%20x.html"
        )
        for stranger in ("..", "..%2Fuploads", GUID[:-1] + "5", GUID.upper(), "x"):
            is_problem(await asked.ask("GET", f"{DOWNLOADS}/{stranger}", TOKEN), 404, "no_such_file")
        assert (await asked.ask("DELETE", f"{DOWNLOADS}/{GUID}", TOKEN)).json == {"deleted": GUID}
        is_problem(await asked.ask("GET", f"{DOWNLOADS}/{GUID}", TOKEN), 404, "no_such_file")
        # What a hostile browser could leave there is none.
        for name, make in (
            ("1", lambda path: path.symlink_to("/etc/passwd")),
            ("2", os.mkfifo),
            ("3", Path.mkdir),
        ):
            odd = home(sessions_dir) / "received" / (GUID[:-1] + name)
            odd.mkdir()
            make(odd / "x")
            is_problem(await asked.ask("GET", f"{DOWNLOADS}/{odd.name}", TOKEN), 404, "no_such_file")
        assert await listed(asked, DOWNLOADS) == []


async def test_what_is_said_of_downloads_is_not_believed(
    port: Any, sessions_dir: Path, journal: Journal
) -> None:
    """The browser's events, in its place."""
    async with port(relay={"downloads_mb": 1}) as asked:
        downloads = asked.supervisor._sessions[DEMO].transfer.downloads
        place = home(sessions_dir) / "downloads"

        def refused() -> list[str]:
            return [str(event.fields["why"]) for event in journal.named("download.refused")]

        def end(number: int, state: str = "completed") -> None:
            downloads._got_on({"guid": guid(number), "state": state})

        def guid(number: int) -> str:
            return f"{number:08x}{GUID[8:]}"

        for odd in ("../../x", "x", GUID.upper(), f"{GUID}\n", 7, None):
            downloads._begun({"guid": odd, "suggestedFilename": "x"})
            downloads._got_on({"guid": odd, "state": "completed"})
        assert not downloads._coming
        (place / guid(1)).write_bytes(bytes(2**20 + 1))  # of which nobody had said that it is so large
        end(1)
        await until(lambda: journal.named("download.deleted"))
        (place / guid(2)).symlink_to("/etc/passwd")
        (place / guid(3)).mkdir()
        for number in (2, 3, 4):  # the last one is not there at all
            end(number)
        await until(lambda: len(refused()) == 3)
        await until(lambda: not [*place.iterdir()])
        assert "it is a link" in refused()[0]
        assert await listed(asked, DOWNLOADS) == []
        (place / guid(5)).write_bytes(b"x")  # begun in an earlier daemon's time
        end(5)
        await until(lambda: journal.named("download.done"))
        assert [(one["id"], one["name"]) for one in await listed(asked, DOWNLOADS)] == [(guid(5), "file")]
        for number in range(100, 160):
            downloads._begun({"guid": guid(number), "suggestedFilename": "x"})
        assert len(downloads._coming) == 50
        assert downloads._pause is not None  # denied for a while
        assert refused()[3:] == ["more than 50 at a time"] * 5
        for number in range(100, 160):
            end(number, "canceled")
        assert not downloads._coming
        assert not downloads._refused
        room = asked.supervisor._gate.room
        room._limits = room._limits.model_copy(update={"reserve_disk_mb": 2**40})
        downloads._begun({"guid": guid(6), "suggestedFilename": "x"})
        await until(lambda: not downloads._coming)
        assert "MiB of disk are free" in refused()[-1]


# --- how long ------------------------------------------------------------------------------------------------


async def test_what_has_outlived_its_time_goes_with_the_sweep(
    port: Any, sessions_dir: Path, journal: Journal
) -> None:
    async with port(relay={"files_keep_hours": 2.0}) as asked:
        young = await store(asked, b"young")
        put(sessions_dir, "uploads", "0" * 16, age_s=7300)
        put(sessions_dir, "received", GUID, age_s=7300)
        assert len(await listed(asked)) == len(paths(asked)) == 2
        place = home(sessions_dir, "gone") / "uploads" / ("1" * 16)  # of a client that nobody knows any more
        place.mkdir(parents=True)
        (place / "x").touch()
        os.utime(place, (time.time() - 7300,) * 2)
        half = home(sessions_dir) / "uploads" / f"{'2' * 16}.01234567.partial"
        half.mkdir()
        os.utime(half, (time.time() - 7300,) * 2)
        (home(sessions_dir) / "downloads" / GUID).touch()  # a browser may be writing it
        assert (await asked.ask("POST", "/v1/reap?dry_run=true")).status == 200
        assert len(await listed(asked)) == 2
        await asked.ask("POST", "/v1/reap")
        assert await listed(asked) == [young]
        assert [*paths(asked)] == [young["path"]]
        assert files(sessions_dir) == [f"downloads/{GUID}", f"uploads/{young['id']}/a.pdf"]
        assert not half.exists()
        assert files(sessions_dir, "gone") == []
        assert [event.fields["why"] for event in journal.named("upload.deleted")] == ["its time is over"]
        assert [event.fields["why"] for event in journal.named("download.deleted")] == ["its time is over"]
        await asked.ask("POST", "/v1/sessions/demo/disconnect", TOKEN)
        await asked.ask("POST", "/v1/reap")
        assert files(sessions_dir) == [f"uploads/{young['id']}/a.pdf"]


async def test_they_outlast_the_browser_and_the_profile_and_go_with_the_client(
    port: Any, sessions_dir: Path
) -> None:
    async with port() as asked:
        await asked.supervisor.connect(DEMO2)
        kept = await store(asked, b"kept")
        put(sessions_dir, "received", GUID)
        put(sessions_dir, "uploads", "0" * 16)
        (home(sessions_dir) / "downloads" / "half").write_bytes(b"x")
        other = home(sessions_dir, "demo2") / "uploads" / ("3" * 16)
        other.mkdir()
        (other / "x").touch()
        whole = files(sessions_dir)
        await asked.ask("POST", "/v1/sessions/demo/disconnect", TOKEN)
        assert files(sessions_dir) == whole
        # Also while no browser runs; what the last one has not finished goes before the next one.
        late = await store(asked, b"late")
        await asked.ask("POST", "/v1/sessions/demo/connect?fresh=true", TOKEN)
        whole = sorted({*whole, f"uploads/{late['id']}/a.pdf"} - {"downloads/half"})
        assert files(sessions_dir) == whole
        assert {kept["path"], late["path"]} < paths(asked).keys()
        profile = asked.supervisor._sessions[DEMO].memory.profile
        assert profile is not None
        assert not [path for path in profile.path.rglob("*") if path.name in {"old.pdf", "a.pdf"}]
        steps = (await asked.ask("POST", "/v1/sessions/demo/cleanup", TOKEN)).json["steps"]
        (step,) = (one for one in steps if one["step"] == "files")
        assert (step["outcome"], step["detail"]) == ("done", "4 deleted")
        assert not home(sessions_dir).exists()
        assert files(sessions_dir, "demo2") == [f"uploads/{'3' * 16}/x"]
        again = (await asked.ask("POST", "/v1/sessions/demo/cleanup", TOKEN)).json["steps"]
        (step,) = (one for one in again if one["step"] == "files")
        assert step["outcome"] == "nothing"
        await asked.ask("POST", "/v1/sessions/demo/connect", TOKEN)
        assert await listed(asked) == []
        assert paths(asked) == {}


# --- in a real browser ---------------------------------------------------------------------------------------

real = pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
each_browser = pytest.mark.parametrize("browser", BINARIES, ids=lambda one: one.name)
INPUT = "() => { document.body.innerHTML = '<input type=file multiple>'; }"
READ = """async () => Promise.all([...document.querySelector('input').files].map(async one => [one.name, await one.text()]))"""
SAVE = """(parts, name) => { const link = document.createElement('a'); link.download = name;
    link.href = URL.createObjectURL(new Blob(parts)); link.click(); }"""


@asynccontextmanager
async def driven(start: Daemon, **sections: dict[str, Any]) -> AsyncIterator[tuple[Port, Page]]:
    """A page of demo's that is driven by the client library."""
    async with (
        Simulator() as simulator,
        start(**{"api": API, "whatsapp": {"url": simulator.url}, **sections}) as (supervisor, url),
        aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http,
    ):
        await supervisor.connect(DEMO)
        async with Client(url, TOKEN) as waguard:
            yield Port(url, supervisor, http), await waguard.session("demo").page()


@real
@pytest.mark.browser
@pytest.mark.parametrize("sandbox", ["bubblewrap", "plain"])
@each_browser
async def test_a_page_gets_what_was_uploaded_and_no_other_file(
    start: Daemon, sessions_dir: Path, browser: Path, sandbox: str, journal: Journal
) -> None:
    sections: dict[str, Any] = {"browser": {"path": browser}, "sandbox": {"kind": sandbox}}
    async with driven(start, **sections) as (asked, page):
        one, two = await store(asked, "erste Ä".encode(), "a%20b.txt"), await store(asked, b"second")
        strangers = home(sessions_dir, "demo2") / "uploads" / ("3" * 16)
        strangers.mkdir(parents=True)
        (strangers / "x").write_text("another's")
        (home(sessions_dir) / "uploads" / ("4" * 16)).symlink_to("/etc")
        await page.evaluate(INPUT)
        field = await page.querySelector("input")
        await field.uploadFile(one["path"], two["path"])
        assert await page.evaluate(READ) == [["a b.txt", "erste Ä"], ["a.pdf", "second"]]
        for path in (
            "/etc/passwd",
            "/profile/Default/Preferences",
            str(sessions_dir / "demo" / "profile" / "Local State"),
            f"/uploads/{'3' * 16}/x",
            str(strangers / "x"),
            f"/uploads/{'4' * 16}/passwd",
            f"/uploads/{one['id']}",
            f"/uploads/{one['id']}/none",
            f"/uploads/{one['id']}/../{two['id']}/a.pdf",
        ):
            with pytest.raises(NetworkError, match=r"DOM\.setFileInputFiles is refused"):
                await page._client.send("DOM.setFileInputFiles", {"files": [path], **field._remoteObject})
        assert [name for name, _ in await page.evaluate(READ)] == ["a b.txt", "a.pdf"]
        await asked.ask("DELETE", f"{UPLOADS}/{two['id']}", TOKEN)
        with pytest.raises(NetworkError, match="POST /v1/sessions/CODE/uploads"):
            await field.uploadFile(two["path"])
        assert {event.fields["method"] for event in journal.named("relay.refused")} == {
            "DOM.setFileInputFiles"
        }
        if sandbox == "bubblewrap":  # the browser itself cannot write there
            (init, *_) = asked.supervisor._sessions[DEMO].browser_pids
            mounted = Path(f"/proc/{init}/mountinfo").read_text().splitlines()
            (mount,) = (line for line in mounted if line.split()[4] == "/uploads")
            assert {"ro", "nosuid", "nodev"} <= {*mount.split()[5].split(",")}


async def ended(page: Page, script: str, *arguments: Any) -> str:
    """How the download ended that a script has begun."""
    states: asyncio.Queue[str] = asyncio.Queue()
    page._client.on("Page.downloadProgress", lambda told: states.put_nowait(told["state"]))
    await page.evaluate(script, *arguments)
    async with asyncio.timeout(20):
        while (state := await states.get()) == "inProgress":
            pass
    page._client.remove_all_listeners("Page.downloadProgress")
    return state


@real
@pytest.mark.browser
@pytest.mark.parametrize("sandbox", ["bubblewrap", "plain"])
@each_browser
async def test_a_download_arrives_and_is_fetched_and_the_newest_stay(
    start: Daemon, sessions_dir: Path, browser: Path, sandbox: str, journal: Journal
) -> None:
    sections: dict[str, Any] = {"browser": {"path": browser}, "sandbox": {"kind": sandbox}}
    async with driven(start, **sections, relay={"downloads_mb": 1}) as (asked, page):
        # A client may say where to, and is answered; it is to the session's folder all the same.
        await page._client.send("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": "/tmp"})
        assert await ended(page, SAVE, ["erste Ä"], "../../etc/pass\u202ewd\x01.txt") == "completed"
        await until(lambda: journal.named("download.done"))
        (done,) = journal.named("download.done")
        (found,) = await listed(asked, DOWNLOADS)
        assert (found["id"], found["bytes"]) == (done.fields["file"], 8)
        assert done.fields["actor"] == "token:demo"
        assert found["name"].endswith(".txt")
        assert not set(found["name"]) & set("/\u202e\x01")
        assert (await asked.ask("GET", f"{DOWNLOADS}/{found['id']}", TOKEN)).body == "erste Ä".encode()
        assert files(sessions_dir) == [f"received/{found['id']}/{found['name']}"]
        # More than there may be is cancelled, and nothing of it stays.
        size = 700 * 1024
        await ended(page, SAVE, ["x" * (2**20 + 1)], "big")  # it may have come whole before it was cancelled
        await until(lambda: journal.named("download.refused"))
        await until(lambda: not [path for path in files(sessions_dir) if path.startswith("downloads/")])
        (refused,) = journal.named("download.refused")
        assert refused.fields["why"] == "more than relay.downloads_mb = 1 MiB"
        assert await listed(asked, DOWNLOADS) == [found]
        assert await ended(page, SAVE, ["x" * size], "two") == "completed"
        await until(lambda: len(journal.named("download.done")) == 2)
        assert await ended(page, SAVE, ["y" * size], "three") == "completed"
        await until(lambda: len(journal.named("download.done")) == 3)
        # The oldest go for it.
        await until(lambda: len(journal.named("download.deleted")) == 2)
        (last,) = await listed(asked, DOWNLOADS)
        assert (last["name"].partition(".")[0], last["bytes"]) == ("three", size)
        assert files(sessions_dir) == [f"received/{last['id']}/{last['name']}"]
        # An address that is longer than any event that is read.
        link = "text => { const link = document.createElement('a'); link.download = 'd'; link.href = 'data:,' + text; link.click(); }"
        assert await ended(page, link, "z" * 100_000) == "completed"
        await until(lambda: len(journal.named("download.done")) == 4)
        assert [one["bytes"] for one in await listed(asked, DOWNLOADS)] == [size, 100_000]


@real
@pytest.mark.browser
@each_browser
async def test_nothing_is_downloaded_unless_it_is_wanted(
    start: Daemon, sessions_dir: Path, browser: Path, journal: Journal
) -> None:
    """As it is by itself; and in a context that a client makes not in any case."""
    async with driven(start, browser={"path": browser}) as (asked, page):
        (init, *_) = asked.supervisor._sessions[DEMO].browser_pids
        inside = Path(f"/proc/{init}/root")
        assert await ended(page, SAVE, ["x"], "denied.txt") == "canceled"
        assert await listed(asked, DOWNLOADS) == []
        context = await page.browser.createIncognitoBrowserContext()
        own = await context.newPage()
        assert await ended(own, SAVE, ["x"], "denied.txt") == "canceled"
        assert not [*inside.glob("tmp/**/denied*"), *inside.glob("profile/**/denied*")]
        await context.close()
    assert not journal.named("download.done")
    assert files(sessions_dir) == []
