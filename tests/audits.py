"""The audit of a daemon, from outside: what is stored, what somebody changes in it, and acts as an earlier daemon left them."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

from conftest import Journal

from waguard.audit.audit import Audit, Bounds, Ended, Wish
from waguard.audit.chain import FILE, HEAD
from waguard.core.actor import Actor, ActorKind, acting
from waguard.core.audit import Anchor, Flaw, Kind, Record, RecordedAct, Row, breaks, deeds, record_of
from waguard.core.model import Alert, ClientCode

DEMO = ClientCode("demo")
QUICK = Bounds(write_s=5.0, retry_s=0.02, busy_s=0.02, end_s=2.0)


def stored(root: Path) -> list[Row]:
    """The newest first."""
    if not (root / FILE).exists():
        return []
    with closing(sqlite3.connect(root / FILE)) as db:
        found = db.execute("SELECT number, hash, record FROM records ORDER BY number DESC").fetchall()
    return [Row(*one) for one in found]


def records(root: Path) -> Sequence[Record]:
    """The oldest first."""
    return [one for row in reversed(stored(root)) if (one := record_of(row)) is not None]


def head(root: Path) -> Anchor:
    found = Anchor.parse((root / HEAD).read_text())
    assert found is not None
    return found


def wrong(root: Path) -> Sequence[tuple[Flaw, int, int]]:
    return [(one.flaw, one.first, one.last) for one in breaks(stored(root), [head(root)])]


def acts(root: Path) -> Sequence[RecordedAct]:
    """The oldest first, without what says that a chain begins."""
    told = [*deeds(reversed(records(root)))][::-1]
    return [one for one in told if one.record.note.kind is not Kind.BEGUN]


def change(root: Path, *statements: str) -> None:
    """By somebody who has the file."""
    with closing(sqlite3.connect(root / FILE)) as db:
        for one in statements:
            assert db.execute(one).rowcount > 0
        db.commit()


class Alerts:
    def __init__(self) -> None:
        self.raised: dict[Alert, str] = {}

    def set(self, alert: Alert, text: str) -> None:
        self.raised[alert] = text

    def __getitem__(self, alert: Alert) -> str:
        return self.raised.get(alert, "")


@asynccontextmanager
async def auditing(
    root: Path, journal: Journal, alerts: Alerts, bounds: Bounds = QUICK
) -> AsyncIterator[Audit]:
    audit = Audit(root, journal.bus, alerts.set, bounds=bounds)
    await audit.start()
    journal.bus.subscribe(audit.heard)
    yield audit
    await audit.close()


async def nothing() -> None:
    pass


async def do(
    audit: Audit,
    number: int,
    deed: Callable[[], Awaitable[object]] = nothing,
    *,
    must: bool = True,
    stays: bool = True,
) -> None:
    def ended(_told: object) -> Ended:
        return "ok", {}

    with acting(Actor(ActorKind.TOKEN, "crm#1", "127.0.0.1", f"r{number}")):
        await audit.doing(Wish("cleanup", DEMO, {"number": number}, must), deed, ended, stays=stays)


async def some(root: Path, journal: Journal, alerts: Alerts, count: int = 3) -> None:
    """As an earlier daemon would have left them: record 1 says that the chain begins, 2 and 3 are of an act, and so on."""
    async with auditing(root, journal, alerts) as audit:
        for number in range(count):
            await do(audit, number)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
