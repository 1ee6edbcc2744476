"""What ``waguard install`` does, step by step: done, not needed, or, in a dry run, only said."""

import subprocess
from collections.abc import Callable, Sequence

from waguard.api.problems import Problem
from waguard.cli import show

COMMAND_S = 120.0


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
                raise failed(what, error.strerror or str(error)) from None
            self._out.print(f"  done      {what}", style="green")
        return needed

    def command(self, *command: str, needed: bool = True) -> bool:
        return self.step(" ".join(command), lambda: run(command), needed=needed)


def ok(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=COMMAND_S, check=False).returncode == 0


def run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except subprocess.TimeoutExpired:
        raise failed(" ".join(command), f"it took longer than {COMMAND_S:g} s") from None
    if done.returncode != 0:
        raise failed(" ".join(command), (done.stderr.strip() or done.stdout.strip() or "it said nothing"))


def failed(what: str, why: str) -> Problem:
    return Problem(
        "install_failed",
        f"{what}: {why}",
        hint="What was done before it stays; run it again when it is mended.",
    )
