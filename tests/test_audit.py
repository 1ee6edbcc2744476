"""The audit as a daemon keeps it: no record, no deed; and what is changed, removed or cut off afterwards is found."""

import asyncio
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from audits import DEMO, Alerts, acts, auditing, change, do, fill, head, records, some, stored, wrong
from conftest import Journal
from hanging_disk import hanging_disks
from waiting import until

from waguard.audit.audit import Bounds
from waguard.audit.chain import FILE, HEAD
from waguard.core.actor import Actor, ActorKind, acting
from waguard.core.audit import Anchor, Flaw, Kind, breaks
from waguard.core.model import Alert
from waguard.errors import AuditUnavailable, DiskFull


@pytest.fixture
def alerts() -> Alerts:
    return Alerts()


# --- what is recorded -----------------------------------------------------------------------------------------


async def test_an_act_is_on_disk_before_it_is_done_and_its_end_after(
    tmp_path: Path, journal: Journal, alerts: Alerts
) -> None:
    before: list[str] = []
    anchored: list[int] = []

    async def deed() -> None:
        before.extend(one.note.kind for one in await asyncio.to_thread(records, tmp_path))
        anchored.append((await asyncio.to_thread(head, tmp_path)).number)
        for outcome in ("done", "failed"):
            journal.bus.publish("cleanup.step", client=DEMO, step="tree", outcome=outcome, duration_ms=1.0)
        journal.bus.publish("session.qr_shown", client=DEMO)  # nobody's doing

    async with auditing(tmp_path, journal, alerts) as audit:
        await do(audit, 1, deed)
    assert (before, anchored) == ([Kind.BEGUN, Kind.ASKED], [2])
    begun, asked, done = records(tmp_path)
    assert begun.note.told["why"] == "It is the first record."
    assert (asked.note.act, asked.note.client) == ("cleanup", "demo")
    assert (asked.note.actor, asked.note.origin, asked.note.request) == ("token:crm#1", "127.0.0.1", "r1")
    assert asked.note.told == {"number": 1}
    assert (done.note.kind, done.note.outcome) == (Kind.DONE, "ok")
    assert [(one["event"], one["outcome"]) for one in done.note.told["events"]] == [
        ("cleanup.step", "done"),
        ("cleanup.step", "failed"),
    ]
    anchors = [(one.fields["number"], one.fields["hash"]) for one in journal.named("audit.recorded")]
    assert anchors == [(one.number, one.hash) for one in (begun, asked, done)]
    assert wrong(tmp_path) == []
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in (FILE, HEAD)} == {0o600}


async def test_an_act_that_fails_is_recorded_with_the_errors_code(
    tmp_path: Path, journal: Journal, alerts: Alerts
) -> None:
    async def full() -> None:
        raise DiskFull("There is no room.")

    async def mistaken() -> None:
        raise ValueError("of ours")

    async with auditing(tmp_path, journal, alerts) as audit:
        with pytest.raises(DiskFull):
            await do(audit, 1, full)
        with pytest.raises(ValueError, match="of ours"):
            await do(audit, 2, mistaken)
    ends = [one.end.note for one in acts(tmp_path) if one.end is not None]
    assert [(one.outcome, one.told["error"]) for one in ends] == [
        ("disk_full", "There is no room."),
        ("internal", "ValueError('of ours')"),
    ]


@pytest.mark.parametrize("stays", [True, False])
async def test_a_caller_that_hangs_up_leaves_no_act_without_an_end(
    tmp_path: Path, journal: Journal, alerts: Alerts, *, stays: bool
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def deed() -> None:
        begun.set()
        await go_on.wait()

    async with auditing(tmp_path, journal, alerts) as audit:
        asking = asyncio.create_task(do(audit, 1, deed, stays=stays))
        await begun.wait()
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        go_on.set()
    (act,) = acts(tmp_path)
    assert act.end is not None
    assert act.end.note.outcome == ("ok" if stays else "called_off")


async def test_an_act_that_does_not_end_with_the_daemon_is_called_off(
    tmp_path: Path, journal: Journal, alerts: Alerts
) -> None:
    begun = asyncio.Event()

    async def deed() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with auditing(tmp_path, journal, alerts, Bounds(end_s=1.0)) as audit:
        asking = asyncio.create_task(do(audit, 1, deed))
        await begun.wait()
    with suppress(asyncio.CancelledError):
        await asking
    (act,) = acts(tmp_path)
    assert act.end is not None
    assert act.end.note.outcome == "called_off"


async def test_what_the_daemon_does_by_itself_is_recorded(
    tmp_path: Path, journal: Journal, alerts: Alerts
) -> None:
    async with auditing(tmp_path, journal, alerts):
        with acting(Actor(ActorKind.SCHEDULE, "reap")):
            for action, outcome in (("delete", "done"), ("report", "reported"), ("kill", "failed")):
                journal.bus.publish(
                    "sweep.finding",
                    client=DEMO,
                    kind="expired",
                    subject="a\x1b[31m",
                    evidence="old",
                    action=action,
                    outcome=outcome,
                )
        journal.bus.publish("profile.deleted", profile="p1", why="the disk is full")
        journal.bus.publish("health.remedy", client=DEMO, fault="unpaired", remedy="fresh", outcome="failed")
        journal.bus.publish("health.remedy", client=DEMO, fault="unpaired", remedy="reload", outcome="failed")
    told = [(one.record.note.act, one.record.note.actor, one.record.note.outcome) for one in acts(tmp_path)]
    assert told == [
        ("sweep.finding", "schedule:reap", "done"),
        ("sweep.finding", "schedule:reap", "failed"),
        ("profile.deleted", "daemon", "ok"),
        ("health.remedy", "daemon", "failed"),
    ]
    assert acts(tmp_path)[0].record.note.told["subject"] == "a\\x1b[31m"
    assert acts(tmp_path)[0].record.note.client == "demo"


async def test_where_nothing_is_done_there_is_no_file(
    tmp_path: Path, journal: Journal, alerts: Alerts
) -> None:
    async with auditing(tmp_path, journal, alerts):
        pass
    assert list(tmp_path.iterdir()) == []
    assert not alerts[Alert.AUDIT_BROKEN]


async def test_the_next_daemon_goes_on_with_the_chain(
    tmp_path: Path, journal: Journal, alerts: Alerts
) -> None:
    for _ in range(2):
        await some(tmp_path, journal, alerts, 2)
    assert [one.number for one in records(tmp_path)] == [*range(1, 10)]
    assert [one.note.kind for one in records(tmp_path)].count(Kind.BEGUN) == 1
    assert wrong(tmp_path) == []
    assert not alerts[Alert.AUDIT_BROKEN]


# --- what is done to it afterwards ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (
            "UPDATE records SET record = replace(record, 'crm', 'cra') WHERE number = 4",
            (Flaw.CHANGED, 4, 4),
        ),
        ("DELETE FROM records WHERE number = 4", (Flaw.REMOVED, 4, 4)),
        ("DELETE FROM records WHERE number = 1", (Flaw.REMOVED, 1, 1)),
        ("DELETE FROM records WHERE number > 5", (Flaw.CUT_OFF, 6, 7)),
        ("DELETE FROM records", (Flaw.CUT_OFF, 1, 7)),
        ("UPDATE records SET number = 40 WHERE number = 7", (Flaw.CHANGED, 40, 40)),
    ],
)
async def test_what_was_changed_removed_or_cut_off_is_found_and_stays_found(
    tmp_path: Path, journal: Journal, alerts: Alerts, statement: str, found: tuple[Flaw, int, int]
) -> None:
    await some(tmp_path, journal, alerts)
    assert wrong(tmp_path) == []
    change(tmp_path, statement)
    assert found in wrong(tmp_path)
    assert not alerts[Alert.AUDIT_BROKEN]
    await some(tmp_path, journal, alerts)
    said = alerts[Alert.AUDIT_BROKEN]
    assert "waguard audit verify" in said
    assert str(found[1]) in said
    assert any(
        one.note.kind is Kind.BEGUN and str(found[1]) in one.note.told["why"] for one in records(tmp_path)
    )
    again = wrong(tmp_path)
    assert any(first <= found[1] <= last for _, first, last in again), again
    # An admin has been told: the next start is about what has come since.
    alerts.raised.clear()
    await some(tmp_path, journal, alerts)
    assert not alerts[Alert.AUDIT_BROKEN]
    assert wrong(tmp_path) == again


async def test_an_anchor_that_is_gone_or_of_another_chain_is_told(
    tmp_path: Path, journal: Journal, alerts: Alerts
) -> None:
    await some(tmp_path, journal, alerts)
    (tmp_path / HEAD).unlink()
    await some(tmp_path, journal, alerts)
    assert "anchor is not there" in alerts[Alert.AUDIT_BROKEN]
    number = head(tmp_path).number
    (tmp_path / HEAD).write_text(f"{Anchor(number, 'f' * 64)}\n")
    await some(tmp_path, journal, alerts)
    assert f"record {number} is not the one" in alerts[Alert.AUDIT_BROKEN]
    assert (Flaw.CHANGED, number, number) in wrong(tmp_path)


async def test_a_daemon_that_died_before_it_could_anchor_a_record_goes_on(
    tmp_path: Path, journal: Journal, alerts: Alerts
) -> None:
    await some(tmp_path, journal, alerts, 1)
    before = (tmp_path / HEAD).read_text()
    await some(tmp_path, journal, alerts, 1)
    (tmp_path / HEAD).write_text(before)
    async with auditing(tmp_path, journal, alerts):
        pass
    assert head(tmp_path).number == 5
    assert wrong(tmp_path) == []
    assert not alerts[Alert.AUDIT_BROKEN]


@pytest.mark.parametrize("how", ["cut", "zeros", "nonsense", "directory"])
async def test_a_damaged_file_is_put_aside_and_a_new_chain_says_so(
    tmp_path: Path, journal: Journal, alerts: Alerts, how: str
) -> None:
    await some(tmp_path, journal, alerts, 60)
    path, size = tmp_path / FILE, (tmp_path / FILE).stat().st_size
    last = head(tmp_path).number
    match how:
        case "cut":
            with path.open("r+b") as file:
                file.truncate(size // 2)
        case "zeros":
            path.write_bytes(path.read_bytes()[:4096] + bytes(size - 4096))
        case "nonsense":
            path.write_bytes(b"no database" * 1000)
        case _:
            path.unlink()
            path.mkdir()
    await some(tmp_path, journal, alerts, 1)
    (event,) = journal.named("audit.unreadable")
    kept_as = Path(event.fields["kept_as"])
    assert kept_as.exists()
    assert kept_as.parent == tmp_path
    assert kept_as.name in alerts[Alert.AUDIT_BROKEN]
    begun, *_ = records(tmp_path)
    assert (begun.number, begun.note.kind) == (last + 1, Kind.BEGUN)
    assert kept_as.name in begun.note.told["why"]
    assert wrong(tmp_path) == [(Flaw.REMOVED, 1, last)]
    assert breaks(stored(tmp_path), [head(tmp_path)], since=last + 1) == []


async def test_a_newer_versions_file_is_left_alone_and_nothing_is_done(
    tmp_path: Path, journal: Journal, alerts: Alerts
) -> None:
    await some(tmp_path, journal, alerts)
    with closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("PRAGMA user_version = 2")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done: list[int] = []

    async def deed() -> None:
        done.append(1)

    async with auditing(tmp_path, journal, alerts) as audit:
        with pytest.raises(AuditUnavailable, match="newer waguard"):
            await do(audit, 1, deed)
        assert not done
        await do(audit, 2, deed, must=False)
        assert done
        assert "newer waguard" in alerts[Alert.AUDIT_UNAVAILABLE]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(journal.named("audit.too_new")) == 1
    assert [one.fields["records"] for one in journal.named("audit.lost")] == [4]


# --- no record, no deed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_the_start", [True, False])
async def test_on_a_full_disk_nothing_is_done_that_cannot_be_undone(
    disk: Path, journal: Journal, alerts: Alerts, *, at_the_start: bool
) -> None:
    done: list[str] = []

    async def must_not() -> None:
        done.append("must not")

    async def may() -> None:
        done.append("may")

    if at_the_start:
        fill(disk)
    async with auditing(disk, journal, alerts) as audit:
        if not at_the_start:
            await do(audit, 0)
            fill(disk)
        with pytest.raises(
            AuditUnavailable, match=r"nothing was done\. .*(full|No space left|unable to open)"
        ):
            await do(audit, 1, must_not)
        await do(audit, 2, may, must=False)
        assert done == ["may"]
        assert "refused" in alerts[Alert.AUDIT_UNAVAILABLE]
        (disk / "filler").unlink()
        await until(lambda: not audit._left)
        await do(audit, 3)
        assert not alerts[Alert.AUDIT_UNAVAILABLE]
    told = {one.record.note.request: one.end and one.end.note.outcome for one in acts(disk)}
    assert told == {
        **({} if at_the_start else {"r0": "ok"}),
        "r1": "audit_unavailable",
        "r2": "ok",
        "r3": "ok",
    }
    assert wrong(disk) == []
    assert len(journal.named("audit.write_failed")) == 1
    assert len(journal.named("audit.recovered")) == 1


async def test_somebody_else_who_holds_the_file_is_a_reason_too(
    tmp_path: Path, journal: Journal, alerts: Alerts
) -> None:
    async with auditing(tmp_path, journal, alerts) as audit:
        await do(audit, 0)
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(AuditUnavailable, match="database is locked"):
                await do(audit, 1)
        await do(audit, 2)
        await until(lambda: not audit._left)
    told = {one.record.note.request: one.end and one.end.note.outcome for one in acts(tmp_path)}
    assert told == {"r0": "ok", "r1": "audit_unavailable", "r2": "ok"}
    assert wrong(tmp_path) == []


async def test_a_disk_that_hangs_is_not_waited_for(tmp_path: Path, journal: Journal, alerts: Alerts) -> None:
    root = tmp_path / "root"
    root.mkdir()
    done: list[int] = []

    async def deed() -> None:
        done.append(1)

    bounds = Bounds(write_s=0.3, retry_s=0.02, end_s=2.0)
    with hanging_disks(root) as (disk,):
        async with auditing(root, journal, alerts, bounds) as audit:
            await do(audit, 0, deed)
            disk.hang()
            with pytest.raises(
                AuditUnavailable, match=r"not written within 0\.3 s: its disk does not answer"
            ):
                await do(audit, 1, deed)
            with pytest.raises(AuditUnavailable, match="does not answer"):  # at once
                await do(audit, 2, deed)
            await do(audit, 3, deed, must=False)
            assert len(done) == 2
            disk.answer()
            await until(lambda: not audit._left)
            await do(audit, 4, deed)
        told = {one.record.note.request: one.end and one.end.note.outcome for one in acts(root)}
        assert told == {
            "r0": "ok",
            **dict.fromkeys(("r1", "r2"), "audit_unavailable"),
            "r3": "ok",
            "r4": "ok",
        }
        assert wrong(root) == []


async def test_what_could_not_be_written_at_the_end_is_counted(
    disk: Path, journal: Journal, alerts: Alerts
) -> None:
    async with auditing(disk, journal, alerts) as audit:
        fill(disk)
        await do(audit, 1, must=False)
    (event,) = journal.named("audit.lost")
    assert event.fields["records"] == 2
    shutil.rmtree(disk, ignore_errors=True)


WRITER = """
import asyncio, sys
from pathlib import Path
from waguard.audit.audit import Audit, Wish
from waguard.core.actor import Actor, ActorKind, acting
from waguard.core.model import ClientCode
from waguard.observe.bus import Bus

async def main():
    bus = Bus()
    audit = Audit(Path(sys.argv[1]), bus, lambda alert, text: print(alert, text, flush=True) if text else None)
    await audit.start()

    async def deed():
        print("did", number, flush=True)

    for number in range(10_000):
        with acting(Actor(ActorKind.TOKEN, "crm", "", f"{sys.argv[2]}.{number}")):
            await audit.doing(Wish("cleanup", ClientCode("demo"), {}, True), deed, lambda told: ("ok", {}), stays=True)
        print("ended", number, flush=True)

asyncio.run(main())
"""


async def test_a_daemon_that_is_killed_at_any_moment_leaves_a_chain_that_is_whole(
    in_memory: Path, journal: Journal, alerts: Alerts
) -> None:
    for turn in range(6):  # each goes on with what the one before has left
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(in_memory), str(turn)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(20)]
        await asyncio.sleep(random.uniform(0, 0.02))
        process.kill()
        said += process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        assert {one.split()[0] for one in said if one.strip()} <= {"did", "ended"}, said
        by_request = {one.record.note.request: one.end for one in acts(in_memory)}
        for one in said:
            if len(words := one.split()) == 2 and words[1].isdecimal():  # the last one may be torn
                end = by_request[f"{turn}.{words[1]}"]  # no deed without a record
                assert words[0] == "did" or end is not None
        assert {flaw for flaw, _, _ in wrong(in_memory)} <= {Flaw.ADDED}  # what no anchor could have yet
    await some(in_memory, journal, alerts, 1)
    assert wrong(in_memory) == []
    assert not alerts[Alert.AUDIT_BROKEN]
    assert sum(one.end is None for one in acts(in_memory)) <= 6
