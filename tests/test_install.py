"""``waguard install`` where it is not as it should be: refused before anything is done, and nothing lost on the way out."""

import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT
from systemd_box import Box, booted
from typer.testing import CliRunner

from waguard.cli import install, layout
from waguard.cli.app import app
from waguard.cli.errors import ProgramUnfit

PROGRAM = ("--program", "/usr/bin/waguard")
UNIT = "/etc/systemd/system/waguard.service"
ENDLESS = """
[Service]
Type=oneshot
Restart=no
ExecStart=
ExecStart=/bin/sh -c 'sleep 3600 & kill -STOP $!; kill -KILL $$'
"""
"""A daemon that dies at once and leaves somebody who hears nothing. Its start is over when it has."""
SHORT = "[Service]\nType=oneshot\nRemainAfterExit=yes\nRestart=no\nExecStart=\nExecStart=/bin/true\n"
"""No daemon at all."""


@pytest.fixture
def machine() -> Iterator[Box]:
    with booted() as machine:
        yield machine


# --- in a box, each in its own ---------------------------------------------------------------------------


def test_without_a_running_systemd_nothing_is_begun(machine: Box) -> None:
    hidden = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh")
    assert "[no_systemd]" in machine.run(*hidden, "waguard", "install", *PROGRAM, ok=False)
    assert not machine.path("/etc/sysusers.d/waguard.conf").exists()


def test_no_key_is_lost_with_the_configuration(machine: Box) -> None:
    machine.run("waguard", "install", "--no-start", *PROGRAM)
    schema = (
        machine.path("/etc/waguard/config.toml").read_text().splitlines()[0].removeprefix("#:schema file://")
    )
    assert '"[sessions]"' in machine.run("cat", schema)
    key = machine.path("/etc/waguard/keys").read_text()
    other = "A" * 43 + "=\n"
    kept = str(layout.kept_keys(layout.SESSIONS))
    machine.write(kept, other, 0o600)  # as of a daemon that was run by hand
    machine.write("/etc/waguard/more.keys", other, 0o600)
    machine.write("/etc/waguard/conf.d/10.toml", "[log]\n")
    machine.run("waguard", "install", "--uninstall", "--keep-sessions")
    assert machine.path(kept).read_text() == key + other
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


def test_what_somebody_has_masked_is_refused_and_no_link_is_written_through(machine: Box) -> None:
    # A /dev/null that may be broken: the box's is the machine's.
    machine.run("sh", "-ec", "mknod -m 666 /tmp/null c 1 3; mount --bind /tmp/null /dev/null")
    machine.run("systemctl", "mask", "waguard.service")
    said = machine.run("waguard", "install", "--no-start", *PROGRAM, ok=False)
    mode = machine.path("/dev/null").stat().st_mode & 0o777
    machine.path(UNIT).unlink()  # what follows is not to come upon it
    machine.run("umount", "/dev/null")
    assert mode == 0o666
    assert "waguard.service is masked" in said
    assert "systemctl unmask waguard.service" in said
    assert not machine.path("/etc/sysusers.d/waguard.conf").exists()

    machine.write("/root/waguard", "#!/bin/sh\n", 0o755)
    machine.run("ln", "-s", "/root/waguard", "/usr/bin/linked")
    said = machine.run("waguard", "install", "--no-start", "--program", "/usr/bin/linked", ok=False)
    assert "/root/waguard is in somebody's home" in said

    machine.write("/opt/units/waguard.service", "[Unit]\nDescription=mine\n", 0o600)
    machine.run("systemctl", "link", "/opt/units/waguard.service")
    machine.run("waguard", "install", "--no-start", *PROGRAM)
    assert machine.path("/opt/units/waguard.service").read_text() == "[Unit]\nDescription=mine\n"
    assert machine.path("/opt/units/waguard.service").stat().st_mode & 0o777 == 0o600
    assert "ExecStart=/usr/bin/waguard" in machine.path(UNIT).read_text()


def test_a_unit_that_somebody_has_changed_is_kept_and_an_upgrade_keeps_nothing(machine: Box) -> None:
    aside = machine.path(f"{UNIT}.before-waguard")
    machine.run("cp", "/usr/bin/waguard", "/usr/bin/waguard2")
    machine.run("waguard", "install", "--no-start", "--program", "/usr/bin/waguard2")  # another text of ours
    assert not aside.exists()
    changed = machine.path(UNIT).read_text().replace("WatchdogSec=20", "WatchdogSec=60")
    machine.path(UNIT).write_text(changed)
    for option in ("--dry-run", "--no-start"):
        said = machine.run("waguard", "install", option, *PROGRAM)
        assert f"keep {UNIT}, which was changed, as waguard.service.before-waguard" in said
    assert aside.read_text() == changed
    planned = json.loads(machine.run("waguard", "install", "--dry-run", "--no-start", "--json", *PROGRAM))
    assert {one["outcome"] for one in planned["steps"]} == {"as_it_is", "would"}
    assert {"outcome": "as_it_is", "step": f"write {UNIT}"} in planned["steps"]
    assert "WatchdogSec=20" in machine.path(UNIT).read_text()
    assert machine.show("waguard", "FragmentPath") == UNIT


def test_an_install_that_was_cut_short_is_made_whole_by_the_next(machine: Box) -> None:
    machine.run("waguard", "install", "--uninstall", "--purge")
    machine.path("/etc/waguard").mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", "/etc/waguard")
    said = machine.run("waguard", "install", "--no-start", *PROGRAM, ok=False)
    left = [*machine.path("/etc/waguard").iterdir()]
    machine.run("umount", "/etc/waguard")
    assert "No space left" in said
    assert [one.name for one in left] == ["conf.d"]
    machine.run("waguard", "install", "--no-start", *PROGRAM)

    machine.run("chown", "nobody", "/etc/waguard/config.toml", "/etc/waguard/keys")
    machine.run("chmod", "644", "/etc/waguard/config.toml", "/etc/waguard/keys")
    machine.write("/etc/waguard/conf.d/10.toml", "[log]\n")
    machine.write(f"{UNIT}.d/short.conf", SHORT)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "waguard")
    machine.run("touch", "--date", "now + 1 hour", UNIT)  # as written, and not yet read by systemd
    assert machine.show("waguard", "NeedDaemonReload") == "yes"  # else the test tests nothing
    machine.run("waguard", "install", "--no-start", *PROGRAM)
    assert machine.show("waguard", "NeedDaemonReload") == "no"
    machine.run("systemctl", "stop", "waguard")
    machine.path(f"{UNIT}.d/short.conf").unlink()
    places = [f"/etc/waguard/{name}" for name in ("config.toml", "conf.d", "conf.d/10.toml", "keys")]
    owned = machine.run("stat", "-c", "%U:%G %a", *places)
    assert owned.splitlines() == ["root:waguard 640", "root:waguard 750", "root:waguard 640", "root:root 600"]


def test_a_user_of_the_name_who_is_somebody_else_is_neither_taken_over_nor_deleted(machine: Box) -> None:
    machine.run("waguard", "install", "--no-start", *PROGRAM)
    uid = machine.run("id", "-u", "waguard").strip()
    busy = machine.start("setpriv", f"--reuid={uid}", "--clear-groups", "sleep", "60")
    try:
        said = machine.run("waguard", "install", "--uninstall", "--purge", ok=False)
    finally:
        machine.run("pkill", "--uid", uid)
        busy.wait()
    assert "userdel waguard: " in said
    assert said.index("done      systemctl daemon-reload") < said.index("userdel waguard: ")
    assert not machine.path("/etc/waguard").exists()
    machine.run("userdel", "waguard")

    machine.run("useradd", "--create-home", "--shell", "/bin/sh", "--gid", "users", "waguard")
    said = machine.run("waguard", "install", "--no-start", *PROGRAM, ok=False)
    assert "its home is /home/waguard and not /var/lib/waguard, its shell is /bin/sh and not" in said
    assert "its group is users and not waguard. Nothing was changed" in said
    assert not machine.path("/etc/sysusers.d/waguard.conf").exists()
    assert "The user waguard stays" in machine.run("waguard", "install", "--uninstall", "--purge")
    assert machine.run("id", "waguard")

    told = re.search(r"groupadd .*?(?=\. Then)", said)
    assert told is not None
    machine.run("sh", "-ec", told[0])
    machine.run("waguard", "install", "--no-start", *PROGRAM)
    machine.run("waguard", "install", "--uninstall", "--purge")
    assert "waguard" not in machine.path("/etc/passwd").read_text()


def test_of_sessions_elsewhere_no_key_is_lost_and_none_is_left_to_the_next_user(machine: Box) -> None:
    machine.run("waguard", "install", "--no-start", *PROGRAM)
    keys, config = machine.path("/etc/waguard/keys"), machine.path("/etc/waguard/config.toml")
    key = keys.read_text()
    config.write_text(config.read_text().replace("/var/lib/waguard/sessions", "/srv/wa"))
    machine.write(f"{UNIT}.d/place.conf", "[Service]\nReadWritePaths=/srv/wa\n")
    machine.run("sh", "-c", "echo '[log]' | install -g waguard -m 640 /dev/stdin /etc/waguard/conf.d/10.toml")
    machine.write("/srv/wa/.daemon.lock", "")
    machine.write("/srv/wa/.backups/one/1.sealed", "")
    machine.run("chown", "-R", "waguard:waguard", "/srv/wa")
    machine.write("/srv/wa/else", "")
    machine.run("chown", "nobody", "/srv/wa/else")
    said = machine.run("waguard", "install", "--uninstall", ok=False)
    assert "/srv/wa has the logins" in said

    machine.run("mv", "/srv/wa", "/srv/away")  # as of a disk that is not mounted now
    machine.run("waguard", "install", "--uninstall", "--keep-sessions")
    assert keys.read_text() == key
    assert machine.run("id", "waguard")
    machine.run("mv", "/srv/away", "/srv/wa")
    machine.run("waguard", "install", "--uninstall", "--keep-sessions")
    assert not keys.exists()
    assert machine.path("/srv/wa/.backup.keys").read_text() == key
    assert machine.run("find", "/srv/wa", "/etc/waguard", "!", "-user", "root").split() == ["/srv/wa/else"]
    assert machine.run("stat", "-c", "%G %a", "/etc/waguard/conf.d/10.toml") == "root 600\n"
    assert "waguard" not in machine.path("/etc/passwd").read_text()

    machine.run("waguard", "install", "--no-start", *PROGRAM)
    assert keys.read_text() == key
    assert not machine.run("find", "/srv/wa", "-user", "root")
    assert machine.show("waguard", "ReadWritePaths").split()[-1] == "/srv/wa"

    keys.unlink()
    before = machine.run("find", "/etc", "/var/lib/waguard", "-xdev", "-newer", UNIT)
    said = machine.run("waguard", "install", "--no-start", *PROGRAM, ok=False)
    assert f"the key that opens them is gone: {layout.KEYS}" in said
    assert machine.run("find", "/etc", "/var/lib/waguard", "-xdev", "-newer", UNIT) == before
    machine.write("/root/copy", key)
    told = re.search(r"install -D .*?(?=\. )", said)
    assert told is not None
    machine.run("sh", "-ec", told[0].replace("COPY", "/root/copy"))
    machine.run("waguard", "install", "--no-start", *PROGRAM)

    assert "/srv/wa stays" in machine.run("waguard", "install", "--uninstall", "--purge")
    assert [path.name for path in machine.path("/srv/wa").iterdir()] == ["else"]
    assert not machine.path("/etc/waguard").exists()


def test_what_doctor_does_not_find_well_is_said(machine: Box) -> None:
    machine.run("mv", "/usr/bin/bwrap", "/usr/bin/bwrap.away")
    said = machine.run("waguard", "install", "--no-start", *PROGRAM)
    machine.run("mv", "/usr/bin/bwrap.away", "/usr/bin/bwrap")
    assert re.search(r"warning +bubblewrap: not installed.*\n +-> .*apt-get install bubblewrap", said)
    assert " memory:" not in said, "what is well is of no interest"

    config = machine.path("/etc/waguard/config.toml")
    config.write_text(
        config.read_text().replace("# session_memory_mb = 300", "session_memory_mb = 900000000")
    )
    said = machine.run("waguard", "install", *PROGRAM, ok=False)
    assert re.search(r"problem +memory: ", said)
    assert "systemctl enable" not in said
    assert machine.show("waguard", "ActiveState") == "inactive"
    machine.run("waguard", "install", "--uninstall", "--purge")


USERADD = ("useradd", "-r", "-d", "/var/lib/waguard", "-s", "/usr/sbin/nologin", "waguard")
POSTRM = ("sh", "/opt/checkout/deb/postrm", "purge")
"""Run as by dpkg, for which no package has to be built."""


@pytest.mark.parametrize(
    ("file", "dir_", "drop_in"),
    [
        ("config.toml", 'dir = "/srv/deb"', ""),
        ("conf.d/10.toml", 'dir = "/srv/deb"', ""),
        ("config.toml", '"dir"= "/srv/deb" # not /var/lib/waguard/sessions', ""),
        (
            "config.toml",
            'dir = "/var/lib/waguard/sessions" # ours',
            "Environment=WAGUARD_SESSIONS__DIR=/srv/deb",
        ),
    ],
)
def test_the_package_purged_leaves_keys_and_user_to_sessions_elsewhere(
    machine: Box, file: str, dir_: str, drop_in: str
) -> None:
    machine.write(f"/etc/waguard/{file}", f"[sessions]\n{dir_}\n[profile]\nruntime_dir = '/run/x'\n")
    machine.write("/etc/waguard/keys", "key\n", 0o600)
    machine.write(f"{UNIT}.d/x.conf", f"[Service]\n{drop_in}\n")
    machine.run(*USERADD)
    said = machine.run(*POSTRM)
    assert "the logins are where /etc/waguard/config.toml" in said
    assert machine.path("/etc/waguard/keys").read_text() == "key\n"
    assert machine.path(f"{UNIT}.d/x.conf").exists()
    assert machine.run("id", "waguard")


def test_the_package_purged_leaves_what_is_not_its_own(machine: Box) -> None:
    config = f'[sessions]\n# dir = "sessions"\ndir = "{layout.SESSIONS}" # ours\n[profile]\nruntime_dir = "/run/x"\n'
    machine.write("/etc/waguard/config.toml", config)
    machine.write("/etc/waguard/keys", "key\n", 0o600)
    machine.write("/etc/waguard/conf.d/10.toml", config)
    machine.write("/etc/waguard/tokens", "mine\n")
    machine.run(*USERADD)
    machine.run("usermod", "--shell", "/bin/sh", "waguard")
    assert "the user waguard stays" in machine.run(*POSTRM)
    assert machine.run("id", "waguard")
    assert [path.name for path in machine.path("/etc/waguard").iterdir()] == ["tokens"]

    machine.run("usermod", "--shell", "/usr/sbin/nologin", "waguard")
    machine.path("/etc/waguard/tokens").unlink()
    machine.run(*POSTRM)
    assert not machine.path("/etc/waguard").exists()
    assert "waguard" not in machine.path("/etc/passwd").read_text()


# --- anywhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["waguard", "/nowhere/waguard", "/usr/bin", "/etc/passwd"])
def test_what_is_no_program_is_not_put_into_a_unit(program: str) -> None:
    with pytest.raises(ProgramUnfit, match="is no program"):
        install._given(program)


@pytest.mark.parametrize("name", ["wa guard", "wa%guard", 'wa"guard', "wa$guard"])
def test_a_name_that_a_unit_would_read_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(ProgramUnfit, match="cannot stand in a unit"):
        install._given(str(program))


def test_a_program_that_no_service_would_reach_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "waguard"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(ProgramUnfit, match=r"temporary files, where no service can reach"):
        install._given(str(program))
    with pytest.raises(ProgramUnfit, match=r"^/root/venv/waguard is in somebody's home"):
        install._refuse_hidden(Path("/root/venv/waguard"))


@pytest.mark.parametrize("option", ["--purge", "--keep-sessions"])
def test_what_is_about_taking_it_away_does_not_install(option: str) -> None:
    done = CliRunner().invoke(app, ["install", "--dry-run", option])
    assert done.exit_code == 1
    assert f"waguard install --uninstall {option}" in done.output


def test_a_source_distribution_has_what_the_package_is_built_from(tmp_path: Path) -> None:
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    source = tmp_path / "source"
    for name in (
        "waguard/__init__.py",
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "config.toml",
        "docs/reference/config.schema.json",
        "README.md",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    (source / "systemd").mkdir()
    for unit in layout.FILES:
        (source / "systemd" / unit).write_bytes((ROOT / "systemd" / unit).read_bytes())
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=60)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {
        "config.toml",
        "docs/reference/config.schema.json",
        "setup.py",
        *(f"systemd/{unit}" for unit in layout.FILES),
    } <= names
