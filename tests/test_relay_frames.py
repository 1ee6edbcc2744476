"""What a client of the relay sends, from the bytes of its WebSocket to the command that is written: however it comes, in pieces or whole."""

import json
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.api.frames import Broken, Frames, Kind, Piece, head, unmasked
from waguard.browser.channel import MOST_COMMAND, Channel, Limits
from waguard.relay.incoming import Incoming

LIMITS = Limits(message=MOST_COMMAND, command=MOST_COMMAND, unsent=MOST_COMMAND)


def sent(data: bytes, kind: Kind, *, ends: bool = True, mask: bytes = b"\1\2\3\4") -> bytes:
    """A frame as a client writes it."""
    plain = head(len(data), kind, ends=ends)
    return bytes((plain[0], plain[1] | 0x80)) + plain[2:] + mask + unmasked(data, mask)


def read(data: bytes, cuts: list[int]) -> list[Piece]:
    frames, found = Frames(), []
    at = sorted({0, len(data), *(cut % (len(data) or 1) for cut in cuts)})
    for begin, end in pairwise(at):
        frames.feed(data[begin:end])
        while (piece := frames.next()) is not None:
            found.append(piece)
    return found


def messages(pieces: list[Piece]) -> list[tuple[Kind, bytes]]:
    found: list[tuple[Kind, bytes]] = []
    under_way = b""
    for piece in pieces:
        if piece.kind in {Kind.TEXT, Kind.BINARY}:
            under_way += piece.data
            if piece.ends:
                found.append((piece.kind, under_way))
                under_way = b""
        else:
            found.append((piece.kind, piece.data))
    return found


@given(st.binary(max_size=2000), st.binary(min_size=4, max_size=4))
def test_what_is_masked_twice_is_as_it_was(data: bytes, mask: bytes) -> None:
    once = unmasked(data, mask)
    assert once == bytes(one ^ mask[at % 4] for at, one in enumerate(data))
    assert unmasked(once, mask) == data


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Kind.TEXT, Kind.BINARY]),
            st.lists(st.sampled_from([0, 1, 125, 126, 300, 70_000]), min_size=1, max_size=3),
            st.booleans(),
        ),
        max_size=4,
    ),
    st.lists(st.integers(0), max_size=8),
)
def test_messages_are_read_in_whatever_pieces_they_come(
    said: list[tuple[Kind, list[int], bool]], cuts: list[int]
) -> None:
    data, expected = b"", []
    for kind, sizes, pings in said:
        for number, size in enumerate(sizes):
            last = number == len(sizes) - 1
            data += sent(b"x" * size, Kind.CONTINUED if number else kind, ends=last)
            if pings and not last:  # between the frames of a message
                data += sent(b"ping", Kind.PING)
                expected.append((Kind.PING, b"ping"))
        expected.append((kind, b"x" * sum(sizes)))
    assert messages(read(data, cuts)) == expected


@pytest.mark.parametrize(
    "data",
    [
        head(1, Kind.TEXT) + b"xxxxx",  # not masked
        bytes([0xC1, 0x80]) + b"1234",
        bytes([0x83, 0x80]) + b"1234",
        sent(b"x" * 126, Kind.PING),
        sent(b"", Kind.PING, ends=False),
        sent(b"x", Kind.CONTINUED),
        sent(b"x", Kind.TEXT, ends=False) + sent(b"y", Kind.TEXT),
    ],
)
def test_what_is_no_frame_is_told(data: bytes) -> None:
    with pytest.raises(Broken):
        read(data, [])


@pytest.mark.parametrize("size", [0, 125, 126, 2**16 - 1, 2**16])
def test_a_head_says_how_long_the_frame_is(size: int) -> None:
    said = head(size, Kind.TEXT)
    told = {2: said[1], 4: struct.unpack("!xxH", said)[0] if len(said) == 4 else 0}
    assert told.get(len(said), struct.unpack("!xxQ", said)[0] if len(said) == 10 else None) == size
    assert len(said) == (2 if size < 126 else 4 if size < 2**16 else 10)


# --- long commands ------------------------------------------------------------------------------------------

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
