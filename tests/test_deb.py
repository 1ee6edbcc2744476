"""The Debian package in a real systemd: installed, upgraded and gone back under browsers that stay up, removed, purged.

It is built first, from the package registry, and so only where it is asked for: `make deb-test`.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkout import ROOT
from installed import CODES, CONFIG, PORT, TOKEN, Service, until_adopted
from systemd_box import WAGUARD, Box, booted, output_of

import waguard
from waguard.simulator.server import Cadence, Simulator

pytestmark = pytest.mark.skipif(
    "WAGUARD_TEST_DEB" not in os.environ, reason="builds the Debian package first: make deb-test"
)
NEWER = "99.0.0"


@dataclass(frozen=True)
class Packages:
    """What was built, and the same as another version."""

    built: Path
    newer: Path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    place = tmp_path_factory.mktemp("deb")
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, ROOT / "deb" / "build.py", "--out", place / "built"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if re.search(r"No matching distribution|ConnectionError|NewConnectionError", done.stderr):
        pytest.skip(f"pip reaches no package registry: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    print(f"{done.stdout.strip()}, in {time.monotonic() - begun:.0f} s")  # noqa: T201 (a figure)
    (built,) = (place / "built").glob("*.deb")
    tree = place / "tree"
    output_of(["dpkg-deb", "--raw-extract", str(built), str(tree)])
    for file, was, becomes in (
        ("DEBIAN/control", r"Version: .*", f"Version: {NEWER}"),
        ("usr/lib/waguard/waguard/__init__.py", r'__version__ = ".*"', f'__version__ = "{NEWER}"'),
    ):
        path = tree / file
        text, count = re.subn(was, becomes, path.read_text(encoding="utf-8"))
        assert count == 1
        path.write_text(text, encoding="utf-8")
    newer = place / "newer.deb"
    output_of(["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(newer)])
    return Packages(built, newer)


@pytest.fixture
def machine(packages: Packages) -> Iterator[Box]:
    with booted(command=False) as machine:
        shutil.copyfile(packages.built, machine.path("/tmp/built.deb"))
        shutil.copyfile(packages.newer, machine.path("/tmp/newer.deb"))
        yield machine
        for entry in machine.journal("-u", "waguard"):
            print(entry["_PID"], entry["MESSAGE"])  # noqa: T201 (for the report of a failure)


def everything(machine: Box) -> set[str]:
    found = machine.run(
        "find", "/etc", "/usr", "/var/lib", "/var/cache", "-xdev", "-not", "-path", "*/catalog/*"
    )
    ours = re.compile(
        r"/(passwd|group|shadow|gshadow|subuid|subgid)-?$|systemd/(random|tpm)|/dpkg/[a-z-]*-old$"
    )
    return {line for line in found.splitlines() if not ours.search(line)}


def ready(machine: Box) -> list[str]:
    """The versions that daemons have said that they are."""
    said = machine.journal("WAGUARD_EVENT=daemon.ready")
    return [json.loads(entry["WAGUARD_FIELDS"])["version"] for entry in said]


async def test_installed_upgraded_gone_back_removed_and_purged(machine: Box) -> None:
    async with Simulator(cadence=Cadence(sync_s=0.1)) as simulator:
        service = Service(machine)
        before = await asyncio.to_thread(everything, machine)

        assert "The admin's token" in await service.run("dpkg", "-i", "/tmp/built.deb")
        assert machine.show("waguard", "ActiveState") == "active"
        assert machine.show("waguard", "UnitFileState") == "enabled"
        assert machine.show("waguard", "FragmentPath").endswith("/lib/systemd/system/waguard.service")
        config = CONFIG.format(port=PORT, token=TOKEN, url=simulator.url)
        machine.write("/etc/waguard/config.toml", config)
        await service.run("systemctl", "restart", "waguard")

        await asyncio.gather(*(service.ask("POST", f"/v1/sessions/{code}/connect") for code in CODES))
        for code in CODES:
            simulator.scan((await service.ask("GET", f"/v1/sessions/{code}"))["qr"]["text"], "34600000000")
        await service.until_connected()
        browsers, loads, pid = service.processes(), simulator.loads, machine.show("waguard", "MainPID")
        for package, version in (("newer", NEWER), ("built", waguard.__version__)):
            async with service.asked_all_the_time():
                since = time.time()
                await service.run("dpkg", "-i", f"/tmp/{package}.deb")
                await until_adopted(service, since)
            print(f"{package}: {service.first_look(since):.1f} s; {service.refused} refused")  # noqa: T201 (a figure)
            assert service.refused == 0
            assert service.processes() == browsers
            assert simulator.loads == loads
            assert machine.show("waguard", "MainPID") == pid
            assert ready(machine)[-1] == version
            assert (await service.run("waguard", "--version")).strip() == f"waguard {version}"

        # It could not start with this: then it goes on as it is.
        machine.write("/etc/waguard/config.toml", f"{config}\n[nonsense]\n")
        assert "the old version goes on" in await service.run("dpkg", "-i", "/tmp/newer.deb")
        assert await service.connected()
        assert service.processes() == browsers
        machine.write("/etc/waguard/config.toml", config)

        # Stopped by somebody, it is not started by an upgrade.
        await service.run("systemctl", "stop", "waguard")
        await service.run("dpkg", "-i", "/tmp/built.deb")
        assert machine.show("waguard", "ActiveState") == "inactive"
        await service.run("systemctl", "start", "waguard")
        await service.until_connected()

        await service.run("dpkg", "-r", "waguard")
        assert "waguard" not in await service.run("ps", "-eo", "user:32=", "-o", "args=")
        assert not machine.path("/usr/lib/waguard").exists()
        key = machine.path("/etc/waguard/keys").read_bytes()
        await service.run("dpkg", "-i", "/tmp/built.deb")
        await service.until_connected()

        said = await service.run("dpkg", "-P", "waguard")
        assert "rm -rf /var/lib/waguard" in said
        left = await asyncio.to_thread(everything, machine) - before
        assert {line for line in left if not line.startswith("/var/lib/waguard")} == set()
        assert "waguard" not in machine.path("/etc/passwd").read_text()
        assert machine.path("/var/lib/waguard/sessions/.backup.keys").read_bytes() == key
        assert machine.path("/var/lib/waguard/sessions/.backup.keys").stat().st_mode & 0o077 == 0
        assert machine.path("/var/lib/waguard").stat().st_uid == 0

        # The next one has them again, without a scan.
        await service.run("dpkg", "-i", "/tmp/built.deb")
        assert machine.path("/etc/waguard/keys").read_bytes() == key
        machine.write("/etc/waguard/config.toml", config)
        await service.run("systemctl", "restart", "waguard")
        await service.until_connected()

        await service.run("waguard", "install", "--uninstall", "--purge")
        await service.run("dpkg", "-P", "waguard")
        assert await asyncio.to_thread(everything, machine) - before == set()
        assert not await service.run("systemctl", "list-units", "--all", "--no-legend", "waguard*")


def test_an_earlier_service_becomes_the_package_s(machine: Box) -> None:
    earlier = "/usr/local/bin/waguard"
    machine.write(earlier, WAGUARD, 0o755)
    machine.run(earlier, "install", "--program", earlier)
    token, key = machine.run(earlier, "token"), machine.path("/etc/waguard/keys").read_bytes()
    said = machine.run("dpkg", "-i", "/tmp/built.deb")
    told = re.search(r"^ +(cd /etc/systemd/system && .*)$", said, re.MULTILINE)
    assert told is not None, said
    machine.run("sh", "-ec", told[1])
    assert machine.show("waguard", "ExecStart").startswith("{ path=/usr/bin/waguard ")
    assert machine.run("waguard", "token") == token
    assert machine.path("/etc/waguard/keys").read_bytes() == key


def test_purged_without_a_login_nothing_is_left(machine: Box) -> None:
    before = everything(machine)
    machine.run("dpkg", "-i", "/tmp/built.deb")
    assert machine.show("waguard", "ActiveState") == "active"
    machine.run("dpkg", "-P", "waguard")
    assert everything(machine) - before == set()
    assert "waguard" not in machine.path("/etc/passwd").read_text()
