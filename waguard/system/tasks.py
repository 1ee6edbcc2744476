"""Tasks that nobody waits for: what ends one of them unforeseen is told, with its trace, and what is to go on goes on. And changes that somebody does wait for."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from waguard.core.catalogue import mistake
from waguard.system import shortage
from waguard.system.repeats import Repeats

T = TypeVar("T")

_AGAIN_S = 1.0
_TOLD_S = 600.0
"""The same is told so often."""


class Changes:
    """Wakes whoever waits for the next change of something."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def next(self) -> None:
        await self._next.wait()


def background(
    work: Callable[[], Coroutine[Any, Any, None]],
    name: str,
    publish: Callable[..., Any],
    *,
    again: bool = False,
) -> "asyncio.Task[None]":
    """Begin some work; with ``again`` it is begun anew when it fails, until it returns. Whoever begins it cancels it at the end."""
    repeats = Repeats(1, _TOLD_S)

    async def guarded() -> None:
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 (nobody else would get it)
                left_out = repeats.left_out((type(error), str(error)))
                if left_out is not None:
                    _tell(error, left_out)
                if again:
                    await asyncio.sleep(_AGAIN_S)
                    continue
            return

    def _tell(error: Exception, left_out: int) -> None:
        more = {"left_out": left_out} if left_out else {}
        if (known := shortage.known(error)) is not None:
            publish("task.failed", where=name, code=known.code, error=known.message, **more)
        else:
            publish("internal.error", **mistake(name, error), **more)

    return asyncio.create_task(guarded(), name=name)


def forget(future: "asyncio.Future[Any]") -> None:
    """Nobody asks any more what becomes of it: an error in it is no news, and not the loop's to log."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Whoever hangs up in the middle ends nothing: what is on disk and what is in memory are the same afterwards."""
    task = asyncio.create_task(work)
    forget(task)
    return await asyncio.shield(task)
