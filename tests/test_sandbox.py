"""What is started is seen by nobody, holds its lock, and is gone when it is killed; strangers are left alone."""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import platform
import pwd
import random
import secrets
import signal
import socket
import stat
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from processes import commanded, stop

from waguard import daemon
from waguard.config.sections import Config
from waguard.errors import LimitReached, SandboxFailed, SnapshotFailed
from waguard.sandbox import (
    Run,
    Sandbox,
    Spec,
    User,
    choose,
    drop_privileges,
    freeze,
    reaper,
    seccomp,
    unprivileged_user,
)
from waguard.sandbox.bubblewrap import Bubblewrap
from waguard.sandbox.fence import Fence
from waguard.sandbox.identity import TOKEN_VARIABLE, Identity
from waguard.sandbox.plain import Plain, become_subreaper
from waguard.sandbox.reaper import LaunchRecord
from waguard.sandbox.spawn import spawn
from waguard.system import host

MARK = "WAGUARD_TEST_MARK"
BWRAP = Bubblewrap.find()
ROOT = os.geteuid() == 0

# Leaves a process in a session of its own and one in this one, says that they are there, and stays.
FAMILY = "/usr/bin/setsid /usr/bin/sleep 3601 & /usr/bin/sleep 3602 & echo ready; wait"


class Started:
    """A run with all that belongs to it."""

    def __init__(self, run: Run, output: int, lock: Path, launch: LaunchRecord) -> None:
        self.run = run
        self.lock = lock
        self.launch = launch
        self._output = output
        self._said = b""

    async def identify(self) -> LaunchRecord:
        """What the registry would know after it."""
        return replace(self.launch, processes=tuple(await self.run.identify()))

    async def says(self, end: bytes = b"") -> str:
        """Its output up to a line that ends so, or all of it."""
        os.set_blocking(self._output, False)
        async with asyncio.timeout(20):
            while not end or end not in self._said:
                try:
                    chunk = os.read(self._output, 65536)
                except BlockingIOError:
                    await asyncio.sleep(0.005)
                    continue
                if not chunk:
                    break
                self._said += chunk
        return self._said.decode("utf-8", "replace")

    async def go(self) -> None:
        """Let it run until it says that it is ready."""
        await self.run.identify()
        await self.go_on()

    async def go_on(self) -> None:
        """Likewise, once it is identified."""
        self.run.release()
        assert "ready" in await self.says(b"ready\n")

    def relatives(self) -> set[int]:
        """Every living process of it, whatever became of its parents, by an independent look."""
        return marked(self.launch.token)

    def lock_is_free(self) -> bool:
        fd = os.open(self.lock, os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    async def kill(self) -> None:
        async with asyncio.timeout(10):
            await self.run.kill()

    def close(self) -> None:
        self.run.close()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1


def marked(mark: str) -> set[int]:
    entry = f"{MARK}={mark}"
    return {
        row.pid
        for row in host.process_table()
        if row.state not in "ZX" and host.environment_has(row.pid, entry)
    }


def zombies() -> set[int]:
    return {row.pid for row in host.process_table() if row.state == "Z" and row.ppid == os.getpid()}


Starter = Callable[..., contextlib.AbstractAsyncContextManager[Started]]


@pytest.fixture(params=["bubblewrap", "bubblewrap-userns", "plain"])
def kind(request: pytest.FixtureRequest) -> Sandbox:
    """As root bubblewrap drops to another user and needs no user namespace; otherwise it needs one."""
    user = unprivileged_user("")
    name: str = request.param
    if name == "plain":
        return Plain(user)
    if BWRAP is None:
        pytest.skip("bubblewrap is not installed")
    if name == "bubblewrap-userns":
        if not ROOT:
            pytest.skip("an unprivileged user has a user namespace anyway")
        return Bubblewrap(BWRAP, None)
    return Bubblewrap(BWRAP, user)


@pytest.fixture
def bubblewrap() -> Sandbox:
    if BWRAP is None:
        pytest.skip("bubblewrap is not installed")
    return Bubblewrap(BWRAP, unprivileged_user(""))


@pytest.fixture
def start(sessions_dir: Path) -> Starter:
    sessions_dir.mkdir(mode=0o711)
    user = unprivileged_user("")

    @asynccontextmanager
    async def starting(
        kind: Sandbox, script: str = FAMILY, argv: Sequence[str] = ()
    ) -> AsyncIterator[Started]:
        token = secrets.token_hex(8)
        profile = sessions_dir / f"profile-{token}"
        profile.mkdir(mode=0o700)
        if user is not None:
            os.chown(profile, user.uid, user.gid)
        lock = sessions_dir / f"{token}.lock"
        lock_fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        output_read, output_write = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            run = kind.start(
                Spec(
                    argv or ["/usr/bin/sh", "-c", script],
                    profile,
                    lock_fd,
                    token,
                    {"PATH": "/usr/bin:/bin", MARK: token},
                    {0: null, 1: output_write, 2: output_write},
                )
            )
        except BaseException:
            os.close(output_read)
            raise
        finally:
            for fd in (lock_fd, output_write, null):
                os.close(fd)
        started = Started(run, output_read, lock, LaunchRecord(token, kind.kind, "generation", time.time()))
        try:
            yield started
        finally:
            await started.kill()
            started.close()

    return starting


@pytest.fixture
def decoy() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Strangers that look like ours and are the test's own; each must still be alive at the end."""
    decoys: list[subprocess.Popen[bytes]] = []
    mark = secrets.token_hex(8)

    def starting(argv: Sequence[str], **env: str) -> "subprocess.Popen[bytes]":
        env = {"PATH": "/usr/bin:/bin", MARK: mark, **env}
        decoys.append(subprocess.Popen(list(argv), env=env, stdout=subprocess.PIPE))
        return decoys[-1]

    yield starting
    dead = [process.args for process in decoys if process.poll() is not None]
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)
    for process in decoys:
        process.communicate()
    assert not dead, "strangers were killed"


# --- spawn: exactly what was asked for ------------------------------------------------------------------------

SHOW = """
import json, os
fds = {fd: os.stat(int(fd)).st_ino for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)}
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"fds": fds, "env": dict(os.environ), "session": os.getsid(0), "pid": os.getpid(),
                  "ignored": status["SigIgn"], "blocked": status["SigBlk"]}), flush=True)
"""


def shown(fds: dict[int, int]) -> dict[str, object]:
    """What a child that was started with these fds sees; its answer comes by fd 1."""
    read, write = os.pipe()
    child = spawn(["/usr/bin/python3", "-c", SHOW], {"ONLY": "this"}, {**fds, 1: write})
    os.close(write)
    with os.fdopen(read) as file:
        seen: dict[str, object] = json.loads(file.read())
    os.waitid(os.P_PID, child.handle.identity.pid, os.WEXITED | os.WNOWAIT)
    assert child.how_it_ended() == "exit code 0"
    assert seen["pid"] == child.handle.identity.pid
    child.reap()
    child.reap()
    assert child.how_it_ended() == "ended"
    child.handle.close()
    return seen


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


@pytest.fixture
def pipes() -> Iterator[list[int]]:
    fds = [fd for _ in range(4) for fd in os.pipe()]
    yield fds
    for fd in fds:
        os.close(fd)


def test_a_child_has_the_fds_asked_for_and_none_of_ours(pipes: list[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    asked = {0: null, 2: null, 3: pipes[0], 4: pipes[1], 5: pipes[2]}
    seen = shown(asked)
    os.close(null)
    found = {int(fd): number for fd, number in seen["fds"].items()}  # type: ignore[attr-defined]  # it is a dict
    assert {fd: found[fd] for fd in (3, 4, 5)} == {3: inode(pipes[0]), 4: inode(pipes[1]), 5: inode(pipes[2])}
    assert inode(pipes[4]) not in found.values()
    assert inode(pipes[6]) not in found.values()


def test_numbers_that_cross_over_come_out_right(pipes: list[int]) -> None:
    """The child's 3 may be our 4 and the other way round."""
    low = sorted(pipes)
    asked = {child: ours for child, ours in zip(low, reversed(low), strict=True) if child not in {0, 1, 2}}
    seen = shown(asked)["fds"]
    assert {fd: seen[str(fd)] for fd in asked} == {fd: inode(ours) for fd, ours in asked.items()}  # type: ignore[index]  # it is a dict


def test_what_the_daemon_itself_inherited_is_not_passed_on(pipes: list[int]) -> None:
    """A shell, make or a service manager may have left fds open for the daemon: they are nothing for a browser."""
    os.set_inheritable(pipes[0], True)
    seen = shown({})["fds"]
    assert inode(pipes[0]) not in seen.values()  # type: ignore[attr-defined]  # it is a dict


def test_a_child_has_its_own_session_the_environment_given_and_default_signals() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        seen = shown({})
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGHUP, old)
    assert seen["session"] == seen["pid"]
    assert {name for name in seen["env"] if name != "LC_CTYPE"} == {"ONLY"}  # type: ignore[attr-defined]  # it is a dict; Python sets LC_CTYPE itself
    assert int(str(seen["blocked"]), 16) == 0
    ignored = int(str(seen["ignored"]), 16)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        assert not ignored & 1 << (number - 1)


def test_a_program_that_is_not_there_is_said(pipes: list[int]) -> None:
    with pytest.raises(FileNotFoundError):
        spawn(["/nowhere/at/all"], {}, {3: pipes[0]})


def test_without_an_fd_for_the_handle_the_child_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_pid: int) -> int:
        raise OSError(24, "Too many open files")

    before = zombies()
    monkeypatch.setattr(os, "pidfd_open", none_left)
    with pytest.raises(LimitReached, match="as many files open as it may"):
        spawn(["/usr/bin/sleep", "3600"], {}, {})
    assert zombies() == before


async def test_a_browser_that_cannot_be_started_is_said(kind: Sandbox, start: Starter) -> None:
    if isinstance(kind, Bubblewrap) or unprivileged_user("") is not None:
        async with start(kind, argv=["/nowhere/at/all"]) as started:
            with contextlib.suppress(SandboxFailed):  # bubblewrap may be gone before it is looked at
                await started.run.identify()
            started.run.release()
            assert (await started.run.exited()) != "exit code 0"
            assert "/nowhere/at" in await started.says()
    else:
        with pytest.raises(SandboxFailed, match="/nowhere/at/all cannot be started"):
            async with start(kind, argv=["/nowhere/at/all"]):
                pass


def test_a_sandbox_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SandboxFailed, match="cannot be started"):
        Bubblewrap(tmp_path / "bwrap", None).start(Spec(["/usr/bin/true"], None, 0, "token", {}, {}))


# --- what a browser sees --------------------------------------------------------------------------------------


async def test_inside_there_is_nothing_of_others(
    bubblewrap: Sandbox,
    start: Starter,
    sessions_dir: Path,
    decoy: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    async with start(bubblewrap) as neighbour:
        await neighbour.go()
        outside = decoy(["/usr/bin/sleep", "3603"])
        (sessions_dir / ".tokens.json").write_text("the admin's token")
        script = f"""
            echo "[sessions]"; ls -laR {sessions_dir} /sessions 2>&1
            echo "[root]"; ls -a / ; ls -a /home /root /work /etc/shadow 2>&1
            echo "[profile]"; ls -a /profile; echo mine > /profile/mine && cat /profile/mine; ls -a /profile/..
            echo "[tmp]"; ls -A /tmp /dev/shm; touch /tmp/x && echo tmp is mine; touch /usr/x 2>&1
            echo "[env]"; env; tr '\\0' '\\n' < /proc/self/environ
            echo "[processes]"; for p in /proc/[0-9]*; do echo $p; tr '\\0' ' ' < $p/cmdline; echo; done
            echo "[kill]"; kill -9 {outside.pid} 2>&1
            echo "[user]"; id -u
            echo ready
        """
        async with start(bubblewrap, script) as started:
            await started.go()
            text = await started.says()
    part = {
        name: body for name, _, body in (part.partition("]\n") for part in text.split("[") if "]" in part)
    }
    assert "No such file or directory" in part["sessions"]
    assert neighbour.launch.token not in text
    assert ".tokens.json" not in text
    assert sorted(part["root"].split("\n")[2 : part["root"].split("\n").index("var") + 1]) == sorted(
        ["bin", "dev", "etc", "lib", "lib64", "proc", "profile", "sbin", "tmp", "usr", "var"]
    )
    assert part["root"].count("No such file or directory") >= 3
    assert "mine" in part["profile"]
    assert part["tmp"].startswith("/dev/shm:")
    assert "tmp is mine" in part["tmp"]
    assert "touch: cannot touch '/usr/x'" in part["tmp"]
    assert f"{MARK}={started.launch.token}" in part["env"]
    assert TOKEN_VARIABLE not in part["env"]
    assert part["processes"].count("/proc/") <= 5
    assert "sleep 360" not in part["processes"]
    user = unprivileged_user("")
    assert part["user"].split()[0] == str(user.uid if user is not None else os.geteuid())
    assert not list(sessions_dir.glob(f"profile-{neighbour.launch.token}/*"))
    assert (sessions_dir / f"profile-{started.launch.token}" / "mine").read_text() == "mine\n"


KNOCK = r"""
use Socket;
sub try_it { my ($what, $done) = @_; print $what, ": ", ($done ? "works" : 0 + $!), "\n" }
sub made { my $made; return socket($made, $_[0], $_[1], $_[2]) ? $made : undef }
my ($tcp, $udp);
sub tcp { $tcp = made(AF_INET, SOCK_STREAM, 0) }
sub at { pack_sockaddr_in($_[0], INADDR_LOOPBACK) }
my ($allowed, $other) = (ALLOWED, OTHER);
tcp(); try_it("allowed port", connect($tcp, at($allowed)));
tcp(); try_it("other port", connect($tcp, at($other)));
my $mptcp = made(AF_INET, SOCK_STREAM, 262);
try_it("MPTCP", $mptcp && connect($mptcp, at($other)));
tcp(); try_it("fast open by sendto", send($tcp, "x", 0x20000000, at($other)));
my ($address, $vector) = (at($other), pack("PQ", "x", 1));
my $message = pack("PL x4 PQ QQ i x4", $address, length $address, $vector, 1, 0, 0, 0);
tcp(); try_it("fast open by sendmsg", 0 <= syscall(SENDMSG, fileno($tcp), $message, 0x20000000));
try_it("SMC", made(43, SOCK_STREAM, 0));
tcp(); try_it("SMC by an option", setsockopt($tcp, 6, 31, "smc"));
try_it("vsock", made(40, SOCK_STREAM, 0));
try_it("ping", made(AF_INET, SOCK_DGRAM, 1));
try_it("io_uring", 0 <= syscall(425, 1, my $parameters = "\0" x 120));
tcp(); try_it("listening", bind($tcp, at(0)));
$udp = made(AF_INET, SOCK_DGRAM, 0); try_it("UDP", send($udp, "x", 0, at($other)));
try_it("Unix", made(AF_UNIX, SOCK_STREAM, 0));
try_it("routes by netlink", made(16, SOCK_RAW, 0));
print "ready\n";
"""
SENDMSG = {"x86_64": "46", "aarch64": "211"}


@pytest.mark.parametrize("ports", ["some", "all"])
@pytest.mark.parametrize("name", ["bubblewrap", "bubblewrap-userns", "plain"])
async def test_inside_the_fence_nothing_reaches_a_port_that_is_not_allowed(
    name: str, ports: str, start: Starter
) -> None:
    if (machine := platform.machine()) not in SENDMSG:
        pytest.skip(f"the calls of {machine} are not known")
    if name != "plain" and BWRAP is None:
        pytest.skip("bubblewrap is not installed")
    with contextlib.ExitStack() as stack:
        allowed, other = (
            stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)
        )
        fence = Fence.make([allowed] if ports == "some" else ())
        stack.callback(fence.close)
        if fence.gap:
            pytest.skip(fence.gap)
        user = unprivileged_user("") if name != "bubblewrap-userns" else None
        kind: Sandbox = (
            Plain(user, fence) if BWRAP is None or name == "plain" else Bubblewrap(BWRAP, user, fence)
        )
        knock = KNOCK.replace("ALLOWED, OTHER", f"{allowed}, {other}").replace("SENDMSG", SENDMSG[machine])
        async with start(kind, f"exec /usr/bin/perl -e '{knock}'") as started:
            await started.go()
            said = (await started.says()).splitlines()
        with socket.create_connection(("127.0.0.1", other)):  # we are not inside
            pass
    assert said.pop() == "ready"
    limited = str(errno.EACCES) if ports == "some" else "works"
    assert dict(line.split(": ") for line in said) == {
        "allowed port": "works",
        "other port": limited,
        "MPTCP": str(errno.EPROTONOSUPPORT),
        "fast open by sendto": str(errno.EOPNOTSUPP),
        "fast open by sendmsg": str(errno.EOPNOTSUPP),
        "SMC": str(errno.EAFNOSUPPORT),
        "SMC by an option": str(errno.ENOPROTOOPT),
        "vsock": str(errno.EAFNOSUPPORT),
        "ping": str(errno.EPROTONOSUPPORT),
        "io_uring": str(errno.ENOSYS),
        "listening": str(errno.EACCES),
        "UDP": "works",
        "Unix": "works",
        "routes by netlink": "works",
    }


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_says_of_each_call_what_its_rules_say(machine: str) -> None:
    """Carried out here as the kernel would, for both machines; the other one's numbers are nobody's to try."""
    code = seccomp.program(machine)
    assert code is not None
    calls = seccomp._MACHINES[machine].calls
    audit = seccomp._MACHINES[machine].audit
    allowed, failed = 0x7FFF0000, 0x00050000

    def verdict(call: int, *arguments: int, on: int = audit) -> int:
        data = struct.pack("<IIQ6Q", call, on, 0, *(*arguments, *[0] * (6 - len(arguments))))
        return bpf(code, data)

    assert verdict(calls["socket"], socket.AF_INET, socket.SOCK_STREAM | 0o2000000, 6) == allowed
    assert verdict(calls["socket"], 2**32 + socket.AF_INET6, socket.SOCK_DGRAM, 17) == allowed
    assert verdict(calls["socket"], socket.AF_INET, socket.SOCK_STREAM, 262) == failed | errno.EPROTONOSUPPORT
    assert verdict(calls["socket"], 43, 1, 0) == failed | errno.EAFNOSUPPORT
    for call, position in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        flags = [0] * position
        assert verdict(calls[call], *flags, 0x4000) == allowed
        assert verdict(calls[call], *flags, 0x20004000) == failed | errno.EOPNOTSUPP
    assert verdict(calls["setsockopt"], 5, 6, 31) == failed | errno.ENOPROTOOPT
    assert verdict(calls["setsockopt"], 5, 6, 1) == allowed
    assert verdict(calls["setsockopt"], 5, 1, 31) == allowed
    assert verdict(calls["io_uring_setup"]) == failed | errno.ENOSYS
    assert verdict(calls["io_uring_setup"] + 1) == allowed
    assert verdict(calls["socket"] | 0x40000000, 2, 1, 0) == failed | errno.ENOSYS
    assert verdict(calls["socket"], 2, 1, 0, on=0x40000003) == failed | errno.ENOSYS
    assert seccomp.program("m68k") is None


def bpf(code: bytes, data: bytes) -> int:
    """Classic BPF, as much of it as filters here have."""
    accumulator, at = 0, 0
    instructions = list(struct.iter_unpack("=HBBI", code))
    while True:
        operation, if_so, if_not, value = instructions[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x15:
                at += if_so if accumulator == value else if_not
            case 0x35:
                at += if_so if accumulator >= value else if_not
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(operation)


async def test_the_daemons_fence_keeps_a_browser_from_the_port_of_metadata_services(start: Starter) -> None:
    fence = daemon._fence(Config())
    knock = (
        "for port in 80 8717 443; do (exec 3<>/dev/tcp/127.0.0.1/$port) 2>&1 | tail -n 1; done; echo ready"
    )
    try:
        if fence.gap:
            pytest.skip(fence.gap)
        async with start(Plain(unprivileged_user(""), fence), f"exec /bin/bash -c '{knock}'") as started:
            await started.go()
            said = (await started.says()).splitlines()
    finally:
        fence.close()
    ends = [line.rpartition(": ")[2] for line in said]
    assert ends[:2] == ["Permission denied"] * 2
    assert "Permission denied" not in ends[2:]  # whether somebody listens on 443 or not


def test_a_fence_whose_rules_are_refused_leaves_nothing() -> None:
    assert "refuses" in Fence.make([443, 65_536]).gap  # no fd either: `nothing_leaks`


async def test_the_launch_token_is_not_to_be_had_inside(bubblewrap: Sandbox, start: Starter) -> None:
    script = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; echo ready"
    async with start(bubblewrap, script) as started:
        await started.go()
        text = await started.says()
    if not ROOT:
        # The namespace's init is the same user's then, and has it in its environment. It opens no door inside.
        pytest.skip("only another user's environment is closed")
    assert TOKEN_VARIABLE + "=" not in text


async def test_the_browser_waits_until_it_is_released(bubblewrap: Sandbox, start: Starter) -> None:
    """Its identity is on disk before it runs."""
    async with start(bubblewrap, "echo ready") as started:
        launch = await started.identify()
        inside = {
            row.pid
            for row in host.process_table()
            if row.ppid == launch.processes[0].pid and row.state != "Z"
        }
        assert not inside
        assert len(started.relatives()) == 2
        started.run.release()
        started.run.release()
        assert await started.says() == "ready\n"
        assert await started.run.exited() == "exit code 0"


@pytest.mark.parametrize(
    ("script", "how"), [("exit 0", "exit code 0"), ("exit 7", "exit code 7"), ("kill -9 $$", "137|signal 9")]
)
async def test_how_it_ended_is_said(kind: Sandbox, start: Starter, script: str, how: str) -> None:
    async with start(kind, script) as started:
        await started.run.identify()
        started.run.release()
        said = await started.run.exited()
        assert any(word in said for word in how.split("|"))
        assert await started.run.exited() == said


# --- the lock -------------------------------------------------------------------------------------------------


async def test_the_lock_is_held_until_all_of_it_is_gone(kind: Sandbox, start: Starter) -> None:
    async with start(kind) as started:
        assert not started.lock_is_free()
        launch = await started.identify()
        assert not started.lock_is_free()
        await started.go_on()
        assert not started.lock_is_free()
        found = await asyncio.to_thread(reaper.lock_holders, [started.lock])
        holders = {holder.identity.pid for holder in found if holder.ours}
        assert holders
        assert holders <= started.relatives()
        assert launch.processes[0].pid in holders
        await started.kill()
        assert started.lock_is_free()
        assert not await asyncio.to_thread(reaper.lock_holders, [started.lock])


async def test_the_lock_outlives_the_browser_as_long_as_a_stray_lives(
    bubblewrap: Sandbox, start: Starter
) -> None:
    script = "/usr/bin/setsid /usr/bin/sh -c 'exec 5>&- 0<&- >/dev/null 2>&1; sleep 3604' & echo ready"
    async with start(bubblewrap, script) as started:
        await started.go()
        assert await started.run.exited() == "exit code 0"
        assert len(started.relatives()) >= 2, "the stray keeps the namespace"
        assert not started.lock_is_free()
        await started.kill()
        assert started.lock_is_free()


async def test_a_killed_monitor_does_not_release_the_lock(bubblewrap: Sandbox, start: Starter) -> None:
    """The namespace's init holds it, whoever dies first."""
    async with start(bubblewrap) as started:
        launch = await started.identify()
        await started.go_on()
        os.kill(launch.processes[1].pid, signal.SIGKILL)
        assert "signal 9" in await started.run.exited()
        assert not started.lock_is_free()
        assert launch.processes[0].current()
        await started.kill()
        assert started.lock_is_free()
        assert not started.relatives()


# --- kill, at any moment ----------------------------------------------------------------------------------------


async def _before_anything(started: Started) -> None:
    pass


async def _in_the_middle_of_identify(started: Started) -> None:
    task = asyncio.create_task(started.run.identify())
    for _ in range(random.randrange(5)):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _identified(started: Started) -> None:
    await started.run.identify()


async def _released(started: Started) -> None:
    await started.run.identify()
    started.run.release()


async def _running(started: Started) -> None:
    await started.go()


async def _all_stopped(started: Started) -> None:
    await started.go()
    for pid in started.relatives():
        os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(10):
        while not started.run.stopped():
            await asyncio.sleep(0)


async def _ended(started: Started) -> None:
    await started.run.identify()
    started.run.release()
    ended = asyncio.create_task(started.run.exited())
    while not ended.done():  # in the middle of an exec a process shows no environment
        for pid in started.relatives():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.wait([ended], timeout=0.01)


async def _killed(started: Started) -> None:
    await started.go()
    await started.kill()


async def _killed_in_vain(started: Started) -> None:
    """A deadline that was missed: called off in the middle."""
    await started.go()
    for turns in range(4):
        task = asyncio.create_task(started.run.kill())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


MOMENTS = [
    _before_anything,
    _in_the_middle_of_identify,
    _identified,
    _released,
    _running,
    _all_stopped,
    _ended,
    _killed,
    _killed_in_vain,
]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_killed_at_any_moment_nothing_is_left(
    kind: Sandbox,
    start: Starter,
    moment: Callable[[Started], object],
    decoy: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    for _ in range(2):
        async with start(kind) as started:
            decoy(["/usr/bin/sleep", "3601"], **{TOKEN_VARIABLE: started.launch.token + "0"})
            await moment(started)  # type: ignore[misc]  # each is a coroutine function
            await started.kill()
            assert not started.relatives()
            assert started.lock_is_free()
            assert started.run.pids() == []
            await asyncio.gather(started.kill(), started.kill())


async def test_a_kill_that_is_called_off_keeps_no_fd(start: Starter) -> None:
    """The deadline passes while a thread looks at the process table."""
    async with start(Plain(unprivileged_user(""))) as started:
        await started.go()
        before = pidfds()
        kills = [asyncio.create_task(started.run.kill()) for _ in range(5)]
        await asyncio.sleep(0)
        for task in kills:
            task.cancel()
        await asyncio.wait(kills)
        await asyncio.to_thread(lambda: None)
        await started.kill()
        kept = pidfds() - before
        for fd in kept:
            os.close(fd)
        assert not kept


def pidfds() -> set[int]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if "pidfd" in str(entry.readlink()):
                found.add(int(entry.name))
    return found


async def test_killed_at_random_moments_nothing_is_left(kind: Sandbox, start: Starter) -> None:
    chance = random.Random(7)
    for _ in range(10):
        async with start(kind) as started:
            life = asyncio.create_task(started.go())
            await asyncio.sleep(chance.uniform(0, 0.03))
            life.cancel()
            with contextlib.suppress(asyncio.CancelledError, AssertionError, SandboxFailed):
                await life
            await started.kill()
            assert not started.relatives()
            assert started.lock_is_free()


async def test_a_kill_while_somebody_waits_for_the_end_wakes_him(kind: Sandbox, start: Starter) -> None:
    async with start(kind) as started:
        await started.go()
        waiting = asyncio.create_task(started.run.exited())
        await asyncio.sleep(0)
        await started.kill()
        async with asyncio.timeout(10):
            assert await waiting


async def test_only_a_stopped_browser_is_called_stopped(kind: Sandbox, start: Starter) -> None:
    async with start(kind, "echo ready; exec sleep 3605") as started:
        assert not started.run.stopped()
        await started.go()
        assert not started.run.stopped()
        browser = max(started.relatives(), key=lambda pid: host.process_row(pid).start_ticks * 10**9 + pid)  # type: ignore[union-attr]  # it lives
        os.kill(browser, signal.SIGSTOP)
        async with asyncio.timeout(10):
            while not started.run.stopped():
                await asyncio.sleep(0)
        os.kill(browser, signal.SIGCONT)
        async with asyncio.timeout(10):
            while started.run.stopped():
                await asyncio.sleep(0)
        await started.kill()
        assert not started.run.stopped()


async def test_plain_finds_strays_that_left_by_their_token(start: Starter) -> None:
    """In a session of its own, its parents dead, all its fds closed: only the environment tells."""
    close_all = "exec 0<&- 1>&- 2>&- 3>&- 4>&- 5>&-"
    script = f"(/usr/bin/setsid /usr/bin/sh -c '{close_all}; sleep 3606 & exec sleep 3607' &) & wait; echo ready; exit 0"
    async with start(Plain(unprivileged_user("")), script) as started:
        await started.go()
        await started.run.exited()
        async with asyncio.timeout(10):
            while len(started.relatives()) < 2:
                await asyncio.sleep(0.005)
        await started.kill()
        assert not started.relatives()


async def test_plain_finds_the_family_that_hides_its_environment(start: Starter) -> None:
    """Chromium's zygotes and renderers do not show our variables: the tree and the session tell."""
    script = "env -i /usr/bin/sleep 3608 & env -i /usr/bin/setsid /usr/bin/sleep 3609 & sleep 3610 & echo ready; wait"
    async with start(Plain(unprivileged_user("")), script) as started:
        await started.go()
        async with asyncio.timeout(10):
            while len(hidden := sleeping(b"3608") | sleeping(b"3609")) < 2:
                await asyncio.sleep(0.005)
        await started.kill()
        assert not hidden & (sleeping(b"3608") | sleeping(b"3609"))
        assert not started.relatives()


def sleeping(seconds: bytes) -> set[int]:
    return commanded(b"sleep\0" + seconds + b"\0")


async def test_a_subreaper_collects_the_strays_it_inherited(start: Starter) -> None:
    become_subreaper()
    before = zombies()
    for _ in range(3):
        async with start(Plain(unprivileged_user(""))) as started:
            await started.go()
            os.kill(next(iter(await started.run.identify())).pid, signal.SIGKILL)
            await started.run.exited()
            await started.kill()
    left = zombies() - before
    for pid in left:
        os.waitpid(pid, 0)
    assert not left


@pytest.mark.skipif(not ROOT, reason="otherwise browsers are the daemon's own user's")
def test_plain_says_which_directory_keeps_the_browsers_user_out(tmp_path: Path, sessions_dir: Path) -> None:
    profile = sessions_dir / "a" / "b"
    profile.mkdir(parents=True)
    kind = Plain(unprivileged_user(""))
    kind.check(profile)
    profile.parent.chmod(0o700)
    with pytest.raises(SandboxFailed) as caught:
        kind.check(profile)
    assert str(profile.parent) + " is closed to others" in caught.value.message
    assert f"chmod o+x {profile.parent}" in caught.value.hint


# --- strangers ------------------------------------------------------------------------------------------------


async def test_decoys_with_the_same_command_line_are_left_alone(
    kind: Sandbox, start: Starter, decoy: Callable[..., "subprocess.Popen[bytes]"], sessions_dir: Path
) -> None:
    async with start(kind) as started, start(kind) as other:
        launch = await started.identify()
        await started.go_on()
        await other.go()
        argv = ["/usr/bin/sh", "-c", FAMILY]
        token = started.launch.token
        profile = str(sessions_dir / f"profile-{token}")
        decoys = [
            decoy(argv),
            decoy(argv, **{TOKEN_VARIABLE: "0" + token}),
            decoy(argv, **{TOKEN_VARIABLE: token + "0"}),
            decoy(["/usr/bin/sh", "-c", "echo ready; sleep 3611", profile, f"{TOKEN_VARIABLE}={token}"]),
        ]
        for process in decoys:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        await started.kill()
        assert not started.relatives()
        assert len(other.relatives()) >= 3
        assert await reaper.reap(launch) == []
        assert await reaper.reap(replace(launch, processes=())) == []
        assert len(other.relatives()) >= 3
        assert all(process.poll() is None for process in decoys)


@pytest.mark.parametrize("kind_name", ["bubblewrap", "plain"])
async def test_an_identity_that_is_not_current_kills_nobody(
    kind_name: str, decoy: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    process = decoy(["/usr/bin/sh", "-c", FAMILY])
    assert process.stdout is not None
    await asyncio.to_thread(process.stdout.readline)
    identity = Identity.of(process.pid)
    assert identity is not None
    family = [row.pid for row in host.process_table() if process.pid in {row.pid, row.ppid}]
    assert len(family) == 3
    wrong = (
        replace(identity, boot_id="00000000-0000-0000-0000-000000000000"),
        replace(identity, start_ticks=identity.start_ticks - 1),
        replace(identity, start_ticks=identity.start_ticks + 1),
        replace(identity, pid=2**22 + 5),
        replace(identity, pid=0),
    )
    for processes in (wrong, *((one,) for one in wrong)):
        assert await reaper.reap(LaunchRecord("no such token", kind_name, "", 0.0, processes)) == []
    for pid in family:
        row = host.process_row(pid)
        assert row is not None
        assert row.state not in "ZX"


# --- what an earlier daemon left --------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["intent", "identity", "stopped"])
async def test_the_reaper_ends_all_of_a_launch(kind: Sandbox, start: Starter, moment: str) -> None:
    async with start(kind) as started:
        launch = await started.identify() if moment != "intent" else started.launch
        await (started.go_on() if moment != "intent" else started.go())
        relatives = started.relatives()
        if moment == "stopped":
            stop(relatives)
        async with asyncio.timeout(10):
            killed = await reaper.reap(launch)
        assert killed
        assert set(killed) <= relatives
        assert not started.relatives()
        assert started.lock_is_free()
        assert await reaper.reap(launch) == []


async def test_the_reaper_ends_a_launch_that_died_before_it_was_released(
    kind: Sandbox, start: Starter
) -> None:
    """The daemon was killed right after the spawn, and its end of the pipes is closed."""
    async with start(kind) as started:
        await reaper.reap(started.launch)
        assert not started.relatives()


async def test_the_reaper_ends_strays_of_a_plain_browser_that_is_gone(start: Starter) -> None:
    async with start(Plain(unprivileged_user(""))) as started:
        launch = await started.identify()
        await started.go_on()
        os.kill(launch.processes[0].pid, signal.SIGKILL)
        await started.run.exited()
        assert started.relatives()
        await reaper.reap(launch)
        assert not started.relatives()


# --- which sandbox ----------------------------------------------------------------------------------------------


@pytest.fixture
def fake_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def making(script: str) -> Path:
        program = tmp_path / "bwrap"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(Bubblewrap, "find", staticmethod(lambda: program))
        return program

    return making


async def test_what_works_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    user = unprivileged_user("")
    kind, problem = await choose.choose("plain", user)
    assert (kind.kind, problem, kind.problem) == ("plain", None, "")
    if BWRAP is not None and await choose.bubblewrap_problem(BWRAP, user) is None:
        for wanted in ("auto", "bubblewrap"):
            kind, problem = await choose.choose(wanted, user)
            assert (kind.kind, problem, kind.problem) == ("bubblewrap", None, "")
    monkeypatch.setattr(Bubblewrap, "find", staticmethod(lambda: None))
    kind, problem = await choose.choose("auto", user)
    assert (kind.kind, problem, kind.problem) == ("plain", *["bubblewrap is not installed."] * 2)
    with pytest.raises(SandboxFailed, match=r"sandbox.kind is bubblewrap, but: bubblewrap is not installed"):
        await choose.choose("bubblewrap", user)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo bwrap: No permissions to create new namespace >&2; exit 1", "No permissions to create new"),
        ("echo nonsense >&6; exit 0", "could not make the namespaces"),
        ("exit 3", "could not make the namespaces"),
        ("echo '{\"child-pid\": 1}' >&6; exit 0", "ended while it made the namespaces"),
        ("echo '{\"child-pid\": 4194399}' >&6; exit 0", "ended while it made the namespaces"),
    ],
)
async def test_a_bubblewrap_that_does_not_work_is_not_chosen(
    fake_bwrap: Callable[[str], Path], script: str, problem: str
) -> None:
    fake_bwrap(script)
    async with asyncio.timeout(10):
        kind, said = await choose.choose("auto", unprivileged_user(""))
        assert kind.kind == "plain"
        assert said is not None
        assert problem in said
        with pytest.raises(SandboxFailed, match=r"sandbox.kind is bubblewrap, but: "):
            await choose.choose("bubblewrap", unprivileged_user(""))


async def test_a_bubblewrap_that_hangs_is_not_chosen(
    fake_bwrap: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_bwrap("exec sleep 3612")
    monkeypatch.setattr(choose, "_TRIAL_S", 0.1)
    async with asyncio.timeout(1):
        kind, problem = await choose.choose("auto", unprivileged_user(""))
    assert kind.kind == "plain"
    assert problem is not None
    assert "took longer than 0.1 s" in problem


def test_browsers_are_never_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = unprivileged_user("nobody")
    assert found is not None
    assert found.uid != 0
    for name, said in (("root", "root is root"), ("nobody-of-this-name", "there is no user")):
        with pytest.raises(Exception, match=said):
            unprivileged_user(name)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged_user("") is None


def test_browsers_have_a_user_that_nobody_else_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Processes of one user may read each other's memory through /proc."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", nobody_of_this_name)
    first, second = unprivileged_user("", tmp_path / "a"), unprivileged_user("", tmp_path / "b")
    assert first is not None
    assert second is not None
    assert first == unprivileged_user("", tmp_path / "a"), "and keeps it"
    assert first.uid != second.uid
    known = {one.pw_uid for one in pwd.getpwall()}
    for user in (first, second):
        assert 60706 <= user.uid <= 61183
        assert user.gid == user.uid
        assert user.uid not in known


def nobody_of_this_name(name: str) -> NoReturn:
    raise KeyError(name)


def test_dropping_privileges_is_for_good() -> None:
    prefix = " ".join(drop_privileges(User("x", 1, 2)))
    for option in ("--reuid=1", "--regid=2", "--clear-groups", "--no-new-privs", "--bounding-set=-all"):
        assert option in prefix


# --- held still -----------------------------------------------------------------------------------------------

BREEDING = "echo ready; while :; do /usr/bin/sleep 0.01 & done"


def state_of(pid: int) -> str:
    row = host.process_row(pid)
    return row.state if row is not None else "X"


@pytest.mark.parametrize("script", [FAMILY, BREEDING])
async def test_everything_inside_stands_still_and_then_goes_on(
    kind: Sandbox, start: Starter, script: str
) -> None:
    async with start(kind, script) as started:
        await started.go()

        def hold() -> set[int]:
            with freeze.frozen(started.run.members, 10.0):
                held = {one.pid for one in started.run.members()}
                assert held
                assert {state_of(pid) for pid in held} == {"T"}
                assert {one.pid for one in started.run.members()} == held, "nobody is born meanwhile"
            return held

        held = await asyncio.to_thread(hold)
        async with asyncio.timeout(5):
            while any(state_of(pid) == "T" for pid in held):
                await asyncio.sleep(0.005)


async def test_one_that_was_stopped_before_stays_so(kind: Sandbox, start: Starter) -> None:
    async with start(kind) as started:
        await started.go()
        (first, *others) = [one.pid for one in await asyncio.to_thread(started.run.members)]
        os.kill(first, signal.SIGSTOP)
        async with asyncio.timeout(5):
            while state_of(first) != "T":
                await asyncio.sleep(0.005)

        def hold() -> None:
            with freeze.frozen(started.run.members, 10.0):
                assert {state_of(pid) for pid in others} <= {"T"}

        await asyncio.to_thread(hold)
        assert state_of(first) == "T"


async def test_what_does_not_stand_still_in_time_is_said_and_goes_on(
    bubblewrap: Sandbox, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(bubblewrap) as started:
        await started.go()
        monkeypatch.setattr(host, "all_threads_stopped", lambda _: False)

        def hold() -> None:
            with freeze.frozen(started.run.members, 0.05):
                raise AssertionError

        with pytest.raises(SnapshotFailed, match=r"could not be held still within 0.05 s"):
            await asyncio.to_thread(hold)
        monkeypatch.undo()
        async with asyncio.timeout(5):
            while "T" in {state_of(one.pid) for one in await asyncio.to_thread(started.run.members)}:
                await asyncio.sleep(0.005)


async def test_an_error_meanwhile_lets_everything_go_on(kind: Sandbox, start: Starter) -> None:
    async with start(kind) as started:
        await started.go()

        def hold() -> None:
            with pytest.raises(ZeroDivisionError), freeze.frozen(started.run.members, 10.0):
                _ = 1 // 0

        await asyncio.to_thread(hold)
        async with asyncio.timeout(5):
            while "T" in {state_of(one.pid) for one in await asyncio.to_thread(started.run.members)}:
                await asyncio.sleep(0.005)
