"""What a browser loads: the page, its scripts and its worker; or what a fault has in the place of them."""

import re
import secrets
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from waguard.simulator.server import Simulator

COOKIE = "simulator_browser"
"""Which browser it is."""
_FILES = {
    file.name: file.read_text(encoding="utf-8")
    for file in files("waguard.simulator").joinpath("page").iterdir()
}
_PORTAL = "<!doctype html><title>Welcome to this network</title><form action=/welcome><button>Sign in</button></form>"
_REFUSED_AGENT = re.compile(r"HeadlessChrome|Electron/|WhatsApp/")
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def routes(simulator: "Simulator") -> Sequence[web.RouteDef]:
    async def index(request: web.Request) -> web.Response:
        agent, brands = request.headers.get("User-Agent", ""), request.headers.get("Sec-CH-UA", "")
        if _REFUSED_AGENT.search(agent) or "HeadlessChrome" in brands:
            return web.Response(text=_FILES["refused.html"], content_type="text/html")
        browser = request.cookies.get(COOKIE, "")
        await simulator.hang_if_asked(browser)
        simulator.loads += 1
        if (wrong := simulator.wrong_answer(browser)) is not None:
            return _wrong(wrong)
        nonce = secrets.token_urlsafe(16)
        strips = simulator.suffered(browser).get("strips_post_logout") or ""
        text = _FILES["page.html"].replace("{nonce}", nonce).replace("{strips}", strips)
        response = web.Response(text=text, content_type="text/html")
        response.headers["Content-Security-Policy"] = _POLICY.format(nonce=nonce)
        response.headers["Cache-Control"] = "no-store"
        if COOKIE not in request.cookies:
            ten_years = 10 * 365 * 86_400
            response.set_cookie(
                COOKIE, secrets.token_hex(16), max_age=ten_years, httponly=True, samesite="Strict"
            )
        return response

    async def script(request: web.Request) -> web.Response:
        await simulator.hang_if_asked(request.cookies.get(COOKIE, ""))
        headers = {"Cache-Control": "no-cache"}
        text = _FILES[request.path.removeprefix("/")]
        return web.Response(text=text, content_type="text/javascript", headers=headers)

    scripts = sorted(name for name in _FILES if name.endswith(".js"))
    return (web.get("/", index), *(web.get(f"/{name}", script) for name in scripts))


def _wrong(asked: str) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    if asked in {"portal", "empty"}:
        text = _PORTAL if asked == "portal" else ""
        return web.Response(text=text, content_type="text/html", headers=headers)
    if asked == "407":
        headers["Proxy-Authenticate"] = 'Basic realm="simulator"'
    return web.Response(text="Not now.", status=int(asked), headers=headers)
