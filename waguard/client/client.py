"""A daemon and its sessions, as an app asks for them: each verb of `asking.verbs`, carried out."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from waguard.asking import daemon, verbs
from waguard.asking.ask import UNIX, Ask
from waguard.client.events import follow
from waguard.client.waiting import late, settled
from waguard.client.wire import Wire
from waguard.core.model import ClientCode, Status, client_code
from waguard.core.shown import EventView, SessionView
from waguard.errors import InvalidRequest, Unauthorized, WaguardError

if TYPE_CHECKING:
    from pyppeteer.browser import Browser
    from pyppeteer.page import Page

P = ParamSpec("P")
T = TypeVar("T")

URL = "http://127.0.0.1:8717"
ENV_TOKEN = "WAGUARD_TOKEN"  # noqa: S105 (the name of a variable, not a secret)
PATIENCE_S, SILENT_S, GONE_S = 1800.0, 60.0, 600.0
_PAUSE_S = 1.0
"""Before what has failed for a moment is looked at again."""


def _done(verb: Callable[P, Ask[T]]) -> Callable[Concatenate["Client", P], Coroutine[Any, Any, T]]:
    """The verb, carried out."""

    @wraps(verb)
    async def do(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.do(verb(*args, **kwargs))

    return do


def _of_one(
    verb: Callable[Concatenate[ClientCode, P], Ask[T]],
) -> Callable[Concatenate["Session", P], Coroutine[Any, Any, T]]:
    """Likewise, for the session's client."""

    @wraps(verb)
    async def do(self: "Session", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.client.do(verb(self.code, *args, **kwargs))

    return do


class Client:
    """Of one daemon. Leaving it detaches from every page, and leaves each as it is.

    ``url``: the control port's, or ``unix:///PATH`` of its socket. ``token``: None: what ``WAGUARD_TOKEN`` holds; the socket needs none.
    ``patience_s``: how long the daemon takes at most for what it does, if it keeps its deadlines, in seconds.
    Raises `Unauthorized` if there is no token, `InvalidRequest` for an address that is none. Each verb raises what the daemon answers as its
    `WaguardError`; `NoDaemon` if none is there, `NoAnswer` if it breaks off or is late, `NotWaguard` if something else answers.
    """

    def __init__(
        self,
        url: str = URL,
        token: str | None = None,
        environ: Mapping[str, str] = os.environ,
        *,
        patience_s: float = PATIENCE_S,
        silent_s: float = SILENT_S,
    ) -> None:
        token = environ.get(ENV_TOKEN, "") if token is None else token
        if not token and not url.startswith(UNIX):
            raise Unauthorized(
                f"There is no token, and {ENV_TOKEN} holds none.", hint="waguard token CODE prints one."
            )
        self._wire = Wire(url, token or None, patience_s, silent_s)
        self._browsers: list[Browser] = []

    async def __aenter__(self) -> Self:
        await self._wire.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._wire.close)
            while self._browsers:
                stack.push_async_callback(self._browsers.pop().disconnect)

    async def do(self, ask: Ask[T]) -> T:
        """Any request of `waguard.asking.verbs` and `waguard.asking.daemon`. One that broke off is sent again for ten seconds, with the same Idempotency-Key, if that does no harm."""
        return await self._wire.do(ask)

    def session(self, code: str) -> "Session":
        """One client's. Nothing is asked yet. Raises `InvalidClientCode`."""
        return Session(self, client_code(code))

    async def sessions(
        self,
        *,
        status: Collection[Status] = (),
        labels: Collection[str] = (),
        text: str = "",
        page: int = 100,
    ) -> AsyncGenerator[SessionView, None]:
        """All that the token is for, asked for page by page. ``status``, ``labels``: only of one of these; ``text``: with this in their code, number or name."""
        cursor = ""
        while True:
            found = await self.list_sessions(
                status=status, labels=labels, text=text, limit=page, cursor=cursor
            )
            for one in found.sessions:
                yield one
            if found.next is None:
                return
            cursor = found.next

    def events(
        self,
        *,
        after: str = "",
        clients: Collection[str] = (),
        labels: Collection[str] = (),
        kinds: Collection[str] = (),
        gone_s: float = GONE_S,
    ) -> AsyncGenerator[EventView, None]:
        """What happens, from now on or from behind the event with the id ``after``. It comes back by itself, to the next daemon too, and goes on where it was.

        First comes `feed.ready`: from there on nothing is missed. `feed.missed` says that there was more that cannot be told any more: look at everything anew.
        An event without an id may come twice. ``gone_s``: a daemon that is away for longer is given up, with `NoDaemon` or `NoAnswer`.
        """
        asked = partial(_feed, clients, labels, kinds)
        return follow(self._wire, asked, after, gone_s)

    list_sessions = _done(daemon.list_sessions)
    events_ticket = _done(daemon.events_ticket)
    alive = _done(daemon.alive)
    not_ready = _done(daemon.not_ready)
    openapi = _done(daemon.openapi)
    stats = _done(daemon.stats)
    schedule = _done(daemon.schedule)
    reap = _done(daemon.reap)
    tokens = _done(daemon.tokens)
    create_token = _done(daemon.create_token)
    rotate_token = _done(daemon.rotate_token)
    revoke_token = _done(daemon.revoke_token)
    webhooks = _done(daemon.webhooks)
    create_webhook = _done(daemon.create_webhook)
    change_webhook = _done(daemon.change_webhook)
    rotate_webhook = _done(daemon.rotate_webhook)
    delete_webhook = _done(daemon.delete_webhook)
    test_webhook = _done(daemon.test_webhook)
    webhook_messages = _done(daemon.webhook_messages)
    redrive_webhook = _done(daemon.redrive_webhook)

    async def attached(self, address: str) -> "Browser":
        """The browser at a WebSocket, until this client is left."""
        from waguard.client.page import attach  # noqa: PLC0415 (a driver is for those who drive)

        browser = await attach(address)
        self._browsers.append(browser)
        return browser

    async def detached(self, browser: "Browser") -> None:
        """From one of these, earlier."""
        self._browsers.remove(browser)
        await browser.disconnect()

    @property
    def by_socket(self) -> bool:
        return self._wire.is_socket


def _feed(clients: Collection[str], labels: Collection[str], kinds: Collection[str], after: str) -> Ask[None]:
    return daemon.events(after=after, clients=clients, labels=labels, kinds=kinds)


class Session:
    """One client's session, whether there is one yet or not. Made by `Client.session`."""

    def __init__(self, client: Client, code: ClientCode) -> None:
        self.client = client
        self.code = code

    show = _of_one(verbs.show)
    look = _of_one(verbs.look)
    connect = _of_one(verbs.connect)
    restart = _of_one(verbs.restart)
    disconnect = _of_one(verbs.disconnect)
    cleanup = _of_one(verbs.cleanup)
    undo = _of_one(verbs.undo)
    check_undo = _of_one(verbs.check_undo)
    qr = _of_one(verbs.qr)
    qr_picture = _of_one(verbs.qr_picture)
    pairing_code = _of_one(verbs.pairing_code)
    screenshot = _of_one(verbs.screenshot)
    history = _of_one(verbs.history)
    findings = _of_one(verbs.findings)
    snapshots = _of_one(verbs.snapshots)
    snapshot = _of_one(verbs.snapshot)
    export = _of_one(verbs.export)
    restore = _of_one(verbs.restore)
    check_snapshot = _of_one(verbs.check_snapshot)
    bring = _of_one(verbs.bring)
    try_import = _of_one(verbs.try_import)
    browser_version = _of_one(verbs.browser_version)
    page_ticket = _of_one(verbs.page_ticket)
    uploads = _of_one(verbs.uploads)
    upload = _of_one(verbs.upload)
    delete_upload = _of_one(verbs.delete_upload)
    downloads = _of_one(verbs.downloads)
    download = _of_one(verbs.download)
    delete_download = _of_one(verbs.delete_download)
    values = _of_one(verbs.values)
    value = _of_one(verbs.value)
    put_value = _of_one(verbs.put_value)
    delete_value = _of_one(verbs.delete_value)
    settings = _of_one(verbs.settings)
    put_settings = _of_one(verbs.put_settings)

    async def wait_connected(
        self, *, timeout_s: float = 300.0, seen: Callable[[SessionView], None] | None = None
    ) -> SessionView:
        """The session once it is connected, told by events and not polled. It starts nothing: `connect` does. ``seen`` is called with each view on the way, the one with a new QR code too.

        Raises what is in the way where waiting does not mend it (`Interrupted`, `SessionFailed`, `Refused` and the like), and `DeadlineExceeded` that says how it is then.
        """
        view: SessionView | None = None
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                async with aclosing(self.client.events(clients=[self.code], kinds=["session"])) as events:
                    # It looks when the feed has begun, and so misses nothing in between.
                    async for _ in events:
                        view = await self._looked()
                        if seen is not None:
                            seen(view)
                        if settled(view):
                            return view
        except TimeoutError:
            if not deadline.expired():
                raise
            raise late(self.code, view, timeout_s) from None
        raise AssertionError("the feed has no end")

    async def _looked(self) -> SessionView:
        """The session, as soon as it can be seen. Raises what does not pass."""
        while True:
            try:
                return await self.show()
            except WaguardError as error:
                if not error.again:
                    raise
                await asyncio.sleep(max(_PAUSE_S, error.details.get("retry_after_s", 0.0)))

    async def page(self, *, own: bool = True, takeover: bool = False) -> "Page":
        """The session's page, owned by us from here; ``takeover``: also if somebody else owns it. Not ``own``: to look, listen and type beside whoever owns it.

        Raises `NoPage` and the like, `TimeoutError`, and pyppeteer's `NetworkError` with who has the page and since when.
        """
        if self.client.by_socket:
            raise InvalidRequest(
                "pyppeteer drives no page by a unix socket.",
                hint="Give Client the http address of the control port.",
            )
        # pyppeteer waits for ever for a WebSocket that is refused: what could be wrong is asked before, and there is a ticket in the answer.
        version = await self.browser_version(takeover=takeover)
        browser = await self.client.attached(version["webSocketDebuggerUrl"])
        try:
            return await browser.newPage() if own else (await browser.pages())[0]
        except BaseException:
            await self.client.detached(browser)
            raise
