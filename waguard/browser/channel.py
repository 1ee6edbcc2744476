"""What is said on the DevTools pipe, sorted by whose it is, with a budget for each. Pure: no I/O, no clock.

Several share the one pipe of a browser: the daemon, and whoever else is let in. Each has a `Lane` with its own DevTools
sessions and its own limits. What one does beyond them costs that one: its lane is dropped, with a reason. The daemon's lane is
never dropped: it loses the one message that is too long, and its commands are the next to be written whatever else waits.

Facts of Chromium (tried with 156; paths are of its source tree):

- ``content/browser/devtools/devtools_pipe_handler.cc``: a message ends in NUL, in both directions. ``PipeReaderASCIIZ`` closes the
  pipe over a command of more than 100 MiB (``kReceiveBufferSizeForDevTools``), which would end everybody: hence `MOST_COMMAND`.
  ``PipeWriterBase::Write`` queues what we do not read, without bound: we read always, and drop what nobody takes.
- ``content/browser/devtools/devtools_session.cc``, ``DispatchProtocolMessage``: every session of the pipe may be addressed by anybody on
  it, and a command of a session that has gone is answered without an id of a session. So it is here that a lane is kept to its own
  sessions, and answers go by number.

Whose a message is its two ends tell: `waguard.browser.envelope`.
"""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from waguard.browser.envelope import ODD, Assembly, child_in_head, told_by_all, told_by_head, told_by_tail

MOST_COMMAND = 96 * 1024 * 1024
"""Bytes of one command: of more than 100 MiB the browser closes its pipe."""
PIECE = 64 * 1024
"""Bytes that are written at once: what a pipe holds."""
_ENDLESS = 4 * 1024**3
"""Bytes of one message, and no page can make one so long: V8's longest text, all of it escaped, is 3 GiB."""


class Refused(Exception):
    """A command is not taken; the text says why. Whoever is not the daemon may have lost its lane by it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a lane may take, in bytes."""

    message: int
    """Of one answer or event."""
    command: int
    """Of one command."""
    unsent: int
    """Of commands that wait to be written."""
    unread: int = 0
    """Of what was handed out and is not `done` with. Not asked of the daemon, which takes each as it comes."""


@dataclass(eq=False, slots=True)
class Lane:
    """One that shares the pipe. Only its `Channel` changes it."""

    name: str
    limits: Limits
    unread: int = 0
    unsent: int = 0
    dropped: str = ""
    """Why; empty while it is open."""
    sessions: set[str] = field(default_factory=set)
    queue: deque[Sequence[bytes]] = field(default_factory=deque)
    """Commands that are not begun, each in its pieces."""


class Message(NamedTuple):
    """An answer or an event, as the browser wrote it: in pieces, so that a long one is neither copied nor parsed on its way."""

    lane: Lane
    number: int | None
    """Of the command that it answers."""
    method: str | None
    """Of an event; None also if it is of none of the known forms."""
    session: str | None
    """None: the pipe's own."""
    parts: Sequence[bytes]
    size: int

    def whole(self) -> bytes:
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)


@dataclass(frozen=True, slots=True)
class TooLong:
    """An answer to the daemon was longer than it asked for."""

    number: int
    most: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A lane is of no use any more: its sessions are still to be detached in the browser."""

    lane: Lane


@dataclass(frozen=True, slots=True)
class Broken:
    """The browser writes what is no message: nothing that comes after it can be trusted."""

    why: str


Heard = Message | TooLong | Dropped | Broken


def _with_texts(command: bytes, texts: Mapping[bytes, Sequence[bytes]]) -> Sequence[bytes]:
    if not texts:
        return (command,)
    found: list[bytes] = []
    for part in re.split(b"(%s)" % b"|".join(map(re.escape, texts)), command):
        found += texts.get(part, (part,))
    return tuple(filter(None, found))


class Channel:
    """``own``: limits of the daemon's lane. ``numbers_from``: below it are those of an earlier daemon, whose answers are still to come."""

    def __init__(self, own: Limits, *, numbers_from: int | None = None) -> None:
        self.own = Lane("daemon", own)
        self.strays = 0
        """Messages for nobody: late answers, sessions that have gone."""
        self._lanes = {self.own}
        self._owners: dict[str, Lane] = {}
        self._asked: dict[int, tuple[Lane, int]] = {}
        """By number: who gets the answer, and how long it may be."""
        self._number = numbers_from or 0
        self._assembly = Assembly()
        # The first may be the end of one that an earlier daemon has begun to read.
        self._forgiving = numbers_from is not None
        self._writing: tuple[Lane, deque[memoryview]] | None = None
        """The command that is begun, from where it has got to."""
        self._turns: deque[Lane] = deque()
        """Lanes but the daemon's with something in their queue."""

    # --- who shares it ----------------------------------------------------------------------------------

    def open(self, name: str, limits: Limits, session: str) -> Lane:
        """Let somebody in, with one session to begin with; those that are attached from it are its own too."""
        lane = Lane(name, limits)
        self._lanes.add(lane)
        self.give(session, lane)
        return lane

    def give(self, session: str, lane: Lane) -> None:
        """From now on the session is this lane's."""
        self.forget(session)
        self._owners[session] = lane
        lane.sessions.add(session)

    def forget(self, session: str) -> None:
        """It is detached, or about to be."""
        if (lane := self._owners.pop(session, None)) is not None:
            lane.sessions.discard(session)

    def drop(self, lane: Lane, why: str) -> None:
        """End a lane but the daemon's. What is begun of a command is still written to its end: the next one comes after it."""
        if lane.dropped or lane is self.own:
            return
        lane.dropped = why
        self._lanes.discard(lane)
        for session in list(lane.sessions):
            self.forget(session)
        self._asked = {number: asked for number, asked in self._asked.items() if asked[0] is not lane}
        lane.unsent -= sum(len(piece) for command in lane.queue for piece in command)
        lane.queue.clear()
        if lane in self._turns:
            self._turns.remove(lane)

    # --- to the browser ---------------------------------------------------------------------------------

    def send(
        self,
        lane: Lane,
        method: str,
        params: Mapping[str, Any],
        session: str | None,
        most: int | None = None,
        texts: Mapping[bytes, Sequence[bytes]] | None = None,
    ) -> int:
        """Queue a command; returns its number. Raises `Refused`.

        ``most``: bytes of its answer, if not the lane's usual. ``texts``: what is written in the place of each of these names.
        """
        if lane.dropped:
            raise Refused(lane.dropped)
        if session not in lane.sessions and (session is not None or lane is not self.own):
            raise Refused("the session is not there, or somebody else's")
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        command = _with_texts(json.dumps(message).encode() + b"\0", texts or {})
        size = sum(map(len, command))
        if size > min(lane.limits.command, MOST_COMMAND):
            self._exceed(lane, f"a command of {size} bytes: {lane.limits.command} is the most")
        if lane.unsent + size > lane.limits.unsent:
            self._exceed(
                lane, f"the browser does not read its pipe: more than {lane.limits.unsent} bytes would wait"
            )
        self._asked[number] = (lane, lane.limits.message if most is None else most)
        lane.unsent += size
        if not lane.queue and lane is not self.own:
            self._turns.append(lane)
        lane.queue.append(command)
        return number

    def _exceed(self, lane: Lane, why: str) -> None:
        self.drop(lane, why)
        raise Refused(why)

    def unask(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        self._asked.pop(number, None)

    def take(self) -> memoryview:
        """The next piece to write, at most `PIECE` bytes; empty if nothing waits."""
        if self._writing is None:
            if self.own.queue:
                lane = self.own
            elif self._turns:
                lane = self._turns.popleft()
            else:
                return memoryview(b"")
            command = lane.queue.popleft()
            if lane.queue and lane is not self.own:
                self._turns.append(lane)  # one command each, in turn
            self._writing = (lane, deque(memoryview(piece) for piece in command))
        lane, left = self._writing
        piece = left.popleft()
        if rest := piece[PIECE:]:
            piece = piece[:PIECE]
            left.appendleft(rest)
        if not left:
            self._writing = None
        lane.unsent -= len(piece)
        return piece

    # --- from the browser -------------------------------------------------------------------------------

    def receive(self, data: bytes) -> Iterator[Heard]:
        """What the browser wrote, in its order. Each is made when the one before was dealt with, which may have changed whose it is."""
        start = 0
        while (end := data.find(b"\0", start)) >= 0:
            for heard in (self._take_in(data, start, end), self._ended()):
                if heard is not None:
                    yield heard
            start = end + 1
        if start < len(data) and (heard := self._take_in(data, start, len(data))) is not None:
            yield heard

    @staticmethod
    def done(message: Message) -> None:
        """Whoever got it holds it no more."""
        message.lane.unread -= message.size

    def _take_in(self, data: bytes, start: int, end: int) -> Heard | None:
        under_way = self._assembly
        under_way.add(data if (start, end) == (0, len(data)) else data[start:end])
        if under_way.skipped:
            if under_way.size > _ENDLESS:
                return Broken(f"The browser wrote more than {_ENDLESS} bytes in one message.")
        elif under_way.size > self.own.limits.message:
            number, _ = told_by_head(under_way.head())
            if under_way.size > self._most(number):
                under_way.skip()
                if number is not None and (asked := self._asked.pop(number, None)) is not None:
                    return self._too_long(asked[0], number, asked[1])
        return None

    def _most(self, number: int | None) -> int:
        """How long the message under way may be. Whose an event is only its end tells."""
        if number is None:
            return max(lane.limits.message for lane in self._lanes)
        asked = self._asked.get(number)
        return 0 if asked is None else asked[1]

    def _ended(self) -> Heard | None:
        """The message under way is whole, or was skipped."""
        ended, self._assembly = self._assembly, Assembly()
        forgiving, self._forgiving = self._forgiving, False
        head = ended.head()
        number, method = told_by_head(head)
        session = told_by_tail(ended.tail())
        if number is None and method is None:
            if ended.skipped or ended.size > ODD:
                self.strays += 1
                return None
            try:
                number, session = told_by_all(b"".join(ended.parts))
            except (ValueError, RecursionError):
                return None if forgiving else Broken("The browser wrote something that is not JSON.")
        lane, most = self._whose(number, session)
        if lane is None:
            self.strays += 1
            return None
        if ended.skipped or ended.size > most:
            return self._too_long(lane, number, most)
        if method is not None and (child := child_in_head(head)) is not None:
            self._note_child(lane, *child)
        if lane is not self.own:
            if lane.unread + ended.size > lane.limits.unread:
                return self._drop(lane, f"more than {lane.limits.unread} bytes wait to be read")
            lane.unread += ended.size
        return Message(lane, number, method, session, tuple(map(bytes, ended.parts)), ended.size)

    def _whose(self, number: int | None, session: str | None) -> tuple[Lane | None, int]:
        """Likewise how long it may be. An answer is whose asked, wherever it comes: of a session that has gone, on the pipe's own."""
        if number is not None:
            return self._asked.pop(number, (None, 0))
        lane = self.own if session is None else self._owners.get(session)
        return lane, 0 if lane is None else lane.limits.message

    def _too_long(self, lane: Lane, number: int | None, most: int) -> Heard | None:
        if lane is not self.own:
            return self._drop(lane, f"a message of more than {most} bytes")
        return None if number is None else TooLong(number, most)

    def _drop(self, lane: Lane, why: str) -> Dropped:
        self.drop(lane, why)
        return Dropped(lane)

    def _note_child(self, lane: Lane, session: str, attached: bool) -> None:
        if attached and session not in self._owners:
            self.give(session, lane)
        elif not attached and self._owners.get(session) is lane:
            self.forget(session)
