"""The service on this machine: where its things are, and whom it runs as."""

import hashlib
import os
import pwd
import subprocess
from pathlib import Path

import waguard
from waguard.api.problems import Problem
from waguard.cli.steps import COMMAND_S

USER = "waguard"
CONFIG = Path("/etc/waguard/config.toml")
KEYS = Path("/etc/waguard/keys")
STATE = Path("/var/lib/waguard")
SESSIONS = STATE / "sessions"
KEPT_KEYS = SESSIONS / ".backup.keys"
"""Where a daemon without a unit has them, too."""
UNITS = ("waguard.service", "waguard.slice", "waguard.socket")
PACKAGED = Path("/usr/lib/systemd/system")
"""Where a distribution's package has put the units: then they are its business."""
FILES = {
    "waguard.sysusers": Path("/etc/sysusers.d/waguard.conf"),
    "waguard.tmpfiles": Path("/etc/tmpfiles.d/waguard.conf"),
    **{unit: Path("/etc/systemd/system") / unit for unit in UNITS},
}
_WRITTEN = b"# As waguard install wrote it; sha256 of all above: "
"""Begins the last line of each of them. What does not fit it, somebody has changed."""


def shipped(name: str) -> str:
    """A file that comes with the program: in its package, or beside it in a checkout."""
    package = Path(waguard.__file__).parent
    places = (package / "shipped", package.parent / "systemd", package.parent)
    found = next((place / name for place in places if (place / name).is_file()), None)
    if found is None:
        raise Problem(
            "incomplete",
            f"{name} did not come with this program.",
            hint="Install it anew: pipx install waguard",
        )
    return found.read_text(encoding="utf-8")


def written(text: bytes) -> bytes:
    """As `FILES` are written: with the line by which `is_as_written` knows them."""
    return text + _WRITTEN + hashlib.sha256(text).hexdigest().encode() + b"\n"


def is_as_written(data: bytes) -> bool:
    """Whether it is what an install wrote, whichever version's, and nobody has changed it since."""
    return written(data.rpartition(_WRITTEN)[0]) == data


def aside(path: Path) -> Path:
    """Where what somebody has changed is kept; systemd reads no file of such a name."""
    return path.with_name(f"{path.name}.before-waguard")


def is_packaged() -> bool:
    return (PACKAGED / UNITS[0]).exists()


def refuse_masked() -> None:
    """Raises `Problem` if somebody has forbidden what is to be written or started, systemctl(1)."""
    for name, path in FILES.items():
        counts = name == UNITS[0] or not is_packaged()
        if counts and path.is_symlink() and path.resolve() == Path(os.devnull):
            unmask = f"systemctl unmask {name}" if name in UNITS else f"rm {path}"
            what = f"{path} is masked: a link to {os.devnull}. Nothing was changed."
            raise Problem("masked", what, hint=f"{unmask}, then again.")


def shown(property_: str, unit: str = UNITS[0]) -> str:
    """What systemd has of a unit, systemctl(1)."""
    command = ["systemctl", "show", unit, f"--property={property_}", "--value"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    return done.stdout.strip()


def user() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True
