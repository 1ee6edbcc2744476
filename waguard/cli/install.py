"""``waguard install``: the service's user, directories, key, configuration and units; ``--uninstall`` takes them away again.

Each step looks first, so a second run changes nothing, and a dry run says exactly what would be done.
"""

import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

import waguard
from waguard.cli import uninstall as taking_away
from waguard.cli.as_json import Json, print_json
from waguard.cli.checks import CheckResult, Grade
from waguard.cli.errors import InstallFailed, KeyLost, NoSystemd, NotRoot, NoUninstall, ProgramUnfit
from waguard.cli.exits import ExitCode
from waguard.cli.layout import (
    CONF_D,
    CONFIG,
    FILES,
    KEYS,
    SCHEMA,
    SESSIONS,
    STATE,
    UNITS,
    USER,
    aside,
    configured,
    is_as_written,
    is_elsewhere,
    is_packaged,
    kept_keys,
    refuse_masked,
    refuse_stranger,
    schema,
    sessions,
    shipped,
    shown,
    user,
    written,
)
from waguard.cli.service import BOOTED, LOCK
from waguard.cli.steps import AGAIN, Work, failed, is_own, ok, own, run, write
from waguard.config.load import fragments
from waguard.config.sections import Config
from waguard.snapshots import keys
from waguard.system.files import write_atomically

_HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 (nothing is put there)
"""What the unit's ProtectHome= and PrivateTmp= hide from the service, systemd.exec(5)."""


def install(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be done.")] = False,
    start: Annotated[bool, typer.Option(help="Start it now, and with the machine.")] = True,
    program: Annotated[
        str, typer.Option(help="What the unit starts; by default this program.", show_default=False)
    ] = "",
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Uninstall it.")] = False,
    keep_sessions: Annotated[
        bool, typer.Option("--keep-sessions", help="With --uninstall: leave the logins and their snapshots.")
    ] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="With --uninstall: the logins and their snapshots too, for good.")
    ] = False,
    json: Json = False,
) -> None:
    """Make it a systemd service of this machine: user, directories, key, configuration, units. Run it as root; again at will."""
    if (keep_sessions or purge) and not uninstall:
        option = "--purge" if purge else "--keep-sessions"
        raise NoUninstall(
            f"{option} belongs to --uninstall, which was not given. Nothing was changed.",
            hint=f"To uninstall: waguard install --uninstall {option}",
        )
    if os.geteuid() != 0:  # a dry run too: what there is, only root can see
        raise NotRoot("Only root can install a service.", hint="sudo waguard install")
    if shutil.which("systemctl") is None or not BOOTED.is_dir():
        raise NoSystemd("No systemd runs this machine.", hint="Run it as it is: waguard run")
    work = Work(dry_run=dry_run, quiet=json)
    try:
        if uninstall:
            taking_away.uninstall(work, keep=keep_sessions, purge=purge)
        else:
            _install(work, _given(program) if program else _program(), start=start)
    finally:  # what was done is told also where the next step fails
        if json:
            print_json({"dry_run": dry_run, "steps": work.steps, "notes": work.notes})


def _install(work: Work, program: str, *, start: bool) -> None:
    refuse_masked()
    refuse_stranger()
    config = configured()
    place = sessions(config)
    kept = kept_keys(place)
    _refuse_lost_key(config, place)
    changed = False
    for name, path in FILES.items() if not is_packaged() else ():
        text = written(shipped(name).replace("/usr/bin/waguard", program).encode())
        there = path.read_bytes() if path.exists() else None
        if there is not None and there != text and not is_as_written(there):
            keep = f"keep {path}, which was changed, as {aside(path).name}"
            work.step(keep, partial(write, aside(path), there, path.stat().st_mode & 0o777))
        changed |= work.step(f"write {path}", partial(write, path, text), needed=there != text)
    work.command("systemd-sysusers", "waguard.conf", needed=not user())
    # Logins that an earlier service has left are root's.
    whom = f"{USER}:{USER}"
    work.command("chown", "-RH", whom, str(STATE), needed=STATE.exists() and STATE.stat().st_uid == 0)
    if is_elsewhere(place):
        lock = place / LOCK
        left = lock.exists() and lock.stat().st_uid == 0
        work.command("chown", "-RH", "--from=root", whom, str(place), needed=left)
    ours = (CONFIG.parent, CONF_D)
    made = STATE.is_dir() and all(one.is_dir() and is_own(one, 0o750, USER) for one in ours)
    work.command("systemd-tmpfiles", "--create", "waguard.conf", needed=not made)
    work.step(f"write {CONFIG}", _configure, needed=not CONFIG.exists())
    work.step(
        f"make {KEYS}: keep a copy elsewhere, no snapshot opens without it",
        partial(_make_key, kept),
        needed=not KEYS.exists(),
    )
    configuring = [(path, 0o640, USER) for path in (CONFIG, *fragments(CONFIG))]
    for path, mode, group in (*configuring, (KEYS, 0o600, "root")):
        if path.exists() and not is_own(path, mode, group):  # not as just written
            work.step(f"make {path} root:{group}'s, mode {mode:o}", partial(own, path, mode, group))
    # An install before may have been cut off just here.
    changed = changed or any(shown("NeedDaemonReload", unit) == "yes" for unit in UNITS)
    work.command("systemctl", "daemon-reload", needed=changed)
    words = program.split()
    _examine(work, "runuser", "-u", USER, "--", *words, "--config", str(CONFIG), "doctor", "--json")
    running = ok("systemctl", "is-active", "--quiet", UNITS[0])
    if start:
        enabled = running and ok("systemctl", "is-enabled", "--quiet", UNITS[0])
        work.command("systemctl", "enable", "--now", UNITS[0], needed=not enabled)
    if status := shown("StatusText"):
        work.note(f"Running now: {status}")
    if running and changed:
        work.note("It goes on as it was. For units that have changed: systemctl restart waguard")
    elif not work.dry_run:
        work.note(f"Its log: journalctl -u waguard. The admin's token: {program} --config {CONFIG} token")


def _examine(work: Work, *command: str) -> None:
    """Shows what `doctor` does not find well. Raises `InstallFailed` if the service could not work with it."""
    lacks: list[CheckResult] = []

    def look() -> None:
        try:
            found = TypeAdapter(list[CheckResult]).validate_json(
                run(command, codes=(ExitCode.DONE, ExitCode.FOUND))
            )
        except ValidationError:
            raise failed(" ".join(command), "it reported nothing") from None
        lacks.extend(one for one in found if one.grade is not Grade.OK)

    work.step(" ".join(command), look)
    for lack in lacks:
        work.note(f"  {lack.grade.value:<9} {lack.check}: {lack.seen}", style="bold yellow")
        if lack.hint:
            work.note(f"            -> {lack.hint}")
    if any(lack.grade is Grade.PROBLEM for lack in lacks):
        raise InstallFailed("The service could not work here: see the problems above.", hint=AGAIN)


def _given(program: str) -> str:
    """As it can stand in a unit, which knows neither directories of ours nor quotes."""
    path = Path(program)
    if not path.is_absolute() or not path.is_file() or not os.access(path, os.X_OK):
        raise ProgramUnfit(f"{program} is no program.", hint="Name it by its whole path.")
    _plain(program)
    _refuse_hidden(path)
    return program


def _plain(program: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9 /._+@=-]+", program) or " " in program.removesuffix(" -m waguard"):
        raise ProgramUnfit(f"{program!r} cannot stand in a unit.", hint="Install it elsewhere: /opt/waguard")
    return program


def _program() -> str:
    """What starts this program, as a unit has to write it."""
    started = Path(sys.argv[0])
    program = str(started.absolute()) if os.access(started, os.X_OK) else f"{sys.executable} -m waguard"
    _refuse_hidden(Path(program.split()[0]), Path(sys.executable), Path(waguard.__file__))
    return _plain(program)


def _refuse_hidden(*needed: Path) -> None:
    """Raises `ProgramUnfit` if the service would not see one of them, or where a link leads."""
    for path in (*needed, *(one.resolve() for one in needed)):
        if any(path.is_relative_to(place) for place in _HIDDEN):
            raise ProgramUnfit(
                f"{path} is in somebody's home or a place for temporary files, where no service can reach it.",
                hint="Install it for all: sudo PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install waguard",
            )


def _configure() -> None:
    text = shipped("config.toml")
    for ours, becomes in (
        ('# dir = "sessions"', f'dir = "{SESSIONS}"'),
        (f"#:schema ./docs/reference/{SCHEMA.name}", f"#:schema {schema().as_uri()}"),
    ):
        text = text.replace(ours, becomes)
        assert becomes in text  # noqa: S101 (tests/test_packaging.py)
    write(CONFIG, text.encode(), 0o640, USER)


def _refuse_lost_key(config: Config, place: Path) -> None:
    """Raises `KeyLost` if there are snapshots, and the key that opens them is gone: a new one would not."""
    there = config.snapshots.key_file is not None or KEYS.exists() or kept_keys(place).exists()
    snapshots = place / ".backups"
    if not there and any(path.is_file() for path in snapshots.rglob("*")):
        raise KeyLost(
            f"There are snapshots in {snapshots}, and the key that opens them is gone: {KEYS}. Nothing was changed.",
            hint=f"Put its copy there: install -D -m 600 COPY {KEYS}. Is there none, give them up: rm -r {snapshots}. Then again.",
        )


def _make_key(kept: Path) -> None:
    """A new one, unless an earlier service has left its own beside what it has sealed."""
    if kept.exists():
        keys.load(kept, make=False)  # and is no link that somebody has put there to see another file
        write_atomically(KEYS, kept.read_bytes())
        kept.unlink()
    keys.load(KEYS, make=True)
