"""The simulator's own HTTP side: the phone, and the faults. Every refusal is JSON with a stable ``error`` word."""

import json
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from waguard.simulator.faults import FAULTS, VALUES, Fault
from waguard.simulator.messages import MEDIA_MOST, TYPES, Message

if TYPE_CHECKING:
    from waguard.simulator.server import Simulator

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
PHONE = re.compile(r"[0-9]{7,15}")


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
        control = request.path.startswith(("/phone/", "/faults", "/media"))
        if control and request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Refusal(403, "site_refused", "Other web pages may not control the simulator.")
        return await handler(request)
    except Refusal as refusal:
        return web.json_response(refusal.body, status=refusal.status)


def routes(simulator: "Simulator") -> Sequence[web.RouteDef]:
    async def devices(_request: web.Request) -> web.Response:
        """The linked devices."""
        return web.json_response({"devices": [device.view() for device in simulator.devices]})

    async def scan(request: web.Request) -> web.Response:
        """Link the page that shows a QR code. The body is the code's text, or JSON: `qr`, `phone`."""
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
        if not PHONE.fullmatch(phone):
            raise Refusal(400, "phone_invalid", "phone must be 7 to 15 digits, with the country code.")
        device = simulator.scan(body.strip(), phone)
        return web.json_response({"wid": device.wid})

    async def link(request: web.Request) -> web.Response:
        """Enter a pairing code on the phone whose number it is for. JSON: `code`; case and a hyphen do not matter."""
        code = _object(await _text(request), {"code"}).get("code", "")
        if not code.strip():
            raise Refusal(400, "code_missing", 'Send {"code": "..."}, as the page shows it.')
        device = simulator.enter(re.sub(r"[\s-]", "", code).upper())
        return web.json_response({"wid": device.wid})

    async def logout(request: web.Request) -> web.Response:
        """Unlink a device, as its phone would. JSON: `wid`."""
        wid = _object(await _text(request), {"wid"}).get("wid")
        if wid is None:
            raise Refusal(400, "wid_missing", 'Send {"wid": "..."}; GET /phone/devices lists them.')
        await simulator.log_out(wid)
        return web.json_response({"wid": wid})

    async def message(request: web.Request) -> web.Response:
        """Have somebody write to a device. JSON: `from` (a phone), and `body`, `name` (of whoever writes), `quoted` (a message's
        `id`), `media` (a path), `type` and `filename` of that, `wid` (which device, if there are several). Answers with the message.
        """
        values = _object(
            await _text(request), {"wid", "from", "body", "media", "filename", "type", "name", "quoted"}
        )
        wid = values.get("wid") or _only(simulator)
        sender = values.get("from", "")
        if not PHONE.fullmatch(sender):
            raise Refusal(400, "from_invalid", "from must be 7 to 15 digits, with the country code.")
        media = None
        if "media" in values:
            if (kept := simulator.shelf.get(values["media"])) is None:
                raise Refusal(
                    404, "media_unknown", "There is no such media; POST /media answers with a path."
                )
            media = replace(kept[0], filename=values.get("filename"))
        kind = values.get("type", "chat" if media is None else media.type)
        if kind not in TYPES or (media is None) != (kind == "chat"):
            raise Refusal(
                400,
                "type_invalid",
                f"Without media it is chat; else one of: {', '.join(sorted(TYPES - {'chat'}))}.",
            )
        sent = Message(
            chat=f"{sender}@c.us",
            from_me=False,
            body=values.get("body", ""),
            type=kind,
            media=media,
            name=values.get("name"),
            quoted=values.get("quoted"),
        )
        await simulator.deliver(wid, sent)
        return web.json_response(sent.view(wid))

    async def messages(request: web.Request) -> web.Response:
        """All messages, the oldest first; with `?wid=` those of one device."""
        wid = request.query.get("wid")
        devices = simulator.devices if wid is None else (simulator.device(wid),)
        found = [one.view(device.wid) for device in devices for one in device.mailbox]
        return web.json_response({"messages": found})

    async def keep(request: web.Request) -> web.Response:
        """Keep the body as media, of the type that `Content-Type` says. Answers with the `path` that messages name it by."""
        try:
            content = await request.clone(client_max_size=MEDIA_MOST).read()
        except web.HTTPRequestEntityTooLarge:
            raise Refusal(413, "media_too_large", f"Media have {MEDIA_MOST >> 20} MiB at most.") from None
        media = simulator.shelf.put(content, request.content_type)
        return web.json_response({"path": media.path, "size": media.size, "sha256": media.sha256})

    async def fetch(request: web.Request) -> web.Response:
        """The bytes of media, those that an app has sent too."""
        kept = simulator.shelf.get(request.path)
        if kept is None:
            raise Refusal(404, "media_unknown", "There is no such media, or no longer.")
        media, content = kept
        headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=content, content_type=media.mimetype, headers=headers)

    def state() -> web.Response:
        active = [_view(fault) for fault in simulator.faults]
        values = {name: {"default": one.default, "known": one.known} for name, one in VALUES.items()}
        return web.json_response({"active": active, "known": FAULTS, "values": values})

    async def faults(_request: web.Request) -> web.Response:
        """The faults that are active, those that are known, and the values that they take."""
        return state()

    async def inject(request: web.Request) -> web.Response:
        """Begin a fault. JSON: `fault`, and `value`, `wid` or `ref` (the beginning of a QR code)."""
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
        """End all faults; with `?fault=`, `?wid=` or `?ref=` some of them."""
        name = request.query.get("fault")
        if name is not None and name not in FAULTS:
            raise Refusal(400, "fault_unknown", f"There is no fault {name!r}.", known=FAULTS)
        await simulator.clear_faults(name, wid=request.query.get("wid"), ref=request.query.get("ref"))
        return state()

    return (
        web.get("/phone/devices", devices),
        web.post("/phone/scan", scan),
        web.post("/phone/link", link),
        web.post("/phone/logout", logout),
        web.post("/phone/message", message),
        web.get("/phone/messages", messages),
        web.post("/media", keep),
        web.get("/media/{id}", fetch),
        web.get("/faults", faults),
        web.post("/faults", inject),
        web.delete("/faults", clear),
    )


def _only(simulator: "Simulator") -> str:
    """The wid of the one device that there is."""
    match simulator.devices:
        case (device,):
            return device.wid
    raise Refusal(400, "wid_missing", "Name the wid of a device; GET /phone/devices lists them.")


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
