"""A stand-in for WhatsApp Web on loopback: the same signs, the same modules, no phone.

App developers test their integration and their bots against it. `Simulator` serves the page and its WebSocket; the phone's side
and the faults are plain HTTP (`control.py`).
"""

import asyncio
import base64
import hmac
import ipaddress
import json
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

import segno
from aiohttp import WSMsgType, web

from waguard.errors import AlreadyRunning, ConfigError
from waguard.simulator import control, pages
from waguard.simulator.control import Refusal
from waguard.simulator.faults import DROPPED_ONCE, DROPS, ONCE, VALUES, Fault
from waguard.simulator.messages import Mailbox, Message, Shelf, read
from waguard.simulator.tab import Device, Tab

_CODE = "123456789ABCDEFGHJKLMNPQRSTVWXYZ"
"""What a pairing code is made of."""
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Cadence:
    """How long things take, in seconds; by default as on WhatsApp Web."""

    first_s: float = 60.0
    """The first QR code of a batch lives this long."""
    next_s: float = 20.0
    refs: int = 6
    """QR codes of a batch; after the last one the page shows a reload button."""
    code_s: float = 160.0
    """A pairing code lives this long; then QR codes come back."""
    code_tries: int = 4
    """So many pairing codes an hour does a phone number get."""
    sync_s: float = 3.0
    busy_s: float = 30.0
    """A page that is `busy` works this long without a pause."""
    rest_s: float = 4.0
    unlink_s: float = 300.0
    """A dialog about what is new unlinks the device when it is left alone for so long."""

    REAL: ClassVar["Cadence"]
    QUICK: ClassVar["Cadence"]


Cadence.REAL = Cadence()
Cadence.QUICK = Cadence(first_s=6.0, next_s=3.0, code_s=15.0, code_tries=100, sync_s=1.0, unlink_s=20.0)


async def serve(host: str, port: int, cadence: Cadence, ready: Callable[[str], None]) -> None:
    """Serve until cancelled; ``ready`` is called with the address once it is reachable."""
    async with Simulator(host, port, cadence) as simulator:
        ready(simulator.url)
        await asyncio.Event().wait()


class Simulator:
    """``async with Simulator() as sim: sim.url``. Nothing of it is left after the block."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, cadence: Cadence = Cadence.REAL) -> None:
        if host != "localhost" and not _is_loopback(host):
            raise ConfigError(f"{host!r} is not a loopback address.", hint='For example "127.0.0.1".')
        self.url = ""
        self._host, self._port = host, port
        self.cadence = cadence
        """How long things take that begin from now on."""
        self._devices: dict[str, Device] = {}
        self._faults: list[Fault] = []
        self._tabs: set[Tab] = set()
        # Bounded: a code that is older than the last thousand is as unknown as one never shown.
        self._expired: deque[str] = deque(maxlen=1000)
        self._expired_codes: deque[str] = deque(maxlen=1000)
        self._tries: dict[str, deque[float]] = {}
        self.shelf = Shelf()
        self._closing = asyncio.Event()
        self._faults_changed = asyncio.Condition()
        self.hanging = 0
        """How many requests were never answered."""
        self.loads = 0
        """How many times the page was."""
        app = web.Application(client_max_size=512 * 1024, middlewares=[control.guard])
        app.add_routes(
            [
                web.get("/ws", self._socket),
                *pages.routes(self),
                *control.routes(self),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise AlreadyRunning(
                f"The simulator cannot listen on {self._host} port {self._port}: {os.strerror(error.errno or 0)}.",
                hint="Choose another one with --port.",
            ) from None
        self._port = self._runner.addresses[0][1]
        self.url = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}/"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for tab in self._tabs:
            tab.drop()
        await self._runner.cleanup()

    # --- the phone --------------------------------------------------------------------------------------

    @property
    def devices(self) -> tuple[Device, ...]:
        return tuple(self._devices.values())

    def scan(self, text: str, phone: str) -> Device:
        """Link the page that shows this QR code. Raises `Refusal`."""
        # Builds of the page may put an address before or after the code.
        tab = next((tab for tab in self._tabs if tab.qr is not None and tab.qr in text), None)
        if tab is None or tab.qr is None:
            if any(code in text for code in self._expired):
                raise Refusal(
                    410, "qr_expired", "This QR code is used up: it was scanned, replaced or closed."
                )
            raise Refusal(404, "qr_unknown", "No page of this simulator has shown this QR code.")
        return self._pair(tab, phone)

    def enter(self, code: str) -> Device:
        """Link the page that shows this pairing code, on the phone that it is for. Raises `Refusal`."""
        tab = next((tab for tab in self._tabs if tab.code == code), None)
        if tab is None:
            if code in self._expired_codes:
                raise Refusal(
                    410, "code_expired", "This pairing code is used up: entered, replaced or too old."
                )
            raise Refusal(404, "code_unknown", "No page of this simulator has shown this pairing code.")
        return self._pair(tab, tab.phone)

    def _pair(self, tab: Tab, phone: str) -> Device:
        self._expire(tab)
        self._faults = [
            fault
            for fault in self._faults
            if fault.name != "unpaired_with_marks" or not fault.hits(tab.browser)
        ]
        device = Device(self._free_wid(phone), secrets.token_hex(32), tab.browser)
        self._devices[device.wid] = device
        tab.begin(tab.send("pair-success", wid=device.wid, key=device.key), "pair")
        return device

    async def log_out(self, wid: str) -> None:
        """Unlink a device, as its phone would. Raises `Refusal`."""
        device = self.device(wid)
        del self._devices[wid]
        if device.tab is not None:
            await device.tab.send("stream-error", code=516, reason="device_removed")

    async def deliver(self, wid: str, message: Message) -> None:
        """Have the other side write to a device; one that is not connected gets it when it is. Raises `Refusal`."""
        device = self.device(wid)
        device.mailbox.add(message)
        if device.tab is not None and device.tab.caught_up:
            await device.tab.send("message", message=message.told())

    def device(self, wid: str) -> Device:
        """Raises `Refusal`."""
        if wid not in self._devices:
            raise Refusal(404, "wid_unknown", "No linked device has this wid.")
        return self._devices[wid]

    def _free_wid(self, phone: str) -> str:
        number = 1
        while (wid := f"{phone}:{number}@c.us") in self._devices:
            number += 1
        return wid

    # --- faults -----------------------------------------------------------------------------------------

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._faults)

    async def inject(
        self, name: str, value: str | None = None, *, wid: str | None = None, ref: str | None = None
    ) -> Fault:
        """Begin a fault, for one device or page, or for all. Of several with one name the latest counts. Raises `Refusal`."""
        if value is None and name in VALUES:
            value = VALUES[name].default
        browser = None
        if wid is not None:
            browser = self.device(wid).browser
        elif ref is not None:
            tab = next((tab for tab in self._tabs if tab.qr is not None and tab.qr.startswith(ref)), None)
            if tab is None:
                raise Refusal(404, "qr_unknown", "No page shows a QR code that begins so.")
            browser = tab.browser
        fault = Fault(name, browser, wid, ref, value)
        hit = [tab for tab in self._tabs if fault.hits(tab.browser)]
        if name in DROPS:
            for tab in hit:
                tab.drop()
        if name not in ONCE or not hit:
            self._faults.append(fault)
        await self._tell_faults(hit if name in ONCE else (), fault)
        return fault

    async def clear_faults(
        self, name: str | None = None, *, wid: str | None = None, ref: str | None = None
    ) -> None:
        """End the faults of this name, of this target, or all."""

        def ends(fault: Fault) -> bool:
            return all(
                asked is None or asked == its
                for asked, its in ((name, fault.name), (wid, fault.wid), (ref, fault.ref))
            )

        self._faults = [fault for fault in self._faults if not ends(fault)]
        async with self._faults_changed:
            self._faults_changed.notify_all()
        await self._tell_faults()

    def suffered(self, browser: str) -> dict[str, str | None]:
        """The names of a browser's faults, with their values."""
        return {fault.name: fault.value for fault in self._faults if fault.hits(browser)}

    async def _tell_faults(self, hit: Collection[Tab] = (), once: Fault | None = None) -> None:
        """Each page what it has to suffer; the pages that are ``hit`` ``once`` also that."""
        for tab in tuple(self._tabs):
            suffered = self.suffered(tab.browser)
            if once is not None and tab in hit:
                suffered[once.name] = once.value
            tab.mute = tab.mute or "never_answers" in suffered
            await tab.send("faults", **self._told(suffered))

    def _told(self, suffered: Mapping[str, str | None]) -> dict[str, Any]:
        values = {name: value for name, value in suffered.items() if value is not None}
        return {
            "names": sorted(suffered),
            "values": values,
            "busy_s": self.cadence.busy_s,
            "rest_s": self.cadence.rest_s,
            "unlink_s": self.cadence.unlink_s,
        }

    # --- the page ---------------------------------------------------------------------------------------

    async def hang_if_asked(self, browser: str) -> None:
        if "never_answers" in self.suffered(browser):
            self.hanging += 1
            await self._closing.wait()

    def wrong_answer(self, browser: str) -> str | None:
        """What this load is answered instead of the page; each is for one load."""
        asked = next((one for one in self._faults if one.name == "answers" and one.hits(browser)), None)
        if asked is None:
            return None
        self._faults.remove(asked)
        return asked.value or "500"

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=1 << 20)
        await ws.prepare(request)
        tab = Tab(ws, request.transport, request.cookies.get(pages.COOKIE, ""))
        self._tabs.add(tab)
        try:
            async for message in ws:
                if message.type is not WSMsgType.TEXT:
                    break
                await self._hear(tab, message.data)
        finally:
            self._tabs.discard(tab)
            self._expire(tab)
            _leave(tab)
            await tab.end()
        return ws

    async def _hear(self, tab: Tab, text: str) -> None:
        if tab.mute:
            return
        match _parsed(text):
            case {"kind": "hello"}:
                await self._welcome(tab)
            case {"kind": "pair", "keys": [str(), str(), str(), str()] as keys}:
                _leave(tab)
                tab.keys = ",".join(keys)
                tab.begin(self._show_codes(tab), "codes")
            case {"kind": "refs"} if tab.keys and tab.qr is None:
                self._expire(tab)
                tab.begin(self._show_codes(tab), "codes")
            case {"kind": "code", "phone": str(phone)} if tab.keys:
                await self._offer_code(tab, phone)
            case {"kind": "paired"}:
                await tab.send("stream-error", code=515)
            case {"kind": "login", "wid": str(wid), "key": str(key)}:
                await self._log_in(tab, wid, key)
            case {"kind": "received", "chat": str(chat), "id": str(key)} if tab.device is not None:
                tab.device.mailbox.delivered(chat, key)
            case {"kind": "message", "message": dict(values)} if tab.device is not None:
                await self._take(tab, tab.device.mailbox, values)
            case {"kind": "logout"} if tab.device is not None:
                await self.log_out(tab.device.wid)
            case _:
                await tab.send("failure", code=400)

    async def _welcome(self, tab: Tab) -> None:
        suffered = self.suffered(tab.browser)
        drops = bool(suffered.keys() & DROPS)
        done = suffered.keys() & (DROPPED_ONCE if drops else ONCE)
        self._faults = [
            fault for fault in self._faults if fault.name not in done or not fault.hits(tab.browser)
        ]
        tab.mute = "never_answers" in suffered
        if drops:
            tab.drop()
        else:
            await tab.send("welcome", **self._told(suffered))

    async def _show_codes(self, tab: Tab) -> None:
        try:
            for number in range(self.cadence.refs):
                ref = "2@" + base64.b64encode(secrets.token_bytes(66)).decode()
                tab.qr = f"{ref},{tab.keys}"
                await tab.send("qr", ref=ref, rows=_matrix(tab.qr))
                await asyncio.sleep(self.cadence.next_s if number else self.cadence.first_s)
                self._expire(tab)
                if "stale_qr" in self.suffered(tab.browser):
                    return
        except segno.DataOverflowError:
            await tab.send("failure", code=400)
        else:
            await tab.send("qr-idle")

    async def _offer_code(self, tab: Tab, phone: str) -> None:
        if not control.PHONE.fullmatch(phone):
            await tab.send("code-refused", reason="invalid phone number")
            return
        now = time.monotonic()
        tries = self._tries.setdefault(phone, deque(maxlen=self.cadence.code_tries))
        if len(tries) == self.cadence.code_tries and now - tries[0] < _HOUR_S:
            await tab.send("code-refused", reason="rate-overlimit")
        else:
            tries.append(now)
            self._expire(tab)
            tab.phone, tab.code = phone, "".join(secrets.choice(_CODE) for _ in range(8))
            tab.begin(self._show_code(tab, tab.code), "code")

    async def _show_code(self, tab: Tab, code: str) -> None:
        await tab.send("code", code=code)
        await asyncio.sleep(self.cadence.code_s)
        self._expire(tab)
        await self._show_codes(tab)

    def _expire(self, tab: Tab) -> None:
        """What is on screen of it links nothing any more."""
        if tab.qr is not None:
            self._expired.append(tab.qr)
        if tab.code is not None:
            self._expired_codes.append(tab.code)
        tab.qr = tab.code = None

    async def _log_in(self, tab: Tab, wid: str, key: str) -> None:
        device = self._devices.get(wid)
        if device is None or not hmac.compare_digest(device.key, key):
            await tab.send("failure", code=401)
            return
        if device.tab is not None and device.tab is not tab:
            await device.tab.send("stream-error", code="conflict", reason="replaced")
            _leave(device.tab)
        device.tab, device.browser, device.connected_since = tab, tab.browser, time.time()
        tab.device = device
        await tab.send("success")
        tab.begin(self._sync(tab, device), "sync")

    async def _sync(self, tab: Tab, device: Device) -> None:
        await asyncio.sleep(self.cadence.sync_s)
        async with self._faults_changed:
            await self._faults_changed.wait_for(lambda: "syncing" not in self.suffered(tab.browser))
        history = [message.told() for message in device.mailbox.history]
        tab.synced = True
        await tab.send("synced", wid=device.wid, history=history)
        told: set[str] = set()
        # One that comes meanwhile waits for its turn.
        while waiting := [message for message in device.mailbox.waiting if message.id not in told]:
            for message in waiting:
                await tab.send("message", message=message.told())
                told.add(message.id)
        tab.caught_up = True

    async def _take(self, tab: Tab, mailbox: Mailbox, values: Mapping[str, Any]) -> None:
        """A message of the app's, which the page sends again until it is acknowledged."""
        try:
            message = read(values, self.shelf)
        except ValueError:
            await tab.send("failure", code=400)
            return
        mailbox.add(message)
        for ack in (1, 2):
            await tab.send("ack", id=message.id, ack=ack, t=message.at)


def _leave(tab: Tab) -> None:
    """The page is no longer the one its device is connected by."""
    if tab.device is not None and tab.device.tab is tab:
        tab.device.tab = tab.device.connected_since = None
    tab.device = None


def _matrix(text: str) -> list[str]:
    # The mask is only a matter of looks to a decoder, and trying all eight takes four times as long.
    return ["".join(map(str, row)) for row in segno.make(text, micro=False, error="l", mask=3).matrix]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
