#!/usr/bin/env python3
"""Connect and cleanup, 300 rounds in a row: what the daemon holds afterwards against what it held before.

The daemon runs in this process, so that its tasks can be counted; its browsers and the page are real. Each round
connects one of three codes until its QR code is there and cleans it. The baseline is taken after some rounds, when
everything that is made once has been made.
"""

import asyncio
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import psutil
from figures import Figures, options, room, rounds, simulator

from waguard import daemon
from waguard.config.sections import Config
from waguard.observe.bus import Bus, Event

CODES = ("soak", "soak2", "soak-2")
ROUNDS, QUICK_ROUNDS = 300, 15
WARM = 10
"""Rounds before the baseline."""
MEMORY_AIM_MB = 8.0
SETTLE_S = 30.0


async def main() -> None:
    chosen = options(__doc__)
    count = QUICK_ROUNDS if chosen.quick else ROUNDS
    troubles: list[Event] = []
    bus = Bus()
    bus.subscribe(lambda event: troubles.append(event) if event.level in {"warning", "error"} else None)
    with room() as place, simulator() as page:
        sessions = place / "sessions"
        config = Config.model_validate(
            {
                "sessions": {"dir": sessions, "retired_keep_hours": 0.0},
                "whatsapp": {"url": page},
                "api": {"port": 0, "admin_token": "soak-soak-soak-soak", "costly_per_minute": 0},
            }
        )
        async with (
            daemon.running(config, bus) as (_, url),
            aiohttp.ClientSession(url, headers={"Authorization": "Bearer soak-soak-soak-soak"}) as http,
        ):
            for number in range(WARM):
                await round_of(http, CODES[number % len(CODES)])
            before = await settled(sessions, lambda _: True)
            began = time.perf_counter()
            for number in rounds(count):
                await round_of(http, CODES[number % len(CODES)])
            took = time.perf_counter() - began
            after = await settled(sessions, lambda now: all(now[key] <= before[key] for key in COUNTED))
    figures = Figures("soak")
    figures.add("rounds", count)
    figures.add("round_ms", took / count * 1000)
    for key in COUNTED:
        figures.add(f"{key}_over_baseline", after[key] - before[key], at_most=0)
    figures.add("memory_over_baseline_mb", after["memory_mb"] - before["memory_mb"], at_most=MEMORY_AIM_MB)
    figures.add("warnings", len(troubles), at_most=0)
    held = ", ".join(f"{key} {before[key]:g} -> {after[key]:g}" for key in (*COUNTED, "memory_mb"))
    figures.close(chosen.json, f"{count} rounds of {took / count * 1000:.0f} ms; {held}")


async def round_of(http: aiohttp.ClientSession, code: str) -> None:
    async with http.post(f"/v1/sessions/{code}/connect") as answer:
        body = await answer.json()
        assert answer.status == 200, body
        assert body["qr"], body
    async with http.post(f"/v1/sessions/{code}/cleanup") as answer:
        body = await answer.json()
        assert body["ok"], body


COUNTED = ("processes", "tasks", "fds", "files")


async def settled(sessions: Path, done: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """What is held, once ``done``; retired profiles are deleted in the background, and connections end a turn later."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        gc.collect()
        now = held(sessions)
        purged = not any((sessions / ".retired").iterdir())
        if (purged and done(now)) or time.monotonic() > deadline:
            return now
        await asyncio.sleep(0.05)


def held(sessions: Path) -> dict[str, float]:
    me = psutil.Process()
    return {
        "processes": len(me.children(recursive=True)),
        "tasks": len(asyncio.all_tasks()),
        "fds": me.num_fds(),
        "files": sum(len(names) for _, _, names in os.walk(sessions)),  # some go meanwhile
        "memory_mb": me.memory_info().rss / 2**20,
    }


if __name__ == "__main__":
    asyncio.run(main())
