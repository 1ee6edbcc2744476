"""A request whose caller was let in, as handlers get it."""

from dataclasses import dataclass

from aiohttp import web

from waguard.access.access import Access
from waguard.core.access import Caller
from waguard.core.model import ClientCode
from waguard.supervisor.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Asked:
    request: web.Request
    supervisor: Supervisor
    caller: Caller
    access: Access
    code: ClientCode
    """The client that the route is about, whom the token is for; empty where it is about none."""
