"""The control port: who is let in, how errors leave, which routes there are. It decides nothing about sessions."""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import HttpVersion11, web

from waguard.api import admin, backups, compat, problems, sessions, stats
from waguard.api.auth import Caller, Tokens
from waguard.api.keys import ARRIVES_S, BEGUN, CALLER, DRY_RUN, REQUEST_ID, SUPERVISOR
from waguard.api.port import ENCODED, ENCODINGS, Port
from waguard.api.problems import response
from waguard.api.routes import Routes
from waguard.api.schemas import QueryOptions
from waguard.config.sections import Api
from waguard.core.model import ClientCode, client_code
from waguard.errors import (
    BodyTooLarge,
    CrossSite,
    ExpectationFailed,
    HostNotAllowed,
    Internal,
    InvalidClientCode,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    SessionNotFound,
    Unauthorized,
    WaguardError,
)
from waguard.observe.bus import Bus
from waguard.supervisor.supervisor import Supervisor
from waguard.system import shortage
from waguard.system.repeats import Repeats

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(:\d*)?")
_STREAMED = re.compile(r"/v1/sessions/[^/]*/import")
"""Its body is read piece by piece, with a limit of its own."""
_CONTINUE = "100-continue"
_OPEN = frozenset({"/livez", "/readyz"})


def make(supervisor: Supervisor, tokens: Tokens, settings: Api, bus: Bus, port: Port) -> web.Application:
    """The application; whoever runs it owns it."""
    allowed = _LOOPBACK | {host.lower() for host in settings.allowed_hosts}
    limit = settings.max_body_kb * 1024
    refused = Repeats(20)

    @web.middleware
    async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every request has an id, an end in the log, and an answer that says what was wrong."""
        began = time.monotonic()
        request_id = request[REQUEST_ID] = secrets.token_hex(4)

        def done(status: int) -> None:
            looked = request.method in {"GET", "HEAD"} and status < 400  # people watch, and that is no news
            caller = request.get(CALLER)
            # Whoever may do little must not be able to fill the disk with what is said of it.
            known = looked or (caller is not None and caller.client is None)
            who = caller and caller.client
            left_out = 0 if known or status < 400 else refused.left_out((who, status, _route(request)))
            if left_out is None:
                return
            bus.publish(
                "request.done",
                level="debug" if looked else "info",
                client=_client(request, caller),
                caller=caller and (caller.client or "admin"),
                method=request.method,
                route=_route(request),
                http_status=status,
                duration_ms=round((time.monotonic() - began) * 1000, 1),
                **({"left_out": left_out} if left_out else {}),
                **({"dry_run": True} if request.get(DRY_RUN) else {}),
            )

        with structlog.contextvars.bound_contextvars(request=request_id):
            try:
                answer = await handler(request)
            except asyncio.CancelledError:  # the caller hung up; what was asked for goes on
                done(499)
                raise
            except Exception as error:  # noqa: BLE001 (the caller gets an answer, the log the trace)
                known = (
                    _of_http(request, error)
                    if isinstance(error, web.HTTPException)
                    else shortage.known(error)
                )
                if known is None:
                    bus.bug("api", error, _client(request, request.get(CALLER)))
                    said = "Something unexpected went wrong; the log has it."
                    known = Internal(said, request=request_id)
                answer = _problem(request, known)
                if isinstance(error, web.HTTPMethodNotAllowed):
                    answer.headers["Allow"] = error.headers["Allow"]
            done(answer.status)
        return _instead(request, answer)

    async def stamp(request: web.Request, answer: web.StreamResponse) -> None:
        """Also of one that a handler streams itself."""
        request[BEGUN] = answer
        # aiohttp refuses what a route that is not there is expected to do before anything of ours is asked.
        problems.stamp(answer, request.get(REQUEST_ID) or secrets.token_hex(4))

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Host, then site, then size, then token; before any of it nothing is looked at."""
        _check_host(request, allowed)
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise CrossSite("Requests from other sites' pages are refused.")
        if request.headers.get("Expect", _CONTINUE).lower() != _CONTINUE:
            raise ExpectationFailed(f"Nothing is expected here but {_CONTINUE}.")
        if (encoding := request.headers.get("Content-Encoding", "identity").lower()) not in ENCODINGS:
            raise InvalidRequest(f"The Content-Encoding {encoding[:80]!r} is not read here.", hint=ENCODED)
        if (request.content_length or 0) > limit and not _STREAMED.fullmatch(request.path):
            raise BodyTooLarge("The body has more than api.max_body_kb allows.")
        if request.path not in _OPEN:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else ""
            caller = tokens.caller(given)
            if caller is None:
                raise Unauthorized(
                    "This token is not known here."
                    if given
                    else "This needs a token: Authorization: Bearer TOKEN.",
                    hint="The admin's is what waguard token prints for the daemon's user, of a service for root. Tokens that "
                    "have been changed since the daemon's start are known from its next one on.",
                )
            request[CALLER] = caller
            with port.at_work(request):
                return await handler(request)
        return await handler(request)

    app = web.Application(middlewares=[outer, gate], client_max_size=limit)
    app[SUPERVISOR] = supervisor
    app[ARRIVES_S] = settings.request_s
    app.on_response_prepare.append(stamp)
    for routes in (_routes, sessions.routes, backups.routes, stats.routes, admin.routes, compat.routes):
        for route in routes:
            kwargs = {**route.kwargs, "expect_handler": _go_on}
            web.RouteDef(route.method, route.path, route.handler, kwargs).register(app.router)
    return app


async def _go_on(request: web.Request) -> None:
    """What else is expected the gate refuses, with an answer like any other's."""
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == _CONTINUE:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # that was no answer yet


def _instead(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """What is sent for it: where another answer has begun that one is torn, so that nobody takes it for whole."""
    begun: web.StreamResponse = request.get(BEGUN, answer)
    if begun is not answer and request.transport is not None:
        request.transport.abort()
    return begun


def _check_host(request: web.Request, allowed: frozenset[str]) -> None:
    """A name that a hostile page has pointed at this address (DNS rebinding) is not ours."""
    host = request.headers.get("Host", "").lower()
    parts = _HOST.fullmatch(host)
    if parts is None or parts[1] not in allowed:
        raise HostNotAllowed(
            f"The Host header {host[:80]!r} is not one of this control port.",
            hint="Use 127.0.0.1 or localhost, or name it in api.allowed_hosts.",
        )


def _client(request: web.Request, caller: Caller | None) -> ClientCode | None:
    """Whom the request is about, if that can be said."""
    if caller is not None and caller.client is not None:
        return caller.client
    try:
        return client_code(request.match_info["code"])
    except (KeyError, InvalidClientCode):
        return None


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "(none)"


def _problem(request: web.Request, error: WaguardError) -> web.Response:
    caller = request.get(CALLER)
    if isinstance(error, SessionNotFound) and caller is not None and caller.client is None:
        close = request.app[SUPERVISOR].close_to(request.match_info.get("code", ""))
        if close:
            error.hint = f"Did you mean {' or '.join(close)}? {error.hint}"
            error.details = {**error.details, "close": close}
    if request.path.startswith(compat.PREFIX):
        return compat.problem(error)
    return response(error, admin=caller is not None and caller.client is None)


def _of_http(request: web.Request, error: web.HTTPException) -> WaguardError:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return BodyTooLarge("The body has more than api.max_body_kb allows.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"{request.path} takes {allowed}, not {request.method}.")
    if isinstance(error, web.HTTPNotFound):
        return NotFound(
            f"There is no {request.path[:200]}.",
            hint="The routes begin with /v1/sessions; docs/how-to/app.md lists them.",
        )
    return InvalidRequest(error.reason)


_routes = Routes()


@_routes.get("/livez", QueryOptions)
async def _livez(_request: web.Request, _options: QueryOptions) -> web.Response:
    """The event loop turns."""
    return web.json_response({"status": "ok"})


@_routes.get("/readyz", QueryOptions)
async def _readyz(request: web.Request, _options: QueryOptions) -> web.Response:
    """The leftovers of an earlier daemon are dealt with and connects are taken; else why they are not, by code."""
    reasons = await request.app[SUPERVISOR].refusals()
    if not reasons:
        return web.json_response({"status": "ok"})
    return web.json_response({"status": "not ready", "reasons": reasons}, status=503)
