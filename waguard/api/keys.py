"""Where handlers find what they need."""

from aiohttp import web

from waguard.api.auth import Caller
from waguard.supervisor import Supervisor

SUPERVISOR = web.AppKey("supervisor", Supervisor)
REQUEST_ID = web.RequestKey("request_id", str)
CALLER = web.RequestKey("caller", Caller)
