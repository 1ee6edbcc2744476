"""Files between a session's browser and its client: each route reads, asks the session, answers."""

from urllib.parse import quote

from aiohttp import web

from waguard.api.asked import Asked
from waguard.api.schemas import PIECE, Options, UploadOptions, arriving, pieces_of
from waguard.core.shown import DownloadList, FileDeleted, UploadList, UploadView
from waguard.system.threads import Kind, in_thread

_ASKED = "somebody has asked for it"


async def list_uploads(asked: Asked, _options: Options) -> UploadList:
    """What was uploaded for the session's browser, the oldest first."""
    with asked.supervisor.transfer(asked.code) as transfer:
        return UploadList(await transfer.uploads.all())


async def upload(asked: Asked, options: UploadOptions) -> UploadView:
    """Store a file for the session's browser, which alone opens it, by the `path` of the answer. The body is the file. ``name``: what the
    page sees it called.
    """
    with asked.supervisor.transfer(asked.code) as transfer:
        async with pieces_of(asked.request) as pieces:
            return await transfer.uploads.store(options.name, pieces, asked.request.content_length)


async def delete_upload(asked: Asked, _options: Options) -> FileDeleted:
    """Delete one; a page that still has to read it reads no more."""
    with asked.supervisor.transfer(asked.code) as transfer:
        return FileDeleted((await transfer.uploads.drop(asked.request.match_info["id"], _ASKED)).id)


async def list_downloads(asked: Asked, _options: Options) -> DownloadList:
    """What the session's page has downloaded, the oldest first."""
    with asked.supervisor.transfer(asked.code) as transfer:
        return DownloadList(await transfer.downloads.all(), transfer.downloads.most_mb)


async def download(asked: Asked, _options: Options) -> web.StreamResponse:
    """One of them, as a file to be saved and never to be shown, whatever the page says that it is."""
    with asked.supervisor.transfer(asked.code) as transfer:
        kept, file = await transfer.downloads.open(asked.request.match_info["id"])
        try:
            plain = kept.name.encode("ascii", "replace").decode().replace('"', "_")
            answer = web.StreamResponse(
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(kept.name, safe='')}",
                    "Content-Security-Policy": "default-src 'none'; sandbox",
                    "Content-Length": str(kept.bytes),
                }
            )
            await answer.prepare(asked.request)
            left = kept.bytes
            while left and (piece := await in_thread(file.read, min(PIECE, left), kind=Kind.COPIES)):
                left -= len(piece)
                async with arriving(asked.request):
                    await answer.write(piece)
            await answer.write_eof()
            return answer
        finally:
            await in_thread(file.close)


async def delete_download(asked: Asked, _options: Options) -> FileDeleted:
    """Delete one."""
    with asked.supervisor.transfer(asked.code) as transfer:
        return FileDeleted((await transfer.downloads.drop(asked.request.match_info["id"], _ASKED)).id)
