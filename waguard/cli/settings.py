"""``waguard config``: whether the configuration is right, and what holds in the end."""

import json as documents
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, SecretStr

from waguard.cli.as_json import Json, print_json
from waguard.cli.service import configured
from waguard.config.clients import ClientSettings
from waguard.config.load import ENV_PREFIX, SEARCHED, Loaded, beside, load

HIDDEN = "******"
commands = typer.Typer(
    help="Check the configuration, show the values in force, or its JSON Schema.",
    no_args_is_help=True,
    add_completion=False,
)


@dataclass(frozen=True, slots=True)
class Setting:
    section: str
    key: str
    value: Any
    """As JSON has it, secrets hidden."""
    secret: bool
    origin: str
    """``default``, ``config.toml:12`` or a variable's name."""


@commands.command()
def check(ctx: typer.Context, json: Json = False) -> None:
    """Check the configuration; exit code 2 if it is wrong."""
    loaded = load(ctx.obj)
    left_out = [str(one.absolute()) for one in _left_out(loaded)]
    variables = {
        key: origin for key, origin in sorted(loaded.origins.items()) if origin.startswith(ENV_PREFIX)
    }
    if json:
        files = [str(one.absolute()) for one in loaded.files]
        print_json({"ok": True, "files": files, "left_out": left_out, "variables": variables})
        return
    first, *more = _sources(loaded)
    typer.echo(f"ok: {first}")
    for one in more:
        typer.echo(f"    {one}")
    for one in left_out:
        typer.echo(f"{one} is not read: its name does not end in .toml")
    for key, variable in variables.items():
        typer.echo(f"{key} is set by {variable}")


@commands.command()
def show(ctx: typer.Context, json: Json = False) -> None:
    """Show every key, its value and where it comes from, as a config.toml; secrets are hidden."""
    loaded, _ = configured(ctx.obj)
    if json:
        settings = {
            f"{one.section}.{one.key}": {"value": one.value, "origin": one.origin}
            for one in _settings(loaded)
        }
        files = [str(one) for one in loaded.files]
        shown = {"file": str(loaded.path) if loaded.path else None, "files": files, "settings": settings}
        print_json(shown)
        return
    for source in _sources(loaded):
        typer.echo(f"# {source}")
    section = ""
    for one in _settings(loaded):
        if one.section != section:
            section = one.section
            typer.echo(f"\n[{section}]")
        # TOML has no null, and a hidden secret is none: pasted back, both are as if they were not there.
        unsaid = "# " if one.secret or one.value is None else ""
        value = "" if one.value is None else _toml(one.value)
        typer.echo(f"{f'{unsaid}{one.key} = {value}':<44} # {one.origin}")


@commands.command()
def schema() -> None:
    """Print the JSON Schema of the configuration (draft 2020-12), for editors and one's own checks."""
    from waguard.cli.layout import shipped  # noqa: PLC0415 (no other command needs it)
    from waguard.config.schema import schema as made  # noqa: PLC0415 (likewise)

    typer.echo(documents.dumps(made(shipped("config.toml")), indent=1))


def _sources(loaded: Loaded) -> Sequence[str]:
    if loaded.files:
        return [str(one.absolute()) for one in loaded.files]
    return [f"defaults: there is neither {' nor '.join(map(str, SEARCHED))}"]


def _left_out(loaded: Loaded) -> Sequence[Path]:
    """What lies among the fragments and is none."""
    if loaded.path is None or not loaded.files:
        return ()
    return [one for one in beside(loaded.path) if one not in loaded.files]


def _settings(loaded: Loaded) -> Iterator[Setting]:
    for section, table in loaded.config:
        assert isinstance(table, BaseModel)  # noqa: S101 (every section is a model)
        shown: Mapping[str, Any] = table.model_dump(mode="json")
        for key, value in table:
            secret = isinstance(value, SecretStr) or (section, key) == ("api", "client_tokens")
            if secret and isinstance(value, dict):
                hidden: Any = dict.fromkeys(value, HIDDEN)
            else:
                hidden = HIDDEN if secret else shown[key]
            if isinstance(value, ClientSettings):  # TOML has no null
                hidden = value.model_dump(mode="json", exclude_none=True)
                if value.proxy is not None and value.proxy.password is not None:
                    hidden["proxy"]["password"], secret = HIDDEN, True
            yield Setting(section, key, hidden, secret and bool(value), _origin(f"{section}.{key}", loaded))


def _origin(name: str, loaded: Loaded) -> str:
    """Of a table, each place that has brought some of it."""
    parts = dict.fromkeys(where for key, where in loaded.origins.items() if key.startswith(f"{name}."))
    return ", ".join(parts) or loaded.origins.get(name, "default")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{documents.dumps(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    # Texts, numbers, booleans and lists of them are written alike in both.
    return documents.dumps(value, ensure_ascii=False)
