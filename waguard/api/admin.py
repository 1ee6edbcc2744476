"""The routes that concern no single client: only for the admin."""

from aiohttp import web

from waguard.api.keys import CALLER, SUPERVISOR
from waguard.api.routes import Routes
from waguard.api.schemas import Options, ReapOptions, respond
from waguard.errors import Forbidden

routes = Routes()


def admin_only(request: web.Request) -> None:
    if request[CALLER].client is not None:
        raise Forbidden("This is for the admin.", hint="Use the admin's token: waguard token")


@routes.post("/v1/reap", ReapOptions)
async def reap(request: web.Request, options: ReapOptions) -> web.Response:
    admin_only(request)
    return respond(request, await request.app[SUPERVISOR].reap(dry_run=options.dry_run))


@routes.get("/v1/schedule", Options)
async def schedule(request: web.Request, _options: Options) -> web.Response:
    admin_only(request)
    return respond(request, {"jobs": request.app[SUPERVISOR].schedule.views()})
