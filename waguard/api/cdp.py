"""The relay's edge: who attaches by a WebSocket, and what drivers ask for before they open one."""

import asyncio
from functools import partial
from urllib.parse import urlencode

from aiohttp import web

from waguard.access.tickets import LASTS_S
from waguard.api.asked import Asked
from waguard.api.context import TICKET, TURNS
from waguard.api.schemas import AttachOptions, Options
from waguard.api.websocket import WebSocket
from waguard.core.shown import TicketView
from waguard.errors import InvalidRequest, Unauthorized
from waguard.relay.client import Closing


async def attach(asked: Asked, options: AttachOptions) -> web.StreamResponse:
    """A WebSocket that speaks the DevTools protocol with the session's browser, for puppeteer, playwright, pyppeteer and whatever attaches by a
    `browserWSEndpoint`. ``takeover``: a page that another client owns is taken from it. ``follow``: the connection goes on with the session's next browser.
    ``ticket``: in place of a token.
    """
    ws = web.WebSocketResponse(compress=False)
    if not ws.can_prepare(asked.request).ok:
        raise InvalidRequest(
            "This is a WebSocket.",
            hint="Give its address to a driver: browserWSEndpoint of puppeteer, connectOverCDP of playwright.",
        )
    client = await asked.supervisor.attach(asked.code, takes_over=options.takeover, follows=options.follow)
    try:
        await ws.prepare(asked.request)
        transport, turns = asked.request.transport, asked.request.app[TURNS]
        if transport is None:  # it has gone meanwhile
            return ws
        socket = WebSocket(transport, client, turns)
        with asked.access.while_admitted(asked.caller, partial(client.leave, Closing.TOKEN), asked.code):
            await socket.close(await asked.supervisor.stay(asked.code, client))
    except asyncio.CancelledError:
        if asked.request.transport is not None:  # else the connection is lost, which is one of its ends
            raise
    finally:
        client.leave(Closing.DONE, "the connection has ended")
        client.discard()
        if asked.request.transport is not None:
            asked.request.transport.abort()
    return ws


async def version(asked: Asked, options: AttachOptions) -> dict[str, str]:
    """What a browser's own debugging port answers here; `webSocketDebuggerUrl` has a ticket in it."""
    told = await asked.supervisor.browser_version(asked.code)
    by_ticket = asked.request.get(TICKET)
    until_s = by_ticket.until_s if by_ticket is not None else None
    ticket = asked.access.ticket(asked.caller, asked.code, until_s)
    return {
        "Browser": told["product"],
        "Protocol-Version": told["protocolVersion"],
        "User-Agent": told["userAgent"],
        "V8-Version": told["jsVersion"],
        "WebKit-Version": told["revision"],
        "webSocketDebuggerUrl": _address(asked, ticket, options),
    }


async def targets(asked: Asked, _options: AttachOptions) -> list[dict[str, str]]:
    """The session's page, as a browser's own debugging port lists it."""
    target, url = await asked.supervisor.page_target(asked.code)
    return [{"id": target, "type": "page", "title": "", "url": url}]


async def ticket(asked: Asked, _options: Options) -> TicketView:
    """A ticket for the session's WebSocket, for a driver that can send no header: once, within a minute."""
    if asked.request.get(TICKET) is not None:
        raise Unauthorized("A ticket makes no tickets.", hint="Send the token.")
    made = asked.access.ticket(asked.caller, asked.code)
    return TicketView(ticket=made, url=_address(asked, made, AttachOptions()), lasts_s=LASTS_S)


def _address(asked: Asked, ticket: str, options: AttachOptions) -> str:
    """Where the caller finds the WebSocket: by the name by which it has found us."""
    secure = asked.request.headers.get("X-Forwarded-Proto", asked.request.scheme) == "https"
    wishes = {name: "true" for name in ("takeover", "follow") if getattr(options, name)}
    query = urlencode({"ticket": ticket, **wishes})
    return f"{'wss' if secure else 'ws'}://{asked.request.host}/v1/sessions/{asked.code}/cdp?{query}"
