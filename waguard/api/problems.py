"""Errors on the wire: RFC 9457 problem details with a stable ``code``."""

import json
import math

from aiohttp import web

from waguard.api.discreet import without_paths
from waguard.api.words import in_http
from waguard.core.plain_text import plain_data
from waguard.errors import RequestError, WaguardError


def status_of(error: WaguardError) -> int:
    return error.http or 500


def response(error: WaguardError, *, admin: bool) -> web.Response:
    """The error as application/problem+json; only the admin is told paths of the daemon's."""
    code, status = error.code, status_of(error)
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
    if not admin and not isinstance(error, RequestError):  # such a one has what the caller has sent
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
