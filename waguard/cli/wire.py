"""How a request comes to the daemon and its answer back: on a connection that is proven, and within deadlines.

With the standard library's client: it takes a tenth of the time that a larger one takes to be imported.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from io import SEEK_END
from select import select
from socket import AF_UNIX, SHUT_RDWR, socket
from time import monotonic
from typing import IO, Self
from urllib.parse import urlsplit

from waguard.cli.errors import NoAnswer, NoDaemon
from waguard.cli.peer import Proof, host_and_port

LOOK_S = 10.0
"""Deadline of an answer that waits for nothing, and of a connection, in seconds."""
UNIX = "unix://"
_LOG = "Its log says more."
_ENDS_S = 1.0
"""Until work whose connection has been ended has noticed, in seconds."""
_PIECE = 1024 * 1024

Meanwhile = tuple[float, Callable[[], None]]
"""Every so many seconds this is done, as long as an answer is waited for."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    media_type: str
    body: bytes


class Wire:
    """To one daemon, as long as the block lasts. ``start``: the command that starts it."""

    def __init__(self, url: str, token: str | None, proof: Proof, start: str) -> None:
        """``url``: http, https or unix. Without a token the daemon has to know by the unix socket who it is."""
        self.url = url
        self._socket = urlsplit(url).path if url.startswith(UNIX) else ""
        self._below = "" if self._socket else urlsplit(url).path
        self._headers: Mapping[str, str | bytes] = (
            {"Authorization": f"Bearer {token}".encode()} if token is not None else {}
        )
        self._proof = proof
        self._start = start
        self._idle: list[HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._idle:
            self._idle.pop().close()

    def ask(
        self,
        method: str,
        target: str,
        *,
        limit_s: float,
        body: IO[bytes] | None = None,
        meanwhile: Meanwhile | None = None,
    ) -> Answer:
        """The whole answer, which comes within ``limit_s``. Raises `NoDaemon`, `NoAnswer`, `NotTheDaemon`."""

        def whole() -> Answer:
            # What is done meanwhile is not in it: a terminal that is gone is no fault of the daemon's.
            with (
                self._on_its_way(limit_s),
                self._sent(connection, method, target, "application/json", body) as answer,
            ):
                return Answer(answer.status, answer.headers.get_content_type(), answer.read())

        call = _Call(whole)
        try:
            with self._connected(limit_s) as connection:
                call.begin()
                return call.result(limit_s, meanwhile, self._late(limit_s))
        finally:  # its connection has ended by now, or its work has
            call.end()

    @contextmanager
    def fetch(self, target: str, *, limit_s: float) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """An answer that may be of any length, with its body apart, in pieces; each of them comes within ``limit_s``."""
        with self._connected(limit_s) as connection:
            with self._on_its_way(limit_s):
                answer = self._sent(connection, "GET", target, "*/*", None)
                problem = b"" if answer.status == 200 else answer.read()
            head = Answer(answer.status, answer.headers.get_content_type(), problem)
            yield head, self._pieces(answer, limit_s)

    def _pieces(self, answer: HTTPResponse, limit_s: float) -> Iterator[bytes]:
        while True:
            with self._on_its_way(limit_s):  # what goes wrong with a piece elsewhere is not ours
                piece = answer.read(_PIECE)
                if not piece and answer.length:
                    raise IncompleteRead(b"", answer.length)
            if not piece:
                return
            yield piece

    def _sent(
        self, connection: HTTPConnection, method: str, target: str, accept: str, body: IO[bytes] | None
    ) -> HTTPResponse:
        headers = {**self._headers, "Accept": accept}
        if body is not None:
            headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(_left(body))}
        with suppress(ConnectionError):  # who refuses a long body answers before its end
            connection.request(method, self._below + target, body, headers)
        return connection.getresponse()

    @contextmanager
    def _connected(self, limit_s: float) -> Iterator[HTTPConnection]:
        """A connection for one request. ``limit_s`` is for each piece that is sent or comes."""
        connection = self._idle.pop() if self._idle else self._new()
        try:
            if connection.sock is not None and select([connection.sock], [], [], 0)[0]:
                connection.close()  # the daemon has ended it
            if connection.sock is None:
                self._connect(connection)
            connection.sock.settimeout(limit_s)
            yield connection
        except BaseException:
            _end(connection)
            raise
        self._idle.append(connection)

    def _new(self) -> HTTPConnection:
        made: HTTPConnection
        if self._socket:
            made = _AtSocket(self._socket, timeout=LOOK_S)
        else:
            kind = HTTPSConnection if self.url.startswith("https:") else HTTPConnection
            made = kind(*host_and_port(self.url), timeout=LOOK_S)
        made.auto_open = (
            0  # what is closed under a request connects to nobody again: only `_connect` proves who listens
        )
        return made

    def _connect(self, connection: HTTPConnection) -> None:
        """Nothing is sent before it is known who listens."""
        if not self._socket:
            self._proof.begin()
        with self._on_its_way(LOOK_S):
            try:
                connection.connect()
            except TimeoutError:
                raise
            except OSError:
                raise NoDaemon(f"No daemon answers at {self.url}.", hint=f"Start it: {self._start}") from None
        if not self._socket:
            self._proof.made()

    @contextmanager
    def _on_its_way(self, limit_s: float) -> Iterator[None]:
        """What goes wrong between us and the daemon. Raises `NoAnswer`."""
        try:
            yield
        except TimeoutError:
            raise self._late(limit_s) from None
        except (OSError, HTTPException) as error:
            raise NoAnswer(f"{self.url} broke off: {error or type(error).__name__}.", hint=_LOG) from None

    def _late(self, limit_s: float) -> NoAnswer:
        return NoAnswer(f"The daemon at {self.url} did not answer within {limit_s:g} s.", hint=_LOG)


class _AtSocket(HTTPConnection):
    """By a unix socket. Where it is only the daemon's user makes files, so that it is the daemon needs no other proof."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket(AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Call:
    """Work in a thread, that somebody waits for who has something else to do or is called away."""

    def __init__(self, work: Callable[[], Answer]) -> None:
        self._work = work
        self._done = threading.Event()
        self._answer: Answer | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(_ENDS_S)

    def result(self, limit_s: float, meanwhile: Meanwhile | None, late: NoAnswer) -> Answer:
        """Raises ``late``, and what the work raises."""
        every_s, look = meanwhile or (limit_s, lambda: None)
        until = monotonic() + limit_s
        while not self._done.wait(max(0.0, min(every_s, until - monotonic()))):
            if monotonic() >= until:
                raise late
            look()
        if self._answer is None:
            assert self._error is not None  # noqa: S101 (it has ended one way or the other)
            raise self._error
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = self._work()
        except Exception as error:  # noqa: BLE001 (raised where it is waited for)
            self._error = error
        self._done.set()


def _left(body: IO[bytes]) -> int:
    at = body.tell()
    end = body.seek(0, SEEK_END)
    body.seek(at)
    return end - at


def _end(connection: HTTPConnection) -> None:
    """Whoever reads from it in a thread sees that it has ended."""
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(SHUT_RDWR)
    connection.close()
