"""What an install puts where, and whom the service runs as."""

import grp
import hashlib
import os
import pwd
import shlex
import subprocess
from pathlib import Path

import waguard
from waguard.cli.errors import OtherUser, PackageIncomplete, UnitMasked
from waguard.cli.service import installed
from waguard.cli.steps import COMMAND_S
from waguard.config.load import ENV_FILE, FRAGMENTS, load
from waguard.config.sections import Config
from waguard.snapshots import keys

USER = "waguard"
CONFIG = Path("/etc/waguard/config.toml")
CONF_D = CONFIG.with_name(FRAGMENTS)
KEYS = Path("/etc/waguard/keys")
STATE = Path("/var/lib/waguard")
SESSIONS = STATE / "sessions"
UNITS = ("waguard.service", "waguard.slice", "waguard.socket")
PACKAGED = Path("/usr/lib/systemd/system")
"""Where a distribution's package has put the units: then they are its business."""
SCHEMA = Path("/usr/share/waguard/config.schema.json")
"""Where it has put the schema of the configuration."""
FILES = {
    "waguard.sysusers": Path("/etc/sysusers.d/waguard.conf"),
    "waguard.tmpfiles": Path("/etc/tmpfiles.d/waguard.conf"),
    **{unit: Path("/etc/systemd/system") / unit for unit in UNITS},
}
_WRITTEN = b"# As waguard install wrote it; sha256 of all above: "
"""Begins the last line of each of them. What does not fit it, somebody has changed."""


def configured() -> Config:
    """What the service goes by: its file, and the variables that its unit sets. Raises `ConfigError`, `PackageIncomplete`."""
    service = installed()
    environ = service.environment if service is not None else {}
    file = Path(environ.get(ENV_FILE, CONFIG))
    return load(file if file.exists() else Path(os.devnull), environ).config


def sessions(config: Config) -> Path:
    """Where they really are: a relative path counts from the unit's WorkingDirectory=."""
    return (STATE / config.sessions.dir).resolve()


def is_elsewhere(sessions: Path) -> bool:
    """Whether they are where only the configuration or a link says so."""
    return not sessions.is_relative_to(STATE.resolve())


def kept_keys(sessions: Path) -> Path:
    """Where keys are when there is no service; a daemon without a unit has its own there, too."""
    return keys.place(None, sessions, {})


def shipped(name: str) -> str:
    """The text of a file that comes with the program."""
    return shipped_file(name).read_text(encoding="utf-8")


def shipped_file(name: str) -> Path:
    """In the program's package, or beside it in a checkout. Raises `PackageIncomplete`."""
    package = Path(waguard.__file__).parent
    beside = ("systemd", "docs/reference", "")
    places = (package / "shipped", *(package.parent / directory for directory in beside))
    found = next((place / name for place in places if (place / name).is_file()), None)
    if found is None:
        raise PackageIncomplete(
            f"{name} did not come with this program.",
            hint="Install it again: pipx install waguard",
        )
    return found


def schema() -> Path:
    """The JSON Schema of the configuration, for editors."""
    return SCHEMA if is_packaged() else shipped_file(SCHEMA.name)


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
    """Raises `UnitMasked` if somebody has forbidden what is to be written or started, systemctl(1)."""
    for name, path in FILES.items():
        counts = name == UNITS[0] or not is_packaged()
        if counts and path.is_symlink() and path.resolve() == Path(os.devnull):
            unmask = f"systemctl unmask {name}" if name in UNITS else f"rm {path}"
            what = f"{path} is masked: a link to {os.devnull}. Nothing was changed."
            raise UnitMasked(what, hint=f"{unmask}, then again.")


def shown(property_: str, unit: str = UNITS[0]) -> str:
    """What systemd has of a unit, systemctl(1)."""
    command = ["systemctl", "show", unit, f"--property={property_}", "--value"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    return done.stdout.strip()


def user() -> bool:
    """Whether there is one of our name, the service's or not."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def stranger() -> str:
    """What shows that the user of our name is somebody else; nothing if it is the service's, or there is none."""
    if not user():
        return ""
    there = pwd.getpwnam(USER)
    *_, home, shell = shlex.split(shipped("waguard.sysusers").splitlines()[-1])
    try:
        group = grp.getgrgid(there.pw_gid).gr_name
    except KeyError:
        group = str(there.pw_gid)
    seen = (("home", there.pw_dir, home), ("shell", there.pw_shell, shell), ("group", group, USER))
    return ", ".join(f"its {what} is {has} and not {should}" for what, has, should in seen if has != should)


def refuse_stranger() -> None:
    """Raises `OtherUser` if the user of our name is not the service's."""
    if why := stranger():
        raise OtherUser(
            f"There is a user {USER} who is not the service's: {why}. Nothing was changed.",
            hint=f"Is it a person's, rename it: usermod --login OTHER {USER}; groupmod --new-name OTHER {USER}. Is it to be the "
            f"service's: groupadd --force --system {USER}; usermod --home {STATE} --shell /usr/sbin/nologin --gid {USER} {USER}. "
            "Then again.",
        )
