"""How a request comes to the daemon and its answer back: on a connection that is proven, and within deadlines.

With the standard library's client: it takes a tenth of the time that a larger one takes to be imported.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from io import BytesIO
from select import select
from socket import AF_UNIX, SHUT_RDWR, socket
from time import monotonic
from typing import Self, TypeVar
from urllib.parse import urlsplit

from waguard.asking.ask import JSON, LOOK_S, UNIX, Answer, Ask, broke_off, late, left
from waguard.cli.peer import Proof, host_and_port
from waguard.errors import NoAnswer, NoDaemon

_ENDS_S = 1.0
"""Until work whose connection has been ended has noticed, in seconds."""
_PIECE = 1024 * 1024

T = TypeVar("T")
Meanwhile = tuple[float, Callable[[], None]]
"""Every so many seconds this is done, as long as an answer is waited for."""


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

    def do(self, ask: Ask[T], limit_s: float, meanwhile: Meanwhile | None = None) -> T:
        """What comes of it, within ``limit_s``; of what is written into a file each piece does. Raises what is answered, `NoDaemon`, `NoAnswer`, `NotTheDaemon`, `NotWaguard`."""
        if ask.into is None:
            return ask.result(self.ask(ask, limit_s, meanwhile), self.url)
        with self.fetch(ask, limit_s) as (answer, pieces):
            result = ask.result(answer, self.url)
            for piece in pieces:
                ask.into.write(piece)
        return result

    def ask(self, ask: Ask[T], limit_s: float, meanwhile: Meanwhile | None = None) -> Answer:
        """The whole answer. Raises `NoDaemon`, `NoAnswer`, `NotTheDaemon`."""

        def whole() -> Answer:
            # What is done meanwhile is not in it: a terminal that is gone is no fault of the daemon's.
            with self._on_its_way(limit_s), self._sent(connection, ask) as answer:
                return _answer(answer, answer.read())

        call = _Call(whole)
        try:
            with self._connected(limit_s) as connection:
                call.begin()
                return call.result(limit_s, meanwhile, late(self.url, f"within {limit_s:g} s"))
        finally:  # its connection has ended by now, or its work has
            call.end()

    @contextmanager
    def fetch(self, ask: Ask[T], limit_s: float) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """An answer that may be of any length, with its body apart, in pieces; each of them comes within ``limit_s``."""
        with self._connected(limit_s) as connection:
            with self._on_its_way(limit_s):
                answer = self._sent(connection, ask)
                problem = b"" if answer.status == 200 else answer.read()
            yield _answer(answer, problem), self._pieces(answer, limit_s)

    def _pieces(self, answer: HTTPResponse, limit_s: float) -> Iterator[bytes]:
        while True:
            with self._on_its_way(limit_s):  # what goes wrong with a piece elsewhere is not ours
                piece = answer.read(_PIECE)
                if not piece and answer.length:
                    raise IncompleteRead(b"", answer.length)
            if not piece:
                return
            yield piece

    def _sent(self, connection: HTTPConnection, ask: Ask[T]) -> HTTPResponse:
        headers = {"Accept": JSON, **self._headers, **ask.headers}
        body = BytesIO(ask.body) if isinstance(ask.body, bytes) else ask.body
        if body is not None:
            headers["Content-Length"] = str(left(body))
        with suppress(ConnectionError):  # who refuses a long body answers before its end
            connection.request(ask.method, self._below + ask.target, body, headers)
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
            raise late(self.url, f"within {limit_s:g} s") from None
        except (OSError, HTTPException) as error:
            raise broke_off(self.url, error) from None


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


def _answer(answer: HTTPResponse, body: bytes) -> Answer:
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)


def _end(connection: HTTPConnection) -> None:
    """Whoever reads from it in a thread sees that it has ended."""
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(SHUT_RDWR)
    connection.close()
