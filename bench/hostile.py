#!/usr/bin/env python3
"""One hostile client beside four healthy ones: what it costs them, and the daemon.

Everything real, as in `faults.py`. Each kind of hostility has a daemon of its own with five sessions on it. First each verb of the
healthy four is timed; then the fifth does its worst for some minutes, while the same verbs are timed again. What must hold:

- the four stay connected: nothing is found wrong with them, and each verb ends well;
- no verb takes more than twice its usual time (medians of the two phases, on the same machine, one after the other);
- the daemon's memory stays within 50 MB of what it was before;
- SIGTERM ends the daemon in time, whatever goes on.

Exit code 1 if a kind fails. All traffic is on loopback.
"""

import argparse
import asyncio
import io
import os
import signal
import statistics
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psutil
import zstandard
from figures import Figures, options
from fleet import Fleet, Unexpected, fleet

HOSTILE, HEALTHY = "mallory", ("anna", "bert", "carla", "dora")
TOKEN = "a-token-of-one-client-only"
TWICE, MEMORY_MB, END_S = 2.0, 50.0, 20.0
QUICK_VERB_S = 0.2
"""Below this a verb's time says more of the machine than of the daemon: it counts as this long."""
FEW_FILES = ("prlimit", "--nofile=1024")
"""What a shell gives by default: a daemon must not count on more."""
VERBS = ("view", "connect", "screenshot", "snapshot", "restart")


@dataclass(slots=True)
class Outcome:
    kind: str
    usual_s: dict[str, float] = field(default_factory=dict)
    under_s: dict[str, float] = field(default_factory=dict)
    grown_mb: float = 0.0
    end_s: float = 0.0
    rounds: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def worst(self) -> tuple[str, float]:
        ratios = {
            verb: max(self.under_s[verb], QUICK_VERB_S) / max(self.usual_s[verb], QUICK_VERB_S)
            for verb in self.under_s
        }
        return max(ratios.items(), key=lambda one: one[1], default=("-", 0.0))


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the hostile client is let loose."""

    fleet: Fleet
    wid: str
    profile: Path
    own: aiohttp.ClientSession
    """With the hostile client's token."""
    address: tuple[str, int]


Attack = Callable[[Stage], Coroutine[Any, Any, None]]


# --- the kinds ------------------------------------------------------------------------------------------


async def _its_own_verbs(stage: Stage) -> None:
    """What makes the daemon read the profile: again and again, whatever comes of it."""
    while True:
        for verb in ("snapshots", "restart?wait=none", "disconnect", "connect?wait=none"):
            await _post(stage, verb)
            await asyncio.sleep(0.5)


async def _post(stage: Stage, verb: str, data: bytes | None = None) -> int:
    with suppress(aiohttp.ClientError, TimeoutError):
        async with stage.own.post(f"/v1/sessions/{HOSTILE}/{verb}", data=data) as answer:
            await answer.read()
            return answer.status
    return 0


def _databases(profile: Path) -> list[Path]:
    return [
        path for path in (profile / "Default").rglob("*") if path.is_dir() and path.name.endswith("leveldb")
    ]


async def fifos(stage: Stage) -> None:
    for database in _databases(stage.profile):
        for name in ("999999.log", "MANIFEST-999999"):
            with suppress(FileExistsError):
                os.mkfifo(database / name)
    await _its_own_verbs(stage)


async def sparse_files(stage: Stage) -> None:
    for database in _databases(stage.profile):
        with (database / "999998.log").open("wb") as file:
            file.truncate(5 * 2**30)
    await _its_own_verbs(stage)


def on_the_page(fault: str, value: str | None = None) -> Attack:
    async def attack(stage: Stage) -> None:
        target = {"wid": stage.wid} | ({} if value is None else {"value": value})
        await stage.fleet.inject(fault, **target)
        await asyncio.Event().wait()

    return attack


async def half_open_connections(stage: Stage) -> None:
    """As many as there may be, none of which finishes its header; those that are closed are opened again."""

    async def one() -> None:
        while True:
            writer = None
            try:
                _, writer = await asyncio.open_connection(*stage.address)
                writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n")
                while True:
                    writer.write(b"X-More: x\r\n")
                    await writer.drain()
                    await asyncio.sleep(1)
            except OSError:
                await asyncio.sleep(0.5)
            finally:
                if writer is not None:
                    writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(1500):
            group.create_task(one())


async def archives(stage: Stage) -> None:
    """Imports of many members, of long headers, and of nothing but size."""
    bombs = [_members(300_000), _headers(100_000), zstandard.compress(bytes(2**30))]
    while True:
        for bomb in bombs:
            await asyncio.gather(*(_post(stage, "import", bomb) for _ in range(3)))


def _members(count: int) -> bytes:
    packed = io.BytesIO()
    with (
        zstandard.ZstdCompressor().stream_writer(packed, closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|") as tar,
    ):
        for number in range(count):
            tar.addfile(tarfile.TarInfo(f"Default/Local Storage/leveldb/{number:08d}.log"))
    return packed.getvalue()


def _headers(count: int) -> bytes:
    packed = io.BytesIO()
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    block = header.tobuf(tarfile.GNU_FORMAT) + b"x" * 512
    with zstandard.ZstdCompressor().stream_writer(packed, closefd=False) as stream:
        for _ in range(count):
            stream.write(block)
    return packed.getvalue()


KINDS: dict[str, Attack] = {
    "FIFOs in its profile": fifos,
    "sparse files of 5 GiB": sparse_files,
    "replaced prototypes": on_the_page("hostile_prototype"),
    "popups": on_the_page("popups"),
    "memory burst": on_the_page("memory_burst"),
    "half-open connections": half_open_connections,
    "archives": archives,
}


# --- the measurement ------------------------------------------------------------------------------------


async def verbs(own: Fleet, code: str) -> dict[str, float]:
    """Each verb of one healthy client, in seconds."""
    took = {}
    for verb in VERBS:
        began = time.monotonic()
        match verb:
            case "view":
                await own.view(code)
            case "connect":
                await own.connect(code, wait="connected")
            case "screenshot":
                status, picture = await own.ask("GET", f"/v1/sessions/{code}/screenshot")
                if status != 200:
                    raise Unexpected(f"screenshot of {code}: {status} {picture}")
            case "snapshot":
                await own.do(code, "snapshots")
            case "restart":
                await own.do(code, "restart", params={"wait": "connected", "timeout_s": "60"})
        took[verb] = time.monotonic() - began
    return took


async def rounds(own: Fleet, seconds: float, outcome: Outcome) -> dict[str, float]:
    """The medians of each verb, over whole rounds of all four that begin within ``seconds``."""
    taken: dict[str, list[float]] = {verb: [] for verb in VERBS}
    ends = time.monotonic() + seconds
    while not taken["view"] or time.monotonic() < ends:
        for code in HEALTHY:
            try:
                for verb, took in (await verbs(own, code)).items():
                    taken[verb].append(took)
            except (Unexpected, aiohttp.ClientError, TimeoutError) as error:
                outcome.faults.append(f"{code}: {error!r}"[:300])
                return {verb: statistics.median(some) for verb, some in taken.items() if some}
        outcome.rounds += 1
        await asyncio.sleep(1)
    return {verb: statistics.median(some) for verb, some in taken.items()}


async def tried(kind: str, attack: Attack, minutes: float, *, quick: bool) -> Outcome:
    outcome = Outcome(kind)
    settings = {"WAGUARD_API__CLIENT_TOKENS": f'{{{HOSTILE} = "{TOKEN}"}}'}
    async with fleet(settings, through=FEW_FILES) as own, _stage(own) as stage:
        for code in HEALTHY:
            await own.log_in(code)
            if await own.journal.first("snapshot.taken", client=code, seconds=90) is None:
                outcome.faults.append(f"{code}: not saved within 90 s")
        outcome.usual_s = await rounds(own, 10 if quick else 30, outcome)
        daemon = psutil.Process(own.pid)
        before, most = daemon.memory_info().rss, 0
        began = time.monotonic()
        hostile = asyncio.create_task(attack(stage))

        async def weigh() -> None:
            nonlocal most
            while True:
                most = max(most, daemon.memory_info().rss)
                await asyncio.sleep(0.2)

        scales = asyncio.create_task(weigh())
        try:
            outcome.rounds = 0
            outcome.under_s = await rounds(own, 60 * minutes, outcome)
            outcome.faults += [
                f"{line.client}: {line.told()}"[:300]
                for code in HEALTHY
                for line in own.journal.all("health.finding", "session.failure", client=code, since=began)
            ]
            if hostile.done() and not hostile.cancelled() and (error := hostile.exception()) is not None:
                outcome.faults.append(f"the attack ended: {error!r}"[:300])
            stopping = time.monotonic()
            daemon.send_signal(signal.SIGTERM)
            with suppress(psutil.TimeoutExpired):
                await asyncio.to_thread(psutil.wait_procs, [daemon], END_S)
            outcome.end_s = time.monotonic() - stopping
        finally:
            scales.cancel()
            hostile.cancel()
            await asyncio.gather(scales, hostile, return_exceptions=True)
        outcome.grown_mb = (most - before) / 2**20
    return _judged(outcome)


@asynccontextmanager
async def _stage(own: Fleet) -> AsyncIterator[Stage]:
    wid = await own.log_in(HOSTILE)
    parts = urlsplit(own.url)
    assert parts.hostname is not None
    assert parts.port is not None
    profile = (own.sessions / HOSTILE / "profile").resolve()
    async with aiohttp.ClientSession(
        own.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=aiohttp.ClientTimeout(total=120)
    ) as session:
        yield Stage(own, wid, profile, session, (parts.hostname, parts.port))


def _judged(outcome: Outcome) -> Outcome:
    verb, ratio = outcome.worst
    if ratio > TWICE:
        outcome.faults.append(f"{verb} takes {ratio:.1f} times as long")
    if outcome.grown_mb > MEMORY_MB:
        outcome.faults.append(f"the daemon has grown by {outcome.grown_mb:.0f} MB")
    if outcome.end_s > END_S:
        outcome.faults.append(f"SIGTERM did not end the daemon within {END_S:g} s")
    return outcome


async def main() -> int:
    chosen = options(__doc__, _more)
    minutes = chosen.minutes or (0.5 if chosen.quick else 10.0)
    wanted = [name.lower() for name in chosen.only or ()]
    kinds = {
        kind: attack
        for kind, attack in KINDS.items()
        if not wanted or any(name in kind.lower() for name in wanted)
    }
    if not kinds:
        raise SystemExit("There is no such kind. There are: " + ", ".join(KINDS))
    began, outcomes = time.monotonic(), []
    for kind, attack in kinds.items():
        print(f"  {kind} ...", file=sys.stderr, flush=True)
        try:
            outcomes.append(await tried(kind, attack, minutes, quick=chosen.quick))
        except Exception as error:  # noqa: BLE001 (one kind's trouble is not the table's)
            outcomes.append(Outcome(kind, faults=[repr(error)[:300]]))
    return _tell(outcomes, minutes, chosen.json, time.monotonic() - began)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="of hostility, each kind (10; 0.5 with --quick)")
    parser.add_argument("--only", action="append", metavar="NAME", help="kinds with this in their name")


def _tell(outcomes: list[Outcome], minutes: float, file: Path | None, took: float) -> int:
    print(f"  {'kind':<24} {'rounds':>6} {'slowest verb':<22} {'grown':>8} {'SIGTERM':>8}  verdict")
    figures = Figures("hostile")
    for one in outcomes:
        verb, ratio = one.worst
        slowest = f"{verb} x {ratio:.2f}"
        verdict = "FAILED" if one.faults else "unharmed"
        print(
            f"  {one.kind:<24} {one.rounds:>6} {slowest:<22} {one.grown_mb:>5.0f} MB {one.end_s:>6.1f} s  {verdict}"
        )
        for fault in one.faults[:6]:
            print(f"      {fault}")
    figures.add("kinds", len(outcomes))
    figures.add("minutes_each", minutes)
    figures.add("failed", sum(bool(one.faults) for one in outcomes), at_most=0)
    figures.add("slowest_ratio", max((one.worst[1] for one in outcomes), default=0.0), at_most=TWICE)
    figures.add("grown_mb", max((one.grown_mb for one in outcomes), default=0.0), at_most=MEMORY_MB)
    figures.add("end_s", max((one.end_s for one in outcomes), default=0.0), at_most=END_S)
    figures.add("took_s", took)
    rows = [
        {"kind": one.kind, "usual_s": one.usual_s, "under_s": one.under_s, "grown_mb": one.grown_mb,
         "end_s": one.end_s, "rounds": one.rounds, "faults": one.faults}
        for one in outcomes
    ]  # fmt: skip
    met = figures.close(file, f"{len(outcomes)} kinds beside {len(HEALTHY)} healthy clients", rows=rows)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
