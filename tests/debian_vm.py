"""A whole Debian in an emulated machine: kernel, systemd and packages of a release, as an admin has them.

Made from the package registry by debootstrap, run by QEMU without hardware's help, some 15 times slower than the machine around it.
It is steered through a console. Needs root.
"""

import contextlib
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from systemd_box import Systemd

_INSIDE, _OUTSIDE = "10.0.2.15", "10.0.2.2"
"""It, and this machine, in its network: QEMU's own."""
_WANTED = "\n[Install]\nWantedBy=sockets.target\n"
_PROXY = "[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd {to}:%i\n"
_MIRROR = "http://deb.debian.org/debian"
_PACKAGES = (
    "systemd-sysv dbus udev kmod procps iproute2 linux-image-cloud-amd64 initramfs-tools"
    " python3 python3-pip python3-setuptools binutils"  # what the package is built with
    " chromium-headless-shell bubblewrap fonts-dejavu-core"
)
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_FILES = {
    "etc/hostname": "vm\n",
    "etc/systemd/network/any.network": f"""
[Match]
Name=e*
[Network]
Address={_INSIDE}/24
Gateway={_OUTSIDE}
LinkLocalAddressing=no
""",
    "etc/systemd/system/serial-getty@hvc0.service.d/root.conf": """
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noissue --nohostname %I dumb
""",
    "root/.bash_profile": "PS1= PS2=\nstty -echo -onlcr\n",
    # Both ends are on loopback, and QEMU's network is not.
    "etc/systemd/system/control@.socket": f"[Socket]\nListenStream={_INSIDE}:%i\nFreeBind=yes{_WANTED}",
    "etc/systemd/system/control@.service": _PROXY.format(to="127.0.0.1"),
    "etc/systemd/system/web@.socket": f"[Socket]\nListenStream=127.0.0.1:%i{_WANTED}",
    "etc/systemd/system/web@.service": _PROXY.format(to=_OUTSIDE),
}
_BOOT_S = 180.0
_BUILD_S = 600.0


class Debian(Systemd):
    """A booted one; `debian` makes it."""

    def __init__(self, console: Path, port: int) -> None:
        self._console = socket.socket(socket.AF_UNIX)
        self._console.connect(str(console))
        self.port = port
        """Of loopback here, where its control port, 8717 of its loopback, is reached."""

    def run(self, *command: str, ok: bool = True, seconds: float = 120.0) -> str:
        """What a command says, on both streams; with ``ok`` it has to go well."""
        said, code = self._ask(shlex.join(command), seconds)
        assert not ok or code == 0, f"{command} ended with {code}:\n{said}"
        return said

    def write(self, path: str, text: str) -> None:
        """A file inside, with its directories."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && printf %s "$2" > "$1"', "sh", path, text)

    def reaches(self, port: int) -> None:
        """Have this port of our loopback on its loopback too."""
        self.run("systemctl", "enable", "--now", f"web@{port}.socket")

    def until_booted(self) -> None:
        """Wait for it, whatever it was doing before."""
        deadline = time.monotonic() + _BOOT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if self._ask("systemctl is-system-running --wait", 10)[0].strip() in {"running", "degraded"}:
                    return
        raise AssertionError(f"it was not up within {_BOOT_S:g} s")

    def boots(self) -> str:
        """Changes with each boot."""
        return self.run("cat", "/proc/sys/kernel/random/boot_id")

    def reboot(self, *how: str) -> None:
        """By this command, which may never answer; returns when it is up again."""
        before = self.boots()
        with contextlib.suppress(TimeoutError):
            self._ask(shlex.join(how), 5)
        deadline = time.monotonic() + _BOOT_S
        while True:
            self.until_booted()
            if self.boots() != before:
                return
            assert time.monotonic() < deadline, f"{how} did not end it"

    def close(self) -> None:
        self._console.close()

    def _ask(self, command: str, seconds: float) -> tuple[str, int]:
        """What it said, and its exit code. Raises `TimeoutError`."""
        mark = secrets.token_hex(8)
        # In two parts, so that an echo of what is typed here is not taken for the answer.
        asked = f"{{ {command}\n}} </dev/null 2>&1; echo; echo {mark[:8]}''{mark[8:]} $?\n"
        self._console.sendall(asked.encode())
        deadline, said = time.monotonic() + seconds, b""
        while (end := re.search(rb"\r?\n%s (\d+)\r?\n" % mark.encode(), said)) is None:
            self._console.settimeout(max(deadline - time.monotonic(), 0.001))
            if not (more := self._console.recv(1 << 16)):
                raise AssertionError(f"the machine has gone; it said {said!r}")
            said += more
        return said[: end.start()].decode(errors="replace").replace("\r\n", "\n"), int(end[1])


@contextmanager
def debian(release: str, checkout: Path, place: Path) -> Iterator[Debian]:
    """Make one with waguard's package of that release in ``/root``, and boot it. Skips the test where that cannot be."""
    programs = ("debootstrap", "qemu-system-x86_64", "mke2fs")
    if missing := [name for name in programs if shutil.which(name) is None]:
        pytest.skip(
            f"there is no {', '.join(missing)}: apt-get install debootstrap qemu-system-x86 e2fsprogs"
        )
    if os.geteuid() != 0:
        pytest.skip("only root can make a Debian")
    with ExitStack() as stack:
        stack.callback((place / "disk").unlink, missing_ok=True)
        _make(release, checkout, place)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen(_qemu(place, port), stdin=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        console = place / "console"
        deadline = time.monotonic() + 10
        while not console.exists():
            assert time.monotonic() < deadline, "QEMU did not start"
            time.sleep(0.05)
        machine = Debian(console, port)
        stack.callback(machine.close)
        machine.until_booted()
        yield machine


def _make(release: str, checkout: Path, place: Path) -> None:
    root = place / "root"
    # What it mounts goes with it, however it ends: whoever clears `place` must not get into a procfs.
    said = [
        *("unshare", "--mount", "debootstrap"),
        "--variant=minbase",
        f"--include={','.join(_PACKAGES.split())}",
        release,
        str(root),
        _MIRROR,
    ]
    done = subprocess.run(said, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    if "Failed getting release file" in done.stdout + done.stderr:
        pytest.skip(f"debootstrap does not reach {_MIRROR}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if Path("/", _CERTIFICATES).exists():  # a registry here may have one of its own
        (root / _CERTIFICATES).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path("/", _CERTIFICATES), root / _CERTIFICATES)
    made = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "sessions", "dist")
    shutil.copytree(checkout, root / "src", ignore=shutil.ignore_patterns(*made))
    within(root, "passwd", "--quiet", "--delete", "root")
    within(
        root, "systemctl", "enable", "--quiet", "systemd-networkd", "serial-getty@hvc0", "control@8717.socket"
    )
    within(root, "env", "-C", "/src", "python3", "deb/build.py", "--out", "/root")
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    (initrd,) = (root / "boot").glob("initrd.img-*")
    kernel.rename(place / "kernel")
    initrd.rename(place / "initrd")
    _output(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(place / "disk"), "8G"])
    shutil.rmtree(root)


def within(root: Path, *command: str) -> None:
    """Run a command of that system, here."""
    mounts = 'mount -t proc proc "$1/proc" && mount --bind /dev "$1/dev" && cd "$1" && root=$1 && shift && exec chroot "$root" "$@"'
    _output(["unshare", "--mount", "--pid", "--fork", "sh", "-c", mounts, "sh", str(root), *command])


def _output(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def _qemu(place: Path, port: int) -> list[str]:
    return [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "4096"),
        *("-display", "none", "-monitor", "none", "-device", "virtio-rng-pci"),
        *("-kernel", str(place / "kernel"), "-initrd", str(place / "initrd")),
        *("-append", "root=/dev/vda rw console=ttyS0 mitigations=off panic=5"),
        *("-drive", f"file={place / 'disk'},if=virtio,format=raw,cache=unsafe"),
        *("-nic", f"user,model=virtio,hostfwd=tcp:127.0.0.1:{port}-{_INSIDE}:8717"),
        *("-serial", f"file:{place / 'kernel.log'}"),
        *("-device", "virtio-serial", "-device", "virtconsole,chardev=console"),
        *("-chardev", f"socket,id=console,path={place / 'console'},server=on,wait=off"),
    ]
