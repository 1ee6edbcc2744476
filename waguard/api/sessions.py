"""The routes of sessions. Each reads, asks the supervisor, answers."""

import contextlib

from aiohttp import web

from waguard.api import qr
from waguard.api.keys import CALLER, SUPERVISOR
from waguard.api.routes import Routes
from waguard.api.schemas import ConnectOptions, Options, WaitOptions, respond
from waguard.core.model import ClientCode, client_code
from waguard.errors import Forbidden, NotAcceptable

routes = Routes()
# Any text, even none, so that a wrong code gets an answer that says what a client code is.
ONE = r"/v1/sessions/{code:[^/]*}"


def code_of(request: web.Request) -> ClientCode:
    code = client_code(request.match_info["code"])
    if not request[CALLER].may(code):
        raise Forbidden(
            f"This token is not for {code!r}.",
            hint="Use the client's own token, or the admin's.",
        )
    return code


@routes.get("/v1/sessions", Options)
async def list_sessions(request: web.Request, _options: Options) -> web.Response:
    supervisor, caller = request.app[SUPERVISOR], request[CALLER]
    found = {"sessions": [view for view in supervisor.views() if caller.may(client_code(view.client))]}
    # Of the machine, and so the admin's.
    return respond(
        request, found if caller.client is not None else {**found, "sandbox": supervisor.sandbox()}
    )


@routes.get(ONE, Options)
async def show(request: web.Request, _options: Options) -> web.Response:
    return respond(request, request.app[SUPERVISOR].view(code_of(request)))


@routes.post(ONE + "/connect", ConnectOptions)
async def connect(request: web.Request, options: ConnectOptions) -> web.Response:
    code = code_of(request)
    view = await request.app[SUPERVISOR].connect(
        code, wait=options.wait, fresh=options.fresh, timeout_s=options.timeout_s
    )
    return respond(request, view)


@routes.post(ONE + "/restart", WaitOptions)
async def restart(request: web.Request, options: WaitOptions) -> web.Response:
    code = code_of(request)
    return respond(
        request, await request.app[SUPERVISOR].restart(code, wait=options.wait, timeout_s=options.timeout_s)
    )


@routes.post(ONE + "/disconnect", Options)
async def disconnect(request: web.Request, _options: Options) -> web.Response:
    code = code_of(request)
    return respond(request, await request.app[SUPERVISOR].disconnect(code))


@routes.post(ONE + "/cleanup", Options)
async def cleanup(request: web.Request, _options: Options) -> web.Response:
    code = code_of(request)
    return respond(request, await request.app[SUPERVISOR].cleanup(code))


def _accepted(header: str) -> list[str]:
    """The types of an Accept header, best first; what it refuses (``q=0``) and what makes no sense is left out."""
    liked: list[tuple[float, str]] = []
    for part in header.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        with contextlib.suppress(ValueError):
            if (quality := float(weight)) > 0:
                liked.append((quality, _STARS.get(name, name)))
    return [name for _, name in sorted(liked, key=lambda one: -one[0])]


_STARS = {"image/*": "image/png", "text/*": "text/plain"}


@routes.get(ONE + "/qr", Options)
async def show_qr(request: web.Request, _options: Options) -> web.Response:
    """JSON, PNG, SVG or text, whichever of them the Accept header likes best."""
    code = code_of(request)
    view = request.app[SUPERVISOR].qr(code)
    for wanted in _accepted(request.headers.get("Accept", "*/*")):
        if wanted in {"application/json", "application/*", "*/*"}:
            return respond(request, view)
        if wanted in qr.FORMATS:
            charset = "utf-8" if wanted.startswith("text/") else None
            return web.Response(body=qr.FORMATS[wanted](view), content_type=wanted, charset=charset)
    raise NotAcceptable("The QR code comes as application/json, " + ", ".join(qr.FORMATS) + ".")


@routes.get(ONE + "/screenshot", Options)
async def screenshot(request: web.Request, _options: Options) -> web.Response:
    code = code_of(request)
    return web.Response(body=await request.app[SUPERVISOR].screenshot(code), content_type="image/png")
