"""What the benches share: their options, figures with their aims, the programs they run, the line at the end."""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from waguard import __version__

BROWSER = "WAGUARD_BROWSER__PATH"
"""The one setting that a bench takes from its own environment: which browser is measured."""
WAGUARD = str(Path(sys.executable).with_name("waguard"))


@dataclass
class Figures:
    """Named numbers, and for some of them what is aimed at. The name says the unit."""

    bench: str
    figures: dict[str, float] = field(default_factory=dict)
    aims: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, name: str, value: float, *, at_most: float | None = None) -> None:
        self.figures[name] = round(value, 4)
        if at_most is not None:
            self.aims[name] = {"max": at_most}

    def close(self, file: Path | None, line: str, **more: object) -> bool:
        """Print the figures, write them where they were asked for, end with one line for people.

        Whether all aims were met.
        """
        for name, value in self.figures.items():
            aim = f"  (aim: at most {self.aims[name]['max']:g})" if name in self.aims else ""
            print(f"  {name:<32} {value:>10g}{aim}")
        if file is not None:
            told = {"figures": self.figures, "aims": self.aims, "machine": _machine(), **more}
            file.write_text(json.dumps(told, indent=2) + "\n")
        missed = [name for name, aim in self.aims.items() if self.figures[name] > aim["max"]]
        print(f"{self.bench}: {line}; " + (f"missed: {', '.join(missed)}" if missed else "all aims met"))
        return not missed


def options(
    description: str | None, extend: Callable[[argparse.ArgumentParser], object] | None = None
) -> argparse.Namespace:
    """``--quick`` and ``--json FILE``, as every bench takes them, and what one bench has besides. SIGTERM ends it as Ctrl-C does, with all that it started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=description)
    if extend is not None:
        extend(parser)
    parser.add_argument("--quick", action="store_true", help="a few rounds only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args()


def rounds(count: int) -> Iterator[int]:
    """``range(count)`` that shows on a terminal how far it is."""
    for number in range(count):
        if sys.stderr.isatty():
            print(f"\r  {number} of {count}", end="", file=sys.stderr, flush=True)
        yield number
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def room() -> Iterator[Path]:
    """A directory that an unprivileged browser gets into; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="waguard-bench-") as name:
        place = Path(name)
        place.chmod(0o711)
        yield place


@contextmanager
def simulator() -> Iterator[str]:
    """The simulated WhatsApp Web in a process of its own; its address."""
    with program(["simulate", "--port", "0"], r"is at (\S+)", subprocess.PIPE) as (url, _):
        yield url


@contextmanager
def daemon(sessions: Path, page: str) -> Iterator[tuple[str, str]]:
    """The daemon in a process of its own; its address and the admin's token."""
    with heard_daemon(sessions, page) as (url, token, _):
        yield url, token


@contextmanager
def heard_daemon(
    sessions: Path,
    page: str,
    settings: Mapping[str, str] | None = None,
    hear: Callable[[str], object] | None = None,
    through: Sequence[str] = (),
) -> Iterator[tuple[str, str, int]]:
    """The same with these variables besides; ``hear`` gets each line of its log. Its pid is told too.

    ``through`` is a command that ends in the daemon's place.
    """
    environ = {
        "WAGUARD_CONFIG": os.devnull,
        "WAGUARD_SESSIONS__DIR": str(sessions),
        "WAGUARD_WHATSAPP__URL": page,
        "WAGUARD_API__PORT": "0",
        "WAGUARD_API__COSTLY_PER_MINUTE": "0",  # a bench asks as quickly as it is answered
        "WAGUARD_LOG__FORMAT": "json",
        **(settings or {}),
    }
    ready = r'"url": "([^"]+)".*"daemon.ready"'
    with program(["run"], ready, subprocess.STDOUT, environ, hear, through) as (url, pid):
        yield url, json.loads((sessions / ".tokens.json").read_text())["admin"], pid


@contextmanager
def program(
    arguments: list[str],
    ready: str,
    errors: int,
    environ: Mapping[str, str] | None = None,
    hear: Callable[[str], object] | None = None,
    through: Sequence[str] = (),
) -> Iterator[tuple[str, int]]:
    """A command of waguard's, once it has said where it is; its address and pid. ``hear`` gets what it says then."""
    with subprocess.Popen(
        [*through, WAGUARD, *arguments],
        env={
            **{
                key: value
                for key, value in os.environ.items()
                if not key.startswith("WAGUARD_") or key == BROWSER
            },
            "PYTHONUNBUFFERED": "1",
            **(environ or {}),
        },
        stdout=subprocess.PIPE,
        stderr=errors if errors == subprocess.STDOUT else None,
        text=True,
    ) as process:
        assert process.stdout is not None
        reading: threading.Thread | None = None
        try:
            said = ""
            for line in process.stdout:
                said += line
                if found := re.search(ready, line):
                    break
            else:
                raise SystemExit(f"waguard {' '.join(arguments)} ended: {said}")
            # What it says from here on is read, so that it never waits for us.
            reading = threading.Thread(target=_read, args=(process.stdout, hear))
            reading.start()
            yield found[1], process.pid
        finally:
            process.terminate()
            process.wait(timeout=30)
            if reading is not None:
                reading.join()


def _read(said: IO[str], hear: Callable[[str], object] | None) -> None:
    for line in said:
        if hear is not None:
            hear(line)


def _machine() -> dict[str, object]:
    return {
        "waguard": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "memory_mb": psutil.virtual_memory().total // 2**20,
        "load_1min": round(os.getloadavg()[0], 2),
    }
