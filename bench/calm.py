#!/usr/bin/env python3
"""No false alarm: sessions that are well, on a machine that has too much to do and whose clock is moved about.

Real browsers, connected on the simulated WhatsApp Web. Beside them as many programs as there are cores burn CPU time; in
turn two pages work for half a minute without a pause (honest work, as a long sync is); and the clock moves by hours, forwards
and back. Nothing is wrong, so nothing may be found: no finding but that a page at work does not answer, no remedy, no restart.
Exit code 1 otherwise, with the evidence.

The clock is the daemon's own: setting the machine's would move everybody's, and a time namespace has no wall clock. A
``sitecustomize`` on its ``PYTHONPATH`` adds an offset from a file to ``time.time`` and ``time.time_ns``, by which the daemon
tells the time; the browsers keep the machine's.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from figures import Figures, options, room
from fleet import Fleet, Line, Unexpected, fleet

from waguard.core.health.faults import Fault
from waguard.core.model import Link

STRETCH_S = 30.0
"""How long a page works without a pause when it is `busy`."""
BUSY_AT_A_TIME = 2
LEAPS_H = (3, -5, 11, -2, 26, 0)
"""Hours by which the daemon's clock is off, one after the other."""
CLOCK = """import time

def _moved(real, unit):
    def moved():
        try:
            with open({file!r}) as file:
                return real() + type(real())(float(file.read() or 0) * unit)
        except (OSError, ValueError):
            return real()
    return moved

time.time, time.time_ns = _moved(time.time, 1), _moved(time.time_ns, 1_000_000_000)
"""
ALARMS = {
    "findings": "health.finding",
    "remedies": "health.remedy",
    "restarts": "browser.spawned",
    "changes": "session.changed",
    "alerts": "alert.raised",
    "bugs": "internal.error",
}


async def main() -> int:
    chosen = options(__doc__, _more)
    count = chosen.sessions or (6 if chosen.quick else 30)
    minutes = chosen.minutes or (2.0 if chosen.quick else 20.0)
    with room() as place:
        offset = place / "offset"
        offset.write_text("0")
        (place / "sitecustomize.py").write_text(CLOCK.format(file=str(offset)))
        path = os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH"))))
        async with fleet({"PYTHONPATH": path}) as own:
            codes = [f"calm{number}" for number in range(count)]
            wids = []
            offset.write_text("36000")
            for code in codes:
                wids.append(await own.log_in(code))
                print(f"  {len(wids)} of {count} connected", file=sys.stderr, flush=True)
                if len(wids) == 1 and (await own.view(code))["since"] < time.time() + 30_000:
                    raise SystemExit("The daemon's clock does not move: nothing would be shown.")
                offset.write_text("0")
            pages = [page for code in codes for page in (await own.processes(code))["renderer"]]
            before = _taken_s(pages)
            with hogs():
                began = time.monotonic()
                stretches, leaps = await _trouble(own, wids, offset, began + 60 * minutes)
            await asyncio.sleep(STRETCH_S + 5)  # the last stretch ends
            worked = _taken_s(pages) - before
            away = [code for code in codes if not await _back(own, code)]
            alarms = [
                line for line in own.journal.all(*ALARMS.values(), since=began) if not _only_silent(line)
            ]
            unlinked = [wid for wid in wids if await own.link(wid) != "connected"]
    if worked < stretches:
        raise SystemExit(f"The pages worked for {worked:.0f} s only: nothing would be shown.")
    return _tell(chosen, count, minutes, (stretches, worked), leaps, alarms, [*away, *unlinked])


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", type=int, metavar="N")
    parser.add_argument("--minutes", type=float, metavar="M")


@contextmanager
def hogs() -> Iterator[None]:
    """A program for each core that does nothing but take its time."""
    burn = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(burn) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _only_silent(line: Line) -> bool:
    """A page at work does not answer, and is called so for as long; nothing is done about it."""
    if line.event == ALARMS["findings"]:
        return str(line.fields["fault"]) == Fault.PAGE_SILENT
    return line.event == ALARMS["changes"] and line.fields["link"] in {Link.UNKNOWN, Link.CONNECTED}


async def _back(own: Fleet, code: str) -> bool:
    """Whether it is connected, once its page has done its work."""
    with contextlib.suppress(Unexpected):
        await own.until(code, lambda view: view["status"] == "connected")
        return True
    return False


def _taken_s(pages: Sequence[psutil.Process]) -> float:
    return sum(sum(page.cpu_times()[:2]) for page in pages if page.is_running())


async def _trouble(own: Fleet, wids: Sequence[str], offset: Path, until: float) -> tuple[int, int]:
    """Pages at work and leaps of the clock until then; how many there were of each."""
    stretches = leaps = 0
    pause = max(10.0, (until - time.monotonic()) / (2 * len(LEAPS_H)))
    next_leap = time.monotonic() + pause
    next_turn = 0.0
    while time.monotonic() < until:
        if time.monotonic() >= next_turn:
            for _ in range(BUSY_AT_A_TIME):
                await _one_stretch(own, wids[stretches % len(wids)])
                stretches += 1
            next_turn = time.monotonic() + STRETCH_S + 2
        if time.monotonic() >= next_leap:
            offset.write_text(str(3600 * LEAPS_H[leaps % len(LEAPS_H)]))
            leaps += 1
            next_leap = time.monotonic() + pause
        if sys.stderr.isatty():
            print(f"\r  {until - time.monotonic():.0f} s to go ", end="", file=sys.stderr, flush=True)
        await asyncio.sleep(0.5)
    return stretches, leaps


async def _one_stretch(own: Fleet, wid: str) -> None:
    """The page hears of the end of it when it has worked for half a minute."""
    await own.inject("busy", wid=wid)
    await asyncio.sleep(0.5)
    await own.clear("busy", wid=wid)


def _tell(
    chosen: argparse.Namespace,
    count: int,
    minutes: float,
    work: tuple[int, float],
    leaps: int,
    alarms: Sequence[Line],
    away: Sequence[str],
) -> int:
    for line in alarms:
        print(f"  {line.told()}")
    figures = Figures("calm")
    figures.add("sessions", count)
    figures.add("minutes", minutes)
    stretches, worked = work
    figures.add("busy_stretches", stretches)
    figures.add("pages_cpu_s", worked)
    figures.add("clock_leaps", leaps)
    told = Counter(line.event for line in alarms)
    for name, event in ALARMS.items():
        figures.add(name, told[event], at_most=0)
    figures.add("not_connected_at_the_end", len(away), at_most=0)
    met = figures.close(
        chosen.json,
        f"{count} sessions, {minutes:g} minutes, {stretches} pages at work for {STRETCH_S:g} s, "
        f"{leaps} leaps of the daemon's clock (time.time by sitecustomize): {len(alarms)} false alarms",
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
