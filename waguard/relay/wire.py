"""The two forms of a message at the relay: what a client sends is parsed and written anew, of what the browser says only the ends are.

What a client sends may have a key twice, bytes that are no text, or numbers that only one of two parsers takes: so nobody but `parse`
reads it, and what the policy has judged is what is written. What the browser says may have 90 MB: its number and its session stand at its
ends (`waguard.browser.envelope`), and the rest is passed on in the pieces in which it came. ``json`` of the standard library is what passes half of a surrogate pair, which a
message that was cut in an emoji has; no faster one does.
"""

import json
import math
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

_IDS = 2**31
"""The browser's numbers."""
_DEEP = 200
"""Levels of what is in what: the browser takes 300, and does not say whose command it was that had more."""
_MOST_VALUES = 50_000
"""Objects, lists and members of a frame: to parse more than that, and to write it anew, keeps everybody waiting."""
_SLICE = 256 * 1024
_DIGITS = 100
"""Of an integer: the browser never answers to what is no number of its, and the time to write one anew grows with their square."""
_ENDS = 128
"""Bytes in which a frame has its number and its session."""
_NUMBER, _SESSION = re.compile(rb'"id": ?(\d{1,10})[,}]'), re.compile(rb'"sessionId": ?"(\w{1,64})"')
_TAIL = ',"sessionId":"'
_LONG = 128 * 1024
"""Bytes of a frame that is not put together."""
PARSE, INVALID, PARAMS, FAILED, NO_SESSION = -32700, -32600, -32602, -32000, -32001
"""Codes of errors, as the browser has them."""


class Malformed(Exception):
    """A frame is no command; ``number`` and ``session`` if it has them."""

    def __init__(self, code: int, why: str, number: int | None = None, session: str | None = None) -> None:
        super().__init__(why)
        self.code = code
        self.number = number
        self.session = session


@dataclass(frozen=True, slots=True)
class Command:
    number: int
    method: str
    params: dict[str, Any]
    session: str | None


def parse(frame: bytes | str) -> Command:
    """What a client has sent. Raises `Malformed`."""
    raw = frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame
    if _has_many(raw):
        raise Malformed(PARSE, f"More than {_MOST_VALUES} objects, lists and members", *_names(raw))
    try:
        said = _DECODER.decode(raw.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise Malformed(PARSE, f"JSON: {str(error)[:100]}") from None
    if not isinstance(said, dict):
        raise Malformed(INVALID, "Message must be an object")
    number, session = said.get("id"), said.get("sessionId")
    if type(number) is not int or not -_IDS <= number < _IDS:
        raise Malformed(INVALID, "Message must have integer 'id' property")
    if session is not None and not isinstance(session, str):
        raise Malformed(INVALID, "Message may have string 'sessionId' property", number)
    method, params = said.get("method"), said.get("params")
    if not isinstance(method, str):
        raise Malformed(INVALID, "Message must have string 'method' property", number, session)
    if params is not None and not isinstance(params, dict):
        raise Malformed(INVALID, "Message may have object 'params' property", number, session)
    if len(frame) > _DEEP and params and _deeper(params, _DEEP):
        raise Malformed(PARSE, f"More than {_DEEP} levels", number, session)
    return Command(number, method, params or {}, session)


def _has_many(frame: bytes) -> bool:
    """More values than may be, but for what stands in texts, as scripts do."""
    if len(frame) <= _MOST_VALUES or _values(frame) <= _MOST_VALUES:
        return False
    bare = frame.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * _MOST_VALUES:  # a key and a text of each, at the most
        return True
    return _values(b"".join(bare.split(b'"')[::2])) > _MOST_VALUES


def _values(text: bytes) -> int:
    """Objects, lists and members, counted until they are too many."""
    found = 0
    for start in range(0, len(text), _SLICE):
        piece = text[start : start + _SLICE]
        found += sum(map(piece.count, (b"{", b"[", b",")))
        if found > _MOST_VALUES:
            break
    return found


def _names(frame: bytes) -> tuple[int | None, str | None]:
    """The number and the session of a frame that is not parsed, as drivers write them: at one of its ends. Whose it is not, only its sender hears of."""
    ends = frame[:_ENDS] + frame[-_ENDS:]
    number, session = _NUMBER.search(ends), _SESSION.search(ends)
    return int(number[1]) if number else None, session[1].decode() if session else None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON's")


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        _no_number(text)
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_number, parse_int=_integer)
"""`json.loads` would make one each time."""


def _deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for one in layer
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return False
    return True


def written(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()


def answer(number: int, result: Mapping[str, Any]) -> bytes:
    return written({"id": number, "result": result})


def error(number: int | None, code: int, message: str) -> bytes:
    named = {} if number is None else {"id": number}
    return written({**named, "error": {"code": code, "message": message}})


def event(method: str, params: Mapping[str, Any]) -> bytes:
    return written({"method": method, "params": params})


class Long:
    """A frame in pieces, each of which is made when it is written: to put 90 MB together, or to escape them, keeps everybody waiting.

    ``pieces``: each with how many texts of JSON it stands in.
    """

    def __init__(self, pieces: Iterable[tuple[memoryview, int]]) -> None:
        self._pieces = deque(pieces)
        self._size = sum(len(piece) for piece, _ in self._pieces)

    def __len__(self) -> int:
        """Without what is escaped."""
        return self._size

    def __bool__(self) -> bool:
        """Whether something is left of it."""
        return bool(self._pieces)

    def __bytes__(self) -> bytes:
        """All that is left of it, which is taken."""
        return b"".join([self.take() for _ in range(len(self._pieces))])

    def take(self) -> bytes:
        """The next piece."""
        piece, depth = self._pieces.popleft()
        said = bytes(piece)
        for _ in range(depth):
            said = said.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        return said

    def in_session(self, session: str) -> "Long":
        *first, (last, _) = self._pieces
        tail = memoryview(f'{_TAIL}{session}"}}'.encode())
        return Long([*first, (last[:-1], 0), (tail, 0)])

    def in_message(self, before: bytes, after: bytes) -> "Long":
        inner = [(piece, depth + 1) for piece, depth in self._pieces]
        return Long([(memoryview(before), 0), *inner, (memoryview(after), 0)])


Frame = bytes | Long


def in_session(message: Frame, session: str) -> Frame:
    """With the session as its last member, as the browser writes it."""
    if isinstance(message, Long):
        return message.in_session(session)
    return b"".join((memoryview(message)[:-1], f'{_TAIL}{session}"}}'.encode()))


def in_message(message: Frame, session: str, target: str) -> Frame:
    """As a session of the old form has it."""
    text = "" if isinstance(message, Long) else message.decode()
    inner = {"sessionId": session, "targetId": target, "message": text}
    outer = event("Target.receivedMessageFromTarget", inner)
    return message.in_message(outer[:-3], outer[-3:]) if isinstance(message, Long) else outer


def read(parts: Sequence[bytes]) -> dict[str, Any]:
    """What the browser says, parsed. Raises `ValueError`, `RecursionError`."""
    said = json.loads(b"".join(parts))
    if not isinstance(said, dict):
        raise ValueError("it is no message")  # noqa: TRY004 (what is no JSON is told likewise)
    return said


def renumbered(parts: Sequence[bytes], ours: int, theirs: int, cut: str | None) -> Frame | None:
    """An answer with the client's number in place of ours; see `without_session`. None if it is of another form."""
    return _rewritten(parts, f'{{"id":{ours}'.encode(), f'{{"id":{theirs}'.encode(), cut)


def without_session(parts: Sequence[bytes], cut: str | None) -> Frame | None:
    """Without this session at its end; ``cut`` None: as it is. None if it is of another form."""
    return _rewritten(parts, b"", b"", cut)


def _rewritten(parts: Sequence[bytes], head: bytes, new: bytes, cut: str | None) -> Frame | None:
    tail = b"" if cut is None else f'{_TAIL}{cut}"}}'.encode()
    first, last = _first(parts, len(head) + 1), _last(parts, len(tail))
    if not first.startswith(head) or (head and first[len(head) :] != b",") or last != tail:
        return None
    pieces = [memoryview(part) for part in parts]
    if cut is not None:
        _drop_end(pieces, len(tail))
        pieces.append(memoryview(b"}"))
    _drop_begin(pieces, len(head))
    pieces.insert(0, memoryview(new))
    if sum(map(len, pieces)) > _LONG:
        return Long((piece, 0) for piece in pieces)
    return b"".join(pieces)


def _first(parts: Sequence[bytes], size: int) -> bytes:
    found = b""
    for part in parts:
        found += part[: size - len(found)]
        if len(found) == size:
            break
    return found


def _last(parts: Sequence[bytes], size: int) -> bytes:
    found = b""
    for part in reversed(parts):
        if (missing := size - len(found)) == 0:
            break
        found = bytes(part[-missing:]) + found
    return found


def _drop_begin(pieces: list[memoryview], size: int) -> None:
    while size:
        cut = min(size, len(pieces[0]))
        pieces[0] = pieces[0][cut:]
        size -= cut
        if not pieces[0]:
            pieces.pop(0)


def _drop_end(pieces: list[memoryview], size: int) -> None:
    while size:
        cut = min(size, len(pieces[-1]))
        pieces[-1] = pieces[-1][: len(pieces[-1]) - cut]
        size -= cut
        if not pieces[-1]:
            pieces.pop()
