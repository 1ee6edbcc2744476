#!/usr/bin/env python3
"""The fault matrix: what goes wrong with a session, how soon it is found, what cures it, and whether the login survives.

Everything real: Chromium in its sandbox, the daemon as a process of its own, its control port, its log; the page is the
simulated WhatsApp Web, the settings are the daemon's own; ``WAGUARD_BROWSER__PATH`` names another browser than it would
find. Each row makes one fault and looks from outside: at the log for what was found and done, at the session and at the phone
for whether it is well again. Rows of one session run beside each other in one daemon, each on a session of its own; those that
concern all have a daemon of their own. `page_faults.py` has those that are told by the word they show.

``found`` counts from the fault to the daemon's word of it; ``back`` from the fault until the session is connected again (or
shows a code that a phone takes) by its own word and the phone's. A login is kept when the same device is connected again
without a scan. Exit code 1 if a row fails.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from bed import PATIENCE_S, SCANNABLE, Bed, Do, Result, Row
from figures import Figures, heard_daemon, options, room
from fleet import Line, Unexpected, fleet
from page_faults import PAGE_ROWS
from road import Names, Road

from waguard.browser import find
from waguard.core.health.faults import Fault

BESIDE = 5
"""Rows that run beside each other: two cores are to measure the daemon, not the queue for them."""


# --- the page -------------------------------------------------------------------------------------------


async def loop_once(bed: Bed) -> None:
    wid = await bed.logged_in()
    bed.strike()
    await bed.fleet.inject("spin_once", wid=wid)
    await bed.finding({Fault.PAGE_LOOPING})
    await bed.well()
    await bed.recovered(restarts=0)


async def loop_until_loaded(bed: Bed) -> None:
    wid = await bed.logged_in()
    bed.strike()
    await bed.fleet.inject("spin_until_load", wid=wid)
    await bed.finding({Fault.PAGE_LOOPING})
    await bed.well()
    await bed.recovered(restarts=0)


async def loop_on_load(bed: Bed) -> None:
    """It comes back with each load, until the daemon has seen that a reload does not help."""
    wid = await bed.logged_in()
    bed.strike()
    await bed.fleet.inject("spin_until_load", wid=wid)
    await bed.fleet.inject("spin", wid=wid)
    await bed.finding({Fault.PAGE_LOOPING})
    try:
        reload = await bed.journal.first(
            "health.remedy",
            client=bed.code,
            since=bed.began,
            seconds=PATIENCE_S,
            when=lambda line: line.fields["remedy"] == "reload",
        )
        if reload is not None and reload.fields["outcome"] == "cured":  # the page was heard before it looped
            await bed.journal.first(
                "health.finding", "browser.spawned", client=bed.code, since=reload.at, seconds=PATIENCE_S
            )
    finally:
        await bed.fleet.clear("spin", wid=wid)
    await bed.well()
    await bed.recovered(restarts=2)


async def never_loads(bed: Bed) -> None:
    await _at_connect(bed, "never_loads", {Fault.PAGE_NOT_LOADED})


async def never_answers(bed: Bed) -> None:
    await _at_connect(bed, "never_answers", {Fault.PAGE_NOT_LOADED, Fault.NETWORK_HUNG, Fault.OFFLINE})


async def _at_connect(bed: Bed, fault: str, expected: Collection[Fault]) -> None:
    """A session with a login is connected on a page that does not come up, until some time after that is found."""
    wid = await bed.logged_in()
    await bed.fleet.do(bed.code, "disconnect")
    await bed.fleet.inject(fault, wid=wid)
    bed.strike()
    await bed.fleet.connect(bed.code, wait="none")
    try:
        await bed.finding(expected)
        await asyncio.sleep(5)
    finally:
        await bed.fleet.clear(fault, wid=wid)
    await bed.well()
    await bed.recovered(restarts=2)


async def storage_refused(bed: Bed) -> None:
    view = await bed.fleet.connect(bed.code)
    ref = view["qr"]["text"][:60]
    await bed.fleet.inject("storage_refused", ref=ref)
    bed.strike()
    await bed.fleet.do(bed.code, "restart", params={"wait": "none"})
    bed.began = time.monotonic()  # the browser that was there is closed by now
    try:
        await bed.finding({Fault.STORAGE_REFUSED})
    finally:
        await bed.fleet.clear("storage_refused", ref=ref)
    await bed.well(SCANNABLE)
    await bed.recovered(restarts=2)


async def memory_growth(bed: Bed) -> None:
    wid = await bed.logged_in()
    bed.strike()
    await bed.fleet.inject("memory_growth", wid=wid)
    try:
        await bed.finding({Fault.MEMORY_HIGH}, 2 * PATIENCE_S)
    finally:
        await bed.fleet.clear("memory_growth", wid=wid)
    await bed.well()
    await bed.recovered(restarts=0)


# --- processes ------------------------------------------------------------------------------------------


def struck(
    kind: str, number: signal.Signals, expected: Collection[Fault], *, restarts: int, itself: bool = False
) -> Do:
    """A process of the browser gets a signal. ``itself``: the browser may mend that without our help."""

    async def do(bed: Bed) -> None:
        await bed.settled()  # a snapshot lets go on whoever is stopped while it is taken
        process = await bed.process(kind)
        bed.strike()
        process.send_signal(number)
        if itself:
            await asyncio.sleep(5)
            await bed.well()
            if bed.findings():
                await bed.finding(expected)
            else:
                bed.result.cure = "the browser itself"
        else:
            await bed.finding(expected)
            await bed.well()
        await bed.recovered(restarts=restarts)

    return do


# --- WhatsApp and the network ---------------------------------------------------------------------------


async def socket_dropped(bed: Bed) -> None:
    wid = await bed.logged_in()
    bed.strike()
    await bed.fleet.inject("drop_socket", wid=wid)
    away = await bed.journal.first("session.changed", client=bed.code, since=bed.began, seconds=5)
    if away is not None:
        bed.seen(away, str(away.fields["reason"] or away.fields["status"]))
    await bed.well()
    bed.result.cure = "the page itself" if bed.result.cure == "-" else bed.result.cure
    await bed.recovered(restarts=0)


async def offline(bed: Bed) -> None:
    wid = await bed.logged_in()
    bed.strike()
    await bed.fleet.inject("offline", wid=wid)
    try:
        await bed.finding({Fault.OFFLINE})
        await asyncio.sleep(5)
    finally:
        await bed.fleet.clear("offline", wid=wid)
    await bed.well()
    await bed.recovered(restarts=1)


async def codes_used_up(bed: Bed) -> None:
    await bed.fleet.connect(bed.code)
    # The page shows its reload button once the last code has expired.
    last = await bed.journal.first("session.qr_shown", client=bed.code, seconds=5)
    if last is None:
        raise Unexpected("no code was shown")
    while (
        shown := await bed.journal.first(
            "session.qr_shown", "session.qr_reloaded", client=bed.code, since=last.at + 0.001, seconds=15
        )
    ) is not None and shown.event == "session.qr_shown":
        last = shown
    if shown is None:
        raise Unexpected("no fresh codes were asked for")
    bed.began = last.at + 3.0  # as long as a code lives with the simulator's --quick
    bed.seen(shown, "codes used up")
    await bed.well(SCANNABLE)
    bed.result.cure = "reload_qr"
    await _scan(bed)


async def code_stale(bed: Bed) -> None:
    view = await bed.fleet.connect(bed.code)
    ref = view["qr"]["text"][:60]
    await bed.fleet.inject("stale_qr", ref=ref)
    await asyncio.sleep(7)  # the code on screen has expired now
    await bed.fleet.clear("stale_qr", ref=ref)
    bed.strike()
    await bed.finding({Fault.QR_STALE})
    await bed.well(SCANNABLE)
    await _scan(bed)


async def _scan(bed: Bed) -> None:
    """The proof that a code is good: the phone takes it."""
    view = await bed.fleet.until(bed.code, lambda view: view["qr"] is not None)
    await bed.fleet.scan(view["qr"]["text"])
    await bed.fleet.until(bed.code, lambda view: view["status"] == "connected")
    await bed.recovered(restarts=0)


async def logged_out(bed: Bed) -> None:
    wid = await bed.logged_in()
    bed.strike()
    await bed.fleet.page("POST", "/phone/logout", json={"wid": wid})
    await bed.finding({Fault.LOGGED_OUT}, 30)
    view = await bed.fleet.until(bed.code, lambda view: view["qr"] is not None)
    bed.result.login = "gone"
    if view["reason"] != "logged_out":
        raise Unexpected(f"status {view['status']}, reason {view['reason']}")
    await bed.left_alone()


async def conflict(bed: Bed) -> None:
    """A second real browser has the same login: another daemon's, by the first one's snapshot."""
    wid = await bed.logged_in()
    taken = await bed.fleet.do(bed.code, "snapshots")
    _, archive = await bed.fleet.ask(
        "GET", f"/v1/sessions/{bed.code}/snapshots/{taken['id']}", params={"form": "plain"}
    )
    other = heard_daemon(bed.fleet.place / "other", bed.fleet.page_url)
    url, token, _ = await asyncio.to_thread(other.__enter__)
    try:
        async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"}) as control:
            bed.strike()
            async with control.post("/v1/sessions/other/import?wait=connected", data=archive) as answer:
                if answer.status != 200:
                    raise Unexpected(f"the import is answered {answer.status} {await answer.text()}")
            await bed.finding({Fault.CONFLICT}, 30)
            await bed.left_alone()
            if (link := await bed.fleet.link(wid)) != "connected":
                raise Unexpected(f"the other browser is {link}")
    finally:
        await asyncio.to_thread(other.__exit__, None, None, None)
    bed.result.login = "kept"
    bed.result.notes.append("the other browser stays connected")


# --- the profile ----------------------------------------------------------------------------------------


async def profile_damaged(bed: Bed) -> None:
    await bed.logged_in()
    await bed.fleet.do(bed.code, "disconnect")
    await bed.fleet.do(bed.code, "snapshots")
    profile = (bed.fleet.sessions / bed.code / "profile").resolve()
    for manifest in (profile / "Default" / "IndexedDB").glob("*.indexeddb.leveldb/MANIFEST-*"):
        manifest.write_bytes(bytes(manifest.stat().st_size))
    bed.strike()
    view = await bed.fleet.connect(bed.code, wait="connected")
    restored = await bed.journal.first("profile.restored", client=bed.code, since=bed.began, seconds=1)
    if restored is None or view["check"]["verdict"] != "damaged":
        raise Unexpected(f"profile {view['profile']}, check {view['check']}")
    bed.seen(restored, "check: damaged")
    await bed.well()
    bed.result.cure = "restore"
    await bed.recovered(restarts=1)


# --- with a daemon of its own ---------------------------------------------------------------------------


async def browser_refused(result: Result, _: argparse.Namespace) -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0"
    async with fleet({"WAGUARD_BROWSER__USER_AGENT": agent}) as own:
        bed = Bed(own, "demo", result)
        bed.strike()
        status, body = await own.ask("POST", "/v1/sessions/demo/connect")
        if (status, body.get("code"), body.get("reason")) != (409, "refused", "refused"):
            raise Unexpected(f"the connect is answered {status} {body}")
        await bed.finding({Fault.REFUSED}, 5)
        bed.began = time.monotonic()
        await bed.left_alone()


RELAY = """#!/usr/bin/python3
# Between the daemon and a real browser: passes on what both say, and closes its own end of the pipe on SIGUSR1.
import os, select, signal, sys

BINARY = {binary!r}
if "--version" in sys.argv:
    os.execv(BINARY, [BINARY, "--version"])
orders_read, orders_write = os.pipe()
answers_read, answers_write = os.pipe()
child = os.fork()
if child == 0:
    high = [os.dup2(orders_read, 103), os.dup2(answers_write, 104)]
    os.dup2(high[0], 3)
    os.dup2(high[1], 4)
    os.execv(BINARY, [BINARY, *sys.argv[1:]])
os.close(orders_read)
os.close(answers_write)
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(True))
while True:
    ready, _, _ = select.select([3, answers_read], [], [], 0.1)
    if asked:
        os.close(3)
        os.close(4)
        os.waitpid(child, 0)
        break
    for source, target in ((3, orders_write), (answers_read, 4)):
        if source in ready:
            said = os.read(source, 65536)
            if not said:
                os.close(orders_write)
                sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 127)
            while said:
                said = said[os.write(target, said):]
"""


async def pipe_closed(result: Result, _: argparse.Namespace) -> None:
    with room() as place:
        binary = find.locate(None)
        relay = place / f"relay-{binary.name}"  # by its name it is known what it may be told
        relay.write_text(RELAY.format(binary=str(binary)))
        relay.chmod(0o755)
        async with fleet({"WAGUARD_BROWSER__PATH": str(relay)}) as own:
            bed = Bed(own, "demo", result)
            await bed.logged_in()
            processes = await own.processes("demo")
            between = next(
                process
                for kind in ("other", "browser")
                for process in processes.get(kind, ())
                if any(str(relay) in word for word in process.cmdline())
            )
            bed.strike()
            between.send_signal(signal.SIGUSR1)
            await bed.finding({Fault.PIPE_CLOSED})
            await bed.well()
            await bed.recovered(restarts=1)
            result.notes.append("a real browser behind a relay that closes its pipe")


async def disk_full(result: Result, _: argparse.Namespace) -> None:
    """A session that is up goes on, a connect is refused and touches nothing, and all is well when there is space."""
    with room() as place:
        sessions = place / "small"
        sessions.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=192m,mode=711", "tmpfs", str(sessions)]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            result.verdict = "skipped"
            result.notes.append("no tmpfs may be mounted here")
            return
        try:
            async with fleet({"WAGUARD_LIMITS__RESERVE_DISK_MB": "8"}, sessions=sessions) as own:
                bed = Bed(own, "demo", result)
                await bed.logged_in()
                ballast = sessions / "ballast"
                bed.strike()
                _fill(ballast)
                status, body = await own.ask("POST", "/v1/sessions/other/connect")
                if (status, body.get("code")) != (507, "disk_full"):
                    raise Unexpected(f"a connect is answered {status} {body}")
                result.found, result.found_s = "connect: disk_full", time.monotonic() - bed.began
                await asyncio.sleep(10)
                _fill(ballast)
                view = await own.view("demo")
                if view["status"] != "connected":
                    raise Unexpected(f"the session that was up is {view['status']}")
                ballast.unlink()
                await own.connect("other")
                await own.do("demo", "restart", params={"wait": "connected"})
                await bed.well()
                result.cure = "space"
                await bed.recovered(restarts=1)
                result.notes.append("the restart is the bench's, as proof of the login")
        finally:
            subprocess.run(["umount", str(sessions)], check=False)


def _fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(2**16))


@asynccontextmanager
async def several(bed_result: Result, count: int, **options: Any) -> AsyncIterator[list[Bed]]:
    """So many connected sessions of a daemon of their own; the table's row is the first one's."""
    async with fleet(**options) as own:
        beds = [
            Bed(own, f"client{number}", bed_result if number == 0 else Result("")) for number in range(count)
        ]
        for bed in beds:
            await bed.logged_in()
        yield beds


async def network_gone(result: Result, chosen: argparse.Namespace) -> None:
    """For all at once: no page gets through, what was open is reset."""
    road = Road()
    await road.open()
    try:
        async with several(result, 4, road=road.lead) as beds:
            _strike(beds)
            road.cut()
            alert = await _alerted(beds[0])
            await asyncio.sleep(15 if chosen.quick else 60)
            await road.open()
            await _all_well(beds)
            _one_alert(beds[0], alert)
    finally:
        road.cut()


async def names_gone(result: Result, _: argparse.Namespace) -> None:
    """For all at once: no name is resolved any more, and what was open is reset, so that it shows."""
    road, names = Road("whatsapp.test"), Names()
    loop = asyncio.get_running_loop()
    with room() as place:
        file = place / "resolv.conf"
        file.write_text(f"nameserver {Names.ADDRESS}\noptions timeout:1 attempts:1\n")
        file.chmod(0o644)
        own_names = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        through = ["unshare", "--mount", "sh", "-c", own_names, str(file)]
        if subprocess.run([*through, "true"], check=False, capture_output=True).returncode != 0:
            result.verdict = "skipped"
            result.notes.append("the daemon can have no /etc/resolv.conf of its own here")
            return
        transport, _protocol = await loop.create_datagram_endpoint(
            lambda: names, local_addr=(Names.ADDRESS, 53)
        )
        await road.open()
        try:
            async with several(result, 4, road=road.lead, through=through) as beds:
                _strike(beds)
                names.silent = True
                for _second in range(100):  # what was resolved is remembered for a minute
                    road.reset()
                    await asyncio.sleep(1)
                alert = await _alerted(beds[0])
                names.silent = False
                await _all_well(beds)
                _one_alert(beds[0], alert)
        finally:
            road.cut()
            transport.close()


def _strike(beds: Sequence[Bed]) -> None:
    for bed in beds:
        bed.strike()


async def _alerted(bed: Bed) -> Line | None:
    alert = await bed.journal.first("alert.raised", since=bed.began, seconds=60)
    if alert is not None:
        bed.seen(alert, f"alert: {alert.fields['alert']}")
    return alert


async def server_hangs(result: Result, chosen: argparse.Namespace) -> None:
    """For all at once: the server stands still with every connection open, and goes on."""
    async with several(result, 4) as beds:
        _strike(beds)
        os.kill(beds[0].fleet.page_pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(15 if chosen.quick else 60)
        finally:
            os.kill(beds[0].fleet.page_pid, signal.SIGCONT)
        await _all_well(beds)
        result.notes.append("open connections stay open: nothing to be found")


async def _all_well(beds: Sequence[Bed]) -> None:
    """All come back by themselves."""
    for bed in beds:
        await bed.well(seconds=120)
    result = beds[0].result
    result.restarts = sum(bed.result.restarts for bed in beds)
    result.notes.append(f"{len(beds)} sessions")
    tried = beds[0].journal.all("health.remedy", since=beds[0].began)
    if tried:
        raise Unexpected(f"{len(tried)} remedies for what none can cure, first: {tried[0].told()}")
    if result.cure in {"-", "none"}:
        result.cure = "by itself"
    await beds[0].recovered(restarts=0)


def _one_alert(bed: Bed, alert: Line | None) -> None:
    raised = bed.journal.all("alert.raised", since=bed.began)
    cleared = bed.journal.all("alert.cleared", since=bed.began)
    if alert is None or (len(raised), len(cleared)) != (1, 1):
        bed.result.verdict = "FAILED"
        raise Unexpected(f"{len(raised)} alerts raised, {len(cleared)} cleared")


async def daemon_stopped(result: Result, chosen: argparse.Namespace) -> None:
    """The daemon itself stands still: no silence that it slept through is anybody's fault."""
    asleep = 20 if chosen.quick else 60
    async with several(result, 3) as beds:
        await asyncio.sleep(5)
        _strike(beds)
        os.kill(beds[0].fleet.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(asleep)
        finally:
            os.kill(beds[0].fleet.pid, signal.SIGCONT)
        await asyncio.sleep(15)
        await _all_well(beds)
        found = beds[0].journal.all("health.finding", since=beds[0].began)
        if found:
            raise Unexpected(f"{len(found)} findings, first: {found[0].told()}")
        result.found, result.cure = "nothing, rightly", "-"
        result.notes.append(f"{asleep} s")


ROWS = (
    Row("endless loop", loop_once, quick=True, greedy=True),
    Row("endless loop until loaded", loop_until_loaded, greedy=True),
    Row("endless loop on each load", loop_on_load, greedy=True),
    Row("renderer killed", struck("renderer", signal.SIGKILL, {Fault.PAGE_CRASHED}, restarts=0), quick=True),
    Row("renderer stopped", struck("renderer", signal.SIGSTOP, {Fault.PROCESS_STOPPED}, restarts=0)),
    Row("browser killed", struck("browser", signal.SIGKILL, {Fault.BROWSER_EXITED}, restarts=1), quick=True),
    Row(
        "browser stopped",
        struck("browser", signal.SIGSTOP, {Fault.PROCESS_STOPPED, Fault.BROWSER_HUNG}, restarts=0),
        quick=True,
    ),
    Row(
        "GPU process killed",
        struck("gpu", signal.SIGKILL, {Fault.PAGE_CRASHED}, restarts=0, itself=True),
    ),
    Row("GPU process stopped", struck("gpu", signal.SIGSTOP, {Fault.PROCESS_STOPPED}, restarts=0)),
    Row(
        "network service killed",
        struck("network", signal.SIGKILL, {Fault.OFFLINE, Fault.NETWORK_HUNG}, restarts=0, itself=True),
    ),
    Row(
        "network service stopped",
        struck("network", signal.SIGSTOP, {Fault.PROCESS_STOPPED, Fault.NETWORK_HUNG}, restarts=0),
    ),
    Row("sandbox's init killed", struck("init", signal.SIGKILL, {Fault.BROWSER_EXITED}, restarts=1)),
    Row("page never loads", never_loads),
    Row("server never answers", never_answers),
    Row("WebSocket dropped", socket_dropped, quick=True),
    Row("WebSockets refused", offline),
    Row("QR codes used up", codes_used_up),
    Row("QR code stale", code_stale),
    Row("logged out by the phone", logged_out, quick=True),
    Row("conflict in another browser", conflict),
    Row("storage refused", storage_refused),
    Row("memory growth", memory_growth),
    Row("profile damaged", profile_damaged),
    Row("browser refused", alone=browser_refused),
    Row("pipe closed", alone=pipe_closed),
    Row("disk full", alone=disk_full),
    Row("network gone for all", alone=network_gone),
    Row("DNS gone for all", alone=names_gone),
    Row("server hangs for all", alone=server_hangs),
    Row("daemon stopped", alone=daemon_stopped),
    *PAGE_ROWS,
)


async def main() -> int:
    chosen = options(__doc__, _more)
    wanted = [name.lower() for name in chosen.only or ()]
    rows = [
        row
        for row in ROWS
        if (any(name in row.name.lower() for name in wanted) if wanted else row.quick or not chosen.quick)
    ]
    if not rows:
        raise SystemExit("There is no such row. There are: " + ", ".join(row.name for row in ROWS))
    began = time.monotonic()
    results = {row.name: Result(row.name) for row in rows}
    shared = [row for row in rows if row.do is not None]
    gate, one = asyncio.Semaphore(BESIDE), asyncio.Semaphore(1)
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(fleet()) if shared else None
        async with asyncio.TaskGroup() as tasks:
            for number, row in enumerate(shared):
                assert own is not None
                bed = Bed(own, f"row{number}", results[row.name])
                tasks.create_task(_beside(one if row.greedy else gate, row, bed))
    async with asyncio.TaskGroup() as tasks:
        gate = asyncio.Semaphore(2)
        for row in rows:
            if row.alone is not None:
                tasks.create_task(_by_itself(gate, row, results[row.name], chosen))
    return _tell(list(results.values()), chosen.json, time.monotonic() - began)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", action="append", metavar="NAME", help="rows with this in their name")


async def _beside(gate: asyncio.Semaphore, row: Row, bed: Bed) -> None:
    async with gate:
        assert row.do is not None
        await _guarded(bed.result, row.do(bed))
        bed.result.restarts = bed.result.restarts or len(
            bed.journal.all("browser.spawned", client=bed.code, since=bed.began)
        )
        if bed.result.failed:
            bed.result.notes.extend(_said(bed))
        with suppress(Unexpected, OSError, TimeoutError):
            if (await bed.fleet.ask("GET", f"/v1/sessions/{bed.code}"))[0] == 200:
                await bed.fleet.do(bed.code, "cleanup")


async def _by_itself(gate: asyncio.Semaphore, row: Row, result: Result, chosen: argparse.Namespace) -> None:
    async with gate:
        assert row.alone is not None
        await _guarded(result, row.alone(result, chosen))


async def _guarded(result: Result, work: Awaitable[None]) -> None:
    print(f"  {result.name} ...", file=sys.stderr, flush=True)
    try:
        await work
    except Exception as error:  # noqa: BLE001 (one row's trouble is not the table's)
        result.verdict = "FAILED"
        result.notes.append(str(error) if isinstance(error, Unexpected) else repr(error))
    print(f"  {result.name}: {_line(result)}", file=sys.stderr, flush=True)


def _line(result: Result) -> str:
    return (
        f"found {result.found} after {_seconds(result.found_s)}, cured by {result.cure}, "
        f"back after {_seconds(result.back_s)}: {result.verdict}"
    )


def _said(bed: Bed) -> list[str]:
    """What the daemon had to say of a row that failed, from its first words to its last."""
    lines = bed.journal.all(
        *("health.finding", "health.remedy", "health.recovered", "session.changed", "session.failure"),
        *("browser.spawned", "internal.error", "alert.raised"),
        client=bed.code,
        since=bed.began,
    )
    told = [f"+{line.at - bed.began:.1f} s {line.told()}" for line in lines]
    return told if len(told) <= 24 else [*told[:12], "...", *told[-12:]]


COLUMNS = (
    "fault",
    "word",
    "word s",
    "found",
    "found s",
    "cure",
    "back s",
    "since found",
    "login",
    "restarts",
    "verdict",
)


def _tell(results: list[Result], file: Path | None, took: float) -> int:
    table = [COLUMNS] + [
        (
            result.name,
            result.word,
            _seconds(result.word_s),
            result.found,
            _seconds(result.found_s),
            result.cure,
            _seconds(result.back_s),
            _seconds(result.cured_s),
            result.login,
            str(result.restarts),
            result.verdict,
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    for row in table:
        print("  " + "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
    for result in results:
        for note in result.notes:
            print(f"    {result.name}: {note}")
    failed = [result.name for result in results if result.failed]
    figures = Figures("faults")
    figures.add("rows", len(results))
    figures.add("failed", len(failed), at_most=0)
    figures.add("took_s", took)
    rows = [
        {
            "fault": result.name,
            "word": result.word,
            "word_s": result.word_s,
            "found": result.found,
            "found_s": result.found_s,
            "cure": result.cure,
            "back_s": result.back_s,
            "since_found_s": result.cured_s,
            "login": result.login,
            "restarts": result.restarts,
            "verdict": result.verdict,
            "notes": result.notes,
        }
        for result in results
    ]
    people = sum(result.verdict.startswith("a person") for result in results)
    well = sum(result.verdict == "recovered" for result in results)
    line = (
        f"{len(results)} rows in {took:.0f} s: {well} recovered, {people} need a person, {len(failed)} failed"
    )
    figures.close(file, line + (f" ({', '.join(failed)})" if failed else ""), rows=rows)
    return 1 if failed else 0


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
