"""What is asked for once, however often the request is sent: the Idempotency-Key header.

As draft-ietf-httpapi-idempotency-key-header has it. The first request with a key is carried out, whoever hangs up meanwhile; each like it
waits for the same end and gets the same answer; where it failed, it is done again. Kept in memory alone, since some answers are secrets: for a day, until the daemon ends.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from waguard.core.access import Caller
from waguard.errors import IdempotencyKeyReused, InvalidRequest, TooManyRequests

HEADER, REPLAYED = "Idempotency-Key", "Idempotency-Replayed"
_SIGN = r"[\x21\x23-\x7e]"
KEYS = rf'^("{_SIGN}{{1,255}}"|{_SIGN}{{1,255}})$'
_KEY = re.compile(rf'"({_SIGN}{{1,255}})"|({_SIGN}{{1,255}})')
LASTS_S = 86_400.0
_MOST, _MOST_BYTES = 1000, 64 * 1024
"""Answers that are kept for one token, and the longest that is."""
_AGAIN_S = 1.0

Work = Callable[[], Coroutine[Any, Any, web.Response]]


@dataclass(frozen=True, slots=True)
class _Asked:
    like: bytes
    """The digest of what was asked."""
    task: "asyncio.Task[web.Response]"
    until: float


class Once:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[str, dict[str, _Asked]] = {}
        """By whom, and with which key; the oldest first."""

    async def answer(self, request: web.Request, caller: Caller, body: bytes, work: Work) -> web.Response:
        """What comes of ``work``, or came of it before. Raises what it raises, `InvalidRequest`, `IdempotencyKeyReused`."""
        if (given := request.headers.get(HEADER)) is None or request.method != "POST":
            return await work()
        key, like = _key(given), _like(request, body)
        mine = self._of(caller)
        before = mine.get(key)
        if before is not None and before.like != like:
            raise IdempotencyKeyReused(
                f"The {HEADER} {key[:80]!r} was sent with another request.",
                hint="Draw a new key for each request, and send the same one only to ask again for the same.",
            )
        if before is None:
            if len(mine) >= _MOST:
                self._make_room(mine)
            before = mine[key] = _Asked(like, asyncio.create_task(work()), self._clock() + LASTS_S)
            before.task.add_done_callback(lambda task: self._keep_or_forget(mine, key, task))
            return await asyncio.shield(before.task)
        found = await asyncio.shield(before.task)
        answer = web.Response(body=found.body, status=found.status, headers=_headers(found))
        answer.headers[REPLAYED] = "true"
        return answer

    async def close(self) -> None:
        """Nobody waits any more; whoever carries out a wish goes on in its session."""
        tasks = [one.task for mine in self._asked.values() for one in mine.values() if not one.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _of(self, caller: Caller) -> dict[str, _Asked]:
        now = self._clock()
        for name, kept in list(self._asked.items()):
            for key in [key for key, one in kept.items() if one.until <= now and one.task.done()]:
                del kept[key]
            if not kept:
                del self._asked[name]
        return self._asked.setdefault(caller.name, {})

    def _make_room(self, mine: dict[str, _Asked]) -> None:
        """Raises `TooManyRequests`."""
        done = next((key for key, one in mine.items() if one.task.done()), None)
        if done is None:
            raise TooManyRequests(
                f"{_MOST} requests with an {HEADER} of this token are under way.", retry_after_s=_AGAIN_S
            )
        del mine[done]

    @staticmethod
    def _keep_or_forget(mine: dict[str, _Asked], key: str, task: "asyncio.Task[web.Response]") -> None:
        """Where nothing came of it, it is done again when it is asked for again."""
        # The error is looked at, also where its caller has gone.
        if task.cancelled() or task.exception() is not None or not _is_small(task.result()):
            mine.pop(key, None)


def _is_small(answer: web.Response) -> bool:
    return isinstance(answer.body, bytes) and len(answer.body) <= _MOST_BYTES


def _headers(found: web.Response) -> dict[str, str]:
    """Of the answer itself, without those of its sending."""
    return {name: found.headers[name] for name in ("Content-Type", "ETag") if name in found.headers}


def _key(given: str) -> str:
    """Raises `InvalidRequest`."""
    if (found := _KEY.fullmatch(given.strip())) is None:
        raise InvalidRequest(
            f"The {HEADER} {given[:80]!r} is none.",
            hint="Draw one for each request, for example a UUID: 1 to 255 letters, digits and signs, without spaces.",
        )
    return found[1] or found[2]


def _like(request: web.Request, body: bytes) -> bytes:
    """Of a body that is read piece by piece, its length."""
    told = f"{request.method} {request.path_qs} {request.headers.get('Content-Length', '')}\n".encode()
    return hashlib.sha256(told + body).digest()
