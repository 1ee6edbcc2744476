"""What waits for a slow reader: in order, bounded, and nothing is missing that is not counted."""

import threading
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from waguard.observe.outbox import Gap, Outbox


@given(most=st.integers(1, 5), steps=st.lists(st.booleans(), max_size=60))
def test_what_is_put_is_taken_in_order_or_counted_where_it_is_missing(
    most: int, steps: Sequence[bool]
) -> None:
    woken: list[None] = []
    outbox = Outbox[int](most, lambda: woken.append(None))
    put, dropped = 0, 0
    taken: list[int | Gap | None] = []
    for puts in steps:
        if puts:
            full = len(outbox) == most
            outbox.put(put)
            put += 1
            dropped += full
            assert len(woken) == put
        else:
            taken.append(outbox.take())
        assert len(outbox) <= most
        assert outbox.dropped == dropped
    while (one := outbox.take()) is not None:
        taken.append(one)
    following = 0
    for one in taken:
        if isinstance(one, Gap):
            following += one.count
        elif one is not None:
            assert one == following
            following += 1
    assert following == put
    assert sum(one.count for one in taken if isinstance(one, Gap)) == dropped


def test_two_who_put_and_one_who_takes_lose_nothing_uncounted() -> None:
    due = threading.Event()
    outbox = Outbox[tuple[int, int]](50, due.set)
    each, over = 5000, threading.Event()
    got: list[tuple[int, int] | Gap] = []

    def read() -> None:
        while True:
            ended = over.is_set()
            while (one := outbox.take()) is not None:
                got.append(one)
            if ended:
                return
            due.wait()
            due.clear()

    def write(who: int) -> None:
        for number in range(each):
            outbox.put((who, number))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(who,)) for who in range(2)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    due.set()
    reader.join(10)
    assert not reader.is_alive()
    kept = [one for one in got if not isinstance(one, Gap)]
    assert len(kept) + sum(one.count for one in got if isinstance(one, Gap)) == 2 * each
    for who in range(2):
        numbers = [number for owner, number in kept if owner == who]
        assert numbers == sorted(numbers)


def test_what_is_cleared_makes_room() -> None:
    outbox = Outbox[int](1, lambda: None)
    for number in range(3):
        outbox.put(number)
    outbox.clear()
    assert (len(outbox), outbox.take()) == (0, None)
    outbox.put(7)
    assert outbox.take() == 7
