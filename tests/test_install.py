"""``waguard install`` where it is not as it should be: refused before anything is done, and nothing lost on the way out."""

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from systemd_box import Box, booted
from test_packaging import ROOT

from waguard.api.problems import Problem
from waguard.cli import install, service

PROGRAM = ("--program", "/usr/bin/waguard")
ENDLESS = """
[Service]
Type=exec
ExecStart=
ExecStart=/bin/sh -c 'sleep 3600 & kill -STOP $!; kill -KILL $$'
RestartSec=3600
"""
"""A daemon that dies at once and leaves somebody who hears nothing."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Box]:
    with booted() as machine:
        yield machine


# --- in the box, in this order -------------------------------------------------------------------------


def test_without_a_running_systemd_nothing_is_begun(machine: Box) -> None:
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh")
    assert "[no_systemd]" in machine.run(*hidden, "waguard", "install", *PROGRAM, ok=False)
    assert not machine.path("/etc/sysusers.d/waguard.conf").exists()


def test_no_key_is_lost_with_the_configuration(machine: Box) -> None:
    machine.run("waguard", "install", "--no-start", *PROGRAM)
    key = machine.path("/etc/waguard/keys").read_text()
    other = "A" * 43 + "=\n"
    machine.write(str(service.KEPT_KEYS), other, 0o600)  # as of a daemon that was run by hand
    machine.write("/etc/waguard/more.keys", other, 0o600)
    machine.run("waguard", "install", "--uninstall", "--keep-sessions")
    assert machine.path(str(service.KEPT_KEYS)).read_text() == key + other
    assert [path.name for path in machine.path("/etc/waguard").iterdir()] == ["more.keys"]


def test_what_the_daemon_could_not_end_is_ended_before_its_files_go(machine: Box) -> None:
    machine.run("waguard", "install", "--no-start", *PROGRAM)
    become = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    said = machine.run(*become, "waguard", "install", "--dry-run", *PROGRAM, ok=False)
    assert "[not_root]" in said, "a dry run of somebody who cannot see what there is"

    machine.write("/etc/systemd/system/waguard.service.d/endless.conf", ENDLESS)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "waguard", ok=False)
    machine.run("systemctl", "stop", "waguard")
    uid = machine.run("id", "-u", "waguard").strip()
    assert machine.run("pgrep", "-u", uid)  # else the test tests nothing
    machine.run("waguard", "install", "--uninstall", "--purge")
    assert not machine.run("pgrep", "-u", uid, ok=False)
    assert not machine.run("systemctl", "list-units", "--all", "--no-legend", "waguard*")
    assert not machine.path("/etc/waguard").exists()


# --- anywhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["waguard", "/nowhere/waguard", "/usr/bin", "/etc/passwd"])
def test_what_is_no_program_is_not_put_into_a_unit(program: str) -> None:
    with pytest.raises(Problem, match="is no program"):
        install._given(program)


@pytest.mark.parametrize("name", ["wa guard", "wa%guard", 'wa"guard', "wa$guard"])
def test_a_name_that_a_unit_would_read_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(Problem, match="cannot stand in a unit"):
        install._given(str(program))


def test_a_source_distribution_has_what_the_package_is_built_from(tmp_path: Path) -> None:
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    source = tmp_path / "source"
    for name in (
        "waguard/__init__.py",
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "config.toml",
        "README.md",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    (source / "systemd").mkdir()
    for unit in service.FILES:
        (source / "systemd" / unit).write_bytes((ROOT / "systemd" / unit).read_bytes())
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=60)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"config.toml", "setup.py", *(f"systemd/{unit}" for unit in service.FILES)} <= names
