"""What a command prints for scripts: one JSON document on stdout, or, if it fails, one on stderr."""

from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from waguard.core.plain_text import plain_json

_ANY: TypeAdapter[Any] = TypeAdapter(Any)

Json = Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")]


def print_json(view: object, *, err: bool = False) -> None:
    typer.echo(plain_json(_ANY.dump_json(view, indent=2, fallback=str).decode()), err=err)
