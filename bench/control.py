#!/usr/bin/env python3
"""What the control port carries: requests per second and how long one takes, of a session's view and of the list, with few and many sessions.

The floor is a bare aiohttp handler in a process of its own that sends the same bytes, asked in the same way in turn with the daemon; a
ratio is to it. Sessions pose as Chromium. Probes go on meanwhile: what the browsers work under the load, to what they work in calm, says
whether they are looked at as often.
"""

import argparse
import asyncio
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil
from figures import Figures, options
from fleet import Fleet, fleet
from probes import POSED, taken

from waguard.core.learning import quantile

STEPS, QUICK_STEPS = (1, 100), (1, 10)
WINDOW_S, QUICK_WINDOW_S = 5.0, 1.0
CALLERS = 8
"""Connections that ask at a time, each one request after the other."""
RATIO_AIM = 4.0
"""Times as long as the floor a session's view may take: whoever asks is let in, and what is answered is made and put into JSON."""
RHYTHM_AIM = 1.3
MANY = 500
SELDOM = {"WAGUARD_PAGE__POLL_S": "5"}
"""To look at more pages than those each second is more than the one processor that a daemon has."""
FLOOR = """
import sys
from aiohttp import web
size = int(sys.argv[1])
async def answer(request):
    return web.Response(body=b"x" * size, content_type="application/json")
app = web.Application()
app.router.add_get("/{path:.*}", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=lambda *_: print("ready", flush=True), access_log=None)
"""


@dataclass(frozen=True)
class Load:
    per_s: float
    p50_ms: float
    p99_ms: float


async def main() -> int:
    chosen = options(__doc__, _more)
    figures = Figures("control")
    window = QUICK_WINDOW_S if chosen.quick else WINDOW_S
    steps = (chosen.sessions,) if chosen.sessions else QUICK_STEPS if chosen.quick else STEPS
    said = []
    for count in steps:
        room = {"WAGUARD_LIMITS__MAX_SESSIONS": str(count)}
        async with fleet(POSED | room | (SELDOM if count > MANY else {})) as own:
            codes = [f"asked{number}" for number in range(count)]
            await connected(own, codes)
            browsers = [
                one for code in codes for group in (await own.processes(code)).values() for one in group
            ]
            daemon = psutil.Process(own.pid)
            _, calm = await taken(daemon, browsers, window)
            for name, path in (("view", f"/v1/sessions/{codes[0]}"), ("list", "/v1/sessions")):
                load, floor, worked = await measured(own, path, daemon, browsers, window)
                add(figures, f"{name}_of_{count}", load, floor, aimed=name == "view")
                said.append(
                    f"{name} of {count}: {load.per_s:.0f}/s, p99 {load.p99_ms:.1f} ms, x {load.p50_ms / floor.p50_ms:.1f}"
                )
                print(f"  {said[-1]}", file=sys.stderr, flush=True)
                if calm:
                    figures.add(
                        f"{name}_of_{count}_rhythm_ratio", calm / max(worked, calm / 1000), at_most=RHYTHM_AIM
                    )
            figures.add(f"lagged_of_{count}", len(own.journal.all("daemon.lagged")), at_most=0)
    met = figures.close(chosen.json, "; ".join(said))
    return 0 if met or chosen.quick else 1


async def connected(own: Fleet, codes: Sequence[str]) -> None:
    """As many at a time as there are connections that ask."""
    free = asyncio.Semaphore(CALLERS)

    async def connect(code: str) -> None:
        async with free:
            await own.connect(code, wait="connected")

    await asyncio.gather(*map(connect, codes))


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sessions", type=int, metavar="N", help="with so many, each a process of some 15 MB"
    )


def add(figures: Figures, name: str, load: Load, floor: Load, *, aimed: bool) -> None:
    figures.add(f"{name}_per_s", load.per_s)
    figures.add(f"{name}_p50_ms", load.p50_ms)
    figures.add(f"{name}_p99_ms", load.p99_ms)
    figures.add(f"{name}_floor_per_s", floor.per_s)
    figures.add(f"{name}_p50_ratio", load.p50_ms / floor.p50_ms, at_most=RATIO_AIM if aimed else None)
    figures.add(f"{name}_p99_ratio", load.p99_ms / floor.p99_ms)


async def measured(
    own: Fleet, path: str, daemon: psutil.Process, browsers: Sequence[psutil.Process], window: float
) -> tuple[Load, Load, float]:
    """The daemon's, the floor's, and what the browsers worked meanwhile."""
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {own.token}\r\n\r\n".encode()
    size = len(await one_answer(own.url, head))
    async with bare(size) as floor_url:
        loaded, (_, worked) = await asyncio.gather(
            load_of(own.url, head, window), taken(daemon, browsers, window)
        )
        return loaded, await load_of(floor_url, head, window), worked


async def load_of(url: str, head: bytes, window: float) -> Load:
    until = time.monotonic() + window
    took = [
        one for some in await asyncio.gather(*(ask(url, head, until) for _ in range(CALLERS))) for one in some
    ]
    ms = sorted(one * 1000 for one in took)
    return Load(len(ms) / window, quantile(ms, 0.5), quantile(ms, 0.99))


async def ask(url: str, head: bytes, until: float) -> list[float]:
    """Seconds of each request, one after the other on a connection."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    took = []
    try:
        while (began := time.monotonic()) < until:
            writer.write(head)
            await answered(reader)
            took.append(time.monotonic() - began)
    finally:
        writer.close()
    return took


async def answered(reader: asyncio.StreamReader) -> bytes:
    told = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", told)
    assert told.startswith(b"HTTP/1.1 200 "), told
    assert length is not None, told
    return await reader.readexactly(int(length[1]))


async def one_answer(url: str, head: bytes) -> bytes:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(head)
    try:
        return await answered(reader)
    finally:
        writer.close()


@asynccontextmanager
async def bare(size: int) -> AsyncIterator[str]:
    """The floor, which answers so many bytes."""
    with socket.create_server(("127.0.0.1", 0)) as taken_port:
        port = taken_port.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FLOOR, str(size), str(port), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            await process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
