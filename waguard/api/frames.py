"""Frames of a WebSocket as a server reads and writes them (RFC 6455), without extensions. Pure.

A long message is read and written piece by piece, each a part of a frame or a frame of its own: whoever takes it in need not have it whole, and
has somebody else's turn in between.
"""

import struct
from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    CONTINUED = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Broken(Exception):
    """What comes is not of the protocol."""


class Piece(NamedTuple):
    kind: Kind
    """Of the message: never `CONTINUED`."""
    data: bytes
    ends: bool
    """Nothing more of this message comes."""


_DATA = frozenset({Kind.CONTINUED, Kind.TEXT, Kind.BINARY})
_SHORT = 256


class Frames:
    """What a client writes."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._message: Kind | None = None
        """Of the one under way."""
        self._left: int | None = None
        """Bytes that are still to come of the frame under way."""
        self._last = False
        """It is the last one of its message."""
        self._mask = b""
        """From where the frame has got to."""

    def feed(self, data: bytes) -> None:
        self._data = self._data[self._at :] + data
        self._at = 0

    def next(self) -> Piece | None:
        """None if it has not come yet. Raises `Broken`."""
        if self._left is None and (control := self._begin()) is not None:
            return control
        if self._left is None or self._message is None or (self._left and self._at == len(self._data)):
            return None
        data = self._data[self._at : self._at + self._left]
        self._at += len(data)
        self._left -= len(data)
        piece = unmasked(data, self._mask)
        kind, ends = self._message, False
        if self._left:
            turn = len(data) % 4
            self._mask = self._mask[turn:] + self._mask[:turn]
        else:
            self._left = None
            if ends := self._last:
                self._message = None
        return Piece(kind, piece, ends)

    def _begin(self) -> Piece | None:
        """Read the head of a frame, if it has come; a frame that is none of a message is returned, if it has come whole."""
        data, at = self._data, self._at
        if len(data) - at < 6:
            return None
        first, second = data[at], data[at + 1]
        if first & 0x70:
            raise Broken("a frame has reserved bits")
        if not second & 0x80:
            raise Broken("a frame is not masked")
        size, at = second & 0x7F, at + 2
        if size > 125:
            width = 2 if size == 126 else 8
            if len(data) - at < width + 4:
                return None
            size = int.from_bytes(data[at : at + width])
            at += width
        try:
            kind = Kind(first & 0x0F)
        except ValueError:
            raise Broken("a frame is of no known kind") from None
        mask, at = data[at : at + 4], at + 4
        if kind not in _DATA:
            if size > 125 or not first & 0x80:
                raise Broken("a control frame is too long, or in parts")
            if len(data) - at < size:
                return None
            self._at = at + size
            return Piece(kind, unmasked(data[at : self._at], mask), ends=True)
        if (kind is Kind.CONTINUED) is (self._message is None):
            raise Broken("a message begins in another one, or goes on and has not begun")
        if kind is not Kind.CONTINUED:
            self._message = kind
        self._left, self._last, self._mask, self._at = size, bool(first & 0x80), mask, at
        return None


def unmasked(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    if size <= _SHORT:
        whole = (mask * (size // 4 + 1))[:size]
        return (int.from_bytes(data) ^ int.from_bytes(whole)).to_bytes(size)
    made = bytearray(size)
    for turn in range(4):
        made[turn::4] = data[turn::4].translate(_XOR[mask[turn]])
    return bytes(made)


_XOR = [bytes(one ^ with_this for one in range(256)) for with_this in range(256)]


def head(size: int, kind: Kind, *, ends: bool = True) -> bytes:
    """Of a frame with so many bytes."""
    first = kind | (0x80 if ends else 0)
    if size < 126:
        return bytes((first, size))
    if size < 2**16:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)
