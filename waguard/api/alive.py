"""Whether the daemon lives and takes connects, for whoever watches over it."""

from collections.abc import Sequence

from aiohttp import web

from waguard.api.asked import Asked
from waguard.api.schemas import QueryOptions
from waguard.core.shown import Alive


async def livez(_asked: Asked, _options: QueryOptions) -> Alive:
    """Whether the event loop turns."""
    return Alive()


async def readyz(asked: Asked, _options: QueryOptions) -> Alive | web.Response:
    """Whether connects are taken: the leftovers of an earlier daemon are dealt with, and there is room. Else 503 with ``reasons``, by code."""
    reasons: Sequence[str] = await asked.supervisor.refusals()
    if not reasons:
        return Alive()
    return web.json_response({"status": "not ready", "reasons": reasons}, status=503)
