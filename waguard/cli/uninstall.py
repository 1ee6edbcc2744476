"""``waguard install --uninstall``: no process is left, no key is lost, and what is removed was ours."""

import errno
import pwd
import select
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from waguard.cli.errors import Undecided
from waguard.cli.layout import (
    CONF_D,
    CONFIG,
    FILES,
    KEYS,
    STATE,
    UNITS,
    USER,
    aside,
    configured,
    is_elsewhere,
    kept_keys,
    refuse_masked,
    sessions,
    shown,
    stranger,
    user,
)
from waguard.cli.steps import Work, failed, is_own, ok, own
from waguard.config.load import fragments
from waguard.system.files import remove_tree, write_atomically

_END_S = 10.0
_CGROUPS = Path("/sys/fs/cgroup")


def uninstall(work: Work, *, keep: bool, purge: bool) -> None:
    """Raises `Undecided`; `ConfigError` if the configuration does not tell where the sessions are."""
    refuse_masked()
    config = configured()
    place = sessions(config)
    if keep == purge and (place.exists() or is_elsewhere(place)):
        raise Undecided(
            f"{place} has the logins of this machine's clients and their snapshots.",
            hint="Choose what becomes of them: --keep-sessions or --purge. See: waguard install --uninstall --purge --dry-run",
        )
    known = [unit for unit in ("waguard.service", "waguard.socket") if ok("systemctl", "cat", unit)]
    if known:
        work.command("systemctl", "disable", "--now", *known)
        work.step(f"end what {UNITS[0]} may have left", _end_all)
        work.command("systemctl", "stop", UNITS[1], needed=ok("systemctl", "is-active", "--quiet", UNITS[1]))
    for path in FILES.values():
        work.step(f"remove {path}", path.unlink, needed=path.exists())
        if aside(path).exists():
            work.step(f"remove {aside(path)}", aside(path).unlink)
    drop_ins = [Path(f"{FILES[unit]}.d") for unit in UNITS]
    if keep:
        _keep(work, place, config.snapshots.key_file, drop_ins)
    else:
        for path in (*drop_ins, STATE, CONFIG.parent):
            work.step(f"remove {path}", partial(remove_tree, path), needed=path.exists())
        if is_elsewhere(place) and place.exists():
            mine = user() and not stranger()
            work.step(f"remove what is {USER}'s in {place}", partial(_remove_own, place), needed=mine)
            if place.exists() and not work.dry_run:
                work.note(f"{place} stays, with what is not {USER}'s. Is it not needed: rm -r {place}")
    work.command("systemctl", "daemon-reload")
    remembered = [unit for unit in UNITS if ok("systemctl", "is-failed", "--quiet", unit)]
    if remembered:
        work.command("systemctl", "reset-failed", *remembered)
    if why := stranger():
        work.note(f"The user {USER} stays, who is not the service's: {why}.")
    elif keep and is_elsewhere(place) and not place.exists():
        work.note(f"The user {USER} stays: what is in {place} belongs to it, and that is not there now.")
    else:  # at the end: it fails while anything runs as this user
        work.command("userdel", USER, needed=user())


def _keep(work: Work, place: Path, key_file: Path | None, drop_ins: Sequence[Path]) -> None:
    """The logins, and the key that opens their snapshots; of the rest what the next install has to know of them."""
    copied = place.is_dir()  # else their disk is away, perhaps
    copy = kept_keys(place)
    work.step(f"keep the key as {copy}", partial(_keep_key, copy, key_file), needed=copied and KEYS.exists())
    # Nobody who is given the user's number next is to have them.
    work.command("chown", "-RH", "root:root", str(STATE), needed=STATE.exists())
    if is_elsewhere(place):
        mine = place.exists() and user() and not stranger()
        work.command("chown", "-RH", f"--from={USER}", "root:root", str(place), needed=mine)
        for path, mode in ((CONFIG, 0o600), (CONF_D, 0o700), *((one, 0o600) for one in fragments(CONFIG))):
            if path.exists() and not is_own(path, mode):
                what = f"make {path} root's: it may say where the sessions are"
                work.step(what, partial(own, path, mode))
    goes = [*([] if is_elsewhere(place) else [*drop_ins, CONFIG, CONF_D]), *([KEYS] if copied else [])]
    stays = [path for path in (*drop_ins, *_beside()) if path.exists() and path not in goes]
    for path in goes:
        remove = partial(remove_tree, path) if path.is_dir() else path.unlink
        work.step(f"remove {path}", remove, needed=path.exists())
    for path in stays:  # keys of another name, perhaps
        work.step(f"remove {path}", lambda: None, needed=False)
    if CONFIG.parent not in {path.parent for path in stays}:
        work.step(f"remove {CONFIG.parent}", CONFIG.parent.rmdir, needed=CONFIG.parent.exists())


def _keep_key(copy: Path, key_file: Path | None) -> None:
    """The service's first. A daemon that was run by hand may have made its own there, and sealed snapshots with it."""
    files = [path for path in (key_file, KEYS, copy) if path is not None and path.exists()]
    lines = [line for path in files for line in path.read_bytes().splitlines()]
    write_atomically(copy, b"".join(line + b"\n" for line in dict.fromkeys(lines)))


def _beside() -> Sequence[Path]:
    """All that is in the configuration's directory, also what is not of our making."""
    return sorted(CONFIG.parent.iterdir()) if CONFIG.parent.exists() else []


def _remove_own(place: Path) -> None:
    """What belongs to the service's user in a directory that may have more, and the directory if that was all."""
    number = pwd.getpwnam(USER).pw_uid
    for path in place.iterdir():
        if path.lstat().st_uid == number:
            remove = remove_tree if path.is_dir() and not path.is_symlink() else Path.unlink
            remove(path)
    if not any(place.iterdir()):
        place.rmdir()


def _end_all() -> None:
    """Kill what a daemon that could not close its browsers has left in the service's cgroup, and see it gone."""
    group = shown("ControlGroup")
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
                    raise failed(f"end what {UNITS[0]} has left", f"{place} still has processes")
                change.poll(left * 1000)
                events.seek(0)
    except OSError as error:  # systemd has removed it meanwhile, since it was empty
        if error.errno not in {errno.ENOENT, errno.ENODEV}:
            raise
