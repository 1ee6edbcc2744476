"""The memory that all clients of the relay have together: whoever has most of it when it is used up has to go. Pure."""

from typing import Protocol

FRAME = 512
"""Bytes that a message takes besides its own, however short it is."""
_COUNTED_AGAIN = 1024 * 1024
"""After so many bytes more at the earliest."""


class Holder(Protocol):
    @property
    def held(self) -> int:
        """Bytes."""

    def give_up(self, why: str) -> None:
        """It has too many of them; from then on it holds none."""


class Budget:
    def __init__(self, most: int) -> None:
        """``most``: bytes."""
        self._most = most
        self._room = most
        """Until it is to be counted again what each of them has: they tell what comes, and not what goes."""
        self._holders: set[Holder] = set()

    def enter(self, holder: Holder) -> None:
        self._holders.add(holder)

    def leave(self, holder: Holder) -> None:
        """Harmless if it has left."""
        self._holders.discard(holder)

    def grow(self, size: int) -> None:
        """One of them holds so much more."""
        self._room -= size
        if self._room > 0:
            return
        while (total := sum(one.held for one in self._holders)) > self._most:
            first = max(self._holders, key=lambda one: one.held)
            self.leave(first)
            mib = 1024 * 1024
            first.give_up(
                f"clients of the relay hold {total // mib} MiB of relay.memory_mb {self._most // mib}, and this one {first.held // mib}, the most"
            )
        self._room = max(self._most - total, _COUNTED_AGAIN)
