"""For apps: a genuine pyppeteer `Page` of a session that waguard keeps. The daemon itself imports none of this.

async with Client() as waguard:
    page = await waguard.page("demo")
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote, urlencode

import aiohttp
import pyppeteer
from pyppeteer.browser import Browser
from pyppeteer.page import Page

from waguard.core.model import client_code
from waguard.errors import BY_CODE, Internal, Unauthorized

URL = "http://127.0.0.1:8717"
ENV_TOKEN = "WAGUARD_TOKEN"  # noqa: S105 (the name of a variable, not a secret)
_ANSWERS_S = 30.0
_FILE_S = 300.0


class Client:
    """Of one daemon. Leaving it detaches from every page, and leaves each as it is.

    ``url``: the control port's. ``token``: the admin's or the session's own; None: what ``WAGUARD_TOKEN`` holds. Raises `Unauthorized` if
    there is none.
    """

    def __init__(
        self, url: str = URL, token: str | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        token = environ.get(ENV_TOKEN, "") if token is None else token
        if not token:
            raise Unauthorized(
                f"There is no token, and {ENV_TOKEN} holds none.", hint="waguard token CODE prints one."
            )
        self._headers = {"Authorization": f"Bearer {token}"}
        self._url = url.rstrip("/")
        self._browsers: list[Browser] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._browsers:
            await self._browsers.pop().disconnect()

    async def page(self, code: str, *, own: bool = True, takeover: bool = False) -> Page:
        """The page of this client's session, owned by us from here; ``takeover``: also if somebody else owns it. Not ``own``: to look, listen
        and type beside whoever owns it.

        Raises what the daemon answers, as its `WaguardError` (`NoPage`, `SessionNotFound`, `Forbidden`), `aiohttp.ClientError` or `TimeoutError` if it does not,
        and pyppeteer's `NetworkError` with who has the page and since when.
        """
        # pyppeteer waits for ever for a WebSocket that is refused: what could be wrong is asked before, and there is a ticket in the answer.
        query = "?takeover=true" if takeover else ""
        version = await self._ask("GET", f"/v1/sessions/{client_code(code)}/cdp/json/version{query}")
        async with asyncio.timeout(_ANSWERS_S):
            # The session's own viewport: pyppeteer's would be set, and seen by everybody.
            browser = await pyppeteer.connect(
                browserWSEndpoint=version["webSocketDebuggerUrl"], defaultViewport=None
            )
        self._browsers.append(browser)
        return await browser.newPage() if own else (await browser.pages())[0]

    async def upload(self, code: str, path: Path, *, timeout_s: float = _FILE_S) -> str:
        """Store a file for this client's session; returns what its page's `uploadFile` names. Raises like `page`, and `OSError`."""
        with path.open("rb") as file:
            query = urlencode({"name": path.name})
            answer = await self._ask(
                "POST", f"/v1/sessions/{client_code(code)}/uploads?{query}", file, timeout_s
            )
        return str(answer["path"])

    async def downloads(self, code: str) -> Sequence[Mapping[str, Any]]:
        """What this client's page has downloaded, the oldest first: `id`, `name`, `bytes` of each. Raises like `page`."""
        answer = await self._ask("GET", f"/v1/sessions/{client_code(code)}/downloads")
        return list(answer["downloads"])

    async def download(self, code: str, name: str, *, timeout_s: float = _FILE_S) -> bytes:
        """What is in one of them, by its id. Raises like `page`."""
        found: bytes = await self._ask(
            "GET", f"/v1/sessions/{client_code(code)}/downloads/{quote(name, safe='')}", timeout_s=timeout_s
        )
        return found

    async def _ask(
        self, method: str, path: str, body: BinaryIO | None = None, timeout_s: float = _ANSWERS_S
    ) -> Any:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with (
            aiohttp.ClientSession(headers=self._headers, timeout=timeout) as http,
            http.request(method, self._url + path, data=body, allow_redirects=False) as answer,
        ):
            if answer.status == 200 and answer.content_type == "application/octet-stream":
                return await answer.read()
            told = await answer.json(content_type=None)
            if answer.status == 200:
                return told
        kind = BY_CODE.get(told.get("code", ""), Internal)
        raise kind(told.get("detail", f"HTTP {answer.status}"), hint=told.get("hint", ""))
