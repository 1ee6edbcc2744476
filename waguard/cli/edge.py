"""Where errors become words on stderr and an exit code. No command catches them itself."""

import json
import os
from datetime import UTC, datetime
from typing import Any

import typer
from typer.core import TyperGroup

from waguard.api.problems import code_of
from waguard.cli.show import errors
from waguard.errors import ConfigError, WaguardError

EXIT_CONFIG = 2
EX_CONFIG = 78
"""sysexits(3); the unit's RestartPreventExitStatus=, since trying again does not mend a configuration."""


class Edge(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            _tell(ctx, error.code, error.message, error.hint)
            # systemd sets INVOCATION_ID for the services it starts, systemd.exec(5).
            started_by_systemd = ctx.invoked_subcommand == "run" and "INVOCATION_ID" in os.environ
            raise typer.Exit(EX_CONFIG if started_by_systemd else EXIT_CONFIG) from None
        except WaguardError as error:
            code = code_of(error)
            _tell(ctx, code, error.message, error.hint)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _tell(ctx: Any, code: str, message: str, hint: str) -> None:
    console = errors()
    # Before there is a configuration there is no log either.
    if ctx.invoked_subcommand == "run" and not console.is_terminal and code != ConfigError.code:
        # What reads the daemon's log there reads one JSON object a line, the last one too.
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        event = {"event": "daemon.failed", "level": "error", "timestamp": now}
        console.print(json.dumps({"code": code, "error": message, "hint": hint, **event}, ensure_ascii=False))
        return
    for line in (message if code in {"internal", ConfigError.code} else f"{message} [{code}]").splitlines():
        console.print(line, style="red")
    if hint:
        console.print(hint)
