"""The relay's edge: a WebSocket that carries the frames of a driver, and what drivers ask for before they open one."""

import asyncio
from contextlib import suppress
from urllib.parse import urlencode

from aiohttp import WSMsgType, web

from waguard.api.asked import Asked
from waguard.api.context import TICKET, TICKETS
from waguard.api.schemas import AttachOptions, Options
from waguard.api.tickets import LASTS_S
from waguard.browser.channel import MOST_COMMAND
from waguard.core.shown import TicketView
from waguard.errors import InvalidRequest, Unauthorized
from waguard.relay.client import CLOSINGS, Client, Closing, End

_CLOSE_S = 2.0
"""How long a client has to take what still waits for it, and to say that it has heard the end."""
_TURN_S = 0.01
"""How long one client's frames are read or written before somebody else has a turn."""
_WRITER_BYTES = 64 * 1024
_REASON = 120
"""Bytes of a close frame's reason, less than the 123 that it may have."""


async def attach(asked: Asked, options: AttachOptions) -> web.StreamResponse:
    """A WebSocket that speaks the DevTools protocol with the session's browser, for puppeteer, playwright, pyppeteer and whatever attaches by a
    `browserWSEndpoint`. ``takeover``: a page that another client owns is taken from it. ``ticket``: in place of a token.
    """
    ws = web.WebSocketResponse(
        compress=False,
        max_msg_size=MOST_COMMAND,
        decode_text=False,
        timeout=_CLOSE_S,
        writer_limit=_WRITER_BYTES,
    )
    if not ws.can_prepare(asked.request).ok:
        raise InvalidRequest(
            "This is a WebSocket.",
            hint="Give its address to a driver: browserWSEndpoint of puppeteer, connectOverCDP of playwright.",
        )
    client = await asked.supervisor.attach(asked.code, takes_over=options.takeover)
    try:
        await ws.prepare(asked.request)
        await _carry(ws, client)
    except asyncio.CancelledError:
        if asked.request.transport is not None:  # else the connection is lost, which is one of its ends
            raise
    finally:
        client.leave(Closing.DONE, "the connection has ended")
        if asked.request.transport is not None:
            asked.request.transport.abort()
    return ws


async def _carry(ws: web.WebSocketResponse, client: Client) -> None:
    reading = asyncio.create_task(_read(ws, client))
    writing = asyncio.create_task(_write(ws, client))
    ended = asyncio.create_task(client.ended())
    try:
        await asyncio.wait({reading, writing, ended}, return_when=asyncio.FIRST_COMPLETED)
        client.leave(Closing.DONE, "it has closed the connection")
        end = await ended
        reading.cancel()
        await asyncio.wait({reading})
        # Whoever does not read is not told, and not waited for any longer.
        with suppress(TimeoutError, ConnectionError, RuntimeError):
            async with asyncio.timeout(_CLOSE_S):
                await _say_end(ws, client, writing, end)
    finally:
        tasks = {reading, writing, ended}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _say_end(
    ws: web.WebSocketResponse, client: Client, writing: "asyncio.Task[None]", end: End
) -> None:
    if end.code is Closing.TOO_MUCH:  # what waits for it is what it was too much of
        writing.cancel()
    while not client.all_sent and not writing.done():
        await asyncio.wait({writing}, timeout=0.01)
    if not ws.closed:
        reason = end.reason.encode()[:_REASON].decode(errors="ignore")
        await ws.close(code=end.code, message=reason.encode())


class _Turn:
    """Of the loop: nobody else gets one as long as there is a frame to read, or room to write one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    async def end(self) -> None:
        """If it has lasted long enough."""
        if self._loop.time() - self._began > _TURN_S:
            await asyncio.sleep(0)
            self._began = self._loop.time()


async def _read(ws: web.WebSocketResponse, client: Client) -> None:
    turn = _Turn()
    async for message in ws:
        await turn.end()
        if message.type is not WSMsgType.TEXT:
            client.leave(Closing.NO_TEXT, CLOSINGS[Closing.NO_TEXT])
            return
        client.take(message.data)


async def _write(ws: web.WebSocketResponse, client: Client) -> None:
    turn = _Turn()
    with suppress(ConnectionError):
        while True:
            await turn.end()
            await ws.send_frame(await client.next_frame(), WSMsgType.TEXT)
            client.sent()


async def version(asked: Asked, options: AttachOptions) -> dict[str, str]:
    """What a browser's own debugging port answers here; `webSocketDebuggerUrl` has a ticket in it."""
    told = await asked.supervisor.browser_version(asked.code)
    by_ticket = asked.request.get(TICKET)
    until_s = by_ticket.until_s if by_ticket is not None else None
    ticket = asked.request.app[TICKETS].issue(asked.caller, asked.code, until_s)
    return {
        "Browser": told["product"],
        "Protocol-Version": told["protocolVersion"],
        "User-Agent": told["userAgent"],
        "V8-Version": told["jsVersion"],
        "WebKit-Version": told["revision"],
        "webSocketDebuggerUrl": _address(asked, ticket, takeover=options.takeover),
    }


async def targets(asked: Asked, _options: AttachOptions) -> list[dict[str, str]]:
    """The session's page, as a browser's own debugging port lists it."""
    target, url = await asked.supervisor.page_target(asked.code)
    return [{"id": target, "type": "page", "title": "", "url": url}]


async def ticket(asked: Asked, _options: Options) -> TicketView:
    """A ticket for the session's WebSocket, for a driver that can send no header: once, within a minute."""
    if asked.request.get(TICKET) is not None:
        raise Unauthorized("A ticket makes no tickets.", hint="Send the token.")
    made = asked.request.app[TICKETS].issue(asked.caller, asked.code)
    return TicketView(ticket=made, url=_address(asked, made, takeover=False), lasts_s=LASTS_S)


def _address(asked: Asked, ticket: str, *, takeover: bool) -> str:
    """Where the caller finds the WebSocket: by the name by which it has found us."""
    secure = asked.request.headers.get("X-Forwarded-Proto", asked.request.scheme) == "https"
    query = urlencode({"ticket": ticket, **({"takeover": "true"} if takeover else {})})
    return f"{'wss' if secure else 'ws'}://{asked.request.host}/v1/sessions/{asked.code}/cdp?{query}"
