"""The browser tried as a session would use it: in its sandbox, on an empty profile, with a page that has to be loaded."""

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from waguard.browser.find import Binary
from waguard.browser.launch import Browser
from waguard.config.sections import Browser as Settings
from waguard.core.model import Stage
from waguard.errors import BrowserFailed, WaguardError
from waguard.sandbox import Sandbox, User
from waguard.system.deadline import within
from waguard.system.files import remove_tree
from waguard.system.threads import in_thread

_TITLE = "It works"
_PAGE = f"<!DOCTYPE html><title>{_TITLE}</title>".encode()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    % (len(_PAGE), _PAGE)
)
_HEADER_S = 10.0
_AGAIN_S = 0.05
_KILL_S = 10.0


@asynccontextmanager
async def page() -> AsyncIterator[int]:
    """A server on loopback with one page, for `load`; its port, which a fence has to allow."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_HEADER_S):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_ANSWER)
            await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the browser tells what became of it
    finally:
        writer.close()


async def load(
    kind: Sandbox, user: User | None, binary: Binary, settings: Settings, port: int, deadline_s: float
) -> None:
    """Have the browser load that page; none of it is left when this returns.

    Raises `SandboxFailed`, `BrowserFailed`, `PageFailed`, `DeadlineExceeded`, with the browser's last words, and `OSError`.
    """
    place = await in_thread(_make_place, user)
    try:
        lock = os.open(os.devnull, os.O_RDONLY)
        try:
            kind.check(place)
            browser = Browser.spawn(kind, binary, settings, place, lock, secrets.token_hex(8))
        finally:
            os.close(lock)
        try:
            async with within(Stage.START, deadline_s, "loading a page"):
                await browser.run.identify()
                await _load(browser, binary, settings, port)
        except WaguardError as error:
            browser.quote(error)
            raise
        finally:
            async with within(Stage.KILL, _KILL_S, "ending the browser", setting=""):
                await browser.kill()
            browser.close()
    finally:
        await in_thread(remove_tree, place)


async def _load(browser: Browser, binary: Binary, settings: Settings, port: int) -> None:
    shown = await browser.go(binary, settings)
    await shown.open(f"http://127.0.0.1:{port}/")
    while (title := await shown.evaluate("document.title")) == "":  # noqa: ASYNC110 (it is still read; no event says so)
        await asyncio.sleep(_AGAIN_S)
    if title != _TITLE:
        raise BrowserFailed(f"It shows {title!r} instead of a page that was sent to it.")


def _make_place(user: User | None) -> Path:
    place = Path(tempfile.mkdtemp(prefix="waguard-doctor-"))
    if user is not None:
        os.chown(place, user.uid, user.gid)
    return place
