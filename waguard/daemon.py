"""The composition root: what is started in which order, and stopped in the reverse."""

import asyncio
import fcntl
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web

from waguard import __version__
from waguard.api import app, auth
from waguard.backup import keys
from waguard.backup.store import Backups
from waguard.browser import find
from waguard.config import Config, Loaded
from waguard.core import recycle
from waguard.core.breaker import BreakerPolicy
from waguard.core.policy import RestartPolicy
from waguard.errors import AlreadyRunning, ConfigError
from waguard.events import Bus
from waguard.files import in_thread, saying
from waguard.gate import Gate
from waguard.history import History
from waguard.instance import Resources
from waguard.learned import Learned
from waguard.observe import logs
from waguard.observe.patient import Patient
from waguard.observe.status import StatusLine
from waguard.probes.census import Census
from waguard.probes.pulse import Pulse
from waguard.profile.store import Profiles
from waguard.registry import Registry
from waguard.sandbox import choose, unprivileged_user
from waguard.session import Services
from waguard.supervisor import Supervisor
from waguard.systemd import CONTROL, Manager
from waguard.watch import Senses
from waguard.whatsapp import page as whatsapp

_VERSION_S = 10.0
"""Deadline for the browser to tell its version, in seconds."""


async def serve(loaded: Loaded) -> None:
    """Run until SIGTERM or SIGINT, then close every browser. Raises `WaguardError` when it cannot start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (most, most)
    )  # several for each browser; 1024 is for those who select()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bus, manager = Bus(), Manager()
    with Patient(sys.stderr) as stream:
        bus.subscribe(logs.configure(loaded.config.log, stream))
        async with running(loaded.config, bus, manager):
            manager.tell("READY=1")
            await stop.wait()
            manager.tell("STOPPING=1", "STATUS=closing the browsers")
            bus.publish("daemon.stopping")
        bus.publish("daemon.stopped")


@asynccontextmanager
async def running(
    config: Config, bus: Bus, manager: Manager | None = None
) -> AsyncIterator[tuple[Supervisor, str]]:
    """A daemon, with the address of its control port; leaving it closes every browser and proves it gone."""
    manager = manager or Manager({})
    async with AsyncExitStack() as stack:
        user = unprivileged_user(config.browser.user)
        root, runtime = config.sessions.dir.absolute(), config.profile.runtime_dir
        profiles = Profiles(root, user, runtime.absolute() if runtime is not None else None)
        await in_thread(profiles.make_room)
        stack.callback(os.close, await in_thread(_own, config.sessions.dir))
        backups = await in_thread(_backups, root, config.backup.key_file)
        tokens = await in_thread(auth.load, config)
        probe = await in_thread(_probe, config.whatsapp.probe)
        binary = await find.probe(await in_thread(find.locate, config.browser.path), _VERSION_S)
        installed = await in_thread(find.Installed, binary, _VERSION_S)
        kind, problem = await choose.choose(config.sandbox.kind, user)
        if problem is not None:
            bus.publish("sandbox.plain", level="warning", problem=problem, hint="Run: waguard doctor")
        if not config.browser.chromium_sandbox:
            bus.publish("sandbox.chromium_off", level="warning", problem="browser.chromium_sandbox is false")
        status = StatusLine(lambda line: manager.tell(f"STATUS={line}"))
        stack.callback(status.close)
        bus.subscribe(status.heard)
        pulse = Pulse(bus.publish, beat=manager.alive)
        stack.push_async_callback(_end, asyncio.create_task(pulse.run(), name="pulse"))
        resources = Resources(config, installed, kind, profiles, Registry(profiles), backups, bus)
        history, learned = History(root, config.history.keep_days, bus), Learned(config)
        stack.push_async_callback(history.close)  # after all sessions, so that it has their ends
        await history.start(learned)
        bus.subscribe(history.heard)
        bus.subscribe(learned.heard)
        services = Services(
            resources,
            starts=asyncio.Semaphore(config.limits.concurrent_starts),
            senses=Senses(pulse, Census(), probe),
            gate=Gate(BreakerPolicy(), bus.publish, installed),
            policy=RestartPolicy(
                budget=config.restart.budget,
                window_s=config.restart.window_s,
                base_s=config.restart.base_s,
                max_s=config.restart.max_s,
                cooldown_s=config.restart.cooldown_s,
                unknown_after=config.page.unknown_after,
                relapse_s=config.health.relapse_s,
            ),
            recycle=recycle.Limits(
                config.recycle.soft_memory_mb, config.recycle.hard_memory_mb, config.recycle.max_age_h
            ),
            history=history,
            learned=learned,
        )
        supervisor = Supervisor(services)
        stack.push_async_callback(supervisor.close)
        runner = await _serve(stack, app.make(supervisor, tokens, config.api, bus))
        if (handed := manager.take(CONTROL)) is None:
            url = await _listen(runner, web.TCPSite(runner, config.api.host, config.api.port), config)
            await supervisor.start()
        else:  # whoever asks meanwhile waits in the socket, and is not refused
            await supervisor.start()
            url = await _listen(runner, web.SockSite(runner, socket.socket(fileno=handed)), config)
        stack.callback(supervisor.refuse)  # first of all at the end, so that whoever waits gets an answer
        bus.publish(
            "daemon.ready",
            url=url,
            version=__version__,
            browser=str(binary.path),
            browser_version=binary.version,
            sandbox=kind.kind,
            user=user.name if user else None,
            sessions=str(config.sessions.dir.absolute()),
        )
        yield supervisor, url


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


async def _serve(stack: AsyncExitStack, application: web.Application) -> web.AppRunner:
    # Handlers that wait for a browser are told by the supervisor, so the port itself has little to wait for.
    # A caller that hangs up ends its handler; what it asked for goes on in the session.
    runner = web.AppRunner(
        application, access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=1.0
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


async def _listen(runner: web.AppRunner, site: web.BaseSite, config: Config) -> str:
    """Open the control port; returns its address. Raises `AlreadyRunning` when it is taken."""
    try:
        await site.start()
    except OSError as error:
        raise AlreadyRunning(
            f"Port {config.api.port} on {config.api.host} cannot be opened: {os.strerror(error.errno or 0)}.",
            hint="Is another waguard running? See: waguard status. Or set api.port.",
        ) from None
    host, port = (str(part) for part in runner.addresses[0][:2])
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _own(root: Path) -> int:
    """Be the only daemon of this sessions directory as long as the fd is open. Raises `AlreadyRunning`."""
    path = root / ".daemon.lock"
    with saying(f"open {path}"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise AlreadyRunning(
            f"Another waguard owns {root}.", hint=f"See which: fuser -v {path}. Or set sessions.dir."
        ) from None
    return fd


def _backups(root: Path, key_file: Path | None) -> Backups:
    place = keys.place(key_file, root)
    backups = Backups(root, keys.load(place, make=place.parent == root))
    backups.make_room()
    return backups


def _probe(path: Path | None) -> str:
    if path is None:
        return whatsapp.PROBE
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"whatsapp.probe: {path} cannot be read: {error}.") from None
