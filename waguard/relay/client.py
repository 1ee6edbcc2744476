"""One client of the relay as long as it is attached: its place on the browser's pipe, its connection, what waits for it to read.

Whoever carries its frames (`waguard.api.cdp`) gives it what comes and takes what is to go; however that ends, its sessions are detached in the
browser first. What a client keeps waiting is let go on in its own sessions, then without it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from waguard.browser.channel import MOST_COMMAND, Limits, Message, Refused
from waguard.browser.devtools import DevTools
from waguard.browser.guests import Guest
from waguard.core.actor import Actor
from waguard.core.relay.budget import FRAME, Budget
from waguard.errors import PageFailed
from waguard.relay import wire
from waguard.relay.acts import ACTS, ask_again, say_gone
from waguard.relay.connection import Block, Connection
from waguard.relay.incoming import Incoming
from waguard.relay.replay import Replay
from waguard.relay.seen import Seen

LIMITS = Limits(
    message=MOST_COMMAND,
    command=MOST_COMMAND,
    unsent=2 * MOST_COMMAND,
    unread=MOST_COMMAND + 32 * 1024 * 1024,
)
"""The largest message, and some that wait for it."""
MOST_PARSED = 8 * 1024 * 1024
"""Bytes of a command besides long plain texts: to parse more, and to write it anew, keeps everybody waiting."""
START_S = 2.0
"""How long a client may keep what starts from starting: with workers and pages everybody waits."""
AFTERWARDS_S = 2.0
"""How long a client has that was told, in its own session, that others wait."""
GAP_S = 1.0
"""Who keeps the page waiting again so soon has never let it go on."""
_AWAY = "the browser has gone, and the next one of its session is not there yet"
_SHOWN = {
    Block.DIALOG: "a dialog of the page's was open",
    Block.PAUSE: "the page was paused",
    Block.SCRIPT: "a script kept the page from answering",
}


class Closing(IntEnum):
    """Why a client is detached: the WebSocket's close code."""

    DONE = 1000
    DAEMON = 1001
    PROTOCOL = 1002
    NO_TEXT = 1003
    TAKEN_OVER = 4001
    REMEDY = 4002
    BROWSER = 4003
    TOO_MUCH = 4004
    HELD_UP = 4005
    SILENT = 4006
    TOKEN = 4007
    MISTAKE = 1011


CLOSINGS: Mapping[Closing, str] = {
    Closing.DONE: "the client has closed its browser",
    Closing.DAEMON: "the daemon ends; attach again to the next one",
    Closing.PROTOCOL: "what it sends is not of the WebSocket protocol",
    Closing.NO_TEXT: "frames of bytes are not of the protocol",
    Closing.TAKEN_OVER: "another client has taken the page over",
    Closing.REMEDY: "the page was needed: the reason says for what; attach again",
    Closing.BROWSER: "the browser has ended",
    Closing.TOO_MUCH: "the client did not read, or sent or asked for more than it may",
    Closing.HELD_UP: "the client kept the page waiting for longer than `relay.blocked_s`",
    Closing.SILENT: "the client has answered no ping for longer than `relay.silent_s`",
    Closing.TOKEN: "the token by which it was let in has expired, or was revoked",
    Closing.MISTAKE: "a bug in waguard; the log has it",
}


@dataclass(frozen=True, slots=True)
class End:
    code: Closing
    reason: str


class Piece(NamedTuple):
    """Of a frame."""

    data: bytes
    ends: bool


class Host(Protocol):
    """Who knows the other clients of the page."""

    def take_page(self, client: "Client") -> str:
        """Make it the owner; why not, if it cannot be."""

    def owns_page(self, client: "Client") -> bool: ...

    def leave_page(self, client: "Client") -> None: ...

    def refused(self, client: "Client", method: str, reason: str) -> None: ...

    def made(self, context: str) -> None: ...

    def replayed(self, client: "Client") -> None: ...

    def stalls(self, client: "Client", session: str, block: Block, *, begins: bool) -> None: ...

    def failed(self, error: Exception) -> None:
        """A bug."""

    def lost(self, client: "Client", reason: str) -> None:
        """It has no browser any more, and stays."""

    def gone(self, client: "Client", end: End) -> None: ...


class Client:
    def __init__(
        self,
        host: Host,
        actor: Actor,
        budget: Budget,
        *,
        takes_over: bool,
        blocked_s: float,
        silent_s: float,
        replay: Replay | None,
        follows: bool = False,
    ) -> None:
        """``budget``: of the memory that it and others have together."""
        self.actor = actor
        self.takes_over = takes_over
        """Whether it takes the page from whoever has it."""
        self.follows = follows
        """Whether it stays when its browser goes, and is let into the next one of its session."""
        self.silent_s = silent_s
        """How long it may give no sign of life."""
        self._host = host
        self._budget = budget
        self._blocked_s = blocked_s
        self._replay = replay
        self._loop = asyncio.get_running_loop()
        self.devtools: DevTools | None = None
        """Of the browser that it is in, or was."""
        self._guest: Guest | None = None
        self._connection: Connection | None = None
        self._wishes: Mapping[str, Mapping[str, Any]] = {}
        """See `Connection.wishes`: of the browser before."""
        self._first: dict[int, asyncio.Future[Message]] = {}
        """Answers that are waited for before there is a connection."""
        self._incoming: Incoming | None = None
        """The frame that comes in pieces."""
        self._texts: Mapping[bytes, Sequence[bytes]] = {}
        """Of the frame that is dealt with."""
        self._waiting: deque[tuple[wire.Frame, int]] = deque()
        """Frames, each with the bytes that it takes in memory."""
        self._unread = 0
        """Of all of them."""
        self._write: Callable[[], None] = lambda: None
        self._timers: dict[tuple[str, Block], asyncio.TimerHandle] = {}
        """What is done next about something that it keeps waiting."""
        self._gaps: dict[tuple[str, Block], asyncio.TimerHandle] = {}
        """What goes on, if it still does then."""
        self._end: End | None = None
        self._ended: asyncio.Future[End | None] = self._loop.create_future()

    @property
    def contexts(self) -> frozenset[str]:
        """Those that it has made itself; they go with it."""
        return frozenset(self._connection.seen.contexts if self._connection is not None else ())

    @property
    def exposed(self) -> bool:
        """See `Connection.exposed`."""
        return self._connection is not None and self._connection.exposed

    @property
    def leaves_script(self) -> bool:
        """See `Connection.leaves_script`."""
        return self._connection is not None and self._connection.leaves_script

    def __str__(self) -> str:
        where = f" from {self.actor.origin}" if self.actor.origin else ""
        return f"{self.actor}{where}, request {self.actor.request}"

    async def attach(self, devtools: DevTools, target: str, home: str, uploads: Mapping[str, str]) -> None:
        """Let it in, also into another browser than before. The caller sets the deadline. Raises `PageFailed`."""
        self.devtools = devtools
        self._guest = guest = await devtools.guests.admit(
            str(self), LIMITS, self._heard, self._dropped, self._settled
        )
        if self._end is not None:
            guest.leave()
        own = await self._ask("Target.getTargetInfo", {})
        page = await self._ask("Target.getTargetInfo", {"targetId": target})
        self._budget.enter(self)
        seen = Seen(guest.session, own["targetId"], page, home, uploads)
        self._connection = connection = Connection(seen, self, ACTS, self._replay)
        if self._ended.done() and self._end is None:
            self._ended = self._loop.create_future()
        ask_again(connection, self._wishes)

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        assert self._guest is not None  # noqa: S101 (it was let in)
        answer: asyncio.Future[Message] = self._loop.create_future()
        try:
            self._first[self._guest.send(method, params)] = answer
        except Refused as error:  # it was detached meanwhile
            raise PageFailed(f"The client was detached: {error}.") from None
        message = await answer
        try:
            return wire.read(message.parts)["result"]["targetInfo"]  # type: ignore[no-any-return]
        except (KeyError, TypeError, ValueError):
            raise PageFailed("The browser does not say what it shows.") from None

    # --- frames

    def take(self, piece: bytes, *, ends: bool = True) -> None:
        """What the client has sent: a frame, or a piece of one."""
        if self._end is not None:
            return
        if self._incoming is None and ends:
            self._take(piece)
            return
        incoming = self._incoming = self._incoming or Incoming()
        incoming.add(piece)
        self._budget.grow(len(piece))
        if incoming.size > MOST_COMMAND:
            self.leave(Closing.TOO_MUCH, f"a command of more than {MOST_COMMAND} bytes")
        elif incoming.parsed > MOST_PARSED:
            self.leave(
                Closing.TOO_MUCH, f"a command of more than {MOST_PARSED} bytes besides long plain texts"
            )
        elif ends:
            self._incoming, self._texts = None, incoming.texts
            self._take(incoming.frame())
            self._texts = {}

    def together(self) -> AbstractContextManager[None]:
        """What is taken within is written to the browser at its end, at once."""
        return self._guest.guests.together() if self._guest is not None else nullcontext()

    def _take(self, frame: bytes) -> None:
        if self._connection is None:
            self._say_away(frame)
            return
        try:
            self._connection.take(frame)
        except Exception as error:  # noqa: BLE001 (one client's trouble is not the daemon's)
            self._fail(error)

    def _say_away(self, frame: bytes) -> None:
        try:
            command = wire.parse(frame)
        except wire.Malformed as error:
            self.tell(wire.error(error.number, error.code, str(error)))
        else:
            gone = wire.NO_SESSION, "Session with given id not found."
            code, why = (wire.FAILED, f"waguard: {_AWAY}") if command.session is None else gone
            self.tell(wire.error(command.number, code, why))

    def carried_by(self, write: Callable[[], None]) -> None:
        """Called when there may be something to write."""
        self._write = write

    def next_piece(self) -> Piece | None:
        """What is to go to the client next, if anything."""
        if not self._waiting:
            return None
        frame, size = self._waiting[0]
        data, ends = (frame, True) if isinstance(frame, bytes) else (frame.take(), not frame)
        if ends:
            self._waiting.popleft()
            self._unread -= size
        return Piece(data, ends)

    @property
    def all_sent(self) -> bool:
        return not self._waiting

    def discard(self) -> None:
        """What waits for the client is not sent any more."""
        self._waiting.clear()
        self._unread = 0

    @property
    def held(self) -> int:
        """Bytes, in memory."""
        unsent = self._guest.lane.unsent if self._guest is not None else 0
        return self._unread + unsent + (self._incoming.size if self._incoming is not None else 0)

    def give_up(self, why: str) -> None:
        self.leave(Closing.TOO_MUCH, why)

    def page_silent(self, *, silent: bool) -> None:
        """Whether the page does not answer."""
        if self._connection is not None:
            self._connection.page_silent(silent=silent)

    # --- the end

    def leave(self, code: Closing, reason: str) -> None:
        """Detach it, in the browser first. Harmless if it has gone; the first reason is the one that counts."""
        if self._end is not None:
            return
        self._end = end = End(code, reason)
        self._let_go_of_all(reason)
        if self._connection is not None:
            self._connection.let_all_go()
        if self._guest is not None:
            self._guest.leave()
        self._incoming = None
        self._budget.leave(self)
        self._host.gone(self, end)
        if self._ended.done():
            self._ended = self._loop.create_future()
        self._ended.set_result(end)

    def lose(self, code: Closing, reason: str) -> None:
        """Its browser goes, or has gone. Who follows its session is told in the protocol's terms, and stays; everybody else leaves."""
        if not self.follows or self._end is not None:
            self.leave(code, reason)
            return
        guest, connection = self._guest, self._connection
        if connection is not None:
            self._host.lost(self, reason)
            self._wishes = connection.wishes
        self._guest = self._connection = None
        self._let_go_of_all(reason)
        if connection is not None:
            say_gone(connection, f"waguard: {_AWAY}")
        if guest is not None:
            guest.leave()
        self._write()
        if not self._ended.done():
            self._ended.set_result(None)

    def _let_go_of_all(self, reason: str) -> None:
        """Nothing is waited for any more."""
        for session, block in [*self._timers]:
            if block is not Block.START:
                self._host.stalls(self, session, block, begins=False)
        for timers in (self._timers, self._gaps):
            for timer in timers.values():
                timer.cancel()
            timers.clear()
        for answer in self._first.values():
            if not answer.done():
                answer.set_exception(PageFailed(f"The client was detached: {reason}."))
                answer.exception()

    async def ended(self) -> End | None:
        """Why; None: it has lost its browser, and stays."""
        return await asyncio.shield(self._ended)

    def _dropped(self, why: str) -> None:
        """By the pipe: it has gone, or this client's limits were passed."""
        if self._guest is None:  # by itself
            return
        if self.devtools is not None and self.devtools.connected:
            self.leave(Closing.TOO_MUCH, why)
        else:
            self.lose(Closing.BROWSER, why)

    def _fail(self, error: Exception) -> None:
        self._host.failed(error)
        self.leave(Closing.MISTAKE, "a bug in waguard")

    # --- from the browser

    def _heard(self, message: Message) -> None:
        if (answer := self._first.pop(message.number or -1, None)) is not None:
            if not answer.done():
                answer.set_result(message)
        elif self._connection is not None:
            try:
                self._connection.hear(message)
            except Exception as error:  # noqa: BLE001 (likewise)
                self._fail(error)
        if self._guest is not None:
            self._guest.done(message)

    def _settled(self) -> None:
        self._write()

    # --- what its connection needs

    def send(self, method: str, params: Mapping[str, Any], session: str) -> int:
        if self._guest is None:
            raise Refused(_AWAY)
        number = self._guest.send(method, params, session, self._texts)
        self._budget.grow(FRAME)
        return number

    def tell(self, frame: wire.Frame) -> None:
        size = len(frame) + FRAME
        self._unread += size
        self._waiting.append((frame, size))
        if self._unread > LIMITS.unread:
            self.leave(Closing.TOO_MUCH, f"more than {LIMITS.unread} bytes wait to be read")
        self._budget.grow(size)

    def take_page(self) -> str:
        return self._host.take_page(self)

    def owns_page(self) -> bool:
        return self._host.owns_page(self)

    def leave_page(self) -> None:
        self._host.leave_page(self)

    def refused(self, method: str, reason: str) -> None:
        self._host.refused(self, method, reason)

    def made(self, context: str) -> None:
        self._host.made(context)

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        self._loop.call_later(seconds, lambda: do() if self._end is None else None)

    def replayed(self) -> None:
        self._host.replayed(self)

    def forget(self, session: str) -> None:
        if self._guest is not None:
            self._guest.forget(session)

    def unask(self, number: int) -> None:
        if self._guest is not None:
            self._guest.unask(number)

    def end(self) -> None:
        self.leave(Closing.DONE, CLOSINGS[Closing.DONE])

    def blocks(self, session: str, block: Block, *, begins: bool) -> None:
        if self._end is not None:
            return
        key = session, block
        if not begins:
            gap_s = GAP_S if block in {Block.DIALOG, Block.PAUSE} else 0
            self._gaps[key] = self._loop.call_later(gap_s, self._goes_on, *key)
        elif (gap := self._gaps.pop(key, None)) is not None:
            gap.cancel()
        else:
            seconds = START_S if block is Block.START else self._blocked_s
            self._timers[key] = self._loop.call_later(seconds, self._let_go, *key)
            if block is not Block.START:
                self._host.stalls(self, session, block, begins=True)

    def _goes_on(self, session: str, block: Block) -> None:
        del self._gaps[session, block]
        self._timers.pop((session, block)).cancel()
        if block is not Block.START:
            self._host.stalls(self, session, block, begins=False)

    def _let_go(self, session: str, block: Block) -> None:
        assert self._connection is not None  # noqa: S101 (it blocks)
        if block is not Block.START:
            why = f"{_SHOWN[block]} for {self._blocked_s:g} s"
            again = self._loop.call_later(AFTERWARDS_S, self.leave, Closing.HELD_UP, why)
            self._timers[session, block] = again
        self._connection.let_go(session, block)
