"""The control port: who is let in, how errors leave, which routes there are. It decides nothing about sessions."""

import asyncio
import base64
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, cast

import structlog
from aiohttp import HttpVersion11, web

from waguard.access.access import Access
from waguard.api import compat, openapi, problems, stages
from waguard.api.accept import wants_events
from waguard.api.asked import Asked
from waguard.api.conditional import Conditional, tag_of
from waguard.api.context import (
    ARRIVES_S,
    BEGUN,
    CALLER,
    DOCUMENT,
    DRY_RUN,
    READERS,
    REQUEST_ID,
    TICKET,
    TURNS,
    WEBHOOKS,
)
from waguard.api.loop_turns import LoopTurns
from waguard.api.once import FAILED, Once, Work
from waguard.api.port import ENCODED, ENCODINGS, Port
from waguard.api.problems import response
from waguard.api.readers import Readers
from waguard.api.routes import ROUTES, Route, Streamed
from waguard.api.schemas import read, respond
from waguard.audit.audit import Audit
from waguard.config.sections import Api
from waguard.core.access import NOBODY, SCOPES, About, Caller, Scope
from waguard.core.actor import Actor, ActorKind, acting
from waguard.core.model import ClientCode, client_code
from waguard.core.rate import Rate
from waguard.core.shown import CleanupView, SessionView
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
    TokenExpired,
    TokenRevoked,
    TooManyRequests,
    Unauthorized,
    WaguardError,
)
from waguard.observe.bus import Bus
from waguard.supervisor.supervisor import Supervisor
from waguard.system import shortage
from waguard.system.repeats import Repeats
from waguard.webhooks.webhooks import Webhooks

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(:\d*)?")
_CONTINUE = "100-continue"
_WHERE = (
    "waguard token prints the admin's, to the daemon's user, or for a service to root. "
    "Restart the daemon after changing those of its configuration."
)
_IN_BRACES = re.compile(r"\{(\w+)\}")


def make(
    supervisor: Supervisor,
    access: Access,
    settings: Api,
    bus: Bus,
    port: Port,
    audit: Audit,
    webhooks: Webhooks,
    routes: Sequence[Route[Any]] = ROUTES,
) -> web.Application:
    """The application; whoever runs it owns it. Raises `ValueError` for a route that does not say who may."""
    edge = Edge(supervisor, access, audit, bus, settings)
    served = {edge.handler(route): route for route in routes}
    allowed = _LOOPBACK | {host.lower() for host in settings.allowed_hosts}
    limit = settings.max_body_kb * 1024
    refused, rate = Repeats(20), Rate(settings.costly_per_minute)

    @web.middleware
    async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every request has an id, an end in the log, and an answer that says what was wrong."""
        began = time.monotonic()
        request_id = request[REQUEST_ID] = secrets.token_hex(4)

        def done(status: int) -> None:
            looked = request.method in {"GET", "HEAD"} and status < 400  # people watch, and that is no news
            caller = request.get(CALLER)
            # Whoever may do little must not be able to fill the disk with what is said of it.
            known = looked or (caller is not None and caller.is_admin)
            who = caller and caller.client
            left_out = 0 if known or status < 400 else refused.left_out((who, status, _path(request)))
            if left_out is None:
                return
            bus.publish(
                "request.done",
                level="debug" if looked else "info",
                client=_client(request, caller),
                actor=caller and _actor(request, caller),
                caller=caller and caller.name,
                method=request.method,
                route=_path(request),
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
                answer = edge.answer_to(request, error)
                if isinstance(error, web.HTTPMethodNotAllowed):
                    answer.headers["Allow"] = error.headers["Allow"]
            done(answer.status)
        return _instead(request, answer)

    async def stamp(request: web.Request, answer: web.StreamResponse) -> None:
        """Also of one that a handler streams itself."""
        request[BEGUN] = answer
        # aiohttp refuses what a route that is not there is expected to do before anything of ours is asked.
        problems.stamp(answer, request.get(REQUEST_ID) or secrets.token_hex(4))
        origin = request.headers.get("Origin")
        if origin in settings.allowed_origins and _is_feed(served.get(request.match_info.handler)):
            answer.headers["Access-Control-Allow-Origin"] = origin
            answer.headers["Vary"] = "Origin"

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Host, then site, then size, then token, then scope and client; before any of it nothing is looked at."""
        route = served.get(request.match_info.handler)
        _check_host(request, allowed)
        _check_site(request, route, settings.allowed_origins)
        if request.headers.get("Expect", _CONTINUE).lower() != _CONTINUE:
            raise ExpectationFailed(f"The Expect header may only be {_CONTINUE}.")
        if (encoding := request.headers.get("Content-Encoding", "identity").lower()) not in ENCODINGS:
            raise InvalidRequest(f"The Content-Encoding {encoding[:80]!r} is not read here.", hint=ENCODED)
        streamed = route is not None and route.streamed is Streamed.IN
        if (request.content_length or 0) > limit and not streamed:
            raise BodyTooLarge("The body has more than api.max_body_kb allows.")
        if route is not None and route.scope is Scope.OPEN:
            return await handler(request)
        # Also for a route that is not there: which there are is not for everybody.
        drives = route is not None and route.attaches
        try:
            caller = request[CALLER] = (_driver if drives else _caller)(request, access)
        except Unauthorized as error:
            await access.refusals.slow(error, request.remote or "")
            raise
        if route is not None:
            caller.check(route.scope, route.about, _code(request))
            if route.costly:
                _check_rate(request, caller, rate)
        with port.at_work(request):
            return await handler(request)

    app = web.Application(middlewares=[outer, gate], client_max_size=limit)
    app[ARRIVES_S] = settings.request_s
    app[TURNS] = LoopTurns()
    document: Callable[[], Mapping[str, Any]] = cache(openapi.document)
    app[DOCUMENT] = document
    app[WEBHOOKS] = webhooks
    app[READERS] = Readers(settings.event_readers, settings.heartbeat_s)
    app.on_response_prepare.append(stamp)
    app.on_cleanup.append(edge.close)
    for handler, route in served.items():
        path = _IN_BRACES.sub(r"{\1:[^/]*}", route.path)
        if route.method == "GET":
            head = route.streamed in {Streamed.NO, Streamed.IN}
            app.router.add_get(path, handler, allow_head=head, expect_handler=_go_on)
        else:
            app.router.add_route(route.method, path, handler, expect_handler=_go_on)
    return app


class Edge:
    """What stands between a request that was let in and the route's handler."""

    def __init__(self, supervisor: Supervisor, access: Access, audit: Audit, bus: Bus, settings: Api) -> None:
        self._supervisor = supervisor
        self._access = access
        self._audit = audit
        self._bus = bus
        self._beat_s = settings.heartbeat_s
        self._once = Once()
        self._conditional = Conditional(supervisor.view)

    async def close(self, _: web.Application) -> None:
        await self._once.close()

    def handler(self, route: Route[Any]) -> Handler:
        """Reads what the route takes, has it handled, and sends what comes of it. Raises `ValueError` where nobody is said to be let in."""
        if route.scope not in SCOPES:
            raise ValueError(f"{route.method} {route.path}: {route.scope!r} is no scope: who may?")

        async def handle(request: web.Request) -> web.StreamResponse:
            options = await read(request, route.options)
            request[DRY_RUN] = getattr(options, "dry_run", False)
            caller = request.get(CALLER, NOBODY)
            code = _code(request) or (caller.client if route.about is About.OWN else None)
            asked = Asked(request, self._supervisor, caller, self._access, code or ClientCode(""))

            async def do() -> web.Response:
                wish = route.act.wish(asked, options) if route.act is not None else None
                with acting(_actor(request, caller)):
                    if route.act is None or wish is None:
                        return _answer(route, caller, await route.handler(asked, options))
                    deed, stays = partial(route.handler, asked, options), route.streamed is Streamed.NO
                    told = await self._audit.doing(wish, deed, route.act.ended, stays=stays)
                return _answer(route, caller, told)

            return await (self._once_at_most(route, asked, do) if route.method == "POST" else do())

        return handle

    async def _once_at_most(self, route: Route[Any], asked: Asked, do: Work) -> web.StreamResponse:
        request, caller = asked.request, asked.caller
        body = await request.read() if route.options.in_body else b""

        async def conditionally() -> web.Response:
            match = request.headers.get("If-Match") if route.about is About.ONE else None
            async with self._conditional.turn(asked.code, match):
                return await do()

        work = partial(self._once.answer, request, caller, body, conditionally)
        if not (route.tells and wants_events(request.headers.get("Accept", ""))):
            return await work()
        problem, admitted = (
            partial(self.answer_to, request),
            partial(self._access.while_admitted, caller, code=asked.code),
        )
        return await stages.told(
            request,
            self._bus,
            asked.code,
            work,
            problem,
            admitted,
            beat_s=self._beat_s,
            paths=caller.is_admin,
        )

    def answer_to(self, request: web.Request, error: BaseException) -> web.Response:
        """Of whatever was raised."""
        known = _of_http(request, error) if isinstance(error, web.HTTPException) else shortage.known(error)
        if known is None:
            self._bus.bug("api", error, _client(request, request.get(CALLER)))
            known = Internal("An unexpected error; the log has the details.", request=request[REQUEST_ID])
        return _problem(request, self._supervisor, known)


def _answer(route: Route[Any], caller: Caller, told: object) -> web.Response:
    """Of what a handler returns; one that has streamed its answer returns it."""
    if isinstance(told, web.StreamResponse):
        return cast("web.Response", told)
    if isinstance(told, bytes):
        return web.Response(body=told, content_type=route.media[0])
    answer = respond(told, route.media[0], paths=caller.is_admin)
    if isinstance(told, CleanupView) and not told.ok:
        answer[FAILED] = True
    if isinstance(told, SessionView):
        answer.headers["ETag"] = tag_of(told).etag
    return answer


def _check_rate(request: web.Request, caller: Caller, rate: Rate) -> None:
    """Raises `TooManyRequests`."""
    if wait_s := rate.take((caller.own, _path(request), request.match_info.get("code")), time.monotonic()):
        raise TooManyRequests(
            f"This token has asked for this too often: again in {wait_s:.1f} s.",
            hint="Look with GET meanwhile: that is not limited.",
            retry_after_s=round(wait_s, 1),
        )


def _caller(request: web.Request, access: Access) -> Caller:
    """Raises `Unauthorized`, `TokenExpired`, `TokenRevoked`."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else ""
    if not given:
        transport = request.transport
        connection = transport.get_extra_info("socket") if transport is not None else None
        if "Authorization" not in request.headers and (peer := access.admit_peer(connection)) is not None:
            return peer
        raise Unauthorized("This needs a token: Authorization: Bearer TOKEN.", hint=_WHERE)
    try:
        return access.admit(given)
    except Unauthorized as error:
        error.hint = _WHERE if type(error) is Unauthorized else type(error).do
        raise


def _driver(request: web.Request, access: Access) -> Caller:
    """Likewise, by what else drivers can send: a password in the address, which they put into a header, or a ticket. Raises `Unauthorized`."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    ticket = request.query.get("ticket", "")
    if scheme.lower() == "basic" and not ticket:
        try:
            _, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            password = ""
        try:
            return access.admit(password)
        except (TokenExpired, TokenRevoked) as error:
            error.hint = error.do
            raise
        except Unauthorized:
            ticket = password or "none"
    if not ticket:
        return _caller(request, access)
    found = access.redeem(ticket, _code(request))
    if found is None:
        raise Unauthorized(
            "This is neither a token nor a ticket for this session that can still be used.",
            hint="A ticket is for one attachment, within a minute: POST /v1/sessions/CODE/cdp/tickets makes another.",
        )
    request[TICKET] = found
    return found.caller


def _actor(request: web.Request, caller: Caller) -> Actor:
    kind = ActorKind.PEER if caller.peer else ActorKind.TOKEN
    return Actor(kind, caller.name, request.remote or "", request[REQUEST_ID])


def _code(request: web.Request) -> ClientCode | None:
    """The client that the path is about. Raises `InvalidClientCode`."""
    code = request.match_info.get("code")
    return None if code is None else client_code(code)


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


def _is_feed(route: Route[Any] | None) -> bool:
    """Whether a page that may ask may read the answer, too."""
    return route is not None and route.streamed is Streamed.EVENTS


def _check_site(request: web.Request, route: Route[Any] | None, origins: Sequence[str]) -> None:
    """Pages of other sites are refused; those that the configuration names may attach. Raises `CrossSite`."""
    origin = request.headers.get("Origin")
    if route is not None and route.attaches and origin is not None:
        if origin not in origins:
            raise CrossSite(
                f"Pages of {origin[:200]!r} may not attach.", hint="Name the origin in api.allowed_origins."
            )
        return
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise CrossSite("Requests from other sites' pages are refused.")


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
        return _code(request)
    except InvalidClientCode:
        return None


def _path(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "(none)"


def _problem(request: web.Request, supervisor: Supervisor, error: WaguardError) -> web.Response:
    admin = request.get(CALLER, NOBODY).is_admin
    if isinstance(error, SessionNotFound) and admin:
        close = supervisor.close_to(request.match_info.get("code", ""))
        if close:
            error.hint = f"Did you mean {' or '.join(close)}? {error.hint}"
            error.details = {**error.details, "close": close}
    if request.path.startswith(compat.PREFIX):
        return compat.problem(error)
    return response(error, admin=admin)


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
