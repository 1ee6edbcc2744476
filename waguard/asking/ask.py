"""A request to the control port, and how its answer is read. No socket, no clock: the command line and `waguard.client` each send it in their way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from io import SEEK_END
from typing import IO, Any, Generic, Literal, TypeVar
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError

from waguard.core.shown import EventView
from waguard.errors import BY_CODE, Foreign, NoAnswer, NotWaguard, WaguardError

T = TypeVar("T")
Told = Callable[[EventView], None] | None

LOOK_S = 10.0
"""Deadline of an answer that waits for nothing, and of a connection, in seconds."""
UNIX = "unix://"
ADDRESS = r"https?://([^/:\[\]]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/|$)|unix:///."
"""Where a daemon may be asked."""
JSON, EVENTS = "application/json", "text/event-stream"
PROBLEM = "application/problem+json"
_CONDITIONS = frozenset({"If-Match", "If-None-Match"})

_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
"""Made when it is needed: each takes milliseconds, and a command needs one."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """By their names in small letters."""
    body: bytes

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    """Without a query; what is in it is quoted."""
    read: Callable[[Answer], T]
    """What a good answer means."""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | IO[bytes] | None = None
    into: IO[bytes] | None = None
    """Where a long answer is written."""
    slow: bool = False
    """The daemon may take as long as its deadlines allow."""
    timeout_s: float = 0.0
    """For how long it was asked to wait beyond that, in seconds."""
    told: Told = None
    """Is told how it gets on."""
    good: frozenset[int] = frozenset({200})
    once: bool = False
    """Done again it would do something else, and a daemon that was started anew does not know what the last one has done."""

    @property
    def target(self) -> str:
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    @property
    def file(self) -> IO[bytes] | None:
        """Its body, if that is a file."""
        return None if isinstance(self.body, bytes) else self.body

    def limit_s(self, patience_s: float) -> float:
        """Until it is answered. ``patience_s``: how long a daemon that keeps its deadlines takes at most, in seconds."""
        return (patience_s if self.slow else LOOK_S) + self.timeout_s

    @property
    def may_be_repeated(self) -> bool:
        """Whether it may be sent again when nobody knows what has become of it: a POST with its Idempotency-Key."""
        if self.once or self.into is not None or (self.file is not None and not self.file.seekable()):
            return False
        return self.method in {"GET", "POST"} or (
            self.method == "PUT" and not self.headers.keys() & _CONDITIONS
        )

    def result(self, answer: Answer, url: str) -> T:
        """Raises the error that was answered; `NotWaguard` for what is no answer of ours."""
        if answer.status in self.good:
            try:
                return self.read(answer)
            except ValidationError as error:
                raise stranger(url, f"It answered with {error.title}: {error.errors()[0]['msg']}.") from None
        if answer.media_type == PROBLEM:
            try:
                raise _error(parsed(dict[str, Any], answer))
            except ValidationError:
                pass
        raise stranger(url, f"It answered {answer.status} {answer.media_type}.")


def parsed(kind: type[T], answer: Answer) -> T:
    """Raises `pydantic.ValidationError`."""
    found: T = _adapter(kind).validate_json(answer.body)
    return found


def left(file: IO[bytes]) -> int:
    """Bytes from where it is to its end."""
    at = file.tell()
    end = file.seek(0, SEEK_END)
    file.seek(at)
    return end - at


def broke_off(url: str, error: Exception) -> NoAnswer:
    return NoAnswer(f"{url} broke off: {error or type(error).__name__}.", hint=NoAnswer.do)


def late(url: str, what: str) -> NoAnswer:
    return NoAnswer(f"The daemon at {url} did not answer {what}.", hint=NoAnswer.do)


def stranger(url: str, said: str) -> NotWaguard:
    return NotWaguard(f"What answers at {url} is not this version of waguard. {said}", hint=NotWaguard.do)


def _error(problem: dict[str, Any]) -> WaguardError:
    """The error that the daemon put on the wire."""
    code, message = str(problem.pop("code", "internal")), str(problem.pop("detail", "No reason given."))
    hint = str(problem.pop("hint", ""))
    # What is left is the error's details, and what HTTP has of it.
    details = {name: value for name, value in problem.items() if name not in {"self", "message"}}
    if code in BY_CODE and code != "config_invalid":
        return BY_CODE[code](message, hint=hint, **details)
    return Foreign(code, message, hint=hint, **details)
