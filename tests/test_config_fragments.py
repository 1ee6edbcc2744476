"""What lies in `conf.d` beside a config.toml is laid over it, file by file, and each mistake is told with its file and line."""

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from checkout import text
from commands import call
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from uncommented import uncommented
from wrong_configs import WRONG

from waguard.cli.checks import Grade, storage
from waguard.cli.service import Service
from waguard.config import load as loading
from waguard.config.load import Loaded, load
from waguard.config.schema import schema
from waguard.errors import ConfigError

TOKEN = "0123456789abcdef"
Lay = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def nothing_leaks() -> None:
    """Nothing is started here."""


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lay:
    """Write a file beside config.toml, which is empty at first."""
    for name in [name for name in os.environ if name.startswith("WAGUARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").touch()
    (tmp_path / "conf.d").mkdir()

    def laying(name: str, said: str) -> Path:
        (tmp_path / name).write_text(said)
        return tmp_path / name

    return laying


def loaded(place: Path) -> Loaded:
    return load(place / "config.toml", {})


def refusal(place: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(place)
    return caught.value.message


# --- which count --------------------------------------------------------------------------------------


def test_tables_are_put_together_and_of_a_key_the_last_one_counts(lay: Lay, tmp_path: Path) -> None:
    lay("config.toml", f'[api]\nport = 1\nclients = ["a"]\nclient_tokens = {{ a = "{TOKEN}-a" }}\n')
    lay("conf.d/20-b.toml", f'[api]\nclients = ["b"]\n[api.client_tokens]\nb = "{TOKEN}-b"\n')
    lay("conf.d/10-a.toml", '[api]\nport = 2\nclients = ["x"]\n[log]\nlevel = "debug"\n')
    found = loaded(tmp_path)
    api = found.config.api
    assert (api.port, api.clients, found.config.log.level) == (2, ["b"], "debug")
    assert sorted(api.client_tokens) == ["a", "b"]
    assert [one.name for one in found.files] == ["config.toml", "10-a.toml", "20-b.toml"]
    assert found.origins["api.port"] == f"{tmp_path}/conf.d/10-a.toml:2"
    assert found.origins["api.clients"] == f"{tmp_path}/conf.d/20-b.toml:2"
    assert found.origins["api.client_tokens.a"] == f"{tmp_path}/config.toml:4"
    environ = {"WAGUARD_API__PORT": "3", "WAGUARD_API__CLIENT_TOKENS": f'{{ c = "{TOKEN}-c" }}'}
    over = load(tmp_path / "config.toml", environ)
    assert (over.config.api.port, [*over.config.api.client_tokens]) == (3, ["c"])
    assert [one for one in over.origins if one.startswith("api.client_tokens")] == ["api.client_tokens"]


def test_a_proxy_is_one_value(lay: Lay, tmp_path: Path) -> None:
    lay("conf.d/10.toml", '[clients.demo.proxy]\nurl = "http://a.example:1"\nuser = "u"\npassword = "p"\n')
    lay("conf.d/20.toml", '[clients.demo.proxy]\nurl = "http://b.example:1"\n')
    found = loaded(tmp_path)
    proxy = found.config.clients.all()["demo"].proxy
    assert proxy is not None
    assert (proxy.url, proxy.user, proxy.password) == ("http://b.example:1", "", None)
    assert "clients.demo.proxy.password" not in found.origins


def test_what_is_no_fragment_is_not_read_and_is_named_if_it_is_not_hidden(lay: Lay, tmp_path: Path) -> None:
    for name in ("a.toml~", "a.toml.dpkg-new", "README", ".a.toml", ".a.toml.swp"):
        lay(f"conf.d/{name}", "nonsense = 1\n")
    (tmp_path / "conf.d" / "..data").mkdir()  # as Kubernetes mounts a ConfigMap
    lay("conf.d/..data/10.toml", "[api]\nport = 5\n")
    (tmp_path / "conf.d" / "10.toml").symlink_to("..data/10.toml")
    assert loaded(tmp_path).config.api.port == 5
    assert call("config", "check").stdout.splitlines() == [
        f"ok: {tmp_path}/config.toml",
        f"    {tmp_path}/conf.d/10.toml",
        *(
            f"{tmp_path}/conf.d/{name} is not read: its name does not end in .toml"
            for name in ("README", "a.toml.dpkg-new", "a.toml~")
        ),
    ]
    (tmp_path / "conf.d" / "10.toml").unlink()
    (tmp_path / "conf.d" / "10.toml").symlink_to(os.devnull)
    assert loaded(tmp_path).config.api.port == 8717


def test_a_configuration_of_another_name_stands_alone(lay: Lay, tmp_path: Path) -> None:
    lay("conf.d/10.toml", "[api]\nport = 2\n")
    alone = lay("try.toml", "")
    assert load(alone, {}).config.api.port == 8717
    assert load(None, {"WAGUARD_CONFIG": str(tmp_path / "config.toml")}).config.api.port == 2


def test_fragments_may_be_all_there_is(lay: Lay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SEARCHED", (tmp_path / "none" / "config.toml", tmp_path / "config.toml"))
    (tmp_path / "config.toml").unlink()
    assert load(None, {}).path is None
    one = lay("conf.d/10.toml", "[api]\nport = 2\n")
    found = load(None, {})
    assert (found.config.api.port, found.files) == (2, (one,))
    assert "config.toml: cannot be read: No such file" in refusal(tmp_path), (
        "one that is named has to be there"
    )


def test_a_conf_d_of_another_program_is_not_read(lay: Lay, tmp_path: Path) -> None:
    lay("conf.d/10.toml", "[server]\nport = 2\n")
    assert "server" in refusal(tmp_path)
    (tmp_path / "config.toml").unlink()
    assert tmp_path / "conf.d" / "10.toml" not in [one.absolute() for one in load(None, {}).files]


def test_each_value_says_which_file_it_is_of(lay: Lay) -> None:
    lay("config.toml", f'[api]\nport = 1\nadmin_token = "{TOKEN}"\nclient_tokens = {{ a = "{TOKEN}-a" }}\n')
    lay("conf.d/10.toml", f'[api]\nport = 2\n[api.client_tokens]\nb = "{TOKEN}-b"\n')
    shown = json.loads(call("config", "show", "--json").stdout)
    assert (shown["file"], shown["files"]) == ("config.toml", ["config.toml", "conf.d/10.toml"])
    assert shown["settings"]["api.port"] == {"value": 2, "origin": "conf.d/10.toml:2"}
    assert shown["settings"]["api.client_tokens"]["origin"] == "config.toml:4, conf.d/10.toml:4"
    said = call("config", "show").stdout
    assert said.splitlines()[1].endswith("/conf.d/10.toml")
    assert TOKEN not in said


# --- what is wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "line", "key", "right"), WRONG, ids=[one for one, *_ in WRONG])
def test_a_mistake_is_told_with_the_fragment_and_its_line(
    lay: Lay, tmp_path: Path, wrong: str, line: int, key: str, right: str
) -> None:
    lay("config.toml", '[log]\nformat = "json"\n\n[restart]\nbudget = 5\n')
    lay("conf.d/90.toml", "[profile]\ncache_limit_mb = 1\n")
    fragment = lay("conf.d/10.toml", wrong)
    said = refusal(tmp_path)
    assert said.startswith(f"{fragment}:{line}")
    assert (f": {key}: " if key else ": ") in said
    assert right in said


def test_values_of_two_files_that_do_not_go_together_are_told_with_both(lay: Lay, tmp_path: Path) -> None:
    lay("config.toml", "[restart]\nmax_s = 60\n")
    lay("conf.d/10.toml", "[restart]\n\nbase_s = 100\n")
    said = refusal(tmp_path)
    assert said.startswith(f"{tmp_path}/config.toml:2, {tmp_path}/conf.d/10.toml:3: restart: ")


def test_what_cannot_be_read_is_refused_and_keeps_nobody_waiting(lay: Lay, tmp_path: Path) -> None:
    odd = tmp_path / "conf.d" / "10.toml"
    odd.mkdir()
    assert refusal(tmp_path) == f"{odd}: not a file."
    odd.rmdir()
    odd.symlink_to("nowhere")
    assert refusal(tmp_path) == f"{odd}: cannot be read: No such file or directory."
    odd.unlink()
    os.mkfifo(odd)
    assert refusal(tmp_path) == f"{odd}: not a file."
    odd.unlink()
    odd.write_bytes(b"[api]\nport = \xff\n")
    assert refusal(tmp_path) == f"{odd}: not UTF-8 text."
    odd.write_text("[api]\nport = 1\n[api]\n")
    assert refusal(tmp_path).startswith(f"{odd}: not valid TOML: Cannot declare ('api',) twice")
    assert call("config", "check").exit_code == 2
    odd.unlink()
    odd.parent.rmdir()
    odd.parent.touch()
    assert len(loaded(tmp_path).files) == 1


@pytest.mark.parametrize("closed", ["conf.d", "conf.d/10.toml"])
def test_what_is_others_is_said_to_be_so(lay: Lay, tmp_path: Path, closed: str) -> None:
    lay("conf.d/10.toml", "[api]\nport = 1\n")
    for path in [tmp_path, *tmp_path.parents][:3]:  # pytest's own are closed, too
        path.chmod(0o755)
    (tmp_path / closed).chmod(0o000)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        said = refusal(tmp_path)
    finally:
        os.seteuid(me)
    assert said == f"{tmp_path / closed}: cannot be read: Permission denied."


# --- who may read and write them ----------------------------------------------------------------------


def test_doctor_looks_at_every_file(lay: Lay, tmp_path: Path) -> None:
    path, fragment = lay("config.toml", ""), lay("conf.d/10.toml", f'[api]\nadmin_token = "{TOKEN}"\n')
    for one in (path, fragment):
        one.chmod(0o640)
    fragment.parent.chmod(0o750)
    assert storage.configuration(loaded(tmp_path)).grade is Grade.OK
    assert storage.configuration(loaded(tmp_path)).what == f"{path}, {fragment}"
    for one, mode in ((fragment, 0o640), (fragment.parent, 0o750)):
        one.chmod(mode | 0o002)
        seen = storage.configuration(loaded(tmp_path))
        assert (seen.grade, seen.hint) == (Grade.WARNING, f"chmod go-w {one}")
        one.chmod(mode)
    fragment.chmod(0o644)
    assert storage.configuration(loaded(tmp_path)).grade is Grade.OK, "nobody gets through to it"
    for one in (fragment.parent, *fragment.resolve().parents):
        if (
            mode := one.stat().st_mode
        ) & 0o005 != 0o005:  # never less than there is: others have files in some of them
            one.chmod(mode | 0o005)
    assert storage.configuration(loaded(tmp_path)).hint == f"chmod o-r {fragment}"
    lay("conf.d/10.toml", '[clients.demo.proxy]\nurl = "http://a.example:1"\nuser = "u"\npassword = "p"\n')
    assert storage.configuration(loaded(tmp_path)).hint == f"chmod o-r {fragment}"
    fragment.unlink()
    fragment.parent.chmod(0o777)
    assert storage.configuration(loaded(tmp_path)).hint == f"chmod go-w {fragment.parent}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees what others cannot")
def test_doctor_sees_what_the_service_cannot_read(lay: Lay, tmp_path: Path) -> None:
    service = Service("nobody", "nogroup", "active", {}, {}, 0, "")
    path, fragment = lay("config.toml", ""), lay("conf.d/10.toml", "")
    for one in (path, fragment, fragment.parent):
        os.chown(one, 0, 65534)
        one.chmod(0o750)
    assert storage.configuration(loaded(tmp_path), service).grade is Grade.OK
    fragment.chmod(0o600)
    seen = storage.configuration(loaded(tmp_path), service)
    assert seen.what == f"{fragment} cannot be read by nobody, as whom waguard.service runs"
    assert seen.hint == f"chgrp nogroup {fragment} && chmod g+r {fragment}"


# --- editors, and the rule ----------------------------------------------------------------------------


def test_a_fragment_fits_the_schema() -> None:
    valid = Draft202012Validator(schema(text("config.toml")))
    assert valid.is_valid({"api": {"client_tokens": {"demo": TOKEN}}})
    assert not valid.is_valid({"api": {"prot": 1}})


WHOLE = tomllib.loads(
    uncommented()
    .replace('at_rest = "plain"', 'at_rest = "sealed"')  # another key goes with it alone
    .replace("client_tokens = {}", f'client_tokens = {{ demo = "{TOKEN}-1", demo2 = "{TOKEN}-2" }}')
)


def leaves(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for key, value in table.items():
        found += (
            leaves(value, (*above, key)) if isinstance(value, dict) and value else [((*above, key), value)]
        )
    return found


def toml(value: Any) -> str:
    return "{}" if value == {} else json.dumps(value)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_however_a_configuration_is_divided_it_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Each key somewhere, a proxy's together, in any form of TOML's; and before it, perhaps, another value that does not count."""
    place = tmp_path_factory.getbasetemp() / "divided"
    (place / "conf.d").mkdir(parents=True, exist_ok=True)
    names = ["config.toml", "conf.d/10.toml", "conf.d/9.toml", "conf.d/a.toml"]
    written: dict[str, list[str]] = {name: [] for name in names}
    of_proxy = data.draw(st.integers(0, 3))
    for keys, value in leaves(WHOLE):
        at = of_proxy if "proxy" in keys else data.draw(st.integers(0, 3))
        written[names[at]].append(f"{'.'.join(keys)} = {toml(value)}")
        if at and data.draw(st.booleans()):
            written[names[at - 1]].append(
                f"{'.'.join(keys)} = {toml(data.draw(st.sampled_from([0, 'x', []])))}"
            )
    for name, lines in written.items():
        (place / name).write_text("".join(f"{line}\n" for line in data.draw(st.permutations(lines))))
    (place / "whole.toml").write_text(
        "".join(f"{'.'.join(keys)} = {toml(value)}\n" for keys, value in leaves(WHOLE))
    )
    divided, whole = loaded(place), load(place / "whole.toml", {})
    assert divided.config == whole.config
    for keys, value in leaves(WHOLE):
        file, _, line = divided.origins[".".join(keys)].rpartition(":")
        assert Path(file).read_text().splitlines()[int(line) - 1] == f"{'.'.join(keys)} = {toml(value)}"
