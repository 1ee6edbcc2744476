"""Logins are kept: on real Chromium and the simulator, from the first snapshot to a restore without a scan."""

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import damage
import pytest
from bare_browser import BINARY
from clients import log_in, pid_of, token
from conftest import Daemon, Journal
from trees import tree
from waiting import until
from written import Written, write

from waguard.cli import archive
from waguard.core.login.events import DamageSeen
from waguard.core.model import ClientCode, Link, Reason, Status, Wait
from waguard.errors import LoginInUse, SnapshotRefused
from waguard.profile import login_files
from waguard.profile.generation import Profile
from waguard.session.custody import Custody
from waguard.session.ladder import Ladder
from waguard.simulator.server import Cadence, Simulator
from waguard.supervisor.supervisor import Supervisor
from waguard.system import host

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")]

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
QUICK = {"poll_s": 0.05, "poll_loading_s": 0.02}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(cadence=Cadence(sync_s=0.05)) as simulator:
        yield simulator


async def settled(journal: Journal, reason: str = "settled", count: int = 1) -> str:
    """The id of the snapshot that is taken by itself, once it is there."""
    await until(lambda: len(taken(journal, reason)) >= count, f"a snapshot: {reason}", 60)
    return taken(journal, reason)[-1]


def taken(journal: Journal, reason: str) -> list[str]:
    return [
        one.fields["snapshot"] for one in journal.named("snapshot.taken") if one.fields["reason"] == reason
    ]


async def stopped(supervisor: Supervisor) -> str:
    """A snapshot of the client's login, whose browser has been closed; its id."""
    await supervisor.disconnect(DEMO)
    return (await supervisor.snapshot(DEMO)).id


def profile_of(sessions: Path, code: ClientCode = DEMO) -> Path:
    return (sessions / code / "profile").resolve()


def content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:  # it has just gone
        return b""


def be_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check before the launch does not look for the login's marks."""
    look = Custody.look
    monkeypatch.setattr(Custody, "look", lambda *given, **_: look(*given))


def spoil(profile: Path) -> None:
    damage.zero(damage.manifest(damage.indexed_db(profile)))


def spoil_local_storage(profile: Path) -> None:
    damage.zero(damage.manifest(damage.local_storage(profile)))


def retired(sessions: Path) -> list[str]:
    return sorted(path.name.split(".", 2)[2] for path in (sessions / ".retired").iterdir())


# --- snapshots of what runs -----------------------------------------------------------------------------------


async def test_a_session_stays_connected_through_its_snapshots_and_they_have_its_login(
    start: Daemon, simulator: Simulator, journal: Journal, sandbox: dict[str, str]
) -> None:
    async with start(whatsapp={"url": simulator.url}, page=QUICK, sandbox=sandbox) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
        first = await settled(journal)
        changes = len(journal.named("session.changed"))
        sockets = len(simulator.devices)
        for _ in range(2):
            snapshot = await supervisor.snapshot(DEMO)
            assert snapshot.live
            assert snapshot.login
        now = supervisor.view(DEMO)
        assert (now.status, now.attempt, pid_of(now)) == (Status.CONNECTED, view.attempt, pid_of(view))
        assert len(journal.named("session.changed")) == changes
        assert len(simulator.devices) == sockets
        frozen = [one.fields["frozen_ms"] for one in journal.named("snapshot.taken")]
        assert all(ms is not None for ms in frozen)
        # Each of them logs in again, where the profile itself is gone for good.
        await supervisor.cleanup(DEMO)
        for chosen in (first, snapshot.id):
            again = await supervisor.restore(DEMO, chosen, wait=Wait.CONNECTED)
            assert (again.status, again.profile, again.snapshot) == (Status.CONNECTED, "restored", chosen)


async def test_a_snapshot_right_after_the_scan_waits_until_the_login_is_on_disk(
    start: Daemon, simulator: Simulator
) -> None:
    """As long as Chromium takes by itself."""
    async with start(whatsapp={"url": simulator.url}, page=QUICK, browser={}) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        snapshot = await supervisor.snapshot(DEMO)
        await supervisor.cleanup(DEMO)
        again = await supervisor.restore(DEMO, snapshot.id, wait=Wait.CONNECTED)
        assert (again.status, again.snapshot) == (Status.CONNECTED, snapshot.id)


async def test_of_a_snapshot_without_its_login_an_older_one_is_tried(
    start: Daemon, sessions_dir: Path, simulator: Simulator, journal: Journal
) -> None:
    """A database that is gone costs it, and cannot be told from one that was never there. Not so a login that WhatsApp refuses."""
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        good = await settled(journal)
        await supervisor.disconnect(DEMO)
        profile = profile_of(sessions_dir)
        shutil.rmtree(damage.indexed_db(profile))
        bad = (await supervisor.snapshot(DEMO)).id
        spoil_local_storage(profile)
        again = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (again.status, again.profile, again.snapshot) == (Status.CONNECTED, "restored", good)
        assert [one.id for one in await supervisor.snapshots(DEMO) if one.refused] == [bad]
        assert not journal.named("snapshot.login_refused")
        assert len(journal.named("login.lost")) == 1


@pytest.fixture(params=["bubblewrap", "plain"])
def sandbox(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"kind": request.param}


async def test_a_scheduled_snapshot_is_taken_only_of_what_was_used(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        await supervisor.connect(DEMO2)  # never logged in
        await log_in(supervisor, simulator, DEMO)
        await settled(journal)
        await supervisor.disconnect(DEMO)
        for expected in (1, 1):
            view = await supervisor.schedule.run_now("snapshot")
            assert view.last_ok, view.last_error
            assert len(taken(journal, "schedule")) == expected
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        await supervisor.schedule.run_now("snapshot")
        assert len(taken(journal, "schedule")) == 2
        assert {one.client for one in journal.named("snapshot.taken")} == {DEMO}


# --- damage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest", ["sound", "damaged"])
async def test_a_profile_that_is_damaged_while_stopped_comes_back_without_a_scan(
    start: Daemon, simulator: Simulator, journal: Journal, sessions_dir: Path, newest: str
) -> None:
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
        right = await stopped(supervisor)
        if newest == "damaged":
            wrong = (await supervisor.snapshot(DEMO)).id
            file = sessions_dir / ".backups" / "demo" / f"{wrong}.wgb"
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
        spoil(profile_of(sessions_dir))
        before = tree(profile_of(sessions_dir))
        again = await supervisor.connect(DEMO, wait=Wait.QR)
        assert (again.status, again.profile, again.snapshot) == (Status.CONNECTED, "restored", right)
        assert again.qr is None
        assert again.check is not None
        assert again.check.verdict == "damaged"
        assert again.generation != view.generation
        (place,) = (sessions_dir / ".retired").iterdir()
        assert place.name == f"demo.{view.generation}.damaged"
        after = tree(place)
        assert after.pop(".waguard-sequence").isdigit()
        assert after == before
        assert len(simulator.devices) == 1, "no second scan"
        if newest == "damaged":
            (told,) = journal.named("snapshot.refused")
            assert wrong in told.fields["snapshots"][0]


UNWITNESSED = sorted(set().union(*damage.UNSEEN.values()) & {way.name for way in damage.SMALL})
MARKED = {"Default gone", "IndexedDB: log empty", "Local Storage: only LOCK left"}
"""That the marks tell of all the others too is seen in test_check.py, without a browser."""


@pytest.mark.parametrize(
    ("what", "blind"),
    [
        *((what, True) for what in UNWITNESSED),
        *((what, False) for what in UNWITNESSED if what in MARKED | damage.STILL_UNSEEN),
    ],
)
async def test_damage_without_a_witness_is_no_logout_and_comes_back_too(
    start: Daemon,
    simulator: Simulator,
    journal: Journal,
    sessions_dir: Path,
    what: str,
    blind: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The marks tell before the launch, or if nobody looks for them what shows after it."""
    if blind:
        be_blind(monkeypatch)
    way = next(way for way in damage.SMALL if way.name == what)
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
        right = await stopped(supervisor)
        (
            sessions_dir / ".profiles" / f"{view.generation}.json"
        ).unlink()  # as if the daemon had died meanwhile
        way.do(profile_of(sessions_dir))
        again = await supervisor.connect(DEMO, wait=Wait.QR)
        assert (again.status, again.profile, again.snapshot) == (Status.CONNECTED, "restored", right)
        after = bool(journal.named("login.lost") or journal.named("login.doubted"))
        assert after == (blind or what in damage.STILL_UNSEEN)
        assert retired(sessions_dir) == ["damaged"]
        assert supervisor.view(DEMO).failure is None


@pytest.mark.parametrize("times", [1, 2])
async def test_a_good_snapshot_of_which_the_page_finds_nothing_is_restored_once_more(
    start: Daemon,
    simulator: Simulator,
    journal: Journal,
    sessions_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
) -> None:
    """A browser may come up without what its profile has: that is not for the snapshot to pay. Twice in a row it is."""
    restore, left = Ladder._restore, times

    def lose(*given: Any) -> Profile:
        nonlocal left
        profile = restore(*given)
        if left:
            left -= 1
            damage.cut(damage.log(damage.local_storage(profile.path)), 0)
        return profile

    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        right = await stopped(supervisor)
        spoil_local_storage(profile_of(sessions_dir))
        monkeypatch.setattr(Ladder, "_restore", lose)
        again = await supervisor.connect(DEMO, wait=Wait.QR)
        assert (again.profile, again.snapshot) == ("restored", right)
        assert len(journal.named("login.doubted")) == 1
        assert len(journal.named("snapshot.login_refused")) == times - 1
        assert again.status is (Status.CONNECTED if times == 1 else Status.AWAITING_SCAN)
        assert len(simulator.devices) == 1


async def test_damage_without_a_snapshot_is_said_and_not_called_a_logout(
    start: Daemon,
    simulator: Simulator,
    journal: Journal,
    sessions_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    be_blind(monkeypatch)
    late = {"settle_s": 3600.0}
    async with start(whatsapp={"url": simulator.url}, page=QUICK, snapshots=late) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
        await supervisor.disconnect(DEMO)
        for path in (sessions_dir / ".backups").rglob("*.wgb"):
            path.unlink()
        (sessions_dir / ".profiles" / f"{view.generation}.json").unlink()
        shutil.rmtree(damage.local_storage(profile_of(sessions_dir)))
        again = await supervisor.connect(DEMO)
        assert (again.status, again.link, again.reason) == (
            Status.AWAITING_SCAN,
            Link.AWAITING_SCAN,
            "damaged",
        )
        assert again.check is not None
        assert again.check.verdict == "damaged"
        assert "Local Storage/leveldb was missing" in again.check.why
        await until(lambda: bool(journal.named("alert.raised")), "a person is needed")
        assert [one.fields["alert"] for one in journal.named("alert.raised")] == ["person_needed"]
        simulator.scan(supervisor.qr(DEMO).text, "34600000000")
        assert (await supervisor.connect(DEMO, wait=Wait.CONNECTED)).reason is None
        # When the page is connected; what was found wrong with it may be over a moment later.
        await until(lambda: bool(journal.named("alert.cleared")), "nobody is needed any more")
        assert [one.fields["alert"] for one in journal.named("alert.cleared")] == ["person_needed"]


async def test_a_logout_by_the_phone_is_no_damage(
    start: Daemon, simulator: Simulator, journal: Journal, sessions_dir: Path
) -> None:
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        await stopped(supervisor)
        await simulator.log_out(simulator.devices[0].wid)
        again = await supervisor.connect(DEMO)
        assert (again.status, again.reason, again.profile) == (
            Status.AWAITING_SCAN,
            Reason.LOGGED_OUT,
            "kept",
        )
        assert not journal.named("login.lost")


async def test_a_logout_while_no_daemon_looked_costs_one_try(
    start: Daemon, simulator: Simulator, journal: Journal, sessions_dir: Path
) -> None:
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
        await stopped(supervisor)
        (sessions_dir / ".profiles" / f"{view.generation}.json").unlink()
        await simulator.log_out(simulator.devices[0].wid)
        again = await supervisor.connect(DEMO)
        assert (again.status, again.reason, again.profile) == (Status.AWAITING_SCAN, "logged_out", "restored")
        assert len(journal.named("login.doubted")) == 1
        assert (await supervisor.snapshots(DEMO))[0].refused


async def test_a_restored_login_that_whatsapp_refuses_is_marked_and_not_tried_twice(
    start: Daemon, simulator: Simulator, journal: Journal, sessions_dir: Path
) -> None:
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        tried = await stopped(supervisor)
        await simulator.log_out(simulator.devices[0].wid)
        spoil(profile_of(sessions_dir))
        again = await supervisor.connect(DEMO)
        assert (again.status, again.profile, again.snapshot) == (Status.AWAITING_SCAN, "restored", tried)
        assert again.check is not None
        assert "WhatsApp did not take it" in again.check.why
        (snapshot,) = await supervisor.snapshots(DEMO)
        assert snapshot.refused
        await supervisor.disconnect(DEMO)
        shutil.rmtree(profile_of(sessions_dir))
        again = await supervisor.connect(DEMO)
        assert (again.status, again.profile) == (Status.AWAITING_SCAN, "fresh")


async def test_no_snapshot_is_taken_of_a_login_in_doubt_and_the_next_launch_does_not_use_it(
    start: Daemon, simulator: Simulator, sessions_dir: Path
) -> None:
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        good = await stopped(supervisor)
        known = len(await supervisor.snapshots(DEMO))
        await supervisor._sessions[DEMO].login.tell(DamageSeen("a database was wiped"))
        with pytest.raises(SnapshotRefused, match="a database was wiped"):
            await supervisor.snapshot(DEMO)
        assert len(await supervisor.snapshots(DEMO)) == known
        again = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (again.status, again.profile, again.snapshot) == (Status.CONNECTED, "restored", good)


# --- by hand ----------------------------------------------------------------------------------------------------


async def test_restore_over_http_tries_refuses_and_restores(
    start: Daemon, simulator: Simulator, journal: Journal, sessions_dir: Path
) -> None:
    api = {"clients": ["demo", "demo2"]}
    async with start(whatsapp={"url": simulator.url}, page=QUICK, api=api) as (supervisor, url):
        (view,) = await log_in(supervisor, simulator, DEMO)
        await settled(journal)
        tokens = json.loads((sessions_dir / ".tokens.json").read_text())["clients"]
        headers = {"Authorization": f"Bearer {tokens['demo']}"}
        async with aiohttp.ClientSession(url, headers=headers) as http:
            async with http.post("/v1/sessions/demo/snapshots") as answer:
                made = await answer.json()
                assert (answer.status, made["reason"], made["live"]) == (200, "request", True)
            async with http.get("/v1/sessions/demo/snapshots") as answer:
                listed = (await answer.json())["snapshots"]
                assert [one["reason"] for one in listed] == ["request", "settled"]
            path = f"/v1/sessions/demo/snapshots/{made['id']}/restore"
            async with http.post(path, json={"dry_run": True}) as answer:
                assert (await answer.json())["snapshot"]["id"] == made["id"]
            assert supervisor.view(DEMO).attempt == view.attempt
            async with http.post("/v1/sessions/demo/snapshots/nothing/restore") as answer:
                assert (answer.status, (await answer.json())["code"]) == (404, "snapshot_not_found")
            other = {"Authorization": f"Bearer {tokens['demo2']}"}
            async with http.get("/v1/sessions/demo/snapshots", headers=other) as answer:
                assert answer.status == 403
            async with http.post("/v1/reap") as answer:
                assert answer.status == 403
            async with http.post(path, params={"wait": "connected"}) as answer:
                again = await answer.json()
                assert (answer.status, again["status"], again["snapshot"]) == (200, "connected", made["id"])
            # The one before was put aside, and is saved in its turn.
            await settled(journal, "restore")
            file = sessions_dir / ".backups" / "demo" / f"{made['id']}.wgb"
            file.write_bytes(file.read_bytes()[:-1])
            before = supervisor.view(DEMO)
            async with http.post(path) as answer:
                said = await answer.json()
                assert (answer.status, said["code"], said["reason"]) == (422, "snapshot_refused", "damaged")
            assert supervisor.view(DEMO).attempt == before.attempt


# --- sealed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_stopped_session_leaves_nothing_plain_and_connects_without_a_scan(
    start: Daemon, simulator: Simulator, journal: Journal, sessions_dir: Path, tmp_path: Path, elsewhere: bool
) -> None:
    profile: dict[str, object] = {"at_rest": "sealed"}
    if elsewhere:
        profile["runtime_dir"] = tmp_path / "run"
    sections = {"whatsapp": {"url": simulator.url}, "page": QUICK, "profile": profile}

    def plain() -> list[Path]:
        tops = [sessions_dir, tmp_path / "run"]
        # Unlike `rglob`, it goes on when a directory is deleted meanwhile.
        files = [Path(top) / name for root in tops for top, _, names in os.walk(root) for name in names]
        return [path for path in files if b"34600000000" in content(path)]

    async with start(**sections) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        await until(lambda: bool(plain()), "the login on disk")
        if elsewhere:
            assert not [path for path in plain() if path.is_relative_to(sessions_dir)]
        await supervisor.disconnect(DEMO)
        assert not plain()
        again = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (again.status, again.profile) == (Status.CONNECTED, "kept")
        await supervisor.disconnect(DEMO)
        assert (await supervisor.snapshot(DEMO)).reason == "sealed"
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)
    assert not plain(), "the daemon's end is a stop too"
    async with start(**sections) as (supervisor, _):
        again = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (again.status, again.profile) == (Status.CONNECTED, "kept")
        await supervisor.cleanup(DEMO)
        await until(lambda: not plain(), "what was put aside is sealed, and goes")
    assert not journal.named("profile.seal_failed")


async def test_a_place_of_its_own_for_what_is_plain_may_be_named_later(
    start: Daemon, simulator: Simulator, sessions_dir: Path, tmp_path: Path
) -> None:
    sections = {"whatsapp": {"url": simulator.url}, "page": QUICK}
    async with start(**sections) as (supervisor, _):
        (view,) = await log_in(supervisor, simulator, DEMO)
    sealed = {"at_rest": "sealed", "runtime_dir": tmp_path / "run"}
    async with start(**sections, profile=sealed) as (supervisor, _):
        for _ in range(2):  # it moves when it has been sealed: at the latest when it stops
            again = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
            assert (again.status, again.profile, again.generation) == (
                Status.CONNECTED,
                "kept",
                view.generation,
            )
            await supervisor.disconnect(DEMO)
            assert not (sessions_dir / ".profiles" / str(view.generation)).exists()
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (tmp_path / "run" / str(view.generation)).is_dir()
    async with start(**sections) as (supervisor, _):
        again = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (again.status, again.profile, again.generation) == (Status.CONNECTED, "kept", view.generation)


# --- brought along ------------------------------------------------------------------------------------------------


@pytest.fixture
async def elsewhere(simulator: Simulator, tmp_path: Path) -> Path:
    """A user data directory that plain Chromium made, logged in on the simulator, where whatsapp-web.js keeps it."""
    written: Written = await write(large=False, simulator=simulator)
    place = tmp_path / ".wwebjs_auth" / "session-demo"
    shutil.copytree(written.profile, place, symlinks=True)
    shutil.rmtree(written.profile)
    return place


def zipped(place: Path) -> Path:
    """As RemoteAuth keeps it."""
    path = place.parent.parent / "RemoteAuth-demo.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for file in sorted(place.rglob("*")):
            if file.is_file() and not file.is_symlink():
                target.write(file, file.relative_to(place))
    return path


async def test_what_is_only_tried_writes_nothing_tells_nobody_and_is_no_activity(
    start: Daemon, simulator: Simulator, elsewhere: Path, sessions_dir: Path, tmp_path: Path, journal: Journal
) -> None:
    packed = tmp_path / "packed"
    with packed.open("wb") as target:
        await asyncio.to_thread(archive.write, elsewhere, target, origin=login_files.origin_of(simulator.url))

    def places() -> set[str]:
        kept = (path for path in sessions_dir.rglob("*") if not path.name.startswith(".history"))
        return {str(path.relative_to(sessions_dir)) for path in kept} - {".looked"}

    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, url):
        headers = {"Authorization": "Bearer " + token(supervisor)}
        async with aiohttp.ClientSession(url, headers=headers) as http:

            async def ask(path: str, **options: str) -> Any:
                with packed.open("rb") if path.endswith("import") else io.BytesIO() as body:
                    async with http.post(path, params=options, data=body) as answer:
                        assert answer.status == 200, await answer.text()
                        return await answer.json()

            async def only_tried(*paths: str) -> list[Any]:
                before, told = places(), len(journal.events)
                active = supervisor.learned.activity(DEMO)
                answers = [await ask(path, dry_run="true") for path in paths]
                assert places() == before
                of_demo = [one for one in journal.events[told:] if one.client == DEMO]
                assert {(one.name, one.fields.get("dry_run")) for one in of_demo} == {("request.done", True)}
                assert supervisor.learned.activity(DEMO) == active
                return answers

            for said in await only_tried(*["/v1/sessions/demo/import"] * 2):
                assert (said["snapshot"]["id"], said["snapshot"]["client"]) == ("", "demo")
                assert said["snapshot"]["bytes"] > 0
            await ask("/v1/sessions/demo/import", wait="connected")
            await ask("/v1/sessions/demo/disconnect")
            assert supervisor.learned.activity(DEMO) > 0
            (snapshot,) = await supervisor.snapshots(DEMO)
            assert snapshot.id
            await only_tried("/v1/sessions/demo/snapshots/newest/restore", "/v1/reap")
            assert [one.fields["snapshot"] for one in journal.named("snapshot.taken")] == [snapshot.id]


@pytest.mark.parametrize(
    "form", [lambda place: place, lambda place: place.parent, lambda p: p / "Default", zipped]
)
async def test_a_login_from_elsewhere_connects_without_a_scan_and_its_source_stays_as_it_was(
    start: Daemon, simulator: Simulator, elsewhere: Path, tmp_path: Path, form: Callable[[Path], Path]
) -> None:
    source, origin = form(elsewhere), login_files.origin_of(simulator.url)
    before = {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in elsewhere.rglob("*")}
    contents = tree(elsewhere)
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, url):
        headers = {"Authorization": "Bearer " + token(supervisor)}
        async with aiohttp.ClientSession(url, headers=headers) as http:
            packed = tmp_path / "packed"
            with packed.open("wb") as target:
                await asyncio.to_thread(archive.write, source, target, origin=origin)
            for options, keys in (
                ({"dry_run": "true"}, {"dry_run", "snapshot"}),
                ({"wait": "connected"}, None),
            ):
                with packed.open("rb") as body:
                    async with http.post("/v1/sessions/demo/import", params=options, data=body) as answer:
                        said = await answer.json()
                        assert answer.status == 200, said
                if keys:
                    assert said.keys() == keys
                    assert await supervisor.snapshots(DEMO) == []
        assert (said["status"], said["profile"]) == ("connected", "restored")
        assert len(simulator.devices) == 1
    assert tree(elsewhere) == contents
    assert {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in elsewhere.rglob("*")} == before


async def test_a_login_that_is_damaged_or_none_is_not_taken_over(
    start: Daemon, simulator: Simulator, elsewhere: Path, tmp_path: Path
) -> None:
    spoil(elsewhere)
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):

        async def pieces(path: Path) -> AsyncIterator[bytes]:
            yield await asyncio.to_thread(path.read_bytes)

        packed = tmp_path / "packed"
        with packed.open("wb") as target:
            await asyncio.to_thread(
                archive.write, elsewhere, target, origin=login_files.origin_of(simulator.url)
            )
        with pytest.raises(SnapshotRefused, match=r"damaged: .*MANIFEST"):
            await supervisor.bring(DEMO, pieces(packed), keep=True)
        await asyncio.to_thread(packed.write_bytes, os.urandom(10_000))
        with pytest.raises(SnapshotRefused):
            await supervisor.bring(DEMO, pieces(packed), keep=True)
        assert await supervisor.snapshots(DEMO) == []


async def test_an_export_can_be_imported_by_another_client_or_host(
    start: Daemon, simulator: Simulator, journal: Journal, tmp_path: Path
) -> None:
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        snapshot = await stopped(supervisor)
        files = {}
        for plain in (False, True):
            async with supervisor.snapshot_stream(DEMO, snapshot, plain=plain) as file:
                pieces = []
                while piece := await asyncio.to_thread(file.read, 10_000):
                    pieces.append(piece)
                files[plain] = b"".join(pieces)

        async def stream(data: bytes) -> AsyncIterator[bytes]:
            yield data

        with pytest.raises(SnapshotRefused, match="of another client"):
            await supervisor.bring(DEMO2, stream(files[False]), keep=True)
        with pytest.raises(LoginInUse, match="login of demo already"):
            await supervisor.bring(DEMO2, stream(files[True]), keep=True)
        await supervisor.cleanup(DEMO)
        brought = await supervisor.bring(DEMO2, stream(files[True]), keep=True)
        view = await supervisor.restore(DEMO2, brought.id, wait=Wait.CONNECTED)
        assert view.status is Status.CONNECTED
        with pytest.raises(LoginInUse, match="login of demo2 already"):
            await supervisor.bring(DEMO, stream(files[False]), keep=True)
        assert await supervisor.bring(DEMO2, stream(files[True]), keep=True), "its own once more"
        for asked in (supervisor.check_snapshot, supervisor.restore):
            with pytest.raises(LoginInUse, match="login of demo2 already"):
                await asked(DEMO, snapshot)


@pytest.mark.parametrize("how", ["runs", "stopped", "sealed", "lost"])
async def test_the_login_of_another_client_is_not_taken_over_and_only_the_admin_learns_whose_it_is(
    start: Daemon, simulator: Simulator, journal: Journal, sessions_dir: Path, how: str
) -> None:
    profile = {"at_rest": "sealed"} if how == "sealed" else {}
    api = {"clients": ["demo2"]}
    sections = {"whatsapp": {"url": simulator.url}, "page": QUICK, "profile": profile, "api": api}
    async with start(**sections) as (supervisor, url):
        await log_in(supervisor, simulator, DEMO)
        snapshot = await settled(journal)
        async with supervisor.snapshot_stream(DEMO, snapshot, plain=True) as file:
            body = await asyncio.to_thread(file.read)
        if how != "runs":
            await supervisor.disconnect(DEMO)
        if how == "lost":
            await asyncio.to_thread(shutil.rmtree, (sessions_dir / "demo" / "profile").resolve())
        tokens = json.loads((sessions_dir / ".tokens.json").read_text())
        for token_, tells in ((tokens["admin"], True), (tokens["clients"]["demo2"], False)):
            headers = {"Authorization": f"Bearer {token_}"}
            async with (
                aiohttp.ClientSession(url, headers=headers) as http,
                http.post("/v1/sessions/demo2/import", data=io.BytesIO(body)) as answer,
            ):
                said = await answer.json()
            assert (answer.status, said["code"]) == (409, "login_in_use")
            assert (said.get("client") == "demo", "of demo already" in said["detail"]) == (tells, tells)
            assert ("demo " in str(said)) is tells
        assert await supervisor.snapshots(DEMO2) == []
    assert "34600000000" not in str([event.fields for event in journal.events])


# --- the daemon dies ------------------------------------------------------------------------------------------------

DIES_WHILE_IT_HOLDS_THE_BROWSER = """
import asyncio, json, os, signal, sys
from waguard import daemon
from waguard.config.sections import Config
from waguard.core.model import ClientCode
from waguard.observe.bus import Bus
from waguard.session import custody

custody.Custody._copy = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with daemon.running(Config.model_validate(json.loads(sys.argv[1])), Bus()) as (supervisor, _):
        print((await supervisor.connect(ClientCode("demo"))).qr.text, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_daemon_that_dies_while_it_holds_a_browser_still_loses_no_login(
    start: Daemon, simulator: Simulator, sessions_dir: Path, journal: Journal
) -> None:
    sections = {"whatsapp": {"url": simulator.url}, "page": QUICK}
    config = {**sections, "sessions": {"dir": str(sessions_dir)}, "api": {"port": 0}}
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DIES_WHILE_IT_HOLDS_THE_BROWSER, json.dumps(config), stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    async with asyncio.timeout(60):
        simulator.scan((await victim.stdout.readline()).decode().strip(), "34600000000")
        assert await victim.wait() == -signal.SIGKILL, "it died when the login was on disk"
    launch = json.loads((sessions_dir / "demo" / "session.json").read_text())["launch"]
    init = launch["processes"][0]["pid"]
    stopped = [row for row in host.descendants(init, host.process_table()) if row.state == "T"]
    assert stopped, "its browser was left standing"
    async with start(**sections) as (supervisor, _):
        assert journal.named("reaper.killed")
        assert not list(sessions_dir.rglob("*.partial"))
        view = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        assert (view.status, view.profile) == (Status.CONNECTED, "kept")
    assert len(simulator.devices) == 1


async def test_a_login_after_a_logout_has_a_snapshot_of_its_own(
    start: Daemon, simulator: Simulator, journal: Journal
) -> None:
    async with start(whatsapp={"url": simulator.url}, page=QUICK) as (supervisor, _):
        await log_in(supervisor, simulator, DEMO)
        await settled(journal)
        await simulator.log_out(simulator.devices[0].wid)
        await until(lambda: supervisor.view(DEMO).qr is not None, "a code to scan", 20)
        simulator.scan(supervisor.qr(DEMO).text, "34600000000")
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        await settled(journal, count=2)
