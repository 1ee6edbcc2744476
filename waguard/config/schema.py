"""The configuration as a JSON Schema: shapes and limits from the models, words from the comments of `config.toml`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from waguard.config.sections import Config
from waguard.config.shapes import CODE

_KEY = re.compile(r"# ?(?P<key>[a-z_]+) = (?P<default>.*?)(?:\s{2,}# (?P<note>.+))?")
_HARMLESS = r"^[^\x00-\x1f\x7f]*$"
"""What every text has to be: without control characters."""


@dataclass(frozen=True, slots=True)
class Comment:
    """What `config.toml` says of one thing."""

    section: str
    """Empty: the configuration as a whole."""
    key: str
    """Empty: the section, or what follows in it."""
    lines: tuple[str, ...]
    default: str = ""
    """Of a key, as TOML has it; an example where there is a note that says the default."""
    note: str = ""


def comments(text: str) -> Iterator[Comment]:
    """In the order of the file; what stands between two blank lines is one, with the key that it ends with, if any."""
    section, said = "", list[str]()
    for line in [*text.splitlines(), ""]:
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        elif key := _KEY.fullmatch(line):
            yield Comment(section, key["key"], tuple(said), key["default"], key["note"] or "")
            said = []
        elif line.startswith("#") and not line.startswith(("#:", "# [")):  # a word to editors, a table
            said.append(line.removeprefix("#").strip())
        elif said:
            yield Comment(section, "", tuple(said))
            said = []


def schema(text: str) -> dict[str, Any]:
    """Draft 2020-12, as `Config` has it; ``text`` is that of `config.toml`."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    shapes = {name: one["$ref"] for name, one in made["properties"].items()}
    clients = made["$defs"].pop("Clients")
    made["$defs"]["Clients"] = {
        **{key: clients[key] for key in ("description", "type")},
        "title": "Clients",
        "patternProperties": {f"^{CODE}$": clients["additionalProperties"]},
        "additionalProperties": False,
    }
    made["$defs"]["Proxy"]["properties"] = {
        key: _as_toml_has_it(one) for key, one in made["$defs"]["Proxy"]["properties"].items()
    }
    shapes["clients"] = clients["additionalProperties"]["$ref"]  # its keys are those of each client's table
    sections = {name: made["$defs"][shape.rpartition("/")[2]] for name, shape in shapes.items()}
    whole = shapes | {"clients": "#/$defs/Clients"}
    made |= {"title": "waguard", "properties": {name: {"$ref": shape} for name, shape in whole.items()}}
    said = list(comments(text))
    for name, section in {"": made, **sections}.items():
        words = [line for one in said if (one.section, one.key) == (name, "") for line in one.lines]
        if words:  # else its own say it
            section["description"] = " ".join(filter(None, words))
    for name, section in sections.items():
        section["title"] = f"[{name}]"
        of_keys = {one.key: one for one in said if one.section == name}
        keys = {key: _as_toml_has_it(one) for key, one in section["properties"].items()}
        section["properties"] = {key: _described(one, of_keys[key]) for key, one in keys.items()}
    return made


def _as_toml_has_it(value: Mapping[str, Any]) -> dict[str, Any]:
    """Without null, which TOML has not, and without the titles that pydantic makes of names."""
    made = {key: one for key, one in value.items() if key not in {"title", "anyOf"} and one is not None}
    some = [_as_toml_has_it(one) for one in value.get("anyOf", ()) if one != {"type": "null"}]
    made |= {"anyOf": some} if len(some) > 1 else some[0] if some else {}
    if "items" in made:
        made["items"] = _as_toml_has_it(made["items"])
    if names := made.get("patternProperties"):
        made["patternProperties"] = {name: _as_toml_has_it(one) for name, one in names.items()}
        made["additionalProperties"] = False
    if made.get("type") == "string" and not {"enum", "pattern"} & made.keys():
        made["pattern"] = _HARMLESS
    return made


def _described(value: Mapping[str, Any], comment: Comment) -> dict[str, Any]:
    words = " ".join(comment.lines)
    if not comment.note:
        return {**value, "description": words}
    noted = {**value, "description": f"{words} {comment.note[0].upper()}{comment.note[1:]}."}
    if comment.note.startswith("default"):  # this machine decides, or there is none
        noted.pop("default", None)
    return noted
