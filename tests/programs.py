"""The command as a program."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO

WAGUARD = (sys.executable, "-m", "waguard")


def call(environ: Mapping[str, str], *arguments: str, stdout: int = subprocess.PIPE) -> tuple[int, str, str]:
    done = subprocess.run(
        [*WAGUARD, *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout or "", done.stderr


@contextmanager
def running(
    environ: Mapping[str, str], *arguments: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*WAGUARD, *arguments],
        env=environ,
        stdin=subprocess.DEVNULL if stdout == subprocess.PIPE else stdout,
        stdout=stdout,
        stderr=stderr,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Its exit code, and what else it said on stderr."""
    process.send_signal(number)
    said = process.stderr.read() if process.stderr else ""
    assert "Traceback" not in said
    return process.wait(30), said


def address(log: IO[str]) -> str:
    """Of the control port, from the line that says that it is ready."""
    for line in log:
        event = json.loads(line)
        if event["event"] == "daemon.ready":
            return str(event["url"])
    raise AssertionError("it ended before it was ready")
