"""The feed of events: who reads it, from where on, and what of it."""

import asyncio
from contextlib import suppress
from functools import lru_cache
from urllib.parse import urlencode

from aiohttp import web

from waguard.access.tickets import LASTS_S
from waguard.api import sse
from waguard.api.asked import Asked
from waguard.api.context import READERS, TICKET
from waguard.api.schemas import EventOptions, Options
from waguard.core.feed import ENDED, MISSED, READY, Place, Told, Wish
from waguard.core.model import ClientCode
from waguard.core.shown import EventView, FeedEnded, FeedMissed, FeedReady, TicketView
from waguard.errors import Unauthorized
from waguard.history.feed import Batch, Reader

Views = EventView | FeedReady | FeedMissed | FeedEnded
"""The data of each, by its event."""


async def follow(asked: Asked, options: EventOptions) -> web.StreamResponse:
    """What happens, as server-sent events: from now on, or from behind the event whose id ``after`` or the `Last-Event-ID` header has.
    ``client``, ``kind``: only of these. ``ticket``: in place of a token.
    """
    codes, labels_of = [ClientCode(one) for one in options.client], asked.supervisor.settings.labels_of
    wish = Wish.of(asked.caller, codes, options.kind, options.label, labels_of)
    # A page that comes back by itself asks by the address it had, and the header is newer.
    after = asked.request.headers.get("Last-Event-ID") or options.after
    reader = asked.supervisor.history.feed.reader(wish, Place.of(after) if after else None)
    readers, stream = asked.request.app[READERS], sse.Stream(asked.request)
    with readers.one(asked.caller), asked.access.while_admitted(asked.caller, reader.leave):
        try:
            await stream.open()
            await _tell(stream, reader, readers.beat_s, paths=asked.caller.is_admin)
            with suppress(ConnectionError):
                await stream.response.write_eof()
        except ConnectionError:  # it has gone, which is how most end
            pass
        except asyncio.CancelledError:
            if asked.request.transport is not None:
                raise
    return stream.response


async def _tell(stream: sse.Stream, reader: Reader, beat_s: float, *, paths: bool) -> None:
    """Until the feed ends. Raises `ConnectionResetError`."""
    place = await reader.settle()
    await stream.write(sse.event(READY, FeedReady(_text(place)), paths=paths, place=place))
    while True:
        try:
            async with asyncio.timeout(beat_s):
                batch = await reader.next()
        except TimeoutError:
            await stream.write(sse.beat(reader.place))
            continue
        if batch is None:
            break
        await stream.write(_bytes(batch, paths=paths))
    why = reader.left or "The daemon ends."
    await stream.write(sse.event(ENDED, FeedEnded(why), paths=paths, place=reader.place))


def _bytes(batch: Batch, *, paths: bool) -> bytes:
    told = [_event(one, place, paths=paths) for one, place in batch.events]
    if batch.missed:
        missed = FeedMissed(batch.missed if batch.missed > 0 else None)
        told.insert(0, sse.event(MISSED, missed, paths=paths))
    return b"".join(told)


@lru_cache(4096)
def _event(told: Told, place: Place | None, *, paths: bool) -> bytes:
    """The same for all its readers."""
    view = EventView(_text(place), told.at, told.client or None, told.name, told.fields)
    return sse.event(told.name, view, paths=paths, place=place)


def _text(place: Place | None) -> str | None:
    return str(place) if place is not None else None


async def ticket(asked: Asked, _options: Options) -> TicketView:
    """A ticket for the feed of events, for a page, whose `EventSource` can send no header: once, within a minute."""
    if asked.request.get(TICKET) is not None:
        raise Unauthorized("A ticket makes no tickets.", hint="Send the token.")
    made = asked.access.ticket(asked.caller, None)
    secure = asked.request.headers.get("X-Forwarded-Proto", asked.request.scheme) == "https"
    url = f"{'https' if secure else 'http'}://{asked.request.host}/v1/events?{urlencode({'ticket': made})}"
    return TicketView(ticket=made, url=url, lasts_s=LASTS_S)
