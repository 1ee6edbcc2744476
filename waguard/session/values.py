"""The values that apps keep with one session: who writes when, what there is, and what becomes of it in a cleanup."""

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from waguard.config.sections import Deadlines
from waguard.core.condition import ALWAYS, Condition
from waguard.core.model import ClientCode, Stage
from waguard.core.values import Value, check_room, check_size
from waguard.errors import NoSuchValue
from waguard.profile.aside import Aside
from waguard.session.value_files import Broken, ValueFiles, name_of
from waguard.system.deadline import within
from waguard.system.tasks import undisturbed
from waguard.system.threads import in_thread

T = TypeVar("T")


class Values:
    """Owns the files. What one asks for is done before the next one's turn, also if the one who asked hangs up.

    Each verb may raise `StorageFailed`, `StorageHangs`, `DeadlineExceeded`, `TenureLost`.
    """

    def __init__(
        self,
        code: ClientCode,
        files: ValueFiles,
        aside: Aside,
        deadlines: Deadlines,
        check_tenure: Callable[[], None],
        publish: Callable[..., Any],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._code = code
        self._files = files
        self._aside = aside
        self._deadlines = deadlines
        self._check_tenure = check_tenure
        self._publish = publish
        self._clock = clock
        self._turn = asyncio.Lock()
        self._asked = 0
        """How many have their turn, or wait for it."""
        self._known: Mapping[str, Value] | None = None
        """What there is, by key; None: nobody has looked, or nobody knows whether the last write was done."""

    @property
    def untouched(self) -> bool:
        """Whether there are none, as far as is known, and nobody is about to write one."""
        return not self._known and not self._asked

    # --- for an app -------------------------------------------------------------------------------------

    async def all(self) -> Sequence[Value]:
        """By their keys."""
        return await self._in_turn(self._all)

    async def _all(self) -> Sequence[Value]:
        living = self._living(await self._look())
        return [living[key] for key in sorted(living)]

    async def get(self, key: str) -> tuple[Value, bytes]:
        """It, and what it says. Raises `NoSuchValue`."""
        return await self._in_turn(partial(self._get, key))

    async def _get(self, key: str) -> tuple[Value, bytes]:
        try:
            found = await in_thread(self._files.read, key)
        except Broken as error:
            found = self._known = None
            kept_as = await in_thread(self._files.set_aside, name_of(key))
            self._tell(f"A value cannot be read: {error}.", kept_as)
        if found is None or found[0].is_over(self._clock()):
            raise self._no(key)
        return found

    async def put(
        self,
        key: str,
        said: bytes,
        media_type: str,
        ttl_s: float | None = None,
        condition: Condition = ALWAYS,
    ) -> Value:
        """On disk when this returns. Raises `ValueTooLarge`, `PreconditionFailed`, `ValuesFull`, `DiskFull`: the one before stands then."""
        check_size(len(said))
        return await self._in_turn(partial(self._put, key, said, media_type, ttl_s, condition))

    async def _put(
        self, key: str, said: bytes, media_type: str, ttl_s: float | None, condition: Condition
    ) -> Value:
        known = await self._look()
        others = dict(self._living(known))
        condition.check(others.pop(key, None))
        check_room(others.values(), len(said), self._code)
        if key not in known:
            with suppress(Broken):  # one of a newer version is not overwritten by who cannot read it
                await in_thread(self._files.read, key)
        value = Value(key, media_type, len(said), secrets.token_hex(8), self._clock(), ttl_s)
        self._known = None  # as long as nobody knows
        await in_thread(self._files.delete, *known.keys() - others.keys() - {key})
        await in_thread(self._files.write, value, said)
        self._known = {**others, key: value}
        return value

    async def delete(self, key: str, condition: Condition = ALWAYS) -> Value:
        """Raises `PreconditionFailed`, `NoSuchValue`."""
        return await self._in_turn(partial(self._delete, key, condition))

    async def _delete(self, key: str, condition: Condition) -> Value:
        known = await self._look()
        there = self._living(known).get(key)
        condition.check(there)
        if there is None:
            raise self._no(key)
        await self._drop(known, [key])
        return there

    # --- for the daemon ---------------------------------------------------------------------------------

    async def drop_over(self) -> int:
        """Delete those whose time to live is over; how many these were."""
        return await self._in_turn(self._drop_over)

    async def _drop_over(self) -> int:
        known = await self._look()
        over = known.keys() - self._living(known).keys()
        await self._drop(known, over)
        return len(over)

    async def retire(self, called: str = "") -> str | None:
        """Put all of them aside, by this name if it has to be known before; what was done, None if there were none."""
        return await self._in_turn(partial(self._retire, called))

    async def _retire(self, called: str) -> str | None:
        living = self._living(await self._look())
        self._known = None
        place = await in_thread(self._aside.put_values, self._code, self._files.folder, called)
        self._known = {}
        size = sum(one.bytes for one in living.values())
        return None if place is None else f"{len(living)} ({size} bytes) retired as {place.name}"

    async def bring_back(self, called: str, instead: str) -> None:
        """Have those that were put aside by this name, if they are there still, and put what there is aside by the other name."""
        await self._in_turn(partial(self._bring_back, called, instead))

    async def _bring_back(self, called: str, instead: str) -> None:
        place = await in_thread(self._aside.find_values, self._code, called)
        if place is None:
            return
        self._known = None
        await in_thread(self._aside.put_values, self._code, self._files.folder, instead)
        await in_thread(self._aside.take_values, place, self._files.folder)

    # --- both -------------------------------------------------------------------------------------------

    async def _in_turn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._asked += 1
        return await undisturbed(self._alone(work))

    async def _alone(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            async with (
                within(Stage.PREPARE, self._deadlines.prepare, "reading or writing values"),
                self._turn,
            ):
                self._check_tenure()
                return await work()
        finally:
            self._asked -= 1

    async def _look(self) -> Mapping[str, Value]:
        """What there is on disk, also what is over."""
        if self._known is None:
            told: list[tuple[str, str]] = []
            self._known = await in_thread(self._files.all, lambda *one: told.append(one))
            for error, kept_as in told:
                self._tell(error, kept_as)
        return self._known

    def _living(self, known: Mapping[str, Value]) -> Mapping[str, Value]:
        now = self._clock()
        return {key: one for key, one in known.items() if not one.is_over(now)}

    async def _drop(self, known: Mapping[str, Value], keys: Collection[str]) -> None:
        self._known = None
        await in_thread(self._files.delete, *keys)
        self._known = {key: one for key, one in known.items() if key not in keys}

    def _no(self, key: str) -> NoSuchValue:
        hint = f"See which there are: waguard values {self._code}"
        return NoSuchValue(f"{self._code} has no value {key!r}.", hint=hint)

    def _tell(self, error: str, kept_as: str) -> None:
        self._publish("values.unreadable", error=error, kept_as=kept_as)
