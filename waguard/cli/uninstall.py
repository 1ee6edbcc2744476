"""``waguard install --uninstall``: no process is left, no key is lost, and what is removed was ours."""

import errno
import select
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from waguard.api.problems import Problem
from waguard.cli import show
from waguard.cli.service import (
    CONFIG,
    FILES,
    KEPT_KEYS,
    KEYS,
    SESSIONS,
    STATE,
    UNITS,
    USER,
    aside,
    refuse_masked,
    shown,
    stranger,
    user,
)
from waguard.cli.steps import Work, failed, ok
from waguard.files import remove_tree, write_atomically

_END_S = 10.0
_CGROUPS = Path("/sys/fs/cgroup")


def uninstall(work: Work, *, keep: bool, purge: bool) -> None:
    refuse_masked()
    if keep == purge and SESSIONS.exists():
        raise Problem(
            "ambiguous",
            f"{SESSIONS} has the logins of this machine's clients and their snapshots.",
            hint="Say what is to become of them: --keep-sessions or --purge. See: waguard install --uninstall --purge --dry-run",
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
    for path in [*drop_ins, *([STATE] if not keep else ())]:
        work.step(f"remove {path}", partial(remove_tree, path), needed=path.exists())
    work.command("systemctl", "daemon-reload")
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
    if why := stranger():
        show.output().print(f"The user {USER} stays, who is not the service's: {why}.")
    else:  # at the end: it fails while anything runs as this user
        work.command("userdel", USER, needed=user())


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
