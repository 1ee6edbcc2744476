"""One running browser and everything that belongs to it: sandbox, pipe, page, last words. Dropped as one."""

import asyncio
import contextlib
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from waguard import sandbox
from waguard.browser import flags
from waguard.browser.devtools import DevTools
from waguard.browser.find import Binary
from waguard.browser.forwarder import Forwarder
from waguard.browser.page import Page
from waguard.config.sections import Browser as Settings
from waguard.errors import BrowserFailed, PageFailed, SandboxFailed, WaguardError
from waguard.system import shortage
from waguard.system.fds import pipe

_ENV = {"HOME": "/tmp", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}  # noqa: S108 (the sandbox's own)
# What Chromium says when it drops a database of IndexedDB's, or cannot open one; of Local Storage it says nothing.
_DAMAGE = re.compile(
    r"ERROR:(?:content/browser/indexed_db|components/services/storage/indexed_db)/\S+\] (?P<what>"
    r"Failed to open LevelDB database from .*,(?:Corruption|IO error): .*|Got corruption for .*"
    r"|IndexedDB recovering from a corrupted .*|LevelDB iterator error: Corruption: .*|IndexedDB Read Error: .*)"
)
PIPES = ("answer", "command", "stderr")
"""The pipes between a browser and its daemon."""
PROXY = "proxy"
"""Beside these, for one that has a proxy: the socket that its `Forwarder` listens on."""
# Chromium says these on every server, and they mean nothing there; a stack without names means nothing anywhere.
_NOISE = re.compile(
    r"dbus/|bluez_dbus|vaapi_wrapper|InitializeSandbox\(\) called with multiple threads|^#\d+ 0x[0-9a-f]+ "
)


class Browser:
    """Owns the processes, the pipe and stderr. `kill` and `close` may be called in any state, more than once."""

    def __init__(
        self,
        run: sandbox.Run,
        read_fd: int,
        write_fd: int,
        stderr_fd: int,
        forwarder: Forwarder | None = None,
    ) -> None:
        self.run = run
        self.forwarder = forwarder
        self.page: Page | None = None
        self._fds: list[int] = [read_fd, write_fd]
        self.devtools: DevTools | None = None
        self._stderr = _LastWords(stderr_fd)

    @classmethod
    def spawn(
        cls,
        kind: sandbox.Sandbox,
        binary: Binary,
        settings: Settings,
        profile: Path,
        lock_fd: int,
        token: str,
        restraints: Sequence[str] = (),
        folders: sandbox.Folders | None = None,
        time_zone: str = "",
        forwarder: Forwarder | None = None,
    ) -> Self:
        """Start the sandbox; the browser in it waits for `go`. Raises `SandboxFailed`.

        Not a coroutine: from the moment there is a process, its owner has it; and the ``forwarder``.
        """
        with _as_sandbox_error(), ExitStack() as ours, ExitStack() as theirs:
            if forwarder is not None:
                ours.callback(forwarder.close)
            command_read, command_write = pipe(theirs, ours)
            answer_read, answer_write = pipe(ours, theirs)
            error_read, error_write = pipe(ours, theirs)
            null = os.open(os.devnull, os.O_RDWR)
            theirs.callback(os.close, null)
            port = forwarder.port if forwarder is not None else None
            run = kind.start(
                sandbox.Spec(
                    restraints=restraints,
                    folders=folders,
                    argv=flags.command(binary, kind.profile_path(profile), settings, port),
                    proxy_port=port,
                    profile=profile,
                    lock_fd=lock_fd,
                    token=token,
                    env={**_ENV, **_zone({"TZ": time_zone} if time_zone else os.environ)},
                    fds={0: null, 1: error_write, 2: error_write, 3: command_read, 4: answer_write},
                )
            )
            ours.pop_all()
            return cls(run, answer_read, command_write, error_read, forwarder)

    @classmethod
    async def adopt(
        cls,
        run: sandbox.Run,
        fds: Mapping[str, int],
        page: str,
        target: str,
        forwarder: Forwarder | None = None,
    ) -> Self:
        """One that an earlier daemon has started: its processes, its `pipes` and the session with its page are ours now.

        Raises `OSError`, and has given everything back then but for the processes.
        """
        self = cls(run, fds["answer"], fds["command"], fds["stderr"], forwarder)
        self._stderr.watch()
        read_fd, write_fd = self._fds
        self._fds = []
        try:
            self.devtools = await DevTools.open(read_fd, write_fd, used=True)
        except OSError:
            self.close()
            raise
        self.page = Page.resume(self.devtools, page, target)
        return self

    def pipes(self) -> Mapping[str, int]:
        """Our ends of its pipes, by `PIPES` and `PROXY`: whoever has copies of them can go on with the browser after us."""
        read_fd, write_fd = self._fds or self._connected_pipe().fds()
        found = dict(zip(PIPES, (read_fd, write_fd, self._stderr.fd), strict=True))
        return found if self.forwarder is None else {**found, PROXY: self.forwarder.fd}

    async def go(self, binary: Binary, settings: Settings) -> Page:
        """Let the browser start; returns its page when it answers and the page is ready to be sent somewhere.

        Raises `BrowserFailed` with its last words if it ends instead. The caller sets the deadline.
        """
        self._stderr.watch()
        self.run.release()
        read_fd, write_fd = self._fds
        self._fds = []
        self.devtools = await DevTools.open(read_fd, write_fd)
        try:
            page = await Page.attach(self.devtools)
            await page.disguise(binary, settings)
        except PageFailed as error:
            raise BrowserFailed(
                f"The browser ended before it answered. {error.message}",
                hint="Run: waguard doctor",
                stderr=self.last_words(),
            ) from None
        self.page = page
        return page

    def last_words(self) -> Sequence[str]:
        """The last lines of stderr that say something."""
        return self._stderr.lines()

    def quote(self, error: WaguardError) -> None:
        """Put them among the error's details, if there are any and it has none."""
        if "stderr" not in error.details and (said := self.last_words()):
            error.details = {**error.details, "stderr": list(said)}

    @property
    def damage(self) -> str:
        """What it has said of a damaged database since it started; empty if nothing."""
        self._stderr.lines()
        return self._stderr.damage

    @property
    def connected(self) -> bool:
        """Whether the pipe is open, so that the browser may still answer."""
        return self.devtools is not None and self.devtools.connected

    async def version(self) -> Any:
        """Its own process answers this, whatever the page does. Raises `PageFailed`."""
        return await self._connected_pipe().browser.send("Browser.getVersion")

    async def disconnected(self) -> str:
        """Wait until the pipe is gone; says why. Only after `go`."""
        return await self._connected_pipe().closed()

    def _connected_pipe(self) -> DevTools:
        assert self.devtools is not None  # noqa: S101 (opened by `go`)
        return self.devtools

    async def ask_to_close(self) -> None:
        """Ask it to close and wait until it has ended; the caller sets the deadline, and kills if it passes."""
        if self.devtools is not None:
            with contextlib.suppress(PageFailed):  # the pipe may close before the answer
                await self.devtools.browser.send("Browser.close")
            await self.run.exited()

    async def kill(self) -> None:
        """SIGKILL everything and prove it gone; the caller sets the deadline."""
        await self.run.kill()

    def close(self) -> None:
        """Give everything back; only after the processes are proved gone, or to leave them to a later daemon."""
        if self.devtools is not None:
            self.devtools.lose("closed")
        _close(self._fds)
        self._fds = []
        self._stderr.close()
        if self.forwarder is not None:
            self.forwarder.close()
        self.run.close()


def _zone(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The daemon's time zone, if it is told one by name; else the page has the machine's."""
    name = environ.get("TZ", "").removeprefix(":")
    is_name = re.fullmatch(r"\w[\w+-]*(/\w[\w+-]*)*", name, re.ASCII) is not None
    return {"TZ": name} if is_name else {}


@contextmanager
def _as_sandbox_error() -> Iterator[None]:
    try:
        with shortage.told():
            yield
    except OSError as error:
        raise SandboxFailed(f"The browser cannot be started: {error.strerror}.") from None


class _LastWords:
    """Drains stderr all the time, so that the browser never blocks on it, and keeps its last lines."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._partial = b""
        self._lines: deque[str] = deque(maxlen=20)
        self._watching = False
        self.damage = ""

    def watch(self) -> None:
        asyncio.get_running_loop().add_reader(self.fd, self._drain)
        self._watching = True

    def lines(self) -> list[str]:
        if self.fd >= 0:
            self._drain()
        return list(self._lines)

    def _drain(self) -> None:
        try:
            data = os.read(self.fd, 65_536)
        except BlockingIOError:
            return
        if not data:
            self._unwatch()
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-4096:]
        for line in lines:
            text = line.decode("utf-8", "replace").strip()[:500]
            if (found := _DAMAGE.search(text)) is not None and not self.damage:
                self.damage = found["what"]
            if text and not _NOISE.search(text):
                self._lines.append(text)

    def _unwatch(self) -> None:
        if self._watching:
            asyncio.get_running_loop().remove_reader(self.fd)
            self._watching = False

    def close(self) -> None:
        if self.fd >= 0:
            self._unwatch()
            os.close(self.fd)
            self.fd = -1


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
