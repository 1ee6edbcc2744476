"""Which snapshots stay, and what is saved of a profile that was put aside."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audits import acts
from conftest import Daemon, Journal
from snapshots import ABOUT
from waiting import until

from waguard.core.model import ClientCode, Wait
from waguard.profile.generation import Retired

DEMO = ClientCode("demo")
ONE = {"keep_last": 1, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0}


@pytest.mark.parametrize(
    "sections",
    [{"snapshots": ONE}, {"clients": {"demo": {f"snapshots_{key}": value for key, value in ONE.items()}}}],
    ids=["for all", "for the client"],
)
async def test_snapshots_without_a_login_push_none_out_that_has_one(
    pose: Daemon, tmp_path: Path, sessions_dir: Path, journal: Journal, sections: dict[str, Any]
) -> None:
    async with pose("ok", **sections) as (supervisor, _):
        snapshots = supervisor._resources.snapshots
        lines = [replace(ABOUT, taken_at=at, generation=f"20260101T000000-0000000{at}") for at in (1, 2)]
        (tmp_path / "empty").mkdir()
        made = [
            await asyncio.to_thread(snapshots.take, threading.Event(), tmp_path / "empty", about)
            for about in lines
        ]
        await supervisor.connect(DEMO)
        taken = [await supervisor.snapshot(DEMO) for _ in range(3)]
        gone, last = [made[0].id, *(one.id for one in taken)], taken[-1]
        assert not last.login
        assert [one.id for one in await supervisor.snapshots(DEMO)] == [last.id, made[1].id]
    assert [one.fields["snapshot"] for one in journal.named("snapshot.deleted")] == gone[:-1]
    recorded = [one.record.note for one in acts(sessions_dir) if one.record.note.act == "snapshot.deleted"]
    assert [(one.client, one.told["snapshot"]) for one in recorded] == [("demo", one) for one in gone[:-1]]


async def test_while_a_clients_settings_cannot_be_read_no_snapshot_is_deleted(pose: Daemon) -> None:
    async with pose("ok", snapshots=ONE) as (supervisor, _):
        await supervisor.connect(DEMO)
        supervisor.settings._unread[DEMO] = "It cannot be understood."
        taken = {(await supervisor.snapshot(DEMO)).id for _ in range(2)}
        assert {one.id for one in await supervisor.snapshots(DEMO)} == taken


async def test_of_a_damaged_profile_whatever_is_left_is_saved(pose: Daemon, tmp_path: Path) -> None:
    async with pose("ok") as (supervisor, _):
        part = tmp_path / "Default" / "Local Storage" / "leveldb"
        part.mkdir(parents=True)
        (part / "000003.log").write_bytes(b"what is left")
        for reason, worth in (("damaged", True), ("cleanup", False)):
            retired = Retired(tmp_path, "demo", "20260101T000000-01234567", reason, saved=False, since=1.0)
            assert bool(await asyncio.to_thread(supervisor.keeper._worth_saving, retired)) is worth


@pytest.mark.parametrize("scheduled", [True, False])
async def test_whether_the_schedule_takes_snapshots_is_each_clients_own(
    pose: Daemon, journal: Journal, scheduled: bool
) -> None:
    sections = {"clients": {"demo": {"snapshots_scheduled": scheduled}}, "snapshots": {"settle_s": 0.01}}
    async with pose("connected", **sections) as (supervisor, _):
        await supervisor.connect(DEMO, wait=Wait.CONNECTED)
        await until(lambda: supervisor._sessions[DEMO].login.held)
        await supervisor.keeper.take_all()
    tried = [*journal.named("snapshot.taken"), *journal.named("snapshot.failed")]
    assert ("schedule" in [one.fields["reason"] for one in tried]) is scheduled
