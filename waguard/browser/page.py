"""One page of one browser: go somewhere, ask it something. Every call has the caller's deadline; none decides anything."""

import asyncio
import base64
import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from waguard.browser.devtools import DevTools, Session
from waguard.browser.find import Binary
from waguard.browser.flags import client_hints, user_agent
from waguard.browser.observers import Observers
from waguard.config.sections import Browser
from waguard.core.address import same_origin
from waguard.errors import PageFailed, PageUnreachable
from waguard.system.tasks import forget

_MOST_ADDRESSES = 64
"""So many are kept while nobody listens, each cut at `_MOST_ADDRESS` characters: it is the page that makes them."""
_MOST_ADDRESS = 2048
_WHY: Sequence[tuple[str, tuple[str, str]]] = (
    (
        "net::ERR_CERT_AUTHORITY_INVALID$",
        (
            ", a certificate that no authority has signed which the browser trusts",
            "If a proxy looks into TLS here, as in many companies, name its CA's certificate: browser.ca_file in config.toml.",
        ),
    ),
    (
        "net::ERR_CERT_DATE_INVALID$",
        (
            ", a certificate that is not valid at this time",
            "Is the clock of this machine right? Else whoever signs certificates here has to renew it; browser.ca_file does not help.",
        ),
    ),
    (
        "net::ERR_CERT_",
        (
            ", a certificate that the browser does not accept",
            "Is it WhatsApp that answers, or something in between? browser.ca_file in config.toml names a company's own CA.",
        ),
    ),
    (
        r"net::ERR_(\w*PROXY|TUNNEL_|SOCKS_)",
        (
            ", no way through the proxy",
            "Is the proxy up that browser.extra_flags names, is its port in sandbox.connect_ports? One that asks for a password: waguard settings CODE",
        ),
    ),
    (
        "net::ERR_NAME_",
        (
            ", the name is not found",
            "Does name resolution work on this machine (/etc/resolv.conf)? Is whatsapp.url right?",
        ),
    ),
    ("", ("", "Is the network up? Is whatsapp.url right?")),
)
"""What the browser's word means, and what may help; the first that fits holds."""


@contextlib.contextmanager
def _made_sense() -> Iterator[None]:
    """Around the look into an answer: a browser that was taken over answers what it likes. Raises `PageFailed`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError):
        raise PageFailed("The browser's answer makes no sense.") from None


class Page:
    def __init__(self, devtools: DevTools, session: Session, target: str) -> None:
        self._devtools = devtools
        self._session = session
        self._frame = target  # a page's main frame has its number
        self.target = target
        """The id of its DevTools target, which it keeps for life."""
        self.addresses = Observers[str](_MOST_ADDRESSES)
        """Each address that the page comes to."""
        self.others = Observers[str](_MOST_ADDRESSES)
        """The target of each other page that its browser opens."""
        self.apart = set[str]()
        """Contexts that guests have made: their pages are none of this one's."""
        self._crashes = Observers[None]()
        devtools.browser.observe("Target.targetCreated", self._note_other)
        for told in ("Target.targetCreated", "Target.targetInfoChanged"):
            devtools.browser.observe(told, self._note_address)
        self.crashed = asyncio.Event()
        """Its renderer is gone, and there is no other one yet."""
        session.observe("Inspector.targetCrashed", lambda _params: self._note_crash())
        session.observe("Inspector.targetReloadedAfterCrash", lambda _params: self.crashed.clear())

    @classmethod
    async def attach(cls, devtools: DevTools) -> Self:
        """Attach to the one page that the browser opened with.

        Only Inspector and Performance are enabled. Runtime, Network and Log would let a hostile page flood the pipe with events, with
        Page every alert() would hang until somebody closes it; drivers of pages, pyppeteer's `Page` too, enable all of them. Its address is told by the
        discovery of targets, which stays on: one event for each that is committed, none left out (tried with Chromium 156: 200 in
        ten seconds, and no more, of a page that changes it as fast as it can).
        """
        target = await _first_page(devtools)
        session = await devtools.attach(target)
        await session.send("Inspector.enable")
        await session.send("Performance.enable")  # it counts, and sends nothing by itself
        return cls(devtools, session, target)

    @classmethod
    def resume(cls, devtools: DevTools, session_id: str, target: str) -> Self:
        """The page of a browser that an earlier daemon has attached to, as it is. Waits for nothing: it may be hung.

        What its address was meanwhile waits in the pipe; of a daemon that did not ask for it nothing is told.
        """
        session = devtools.resume(session_id)
        page = cls(devtools, session, target)
        # If its renderer has crashed while nobody listened, this has it said again (tried with Chromium 156).
        with contextlib.suppress(PageFailed):  # the pipe is closed: who watches it tells
            forget(session.send("Inspector.enable"))
        return page

    @property
    def session_id(self) -> str:
        """With it `resume` finds the page again."""
        return self._session.id or ""

    async def disguise(self, binary: Binary, settings: Browser) -> None:
        """User agent and client hints without the word Headless, for the page and its workers."""
        await self._session.send(
            "Emulation.setUserAgentOverride",
            {
                "userAgent": user_agent(binary, settings.user_agent),
                "acceptLanguage": settings.language,
                "userAgentMetadata": client_hints(binary),
            },
        )

    async def open(self, url: str) -> None:
        """Go to ``url``; returns when the navigation is committed. Raises `PageUnreachable`, `PageFailed` if it cannot be."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        # Where storage may be evicted, WhatsApp Web was reported to hang at "Loading your chats". Chromium refuses this to an
        # origin that is not secure (headless-shell does not, 156): such a page is opened all the same.
        permission = {"origin": origin, "permissions": ["durableStorage"]}
        forget(self._devtools.browser.send("Browser.grantPermissions", permission))
        nowhere = {"permission": {"name": "geolocation"}, "setting": "denied", "origin": origin}
        forget(self._devtools.browser.send("Browser.setPermission", nowhere))  # a server is somewhere else
        answer = await self._session.send("Page.navigate", {"url": url})
        if error := answer.get("errorText"):
            if error == "net::ERR_ABORTED":  # something else came between
                raise PageFailed(f"{origin} cannot be opened: {error}.")
            why, hint = next(told for form, told in _WHY if re.match(form, error))
            raise PageUnreachable(f"{origin} cannot be opened: {error}{why}.", hint=hint)

    async def address(self) -> str:
        """Of what it shows. The browser says so, for a page that has crashed too. Raises `PageFailed`."""
        answer = await self._session.send("Page.getNavigationHistory")
        with _made_sense():
            return str(answer["entries"][answer["currentIndex"]]["url"])

    async def elsewhere(self, url: str) -> bool:
        """Whether what it shows is not of the origin of ``url``. Raises `PageFailed`."""
        return not same_origin(await self.address(), url)

    async def evaluate(self, expression: str) -> Any:
        """The expression's value as JSON, in the page's own world: whatever it calls may be the page's.

        Raises `PageFailed` when it throws, when its page goes away meanwhile, or when the answer is longer than any should be.
        """
        return await self._evaluate({"expression": expression})

    async def promised(self, expression: str) -> Any:
        """Likewise, of a promise, once it is kept."""
        return await self._evaluate({"expression": expression, "awaitPromise": True})

    async def look(self, expression: str) -> Any:
        """Like `evaluate`, in a world of our own: the same document, and nothing of the page's scripts."""
        return await self._evaluate({"expression": expression, "contextId": await self._world()})

    async def settled(self, expression: str) -> Any:
        """Like `look`, but of a promise, once it is kept."""
        apart = {"contextId": await self._world(), "awaitPromise": True}
        return await self._evaluate({"expression": expression, **apart})

    async def _evaluate(self, parameters: dict[str, Any]) -> Any:
        answer = await self._session.send("Runtime.evaluate", {**parameters, "returnByValue": True})
        if "exceptionDetails" in answer:
            raise PageFailed("The page reader's script threw in the page.")
        with _made_sense():
            return answer["result"].get("value")

    async def _world(self) -> int:
        """Each document has one, made when it is first asked for. To ask takes 0.4 ms; to know one of a document that has gone
        could lead into the page's own world of the next, in whose process the same number may be.
        """
        if not self._frame:
            target = await self._session.send("Target.getTargetInfo")
            with _made_sense():
                self._frame = target["targetInfo"]["targetId"]
        world = {"frameId": self._frame, "worldName": "waguard"}
        answer = await self._session.send("Page.createIsolatedWorld", world)
        with _made_sense():
            return int(answer["executionContextId"])

    async def metrics(self) -> Any:
        """Counters of the page's renderer. Answered in the middle of a script too (tried with Chromium 156)."""
        return (await self._session.send("Performance.getMetrics")).get("metrics")

    def terminate(self) -> "asyncio.Future[Any]":
        """End the script that runs, or else the next; the page stays. Answered in the middle of it. Raises `PageFailed`, at once too."""
        return self._session.send("Runtime.terminateExecution")

    async def cookies(self, url: str) -> Any:
        """Those that would be sent there; the network service answers."""
        return await self._session.send("Network.getCookies", {"urls": [url]})

    async def screenshot(self) -> bytes:
        """A PNG of the visible page. Raises `PageFailed`."""
        answer = await self._session.send("Page.captureScreenshot", {"format": "png"})
        with _made_sense():
            return base64.b64decode(answer["data"], validate=True)

    def abandon(self) -> None:
        """Whoever waits for an answer of the page's waits no more: its renderer is gone, and will give none."""
        self._devtools.abandon(self._session)

    @property
    def disconnected(self) -> bool:
        """Whether its browser's pipe is closed."""
        return not self._devtools.connected

    @property
    def gone(self) -> bool:
        """Whether the page is there no more, though its browser is."""
        return not self._session.attached and self._devtools.connected

    def observe_crash(self, call: Callable[[None], None]) -> Callable[[], None]:
        """Call this when the page's renderer is gone, until what is returned is called; at once if it is."""
        if self.crashed.is_set():
            call(None)
        return self._crashes.observe(call)

    def _note_address(self, params: dict[str, Any]) -> None:
        match params:
            case {"targetInfo": {"targetId": self.target, "url": str(url)}}:
                self.addresses.tell(url[:_MOST_ADDRESS])

    def _note_other(self, params: dict[str, Any]) -> None:
        match params:
            case {"targetInfo": {"browserContextId": str(context)}} if context in self.apart:
                return
            case {"targetInfo": {"targetId": str(other), "type": "page"}} if self.target not in {"", other}:
                self.others.tell(other)

    def close_other(self, target: str) -> None:
        """Waits for nothing."""
        with contextlib.suppress(PageFailed):
            forget(self._devtools.browser.send("Target.closeTarget", {"targetId": target}))

    def _note_crash(self) -> None:
        # It may be said twice: kept in the pipe while there was no daemon, and asked for by the next one.
        if not self.crashed.is_set():
            self.crashed.set()
            self._crashes.tell(None)


async def _first_page(devtools: DevTools) -> str:
    """The target of the first page; right after the start there may be none yet, and then its creation is announced."""
    created: asyncio.Queue[str] = asyncio.Queue()

    def note(params: dict[str, Any]) -> None:
        match params:
            case {"targetInfo": {"targetId": str(target), "type": "page"}}:
                created.put_nowait(target)

    end = devtools.browser.observe("Target.targetCreated", note)
    try:
        # With discovery on, the browser announces what is there already, then what comes.
        discover = {"discover": True, "filter": [{"type": "page"}]}
        await devtools.browser.send("Target.setDiscoverTargets", discover)
        return await created.get()
    finally:
        end()
