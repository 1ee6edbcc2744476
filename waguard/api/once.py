"""What is asked for once, however often the request is sent: the Idempotency-Key header.

As draft-ietf-httpapi-idempotency-key-header has it. The first request with a key is carried out, whoever hangs up meanwhile; each like it
waits for the same end and gets the same answer; where it failed, it is done again. Kept in memory alone, since some answers are secrets: for
a day, until the daemon ends, and of a token's the last ones.
"""

import asyncio
import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from waguard.core.access import Caller
from waguard.errors import IdempotencyKeyReused, InvalidRequest, TooManyRequests

HEADER, REPLAYED = "Idempotency-Key", "Idempotency-Replayed"
FAILED = web.ResponseKey("failed", bool)
"""The answer is no error, and says that something has failed."""
_SIGN = r"[\x21\x23-\x7e]"
KEYS = rf'^("{_SIGN}{{1,255}}"|{_SIGN}{{1,255}})$'
_KEY = re.compile(rf'"({_SIGN}{{1,255}})"|({_SIGN}{{1,255}})')
LASTS_S = 86_400.0
_MOST_OF_ONE, _MOST, _MOST_BYTES = 500, 2000, 16 * 1024
"""Answers that are kept of one token and of all, and the longest that is."""
_AGAIN_S = 1.0

Work = Callable[[], Coroutine[Any, Any, web.Response]]
Own = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class _Asked:
    like: bytes
    """The digest of what was asked."""
    task: "asyncio.Task[web.Response]"
    until: float


class Once:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[tuple[Own, str], _Asked] = {}
        """By whom, and with which key; the oldest first."""
        self._of: Counter[Own] = Counter()

    async def answer(self, request: web.Request, caller: Caller, body: bytes, work: Work) -> web.Response:
        """What comes of ``work``, or came of it before. Raises what it raises, `InvalidRequest`, `IdempotencyKeyReused`, `TooManyRequests`."""
        given = request.headers.getall(HEADER, [])
        if not given:
            return await work()
        key, like = (caller.own, _key(", ".join(given))), _like(request, body)
        self._forget_old()
        before = self._asked.get(key)
        if before is None:
            self._make_room(caller.own)
            task = asyncio.create_task(work())
            self._asked[key] = _Asked(like, task, self._clock() + LASTS_S)
            self._of[caller.own] += 1
            task.add_done_callback(lambda _: self._keep_or_drop(key, task))
            return await asyncio.shield(task)
        if before.like != like:
            raise IdempotencyKeyReused(
                f"The {HEADER} {key[1][:80]!r} was sent with another request.",
                hint="Draw a new key for each request, and send the same one only to ask again for the same.",
            )
        found = await asyncio.shield(before.task)
        answer = web.Response(body=found.body, status=found.status, headers=_headers(found))
        answer.headers[REPLAYED] = "true"
        return answer

    async def close(self) -> None:
        """Nobody waits any more; whoever carries out a wish goes on in its session."""
        tasks = [one.task for one in self._asked.values() if not one.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget_old(self) -> None:
        now = self._clock()
        while self._asked:
            key, one = next(iter(self._asked.items()))
            if one.until > now or not one.task.done():
                return
            self._drop(key)

    def _make_room(self, own: Own) -> None:
        """Raises `TooManyRequests`."""
        full = self._of[own] >= _MOST_OF_ONE
        if not full and len(self._asked) < _MOST:
            return
        among = ((key, one) for key, one in self._asked.items() if not full or key[0] == own)
        oldest = next((key for key, one in among if one.task.done()), None)
        if oldest is None:
            raise TooManyRequests(
                f"Too many requests with an {HEADER} are under way.", retry_after_s=_AGAIN_S
            )
        self._drop(oldest)

    def _keep_or_drop(self, key: tuple[Own, str], task: "asyncio.Task[web.Response]") -> None:
        """Where nothing came of it, it is done again when it is asked for again."""
        # The error is looked at, also where its caller has gone.
        if task.cancelled() or task.exception() is not None or not _is_to_be_kept(task.result()):
            self._drop(key)

    def _drop(self, key: tuple[Own, str]) -> None:
        if self._asked.pop(key, None) is not None:
            self._of[key[0]] -= 1
            self._of += Counter()  # who has none is forgotten


def _is_to_be_kept(answer: web.Response) -> bool:
    small = isinstance(answer.body, bytes) and len(answer.body) <= _MOST_BYTES
    return small and not answer.get(FAILED, False)


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
    """Of a body that is read piece by piece, its length. Raises `InvalidRequest`."""
    if request.headers.get("Transfer-Encoding") and not body:
        raise InvalidRequest(
            f"An {HEADER} needs a Content-Length.",
            hint="Send the body's length, so that another body is told from it.",
        )
    told = f"{request.method} {request.path_qs} {request.headers.get('Content-Length', '')}\n".encode()
    return hashlib.sha256(told + body).digest()
