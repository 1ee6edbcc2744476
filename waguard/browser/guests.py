"""Who else is on a browser's pipe beside the daemon: each with a DevTools session and limits of its own.

A guest gets messages as the browser wrote them; what they mean, and what it may ask, is for whoever lets it in to judge. What it does
beyond its limits ends it: it is detached in the browser first, which ends whatever it has set, held or paused there, and then told.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from waguard.browser.channel import Channel, Lane, Limits, Message, Refused
from waguard.errors import PageFailed
from waguard.system.tasks import forget


@dataclass(frozen=True, slots=True, eq=False)
class Guest:
    lane: Lane
    session: str
    """The one that it was let in with: with the browser."""
    heard: Callable[[Message], None]
    """Called with each message; it counts as unread until the guest is `done` with it."""
    dropped: Callable[[str], None]
    """Called once at the end, whoever has ended it."""
    settled: Callable[[], None]
    """Called when it has heard all that was read at once."""
    guests: "Guests"

    def send(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        session: str | None = None,
        texts: Mapping[bytes, Sequence[bytes]] | None = None,
    ) -> int:
        """In one of its own sessions; returns the number of the answer to come. Raises `Refused`, after `dropped` if that has ended it.

        ``texts``: see `Channel.send`.
        """
        return self.guests.send(self, method, params or {}, session or self.session, texts)

    def done(self, message: Message) -> None:
        self.guests.done(message)

    def forget(self, session: str) -> None:
        """It was detached with the one that it was attached in, of which alone the browser tells."""
        self.guests.forget(self.lane, session)

    def unask(self, number: int) -> None:
        """Nobody answers its command of this number any more: its session has gone."""
        self.guests.unask(number)

    def leave(self) -> None:
        self.guests.dismiss(self.lane, "it has left")


class Guests:
    """``ask`` sends a command of the daemon's, ``flush`` writes what waits."""

    def __init__(
        self,
        channel: Channel,
        ask: Callable[[str, Mapping[str, Any]], "asyncio.Future[Any]"],
        flush: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._ask = ask
        self._flush = flush
        self._here: dict[Lane, Guest] = {}
        self._told: set[Guest] = set()
        """Those that have heard something and are not `settled`."""
        self._together = False

    async def admit(
        self,
        name: str,
        limits: Limits,
        heard: Callable[[Message], None],
        dropped: Callable[[str], None],
        settled: Callable[[], None] = lambda: None,
    ) -> Guest:
        """Raises `PageFailed`. The caller sets the deadline."""
        asking = self._ask("Target.attachToBrowserTarget", {})
        try:
            session = (await asyncio.shield(asking))["sessionId"]
        except asyncio.CancelledError:
            asking.add_done_callback(self._detach_late)
            raise
        lane = self._channel.open(name, limits, session)
        guest = self._here[lane] = Guest(lane, session, heard, dropped, settled, self)
        return guest

    def _detach_late(self, asking: "asyncio.Future[Any]") -> None:
        """Nobody waits for it any more."""
        if not asking.cancelled() and asking.exception() is None:
            self._detach(asking.result()["sessionId"])

    def _detach(self, session: str) -> None:
        with suppress(PageFailed):  # the pipe is closed, and with it every session on it
            forget(self._ask("Target.detachFromTarget", {"sessionId": session}))

    def forget(self, lane: Lane, session: str) -> None:
        if session in lane.sessions:
            self._channel.forget(session)

    def unask(self, number: int) -> None:
        self._channel.unask(number)

    def send(
        self,
        guest: Guest,
        method: str,
        params: Mapping[str, Any],
        session: str,
        texts: Mapping[bytes, Sequence[bytes]] | None,
    ) -> int:
        try:
            number = self._channel.send(guest.lane, method, params, session, texts=texts)
        except Refused as error:
            if guest.lane.dropped:
                self.dismiss(guest.lane, str(error))
            raise
        if not self._together:
            self._flush()
        return number

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is sent within is written at its end, at once."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self._flush()

    def heard(self, message: Message) -> None:
        guest = self._here[message.lane]
        self._told.add(guest)
        guest.heard(message)

    def settle(self) -> None:
        while self._told:
            self._told.pop().settled()

    def done(self, message: Message) -> None:
        self._channel.done(message)

    def dismiss(self, lane: Lane, why: str) -> None:
        """Harmless if it has gone."""
        if (guest := self._here.pop(lane, None)) is None:
            return
        self._flush()  # what it has asked last, `together`, is still asked: that its dialog goes
        self._channel.drop(lane, why)
        self._detach(guest.session)
        guest.dropped(why)

    def dismiss_all(self, why: str) -> None:
        for lane in list(self._here):
            self.dismiss(lane, why)
