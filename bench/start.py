#!/usr/bin/env python3
"""What it takes to begin: processor time of commands until they have ended, of the daemon until it is ready, and its memory then.

Processor time (user and system, children included), the least of several rounds: a machine with other things to do makes
a command wait, and does not make it work more. ``python -c pass`` of the same installation takes turns with the commands; a
ratio is to that. The daemon has no sessions, and the commands ask it.
"""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence

import psutil
from figures import WAGUARD, Figures, heard_daemon, options, room, rounds

NOWHERE = "http://127.0.0.1:9/"
"""No session looks at the page."""
STATUS_AIM_S = 0.25
ROUNDS, QUICK_ROUNDS = 15, 3
BARE = "python"
COMMANDS: Mapping[str, Sequence[str]] = {
    BARE: (sys.executable, "-c", "pass"),
    "version": (WAGUARD, "--version"),
    "help": (WAGUARD, "--help"),
    "config_check": (WAGUARD, "config", "check"),
    "token": (WAGUARD, "token"),
    "status": (WAGUARD, "status"),
    "stats": (WAGUARD, "stats"),
    "connect_help": (WAGUARD, "connect", "--help"),
}
MB = 1024 * 1024


def took(command: Sequence[str], environ: Mapping[str, str]) -> float:
    """Processor time of a command, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    asked = options(__doc__)
    figures = Figures("start")
    count = QUICK_ROUNDS if asked.quick else ROUNDS
    ready, memory = [], []
    least = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(1 if asked.quick else 3):
        with room() as place, heard_daemon(place / "sessions", NOWHERE) as (url, token, pid):
            process = psutil.Process(pid)
            times = process.cpu_times()
            ready.append(times.user + times.system + times.children_user + times.children_system)
            memory.append(process.memory_full_info().pss / MB)
            port = re.sub(r".*:", "", url.rstrip("/"))
            ours = {"WAGUARD_CONFIG": os.devnull, "WAGUARD_API__PORT": port, "WAGUARD_TOKEN": token}
            environ = {**os.environ, **ours, "WAGUARD_SESSIONS__DIR": str(place / "sessions")}
            for _ in rounds(count):
                for name, command in COMMANDS.items():
                    least[name] = min(least[name], took(command, environ))
    for name, seconds in least.items():
        figures.add(f"{name}_s", seconds, at_most=STATUS_AIM_S if name == "status" else None)
    for name in COMMANDS:
        if name != BARE:
            figures.add(f"{name}_ratio", least[name] / least[BARE])
    figures.add("daemon_ready_s", min(ready))
    figures.add("daemon_mb", min(memory))
    line = f"status takes {least['status']:.2f} s of processor time, {least['status'] / least[BARE]:.0f} times python's"
    return 0 if figures.close(asked.json, line) or asked.quick else 1


if __name__ == "__main__":
    sys.exit(main())
