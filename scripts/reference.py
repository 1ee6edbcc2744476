#!/usr/bin/env python3
"""Make the pages of docs/ that follow from the code anew: configuration, commands, errors, events, the HTTP API, states, the simulator's faults.

``--check`` writes nothing, names each page that is not current, and ends with 1 if there is one.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from waguard.api import openapi
from waguard.api.routes import ROUTES, Streamed
from waguard.cli.app import app
from waguard.cli.errors import CommandError
from waguard.cli.exits import ExitCode
from waguard.client import Client, Session
from waguard.config import schema
from waguard.config.clients import Proxy
from waguard.config.load import ENV_PREFIX
from waguard.core import catalogue, shown, stats, tables
from waguard.core.access import OF_ADMIN, OF_CLIENT, SCOPES
from waguard.core.relay import policy
from waguard.errors import (
    BY_CODE,
    AnswerError,
    Internal,
    LoginError,
    PageError,
    ProcessError,
    RequestError,
    SessionError,
    StorageError,
    WaguardError,
)
from waguard.simulator import control
from waguard.simulator.faults import FAULTS, VALUES
from waguard.simulator.server import Simulator

ROOT = Path(__file__).resolve().parent.parent
MADE = "<!-- Made by `make reference`; a test keeps it so. -->"
GROUPS: Sequence[type[WaguardError]] = (
    RequestError,
    SessionError,
    PageError,
    ProcessError,
    LoginError,
    StorageError,
    AnswerError,
    CommandError,
    Internal,
)


def configuration() -> Iterator[str]:
    yield from ("# Configuration", "", MADE)
    models, section = _schema()["$defs"], ""
    models = {one["title"].strip("[]"): one for one in models.values()}
    for one in schema.comments(_config_toml()):
        if one.section != section:
            section = one.section
            yield from ("", f"## [{section}]")
        said = [line.replace("<", "&lt;") for line in one.lines]
        if not one.key:
            yield from ("", *said)
            continue
        yield from ("", f"### {section}.{one.key}", "", *said)
        default = one.note or f"default: `{one.default}`"
        variable = "" if section == "clients" else f"; `{ENV_PREFIX}{section}__{one.key}`".upper()
        yield from ("", f"{_kind(models[section]['properties'][one.key])}; {default}{variable}")


def _schema() -> Mapping[str, Any]:
    return schema.schema(_config_toml())


def _config_toml() -> str:
    return (ROOT / "config.toml").read_text(encoding="utf-8")


def _kind(value: Mapping[str, Any]) -> str:
    """The type of a key and its limits, in words."""
    if "enum" in value:
        return "one of " + ", ".join(f"`{json.dumps(one)}`" for one in value["enum"])
    if "$ref" in value:
        return f"table of {', '.join(f'`{key}`' for key in Proxy.model_fields)}"
    match value["type"]:
        case "array":
            kinds = [one["type"] for one in value["items"].get("anyOf", [value["items"]])]
            return f"list of {' or '.join(f'{one}s' for one in kinds)}"
        case "object":
            return "table of texts"
        case "string":
            return {"path": "path", "password": "secret text"}.get(value.get("format", ""), "text")
        case "boolean":
            return "`true` or `false`"
    limits = [f"above {value['exclusiveMinimum']:g}"] if "exclusiveMinimum" in value else []
    limits += [f"at least {value['minimum']:g}"] if "minimum" in value else []
    limits += [f"at most {value['maximum']}"] if "maximum" in value else []
    return " ".join([value["type"], ", ".join(limits)]).strip()


def commands() -> Iterator[str]:
    yield from ("# Commands", "", MADE, "", "What `waguard COMMAND --help` says.")
    yield from ("", "## Exit codes", "", "| code | |", "|---|---|")
    yield from (f"| {code:d} | {code.says} |" for code in ExitCode)
    app.rich_markup_mode = None  # plain text on a terminal too
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)  # noqa: S101 (it has commands)
    for words in ([], *_words(group)):
        yield from ("", f"## {' '.join(['waguard', *words])}", "")
        result = CliRunner().invoke(
            app, [*words, "--help"], prog_name="waguard", env={"COLUMNS": "100"}, terminal_width=100
        )
        yield from ("```text", *(line.rstrip() for line in result.output.strip().splitlines()), "```")


def _words(group: typer.core.TyperGroup) -> Iterator[list[str]]:
    for name, command in group.commands.items():
        inner = [*_words(command)] if isinstance(command, typer.core.TyperGroup) else []
        yield from ([name, *words] for words in inner or [[]])


def errors() -> Iterator[str]:
    """Every kind by its group."""
    yield from ("# Errors", "", MADE, "")
    yield "Every error has a `code`. A code never changes and is never used for something else; messages and hints may change."
    yield "*Again*: whether the same request may succeed later by itself; the header `Retry-After` says when, where that is known."
    yield "A dash for the status: the control port never answers so; a command reports it, or the log."
    for group in GROUPS:
        yield from ("", f"## {'Bugs' if group is Internal else _text(group)}")
        for kind in (one for one in BY_CODE.values() if issubclass(one, group)):
            yield from ("", f"### `{kind.code}`", "", _text(kind), "")
            yield f"Status: {kind.http or '-'}. Again: {'yes' if kind.again else 'no'}. To do: {kind.do}"


def _text(kind: type[WaguardError]) -> str:
    return _prose(kind.__doc__)


def client() -> Iterator[str]:
    """Every method of `waguard.client`."""
    yield from ("# The Python client", "", MADE, "")
    yield "How to use it: [From Python](../how-to/app.md#from-python). What the methods return is in [The HTTP API](http-api.md#shapes)."
    for owner in (Client, Session):
        yield from ("", f"## {owner.__name__}", "", _prose(owner.__doc__))
        for name, one in vars(owner).items():
            if name.startswith("_") or not inspect.isfunction(one):
                continue
            (made,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(inspect.unwrap(one)))).body
            assert isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef)  # noqa: S101 (it is one)
            assert made.returns is not None  # noqa: S101 (all are typed)
            taken = re.sub(r"^(self|code: ClientCode)(, )?", "", ast.unparse(made.args))
            returned = re.sub(r"^Ask\[(.*)\]$", r"\1", ast.unparse(made.returns)).strip("'")
            yield from ("", f"### `{name}`", "", f"`{name}({taken}) -> {returned}`", "", _prose(one.__doc__))


def _prose(text: str | None) -> str:
    return " ".join((text or "").split()).replace("``", "`")


def simulated() -> Iterator[str]:
    yield from ("# The simulator", "", MADE)
    yield from (
        "",
        "How to use it: [Test an app without a phone](../how-to/simulator.md).",
        "",
        "## Requests",
        "",
    )
    yield "JSON, each key of which is a text. A refusal has a stable `error` and a `message`."
    for one in control.routes(Simulator()):
        yield from ("", f"### {one.method} {one.path}", "", " ".join((one.handler.__doc__ or "").split()))
    yield from ("", "## Faults", "", "How to begin one: [Faults](../how-to/simulator.md#faults).")
    for name, what in FAULTS.items():
        yield from ("", f"### `{name}`", "", what)
        if name in VALUES:
            yield from ("", f"Value: {VALUES[name].known}; default: `{VALUES[name].default}`.")


def http_api() -> Iterator[str]:
    """Every route, and the shapes of what is answered."""
    schemas, shapes = openapi.views()
    yield from ("# The HTTP API", "", MADE, "")
    yield "As an OpenAPI document: [openapi.json](openapi.json). Errors: [errors.md](errors.md). Options stand in the query, or in a JSON"
    yield "object as the body; what a route does not know is refused. Every answer has `X-Request-Id`, which the log has as `request`."
    yield from (
        "",
        "## Scopes",
        "",
        "| scope | lets its caller do | the admin's token | a client's |",
        "|---|---|---|---|",
    )
    for scope, says in SCOPES.items():
        has = ("yes" if scope in scopes else "no" for scopes in (OF_ADMIN, OF_CLIENT))
        yield f"| `{scope}` | {says} | {' | '.join(has)} |"
    yield from ("", "## Routes")
    for route in ROUTES:
        yield from ("", f"### {route.method} {route.path}", "", route.says, "")
        yield f"- scope: `{route.scope}`"
        if (act := route.act) is not None:
            yield f"- recorded as `{act.name}`{'; refused while it cannot be' if act.must else ''}"
        for name, option in openapi.options_of(route).items():
            default = (
                f"; default: `{json.dumps(option['default'])}`" if option.get("default") is not None else ""
            )
            yield f"- option `{name}`: {_shape(option)}{default}"
        if route.streamed is Streamed.IN:
            yield f"- body: {', '.join(f'`{one}`' for one in route.takes)}, sent in pieces of any size"
        if route.streamed is Streamed.BOTH:
            yield "- answer: a WebSocket"
            continue
        shape = "a file" if route.view is bytes else _shape(schemas[route.view])
        yield f"- answer: {shape}, as {', '.join(f'`{one}`' for one in route.media)}"
    yield from ("", "## Shapes")
    for name, shape in sorted(shapes.items()):
        yield from ("", f"### {name}", "")
        if "enum" in shape:
            yield "One of " + ", ".join(f"`{one}`" for one in shape["enum"]) + "."
            continue
        below = _said_of_fields(name)
        for field, one in shape["properties"].items():
            yield f"- `{field}`: {_shape(one)}{': ' + below[field] if field in below else ''}"


def _shape(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    match schema:
        case {"$ref": str(ref)}:
            name = ref.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"enum": list(words)}:
            return " or ".join(f"`{json.dumps(one)}`" for one in words)
        case {"const": word}:
            return f"`{json.dumps(word)}`"
        case {"anyOf": list(some)} | {"allOf": list(some)}:
            return " or ".join(map(_shape, some))
        case {"type": "array", "items": dict(one)}:
            return f"list of {_shape(one)}"
        case {"type": "object", "additionalProperties": dict(one)}:
            return f"table of {_shape(one)}"
        case {"type": str(kind)}:
            return kind
    return "anything"


def _said_of_fields(name: str) -> Mapping[str, str]:
    """What stands below each field of a view, in its class."""
    for module in (shown, stats):
        if hasattr(module, name):
            (made,) = ast.parse(inspect.getsource(getattr(module, name))).body
            assert isinstance(made, ast.ClassDef)  # noqa: S101 (it is a class)
            return {
                one.target.id: " ".join(text.split()).replace("``", "`").rstrip(".")
                for one, below in pairwise(made.body)
                if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                if isinstance(text := below.value.value, str)
            }
    return {}


PAGES: Mapping[str, Callable[[], str]] = {
    "reference/configuration.md": lambda: "\n".join(configuration()) + "\n",
    "reference/config.schema.json": lambda: json.dumps(_schema(), indent=1) + "\n",
    "reference/commands.md": lambda: "\n".join(commands()) + "\n",
    "reference/events.md": lambda: "\n".join(catalogue.page()) + "\n",
    "reference/relay-policy.md": lambda: "\n".join(policy.page()) + "\n",
    "reference/errors.md": lambda: "\n".join(errors()) + "\n",
    "reference/http-api.md": lambda: "\n".join(http_api()) + "\n",
    "reference/openapi.json": lambda: json.dumps(openapi.document(), indent=1) + "\n",
    "reference/client.md": lambda: "\n".join(client()) + "\n",
    "reference/simulator.md": lambda: "\n".join(simulated()) + "\n",
    "state-table.md": tables.as_text,
}


def main() -> int:
    stale = 0
    for name, page in PAGES.items():
        path, text = ROOT / "docs" / name, page()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if "--check" in sys.argv:
            print(f"docs/{name} is not current: make reference")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"docs/{name}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
