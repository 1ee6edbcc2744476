"""A long verb that tells how it gets on: its client's events as they happen, and its answer at the end, as server-sent events."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from aiohttp import web

from waguard.api import sse
from waguard.api.once import Work
from waguard.core.feed import ENDED, MISSED, STAGED
from waguard.core.model import ClientCode
from waguard.core.shown import EventView, FeedEnded, FeedMissed
from waguard.observe.bus import Bus, Event
from waguard.observe.outbox import Gap, Outbox

RESULT, PROBLEM = "result", "problem"
_MOST = 1000
"""Events that wait for a slow caller."""


async def told(
    request: web.Request,
    bus: Bus,
    client: ClientCode,
    work: Work,
    problem: Callable[[BaseException], web.Response],
    admitted: Callable[[Callable[[str], None]], AbstractContextManager[None]],
    *,
    beat_s: float,
    paths: bool,
) -> web.StreamResponse:
    """``problem`` makes an answer of whatever ``work`` raises; ``admitted`` calls back when its caller's token has ended."""
    stream, news = sse.Stream(request), asyncio.Event()
    waiting, left = Outbox[tuple[float, Event]](_MOST, news.set), list[str]()

    def hear(event: Event) -> None:
        loud = event.level != "debug" or event.name in _ALWAYS
        if event.client == client and event.name in STAGED and loud:
            waiting.put((time.time(), event))

    def leave(why: str) -> None:
        left.append(why)
        news.set()

    with bus.listening(hear), admitted(leave):
        try:
            await stream.open()
        except ConnectionError:  # it has gone, and nothing has begun
            return stream.response
        doing = asyncio.create_task(work())
        doing.add_done_callback(lambda _: news.set())
        try:
            while not left and (not doing.done() or len(waiting)):
                if len(waiting):
                    await stream.write(_next(waiting, paths=paths))
                    continue
                news.clear()
                try:
                    async with asyncio.timeout(beat_s):
                        await news.wait()
                except TimeoutError:
                    await stream.write(sse.beat())
            ended = sse.event(ENDED, FeedEnded(left[0]), paths=paths) if left else _end(doing, problem)
            await stream.write(ended)
            await stream.response.write_eof()
        except ConnectionError:  # it has gone
            pass
        finally:
            if not doing.done():  # what was asked for goes on in the session
                doing.cancel()
                await asyncio.wait([doing])
            elif not doing.cancelled():
                doing.exception()  # looked at
    return stream.response


_ALWAYS = frozenset({"stage.done", "stage.slow"})


def _next(waiting: Outbox[tuple[float, Event]], *, paths: bool) -> bytes:
    match waiting.take():
        case (float(at), Event() as event):
            fields = {name: value for name, value in event.fields.items() if name in STAGED[event.name]}
            view = EventView(None, at, event.client, event.name, fields)
            return sse.event(event.name, view, paths=paths)
        case Gap(count):
            return sse.event(MISSED, FeedMissed(count), paths=paths)
    return b""


def _end(doing: "asyncio.Task[web.Response]", problem: Callable[[BaseException], web.Response]) -> bytes:
    error = doing.exception()
    answer = doing.result() if error is None else problem(error)
    assert isinstance(answer.body, bytes)  # noqa: S101 (no answer of such a verb is streamed)
    return sse.framed(RESULT if error is None else PROBLEM, answer.body.decode())
