"""One webhook at work: it takes from the feed what it is to be told, and sends that, each client's messages in order."""

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from waguard.core.catalogue import mistake
from waguard.core.deliveries import Answer, Message, State, Verdict, Waiting
from waguard.core.feed import MISSED, Place, Told
from waguard.core.model import ClientCode
from waguard.core.shown import EventView, FeedMissed
from waguard.core.webhook import Webhook
from waguard.history.feed import Batch, Feed, Reader
from waguard.system.repeats import Repeats
from waguard.system.tasks import Changes, background
from waguard.webhooks.sender import Sender
from waguard.webhooks.store import Progress, Stored, Times

GONE = "It has answered 410 Gone."
_TOLD_S = 60.0
"""That messages fail is logged so often."""

Render = Callable[[str, float, object], str]
"""The body of a message: its type, Unix time in seconds, and what it says."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long what may take, in seconds, and how much there may be of it."""

    gather_s: float = 0.1
    """What has become of messages gathers so long for one write."""
    retry_s: float = 2.0
    """After so long a write that has failed is tried again."""
    busy_s: float = 1.0
    """How long somebody else who has the file open may hold it."""
    ask_s: float = 10.0
    """Deadline of what somebody waits for at the control port."""
    end_s: float = 3.0
    """Deadline of attempts that are under way, and then of the last write, when the daemon ends."""
    patience_s: float = 10.0
    """So long an event waits for its id, by which a receiver knows it again: while a disk is slow it is late, while one is full it has none."""
    look_s: float = 60.0
    """The clock is looked at so often at least."""
    waiting: int = 4000
    """Messages of one webhook in memory; with more it reads the feed no further, which keeps them."""
    at_once: int = 8
    """Attempts of one webhook at a time."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all webhooks share."""

    feed: Feed
    publish: Callable[..., Any]
    render: Render
    bounds: Bounds
    clock: Callable[[], float]
    """It never jumps."""
    wall: Callable[[], float]
    number: Callable[[], int]
    """Of the next message."""
    due: Callable[[], None]
    """There is something to be written."""

    @property
    def times(self) -> Times:
        return Times(self.clock(), self.wall())


class Delivery:
    def __init__(self, stored: Stored, reader: Reader, sender: Sender, means: Means) -> None:
        self.webhook = stored.webhook
        self.waiting = Waiting()
        self.waiting.add(stored.waiting, kept=True)
        self.delivered_at: float | None = None
        """When a message has last arrived, Unix time, seconds; None: not since the daemon's start."""
        self._place = str(stored.place)
        self._sender = sender
        self._means = means
        self._publish = means.publish
        self._repeats = Repeats(1, _TOLD_S, means.clock)
        self._reader = reader
        self._ended = False
        """Its reader is further than what was taken."""
        self._changes = Changes()
        self._sending: set[asyncio.Task[None]] = set()
        work = {"take": self._take, "deliver": self._deliver}
        self._tasks = [
            background(one, f"webhook:{self.webhook.id}:{name}", means.publish, again=True)
            for name, one in work.items()
        ]

    @property
    def error(self) -> str:
        """Why the message that has been tried longest has not arrived; empty: none has failed."""
        oldest = self.waiting.oldest(self._means.clock(), 0.0)
        return oldest.error if oldest is not None else ""

    async def close(self, patience_s: float) -> None:
        """What is under way may end; what is called off is sent again by the next daemon."""
        for one in self._tasks:
            one.cancel()
        await asyncio.wait(self._tasks)
        if self._sending:
            await asyncio.wait(self._sending, timeout=patience_s)
        for one in [*self._sending]:
            one.cancel()
        if self._sending:
            await asyncio.wait(self._sending)
        self._sender.end()

    def change(self, webhook: Webhook) -> None:
        if self.webhook.disabled and not webhook.disabled:
            self.waiting.anew(self._means.clock())
        self.webhook = webhook
        self.waiting.leave_out(self.wants)
        self._means.due()
        self._changes.tell()

    def wants(self, one: Message) -> bool:
        return one.name == MISSED or self.webhook.wish.wants(one.client, one.name)

    def redrive(self, dead: Sequence[Message]) -> None:
        """They wait again, each in its old place; and what waits for its next attempt is tried now."""
        now = self._means.clock()
        for one in dead:
            one.anew(now)
        self.waiting.add(dead)
        self.waiting.hurry(now)
        self._means.due()
        self._changes.tell()

    async def test(self) -> Answer:
        """Send a message that stands for itself: it waits for none, and is not sent again."""
        body = self._means.render("ping", self._means.wall(), {"webhook": self.webhook.id})
        return await self._sender.send(self.webhook, f"ping-{secrets.token_hex(8)}", body.encode())

    def progress(self) -> Progress:
        """Since it was last asked; whoever cannot write it gives it back. What arrived before it was ever on disk is not of it."""
        if not self._ended and (place := self._reader.place) is not None:
            self._place = str(place)
        changed, self.waiting.changed = self.waiting.changed, {}
        told = {seq: one for seq, one in changed.items() if one.stored or one.state is not State.DELIVERED}
        return Progress(self.webhook, self._place, told)

    def written(self, progress: Progress) -> None:
        for one in progress.changed.values():
            one.stored = True

    def unwritten(self, progress: Progress) -> None:
        self.waiting.changed = {**progress.changed, **self.waiting.changed}

    # --- in ---------------------------------------------------------------------------------------------

    async def _take(self) -> None:
        """Until the feed ends."""
        while True:
            if self.webhook.disabled or len(self.waiting) >= self._means.bounds.waiting:
                await self._changes.next()
                continue
            batch = await self._reader.next()
            if (
                batch is None or self._means.feed.closed
            ):  # what comes now has no id yet: the next daemon tells it
                self._ended = True
                return
            self._taken(batch)

    def _taken(self, batch: Batch) -> None:
        # Whatever was taken is here in the same turn of the loop as its reader's place moves on.
        wish = self.webhook.wish
        found = [self._message(*one) for one in batch.events if wish.wants(one[0].client, one[0].name)]
        if batch.missed:
            at, missed = self._means.wall(), FeedMissed(batch.missed if batch.missed > 0 else None)
            body = self._means.render(MISSED, at, missed)
            found.insert(0, self._new(f"missed-{secrets.token_hex(8)}", "", MISSED, at, body))
            self._publish("webhook.missed", **self.webhook.named, events=missed.events)
        self.waiting.add(found)
        self._means.due()
        self._changes.tell()

    def _message(self, told: Told, place: Place | None) -> Message:
        # What is not on disk has no id yet: the one that it will have may be another event's after a crash.
        number = str(place) if place is not None else f"unkept-{secrets.token_hex(8)}"
        view = EventView(
            str(place) if place else None, told.at, told.client or None, told.name, dict(told.fields)
        )
        return self._new(
            number, told.client, told.name, told.at, self._means.render(told.name, told.at, view)
        )

    def _new(self, number: str, client: str, name: str, at: float, body: str) -> Message:
        now = self._means.clock()
        return Message(self._means.number(), number, client, name, at, body, since=now, due=now)

    # --- out --------------------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        bounds, clock = self._means.bounds, self._means.clock
        while True:
            free, wait_s = bounds.at_once - len(self._sending), bounds.look_s
            if not self.webhook.disabled:
                for message in self.waiting.ready(clock(), free):
                    sending = asyncio.create_task(self._send(message), name=f"webhook:{self.webhook.id}:send")
                    self._sending.add(sending)
                    sending.add_done_callback(self._sent)
                if len(self._sending) < bounds.at_once:
                    wait_s = min(wait_s, max(0.0, self.waiting.next_at() - clock()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changes.next()

    def _sent(self, sending: "asyncio.Task[None]") -> None:
        self._sending.discard(sending)
        self._changes.tell()

    async def _send(self, one: Message) -> None:
        try:
            answer = await self._sender.send(self.webhook, one.id, one.body.encode())
        except Exception as error:  # noqa: BLE001 (else its client's messages would wait for ever)
            self._publish("internal.error", **mistake("webhooks", error))
            answer = Answer(None, "An unexpected error; the log has the details.")
        verdict = self.waiting.came_of(one, answer, self._means.clock(), random.random())  # noqa: S311 (no secret)
        self._means.due()
        client = ClientCode(one.client) if one.client else None
        told = {**self.webhook.named, "message": one.id, "error": answer.error}
        match verdict:
            case Verdict.DELIVERED:
                self.delivered_at = self._means.wall()
            case Verdict.GONE:
                self.change(replace(self.webhook, disabled=GONE))
                self._publish("webhook.disabled", **self.webhook.named, why=GONE)
            case Verdict.DEAD:
                self._publish("webhook.dead_letter", client=client, **told)
            case Verdict.AGAIN:
                if not self.wants(one):  # it was under way when that was changed
                    self.waiting.leave_out(self.wants)
                if (left_out := self._repeats.left_out(self.webhook.id)) is not None:
                    more = {"left_out": left_out} if left_out else {}
                    self._publish("webhook.failed", client=client, **told, **more)
