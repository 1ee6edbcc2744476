"""All webhooks: made, changed and deleted while the daemon runs, and the file that keeps them with what has not arrived.

What becomes of messages is written behind: one transaction has how far each webhook is in the feed, and as rows the messages before that
which have not arrived. After a crash what has arrived since the last write is sent once more, and nothing is left out.
"""

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from ssl import SSLContext

from waguard.config.sections import Webhooks as Settings
from waguard.core.access import ADMIN
from waguard.core.actor import who_acts
from waguard.core.deliveries import Answer, Message, State
from waguard.core.feed import Place, Wish
from waguard.core.model import Alert
from waguard.core.plain_text import plain
from waguard.core.webhook import MOST, SECRET_BYTES, Secret, Webhook, network, new_secret
from waguard.errors import DiskFull, StorageFailed, StorageHangs, TooManyWebhooks, WebhookNotFound
from waguard.history.feed import Feed, Reader
from waguard.observe.bus import Bus
from waguard.system.sqlite import TooNewError
from waguard.system.tasks import Changes, background, undisturbed
from waguard.webhooks import store
from waguard.webhooks.delivery import Bounds, Delivery, Means, Render
from waguard.webhooks.sender import Sender
from waguard.webhooks.store import NOWHERE, Store, Stored, Times

EVERYTHING = Wish(ADMIN)
"""Of its reader: what a webhook is told of it may change."""
DISABLED = "The admin has disabled it."
_NAMED = 5


class Webhooks:
    """The owner of the file."""

    def __init__(
        self,
        root: Path,
        settings: Settings,
        feed: Feed,
        bus: Bus,
        alert: Callable[[Alert, str], None],
        render: Render,
        *,
        bounds: Bounds = Bounds(),  # noqa: B008 (nothing changes it)
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        trust: SSLContext | None = None,
    ) -> None:
        """``root`` is ``sessions.dir``. ``clock`` never jumps; ``wall`` is Unix time. ``trust``: certificates, in place of the machine's."""
        self._bounds = bounds
        self._allowed = [network(one) for one in settings.allowed_networks]
        self._sender = partial(
            Sender, allowed=self._allowed, answer_s=settings.answer_s, wall=wall, trust=trust
        )
        self._publish = bus.publish
        self._alert = alert
        self._store = Store(root, bounds.busy_s)
        self._due = asyncio.Event()
        self._numbers = count(1)
        self._means = Means(
            feed, bus.publish, render, bounds, clock, wall, lambda: next(self._numbers), self._due.set
        )
        self._deliveries: dict[str, Delivery] = {}
        self._writing = asyncio.Lock()
        self._loaded = False
        self._changes = Changes()
        self._failing = ""
        """Why the file cannot be read or written; empty: it can."""
        self._odd: Sequence[str] = ()
        """Webhooks that are left on disk as they are, since they make no sense."""
        self._lost = ""
        """What of it could not be read."""
        self._keeper: asyncio.Task[None] | None = None

    @property
    def times(self) -> Times:
        return self._means.times

    # --- life -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Once the feed counts on from where an earlier daemon was. Nobody waits for the file."""
        self._keeper = background(self._keep, "webhooks", self._publish, again=True)

    async def close(self) -> None:
        """Attempts that are under way may end, and what has become of messages is written, each within a deadline."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await asyncio.gather(*(one.close(self._bounds.end_s) for one in self._deliveries.values()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._bounds.end_s):
                if self._loaded:
                    await self._done(self._write)
                await self._store.close()
        self._store.end()

    async def _keep(self) -> None:
        while not self._loaded:
            if not await self._done(self._load):
                await asyncio.sleep(self._bounds.retry_s)
        while True:
            await self._due.wait()
            await asyncio.sleep(self._bounds.gather_s)
            self._due.clear()
            if not await self._done(self._write):
                self._due.set()
                await asyncio.sleep(self._bounds.retry_s)

    async def _load(self) -> None:
        found, last, odd = await self._store.do(partial(store.load, times=self.times))
        if found and not self._means.feed.is_counted:
            raise OSError("the history, by which it goes on, cannot be read")
        self._numbers = count(last + 1)
        self._leave(odd)
        for one in found:
            self._begin(one, self._reader(one.place))
        self._loaded = True

    def _leave(self, odd: Sequence[str]) -> None:
        self._odd = odd
        names = plain(", ".join(odd[:_NAMED]))
        self._lost = (
            f"{self._store.path} has webhooks that make no sense: {names}. Delete them, and make them again."
            if odd
            else ""
        )

    def _reader(self, place: Place | None) -> Reader:
        return self._means.feed.reader(EVERYTHING, place, self._bounds.patience_s, waits=True)

    def _begin(self, stored: Stored, reader: Reader) -> None:
        self._deliveries[stored.webhook.id] = Delivery(
            stored, reader, self._sender(stored.webhook.id), self._means
        )

    async def _write(self) -> None:
        """Raises `sqlite3.Error`, `OSError`, `TooNewError`."""
        async with self._writing:
            await self._write_down()

    async def _write_down(self) -> None:
        progress = {one: delivery.progress() for one, delivery in self._deliveries.items()}
        write = partial(store.write, progress=progress, others=self._odd, times=self.times)
        try:
            lost = await self._store.do(write)
        except BaseException as error:
            for webhook, one in progress.items():
                self._deliveries[webhook].unwritten(one)
                if not isinstance(error, Exception):  # called off, it goes on in the thread
                    self._deliveries[webhook].written(one)
            raise
        for webhook, one in progress.items():
            self._deliveries[webhook].written(one)
        for webhook, messages in lost.items():
            self._publish(
                "webhook.letters_lost", **self._deliveries[webhook].webhook.named, messages=messages
            )

    async def _done(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Whether it could be done. When that changes it is told, once."""
        before = self._failing
        try:
            await work()
        except TooNewError:
            self._failing = f"{self._store.path} was written by a newer waguard. Install that one again, or move the file away."
        except (sqlite3.Error, OSError) as error:
            self._failing = f"{self._store.path}: {error}."
        else:
            self._failing = ""
        if self._failing and not before:
            self._publish("webhook.write_failed", path=str(self._store.path), error=self._failing)
        elif before and not self._failing:
            self._publish("webhook.recovered", path=str(self._store.path))
        while self._store.aside:
            kept_as, why = self._store.aside.popleft()
            self._publish("webhook.unreadable", kept_as=kept_as, error=why)
            self._lost = f"{self._store.path} could not be read: it is kept as {kept_as} ({why}). Its dead letters are gone; what waguard webhook list does not have make again."
            for one in self._deliveries.values():
                one.waiting.rewrite()
            self._due.set()
        self._look()
        self._changes.tell()
        return not self._failing

    def _look(self) -> None:
        """Tell an admin what does not go on by itself. Others read alerts too: which host it is, and its errors, is none of their business."""
        unkept = f"What has arrived is not written down, and is sent again after a restart. {self._failing}"
        self._alert(
            Alert.WEBHOOKS_UNKEPT, " ".join(filter(None, [self._lost, unkept if self._failing else ""]))
        )
        wrong: list[str] = []
        for one in self._deliveries.values():
            oldest = one.waiting.oldest(self._means.clock())
            if one.webhook.disabled and one.webhook.disabled != DISABLED:
                wrong.append(f"{one.webhook.id} is disabled: {one.webhook.disabled}")
            elif oldest is not None and not one.webhook.disabled:
                wrong.append(f"{one.webhook.id} does not take a message.")
        more = f" And {len(wrong) - _NAMED} more." if len(wrong) > _NAMED else ""
        self._alert(Alert.WEBHOOKS_FAIL, " ".join(wrong[:_NAMED]).strip() + more)

    # --- what becomes of them -------------------------------------------------------------------------

    async def listed(self) -> Sequence[tuple[Delivery, int]]:
        """Each, with how many dead letters it has. Raises as `_changing`."""
        async with self._changing():
            dead = await self._store.do(store.dead_letters)
        return [(one, dead.get(webhook, 0)) for webhook, one in self._deliveries.items()]

    async def create(self, url: str, clients: Sequence[str], kinds: Sequence[str]) -> tuple[Webhook, str]:
        """A new one, which is told what happens from now on, and its secret.

        Raises `InvalidRequest`, `TooManyWebhooks`, and what `_changing` does.
        """
        text = new_secret(secrets.token_bytes(SECRET_BYTES))
        by = str(who_acts() or "")
        new = Webhook(
            secrets.token_hex(4), url, tuple(clients), tuple(kinds), (Secret(text),), self._means.wall(), by
        )
        new.check(self._allowed)
        return await undisturbed(self._create(new)), text

    async def _create(self, new: Webhook) -> Webhook:
        async with self._changing():
            if len(self._deliveries) >= MOST:
                raise TooManyWebhooks(
                    f"There are {MOST} webhooks.", hint="Delete one: waguard webhook delete ID"
                )
            reader = self._reader(None)
            stored = Stored(new, await reader.settle() or NOWHERE, [])
            await self._store.do(partial(store.put, webhook=new, place=str(stored.place)))
            self._begin(stored, reader)
        self._publish("webhook.created", **new.named)
        return new

    async def change(
        self,
        which: str,
        *,
        url: str | None = None,
        clients: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """None: as it is. Enabled again it goes on where it was; what waits and is not wanted any more goes. Raises `InvalidRequest`, `WebhookNotFound`, and what `_changing` does."""

        def anew(before: Webhook) -> Webhook:
            return replace(
                before,
                url=before.url if url is None else url,
                clients=before.clients if clients is None else tuple(clients),
                kinds=before.kinds if kinds is None else tuple(kinds),
                disabled=before.disabled if enabled is None else "" if enabled else DISABLED,
            )

        changed = await undisturbed(self._change(which, anew))
        self._publish("webhook.changed", **changed.named, enabled=not changed.disabled)
        return changed

    async def rotate(self, which: str, overlap_s: float) -> tuple[Webhook, str]:
        """Another secret; messages are signed with the earlier one too for ``overlap_s`` seconds. Raises as `change`."""
        text = new_secret(secrets.token_bytes(SECRET_BYTES))
        now = self._means.wall()
        changed = await undisturbed(self._change(which, lambda before: before.rotated(text, overlap_s, now)))
        self._publish("webhook.rotated", **changed.named, overlap_s=overlap_s)
        return changed, text

    async def _change(self, which: str, anew: Callable[[Webhook], Webhook]) -> Webhook:
        async with self._changing():
            delivery = self._find(which)
            changed = anew(delivery.webhook)
            changed.check(self._allowed)
            await self._store.do(partial(store.update, webhook=changed))
            delivery.change(changed)
        self._look()
        return changed

    async def delete(self, which: str) -> Webhook:
        """With all messages that have not arrived; also one that makes no sense. Raises `WebhookNotFound`, and what `_changing` does."""
        return await undisturbed(self._delete(which))

    async def _delete(self, which: str) -> Webhook:
        async with self._changing():
            if which in self._odd:
                await self._store.do(partial(store.delete, webhook=which))
                self._leave([one for one in self._odd if one != which])
                self._look()
                return Webhook(which, "", (), (), (), 0.0, "", disabled="It makes no sense.")
            delivery = self._find(which)
            try:
                await self._store.do(partial(store.delete, webhook=which))
            except (
                asyncio.CancelledError
            ):  # it goes on in the thread, and the next write makes all whole again
                delivery.waiting.rewrite()
                raise
            del self._deliveries[which]
        await delivery.close(0.0)
        self._publish("webhook.deleted", **delivery.webhook.named)
        self._look()
        return delivery.webhook

    async def test(self, which: str) -> Answer:
        """Have a message sent that stands for itself. Raises `WebhookNotFound`, `StorageFailed`, `StorageHangs`."""
        async with self._in_time():
            await self._ready()
        return await self._find(which).test()

    async def messages(self, which: str, state: State, limit: int, before: int | None) -> Sequence[Message]:
        """Those that have not arrived, the newest first; ``before``: the number of one. Raises `WebhookNotFound`, and what `_changing` does."""
        async with self._changing():
            self._find(which)
            await self._write_down()
            look = partial(store.messages, webhook=which, state=state, times=self.times)
            return await self._store.do(partial(look, most=limit, before=before, newest_first=True))

    async def redrive(self, which: str, ids: Sequence[str]) -> int:
        """Have dead letters sent again, of these ids or all that it still wants, as many as may wait; how many. Whatever waits for its next attempt is tried now.

        Raises `WebhookNotFound`, and what `_changing` does.
        """
        async with self._changing():
            delivery = self._find(which)
            await self._write_down()
            room = max(0, self._bounds.waiting - len(delivery.waiting))
            look = partial(store.messages, webhook=which, state=State.DEAD, times=self.times)
            dead = await self._store.do(partial(look, most=room, ids=ids, wanted=delivery.wants))
            delivery.redrive(dead)
        return len(dead)

    def _find(self, which: str) -> Delivery:
        """Raises `WebhookNotFound`."""
        if (found := self._deliveries.get(which)) is None:
            raise WebhookNotFound(
                f"There is no webhook {which[:80]!r}.", hint="waguard webhook list shows them."
            )
        return found

    async def _ready(self) -> None:
        """Raises `StorageFailed`."""
        while not self._loaded:
            if self._failing:
                raise StorageFailed(f"The webhooks cannot be read. {self._failing}")
            await self._changes.next()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Raises `StorageHangs`."""
        try:
            async with asyncio.timeout(self._bounds.ask_s):
                yield
        except TimeoutError:
            self._due.set()  # what was asked for may be done yet, and is not what is in memory
            raise StorageHangs(
                f"{self._store.path} is not read or written within {self._bounds.ask_s:g} s: its disk does not answer."
            ) from None

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """One after the other: what is on disk is what is in memory. Raises `StorageFailed`, `DiskFull`, `StorageHangs`."""
        async with self._in_time():
            await self._ready()
            async with self._writing:
                try:
                    yield
                except TooNewError:
                    raise StorageFailed(f"{self._store.path} was written by a newer waguard.") from None
                except (sqlite3.Error, OSError) as error:
                    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
                    kind = DiskFull if full else StorageFailed
                    raise kind(f"Cannot read or write {self._store.path}: {error}.") from None
