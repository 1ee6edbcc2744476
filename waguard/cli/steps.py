"""What ``waguard install`` does, step by step: done, not needed, or, in a dry run, only said."""

import grp
import os
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from waguard.cli import terminal
from waguard.cli.errors import InstallFailed
from waguard.errors import DiskFull, StorageFailed
from waguard.system.files import replacing

COMMAND_S = 120.0
AGAIN = "Finished steps stay; run it again once this is fixed."


class Work:
    """Does each step that is needed, or says that it would, in a line each; ``quiet``: only notes it."""

    def __init__(self, *, dry_run: bool, quiet: bool = False) -> None:
        self.dry_run = dry_run
        self.steps: list[Mapping[str, str]] = []
        """Each with its outcome: ``as_it_is``, ``would`` or ``done``."""
        self.notes: list[str] = []
        self._out = terminal.output()
        self._quiet = quiet

    def step(self, what: str, do: Callable[[], object], *, needed: bool = True) -> bool:
        """Returns whether something has changed."""
        if not needed:
            self._told("as_it_is", what, "dim")
        elif self.dry_run:
            self._told("would", what, "yellow")
        else:
            try:
                do()
            except OSError as error:
                raise failed(what, error.strerror or str(error)) from None
            except (DiskFull, StorageFailed) as error:
                raise InstallFailed(error.message, hint=AGAIN) from None
            self._told("done", what, "green")
        return needed

    def _told(self, outcome: str, what: str, style: str) -> None:
        self.steps.append({"outcome": outcome, "step": what})
        if not self._quiet:
            self._out.print(f"  {outcome.replace('_', ' '):<9} {what}", style=style)

    def note(self, text: str, style: str = "") -> None:
        """What there is to know beside the steps."""
        self.notes.append(text.strip())
        if not self._quiet:
            self._out.print(text, style=style)

    def command(self, *command: str, needed: bool = True) -> bool:
        return self.step(" ".join(command), lambda: run(command), needed=needed)


def ok(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=COMMAND_S, check=False).returncode == 0


def run(command: Sequence[str], codes: Sequence[int] = (0,)) -> str:
    """What it says on stdout. Raises `InstallFailed` if it ends with another code."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except subprocess.TimeoutExpired:
        raise failed(" ".join(command), f"it took longer than {COMMAND_S:g} s") from None
    if done.returncode not in codes:
        raise failed(" ".join(command), (done.stderr.strip() or done.stdout.strip() or "it wrote nothing"))
    return done.stdout


def failed(what: str, why: str) -> InstallFailed:
    return InstallFailed(f"{what}: {why}", hint=AGAIN)


def write(path: Path, data: bytes, mode: int = 0o644, group: str = "root") -> None:
    """Whole or not at all, root's from the start, and in the place of a link, not through it.

    Raises `DiskFull`, `StorageFailed`, and `OSError` for its directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        os.fchown(file.fileno(), 0, grp.getgrnam(group).gr_gid)
        os.fchmod(file.fileno(), mode)
        file.write(data)


def own(path: Path, mode: int, group: str = "root") -> None:
    """Give it to root and the group. Raises `OSError`."""
    os.chown(path, 0, grp.getgrnam(group).gr_gid, follow_symlinks=False)
    path.chmod(mode)


def is_own(path: Path, mode: int, group: str = "root") -> bool:
    """Whether `own` would change nothing; a link is somebody's decision. Raises `OSError`."""
    there = path.lstat()
    try:
        owners = (0, grp.getgrnam(group).gr_gid)
    except KeyError:  # the group is yet to be made
        return False
    return stat.S_ISLNK(there.st_mode) or (
        (there.st_uid, there.st_gid) == owners and stat.S_IMODE(there.st_mode) == mode
    )
