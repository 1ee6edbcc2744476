"""The service of this machine, as its unit has it: for commands that are run beside it and are to see what it sees."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from waguard.cli.errors import SystemdFailed
from waguard.config.load import ENV_FILE, SEARCHED, Loaded, load

UNIT, SOCKET = "waguard.service", "waguard.socket"
LOCK = ".daemon.lock"
"""The daemon's, in its sessions directory."""
_ANSWER_S = 10.0
BOOTED = Path("/run/systemd/system")
"""There when systemd has started this machine, sd_booted(3)."""
_STORE = Path("/etc/credstore")
"""Where systemd looks first for a credential that is named without a path, systemd.exec(5)."""
_SHOWN = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NRestarts",
    "User",
    "Group",
    "Environment",
    "NFileDescriptorStore",
    "Listen",
    "FragmentPath",
    "DropInPaths",
)


@dataclass(frozen=True, slots=True)
class Service:
    user: str
    group: str
    state: str
    """``active``, ``inactive``, ``failed``, ``activating`` (also while it is tried again) and so on."""
    environment: Mapping[str, str]
    credentials: Mapping[str, Path]
    """Where systemd takes what it hands to the service, by name."""
    kept_fds: int
    listens: str
    """What the socket unit has open; empty if it is not up."""
    enabled: bool = False
    """Started with the machine."""
    restarts: int = 0
    """How often systemd has started it again by itself."""

    def reads(self, path: Path | None) -> bool:
        """Whether this is its configuration."""
        own = Path(self.environment.get(ENV_FILE, SEARCHED[-1]))
        return path is not None and path.resolve() == own.resolve()

    def keeps(self, port: int) -> bool:
        """Whether systemd may hold the control port for it, also while no daemon runs."""
        return self.kept_fds > 0 or re.search(rf":{port} \(", self.listens) is not None


def configured(path: Path | None, environ: Mapping[str, str] = os.environ) -> tuple[Loaded, Service | None]:
    """The configuration and, if it is the service's, the service: then with its unit's variables, below those of the caller.

    Raises `ConfigError`, and `SystemdFailed` as `installed` does.
    """
    loaded = load(path, environ)
    service = installed()
    if service is None or not service.reads(loaded.path):
        return loaded, None
    return load(path, {**service.environment, **environ}), service


def installed() -> Service | None:
    """The service; none where there is no such unit, or no systemd.

    Raises `SystemdFailed` if it cannot be told; only root has to be.
    """
    if shutil.which("systemctl") is None or not BOOTED.is_dir():
        return None
    command = ["systemctl", "show", UNIT, SOCKET, *(f"--property={name}" for name in _SHOWN)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
        if done.returncode != 0:
            raise OSError(done.stderr.strip())
        unit, socket = map(_properties, done.stdout.split("\n\n"))
        # `systemctl show` cannot print LoadCredential=.
        files = [unit["FragmentPath"], *_words(unit["DropInPaths"])] if unit["LoadState"] == "loaded" else []
        texts = [Path(file).read_text(encoding="utf-8") for file in files]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        if os.geteuid() != 0:
            return None
        raise SystemdFailed(
            f"The settings of {UNIT} cannot be read: systemctl show: {error}",
            hint="Ask the daemon itself, with --url and WAGUARD_TOKEN.",
        ) from None
    if not texts:
        return None
    return Service(
        user=unit["User"] or "root",
        group=unit["Group"],
        state=unit["ActiveState"],
        environment=dict(word.split("=", 1) for word in _words(unit["Environment"])),
        credentials=_credentials(texts),
        kept_fds=int(unit["NFileDescriptorStore"]),
        listens=socket.get("Listen", "") if socket["ActiveState"] == "active" else "",
        enabled=unit.get("UnitFileState", "") == "enabled",
        restarts=int(unit.get("NRestarts") or 0),
    )


def start(service: Service | None) -> str:
    """The command that starts the daemon. As root, `waguard run` would make files that the service cannot read."""
    return "systemctl start waguard" if service is not None else "waguard run"


def _properties(shown: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in shown.splitlines() if "=" in line)
    return {name: value for name, _, value in pairs}


def _words(shown: str) -> list[str]:
    """A list as `systemctl show` prints it, quoted as for a shell where needed."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', shown)
    return [bare or re.sub(r"\\(.)", r"\1", quoted) for quoted, bare in found]


def _credentials(texts: Iterable[str]) -> dict[str, Path]:
    """The unit's ``LoadCredential=`` and its drop-ins': an empty one undoes those before it."""
    found: dict[str, Path] = {}
    text = "\n".join(texts).replace("\\\n", " ")
    for value in re.findall(r"(?m)^[ \t]*LoadCredential(?:Encrypted)?[ \t]*=[ \t]*(.*?)[ \t]*$", text):
        name, _, path = value.partition(":")
        if name:
            found[name] = _STORE / (path or name)
        else:
            found.clear()
    return found
