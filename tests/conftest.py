"""What every test gets: nothing may leak, nothing may block the loop; and the ways to start a daemon."""

import asyncio
import compileall
import contextlib
import gc
import io
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import zxingcpp
from bare_browser import BINARY
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings
from PIL import Image
from written import Written, has_tables, write

import waguard
from waguard import daemon
from waguard.config.sections import Config
from waguard.observe.bus import Bus, Event
from waguard.sandbox.plain import become_subreaper
from waguard.supervisor.supervisor import Supervisor
from waguard.system import host, threads

POSING = Path(__file__).parent / "posing_chromium.py"
DYING_S = 5.0
"""What was killed is in the process table until the kernel has taken it apart, which takes a while on a busy machine."""
# That a busy machine takes long for an example, or draws slowly, says nothing of a rule.
settings.register_profile("waguard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# For hours: pytest --hypothesis-profile=long tests/test_relay_model.py
settings.register_profile("long", max_examples=20_000, deadline=None, suppress_health_check=[*HealthCheck])
settings.load_profile("waguard")
LONGEST = [
    "docs_run",
    "relay_ends",
    "relay_drivers",
    "relay_wwebjs",
    "service",
    "hanging_disk",
    "neighbourhood",
    "turns",
    "bench",
    "beside_service",
    "adoption",
    "custody",
    "logins",
    "install",
    "browser",
    "disk",
    "sweep",
    "hostile_page",
    "check",
    "cures",
    "states",
    "daemon",
    "binaries",
    "cli_programs",
    "transfer",
    "snapshots",
    "authorities",
    "hang",
    "wwebjs",
    "guests",
    "examples",
    "simulator",
    "api",
    "sandbox",
]
"""Files of tests, the one that takes longest first: while the last test of one worker runs, the others have nothing to do."""
QR_ONLY = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)


def pytest_configure() -> None:
    # Many tests start the daemon as a program. Where PYTHONDONTWRITEBYTECODE is set each of them would compile it anew, for a third of
    # what a start takes.
    compileall.compile_dir(Path(waguard.__file__).parent, quiet=2)
    become_subreaper()  # orphans of daemons that a test kills come to this process, and not to PID 1
    # A shell has it ignored for what it runs in the background, and programs under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test logs or shows may have lone surrogates in it, on which a worker that reports it to xdist would end."""
    return _without_surrogates((yield))


def _without_surrogates(data: Any) -> Any:
    match data:
        case str():
            return data.encode(errors="backslashreplace").decode()
        case dict():
            return {_without_surrogates(key): _without_surrogates(value) for key, value in data.items()}
        case list():
            return [_without_surrogates(one) for one in data]
        case tuple():  # that of a skipped test has to stay one
            return tuple(map(_without_surrogates, data))
        case _:
            return data


def pytest_collection_finish() -> None:
    # What is there before the first test is no test's: `nothing_leaks` need not search it after each (0.15 s of 260 000
    # objects), only what has come since.
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    for item in items:
        function = getattr(item, "function", None)
        if asyncio.iscoroutinefunction(function) and isinstance(item, pytest.Function):
            # Its loop is gone when what has leaked is looked for; what several tests share is there before, and leaks nothing.
            made = item._fixtureinfo.name2fixturedefs
            own = [
                name for name in item.fixturenames if name not in made or made[name][-1].scope == "function"
            ]
            shared = [name for name in item.fixturenames if name not in own]
            item.fixturenames[:] = [*shared, "nothing_leaks", "loop_guard", *own]


UNREAD: list[str] = []
"""What this test's loop would only have logged."""


def _note_unread(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if "never retrieved" in context["message"]:
        UNREAD.append(f"{context['message']}: {context.get('exception')!r} of {context.get('future')}")
    else:
        loop.default_exception_handler(context)


@pytest.fixture
async def loop_guard() -> AsyncIterator[None]:
    """Tasks that outlive the test, or calls that block its loop, fail it; so do errors in tasks that nobody asks for."""
    asyncio.get_running_loop().set_exception_handler(_note_unread)
    before = asyncio.all_tasks()
    with blockbuster_ctx(scanned_modules=["waguard"]) as guard:
        # procfs is memory: a look at it takes microseconds, and identities must be taken at once.
        for function in guard.functions.values():
            function.can_block_in(
                "waguard/system/host.py",
                {
                    "boot_id",
                    "process_row",
                    "process_table",
                    "_has_children",
                    "_children",
                    "environment_has",
                    "effort",
                    "_waited_ns",
                    "crashing",
                },
            )
            function.can_block_in("waguard/system/fds.py", {"inheritable"})  # likewise
            function.can_block_in("waguard/system/shortage.py", {"_of_the_cgroup"})  # likewise
            function.can_block_in("waguard/sandbox/spawn.py", {"reap"})  # only what has ended
            # A thread that lives for one spawn.
            function.can_block_in("waguard/sandbox/fence.py", {"started"})
            function.can_block_in("waguard/browser/launch.py", {"_drain"})  # non-blocking fd
            function.can_block_in("waguard/sandbox/bubblewrap.py", {"_read_object"})  # non-blocking fd
            function.can_block_in(
                "waguard/observe/logs.py", {"write"}
            )  # the log is a terminal, a journal or a pipe
        yield
    threads.of_this_loop().end()  # else they keep it, and all that they could tell, until the last test
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left: {left}"


def _fds() -> dict[str, str]:
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found[fd.name] = str(fd.readlink())
        except OSError:
            continue
    return found


def _ours() -> set[int]:
    """Every living descendant of this process, wherever it went: see `pytest_configure`."""
    found: set[int] = set()
    more = _children(os.getpid())
    while more:
        found |= more
        more = set().union(*map(_children, more)) - found
    return {pid for pid in found if (row := host.process_row(pid)) is not None and row.state not in "ZX"}


def _children(pid: int) -> set[int]:
    """A look at the whole process table after each test would take as long as most tests do."""
    found: set[int] = set()
    with contextlib.suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found.update(map(int, (task / "children").read_text().split()))
    return found


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Processes and fds that outlive the test fail it."""
    # The search for garbage afterwards is for this test's own alone: what is left of the one before, now that it has let go of its
    # fixtures, is none.
    gc.collect()
    gc.freeze()
    fds, processes = _fds(), _ours()
    UNREAD.clear()
    yield
    gc.collect()
    assert not UNREAD
    deadline = time.monotonic() + DYING_S
    while (left := _ours() - processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"processes left: {[Path(f'/proc/{pid}/cmdline').read_bytes() for pid in left]}"
    while (grown := _fds().keys() - fds.keys()) and time.monotonic() < deadline:
        time.sleep(0.02)  # of a thread that ends, because what it reads from has
    assert not grown, f"fds left: {[(fd, what) for fd, what in _fds().items() if fd in grown]}"


@pytest.fixture
def sessions_dir(tmp_path: Path) -> Path:
    """A sessions directory that an unprivileged browser could reach."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o001)
    return tmp_path / "sessions"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """One of a megabyte, to be filled."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    mounted = subprocess.run(["mount", *options], check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a tmpfs here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A directory where a sync costs nothing: a process that dies leaves there what it leaves on a disk, and hundreds die."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="waguard-test-", dir=memory) as name:
        Path(name).chmod(0o711)
        yield Path(name)


def decoded(png: bytes) -> str:
    """The text of the one QR code in a picture, by a decoder that has nothing to do with whoever drew it."""
    with Image.open(io.BytesIO(png)) as picture:
        (text,) = {code.text for code in zxingcpp.read_barcodes(picture, QR_ONLY)}
    return str(text)


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """The log is set up for the whole process; a test that does so leaves it as it was."""
    handlers = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers[:] = handlers
    structlog.reset_defaults()


class Journal:
    """Every event of a daemon, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.bus = Bus()
        self.bus.subscribe(self.events.append)

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]


def deleted(journal: Journal) -> list[str]:
    """Retired profiles that a sweep has deleted."""
    found = [event.fields for event in journal.named("sweep.finding")]
    return [one["subject"] for one in found if one["outcome"] == "done" and "delete" in one["action"]]


Daemon = Callable[..., AbstractAsyncContextManager[tuple[Supervisor, str]]]


@pytest.fixture
def journal() -> Iterator[Journal]:
    """Collects events, for the report of a failure too; a bug that a session caught and reported fails the test."""
    journal = Journal()
    yield journal
    for event in journal.events:
        print(event.client or "-", event.name, dict(event.fields))  # noqa: T201
    assert not journal.named("internal.error"), journal.named("internal.error")


@pytest.fixture
def start(sessions_dir: Path, journal: Journal) -> Daemon:
    """A daemon in this process, with these sections of the configuration, for ``async with``.

    Its browsers write localStorage sooner, and it looks more often, unless the test says otherwise.
    """

    @asynccontextmanager
    async def starting(**sections: dict[str, Any]) -> AsyncIterator[tuple[Supervisor, str]]:
        config = Config.model_validate(
            {
                "limits": {
                    "reserve_memory_mb": 0,
                    "session_memory_mb": 0,
                    "reserve_disk_mb": 0,
                    "memory_pressure": 0,
                },
                "restart": {"base_s": 0.01, "max_s": 0.05, "cooldown_s": 30.0},
                "page": {"poll_s": 0.1},
                **sections,
                "sessions": {"dir": sessions_dir, **sections.get("sessions", {})},
                "api": {"port": 0, **sections.get("api", {})},
            }
        )
        async with daemon.running(config, journal.bus) as running:
            yield running

    return starting


@pytest.fixture
def pose(start: Daemon) -> Daemon:
    """A daemon whose browsers only pose, each in the way that is named, for ``async with``."""

    def posing(
        pose: str = "ok", **sections: dict[str, Any]
    ) -> AbstractAsyncContextManager[tuple[Supervisor, str]]:
        browser = {"path": POSING, "extra_flags": [f"--posing={pose}"]}
        return start(**{**sections, "browser": browser})

    return posing


def _written(*, large: bool) -> Iterator[Written]:
    if BINARY is None:
        pytest.skip("no Chromium is installed")
    written = asyncio.run(write(large=large))
    yield written
    shutil.rmtree(written.profile)


@pytest.fixture(scope="session")
def small() -> Iterator[Written]:
    """A login that is all in the logs of its databases."""
    yield from _written(large=False)


@pytest.fixture(scope="session")
def large() -> Iterator[Written]:
    """A login with tables beside the logs."""
    for written in _written(large=True):
        assert has_tables(written.profile)
        yield written
