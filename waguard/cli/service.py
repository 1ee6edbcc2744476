"""The service on this machine: where its things are, and whom it runs as."""

import pwd
from pathlib import Path

import waguard
from waguard.api.problems import Problem

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


def user() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True
