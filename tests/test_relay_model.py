"""The relay as a whole, but for its sockets, against a model of the browser: whatever three clients, the browser and the daemon do at whichever moment.

Everything between the clients' frames and the pipe is the real one: who drives, its client, connection and policy, the guests, the channel. The clock is the
test's, and the limits are small, so that they are met.
"""

import asyncio
import json
import re
from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from model_browser import DEFAULT, HOME, OF_ALL, OF_DAEMON, PAGE, Browser

from waguard.browser.channel import Limits
from waguard.browser.devtools import DevTools
from waguard.core.actor import Actor, ActorKind
from waguard.core.health.lease import Use
from waguard.core.health.plans import Remedy
from waguard.core.relay.budget import Budget
from waguard.core.relay.checks import Seat, Where
from waguard.core.relay.policy import POLICY, Verdict, judge
from waguard.errors import PageFailed, WaguardError
from waguard.relay import client as relay_client
from waguard.relay import connection, incoming, wire
from waguard.relay.client import Client, Closing
from waguard.session.driving import Driving
from waguard.session.lease import PageLease

KB = 1024
LIMITS = Limits(message=16 * KB, command=8 * KB, unsent=12 * KB, unread=24 * KB)
MOST_ASKED = 12
BLOCKED_S = 10.0
WHOSE = re.compile(r"_(?:GUEST\d+|DAEMON)_")
METHODS = sorted(
    {one.method.replace("*", "enable") for one in POLICY}
    | {
        "Runtime.evaluate",
        "Runtime.runIfWaitingForDebugger",
        "Nothing.known",
        "Page.addCompilationCache",
        "x",
    }
)
OFTEN = [
    *("Runtime.evaluate", "Target.attachToTarget", "Target.setAutoAttach", "Target.createTarget", "Target.closeTarget"),
    *("Target.detachFromTarget", "Target.createBrowserContext", "Target.attachToBrowserTarget", "Target.getTargets"),
    *("Target.setDiscoverTargets", "Target.sendMessageToTarget", "Page.close", "Tracing.end", "IO.read"),
]  # fmt: skip
URLS = ["about:blank", HOME, "file:///etc/passwd", "https://evil.example/"]
GARBAGE = [
    b'{"id":1,"method":"Browser.getVersion"}\0{"id":2,"method":"Browser.crash"}',
    b'{"id":1,"method":"Browser.crash","params":{"expression":"\0"}}',
    b'{"id":1,"method":"Browser.getVersion","params":[]}',
    b'{"id":1,"method":"Browser.getVersion","sessionId":7}',
    b"[]", b"{", b"\xff", b"", b'{"id":1e400}', b'{"id":-1,"method":"' + b"[" * 300 + b'"}', b"[" * 400,
]  # fmt: skip
clients, numbers, picks = st.integers(0, 2), st.integers(0, 3), st.integers(0, 40)


class Loop(asyncio.SelectorEventLoop):
    """Its clock goes on when the test says so."""

    now = 0.0

    def time(self) -> float:
        return self.now


class Pipe:
    """In place of the browser's: what is written comes to ``browser`` while there is room."""

    writable = True
    room = True

    def __init__(self, take: Callable[[], memoryview], written: Callable[[bytes], None]) -> None:
        self._take, self._written = take, written

    def flush(self) -> None:
        while self.room and self.writable and (piece := self._take()):
            self._written(bytes(piece))

    def close(self) -> None:
        self.writable = False


@dataclass
class Driver:
    """A client as its own side sees it."""

    relay: Client
    sent: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Commands by the session in which they were asked and their numbers, each of which is answered once."""
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    asked_for: dict[int, tuple[str, int]] = field(default_factory=dict)
    """By the serial number of a command."""
    sessions: list[str] = field(default_factory=list)
    wrapped: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    """Sessions that have ended, as it was told."""
    frames: int = 0

    @property
    def root(self) -> str:
        guest = self.relay._guest
        assert guest is not None
        return guest.session


class Relayed(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.loop = Loop()
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(lambda _, context: self.wrong.append(str(context)))
        self.wrong: list[str] = []
        self.passed: set[tuple[str, str]] = set()
        self.serial = 0
        self.expressions: dict[int, str] = {}
        self.said = bytearray()
        """What the browser has written, and nobody has read."""
        self.patches = ExitStack()
        self.patches.enter_context(patch.object(relay_client, "LIMITS", LIMITS))
        self.patches.enter_context(patch.object(wire, "_LONG", 150))
        self.patches.enter_context(patch.object(incoming, "_SHORT", 60))
        self.patches.enter_context(patch.object(incoming, "_BEGINNING", 30))
        self.budget = Budget(60 * KB)
        self.patches.enter_context(patch.object(connection, "MOST_ASKED", MOST_ASKED))
        self.patches.enter_context(patch.object(connection, "judge", self.judge))
        self.browser = Browser(self.said.extend)
        self.devtools = self.run(self.open())
        self.lease = PageLease()
        self.apart: set[str] = set()
        shown = SimpleNamespace(
            devtools=self.devtools, page=SimpleNamespace(target=PAGE, apart=self.apart), run=None
        )
        config = SimpleNamespace(
            whatsapp=SimpleNamespace(url=HOME + "/"),
            relay=SimpleNamespace(clients=3, blocked_s=BLOCKED_S, silent_s=60.0, replay_synced=False),
            page=SimpleNamespace(read_s=5.0),
        )
        bus = SimpleNamespace(bug=lambda where, error, _code: self.wrong.append(f"{where}: {error!r}"))
        instance = SimpleNamespace(
            browser=shown,
            code="demo",
            publish=lambda *_, **__: None,
            resources=SimpleNamespace(config=config, bus=bus, relay_budget=self.budget),
        )
        self.driving = Driving(cast(Any, instance), self.lease, "", {})
        self.drivers: dict[int, Driver] = {}
        self.coming: dict[int, asyncio.Task[Client]] = {}
        self.daemons: deque[tuple[str, asyncio.Future[Any]]] = deque()
        self.daemon = self.run(self.attach_daemon())
        for who in range(3):
            self.attach(who, takes_over=who == 2)
        self.settle()

    async def open(self) -> DevTools:
        devtools = DevTools()
        self.pipe = Pipe(devtools._channel.take, self.written)
        devtools._pipe = cast(Any, self.pipe)
        return devtools

    async def attach_daemon(self) -> Any:
        attaching = asyncio.ensure_future(self.devtools.attach(PAGE))
        await asyncio.sleep(0)
        self.settle()
        return await attaching

    def run(self, doing: Any) -> Any:
        return self.loop.run_until_complete(doing)

    def turn(self) -> None:
        """What is ready in the loop."""
        for _ in range(4):
            self.run(asyncio.sleep(0))
        for who, task in [*self.coming.items()]:
            if task.done():
                del self.coming[who]
                if not task.cancelled() and task.exception() is None:
                    self.drivers[who] = Driver(task.result())
                elif not task.cancelled() and not isinstance(task.exception(), WaguardError):
                    self.wrong.append(repr(task.exception()))

    # --- what is looked at in between -------------------------------------------------------------------

    def judge(self, method: str, params: dict[str, Any], seat: Seat) -> Any:
        judged = judge(method, params, seat)
        if judged.verdict is Verdict.ALLOWED:
            self.passed.add((method, self.whole(params)))
        return judged

    def whole(self, params: dict[str, Any]) -> str:
        """With the long texts in place of their names."""
        said = json.dumps(params).encode()
        for driver in self.drivers.values():
            for name, pieces in driver.relay._texts.items():
                said = said.replace(name, b"".join(pieces))
        return said.decode()

    def written(self, data: bytes) -> None:
        """To the browser: each command is looked at with what the browser itself knows of whose everything is."""
        for command in self.browser.take_in(data):
            session = self.browser.ever.get(command.get("sessionId", ""))
            if session is not None and session.whose != OF_DAEMON:
                self.look_at(command["method"], command["params"], session.id, session.whose)

    def look_at(self, method: str, params: dict[str, Any], session: str, whose: str) -> None:
        at = self.browser.ever[session]
        where = (
            Where.BROWSER
            if at.target.startswith("browser")
            else Where.OWN
            if whose in at.target
            else Where.PAGE
        )
        own = {one for one in self.contexts_ever if whose in one}
        handles = {one for one, its in self.browser.streams.items() if its == whose}
        judged = judge(method, params, Seat(where, True, HOME, own, handles))
        assert judged.verdict in {Verdict.ALLOWED, Verdict.ACTED}, (method, params, judged)
        if judged.verdict is Verdict.ALLOWED:
            by_itself = method in {
                "Runtime.runIfWaitingForDebugger",
                "Debugger.resume",
                "Runtime.terminateExecution",
            }
            assert by_itself or (method, json.dumps(params)) in self.passed, "the policy has not seen it"
            return
        target = str(params.get("targetId"))
        match method:
            case (
                "Target.closeTarget"
                | "Target.activateTarget"
                | "Target.autoAttachRelated"
                | "Target.attachToTarget"
            ):
                assert not WHOSE.search(target) or whose in target, (method, params, whose)
        match method:
            case "Target.attachToTarget" | "Target.setAutoAttach":
                assert params["flatten"] is True
            case "Target.createTarget":
                assert whose in params["browserContextId"]
                assert params.get("url", "about:blank") in {"about:blank", "https://evil.example/", HOME}
            case "Target.createBrowserContext":
                assert params["disposeOnDetach"] is True
                assert not {"proxyServer", "originsWithUniversalNetworkAccess"} & params.keys()
            case "Target.closeTarget":
                assert OF_ALL not in params["targetId"]
            case "Page.close":
                assert where is Where.OWN
            case "Target.detachFromTarget":
                assert self.browser.ever[params["sessionId"]].whose == whose
            case "Target.sendMessageToTarget" | "Target.exposeDevToolsProtocol" | "Browser.close":
                raise AssertionError(method)

    @property
    def contexts_ever(self) -> frozenset[str]:
        return self._contexts | frozenset(self.browser.contexts)

    _contexts: frozenset[str] = frozenset()

    def hear(self, driver: Driver, frame: bytes) -> None:
        """A frame that has come to a client: nothing of it is anybody else's."""
        text = frame.decode()
        own = self.browser.ever[driver.root].whose
        strange = {one for one in WHOSE.findall(text) if one != own}
        assert not strange, (own, text[:500])
        driver.frames += 1
        self.understand(driver, json.loads(frame), "")

    def understand(self, driver: Driver, said: dict[str, Any], inside: str) -> None:
        session = said.get("sessionId", inside)
        match said:
            case {"id": int(number)}:
                echo = (said.get("result") or {}).get("echo")
                if isinstance(echo, str):
                    serial = int(echo.split()[1])
                    assert echo == self.expressions[serial]
                    assert driver.asked_for[serial] == (session, number), said
                driver.answered[session, number] += 1
            case {"method": "Target.attachedToTarget", "params": {"sessionId": str(new)}}:
                driver.sessions.append(new)
            case {"method": "Target.detachedFromTarget", "params": {"sessionId": str(gone)}}:
                assert gone in driver.sessions, said
                driver.lost |= {gone}
            case {"method": "Target.receivedMessageFromTarget", "params": dict(params)}:
                driver.wrapped.add(params["sessionId"])
                self.understand(driver, json.loads(params["message"]), params["sessionId"])

    # --- clients ----------------------------------------------------------------------------------------

    def attach(self, who: int, *, takes_over: bool) -> None:
        if who in self.drivers or who in self.coming or not self.devtools.connected:
            return
        self.serial += 1
        actor = Actor(ActorKind.TOKEN, "demo", "127.0.0.1", f"request{self.serial}")

        async def attaching() -> Client:
            return await self.driving.attach(actor, takes_over=takes_over)

        self.coming[who] = self.loop.create_task(attaching())
        self.turn()

    def leave(self, who: int) -> None:
        """At whichever moment."""
        if (task := self.coming.get(who)) is not None:
            task.cancel()
        elif (driver := self.drivers.pop(who, None)) is not None:
            driver.relay.leave(Closing.DONE, "the connection has ended")
        self.turn()

    def driver(self, who: int) -> Driver | None:
        """If it is attached; else it begins to be."""
        if who not in self.drivers:
            self.attach(who, takes_over=who == 2)
        return self.drivers.get(who)

    def ids(self, kinds: str) -> list[str]:
        """Of everybody: those which begin so."""
        known = [
            *self.browser.ever,
            *self.browser.targets,
            *self.browser.contexts,
            *self.browser.streams,
            DEFAULT,
        ]
        return [one for one in known if re.match(kinds, one)] + ["nobody's"]

    def params(self, driver: Driver, which: int, more: int) -> dict[str, Any]:
        def pick(kinds: str) -> str:
            found = self.ids(kinds)
            return found[(which * 7 + more) % len(found)]

        self.serial += 1
        odd = "big12000" if more == 40 else "big40000" if more == 39 else "later" if which % 4 == 0 else ""
        own = self.browser.ever[driver.root].whose
        every: dict[str, Any] = {
            "expression": f"{own} {self.serial} \ud83d {odd}" + "long " * (30 if more % 8 == 5 else 0),
            "targetId": pick("page|tab|frame|worker|browser|opened"),
            "sessionId": pick("session"),
            "browserContextId": pick("context|default"),
            "handle": pick("stream"),
            "url": URLS[more % len(URLS)],
            "autoAttach": which % 3 > 0,
            "waitForDebuggerOnStart": which % 2 > 0,
            "discover": True,
            "flatten": more % 4 > 0,
            "transferMode": "ReturnAsStream",
            "proxyServer": "http://evil",
        }
        left_out = {
            "browserContextId": more % 3 == 0,
            "proxyServer": more % 5,
            "targetId": more % 7 == 6,
            "flatten": more % 11 == 0,
        }
        self.expressions[self.serial] = every["expression"]
        return {name: value for name, value in every.items() if not left_out.get(name)}

    @rule(who=clients, at=picks, number=numbers, method=st.sampled_from(METHODS), which=picks, more=picks)
    def ask_anything(self, who: int, at: int, number: int, method: str, which: int, more: int) -> None:
        self.ask(who, at, number, method, which, more)

    @rule(who=clients, at=picks, number=numbers, method=st.sampled_from(OFTEN), which=picks, more=picks)
    def ask_often(self, who: int, at: int, number: int, method: str, which: int, more: int) -> None:
        self.ask(who, at, number, method, which, more)

    @rule(who=clients, at=picks, method=st.sampled_from(OFTEN), which=picks, more=picks)
    def ask_and_have_it_answered(self, who: int, at: int, method: str, which: int, more: int) -> None:
        self.ask(who, at, 5, method, which, more)
        self.come_to_rest(who)

    @rule(
        who=clients, at=picks, methods=st.lists(st.sampled_from(OFTEN), min_size=2, max_size=16), which=picks
    )
    def ask_for_much(self, who: int, at: int, methods: list[str], which: int) -> None:
        for more, method in enumerate(methods):
            self.ask(who, at, 6, method, which, which + more)

    def ask(self, who: int, at: int, number: int, method: str, which: int, more: int) -> None:
        """In a session of its own, in whichever, or in none."""
        if (driver := self.driver(who)) is None:
            return
        where = [*driver.sessions, *[None] * (1 + len(driver.sessions) // 2)]
        session = where[at % len(where)]
        if at == 40:
            sessions = self.ids("session")
            session = sessions[which % len(sessions)]
        if session in driver.wrapped:
            return
        params = self.params(driver, which, more)
        self.note(driver, session or "", number, params)
        self.take(
            driver, {"id": number, "method": method, "params": params}, session, *[which, more][: at % 3]
        )

    def note(self, driver: Driver, session: str, number: int, params: dict[str, Any]) -> None:
        connection_ = driver.relay._connection
        assert connection_ is not None
        known = connection_.seen.find(session or None)
        at = "" if known is None or known.wrapped or known is connection_.seen.root else session
        driver.sent[at, number] += 1
        driver.asked_for[self.serial] = (at, number)

    def take(self, driver: Driver, command: dict[str, Any], session: str | None, *cuts: int) -> None:
        """``cuts``: where the frame is in pieces, in fiftieths of what is left of it."""
        named = {} if session is None else {"sessionId": session}
        frame = json.dumps({**command, **named}).encode()
        for cut in cuts:
            driver.relay.take(frame[: len(frame) * cut // 50], ends=False)
            frame = frame[len(frame) * cut // 50 :]
        driver.relay.take(frame)
        self.turn()

    @rule(who=clients, at=picks, number=numbers, method=st.sampled_from(METHODS), which=picks, more=picks)
    def ask_in_a_message(self, who: int, at: int, number: int, method: str, which: int, more: int) -> None:
        """A session of the old form, if it has one in the browser's own; else whichever."""
        if (driver := self.driver(who)) is None:
            return
        found = [
            one
            for one in self.connection(driver).seen.children(self.connection(driver).seen.root)
            if one.wrapped
        ]
        sessions = [one.session for one in found] or self.ids("session")
        session = sessions[at % len(sessions)]
        params = self.params(driver, which, more)
        if found:
            driver.sent[session, number] += 1
            driver.asked_for[self.serial] = (session, number)
        inner = json.dumps({"id": number, "method": method, "params": params})
        self.serial += 1
        outer = {"sessionId": session, "message": inner}
        driver.sent["", 9] += 1
        self.take(
            driver,
            {"id": 9, "method": "Target.sendMessageToTarget", "params": outer},
            None,
            *[more][: at % 2],
        )

    def connection(self, driver: Driver) -> connection.Connection:
        assert driver.relay._connection is not None
        return driver.relay._connection

    @rule(who=clients, frame=st.binary(max_size=20) | st.sampled_from(GARBAGE))
    def send_garbage(self, who: int, frame: bytes) -> None:
        if (driver := self.driver(who)) is None:
            return
        try:
            wire.parse(frame)
        except wire.Malformed as error:
            if error.number is not None:
                driver.sent["", error.number] += 1
            driver.relay.take(frame)
            self.turn()

    @rule(who=clients, key=st.sampled_from(["id", "method", "sessionId", "params"]), which=picks, more=picks)
    def ask_twice_in_one(self, who: int, key: str, which: int, more: int) -> None:
        """A key stands twice: the last one is what is judged, and what is written."""
        if (driver := self.driver(who)) is None:
            return
        params = self.params(driver, which, more)
        sessions = self.ids("session")
        foreign = sessions[which % len(sessions)]
        first = {"id": 77, "method": "Browser.crash", "sessionId": foreign, "params": {"targetId": "x"}}
        self.note(driver, foreign if key == "sessionId" else "", 2, params)
        rest = json.dumps({"id": 2, "method": "Runtime.evaluate", "params": params})[1:-1]
        last = f',"sessionId":{json.dumps(foreign)}' if key == "sessionId" else ""
        driver.relay.take(f'{{"{key}":{json.dumps(first[key])},{rest}{last}}}'.encode())
        self.turn()

    @rule(who=clients, most=st.integers(1, 8))
    def read(self, who: int, most: int) -> None:
        if (driver := self.driver(who)) is not None:
            self.read_of(driver, most)

    def read_of(self, driver: Driver, most: int = 10**6) -> None:
        for _ in range(most):
            if driver.relay.all_sent:
                break
            frame, ends = b"", False
            while not ends:
                piece = driver.relay.next_piece()
                assert piece is not None, "a frame has no end"
                frame, ends = frame + piece.data, piece.ends
            self.hear(driver, frame)
        self.turn()

    # --- the browser, the daemon, time ------------------------------------------------------------------

    @rule(which=picks, times=st.integers(1, 6), size=st.sampled_from([0, 1, 7, 100, 2000, 50_000]))
    def go_on(self, which: int, times: int, size: int) -> None:
        """The browser does some, and some of what it says is read."""
        for _ in range(times):
            if self.browser.waiting:
                self.browser.execute(which)
        self.deliver(size)

    def deliver(self, size: int) -> None:
        piece, rest = bytes(self.said[:size]), bytes(self.said[size:])
        self.said[:] = rest
        if piece:
            self.run(self.receive(piece))
            self.turn()

    async def receive(self, data: bytes) -> None:
        self._contexts = frozenset(self._contexts | set(self.browser.contexts))
        self.devtools._received(data)

    @rule(who=clients)
    def come_to_rest(self, who: int) -> None:
        if self.pipe.room:
            self.settle()
        if who in self.drivers:
            self.read_of(self.drivers[who])

    def settle(self) -> None:
        """Until nothing is under way."""
        while self.browser.waiting or self.said:
            while self.browser.waiting:
                self.browser.execute()
            data = bytes(self.said)
            self.said.clear()
            self._contexts = frozenset(self._contexts | set(self.browser.contexts))
            self.devtools._received(data)
            if not self.loop.is_running():
                self.turn()

    def make_room(self, *, room: bool) -> None:
        self.pipe.room = room
        self.pipe.flush()

    @rule(
        which=picks,
        method=st.sampled_from(
            [
                *(
                    "Runtime.consoleAPICalled",
                    "Debugger.paused",
                    "Debugger.resumed",
                    "Page.javascriptDialogOpening",
                ),
                *(
                    "Page.javascriptDialogClosed",
                    "Target.targetCrashed",
                    "Target.targetInfoChanged",
                    "Odd.event",
                ),
            ]
        ),
        more=picks,
    )
    def happen(self, which: int, method: str, more: int) -> None:
        """In whosesoever session."""
        sessions = [*self.browser.sessions.values()]
        session = sessions[which % len(sessions)]
        targets = [*self.browser.targets.values()]
        target = targets[more % len(targets)]
        secret = f"secret{session.whose}" if not method.startswith("Target.") else ""
        text = f'","sessionId":"{session.id}"}}' + "x" * (20_000 if more == 40 else 10)
        params: dict[str, Any] = {"text": text, "secret": secret}
        if method.startswith("Target."):
            params = (
                {"targetInfo": target} if method.endswith("Changed") else {"targetId": target["targetId"]}
            )
        self.browser.tell(method, params, session)

    def lose(self, which: int) -> None:
        """A session ends by itself, which is told, or with what it was attached in."""
        sessions = [one for one in self.browser.sessions.values() if one.parent]
        if sessions:
            self.browser.end(sessions[which % len(sessions)].id)

    def open_or_close(self, which: int) -> None:
        """A page in anybody's context."""
        if self.browser.contexts:
            contexts = [*self.browser.contexts]
            context = contexts[which % len(contexts)]
            whose = WHOSE.search(context)
            assert whose is not None
            opened = [one for one in self.browser.targets if one.startswith("opened")]
            if opened and which % 2:
                self.browser.destroy(opened[which % len(opened)])
            else:
                self.serial += 1
                self.browser.appear(f"opened{self.serial}x{whose[0]}", "page", context)

    def daemon_asks(self) -> None:
        self.serial += 1
        said = f"{OF_DAEMON} {self.serial}"
        try:
            asked = self.daemon.send("Runtime.evaluate", {"expression": said})
        except PageFailed:
            return
        self.daemons.append((said, asked))

    def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.turn()

    def cure(self, remedy: Remedy) -> None:
        pulling = self.loop.create_task(self.lease.pull(remedy, "a remedy"))
        self.turn()
        assert pulling.done()

    def lose_the_browser(self) -> None:
        self.run(self.lost())
        self.turn()

    async def lost(self) -> None:
        self.devtools.lose("The browser closed its pipe.")

    @rule(what=st.integers(0, 99), which=picks)
    def disturb(self, what: int, which: int) -> None:
        match what:
            case 0 if which > 30:
                self.lose_the_browser()
            case 1 | 2:
                self.cure(Remedy.RELOAD)
            case 3:
                self.cure(Remedy.RENEW)
            case 4 | 5 | 6:
                self.lease.silence.tell(which % 2 > 0)
            case _ if what < 20:
                self.leave(which % 3)
            case _ if what < 35:
                self.make_room(room=which % 2 > 0)
            case _ if what < 50:
                self.pass_time([0.5, 1.0, 2.0, 5.0, 12.0][which % 5])
            case _ if what < 65:
                self.lose(which)
            case _ if what < 75:
                self.open_or_close(which)
            case _ if what < 85:
                self.browser.come_to_later()
            case _:
                self.daemon_asks()

    # --- what has to be ---------------------------------------------------------------------------------

    @invariant()
    def nothing_is_wrong(self) -> None:
        if not hasattr(self, "browser"):
            return
        assert not self.wrong, self.wrong
        assert not self.browser.page_closed
        for who, driver in [*self.drivers.items()]:
            over = {one: count for one, count in driver.answered.items() if count > driver.sent[one]}
            assert not over, (over, driver.sent)
            if driver.relay._end is not None:
                if driver.relay._end.code is not Closing.TOO_MUCH:
                    self.read_of(driver)
                del self.drivers[who]
        while self.daemons and self.daemons[0][1].done():
            said, asked = self.daemons.popleft()
            if asked.exception() is None:
                assert asked.result()["echo"] == said
        owner = self.lease.held(Use.DRIVEN)
        attached = [one.relay.actor.request for one in self.drivers.values()]
        assert owner is None or any(f"{one}" in str(owner.holder) for one in attached), (owner, attached)

    def teardown(self) -> None:
        if not hasattr(self, "browser"):
            return
        try:
            self.nothing_is_wrong()
            self.all_is_answered()
            self.nothing_is_left()
        finally:
            for task in self.coming.values():
                task.cancel()
            self.turn()
            self.patches.close()
            asyncio.set_event_loop(None)
            self.loop.close()

    def all_is_answered(self) -> None:
        self.make_room(room=True)
        for _ in range(3):
            self.settle()
            self.browser.come_to_later()
            for driver in self.drivers.values():
                self.read_of(driver)
            self.nothing_is_wrong()
        for driver in self.drivers.values():
            for (session, number), count in driver.sent.items():
                if not session or session in self.browser.sessions:
                    assert driver.answered[session, number] == count, (
                        session,
                        number,
                        driver.sent,
                        driver.answered,
                    )
            assert not self.connection(driver)._asked
            assert not [one for one in self.connection(driver).seen._sessions.values() if one.asked]
            assert not driver.relay._unread
            assert driver.relay._guest is not None
            assert not driver.relay._guest.lane.unread
            assert not driver.relay._guest.lane.unsent

    def nothing_is_left(self) -> None:
        for who in range(3):
            self.leave(who)
        self.loop.now += 60
        self.turn()
        self.settle()
        self.loop.now += 60
        self.turn()
        channel = self.devtools._channel
        assert self.driving.attached == 0
        assert channel._lanes == {channel.own}
        assert not channel._asked
        assert not self.devtools.guests._here
        assert not self.lease.stalled
        assert self.lease.held(Use.DRIVEN) is None
        assert not self.apart
        assert not self.budget._holders
        if self.devtools.connected:
            assert {one.whose for one in self.browser.sessions.values()} <= {OF_DAEMON}
            assert set(channel._owners) == set(self.browser.sessions)
            assert not self.browser.contexts
        assert not [one for one in self.loop._scheduled if not one.cancelled()]  # type: ignore[attr-defined]


Relayed.TestCase.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=40)
TestRelayed = Relayed.TestCase


def test_who_is_sent_away_while_it_is_let_in_leaves_nothing() -> None:
    machine = Relayed()
    machine.begin()
    machine.leave(0)
    machine.attach(0, takes_over=False)
    machine.cure(Remedy.RELOAD)
    machine.teardown()
