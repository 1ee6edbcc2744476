"""The routes of snapshots: each reads, asks the supervisor, answers."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from aiohttp import web

from waguard.api.keys import CALLER, SUPERVISOR
from waguard.api.routes import Routes
from waguard.api.schemas import ExportOptions, ImportOptions, Options, RestoreOptions, arriving, respond
from waguard.api.sessions import ONE, code_of
from waguard.errors import LoginInUse
from waguard.system.files import in_thread

routes = Routes()
_PIECE = 256 * 1024


@routes.get(ONE + "/backups", Options)
async def list_backups(request: web.Request, _options: Options) -> web.Response:
    return respond(request, {"backups": await request.app[SUPERVISOR].backups(code_of(request))})


@routes.post(ONE + "/backups", Options)
async def take(request: web.Request, _options: Options) -> web.Response:
    code = code_of(request)
    return respond(request, await request.app[SUPERVISOR].backup(code))


@routes.post(ONE + "/backups/{id:[^/]*}/restore", RestoreOptions)
async def restore(request: web.Request, options: RestoreOptions) -> web.Response:
    code = code_of(request)
    supervisor, backup_id = request.app[SUPERVISOR], request.match_info["id"]
    with _discreet(request):
        if options.dry_run:
            return respond(
                request, {"dry_run": True, "backup": await supervisor.check_backup(code, backup_id)}
            )
        return respond(
            request, await supervisor.restore(code, backup_id, wait=options.wait, timeout_s=options.timeout_s)
        )


@routes.get(
    ONE + "/backups/{id:[^/]*}", ExportOptions, allow_head=False
)  # a stream would send its body all the same
async def export(request: web.Request, options: ExportOptions) -> web.StreamResponse:
    """The file: sealed as it is, or with ``form=plain`` as the tar.zst that is in it."""
    code = code_of(request)
    backup_id = request.match_info["id"]
    async with request.app[SUPERVISOR].backup_stream(code, backup_id, plain=options.form == "plain") as file:
        name = f"{code}-{backup_id}.{'tar.zst' if options.form == 'plain' else 'wgb'}"
        answer = web.StreamResponse(
            headers={
                "Content-Type": "application/zstd" if options.form == "plain" else "application/octet-stream",
                "Content-Disposition": f'attachment; filename="{name}"',
            }
        )
        await answer.prepare(request)
        while piece := await in_thread(file.read, _PIECE):
            async with arriving(request):
                await answer.write(piece)
        await answer.write_eof()
        return answer


@routes.post(ONE + "/import", ImportOptions)
async def bring(request: web.Request, options: ImportOptions) -> web.Response:
    """The body is an archive that holds a Chromium user data directory: tar, tar.gz, tar.zst, or a snapshot of waguard's."""
    code = code_of(request)
    supervisor = request.app[SUPERVISOR]
    with _discreet(request):
        async with aclosing(_pieces(request)) as pieces:
            backup = await supervisor.bring(code, pieces, wanted=options.login, keep=not options.dry_run)
        if options.dry_run:
            return respond(request, {"dry_run": True, "backup": backup})
        return respond(
            request, await supervisor.restore(code, backup.id, wait=options.wait, timeout_s=options.timeout_s)
        )


@contextmanager
def _discreet(request: web.Request) -> Iterator[None]:
    """Only the admin learns which other clients there are."""
    try:
        yield
    except LoginInUse:
        if request[CALLER].client is None:
            raise
        raise LoginInUse(
            "Another client of this daemon has this login.", hint="Ask the admin which."
        ) from None


async def _pieces(request: web.Request) -> AsyncGenerator[bytes, None]:
    while True:
        async with arriving(request):
            piece = await request.content.read(_PIECE)
        if not piece:
            return
        yield piece
