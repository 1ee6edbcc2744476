"""What a caller would like to get: the Accept header."""

import contextlib

from waguard.api import sse

_STARS = {"image/*": "image/png", "text/*": "text/plain"}


def accepted(header: str) -> list[str]:
    """The types of an Accept header, best first; what it refuses (``q=0``) and what makes no sense is left out."""
    liked: list[tuple[float, str]] = []
    for part in header.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        with contextlib.suppress(ValueError):
            if (quality := float(weight)) > 0:
                liked.append((quality, _STARS.get(name, name)))
    return [name for _, name in sorted(liked, key=lambda one: -one[0])]


def wants_events(header: str) -> bool:
    """Whether server-sent events are liked best."""
    return accepted(header)[:1] == [sse.TYPE]
