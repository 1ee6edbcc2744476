"""On which condition something is done: what the headers If-Match and If-None-Match say of an ETag, RFC 9110, 13.1. Pure."""

import re
from dataclasses import dataclass
from typing import Protocol

from waguard.errors import InvalidRequest, PreconditionFailed

_TAG = r'(?:W/)?"[^"\x00-\x20\x7f]*"'
_TAGS = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_ANY = "*"
ETAGS = rf"^(\*|{_TAGS.pattern})$"


class Tagged(Protocol):
    @property
    def etag(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Condition:
    """What the headers `If-Match` and `If-None-Match` say."""

    match: frozenset[str] | None = None
    none_match: frozenset[str] | None = None

    @classmethod
    def of(cls, match: str | None, none_match: str | None) -> "Condition":
        """Raises `InvalidRequest`."""
        weak_too = _tags("If-None-Match", none_match)
        # A weak tag is as good as a strong one only to whoever wants none of them, RFC 9110, 13.1.
        return cls(
            _tags("If-Match", match),
            None if weak_too is None else frozenset(one.removeprefix("W/") for one in weak_too),
        )

    def is_known(self, there: Tagged) -> bool:
        """Whether the caller has this one already."""
        return self.none_match is not None and _among(self.none_match, there)

    def check(self, there: Tagged | None) -> None:
        """Raises `PreconditionFailed`."""
        if self.match is not None and not _among(self.match, there):
            why = "It is not there." if there is None else "It has changed since."
        elif there is not None and self.is_known(there):
            why = "It is there already."
        else:
            return
        raise PreconditionFailed(
            why,
            hint="Get it, and try again with its ETag.",
            **({} if there is None else {"etag": there.etag}),
        )


ALWAYS = Condition()


def _tags(name: str, given: str | None) -> frozenset[str] | None:
    if given is None:
        return None
    told = given.strip()
    if told != _ANY and not _TAGS.fullmatch(told):
        raise InvalidRequest(
            f"The {name} header {told[:80]!r} has no ETags.", hint='Write * or ETags as they came: "5f3a".'
        )
    return frozenset({_ANY} if told == _ANY else re.findall(_TAG, told))


def _among(tags: frozenset[str], there: Tagged | None) -> bool:
    return there is not None and bool(tags & {_ANY, there.etag})
