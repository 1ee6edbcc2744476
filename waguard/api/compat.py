"""The old CRM's two routes, with exactly its shapes. The client code comes from the token."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from waguard.api.keys import CALLER, SUPERVISOR
from waguard.api.problems import headers_of, status_of
from waguard.api.routes import Routes
from waguard.api.schemas import AnyOptions, arriving
from waguard.core.model import ClientCode, Link, Wait
from waguard.errors import CleanupFailed, Forbidden, SessionNotFound, WaguardError

PREFIX = "/api/whatsapp/"
routes = Routes()
SPANISH = {
    "invalid_client_code": "El código de cliente no es válido.",
    "invalid_request": "La petición no es válida.",
    "unauthorized": "Falta el token o no es válido.",
    "forbidden": "El token no es de un cliente. Use el token propio del cliente: waguard token CODE",
    "host_not_allowed": "La cabecera Host no está permitida.",
    "cross_site": "No se aceptan peticiones de páginas de otros sitios.",
    "not_found": "La ruta no existe.",
    "session_not_found": "La sesión no existe.",
    "no_qr_code": "No hay código QR en este momento.",
    "backup_not_found": "La copia de seguridad no existe.",
    "method_not_allowed": "Método no permitido en esta ruta.",
    "not_acceptable": "El formato pedido no está disponible.",
    "profile_locked": "Otro programa está usando el perfil.",
    "profile_too_new": "El perfil es de una versión más nueva del navegador.",
    "login_in_use": "Otra sesión usa ya este inicio de sesión de WhatsApp.",
    "request_timeout": "La petición no ha llegado entera a tiempo.",
    "expectation_failed": "La cabecera Expect no se acepta.",
    "limit_reached": "Se ha alcanzado un límite del sistema. Inténtelo más tarde.",
    "interrupted": "Otra petición ha interrumpido la operación.",
    "no_page": "La sesión no tiene ninguna página abierta.",
    "backup_refused": "La copia de seguridad no se puede usar.",
    "body_too_large": "El cuerpo de la petición es demasiado grande.",
    "refused": "WhatsApp ha rechazado la sesión: hace falta una persona.",
    "browser_failed": "El navegador ha fallado.",
    "page_failed": "La página de WhatsApp ha fallado.",
    "page_unreachable": "No se puede llegar a WhatsApp.",
    "browser_not_found": "No hay ningún navegador instalado.",
    "sandbox_failed": "No se ha podido aislar el navegador.",
    "no_memory": "No hay memoria suficiente para otra sesión. Inténtelo más tarde.",
    "breaker_open": "Los navegadores no arrancan en este momento. Inténtelo más tarde.",
    "session_failed": "La sesión ha fallado demasiadas veces. Inténtelo más tarde.",
    "not_ready": "El servicio está arrancando. Inténtelo de nuevo en unos segundos.",
    "backup_failed": "No se ha podido hacer la copia de seguridad.",
    "shutting_down": "El servicio se está deteniendo.",
    "deadline_exceeded": "La operación ha tardado demasiado.",
    "disk_full": "No queda espacio en el disco.",
    "storage_failed": "No se ha podido leer o escribir un archivo del servicio.",
    "record_corrupt": "El registro de la sesión está dañado.",
    "record_unavailable": "El registro de la sesión no se puede leer.",
    "history_failed": "El historial no se puede leer.",
    "not_ours": "No se ha borrado nada: no es del servicio.",
    "profile_not_found": "El perfil no está en su sitio.",
    "profile_not_owned": "El perfil tiene archivos de otro usuario.",
    "not_proved_gone": "No se ha podido terminar el navegador anterior.",
    "cleanup_failed": "La limpieza no se ha completado.",
    "internal": "Error interno; el registro tiene los detalles.",
}
"""What each error is called by the clients of these routes, by its code."""


def _code(request: web.Request) -> ClientCode:
    code = request[CALLER].client
    if code is None:
        raise Forbidden("This token is no client's.")
    return code


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _answer(**fields: Any) -> web.Response:
    return web.json_response({"success": True, **fields, "timestamp": _now()})


def problem(error: WaguardError) -> web.Response:
    """An error in the old shape; ``error`` is the stable code, the log has the rest."""
    code = error.code
    body = {"success": False, "message": SPANISH.get(code, SPANISH["internal"]), "error": code}
    return web.json_response(body, status=status_of(error), headers=headers_of(error))


@routes.post(PREFIX + "connect", AnyOptions)
async def connect(request: web.Request, _options: AnyOptions) -> web.Response:
    # The old clients send bodies of their own here; the code comes from the token alone.
    async with arriving(request):
        await request.read()
    view = await request.app[SUPERVISOR].connect(_code(request), wait=Wait.QR)
    if view.link is Link.AWAITING_SCAN:
        return _answer(message="Cliente inicializado, esperando QR", status="initializing", hasQR=True)
    return _answer(message="Cliente ya conectado", status=view.status.value, hasQR=False)


@routes.post(PREFIX + "force-cleanup", AnyOptions)
async def force_cleanup(request: web.Request, _options: AnyOptions) -> web.Response:
    code = _code(request)
    report = None
    with suppress(SessionNotFound):  # the code is the token's, and so no mistake
        report = await request.app[SUPERVISOR].cleanup(code)
    if report is not None and not report.ok:
        failed = next(step for step in report.steps if step.outcome == "failed")
        raise CleanupFailed(f"{failed.step}: {failed.detail}")
    return _answer(message="Sesión limpiada completamente", clientCode=code)
