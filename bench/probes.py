#!/usr/bin/env python3
"""What it costs to look: CPU time of the daemon and of the browsers, for each session and minute, against browsers left alone.

A minute is one full round of probes at least: the rarest is made once in it. The floor is the same browsers on the same page,
connected, in the same run: the daemon is stopped (SIGSTOP) for as long as it is measured otherwise, so that nobody asks
them anything. Both take turns, so that a machine that changes its speed changes both.

One and ten sessions are real. A hundred are programs that pose as browsers (``tests/posing_chromium.py``), beside ten of
them: what the daemon takes for each session must not grow with their number.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from figures import Figures, options
from fleet import Fleet, fleet

POSING = Path(__file__).parent.parent / "tests" / "posing_chromium.py"
POSED = {
    "WAGUARD_BROWSER__PATH": str(POSING),
    "WAGUARD_BROWSER__EXTRA_FLAGS": '["--posing=connected"]',
    "WAGUARD_LIMITS__SESSION_MEMORY_MB": "0",
}
STEPS: Sequence[tuple[str, int]] = (("real", 1), ("real", 10), ("posing", 10), ("posing", 100))
QUICK_STEPS: Sequence[tuple[str, int]] = (("real", 1), ("posing", 10), ("posing", 40))
GROWTH_AIM = 1.5
"""For each session, at a hundred against ten."""
CALM_S = 5.0
"""After a start, and after the daemon goes on: not measured."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU milliseconds for each session and minute."""

    daemon: float
    browser: float
    alone: float
    """The browser's while nobody asks it anything."""


async def main() -> int:
    chosen = options(__doc__, _more)
    window = chosen.window or (10.0 if chosen.quick else 60.0)
    turns = 1 if chosen.quick else 2
    steps = QUICK_STEPS if chosen.quick else STEPS
    figures = Figures("probes")
    daemons: dict[tuple[str, int], float] = {}
    said = []
    for kind, count in steps:
        async with sessions(kind, count) as (own, browsers):
            cost = await measured(own, browsers, count, window, turns)
        daemons[kind, count] = cost.daemon
        name = f"{kind}_{count}"
        figures.add(f"{name}_daemon_ms", cost.daemon)
        figures.add(f"{name}_browser_ms", cost.browser)
        figures.add(f"{name}_browser_alone_ms", cost.alone)
        if cost.alone and kind == "real":
            figures.add(f"{name}_browser_ratio", cost.browser / cost.alone)
            figures.add(f"{name}_all_ratio", (cost.browser + cost.daemon) / cost.alone)
        said.append(
            f"{count} {kind}: daemon {cost.daemon:.0f} ms, browser {cost.browser:.0f} ms, alone {cost.alone:.0f} ms"
        )
        print(f"  {said[-1]}", file=sys.stderr, flush=True)
    (_, few), (_, many) = steps[-2:]
    figures.add("daemon_growth_ratio", daemons["posing", many] / daemons["posing", few], at_most=GROWTH_AIM)
    figures.add("window_s", window)
    figures.close(chosen.json, "CPU time for each session and minute; " + "; ".join(said))
    return 0


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--window", type=float, metavar="S", help="so long each is measured")


@asynccontextmanager
async def sessions(kind: str, count: int) -> AsyncIterator[tuple[Fleet, list[psutil.Process]]]:
    """So many connected sessions, and every process of their browsers."""
    async with fleet(POSED if kind == "posing" else None) as own:
        codes = [f"probed{number}" for number in range(count)]
        for code in codes:
            await (own.connect(code, wait="connected") if kind == "posing" else own.log_in(code))
        browsers = [
            process for code in codes for group in (await own.processes(code)).values() for process in group
        ]
        yield own, browsers


async def measured(
    own: Fleet, browsers: Sequence[psutil.Process], count: int, window: float, turns: int
) -> Cost:
    daemon = psutil.Process(own.pid)
    asked: list[tuple[float, float]] = []
    alone: list[float] = []
    for _ in range(turns):
        await asyncio.sleep(CALM_S)
        asked.append(await taken(daemon, browsers, window))
        os.kill(own.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(1)
            alone.append((await taken(daemon, browsers, window))[1])
        finally:
            os.kill(own.pid, signal.SIGCONT)
    each = 1000 * 60 / count
    return Cost(
        median(ours for ours, _ in asked) * each,
        median(theirs for _, theirs in asked) * each,
        median(alone) * each,
    )


async def taken(
    daemon: psutil.Process, browsers: Sequence[psutil.Process], window: float
) -> tuple[float, float]:
    """CPU seconds for each second, of the daemon and of all browsers together."""
    began = time.monotonic()
    before = _clocks([daemon]), _clocks(browsers)
    await asyncio.sleep(window)
    after = _clocks([daemon]), _clocks(browsers)
    took = time.monotonic() - began
    return _spent(before[0], after[0]) / took, _spent(before[1], after[1]) / took


def _clocks(processes: Sequence[psutil.Process]) -> dict[str, int]:
    """Nanoseconds that each of their threads has run; what psutil tells comes in steps of 10 ms."""
    found = {}
    for process in processes:
        for file in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with suppress(OSError):
                found[str(file)] = int(file.read_text().split()[0])
    return found


def _spent(before: dict[str, int], after: dict[str, int]) -> float:
    return sum(now - before.get(thread, 0) for thread, now in after.items()) / 1e9


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
