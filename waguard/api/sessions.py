"""One client's session: each reads, asks the supervisor, answers."""

from aiohttp import web

from waguard.api import qr
from waguard.api.accept import accepted
from waguard.api.asked import Asked
from waguard.api.schemas import (
    ConnectOptions,
    ListOptions,
    Options,
    PairingOptions,
    RestoreOptions,
    WaitOptions,
)
from waguard.core.listing import page
from waguard.core.model import client_code
from waguard.core.shown import (
    AllSessions,
    CleanupView,
    PairingView,
    QrView,
    SessionList,
    SessionView,
    UndoTried,
)
from waguard.errors import NotAcceptable


async def list_sessions(asked: Asked, options: ListOptions) -> AllSessions | SessionList:
    """The sessions that the token is for, in the order of their codes; the admin is told what browsers are started in, too. ``status``: only of
    these. ``label``: only with one of these. ``text``: with this in their code, number or name. ``limit``: so many at most, and ``next`` is the ``cursor`` of the page behind.
    """
    supervisor, caller = asked.supervisor, asked.caller
    seen = [view for view in supervisor.views() if caller.may_see(client_code(view.client))]
    found = page(seen, options.status, options.text, options.limit, options.cursor, options.label)
    if caller.is_admin:
        return AllSessions(found.sessions, found.next, supervisor.sandbox())
    return SessionList(found.sessions, found.next)


async def show(asked: Asked, _options: Options) -> SessionView:
    """The session as it is now."""
    return asked.supervisor.view(asked.code)


async def connect(asked: Asked, options: ConnectOptions) -> SessionView:
    """Have this client's browser up, and answer as soon as it is as ``wait`` says; joins a connect that is under way. ``fresh``: with a new profile."""
    return await asked.supervisor.connect(
        asked.code, wait=options.wait, fresh=options.fresh, timeout_s=options.timeout_s
    )


async def restart(asked: Asked, options: WaitOptions) -> SessionView:
    """Close the browser and start it again on the same profile."""
    return await asked.supervisor.restart(asked.code, wait=options.wait, timeout_s=options.timeout_s)


async def disconnect(asked: Asked, _options: Options) -> SessionView:
    """Close the browser and keep the profile; answers when the browser is proved gone."""
    return await asked.supervisor.disconnect(asked.code)


async def cleanup(asked: Asked, _options: Options) -> CleanupView:
    """End everything of this client and put its profile aside: it will have to scan again. Each step says how it went."""
    return await asked.supervisor.cleanup(asked.code)


async def undo(asked: Asked, options: RestoreOptions) -> SessionView | UndoTried:
    """Take back the last cleanup, fresh, restore or import: what it has put aside comes back, and is connected with; what is there now is put aside. ``dry_run``: only say what that would be."""
    if options.dry_run:
        return UndoTried(await asked.supervisor.check_undo(asked.code))
    return await asked.supervisor.undo(asked.code, wait=options.wait, timeout_s=options.timeout_s)


async def show_qr(asked: Asked, _options: Options) -> QrView | web.Response:
    """The QR code on the page now: JSON, PNG, SVG or text, whichever of them the Accept header likes best."""
    view = asked.supervisor.qr(asked.code)
    for wanted in accepted(asked.request.headers.get("Accept", "*/*")):
        if wanted in {"application/json", "application/*", "*/*"}:
            return view
        if wanted in qr.FORMATS:
            charset = "utf-8" if wanted.startswith("text/") else None
            return web.Response(body=qr.FORMATS[wanted](view), content_type=wanted, charset=charset)
    raise NotAcceptable("The QR code comes as application/json, " + ", ".join(qr.FORMATS) + ".")


async def pairing_code(asked: Asked, options: PairingOptions) -> PairingView:
    """Ask the page for a code by which the phone with this number links itself, instead of scanning the QR code."""
    return await asked.supervisor.pairing_code(asked.code, options.phone.removeprefix("+"))


async def screenshot(asked: Asked, _options: Options) -> bytes:
    """A picture of the page."""
    return await asked.supervisor.screenshot(asked.code)
