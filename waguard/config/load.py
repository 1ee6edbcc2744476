"""Built-in defaults, then `config.toml`, then ``WAGUARD_<SECTION>__<KEY>``: the configuration, and where each value came from.

`tomli` is imported here and nowhere else.
"""

import codecs
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli
from pydantic import ValidationError

from waguard.config.explain import close, explain
from waguard.config.sections import Config, Token
from waguard.config.shapes import AnyPath
from waguard.errors import ConfigError

ENV_PREFIX = "WAGUARD_"
ENV_FILE = "WAGUARD_CONFIG"
SEARCHED = (Path("config.toml"), Path("/etc/waguard/config.toml"))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where its values came from: dotted key -> ``config.toml:12`` or a variable's name."""

    config: Config
    path: Path | None
    origins: Mapping[str, str]


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read the file (given, ``WAGUARD_CONFIG``, or the first of `SEARCHED` that exists) and the environment.

    Raises `ConfigError`. A file that is named must exist, and one that may be there must be readable; without any file the
    defaults hold.
    """
    file_there = _bare(environ[ENV_FILE]) if ENV_FILE in environ else None
    if file_there == "":
        raise ConfigError(f"{ENV_FILE} is empty: name a file, or do not set it.")
    named = path or (Path(file_there) if file_there is not None else None)
    file = named or next(filter(_may_be_there, SEARCHED), None)
    data: dict[str, Any] = {}
    origins: dict[str, str] = {}
    lines: Mapping[str, int] = {}
    if file is not None:
        text = _read(file)
        try:
            data = tomli.loads(text)
        except (ValueError, RecursionError) as error:  # a number too long, tables nested too deep
            raise ConfigError(f"{file}: not valid TOML: {error}.") from None
        lines = _lines(text)
        origins = {key: f"{file}:{line}" for key, line in lines.items()}
    _overlay(data, origins, environ)
    try:
        loaded = Loaded(Config.model_validate(data), file, origins)
    except ValidationError as error:
        problems = [explain(problem, origins, file) for problem in error.errors(include_url=False)]
        raise ConfigError("\n".join(problems), hint="", problems=problems) from None
    for code, settings in loaded.config.clients.all().items():
        try:
            settings.check_zone()
        except ValueError as error:
            where = origins.get(f"clients.{code}.time_zone", str(file))
            raise ConfigError(f"{where}: clients.{code}.{error}.") from None
    return loaded


def _may_be_there(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (
        PermissionError
    ):  # to go on without what holds for others here would be another daemon's configuration
        return True
    except OSError:
        return False


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # Windows puts a byte order mark at its beginning
    except UnicodeDecodeError as error:
        wide = error.object[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
        raise ConfigError(
            f"{file}: not UTF-8 text{' but UTF-16: save it as UTF-8' if wide else ''}."
        ) from None
    except PermissionError:
        raise ConfigError(
            f"{file}: cannot be read: Permission denied.",
            hint="As root: sudo waguard ...; with a client's token: WAGUARD_TOKEN=... waguard ... --url URL; or name another "
            "with --config.",
        ) from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}.") from None


def _overlay(data: dict[str, Any], origins: dict[str, str], environ: Mapping[str, str]) -> None:
    """Lay ``WAGUARD_<SECTION>__<KEY>`` over the file's data."""
    sections: dict[str, Any] = {n: f.annotation for n, f in Config.model_fields.items()}
    for name, raw in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX) or _of_a_service(name, environ):
            continue
        section, divided, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
        if not divided:
            _refuse_near_miss(name, sections)
            continue
        if section not in sections:
            raise ConfigError(f"{name}: there is no section {section!r}.{close(section, sections)}")
        fields = sections[section].model_fields
        if key not in fields and not fields:
            raise ConfigError(f"{name}: [{section}] is set in the file alone.")
        if key not in fields:
            raise ConfigError(f"{name}: there is no key {key!r} in [{section}].{close(key, fields)}")
        table = data.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _value(raw, fields[key].annotation)
            origins[f"{section}.{key}"] = name


def _of_a_service(name: str, environ: Mapping[str, str]) -> bool:
    """Whether Kubernetes has set it, for a Service of the pod's namespace that happens to be called so.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    link = re.fullmatch(
        r"(?P<service>.+?)_(PORT(_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?|SERVICE_(HOST|PORT(_.+)?))", name
    )
    port = environ.get(f"{link['service']}_PORT", "") if link is not None else ""
    return re.match(r"(tcp|udp|sctp)://", port) is not None


def _bare(raw: str) -> str:
    """Without what files of variables leave: the carriage return of a line from Windows, quotes around the whole."""
    text = raw.removesuffix("\r")
    with suppress(ValueError, RecursionError):
        if text[:1] in {'"', "'"} and len(data := tomli.loads(f"value = {text}")) == 1:
            return str(data["value"])
    return text


def _refuse_near_miss(name: str, sections: Mapping[str, Any]) -> None:
    """``WAGUARD_API_PORT`` would be ignored in silence; other ``WAGUARD_...`` names are not the configuration's."""
    section, _, key = name.removeprefix(ENV_PREFIX).lower().strip("_").partition("_")
    if section in sections and key in sections[section].model_fields:
        right = f"{ENV_PREFIX}{section}__{key}".upper()
        raise ConfigError(f"{name}: section and key are divided by two underscores. Did you mean {right!r}?")


def _value(raw: str, annotation: Any) -> Any:
    """An environment variable's text as the TOML value it would be in the file; text stays text."""
    raw = _bare(raw)
    if (
        annotation is str
        or annotation in (Path | None, Path, AnyPath, AnyPath | None, Token | None)
        or "Literal" in str(annotation)
    ):
        return raw
    try:
        data = tomli.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        return raw
    return data["value"] if len(data) == 1 else raw


def _lines(text: str) -> dict[str, int]:
    """Dotted key -> line number, for the plain ``[section]`` / ``key = value`` form that our files have."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.split("\n"), 1):
        if header := re.match(r"\s*\[{1,2}\s*([A-Za-z0-9_.\"-]+)\s*\]", line):
            section = header[1].replace('"', "")
            found.setdefault(section, number)
        elif key := re.match(r"\s*([A-Za-z0-9_.\"-]+)\s*=", line):
            name = key[1].replace('"', "")
            found.setdefault(f"{section}.{name}" if section else name, number)
    return found
