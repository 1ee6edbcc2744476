"""The memory of all clients of the relay: who has most of it goes, and nobody else."""

from hypothesis import given
from hypothesis import strategies as st

from waguard.core.relay.budget import Budget

MIB = 1024 * 1024


class One:
    def __init__(self, budget: Budget) -> None:
        self.held, self.why = 0, ""
        self.budget = budget
        budget.enter(self)

    def grow(self, size: int) -> None:
        if not self.why:
            self.held += size
            self.budget.grow(size)

    def give_up(self, why: str) -> None:
        self.held, self.why = 0, why


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-40, 40)), max_size=80))
def test_it_is_never_passed_by_much_and_whoever_goes_had_most(steps: list[tuple[int, int]]) -> None:
    budget = Budget(100 * MIB)
    clients = [One(budget) for _ in range(4)]
    for who, mib in steps:
        before = [one.held + max(mib, 0) * MIB * (number == who) for number, one in enumerate(clients)]
        there = [not one.why for one in clients]
        if mib < 0:
            clients[who].held = max(clients[who].held + mib * MIB, 0)
        else:
            clients[who].grow(mib * MIB)
        assert sum(one.held for one in clients) <= 101 * MIB
        for number, one in enumerate(clients):
            if there[number] and one.why:
                assert sum(before) > 100 * MIB
                assert before[number] == max(held for held, here in zip(before, there, strict=True) if here)


def test_who_has_left_holds_nothing() -> None:
    budget = Budget(10 * MIB)
    left, here = One(budget), One(budget)
    left.grow(9 * MIB)
    budget.leave(left)
    here.grow(9 * MIB)
    assert (left.why, here.why) == ("", "")
    here.grow(9 * MIB)
    assert "relay.memory_mb" in here.why
