"""What editors are told of config.toml: the schema takes what the loader takes, and has a word for each key."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from checkout import ROOT, text
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from typer.testing import CliRunner
from uncommented import uncommented
from wrong_configs import WRONG

from waguard.cli.app import app
from waguard.config.clients import ClientSettings
from waguard.config.load import load
from waguard.config.schema import Comment, comments, schema
from waguard.config.sections import Config
from waguard.errors import ConfigError

SCHEMA = schema(text("config.toml"))
BEYOND_IT = {
    "not nan": "no limit is beyond it",
    "base_s = 100 must not": "two keys together",
    "base_s = 1 must not": "likewise",
    "limits.concurrent_starts must not": "likewise",
    "cgroup.memory_max_mb = 4096 must not": "likewise",
    "soft_memory_mb must not": "likewise",
    "must all differ": "likewise",
    "without credentials": "what a URL is made of",
    "https://[::1/": "likewise",
    "admin_token must have no spaces": "what a token is made of",
}
"""What the loader refuses and a schema cannot say, and why."""


@pytest.fixture(autouse=True)
def nothing_leaks() -> None:
    """Nothing is started here."""


def taken(data: object) -> bool:
    try:
        Draft202012Validator(SCHEMA).validate(data)
    except jsonschema.ValidationError:
        return False
    return True


def keys() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for section, one in SCHEMA["properties"].items():
        name = one["$ref"].rpartition("/")[2].replace("Clients", "ClientSettings")
        shape = SCHEMA["$defs"][name]
        yield from ((section, key, value) for key, value in shape["properties"].items())


def test_it_is_a_schema_of_all_that_can_be_set_and_refuses_the_rest() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert [(section, key) for section, key, _ in keys()] == [
        (section, key)
        for section, table in Config()
        for key in (ClientSettings if section == "clients" else type(table)).model_fields
    ]
    assert all(shape["additionalProperties"] is False for shape in (SCHEMA, *SCHEMA["$defs"].values()))
    assert [shape["title"] for shape in SCHEMA["$defs"].values()].count("[api]") == 1


def test_each_key_has_its_words_its_unit_and_its_default() -> None:
    said = {(one.section, one.key): one for one in comments(text("config.toml"))}
    for section, key, value in keys():
        assert value["description"].startswith(said[section, key].lines[0]), f"{section}.{key}"
        if "default" in value:
            default = getattr(type(getattr(Config(), section)), "model_fields")[key].default  # noqa: B009
            assert json.dumps(value["default"]) == json.dumps(default, default=str)
        else:
            assert "Default: " in value["description"], f"{section}.{key}"
    assert all(
        shape["description"] for shape in (SCHEMA, SCHEMA["$defs"]["Restart"], SCHEMA["$defs"]["Probes"])
    )


def test_no_machine_makes_another_one() -> None:
    """Two processors or sixty-four: it is checked in, and packages are the same byte for byte."""
    assert "default" not in SCHEMA["$defs"]["Limits"]["properties"]["concurrent_starts"]


def test_config_toml_fits_as_it_is_and_with_every_key() -> None:
    assert taken(tomllib.loads(text("config.toml")))
    assert taken(tomllib.loads(uncommented()))


@pytest.mark.parametrize(("data", "_line", "_key", "right"), WRONG, ids=[one for one, *_ in WRONG])
def test_what_the_loader_refuses_it_refuses_where_it_can(
    data: str, _line: int, _key: str, right: str
) -> None:
    expected = any(one in right or one in data for one in BEYOND_IT)
    assert taken(tomllib.loads(data)) is expected


@pytest.mark.parametrize(
    "data",
    [
        *(
            f'[api]\nhost = "{one}"\n'
            for one in ("localhost", "127.1.2.3", "::1", "0:0:0:0:0:0:0:1", "::0.0.0.1", "::1%lo")
        ),
        '[whatsapp]\nurl = "HTTPS://x/"\n',
        '[whatsapp]\nurl = "http://127.0.0.1:1"\n',
        '[api]\nallowed_hosts = ["waguard.example", "[fe80::1]"]\nallowed_origins = ["https://a.example:8443"]\n',
        '[api]\nclients = ["a", "B-2_c"]\nclient_tokens = {a = "0123456789abcdef"}\n',
        '[api]\nsocket_uids = [0, "crm"]\nsocket_scopes = []\n',
        '[browser]\nextra_flags = ["--mute-audio", "--proxy-server=http://127.0.0.1:3128", "--lang="]\n',
        "[deadlines]\nopen = 45\n",
        "[sessions]\nretired_keep_hours = 0\n",
        "",
    ],
)
def test_what_the_loader_takes_it_takes(data: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(data)
    load(tmp_path / "config.toml", {})
    assert taken(tomllib.loads(data))


_texts = st.text(max_size=12) | st.sampled_from(
    [
        "::1",
        "127.0.0.1",
        "demo",
        "6h",
        "never",
        "https://x",
        "--x",
        "plain",
        "journal",
        "0123456789abcdef",
        "es-MX",
    ]
)
_scalars = st.booleans() | st.integers(-2, 90_000) | st.floats() | _texts
_values = _scalars | st.lists(_scalars, max_size=3) | st.dictionaries(_texts, _texts, max_size=2)


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from([(section, key) for section, key, _ in keys()]), value=_values)
def test_whatever_the_loader_takes_it_takes(place: tuple[str, str], value: object) -> None:
    data = {place[0]: {place[1]: value}}
    try:
        Config.model_validate(data)
    except ValueError:
        return
    assert taken(data)


def test_a_comment_ends_with_its_key_or_at_a_blank_line() -> None:
    assert list(
        comments("#:schema x\n# All.\n\n[a]\n# Of a.\n\n# Of b,\n# and more.\n# b = 1   # default: none\n")
    ) == [
        Comment("", "", ("All.",)),
        Comment("a", "", ("Of a.",)),
        Comment("a", "b", ("Of b,", "and more."), "1", "default: none"),
    ]


def test_the_command_prints_it_and_config_toml_names_where_it_is() -> None:
    done = CliRunner().invoke(app, ["config", "schema"])
    assert (done.exit_code, done.stderr) == (0, "")
    named = text("config.toml").splitlines()[0].removeprefix("#:schema ")
    assert json.loads(done.stdout) == json.loads((ROOT / named).read_text()) == SCHEMA


def test_it_needs_no_configuration(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "missing.toml"), "config", "schema"])
    assert done.exit_code == 0
    with pytest.raises(ConfigError):
        load(tmp_path / "missing.toml", {})
