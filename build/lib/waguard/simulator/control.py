"""The simulator's own HTTP side: the phone, and the faults. Every refusal is JSON with a stable ``error`` word."""

import json
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from waguard.simulator.faults import FAULTS, VALUES, Fault

if TYPE_CHECKING:
    from waguard.simulator.server import Simulator

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PHONE = re.compile(r"[0-9]{7,15}")


class Refusal(Exception):
    """A request that cannot be done, as its answer."""

    def __init__(self, status: int, error: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": error, "message": message, **details}


@web.middleware
async def guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Loopback names only, and no control by other web pages: neither by a rebound name nor across sites."""
    try:
        if _hostname(request.host) not in _LOOPBACK:
            raise Refusal(403, "host_refused", "The Host header must name localhost, 127.0.0.1 or [::1].")
        control = request.path.startswith(("/phone/", "/faults"))
        if control and request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Refusal(403, "site_refused", "Other web pages may not control the simulator.")
        return await handler(request)
    except Refusal as refusal:
        return web.json_response(refusal.body, status=refusal.status)


def routes(simulator: "Simulator") -> Sequence[web.RouteDef]:
    async def devices(_request: web.Request) -> web.Response:
        return web.json_response({"devices": [device.view() for device in simulator.devices]})

    async def scan(request: web.Request) -> web.Response:
        body = await _text(request)
        phone = f"521{random.randrange(10**10):010d}"  # noqa: S311 (a made-up number, no secret)
        if request.content_type == "application/json":
            values = _object(body, {"qr", "phone"})
            body = values.get("qr", "")
            phone = values.get("phone", phone)
        if not body.strip():
            raise Refusal(
                400, "qr_missing", 'Send the text of the QR code, or {"qr": "...", "phone": "..."}.'
            )
        if not _PHONE.fullmatch(phone):
            raise Refusal(400, "phone_invalid", "phone must be 7 to 15 digits, with the country code.")
        device = simulator.scan(body.strip(), phone)
        return web.json_response({"wid": device.wid})

    async def logout(request: web.Request) -> web.Response:
        wid = _object(await _text(request), {"wid"}).get("wid")
        if wid is None:
            raise Refusal(400, "wid_missing", 'Send {"wid": "..."}; GET /phone/devices lists them.')
        await simulator.log_out(wid)
        return web.json_response({"wid": wid})

    def state() -> web.Response:
        active = [_view(fault) for fault in simulator.faults]
        values = {name: {"default": one.default, "known": one.known} for name, one in VALUES.items()}
        return web.json_response({"active": active, "known": FAULTS, "values": values})

    async def faults(_request: web.Request) -> web.Response:
        return state()

    async def inject(request: web.Request) -> web.Response:
        values = _object(await _text(request), {"fault", "value", "wid", "ref"})
        name = values.get("fault", "")
        if name not in FAULTS:
            raise Refusal(
                400,
                "fault_unknown",
                f"There is no fault {name!r}. Known are: {', '.join(FAULTS)}.",
                known=FAULTS,
            )
        if "wid" in values and "ref" in values:
            raise Refusal(400, "target_invalid", "Name a wid or a ref, not both.")
        fault = await simulator.inject(
            name, _value(name, values.get("value")), wid=values.get("wid"), ref=values.get("ref")
        )
        return web.json_response({**_view(fault), "effect": FAULTS[name]})

    async def clear(request: web.Request) -> web.Response:
        name = request.query.get("fault")
        if name is not None and name not in FAULTS:
            raise Refusal(400, "fault_unknown", f"There is no fault {name!r}.", known=FAULTS)
        await simulator.clear_faults(name, wid=request.query.get("wid"), ref=request.query.get("ref"))
        return state()

    return (
        web.get("/phone/devices", devices),
        web.post("/phone/scan", scan),
        web.post("/phone/logout", logout),
        web.get("/faults", faults),
        web.post("/faults", inject),
        web.delete("/faults", clear),
    )


def _view(fault: Fault) -> dict[str, Any]:
    return {"fault": fault.name, "value": fault.value, "wid": fault.wid, "ref": fault.ref}


def _value(name: str, value: str | None) -> str | None:
    known = VALUES.get(name)
    if value is not None and known is None:
        raise Refusal(400, "value_invalid", f"{name} takes no value.")
    if value is not None and known is not None and not known.fits(value):
        raise Refusal(400, "value_invalid", f"{name} takes {known.known}; not {value!r}.")
    return value


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


async def _text(request: web.Request) -> str:
    try:
        return (await request.read()).decode()
    except UnicodeDecodeError:
        raise Refusal(400, "body_invalid", "The body is not UTF-8 text.") from None


def _object(body: str, keys: set[str]) -> Mapping[str, str]:
    """The body as a JSON object with these keys only, each a text."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise Refusal(400, "body_invalid", f"Send a JSON object of texts; keys: {', '.join(sorted(keys))}.")
    if unknown := set(values) - keys:
        raise Refusal(
            400, "body_invalid", f"Unknown: {', '.join(sorted(unknown))}; keys: {', '.join(sorted(keys))}."
        )
    return values
