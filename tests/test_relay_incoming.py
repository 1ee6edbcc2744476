"""A long command of a client of the relay is what it was meant to be, in whatever pieces it comes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.browser.channel import MOST_COMMAND, Channel, Limits
from waguard.relay.incoming import Incoming

LIMITS = Limits(message=MOST_COMMAND, command=MOST_COMMAND, unsent=MOST_COMMAND)

PLAIN = "iVBORw0KGgo+/=" * 9000
texts = st.sampled_from([PLAIN, PLAIN + '"', "\\" + PLAIN, PLAIN + "\ud83d" + PLAIN, "é" * 70_000, "[{," * 30_000, '"\\' * 9001]) | st.text()  # fmt: skip
values = st.recursive(
    texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=6,
)


def written(frame: bytes, size: int) -> tuple[dict[str, Any], Incoming]:
    """The command that the browser gets of a frame which comes in pieces of this size, and which was parsed and written anew."""
    incoming, channel = Incoming(), Channel(LIMITS)
    for begin in range(0, len(frame), size):
        incoming.add(frame[begin : begin + size])
    said = json.loads(incoming.frame())
    channel.send(channel.own, said["method"], said["params"], None, texts=incoming.texts)
    command: dict[str, Any] = json.loads(b"".join(map(bytes, iter(channel.take, b"")))[:-1])
    assert channel.own.unsent == 0
    return command, incoming


@given(st.dictionaries(texts, values, max_size=2), st.sampled_from([16 * 1024, 65_000]), st.booleans())
def test_a_long_command_is_written_as_it_was_meant(params: dict[str, Any], size: int, ascii_: bool) -> None:
    said = json.dumps({"id": 7, "method": "Runtime.evaluate", "params": params}, ensure_ascii=ascii_)
    command, _ = written(said.encode("utf-8", "surrogatepass"), size)
    assert command["params"] == params


def test_a_long_plain_text_is_neither_parsed_nor_copied() -> None:
    params = {"arguments": [{"value": {"mimetype": "video/mp4", "data": "A" * 9_000_000}}], "x": "\\n" * 9}
    frame = json.dumps({"id": 7, "method": "Runtime.callFunctionOn", "params": params}).encode()
    command, incoming = written(frame, 65_000)
    assert command["params"] == params
    assert incoming.parsed < 200_000
    # And also as a text in a text, as pyppeteer sends it.
    outer = {"method": "Target.sendMessageToTarget", "params": {"message": frame.decode()}}
    command, incoming = written(json.dumps(outer).encode(), 65_000)
    assert json.loads(command["params"]["message"]) == json.loads(frame)
    assert incoming.parsed < 200_000


@pytest.mark.parametrize("outside", ["1" * 90_000, " " * 90_000 + "1", "[" * 40_000 + "]" * 40_000])
def test_what_is_no_text_is_parsed_however_plain_it_is(outside: str) -> None:
    frame = f'{{"id":7,"method":"x","params":{{"text":"\\\\","number":{outside}}}}}'.encode()
    incoming = Incoming()
    for begin in range(0, len(frame), 20_000):
        incoming.add(frame[begin : begin + 20_000])
    assert (incoming.frame(), incoming.texts) == (frame, {})


def test_nobody_can_write_the_name_of_a_text() -> None:
    frames = []
    for _ in range(2):
        incoming = Incoming()
        incoming.add(b'{"id":1,"method":"x","params":{"a":"')
        incoming.add(b"A" * 20_000)
        frames.append(incoming.frame())
    assert frames[0] != frames[1]
