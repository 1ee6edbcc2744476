"""A browser driven over its pipe with nothing of the product in between, for tests of what the product reads."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self

from waguard.browser.find import KNOWN, locate
from waguard.core.model import Reading
from waguard.errors import BrowserNotFound
from waguard.whatsapp import page

NOBODY = 65534
VERSION = "156.0.0.0"
AGENT = (
    f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{VERSION} Safari/537.36"
)
HEADLESS_AGENT = AGENT.replace("Chrome/", "HeadlessChrome/")
HINTS = {
    "brands": [{"brand": "Chromium", "version": "156"}],
    "platform": "Linux",
    "platformVersion": "",
    "architecture": "x86",
    "model": "",
    "mobile": False,
}


def _found() -> Path | None:
    try:
        return locate(None)
    except BrowserNotFound:
        return None


BINARY = _found()
BINARIES = [path for path in KNOWN if path.is_file()]
"""All that are installed, the one that is used first."""


class Refused(Exception):
    """The browser answered a command with an error."""


class Page:
    """One tab."""

    def __init__(self, browser: "BareBrowser", session: str) -> None:
        self._browser = browser
        self._session = session

    async def call(self, method: str, **params: Any) -> Any:
        return await self._browser.call(method, self._session, **params)

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str, **options: Any) -> Any:
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, **options)
        if "exceptionDetails" in answer:
            raise Refused(answer["exceptionDetails"])
        return answer["result"].get("value")

    async def read(self) -> Reading:
        try:
            signs = await self.part("signs")
            words = await self.evaluate(page.part(page.PROBE, "words", signs["splash"] is not False))
        except Refused:
            return page.read(None)  # between two documents
        return page.read(page.together(signs, words))

    async def part(self, name: str, argument: object = None) -> Any:
        """One of the reader's functions, in a world of its own."""
        target = (await self.call("Target.getTargetInfo"))["targetInfo"]["targetId"]
        world = await self.call("Page.createIsolatedWorld", frameId=target, worldName="test")
        expression = page.part(page.PROBE, name, argument)
        return await self.evaluate(expression, contextId=world["executionContextId"])

    async def until(self, done: Callable[[Reading], bool], seconds: float = 15.0) -> Reading:
        """Read again and again until ``done``, as the product does."""
        reading = page.read(None)
        try:
            async with asyncio.timeout(seconds):
                while not done(reading := await self.read()):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s; the last was {reading}") from None
        return reading


class BareBrowser:
    """A running browser; made by `browser`."""

    def __init__(self, pid: int, writer: asyncio.WriteTransport, reader: asyncio.StreamReader) -> None:
        self._pid = pid
        self._writer = writer
        self._reader = reader
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._listening = asyncio.create_task(self._listen(), name="bare-browser")

    @classmethod
    async def start(cls, profile: Path, agent: str, *flags: str) -> Self:
        assert BINARY is not None
        command = [
            str(BINARY),
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            f"--user-agent={agent}",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-gpu",
            *(() if "headless" in BINARY.name else ("--headless=new",)),
            *flags,
            "about:blank",
        ]
        if os.geteuid() == 0:
            change = shutil.which("setpriv")
            assert change is not None
            command = [change, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
        orders_r, orders_w = map(_high, os.pipe())
        answers_r, answers_w = map(_high, os.pipe())
        null = _high(os.open(os.devnull, os.O_RDWR))
        wanted = {0: null, 1: null, 2: null, 3: orders_r, 4: answers_w}
        pid = os.posix_spawn(
            command[0],
            command,
            {"HOME": str(profile), "PATH": os.defpath},
            file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in wanted.items()],
            setsid=True,
        )
        for fd in (orders_r, answers_w, null):
            os.close(fd)
        loop = asyncio.get_running_loop()
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(orders_w, "wb", 0))
        reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(answers_r, "rb", 0)
        )
        return cls(pid, writer, reader)

    async def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps(message).encode() + b"\0")
        try:
            return await answer
        finally:
            del self._answers[number]

    async def page(self, *, hints: bool = True) -> Page:
        """A new tab."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        answer = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        tab = Page(self, answer["sessionId"])
        await tab.call("Page.enable")
        if hints:
            await tab.call("Emulation.setUserAgentOverride", userAgent=AGENT, userAgentMetadata=HINTS)
        return tab

    async def close(self) -> None:
        """Politely, so that the profile is written down."""
        with contextlib.suppress(Refused):
            await self.call("Browser.close")
        await self._listening

    async def end(self) -> None:
        """Whatever it does: gone when this returns."""
        handle = os.pidfd_open(self._pid)
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(handle, gone.set)
        self._writer.close()
        try:
            async with asyncio.timeout(5):
                await gone.wait()
        except TimeoutError:
            os.killpg(self._pid, signal.SIGKILL)
            await gone.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        os.waitpid(self._pid, 0)
        await self._listening

    async def _listen(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                answer = self._answers.get(message.get("id"))
                if answer is None or answer.done():
                    continue
                if "error" in message:
                    answer.set_exception(Refused(message["error"]))
                else:
                    answer.set_result(message["result"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Refused("the browser has ended"))


@asynccontextmanager
async def browser(profile: Path, agent: str = AGENT, *flags: str) -> AsyncIterator[BareBrowser]:
    """A browser on this profile; gone after the block."""
    running = await BareBrowser.start(profile, agent, *flags)
    try:
        yield running
    finally:
        await running.end()


def make_profile(copy_of: Path | None = None) -> Path:
    """An empty user data directory, or a copy, which the browser's user can use; the caller removes it."""
    path = Path(tempfile.mkdtemp(prefix="waguard-test-"))
    if copy_of is not None:
        shutil.copytree(copy_of, path, symlinks=True, dirs_exist_ok=True)
    if os.geteuid() == 0:
        for entry in (path, *path.rglob("*")):
            os.chown(entry, NOBODY, NOBODY, follow_symlinks=False)
    return path


def _high(fd: int) -> int:
    """Away from the numbers that the child gets, so that no dup2 overwrites one that is still needed."""
    moved: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(fd)
    return moved
