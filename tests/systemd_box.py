"""A real systemd to try units in: process 1 of its own namespaces, on a throw-away view of this machine's files.

Inside, every write goes to memory and is gone afterwards; ``/tmp`` and ``/run`` are empty; installed programs and the network are
the machine's. Boots in half a second. Needs root, and a kernel that lets it.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

_BOOT_S = 20.0
_MASKED = (
    "systemd-udevd systemd-udev-trigger systemd-tmpfiles-setup-dev systemd-logind systemd-remount-fs systemd-modules-load"
    " systemd-sysctl getty@tty1 systemd-networkd systemd-resolved systemd-timesyncd apt-daily apt-daily-upgrade"
)
_BOOT = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
chmod 1777 tmp
mount -t tmpfs tmpfs run
umount -R sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
for unit in $2; do ln -sf /dev/null "etc/systemd/system/$unit.service"; done
rm -f etc/systemd/system/*.wants/* etc/machine-id
echo 0123456789abcdef0123456789abcdef > etc/machine-id
mkdir -p old opt/checkout opt/python opt/packages
mount --bind "$3" opt/checkout
mount --bind "$4" opt/python
mount --bind "$5" opt/packages
for seen in checkout python packages; do mount -o remount,bind,ro "opt/$seen"; done
ln -s checkout opt/current
pivot_root . old
umount -l /old
mount --make-rshared /  # as it is on a machine; in a container systemd leaves it, and credentials are then not found
export container=box
exec /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=0
"""
WAGUARD = """\
#!/bin/sh
exec env LD_LIBRARY_PATH=/opt/python/lib PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/current:/opt/packages /opt/python/bin/python3 -m waguard "$@"
"""
"""The command, inside. Python, the packages and the project are where any user reaches them; ``/opt/current`` is the project's link."""


class Unavailable(Exception):
    """There can be no such box here, and why."""


def _cgroup2() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise Unavailable("no cgroup v2 is mounted")


class Systemd:
    """What a systemd can be asked, by way of commands."""

    def run(self, *command: str, ok: bool = True, seconds: float = 60.0) -> str:
        """What a command says, on both streams; with ``ok`` it has to go well."""
        raise NotImplementedError

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Systemd of the journal."""
        said = self.run("journalctl", "--no-pager", "--output=json", "--all", *matches)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").strip()


class Box(Systemd):
    """A booted systemd; `box` makes one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def start(self, *command: str, **options: Any) -> "subprocess.Popen[str]":
        """Begin a command inside."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-i", "-u", "-r", "-w", "--", *command]
        return subprocess.Popen(inside, text=True, stdin=subprocess.DEVNULL, **options)

    def run(self, *command: str, ok: bool = True, seconds: float = 60.0) -> str:
        """What a command says, on both streams; with ``ok`` it has to go well."""
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            raise AssertionError(f"{command} took longer than {seconds} s: {said}") from None
        assert not ok or process.returncode == 0, f"{command} ended with {process.returncode}:\n{said}"
        return said

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file inside, with its directories."""
        place = self.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def path(self, path: str) -> Path:
        """How a path inside is reached from here."""
        return Path(f"/proc/{self.pid}/root{path}")


@contextmanager
def box(checkout: Path) -> Iterator[Box]:
    """Boot one; nothing of it is left after the block. Raises `Unavailable`."""
    if os.geteuid() != 0:
        raise Unavailable("only root can boot a systemd")
    for program in ("unshare", "nsenter", "/lib/systemd/systemd"):
        if shutil.which(program) is None:
            raise Unavailable(f"there is no {program}")
    with ExitStack() as stack:
        group = _cgroup2() / f"waguard-box-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            raise Unavailable(f"no cgroup can be made: {error}") from None
        stack.callback(_remove, group)
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waguard-box-", dir="/var/tmp")))
        log = stack.enter_context((place / "log").open("w+"))
        (place / "fs").mkdir()
        enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        unshare = [
            "unshare",
            "--cgroup",
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ]
        seen = [str(checkout), sys.base_prefix, sysconfig.get_paths()["purelib"]]
        boot = ["sh", "-c", _BOOT, "sh", str(place / "fs"), _MASKED, *seen]
        outer = subprocess.Popen(
            ["sh", "-c", enter, "sh", *unshare, *boot],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        stack.callback(_end, outer)
        yield _booted(outer, place / "log")


@contextmanager
def booted(*, command: bool = True) -> Iterator[Box]:
    """For a fixture: one of this project's, with the ``command`` in it; where there can be none, tests are skipped with the reason."""
    try:
        with box(Path(__file__).parent.parent) as machine:
            if command:
                machine.write("/usr/bin/waguard", WAGUARD, 0o755)
            machine.run(
                "systemctl", "start", "dbus", ok=False
            )  # else the first who needs it does, amid a test
            yield machine
    except Unavailable as reason:
        pytest.skip(f"no systemd of our own: {reason}")


def _booted(outer: "subprocess.Popen[bytes]", log: Path) -> Box:
    deadline = time.monotonic() + _BOOT_S
    state = "nothing"
    while time.monotonic() < deadline:
        if outer.poll() is not None:
            break
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
            found = Box(int(children[0]))
            state = found.run("systemctl", "is-system-running", ok=False).strip()
            if state in {"running", "degraded"}:
                return found
        time.sleep(0.02)
    raise Unavailable(f"it did not boot ({state}): {log.read_text().strip()}")


def _end(outer: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(
            outer.pid, signal.SIGKILL
        )  # its child, process 1 of the box, goes with it, and all below that
    outer.wait(10)


def _remove(group: Path) -> None:
    """The box's cgroups, once they are empty."""
    deadline = time.monotonic() + 10
    for one in [*(path for path, _, _ in os.walk(group, topdown=False))]:
        while True:
            try:
                Path(one).rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def output_of(command: Sequence[str]) -> str:
    """Of a program of this machine."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
