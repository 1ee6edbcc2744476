"""Authenticated encryption of a stream: what can be read at all is what was written, whole and in order.

A file is ``WGB1``, the length of the header (4 bytes, big-endian), the header (JSON), and chunks: AES-256-GCM of 1 MiB each,
the last one shorter or empty. The nonce is the chunk's number and whether it is the last (the STREAM construction of
Hoang, Reyhanitabar, Rogaway, Vizar: Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, 2015), so that
no chunk can be left out, moved, or cut off unseen; the key is the file's own, HKDF-SHA256 of the keyring's with the header's
salt; and the header is authenticated with every chunk. It can be read without the key, and believed only with it.
"""

import io
import json
import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from waguard.errors import SnapshotRefused
from waguard.snapshots.keys import Key, Keyring

_MAGIC = b"WGB1"
_LENGTH = struct.Struct(">I")
_LONGEST_HEADER = 65_536
_CHUNK = 1024 * 1024
_TAG = 16
_NONCE = struct.Struct(">3xQ?")


class Sealer(io.RawIOBase):
    """Writes what it is given into ``file``, sealed. Only `finish` makes it whole: without it nobody can open it."""

    def __init__(self, file: BinaryIO, key: Key, header: Mapping[str, Any]) -> None:
        salt = os.urandom(32)
        text = json.dumps({**header, "key": key.id, "salt": salt.hex()}, separators=(",", ":")).encode()
        self._prefix = _MAGIC + _LENGTH.pack(len(text)) + text
        self._cipher = _cipher(key, salt)
        self._file = file
        self._number = 0
        self._waiting = bytearray()
        file.write(self._prefix)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._waiting += data
        while len(self._waiting) > _CHUNK:  # the last chunk is not known to be the last before `finish`
            self._put(bytes(self._waiting[:_CHUNK]), last=False)
            del self._waiting[:_CHUNK]
        return len(data)

    def finish(self) -> None:
        self._put(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _put(self, chunk: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_NONCE.pack(self._number, last), chunk, self._prefix))
        self._number += 1


class Opener(io.RawIOBase):
    """Reads what was sealed into ``file``, each chunk proved before a byte of it is given out.

    Raises `SnapshotRefused`, here or while it is read. Only what is read to the end is proved to be whole.
    """

    def __init__(self, file: BinaryIO, keyring: Keyring, *, owner: bool = False) -> None:
        """``owner``: ``file`` is closed with this."""
        self._owned = file if owner else None
        self._prefix, self.header = _header(file)
        key_id = self.header.get("key")
        key = keyring.find(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise SnapshotRefused(
                f"It was sealed with the key {key_id}, which {keyring.source} does not have.",
                hint="Put that key back, on a line of its own.",
                reason="wrong_key",
            )
        try:
            salt = bytes.fromhex(self.header["salt"])
        except (KeyError, TypeError, ValueError):
            raise _damaged("its header has no salt") from None
        self._cipher = _cipher(key, salt)
        self._file = file
        self._number = 0
        self._ahead = file.read(_CHUNK + _TAG)
        self._open = b""
        self._at = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        super().close()
        if self._owned is not None:
            self._owned.close()

    def readinto(self, buffer: Any) -> int:
        while self._at == len(self._open):
            if self._ended:
                return 0
            self._next()
        count = min(len(buffer), len(self._open) - self._at)
        buffer[:count] = self._open[self._at : self._at + count]
        self._at += count
        return count

    def _next(self) -> None:
        chunk, self._ahead = self._ahead, self._file.read(_CHUNK + _TAG)
        last = not self._ahead
        try:
            self._open = self._cipher.decrypt(_NONCE.pack(self._number, last), chunk, self._prefix)
        except InvalidTag:
            what = (
                "it was changed, or cut off"
                if self._number
                else "it was changed, cut off, or sealed by others"
            )
            raise _damaged(what) from None
        self._number += 1
        self._at = 0
        self._ended = last


def read_header(file: BinaryIO) -> Mapping[str, Any]:
    """What the file says of itself: not proved before it is opened. Raises `SnapshotRefused`."""
    return _header(file)[1]


def _header(file: BinaryIO) -> tuple[bytes, dict[str, Any]]:
    prefix = file.read(len(_MAGIC) + _LENGTH.size)
    if not prefix.startswith(_MAGIC) or len(prefix) < len(_MAGIC) + _LENGTH.size:
        raise SnapshotRefused("It is no snapshot of waguard's.", reason="no_snapshot")
    (length,) = _LENGTH.unpack(prefix[len(_MAGIC) :])
    text = file.read(min(length, _LONGEST_HEADER))
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if len(text) != length or not isinstance(header, dict):
        raise _damaged("its header cannot be read")
    return prefix + text, header


def _damaged(what: str) -> SnapshotRefused:
    return SnapshotRefused(f"It is damaged: {what}.", reason="damaged")


def _cipher(key: Key, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt, b"waguard snapshot 1").derive(key.secret))
