"""Snapshots: each reads, asks the supervisor, answers."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from waguard.api.asked import Asked
from waguard.api.schemas import (
    PIECE,
    ExportOptions,
    ImportOptions,
    Options,
    RestoreOptions,
    arriving,
    pieces_of,
)
from waguard.core.shown import SessionView, SnapshotList, SnapshotTried, SnapshotView
from waguard.errors import LoginInUse
from waguard.system.threads import Kind, in_thread


async def list_snapshots(asked: Asked, _options: Options) -> SnapshotList:
    """The client's snapshots, the newest first, also of one that has no session any more."""
    return SnapshotList(await asked.supervisor.snapshots(asked.code))


async def take(asked: Asked, _options: Options) -> SnapshotView:
    """Take a snapshot now."""
    return await asked.supervisor.snapshot(asked.code)


async def restore(asked: Asked, options: RestoreOptions) -> SessionView | SnapshotTried:
    """Put a snapshot in the place of the client's profile, which is put aside, and connect with it. ``newest`` may stand for the
    id. ``dry_run``: only look whether that could be done.
    """
    supervisor, snapshot_id = asked.supervisor, asked.request.match_info["id"]
    with _discreet(asked):
        if options.dry_run:
            return SnapshotTried(await supervisor.check_snapshot(asked.code, snapshot_id))
        return await supervisor.restore(
            asked.code, snapshot_id, wait=options.wait, timeout_s=options.timeout_s
        )


async def export(asked: Asked, options: ExportOptions) -> web.StreamResponse:
    """The snapshot's file: sealed as it is, or with ``form=plain`` the tar.zst that is in it."""
    code, snapshot_id, plain = asked.code, asked.request.match_info["id"], options.form == "plain"
    async with asked.supervisor.snapshot_stream(code, snapshot_id, plain=plain) as file:
        name = f"{code}-{snapshot_id}.{'tar.zst' if plain else 'wgb'}"
        answer = web.StreamResponse(
            headers={
                "Content-Type": "application/zstd" if plain else "application/octet-stream",
                "Content-Disposition": f'attachment; filename="{name}"',
            }
        )
        await answer.prepare(asked.request)
        while piece := await in_thread(file.read, PIECE, kind=Kind.COPIES):
            async with arriving(asked.request):
                await answer.write(piece)
        await answer.write_eof()
        return answer


async def bring(asked: Asked, options: ImportOptions) -> SessionView | SnapshotTried:
    """Make a snapshot of the login in an archive, and connect with it. The body is the archive, with a Chromium user data
    directory in it: tar, tar.gz, tar.zst, or a snapshot of waguard's. ``login``: which one, if there are several.
    """
    supervisor = asked.supervisor
    with _discreet(asked):
        async with pieces_of(asked.request) as pieces:
            snapshot = await supervisor.bring(
                asked.code, pieces, wanted=options.login, keep=not options.dry_run
            )
        if options.dry_run:
            return SnapshotTried(snapshot)
        return await supervisor.restore(
            asked.code, snapshot.id, wait=options.wait, timeout_s=options.timeout_s
        )


@contextmanager
def _discreet(asked: Asked) -> Iterator[None]:
    """Only the admin learns which other clients there are."""
    try:
        yield
    except LoginInUse:
        if asked.caller.is_admin:
            raise
        raise LoginInUse(
            "Another client of this daemon has this login.", hint="Ask the admin which."
        ) from None
