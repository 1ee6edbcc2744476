"""Threads for what blocks, in bulkheads: a disk that hangs stops the client that it is of, and nobody else.

Work of each kind has threads of its own, so that what is quick never waits for what is long, and of each kind a client has so many
at most. A call that takes longer than its kind does may hang, for all that anybody knows: its place is somebody else's then, and only
its client's stays taken. A call that was called off and does not end is left behind. Nothing goes on behind anybody's back even so:
until it ends, its client gets no other thread for its files, and who asks for one gets `StorageHangs`.
"""

import asyncio
import contextlib
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from waguard.errors import StorageHangs
from waguard.system import deadline, shortage, signals
from waguard.system.tasks import forget

T = TypeVar("T")

_RETRY_S = 10.0
"""After so many seconds it is worth asking again."""


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds."""

    grace: float = 2.0
    """How long a call that was called off is waited for."""
    told: float = 10.0
    """A call of a quick kind is reported when it has taken so long, also if nobody has called it off."""
    last: float = 15.0
    """No call of a quick kind is waited for longer than this when the daemon ends."""


class Kind(Enum):
    """Of work, by what must never wait for what: how many calls are at work at a time, how many of them may be of one client, and
    after how many seconds one of them does not count any more.
    """

    MACHINE = (4, 4, 1.0)
    """Asks the kernel: processes, cgroups, memory. No disk is touched."""
    FILES = (6, 3, 1.0)
    """Few and small files, which a request or a session itself waits for: records, locks, marks."""
    PROFILES = (6, 1, 1.0)
    """A profile for a launch: there at once, or restored from a snapshot."""
    COPIES = (6, 2, 30.0)
    """Much is read or written: snapshots, imports, sweeps."""

    def __init__(self, most: int, each: int, lent_s: float) -> None:
        self.most, self.each, self.lent_s = most, each, lent_s


_QUICK = frozenset({Kind.MACHINE, Kind.FILES})
_Whose = tuple[str, str]
"""Whose the files are: a client's, or, for what is everybody's, a kind's."""


@dataclass(frozen=True, slots=True)
class Hang:
    """A call that does not end, or that has ended at last."""

    client: str
    """Empty: it is of files that are everybody's."""
    stage: str
    """Empty if it is in none."""
    doing: str
    waited_s: float
    over: bool
    """Nothing of the client hangs any more."""


_CLIENT: ContextVar[str] = ContextVar("client", default="")


@contextmanager
def working_for(client: str) -> Iterator[None]:
    """What the block does, and what it begins, takes this client's share of the threads."""
    before = _CLIENT.set(client)
    try:
        yield
    finally:
        _CLIENT.reset(before)


@dataclass(eq=False, slots=True)
class _Call:
    work: Callable[[], Any] | None
    client: str
    outcome: "asyncio.Future[Any]"
    span: deadline.Span | None
    began: float = 0.0
    """When it was given to a thread, monotonic; 0: it waits for one."""
    lent: bool = False
    """It does not count any more."""
    told: bool = False
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def hang(self, *, over: bool) -> Hang:
        stage, doing = (self.span.stage.value, self.span.doing) if self.span else ("", "a file of its own")
        return Hang(self.client, stage, doing, round(time.monotonic() - self.began, 1), over)


class _Bulkhead:
    """The threads for one kind of work. Everything but what they run is done in the event loop."""

    def __init__(self, kind: Kind, told_s: float, tell: Callable[[Hang], None]) -> None:
        self._kind, self._told_s, self._tell = kind, told_s, tell
        self._given: SimpleQueue[_Call | None] = SimpleQueue()
        self._waiting: deque[_Call] = deque()
        self._at_work: Counter[str] = Counter()
        self._busy = self._threads = 0
        """Without those that are lent."""

    def start(self) -> None:
        """All threads at once, since later there may be none to be had. Raises `LimitReached`."""
        with shortage.told():
            while self._threads < self._kind.most:
                self._start_one()

    def _start_one(self) -> None:
        # A daemon: whatever holds it in the kernel must not keep the process from its end.
        name = f"{self._kind.name.lower()}-{self._threads}"
        threading.Thread(target=_serve, args=(self._given, self._done), name=name, daemon=True).start()
        self._threads += 1

    def submit(self, call: _Call) -> None:
        """Raises `LimitReached` if there is no thread, and none can be started."""
        self._waiting.append(call)
        self._next()
        if not self._threads and not call.began:
            self._waiting.remove(call)
            raise shortage.no_process()

    def withdraw(self, call: _Call) -> bool:
        """Whether that could still be done: it has never begun then."""
        if call.began:
            return False
        self._waiting.remove(call)
        return True

    def end(self) -> None:
        for _ in range(self._threads):
            self._given.put(None)

    def _next(self) -> None:
        """Give threads to those who wait, in their order, but not to clients that have as many as they may."""
        for call in tuple(self._waiting):
            if self._at_work[call.client] >= self._kind.each and call.client:
                continue
            if self._busy == self._threads:
                if self._threads == self._kind.most:
                    return
                try:
                    self._start_one()
                except RuntimeError:  # there are no more to be had: they wait for one that comes back
                    return
            self._waiting.remove(call)
            self._begin(call)

    def _begin(self, call: _Call) -> None:
        call.began = time.monotonic()
        self._busy += 1
        self._at_work[call.client] += 1
        later = call.outcome.get_loop().call_later
        call.timers.append(later(self._kind.lent_s, self._lend, call))
        if self._kind in _QUICK:
            call.timers.append(later(self._told_s, self.report, call))
        self._given.put(call)

    def _lend(self, call: _Call) -> None:
        call.lent = True
        self._busy -= 1
        self._threads -= 1
        self._next()

    def report(self, call: _Call) -> None:
        """That it hangs, once."""
        if not call.told and not call.outcome.done():
            call.told = True
            self._tell(call.hang(over=False))

    def _done(self, call: _Call, result: object, error: BaseException | None) -> None:
        for timer in call.timers:
            timer.cancel()
        self._at_work[call.client] -= 1
        if not call.lent:
            self._busy -= 1
        elif self._threads < self._kind.most:
            self._threads += 1
        else:
            self._given.put(None)  # one more than there are to be
        _tell(call, result, error)
        if call.told:
            self._tell(call.hang(over=True))
        self._at_work += Counter()  # without zeros
        self._next()


def _serve(
    given: "SimpleQueue[_Call | None]", done: Callable[[_Call, object, BaseException | None], None]
) -> None:
    signals.block_stop_signals()
    while (call := given.get()) is not None:
        result = error = None
        work, call.work = call.work, None
        assert work is not None  # noqa: S101 (one thread alone gets it)
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 (it is raised where it was called for)
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop may have ended without it
            call.outcome.get_loop().call_soon_threadsafe(done, call, result, error)
        del call, work, result, error  # nothing is kept alive until the next one


class Lone:
    """A thread that does one thing after the other: what somebody has called off too, and what comes next waits for it."""

    def __init__(self, name: str) -> None:
        self._given: SimpleQueue[_Call | None] = SimpleQueue()
        threading.Thread(target=_serve, args=(self._given, _tell), name=name, daemon=True).start()

    def submit(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        call = _Call(work, "", asyncio.get_running_loop().create_future(), None)
        self._given.put(call)
        return call.outcome

    def end(self) -> None:
        """After what was given to it; not waited for."""
        self._given.put(None)


def _tell(call: _Call, result: object, error: BaseException | None) -> None:
    if call.outcome.cancelled():
        return
    if error is None:
        call.outcome.set_result(result)
    else:
        call.outcome.set_exception(error)


class Threads:
    """Those of an event loop."""

    def __init__(self, timing: Timing = Timing()) -> None:
        self._timing = timing
        self._bulkheads = {kind: _Bulkhead(kind, timing.told, self._tell) for kind in Kind}
        self._left: dict[_Whose, list[_Call]] = {}
        """Calls that were left behind and have not ended."""
        self._hanging: Counter[str] = Counter()
        self.heard: Callable[[Hang], object] = lambda _: None
        """Is told what hangs, and when that is over."""
        self.ending = False
        """The daemon ends: nothing is waited for without a limit."""

    def start(self) -> None:
        """All of them, beforehand. Raises `LimitReached`."""
        for bulkhead in self._bulkheads.values():
            bulkhead.start()

    def end(self) -> None:
        for bulkhead in self._bulkheads.values():
            bulkhead.end()

    @property
    def hanging(self) -> frozenset[str]:
        """The clients whose disks do not answer, as far as is known."""
        return frozenset(self._hanging)

    def _tell(self, hang: Hang) -> None:
        self._hanging[hang.client] += -1 if hang.over else 1
        self._hanging += Counter()  # without zeros
        if not hang.over or hang.client not in self._hanging:
            self.heard(hang)

    async def run(self, work: Callable[[], T], kind: Kind, stop: threading.Event | None) -> T:
        """See `in_thread`."""
        client, bulkhead = _CLIENT.get(), self._bulkheads[kind]
        # What asks the kernel works on nothing that the next call could meet.
        whose = None if kind is Kind.MACHINE else (client, "" if client else kind.name)
        if whose is not None and (left := self._left.get(whose)):
            raise _hangs(left[0])
        call = _Call(work, client, asyncio.get_running_loop().create_future(), deadline.current())
        bulkhead.submit(call)
        try:
            # What is long has its caller's deadline: a seal may wait for others', and what it would save is a login.
            limited = self.ending and kind in _QUICK
            await asyncio.wait([call.outcome], timeout=self._timing.last if limited else None)
        except asyncio.CancelledError:
            if not bulkhead.withdraw(call):
                if stop is not None:
                    stop.set()
                await _ended(call.outcome, self._timing.grace)
                self._leave(call, bulkhead, whose)
            raise
        if call.outcome.done():
            result: T = call.outcome.result()
            return result
        if not bulkhead.withdraw(call):
            self._leave(call, bulkhead, whose)
        raise _hangs(call)

    def _leave(self, call: _Call, bulkhead: _Bulkhead, whose: _Whose | None) -> None:
        forget(call.outcome)
        bulkhead.report(call)
        if whose is not None and not call.outcome.done():
            self._left.setdefault(whose, []).append(call)
            call.outcome.add_done_callback(lambda _: self._back(call, whose))

    def _back(self, call: _Call, whose: _Whose) -> None:
        self._left[whose].remove(call)
        if not self._left[whose]:
            del self._left[whose]


async def _ended(outcome: "asyncio.Future[Any]", limit_s: float) -> None:
    """Wait so long for a call that was called off, however often that is done."""
    until = time.monotonic() + limit_s
    while not outcome.done() and (left_s := until - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([outcome], timeout=left_s)


def _hangs(call: _Call) -> StorageHangs:
    hang = call.hang(over=False)
    whose = f"{hang.client}'s disk" if hang.client else "the disk of the sessions"
    where = f"Stage {hang.stage}: {hang.doing}" if hang.stage else hang.doing.capitalize()
    waited_s = f"{hang.waited_s:g} s" if call.began else "long"
    return StorageHangs(
        f"{where} has not ended for {waited_s}: {whose} does not answer.",
        hint="See what it waits for: dmesg, and /proc/PID/task/*/wchan of the daemon.",
        stage=hang.stage or None,
        retry_after_s=_RETRY_S,
    )


_THREADS: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Threads]" = weakref.WeakKeyDictionary()


def of_this_loop() -> Threads:
    """Those that `in_thread` takes here."""
    loop = asyncio.get_running_loop()
    if (threads := _THREADS.get(loop)) is None:
        threads = _THREADS[loop] = Threads()
        weakref.finalize(loop, threads.end)
    return threads


async def in_thread(
    call: Callable[..., T], *args: object, kind: Kind = Kind.FILES, stop: threading.Event | None = None
) -> T:
    """Run in a thread what blocks. Called off, it waits for the thread all the same, and leaves one behind that does not end.

    ``stop`` is set then, for work that is long and looks at it. Raises `StorageHangs`, also while an earlier call of the same client
    does not end; `LimitReached` if the host gives it no more files or threads.
    """
    try:
        return await of_this_loop().run(partial(call, *args), kind, stop)
    except OSError as error:
        if (limit := shortage.reached(error)) is not None:
            raise limit from None
        raise


@asynccontextmanager
async def in_threads(block: AbstractContextManager[T], kind: Kind = Kind.FILES) -> AsyncIterator[T]:
    """The same block, of a `contextmanager`, whose beginning and end are file work."""
    try:
        yield await in_thread(block.__enter__, kind=kind)
    except BaseException as error:
        with contextlib.suppress(StorageHangs):  # what has ended the block is the news
            if await in_thread(block.__exit__, type(error), error, error.__traceback__, kind=kind):
                return
        raise
    else:
        await in_thread(block.__exit__, None, None, None, kind=kind)
