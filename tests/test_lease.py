"""The page lease: who holds the page, what a probe makes of it, and that no remedy pulls the page away unseen."""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from conftest import Daemon, Journal
from hypothesis import given
from hypothesis import strategies as st

from waguard.core.health.faults import Fault
from waguard.core.health.lease import FREE, PULLS, Held, Hold, Lease, Use
from waguard.core.health.plans import Remedy
from waguard.core.model import ClientCode
from waguard.errors import SnapshotFailed
from waguard.session.lease import PageLease, Pulled
from waguard.session.task import Session

DEMO = ClientCode("demo")


def end(lease: PageLease, holder: str) -> Callable[[Pulled], None]:
    """What whoever holds the page does when it is taken."""

    def pulled(_by: Pulled) -> None:
        lease.end_drive(holder)

    return pulled


def hold(use: Use, since_s: float = 10.0, until_s: float = math.inf, holder: str = "a snapshot") -> Hold:
    return Hold(use, holder, "its files are copied", since_s, until_s)


# --- the table ----------------------------------------------------------------------------------------------


def test_one_holder_for_each_use_and_the_second_is_told_who_and_since_when() -> None:
    still, driven = hold(Use.STILL), hold(Use.DRIVEN, holder="token bot")
    lease = FREE.take(still).take(driven)
    assert (lease.held(Use.STILL, 11.0), lease.held(Use.DRIVEN, 11.0)) == (still, driven)
    with pytest.raises(Held, match="token bot holds the page") as refused:
        lease.take(hold(Use.DRIVEN, 12.0))
    assert refused.value.hold is driven
    lease = lease.give_back(driven, 13.0)
    again = hold(Use.DRIVEN, 14.0)
    lease = lease.take(again).give_back(driven, 15.0)  # late: it is somebody else's by now
    assert lease.held(Use.DRIVEN, 16.0) is again


def test_a_hold_that_has_run_out_is_nobodys() -> None:
    lease = FREE.take(hold(Use.STILL, until_s=20.0))
    assert lease.held(Use.STILL, 19.9) is not None
    assert lease.held(Use.STILL, 20.0) is None
    assert lease.pulled(Remedy.RELOAD, 20.0) == ()
    assert lease.take(hold(Use.STILL, since_s=20.0)).held(Use.STILL, 21.0) is not None


@pytest.mark.parametrize(("looked_s", "was_still"), [(9.0, True), (29.9, True), (30.1, False)])
def test_what_was_looked_at_while_it_was_held_still_is_not_stopped(
    looked_s: float, *, was_still: bool
) -> None:
    """However much later the table that was made then is asked for."""
    still = hold(Use.STILL)
    lease = FREE.take(still)
    assert lease.was_still(looked_s, 20.0)
    assert lease.give_back(still, 30.0).was_still(looked_s, 60.0) is was_still


@pytest.mark.parametrize("remedy", Remedy)
def test_every_remedy_waits_for_what_is_held_still_and_some_take_the_page_from_who_drives_it(
    remedy: Remedy,
) -> None:
    still, driven = hold(Use.STILL), hold(Use.DRIVEN)
    pulled = FREE.take(still).take(driven).pulled(remedy, 11.0)
    assert still in pulled
    assert (driven in pulled) is (remedy in PULLS[Use.DRIVEN])
    left = {Remedy.CONTINUE, Remedy.DISMISS, Remedy.RELOAD_QR, Remedy.RENEW}
    assert PULLS[Use.DRIVEN] == set(Remedy) - left, "does this remedy take the page from who drives it?"


async def test_a_remedy_waits_for_nobody_who_comes_while_it_waits() -> None:
    lease = PageLease()
    still = lease._take(Use.STILL, "a snapshot", "its files are copied", 30.0)
    lease.pulled.observe(lambda _why: lease._give_back(still) if lease.end_drive("app") else None)
    pulling = asyncio.create_task(lease.pull(Remedy.RELOAD, "a reload"))
    await asyncio.sleep(0)
    lease.drive("app", "it drives it")
    async with asyncio.timeout(5):
        await pulling
    assert lease.held(Use.DRIVEN) is None


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(Use), st.booleans(), st.floats(0.1, 5.0), st.floats(0.1, 9.0)), max_size=20
    )
)
def test_whatever_is_taken_and_given_back_nobody_holds_what_another_has(
    steps: list[tuple[Use, bool, float, float]],
) -> None:
    lease, now, mine = FREE, 0.0, dict[Use, Hold]()
    for use, take, passes, lasts in steps:
        now += passes
        if take:
            wanted = hold(use, now, now + lasts)
            other = lease.held(use, now)
            if other is None:
                lease, mine[use] = lease.take(wanted), wanted
            else:
                with pytest.raises(Held):
                    lease.take(wanted)
        elif use in mine:
            lease = lease.give_back(mine.pop(use), now)
        for each in Use:
            known = mine.get(each)
            assert lease.held(each, now) is (known if known is not None and now < known.until_s else None)


def test_giving_back_who_drives_the_page_says_nothing_of_who_was_still() -> None:
    driven = hold(Use.DRIVEN)
    assert FREE.take(driven).give_back(driven, 30.0) == Lease({})


# --- its owner ----------------------------------------------------------------------------------------------


async def test_who_drives_the_page_is_told_why_it_is_taken_back_and_has_it_no_more() -> None:
    lease, told = PageLease(), list[str]()
    lease.pulled.observe(lambda by: told.append(by.why))
    lease.pulled.observe(end(lease, "token bot"))
    lease.drive("token bot", "it sends messages")
    assert lease.drives("token bot")
    assert not lease.drives("token other")
    assert not lease.end_drive("token other")
    with pytest.raises(Held, match="token bot holds the page: it sends messages"):
        lease.drive("token other", "likewise")
    await lease.pull(Remedy.RENEW, "network_hung")
    assert told == []
    await lease.pull(Remedy.RELOAD, "page_blocked")
    assert told == ["page_blocked"]
    assert lease.held(Use.DRIVEN) is None
    lease.drive("token other", "likewise")
    assert lease.held(Use.DRIVEN) is not None
    assert not lease.end_drive("token bot")
    assert lease.end_drive("token other")
    assert not lease.end_drive("token other")
    assert lease.held(Use.DRIVEN) is None


def test_a_page_is_stalled_as_long_as_anybody_keeps_it_from_answering() -> None:
    lease = PageLease()
    for begins, stalled in (("a", True), ("b", True), ("-a", True), ("-a", True), ("-b", False)):
        lease.stall(begins.removeprefix("-"), begins=not begins.startswith("-"))
        assert lease.stalled is stalled


@contextmanager
def holding(session: Session, most_s: float = 60.0) -> Iterator[tuple[threading.Event, list[Exception]]]:
    """A snapshot that takes until the event is set, in a thread."""
    browser, held, go_on, failed = (
        session._instance.browser,
        threading.Event(),
        threading.Event(),
        list[Exception](),
    )
    assert browser is not None

    def snapshot() -> None:
        try:
            with session.lease.still(browser, "a snapshot", most_s):
                held.set()
                go_on.wait(10)
        except SnapshotFailed as error:
            failed.append(error)

    thread = threading.Thread(target=snapshot)
    thread.start()
    try:
        assert held.wait(10)
        yield go_on, failed
    finally:
        go_on.set()
        thread.join()


async def test_a_remedy_waits_until_a_browser_that_is_held_still_goes_on(
    pose: Daemon, journal: Journal
) -> None:
    """To let it go on would tear the copy, and nothing that is stopped answers."""
    async with pose("connected") as (supervisor, _):
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        applied = asyncio.Event()

        async def remedy() -> None:
            await session.lease.pull(Remedy.CONTINUE, "process_stopped")
            applied.set()

        with holding(session) as (go_on, failed):
            task = asyncio.create_task(remedy())
            browser = session._instance.browser
            assert browser is not None
            assert await asyncio.to_thread(browser.run.stopped)
            assert not applied.is_set()
            go_on.set()
            await task
            assert session.lease.held(Use.STILL) is None
        assert not failed
        assert session.lease.frozen_ms is not None
        assert not journal.named("health.finding")


async def test_who_drives_the_page_is_told_of_a_remedy_and_of_the_browsers_end(pose: Daemon) -> None:
    async with pose("connected") as (supervisor, _):
        await supervisor.connect(DEMO)
        session, told = supervisor._sessions[DEMO], list[str]()
        session.lease.pulled.observe(lambda by: told.append(by.why))
        session.lease.pulled.observe(end(session.lease, "token bot"))
        session.lease.drive("token bot", "it sends messages")
        session._watch.cure(session.state.epoch, 1, Fault.PAGE_BLOCKED, Remedy.RELOAD, 60.0)
        async with asyncio.timeout(10):
            while not told:
                await asyncio.sleep(0.01)
        session.lease.drive("token bot", "it is back")
        await supervisor.disconnect(DEMO)
        assert told == ["reload, because of page_blocked", "its browser is closed"]


async def test_a_second_snapshot_does_not_wait_for_ever_for_one_that_hangs(pose: Daemon) -> None:
    async with pose("connected") as (supervisor, _):
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        with holding(session, most_s=0.05) as (go_on, failed):
            await session.lease.pull(Remedy.CONTINUE, "process_stopped")  # its time is over soon
            browser = session._instance.browser
            assert browser is not None

            def second() -> None:
                with session.lease.still(browser, "a snapshot", 60.0):
                    pass

            with pytest.raises(SnapshotFailed, match="earlier snapshot"):
                await asyncio.to_thread(second)
            go_on.set()
        assert [str(error) for error in failed] == [
            "Its files were not copied within 0.05 s, and it may have gone on meanwhile."
        ]
