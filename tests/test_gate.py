"""Who may start now, what somebody is told of, and the browser that is installed: on fakes and on real little files."""

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from waguard.admission.gate import Gate
from waguard.admission.room import Room
from waguard.browser import find
from waguard.browser.find import Binary, Installed
from waguard.config.sections import Config
from waguard.core.catalogue import level_of
from waguard.core.event_kind import Level
from waguard.core.health.breaker import BreakerPolicy
from waguard.core.health.faults import Fault
from waguard.core.model import Alert, Cause, ClientCode, Failure, Stage
from waguard.core.shown import Raised
from waguard.errors import (
    BreakerOpen,
    BrowserFailed,
    BrowserNotFound,
    DeadlineExceeded,
    DiskFull,
    NoMemory,
    WaguardError,
)
from waguard.observe.alerts import Alerts

A, B, C, D = (ClientCode(code) for code in "abcd")
POLICY = BreakerPolicy(clients=2, base_s=5.0, max_s=40.0, trial_s=30.0, storm=3, storm_s=60.0)
UNASKED = [Cause.RECOVERY, Cause.RETURN, Cause.RECYCLE]
ASKED = [Cause.CONNECT, Cause.RESTART]


class Told:
    """What was published, as ``raised a_name client`` and ``cleared a_name client``."""

    def __init__(self) -> None:
        self.news: list[str] = []
        self.texts: list[tuple[str, str]] = []
        """What standing alerts said anew, with the level."""

    def publish(
        self, name: str, *, alert: str, client: ClientCode | None, level: Level | None = None, text: str = ""
    ) -> None:
        fields = {"alert": alert, **({"text": text} if text else {})}
        level = level_of(name, level, fields)
        if name == "alert.changed":
            assert text
            self.texts.append((level, text))
            return
        assert (name, level, bool(text)) in {
            ("alert.raised", "error", True),
            ("alert.cleared", "info", False),
        }
        self.news.append(f"{name.removeprefix('alert.')} {alert} {client or ''}".strip())


@pytest.fixture
def told() -> Told:
    return Told()


_numbers = itertools.count(1)


class Program:
    """A little program that prints a version, counts how often it is asked, and can be replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = path.with_name("asked")
        self.prints("Chromium 156.0.0.1")
        self.forget()

    def replace(self, text: str, mode: int = 0o755) -> None:
        beside = self.path.with_name(f"new{next(_numbers)}")
        beside.write_text(text)
        beside.chmod(mode)
        beside.replace(self.path)

    def prints(self, line: str) -> None:
        self.replace(f"#!/bin/sh\necho >> {self._log}\necho '{line}'\n")

    def become_directory(self) -> None:
        self.path.unlink()
        self.path.mkdir()

    def forget(self) -> None:
        self._log.write_text("")

    @property
    def asked(self) -> int:
        return len(self._log.read_text().splitlines())


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "browser")


@pytest.fixture
async def installed(program: Program) -> Installed:
    found = Installed(program.path, 10.0)
    await found.refresh()
    program.forget()
    return found


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Space(Room):
    """Room, or none for a reason of the test's."""

    def __init__(self) -> None:
        async def let_go(_enough: Callable[[], bool]) -> None:
            pass

        super().__init__(Config(), None, let_go)
        self.lack: list[WaguardError] = []
        """What is missing, one after the other."""
        self.asked: list[ClientCode] = []

    async def find(self, code: ClientCode) -> None:
        self.asked.append(code)
        if self.lack:
            raise self.lack[0]


@pytest.fixture
def space() -> Space:
    return Space()


@pytest.fixture
def gate(
    told: Told, installed: Installed, space: Space, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Gate:
    monkeypatch.setattr("waguard.admission.gate.time", SimpleNamespace(monotonic=clock))
    return Gate(POLICY, told.publish, installed, space)


# --- alerts ---------------------------------------------------------------------------------------------------


def test_an_alert_is_raised_once_and_cleared_once(told: Told) -> None:
    alerts = Alerts(told.publish)
    for text in ("", "it began", "it goes on", "", "", "again"):
        alerts.set(Alert.NO_ROOM, text)
    assert told.news == ["raised no_room", "cleared no_room", "raised no_room"]
    assert alerts.raised() == [Raised(Alert.NO_ROOM, None, "again")]


def test_what_a_standing_alert_says_is_as_of_now_and_told_when_it_is_another_matter(told: Told) -> None:
    alerts = Alerts(told.publish)
    for text in ("1 of 3 is off", "2 of 3 are off", "2 of 3 are off", "3 of 3 are off", "the disk is full"):
        alerts.set(Alert.NO_ROOM, text)
        assert [one.text for one in alerts.raised()] == [text]
    assert told.news == ["raised no_room"]
    assert told.texts == [
        ("error", "2 of 3 are off"),
        ("debug", "3 of 3 are off"),
        ("error", "the disk is full"),
    ]


def test_what_an_alert_says_to_and_fro_is_not_told_each_time(told: Told) -> None:
    alerts = Alerts(told.publish)
    for number in range(20):
        alerts.set(Alert.NO_ROOM, "no memory" if number % 2 else f"{number} MiB of disk")
        alerts.set(Alert.SESSION_FAILED, f"{'a' * (number % 2)} rests", A)
    assert alerts.raised()[0].text == "no memory"
    assert sorted(text for level, text in told.texts if level == "error") == [
        " rests",
        "2 MiB of disk",
        "a rests",
        "no memory",
    ]


def test_each_client_has_its_own(told: Told) -> None:
    alerts = Alerts(told.publish)
    for client in (A, B, A):
        alerts.set(Alert.SESSION_FAILED, f"{client} rests", client)
    alerts.set(Alert.SESSION_FAILED, "", A)
    alerts.set(Alert.PERSON_NEEDED, "", B)
    assert told.news == ["raised session_failed a", "raised session_failed b", "cleared session_failed a"]
    assert [one.client for one in alerts.raised()] == [B]


# --- the network ----------------------------------------------------------------------------------------------

UP, CLEARED = "raised network_down", "cleared network_down"


@pytest.mark.parametrize(
    ("run", "down", "news"),
    [
        ([(A, True), (B, True), (C, True), (D, True), (A, False), (B, False)], False, []),
        ([(A, False), (B, True), (C, True), (B, False)], True, [UP, CLEARED, UP]),
        ([(A, True), (B, True), (A, False), (B, False), (A, False)], True, [UP]),
        ([(A, True), (B, True), (A, False), (B, False), (B, True)], False, [UP, CLEARED]),
        ([(A, False), (A, False)], True, [UP]),  # a single session
        ([(A, False), (A, None), (A, None)], False, [UP, CLEARED]),  # it is down, and counts no more
        ([(A, False), (B, True), (B, None)], True, [UP, CLEARED, UP]),
    ],
)
def test_when_most_are_cut_off_it_is_the_network_and_told_once(
    gate: Gate, told: Told, run: list[tuple[ClientCode, bool | None]], down: bool, news: list[str]
) -> None:
    for client, online in run:
        gate.reaches(client, online)
    assert (gate.network_down, told.news) == (down, news)


def test_whether_others_have_the_same_is_known(gate: Gate) -> None:
    assert gate.alone(A, Fault.OFFLINE)
    gate.suffers(A, Fault.OFFLINE)
    assert gate.alone(A, Fault.OFFLINE)
    assert not gate.alone(B, Fault.OFFLINE)
    gate.suffers(B, Fault.GPU_HUNG)
    assert gate.alone(A, Fault.OFFLINE)
    assert gate.alone(B, Fault.GPU_HUNG)
    gate.suffers(A, None)
    gate.suffers(A, None)
    assert gate.alone(B, Fault.OFFLINE)


# --- may it start? --------------------------------------------------------------------------------------------


async def held(gate: Gate, cause: Cause = Cause.CONNECT, code: ClientCode = A) -> WaguardError:
    with pytest.raises(WaguardError) as caught:
        await gate.admit(code, cause)
    assert caught.value.details["retry_after_s"] > 0
    return caught.value


async def test_how_many_the_network_is_gone_for_is_as_of_now(gate: Gate, told: Told) -> None:
    for client in (A, B, C, D):
        gate.reaches(client, False)
    assert [one.text[:13] for one in gate.alerts.raised()] == ["4 of 4 sessio"]
    assert {level for level, _ in told.texts} == {"debug"}
    assert told.news == ["raised network_down"]


async def test_whoever_comes_may_start(gate: Gate, told: Told, program: Program) -> None:
    for cause in Cause:
        await gate.admit(A, cause)
    assert (told.news, program.asked) == ([], 0)


@pytest.mark.parametrize("how", ["not executable", "no program", "gone", "says nothing", "directory"])
async def test_a_browser_that_does_not_run_is_noticed_before_the_next_start(
    gate: Gate, clock: Clock, told: Told, program: Program, how: str
) -> None:
    break_it: dict[str, Callable[[], None]] = {
        "not executable": lambda: program.replace("#!/bin/sh\n", mode=0o644),
        "no program": lambda: program.replace("\x7fELF of another machine"),
        "gone": program.path.unlink,
        "says nothing": lambda: program.prints("Segmentation fault"),
        "directory": program.become_directory,
    }
    break_it[how]()
    error = await held(gate)
    assert isinstance(error, BreakerOpen)
    assert error.details["retry_after_s"] == POLICY.base_s
    assert "the browser does not run" in str(error)
    assert told.news == ["raised breaker_open"]
    for cause in Cause:  # nobody asks it again meanwhile
        assert isinstance(await held(gate, cause, B), BreakerOpen)
    clock.now += POLICY.base_s
    assert (await held(gate)).details["retry_after_s"] == 2 * POLICY.base_s  # one has tried
    if how == "directory":
        program.path.rmdir()
    program.prints("Chromium 157.0.0.1")
    assert isinstance(await held(gate), BreakerOpen)
    clock.now += 2 * POLICY.base_s
    await gate.admit(A, Cause.RECOVERY)
    assert (await held(gate, code=B)).details["retry_after_s"] == POLICY.trial_s  # until that one is up
    gate.started()
    await gate.admit(B, Cause.RECOVERY)
    assert told.news == ["raised breaker_open", "cleared breaker_open"]
    assert await gate.installed_version() == "157.0.0.1"


async def test_of_a_browser_that_does_not_run_the_last_version_is_told(gate: Gate, program: Program) -> None:
    program.replace("rubbish")
    assert await gate.installed_version() == "156.0.0.1"
    program.prints("Chromium 158.0.0.1")
    assert await gate.installed_version() == "158.0.0.1"


def failure(code: str = "browser_failed", stage: Stage = Stage.START) -> Failure:
    return Failure(code, "It fell.", stage)


async def test_two_clients_whose_starts_fail_in_a_row_hold_everybody(gate: Gate, told: Told) -> None:
    for _ in range(5):
        await gate.start_failed(A, failure())
        await gate.admit(A, Cause.CONNECT)
    gate.started()
    await gate.start_failed(B, failure("sandbox_failed"))
    await gate.admit(A, Cause.CONNECT)
    await gate.start_failed(A, failure())
    assert "several clients, the last one with: It fell" in str(await held(gate))
    assert told.news == ["raised breaker_open"]


async def test_whoever_is_held_is_called_when_a_browser_starts_well(gate: Gate) -> None:
    held = asyncio.create_task(gate.until_closed())
    gate.started()  # it was closed: nobody is held by it
    await asyncio.sleep(0)
    assert not held.done()
    failure = Failure("browser_failed", "it ended", Stage.START)
    for code in (A, B):
        await gate.start_failed(code, failure)
    gate.started()
    async with asyncio.timeout(5):
        await held


async def test_what_is_surely_no_hosts_fault_holds_nobody(gate: Gate, told: Told) -> None:
    for client in (A, B, C):
        for code, stage in (
            ("profile_locked", Stage.START),
            ("browser_failed", Stage.OPEN),
            ("page_failed", Stage.OPEN),
        ):
            await gate.start_failed(client, failure(code, stage))
        await gate.admit(client, Cause.RECOVERY)
    assert not told.news


async def test_one_start_that_fails_since_the_browser_does_not_run_is_enough(
    gate: Gate, told: Told, program: Program
) -> None:
    program.replace("rubbish")
    await gate.start_failed(A, failure())
    assert "the browser does not run" in str(await held(gate, code=B))
    assert told.news == ["raised breaker_open"]


async def test_a_storm_is_held_and_whoever_asks_is_not(gate: Gate, clock: Clock, told: Told) -> None:
    for client in (A, B, C):
        await gate.admit(client, Cause.RECOVERY)
    error = await held(gate, Cause.RECOVERY, D)
    assert error.details["retry_after_s"] == POLICY.storm_s
    assert "too many automatic starts" in str(error)
    for cause in ASKED:
        await gate.admit(D, cause)
    clock.now += 59.0
    assert (await held(gate, Cause.RECOVERY, D)).details["retry_after_s"] == 1
    clock.now += 1.0
    await gate.admit(D, Cause.RECOVERY)
    assert not told.news


async def test_who_finds_no_room_waits_and_there_is_one_alert_for_all(
    gate: Gate, space: Space, told: Told
) -> None:
    space.lack += [NoMemory("1 MiB is free."), DiskFull("No disk is left.")]
    for cause in UNASKED:
        assert isinstance(await held(gate, cause, A), NoMemory)
    for cause in ASKED:  # looked for before anything was touched
        await gate.admit(B, cause)
    del space.lack[0]
    assert isinstance(await held(gate, Cause.RETURN, C), DiskFull)
    assert told.news == ["raised no_room"]
    assert [one.text for one in gate.alerts.raised()] == ["Sessions that are wanted wait: No disk is left."]
    space.lack.clear()
    await gate.admit(C, Cause.RETURN)
    assert told.news == ["raised no_room", "cleared no_room"]
    assert space.asked == [A, A, A, C, C]


async def test_for_room_is_waited_half_a_minute_whatever_a_caller_would_be_told(
    gate: Gate, space: Space
) -> None:
    space.lack += [NoMemory("Full.", retry_after_s=7, mb=3), DiskFull("Full.")]
    assert (await held(gate, Cause.RECOVERY)).details == {"retry_after_s": 30.0, "mb": 3}
    del space.lack[0]
    assert (await held(gate, Cause.RECOVERY)).details == {"retry_after_s": 30.0}


async def test_who_finds_no_room_is_no_trial(gate: Gate, space: Space, clock: Clock) -> None:
    """Else a session that waits for memory would keep the others from trying."""
    await gate.start_failed(A, failure())
    await gate.start_failed(B, failure())
    space.lack.append(NoMemory("Full."))
    clock.now += POLICY.base_s
    assert isinstance(await held(gate, Cause.RECOVERY, A), NoMemory)
    await gate.admit(B, Cause.CONNECT)


# --- the browser that is installed ----------------------------------------------------------------------------


async def test_an_unchanged_file_is_not_asked_and_an_upgrade_is_followed(
    installed: Installed, program: Program
) -> None:
    for _ in range(3):
        await installed.refresh()
    assert program.asked == 0
    program.prints("Chromium 157.0.0.1 built on Debian")
    for _ in range(3):
        await installed.refresh()
    assert (installed.current, program.asked) == (Binary(program.path, "157.0.0.1"), 1)
    program.path.touch()  # the same, written anew
    await installed.refresh()
    assert (installed.current.version, program.asked) == ("157.0.0.1", 2)


async def test_where_the_one_that_was_used_has_gone_another_is_used(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Program(tmp_path / "chrome")
    other.prints("Google Chrome 156.0.2.3")
    monkeypatch.setattr(find, "KNOWN", (program.path, other.path))
    installed = Installed(None, 10.0)
    await installed.refresh()
    assert installed.current.path == program.path
    program.path.unlink()
    await installed.refresh()
    assert installed.current == Binary(other.path, "156.0.2.3")
    other.path.unlink()
    with pytest.raises(BrowserNotFound):
        await installed.refresh()
    program.prints("Chromium 157.0.0.1")
    await installed.refresh()
    assert installed.current == Binary(program.path, "157.0.0.1")


async def test_one_that_does_not_run_raises_each_time_until_it_does(
    installed: Installed, program: Program
) -> None:
    program.prints("it has no version")
    for asked in (1, 2):
        with pytest.raises(BrowserFailed) as caught:
            await installed.refresh()
        assert program.asked == asked
        assert caught.value.hint == "Install it again, or name another one: browser.path"
    program.prints("Chromium 158.0.0.1")
    await asyncio.gather(installed.refresh(), installed.refresh())
    assert installed.current.version == "158.0.0.1"
    asked = program.asked
    await installed.refresh()
    assert program.asked == asked


async def test_one_that_is_put_back_as_it_was_is_believed(installed: Installed, program: Program) -> None:
    away = program.path.with_name("away")
    program.path.rename(away)
    with pytest.raises(BrowserNotFound):
        await installed.refresh()
    away.rename(program.path)
    await installed.refresh()
    assert program.asked == 0


async def test_one_that_never_tells_has_a_deadline_and_leaves_nothing(program: Program) -> None:
    program.replace("#!/bin/sh\nexec sleep 3600\n")
    with pytest.raises(DeadlineExceeded) as caught:
        await Installed(program.path, 0.2).check()
    assert caught.value.hint == "", "no setting gives it longer"


async def test_one_that_is_not_there_at_the_start_is_looked_for_until_it_is(
    program: Program, told: Told
) -> None:
    path = program.path
    path.rename(away := path.with_name("away"))
    installed = Installed(path, 10.0)
    with pytest.raises(BrowserNotFound) as caught:
        await installed.refresh()
    gate = Gate(POLICY, told.publish, installed, Space())
    gate.blame_browser(caught.value)
    assert told.news == ["raised breaker_open"]
    assert "there is no file" in str(await held(gate))
    assert await gate.installed_version() == ""
    away.rename(path)
    assert await gate.installed_version() == "156.0.0.1"


async def test_a_link_that_points_elsewhere_now_is_followed_and_that_is_told(
    program: Program, tmp_path: Path
) -> None:
    upgraded = Program(tmp_path / "upgraded")
    upgraded.prints("Chromium 157.0.0.1")
    link = tmp_path / "link"
    link.symlink_to(program.path)
    told: list[tuple[Binary, Binary]] = []
    installed = Installed(link, 10.0, lambda before, now: told.append((before, now)))
    before = await installed.refresh()
    (beside := tmp_path / "beside").symlink_to(upgraded.path)
    beside.replace(link)
    now = await installed.refresh()
    assert (before, now) == (Binary(program.path, "156.0.0.1"), Binary(upgraded.path, "157.0.0.1"))
    assert await installed.refresh() == installed.current == now
    assert told == [(before, now)]


async def test_one_that_was_moved_is_known_by_its_file(
    installed: Installed, program: Program, tmp_path: Path
) -> None:
    moved = program.path.rename(tmp_path / "moved")
    program.path.symlink_to(moved)
    assert await installed.refresh() == Binary(moved, "156.0.0.1")
    assert program.asked == 0


async def test_a_better_one_that_is_installed_later_is_used(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = tmp_path / "better"
    monkeypatch.setattr(find, "KNOWN", (better, program.path))
    installed = Installed(None, 10.0)
    assert (await installed.refresh()).path == program.path
    Program(better)
    assert (await installed.refresh()).path == better


async def test_one_that_was_written_over_with_its_times_kept_is_seen(
    installed: Installed, program: Program
) -> None:
    was = program.path.stat()
    with program.path.open("a") as file:
        file.write("echo 157.0.0.1 >> /dev/null\n")
    os.utime(program.path, ns=(was.st_atime_ns, was.st_mtime_ns))
    await installed.refresh()
    assert program.asked == 1


async def test_a_crowd_asks_once(installed: Installed, program: Program) -> None:
    program.prints("Chromium 157.0.0.1")
    found = await asyncio.gather(*(installed.refresh() for _ in range(20)))
    assert ({one.version for one in found}, program.asked) == ({"157.0.0.1"}, 1)
    await asyncio.gather(*(installed.check() for _ in range(20)))
    assert program.asked == 2
    await installed.check()
    assert program.asked == 3
    program.prints("it has no version")
    program.forget()
    failed = await asyncio.gather(*(installed.refresh() for _ in range(20)), return_exceptions=True)
    assert ({type(one) for one in failed}, len({id(one) for one in failed})) == ({BrowserFailed}, 20)
    assert program.asked == 1


async def test_a_question_that_is_called_off_answers_nobody(installed: Installed, program: Program) -> None:
    pipe = program.path.with_name("pipe")
    os.mkfifo(pipe)
    program.replace(f"#!/bin/sh\necho >> {program.path.with_name('asked')}\nread line < {pipe}\necho $line\n")
    first, second = asyncio.create_task(installed.refresh()), asyncio.create_task(installed.refresh())
    deadline = time.monotonic() + 10.0
    while program.asked == 0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.to_thread(pipe.write_text, "Chromium 157.0.0.1\n")
    assert (await second).version == "157.0.0.1"


async def test_a_look_at_what_is_installed_asks_no_broken_file_again(gate: Gate, program: Program) -> None:
    program.prints("it has no version")
    program.forget()
    assert [await gate.installed_version() for _ in range(3)] == ["156.0.0.1"] * 3
    assert program.asked == 1
    program.prints("Chromium 157.0.0.1")
    assert await gate.installed_version() == "157.0.0.1"
