"""The composition root: what is started in which order, and stopped in the reverse."""

import asyncio
import os
import pwd
import resource
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from waguard import __version__
from waguard.access import configured
from waguard.access.access import Access
from waguard.access.made import MadeTokens
from waguard.access.peers import Peers
from waguard.admission.gate import Gate
from waguard.admission.room import Room
from waguard.admission.turns import Turns
from waguard.api import app, listen
from waguard.api import webhooks as messages
from waguard.api.port import Port, most
from waguard.audit.audit import Audit
from waguard.browser import authorities, find
from waguard.config.load import Loaded
from waguard.config.put import Settings
from waguard.config.sections import Config
from waguard.core.health.breaker import BreakerPolicy
from waguard.core.relay.budget import Budget
from waguard.core.session.restart import RestartPolicy
from waguard.errors import AlreadyRunning, ConfigError, WaguardError
from waguard.health.probes.census import Census
from waguard.health.probes.falls import Falls
from waguard.health.probes.pulse import Pulse
from waguard.history.history import History
from waguard.history.learned import Learned
from waguard.observe import logs
from waguard.observe.bus import Bus
from waguard.observe.hangs import Hangs
from waguard.observe.status import StatusLine
from waguard.profile.store import Profiles
from waguard.sandbox import User, choose, unprivileged_user
from waguard.sandbox.cgroup import Ceiling, Cgroups
from waguard.sandbox.etc import Etc
from waguard.sandbox.fence import Fence
from waguard.session.registry import FileRecords, Registry
from waguard.session.resources import Resources, Services, SharedProbes
from waguard.session.sessions import Sessions
from waguard.session.tenure import Ownership
from waguard.snapshots import keys
from waguard.snapshots.store import Snapshots
from waguard.supervisor.supervisor import Supervisor
from waguard.system import core_dump, heap, signals, threads
from waguard.system.files import as_storage_error
from waguard.system.systemd import CONTROL, Manager
from waguard.system.tasks import background
from waguard.system.threads import Kind, in_thread
from waguard.upkeep.keeper import Keeper
from waguard.upkeep.sweep.sweeper import Sweeper
from waguard.webhooks.webhooks import Webhooks
from waguard.whatsapp import page as whatsapp

if TYPE_CHECKING:
    from waguard.access.jwts import Jwts

_VERSION_S = 10.0
"""Deadline for the browser to tell its version, in seconds."""


_TRIAL_S = 30.0
"""Deadline for whoever is to take our place to say that it can, in seconds."""
_PORT = "WAGUARD_CONTROL_PORT"
"""In the environment of a trial: the control port that the daemon has now."""
_TURNS = 4
"""Turns of the loop until a signal that has arrived is heard: it goes through the loop's own socket."""


_UMASK = 0o022
"""What others may not do with files of ours that say no more of it."""


async def serve(loaded: Loaded) -> Mapping[str, int] | None:
    """Run until a signal ends it. Raises `WaguardError` when it cannot start.

    - SIGTERM, SIGINT: close every browser.
    - SIGUSR2: leave the browsers to the daemon that the service manager starts next; where none keeps their pipes, as SIGTERM.
    - SIGHUP: leave them to the same command line anew, in this process, if it says that it can start. Returns what is to be
      handed over to it.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (most, most)
    )  # several for each browser; 1024 is for those who select()
    os.umask(os.umask(_UMASK) | _UMASK)
    heard: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in signals.ENDING:
        loop.add_signal_handler(number, heard.put_nowait, number)
    heap.share()
    core_dump.leave_out_memory()
    threads.of_this_loop().start()
    loop.set_default_executor(
        ThreadPoolExecutor(1, initializer=signals.block_stop_signals)
    )  # which looks up names
    if sys.version_info < (3, 12):  # before that a thread waits for each child, which there may be none for
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(loop)
        asyncio.set_child_watcher(watcher)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ENDING)  # whoever was here before us has blocked them
    bus = Bus()
    manager = Manager(publish=bus.publish)
    with logs.opened(loaded.config.log) as log:
        bus.subscribe(log)
        async with running(loaded.config, bus, manager) as (supervisor, url):
            manager.tell("READY=1")
            number = await _until_told(heard, bus, urlsplit(url).port)
            manager.in_place = number is signal.SIGHUP
            if leaving := manager.in_place or (number is signal.SIGUSR2 and manager.keeps_fds):
                supervisor.leave()
            if manager.in_place:
                manager.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            else:
                manager.tell("STOPPING=1", f"STATUS={'leaving' if leaving else 'closing'} the browsers")
            bus.publish("daemon.stopping", browsers="left" if leaving else "closed")
        bus.publish("daemon.stopped")
    signals.block_stop_signals()
    if not manager.in_place:
        return None
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    for number in (heard.get_nowait() for _ in range(heard.qsize())):
        if number is not signal.SIGHUP:  # that much is done
            signal.raise_signal(number)  # for whoever comes, who has the browsers; until then it waits
    manager.tell("WATCHDOG=1")  # the next one begins to beat when it is loaded
    return manager.inherited_fds()


async def _until_told(heard: asyncio.Queue[signal.Signals], bus: Bus, port: int | None) -> signal.Signals:
    """Wait for a signal that ends this daemon."""
    while (number := await heard.get()) is signal.SIGHUP:
        if why := await _trial(port):
            bus.publish(
                "daemon.reload_failed",
                error=why,
                hint="Nothing was changed: it goes on as it was.",
            )
        elif heard.empty():  # else that holds which was asked for since
            break
    return number


async def _trial(port: int | None) -> str:
    """Whether the same command line, run anew, would start; empty if so, else why not."""
    command, environment = [*again(), "--check"], os.environ | {_PORT: str(port)}
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
        )
    except OSError as error:
        return f"{command[0]} cannot be started: {error.strerror}."
    try:
        async with asyncio.timeout(_TRIAL_S):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"{' '.join(command)} did not end within {_TRIAL_S:g} s."
    return "" if process.returncode == 0 else said.decode("utf-8", "replace").strip() or "It said nothing."


def again() -> list[str]:
    """The command line of this process."""
    return [sys.executable, *sys.orig_argv[1:]]


def check(loaded: Loaded) -> None:
    """Whether a daemon could start with it, as far as can be told without changing anything. Raises `WaguardError`."""
    config, root = loaded.config, loaded.config.sessions.dir.absolute()
    user = unprivileged_user(config.browser.user, root)
    _look_at(root)
    configured.load(config, make=False)
    _jwts(config)
    _peers(config, user)
    place = keys.place(config.snapshots.key_file, root)
    if place.parent != root or place.exists():  # else it is made at the start
        keys.load(place, make=False)
    _probe(config.whatsapp.probe)
    authorities.read(config.browser.ca_file)
    asyncio.run(_try(config, user))


async def _try(config: Config, user: User | None) -> None:
    """What of a start can only be seen by doing it. Raises `WaguardError`."""
    await find.Installed(config.browser.path, _VERSION_S).check()
    if config.sandbox.kind == "bubblewrap":  # else there is always another one
        fence = _fence(config)
        try:
            await choose.choose(config.sandbox.kind, user, fence)
        finally:
            fence.close()
    try:
        (await listen.opened(config, asyncio.Protocol, listen=False)).close()
    except AlreadyRunning:
        wanted = str(config.api.port)
        if os.environ.get(_PORT, wanted) != wanted:  # else the one that has it makes room
            raise


@asynccontextmanager
async def running(
    config: Config, bus: Bus, manager: Manager | None = None
) -> AsyncIterator[tuple[Supervisor, str]]:
    """A daemon, with the address of its control port; leaving it closes every browser and proves it gone."""
    manager = manager or Manager({})
    async with AsyncExitStack() as stack:
        # First, since the watchdog does not stop while a daemon is executed anew.
        pulse = Pulse(bus.publish, beat=manager.alive)
        stack.push_async_callback(_end, background(pulse.run, "pulse", bus.publish, again=True))
        root, runtime = config.sessions.dir.absolute(), config.profile.runtime_dir
        user = unprivileged_user(config.browser.user, root)
        profiles = Profiles(root, user, runtime.absolute() if runtime is not None else None)
        await in_thread(_look_at, root)
        await in_thread(profiles.make_room)
        ownership = await in_thread(Ownership.take, config.sessions.dir)
        stack.callback(ownership.give_up)
        closed: list[str] = []
        snapshots = await in_thread(_snapshots, root, config, closed.append)
        tokens = await in_thread(partial(configured.load, config, closed=closed.append))
        jwts = await in_thread(_jwts, config)
        peers = await in_thread(_peers, config, user)
        for one in closed:  # a mount may do so, with an fsGroup of Kubernetes at each start of a pod
            hint = "If somebody else is in that group, or on this machine: make new ones."
            bus.publish("secrets.closed", error=one, hint=hint)
        probe = await in_thread(_probe, config.whatsapp.probe)
        trusted = await in_thread(authorities.read, config.browser.ca_file)
        installed, unfit = find.Installed(config.browser.path, _VERSION_S, partial(_tell_changed, bus)), None
        try:
            await installed.refresh()
        except WaguardError as error:
            if not set(manager.handed()) - {CONTROL}:
                raise
            unfit = error  # browsers that are up outlive it
        fence = await in_thread(_fence, config)
        stack.callback(fence.close)
        etc = Etc(root / ".etc")
        with as_storage_error(f"make {etc.path}"):
            await in_thread(etc.make)
        await etc.look(bus)
        stack.push_async_callback(_end, background(partial(etc.keep, bus), "etc", bus.publish, again=True))
        kind, problem = await choose.choose(config.sandbox.kind, user, fence, etc.path)
        if gap := fence.gap if kind.fenced else "This bubblewrap does not work inside a fence: it is setuid.":
            hint = "Browsers reach the control port, where they need a token, and may listen. See: waguard doctor"
            bus.publish("sandbox.no_fence", problem=gap, hint=hint)
        if problem is not None:
            bus.publish("sandbox.plain", problem=problem, hint="Run: waguard doctor")
        if not config.browser.chromium_sandbox:
            bus.publish("sandbox.chromium_off", problem="browser.chromium_sandbox is false")
        settings = Settings(config, bus.publish)
        await settings.start()
        resources = Resources(
            config,
            installed,
            kind,
            profiles,
            ownership,
            FileRecords(Registry(profiles)),
            snapshots,
            bus,
            manager,
            trusted,
            settings,
            Budget(config.relay.memory_mb * 1024 * 1024),
            await _cgroups(config, bus),
        )
        history, learned = History(root, config.history.keep_days, bus), Learned(config)
        stack.push_async_callback(history.close)  # after all sessions, so that it has their ends
        await history.start(learned)
        bus.subscribe(history.heard)
        bus.subscribe(learned.heard)
        falls = Falls()
        stack.push_async_callback(_end, background(falls.run, "falls", bus.publish, again=True))
        sessions = Sessions(bus.publish)
        keeper = Keeper(resources, sessions)
        sweeper = Sweeper(resources, sessions, keeper.save)
        room = Room(config, resources.cgroups, sweeper.make_room)
        gate = Gate(BreakerPolicy(), bus.publish, installed, room)
        audit = Audit(root, bus, gate.alerts.set)
        stack.push_async_callback(audit.close)  # after all sessions, likewise
        await audit.start()
        bus.subscribe(audit.heard)
        webhooks = Webhooks(root, config.webhooks, history.feed, bus, gate.alerts.set, messages.body)
        stack.push_async_callback(webhooks.close)  # likewise
        webhooks.start()
        threads.of_this_loop().heard = Hangs(bus.publish, gate.alerts).heard
        services = Services(
            resources,
            turns=Turns(config.limits.concurrent_starts),
            probes=SharedProbes(pulse, Census(), falls, probe),
            gate=gate,
            policy=RestartPolicy(
                budget=config.restart.budget,
                window_s=config.restart.window_s,
                base_s=config.restart.base_s,
                max_s=config.restart.max_s,
                cooldown_s=config.restart.cooldown_s,
                relapse_s=config.health.relapse_s,
            ),
            history=history,
            learned=learned,
        )
        if unfit is not None:
            services.gate.blame_browser(unfit)
        supervisor = Supervisor(services, sessions, keeper, sweeper)
        status = StatusLine(
            lambda line: manager.tell(f"STATUS={line}", again=False), supervisor.statuses, supervisor.alerts
        )
        stack.callback(status.close)
        bus.subscribe(status.heard)
        stack.push_async_callback(supervisor.close)
        connections = Port(most(), bus.publish, config.api.request_s)
        made = MadeTokens(root, bus.publish, gate.alerts.set, labels_of=settings.labels_of)
        await made.start()
        stack.push_async_callback(made.close)
        access = Access(tokens, made, jwts, peers, bus.publish, gate.alerts.set)
        for work in (access.keep, access.watch):
            stack.push_async_callback(_end, background(work, "access", bus.publish, again=True))
        application = app.make(supervisor, access, config.api, bus, connections, audit, webhooks)
        await _serve(stack, application, connections)
        handed = await listen.handed(manager, config, bus)
        if handed is not None:  # whoever asks meanwhile waits in the socket, and is not refused
            await supervisor.start()
        port = await listen.at(connections, config, handed)
        url = listen.url_of(port)
        if len(port.sockets) == 1:
            manager.keep({CONTROL: port.sockets[0].fileno()})
        # At the end, in the reverse order: the socket goes to the next daemon, if there is to be one in place; nobody is taken in any
        # more; whoever waits gets an answer.
        stack.callback(supervisor.refuse)
        stack.callback(history.feed.close)
        stack.callback(port.close)
        stack.callback(listen.pass_on, port, manager)
        await stack.enter_async_context(listen.at_socket(config.api, connections))
        if handed is None:
            await supervisor.start()
        bus.publish(
            "daemon.ready",
            url=url,
            version=__version__,
            browser=str(installed.current.path),
            browser_version=installed.current.version,
            sandbox=kind.kind,
            user=user.name if user else None,
            sessions=str(config.sessions.dir.absolute()),
        )
        yield supervisor, url


def _tell_changed(bus: Bus, before: find.Binary, now: find.Binary) -> None:
    bus.publish(
        "browser.changed",
        path=str(now.path),
        version=now.version,
        path_before=str(before.path),
        version_before=before.version,
    )


def _fence(config: Config) -> Fence:
    """Around all browsers."""
    ports, url = config.sandbox.connect_ports, urlsplit(config.whatsapp.url)
    return Fence.make({*ports, url.port or (443 if url.scheme == "https" else 80)} if ports else ())


async def _cgroups(config: Config, bus: Bus) -> Cgroups | None:
    """The subtree that was delegated to us, if one was."""
    settings = config.cgroup
    if not settings.enabled:
        return None
    found = await in_thread(
        Cgroups.find, Ceiling(settings.memory_max_mb, settings.pids_max), kind=Kind.MACHINE
    )
    if isinstance(found, str):
        bus.publish("cgroup.none", why=found)
        return None
    bus.publish(
        "cgroup.found",
        path=str(found.root),
        limits=sorted(found.controllers),
        why_no_limits=found.why_no_limits or None,
    )
    return found


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


async def _serve(stack: AsyncExitStack, application: web.Application, connections: Port) -> None:
    # Handlers that wait for a browser are told by the supervisor, so the port itself has little to wait for.
    # A caller that hangs up ends its handler; what it asked for goes on in the session.
    runner = web.AppRunner(
        application,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=1.0,
        **connections.settings,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    assert runner.server is not None  # noqa: S101 (set up)
    connections.serves(runner.server)


def _look_at(root: Path) -> None:
    """Whether the sessions directory is this user's to write, or to make. Blocking. Raises `ConfigError`."""
    there = next(one for one in (root, *root.parents) if os.access(one, os.F_OK))
    if there == root and os.geteuid() == 0 and (owner := root.stat().st_uid) != 0:
        name = next((one.pw_name for one in pwd.getpwall() if one.pw_uid == owner), str(owner))
        raise ConfigError(
            f"sessions.dir: {root} belongs to {name}, who could not use what root would make there.",
            hint=f"Run: systemctl start waguard. Or as that user: runuser -u {name} -- waguard run",
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"sessions.dir: Cannot use {root}: this user may make nothing in {there}.",
            hint=f"Give it that directory, or set sessions.dir. Under the unit it also takes: systemctl edit waguard, [Service] ReadWritePaths={root}",
        )


def _snapshots(root: Path, config: Config, closed: Callable[[str], None]) -> Snapshots:
    place, without = keys.place(config.snapshots.key_file, root), config.snapshots.without_old_keys
    # None of the same name is made in the place of one that is needed.
    needed = partial(_sealed_below, root) if not without else lambda: False
    ring = keys.load(place, make=place.parent == root, closed=closed, needed=needed)
    snapshots = Snapshots(root, ring, without_old_keys=without)
    snapshots.make_room()
    return snapshots


def _jwts(config: Config) -> "Jwts | None":
    """Blocking. Raises `ConfigError`, `StorageFailed`."""
    if config.jwt.key_file is None:
        return None
    from waguard.access.jwts import Jwts  # noqa: PLC0415 (a tenth of a second that only who uses it pays)

    return Jwts.load(config.jwt)


def _peers(config: Config, user: User | None) -> Peers:
    """Blocking. Raises `ConfigError`."""
    api, browsers = config.api, user.uid if user is not None else os.geteuid()
    if api.socket is None:
        return Peers((), (), frozenset(), browsers)
    return Peers.of(api.socket_uids, api.socket_gids, api.socket_scopes, browsers=browsers)


def _sealed_below(root: Path) -> bool:
    """Whether there is anything that a key is needed for."""
    return any(next(root.glob(form), None) for form in (".backups/*/*.wgb", ".profiles/*.wgb"))


def _probe(path: Path | None) -> str:
    if path is None:
        return whatsapp.PROBE
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"whatsapp.probe: {path} cannot be read: {error}.") from None
