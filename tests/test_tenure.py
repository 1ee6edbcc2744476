"""A client is one daemon's: whoever has lost it stops, and writes nothing."""

import asyncio
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import Daemon, Journal

from waguard.core.model import ClientCode, Process
from waguard.errors import AlreadyRunning, TenureLost
from waguard.session.tenure import Ownership

DEMO = ClientCode("demo")
QUICK = {"poll_s": 0.05}


def everything(root: Path) -> dict[Path, bytes]:
    """What the daemon writes about its clients and their profiles."""
    found = [*root.glob("*/session.json"), *root.glob(".profiles/*.json"), *root.glob(".backups/*/*")]
    return {path: path.read_bytes() for path in found}


def test_there_is_one_owner_and_its_tenures_end_with_it(tmp_path: Path) -> None:
    ownership = Ownership.take(tmp_path)
    tenure = ownership.tenure(DEMO)
    ownership.check(tenure)
    with pytest.raises(AlreadyRunning):
        Ownership.take(tmp_path)
    ownership.give_up()
    with pytest.raises(TenureLost):
        ownership.check(tenure)
    Ownership.take(tmp_path).give_up()


def test_what_a_killed_daemon_was_starting_is_waited_for(tmp_path: Path) -> None:
    """It has the lock until it is the program that was to be started."""
    killed = Ownership.take(tmp_path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[killed._lock_fd]) as started:
        killed.give_up()
        assert started.stdin is not None
        ends = threading.Timer(0.1, started.stdin.close)
        ends.start()
        Ownership.take(tmp_path).give_up()
        ends.join()


async def test_a_session_whose_tenure_is_lost_stops_and_writes_nothing(
    pose: Daemon, journal: Journal, sessions_dir: Path
) -> None:
    async with pose("connected", page=QUICK) as (supervisor, _):
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        before = everything(sessions_dir)
        supervisor._resources.ownership.give_up()
        for writes in (session.copies.prune(0), session.copies.copy(sessions_dir / "copy", "request")):
            with pytest.raises(TenureLost):
                await writes
        with pytest.raises(TenureLost):
            await supervisor.restart(DEMO)
        async with asyncio.timeout(20):
            await session.until(lambda: session.state.process is Process.DOWN)
        assert session.browser_pids == ()
        with pytest.raises(TenureLost):
            await supervisor.connect(DEMO)
        refused = journal.named("registry.write_failed")
        assert refused
        assert {event.fields["code"] for event in refused} == {"tenure_lost"}
    assert everything(sessions_dir) == before
