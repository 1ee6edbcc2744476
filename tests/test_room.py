"""Is there room for one more browser? Who is up and who is on its way is counted; memory and disk are this machine's."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.admission.room import Room
from waguard.config.sections import Config
from waguard.core.model import ClientCode, Process
from waguard.errors import DiskFull, NoMemory
from waguard.system import host
from waguard.system.threads import in_thread

A, B, C = (ClientCode(code) for code in "abc")
ENOUGH = {"reserve_memory_mb": 0, "session_memory_mb": 0, "reserve_disk_mb": 0, "memory_pressure": 0.0}


async def nothing_may_go(_enough: Callable[[], bool]) -> None:
    pass


def room(place: Path = Path("/"), **limits: float) -> Room:
    config = Config.model_validate({"sessions": {"dir": place}, "limits": {**ENOUGH, **limits}})
    return Room(config, None, nothing_may_go)


async def test_the_last_place_is_not_given_to_two_who_ask_at_the_same_time() -> None:
    found = room(max_sessions=2, concurrent_starts=1)
    found.note(A, Process.UP)
    with found.counted(B):
        await found.find(B)
        with found.counted(C), pytest.raises(NoMemory, match=r"limits\.max_sessions allows: 2"):
            await found.find(C)
    await found.find(C)


async def test_who_is_up_takes_a_place_whatever_it_does_and_who_is_down_takes_none() -> None:
    found = room(max_sessions=1, concurrent_starts=1)
    for process in Process:
        found.note(A, process)
        await found.find(A)  # its own is no obstacle
        if process in {Process.DOWN, Process.FAILED}:
            await found.find(B)
        else:
            with pytest.raises(NoMemory):
                await found.find(B)


async def test_those_on_their_way_have_not_taken_their_memory_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "available_memory_mb", lambda: 350)
    found = room(session_memory_mb=100, reserve_memory_mb=50)
    found.note(A, Process.STARTING)
    with found.counted(B):
        await found.find(C)
        found.note(ClientCode("d"), Process.PREPARING)
        with pytest.raises(NoMemory, match="350 MiB of memory are free, and one more session needs 450 MiB"):
            await found.find(C)
        found.note(A, Process.UP)  # what it takes is not free any more
        await found.find(C)


async def test_what_may_go_goes_until_there_is_enough_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10]
    monkeypatch.setattr(host, "free_disk_mb", lambda _root: free[0])
    gone: list[int] = []

    async def let_go(enough: Callable[[], bool]) -> None:
        while not await in_thread(enough) and len(gone) < 5:
            gone.append(10)
            free[0] += 10

    config = Config.model_validate(
        {"sessions": {"dir": tmp_path}, "limits": {**ENOUGH, "reserve_disk_mb": 40}}
    )
    found = Room(config, None, let_go)
    await found.find(A)
    assert len(gone) == 3
    assert not await found.disk_lack()
    with pytest.raises(
        DiskFull, match=r"60 MiB of disk are free .* = 40 and 25 MiB for what is to be written"
    ):
        await found.find_disk(25 * host.MB)
    assert len(gone) == 5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(sorted(Process)))))
async def test_it_forgets_whoever_has_no_browser(told: list[tuple[str, Process]]) -> None:
    found, last = room(max_sessions=1, concurrent_starts=1), dict[str, Process]()
    for code, process in told:
        found.note(ClientCode(code), process)
        last[code] = process
    up = [code for code, process in last.items() if process not in {Process.DOWN, Process.FAILED}]
    if up:
        with pytest.raises(NoMemory, match=f"allows: {len(up)}"):
            await found.find(ClientCode("other"))
    else:
        await found.find(ClientCode("other"))
