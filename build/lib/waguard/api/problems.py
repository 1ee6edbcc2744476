"""Errors on the wire: RFC 9457 problem details with a stable ``code``."""

import json
import math

from aiohttp import web

from waguard.api.discreet import without_paths
from waguard.api.words import in_http
from waguard.core.plain_text import plain_data
from waguard.errors import Problem, WaguardError, code_of

# The one translation from error codes to HTTP.
STATUS = {
    "invalid_client_code": 400,
    "invalid_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "host_not_allowed": 403,
    "cross_site": 403,
    "not_found": 404,
    "session_not_found": 404,
    "no_qr_code": 404,
    "backup_not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "request_timeout": 408,
    "expectation_failed": 417,
    "profile_locked": 409,
    "profile_too_new": 409,
    "login_in_use": 409,
    "interrupted": 409,
    "no_page": 409,
    "backup_refused": 422,
    "body_too_large": 413,
    "refused": 409,
    "browser_failed": 502,
    "page_failed": 502,
    "browser_not_found": 503,
    "sandbox_failed": 503,
    "no_memory": 503,
    "limit_reached": 503,
    "breaker_open": 503,
    "session_failed": 503,
    "not_ready": 503,
    "backup_failed": 503,
    "shutting_down": 503,
    "deadline_exceeded": 504,
    "disk_full": 507,
}


def status_of(error: WaguardError) -> int:
    return STATUS.get(code_of(error), 500)


def response(error: WaguardError, *, admin: bool) -> web.Response:
    """The error as application/problem+json; only the admin is told paths of the daemon's."""
    code, status = code_of(error), status_of(error)
    body = {
        "type": "about:blank",
        "title": code.replace("_", " "),
        "status": status,
        "detail": error.message,
        "code": code,
        **({"hint": error.hint} if error.hint else {}),
        **{
            key: value
            for key, value in error.details.items()
            if key not in {"type", "title", "status", "detail"}
        },
    }
    if not admin and not isinstance(
        error, Problem
    ):  # such a one has what the caller has sent, and nothing else
        body = without_paths(body)
    return web.Response(
        # What a caller sent may hold anything, even what no encoding has.
        body=in_http(json.dumps(plain_data(body), ensure_ascii=False)).encode(),
        status=status,
        content_type="application/problem+json",
        charset="utf-8",
        headers=headers_of(error),
    )


def stamp(answer: web.StreamResponse, request_id: str) -> None:
    """What every answer has."""
    answer.headers["X-Request-Id"] = request_id
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Content-Type-Options"] = "nosniff"


def headers_of(error: WaguardError) -> dict[str, str]:
    """What HTTP itself wants to know of an error."""
    headers = {}
    if retry := error.details.get("retry_after_s"):
        headers["Retry-After"] = str(math.ceil(retry))  # whole seconds: not before it is worth it
    if status_of(error) == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
