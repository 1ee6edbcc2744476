"""Values that an app keeps with a session: their keys and types, how much there may be, until when, and who may overwrite whom. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from waguard.errors import InvalidRequest, ValuesFull, ValueTooLarge

MOST_BYTES = 64 * 1024
"""Of one value."""
MOST_ALL = 1024 * 1024
"""Of all values of a client, bytes."""
MOST_VALUES = 1000
"""Of a client."""
OCTETS = "application/octet-stream"
KEY = "[A-Za-z0-9][A-Za-z0-9._:@=+~-]{0,127}"
_KEY = re.compile(KEY, re.ASCII)
_WORD = r"[A-Za-z0-9!#$&^_.+-]+"
_TYPE = re.compile(rf"{_WORD}/{_WORD}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|\"[A-Za-z0-9 !#$&^_.+:-]*\"))*")
_MOST_TYPE = 200


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a value besides what it says."""

    key: str
    media_type: str
    bytes: int
    version: str
    """Another one each time that it is written, also if it says the same: who has seen one knows whether anybody has written since."""
    written_at: float
    """Unix time, seconds."""
    ttl_s: float | None = None
    """How long it lives; none: until it is deleted."""

    @property
    def etag(self) -> str:
        return f'"{self.version}"'

    @property
    def expires_at(self) -> float | None:
        return None if self.ttl_s is None else self.written_at + self.ttl_s

    def is_over(self, now: float) -> bool:
        """Whether its time to live is over. A clock that leaps back lets it live twice as long, and no longer."""
        return self.ttl_s is not None and not -self.ttl_s <= now - self.written_at < self.ttl_s


def check_key(given: str) -> str:
    """The text as a key. Raises `InvalidRequest`."""
    if not _KEY.fullmatch(given):
        raise InvalidRequest(
            f"{given[:80]!r} is no key.",
            hint="A key is 1 to 128 of A-Z a-z 0-9 . _ : @ = + ~ - and starts with a letter or a digit.",
        )
    return given


def check_type(given: str | None) -> str:
    """The type that a value is sent back with: as it came, where that is one. Raises `InvalidRequest`."""
    told = OCTETS if given is None else given.strip()
    if len(told) > _MOST_TYPE or not _TYPE.fullmatch(told):
        raise InvalidRequest(
            f"The Content-Type {told[:80]!r} is none.",
            hint=f"Write for example application/json, or text/plain; charset=utf-8. It has {_MOST_TYPE} characters at most.",
        )
    return told


def check_size(size: int) -> None:
    """Raises `ValueTooLarge`."""
    if size > MOST_BYTES:
        raise ValueTooLarge(
            f"A value has at most {MOST_BYTES >> 10} KiB.", hint="Keep it elsewhere, or in several values."
        )


def check_room(others: Iterable[Value], size: int, code: str) -> None:
    """Whether one more of so many bytes fits beside them. Raises `ValuesFull`."""
    sizes = [one.bytes for one in others]
    if sum(sizes) + size > MOST_ALL:
        what = f"{sum(sizes) + size} bytes, and {MOST_ALL >> 20} MiB is the most"
    elif len(sizes) >= MOST_VALUES:
        what = f"more than {MOST_VALUES} values"
    else:
        return
    raise ValuesFull(
        f"{code} would have {what}.",
        hint=f"Delete some, or give those that are soon of no use a time to live (ttl_s). They are listed by: waguard values {code}",
    )
