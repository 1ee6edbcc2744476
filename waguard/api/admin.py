"""The routes that concern no single client: only for the admin."""

from aiohttp import web

from waguard.api.keys import CALLER, SUPERVISOR
from waguard.api.problems import Problem
from waguard.api.schemas import Options, ReapOptions, read, respond

routes = web.RouteTableDef()


def admin_only(request: web.Request) -> None:
    if request[CALLER].client is not None:
        raise Problem("forbidden", "This is for the admin.", hint="Use the admin's token: waguard token")


@routes.post("/v1/reap")
async def reap(request: web.Request) -> web.Response:
    admin_only(request)
    options = await read(request, ReapOptions)
    return respond(await request.app[SUPERVISOR].reap(dry_run=options.dry_run))


@routes.get("/v1/schedule")
async def schedule(request: web.Request) -> web.Response:
    admin_only(request)
    await read(request, Options)
    return respond({"jobs": request.app[SUPERVISOR].schedule.views()})
