"""Built-in defaults, `config.toml`, its `conf.d`, ``WAGUARD_<SECTION>__<KEY>``: the configuration, and where each value came from.

`tomli` is imported here and nowhere else.
"""

import codecs
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
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
NAME, FRAGMENTS = "config.toml", "conf.d"
_WHOLE = re.compile(r"clients\.[^.]+\.proxy")
"""Tables that are one value: one proxy's password is not for another."""
SEARCHED = (Path(NAME), Path("/etc/waguard") / NAME)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where its values came from: dotted key -> ``config.toml:12`` or a variable's name."""

    config: Config
    path: Path | None
    origins: Mapping[str, str]
    files: Sequence[Path] = ()
    """What was read, in this order: a later one wins."""


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read the file (given, ``WAGUARD_CONFIG``, or the first of `SEARCHED` that is there), its fragments and the environment.

    Raises `ConfigError`. A file that is named must exist, and one that may be there must be readable; without any file the
    defaults hold.
    """
    file_there = _bare(environ[ENV_FILE]) if ENV_FILE in environ else None
    if file_there == "":
        raise ConfigError(f"{ENV_FILE} is empty: name a file, or do not set it.")
    named = path or (Path(file_there) if file_there is not None else None)
    # Any program may have a conf.d where somebody happens to be; the one in /etc is ours.
    file = named or next(
        (one for one in SEARCHED if _may_be_there(one) or (one.is_absolute() and fragments(one))), None
    )
    data: dict[str, Any] = {}
    origins: dict[str, str] = {}
    files = []
    for one in _files(file, named=named is not None) if file is not None else ():
        files.append(one)
        text = _read(one)
        try:
            _lay(tomli.loads(text), data, origins, one, _lines(text))
        except (ValueError, RecursionError) as error:  # a number too long, tables nested too deep
            raise ConfigError(f"{one}: not valid TOML: {error}.") from None
    _overlay(data, origins, environ)
    try:
        loaded = Loaded(Config.model_validate(data), file, origins, tuple(files))
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


def _files(file: Path, *, named: bool) -> Iterator[Path]:
    """In the order of reading: where both are somebody else's, it is the first that is told."""
    if named or _may_be_there(file):
        yield file
    yield from fragments(file)


def fragments(file: Path) -> Sequence[Path]:
    """``conf.d/*.toml`` beside a ``config.toml``, by name; a file of another name, as one to try something with, stands alone.

    What is hidden, or ends otherwise, is an editor's or a package manager's. Raises `ConfigError` for what cannot be read.
    """
    there = [one for one in beside(file) if one.suffix == ".toml"]
    for one in there:
        try:
            if not (
                stat.S_ISREG(one.stat().st_mode) or one.samefile(os.devnull)
            ):  # a pipe would keep us waiting
                raise ConfigError(f"{one}: not a file.", hint="Give it another ending, or put it elsewhere.")
        except OSError as error:
            raise _unreadable(one, error) from None
    return there


def beside(file: Path) -> Sequence[Path]:
    """All in the directory of a configuration's fragments that is not hidden, by name. Raises `ConfigError`."""
    if file.name != NAME:
        return ()
    directory = file.with_name(FRAGMENTS)
    try:
        return sorted(one for one in directory.iterdir() if not one.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise _unreadable(directory, error) from None


def _lay(
    over: Mapping[str, Any],
    data: dict[str, Any],
    origins: dict[str, str],
    file: Path,
    lines: Mapping[str, int],
    above: tuple[str, str] = ("", ""),
) -> None:
    """Lay what a file has over what those before it have: tables key by key, all else, lists and proxies too, in the place of what was there.

    ``above``: the table's name with a dot, and where it is.
    """
    for key, value in over.items():
        name = above[0] + key
        where = f"{file}:{lines[name]}" if name in lines else above[1] or str(file)
        there = data.get(key)
        if not (isinstance(value, dict) and isinstance(there, dict)) or _WHOLE.fullmatch(name):
            _forget(name, origins)
            data[key] = value if not isinstance(value, dict) else {}
        origins[name] = where
        if isinstance(value, dict):
            _lay(value, data[key], origins, file, lines, (f"{name}.", where))


def _forget(name: str, origins: dict[str, str]) -> None:
    """What was in a table that something else takes the place of."""
    for gone in [one for one in origins if one.startswith(f"{name}.")]:
        del origins[gone]


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
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: OSError) -> ConfigError:
    hint = "As root: sudo waguard ...; with a client's token: WAGUARD_TOKEN=... waguard ... --url URL; or name another with --config."
    said = {"hint": hint} if isinstance(error, PermissionError) else {}
    return ConfigError(f"{file}: cannot be read: {error.strerror}.", **said)


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
            _forget(f"{section}.{key}", origins)
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
