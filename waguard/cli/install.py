"""``waguard install``: the service's user, directories, key, configuration and units; ``--uninstall`` takes them away again.

Each step looks first, so a second run changes nothing, and a dry run says exactly what would be done.
"""

import errno
import grp
import os
import pwd
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import waguard
from waguard.api.problems import Problem
from waguard.backup import keys
from waguard.cli import show
from waguard.files import remove_tree, write_atomically

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
_COMMAND_S = 120.0
_END_S = 10.0
_HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 (nothing is put there)
"""What the unit's ProtectHome= and PrivateTmp= hide from the service, systemd.exec(5)."""
_BOOTED = Path("/run/systemd/system")
"""There when systemd has started this machine, sd_booted(3)."""
_CGROUPS = Path("/sys/fs/cgroup")


class Work:
    """Does each step that is needed, or says that it would, in a line each."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self._out = show.output()

    def step(self, what: str, do: Callable[[], object], *, needed: bool = True) -> bool:
        """Returns whether something has changed."""
        if not needed:
            self._out.print(f"  as it is  {what}", style="dim")
        elif self.dry_run:
            self._out.print(f"  would     {what}", style="yellow")
        else:
            try:
                do()
            except OSError as error:
                raise _failed(what, error.strerror or str(error)) from None
            self._out.print(f"  done      {what}", style="green")
        return needed

    def command(self, *command: str, needed: bool = True) -> bool:
        return self.step(" ".join(command), lambda: _run(command), needed=needed)


def install(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    start: Annotated[bool, typer.Option(help="Start it now, and with the machine.")] = True,
    program: Annotated[
        str, typer.Option(help="What the unit starts; by default this program.", show_default=False)
    ] = "",
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Take it all away again.")] = False,
    keep_sessions: Annotated[
        bool, typer.Option("--keep-sessions", help="With --uninstall: leave the logins and their snapshots.")
    ] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="With --uninstall: the logins and their snapshots too, for good.")
    ] = False,
) -> None:
    """Make it a systemd service of this machine: user, directories, key, configuration, units. Run it as root; again at will."""
    if os.geteuid() != 0:  # a dry run too: what there is, only root can see
        raise Problem("not_root", "Only root can install a service.", hint="sudo waguard install")
    if shutil.which("systemctl") is None or not _BOOTED.is_dir():
        raise Problem("no_systemd", "No systemd runs this machine.", hint="Run it as it is: waguard run")
    work = Work(dry_run=dry_run)
    if uninstall:
        _uninstall(work, keep=keep_sessions, purge=purge)
    else:
        _install(work, _given(program) if program else _program(), start=start)


def _install(work: Work, program: str, *, start: bool) -> None:
    packaged = (PACKAGED / UNITS[0]).exists()
    changed = False
    for name, path in FILES.items() if not packaged else ():
        text = shipped(name).replace("/usr/bin/waguard", program)
        changed |= work.step(f"write {path}", partial(_write, path, text), needed=_differs(path, text))
    work.command("systemd-sysusers", "waguard.conf", needed=not _user())
    # Logins that an earlier service has left are root's.
    work.command(
        "chown", "-R", f"{USER}:{USER}", str(STATE), needed=STATE.exists() and STATE.stat().st_uid == 0
    )
    made = STATE.is_dir() and CONFIG.parent.is_dir()
    work.command("systemd-tmpfiles", "--create", "waguard.conf", needed=not made)
    work.step(f"write {CONFIG}", _configure, needed=not CONFIG.exists())
    work.step(
        f"make {KEYS}: keep a copy elsewhere, no snapshot opens without it",
        _make_key,
        needed=not KEYS.exists(),
    )
    work.command("systemctl", "daemon-reload", needed=changed)
    words = program.split()
    work.command("runuser", "-u", USER, "--", *words, "--config", str(CONFIG), "doctor")
    running = _ok("systemctl", "is-active", "--quiet", UNITS[0])
    if start:
        enabled = running and _ok("systemctl", "is-enabled", "--quiet", UNITS[0])
        work.command("systemctl", "enable", "--now", UNITS[0], needed=not enabled)
    if running and changed:
        show.output().print("It goes on as it was. For units that have changed: systemctl restart waguard")
    elif not work.dry_run:
        show.output().print(
            f"Its log: journalctl -u waguard. The admin's token: {program} --config {CONFIG} token"
        )


def _uninstall(work: Work, *, keep: bool, purge: bool) -> None:
    if keep == purge and SESSIONS.exists():
        raise Problem(
            "ambiguous",
            f"{SESSIONS} has the logins of this machine's clients and their snapshots.",
            hint="Say what is to become of them: --keep-sessions or --purge. See: waguard install --uninstall --purge --dry-run",
        )
    known = [unit for unit in ("waguard.service", "waguard.socket") if _ok("systemctl", "cat", unit)]
    if known:
        work.command("systemctl", "disable", "--now", *known)
        work.step(f"end what {UNITS[0]} may have left", _end_all)
        work.command("systemctl", "stop", UNITS[1], needed=_ok("systemctl", "is-active", "--quiet", UNITS[1]))
    for path in FILES.values():
        work.step(f"remove {path}", path.unlink, needed=path.exists())
    drop_ins = [Path(f"{FILES[unit]}.d") for unit in UNITS]
    for path in [*drop_ins, *([STATE] if not keep else ())]:
        work.step(f"remove {path}", partial(remove_tree, path), needed=path.exists())
    if keep and SESSIONS.exists():
        work.step(f"keep the key as {KEPT_KEYS}", _keep_key, needed=KEYS.exists())
        # Nobody who is given the user's number next is to have them.
        work.command("chown", "-R", "root:root", str(STATE))
        others = _others()
        for path in (CONFIG, KEYS):
            work.step(f"remove {path}", path.unlink, needed=path.exists())
        if others:  # keys of another name, perhaps
            work.step(f"remove {', '.join(map(str, others))}", lambda: None, needed=False)
        else:
            work.step(f"remove {CONFIG.parent}", CONFIG.parent.rmdir, needed=CONFIG.parent.exists())
    else:
        work.step(
            f"remove {CONFIG.parent}", lambda: remove_tree(CONFIG.parent), needed=CONFIG.parent.exists()
        )
    work.command("userdel", USER, needed=_user())
    work.command("systemctl", "daemon-reload")


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


def _given(program: str) -> str:
    """As it can stand in a unit, which knows neither directories of ours nor quotes."""
    path = Path(program)
    if not path.is_absolute() or not path.is_file() or not os.access(path, os.X_OK):
        raise Problem("unreachable", f"{program} is no program.", hint="Name it by its whole path.")
    return _plain(program)


def _plain(program: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9 /._+@=-]+", program) or " " in program.removesuffix(" -m waguard"):
        raise Problem(
            "unreachable", f"{program!r} cannot stand in a unit.", hint="Install it elsewhere: /opt/waguard"
        )
    return program


def _program() -> str:
    """What starts this program, as a unit has to write it."""
    started = Path(sys.argv[0])
    program = str(started.absolute()) if os.access(started, os.X_OK) else f"{sys.executable} -m waguard"
    for needed in (
        Path(program.split()[0]),
        Path(sys.executable).resolve(),
        Path(waguard.__file__).resolve(),
    ):
        if any(needed.is_relative_to(place) for place in _HIDDEN):
            raise Problem(
                "unreachable",
                f"{needed} is in somebody's home or a place for temporary files, where no service can reach it.",
                hint="Install it for all: sudo PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install waguard",
            )
    return _plain(program)


def _configure() -> None:
    own = f'dir = "{SESSIONS}"'
    text = shipped("config.toml").replace('# dir = "sessions"', own)
    assert own in text  # noqa: S101 (tests/test_packaging.py)
    _write(CONFIG, text)
    CONFIG.chmod(0o640)
    os.chown(CONFIG, 0, grp.getgrnam(USER).gr_gid)


def _make_key() -> None:
    """A new one, unless an earlier service has left its own beside what it has sealed."""
    if KEPT_KEYS.exists():
        write_atomically(KEYS, KEPT_KEYS.read_bytes())
        KEPT_KEYS.unlink()
    keys.load(KEYS, make=True)


def _keep_key() -> None:
    """The service's first. A daemon that was run by hand may have made its own there, and sealed snapshots with it."""
    lines = [line for path in (KEYS, KEPT_KEYS) if path.exists() for line in path.read_bytes().splitlines()]
    write_atomically(KEPT_KEYS, b"".join(line + b"\n" for line in dict.fromkeys(lines)))


def _others() -> Sequence[Path]:
    """What is beside the configuration and is not of our making."""
    if not CONFIG.parent.exists():
        return []
    return sorted(path for path in CONFIG.parent.iterdir() if path not in {CONFIG, KEYS})


def _end_all() -> None:
    """Kill what a daemon that could not close its browsers has left in the service's cgroup, and see it gone."""
    shown = ["systemctl", "show", UNITS[0], "--property=ControlGroup", "--value"]
    group = subprocess.run(
        shown, capture_output=True, text=True, timeout=_COMMAND_S, check=False
    ).stdout.strip()
    place = _CGROUPS / group.lstrip("/")
    if not group.endswith(UNITS[0]) or not (place / "cgroup.kill").exists():
        return
    deadline = time.monotonic() + _END_S
    try:
        (place / "cgroup.kill").write_text("1", encoding="ascii")
        with (place / "cgroup.events").open(encoding="ascii") as events:
            change = select.poll()
            change.register(events, select.POLLPRI)
            while "populated 1" in events.read():
                if (left := deadline - time.monotonic()) <= 0:
                    raise _failed(f"end what {UNITS[0]} has left", f"{place} still has processes")
                change.poll(left * 1000)
                events.seek(0)
    except OSError as error:  # systemd has removed it meanwhile, since it was empty
        if error.errno not in {errno.ENOENT, errno.ENODEV}:
            raise


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != text


def _user() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def _ok(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=_COMMAND_S, check=False).returncode == 0


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except subprocess.TimeoutExpired:
        raise _failed(" ".join(command), f"it took longer than {_COMMAND_S:g} s") from None
    if done.returncode != 0:
        raise _failed(" ".join(command), (done.stderr.strip() or done.stdout.strip() or "it said nothing"))


def _failed(what: str, why: str) -> Problem:
    return Problem(
        "install_failed",
        f"{what}: {why}",
        hint="What was done before it stays; run it again when it is mended.",
    )
