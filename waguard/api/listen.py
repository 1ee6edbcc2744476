"""Where the control port is listened at: opened, taken from who had it before, passed on to who comes; and the unix socket beside it."""

import asyncio
import errno
import os
import secrets
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from waguard.api.port import Port
from waguard.config.sections import Api, Config
from waguard.errors import AlreadyRunning, ConfigError
from waguard.observe.bus import Bus
from waguard.system.files import as_storage_error
from waguard.system.systemd import CONTROL, Manager
from waguard.system.threads import in_thread


async def handed(manager: Manager, config: Config, bus: Bus) -> socket.socket | None:
    """The control port that was handed over, if it is where the configuration wants it."""
    if (fd := manager.take(CONTROL)) is None:
        return None
    handed, api = socket.socket(fileno=fd), config.api
    there = handed.getsockname()[:2]
    found = await asyncio.get_running_loop().getaddrinfo(api.host, api.port or there[1])
    if there in {address[:2] for *_, address in found}:
        return handed
    handed.close()
    manager.drop(CONTROL)
    why = f"The control port that was handed over is at {there}; what the configuration says holds."
    bus.publish("daemon.port_moved", error=why, hint="Is there a waguard.socket of another address?")
    return None


async def at(connections: Port, config: Config, handed: socket.socket | None) -> asyncio.Server:
    """Open the control port, or serve the one that was handed over. Raises `AlreadyRunning` when it is taken."""
    if handed is not None:
        return await asyncio.get_running_loop().create_server(connections, sock=handed)
    return await opened(config, connections)


async def opened(config: Config, protocol: Any, *, listen: bool = True) -> asyncio.Server:
    """Raises `AlreadyRunning`, `ConfigError`."""
    loop, api = asyncio.get_running_loop(), config.api
    try:
        return await loop.create_server(protocol, api.host, api.port, start_serving=listen)
    except OSError as error:
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        said = f"Port {api.port} on {api.host} cannot be opened: {why}."
        if error.errno == errno.EACCES:
            hint = "Set it to 1024 or more: lower ones are root's."
            raise ConfigError(f"api.port: {said}", hint=hint) from None
        hint = "Does another daemon run? See: waguard status. Or set api.port."
        raise AlreadyRunning(said, hint=hint) from None


def url_of(port: asyncio.Server) -> str:
    host, number = port.sockets[0].getsockname()[:2]
    return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"


def pass_on(port: asyncio.Server, manager: Manager) -> None:
    if manager.in_place and len(port.sockets) == 1:
        manager.pass_on({CONTROL: port.sockets[0].fileno()})


@asynccontextmanager
async def at_socket(settings: Api, connections: Port) -> AsyncIterator[None]:
    """Listen at ``api.socket`` too, if that is set. Raises `AlreadyRunning`, `StorageFailed`."""
    if settings.socket is None:
        yield
        return
    path = settings.socket.absolute()
    made, inode = await in_thread(_bound, path)
    server = await asyncio.get_running_loop().create_unix_server(connections, sock=made)
    try:
        yield
    finally:
        server.close()
        await in_thread(_unlink, path, inode)


def _unlink(path: Path, inode: int) -> None:
    """Unless it is the next daemon's already. Blocking."""
    with suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()


def _bound(path: Path) -> tuple[socket.socket, int]:
    """In the place of what a daemon left there that is gone; whoever may connect, who is let in is asked of each. Blocking."""
    with as_storage_error(f"make {path}"):
        if _answers(path):
            raise AlreadyRunning(
                f"Somebody listens at {path}.", hint="Does another daemon run? Or set api.socket."
            )
        made = socket.socket(socket.AF_UNIX)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            made.bind(str(beside))
            beside.chmod(0o666)
            beside.replace(path)
        except BaseException:
            made.close()
            beside.unlink(missing_ok=True)
            raise
        return made, path.lstat().st_ino


def _answers(path: Path) -> bool:
    """Whether somebody listens there. Raises `OSError`, also for what is no socket: nothing is put in the place of that."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is something that is no socket")
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX) as trying:
        trying.setblocking(False)
        try:
            trying.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # it listens, and is busy
            return True
    return True
