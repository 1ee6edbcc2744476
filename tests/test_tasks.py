"""No error is left for the loop to log that nobody asks for any more; `loop_guard` looks at that in every test."""

import asyncio
import gc
import threading

from conftest import UNREAD, Daemon
from waiting import until

from waguard.core.model import ClientCode
from waguard.errors import ShuttingDown
from waguard.system.tasks import forget
from waguard.system.threads import in_thread

DEMO = ClientCode("demo")


def unread() -> list[str]:
    gc.collect()
    found = list(UNREAD)
    UNREAD.clear()
    return found


async def fails() -> None:
    raise KeyError("of a task")


async def test_the_guard_of_these_tests_sees_what_nobody_asks_for() -> None:
    await asyncio.wait([asyncio.create_task(fails())])
    (said,) = unread()
    assert "never retrieved" in said
    assert "of a task" in said
    forget(asyncio.create_task(fails()))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not unread()


async def test_what_a_thread_raises_for_somebody_who_was_called_off_is_no_news() -> None:
    at_work, go = threading.Event(), threading.Event()

    def fails_late() -> None:
        at_work.set()
        go.wait(10)
        raise ValueError("of a thread")

    called_off = asyncio.create_task(in_thread(fails_late))
    await asyncio.to_thread(at_work.wait, 10)
    called_off.cancel()
    await asyncio.sleep(0)
    go.set()
    await asyncio.wait([called_off])
    assert called_off.cancelled()
    assert not unread()


async def test_a_cleanup_that_the_end_of_the_daemon_overtakes_is_answered_once(pose: Daemon) -> None:
    async with pose("ignores-close", deadlines={"close": 2.0}) as (supervisor, _):
        await supervisor.connect(DEMO)
        session = supervisor._sessions[DEMO]
        cleaning = [asyncio.ensure_future(supervisor.cleanup(DEMO)) for _ in range(2)]
        await until(lambda: session.state.cleaning and session.memory.profile is None)
        cleaning[0].cancel()  # one of them has hung up
    await asyncio.wait(cleaning)
    assert cleaning[0].cancelled()
    assert isinstance(cleaning[1].exception(), ShuttingDown)
    assert not unread()
