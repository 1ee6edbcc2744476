"""``waguard config``: whether the configuration is right, and what holds in the end."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr

from waguard.cli.service import configured
from waguard.config.clients import ClientSettings
from waguard.config.load import ENV_PREFIX, SEARCHED, Loaded, load

HIDDEN = "******"
commands = typer.Typer(
    help="Check the configuration, show the values in force, or its JSON Schema.", no_args_is_help=True
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
def check(ctx: typer.Context) -> None:
    """Check the configuration; exit code 2 if it is wrong."""
    loaded = load(ctx.obj)
    typer.echo(f"ok: {_source(loaded)}")
    for key, origin in sorted(loaded.origins.items()):
        if origin.startswith(ENV_PREFIX):
            typer.echo(f"{key} is set by {origin}")


@commands.command()
def show(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Show every key, its value and where it comes from, as a config.toml; secrets are hidden."""
    loaded, _ = configured(ctx.obj)
    if as_json:
        settings = {
            f"{one.section}.{one.key}": {"value": one.value, "origin": one.origin}
            for one in _settings(loaded)
        }
        typer.echo(
            json.dumps({"file": str(loaded.path) if loaded.path else None, "settings": settings}, indent=2)
        )
        return
    typer.echo(f"# {_source(loaded)}")
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

    typer.echo(json.dumps(made(shipped("config.toml")), indent=1))


def _source(loaded: Loaded) -> str:
    if loaded.path is not None:
        return str(loaded.path.absolute())
    return f"defaults: there is neither {' nor '.join(map(str, SEARCHED))}"


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
            origin = loaded.origins.get(f"{section}.{key}", "default")
            if isinstance(value, ClientSettings):  # TOML has no null
                hidden = value.model_dump(mode="json", exclude_none=True)
                if value.proxy is not None and value.proxy.password is not None:
                    hidden["proxy"]["password"], secret = HIDDEN, True
            yield Setting(section, key, hidden, secret and bool(value), origin)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    # Texts, numbers, booleans and lists of them are written alike in both.
    return json.dumps(value, ensure_ascii=False)
