"""The messages of a device as its phone has them, and the media that they have."""

import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

HISTORY = 200
"""So many of before does a page get that logs in."""
MEDIA_MOST = 32 << 20
"""Bytes, of one."""
_KINDS = ("image", "video", "audio")
TYPES = frozenset({"chat", *_KINDS, "ptt", "sticker", "document"})


@dataclass(frozen=True, slots=True)
class Media:
    """What there is to know of media; the bytes are on the `Shelf`."""

    path: str
    mimetype: str
    size: int
    sha256: str
    filename: str | None = None

    @property
    def type(self) -> str:
        """The type of a message that has it, unless that says otherwise."""
        kind = self.mimetype.partition("/")[0]
        return kind if kind in _KINDS else "document"


@dataclass(slots=True, kw_only=True)
class Message:
    chat: str
    """With whom, as `5215550001111@c.us`."""
    from_me: bool
    """Sent by the app, and not by the other side."""
    body: str
    type: str = "chat"
    media: Media | None = None
    name: str | None = None
    """How the other side calls itself."""
    quoted: str | None = None
    """The `id` of the message that it replies to."""
    key: str = field(default_factory=lambda: f"AC{secrets.token_hex(15).upper()}")
    at: int = field(default_factory=lambda: int(time.time()))
    """Unix time, seconds."""
    delivered: bool = False
    """The page has it, or the phone."""

    @property
    def id(self) -> str:
        """As the page's clients have it."""
        return f"{str(self.from_me).lower()}_{self.chat}_{self.key}"

    def view(self, wid: str) -> dict[str, Any]:
        """As `GET /phone/messages` shows it."""
        values = asdict(self)
        del values["key"]
        return {"id": self.id, "wid": wid, **values}

    def told(self) -> dict[str, Any]:
        """As the page gets it."""
        values = asdict(self)
        return {**values, "id": values.pop("key"), "t": values.pop("at"), "ack": 2 if self.from_me else 1}


class Mailbox:
    """What a phone and its device have written to each other, oldest first. Of more than ``most`` the oldest go."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._messages: dict[str, Message] = {}

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages.values())

    def add(self, message: Message) -> None:
        """Keep it; one that is there already stays as it is."""
        self._messages.setdefault(message.id, message)
        while len(self._messages) > self._most:
            del self._messages[next(iter(self._messages))]

    def delivered(self, chat: str, key: str) -> None:
        message = self._messages.get(f"false_{chat}_{key}")
        if message is not None:
            message.delivered = True

    @property
    def history(self) -> list[Message]:
        return [message for message in self if message.delivered][-HISTORY:]

    @property
    def waiting(self) -> list[Message]:
        """What no page has had yet."""
        return [message for message in self if not message.delivered]


class Shelf:
    """Media, by their paths. Of more than ``most`` bytes the oldest go, and are not found any more."""

    def __init__(self, most: int = 256 << 20) -> None:
        self._most = most
        self._kept: dict[str, tuple[Media, bytes]] = {}
        self._size = 0

    def put(self, content: bytes, mimetype: str) -> Media:
        digest = hashlib.sha256(content).hexdigest()
        media = Media(f"/media/{secrets.token_hex(16)}", mimetype, len(content), digest)
        self._kept[media.path] = (media, content)
        self._size += media.size
        while self._size > self._most:
            oldest, _ = self._kept.pop(next(iter(self._kept)))
            self._size -= oldest.size
        return media

    def get(self, path: str) -> tuple[Media, bytes] | None:
        return self._kept.get(path)


def read(values: Mapping[str, Any], shelf: Shelf) -> Message:
    """What a page has sent. Raises ValueError: it is no message."""
    match values:
        case {"id": str(key), "chat": str(chat), "body": str(body), "type": str(kind)}:
            message = Message(key=key, chat=chat, body=body, type=kind, from_me=True, delivered=True)
        case _:
            raise ValueError(values)
    match values.get("quoted"):
        case None | str() as quoted:
            message.quoted = quoted
        case _:
            raise ValueError(values)
    match values.get("media"):
        case None:
            pass
        case {"path": str(path), "filename": None | str() as filename}:
            kept = shelf.get(path)
            message.media = None if kept is None else replace(kept[0], filename=filename)
        case _:
            raise ValueError(values)
    return message
