"""What each probe sees: its verdict on made values, its look on fakes, and the figures of real little processes."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.core.health.faults import OF_THE_PAGE, Fault
from waguard.core.health.plans import PLANS, STOPPING, Remedy
from waguard.core.model import Link, Reading, Reason
from waguard.errors import PageFailed
from waguard.health import remedies
from waguard.health.probes import Probe, effort, link, memory, qr, renderer
from waguard.health.probes.browser import browser_probe
from waguard.health.probes.census import BROWSER, GPU, NETWORK, RENDERER, Census, Member
from waguard.health.probes.effort import AnswerProbe, Efforts, Moved
from waguard.health.probes.gpu import GpuProbe
from waguard.health.probes.memory import MemoryProbe, Usage
from waguard.health.probes.network import network_probe
from waguard.health.probes.process import ProcessProbe
from waguard.health.probes.pulse import Pulse
from waguard.health.probes.renderer import RendererProbe, Silence
from waguard.system import host
from waguard.system.host import Effort, ProcessRow

IDLE, WORKING = Moved(), Moved(ran_s=1.0)


def row(pid: int, state: str = "S", *, ppid: int = 1, cpu_ticks: int = 0) -> ProcessRow:
    return ProcessRow(pid, ppid, 100 + pid, pid, state, cpu_ticks)


def never(_looked: float) -> bool:
    """It was never held still."""
    return False


class Processes:
    """What the machine says of processes, as a test has it: pid -> seconds run, seconds waited, and on a disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: dict[int, Effort] = {}
        monkeypatch.setattr(host, "effort", self.now.get)

    def worked(self, pid: int, ran_s: float = 0.0, waited_s: float = 0.0, *, on_disk: bool = False) -> None:
        """Since the last time."""
        before = self.now.get(pid, Effort(100.0, 10.0, on_disk=False))
        self.now[pid] = Effort(before.ran_s + ran_s, before.waited_s + waited_s, on_disk)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return Processes(monkeypatch)


# --- the page -------------------------------------------------------------------------------------------------

BLOCKED_S, BUSY_S, EVERY_S = 10.0, 60.0, 5.0


def silent(looks: int, moved: Moved, *, changed: bool = False) -> Silence:
    """A page that has not answered the first look, nor so many more, one each five seconds."""
    silence = Silence(0.0, EVERY_S)
    for number in range(looks):
        renderer.count(silence, moved, EVERY_S * (number + 2), changed=changed)
    return silence


def judged(silence: Silence) -> Collection[Fault]:
    return set(renderer.judge(silence, BLOCKED_S, BUSY_S))


def test_a_page_that_does_nothing_is_blocked_when_that_has_lasted() -> None:
    assert judged(silent(0, IDLE)) == set()
    assert judged(silent(1, IDLE)) == set()
    assert judged(silent(2, IDLE)) == {Fault.PAGE_BLOCKED}
    (evidence,) = renderer.judge(silent(2, IDLE), BLOCKED_S, BUSY_S).values()
    assert evidence == "no answer for 15.0 s, and no work for 10.0 s"


def test_a_page_that_works_is_busy_until_it_has_worked_for_long() -> None:
    working = Moved(ran_s=5.0)
    assert judged(silent(11, working)) == set()
    assert judged(silent(12, working)) == {Fault.PAGE_LOOPING}
    assert judged(silent(47, working, changed=True)) == set()  # its work shows: four times as long
    assert judged(silent(48, working, changed=True)) == {Fault.PAGE_LOOPING}


@pytest.mark.parametrize("moved", [Moved(waited_s=4.0), Moved(on_disk=True), Moved(ran_s=0.3, waited_s=0.3)])
def test_who_waits_for_a_processor_or_a_disk_is_at_work(moved: Moved) -> None:
    """Its own work counts as far as it came to it: on a loaded machine that takes long."""
    assert judged(silent(100, moved)) == set()


@given(
    st.lists(
        st.tuples(
            st.builds(Moved, st.floats(0, 5), st.floats(0, 5), st.booleans()),
            st.booleans(),
            st.floats(0.1, 9),
        ),
        max_size=40,
    )
)
def test_a_page_is_found_only_after_so_much_idleness_or_work(looks: list[tuple[Moved, bool, float]]) -> None:
    silence, now, ran, idle = Silence(0.0, 1.0), 1.0, 0.0, 0.0
    for moved, changed, passed in looks:
        now += passed
        renderer.count(silence, moved, now, changed=changed)
        ran += moved.ran_s
        idle = 0.0 if moved.at_work(now - (now - passed)) else idle + passed
        found = judged(silence)
        if Fault.PAGE_BLOCKED in found:
            assert idle >= BLOCKED_S - 1e-6
        if Fault.PAGE_LOOPING in found:
            assert ran >= BUSY_S - 1e-6
        assert len(found) <= 1


def metrics(**values: float) -> list[dict[str, object]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def test_one_missed_look_never_complains(processes: Processes) -> None:
    probe = RendererProbe(0.01, 0.01)
    processes.worked(7)
    for _ in range(3):
        assert probe.missed(100.0, 99.0, [7], None) == {}
        assert (probe.silent, probe.silent_s) == (True, 99.0)
        processes.worked(7, 50.0)
        probe.answered()
        assert (probe.silent, probe.silent_s) == (False, 0.0)


def misses(
    probe: RendererProbe, processes: Processes, looks: int, ran_s: float, counters: Callable[[int], object]
) -> Mapping[Fault, str]:
    """So many looks in a row that are not answered; what the last one sees."""
    seen: Mapping[Fault, str] = {}
    for number in range(looks):
        processes.worked(7, ran_s)
        seen = probe.missed(EVERY_S * (number + 1), EVERY_S, [6, 7], counters(number))
    return seen


def test_the_most_of_any_of_its_processes_counts_and_what_its_counters_do(processes: Processes) -> None:
    def still(_: int) -> object:
        return metrics(JSHeapUsedSize=1, Nodes=2, Timestamp=3)

    def clock_only(number: int) -> object:
        return metrics(JSHeapUsedSize=1, Nodes=2, Timestamp=number)

    def heap(number: int) -> object:
        return metrics(JSHeapUsedSize=number, Nodes=2)

    def rubbish(_: int) -> object:
        return "no list"

    def odd(number: int) -> object:
        return [number, {"name": 1}, {"name": "Nodes", "value": "many"}]

    def new() -> RendererProbe:
        return RendererProbe(BLOCKED_S, BUSY_S)

    processes.worked(6)
    for counters in (still, clock_only, rubbish, odd):
        assert misses(new(), processes, 12, 5.0, counters) == {}
        assert set(misses(new(), processes, 14, 5.0, counters)) == {Fault.PAGE_LOOPING}, counters.__name__
    assert misses(new(), processes, 14, 5.0, heap) == {}
    found = misses(new(), processes, 50, 5.0, heap)
    assert "its counters change" in found[Fault.PAGE_LOOPING]
    assert "stand still" in misses(new(), processes, 14, 5.0, still)[Fault.PAGE_LOOPING]
    assert set(misses(new(), processes, 3, 0.0, heap)) == {Fault.PAGE_BLOCKED}


def test_an_answer_begins_anew(processes: Processes) -> None:
    probe = RendererProbe(BLOCKED_S, BUSY_S)
    assert misses(probe, processes, 2, 0.0, lambda _: None) == {}
    probe.answered()
    assert misses(probe, processes, 2, 0.0, lambda _: None) == {}
    assert set(misses(probe, processes, 3, 0.0, lambda _: None)) == {Fault.PAGE_BLOCKED}


# --- who has to answer ----------------------------------------------------------------------------------------


class Browser:
    """One that answers or not, as a test has it, with its processes."""

    def __init__(self, *members: Member) -> None:
        self.processes = list(members)
        self.asked: list[object] = []
        self.broken = False
        self.relays = True

    async def members(self) -> Sequence[Member]:
        return self.processes

    async def ask(self, *what: object) -> object:
        self.asked.append(what)
        if self.broken:
            raise PageFailed("It is gone.")
        return {}

    async def relayed(self) -> bool:
        return self.relays


def answer_probe(browser: Browser) -> AnswerProbe:
    return AnswerProbe(
        Fault.NETWORK_HUNG, NETWORK, browser.ask, browser.relayed, browser.members, 20.0, EVERY_S
    )


async def cannot_tell(probe: Probe) -> None:
    """Silence that means nothing: what was found before is not over."""
    with pytest.raises(PageFailed):
        await probe.unanswered(EVERY_S)


NETWORKED = (Member(row(5), BROWSER), Member(row(7), NETWORK))


async def test_the_first_silence_only_takes_a_measure_and_the_second_one_counts(processes: Processes) -> None:
    probe = answer_probe(Browser(*NETWORKED))
    processes.worked(7)
    await cannot_tell(probe)
    processes.worked(5, 5.0)  # another one's work is none of its own
    assert set(await probe.unanswered(EVERY_S)) == {Fault.NETWORK_HUNG}


async def test_who_is_at_work_may_be_silent(processes: Processes) -> None:
    probe = answer_probe(Browser(*NETWORKED))
    processes.worked(7)
    await cannot_tell(probe)
    for _ in range(50):
        processes.worked(7, 0.3, 0.3)
        assert await probe.unanswered(EVERY_S) == {}
    processes.worked(7, on_disk=True)
    assert await probe.unanswered(EVERY_S) == {}
    processes.worked(7, 0.4)
    assert set(await probe.unanswered(EVERY_S)) == {Fault.NETWORK_HUNG}


async def test_an_answer_or_an_honest_no_begins_anew(processes: Processes) -> None:
    browser = Browser(*NETWORKED)
    probe = answer_probe(browser)
    processes.worked(7)
    await cannot_tell(probe)
    assert await probe.look() == {}
    await cannot_tell(probe)
    browser.broken = True
    with pytest.raises(PageFailed):
        await probe.look()
    await cannot_tell(probe)
    browser.relays = False  # who would have to pass it on is silent too: it is not this one's fault
    await cannot_tell(probe)
    browser.relays = True
    await cannot_tell(probe)
    assert set(await probe.unanswered(EVERY_S)) == {Fault.NETWORK_HUNG}


async def test_a_process_that_is_not_there_does_not_work() -> None:
    probe = answer_probe(Browser())
    await cannot_tell(probe)
    assert set(await probe.unanswered(EVERY_S)) == {Fault.NETWORK_HUNG}


def test_of_a_process_not_seen_before_nothing_is_known(processes: Processes) -> None:
    efforts = Efforts()
    processes.worked(1, 90.0)
    assert efforts.look([1]) == Moved()
    processes.worked(1, 1.0, 2.0)
    processes.worked(2, 50.0)
    assert efforts.look([1, 2]) == Moved(1.0, 2.0)
    processes.worked(2, 0.5, on_disk=True)
    assert efforts.look([1, 2, 3]) == Moved(0.5, 0.0, on_disk=True)
    del processes.now[2]
    assert efforts.look([1, 2]) == Moved()
    processes.worked(1, waited_s=-3.0)  # a thread has ended, and took its figure along
    assert efforts.look([1]) == Moved()


async def test_the_browser_is_asked_for_its_version_and_its_own_process_has_to_answer(
    processes: Processes,
) -> None:
    browser = Browser(*NETWORKED)
    probe = browser_probe(browser.ask, browser.members, 15.0, 5.0)
    assert probe.faults == {Fault.BROWSER_HUNG}
    assert await probe.look() == {}
    assert browser.asked == [()]
    processes.worked(5)
    await cannot_tell(probe)
    processes.worked(7, 5.0)
    (said,) = (await probe.unanswered(EVERY_S)).items()
    assert said == (Fault.BROWSER_HUNG, "the browser has not answered within 5.0 s, nor worked")


async def test_the_network_service_is_asked_for_cookies_that_no_packet_is_needed_for() -> None:
    browser = Browser(*NETWORKED)
    probe = network_probe(browser.ask, browser.relayed, browser.members, 20.0, 5.0)
    assert probe.faults == {Fault.NETWORK_HUNG}
    assert await probe.look() == {}
    assert browser.asked == [("https://waguard.invalid/",)]


async def test_drawing_is_asked_for_only_while_the_page_answers(processes: Processes) -> None:
    browser = Browser(Member(row(9), GPU))
    probe = GpuProbe(browser.ask, browser.relayed, browser.members, 30.0, 5.0)
    processes.worked(9)
    assert probe.faults == {Fault.GPU_HUNG}
    assert await probe.look() == {}
    assert "requestAnimationFrame" in str(browser.asked)
    browser.relays, browser.asked = False, []
    with pytest.raises(PageFailed):
        await probe.look()
    assert not browser.asked
    for _ in range(3):
        await cannot_tell(probe)
    browser.relays = True
    await cannot_tell(probe)
    assert set(await probe.unanswered(EVERY_S)) == {Fault.GPU_HUNG}


def test_each_remedy_that_leaves_the_browser_up_has_its_function() -> None:
    assert remedies._REMEDIES.keys() == set(Remedy) - STOPPING


# --- processes, memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "stopped"), [*((one, False) for one in "RSDZXI"), ("T", True), ("t", True)]
)
async def test_a_process_that_a_signal_or_a_debugger_holds_is_stopped(state: str, stopped: bool) -> None:
    browser = Browser(Member(row(1), BROWSER), Member(row(2, state), RENDERER))
    seen = await ProcessProbe(browser.members, never, 5.0, 5.0).look()
    assert seen == ({Fault.PROCESS_STOPPED: "stopped by a signal: renderer (pid 2)"} if stopped else {})


@pytest.mark.parametrize(("was_still", "told"), [(False, True), (True, False)])
async def test_who_was_held_still_for_a_snapshot_when_it_was_looked_at_is_not_stopped(
    was_still: bool, told: bool
) -> None:
    """However much later the table that was made then is asked for."""
    browser = Browser(Member(row(1, "T"), BROWSER, looked=7.0))
    look = ProcessProbe(browser.members, lambda looked: was_still and looked == 7.0, 5.0, 5.0).look()
    if told:
        assert set(await look) == {Fault.PROCESS_STOPPED}
    else:
        with pytest.raises(PageFailed):  # it cannot tell
            await look


async def test_a_census_says_when_it_has_looked() -> None:
    census, before = Census(), time.monotonic()
    first, again = [await census.members([os.getpid()]) for _ in range(2)]
    assert before <= first[0].looked == again[0].looked <= time.monotonic()


async def test_a_look_at_the_machine_that_takes_too_long_blames_no_browser() -> None:
    browser = Browser()
    probes: list[Probe] = [ProcessProbe(browser.members, never, 5.0, 5.0), memory_probe(browser, [])]
    for probe in probes:
        await cannot_tell(probe)


def memory_probe(browser: Browser, told: list[Usage], hard_mb: float = 100.0) -> MemoryProbe:
    async def tell(usage: Usage) -> None:
        told.append(usage)

    return MemoryProbe(browser.members, tell, hard_mb, 60.0, 5.0)


async def test_what_all_its_processes_take_is_told_and_held_against_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "anonymous_mb", {1: 60.0, 2: 40.0, 3: 0.5}.__getitem__)
    told: list[Usage] = []
    browser = Browser(Member(row(1, cpu_ticks=300), BROWSER), Member(row(2, cpu_ticks=100), RENDERER))
    assert await memory_probe(browser, told).look() == {}
    browser.processes.append(Member(row(3), GPU))
    assert set(await memory_probe(browser, told).look()) == {Fault.MEMORY_HIGH}
    assert told == [Usage(100.0, 400 * host.TICKS_S), Usage(100.5, 400 * host.TICKS_S)]
    assert memory.judge(Usage(1e9, 0.0), 0.0) == {}


# --- what the page shows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "age_s", "stale"),
    [
        (Reading(Link.AWAITING_SCAN, qr="2@x"), 89.9, False),
        (Reading(Link.AWAITING_SCAN, qr="2@x"), 90.0, True),
        (Reading(Link.AWAITING_SCAN, qr_exhausted=True), 90.0, True),
        (Reading(Link.CONNECTED), 1e6, False),
        (Reading(Link.LOADING), 1e6, False),
    ],
)
def test_a_code_that_no_phone_can_scan_any_more_is_stale(shown: Reading, age_s: float, stale: bool) -> None:
    assert set(qr.judge(shown, age_s, 90.0)) == ({Fault.QR_STALE} if stale else set())


def test_an_exhausted_code_is_told_from_one_that_stands_still() -> None:
    there, gone = Reading(Link.AWAITING_SCAN, qr="2@x"), Reading(Link.AWAITING_SCAN, qr_exhausted=True)
    assert "the same code" in qr.judge(there, 99, 90)[Fault.QR_STALE]
    assert "no new code" in qr.judge(gone, 99, 90)[Fault.QR_STALE]


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        (Reason.OFFLINE, Fault.OFFLINE),
        (Reason.CONFLICT, Fault.CONFLICT),
        (Reason.REFUSED, Fault.REFUSED),
        (Reason.OUTDATED, Fault.OUTDATED),
        (Reason.PROXY_BLOCKED, Fault.PROXY_BLOCKED),
        (Reason.TERMS_BLOCKED, Fault.TERMS_BLOCKED),
        (Reason.LOGGED_OUT, Fault.LOGGED_OUT),
        (Reason.DAMAGED, Fault.LOGIN_LOST),
        (Reason.HUNG, None),
        (Reason.CRASHED, None),
        (None, None),
    ],
)
def test_a_lost_link_is_told_by_its_reason(reason: Reason | None, fault: Fault | None) -> None:
    shown = Reading(Link.LOST, reason, signs=("post_logout", "data-ref"))
    expected = {} if fault is None else {fault: "the page shows post_logout, data-ref"}
    assert link.judge(shown) == expected
    if fault is not None:
        assert fault in link.FAULTS


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        (Reason.LOGGED_OUT, Fault.LOGGED_OUT),
        (Reason.DAMAGED, Fault.LOGIN_LOST),
        (Reason.UNPAIRED, Fault.UNPAIRED),
    ],
)
def test_whose_login_has_ended_needs_a_scan_while_the_page_shows_a_code(reason: Reason, fault: Fault) -> None:
    assert set(link.judge(Reading(Link.AWAITING_SCAN, reason))) == {fault}


@pytest.mark.parametrize("where", list(Link))
def test_storage_that_is_refused_counts_while_the_page_does_not_get_on(where: Link) -> None:
    shown = Reading(where, signs=("splash", "storage error: QuotaExceededError"))
    stuck = where in {Link.LOADING, Link.UNKNOWN}
    assert set(link.judge(shown)) == ({Fault.STORAGE_REFUSED} if stuck else set())
    assert Fault.STORAGE_REFUSED in link.asked(shown)


def test_a_page_that_is_well_has_no_fault() -> None:
    for where in set(Link) - {Link.UNKNOWN}:
        assert link.judge(Reading(where, signs=("panes",))) == {}


def test_a_page_that_says_nothing_known_is_a_wrong_one_or_one_that_is_not_understood() -> None:
    assert set(link.judge(Reading(Link.UNKNOWN, wrong=True))) == {Fault.PAGE_WRONG}
    assert set(link.judge(Reading(Link.UNKNOWN))) == {Fault.PAGE_UNREAD}


def test_a_page_that_loads_tells_nothing_of_how_it_stands_with_whatsapp() -> None:
    """A reload that has not shown anything yet cured nothing."""
    assert not link.asked(Reading(Link.LOADING)) & {Fault.OFFLINE, Fault.CONFLICT, Fault.OUTDATED}
    assert Fault.OFFLINE in link.asked(Reading(Link.LOADING, cut_off=True))
    for where in Link:
        for cut_off in (True, False):
            shown = Reading(where, None, cut_off=cut_off and where in {Link.LOADING, Link.SYNCING})
            assert set(link.judge(shown)) <= link.asked(shown)


def test_every_fault_has_whoever_sees_it() -> None:
    """The rest is told by the stages, by how a sync gets on, and by the end of the browser or its page."""
    browser = Browser()
    probes: list[Probe] = [
        ProcessProbe(browser.members, never, 1, 1),
        browser_probe(browser.ask, browser.members, 1, 1),
        network_probe(browser.ask, browser.relayed, browser.members, 1, 1),
        GpuProbe(browser.ask, browser.relayed, browser.members, 1, 1),
        memory_probe(browser, []),
    ]
    seen = {fault for probe in probes for fault in probe.faults} | link.FAULTS | qr.FAULTS | renderer.FAULTS
    others = {Fault.BROWSER_EXITED, Fault.PIPE_CLOSED, Fault.START_FAILED}
    others |= {Fault.PAGE_CRASHED, Fault.PAGE_NOT_LOADED, Fault.SYNC_STUCK}
    assert seen | others == set(PLANS)
    assert not seen & others
    assert renderer.FAULTS <= OF_THE_PAGE


# --- the daemon itself ----------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[Mapping[str, Any]] = []
        self.pulse = Pulse(self.publish, lambda: self.now)

    def publish(self, name: str, **fields: Any) -> None:
        assert name == "daemon.lagged"
        self.told.append(fields)


def test_while_the_daemon_stands_still_so_does_its_clock_and_the_lag_is_told() -> None:
    clock = Clock()
    for _ in range(40):
        clock.now += 0.25
        clock.pulse.tick()
    assert (clock.pulse.clock(), clock.told) == (10.0, [])
    clock.now += 60.0
    assert clock.pulse.clock() <= 10.5
    clock.pulse.tick()
    assert clock.pulse.clock() <= 10.5
    assert clock.told == [{"duration_ms": 59_750.0}]
    clock.now += 0.25
    assert clock.pulse.clock() == 10.75


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans())))
def test_the_clock_never_goes_back_nor_runs_ahead(run: list[tuple[float, bool]]) -> None:
    clock = Clock()
    last = began = clock.pulse.clock()
    for passed, ticks in run:
        clock.now += passed
        if ticks:
            clock.pulse.tick()
        now = clock.pulse.clock()
        assert last - 1e-9 <= now
        assert now - last <= min(passed, 0.5) + 1e-6
        last = now
    assert last - began <= clock.now - 1000.0 + 1e-6


async def test_a_wall_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    pulse = Pulse(lambda name, **_: told.append(name))
    beating = asyncio.create_task(pulse.run())
    real = time.time
    for hours in (5, -5, 0):
        monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)  # noqa: B023 (called within)
        before = pulse.clock()
        async with asyncio.timeout(5):
            while pulse.clock() < before + 0.1:
                await asyncio.sleep(0.01)
        assert pulse.clock() - before < 3
    beating.cancel()
    await asyncio.wait([beating])
    assert "daemon.lagged" not in told


# --- the process table ----------------------------------------------------------------------------------------


class Table:
    """A process table as a test has it; counts who looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = [row(1), row(10), row(11, ppid=10), row(12, ppid=11), row(20), row(21, "Z", ppid=20)]
        self.looks = 0
        self.takes_s = 0.01
        """In its thread."""
        self.lines: list[int] = []
        monkeypatch.setattr(host, "process_table", self.look)
        monkeypatch.setattr(host, "command_line", self.line)

    def look(self) -> list[ProcessRow]:
        self.looks += 1
        time.sleep(self.takes_s)
        return self.rows

    def line(self, pid: int) -> Sequence[str]:
        self.lines.append(pid)
        return ["chromium", f"--type=of-{pid}"]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return Table(monkeypatch)


async def test_many_that_ask_at_about_the_same_time_cost_one_look(table: Table) -> None:
    census = Census()
    found = await asyncio.gather(*(census.members([root]) for root in (10, 20) * 50))
    assert table.looks == 1
    assert {one.row.pid for one in found[0]} == {10, 11, 12}
    assert {one.row.pid for one in found[1]} == {20}, "one that has ended does not count"
    assert all(each == found[number % 2] for number, each in enumerate(found))
    assert sorted(set(table.lines)) == [10, 11, 12, 20]
    await census.members([10])
    assert table.looks == 1


async def test_what_is_old_is_looked_at_anew_and_what_each_is_for_is_asked_once(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waguard.health.probes.census._FRESH_S", 0.0)
    monkeypatch.setattr("waguard.health.probes.census._PAUSE", 0.0)
    census = Census()
    await census.members([10])
    table.lines = []
    assert [one.role for one in await census.members([10])] == ["of-10", "of-11", "of-12"]
    assert (table.looks, table.lines) == (2, [])
    table.rows = [row(1), ProcessRow(10, 1, 999, 10, "S")]  # the same pid, another process
    await census.members([10])
    assert table.lines == [10]
    assert await census.members([11]) == []


async def test_who_looks_does_not_stumble_over_who_asks_what_a_process_is_for(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waguard.health.probes.census._FRESH_S", 0.0)
    monkeypatch.setattr("waguard.health.probes.census._PAUSE", 0.0)
    census = Census()
    table.takes_s = 0.0
    table.rows = [row(1), *(row(pid, ppid=1) for pid in range(2, 3000))]
    await census.members([1])
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(1, 6):
            table.rows = [row(1), *(row(pid, ppid=1) for pid in range(3000 * number, 3000 * number + 3000))]
            await asyncio.gather(*(census.members([1]) for _ in range(4)))
    finally:
        sys.setswitchinterval(before)


HELD = "import sys; print(flush=True); sys.stdin.read()"


@contextmanager
def running(*argv: str, until: str = "") -> Iterator[subprocess.Popen[str]]:
    """A little program, when it has said so much; ended at the end."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline().strip() == until
            yield child
        finally:
            child.kill()


def python(code: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", code, *words)


async def test_real_processes_are_told_apart_by_their_command_lines() -> None:
    kinds = {
        BROWSER: (),
        RENDERER: ("--lang=en", "--type=renderer"),
        GPU: ("--type=gpu-process",),
        NETWORK: ("--type=utility", f"--utility-sub-type={NETWORK}"),
        "zygote": ("--type=zygote", "--no-zygote-sandbox"),
        "utility": ("--type=utility",),
    }
    with contextlib.ExitStack() as stack:
        children = {
            kind: stack.enter_context(running(*python(HELD, *words))) for kind, words in kinds.items()
        }
        dead = stack.enter_context(running(*python("print(flush=True)")))
        async with asyncio.timeout(10):
            while (seen := host.process_row(dead.pid)) is None or seen.state != "Z":
                await asyncio.sleep(0.01)
        census = Census()
        roots = [*(child.pid for child in children.values()), dead.pid, 2**22 + 1]
        found = {one.row.pid: one.role for one in await census.members(roots)}
        assert {children[kind].pid: kind for kind in kinds}.items() <= found.items()
        assert dead.pid not in found
        assert os.getpid() not in found
        mine = {one.row.pid for one in await census.members([os.getpid()])}
        assert {child.pid for child in children.values()} <= mine


async def test_a_process_that_has_just_been_forked_still_bears_the_name_of_its_parent(
    monkeypatch: pytest.MonkeyPatch, table: Table
) -> None:
    """What it was taken for then is not remembered: who looks for the renderer later has to find it."""
    lines = {10: ["chromium"], 11: ["chromium", "--type=zygote"], 12: ["chromium", "--type=gpu-process"]}
    monkeypatch.setattr(host, "command_line", lambda pid: lines[pid])
    born = int(time.clock_gettime(time.CLOCK_BOOTTIME) / host.TICKS_S)
    table.rows[2] = ProcessRow(11, 10, born, 10, "S")
    census = Census()
    assert [one.role for one in await census.members([10])] == [BROWSER, "zygote", GPU]
    lines[11] = ["chromium", "--type=renderer"]
    assert [one.role for one in await census.members([10])] == [BROWSER, RENDERER, GPU]


async def test_what_only_makes_room_for_the_browser_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, table: Table
) -> None:
    lines = {10: ["/usr/bin/bwrap", "--", "chromium", "--type=renderer"], 11: ["chromium"], 12: []}
    monkeypatch.setattr(host, "command_line", lambda pid: lines[pid])
    census = Census()
    assert [one.role for one in await census.members([10])] == ["sandbox", BROWSER, BROWSER]
    lines[10] = ["chromium", "--type=zygote"]  # the same process: what it was for a moment was not remembered
    lines[12] = ["chromium", "--type=renderer"]
    assert [one.role for one in await census.members([10])] == ["zygote", BROWSER, RENDERER]


# --- figures of real processes --------------------------------------------------------------------------------


def until(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 10
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def effort_of(child: subprocess.Popen[str]) -> Effort:
    found = host.effort(child.pid)
    assert found is not None
    return found


def test_whoever_burns_a_processor_is_seen_at_work_and_who_sleeps_is_not() -> None:
    burn = "print(flush=True)\nwhile True: pass"
    with running(*python(burn)) as busy, running(*python(HELD)) as idle:
        before, began = effort_of(idle).ran_s, effort_of(busy).ran_s
        until(lambda: effort_of(busy).ran_s > began + 0.2, "at work")
        assert effort_of(idle).ran_s - before < 0.1
        os.kill(busy.pid, signal.SIGSTOP)
        until(lambda: host.all_threads_stopped(busy.pid), "stopped")
        efforts = Efforts()
        efforts.look([busy.pid, idle.pid])
        assert not efforts.look([busy.pid, idle.pid]).at_work(0.2)


def test_whoever_finds_no_processor_is_seen_waiting() -> None:
    burn = "print(flush=True)\nwhile True: pass"
    cpu = min(os.sched_getaffinity(0))
    with running(*python(burn)) as one, running(*python(burn)) as other:
        for child in (one, other):
            os.sched_setaffinity(child.pid, {cpu})
        before = effort_of(one).waited_s
        until(lambda: effort_of(one).waited_s > before + 0.1, "waiting")


def test_threads_count_too() -> None:
    burn = "import threading, time\ndef burn():\n while True: pass\n"
    burn += "threading.Thread(target=burn, daemon=True).start(); print(flush=True); time.sleep(3600)"
    with running(*python(burn)) as child:
        began = effort_of(child).ran_s
        until(lambda: effort_of(child).ran_s > began + 0.1, "at work")


def test_memory_that_is_its_own_is_counted_and_a_file_that_is_mapped_is_not() -> None:
    with (
        running(*python(HELD)) as small,
        running(*python("import sys; x = b'x' * (64 << 20); print(flush=True); sys.stdin.read()")) as large,
    ):
        assert (
            60 <= host.anonymous_mb(large.pid) - host.anonymous_mb(small.pid) < 72
        )  # they differ by more than x
        assert 0 < host.anonymous_mb(small.pid) < 32


def test_of_what_is_not_there_nothing_is_known() -> None:
    with running(*python(HELD)) as child:
        pass
    assert host.effort(child.pid) is None
    assert host.anonymous_mb(child.pid) == 0
    assert host.command_line(child.pid) == ()
    assert effort.Efforts().look([child.pid]) == Moved()
    assert not IDLE.at_work(1.0)
    assert WORKING.at_work(1.0)
