"""What becomes of a script whose client has left, by the looks that the page answers and misses."""

import asyncio
from typing import Any

import pytest

from waguard.session import left_running
from waguard.session.lease import PageLease
from waguard.session.left_running import LeftRunning


class Page:
    def __init__(self) -> None:
        self.terminated = asyncio.Event()

    def terminate(self) -> "asyncio.Future[Any]":
        self.terminated.set()
        return asyncio.get_running_loop().create_future()


def a_page() -> Any:
    return Page()


class Left:
    """``looks``: of the page, ``+`` for one that is answered, ``-`` for one that is missed."""

    def __init__(self, blocked_s: float = 60.0) -> None:
        self.lease = PageLease()
        self.page = a_page()
        self.told = 0
        self.left = LeftRunning(self.lease, blocked_s)
        self.left.leave(self.page, self._tell)

    def _tell(self) -> None:
        self.told += 1

    def look(self, looks: str, page: Any = None) -> bool:
        for one in looks:
            self.left.page_silent(page or self.page, silent=one == "-")
        return self.lease.stalled


@pytest.mark.parametrize(
    ("looks", "waits", "told"),
    [
        ("-", True, 1),
        ("--", True, 1),
        ("+-", True, 1),  # the answer may be of a look from before it left
        ("++-", False, 0),
        ("-+", False, 1),
        ("-+-", False, 1),
    ],
)
async def test_the_page_waits_for_it_until_it_answers(looks: str, waits: bool, told: int) -> None:
    left = Left()
    assert (left.look(looks), left.told) == (waits, told)
    left.look("++")


async def test_another_page_has_not_waited_for_it() -> None:
    left = Left()
    assert left.look("-")
    assert not left.look("+", a_page())
    assert not left.look("-", a_page())


async def test_it_is_ended_when_a_clients_time_is_over_and_then_the_page_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(left_running, "AFTERWARDS_S", 0.01)
    left = Left(blocked_s=0.01)
    assert left.look("-")
    async with asyncio.timeout(5):
        await left.page.terminated.wait()
        while left.lease.stalled:
            await asyncio.sleep(0.005)
    assert not left.look("-")
