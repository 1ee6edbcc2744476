"""Where handlers find what they need."""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from waguard.access.tickets import Ticket
from waguard.api.loop_turns import LoopTurns
from waguard.api.readers import Readers
from waguard.core.access import Caller
from waguard.webhooks.webhooks import Webhooks

ARRIVES_S = web.AppKey("arrives_s", float)
"""Seconds until a body, or the next piece of a long one, has to be there."""
TURNS = web.AppKey("turns", LoopTurns)
DOCUMENT: web.AppKey[Callable[[], Mapping[str, Any]]] = web.AppKey("document")
"""Of OpenAPI; made when it is first asked for."""
READERS = web.AppKey("readers", Readers)
WEBHOOKS = web.AppKey("webhooks", Webhooks)
REQUEST_ID = web.RequestKey("request_id", str)
CALLER = web.RequestKey("caller", Caller)
TICKET = web.RequestKey("ticket", Ticket)
"""By which the caller was let in."""
BEGUN = web.RequestKey("begun", web.StreamResponse)
"""The answer whose head has been sent."""
DRY_RUN = web.RequestKey("dry_run", bool)
"""Nothing was to be done."""
