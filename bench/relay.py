#!/usr/bin/env python3
"""What lies between an app and its page: round trips, a long answer, what floods cost others, what an idle client costs.

The floor is the same client (node: `ws`, and puppeteer) on a debugging port of the same browser, which is opened for the bench besides
the pipe; and the same again behind a process that passes bytes and does nothing else (`forwarder.py`). All take turns, so that a machine that
changes its speed changes each, and the best round of each counts; a ratio is of the times. Meanwhile, and under each flood, the control port
is asked again and again whether the loop turns (`GET /v1/alive`): the longest that it took is the loop's longest standstill, and whatever
else the machine had to do. Nothing may be found wrong with the session.

The client that floods is attached alone: of each message to the console the browser makes one for each client that listens, as quickly as the
page writes, and keeps in its memory what it has not yet written.
"""

import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil
from figures import BROWSER, Figures, options, room
from fleet import Fleet, Unexpected, fleet

from waguard.browser import find

RATE_AIM, RESULT_AIM, STILL_AIM_MS = 1.25, 1.1, 100.0
"""The first two times a client's at the port: 0.8 of its round trips a second are 1.25 of its time."""
CODE = "driven"
MIB = 1024 * 1024
PACKAGES = ("ws@8", "puppeteer-core@24")
ROUNDS, TRIPS, RESULTS, CALM_S, IDLE = 20, 300, 5, 8.0, 8
QUICK_ROUNDS, QUICK_TRIPS, QUICK_RESULTS, QUICK_CALM_S, QUICK_IDLE = 2, 200, 1, 2.0, 2
UNFENCED = """
import runpy, sys
from waguard.sandbox.fence import Fence
Fence.take_on = lambda self: None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Browsers listen on no port otherwise."""
RESULT = "'x'.repeat(50e6)"
FLOODS: dict[str, tuple[dict[str, Any], ...]] = {
    "frames": ({"do": "empty", "count": 200_000},),
    "console": (
        {"do": "listen"},
        {"do": "once", "expression": "for (let i = 0; i < 1e6; i++) console.log(i)"},
    ),
    "objects": (
        {"do": "once", "expression": "Array.from({length: 1.9e6}, (_, i) => ({number: i, text: 'some'}))"},
    ),
    "result": ({"do": "once", "expression": RESULT},),
    "upload": ({"do": "upload", "bytes": 94 * MIB},),
}
QUICK_FLOODS = ("frames",)


async def main() -> int:
    chosen = options(__doc__)
    figures = Figures("relay")
    quick = chosen.quick
    async with AsyncExitStack() as stack:
        own, port, place = await stack.enter_async_context(driven())
        modules = await asyncio.to_thread(installed, place)
        through = f"{own.url.replace('http', 'ws', 1)}/v1/sessions/{CODE}/cdp"
        token = json.loads((own.sessions / ".tokens.json").read_text())["admin"]
        daemon = psutil.Process(own.pid)
        calm_s, idle = (QUICK_CALM_S, QUICK_IDLE) if quick else (CALM_S, IDLE)
        alone = await _taken(daemon, calm_s)
        async with AsyncExitStack() as many:
            for _ in range(idle):
                await many.enter_async_context(client(modules, through, token))
            await asyncio.sleep(1)
            attached = await _taken(daemon, calm_s)
        figures.add("idle_client_ms_per_minute", max(attached - alone, 0.0) / idle * 60_000 / calm_s)
        async with (
            forwarder(port) as forwarded_port,
            client(modules, through, token) as relayed,
            client(modules, port) as direct,
            client(modules, forwarded_port) as forwarded,
        ):
            await compare(figures, relayed, direct, forwarded, quick=quick)
        with standstill(own.url) as calm:
            await asyncio.sleep(calm_s)
        figures.add("still_calm_ms", calm[0])
        for name in QUICK_FLOODS if quick else FLOODS:
            async with client(modules, through, token) as floods:
                with standstill(own.url) as worst:
                    for what in FLOODS[name]:
                        told = await floods.do(**what)
            print(f"  {name}: still for {worst[0]:.0f} ms", file=sys.stderr, flush=True)
            figures.add(f"still_{name}_ms", worst[0], at_most=STILL_AIM_MS)
        figures.add("findings", len(own.journal.all("health.finding")), at_most=0)
    told = figures.figures
    line = (
        f"{1 / told['sequential_ratio']:.2f} of the round trips of a debugging port, {1 / told['in_flight_ratio']:.2f} with 32 in flight; "
        f"50 MB in {told['result_ratio']:.2f} of its time"
    )
    return 0 if figures.close(chosen.json, line) or quick else 1


async def compare(
    figures: Figures, relayed: "Node", direct: "Node", forwarded: "Node", *, quick: bool
) -> None:
    trips = QUICK_TRIPS if quick else TRIPS
    shapes: dict[str, dict[str, Any]] = {
        "sequential": {"do": "rounds", "count": trips, "inFlight": 1},
        "in_flight": {"do": "rounds", "count": 4 * trips, "inFlight": 32},
        "puppeteer": {"do": "puppeteer", "count": trips},
    }
    for name, what in shapes.items():
        best: dict[Node, dict[str, float]] = {}
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            for one in (direct, forwarded, relayed):
                told = await one.do(**what)
                best[one] = min(told, best.get(one, told), key=lambda said: said["seconds"])
        for who, one in (("", relayed), ("direct_", direct), ("forwarded_", forwarded)):
            figures.add(f"{who}{name}_per_s", float(what["count"]) / best[one]["seconds"])
            figures.add(f"{who}{name}_p50_us", best[one]["p50"])
            figures.add(f"{who}{name}_p99_us", best[one]["p99"])
        ratio, least = (best[one]["seconds"] / best[direct]["seconds"] for one in (relayed, forwarded))
        figures.add(f"{name}_ratio", ratio, at_most=RATE_AIM)
        figures.add(f"{name}_forwarded_ratio", least)
        print(
            f"  {name}: {ratio:.2f} times the time at the port; {least:.2f} for who passes bytes and does nothing else",
            file=sys.stderr,
            flush=True,
        )
    took: dict[Node, list[float]] = {direct: [], relayed: []}
    for _ in range(QUICK_RESULTS if quick else RESULTS):
        for one, times in took.items():
            times.append((await one.do("once", expression=RESULT))["seconds"])
    figures.add("result_s", median(took[relayed]))
    figures.add("direct_result_s", median(took[direct]))
    figures.add("result_ratio", median(took[relayed]) / median(took[direct]), at_most=RESULT_AIM)


@asynccontextmanager
async def driven() -> AsyncIterator[tuple[Fleet, str, Path]]:
    """A connected session whose browser has a debugging port besides; the port's address, and a directory."""
    browser = find.locate(Path(os.environ[BROWSER]) if BROWSER in os.environ else None)
    with room() as place:
        path, said = place / "browser", place / "said"
        path.write_text(f'#!/bin/sh\nexec {browser} "$@" --remote-debugging-port=0 2>>{said}\n')
        path.chmod(0o755)
        said.touch()
        said.chmod(0o666)
        settings = {BROWSER: str(path), "WAGUARD_SANDBOX__KIND": "plain"}
        async with fleet(settings, through=(sys.executable, "-c", UNFENCED)) as own:
            await own.log_in(CODE)
            found = re.search(r"listening on (ws://\S+)", said.read_text())
            if found is None:
                raise Unexpected("the browser has no debugging port")
            yield own, found[1], place


def installed(place: Path) -> Path:
    """The packages of npm."""
    command = (
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--silent",
        "--prefix",
        str(place),
    )
    subprocess.run([*command, *PACKAGES], check=True, timeout=120, stdout=subprocess.DEVNULL)
    return place / "node_modules"


class Node:
    """A client in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, do: str = "", **what: Any) -> Any:
        assert self._process.stdin is not None
        if do:
            self._process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        return await self.told()

    async def told(self) -> Any:
        assert self._process.stdout is not None
        async with asyncio.timeout(120):
            line = await self._process.stdout.readline()
        if not line:
            raise Unexpected("a client has ended: see above")
        return json.loads(line)


@asynccontextmanager
async def forwarder(port: str) -> AsyncIterator[str]:
    """The address that is the same as at the port."""
    address = urlsplit(port)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("forwarder.py"))),
        *(str(address.hostname), str(address.port)),
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        own = int(await process.stdout.readline())
        yield f"ws://127.0.0.1:{own}{address.path}"
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def client(modules: Path, address: str, token: str = "") -> AsyncIterator[Node]:
    process = await asyncio.create_subprocess_exec(
        *("node", str(Path(__file__).with_name("relay_client.mjs")), str(modules), address, token),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        node = Node(process)
        await node.told()
        yield node
    finally:
        process.kill()
        await process.wait()


@contextmanager
def standstill(url: str) -> Iterator[list[float]]:
    """The longest that the daemon took to answer, in milliseconds."""
    worst, over = [0.0], threading.Event()

    def look() -> None:
        http_ = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        while not over.wait(0.004):
            began = time.perf_counter()
            http_.request("GET", "/v1/alive")
            http_.getresponse().read()
            worst[0] = max(worst[0], (time.perf_counter() - began) * 1000)
        http_.close()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield worst
    finally:
        over.set()
        looking.join()


async def _taken(daemon: psutil.Process, seconds: float) -> float:
    """Processor time of the daemon while so long passes, in seconds."""
    before = daemon.cpu_times()
    await asyncio.sleep(seconds)
    after = daemon.cpu_times()
    return after.user + after.system - before.user - before.system


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
