"""Messages on their way to a webhook: what an answer means, when a message is tried again, and which is next. Pure.

Time is of a clock that never jumps, in seconds: a message has a day of trying, and what the daemon was not there for does not count.
"""

import bisect
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum

WAITS_S: Sequence[float] = (5, 60, 300, 900, 1800, 3600, 7200, 14_400, 21_600, 36_000)
"""After which time a message is tried again, by how often it was tried: a day together."""
DAY_S = 86_400.0
"""So long a message is tried."""
TROUBLED_S = 1200.0
"""With a message that has not arrived after so long, somebody is told."""
JITTER = 0.2
"""By which part a wait may be longer or shorter, so that not all that has failed together is tried together."""
_LONGEST_S = 3600.0
"""What a receiver may ask for by `Retry-After`."""
_BUSY = frozenset({429, 503})
_GONE = 410


class State(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


class Verdict(StrEnum):
    DELIVERED = "delivered"
    AGAIN = "again"
    DEAD = "dead"
    GONE = "gone"
    """The receiver wants no more messages."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What has come of one attempt."""

    http_status: int | None
    """None: there was no answer."""
    error: str = ""
    """What was wrong; empty: it was taken."""
    retry_after_s: float | None = None
    duration_ms: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.error


def answered(status: int, retry_after: str, now: float, duration_ms: float) -> Answer:
    """``now``: Unix time, seconds."""
    if 200 <= status < 300:
        return Answer(status, duration_ms=duration_ms)
    said = "It redirects, which is not followed" if 300 <= status < 400 else "It answers"
    after_s = _seconds(retry_after, now) if status in _BUSY else None
    return Answer(status, f"{said}: {status}.", after_s, duration_ms)


def _seconds(retry_after: str, now: float) -> float | None:
    """Of the header: a number of seconds, or a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), _LONGEST_S)
    try:
        return min(max(0.0, parsedate_to_datetime(retry_after).timestamp() - now), _LONGEST_S)
    except (ValueError, TypeError, OverflowError):
        return None


def verdict(answer: Answer, attempts: int, age_s: float) -> Verdict:
    """``attempts``: with the one that was answered."""
    if answer.ok:
        return Verdict.DELIVERED
    if answer.http_status == _GONE:
        return Verdict.GONE
    return Verdict.DEAD if attempts > len(WAITS_S) or age_s >= DAY_S else Verdict.AGAIN


def wait_s(answer: Answer, attempts: int, chance: float) -> float:
    """Until the next attempt. ``chance``: between 0 and 1."""
    backoff_s = WAITS_S[min(attempts, len(WAITS_S)) - 1] * (1 + JITTER * (2 * chance - 1))
    return max(backoff_s, answer.retry_after_s or 0.0)


@dataclass(eq=False, slots=True)
class Message:
    """One for one webhook."""

    seq: int
    """Their order."""
    id: str
    """The same in each attempt."""
    client: str
    """Empty: it is about none."""
    name: str
    at: float
    """When it has happened, Unix time, seconds."""
    body: str
    attempts: int = 0
    age_s: float = 0.0
    """How long it had been tried at ``since``."""
    since: float = 0.0
    due: float = 0.0
    """When it is tried next."""
    error: str = ""
    """Why the last attempt has failed."""
    state: State = State.WAITING
    stored: bool = False
    """It may be on disk."""

    def tried_s(self, now: float) -> float:
        return self.age_s + max(0.0, now - self.since)

    def anew(self, now: float) -> None:
        self.attempts, self.age_s, self.since, self.due, self.state = 0, 0.0, now, now, State.WAITING


class Waiting:
    """The messages of one webhook that have not arrived: of each client in order, and one at a time."""

    def __init__(self) -> None:
        self._lines: defaultdict[str, list[Message]] = defaultdict(list)
        self._under_way: dict[str, Message] = {}
        self._count = 0
        self.changed: dict[int, Message] = {}
        """What is not on disk as it is now."""

    def __len__(self) -> int:
        return self._count

    def add(self, messages: Iterable[Message], *, kept: bool = False) -> None:
        """Each gets its place in its client's order. ``kept``: they are on disk so."""
        for one in messages:
            bisect.insort(self._lines[one.client], one, key=lambda other: other.seq)
            self._count += 1
            if not kept:
                self.changed[one.seq] = one

    def ready(self, now: float, most: int) -> Sequence[Message]:
        """Those that are to be sent now, so many at most; they are under way then until `came_of` is called."""
        due = [one for one in self._heads() if one.due <= now]
        found = sorted(due, key=lambda one: one.due)[: max(0, most)]
        self._under_way.update((one.client, one) for one in found)
        return found

    def next_at(self) -> float:
        """When the next one is due; infinity: none is."""
        return min((one.due for one in self._heads()), default=math.inf)

    def _heads(self) -> Iterable[Message]:
        return (line[0] for client, line in self._lines.items() if client not in self._under_way)

    def came_of(self, one: Message, answer: Answer, now: float, chance: float) -> Verdict:
        """An attempt has ended."""
        self._under_way.pop(one.client, None)
        said = verdict(answer, one.attempts + 1, one.tried_s(now))
        one.error = answer.error
        self.changed[one.seq] = one
        if said is Verdict.GONE:
            return said
        one.attempts += 1
        one.age_s, one.since = one.tried_s(now), now
        # The last attempt is at the end of the day, however long the wait would be.
        left_s = max(WAITS_S[0], DAY_S - one.age_s)
        one.due = now + min(wait_s(answer, one.attempts, chance), left_s)
        if said is not Verdict.AGAIN:
            one.state = State.DELIVERED if said is Verdict.DELIVERED else State.DEAD
            self._forget(one, now)
        return said

    def _forget(self, one: Message, now: float) -> None:
        line = self._lines[one.client]
        line.remove(one)
        self._count -= 1
        if not line:
            del self._lines[one.client]
        elif one.state is State.DEAD:  # else a receiver that is away would get all that is old at once
            line[0].due = max(line[0].due, now + WAITS_S[0])

    def leave_out(self, wants: Callable[[Message], bool]) -> None:
        """What is not wanted any more goes as if it had arrived, except for what is under way."""
        for client, line in [*self._lines.items()]:
            for one in [*line]:
                if one is not self._under_way.get(client) and not wants(one):
                    one.state = State.DELIVERED
                    self.changed[one.seq] = one
                    self._forget(one, 0.0)

    def hurry(self, now: float) -> None:
        """Whatever waits for its next attempt is tried now."""
        for line in self._lines.values():
            for one in line:
                one.due = min(one.due, now)

    def anew(self, now: float) -> None:
        """Each has its day of trying again: nothing was tried for a while."""
        for line in self._lines.values():
            for one in line:
                one.anew(now)
        self.rewrite()

    def rewrite(self) -> None:
        """Nothing of it is on disk any more."""
        self.changed |= {one.seq: one for line in self._lines.values() for one in line}

    def oldest(self, now: float, than_s: float = TROUBLED_S) -> Message | None:
        """Which of those that are next has been tried longest, and for longer than that."""
        heads = [line[0] for line in self._lines.values() if line[0].tried_s(now) >= than_s]
        return max(heads, key=lambda one: one.tried_s(now), default=None)
