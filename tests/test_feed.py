"""The feed of events: what is told whom, where a reader is in it, and that it finds what it has missed."""

import asyncio
import itertools
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Journal
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

from waguard.config.sections import Config
from waguard.core.access import ADMIN, Caller, Scope, of_client
from waguard.core.feed import KINDS, TOLD, Place, Told, Wish
from waguard.core.model import ClientCode
from waguard.errors import Forbidden, HistoryFailed, InvalidRequest
from waguard.history import feed
from waguard.history.database import FILE
from waguard.history.feed import Feed, Reader
from waguard.history.history import Bounds, History
from waguard.history.learned import Learned

DEMO, DEMO2 = ClientCode("demo"), ClientCode("demo2")
READS_ALL = Caller(frozenset({Scope.READ}), None, "monitor")
NOW = 1_795_000_000.0


# --- what is wanted, by whom --------------------------------------------------------------------------------


@given(st.integers(1, 2**31 - 1), st.integers(0, 2**62))
def test_a_place_is_found_again_by_its_id(history: int, number: int) -> None:
    assert Place.of(str(Place(history, number))) == Place(history, number)


@pytest.mark.parametrize(
    "text", ["", "1", "-1", "g-1", "1-", "1-01", "1--1", "1-1\n", "1-1 ", "123456789-1", "é-1"]
)
def test_what_is_no_id_gets_a_clear_answer(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not the id of an event"):
        Place.of(text)


def test_what_is_no_event_gets_a_clear_answer() -> None:
    with pytest.raises(InvalidRequest, match=r"There is no event 'session.chnaged'\.") as caught:
        Wish.of(ADMIN, [], ["session.chnaged"])
    assert "session.changed" in caught.value.hint
    with pytest.raises(InvalidRequest) as caught:
        Wish.of(ADMIN, [], ["zzz"])
    assert "Did you mean" not in caught.value.hint


def test_who_may_ask_for_whom() -> None:
    assert Wish.of(of_client(DEMO), [DEMO], []).wants(DEMO, "session.changed")
    with pytest.raises(Forbidden):
        Wish.of(of_client(DEMO), [DEMO2], [])


@given(
    st.sampled_from([ADMIN, READS_ALL, of_client(DEMO), Caller(frozenset(Scope), frozenset({DEMO, DEMO2}))]),
    st.sets(st.sampled_from([DEMO, DEMO2])),
    st.sets(st.sampled_from([*TOLD, *KINDS])),
    st.sampled_from(["", DEMO, DEMO2, "other"]),
    st.sampled_from(sorted(TOLD)),
)
def test_nobody_is_told_what_is_none_of_its_business(
    caller: Caller, clients: set[ClientCode], kinds: set[str], client: str, name: str
) -> None:
    told = Wish(caller, frozenset(clients), frozenset(kinds)).wants(client, name)
    if client:
        assert not (told and not caller.may_see(ClientCode(client)))
        assert not (told and clients and client not in clients)
    else:
        assert not (told and (caller.clients is not None or clients))
    assert not (told and name.startswith("token.") and not caller.is_admin)
    assert not (told and kinds and not {name, name.split(".", maxsplit=1)[0]} & kinds)
    if caller is ADMIN and not clients and not kinds:
        assert told


def test_tokens_are_the_admins_business() -> None:
    assert Wish(ADMIN).wants("", "token.created")
    assert not Wish(READS_ALL).wants("", "token.created")
    assert Wish.of(ADMIN, [], ["alert", "session.changed"]).wants("", "alert.raised")
    assert not Wish(ADMIN, kinds=frozenset({"alert"})).wants("", "token.created")


# --- from the history on ------------------------------------------------------------------------------------


@asynccontextmanager
async def keeping(
    root: Path,
    journal: Journal,
    *,
    keep_days: float = 90.0,
    now: Callable[[], float] = lambda: NOW,
    **bounds: Any,
) -> AsyncIterator[History]:
    history = History(
        root,
        keep_days,
        journal.bus,
        now,
        Bounds(**{"gather_s": 0.01, "retry_s": 0.02, "busy_s": 0.01, **bounds}),
    )
    await history.start(Learned(Config()))
    journal.bus.subscribe(history.heard)
    try:
        yield history
    finally:
        journal.bus._subscribers.remove(history.heard)
        await history.close()


def tell(journal: Journal, *numbers: int, client: ClientCode = DEMO) -> None:
    for number in numbers:
        journal.bus.publish("download.done", client=client, file=str(number), bytes=number)


async def told(reader: Reader, upto: int) -> list[int]:
    """The numbers of what it is told, until this one; what it misses as -1 times that."""
    found: list[int] = []
    async with asyncio.timeout(20):
        while not found or found[-1] != upto:
            batch = await reader.next()
            assert batch is not None
            if batch.missed:
                found.append(-abs(batch.missed))
            found += [one.fields["bytes"] for one, _ in batch.events]
    return found


async def written(history: History) -> None:
    await until(lambda: history.feed.place(history.feed.newest) is not None)


async def test_a_reader_that_comes_back_gets_exactly_what_it_has_missed(
    tmp_path: Path, journal: Journal
) -> None:
    wish = Wish(ADMIN)
    async with keeping(tmp_path, journal) as history:
        reader = history.feed.reader(wish, None)
        tell(journal, 1, 2, 3)
        assert await told(reader, 3) == [1, 2, 3]
        await written(history)
        place = reader.place
        tell(journal, 4, 5)
        assert await told(history.feed.reader(wish, place), 5) == [4, 5]
    async with keeping(tmp_path, journal) as history:
        tell(journal, 6, 7)
        assert await told(history.feed.reader(wish, place), 7) == [4, 5, 6, 7]
        await written(history)
        assert await told(history.feed.reader(wish, place), 7) == [4, 5, 6, 7]
    async with keeping(tmp_path, journal) as history:
        reader = history.feed.reader(wish, place)
        assert await told(reader, 7) == [4, 5, 6, 7]
        await written(history)
        assert str(reader.place) == f"{place.history:x}-{place.number + 4}" if place else False


async def test_what_is_not_wanted_moves_a_reader_on_all_the_same(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal) as history:
        reader = history.feed.reader(Wish(of_client(DEMO2)), None)
        tell(journal, 1, 2)
        tell(journal, 3, client=DEMO2)
        tell(journal, 4)
        assert await told(reader, 3) == [3]
        await written(history)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.next()
        assert reader.place == history.feed.place(history.feed.newest)


async def test_one_that_is_far_behind_reads_on_from_the_history(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal) as history:
        history.feed = Feed(history._older, most=50)
        reader = history.feed.reader(Wish(ADMIN), None)
        for start in range(1, 3001, 100):
            tell(journal, *range(start, start + 100))
            await written(history)
        assert await told(reader, 3000) == [*range(1, 3001)]
        assert len(history.feed._ring) == 50


async def test_a_reader_that_is_up_to_date_costs_the_same_however_much_is_in_memory(
    tmp_path: Path, journal: Journal
) -> None:
    looked_at: list[int] = []

    class Counted(deque[Any]):
        def __iter__(self) -> Iterator[Any]:
            for one in super().__iter__():
                looked_at.append(one[0].number)
                yield one

        def __getitem__(self, place: Any) -> Any:
            looked_at.append(place)
            return super().__getitem__(place)

    async with keeping(tmp_path, journal) as history:
        tell(journal, *range(1, 1001))
        await written(history)
        history.feed._ring = Counted(history.feed._ring)
        reader = history.feed.reader(Wish(ADMIN), None)
        tell(journal, 1001)
        assert await told(reader, 1001) == [1001]
    assert len(looked_at) < 100


async def test_what_the_disk_does_not_take_is_told_without_an_id_and_found_again_with_one(
    tmp_path: Path, journal: Journal
) -> None:
    async with keeping(tmp_path, journal) as history:
        tell(journal, 1)
        await written(history)
        reader = history.feed.reader(Wish(ADMIN), None)
        before = reader.place
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # somebody holds it
            tell(journal, 2)
            async with asyncio.timeout(10):
                batch = await reader.next()
            assert batch is not None
            ((event, place),) = batch.events
            assert (event.fields["bytes"], place, reader.place) == (2, None, None)
            other.execute("ROLLBACK")
        await written(history)
        assert reader.place is not None
        assert await told(history.feed.reader(Wish(ADMIN), before), 2) == [2]
        tell(journal, 3)
        assert await told(reader, 3) == [3]


async def test_without_a_history_the_feed_is_in_memory(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal, keep_days=0) as history:
        reader = history.feed.reader(Wish(ADMIN), None)
        tell(journal, 1, 2)
        assert await told(reader, 2) == [1, 2]
        place = reader.place
        tell(journal, 3)
        assert await told(history.feed.reader(Wish(ADMIN), place), 3) == [3]
    async with keeping(tmp_path, journal, keep_days=0) as history:
        reader = history.feed.reader(Wish(ADMIN), place)
        tell(journal, 4)
        assert await told(reader, 4) == [-1, 4]


async def test_what_was_deleted_meanwhile_is_said_to_be_missed(tmp_path: Path, journal: Journal) -> None:
    day = 86_400.0
    async with keeping(tmp_path, journal) as history:
        tell(journal, 1)
        await written(history)
        place = history.feed.place(1)
        tell(journal, *range(2, 8))
    async with keeping(tmp_path, journal, now=lambda: NOW + 91 * day) as history:
        await history.prune()
        tell(journal, 8)
        # The last of the old ones stays.
        assert await told(history.feed.reader(Wish(ADMIN), place), 8) == [-5, 7, 8]


async def test_another_history_counts_anew_and_says_so(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal) as history:
        tell(journal, 1, 2, 3)
        await written(history)
        place = history.feed.place(1)
    for path in tmp_path.iterdir():
        path.unlink()
    async with keeping(tmp_path, journal) as history:
        tell(journal, 4)
        await written(history)
        reader = history.feed.reader(Wish(ADMIN), place)
        tell(journal, 5)
        assert await told(reader, 5) == [-1, 5]
        future = await history.feed.reader(
            Wish(ADMIN), Place(reader.place.history, 99) if reader.place else None
        ).next()
        assert future is not None
        assert (future.missed, future.events) == (-1, [])


async def test_a_reader_that_waits_misses_nothing_while_the_history_cannot_be_read(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_AGAIN_S", 0.01)
    failing = [HistoryFailed("database is locked")] * 3
    async with keeping(tmp_path, journal) as history:

        async def older(*asked: int) -> Sequence[Told]:
            if failing:
                raise failing.pop()
            return await history._older(*asked)

        history.feed = Feed(older, most=5)
        reader = history.feed.reader(Wish(ADMIN), None, waits=True)
        tell(journal, *range(1, 21))
        await written(history)
        assert await told(reader, 20) == [*range(1, 21)]
    assert not failing


async def test_at_its_end_readers_get_what_there_is(tmp_path: Path, journal: Journal) -> None:
    async with keeping(tmp_path, journal) as history:
        reader, left = (history.feed.reader(Wish(ADMIN), None) for _ in range(2))
        tell(journal, 1)
        history.feed.close()
        assert await told(reader, 1) == [1]
        assert await reader.next() is None
        left.leave("its token was revoked")
        assert await left.next() is None


@settings(max_examples=25)
@given(
    steps=st.lists(
        st.sampled_from(["tell", "tell", "tell", "read", "come back", "restart", "kill"]), max_size=25
    ),
    most=st.integers(1, 8),
)
def test_nothing_is_told_twice_or_lost_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[str], most: int
) -> None:
    """A reader that comes back with the id it was told last, to whichever daemon, goes on right behind it."""

    async def run() -> None:
        root, journal, numbers = tmp_path_factory.mktemp("fed"), Journal(), itertools.count(1)
        tale: list[int] = []
        seen: list[int] = []
        place: Place | None = None
        pending = ["read", *steps, "read"]
        while pending:
            async with keeping(root, journal) as history:
                history.feed = Feed(history._older, most=most)
                tale.append(next(numbers))
                tell(journal, tale[-1])
                await written(history)
                reader = history.feed.reader(
                    Wish(ADMIN), place or Place(history._counted[0] if history._counted else 0, 0)
                )
                while pending:
                    step = pending.pop(0)
                    if step == "tell":
                        tale.append(next(numbers))
                        tell(journal, tale[-1])
                    elif step == "read":
                        await written(history)
                        while len(seen) < len(tale):
                            seen += await told(reader, tale[-1])
                        place = reader.place
                    elif step == "come back":
                        reader = history.feed.reader(Wish(ADMIN), place)
                    else:
                        if step == "kill":
                            history._outbox.clear()
                        break
            kept = [row[0] for row in rows(root)]
            tale = [number for number in tale if number in kept]
        assert seen == tale

    asyncio.run(run())


def rows(root: Path) -> list[tuple[int]]:
    with closing(sqlite3.connect(root / FILE)) as db:
        return db.execute("SELECT json_extract(fields, '$.bytes') FROM events ORDER BY id").fetchall()
