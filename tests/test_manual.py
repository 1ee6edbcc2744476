"""Man pages and completions: made of the commands and of config.toml, and read by the programs that they are for."""

import gzip
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from checkout import ROOT
from commands import call

from waguard.cli.app import app
from waguard.cli.completion import Form, table
from waguard.cli.exits import ExitCode
from waguard.config.clients import ClientSettings
from waguard.config.sections import Config

COMMANDS = [*table(typer.main.get_command(app))]
CODES = 'printf "demo\\ndemo2\\n"'
"""What stands for the program where it is asked for codes."""


@pytest.fixture(autouse=True)
def nothing_leaks() -> None:
    """Nothing is started here but shells."""


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a package has it below /usr."""
    place = tmp_path_factory.mktemp("share")
    made(place)
    return place


def made(place: Path) -> None:
    environ = {**os.environ, "SOURCE_DATE_EPOCH": "1800000000"}
    command = [sys.executable, str(ROOT / "scripts" / "manual.py"), str(place)]
    subprocess.run(command, env=environ, check=True, timeout=60)


def page(share: Path, name: str) -> str:
    return gzip.decompress((share / "man" / f"man{name[-1]}" / f"{name}.gz").read_bytes()).decode()


def plain(text: str) -> str:
    """Without what is roff's."""
    return re.sub(r"\\f[BIR]|\\&", "", text).replace("\\-", "-").replace("\\e", "\\")


def test_it_is_the_same_each_time(share: Path, tmp_path: Path) -> None:
    made(tmp_path)
    files = [path.relative_to(share) for path in share.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert [(share / one).read_bytes() for one in files] == [(tmp_path / one).read_bytes() for one in files]


def test_the_manual_has_every_command_option_and_exit_code(share: Path) -> None:
    said = plain(page(share, "waguard.1"))
    for one in COMMANDS:
        if one.words and not one.commands:
            (below,) = re.findall(rf"(?ms)^\.SS {re.escape(one.words)}(?: [^\n]*)?\n(.*?)(?=^\.S)", said)
            assert one.says.replace("`", "") in below
            missing = [option.names for option in one.options[:-1] if ", ".join(option.names) not in below]
            assert not missing, one.words
    assert all(f".TP\n{code:d}\n{code.says.replace('`', '')}\n" in said for code in ExitCode)


def test_the_manual_of_the_configuration_has_every_key(share: Path) -> None:
    said = plain(page(share, "waguard-config.5"))
    for section, field in Config.model_fields.items():
        (below,) = re.findall(rf"(?ms)^\.SH \[{section}\]\n(.*?)(?=^\.SH)", said)
        model = ClientSettings if section == "clients" else field.annotation  # those have any name
        keys = getattr(model, "model_fields")  # noqa: B009 (each is a model)
        assert re.findall(r"(?m)^\.TP\n(\w+)$", below) == [*keys]


@pytest.mark.parametrize("name", ["waguard.1", "waguard-config.5"])
def test_roff_takes_it_for_what_it_is(share: Path, tmp_path: Path, name: str) -> None:
    orders = {".TH", ".SH", ".SS", ".TP", ".PP", ".br"}
    assert {line.split()[0] for line in page(share, name).splitlines() if line[:1] in {".", "'"}} <= orders
    if shutil.which("man") is None:
        pytest.skip("no man here")
    (tmp_path / name).write_text(page(share, name))
    done = subprocess.run(
        ["man", "--warnings", "-l", str(tmp_path / name)],
        env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80


# --- completion -----------------------------------------------------------------------------------------

TYPED: Mapping[str, set[str]] = {
    "waguard st": {"status", "stats"},
    "waguard --config x audit ": {"show", "verify", "export"},
    "waguard connect demo --wait ": {"none", "qr", "connected"},
    "waguard status de": {"demo", "demo2"},
    "waguard token create --all": {"--all-clients"},
    "waguard completion b": {"bash"},
}


def typed(line: str) -> list[str]:
    return [*line.split(), *([""] if line.endswith(" ") else [])]


def in_shell(shell: str, *lines: str) -> list[str]:
    """What a script says."""
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"no {shell} here")
    command = [
        program,
        *({"fish": ["--no-config"], "zsh": ["-f"]}.get(shell, ["--norc"])),
        "-c",
        "\n".join(lines),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.split()


@pytest.mark.parametrize("line", TYPED)
def test_bash_completes(share: Path, line: str) -> None:
    words = " ".join(f"'{word}'" for word in typed(line))
    found = in_shell(
        "bash",
        f"waguard() {{ {CODES}; }}",
        f"source {share}/bash-completion/completions/waguard",
        f"COMP_WORDS=({words}); COMP_CWORD={len(typed(line)) - 1}",
        '_waguard waguard; echo "${COMPREPLY[@]}"',
    )
    assert {one for one in found if not one.startswith("-") or line.endswith("--all")} == TYPED[line]


def test_bash_carries_out_nothing_that_it_is_told(share: Path, tmp_path: Path) -> None:
    found = in_shell(
        "bash",
        f"""waguard() {{ echo demo '$(touch$IFS{tmp_path}/done)' '`touch$IFS{tmp_path}/done`' '*'; }}""",
        f"source {share}/bash-completion/completions/waguard",
        f"cd {ROOT}; COMP_WORDS=(waguard status ''); COMP_CWORD=2",
        '_waguard waguard; printf "%s\\n" "${COMPREPLY[@]}"',
    )
    assert {"demo", "*"} <= {*found}
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("line", TYPED)
def test_fish_completes(share: Path, line: str) -> None:
    found = in_shell(
        "fish",
        f"function waguard; {CODES}; end",
        f"source {share}/fish/vendor_completions.d/waguard.fish",
        f"complete -C '{line}' | string replace -r '\\t.*' ''",
    )
    assert set(found) == TYPED[line]


@pytest.mark.parametrize("line", TYPED)
def test_zsh_completes(share: Path, line: str) -> None:
    words = " ".join(f"'{word}'" for word in typed(line))
    found = in_shell(
        "zsh",
        f"waguard() {{ {CODES}; }}",
        "compdef() {}",
        "compadd() { shift; print -r -- $*; }",  # it is the editor's, and chooses by what was typed
        f"source {share}/zsh/vendor-completions/_waguard",
        f"words=({words}); CURRENT=$#words; _waguard",
    )
    assert {one for one in found if one.startswith(typed(line)[-1])} >= TYPED[line]


def test_where_a_value_is_wanted_that_nobody_knows_nothing_is_offered(share: Path) -> None:
    script = (share / "bash-completion/completions/waguard").read_text()
    for one in COMMANDS:
        for option in one.options:
            for name in option.names if option.value else ():
                assert f"'{one.words}:{name}'" in script


def test_codes_are_those_of_the_registry_and_nobody_hears_why_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WAGUARD_CONFIG", raising=False)
    for code in ("demo2", "demo", ".retired/x", "$(touch x)", "a b", "-x"):
        (tmp_path / "sessions" / code).mkdir(parents=True)
        (tmp_path / "sessions" / code / "session.json").touch()
    (tmp_path / "sessions" / "empty").mkdir()
    done = call("completion", "codes")
    assert (done.exit_code, done.stdout.split(), done.stderr) == (0, ["demo", "demo2"], "")
    (tmp_path / "config.toml").write_text("nonsense = 1")
    done = call("completion", "codes")
    assert (done.exit_code, done.output) == (0, "")


def test_the_command_prints_what_the_package_brings(share: Path) -> None:
    names = {"bash": "bash-completion/completions/waguard", "zsh": "zsh/vendor-completions/_waguard"}
    names["fish"] = "fish/vendor_completions.d/waguard.fish"
    assert {*names, "codes"} == {*Form}
    for shell, name in names.items():
        assert call("completion", shell).stdout == (share / name).read_text()


def test_the_debian_package_makes_them() -> None:
    build = (ROOT / "deb" / "build.py").read_text()
    assert '"scripts/manual.py"' in build
    assert {*runpy.run_path(str(ROOT / "scripts" / "manual.py"))["FILES"]} == {
        "man/man1/waguard.1.gz",
        "man/man5/waguard-config.5.gz",
        "bash-completion/completions/waguard",
        "zsh/vendor-completions/_waguard",
        "fish/vendor_completions.d/waguard.fish",
    }
