"""Who drives the page of one client: those that are attached by the relay, and the one among them that owns the page."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from urllib.parse import urlsplit

from waguard.browser.devtools import DevTools
from waguard.browser.page import Page
from waguard.core.actor import Actor, acting
from waguard.core.health.lease import Held
from waguard.core.health.plans import ENDS_BROWSER
from waguard.core.model import Stage
from waguard.errors import DeadlineExceeded, NoPage, PageFailed, TooManyAttached
from waguard.relay.client import Client, Closing, End
from waguard.relay.connection import Block
from waguard.relay.replay import Replay
from waguard.session.instance import Instance
from waguard.session.lease import PageLease, Pulled
from waguard.session.left_running import LeftRunning
from waguard.system.deadline import Span, within
from waguard.system.repeats import Repeats
from waguard.system.tasks import forget
from waguard.whatsapp import page as whatsapp

_LOOK_S = 0.1
"""How often it is looked whether a browser is back that somebody waits for."""
_REPEATS = 20
"""So often each kind of event is told of one actor in ten seconds: whoever attaches in a loop does not fill the history."""


class Driving:
    def __init__(self, instance: Instance, lease: PageLease, probe: str, uploads: Mapping[str, str]) -> None:
        """``probe``: the page's reader. ``uploads``: see `Uploads.paths`."""
        self._instance = instance
        relay = instance.resources.config.relay
        self._probe = probe
        self._uploads = uploads
        self._missable = whatsapp.missable(probe) if relay.replay_synced else None
        self._lease = lease
        parts = urlsplit(instance.resources.config.whatsapp.url)
        self._home = f"{parts.scheme}://{parts.netloc}"
        self._since: dict[Client, float | None] = {}
        """Those that are attached, monotonic; None: its browser has gone, and it waits for the next one."""
        self._left_at: float | None = None
        """Unix time at which a client has last left something in the page's document of then; None if none has."""
        self._left_running = LeftRunning(lease, relay.blocked_s)
        self._repeats = Repeats(_REPEATS)
        lease.silence.observe(self._page_silent)
        lease.pulled.observe(self._page_pulled)

    @property
    def attached(self) -> int:
        return len(self._since)

    async def attach(self, actor: Actor, *, takes_over: bool, follows: bool = False) -> Client:
        """Let a client in. Raises `NoPage`, `TooManyAttached`, `PageFailed`, `DeadlineExceeded`."""
        devtools, page = self._shown()
        config = self._instance.resources.config
        self._find_room()
        client = Client(
            self,
            actor,
            self._instance.resources.relay_budget,
            takes_over=takes_over,
            blocked_s=config.relay.blocked_s,
            silent_s=config.relay.silent_s,
            replay=Replay(self._probe, self._missable) if self._missable is not None else None,
            follows=follows,
        )
        self._since[client] = time.monotonic()
        try:
            async with self._in_time("attaching a client"):
                await client.attach(devtools, page.target, self._home, self._uploads)
        except BaseException:
            self._since.pop(client, None)
            client.leave(Closing.BROWSER, "it could not be attached")
            raise
        if client not in self._since:
            raise PageFailed("The browser has gone meanwhile.")
        self._publish("relay.attached", client)
        return client

    async def stay(self, client: Client) -> End:
        """Until the client has ended, which is returned; whoever follows is let into each browser that comes after its own."""
        while (end := await client.ended()) is None:
            await self._let_in_again(client)
        return end

    async def _let_in_again(self, client: Client) -> None:
        """Into the next browser, as soon as its page has come where it is sent: the client's own navigations would cross that one."""
        config = self._instance.resources.config
        limit_s = config.relay.follow_s
        until = time.monotonic() + limit_s
        while client in self._since and time.monotonic() < until:
            with suppress(NoPage, PageFailed, DeadlineExceeded):
                devtools, page = self._shown()
                async with self._in_time("attaching a client again"):
                    there = devtools is not client.devtools and not await page.elsewhere(config.whatsapp.url)
                    if there:
                        await client.attach(devtools, page.target, self._home, self._uploads)
                if there:
                    self._since[client] = time.monotonic()
                    self._publish("relay.attached", client)
                    return
            await asyncio.sleep(_LOOK_S)
        client.leave(Closing.BROWSER, f"its browser was not back within {limit_s:g} s")

    def _find_room(self) -> None:
        """Raises `TooManyAttached`."""
        most = self._instance.resources.config.relay.clients
        if len(self._since) >= most:
            raise TooManyAttached(
                f"{len(self._since)} clients are attached to {self._instance.code}: {most} are the most.",
                hint="End one, or raise relay.clients.",
            )

    async def browser_version(self) -> Mapping[str, str]:
        """What the browser says that it is, in the protocol's words.

        Drivers ask for it before they attach, and show what is answered here, not why a WebSocket is refused. Raises like `attach`.
        """
        devtools, _ = self._shown()
        self._find_room()
        async with self._in_time("asking the browser"):
            told = await devtools.browser.send("Browser.getVersion")
        return {name: str(value) for name, value in told.items()}

    async def page_target(self) -> tuple[str, str]:
        """The page's DevTools target, and its address. Raises `NoPage`, `PageFailed`, `DeadlineExceeded`."""
        _, page = self._shown()
        async with self._in_time("asking the browser"):
            return page.target, await page.address()

    def _shown(self) -> tuple[DevTools, Page]:
        """Raises `NoPage`."""
        browser, code = self._instance.browser, self._instance.code
        if browser is None or browser.page is None or browser.devtools is None:
            raise NoPage(f"{code} has no page now.", hint=f"Start it: waguard connect {code}")
        return browser.devtools, browser.page

    @property
    def _page(self) -> Page | None:
        return self._instance.browser.page if self._instance.browser is not None else None

    def _in_time(self, doing: str) -> AbstractAsyncContextManager[Span]:
        seconds = self._instance.resources.config.page.read_s
        return within(Stage.OPEN, seconds, doing, setting="page.read_s")

    async def has_leftovers(self, page: Page) -> bool:
        """Whether the page's document has something that clients have left, and nobody is attached. Raises `PageFailed`, `DeadlineExceeded`."""
        if self._left_at is None or self._since:
            return False
        async with self._in_time("asking the page for its age"):
            began_ms = await page.look("performance.timeOrigin")
        if self._since:
            return False
        if isinstance(began_ms, int | float) and began_ms < self._left_at * 1000:
            return True
        self._left_at = None
        return False

    def _page_silent(self, silent: bool) -> None:
        for client in self._since:
            client.page_silent(silent=silent)
        self._left_running.page_silent(self._page, silent=silent)

    def _page_pulled(self, pulled: Pulled) -> None:
        for client in [*self._since]:
            ends = client.lose if pulled.remedy in ENDS_BROWSER else client.leave
            ends(Closing.REMEDY, pulled.why)

    def end_all(self, code: Closing, why: str) -> None:
        for client in [*self._since]:
            client.leave(code, why)

    # --- what a client asks for

    def take_page(self, client: Client) -> str:
        if self.owns_page(client):
            return ""
        owner = next(filter(self.owns_page, self._since), None)
        if owner is not None and client.takes_over:
            owner.leave(Closing.TAKEN_OVER, f"{client} has taken the page over")
        try:
            self._lease.drive(client, "it drives it")
        except Held as held:
            since = time.time() - (time.monotonic() - held.hold.since_s)
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
            return f"{held.hold.holder} has the page since {at}; ?takeover=true takes it"
        self._publish("relay.page_taken", client)
        return ""

    def owns_page(self, client: Client) -> bool:
        return self._lease.drives(client)

    @property
    def owner(self) -> Actor | None:
        """Whose the page is."""
        return next((one.actor for one in self._since if self.owns_page(one)), None)

    def leave_page(self, client: Client) -> None:
        if self._lease.end_drive(client):
            self._publish("relay.page_left", client)

    def refused(self, client: Client, method: str, reason: str) -> None:
        self._publish("relay.refused", client, method=method, reason=reason)

    def made(self, context: str) -> None:
        browser = self._instance.browser
        if self._page is not None:
            self._page.apart.add(context)
        if browser is not None and browser.devtools is not None:
            # A full Chromium downloads there too, by itself.
            deny = {"behavior": "deny", "browserContextId": context}
            with suppress(PageFailed):
                forget(browser.devtools.browser.send("Browser.setDownloadBehavior", deny))

    def stalls(self, client: Client, session: str, block: Block, *, begins: bool) -> None:
        self._lease.stall((client, session, block), begins=begins)
        if begins:
            self._page_waits(client, block)

    def replayed(self, client: Client) -> None:
        self._publish("relay.replayed", client)

    def failed(self, error: Exception) -> None:
        self._instance.resources.bus.bug("relay", error, self._instance.code)

    def lost(self, client: Client, reason: str) -> None:
        self.leave_page(client)
        if self._page is not None:
            self._page.apart -= client.contexts
        if client.exposed:
            self._left_at = time.time()
        if (since := self._since.get(client)) is not None:
            self._since[client] = None
            lasted = round((time.monotonic() - since) * 1000, 1)
            self._publish("relay.detached", client, reason=reason, lasted_ms=lasted)

    def gone(self, client: Client, end: End) -> None:
        self.lost(client, end.reason)
        self._since.pop(client, None)
        if end.code is not Closing.REMEDY and client.leaves_script and self._page is not None:
            self._left_running.leave(self._page, partial(self._page_waits, client, Block.SCRIPT))

    def _page_waits(self, client: Client, block: Block) -> None:
        self._publish("relay.page_waits", client, why=block.value)

    def _publish(self, name: str, client: Client, /, **fields: object) -> None:
        if (left_out := self._repeats.left_out((str(client.actor), name))) is not None:
            with acting(client.actor):
                self._instance.publish(name, **fields, left_out=left_out)
