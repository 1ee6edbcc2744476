"""A mistake of ours has its trace in the log, wherever it is made, and ends nothing that was to go on."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Daemon, Journal
from waiting import until

from waguard.core.model import ClientCode
from waguard.errors import NotReady, SnapshotFailed, StorageFailed, StorageHangs
from waguard.observe.bus import Event
from waguard.profile.store import Profiles
from waguard.session.login import ClientLogin
from waguard.supervisor.supervisor import Supervisor
from waguard.system import host, tasks
from waguard.system.tasks import background
from waguard.system.threads import in_thread, working_for
from waguard.upkeep.keeper import Keeper
from waguard.upkeep.sweep.sweeper import Sweeper

DEMO = ClientCode("demo")
LOGIN = {"settle_s": 0.05}


def stumble(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("ours")


def taken(journal: Journal, where: str) -> list[Event]:
    """The mistakes of one place, which must not fail the test any more."""
    found = [one for one in journal.named("internal.error") if one.fields["where"] == where]
    for one in found:
        journal.events.remove(one)
    return found


# --- in the background ----------------------------------------------------------------------------------------


async def test_what_ends_a_task_is_told_with_its_trace(journal: Journal) -> None:
    async def work() -> None:
        stumble()

    await background(work, "odd job", journal.bus.publish)
    (told,) = taken(journal, "odd job")
    assert (told.level, told.fields["error"]) == ("error", "ZeroDivisionError('ours')")
    assert "in stumble" in told.fields["trace"]


async def test_what_is_to_go_on_goes_on_and_tells_the_same_once(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_AGAIN_S", 0.001)
    raised: list[Exception] = [ZeroDivisionError("a"), ZeroDivisionError("a"), ZeroDivisionError("b")]
    raised += [NotReady("Not yet."), OSError(24, "Too many open files")]

    async def work() -> None:
        if raised:
            raise raised.pop(0)

    await background(work, "odd job", journal.bus.publish, again=True)
    assert not raised
    assert [one.fields["error"] for one in taken(journal, "odd job")] == [
        "ZeroDivisionError('a')",
        "ZeroDivisionError('b')",
    ]
    # What is foreseen needs no trace.
    known = [(one.fields["code"], "trace" in one.fields) for one in journal.named("task.failed")]
    assert known == [("not_ready", False), ("limit_reached", False)]


async def test_a_task_that_is_cancelled_is_no_mistake(journal: Journal) -> None:
    task = background(asyncio.Event().wait, "odd job", journal.bus.publish, again=True)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert journal.events == []


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), OSError(5, "Input/output error")])
async def test_the_look_at_the_disk_goes_on_after_a_mistake(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Else the alert would stand, or not, for as long as the daemon lives."""
    monkeypatch.setattr(tasks, "_AGAIN_S", 0.01)
    free: list[int | Exception] = [error, error, 0]

    def free_mb(_: Path) -> int:
        found = free.pop(0) if len(free) > 1 else free[0]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(host, "free_disk_mb", free_mb)
    async with pose(limits={"reserve_disk_mb": 10}):
        await until(lambda: any(one.fields["alert"] == "disk_full" for one in journal.named("alert.raised")))
    (told,) = taken(journal, "disk")
    assert "in free_mb" in told.fields["trace"]


async def test_a_snapshot_that_is_due_is_made_after_a_mistake(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_AGAIN_S", 0.01)
    errors: list[Exception] = [StorageFailed("Cannot read it now."), ZeroDivisionError("ours")]
    settle = ClientLogin.settle

    async def settling(login: ClientLogin, limit_s: float) -> None:
        if errors:
            raise errors.pop(0)
        await settle(login, limit_s)

    monkeypatch.setattr(ClientLogin, "settle", settling)
    async with pose("connected", snapshots=LOGIN) as (supervisor, _):
        await supervisor.connect(DEMO)
        await until(lambda: journal.named("snapshot.taken"))
    assert [one.fields["code"] for one in journal.named("task.failed")] == ["storage_failed"]
    (told,) = taken(journal, "demo:settle")
    assert "in settling" in told.fields["trace"]


# --- what becomes an answer or a finding -----------------------------------------------------------------------


async def scheduled(supervisor: Supervisor) -> None:
    await supervisor.schedule.run_now("reap")


async def saved(supervisor: Supervisor) -> None:
    await supervisor.connect(DEMO)
    with pytest.raises(SnapshotFailed):
        await supervisor.keeper.take_all()


async def cleaned(supervisor: Supervisor) -> None:
    await supervisor.connect(DEMO)
    report = await supervisor.cleanup(DEMO)
    assert not report.ok


async def reaped(supervisor: Supervisor) -> None:
    half = supervisor._config.sessions.dir / ".profiles" / "odd.01234567.partial"
    await in_thread(half.mkdir)
    sweep = await supervisor.sweeper.sweep(starting=True)
    assert "failed" in {one.outcome for one in sweep.findings}


MISTAKES: dict[str, tuple[type, str, Callable[[Supervisor], Awaitable[None]]]] = {
    "schedule.reap": (Sweeper, "sweep", scheduled),
    "snapshot": (Keeper, "take", saved),
    "cleanup.profile": (Profiles, "retire", cleaned),
    "sweep.half_written": (Profiles, "partials", reaped),
}


@pytest.mark.parametrize("where", MISTAKES)
async def test_what_becomes_an_answer_is_told_with_its_trace(
    pose: Daemon, journal: Journal, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    owner, name, asked = MISTAKES[where]
    async with pose("connected") as (supervisor, _):
        if where == "sweep.half_written":
            monkeypatch.setattr("waguard.upkeep.sweep.leftovers.remove_tree", stumble)
        else:
            monkeypatch.setattr(owner, name, stumble)
        await asked(supervisor)
        monkeypatch.undo()
    (told,) = taken(journal, where)
    assert "in stumble" in told.fields["trace"]
    taken(journal, "sweep")  # the one at the start may have met it too


async def test_who_looks_on_looks_again_when_the_disk_answers(pose: Daemon, journal: Journal) -> None:
    disk, began = threading.Event(), threading.Event()
    looks = 0

    def hang() -> None:
        began.set()
        disk.wait()

    async def look() -> None:
        nonlocal looks
        looks += 1
        await in_thread(disk.is_set)

    async with pose("ok") as (supervisor, _):
        await supervisor.connect(DEMO)
        try:
            with working_for(DEMO):
                left = asyncio.create_task(in_thread(hang))
                await until(began.is_set, "in the thread")
                left.cancel()
                await asyncio.wait([left])  # it is left behind, and nothing of the client is asked meanwhile
                with pytest.raises(StorageHangs):
                    await in_thread(disk.is_set)
                looking = supervisor._sessions[DEMO]._crew.look_on(look, "look")
            await until(lambda: looks > 1, "looked again")
            assert not looking.done()
        finally:
            disk.set()
        async with asyncio.timeout(20):
            await looking
        assert not journal.named("internal.error")
