"""Where errors become words on stderr and an exit code. No command catches them itself."""

import os
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
            _tell(error.message, error.hint)
            # systemd sets INVOCATION_ID for the services it starts, systemd.exec(5).
            started_by_systemd = ctx.invoked_subcommand == "run" and "INVOCATION_ID" in os.environ
            raise typer.Exit(EX_CONFIG if started_by_systemd else EXIT_CONFIG) from None
        except WaguardError as error:
            code = code_of(error)
            _tell(error.message + ("" if code == "internal" else f" [{code}]"), error.hint)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _tell(message: str, hint: str) -> None:
    console = errors()
    for line in message.splitlines():
        console.print(line, style="red")
    if hint:
        console.print(hint)
