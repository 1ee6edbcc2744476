"""The control channel against a peer that answers late, in pieces, with rubbish, or not at all."""

import asyncio
import gc
import json
import os
import random
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from waguard.browser.channel import PIECE, Limits
from waguard.browser.devtools import OWN, DevTools, Session
from waguard.browser.page import Page
from waguard.errors import PageFailed


class Peer:
    """The browser's side of both pipes."""

    def __init__(self, commands_fd: int, answers_fd: int) -> None:
        self._fds = {"commands": commands_fd, "answers": answers_fd}
        self._stream: asyncio.StreamReader | None = None
        self._transport: asyncio.ReadTransport | None = None

    async def command(self) -> dict[str, Any]:
        """The next command."""
        command: dict[str, Any] = json.loads(await self.raw())
        return command

    async def raw(self) -> bytes:
        """What comes up to the next NUL; only from the first call on does the peer read at all."""
        if self._stream is None:
            stream = self._stream = asyncio.StreamReader(limit=2**24)
            file = os.fdopen(self._fds.pop("commands"), "rb", buffering=0)
            self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(stream), file
            )
        return (await self._stream.readuntil(b"\0"))[:-1]

    def say(self, *messages: object) -> None:
        """Write what fits into a pipe, in one go."""
        data = b"".join(m if isinstance(m, bytes) else json.dumps(m).encode() + b"\0" for m in messages)
        assert os.write(self._fds["answers"], data) == len(data)

    def say_at_length(self, data: bytes) -> None:
        """Write more than fits into a pipe; in a thread, while somebody reads it."""
        while data:
            data = data[os.write(self._fds["answers"], data) :]

    def stop_reading(self) -> None:
        os.close(self._fds.pop("commands"))

    def hang_up(self) -> None:
        """Close both ends."""
        if self._transport is not None:
            self._transport.close()
        for name in list(self._fds):
            os.close(self._fds.pop(name))


@asynccontextmanager
async def talking(
    *, used: bool = False, said: bytes = b"", own: Limits = OWN
) -> AsyncIterator[tuple[DevTools, Peer]]:
    commands_read, commands_write = os.pipe()
    answers_read, answers_write = os.pipe()
    os.write(answers_write, said)
    peer = Peer(commands_read, answers_write)
    connection = await DevTools.open(answers_read, commands_write, used=used, own=own)
    try:
        yield connection, peer
    finally:
        connection.lose("the test is over")
        peer.hang_up()


@pytest.fixture(autouse=True)
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """What the loop would only log: exceptions in callbacks, futures nobody looked at. There must be none."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: found.append(context))
    yield found
    gc.collect()
    await asyncio.sleep(0)
    assert not found


async def turns(number: int) -> None:
    """Let the loop turn; what is in the pipe by then has arrived."""
    for _ in range(number):
        await asyncio.sleep(0)


async def reason(connection: DevTools) -> str:
    async with asyncio.timeout(10):
        return await connection.closed()


# --- commands and answers -----------------------------------------------------------------------------------


async def test_a_command_goes_out_and_its_answer_comes_back() -> None:
    async with talking() as (connection, peer):
        answer = connection.browser.send("Browser.getVersion")
        command = await peer.command()
        assert command == {"id": 1, "method": "Browser.getVersion", "params": {}}
        peer.say({"id": 1, "result": {"product": "Posing"}})
        assert await answer == {"product": "Posing"}
        answer = connection.browser.send("Page.navigate", {"url": "x:\0\u2028\ud800"})
        assert (await peer.command())["params"] == {"url": "x:\0\u2028\ud800"}
        peer.say({"id": 2, "result": None})
        assert await answer is None
        assert not connection._pending


async def test_an_error_names_the_command() -> None:
    async with talking() as (connection, peer):
        for error in ({"code": -32601, "message": "'X' wasn't found"}, {}):
            answer = connection.browser.send("X")
            peer.say({"id": connection._channel._number, "error": error})
            with pytest.raises(PageFailed, match=r"^X: ('X' wasn't found|failed)\.$"):
                await answer
        assert not connection._pending


async def test_many_at_once_each_get_their_own_in_whatever_order() -> None:
    async with talking() as (connection, peer):
        answers = [connection.browser.send("Echo", {"n": n}) for n in range(500)]
        commands = [await peer.command() for _ in answers]
        random.Random(1).shuffle(commands)
        for command in commands:
            peer.say({"id": command["id"], "result": command["params"]["n"]})
        assert await asyncio.gather(*answers) == list(range(500))
        assert not connection._pending


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_a_late_answer_is_harmless(how: str) -> None:
    """With pyppeteer 2.0.0 it ends the receive loop, and a healthy browser looks dead ever after."""
    async with talking() as (connection, peer):
        for n in range(20):
            late = connection.browser.send("Slow")
            if how == "cancel":
                late.cancel()
            with pytest.raises((TimeoutError, asyncio.CancelledError)):
                async with asyncio.timeout(0):
                    await late
            refused = n % 2 == 1
            peer.say({"id": connection._channel._number, **({"error": {}} if refused else {"result": {}})})
            answer = connection.browser.send("Quick")
            peer.say({"id": connection._channel._number, "result": n})
            assert await answer == n
        assert not connection._pending


async def test_answers_nobody_asked_for_are_dropped() -> None:
    async with talking() as (connection, peer):
        answer = connection.browser.send("Once")
        peer.say({"id": 99, "result": {}}, {"id": 0}, {"id": -1, "error": {}}, {"id": "1", "result": 7})
        peer.say({"id": 1, "result": "first"}, {"id": 1, "result": "second"}, {"id": 1, "error": {}})
        assert await answer == "first"
        assert connection.connected


# --- the stream ---------------------------------------------------------------------------------------------


async def test_split_and_joined_messages() -> None:
    async with talking() as (connection, peer):
        events: list[Any] = []
        connection.browser.observe("Event", events.append)
        whole = (
            json.dumps({"method": "Event", "params": {"text": "ünïcödé"}}, ensure_ascii=False).encode()
            + b"\0"
        )
        for byte in whole:
            peer.say(bytes([byte]))
            await asyncio.sleep(0)
        answer = connection.browser.send("Last")
        peer.say(whole * 50, {"id": 1, "result": {}})
        await answer
        assert events == [{"text": "ünïcödé"}] * 51


async def test_a_long_message_arrives_whole() -> None:
    async with talking() as (connection, peer):
        answer = connection.browser.send("Page.captureScreenshot")
        text = "x" * 5_000_000
        data = json.dumps({"id": 1, "result": text}).encode() + b"\0"

        def write() -> None:
            left = memoryview(data)
            while left:
                left = left[os.write(peer._fds["answers"], left) :]

        await asyncio.to_thread(write)
        assert await answer == text


RUBBISH = [b"this is no JSON", b"", b"\xff\xfe", b'{"id": 1', b"NaN,", b"{'id': 1}"]


@pytest.mark.parametrize("raw", RUBBISH)
async def test_rubbish_ends_the_channel_and_everybody_is_told(raw: bytes) -> None:
    async with talking() as (connection, peer):
        waiting = [connection.browser.send("Wait") for _ in range(3)]
        peer.say(raw + b"\0")
        assert await reason(connection) == "The browser wrote something that is not JSON."
        for answer in waiting:
            with pytest.raises(PageFailed, match=r"^Wait: The browser wrote something that is not JSON"):
                await answer
        assert not connection.connected
        with pytest.raises(PageFailed, match="closed"):
            connection.browser.send("More")


ODD = [
    b"5",
    b"null",
    b"[]",
    b'"text"',
    b'{"id": []}',
    b'{"id": 1, "error": "text"}',
    b'{"method": "Event", "sessionId": {}}',
    b'{"params": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
]


@pytest.mark.parametrize("raw", ODD, ids=[raw[:60].decode() for raw in ODD])
async def test_json_that_is_no_message_is_rubbish_too(raw: bytes, complaints: list[dict[str, Any]]) -> None:
    async with talking() as (connection, peer):
        answer = connection.browser.send("Wait")
        peer.say(raw + b"\0")
        await turns(20)
        raised = [str(complaint.get("exception")) for complaint in complaints]
        complaints.clear()
        assert not raised, "nothing may be raised into the loop"
        assert (await reason(connection)).startswith("The browser wrote")
        with pytest.raises(PageFailed):
            await answer


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"method": 5},
        {"method": None, "params": None},
        {"method": "error", "params": {"message": "pyee raises for this name"}},
        {"method": "new_listener"},
        {"method": "Event", "sessionId": "nobody"},
        {"method": "Target.detachedFromTarget", "params": {"sessionId": "nobody"}},
        {"method": "Target.detachedFromTarget"},
    ],
)
async def test_events_that_mean_nothing_are_harmless(message: dict[str, Any]) -> None:
    async with talking() as (connection, peer):
        answer = connection.browser.send("Wait")
        peer.say(message, {"id": 1, "result": "on it goes"})
        assert await answer == "on it goes"


async def write(peer: Peer, data: bytes) -> None:
    """More than fits into a pipe."""

    def writing() -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(peer._fds["answers"], left) :]

    with suppress(BrokenPipeError):  # the other end has had enough
        await asyncio.to_thread(writing)


@pytest.mark.parametrize("method", ["Runtime.evaluate", "Page.captureScreenshot"])
async def test_an_answer_that_is_too_long_costs_nobody_but_whoever_asked(method: str) -> None:
    async with talking() as (connection, peer):
        long, other = connection.browser.send(method), connection.browser.send("Browser.getVersion")
        text = "x" * (20 * 1024 * 1024)
        await write(peer, json.dumps({"id": 1, "result": {"result": {"value": text}}}).encode() + b"\0")
        peer.say({"id": 2, "result": "here"})
        assert await other == "here"
        with pytest.raises(PageFailed, match=rf"{method}: the answer is longer than"):
            await long
        assert connection.connected


@pytest.mark.parametrize("method", ["Runtime.evaluate", "Page.captureScreenshot"])
async def test_nothing_is_made_of_an_answer_of_many_parts(method: str) -> None:
    async with talking() as (connection, peer):
        answer = connection.browser.send(method)
        # 7 MB of these take a second to make: for so long the loop would stand still.
        await write(peer, b'{"id":1,"result":[' + b"[]," * 2_400_000 + b"[]]}\0")
        began = time.process_time()
        with pytest.raises(PageFailed, match="parts"):
            await answer
        assert time.process_time() - began < 0.3


async def test_a_long_event_is_dropped() -> None:
    async with talking() as (connection, peer):
        events: list[Any] = []
        connection.browser.observe("Event", events.append)
        await write(peer, b'{"method":"Event","params":{"text":"' + b"x" * 5_000_000 + b'"}}\0')
        peer.say({"method": "Event", "params": 1})
        answer = connection.browser.send("Last")
        peer.say({"id": 1, "result": {}})
        await answer
        assert events == [1]


# --- the other end ------------------------------------------------------------------------------------------


async def test_a_peer_that_hangs_up_tells_whoever_waits() -> None:
    async with talking() as (connection, peer):
        waiting = [connection.browser.send(f"Wait{n}") for n in range(10)]
        waiting[0].cancel()
        forgotten = connection.browser.send("Forgotten")
        peer.hang_up()
        assert await reason(connection) == "The browser closed its pipe."
        for n, answer in enumerate(waiting[1:], 1):
            with pytest.raises(PageFailed, match=rf"^Wait{n}: The browser closed its pipe"):
                await answer
        assert forgotten.done()
        await asyncio.sleep(0)
        assert not connection._pending


async def test_a_last_answer_before_the_hangup_counts() -> None:
    async with talking() as (connection, peer):
        answer = connection.browser.send("Browser.close")
        peer.say({"id": 1, "result": {}})
        peer.hang_up()
        assert await answer == {}
        assert await reason(connection) == "The browser closed its pipe."


async def test_a_peer_that_reads_no_more_is_noticed() -> None:
    async with talking() as (connection, peer):
        peer.stop_reading()
        with pytest.raises(PageFailed, match="closed"):
            async with asyncio.timeout(10):
                while True:
                    connection.browser.send("Anybody there?").cancel()
                    await asyncio.sleep(0)


async def test_who_waits_for_a_peer_that_reads_no_more_is_told() -> None:
    async with talking() as (connection, peer):
        answer = connection.browser.send("Wait")
        peer.stop_reading()
        with pytest.raises(PageFailed):
            async with asyncio.timeout(0.2):
                await answer


FEW = Limits(message=64 * 1024, command=500_000, unsent=500_000)


async def test_what_is_written_to_a_peer_that_does_not_read_is_bounded() -> None:
    async with talking(own=FEW) as (connection, peer):
        answers = []
        with pytest.raises(PageFailed, match="does not read its pipe"):
            for _ in range(1000):
                answers.append(connection.browser.send("Flood", {"text": "x" * 10_000}))  # noqa: PERF401 (until it raises)
        assert waiting(connection) <= 500_000 + PIECE
        assert len(connection._pending) == len(answers) < 100
        for _ in answers:
            await peer.command()
        answer = connection.browser.send("Again")
        assert (await peer.command())["method"] == "Again"
        peer.say({"id": connection._channel._number, "result": "it reads again"})
        assert await answer == "it reads again"


def waiting(connection: DevTools) -> int:
    """Bytes that are not in the pipe yet."""
    assert connection._pipe is not None
    assert connection._pipe._writing is not None
    return connection._channel.own.unsent + connection._pipe._writing.get_write_buffer_size()


async def test_a_peer_that_never_reads_does_not_hold_up_the_close() -> None:
    async with talking(own=FEW) as (connection, _):
        with pytest.raises(PageFailed):
            while True:
                connection.browser.send("Flood", {"text": "x" * 100_000})
        connection.lose("enough")
        assert await reason(connection) == "enough"
        await asyncio.sleep(0)
        assert connection._pipe is not None
        assert connection._pipe._writing is not None
        assert connection._pipe._writing.get_write_buffer_size() == 0


# --- sessions and events ------------------------------------------------------------------------------------


async def attach(connection: DevTools, peer: Peer, name: str) -> Session:
    task = asyncio.create_task(connection.attach(name))
    command = await peer.command()
    assert command["params"] == {"targetId": name, "flatten": True}
    peer.say({"id": command["id"], "result": {"sessionId": name}})
    return await task


async def test_each_session_gets_its_own_events_and_answers() -> None:
    async with talking() as (connection, peer):
        one, two = await attach(connection, peer, "one"), await attach(connection, peer, "two")
        heard: list[tuple[str, Any]] = []

        def note(who: str, params: object) -> None:
            heard.append((who, params))

        for who, emitter in (("one", one), ("two", two), ("root", connection.browser)):
            emitter.observe("Event", partial(note, who))
        answer = one.send("Do", {"a": 1})
        command = await peer.command()
        assert command == {"id": 3, "method": "Do", "params": {"a": 1}, "sessionId": "one"}
        peer.say(
            {"method": "Event", "params": {"n": 1}, "sessionId": "one"},
            {"method": "Event", "params": {"n": 2}, "sessionId": "two"},
            {"method": "Event", "params": {"n": 3}},
            {"method": "Event", "params": {"n": 4}, "sessionId": "three"},
            {"id": 3, "result": "done", "sessionId": "one"},
        )
        assert await answer == "done"
        assert heard == [("one", {"n": 1}), ("two", {"n": 2}), ("root", {"n": 3})]


async def test_a_detached_session_is_of_no_more_use_and_the_others_are() -> None:
    async with talking() as (connection, peer):
        one, two = await attach(connection, peer, "one"), await attach(connection, peer, "two")
        detached: list[Any] = []
        connection.browser.observe("Target.detachedFromTarget", detached.append)
        answer = two.send("Two")
        peer.say({"method": "Target.detachedFromTarget", "params": {"sessionId": "one"}})
        peer.say({"id": 3, "result": "alive"})
        assert await answer == "alive"
        assert detached == [{"sessionId": "one"}]
        with pytest.raises(PageFailed, match="the page is gone"):
            one.send("One")
        assert list(connection._sessions) == [None, "two"]
        peer.hang_up()
        await reason(connection)
        with pytest.raises(PageFailed, match="the page is gone"):
            two.send("Two")


async def test_who_waits_for_a_session_that_is_detached_is_told() -> None:
    async with talking() as (connection, peer):
        one = await attach(connection, peer, "one")
        answer = one.send("Runtime.evaluate")
        peer.say({"method": "Target.detachedFromTarget", "params": {"sessionId": "one"}})
        with pytest.raises(PageFailed):
            async with asyncio.timeout(0.2):
                await answer


async def test_an_observer_that_raises_ends_neither_the_channel_nor_keeps_another_from_being_told(
    complaints: list[dict[str, Any]],
) -> None:
    async with talking() as (connection, peer):

        def mistaken(_params: object) -> None:
            raise ZeroDivisionError

        told: list[Any] = []
        first = connection.browser.observe("Event", mistaken)
        end = connection.browser.observe("Event", told.append)
        answer = connection.browser.send("Wait")
        peer.say({"method": "Event", "params": {}}, {"id": 1, "result": "on it goes"})
        assert await answer == "on it goes"
        assert told == [{}]
        assert [type(one["exception"]) for one in complaints] == [ZeroDivisionError]
        complaints.clear()
        first()
        end()
        end()
        answer = connection.browser.send("Again")
        peer.say({"method": "Event", "params": {}}, {"id": 2, "result": {}})
        assert await answer == {}
        assert told == [{}]


async def test_an_observer_may_close_the_channel() -> None:
    async with talking() as (connection, peer):
        connection.browser.observe("Event", lambda _params: connection.lose("as you wish"))
        answer = connection.browser.send("Wait")
        peer.say({"method": "Event", "params": {}}, {"id": 1, "result": "too late"})
        assert await reason(connection) == "as you wish"
        with pytest.raises(PageFailed, match="as you wish"):
            await answer


# --- the end ------------------------------------------------------------------------------------------------


async def test_closing_twice_and_after_the_peer_is_harmless() -> None:
    async with talking() as (connection, peer):
        connection.lose("closed")
        connection.lose("closed")
        connection.lose("again")
        assert await reason(connection) == "closed"
        peer.hang_up()
    async with talking() as (connection, peer):
        peer.hang_up()
        connection.lose("at the same time")
        assert await reason(connection) == "at the same time"


async def test_waiting_for_the_end_may_be_called_off() -> None:
    async with talking() as (connection, _):
        waiting = asyncio.create_task(reason(connection))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        connection.lose("really")
        assert await reason(connection) == "really"


async def _open(read_fd: int, write_fd: int) -> None:
    connection = await DevTools.open(read_fd, write_fd)
    connection.lose("opened")


async def test_opening_may_be_called_off_at_any_turn() -> None:
    """The fds are given up to it; whatever happens they are closed."""
    kept = []
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always")
        for number in range(1, 10):
            commands_read, commands_write = os.pipe()
            answers_read, answers_write = os.pipe()
            task = asyncio.create_task(_open(answers_read, commands_write))
            await turns(number)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await turns(5)
            kept += [number for fd in (answers_read, commands_write) if Path(f"/proc/self/fd/{fd}").exists()]
            os.close(commands_read)
            os.close(answers_write)
            await turns(5)
        gc.collect()
    assert not kept
    assert not unclosed


async def test_a_hundred_channels_leave_no_fd() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for n in range(100):
        async with talking() as (connection, peer):
            answer = connection.browser.send("Wait")
            if n % 2:
                peer.hang_up()
            else:
                connection.lose("enough")
            with pytest.raises(PageFailed):
                await answer
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# --- after another daemon -----------------------------------------------------------------------------------

_MESSAGE = b'{"id":7,"result":{"a":{"b":"}{\\"}"}}}\0'


@pytest.mark.parametrize("read", range(len(_MESSAGE)))
async def test_a_pipe_goes_on_wherever_the_daemon_before_has_stopped_reading(read: int) -> None:
    async with talking(used=True, said=_MESSAGE[read:]) as (connection, peer):
        assert await peer.raw() == b""  # ends what may have been written of a command
        peer.say({"error": {"code": -32700, "message": "not valid"}})
        answer = connection.browser.send("Browser.getVersion")
        command = await peer.command()
        assert command["id"] > 7
        peer.say({"id": command["id"], "result": 1})
        assert await answer == 1


def at(address: str, target: str = "T") -> dict[str, Any]:
    info = {"targetId": target, "type": "page", "url": address}
    return {"method": "Target.targetInfoChanged", "params": {"targetInfo": info}}


async def test_a_page_tells_where_it_was_before_anybody_asked_and_then_at_once() -> None:
    early, late = [f"https://a/?{number}" for number in range(99)], ["https://a/?late", "https://a/?later"]
    async with talking(used=True) as (connection, peer):
        page = Page.resume(connection, "S", "T")
        peer.say(*map(at, early), at("https://elsewhere/", "another"))
        await turns(9)
        heard: list[str] = []
        page.addresses.observe(heard.append)
        assert heard == early[-64:]
        peer.say(*map(at, late))
        async with asyncio.timeout(10):
            while heard[64:] != late:
                await asyncio.sleep(0)


async def test_a_page_that_makes_its_address_long_costs_no_more_than_its_share() -> None:
    async with talking(used=True) as (connection, peer):
        page = Page.resume(connection, "S", "T")
        heard: list[str] = []
        page.addresses.observe(heard.append)
        peer.say(at("https://a/?" + "x" * 9_000))
        long = json.dumps(at("https://a/?" + "x" * 2_000_000), separators=(",", ":")).encode() + b"\0"
        await asyncio.to_thread(peer.say_at_length, long)
        peer.say(at("https://a/"))
        async with asyncio.timeout(10):
            while len(heard) < 2:
                await asyncio.sleep(0)
        assert [len(address) for address in heard] == [2048, 10]
        assert connection.connected


async def test_what_is_no_message_is_forgiven_once_only() -> None:
    async with talking(used=True, said=b"a half}\0another}\0") as (connection, _):
        assert "not JSON" in await reason(connection)


async def test_events_of_a_session_that_was_resumed_come_and_those_of_others_do_not() -> None:
    async with talking(used=True) as (connection, peer):
        session, heard = connection.resume("S"), asyncio.Event()
        session.observe("Inspector.targetCrashed", lambda _params: heard.set())
        peer.say({"method": "Inspector.targetCrashed", "params": {}, "sessionId": "another"})
        await turns(9)
        assert not heard.is_set()
        peer.say({"method": "Inspector.targetCrashed", "params": {}, "sessionId": "S"})
        async with asyncio.timeout(10):
            await heard.wait()
