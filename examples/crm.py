"""A CRM in a page: Connect, a QR code that is always the one to scan, and the status as it changes. Nothing polls.

pip install waguard
WAGUARD_TOKEN=$(waguard token demo) python crm.py        # then open http://127.0.0.1:8000
"""

import os
import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web
from aiohttp.typedefs import Handler

URL, TOKEN = os.environ.get("WAGUARD_URL", "http://127.0.0.1:8717"), os.environ["WAGUARD_TOKEN"]
WAGUARD, DEMO = web.AppKey("waguard", ClientSession), "/v1/sessions/demo"
PAGE = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>CRM</title>
<style>body { font: 1.2rem system-ui; text-align: center; margin: 3rem } img { width: min(80vw, 20rem) }</style>
<h1 id="status" aria-live="polite">...</h1> <p><img id="qr" alt="QR code to scan" hidden></p>
<button onclick="fetch('/connect', { method: 'POST' })">Connect</button>
<script>
  const show = async () => {
    const session = await (await fetch("/session")).json()
    document.querySelector("#status").textContent = session.qr ? "Scan me" : isNaN(session.status) ? session.status : "Not connected yet"
    qr.hidden = !session.qr
    if (session.qr) qr.src = "/qr.svg?" + session.qr.seen_at
  }
  const events = new EventSource("/events") // it comes back by itself, and says where it was
  for (const name of ["feed.ready", "feed.missed", "session.changed", "session.qr_shown"]) events.addEventListener(name, show)
</script>"""


def asks(method: str, path: str, accept: str = "application/json") -> Handler:
    async def passed_on(request: web.Request) -> web.Response:
        async with request.app[WAGUARD].request(method, path, headers={"Accept": accept}) as answer:
            body, media = await answer.read(), answer.content_type
            return web.Response(body=body, status=answer.status, content_type=media)

    return passed_on


async def page(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def events(request: web.Request) -> web.StreamResponse:
    """The feed as it comes; the token stays here."""
    told = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    at = {"Last-Event-ID": request.headers.get("Last-Event-ID", "")}
    async with request.app[WAGUARD].get("/v1/events?kind=session", headers=at) as feed:
        await told.prepare(request)
        async for piece in feed.content.iter_any():
            await told.write(piece)
    return told


async def waguard(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(URL, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=None) as app[WAGUARD]:
        yield


app = web.Application()
app.cleanup_ctx.append(waguard)
app.add_routes([web.get("/", page), web.get("/events", events), web.get("/session", asks("GET", DEMO))])
app.add_routes([web.post("/connect", asks("POST", DEMO + "/connect?wait=none"))])
app.add_routes([web.get("/qr.svg", asks("GET", DEMO + "/qr", "image/svg+xml"))])
port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
web.run_app(app, host="127.0.0.1", port=port, handler_cancellation=True)  # a page that leaves ends its feed
