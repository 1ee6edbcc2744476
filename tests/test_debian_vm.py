"""On a whole machine of each Debian release, kernel and all: the package, limits that the kernel keeps, reboots and a power cut.

Each is made and emulated first, which takes minutes, and so only where it is asked for: `make vm-test`.
"""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from checkout import ROOT
from debian_vm import Debian, debian
from installed import TOKEN, Service, saved, until

from waguard.simulator.server import Cadence, Simulator

pytestmark = [
    pytest.mark.skipif(
        "WAGUARD_TEST_VM" not in os.environ, reason="makes whole machines first: make vm-test"
    ),
    pytest.mark.timeout(1500),
]
CODES = ("one", "two")
MEMORY_MB, PIDS = 500, 400
CONFIG = f"""
[sessions]
dir = "/var/lib/waguard/sessions"
[api]
admin_token = "{TOKEN}"
[whatsapp]
url = "URL"
[limits]
reserve_memory_mb = 0
session_memory_mb = 0
[cgroup]
memory_max_mb = {MEMORY_MB}
pids_max = {PIDS}
[recycle]
soft_memory_mb = {MEMORY_MB - 1}
hard_memory_mb = {MEMORY_MB}
[deadlines]
prepare = 100
start = 200
open = 300
"""
"""No probe sees the page grow before the kernel does: it looks once a minute. An emulated machine needs time."""
PATIENCE_S = 250.0
CGROUP = "/sys/fs/cgroup/waguard.slice/waguard.service"


@pytest.fixture(params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Debian]:
    with debian(request.param, ROOT, tmp_path) as machine:
        yield machine
        for entry in machine.journal("-u", "waguard"):
            print(entry["_PID"], entry["MESSAGE"])  # noqa: T201 (for the report of a failure)


async def test_on_a_whole_machine(machine: Debian) -> None:
    async with Simulator(cadence=Cadence(sync_s=0.1)) as simulator:
        service = Service(machine, machine.port)
        what = "uname -r; systemctl --version | head -1; bwrap --version; python3 -V"
        print((await service.run("sh", "-c", what)).replace("\n", "; "))  # noqa: T201 (what was tried)
        # It compiles some thousand files, on a processor that is emulated.
        await asyncio.to_thread(machine.run, "sh", "-c", "dpkg -i /root/waguard_*.deb", seconds=600.0)
        await asyncio.to_thread(machine.reaches, urlsplit(simulator.url).port or 80)
        await asyncio.to_thread(
            machine.write, "/etc/waguard/config.toml", CONFIG.replace("URL", simulator.url)
        )
        await service.run("systemctl", "restart", "waguard")
        for code in CODES:
            await service.ask("POST", f"/v1/sessions/{code}/connect")
            simulator.scan((await service.ask("GET", f"/v1/sessions/{code}"))["qr"]["text"], "34600000000")
        await connected(service)
        devices = {one.wid for one in simulator.devices}

        figure = (await service.run("systemd-analyze", "security", "--no-pager", "waguard")).splitlines()[-1]
        print(figure)  # noqa: T201 (likewise)
        assert min(float(number) for number in re.findall(r"\d+\.\d", figure)) <= 2.5
        before = await browsers(service)
        assert {one["sandbox"] for one in before.values()} == {"bubblewrap"}

        loads = simulator.loads
        ends: list[tuple[str, ...]] = [("restart",), ("kill", "--kill-who=main", "--signal=KILL")]
        for how in ends:
            since = time.time()
            await service.run("systemctl", *how, "waguard")
            await until_told(service, "session.adopted", since, len(CODES))
            await connected(service)
            assert await browsers(service) == before
        assert simulator.loads == loads

        await limits(service, simulator)

        for code in CODES:
            await until(service, code, saved)
        ends = [("systemctl", "reboot"), ("sh", "-c", "echo b > /proc/sysrq-trigger")]
        for how in ends:
            await asyncio.to_thread(machine.reboot, *how)
            await connected(service)
            kept = {one["client"]: one["profile"] for one in await sessions(service)}
            print(f"after {' '.join(how)}: connected again without a scan, {kept}")  # noqa: T201 (likewise)
        assert {one.wid for one in simulator.devices} == devices

        await service.run("systemctl", "stop", "waguard")
        assert "waguard" not in await service.run("ps", "-eo", "user:32=", "-o", "args=")


async def limits(service: Service, simulator: Simulator) -> None:
    """The page that takes more than it may is ended by the kernel, and loaded again; nobody else notices."""
    (*_, found) = await until_told(service, "cgroup.found", 0)
    if int((await service.run("systemctl", "--version")).split()[1]) < 254:
        assert not found["limits"]
        assert "DelegateSubgroup=" in found["why_no_limits"]
        return
    assert found["limits"] == ["memory", "pids"]
    for name, value in (("memory.max", MEMORY_MB << 20), ("pids.max", PIDS)):
        said = await service.run("sh", "-c", f"cat {CGROUP}/session-*/{name}")
        assert said.split() == [str(value)] * len(CODES)

    before, loads, since = await browsers(service), simulator.loads, time.time()
    # No process of it may take that much alone (RLIMIT_DATA): the page takes what it gets, and another process in its place the rest.
    await simulator.inject("memory_burst", value=f"{MEMORY_MB}", wid=simulator.devices[0].wid)
    takes = f"import time; taken = bytearray(b'x') * ({MEMORY_MB * 6 // 10} << 20); time.sleep(100)"
    beside = f'echo $$ > "$(ls -d {CGROUP}/session-{CODES[0]}.*)/cgroup.procs"; python3 -c "{takes}" >/dev/null 2>&1 &'
    await service.run("sh", "-c", beside)
    try:
        (finding,) = await until_told(service, "health.finding", since)
    except AssertionError:
        look = f"free -m; date +%s; head {CGROUP}/session-*/memory.* {CGROUP}/session-*/*/memory.current"
        print(since, await sessions(service), await service.run("sh", "-c", f"{look} || true"))  # noqa: T201 (for the report)
        raise
    await simulator.clear_faults()
    await until_told(service, "health.recovered", since)
    await connected(service)
    assert finding["fault"] == "page_crashed"
    why = f"the kernel ended one of its processes at cgroup.memory_max_mb = {MEMORY_MB}"
    assert finding["evidence"] == ["the browser says so", why]
    assert await browsers(service) == before
    assert simulator.loads == loads + 1
    killed = await service.run("sh", "-c", f"grep -h oom_kill {CGROUP}/session-*/memory.events")
    assert sorted(re.findall(r"oom_kill (\d+)", killed)) == ["0", "1"]
    print(f"{finding['evidence']}: {MEMORY_MB} MiB were reached, one process killed")  # noqa: T201 (likewise)

    fill = f'echo $$ > "$(ls -d {CGROUP}/session-{CODES[1]}.*)/cgroup.procs"; while sleep 60 & do :; done'
    assert "ork" in await service.run("timeout", "60", "sh", "-c", f"{fill} || true")  # cannot fork
    assert await browsers(service) == before


async def sessions(service: Service) -> list[dict[str, Any]]:
    return list((await service.ask("GET", "/v1/sessions"))["sessions"])


async def browsers(service: Service) -> dict[str, Any]:
    """Their pids and sandboxes."""
    found = {one["client"]: dict(one["browser"]) for one in await sessions(service)}
    for browser in found.values():
        del browser["started_at"]  # as the clock goes now, which is set finely: another millisecond each time
    return found


async def connected(service: Service) -> None:
    deadline, found = time.monotonic() + PATIENCE_S, {}
    while time.monotonic() < deadline:
        with contextlib.suppress(aiohttp.ClientError, AssertionError):
            found = {one["client"]: one["status"] for one in await sessions(service)}
            if found == dict.fromkeys(CODES, "connected"):
                return
        await asyncio.sleep(0.5)
    raise AssertionError(found)


async def until_told(service: Service, name: str, since: float, count: int = 1) -> list[dict[str, Any]]:
    """Wait for so many events of this name."""
    deadline = time.monotonic() + PATIENCE_S
    while len(found := await asyncio.to_thread(service.events, name, since)) < count:
        assert time.monotonic() < deadline, f"{name}: {found}"
        await asyncio.sleep(0.5)
    return found
