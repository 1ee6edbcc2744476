"""What is said of a wrong value: where it is, which key, what was wrong, what would be right."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waguard.config.browser_flags import CREDENTIALS
from waguard.config.clients import ClientSettings, Proxy
from waguard.config.sections import Config

_RIGHT = {
    "bool_type": "true or false",
    "list_type": 'a list in brackets, like ["a", "b"]',
    "dict_type": 'a table in braces, like {a = "b"}',
}
"""What would be right, where pydantic says only what was wrong."""

_SECRET = re.compile("token|password")
_RENAMED = {"backup": "[snapshots]", "schedule.backup": "snapshot", "deadlines.backup": "snapshot"}
"""What a configuration of before may have, and what it is called now."""


def explain(problem: Any, origins: Mapping[str, str], file: Path | None) -> str:
    """One pydantic error as a sentence: where, which key, what was wrong, what would be right."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _known(location)
        kind = "key" if len(location) > 1 else "section"
        near = f" It is called {_RENAMED[key]} now." if key in _RENAMED else close(location[-1], known)
        message = f"there is no such {kind}.{near}"
        return f"{_where(location, message, origins, file)}: {key}: {message}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem["type"] == "model_type":
        message = f"must be a table: [{key}]"
    elif problem["type"] == "path_type":
        message = f"must be a path in quotes, not {problem['input']!r}"
    elif problem["type"] != "value_error":
        message = _RIGHT.get(problem["type"], message).removeprefix("String should ")
        message = f"must {message}" if message.startswith("match") else f"must be {message}"
        shown = CREDENTIALS.sub("...@", repr(problem["input"]))
        if not _SECRET.search(key) and not isinstance(problem["input"], list | dict):
            message += f", not {shown if len(shown) < 60 else shown[:57] + '...'}"
    return (
        ": ".join(
            part
            for part in (_where(location, message, origins, file), key, message.removesuffix("."))
            if part
        )
        + "."
    )


def _known(location: Sequence[str]) -> Mapping[str, Any]:
    """What may stand where this does."""
    match location:
        case ["clients", _, "proxy", *_]:
            return Proxy.model_fields
        case ["clients", _, *_]:
            return ClientSettings.model_fields
        case [section, _]:
            known: Any = Config.model_fields[section].annotation
            return dict(known.model_fields)
    return Config.model_fields


def _where(location: list[str], message: str, origins: Mapping[str, str], file: Path | None) -> str:
    """Where the value came from; of a combination of values, where those came from that the message names."""
    named = []
    for key, origin in origins.items():
        parts = key.split(".")
        name = ".".join(parts[len(location) :])
        if len(parts) > 1 and name and parts[: len(location)] == location:
            named += [origin] if re.search(rf"\b{re.escape(name)}\b", message) else []
    for end in range(len(location), 0, -1):
        at = ".".join(location[:end])
        if at in origins and (end > 1 or not named):
            return origins[at]
    return ", ".join(dict.fromkeys(named)) or (str(file) if file else "configuration")


def close(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Known are: {', '.join(sorted(known))}."
