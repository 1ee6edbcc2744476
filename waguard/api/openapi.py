"""The table of routes as an OpenAPI document, and what its shapes are."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from waguard import __version__
from waguard.api import compat, sse
from waguard.api.once import HEADER, KEYS
from waguard.api.routes import ROUTES, Route, Streamed
from waguard.core.access import SCOPES, About, Scope
from waguard.core.condition import ETAGS
from waguard.core.model import CLIENT_CODE
from waguard.core.values import KEY
from waguard.errors import BY_CODE, Internal, NotReady, RequestError, ShuttingDown

REF = "#/components/schemas/{model}"
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"enum": sorted(code for code, kind in BY_CODE.items() if kind.http)},
        "hint": {"type": "string"},
        "retry_after_s": {"type": "number"},
    },
}
"""RFC 9457; the details of an error stand beside."""


def options_of(route: Route[Any]) -> Mapping[str, Mapping[str, Any]]:
    """The options that a route takes, by name, as JSON schemas."""
    found: Mapping[str, Mapping[str, Any]] = route.options.model_json_schema().get("properties", {})
    defs = route.options.model_json_schema().get("$defs", {})
    return {name: _inlined(one, defs) for name, one in found.items()}


def _inlined(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Without references: an option is small."""
    whole = dict(schema)
    for one in (whole.pop("allOf", [{}])[0], {"$ref": whole.pop("$ref", None)}):
        if ref := one.get("$ref"):
            whole = {**defs[ref.rpartition("/")[2]], **whole}
    whole.pop("title", None)
    if "anyOf" in whole:
        whole["anyOf"] = [_inlined(one, defs) for one in whole["anyOf"]]
    if "properties" in whole:
        whole["properties"] = {name: _inlined(one, defs) for name, one in whole["properties"].items()}
    if "items" in whole:
        whole["items"] = _inlined(whole["items"], defs)
    return whole


def views() -> tuple[Mapping[Any, Mapping[str, Any]], Mapping[str, Any]]:
    """The schema of each view, which refers to the shapes, and the shapes by name."""
    of_json = {one.view: TypeAdapter(one.view) for one in ROUTES if one.view is not bytes}
    inputs: list[Any] = [(view, "serialization", adapter) for view, adapter in of_json.items()]
    made, shapes = TypeAdapter.json_schemas(inputs, ref_template=REF)
    return {view: schema for (view, _), schema in made.items()}, shapes["$defs"]


def document() -> Mapping[str, Any]:
    schemas, shapes = views()
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "waguard", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**shapes, "Problem": PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


PATTERNS = {"code": {"pattern": f"^{CLIENT_CODE}$"}, "key": {"pattern": f"^{KEY}$"}}
"""What may stand in a path."""
HEADERS: Mapping[str, str] = {
    HEADER: "Drawn by the caller for each request: whoever sends it again, with the same request, gets what came of it, and it is done once.",
    "If-Match": "The ETag that the session was shown with: it is done only if the session is still as it was then.",
}


def _headers(route: Route[Any]) -> Sequence[str]:
    if route.method != "POST":
        return ()
    return (HEADER, "If-Match") if route.about is About.ONE else (HEADER,)


def _header(name: str) -> Mapping[str, Any]:
    schema = {"type": "string", "pattern": KEYS if name == HEADER else ETAGS}
    return {"name": name, "in": "header", "description": HEADERS[name], "schema": schema}


def _problems(route: Route[Any]) -> Mapping[str, Any]:
    """What can be wrong, by its status. What every request can have wrong, and where a session is asked, what can be wrong with that."""
    asks_session = route.scope is not Scope.OPEN
    kinds = [
        kind
        for kind in BY_CODE.values()
        if kind.http and (asks_session or issubclass(kind, RequestError | Internal | NotReady | ShuttingDown))
    ]
    media = compat.MEDIA if route.path.startswith(compat.PREFIX) else ("application/problem+json",)
    schema = {} if route.path.startswith(compat.PREFIX) else {"schema": {"$ref": REF.format(model="Problem")}}
    return {
        str(status): {
            "description": ", ".join(f"`{kind.code}`" for kind in kinds if kind.http == status),
            "content": dict.fromkeys(media, schema),
        }
        for status in sorted({kind.http for kind in kinds})
    }


def _content(media: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if media == sse.TYPE:
        says = "Server-sent events, the data of each as JSON."
        return {"schema": {"type": "string", "description": says, "contentSchema": schema}}
    return {"schema": schema} if "json" in media else {}


def _operation(route: Route[Any], schemas: Mapping[Any, Mapping[str, Any]]) -> Mapping[str, Any]:
    options = options_of(route)
    parameters: list[Mapping[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", **PATTERNS.get(name, {})}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    parameters += [
        {
            "name": name,
            "in": "query",
            "schema": one,
            **({"explode": False} if one.get("type") == "array" else {}),
        }
        for name, one in options.items()
        if name not in route.options.not_in_query
    ]
    medias = (*route.media, *([sse.TYPE] if route.tells else ()))
    content = {media: _content(media, schemas.get(route.view, {})) for media in medias}
    parameters += [_header(name) for name in _headers(route)]
    body: dict[str, Any] = {}
    if route.streamed is Streamed.IN:
        body = {"requestBody": {"required": True, "content": {media: {} for media in route.takes}}}
    elif options and route.options.in_body and route.method in {"POST", "PUT", "PATCH"}:
        needed = route.options.model_json_schema().get("required", [])
        schema = {"type": "object", "properties": options, "required": needed, "additionalProperties": False}
        # Options may stand in the query, too; what is needed is asked for in one place.
        body = {
            "requestBody": {"required": bool(needed), "content": {"application/json": {"schema": schema}}}
        }
    done = {"200": {"description": "What was asked for.", "content": content}}
    if route.streamed is Streamed.BOTH:
        done = {"101": {"description": "It is a WebSocket from here."}}
    return {
        "summary": route.says,
        "description": f"Scope `{route.scope}`: {SCOPES[route.scope]}",
        "security": [] if route.scope is Scope.OPEN else [{"token": [route.scope.value]}],
        **({"parameters": parameters} if parameters else {}),
        **body,
        "responses": {**done, **_problems(route)},
    }
