"""A long frame of a client's, in the pieces in which it comes: long plain texts in it are neither parsed nor copied. Pure.

A bot sends media as base64, and 90 MB of that in one text of a command. To parse it and to write it anew keeps everybody waiting for a second, and makes
nothing of it: a text of printable ASCII without quotation mark and backslash is the same in JSON. So in what is parsed, and judged, a name stands
in the place of all but the beginning of such a text, and what is written has the text in the place of the name (`waguard.browser.channel`).
"""

import secrets

_PLAIN = bytes(one for one in range(0x20, 0x7F) if one not in b'"\\')
_SHORT = 16 * 1024
_BEGINNING = 4 * 1024
"""Bytes that stay, so that an address or a path can be judged by how it begins."""


class Incoming:
    def __init__(self) -> None:
        self.size = 0
        self.parsed = 0
        """Bytes of what is to be parsed."""
        self.texts: dict[bytes, list[bytes]] = {}
        """By the name that stands for each in `frame`: nobody can know it before."""
        self._name = secrets.token_hex(16)
        self._pieces: list[bytes] = []
        self._text: list[bytes] | None = None
        """The one that goes on, if the next piece is plain too."""
        self._inside = False
        """In a text of JSON; what is wrong before that ends the parsing before it comes to a name."""
        self._escaped = False
        """The next byte is."""

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if not self._plain(piece):
            self._text = None
            self._keep(piece)
            self._follow(piece)
            return
        if self._text is None:
            name = f"{self._name}.{len(self.texts)};".encode()
            self._text = self.texts[name] = []
            self._keep(piece[:_BEGINNING] + name)
            piece = piece[_BEGINNING:]
        self._text.append(piece)

    def frame(self) -> bytes:
        return b"".join(self._pieces)

    def _plain(self, piece: bytes) -> bool:
        if not self._inside or self._escaped or len(piece) < _SHORT:
            return False
        return not piece.translate(None, _PLAIN)

    def _keep(self, piece: bytes) -> None:
        self.parsed += len(piece)
        self._pieces.append(piece)

    def _follow(self, piece: bytes) -> None:
        """Whether a text of JSON is open at its end."""
        if self._escaped and piece:
            piece, self._escaped = piece[1:], False
        bare = piece.replace(b"\\\\", b"")
        self._escaped = self._escaped or bare.endswith(b"\\")
        if bare.replace(b'\\"', b"").count(b'"') % 2:
            self._inside = not self._inside
