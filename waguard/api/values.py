"""Values that an app keeps with a session: each route reads, asks the session, answers."""

from aiohttp import web

from waguard.api.asked import Asked
from waguard.api.schemas import Options, ValueOptions, pieces_of, respond
from waguard.core.condition import Condition
from waguard.core.shown import ValueDeleted, ValueList, ValueView
from waguard.core.values import MOST_ALL, Value, check_key, check_size, check_type


async def list_values(asked: Asked, _options: Options) -> ValueList:
    """The values that apps keep with the session, without what they say."""
    with asked.supervisor.values(asked.code) as values:
        views = [_view(one) for one in await values.all()]
    return ValueList(views, sum(one.bytes for one in views), MOST_ALL)


async def get(asked: Asked, _options: Options) -> web.StreamResponse:
    """One of them, byte for byte and with the Content-Type that it came with. `If-None-Match` with its ETag: 304 as long as nobody has written it."""
    key, condition = _asked_of(asked)
    with asked.supervisor.values(asked.code) as values:
        value, said = await values.get(key)
    if condition.is_known(value):
        return web.Response(status=304, headers={"ETag": value.etag})
    condition.check(value)
    return web.Response(
        body=said,
        headers={
            "Content-Type": value.media_type,
            "ETag": value.etag,
            # Whatever somebody has stored, no browser is to show it as a page of this address.
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


async def put(asked: Asked, options: ValueOptions) -> ValueView | web.Response:
    """Keep the body by this key, with its Content-Type; on disk when this is answered. ``ttl_s``: after so many seconds it is gone by itself. `If-Match` with an ETag: only if nobody has written it since; `If-None-Match: *`: only if it is not there."""
    key, condition = _asked_of(asked)
    media_type = check_type(asked.request.headers.get("Content-Type"))
    said = await _body(asked.request)
    with asked.supervisor.values(asked.code) as values:
        value = await values.put(key, said, media_type, options.ttl_s, condition)
    answer = respond(_view(value), "application/json", paths=False)
    answer.headers["ETag"] = value.etag
    return answer


async def delete(asked: Asked, _options: Options) -> ValueDeleted:
    """Delete one, for good. `If-Match` with its ETag: only if nobody has written it since."""
    key, condition = _asked_of(asked)
    with asked.supervisor.values(asked.code) as values:
        return ValueDeleted((await values.delete(key, condition)).key)


def _asked_of(asked: Asked) -> tuple[str, Condition]:
    """The key, and the condition that the headers say. Raises `InvalidRequest`."""
    headers = asked.request.headers
    lists = (", ".join(found) if (found := headers.getall(name, [])) else None for name in _CONDITIONS)
    return check_key(asked.request.match_info["key"]), Condition.of(*lists)


_CONDITIONS = ("If-Match", "If-None-Match")


async def _body(request: web.Request) -> bytes:
    """Raises `ValueTooLarge`, `InvalidRequest`, `RequestTimeout`."""
    check_size(request.content_length or 0)
    said = bytearray()
    async with pieces_of(request) as pieces:
        async for piece in pieces:
            said += piece
            check_size(len(said))
    return bytes(said)


def _view(value: Value) -> ValueView:
    expires = value.expires_at
    return ValueView(
        value.key,
        value.media_type,
        value.bytes,
        value.etag,
        round(value.written_at, 3),
        None if expires is None else round(expires, 3),
    )
