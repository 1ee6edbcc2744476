"""``waguard doctor``: what this machine offers, one small check each, and the command that mends a lack."""

import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from waguard.cli.checks import CheckResult, Grade, Seen, browsers, machine, running, storage
from waguard.cli.service import Service, configured
from waguard.config.sections import Config
from waguard.errors import WaguardError

MACHINE: Sequence[tuple[str, Callable[[], Seen]]] = (
    ("python", machine.python),
    ("fonts", machine.fonts),
    ("/dev/shm", machine.shared_memory),  # noqa: S108 (its name)
)
CHECKS: Sequence[tuple[str, Callable[[Config], Seen]]] = (
    ("user", browsers.user),
    ("browser", browsers.browser),
    ("bubblewrap", browsers.bubblewrap),
    ("user namespaces", browsers.user_namespaces),
    ("fence", browsers.fence),
    ("memory", machine.memory),
    ("disk", machine.disk),
)
SERVICE: Sequence[tuple[str, Callable[[Config, Service | None], Seen]]] = (
    ("sessions", storage.sessions),
    ("snapshot keys", storage.snapshot_keys),
    ("port", running.port),
    ("daemon", running.daemon),
    ("alerts", running.alerts),
)
"""Of what is the service's, where the configuration is."""


def examine(path: Path | None) -> list[CheckResult]:
    """Every check in order. A wrong configuration is a problem among others; what depends on it is not looked at then."""
    try:
        loaded, service = configured(path)
    except WaguardError as error:
        hint = f"{error.hint or 'Fix what it names.'} Checks that depend on it were skipped."
        results = [CheckResult("config", Grade.PROBLEM, error.message, hint)]
        checks = list(MACHINE)
    else:
        results = [_checked("config", partial(storage.configuration, loaded, service))]
        checks = [
            *MACHINE,
            *((name, partial(check, loaded.config)) for name, check in CHECKS),
            *((name, partial(check, loaded.config, service)) for name, check in SERVICE),
        ]
    return [*results, *(_checked(name, check) for name, check in checks)]


def _checked(name: str, check: Callable[[], Seen]) -> CheckResult:
    try:
        seen = check()
    except WaguardError as error:
        seen = Seen(error.message, Grade.PROBLEM, error.hint)
    except (OSError, subprocess.SubprocessError) as error:
        seen = Seen(str(error), Grade.PROBLEM)
    return CheckResult(name, seen.grade, seen.what, seen.hint)
