"""A login is of one page: another `whatsapp.url` on the same sessions damages nothing, and the first finds its login again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from bare_browser import BINARY
from clients import logged_in
from conftest import Daemon, Journal
from hypothesis import given
from hypothesis import strategies as st

from waguard.core.model import ClientCode, Reason, Status, Verdict, Wait
from waguard.errors import SnapshotNotFound, SnapshotRefused
from waguard.profile import login_files
from waguard.session.registry import Elsewhere, Record
from waguard.simulator.server import Cadence, Simulator

DEMO = ClientCode("demo")
HERE, THERE = "https_web.whatsapp.com_0", "http_127.0.0.1_8766"
_flags = {"login": st.booleans(), "marked": st.booleans(), "unsaved": st.booleans(), "restored": st.text()}


@given(st.builds(Record, ended=st.sampled_from([None, Reason.LOGGED_OUT]), **_flags))
def test_whoever_comes_back_finds_what_was_known(record: Record) -> None:
    here = record.at(HERE)
    there = here.at(THERE)
    assert (there.login, there.marked, there.unsaved, there.restored, there.ended) == (
        False,
        False,
        False,
        "",
        None,
    )
    assert there.at(HERE) == here
    left = Elsewhere(record.login, record.marked, record.unsaved, record.ended, record.restored)
    assert list(there.elsewhere) == ([HERE] if left != Elsewhere() else [])


@pytest.fixture
async def pages() -> AsyncIterator[tuple[Simulator, Simulator]]:
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(Simulator(cadence=Cadence(sync_s=0.05))) for _ in range(2)
        ]
        yield first, second


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
async def test_another_page_is_no_damage_and_the_first_has_its_login_still(
    start: Daemon, pages: tuple[Simulator, Simulator], sessions_dir: Path, journal: Journal
) -> None:
    first, second = pages
    async with start(whatsapp={"url": first.url}) as (supervisor, _):
        profile = await logged_in(supervisor, first, sessions_dir)
        snapshot = (await supervisor.snapshot(DEMO)).id
    assert json.loads((sessions_dir / "demo" / "session.json").read_bytes())["marked"] is True
    async with start(whatsapp={"url": second.url}) as (supervisor, _):
        view = await supervisor.connect(DEMO)
        assert (view.status, view.profile) == (Status.AWAITING_SCAN, "kept")
        assert view.check is not None
        assert view.check.verdict is Verdict.SUSPECT
        assert login_files.address_of(login_files.origin_of(first.url)) in view.check.why
        assert view.qr is not None
        for ask in (supervisor.restore, supervisor.check_snapshot):
            with pytest.raises(SnapshotRefused, match="It has a login of"):
                await ask(DEMO, snapshot)
        async with supervisor.snapshot_stream(DEMO, snapshot, plain=True) as file:
            assert (
                await asyncio.to_thread(file.read, 4) == b"\x28\xb5\x2f\xfd"
            )  # what cannot be restored here can still be taken elsewhere
        with pytest.raises(SnapshotNotFound, match="no snapshot with a login of"):
            await supervisor.restore(DEMO, "newest")
        view = await supervisor.connect(DEMO)
        assert view.qr is not None
        second.scan(view.qr.text, "34600000001")
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        theirs = (await supervisor.snapshot(DEMO)).id
    for page, mine in ((first, snapshot), (second, theirs), (first, snapshot)):
        async with start(whatsapp={"url": page.url}) as (supervisor, _):
            view = await supervisor.connect(DEMO, wait=Wait.CONNECTED)
            assert (view.status, view.profile) == (Status.CONNECTED, "kept")
            assert mine in [one.id for one in await supervisor.snapshots(DEMO) if not one.refused]
    assert (sessions_dir / "demo" / "profile").resolve() == profile
    assert not list((sessions_dir / ".retired").iterdir())
    assert [event.client for event in journal.named("login.elsewhere")][:1] == [DEMO]
    for name in ("profile.damaged", "login.lost", "snapshot.login_refused"):
        assert not journal.named(name), name


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed")
async def test_what_is_dropped_on_another_page_is_saved_for_each(
    start: Daemon, pages: tuple[Simulator, Simulator], sessions_dir: Path
) -> None:
    first, second = pages
    async with start(whatsapp={"url": first.url}) as (supervisor, _):
        await logged_in(supervisor, first, sessions_dir)
    async with start(whatsapp={"url": second.url}) as (supervisor, _):
        await supervisor.connect(DEMO)
        await supervisor.cleanup(DEMO)
        await supervisor.reap(dry_run=False)
        assert [one.login for one in await supervisor.snapshots(DEMO) if one.reason == "cleanup"] == [True]
    async with start(whatsapp={"url": first.url}) as (supervisor, _):
        await supervisor.restore(DEMO, "newest")
        assert (await supervisor.connect(DEMO, wait=Wait.CONNECTED)).status is Status.CONNECTED
