"""The old CRM's two routes, with exactly its shapes. The client code comes from the token."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiohttp import web

from waguard.api.asked import Asked
from waguard.api.problems import headers_of, status_of
from waguard.api.schemas import AnyOptions, arriving
from waguard.core.model import ClientCode, Link, Wait
from waguard.errors import CleanupFailed, SessionNotFound, WaguardError

PREFIX = "/api/whatsapp/"
MEDIA = ("application/json; charset=utf-8",)
SPANISH = {
    "invalid_client_code": "El código de cliente no es válido.",
    "invalid_request": "La petición no es válida.",
    "unauthorized": "Falta el token o no es válido.",
    "too_many_requests": "Demasiadas peticiones. Inténtelo de nuevo en unos segundos.",
    "token_expired": "El token ha caducado.",
    "token_revoked": "El token ha sido revocado.",
    "token_not_found": "El token no existe.",
    "token_name_taken": "Ya hay un token con ese nombre.",
    "webhook_not_found": "El webhook no existe.",
    "too_many_webhooks": "Ya hay demasiados webhooks.",
    "too_many_tokens": "Ya hay demasiados tokens.",
    "forbidden": "El token no permite esta operación. Use el token propio del cliente: waguard token CODE",
    "host_not_allowed": "La cabecera Host no está permitida.",
    "cross_site": "No se aceptan peticiones de páginas de otros sitios.",
    "not_found": "La ruta no existe.",
    "session_not_found": "La sesión no existe.",
    "no_qr_code": "No hay código QR en este momento.",
    "no_pairing_code": "La sesión no espera ningún teléfono en este momento.",
    "no_uploads": "La sesión no admite archivos en este momento.",
    "uploads_full": "Ya hay demasiados archivos subidos para esta sesión.",
    "no_such_file": "Ese archivo no existe.",
    "no_such_value": "Ese valor no existe.",
    "values_full": "Ya hay demasiados valores guardados para esta sesión.",
    "value_too_large": "El valor es demasiado grande.",
    "idempotency_key_reused": "Esa Idempotency-Key ya se usó con otra petición.",
    "precondition_failed": "Otro programa lo ha cambiado ya.",
    "pairing_refused": "WhatsApp no da un código de vinculación para este número.",
    "snapshot_not_found": "La copia de seguridad no existe.",
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
    "too_many_attached": "Ya hay demasiados programas conectados a esta sesión.",
    "undo_refused": "No hay nada que se pueda deshacer.",
    "snapshot_refused": "La copia de seguridad no se puede usar.",
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
    "snapshot_failed": "No se ha podido hacer la copia de seguridad.",
    "shutting_down": "El servicio se está deteniendo.",
    "deadline_exceeded": "La operación ha tardado demasiado.",
    "disk_full": "No queda espacio en el disco.",
    "storage_failed": "No se ha podido leer o escribir un archivo del servicio.",
    "storage_hangs": "El disco no responde. Inténtelo más tarde.",
    "audit_unavailable": "No se puede dejar constancia de la operación, así que no se ha hecho nada. Inténtelo más tarde.",
    "tenure_lost": "Otro servicio se ocupa ahora de este cliente.",
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Connected:
    success: bool = field(default=True, init=False)
    message: str
    status: str
    hasQR: bool  # noqa: N815 (the old CRM's)
    timestamp: str = field(default_factory=_now, init=False)


@dataclass(frozen=True, slots=True)
class Cleaned:
    success: bool = field(default=True, init=False)
    message: str
    clientCode: ClientCode  # noqa: N815 (likewise)
    timestamp: str = field(default_factory=_now, init=False)


def problem(error: WaguardError) -> web.Response:
    """An error in the old shape; ``error`` is the stable code, the log has the rest."""
    body = {"success": False, "message": SPANISH.get(error.code, SPANISH["internal"]), "error": error.code}
    return web.json_response(body, status=status_of(error), headers=headers_of(error))


async def connect(asked: Asked, _options: AnyOptions) -> Connected:
    """Connect the token's client, as `POST /v1/sessions/{code}/connect` does with ``wait=qr``."""
    # The old clients send bodies of their own here.
    async with arriving(asked.request):
        await asked.request.read()
    view = await asked.supervisor.connect(asked.code, wait=Wait.QR)
    if view.link is Link.AWAITING_SCAN:
        return Connected("Cliente inicializado, esperando QR", "initializing", hasQR=True)
    return Connected("Cliente ya conectado", view.status.value, hasQR=False)


async def force_cleanup(asked: Asked, _options: AnyOptions) -> Cleaned:
    """Clean up the token's client, as `POST /v1/sessions/{code}/cleanup` does; a step that fails is an error here."""
    report = None
    with suppress(SessionNotFound):  # the code is the token's, and so no mistake
        report = await asked.supervisor.cleanup(asked.code)
    if report is not None and not report.ok:
        failed = next(step for step in report.steps if step.outcome == "failed")
        raise CleanupFailed(f"{failed.step}: {failed.detail}")
    return Cleaned("Sesión limpiada completamente", asked.code)
