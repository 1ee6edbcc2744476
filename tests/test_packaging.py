"""What stands beside the code keeps pace with it: config.toml, README, Makefile, requirements.lock, .ci/run."""

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT, text
from pydantic import BaseModel
from uncommented import COMMENTED, uncommented

from waguard.api.routes import ROUTES
from waguard.browser.find import KNOWN
from waguard.cli import layout
from waguard.config.clients import ClientSettings
from waguard.config.load import load
from waguard.config.sections import Config

NOT_LITERAL = {
    "browser.path",
    "browser.ca_file",
    "whatsapp.probe",
    "api.socket",
    "jwt.key_file",
    "jwt.issuer",
    "jwt.audience",
    "api.admin_token",
    "limits.concurrent_starts",
    "profile.runtime_dir",
    "snapshots.key_file",
}
"""Their defaults cannot be written down: there is none, or this machine decides. An example stands there."""


def flat(tables: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()}


def targets() -> dict[str, str]:
    """The Makefile's targets and what each needs."""
    found = re.finditer(r"^(?P<name>[a-z-]+):(?P<needs>[^#\n]*)## \S", text("Makefile"), re.MULTILINE)
    return {rule["name"]: rule["needs"].strip() for rule in found}


def test_config_toml_as_it_is_changes_nothing() -> None:
    assert load(ROOT / "config.toml", environ={}).config == Config()


def test_config_toml_documents_every_key_with_its_default() -> None:
    documented = flat(tomllib.loads(uncommented()))
    defaults = flat(Config().model_dump(mode="json"))
    client = documented.pop("clients.demo")
    assert list(client) == list(ClientSettings.model_fields)
    assert list(documented) == list(defaults), "the same keys in the same order"
    literal = documented.keys() - NOT_LITERAL
    assert {key: documented[key] for key in literal} == {key: defaults[key] for key in literal}


def test_every_value_of_config_toml_is_one_that_loads(tmp_path: Path) -> None:
    # Some only make sense with another value than the default of a key beside them.
    together = uncommented().replace('at_rest = "plain"', 'at_rest = "sealed"')
    (tmp_path / "config.toml").write_text(together, encoding="utf-8")
    load(tmp_path / "config.toml", environ={})


def test_every_key_of_config_toml_has_a_word_of_explanation() -> None:
    lines = text("config.toml").splitlines()
    for number, line in enumerate(lines):
        if COMMENTED.fullmatch(line) and " = " in line:
            before = lines[number - 1]
            explained = before.startswith("# ") and not COMMENTED.fullmatch(before)
            assert explained, f"config.toml:{number + 1} is not explained: {line}"


def test_make_targets_that_the_readme_gives_exist_and_explain_themselves() -> None:
    given = set(re.findall(r"(?:^|`|=\S+ )make ([a-z]+(?:-[a-z]+)*)\b", text("README.md"), re.MULTILINE))
    assert {"demo", "test", "run", "check", "help"} <= given & targets().keys()
    assert given <= targets().keys()


def test_the_documentation_names_every_route() -> None:
    page = text("docs/how-to/app.md")
    for route in ROUTES:
        named = re.search(rf"{re.escape(route.path)}[`\s]", page)
        assert named, f"docs/how-to/app.md has no word of {route.method} {route.path}"


def test_the_readme_is_one_screen() -> None:
    assert len(text("README.md").splitlines()) <= 80


def test_make_alone_explains_every_target() -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    said = subprocess.run(["make"], cwd=ROOT, env=environ, check=True, capture_output=True, text=True)
    assert [line.split()[1] for line in said.stdout.splitlines()] == list(targets())


def test_the_tests_of_the_tables_are_there() -> None:
    (named,) = re.findall(r"^CORE_TESTS := \$\(addprefix (\S+),(.+)\)$", text("Makefile"), re.MULTILINE)
    assert all((ROOT / f"{named[0]}{name}").is_file() for name in named[1].split())


@pytest.mark.parametrize("target", ["demo", "test", "run", "check"])
def test_targets_install_what_they_need(target: str) -> None:
    needs = targets()[target]
    assert needs == "setup" or targets()[needs] == "setup"


def test_ci_runs_what_the_readme_gives_and_nothing_else() -> None:
    commands = [line for line in text(".ci/run").splitlines() if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
    assert "make test" in text("README.md")
    assert "- run: .ci/run\n" in text(".github/workflows/ci.yml")


def test_the_bootstrap_looks_for_browsers_where_the_daemon_does() -> None:
    body = re.search(
        r"^has_browser\(\) \{\n(?P<body>.*?)^\}", text("scripts/bootstrap.sh"), re.DOTALL | re.MULTILINE
    )
    assert body is not None
    assert re.findall(r"^ +(/\S+?);?(?: \\|$| do)", body["body"], re.MULTILINE) == [
        str(path) for path in KNOWN
    ]


@pytest.mark.parametrize(
    "script",
    [
        "scripts/bootstrap.sh",
        "scripts/lock.sh",
        "scripts/reference.py",
        "scripts/manual.py",
        ".ci/run",
        "examples/demo.py",
        "deb/build.py",
        "deb/waguard",
    ],
)
def test_scripts_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_the_lock_pins_what_pyproject_asks_for() -> None:
    lines = [line for line in text("requirements.lock").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines), "exact versions only"
    locked = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads(text("pyproject.toml"))
    asked = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    asked += [one for group in project["project"]["optional-dependencies"].values() for one in group]
    assert {re.split(r"[\[<>=!~ ]", name)[0].lower() for name in asked} <= locked


def test_the_package_brings_what_install_installs(tmp_path: Path) -> None:
    built = tmp_path / "built"
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build",
        "--build-base",
        str(tmp_path / "base"),
        "--build-lib",
        str(built),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    shipped = {path.name for path in (built / "waguard" / "shipped").iterdir()}
    assert shipped == {*layout.FILES, "config.toml", layout.SCHEMA.name}
    # What it replaces.
    assert '# dir = "sessions"' in text("config.toml")
    assert text("config.toml").startswith(f"#:schema ./docs/reference/{layout.SCHEMA.name}\n")


def test_the_debian_package_brings_every_unit_and_the_readme_s_files() -> None:
    build = runpy.run_path(str(ROOT / "deb" / "build.py"))
    assert {*build["PLACES"]} == {*layout.FILES}
    for name, place in build["PLACES"].items():
        assert Path(place).name == layout.FILES[name].name
    assert all((ROOT / name).is_file() for name in (*build["DOCS"], build["SCHEMA"]))
    assert Path(build["SCHEMA"]).name == layout.SCHEMA.name
    fields = dict.fromkeys(("version", "architecture", "python", "next_python", "libc", "size"), "1")
    assert "Depends: python3 (>= 1)" in text("deb/control").format(**fields)


@pytest.mark.parametrize("script", ["preinst", "postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_shell(script: str) -> None:
    subprocess.run(["sh", "-n", ROOT / "deb" / script], check=True)
    assert text(f"deb/{script}").startswith("#!/bin/sh\n")


def test_scanners_are_told_what_concerns_this_version_with_what_it_is_locked_to() -> None:
    vex = json.loads(text(".vex/waguard.openvex.json"))
    assert vex["@context"] == "https://openvex.dev/ns/v0.2.0"
    assert {"@id", "author", "timestamp", "version"} <= vex.keys()
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    locked = {f"pkg:pypi/{line.replace('==', '@')}" for line in text("requirements.lock").splitlines()}
    for statement in vex["statements"]:
        assert re.fullmatch(r"CVE-\d{4}-\d{4,}", statement["vulnerability"]["name"])
        assert statement["status"] == "not_affected"
        assert statement["justification"] == "vulnerable_code_not_in_execute_path"
        assert "tests/test_imports.py" in statement["impact_statement"]
        assert {product["@id"] for product in statement["products"]} == {
            f"pkg:pypi/waguard@{version}",
            f"pkg:deb/waguard@{version}",
        }
        named = {part["@id"] for product in statement["products"] for part in product["subcomponents"]}
        assert named <= locked, "another version is locked by now: is it concerned?"
    assert len({one["vulnerability"]["name"] for one in vex["statements"]}) == len(vex["statements"]) > 5
    assert "recursive-include .vex *.json" in text("MANIFEST.in")
    assert runpy.run_path(str(ROOT / "deb" / "build.py"))["VEX"] == ".vex/waguard.openvex.json"


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert re.search(rf"^## \[(Unreleased|{re.escape(version)})\]", text("CHANGELOG.md"), re.MULTILINE)


def test_every_section_of_the_config_is_a_model() -> None:
    """What `flat` and config.toml take for granted: sections hold keys, not further sections."""
    for field in Config.model_fields.values():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
