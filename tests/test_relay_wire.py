"""Frames of the relay: what a client sends is read once and written anew, of what the browser says only the ends are touched."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.relay import wire

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
texts = st.text(st.characters())  # half surrogates too


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.dictionaries(texts, json_values | texts, max_size=4),
    texts | st.none(),
)
def test_a_command_is_read_as_it_was_meant(number: int, params: dict[str, Any], session: str | None) -> None:
    said = {"id": number, "method": "Runtime.evaluate", "params": params, "strange": 1}
    if session is not None:
        said["sessionId"] = session
    read = wire.parse(json.dumps(said).encode())
    assert (read.number, read.method, read.session) == (number, "Runtime.evaluate", session)
    assert json.dumps(read.params) == json.dumps(params)


@pytest.mark.parametrize(
    ("frame", "code", "number"),
    [
        (b"", wire.PARSE, None),
        (b"{", wire.PARSE, None),
        (b"\xff\xfe", wire.PARSE, None),
        (b'{"id":1,"method":"A.b"}\0{"id":2,"method":"Browser.crash"}', wire.PARSE, None),
        (b'{"id":1,"method":"A.b","params":{"a":"\0"}}', wire.PARSE, None),
        (b'{"id":1,"method":"A.b","params":{"a":NaN}}', wire.PARSE, None),
        (b'{"id":1,"method":"A.b","params":{"a":1e999}}', wire.PARSE, None),
        (b'{"id":1,"method":"A.b","params":{"a":' + b"9" * 5000 + b"}}", wire.PARSE, None),
        (b'{"id":1,"method":"A.b","params":{"a":' + b"[" * 250 + b"]" * 250 + b"}}", wire.PARSE, 1),
        (b'{"id":1,"method":"A.b","params":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", wire.PARSE, 1),
        (b"[]", wire.INVALID, None),
        (b'{"method":"A.b"}', wire.INVALID, None),
        (b'{"id":true,"method":"A.b"}', wire.INVALID, None),
        (b'{"id":1.0,"method":"A.b"}', wire.INVALID, None),
        (b'{"id":2147483648,"method":"A.b"}', wire.INVALID, None),
        (b'{"id":1}', wire.INVALID, 1),
        (b'{"id":1,"method":["Browser.crash"]}', wire.INVALID, 1),
        (b'{"id":1,"method":"A.b","params":[]}', wire.INVALID, 1),
        (b'{"id":1,"method":"A.b","sessionId":7}', wire.INVALID, 1),
    ],
)  # fmt: skip
def test_what_is_no_command_is_told_so(frame: bytes, code: int, number: int | None) -> None:
    with pytest.raises(wire.Malformed) as error:
        wire.parse(frame)
    assert (error.value.code, error.value.number) == (code, number)


def test_of_a_key_that_comes_twice_one_is_read_and_that_is_written() -> None:
    read = wire.parse(
        b'{"id":1,"method":"Browser.getVersion","method":"Browser.crash","params":{"a":1,"a":2}}'
    )
    assert (read.method, read.params) == ("Browser.crash", {"a": 2})


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(at)]


@given(
    json_values | texts,
    st.integers(1, 2**31 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.booleans(),
    st.lists(st.integers(0), max_size=6),
)
def test_an_answer_gets_the_clients_number_however_it_comes(
    value: Any, ours: int, theirs: int, cut: bool, cuts: list[int]
) -> None:
    said = {"id": ours, "result": {"value": value}, "sessionId": "ABC"}
    raw = json.dumps(said, separators=(",", ":")).encode()
    frame = wire.renumbered(in_pieces(raw, cuts), ours, theirs, "ABC" if cut else None)
    assert frame is not None
    expected = {**said, "id": theirs}
    if cut:
        del expected["sessionId"]
    assert frame == json.dumps(expected, separators=(",", ":")).encode()
    assert wire.renumbered(in_pieces(raw, cuts), ours + 1, theirs, None) is None
    assert wire.without_session(in_pieces(raw, cuts), "OTHER") is None


@given(texts)
def test_a_session_is_the_last_member_as_the_browser_writes_it(text: str) -> None:
    frame = bytes(wire.in_session(wire.event("A.b", {"text": text}), "ABC"))
    assert json.loads(frame) == {"method": "A.b", "params": {"text": text}, "sessionId": "ABC"}
    assert wire.without_session([frame], "ABC") == wire.event("A.b", {"text": text})


@pytest.mark.parametrize("frame", ["[" * 600_000, "{}," * 300_000, "1," * 600_000, '"x",' * 60_000])
def test_what_takes_too_long_to_parse_is_not_parsed(frame: str) -> None:
    named = '"id":7', '"sessionId":"AB01"', f'"method":"Runtime.evaluate","params":{{"a":[{frame}{{}}]}}'
    for members in (named, named[::-1]):
        text = f"{{{','.join(members)}}}"
        for one in (text, text.encode()):
            with pytest.raises(wire.Malformed, match="objects, lists and members") as error:
                wire.parse(one)
            assert (error.value.number, error.value.session) == (7, "AB01")


@pytest.mark.parametrize("text", ["f({a:[1,2]},", '"{[,', '\\"{,', "\n\\,"])
def test_what_stands_in_a_text_is_none_of_them(text: str) -> None:
    params = {"expression": text * 60_000}
    assert wire.parse(json.dumps({"id": 1, "method": "x", "params": params}).encode()).params == params


def test_a_long_text_is_a_single_value() -> None:
    script = "f(a);" * 2_000_000
    assert wire.parse(json.dumps({"id": 1, "method": "x", "params": {"a": script}})).params == {"a": script}


@given(st.lists(texts, min_size=1, max_size=3), st.integers(0, 3), st.sampled_from(["page", "nothing"]))
def test_a_long_answer_is_what_a_short_one_would_be(said: list[str], depth: int, session: str) -> None:
    raw = json.dumps({"id": 7, "result": {"value": ["x" * 200_000, *said]}, "sessionId": "S"}, separators=(",", ":")).encode()  # fmt: skip
    pieces = [raw[at : at + 65_536] for at in range(0, len(raw), 65_536)]
    frame = wire.renumbered(pieces, 7, 12, "S")
    assert isinstance(frame, wire.Long)
    assert len(frame) < len(raw)
    for _ in range(depth):
        frame = wire.in_message(frame, session, "T")
    found: Any = json.loads(bytes(wire.in_session(frame, "P")))
    assert found.pop("sessionId") == "P"
    for _ in range(depth):
        assert found["method"] == "Target.receivedMessageFromTarget"
        assert (found["params"]["sessionId"], found["params"]["targetId"]) == (session, "T")
        found = json.loads(found["params"]["message"])
    assert found == {"id": 12, "result": {"value": ["x" * 200_000, *said]}}
