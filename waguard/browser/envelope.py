"""A message of the DevTools pipe in the pieces in which it comes, and what its two ends tell. Pure.

Whose a message is stands at its ends, so that a long one need be neither parsed nor copied. Facts of Chromium (tried with 156; paths are of its source tree):

- ``third_party/inspector_protocol/crdtp/dispatch.cc``, ``CreateResponse`` and ``CreateNotification``: the number of the command that is
  answered comes first, and so does the method of an event.
- ``content/browser/devtools/devtools_session.cc``, ``DispatchProtocolMessageToClient``, and
  ``third_party/blink/renderer/core/inspector/devtools_session.cc``, ``FinalizeMessage``: the session's id is appended as the last
  member, by ``AppendString8EntryToCBORMap``; a message of the pipe's own session has none. ``ValidateSessionId`` ends a renderer that
  names another one.

Nothing in between can look like the end: a text has its quotation marks escaped, hence ``,"sessionId":"`` is a key, and after its text there is
room for one closing brace only.
"""

import json
import re

ODD = 64 * 1024
"""Bytes of a message that has another form, and may be parsed whole to see whose it is."""
_ENDS = 256
"""Bytes in which a message has its number or its method, or its session."""
_SMALL, _LARGE = 16 * 1024, 64 * 1024
"""Pieces below the first are put together, up to the second: else what comes byte by byte would take a hundred times its size."""
_HEAD = re.compile(rb'\{"(?:id": ?(?P<number>\d{1,10})|method": ?"(?P<method>[\w.]{1,128})"),')
_TAIL = re.compile(rb', ?"sessionId": ?"(?P<session>\w{1,128})"\}$')
_CHILD = re.compile(
    rb'\{"method": ?"Target\.(?P<what>attachedTo|detachedFrom)Target", ?"params": ?\{"sessionId": ?"(?P<session>\w{1,128})"'
)


class Assembly:
    """The message under way. It is kept in the pieces that came, so that what it costs does not depend on how long it is."""

    def __init__(self) -> None:
        self.parts: list[bytes | bytearray] = []
        """Of the first and the last three, each but the very first and the last is longer than `_ENDS`."""
        self.size = 0
        self.skipped = False
        """It is too long: only its end is kept, which tells whose it is."""
        self._first = b""

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self.skipped:
            self.parts = [b"".join((*self.parts, data[-_ENDS:]))[-_ENDS:]]
        elif len(data) >= _SMALL or not self.parts:
            self.parts.append(data)
        elif isinstance(last := self.parts[-1], bytearray) and len(last) < _LARGE:
            last += data
        else:
            self.parts.append(bytearray(data))

    def skip(self) -> None:
        self._first, tail = self.head(), self.tail()
        self.skipped = True
        self.parts = [tail]

    def head(self) -> bytes:
        if len(self.parts) == 1 and not self.skipped:
            return bytes(self.parts[0][:_ENDS])
        return self._first or b"".join(part[:_ENDS] for part in self.parts[:3])[:_ENDS]

    def tail(self) -> bytes:
        if len(self.parts) == 1:
            return bytes(self.parts[0][-_ENDS:])
        return b"".join(part[-_ENDS:] for part in self.parts[-3:])[-_ENDS:]


def told_by_head(head: bytes) -> tuple[int | None, str | None]:
    """The number of an answer, or the method of an event; neither if it has another form."""
    found = _HEAD.match(head)
    if found is None:
        return None, None
    return (int(found["number"]), None) if found["number"] else (None, found["method"].decode())


def told_by_tail(tail: bytes) -> str | None:
    found = _TAIL.search(tail)
    return None if found is None else found["session"].decode()


def told_by_all(raw: bytes) -> tuple[int | None, str | None]:
    """The number and the session of a message in another form. Raises `ValueError`, `RecursionError` if it is not JSON."""
    message = json.loads(raw)
    if not isinstance(message, dict):
        return None, None
    number, session = message.get("id"), message.get("sessionId")
    return number if type(number) is int else None, session if isinstance(session, str) else None


def child_in_head(head: bytes) -> tuple[str, bool] | None:
    """The session that an event tells of, and whether it was attached or detached."""
    found = _CHILD.match(head)
    return None if found is None else (found["session"].decode(), found["what"] == b"attachedTo")
