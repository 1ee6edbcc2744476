"""The commands of an admin on a machine that runs the service: they see what it sees, and send nobody where it breaks."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bare_browser import BINARY
from ports import free_port
from systemd_box import Box, booted

from waguard.cli import service
from waguard.cli.errors import SystemdFailed
from waguard.cli.service import Service
from waguard.config.load import ENV_FILE

# --- what systemctl says ----------------------------------------------------------------------------------

SHOWN = """\
User=waguard
Group=waguard
NFileDescriptorStore=4
Environment=FDSTORE=4096 WAGUARD_CONFIG={config} "WAGUARD_X=a b" "WAGUARD_Y=q\\"x\\$y\\\\z" WAGUARD_API__PORT=28777
LoadState=loaded
ActiveState=activating
FragmentPath={unit}
DropInPaths={drop_in}

Listen=127.0.0.1:8717 (Stream)
LoadState=loaded
ActiveState=active
"""
FRAGMENT = """\
[Service]
# LoadCredential=waguard.none:/etc/none
LoadCredential=waguard.old:/etc/old
LoadCredential=
LoadCredential=waguard.keys:/etc/waguard/keys
"""
DROP_IN = (
    "[Service]\nLoadCredential = \\\n  waguard.tokens:/etc/waguard/tokens\nLoadCredential=waguard.more\n"
)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that prints what is in the file ``shown``; without it, it fails."""
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\nexec /bin/cat "{tmp_path}/shown"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(service, "BOOTED", tmp_path)
    names = {name: tmp_path / name for name in ("config", "unit", "drop_in")}
    names["config"].write_text('[log]\nlevel = "debug"\n')
    names["unit"].write_text(FRAGMENT)
    names["drop_in"].write_text(DROP_IN)
    (tmp_path / "shown").write_text(SHOWN.format_map(names))
    return tmp_path


def test_the_unit_says_how_the_service_runs(systemctl: Path) -> None:
    assert service.installed() == Service(
        user="waguard",
        group="waguard",
        state="activating",
        environment={
            "FDSTORE": "4096",
            ENV_FILE: str(systemctl / "config"),
            "WAGUARD_X": "a b",
            "WAGUARD_Y": 'q"x$y\\z',
            "WAGUARD_API__PORT": "28777",
        },
        credentials={
            "waguard.keys": Path("/etc/waguard/keys"),
            "waguard.tokens": Path("/etc/waguard/tokens"),
            "waguard.more": Path("/etc/credstore/waguard.more"),
        },
        kept_fds=4,
        listens="127.0.0.1:8717 (Stream)",
    )


def test_its_variables_hold_for_its_configuration_alone(systemctl: Path) -> None:
    own, other = systemctl / "config", systemctl / "other.toml"
    other.touch()
    loaded, found = service.configured(own, {})
    assert found is not None
    assert (loaded.config.api.port, loaded.config.log.level) == (28777, "debug")
    assert service.configured(own, {"WAGUARD_API__PORT": "1"})[0].config.api.port == 1
    loaded, found = service.configured(other, {})
    assert found is None
    assert loaded.config.api.port == 8717


def test_without_a_unit_there_is_no_service(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = (systemctl / "shown").read_text()
    (systemctl / "shown").write_text(shown.replace("LoadState=loaded", "LoadState=not-found"))
    assert service.installed() is None
    (systemctl / "shown").write_text(shown)
    monkeypatch.setattr(service, "BOOTED", systemctl / "none")
    assert service.installed() is None
    monkeypatch.setattr(service, "BOOTED", systemctl)
    monkeypatch.setenv("PATH", "")
    assert service.installed() is None


def test_a_unit_that_is_not_shown_is_not_taken_for_none(
    systemctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (systemctl / "shown").unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(
        SystemdFailed, match=r"waguard\.service cannot be read: systemctl show: .*No such file"
    ):
        service.installed()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert service.installed() is None
    (systemctl / "systemctl").write_text("#!/bin/sh\nexec /bin/sleep 5\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(service, "_ANSWER_S", 0.1)
    with pytest.raises(SystemdFailed, match="timed out"):
        service.installed()


# --- in a box, each in its own -----------------------------------------------------------------------------

PORT = free_port()
"""The network is the machine's."""
URL = f"http://127.0.0.1:{PORT}"
SESSIONS = "/var/lib/waguard/sessions"
OWN = {"admin": "admin-of-the-credential", "clients": {"demo": "demo-of-the-credential"}}
MADE = {"admin": "admin-of-an-earlier-start", "clients": {}}
DROP_INS = "/etc/systemd/system/waguard.service.d"


@pytest.fixture
def machine() -> Iterator[Box]:
    with booted() as machine:
        machine.run("waguard", "install", "--no-start", "--program", "/usr/bin/waguard")
        machine.write(f"{DROP_INS}/port.conf", f"[Service]\nEnvironment=WAGUARD_API__PORT={PORT}\n")
        machine.run("systemctl", "daemon-reload")
        machine.run("install", "-d", "-o", "waguard", "-g", "waguard", "-m", "711", SESSIONS)
        yield machine


@contextlib.contextmanager
def started(machine: Box) -> Iterator[None]:
    if BINARY is None:
        pytest.skip("no Chromium is installed")
    machine.run("systemctl", "start", "waguard")
    try:
        yield
    finally:
        machine.run("systemctl", "stop", "waguard")


def test_nobody_is_told_to_start_a_daemon_beside_the_service(machine: Box) -> None:
    said = machine.run("waguard", "status", ok=False)
    assert "Start it: systemctl start waguard." in said
    assert "waguard run" not in said
    app = (
        "runuser",
        "-u",
        "nobody",
        "--",
        "env",
        "WAGUARD_TOKEN=demo-of-the-credential",
        "waguard",
        "status",
    )
    assert machine.run(*app, "demo", "--url", URL, ok=False).splitlines() == [
        f"No daemon answers at {URL}. [no_daemon]",
        "Start it: systemctl start waguard",
    ]
    said = machine.run("runuser", "-u", "nobody", "--", "waguard", "status", ok=False)
    assert said.startswith("/etc/waguard/config.toml: cannot be read: Permission denied.\nAs root: sudo")


def test_the_units_port_is_asked_with_the_credentials_token(machine: Box) -> None:
    machine.write(f"{SESSIONS}/.tokens.json", json.dumps(MADE), 0o600)
    machine.run("chown", "waguard:waguard", f"{SESSIONS}/.tokens.json")
    assert machine.run("waguard", "token").strip() == MADE["admin"]
    credential = "[Service]\nLoadCredential=waguard.tokens:/etc/waguard/tokens\n"
    machine.write(f"{DROP_INS}/tokens.conf", credential)
    machine.run("systemctl", "daemon-reload")
    said = machine.run("waguard", "token", ok=False)
    assert "There is no /etc/waguard/tokens, which LoadCredential=waguard.tokens" in said
    assert MADE["admin"] not in said
    machine.write("/etc/waguard/tokens", json.dumps(OWN), 0o600)
    assert machine.run("waguard", "token") == "admin-of-the-credential\n"
    assert machine.run("waguard", "token", "demo") == "demo-of-the-credential\n"
    said = machine.run("runuser", "-u", "waguard", "--", "waguard", "token", ok=False)
    assert "/etc/waguard/tokens cannot be read: Permission denied. [no_token]\nRun this as root" in said
    with started(machine):
        assert machine.run("waguard", "status").startswith("No sessions yet.")
        # What else the running one is asked: how it is, in spite of what works outside its unit.
        assert findings(machine)["daemon"]["seen"] == "runs, with browsers in bubblewrap"
    machine.write(f"{DROP_INS}/sandbox.conf", "[Service]\nSystemCallFilter=~pivot_root\n")
    machine.run("systemctl", "daemon-reload")
    with started(machine):
        found = findings(machine)
        assert found["bubblewrap"]["grade"] == "ok"
        assert found["daemon"]["grade"] == "warning"
        assert "browsers in plain instead of bubblewrap: bubblewrap " in found["daemon"]["seen"]


def findings(machine: Box, *become: str) -> dict[str, dict[str, str]]:
    said = machine.run(*become, "waguard", "doctor", "--json", ok=False)
    return {finding["check"]: finding for finding in json.loads(said)}


def test_the_doctor_knows_whose_things_they_are(machine: Box) -> None:
    found = findings(machine)
    assert found["sessions"]["seen"] == f"{SESSIONS} can be written"
    assert found["snapshot keys"]["seen"].startswith("/etc/waguard/keys: 1, snapshots are sealed with ")
    machine.run("mkdir", f"{SESSIONS}/demo")  # as a daemon of root would
    machine.run("mv", "/etc/waguard/keys", "/etc/waguard/keys.away")
    found = findings(machine)
    assert found["sessions"]["hint"] == f"chown -R waguard:waguard {SESSIONS}"
    assert found["snapshot keys"]["grade"] == "problem"
    machine.run("systemctl", "start", "waguard", ok=False)
    assert machine.show("waguard", "ActiveState") != "active", "it does not start without them, as is said"
    machine.run("systemctl", "stop", "waguard")
    machine.run("mv", "/etc/waguard/keys.away", "/etc/waguard/keys")
    machine.run(*found["sessions"]["hint"].split())
    as_itself = findings(machine, "runuser", "-u", "waguard", "--")
    assert as_itself["sessions"]["grade"] == "ok"
    assert "only root can read" in as_itself["snapshot keys"]["seen"]
    assert findings(machine, "runuser", "-u", "nobody", "--").keys() == {
        "config",
        "python",
        "fonts",
        "/dev/shm",
    }


def test_a_port_that_systemd_keeps_is_no_other_programs(machine: Box) -> None:
    socket_unit = machine.path("/etc/systemd/system/waguard.socket")
    socket_unit.write_text(socket_unit.read_text().replace(":8717", f":{PORT}"))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "waguard.socket")
    assert findings(machine)["port"]["seen"].endswith("kept by systemd for the service, which is inactive")
    assert machine.show("waguard", "ActiveState") == "inactive", "not started by the look"
    machine.run("systemctl", "stop", "waguard.socket")
