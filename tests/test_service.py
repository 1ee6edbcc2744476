"""The service in a real systemd: its unit as it is shipped, real Chromium, the daemon ended in every way there is."""

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import waiting
from bare_browser import BINARY
from installed import CODES, CONFIG, PORT, TOKEN, Service, saved, until, until_adopted
from raw_client import raw_client
from systemd_box import Box, booted

import waguard
from waguard.relay.client import Closing
from waguard.sandbox.fence import Fence
from waguard.simulator.server import Cadence, Simulator

ROOT = Path(waguard.__file__).parent.parent
DRIVEN = f"ws://127.0.0.1:{PORT}/v1/sessions/one/cdp"
HASTY = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nWatchdogSec=2\n"
"""For a test's sake it is killed more often than the unit allows, and found hung sooner."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Box]:
    if BINARY is None:
        pytest.skip("no Chromium is installed")
    with booted() as machine:
        yield machine


@pytest.fixture(autouse=True)
def told(machine: Box) -> Iterator[None]:
    """For the report of a failure: all that the service and systemd have said."""
    yield
    for entry in machine.journal("-u", "waguard"):
        print(entry["_PID"], entry["MESSAGE"])  # noqa: T201
    machine.run("systemctl", "stop", "waguard", ok=False)
    machine.run("ln", "-sfn", "checkout", "/opt/current")  # one that upgrades leaves another version there


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(cadence=Cadence(sync_s=0.1)) as simulator:
        yield simulator


def steps(said: str, word: str) -> list[str]:
    """What `waguard install` has told of, of this kind."""
    return [line.split(maxsplit=1)[1] for line in said.splitlines() if line.split(maxsplit=1)[0] == word]


def install(machine: Box, url: str) -> None:
    machine.run("waguard", "install", "--no-start", "--program", "/usr/bin/waguard")
    machine.write("/etc/waguard/config.toml", CONFIG.format(port=PORT, token=TOKEN, url=url))
    machine.write("/etc/systemd/system/waguard.service.d/hasty.conf", HASTY)
    machine.run("systemctl", "daemon-reload")


def everything(machine: Box) -> set[str]:
    """Files and directories that are not this boot's own."""
    places = ("/etc", "/usr/lib/systemd", "/var/lib", "/var/cache", "/opt")
    found = machine.run("find", *places, "-xdev", "-not", "-path", "*/catalog/*").split("\n")
    return {
        line
        for line in found
        if not re.search(r"/(passwd|group|shadow|gshadow|subuid|subgid)-?$|systemd/(random|tpm)", line)
    }


def test_installed_and_taken_away_again_nothing_is_left(machine: Box) -> None:
    before = everything(machine)
    command = ("waguard", "install", "--program", "/usr/bin/waguard")
    would = steps(machine.run(*command, "--no-start", "--dry-run"), "would")
    assert everything(machine) == before
    done = steps(machine.run(*command, "--no-start"), "done")
    assert done == would
    move_port(machine)
    installed = everything(machine)
    machine.run("runuser", "-u", "waguard", "--", "waguard", "run", "--check")
    assert everything(machine) == installed
    assert f"Running now: no sessions; http://127.0.0.1:{PORT}" in machine.run(*command)
    assert machine.show("waguard", "ActiveState") == "active"
    assert machine.show("waguard", "UnitFileState") == "enabled"
    token = machine.run("waguard", "token").strip()
    assert len(token) > 30
    assert "no sessions" in machine.run("waguard", "status").lower()
    again = machine.run(*command)
    assert [step.split()[0] for step in steps(again, "done")] == ["runuser"]  # a look only
    key = machine.path("/etc/waguard/keys").read_bytes()

    # With a configuration that is wrong it is not tried again and again.
    config = machine.path("/etc/waguard/config.toml")
    right = config.read_text()
    config.write_text(right + "\n[nonsense]\n")
    machine.run("systemctl", "restart", "waguard", ok=False)
    assert (machine.show("waguard", "ActiveState"), machine.show("waguard", "NRestarts")) == ("failed", "0")
    assert machine.show("waguard", "ExecMainStatus") == "78"
    (failed,) = machine.journal("-u", "waguard", "-p", "err", "WAGUARD_EVENT=daemon.failed")
    assert "nonsense" in failed["MESSAGE"]
    config.write_text(right)
    machine.run("systemctl", "start", "waguard")

    asked = machine.run(*command, "--uninstall", ok=False)
    assert "--keep-sessions or --purge" in asked
    assert machine.show("waguard", "ActiveState") == "active"
    keeping = (*command, "--uninstall", "--keep-sessions")
    would = steps(machine.run(*keeping, "--dry-run"), "would")
    assert steps(machine.run(*keeping), "done") == would
    left = {line for line in everything(machine) - before if not line.startswith("/var/lib/waguard")}
    assert left <= {"/etc/sysusers.d"}
    assert machine.path("/var/lib/waguard/sessions/.backup.keys").read_bytes() == key
    assert machine.path("/var/lib/waguard").stat().st_uid == 0

    machine.run(*command, "--no-start")
    move_port(machine)
    machine.run(*command)
    assert machine.path("/etc/waguard/keys").read_bytes() == key
    assert machine.run("waguard", "token").strip() == token  # what was kept is the service's again
    machine.run(*command, "--uninstall", "--purge")
    assert everything(machine) - before <= {"/etc/sysusers.d"}  # it is empty, and not ours
    assert not list(machine.path("/etc/sysusers.d").iterdir())
    assert "waguard" not in machine.path("/etc/passwd").read_text()


def move_port(machine: Box) -> None:
    config = machine.path("/etc/waguard/config.toml")
    config.write_text(config.read_text().replace("# port = 8717", f"port = {PORT}"))


async def test_browsers_and_links_outlive_every_end_of_the_daemon(
    machine: Box, simulator: Simulator, tmp_path: Path
) -> None:
    service = Service(machine)
    await asyncio.to_thread(install, machine, simulator.url)
    mounts = await service.run("cat", "/proc/mounts")
    await service.run("systemctl", "start", "waguard")
    await asyncio.gather(*(service.ask("POST", f"/v1/sessions/{code}/connect") for code in CODES))
    for code in CODES:
        simulator.scan((await service.ask("GET", f"/v1/sessions/{code}"))["qr"]["text"], "34600000000")
    await service.until_connected()
    before, loads, tabs = service.processes(), simulator.loads, [one.tab for one in simulator.devices]

    await look_around(service, before["one"][0]["pid"])
    if not Fence.gap_here([443]):  # what is inside it: tests/test_sandbox.py knocks at the ports
        assert not service.events("sandbox.no_fence", 0)
    leaves = cgroups(machine)
    assert {name.partition(".")[0] for name in leaves} == {"daemon", *(f"session-{code}" for code in CODES)}

    for how in ("killed", "hung", "restarted", "reloaded", "upgraded"):
        pid = int(machine.show("waguard", "MainPID"))
        async with raw_client(DRIVEN, TOKEN) as client, service.asked_all_the_time():
            await client.pause()
            died = time.time()
            if how == "killed":
                await service.run("kill", "-KILL", str(pid))
            elif how == "hung":
                await service.run("kill", "-STOP", str(pid))
            elif how == "restarted":
                await service.run("systemctl", "restart", "waguard")
            elif how == "reloaded":
                await service.run("systemctl", "reload", "waguard")
            elif how == "upgraded":
                build = tmp_path / "waguard"
                shutil.copytree(ROOT / "waguard", build)
                shutil.copytree(build, machine.path("/opt/next/waguard"))
                init = machine.path("/opt/next/waguard/__init__.py")
                init.write_text(re.sub(r'__version__ = ".*"', '__version__ = "99.0.0"', init.read_text()))
                await service.run("ln", "-sfn", "next", "/opt/current")
                died = time.time()
                await service.run("systemctl", "restart", "waguard")
            await until_adopted(service, died)
            died_without_a_word = how in {"killed", "hung"}
            assert await client.closed() == (
                aiohttp.WSCloseCode.ABNORMAL_CLOSURE if died_without_a_word else Closing.DAEMON
            )
        async with raw_client(DRIVEN, TOKEN) as client:
            answer = await client.ask("Runtime.evaluate", await client.attach(), expression="6 * 7")
            assert answer["result"]["result"]["value"] == 42, "nothing is left paused"
        took = service.first_look(died)
        print(  # noqa: T201 (a figure)
            f"{how}: {took:.2f} s to the first look at a page; {service.answered} questions answered, {service.refused} refused"
        )
        assert service.refused == 0
        assert service.processes() == before
        found = cgroups(machine)
        assert found.keys() == leaves.keys()
        assert found["daemon"] == {int(machine.show("waguard", "MainPID"))}
        for code, processes in before.items():
            (leaf,) = (pids for name, pids in found.items() if name.startswith(f"session-{code}."))
            assert {one["pid"] for one in processes} < leaf
        assert [one.tab for one in simulator.devices] == tabs
        assert simulator.loads == loads
    assert (await service.run("waguard", "--version")).strip() == "waguard 99.0.0"
    assert machine.show("waguard", "ActiveState") == "active"
    await waiting.until(lambda: "3 connected; http" in machine.show("waguard", "StatusText"), "its status")

    for code in CODES:  # each event is an entry that is found by its fields, and by nothing else
        entries = machine.journal(f"WAGUARD_CLIENT={code}", "WAGUARD_EVENT=session.adopted")
        assert len(entries) == 5
        assert {one["_SYSTEMD_UNIT"] for one in entries} == {"waguard.service"}
        assert {json.loads(one["WAGUARD_FIELDS"])["client"] for one in entries} == {code}

    figure = (await service.run("systemd-analyze", "security", "--no-pager", "waguard")).splitlines()[-1]
    print(figure)  # noqa: T201 (likewise)
    assert min(float(number) for number in re.findall(r"\d+\.\d", figure)) <= 2.5

    await service.run("systemctl", "stop", "waguard")
    assert not machine.path(CGROUP).exists()
    assert "waguard" not in await service.run("ps", "-eo", "user:32=", "-o", "args=")
    assert await service.run("cat", "/proc/mounts") == mounts


CGROUP = "/sys/fs/cgroup/waguard.slice/waguard.service"


def cgroups(machine: Box) -> dict[str, set[int]]:
    """Those in the service's, with who is in them; nobody is in its own."""
    assert not machine.run("cat", f"{CGROUP}/cgroup.procs")
    names = machine.run("find", CGROUP, "-mindepth", "1", "-type", "d", "-printf", "%P\\n").split()
    return {
        name: {int(pid) for pid in machine.run("cat", f"{CGROUP}/{name}/cgroup.procs").split()}
        for name in names
        if name != ".control"  # systemd's, where ExecReload= was
    }


LOOK_AROUND = """
for place in /var/lib/waguard /etc/waguard /run/credentials /run/systemd /opt /root /home /usr/bin/waguard; do
    [ -e "$place" ] && echo "sees $place"
done
ls -A /
for pid in $(ls /proc); do
    [ -r "/proc/$pid/cmdline" ] && tr '\\0' ' ' < "/proc/$pid/cmdline" && echo
done
true
"""


async def look_around(service: Service, init: int) -> None:
    """From inside a supervised browser's sandbox, with root's rights even, there is nothing of others."""
    enter = ["nsenter", "-t", str(init), "-m", "-p", "-i", "--root", "--wd", "sh", "-c", LOOK_AROUND]
    seen = (await service.run(*enter)).splitlines()
    assert [line for line in seen if line.startswith("sees")] == [
        "sees /usr/bin/waguard"
    ]  # /usr is the machine's
    assert {"profile", "usr", "tmp", "proc"} <= set(seen)
    assert not {"opt", "root", "home", "run", "srv", "boot"} & set(seen)
    programs = {Path(line.split()[0]).name for line in seen if line.startswith("/")}
    assert {name for name in programs if "chrom" not in name} == {"bwrap"}
    profiles = re.findall(r"--user-data-dir=(\S+)", "\n".join(seen))
    assert set(profiles) == {"/profile"}


async def test_whose_pipes_are_not_kept_start_anew_and_the_others_go_on(
    machine: Box, simulator: Simulator
) -> None:
    """The fd store of systemd is too small, of which it tells nobody."""
    service = Service(machine)
    await asyncio.to_thread(install, machine, simulator.url)
    small = "[Service]\nFileDescriptorStoreMax=7\n"  # the control port, and two browsers
    await asyncio.to_thread(machine.write, "/etc/systemd/system/waguard.service.d/small.conf", small)
    await service.run("systemctl", "daemon-reload")
    await service.run("systemctl", "start", "waguard")
    for (
        code
    ) in CODES:  # the last one that starts finds no room; they may come back by themselves, in any order
        await log_in(service, simulator, code)
    before, devices, died = service.processes(), {one.wid for one in simulator.devices}, time.time()
    assert machine.show("waguard", "NFileDescriptorStore") == "7"
    await service.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "waguard")
    await ready(service, "killed")
    await service.until_connected()
    after = service.processes()
    adopted = {code for code in CODES if after[code] == before[code]}
    assert len(adopted) == len(CODES) - 1
    assert {one["client"] for one in service.events("session.adopted", died)} == adopted
    assert {one.wid for one in simulator.devices} == devices
    await service.run("rm", "/etc/systemd/system/waguard.service.d/small.conf")


# --- killed at any moment -----------------------------------------------------------------------------------------

TEN = tuple(f"c{number}" for number in range(10))
DROPPED = frozenset(TEN[7:])
"""Those that are cleaned now and then; the logins of all others have to stay."""
KILLS = int(os.environ.get("WAGUARD_TEST_KILLS", "2"))
"""50 for the whole proof; it takes some minutes."""


async def test_killed_at_any_moment_nothing_is_lost_and_all_is_as_wanted(
    machine: Box, simulator: Simulator
) -> None:
    chance = random.Random(os.environ.get("WAGUARD_TEST_SEED"))
    service = Service(machine)
    await asyncio.to_thread(install, machine, simulator.url)
    await service.run("systemctl", "start", "waguard")
    await asyncio.gather(*(log_in(service, simulator, code) for code in TEN))
    await asyncio.gather(*(until(service, code, saved) for code in TEN))
    devices = {one.wid for one in simulator.devices}
    await die_amid_damage(service)
    wanted: dict[str, str] = dict.fromkeys(
        TEN, "up"
    )  # as far as it is known: what was cut off may be done or not
    for number in range(KILLS):
        asked = [asyncio.create_task(do(service, chance, code, wanted)) for code in chance.sample(TEN, 4)]
        await asyncio.sleep(chance.uniform(0, 0.8))  # any moment
        await service.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "waguard")
        await asyncio.gather(*asked)
        await ready(service, f"kill {number + 1}")
    sessions = {one["client"]: one for one in (await service.ask("GET", "/v1/sessions"))["sessions"]}
    assert {code: one["wanted"] for code, one in sessions.items()} | wanted == {
        code: one["wanted"] for code, one in sessions.items()
    }
    up = {code for code, one in sessions.items() if one["wanted"] == "up"}
    await asyncio.gather(*(until(service, code, usable) for code in up))
    await service.ask("POST", "/v1/reap")
    assert sorted(leaks(machine, up)) == []
    # Every login that nobody has dropped is there, and needs no scan.
    await asyncio.gather(*(service.ask("POST", f"/v1/sessions/{code}/connect") for code in TEN))
    kept = [code for code in TEN if code not in DROPPED]
    await asyncio.gather(*(until(service, code, is_connected) for code in kept))
    assert {one.wid for one in simulator.devices} == devices
    killed = len([one for one in machine.journal("-u", "waguard") if "status=9/KILL" in str(one["MESSAGE"])])
    told = f"{killed} kills; {len(up)} of {len(TEN)} were to be up; the {len(kept)} logins that nobody dropped are there"
    print(told)  # noqa: T201 (likewise)


DAMAGE = """
kill -STOP $1                             # hung
kill -KILL $2                             # dead
printf '{"wanted": "up", "la' > "$3"      # torn
kill -KILL $4                             # and the daemon
"""


async def die_amid_damage(service: Service) -> None:
    """What can be adopted is, what hangs is cured, and what cannot be is ended and comes back; nobody else is touched."""
    before = service.processes(*TEN)
    hung, dead = (before[code][0]["pid"] for code in TEN[:2])
    below = await service.run("sh", "-c", f"pgrep -P {hung}")
    torn = "/var/lib/waguard/sessions/c2/session.json"
    daemon = service.machine.show("waguard", "MainPID")
    began = time.time()
    await service.run("sh", "-c", DAMAGE, "sh", below.strip(), str(dead), torn, daemon)
    await ready(service, "after the damage")
    await asyncio.gather(*(until(service, code, is_connected) for code in TEN))
    events = service.events("session.adopted", began)
    assert {one["client"] for one in events} & set(TEN) == set(TEN) - {"c1", "c2"}
    after = service.processes(*TEN)
    assert {code for code in TEN if after[code] != before[code]} == {"c1", "c2"}
    deadline = time.monotonic() + 30
    while not (cured := service.events("health.recovered", began)):
        assert time.monotonic() < deadline, "not cured"
        await asyncio.sleep(0.1)
    assert [(one["client"], one["remedy"]) for one in cured] == [("c0", "continue")]


async def do(service: Service, chance: random.Random, code: str, wanted: dict[str, str]) -> None:
    """Ask for something; the daemon may die meanwhile."""
    verbs = {
        "connect": "up",
        "restart": "up",
        "snapshots": "",
        "disconnect": "down",
        "snapshots/newest/restore": "up",
    }
    if code in DROPPED:
        verbs["cleanup"] = "down"
    verb = chance.choice(sorted(verbs))
    becomes = verbs[verb]
    before = wanted.pop(code, None) if becomes else None
    try:
        await service.ask("POST", f"/v1/sessions/{code}/{verb}")
    except aiohttp.ClientError:
        return  # whether it was done is not known
    except AssertionError:  # refused: there is no snapshot any more, say
        if becomes and before is not None and verb.endswith("restore"):
            wanted[code] = before
        return
    if becomes:
        wanted[code] = becomes


async def log_in(service: Service, simulator: Simulator, code: str) -> None:
    await service.ask("POST", f"/v1/sessions/{code}/connect")
    simulator.scan((await service.ask("GET", f"/v1/sessions/{code}"))["qr"]["text"], "34600000000")
    await until(service, code, is_connected)


async def is_connected(service: Service, code: str) -> bool:
    return bool((await service.ask("GET", f"/v1/sessions/{code}"))["status"] == "connected")


async def usable(service: Service, code: str) -> bool:
    return (await service.ask("GET", f"/v1/sessions/{code}"))["status"] in {"connected", "awaiting_scan"}


async def ready(service: Service, what: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(aiohttp.ClientError, AssertionError):
            await service.ask("GET", "/v1/sessions")
            return
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


def leaks(machine: Box, up: set[str]) -> Iterator[str]:
    """What is there beyond the sessions that are up."""
    inits = machine.run("sh", "-c", "pgrep -x bwrap | wc -l").strip()
    if int(inits) != 2 * len(up):
        yield f"{inits} processes of bubblewrap for {len(up)} browsers"
    kept = machine.show("waguard", "NFileDescriptorStore")
    if int(kept) != 3 * len(up) + 1:
        yield f"{kept} fds kept for {len(up)} browsers"
    sessions = machine.path("/var/lib/waguard/sessions")
    yield from (f"left half-written: {path}" for path in sessions.rglob("*.partial*"))
    linked = {path.readlink().name for path in sessions.glob("*/profile")}
    yield from (
        f"nobody's: {path}"
        for path in (sessions / ".profiles").iterdir()
        if path.name.split(".")[0] not in linked
    )
