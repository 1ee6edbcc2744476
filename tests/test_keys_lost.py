"""Keys that are gone while there are snapshots: an alert, and no snapshot with another key, unless somebody says so."""

from pathlib import Path

import pytest
from conftest import Daemon
from control_port import ADMIN, API

from waguard.core.model import Alert, ClientCode
from waguard.errors import SnapshotFailed, SnapshotRefused
from waguard.supervisor.supervisor import Supervisor

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
QUICK = {"settle_s": 0.2, "keep_last": 10}


def lost(supervisor: Supervisor) -> list[str]:
    return [one.text for one in supervisor.alerts() if one.alert is Alert.KEYS_LOST]


async def saved(pose: Daemon, code: ClientCode = DEMO) -> str:
    async with pose("connected", snapshots=QUICK) as (supervisor, _):
        await supervisor.connect(code)
        return (await supervisor.snapshot(code)).id


def other(keys: Path) -> None:
    """A key that is valid, and not the one."""
    keys.write_text("A" * 43 + "=\n")
    keys.chmod(0o600)


@pytest.mark.parametrize("gone", [True, False])
async def test_no_snapshot_is_taken_with_a_key_that_does_not_open_the_others(
    pose: Daemon, sessions_dir: Path, *, gone: bool
) -> None:
    snapshot = await saved(pose)
    keys = sessions_dir / ".backup.keys"
    copy = keys.read_bytes()
    keys.unlink()
    if not gone:
        other(keys)
    for _ in range(2):
        async with pose("connected", snapshots=QUICK) as (supervisor, _):
            (text,) = lost(supervisor)
            assert str(keys) in text
            assert "demo" in text
            assert "snapshots.without_old_keys = true" in text
            await supervisor.connect(DEMO)
            with pytest.raises(SnapshotFailed, match=r"is missing|not there any more") as caught:
                await supervisor.snapshot(DEMO)
            assert "Restore your copy of the keys" in caught.value.hint
            with pytest.raises(SnapshotRefused, match="sealed with the key"):
                await supervisor.check_snapshot(DEMO, snapshot)
            await supervisor.cleanup(DEMO)
    assert keys.exists() is not gone, "none is made in its place"
    keys.write_bytes(copy)
    keys.chmod(0o600)
    async with pose("connected", snapshots=QUICK) as (supervisor, _):
        assert not lost(supervisor)
        assert (await supervisor.check_snapshot(DEMO, snapshot)).id == snapshot


async def test_who_says_so_goes_on_with_a_new_key(pose: Daemon, sessions_dir: Path) -> None:
    snapshot = await saved(pose)
    (sessions_dir / ".backup.keys").unlink()
    async with pose("connected", snapshots={**QUICK, "without_old_keys": True}) as (supervisor, _):
        assert not lost(supervisor)
        await supervisor.connect(DEMO)
        made = (await supervisor.snapshot(DEMO)).id
        assert (await supervisor.check_snapshot(DEMO, made)).id == made
        assert snapshot in [one.id for one in await supervisor.snapshots(DEMO)], (
            "kept, for a key that is found yet"
        )


async def test_keys_that_were_rotated_are_not_lost(pose: Daemon, sessions_dir: Path) -> None:
    snapshot = await saved(pose)
    keys = sessions_dir / ".backup.keys"
    old = keys.read_text()
    other(keys)
    keys.write_text(keys.read_text() + old)
    async with pose("connected", snapshots=QUICK) as (supervisor, _):
        assert not lost(supervisor)
        await supervisor.connect(DEMO)
        await supervisor.snapshot(DEMO)
        assert (await supervisor.check_snapshot(DEMO, snapshot)).id == snapshot


async def test_the_first_start_makes_a_key(pose: Daemon, sessions_dir: Path) -> None:
    async with pose(api={**API, "admin_token": ADMIN}) as (supervisor, _):
        assert not lost(supervisor)
    assert (sessions_dir / ".backup.keys").stat().st_mode & 0o777 == 0o600
