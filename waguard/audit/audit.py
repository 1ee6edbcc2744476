"""What is done with special rights, recorded: before it is done and after, and what the daemon does by itself, after.

An act that cannot be undone is refused while there can be no record of it; all others wait for theirs in a queue.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from waguard.audit.chain import Chain, Draft
from waguard.core.actor import Actor, who_acts
from waguard.core.audit import BY_ITSELF, EVIDENCE, Kind, Note, counts
from waguard.core.catalogue import OF_AN_ACTOR, mistake
from waguard.core.model import Alert, ClientCode
from waguard.errors import AuditUnavailable, WaguardError
from waguard.observe.bus import Bus, Event
from waguard.observe.outbox import Outbox
from waguard.system.sqlite import TooNewError
from waguard.system.tasks import background, forget

T = TypeVar("T")

OK, CALLED_OFF = "ok", "called_off"
_BATCH = 500
_EVIDENCE = 50
"""Events that are kept of one act."""
_SEE = "See: waguard audit verify"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long what may take, in seconds, and how many records may wait."""

    write_s: float = 5.0
    """Deadline of a record that somebody waits for."""
    retry_s: float = 2.0
    busy_s: float = 1.0
    """How long somebody else who has the file open may hold it."""
    end_s: float = 5.0
    """Deadline of acts that are under way, and then of the last records, when the daemon ends."""
    waiting: int = 10_000


@dataclass(frozen=True, slots=True)
class Wish:
    """An act that somebody asks for."""

    act: str
    client: ClientCode | None
    told: Mapping[str, Any]
    """What was asked."""
    must: bool
    """It is not done without a record."""


Ended = tuple[str, Mapping[str, Any]]
"""The outcome, and what there is to tell of it besides."""


@dataclass(eq=False, slots=True)
class _Act:
    wish: Wish
    actor: Actor | None
    events: list[Mapping[str, Any]] = field(default_factory=list)
    """What it has done, as far as the bus has told."""


class Audit:
    def __init__(
        self,
        root: Path,
        bus: Bus,
        alert: Callable[[Alert, str], None],
        now: Callable[[], float] = time.time,
        bounds: Bounds = Bounds(),
    ) -> None:
        """``root`` is ``sessions.dir``."""
        self._bounds = bounds
        self._publish = bus.publish
        self._alert = alert
        self._now = now
        self._chain = Chain(root, bounds.busy_s, now, self._tell_unreadable)
        self._due = asyncio.Event()
        self._outbox = Outbox[Draft](bounds.waiting, self._due.set)
        self._unwritten: Sequence[Draft] = ()
        self._late: asyncio.Task[None] | None = None
        """A write that has missed its deadline, and goes on."""
        self._writing: set[asyncio.Task[None]] = set()
        self._failing = ""
        """Why nothing can be written; empty: it can."""
        self._too_new = False
        self._acts: dict[str, _Act] = {}
        """Those under way, by their requests."""
        self._under_way: set[asyncio.Task[Any]] = set()
        self._writer: asyncio.Task[None] | None = None

    # --- life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Look at what an earlier daemon has left, and begin to write what waits."""
        await self._soon(self._look)
        self._writer = background(self._write_for_ever, "audit", self._publish, again=True)

    async def _look(self) -> None:
        if wrong := await self._chain.look():
            self._alert(Alert.AUDIT_BROKEN, f"{wrong} {_SEE}")

    async def close(self) -> None:
        """Let acts end, and write what waits, each within a deadline. What comes later is not recorded."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._bounds.end_s)
        for act in [*self._under_way]:
            act.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._bounds.end_s):
                while self._left and not self._too_new and await self._write_some():
                    pass
                await self._chain.close()
        for write in [*self._writing]:  # its disk hangs
            write.cancel()
        if self._writing:
            await asyncio.wait(self._writing)
        if lost := self._left + self._outbox.dropped:
            self._publish("audit.lost", path=str(self._chain.path), records=lost)
        self._chain.end()

    # --- what is asked for ----------------------------------------------------------------------------

    async def doing(
        self, wish: Wish, deed: Callable[[], Awaitable[T]], ended: Callable[[T], Ended], *, stays: bool
    ) -> T:
        """Have it done, with a record before and one after it; with ``stays`` also when the caller does not wait for it any more.

        Raises what ``deed`` does, and `AuditUnavailable`: then nothing was done.
        """
        if not stays:
            return await self._doing(wish, deed, ended)
        work = asyncio.create_task(self._doing(wish, deed, ended))
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)
        forget(work)
        return await asyncio.shield(work)

    async def _doing(self, wish: Wish, deed: Callable[[], Awaitable[T]], ended: Callable[[T], Ended]) -> T:
        act = _Act(wish, who_acts())
        request = act.actor.request if act.actor is not None else ""
        self._acts[request] = act
        try:
            why = await self._record(self._draft(Kind.ASKED, act, wish.told))
            if why and wish.must:
                raise AuditUnavailable(f"There can be no record of this, so nothing was done. {why}")
            done = await deed()
        except asyncio.CancelledError:
            self._outbox.put(self._end(act, CALLED_OFF))
            raise
        except Exception as error:
            code, said = (
                (error.code, error.message) if isinstance(error, WaguardError) else ("internal", repr(error))
            )
            await self._record(self._end(act, code, {"error": said}))
            raise
        else:
            await self._record(self._end(act, *ended(done)))
            return done
        finally:
            self._acts.pop(request, None)

    def _draft(self, kind: Kind, act: _Act, told: Mapping[str, Any], outcome: str = "") -> Draft:
        actor = act.actor
        return Draft(
            Note(
                self._now(),
                kind,
                act.wish.act,
                str(actor) if actor is not None else BY_ITSELF,
                actor.origin if actor is not None else "",
                actor.request if actor is not None else "",
                act.wish.client or "",
                outcome,
                told,
            )
        )

    def _end(self, act: _Act, outcome: str, told: Mapping[str, Any] | None = None) -> Draft:
        events = {"events": act.events} if act.events else {}
        return self._draft(Kind.DONE, act, {**(told or {}), **events}, outcome)

    # --- what was done --------------------------------------------------------------------------------

    def heard(self, event: Event) -> None:
        """The bus's subscriber."""
        fields = {name: value for name, value in event.fields.items() if name not in OF_AN_ACTOR}
        act = self._acts.get(str(event.fields.get("request", "")))
        if act is not None and event.name in EVIDENCE:
            if len(act.events) < _EVIDENCE:
                act.events.append({"event": event.name, **fields})
        elif counts(event.name, event.fields):
            outcome = str(fields.pop("outcome", OK))
            actor, origin, request = (str(event.fields.get(name, "")) for name in OF_AN_ACTOR)
            who = (actor or BY_ITSELF, origin, request, event.client or "")
            self._outbox.put(Draft(Note(self._now(), Kind.SEEN, event.name, *who, outcome, fields)))

    # --- onto the disk --------------------------------------------------------------------------------

    async def _record(self, draft: Draft) -> str:
        """Why it is not on disk now; then it waits until it can be. Empty: it is."""
        try:
            return await self._soon(lambda: self._chain.append([draft]))
        finally:
            if not draft.written:
                self._outbox.put(draft)

    async def _soon(self, write: Callable[[], Coroutine[Any, Any, None]]) -> str:
        """Why it was not done in time, while it goes on, or cannot be done. While another goes on it is not tried."""
        if self._late is not None and not self._late.done():
            return self._failing or f"{self._chain.path}: its disk does not answer."
        work, limit_s = self._begin(write), self._bounds.write_s
        if not (await asyncio.wait([work], timeout=limit_s))[0]:
            self._late = work
            self._note(f"{self._chain.path} is not written within {limit_s:g} s: its disk does not answer.")
            return self._failing
        return self._outcome(work)

    def _begin(self, write: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
        work = asyncio.create_task(write(), name="audit:write")
        self._writing.add(work)
        work.add_done_callback(self._writing.discard)
        forget(work)
        return work

    def _outcome(self, work: "asyncio.Task[None]") -> str:
        """Why it could not be done. When that changes it is told, once."""
        try:
            work.result()
        except TooNewError:
            if not self._too_new:
                self._too_new = True
                hint = "A newer waguard has written it, and it is left as it is. Install that one again, or move the file away."
                self._publish("audit.too_new", path=str(self._chain.path), hint=hint)
            self._note(f"{self._chain.path} was written by a newer waguard.")
        except (sqlite3.Error, OSError) as error:
            self._note(f"{self._chain.path}: {error}.")
        except WaguardError as error:
            self._note(error.message)
        except Exception as error:  # noqa: BLE001 (what is not foreseen is no record either)
            self._publish("internal.error", **mistake("audit", error))
            self._note(f"{self._chain.path}: {error!r}.")
        else:
            self._note("")
        return self._failing

    def _note(self, why: str) -> None:
        before, self._failing = self._failing, why
        self._tell_written()
        if why and not before:
            self._publish("audit.write_failed", path=str(self._chain.path), error=why)
        elif before and not why:
            self._publish("audit.recovered", path=str(self._chain.path))
        said = f"What cannot be undone is refused, since there can be no record of it. {why}" if why else ""
        self._alert(Alert.AUDIT_UNAVAILABLE, said)

    def _tell_written(self) -> None:
        """The anchors, for the log."""
        while self._chain.written:
            one = self._chain.written.popleft()
            self._publish("audit.recorded", path=str(self._chain.path), number=one.number, hash=one.hash)

    def _tell_unreadable(self, kept_as: str, why: str) -> None:
        self._publish("audit.unreadable", kept_as=kept_as, error=why)
        self._alert(
            Alert.AUDIT_BROKEN, f"The file of the audit could not be read: it is kept as {kept_as} ({why})."
        )

    @property
    def _left(self) -> int:
        """How many records are still to be written."""
        return len(self._outbox) + len(self._unwritten)

    async def _write_for_ever(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self._left and not self._too_new:
                if not await self._write_some():
                    await asyncio.sleep(self._bounds.retry_s)

    async def _write_some(self) -> bool:
        """Whether they could be written; if not they go on waiting."""
        if not self._unwritten:
            waited = (self._outbox.take() for _ in range(_BATCH))
            self._unwritten = [one for one in waited if isinstance(one, Draft)]  # a gap is counted
        work = self._begin(lambda: self._chain.append(self._unwritten))
        await asyncio.wait([work])
        if self._outcome(work):
            return False
        self._unwritten = ()
        return True
