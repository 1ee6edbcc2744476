"""Whoever wants to know is told, and does not have to know who else is."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Observers(Generic[T]):
    """``kept``: so much of what happens before the first one observes is kept for it."""

    def __init__(self, kept: int = 0) -> None:
        self._calls: list[Callable[[T], None]] = []
        self._kept: deque[T] = deque(maxlen=kept)

    def observe(self, call: Callable[[T], None]) -> Callable[[], None]:
        """Call this with whatever happens from now on, until what is returned is called; first with what was kept."""
        self._calls.append(call)
        while self._kept:
            self._tell(call, self._kept.popleft())
        return lambda: self._calls.remove(call) if call in self._calls else None

    def tell(self, what: T) -> None:
        """In the order in which they came. One that raises keeps nobody else from being told, and is the loop's to report."""
        if not self._calls:
            self._kept.append(what)
        for call in tuple(self._calls):
            self._tell(call, what)

    @staticmethod
    def _tell(call: Callable[[T], None], what: T) -> None:
        try:
            call(what)
        except Exception as error:  # noqa: BLE001 (one observer's mistake is not another's)
            told = {"message": f"{call!r} failed to observe {what!r}"[:500], "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)
