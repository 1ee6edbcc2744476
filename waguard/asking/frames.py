"""Server-sent events, taken apart as they come: https://html.spec.whatwg.org/multipage/server-sent-events.html. Pure."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from waguard.core.shown import EventView

MOST_BYTES = 16 * 1024 * 1024
"""Of one of them; what has more is no daemon's."""
_EVENT = TypeAdapter(EventView)


@dataclass(frozen=True, slots=True)
class Frame:
    event: str = ""
    """Empty: a sign of life."""
    data: str = ""
    id: str | None = None
    """By which a reader goes on behind it; None: it keeps the one that it had."""


class Frames:
    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[str] = []
        self._bytes = 0

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """Those that end in it. Raises `ValueError` for what is not UTF-8, or too long."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        for line in whole:
            if text := line.removesuffix(b"\r").decode():
                self._lines.append(text)
                self._bytes += len(line)
            elif self._lines:
                lines, self._lines, self._bytes = self._lines, [], 0
                yield _frame(lines)
        if self._bytes + len(self._rest) > MOST_BYTES:
            raise ValueError(f"an event of more than {MOST_BYTES} bytes")


def _frame(lines: list[str]) -> Frame:
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        found[name] = f"{found[name]}\n{value}" if name == "data" and "data" in found else value
    return Frame(found.get("event", ""), found.get("data", ""), found.get("id"))


def happening(frame: Frame, at: float) -> EventView:
    """An event, or what is told of the feed itself, in the same form; that has the time ``at``, unix time. Raises `ValueError`."""
    if frame.event.startswith("feed."):
        fields: dict[str, Any] = json.loads(frame.data)
        return EventView(frame.id, at, None, frame.event, fields)
    return _EVENT.validate_json(frame.data)
