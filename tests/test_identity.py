"""A pid is half an identity: whatever has the pid later is never taken for the one that had it, and never signalled."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from waguard.sandbox.identity import TOKEN_VARIABLE, Handle, Identity, carriers
from waguard.system import host

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start children that wait until they are told to end; those still there are ended with the test."""
    children: list[subprocess.Popen[bytes]] = []

    def starting(**env: str) -> "subprocess.Popen[bytes]":
        child = subprocess.Popen(["/usr/bin/sleep", "3600"], env=env)
        children.append(child)
        return child

    yield starting
    for child in children:
        child.kill()
        child.wait()


def identity_of(child: "subprocess.Popen[bytes]") -> Identity:
    identity = Identity.of(child.pid)
    assert identity is not None
    return identity


def handle_on(child: "subprocess.Popen[bytes]") -> Handle:
    handle = Handle.open(identity_of(child))
    assert handle is not None
    return handle


def until_zombie(pid: int) -> None:
    """Wait for its end without collecting it."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_living_process_is_current_and_only_it(start: Start) -> None:
    one, two = identity_of(start()), identity_of(start())
    assert one.current()
    assert two.current()
    for wrong in (
        replace(one, start_ticks=one.start_ticks + 1),
        replace(one, start_ticks=one.start_ticks - 1),
        replace(one, boot_id="11111111-2222-3333-4444-555555555555"),
        replace(one, boot_id=""),
        replace(one, pid=2**22 + 1),
        replace(one, pid=0),
        replace(one, pid=-1),
    ):
        assert not wrong.current()
        assert Handle.open(wrong) is None


def test_a_name_with_brackets_and_spaces_does_not_shift_the_fields(tmp_path: Path) -> None:
    """The kernel puts the name into the middle of /proc/PID/stat, in brackets and as it is."""
    program = tmp_path / "a) S 1 (b c"
    program.symlink_to("/usr/bin/sleep")
    with subprocess.Popen([str(program), "3600"]) as child:
        row = host.process_row(child.pid)
        assert row is not None
        assert (row.pid, row.ppid) == (child.pid, os.getpid())
        assert abs(row.start_ticks / os.sysconf("SC_CLK_TCK") - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
        child.kill()


def test_who_has_ended_is_not_current(start: Start) -> None:
    child = start()
    identity = identity_of(child)
    child.kill()
    child.wait()
    assert Identity.of(child.pid) is None
    assert not identity.current()
    assert Handle.open(identity) is None


async def test_a_zombie_counts_as_gone(start: Start) -> None:
    child = start()
    before = handle_on(child)
    assert not before.gone()
    child.kill()
    until_zombie(child.pid)
    row = host.process_row(child.pid)
    assert row is not None
    assert row.state == "Z"
    after = handle_on(child)  # its pid is still its own
    for handle in (before, after):
        assert handle.gone()
        async with asyncio.timeout(10):
            await handle.wait_gone()
        handle.kill()
        handle.close()


async def test_a_stopped_process_is_there_until_it_is_killed(start: Start) -> None:
    child = start()
    handle = handle_on(child)
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    assert not handle.gone()
    handle.kill()
    async with asyncio.timeout(10):
        await handle.wait_gone()
    handle.close()


async def test_many_may_wait_and_each_may_stop_waiting(start: Start) -> None:
    child = start()
    handle = handle_on(child)
    waiting = [asyncio.create_task(handle.wait_gone()) for _ in range(10)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    done, rest = await asyncio.wait(waiting, timeout=0.05)
    assert len(done) == len(rest) == 5
    handle.kill()
    async with asyncio.timeout(10):
        await asyncio.gather(*rest)
    handle.close()
    handle.close()


def with_pid_of(old: Identity, start: Start) -> "subprocess.Popen[bytes] | None":
    """A new process with an old pid, which takes root."""
    # Two processes of one tick could not be told apart; the kernel hands a pid out again only much later.
    while time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") < old.start_ticks + 2:
        os.sched_yield()
    for _ in range(50):
        try:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(old.pid - 1), encoding="ascii")
        except OSError:
            return None
        child = start()
        if child.pid == old.pid:
            return child
    return None


def test_whoever_has_the_pid_later_is_neither_taken_for_it_nor_signalled(start: Start) -> None:
    first = start()
    identity, handle = identity_of(first), handle_on(first)
    first.kill()
    first.wait()
    second = with_pid_of(identity, start)
    if second is None:
        handle.close()
        pytest.skip("may not choose a pid here")
    assert second.pid == identity.pid
    assert not identity.current()
    assert Handle.open(identity) is None
    assert handle.gone()
    handle.kill()
    handle.close()
    assert identity_of(second) != identity
    assert second.poll() is None


def test_a_process_that_goes_while_it_is_opened_is_not_taken(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look and the pidfd the pid may get another owner: the second look sees it."""
    first, second = start(), start()
    identity = identity_of(first)
    pidfd_open = os.pidfd_open

    def swapped(pid: int) -> int:
        assert pid == first.pid
        first.kill()
        first.wait()
        return pidfd_open(second.pid)  # as if it had the pid now

    monkeypatch.setattr(os, "pidfd_open", swapped)
    assert Handle.open(identity) is None  # and the fd is closed again: the fixture looks
    assert second.poll() is None


def test_a_process_that_is_gone_before_it_is_opened(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_pid: int) -> int:
        raise ProcessLookupError

    monkeypatch.setattr(os, "pidfd_open", gone)
    assert Handle.open(identity_of(start())) is None


def test_carriers_are_those_with_exactly_this_token(start: Start) -> None:
    ours = [start(**{TOKEN_VARIABLE: "abc"}), start(**{"PATH": "/", TOKEN_VARIABLE: "abc", "Z": "1"})]
    start(**{TOKEN_VARIABLE: "abcd"})
    start(**{TOKEN_VARIABLE: "ab"})
    start(**{TOKEN_VARIABLE: "xabc"})
    start(**{"X" + TOKEN_VARIABLE: "abc"})
    start(OTHER=f"{TOKEN_VARIABLE}=abc")
    ended = start(**{TOKEN_VARIABLE: "abc"})
    ended.kill()
    until_zombie(ended.pid)
    argument = [sys.executable, "-c", "input()", f"{TOKEN_VARIABLE}=abc"]
    with subprocess.Popen(argument, stdin=subprocess.PIPE) as decoy:
        found = carriers("abc")
        assert sorted(identity.pid for identity in found) == sorted(child.pid for child in ours)
        decoy.kill()
    assert carriers("nobody has this one") == []


_TREE = """
import subprocess, sys, threading

def start():
    subprocess.Popen(["bash", "-c", "sleep 3600 & wait"])

start()
threading.Thread(target=lambda: (start(), print("there", flush=True), threading.Event().wait()), daemon=True).start()
sys.stdin.read()
"""


@pytest.mark.parametrize("lists", [True, False])
def test_all_below_a_process_is_found_whichever_thread_has_started_it(
    monkeypatch: pytest.MonkeyPatch, *, lists: bool
) -> None:
    monkeypatch.setattr(host, "_has_children", lambda: lists)
    with subprocess.Popen(
        [sys.executable, "-c", _TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as root:
        found = host.below(root.pid)
        try:
            assert root.stdout is not None
            assert root.stdout.readline() == b"there\n"
            deadline = time.monotonic() + 20
            while len(found := host.below(root.pid)) < 4:
                assert time.monotonic() < deadline, found
            below = host.descendants(root.pid, host.process_table())
            assert {row.pid for row in found} == {row.pid for row in below}
        finally:
            for row in found:
                os.kill(row.pid, signal.SIGKILL)
    assert not host.below(root.pid)
