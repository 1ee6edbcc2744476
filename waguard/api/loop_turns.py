"""LoopTurns of the loop for clients that send or take more than fits into one: each has a few milliseconds, and then it is somebody else's turn."""

import asyncio
from collections import deque
from collections.abc import Callable

TURN_S = 0.01
"""How long one client's frames are read or written before whatever else there is to do."""


class LoopTurns:
    """Of all clients together: of those that wait for one, one has it between two looks of the loop at what has come."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Called once, when it is its turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        self._waiting.append(go_on)

    def _next(self) -> None:
        go_on = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        go_on()
