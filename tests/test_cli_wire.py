"""How a request comes to the daemon and its answer back, against sockets that do what is wrong."""

import errno
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import NotConnected
from select import select
from time import monotonic
from typing import IO

import pytest

from waguard.asking.ask import Ask
from waguard.cli.peer import Proof
from waguard.cli.wire import Wire
from waguard.config.sections import Config
from waguard.errors import NoAnswer, NoDaemon

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
GOOD = HEAD + b"\r\n{}"
LIMIT_S = 10.0


def got(path: str = "/") -> Ask[bytes]:
    return Ask("GET", path, lambda answer: answer.body)


def posted(path: str = "/", body: IO[bytes] | None = None) -> Ask[bytes]:
    return Ask("POST", path, lambda answer: answer.body, body=body)


Talk = Callable[[socket.socket], threading.Thread | None]
"""What is done with a connection; returns who goes on with it, if anybody does."""


@contextmanager
def answering(*talks: Talk) -> Iterator[Wire]:
    """A wire to a listener that deals with its connections one after the other, each in its way."""
    over = threading.Event()

    def serve() -> None:
        beside = []
        for talk in talks:
            connection, _ = server.accept()
            with connection, suppress(ConnectionError):
                beside.append(talk(connection))
        over.wait(10)
        for other in beside:
            if other is not None:
                other.join(10)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/below"
        with Wire(url, "a-token", Proof(Config(), None, url, own=False, here=False), "waguard run") as wire:
            yield wire
        over.set()
        thread.join(10)


def asked(connection: socket.socket) -> bytes:
    said = b""
    while b"\r\n\r\n" not in said:
        if not (piece := connection.recv(65536)):
            raise ConnectionError
        said += piece
    return said


def good(connection: socket.socket) -> None:
    asked(connection)
    connection.sendall(GOOD)


def at_once(talk: Callable[[socket.socket], None]) -> Talk:
    """Beside the others."""

    def begin(connection: socket.socket) -> threading.Thread:
        own = connection.dup()

        def run() -> None:
            with own:
                talk(own)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    return begin


def test_what_is_sent_and_what_comes_back() -> None:
    heard: list[bytes] = []

    def twice(connection: socket.socket) -> None:
        for _ in range(2):
            heard.append(asked(connection))
            connection.sendall(GOOD)

    with answering(twice) as wire:
        answer = wire.ask(got("/v1/sessions"), LIMIT_S)
        assert (answer.status, answer.media_type, answer.body) == (200, "application/json", b"{}")
        wire.ask(posted("/v1/reap"), LIMIT_S)
    assert heard[0].startswith(b"GET /below/v1/sessions HTTP/1.1\r\n")
    assert heard[1].startswith(b"POST /below/v1/reap HTTP/1.1\r\n"), "on the connection that is there"
    assert b"\r\nAuthorization: Bearer a-token\r\n" in heard[0]


def test_a_connection_that_the_daemon_has_ended_is_not_used_again() -> None:
    with answering(good, good) as wire:
        assert wire.ask(posted(), LIMIT_S).body == b"{}"
        (idle,) = wire._idle
        assert select([idle.sock], [], [], LIMIT_S)[0], "its end has come"
        assert wire.ask(posted(), LIMIT_S).body == b"{}"


def test_nobody_listens() -> None:
    with answering() as wire:
        pass
    with pytest.raises(NoDaemon, match="No daemon answers at http://127"):
        wire.ask(got(), LIMIT_S)


def slowly(connection: socket.socket) -> None:
    """Something comes all the time, and never the end."""
    asked(connection)
    connection.sendall(HEAD)
    while True:
        connection.sendall(b"X")
        threading.Event().wait(0.02)


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


@pytest.mark.parametrize("talk", [slowly, silent])
def test_an_answer_has_its_deadline_as_a_whole(talk: Callable[[socket.socket], None]) -> None:
    began = monotonic()
    with answering(talk) as wire, pytest.raises(NoAnswer, match=r"did not answer within 0\.3 s"):
        wire.ask(got(), 0.3)
    assert monotonic() - began < 5


def test_each_piece_of_a_long_answer_has_its_deadline() -> None:
    def half(connection: socket.socket) -> None:
        asked(connection)
        connection.sendall(HEAD + b"\r\n{")
        silent(connection)

    with answering(half) as wire, wire.fetch(got(), 0.3) as (answer, pieces):
        assert answer.status == 200
        with pytest.raises(NoAnswer, match=r"did not answer within 0\.3 s"):
            list(pieces)


def test_an_answer_that_ends_too_soon_is_none() -> None:
    def short(connection: socket.socket) -> None:
        asked(connection)
        connection.sendall(HEAD + b"\r\n{")

    with answering(short, short, lambda connection: None) as wire:
        with pytest.raises(NoAnswer, match="broke off"), wire.fetch(got(), LIMIT_S) as (_, pieces):
            list(pieces)
        for _ in range(2):
            with pytest.raises(NoAnswer, match="broke off"):
                wire.ask(got(), LIMIT_S)


def test_a_long_body_may_be_refused_before_its_end() -> None:
    def refuse(connection: socket.socket) -> None:
        asked(connection)
        connection.sendall(GOOD.replace(b"200 OK", b"413 Too Large"))
        # And then it is closed, with most of the body unread.

    with answering(refuse) as wire:
        assert wire.ask(posted(body=io.BytesIO(bytes(64 << 20))), LIMIT_S).status == 413


def test_whoever_waits_may_look_meanwhile_and_ask() -> None:
    looked = threading.Event()

    def long(connection: socket.socket) -> None:
        asked(connection)
        assert looked.wait(10)
        connection.sendall(GOOD)

    looks: list[int] = []
    with answering(at_once(long), good) as wire:

        def look() -> None:
            if not looks:
                looks.append(wire.ask(got(), LIMIT_S).status)
            looked.set()

        assert wire.ask(posted(), LIMIT_S, (0.01, look)).status == 200
    assert looks == [200]


def test_being_called_away_ends_the_request() -> None:
    ended = threading.Event()

    def see(connection: socket.socket) -> None:
        asked(connection)
        silent(connection)
        ended.set()

    def leave() -> None:
        raise KeyboardInterrupt

    with answering(see) as wire:
        with pytest.raises(KeyboardInterrupt):
            wire.ask(posted(), LIMIT_S, (0.01, leave))
        assert ended.wait(10)


def test_what_goes_wrong_meanwhile_is_not_the_daemons_doing() -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def held(connection: socket.socket) -> None:
        asked(connection)
        connection.recv(1)

    with (
        answering(held) as wire,
        pytest.raises(OSError, match="No space left on device"),
    ):
        wire.ask(got("/v1/sessions"), LIMIT_S, (0.01, full))


def test_what_is_closed_under_a_request_connects_to_nobody_by_itself() -> None:
    """Who listens by then has proved nothing."""
    with answering() as wire, pytest.raises(NotConnected):
        wire._new().request("GET", "/v1/sessions", headers={"Authorization": "Bearer a-token"})
