"""What a browser asks its proxy for, as it is passed on: nothing is lost, nothing is added but who asks, and what is no request is none."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waguard.core.proxying import Asked, basic, closing, socks_connect, socks_greeting, socks_login, status_of

NAMES = st.from_regex(r"\A[a-z]{1,10}(\.[a-z]{2,5}){0,3}\Z")
VALUES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f\x85\xa0\xad"), max_size=20
)
HEADERS = st.lists(st.tuples(st.from_regex(r"\AX-[A-Za-z]{1,8}\Z"), VALUES), max_size=5)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


def head(line: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@given(NAMES, st.integers(1, 65535), HEADERS, TEXTS.filter(lambda one: ":" not in one), TEXTS)
def test_a_tunnel_is_asked_for_as_it_came_and_by_whom(
    name: str, port: int, headers: list[tuple[str, str]], user: str, password: str
) -> None:
    hop = [("Proxy-Connection", "keep-alive"), ("proxy-authorization", "Basic eA=="), ("CONNECTION", "x")]
    asked = Asked.of(head(f"CONNECT {name}:{port} HTTP/1.1", [*hop, *headers]))
    assert (asked.host, asked.port, asked.tunnels) == (name, port, True)
    told = asked.to_proxy(basic(user, password))
    own = ("Proxy-Authorization", basic(user, password))
    assert told == head(f"CONNECT {name}:{port} HTTP/1.1", [*headers, own])
    assert base64.b64decode(own[1].removeprefix("Basic ")).decode() == f"{user}:{password}"
    assert asked.to_proxy(basic("", "")) == head(f"CONNECT {name}:{port} HTTP/1.1", headers)


@given(NAMES, HEADERS)
def test_a_request_is_alone_on_its_connection(name: str, headers: list[tuple[str, str]]) -> None:
    asked = Asked.of(
        head(f"POST http://{name}/a?b=c HTTP/1.1", [("Proxy-Connection", "keep-alive"), *headers])
    )
    assert (asked.host, asked.port, asked.tunnels) == (name, 80, False)
    close = ("Connection", "close")
    assert asked.to_proxy("") == head(f"POST http://{name}/a?b=c HTTP/1.1", [*headers, close])
    assert asked.to_origin() == head("POST /a?b=c HTTP/1.1", [*headers, close])
    answer = head("HTTP/1.1 200 OK", [("Keep-Alive", "timeout=5"), *headers])
    assert closing(answer) == head("HTTP/1.1 200 OK", [*headers, close])


def test_where_nothing_is_named() -> None:
    asked = Asked.of(b"GET http://[::1]:8080 HTTP/1.0\r\n\r\n")
    assert (asked.host, asked.port) == ("::1", 8080)
    assert asked.to_origin().startswith(b"GET / HTTP/1.1\r\n")


@given(st.binary(max_size=60))
def test_what_is_no_request_is_refused_or_is_one(data: bytes) -> None:
    try:
        asked = Asked.of(data)
    except ValueError:
        return
    assert asked.host
    assert 0 < asked.port < 65536


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1",
        "GET https://a/ HTTP/1.1",
        "CONNECT a HTTP/1.1",
        "CONNECT a:x HTTP/1.1",
        "CONNECT a:99999 HTTP/1.1",
        "CONNECT a:0 HTTP/1.1",
        "GET http://a/ HTTP/2",
        "GET http://a/ b HTTP/1.1",
        "",
    ],
)
def test_what_is_no_request(line: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Asked.of(f"{line}\r\n\r\n".encode())


def test_an_answer_has_a_status() -> None:
    assert status_of(b"HTTP/1.0 407\r\n\r\n") == 407
    assert status_of(b"HTTP/1.1 200 Fine\r\n\r\n") == 200
    for wrong in (b"SSH-2.0\r\n", b"HTTP/1.1 2000 x\r\n", b""):
        with pytest.raises(ValueError, match="answers no HTTP"):
            status_of(wrong)


def test_socks() -> None:
    """RFC 1928 and 1929, byte for byte."""
    assert socks_greeting("") == b"\x05\x01\x00"
    assert socks_greeting("demo") == b"\x05\x01\x02"
    assert socks_login("de", "pä") == b"\x01\x02de\x03p\xc3\xa4"
    assert socks_connect("a.example", 443) == b"\x05\x01\x00\x03\x09a.example\x01\xbb"
    assert socks_connect("127.0.0.1", 80) == b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"
    assert socks_connect("::1", 80) == b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50"
    with pytest.raises(ValueError, match="too long"):
        socks_connect("a" * 256, 80)
    with pytest.raises(ValueError, match="ascii"):
        socks_connect("é", 80)
