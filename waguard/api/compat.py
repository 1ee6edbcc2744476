"""The old CRM's two routes, with exactly its shapes. The client code comes from the token."""

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from waguard.api.keys import CALLER, SUPERVISOR
from waguard.api.problems import Problem, code_of, headers_of, status_of
from waguard.core.answer import Wait
from waguard.core.model import ClientCode, Link
from waguard.errors import WaguardError

PREFIX = "/api/whatsapp/"
routes = web.RouteTableDef()


def _code(request: web.Request) -> ClientCode:
    code = request[CALLER].client
    if code is None:
        raise Problem(
            "forbidden",
            "El token no es de un cliente.",
            hint="Use el token propio del cliente: waguard token CODE",
        )
    return code


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _answer(**fields: Any) -> web.Response:
    return web.json_response({"success": True, **fields, "timestamp": _now()})


def problem(error: WaguardError) -> web.Response:
    """An error in the old shape; ``error`` is the stable code."""
    body = {"success": False, "message": str(error), "error": code_of(error)}
    return web.json_response(body, status=status_of(error), headers=headers_of(error))


@routes.post(PREFIX + "connect")
async def connect(request: web.Request) -> web.Response:
    # The old clients send bodies of their own here; the code comes from the token alone.
    await request.read()
    view = await request.app[SUPERVISOR].connect(_code(request), wait=Wait.QR)
    if view.link is Link.AWAITING_SCAN:
        return _answer(message="Cliente inicializado, esperando QR", status="initializing", hasQR=True)
    return _answer(message="Cliente ya conectado", status=view.status.value, hasQR=False)


@routes.post(PREFIX + "force-cleanup")
async def force_cleanup(request: web.Request) -> web.Response:
    code = _code(request)
    report = await request.app[SUPERVISOR].cleanup(code)
    if not report.ok:
        failed = next(step for step in report.steps if step.outcome == "failed")
        raise Problem("cleanup_failed", f"{failed.step}: {failed.detail}")
    return _answer(message="Sesión limpiada completamente", clientCode=code)
