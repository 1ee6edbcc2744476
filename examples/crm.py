"""A CRM in a page: Connect, a QR code that is always the one to scan, and the status as it changes. Nothing polls.

pip install waguard
WAGUARD_TOKEN=$(waguard token demo) python crm.py        # then open http://127.0.0.1:8000
"""

import os
import sys
from collections.abc import AsyncIterator

from aiohttp import web

from waguard.client import URL, Client, Session, Wait
from waguard.errors import SessionNotFound

DEMO = web.AppKey("demo", Session)
PAGE = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>CRM</title>
<style>body { font: 1.2rem system-ui; text-align: center; margin: 3rem } img { width: min(80vw, 20rem) }</style>
<h1 id="status" aria-live="polite">...</h1> <p><img id="qr" alt="QR code to scan" hidden></p>
<button onclick="fetch('/connect', { method: 'POST' })">Connect</button>
<script>
  new EventSource("/events").onmessage = async () => { // it comes back by itself
    const session = await (await fetch("/session")).json()
    document.querySelector("#status").textContent = session.qr ? "Scan me" : session.status
    qr.hidden = !session.qr
    if (session.qr) qr.src = "/qr.svg?" + session.qr
  }
</script>"""


async def page(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def events(request: web.Request) -> web.StreamResponse:
    """A word whenever there is something new, the first one at once; the token stays here."""
    told = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await told.prepare(request)
    async for event in request.app[DEMO].client.events(clients=["demo"], kinds=["session"]):
        await told.write(f"data: {event.name}\n\n".encode())
    return told


async def session(request: web.Request) -> web.Response:
    try:
        view = await request.app[DEMO].show()
    except SessionNotFound:
        return web.json_response({"status": "Not connected yet"})
    return web.json_response({"status": view.status, "qr": view.qr and view.qr.seen_at})


async def connect(request: web.Request) -> web.Response:
    return web.json_response({"status": (await request.app[DEMO].connect(wait=Wait.NONE)).status})


async def qr(request: web.Request) -> web.Response:
    return web.Response(body=await request.app[DEMO].qr_picture(), content_type="image/svg+xml")


async def waguard(app: web.Application) -> AsyncIterator[None]:
    async with Client(os.environ.get("WAGUARD_URL", URL)) as client:
        app[DEMO] = client.session("demo")
        yield


app = web.Application()
app.cleanup_ctx.append(waguard)
app.add_routes([web.get("/", page), web.get("/events", events), web.get("/session", session)])
app.add_routes([web.post("/connect", connect), web.get("/qr.svg", qr)])
port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
web.run_app(app, host="127.0.0.1", port=port, handler_cancellation=True)  # a page that leaves ends its feed
