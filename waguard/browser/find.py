"""Which browser to run: the real binary, not the shell wrapper whose pid is not the browser's."""

import asyncio
import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from waguard.core.model import Stage
from waguard.errors import BrowserFailed, BrowserNotFound, WaguardError
from waguard.system import shortage
from waguard.system.deadline import within
from waguard.system.threads import Kind, in_thread

# Best first. headless-shell takes less than half the memory of a full Chromium and starts sooner (docs/explanation/rooms.md).
KNOWN: Sequence[Path] = tuple(
    Path(name)
    for name in (
        "/usr/lib/chromium/chromium-headless-shell",
        "/usr/lib/chromium/chromium",
        "/usr/lib/chromium-browser/chromium-browser",
        "/usr/lib64/chromium-browser/chromium-browser",
        "/opt/google/chrome/chrome",
        "/opt/google/chrome-beta/chrome",
    )
)
# Debian's and Google's wrappers, and what they run in the end.
_WRAPPERS = {
    "chromium-headless-shell": KNOWN[0],
    "chromium": KNOWN[1],
    "chromium-browser": KNOWN[2],
    "google-chrome": KNOWN[4],
    "google-chrome-stable": KNOWN[4],
    "google-chrome-beta": KNOWN[5],
}
INSTALL_HINT = "Install one: apt-get install chromium-headless-shell"
_MEND_HINT = "Install it again, or name another one: browser.path"
"""One more of them would not be used while this one is there."""


@dataclass(frozen=True, slots=True)
class Binary:
    path: Path
    version: str
    """As the binary prints it: ``156.0.8078.79``. Empty: it has not run yet."""

    @property
    def major(self) -> int:
        return int(self.version.split(".", 1)[0])

    @property
    def headless_only(self) -> bool:
        """headless-shell has no other mode, and no profile lock of its own."""
        return "headless" in self.path.name


def locate(configured: Path | None) -> Path:
    """The binary to run. Raises `BrowserNotFound` with what was tried."""
    if configured is None:
        for path in KNOWN:
            if path.is_file():
                return path
        raise BrowserNotFound("No browser found.", hint=INSTALL_HINT, tried=[str(path) for path in KNOWN])
    path = configured.resolve()
    if not path.is_file():
        raise BrowserNotFound(
            f"browser.path: there is no file {configured}.",
            hint=f"Name the browser's binary there, or leave it out and have one found. {INSTALL_HINT}",
        )
    if path.stat().st_mode & 0o111 == 0:
        raise BrowserNotFound(f"browser.path: {configured} is not executable.", hint=f"chmod +x {configured}")
    with path.open("rb") as file:
        script = file.read(2) == b"#!"
    real = _WRAPPERS.get(path.name)
    return real if script and real is not None and real.is_file() else path


async def probe(path: Path, deadline_s: float) -> Binary:
    """Ask the binary for its version. Raises `BrowserFailed` if it does not tell, `DeadlineExceeded`."""
    try:
        with shortage.told():
            process = await asyncio.create_subprocess_exec(
                str(path),
                "--version",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
    except OSError as error:
        raise BrowserFailed(f"{path} cannot be run: {error.strerror}.", hint=_MEND_HINT) from None
    try:
        async with within(Stage.START, deadline_s, f"{path} --version", setting=""):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = re.search(rb"(\d+\.\d+\.\d+\.\d+)", output)
    if found is None:
        raise BrowserFailed(f"{path} --version does not tell a version.", hint=_MEND_HINT)
    return Binary(path, found[1].decode())


@dataclass(frozen=True, slots=True)
class _Stamp:
    """Which file it is, and as of which writing."""

    device: int
    inode: int
    size: int
    mtime_ns: int


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return _Stamp(0, 0, 0, 0)
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Installed:
    """The browser that is installed now, which may be another one at any moment: what was asked is known by the file, not by
    its name.

    One question at a time; who comes while others wait for one shares its answer, whatever it is.
    """

    def __init__(
        self,
        configured: Path | None,
        deadline_s: float,
        changed: Callable[[Binary, Binary], None] = lambda _before, _now: None,
    ) -> None:
        self.current = Binary(configured or KNOWN[0], "")
        """The last one that ran."""
        self._configured = configured
        self._deadline_s = deadline_s
        self._changed = changed
        self._stamp: _Stamp | None = None
        """Of the file that told the version of ``current``."""
        self._turn = asyncio.Lock()
        self._questions = 0
        self._asked: _Stamp | None = None
        """Of the file that was asked last, and how that failed, if it did."""
        self._failure: WaguardError | None = None

    async def refresh(self) -> Binary:
        """The one that is there now; asked if its file is another one than before, an upgrade's. Raises like `check`."""
        return await self._look(lambda stamp: stamp != self._stamp)

    async def check(self) -> Binary:
        """Ask it, whether it has changed or not. Raises `BrowserNotFound`, `BrowserFailed`, `DeadlineExceeded`, `LimitReached`."""
        return await self._look(lambda _: True)

    async def glance(self) -> Binary:
        """Like `refresh`, but a file that has failed is not asked again: the last one that ran instead."""
        return await self._look(lambda stamp: stamp not in {self._stamp, self._asked})

    async def _look(self, wanted: Callable[[_Stamp], bool]) -> Binary:
        came = self._questions
        async with self._turn:
            path = await in_thread(locate, self._configured, kind=Kind.MACHINE)
            stamp = await in_thread(_stamp, path, kind=Kind.MACHINE)
            if self._questions != came and stamp == self._asked:  # asked after we came
                if self._failure is not None:
                    raise copy(self._failure)
            elif wanted(stamp):
                await self._ask(path, stamp)
            if stamp == self._stamp:
                self._become(Binary(path, self.current.version))
            return self.current

    async def _ask(self, path: Path, stamp: _Stamp) -> None:
        try:
            found = await probe(path, self._deadline_s)
        except WaguardError as error:
            self._answered(stamp, error)
            raise
        self._answered(stamp, None)
        self._stamp = stamp
        self._become(found)

    def _answered(self, stamp: _Stamp, failure: WaguardError | None) -> None:
        self._questions += 1
        self._asked, self._failure = stamp, failure

    def _become(self, found: Binary) -> None:
        before, self.current = self.current, found
        if before.version and before != found:
            self._changed(before, found)
