"""Where errors become words on stderr and an exit code. No command catches them itself."""

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperGroup

from waguard.cli.exits import ExitCode
from waguard.errors import ConfigError, InvalidClientCode, NoAnswer, NoDaemon, WaguardError
from waguard.system import shortage
from waguard.system.systemd import CONTROL

_LAST_WORDS = 3
"""Lines of what a browser wrote that are shown."""
_BETWEEN_S = 11.0
"""Between two starts that systemd counts: oftener than `StartLimitBurst=` allows, and it drops the pipes of all browsers."""


class Edge(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        checks, as_json = "--check" in ctx.args, "--json" in ctx.args  # gone when it fails
        try:
            return super().invoke(ctx)
        except typer.Abort as aborted:  # at a question: Ctrl-C, or a no
            if not isinstance(aborted.__context__, KeyboardInterrupt):
                raise
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except (WaguardError, OSError, RuntimeError) as caught:
            error = caught if isinstance(caught, WaguardError) else shortage.reached(caught)
            if error is None:
                raise
            starts = ctx.invoked_subcommand == "run" and not checks
            if as_json:
                _tell_scripts(error)
            else:
                _tell(error.code, error.message, error.hint, error.details.get("stderr", ()), starts=starts)
            raise typer.Exit(_exit_code(error, starts=starts)) from None
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def _exit_code(error: WaguardError, *, starts: bool) -> ExitCode:
    # systemd sets INVOCATION_ID for the services it starts, systemd.exec(5).
    if not (starts and "INVOCATION_ID" in os.environ):
        if isinstance(error, NoDaemon | NoAnswer):
            return ExitCode.NO_DAEMON
        return ExitCode.USAGE if isinstance(error, ConfigError | InvalidClientCode) else ExitCode.FAILED
    if _handed_browsers():  # they are up as long as it is tried again
        threading.Event().wait(_BETWEEN_S)
        return ExitCode.FAILED
    return ExitCode.LASTING if error.lasting else ExitCode.FAILED


def _handed_browsers() -> bool:
    """Whether the service manager has handed over pipes of browsers, sd_listen_fds(3)."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and not {"", CONTROL}.issuperset(names)


def _tell_scripts(error: WaguardError) -> None:
    from waguard.api.words import in_shell  # noqa: PLC0415 (only an error needs words)
    from waguard.cli.as_json import print_json  # noqa: PLC0415 (likewise)

    hint = in_shell(error.hint)
    print_json(
        {"code": error.code, "message": error.message, "hint": hint, "details": error.details}, err=True
    )


def _tell(code: str, message: str, hint: str, said: Sequence[str], *, starts: bool) -> None:
    from waguard.api.words import in_shell  # noqa: PLC0415 (only an error needs words)
    from waguard.cli.terminal import errors  # noqa: PLC0415 (likewise)

    console = errors()
    if starts and _logged(code, message, hint, shown=console.is_terminal or code == ConfigError.code):
        return
    for line in (message if code in {"internal", ConfigError.code} else f"{message} [{code}]").splitlines():
        console.print(line, style="red")
    if hint:
        console.print(in_shell(hint))
    for line in said[-_LAST_WORDS:]:
        console.print(f"The browser says: {line}", style="dim")


def _logged(code: str, message: str, hint: str, *, shown: bool) -> bool:
    """Before there is a configuration there is no log either, but for the journal."""
    from waguard.config.sections import Log  # noqa: PLC0415 (only a daemon needs a log)
    from waguard.observe import journal, logs  # noqa: PLC0415 (likewise)
    from waguard.observe.bus import Event  # noqa: PLC0415 (likewise)

    if not shown or journal.is_journal(sys.stderr):
        # It may be a thread that there is none for.
        with suppress(RuntimeError), logs.opened(Log(), sys.stderr) as log:
            log(Event("daemon.failed", "error", None, {"code": code, "error": message, "hint": hint or None}))
            return True
    return False
