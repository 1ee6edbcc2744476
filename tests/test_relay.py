"""The relay's core against a browser that does whatever it is told in whichever session, one thing at a time; the rest is `test_relay_model`'s.

The browser here is a model with what the real one leaves to us: one flat map of sessions, any of which may be addressed by anybody, and errors
without a session. Between it and the clients is the real channel.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.browser.channel import Channel, Lane, Limits, Message
from waguard.core.relay.policy import POLICY
from waguard.relay.acts import ACTS, MOST_SESSIONS, MOST_WRAPPED
from waguard.relay.connection import Block, Connection
from waguard.relay.replay import Replay
from waguard.relay.seen import Seen
from waguard.relay.wire import Frame
from waguard.whatsapp import page as whatsapp

MIB = 1024 * 1024
LIMITS = Limits(message=MIB, command=MIB, unsent=4 * MIB, unread=4 * MIB)
HOME = "https://web.whatsapp.com"
PAGE = {"targetId": "P", "type": "page", "url": HOME, "browserContextId": "default"}
TAB = {"targetId": "T", "type": "tab", "url": HOME, "browserContextId": "default"}


class Browser:
    """Executes every command in the session that it names, and answers."""

    def __init__(self) -> None:
        self.channel = Channel(LIMITS)
        self.sessions: dict[str, str] = {}
        """Of each the target."""
        self.targets: dict[str, Mapping[str, Any]] = {"P": PAGE, "T": TAB}
        self.commands: list[dict[str, Any]] = []
        self.synced = True
        self.clients: dict[Lane, Client] = {}
        self._buffer = b""
        self._attached = 0

    def admit(self, name: str) -> "Client":
        root, target = f"root{name}", f"browser{name}"
        self.sessions[root] = target
        self.targets[target] = {"targetId": target, "type": "browser", "url": ""}
        lane = self.channel.open(name, LIMITS, root)
        client = self.clients[lane] = Client(self, lane, root, target)
        return client

    def run(self) -> None:
        """Until nothing waits."""
        while piece := self.channel.take():
            self._buffer += bytes(piece)
            while b"\0" in self._buffer:
                raw, self._buffer = self._buffer.split(b"\0", 1)
                self._execute(json.loads(raw))

    def _execute(self, command: dict[str, Any]) -> None:
        self.commands.append(command)
        session, method, params = command["sessionId"], command["method"], command["params"]
        if session not in self.sessions:
            self.say(
                {
                    "id": command["id"],
                    "error": {"code": -32001, "message": "Session with given id not found."},
                }
            )
            return
        result: dict[str, Any] = {"echo": params.get("expression"), "ran": method}
        if method == "Runtime.evaluate" and "missed" in str(params.get("expression")):
            result = {"result": {"type": "boolean", "value": self.synced}}
        if method == "Target.attachToTarget":
            result = {"sessionId": self.attach(str(params.get("targetId")), session)}
        elif method == "Target.attachToBrowserTarget":
            target = f"nested{len(self.targets)}"
            self.targets[target] = {"targetId": target, "type": "browser", "url": ""}
            result = {"sessionId": self.attach(target, session)}
        elif method == "Target.detachFromTarget":
            gone = params.get("sessionId")
            name = self.sessions.pop(str(gone), None)
            self.say_event("Target.detachedFromTarget", {"sessionId": gone, "targetId": name}, session)
            result = {}
        elif method == "Target.getTargets":
            result = {"targetInfos": list(self.targets.values())}
        elif method == "Target.getTargetInfo":
            result = {"targetInfo": self.targets.get(str(params.get("targetId") or self.sessions[session]))}
        elif method == "Target.createBrowserContext":
            result = {"browserContextId": f"context{len(self.commands)}"}
        elif method == "Target.getBrowserContexts":
            result = {"browserContextIds": ["another's"], "defaultBrowserContextId": "default"}
        self.say({"id": command["id"], "result": result, "sessionId": session})

    def attach(self, target: str, parent: str, *, waits: bool = False) -> str:
        self._attached += 1
        session = f"S{self._attached}"
        self.sessions[session] = target
        told = {
            "sessionId": session,
            "targetInfo": self.targets.get(target, PAGE),
            "waitingForDebugger": waits,
        }
        self.say_event("Target.attachedToTarget", told, parent)
        return session

    def say_event(self, method: str, params: Mapping[str, Any], session: str) -> None:
        self.say({"method": method, "params": params, "sessionId": session})

    def say(self, message: Mapping[str, Any]) -> None:
        for heard in self.channel.receive(json.dumps(message, separators=(",", ":")).encode() + b"\0"):
            if isinstance(heard, Message) and heard.lane in self.clients:
                self.clients[heard.lane].connection.hear(heard)
                self.channel.done(heard)


class Client:
    """What a connection needs, and what came of it."""

    owner: "Client | None" = None

    def __init__(self, browser: Browser, lane: Lane, root: str, target: str) -> None:
        self.browser, self.lane, self.root = browser, lane, root
        self.frames: list[dict[str, Any]] = []
        self.refusals: list[tuple[str, str]] = []
        self.blocked: list[tuple[str, Block, bool]] = []
        self.ended = False
        self.due: list[Callable[[], None]] = []
        """What is to be done later."""
        self.replays = 0
        missable = whatsapp.missable(whatsapp.PROBE)
        assert missable is not None
        replay = Replay(whatsapp.PROBE, missable)
        self.connection = Connection(Seen(root, target, PAGE, HOME), self, ACTS, replay)

    def send(self, method: str, params: Mapping[str, Any], session: str) -> int:
        return self.browser.channel.send(self.lane, method, params, session)

    def tell(self, frame: Frame) -> None:
        self.frames.append(json.loads(bytes(frame)))

    def take_page(self) -> str:
        if Client.owner not in {None, self}:
            return "another has it"
        Client.owner = self
        return ""

    def owns_page(self) -> bool:
        return Client.owner is self

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        self.due.append(do)

    def replayed(self) -> None:
        self.replays += 1

    def leave_page(self) -> None:
        if self.owns_page():
            Client.owner = None

    def refused(self, method: str, reason: str) -> None:
        self.refusals.append((method, reason))

    def made(self, context: str) -> None: ...

    def blocks(self, session: str, block: Block, *, begins: bool) -> None:
        self.blocked.append((session, block, begins))

    def forget(self, session: str) -> None:
        if session in self.lane.sessions:
            self.browser.channel.forget(session)

    def unask(self, number: int) -> None:
        self.browser.channel.unask(number)

    def end(self) -> None:
        self.ended = True

    def sessions(self) -> set[str]:
        return {*self.connection.seen._sessions}

    # --- as a driver

    def ask(self, number: int, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The answer, which is the last of this number."""
        named = {} if session is None else {"sessionId": session}
        self.connection.take(json.dumps({"id": number, "method": method, "params": params, **named}).encode())
        self.browser.run()
        return [one for one in self.frames if one.get("id") == number][-1]

    def attach(self, target: str = "P") -> str:
        session: str = self.ask(1, "Target.attachToTarget", targetId=target, flatten=True)["result"][
            "sessionId"
        ]
        return session


@pytest.fixture
def browser() -> Browser:
    Client.owner = None
    return Browser()


def test_an_answer_has_the_number_and_the_session_of_the_question(browser: Browser) -> None:
    one, other = browser.admit("A"), browser.admit("B")
    mine, theirs = one.attach(), other.attach()
    assert one.ask(7, "Runtime.evaluate", mine, expression="a") == {
        "id": 7, "result": {"echo": "a", "ran": "Runtime.evaluate"}, "sessionId": mine,
    }  # fmt: skip
    assert other.ask(7, "Runtime.evaluate", theirs, expression="b")["result"]["echo"] == "b"
    assert one.ask(7, "Browser.getVersion") == {
        "id": 7,
        "result": {"echo": None, "ran": "Browser.getVersion"},
    }


def test_a_session_of_anothers_is_no_session(browser: Browser) -> None:
    one, other = browser.admit("A"), browser.admit("B")
    theirs = other.attach()
    before = len(browser.commands)
    for session in (theirs, other.root, one.root + "x", "", "\0"):
        answer = one.ask(9, "Runtime.evaluate", session, expression="x")
        assert answer == {"id": 9, "error": {"code": -32001, "message": "Session with given id not found."}}
    for method in ("Target.detachFromTarget", "Target.sendMessageToTarget"):
        assert one.ask(9, method, sessionId=theirs, message="{}")["error"]["code"] == -32602
    assert len(browser.commands) == before


def test_the_answer_of_a_session_that_has_gone_is_the_questions(browser: Browser) -> None:
    client = browser.admit("A")
    session = client.attach()
    del browser.sessions[session]  # and its end has not been told yet
    answer = client.ask(5, "Runtime.evaluate", session, expression="x")
    assert (answer["id"], answer["error"]["code"]) == (5, -32001)


def test_another_client_is_not_seen(browser: Browser) -> None:
    one, _other = browser.admit("A"), browser.admit("B")
    for target in browser.targets.values():
        browser.say_event("Target.targetCreated", {"targetInfo": target}, one.root)
        browser.say_event("Target.targetInfoChanged", {"targetInfo": target}, one.root)
        browser.say_event("Target.targetDestroyed", {"targetId": target["targetId"]}, one.root)
    told = [frame["params"].get("targetInfo", frame["params"])["targetId"] for frame in one.frames]
    assert told == [target for target in ("P", "T", "browserA") for _ in range(3)]
    infos = one.ask(1, "Target.getTargets")["result"]["targetInfos"]
    assert {info["targetId"] for info in infos} == {"P", "T", "browserA"}
    assert one.ask(1, "Target.getBrowserContexts")["result"]["browserContextIds"] == []
    for method in (
        "Target.getTargetInfo",
        "Target.attachToTarget",
        "Target.activateTarget",
        "Target.closeTarget",
    ):
        assert one.ask(2, method, targetId="browserB", flatten=True)["error"]["code"] == -32602, method
    assert not [one for one in browser.commands if one["method"] == "Target.attachToTarget"]


def test_what_is_attached_by_itself_and_not_to_be_seen_is_detached(browser: Browser) -> None:
    one, _other = browser.admit("A"), browser.admit("B")
    session = browser.attach("browserB", one.root)
    browser.run()
    assert one.frames == []
    assert browser.commands[-1]["params"] == {"sessionId": session}


def test_one_client_at_a_time_has_the_page(browser: Browser) -> None:
    one, other = browser.admit("A"), browser.admit("B")
    assert one.ask(1, "Target.createTarget", url="about:blank")["result"] == {"targetId": "P"}
    assert "another has it" in other.ask(1, "Target.createTarget", url="about:blank")["error"]["message"]
    mine, theirs = one.attach(), other.attach()
    assert "result" in one.ask(2, "Page.reload", mine)
    assert "not this client's" in other.ask(2, "Page.reload", theirs)["error"]["message"]
    for url in ("file:///etc/passwd", "https://evil.example/", 7):
        assert "is refused" in one.ask(3, "Target.createTarget", url=url)["error"]["message"]
    assert one.ask(4, "Target.closeTarget", targetId="P")["result"] == {"success": True}
    assert "result" in other.ask(5, "Target.createTarget", url=HOME + "/")


def test_a_close_is_acted_out_for_the_client_alone(browser: Browser) -> None:
    one, other = browser.admit("A"), browser.admit("B")
    kept = other.attach()
    for target in (PAGE, TAB):
        browser.say_event("Target.targetCreated", {"targetInfo": target}, one.root)
    tab = browser.attach("T", one.root)
    page = browser.attach("P", tab)
    one.ask(1, "Target.createTarget", url="about:blank")
    one.frames.clear()
    one.ask(2, "Target.closeTarget", targetId="P")
    assert [frame.get("method", frame.get("result")) for frame in one.frames] == [
        "Target.detachedFromTarget", "Target.detachedFromTarget", "Target.targetDestroyed", "Target.targetDestroyed", {"success": True},
    ]  # fmt: skip
    assert [
        one.frames[0]["params"]["sessionId"],
        one.frames[0]["sessionId"],
        one.frames[1]["params"]["sessionId"],
    ] == [page, tab, tab]
    assert not [one for one in browser.commands if one["method"] == "Target.closeTarget"]
    assert "result" in other.ask(3, "Runtime.evaluate", kept, expression="x")
    assert not [
        info for info in one.ask(4, "Target.getTargets")["result"]["targetInfos"] if info["type"] == "page"
    ]
    browser.say_event("Target.targetInfoChanged", {"targetInfo": PAGE}, one.root)
    one.frames.clear()
    assert one.ask(5, "Target.createTarget", url="about:blank")["result"] == {"targetId": "P"}
    assert [frame.get("method") for frame in one.frames] == [
        "Target.targetCreated", "Target.targetCreated", "Target.attachedToTarget", None,
    ]  # fmt: skip
    assert one.frames[2]["params"]["targetInfo"]["targetId"] == "T"


@pytest.mark.parametrize("target", ["T", "F", "W"])
def test_whatever_is_closed_of_the_page_it_stays(browser: Browser, target: str) -> None:
    """Its tab, a frame, a worker: also those that the client was not told of."""
    browser.targets |= {
        "F": {"targetId": "F", "type": "iframe", "url": HOME, "browserContextId": "default"},
        "W": {"targetId": "W", "type": "worker", "url": HOME, "browserContextId": "default"},
    }
    one = browser.admit("A")
    answer = one.ask(1, "Target.closeTarget", targetId=target)
    assert answer.get("result") == ({"success": True} if target == "T" else None)
    if target != "T":  # with which the page was closed for the client
        one.ask(2, "Page.close", one.attach(target))
    assert not [one for one in browser.commands if one["method"] in {"Target.closeTarget", "Page.close"}]


def test_what_cannot_be_sent_is_answered_once(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    client = browser.admit("A")
    sessions = [client.attach() for _ in range(3)]
    monkeypatch.setattr("waguard.relay.connection.MOST_ASKED", 0)
    for number, (method, session) in enumerate(
        [("Target.closeTarget", None), ("Page.close", sessions[0])], 50
    ):
        client.ask(number, method, session, targetId="P")
        assert len([one for one in client.frames if one.get("id") == number]) == 1, method


def test_a_page_of_a_clients_own_keeps_nobody_waiting(browser: Browser) -> None:
    client = browser.admit("A")
    context = client.ask(1, "Target.createBrowserContext")["result"]["browserContextId"]
    browser.targets["O"] = {
        "targetId": "O",
        "type": "page",
        "url": "about:blank",
        "browserContextId": context,
    }
    session = client.attach("O")
    for event in ("Debugger.paused", "Page.javascriptDialogOpening"):
        browser.say_event(event, {}, session)
    evaluate = {"id": 9, "method": "Runtime.evaluate", "params": {"expression": "0"}, "sessionId": session}
    client.connection.take(json.dumps(evaluate).encode())
    assert not client.connection.leaves_script
    assert client.blocked == []


def test_sessions_that_go_with_another_are_nobodys(browser: Browser) -> None:
    client = browser.admit("A")
    tab = client.attach("T")
    page = browser.attach("P", tab)
    assert page in client.lane.sessions
    browser.say_event("Target.detachedFromTarget", {"sessionId": tab, "targetId": "T"}, client.root)
    assert client.lane.sessions == {client.root}
    assert client.sessions() == {client.root}


def test_messages_in_messages_end_somewhere(browser: Browser) -> None:
    """Each level doubles the escapes of what is in it."""
    client = browser.admit("A")
    at, params = client.connection.seen.root, {"targetId": "P"}
    for depth in range(1, MOST_WRAPPED + 2):
        client.connection.command(at, depth, "Target.attachToTarget", params)
        browser.run()
        newest = [*client.connection.seen.children(at)]
        assert bool(newest) is (depth <= MOST_WRAPPED)
        if newest:
            (at,) = newest
    assert "use flatten" in json.dumps(client.frames[-1])
    client.connection.command(at, 8, "Target.setAutoAttach", {"autoAttach": True})
    assert "use flatten" in json.dumps(client.frames[-1])


def test_a_client_has_so_many_sessions_and_no_more(browser: Browser) -> None:
    client = browser.admit("A")
    for _ in range(MOST_SESSIONS - 1):
        client.attach()
    assert "at most" in client.ask(2, "Target.attachToTarget", targetId="P", flatten=True)["error"]["message"]


_ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["P", "T", "rootA"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_NAMES = [
    "targetId",
    "sessionId",
    "browserContextId",
    "handle",
    "url",
    "message",
    "flatten",
    "autoAttach",
    "origin",
    "ignore",
    "files",
    "data",
    "filter",
    "discover",
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([rule.method for rule in POLICY]), st.dictionaries(st.sampled_from(_NAMES), _ODD)
        ),
        max_size=5,
    )
)
def test_whatever_stands_in_the_params_each_command_has_an_answer(
    commands: list[tuple[str, dict[str, Any]]],
) -> None:
    Client.owner = None
    browser = Browser()
    client = browser.admit("A")
    session = client.attach()
    for number, (method, params) in enumerate(commands, 10):
        client.frames.clear()
        frame = {"id": number, "method": method.replace("*", "x"), "params": params, "sessionId": session}
        for _ in range(2):
            client.connection.take(json.dumps(frame).encode())
            browser.run()
            assert [one for one in client.frames if one.get("id") == number], frame
            frame.pop("sessionId", None)


def test_a_session_of_the_old_form_has_its_messages_in_messages(browser: Browser) -> None:
    client = browser.admit("A")
    session = client.ask(1, "Target.attachToTarget", targetId="P")["result"]["sessionId"]
    assert browser.commands[-1]["params"]["flatten"] is True

    def ask(number: int, method: str, **params: Any) -> dict[str, Any]:
        inner = json.dumps({"id": number, "method": method, "params": params})
        assert client.ask(50, "Target.sendMessageToTarget", sessionId=session, message=inner)["result"] == {}
        wrapped = [
            one["params"] for one in client.frames if one.get("method") == "Target.receivedMessageFromTarget"
        ]
        assert {one["sessionId"] for one in wrapped} == {session}
        found: dict[str, Any] = json.loads(wrapped[-1]["message"])
        return found

    assert ask(3, "Runtime.evaluate", expression="\ud83d")["result"]["echo"] == "\ud83d"
    assert "is refused" in ask(4, "Page.setWebLifecycleState", state="frozen")["error"]["message"]
    assert "error" in client.ask(5, "Runtime.evaluate", session, expression="x")
    browser.say_event("Runtime.consoleAPICalled", {"text": 'x","sessionId":"B"}'}, session)
    assert json.loads(client.frames[-1]["params"]["message"]) == {
        "method": "Runtime.consoleAPICalled", "params": {"text": 'x","sessionId":"B"}'},
    }  # fmt: skip


def test_what_waits_for_a_client_is_let_go_on_in_its_own_session(browser: Browser) -> None:
    client = browser.admit("A")
    session = browser.attach("P", client.root, waits=True)
    assert client.blocked == [(session, Block.START, True)]
    client.connection.let_go(session, Block.START)
    client.connection.let_go(session, Block.START)
    browser.run()
    sent = [(one["method"], one["sessionId"]) for one in browser.commands]
    assert sent == [("Runtime.runIfWaitingForDebugger", session)]
    assert client.blocked[-1] == (session, Block.START, False)
    for opens, closes, block, ends in (
        (
            "Page.javascriptDialogOpening",
            "Page.javascriptDialogClosed",
            Block.DIALOG,
            "Page.handleJavaScriptDialog",
        ),
        ("Debugger.paused", "Debugger.resumed", Block.PAUSE, "Debugger.resume"),
    ):
        browser.say_event(opens, {}, session)
        assert client.blocked[-1] == (session, block, True)
        client.connection.let_go(session, block)
        browser.run()
        assert (browser.commands[-1]["method"], browser.commands[-1]["sessionId"]) == (ends, session)
        browser.say_event(closes, {}, session)
        assert client.blocked[-1] == (session, block, False)
    assert not [frame for frame in client.frames if "id" in frame]
    browser.say_event("Debugger.paused", {}, session)
    browser.say_event("Target.detachedFromTarget", {"sessionId": session}, client.root)
    assert client.blocked[-1] == (session, Block.PAUSE, False)


def test_a_page_that_does_not_answer_is_kept_from_it_by_whoever_has_a_script_in_it(browser: Browser) -> None:
    client, other = browser.admit("A"), browser.admit("B")
    session, another = client.attach(), client.attach()
    its = other.attach()
    client.connection.page_silent(silent=True)
    assert not client.blocked, "it has asked for nothing"
    assert not client.connection.leaves_script
    evaluate = {"id": 1, "method": "Runtime.evaluate", "params": {"expression": "for (;;);"}}
    client.connection.take(json.dumps({**evaluate, "sessionId": session}).encode())
    client.connection.take(
        json.dumps({**evaluate, "method": "DOM.getDocument", "sessionId": another}).encode()
    )
    other.connection.take(json.dumps({**evaluate, "method": "Page.enable", "sessionId": its}).encode())
    assert [one.connection.leaves_script for one in (client, other)] == [True, False]
    for _ in range(2):
        for one in (client, other):
            one.connection.page_silent(silent=True)
    assert not client.connection.leaves_script, "the page waits for it: it goes with the client"
    assert (client.blocked, other.blocked) == ([(session, Block.SCRIPT, True)], [])
    client.connection.let_go(session, Block.SCRIPT)
    browser.run()
    last = browser.commands[-1]
    assert (last["method"], last["sessionId"]) == ("Runtime.terminateExecution", session)
    client.connection.page_silent(silent=False)
    client.connection.page_silent(silent=True)
    assert client.blocked[1:] == [(session, Block.SCRIPT, False)], "it has ended"
    client.connection.take(json.dumps({**evaluate, "sessionId": session}).encode())
    client.connection.page_silent(silent=True)
    browser.run()
    client.connection.take(json.dumps({**evaluate, "sessionId": session}).encode())
    client.connection.page_silent(silent=True)
    assert [begins for *_, begins in client.blocked[2:]] == [True, False, True], "this is another script"


def test_a_stream_is_for_whom_it_was_opened(browser: Browser) -> None:
    one, other = browser.admit("A"), browser.admit("B")
    browser.say_event("Tracing.tracingComplete", {"stream": "7"}, one.root)
    assert "result" in one.ask(1, "IO.read", handle="7")
    assert "is refused" in other.ask(1, "IO.read", handle="7")["error"]["message"]


def test_a_context_of_its_own_goes_with_the_client(browser: Browser) -> None:
    client = browser.admit("A")
    context = client.ask(1, "Target.createBrowserContext")["result"]["browserContextId"]
    assert browser.commands[-1]["params"]["disposeOnDetach"] is True
    assert client.ask(2, "Target.createTarget", url="https://example.com/", browserContextId=context)[
        "result"
    ]["ran"]
    assert (
        "is refused"
        in client.ask(3, "Target.createTarget", url="file:///", browserContextId=context)["error"]["message"]
    )
    assert client.ask(4, "Target.createTarget", url="about:blank", browserContextId="another's")["error"]


def test_who_closes_the_browser_ends_its_attachment(browser: Browser) -> None:
    client = browser.admit("A")
    assert client.ask(1, "Browser.close")["result"] == {}
    assert client.ended
    assert browser.commands == []


# --- what it has missed -------------------------------------------------------------------------------------

SETUP = "() => { AppState.on('change:hasSynced', () => { window.onAppStateHasSyncedEvent(); }); }"


def expose_and_listen(client: Client, session: str, binding: str = "onAppStateHasSyncedEvent") -> None:
    client.ask(1, "Runtime.addBinding", session, name=binding)
    told = client.ask(2, "Runtime.callFunctionOn", session, functionDeclaration=SETUP)
    assert told["result"]["ran"] == "Runtime.callFunctionOn"


def look(client: Client) -> int:
    """The time is over; returns how often the client's function was called then."""
    before, due, client.due = len(client.browser.commands), client.due, []
    for do in due:
        do()
    client.browser.run()
    asked = [one["params"].get("expression", "") for one in client.browser.commands[before:]]
    return len([one for one in asked if "probe.missed(true)" in one])


@pytest.mark.parametrize("binding", ["onAppStateHasSyncedEvent", "puppeteer_onAppStateHasSyncedEvent"])
def test_who_has_missed_that_the_page_has_synced_is_told_once_in_its_own_session(
    browser: Browser, binding: str
) -> None:
    client = browser.admit("A")
    session = client.attach()
    expose_and_listen(client, session, binding)
    frames = len(client.frames)
    assert look(client) == 1
    assert {one["sessionId"] for one in browser.commands[-2:]} == {session}
    assert (len(client.frames), client.replays, look(client)) == (frames, 1, 0), "it sees none of it"


def test_who_has_heard_that_the_page_has_synced_is_not_told(browser: Browser) -> None:
    client = browser.admit("A")
    session = client.attach()
    called = {"name": "onAppStateHasSyncedEvent", "payload": "{}", "executionContextId": 1}
    expose_and_listen(client, session)
    browser.say_event("Runtime.bindingCalled", called, session)
    assert look(client) == 0
    expose_and_listen(client, session)  # of the next document
    browser.synced = False
    assert look(client) == 0
    browser.synced = True
    expose_and_listen(client, session)
    for do in client.due:
        do()  # it is called while the page is asked
    browser.say_event("Runtime.bindingCalled", called, session)
    browser.run()
    assert client.replays == 0


def test_who_has_exposed_nothing_or_has_gone_is_not_told(browser: Browser) -> None:
    client, other = browser.admit("A"), browser.admit("B")
    session, its = client.attach(), other.attach()
    other.ask(1, "Runtime.callFunctionOn", its, functionDeclaration=SETUP)
    assert not other.due
    assert client.ask(1, "Runtime.addBinding", session, name=["onAppStateHasSyncedEvent"])["result"]
    client.ask(1, "Runtime.addBinding", session, name="onMessage")
    client.ask(2, "Runtime.callFunctionOn", session, functionDeclaration=SETUP)
    assert not client.due
    expose_and_listen(client, session)
    client.ask(3, "Target.detachFromTarget", sessionId=session)
    assert look(client) == 0


@pytest.mark.parametrize(
    "probe",
    ["(() => ({}))()", "({\n  missable: {},\n})", '({\n  missable: {"listens": 1, "bindings": []},\n})'],
)
def test_a_reader_of_the_page_that_does_not_know_what_is_missed_is_one_too(probe: str) -> None:
    assert whatsapp.missable(probe) is None


def test_what_was_asked_in_a_session_that_has_gone_waits_for_nothing(browser: Browser) -> None:
    client = browser.admit("A")
    session = client.attach()
    for number, method in ((1, "Runtime.evaluate"), (2, "IO.resolveBlob")):
        frame = {"id": number, "method": method, "params": {}, "sessionId": session}
        client.connection.take(json.dumps(frame).encode())
    client.frames.clear()
    browser.say_event("Target.detachedFromTarget", {"sessionId": session}, client.root)
    assert not client.connection._asked
    assert not browser.channel._asked
    errors = [frame for frame in client.frames if "error" in frame]
    assert [(one["id"], one["error"]["code"]) for one in errors] == [(2, -32001)], (
        "what was not passed on as it is"
    )


def test_its_own_browser_is_a_target_like_any_other(browser: Browser) -> None:
    client = browser.admit("A")
    session = client.ask(1, "Target.attachToTarget", targetId="browserA")["result"]["sessionId"]
    attached = client.connection.seen.find(session)
    assert attached is not None
    assert (attached.wrapped, attached.by_itself) == (True, False)
    assert not client.connection.seen.root.asked


def test_a_page_that_cannot_be_attached_again_is_not_waited_for(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = browser.admit("A")
    browser.attach("P", client.root)
    client.ask(1, "Target.createTarget")
    client.ask(2, "Target.closeTarget", targetId="P")
    monkeypatch.setattr("waguard.relay.connection.MOST_ASKED", 0)
    assert client.ask(3, "Target.createTarget")["result"] == {"targetId": "P"}
    assert not client.connection.seen.root.asked


def test_another_session_with_the_browser_and_one_with_the_browser_that_is_there_are_told_apart(
    browser: Browser,
) -> None:
    client = browser.admit("A")
    ours = {"id": 1, "method": "Target.attachToBrowserTarget", "params": {}}
    again = {"id": 2, "method": "Target.attachToTarget", "params": {"targetId": "browserA", "flatten": True}}
    for command in (ours, again):
        client.connection.take(json.dumps(command).encode())
    assert [one.target for one in client.connection.seen.root.asked] == ["", "browserA"]
    browser.attach("browserA", client.root)
    browser.targets["browserX"] = {"targetId": "browserX", "type": "browser", "url": ""}
    session = browser.attach("browserX", client.root)
    assert not client.connection.seen.root.asked
    assert session in client.sessions()
