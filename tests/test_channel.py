"""The channel: whose a message is, what each lane may take, and that nobody pays for another."""

import itertools
import json
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.browser.channel import (
    PIECE,
    Broken,
    Channel,
    Dropped,
    Heard,
    Lane,
    Limits,
    Message,
    Refused,
    TooLong,
)

OWN = Limits(message=300, command=400, unsent=600)
GUEST = Limits(message=500, command=300, unsent=700, unread=900)
MIB = 1024 * 1024


def packed(message: object) -> bytes:
    """As Chromium writes it."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def event(session: str | None, size: int = 10, method: str = "Log.entryAdded") -> bytes:
    named = {} if session is None else {"sessionId": session}
    return packed({"method": method, "params": {"text": "x" * size}, **named}) + b"\0"


def answer(number: int, session: str | None = None, size: int = 10) -> bytes:
    named = {} if session is None else {"sessionId": session}
    return packed({"id": number, "result": {"text": "x" * size}, **named}) + b"\0"


def shared(*guests: str, own: Limits = OWN, limits: Limits = GUEST) -> tuple[Channel, dict[str, Lane]]:
    """A channel of the daemon, which has the session ``P``, and of guests, each with a session of its name."""
    channel = Channel(own)
    channel.give("P", channel.own)
    lanes = {name: channel.open(name, limits, name) for name in guests}
    return channel, {"daemon": channel.own, **lanes}


def heard(channel: Channel, *pieces: bytes) -> list[Heard]:
    return [one for piece in pieces for one in channel.receive(piece)]


def written(channel: Channel) -> list[dict[str, Any]]:
    """All that waits, as the browser gets it."""
    pieces = iter(channel.take, b"")
    return [json.loads(command) for command in b"".join(pieces).split(b"\0")[:-1]]


def short(what: Heard) -> tuple[Any, ...]:
    """What matters of it, whatever pieces it came in."""
    match what:
        case Message():
            return (what.lane.name, what.number, what.method, what.session, what.whole(), what.size)
        case Dropped():
            return ("dropped", what.lane.name, what.lane.dropped)
        case TooLong():
            return ("too long", what.number, what.most)
        case Broken():
            return ("broken", what.why)


# --- whose it is --------------------------------------------------------------------------------------------

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from(['x","sessionId":"B"}', '"}', "\\", ',"']),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("sessionId"), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(params=anything, session=st.sampled_from([None, "P", "A", "B"]), spaced=st.booleans())
def test_whose_a_message_is_does_not_depend_on_what_a_page_puts_into_it(
    params: object, session: str | None, *, spaced: bool
) -> None:
    wide = Limits(message=10**6, command=10**6, unsent=10**6, unread=10**6)
    channel, lanes = shared("A", "B", own=wide, limits=wide)
    named = {} if session is None else {"sessionId": session}
    owner = lanes["daemon" if session in {None, "P"} else str(session)]
    write = json.dumps if spaced else packed
    said = {"method": "Page.x", "params": params, **named}
    raw = write(said)
    raw = raw.encode() if isinstance(raw, str) else raw
    (message,) = heard(channel, raw + b"\0")
    assert isinstance(message, Message)
    assert (message.lane, message.session, message.method) == (owner, session, "Page.x")
    assert message.whole() == raw
    number = channel.send(owner, "Do", {}, session)
    (message,) = heard(channel, packed({"id": number, "result": params, **named}) + b"\0")
    assert isinstance(message, Message)
    assert (message.lane, message.number) == (owner, number)


def test_an_answer_goes_to_whoever_asked_wherever_it_comes() -> None:
    """Of a session that has gone the browser answers on the pipe's own, without its id."""
    channel, lanes = shared("A", "B")
    number = channel.send(lanes["A"], "Do", {}, "A")
    gone = packed({"id": number, "error": {"code": -32001, "message": "Session with given id not found."}})
    (message,) = heard(channel, gone + b"\0")
    assert isinstance(message, Message)
    assert message.lane is lanes["A"]
    assert heard(channel, gone + b"\0") == []  # once
    assert heard(channel, answer(99, "A"), event("nobody")) == []
    assert channel.strays == 3


@pytest.mark.parametrize(
    ("raw", "lane"),
    [
        (b'{"sessionId":"A","method":"X.y","params":{}}', "A"),
        (b'{"params":{},"method":"X.y","sessionId":"P"}', "daemon"),
        (b'{"error":{"code":-32700},"id":1}', "A"),
        (b'{"error":{"code":-32700,"message":"JSON"}}', "daemon"),
        (b"[]", "daemon"),
        (b'{"id":[]}', "daemon"),
    ],
)
def test_another_form_is_parsed_to_see_whose_it_is(raw: bytes, lane: str) -> None:
    channel, lanes = shared("A")
    assert channel.send(lanes["A"], "Do", {}, "A") == 1
    (message,) = heard(channel, raw + b"\0")
    assert isinstance(message, Message)
    assert message.lane is lanes[lane]


def test_a_session_that_is_attached_from_a_lane_is_its_own() -> None:
    channel, _ = shared("A", "B")
    attached = {
        "method": "Target.attachedToTarget",
        "params": {"sessionId": "A1", "targetInfo": {}},
        "sessionId": "A",
    }
    detached = {
        "method": "Target.detachedFromTarget",
        "params": {"sessionId": "A1", "targetId": "T"},
        "sessionId": "A",
    }
    found = heard(channel, packed(attached) + b"\0" + event("A1") + packed(detached) + b"\0" + event("A1"))
    assert [one.lane.name for one in found if isinstance(one, Message)] == ["A", "A", "A"]
    assert channel.strays == 1
    # It takes nobody else's, and ends nobody else's.
    steals = {
        "method": "Target.attachedToTarget",
        "params": {"sessionId": "B", "targetInfo": {}},
        "sessionId": "A",
    }
    ends = {"method": "Target.detachedFromTarget", "params": {"sessionId": "B"}, "sessionId": "A"}
    found = heard(channel, packed(steals) + b"\0" + packed(ends) + b"\0" + event("B"))
    assert [one.lane.name for one in found if isinstance(one, Message)] == ["A", "A", "B"]


@pytest.mark.parametrize("session", [None, "P", "B", "nobody"])
def test_a_lane_speaks_in_its_own_sessions_only(session: str | None) -> None:
    channel, lanes = shared("A", "B")
    with pytest.raises(Refused, match="somebody else's"):
        channel.send(lanes["A"], "Do", {}, session)
    assert not lanes["A"].dropped
    assert written(channel) == []


# --- the stream ---------------------------------------------------------------------------------------------

sizes = st.integers(0, 700)
streams = st.lists(
    st.one_of(
        st.builds(event, st.sampled_from([None, "P", "A", "B", "nobody"]), sizes),
        st.builds(answer, st.integers(1, 6), st.sampled_from([None, "A"]), sizes),
        st.sampled_from([b'{"sessionId": "A", "method": "X"}\0', b"5\0", b"rubbish\0", b"\0"]),
    ),
    max_size=8,
)


@given(messages=streams, cuts=st.lists(st.integers(0, 4000), max_size=12), resumed=st.booleans())
def test_however_the_stream_is_cut_the_messages_are_the_same(
    messages: Sequence[bytes], cuts: Sequence[int], *, resumed: bool
) -> None:
    stream = b"".join(messages) + b"rest"
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    told = []
    for pieces in ([stream], [stream[start:end] for start, end in itertools.pairwise(edges)], _bytes(stream)):
        channel = Channel(OWN, numbers_from=0 if resumed else None)
        channel.give("P", channel.own)
        lanes = [channel.open(name, GUEST, name) for name in "AB"]
        for lane, session in zip((channel.own, *lanes) * 2, (None, "A", "B") * 2, strict=True):
            channel.send(lane, "Do", {}, session)
        # That a message is too long is said before its end, so of two that are told the order may differ.
        told.append(sorted(map(short, heard(channel, *pieces)), key=repr))
    assert told[0] == told[1] == told[2]


def _bytes(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def test_a_long_message_is_neither_copied_nor_parsed_on_its_way() -> None:
    """96 MiB to a guest: no step takes long, and there is never more than the message itself."""
    limits = Limits(message=96 * MIB, command=MIB, unsent=MIB, unread=96 * MIB)
    channel, lanes = shared("A", limits=limits)
    number = channel.send(lanes["A"], "Runtime.evaluate", {}, "A")
    objects = b'{"a":1},' * (95 * MIB // 8)
    raw = (
        packed({"id": number, "result": {"value": ["@"]}, "sessionId": "A"}).replace(b'"@"', objects[:-1])
        + b"\0"
    )
    pieces = [raw[at : at + PIECE] for at in range(0, len(raw), PIECE)]
    slowest = 0.0
    tracemalloc.start()
    try:
        for piece in pieces:
            began = time.process_time()
            found = heard(channel, piece)
            slowest = max(slowest, time.process_time() - began)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (message,) = found
    assert isinstance(message, Message)
    assert message.size == len(raw) - 1 == lanes["A"].unread
    assert (
        slowest < 0.1
    )  # the daemon's loop stands still for that; half a millisecond, were it not for the tracing
    assert taken < 2 * MIB  # the pieces are ours already
    channel.done(message)
    assert lanes["A"].unread == 0


@pytest.mark.parametrize("first", [1, 12, 300, 20_000])
@pytest.mark.parametrize("last", [1, 30, 300, 20_000])
def test_both_ends_of_a_long_message_are_found_whatever_pieces_they_are_in(first: int, last: int) -> None:
    limits = replace(GUEST, message=MIB, unread=MIB)
    channel, lanes = shared("A", limits=limits)
    raw = event("A", 100_000)
    cuts = [0, first, first + 1, first + 30_000, len(raw) - last - 1, len(raw) - last, len(raw)]
    (message,) = heard(channel, *(raw[start:end] for start, end in itertools.pairwise(cuts)))
    assert isinstance(message, Message)
    assert (message.lane, message.method, message.whole()) == (lanes["A"], "Log.entryAdded", raw[:-1])


def test_a_message_without_end_ends_the_channel() -> None:
    channel, _ = shared()
    block = b"x" * (64 * MIB)
    found = heard(channel, b'{"method":"X.y","params":"', *[block] * 64)
    assert [type(one) for one in found] == [Broken]


# --- what a lane may take -----------------------------------------------------------------------------------


def test_the_daemon_loses_the_message_that_is_too_long_and_goes_on() -> None:
    channel, lanes = shared()
    one, two = (channel.send(lanes["daemon"], "Do", {}, None, most=most) for most in (None, 5000))
    found = heard(
        channel, event("P", 400), event(None, 400), answer(one, size=400), answer(two, size=4000), event("P")
    )
    assert [type(each) for each in found] == [TooLong, Message, Message]
    assert found[0] == TooLong(one, 300)
    assert not lanes["daemon"].dropped


@pytest.mark.parametrize("piece", [10, 10_000])
@pytest.mark.parametrize("what", ["event", "answer", "unread", "unsent", "command"])
def test_a_guest_that_goes_too_far_is_dropped_with_the_reason(what: str, piece: int) -> None:
    channel, lanes = shared("A", "B")
    guest = lanes["A"]
    number = channel.send(guest, "Do", {}, "A")
    stream = {
        "event": event("A", 600),
        "answer": answer(number, "A", 600),
        "unread": event("A", 400) * 3,
    }.get(what, b"")
    found = heard(channel, *(stream[at : at + piece] for at in range(0, len(stream), piece)))
    with pytest.raises(Refused):  # if it is not dropped by now
        for size in (350,) if what == "command" else (150,) * 9:
            channel.send(guest, "Do", {"text": "x" * size}, "A")
    words = {
        "event": "a message of more than 500 bytes",
        "answer": "a message of more than 500 bytes",
        "unread": "more than 900 bytes wait to be read",
        "unsent": "more than 700 bytes would wait",
        "command": "300 is the most",
    }
    assert words[what] in guest.dropped
    assert stream == b"" or found[-1] == Dropped(guest)
    assert written(channel) == []  # nothing of what it has asked for is begun
    assert heard(channel, event("A"), answer(number, "A")) == []
    assert [type(one) for one in heard(channel, event("B"), event(None))] == [Message, Message]
    with pytest.raises(Refused):
        channel.send(guest, "Do", {}, "A")
    assert (guest.unsent, guest.sessions) == (0, set())


def test_what_is_begun_of_a_command_is_written_to_its_end() -> None:
    limits = Limits(message=500, command=3 * PIECE, unsent=9 * PIECE, unread=500)
    channel, lanes = shared("A", limits=limits)
    for _ in range(2):
        channel.send(lanes["A"], "Do", {"text": "x" * 2 * PIECE}, "A")
    begun = bytes(channel.take())
    channel.drop(lanes["A"], "enough")
    channel.send(lanes["daemon"], "Browser.getVersion", {}, None)
    commands = (begun + b"".join(iter(channel.take, b""))).split(b"\0")[:-1]
    assert [json.loads(command)["method"] for command in commands] == ["Do", "Browser.getVersion"]
    assert lanes["A"].unsent == 0


def test_the_daemon_is_next_and_guests_take_turns() -> None:
    limits = Limits(message=500, command=10**6, unsent=10**8, unread=500)
    channel, lanes = shared("A", "B", limits=limits)
    for number in range(100):
        channel.send(lanes["A"], "Do", {"number": number, "text": "x" * 900}, "A")
    for number in range(3):
        channel.send(lanes["B"], "Do", {"number": number}, "B")
    assert json.loads(bytes(channel.take())[:-1])["sessionId"] == "A"
    channel.send(lanes["daemon"], "Browser.getVersion", {}, None)
    order = [one.get("sessionId") for one in written(channel)]
    assert order[:7] == [None, "B", "A", "B", "A", "B", "A"]
    assert len(order) == 103


# --- any run of it ------------------------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(["daemon", "A", "B"]), st.integers(0, 450)),
        st.tuples(st.just("event"), st.sampled_from(["daemon", "A", "B"]), st.integers(0, 700)),
        st.tuples(st.just("answer"), st.sampled_from(["daemon", "A", "B"]), st.integers(0, 700)),
        st.tuples(st.just("read"), st.sampled_from(["A", "B"]), st.just(0)),
        st.tuples(st.just("take"), st.just(""), st.integers(1, 4)),
    ),
    max_size=40,
)


class Run:
    """A channel that is put through some steps, and what each lane has seen of it."""

    def __init__(self, own: Limits = OWN, limits: Limits = GUEST) -> None:
        self.channel, self.lanes = shared("A", "B", own=own, limits=limits)
        self.asked: defaultdict[str, list[int]] = defaultdict(list)
        self.holds: defaultdict[str, list[Message]] = defaultdict(list)
        self.seen: defaultdict[str, list[Any]] = defaultdict(list)
        self.stream = b""

    def step(self, what: str, who: str, amount: int) -> None:
        session = None if who == "daemon" else who
        match what:
            case "send":
                try:
                    text = {"text": "x" * amount}
                    self.asked[who].append(self.channel.send(self.lanes[who], "Do", text, session))
                except Refused as error:
                    self.seen[who].append(str(error))
            case "event":
                self._hear(event(session, amount))
            case "answer" if self.asked[who]:
                self._hear(answer(self.asked[who].pop(0), session, amount))
            case "read" if self.holds[who]:
                self.channel.done(self.holds[who].pop(0))
            case "take":
                self._write(amount)

    def _hear(self, raw: bytes) -> None:
        for one in self.channel.receive(raw):
            match one:
                case Message():
                    self.holds[one.lane.name].append(one)
                    self.seen[one.lane.name].append((one.method, len(json.loads(one.whole()))))
                case Dropped():
                    self.seen[one.lane.name].append(one.lane.dropped)
                case TooLong():
                    self.seen["daemon"].append("too long")
                case Broken():
                    raise AssertionError(one)

    def _write(self, pieces: int) -> None:
        for _ in range(pieces):
            first = bool(self.channel.own.queue)
            command = bytes(self.channel.take())
            assert not first or b"sessionId" not in command  # each is one piece here
            self.stream += command

    def check(self) -> Iterator[bool]:
        for lane in self.lanes.values():
            yield 0 <= lane.unsent <= lane.limits.unsent
            yield 0 <= lane.unread <= lane.limits.unread
            yield lane.unsent == sum(len(piece) for command in lane.queue for piece in command)

    def wrote(self, who: str) -> list[int]:
        """How long its commands were, in the order in which they were written."""
        commands = [json.loads(one) for one in self.stream.split(b"\0")[:-1]]
        return [len(one["params"]["text"]) for one in commands if one.get("sessionId", "daemon") == who]


@given(taken=steps)
def test_no_budget_is_ever_exceeded_and_the_daemon_is_always_next(taken: list[tuple[str, str, int]]) -> None:
    run = Run()
    for step in taken:
        run.step(*step)
        assert all(run.check())


@given(taken=steps)
def test_what_one_does_changes_nothing_that_another_sees(taken: list[tuple[str, str, int]]) -> None:
    """The same run with A, and without whatever A does or is told: the same messages, refusals and commands of the others.

    Only that A's commands are written too may keep theirs waiting: there is room for that here.
    """
    patient = {"unsent": 10**6}
    runs = [Run(replace(OWN, **patient), replace(GUEST, **patient)) for _ in "ab"]
    both, alone = runs
    both.lanes["A"].limits = GUEST
    for what, who, amount in taken:
        both.step(what, who, amount)
        if who != "A":
            alone.step(what, who, amount)
    for run in runs:
        run.step("take", "", 100)
    for who in ("daemon", "B"):
        assert both.seen[who] == alone.seen[who]
        assert both.wrote(who) == alone.wrote(who)
