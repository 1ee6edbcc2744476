"""Logins that come from elsewhere: an archive of a Chromium user data directory, of which only the login's part is taken.

What arrives is not trusted: links, devices, and names that are no part of a login are left out. Blocking: call from a thread.
"""

import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

import zstandard

from waguard.backup.keys import Keyring
from waguard.backup.seal import Opener
from waguard.backup.snapshot import create
from waguard.errors import BackupFailed, BackupRefused
from waguard.files import Below
from waguard.profile import login

_PIECE = 1024 * 1024
_WINDOW = 128 * 1024 * 1024
_LONGEST_HEADER = 64 * 1024
_HEADERS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
_SNAPSHOT, _ZSTANDARD = b"WGB1", b"\x28\xb5\x2f\xfd"


def lay_out(
    stop: threading.Event, file: Path, keyring: Keyring, client: str, into: Path, origin: str, most_bytes: int
) -> int:
    """Lay out the login's part of an archive (tar, tar.zst or a snapshot of ours) in an empty directory; how many files it had.

    Raises `BackupRefused`, `BackupFailed` when called off, `OSError`.
    """
    count = left = 0
    elsewhere: set[str] = set()
    try:
        with (
            Below(file).reading(sys.maxsize) as raw,
            _archive(raw, keyring, client, stop, 2 * most_bytes) as tar,
        ):
            for entry in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
                name = entry.name.removeprefix("./")
                source = tar.extractfile(entry) if entry.isreg() and login.belongs(name, origin) else None
                if source is None:
                    elsewhere |= login.origins_in(name)
                    continue
                left += entry.size
                if left > most_bytes:
                    raise _too_large("The login's files have", most_bytes)
                with create(into, name, None) as target:
                    while data := source.read(_PIECE):
                        target.write(data)
                count += 1
    except FileExistsError:
        raise BackupRefused("The archive has one file twice.", reason="damaged") from None
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise BackupRefused(f"The archive cannot be read: {error}.", reason="damaged") from None
    if not login.holds_login(into, origin):
        others = ", ".join(sorted(elsewhere - {origin}))
        raise BackupRefused(
            f"There is no login of {origin} in it." + (f" There is one of {others}." if others else ""),
            hint="A Chromium user data directory has Default/IndexedDB and 'Default/Local Storage' in it. Was the browser closed?",
            reason="no_login",
        )
    return count


def _too_large(what: str, most_bytes: int) -> BackupRefused:
    return BackupRefused(
        f"{what} more than {most_bytes // 2**20} MiB.",
        hint="Raise backup.max_import_mb, or bring only the login's part.",
        reason="too_large",
    )


class _Measured:
    """Reads on until it is called off or has become too much, also where an archive skips what nobody wants."""

    def __init__(self, stream: IO[bytes], stop: threading.Event, most_bytes: int) -> None:
        self._stream, self._stop, self._most_bytes = stream, stop, most_bytes
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise BackupFailed("The import was called off.")
        data = self._stream.read(size)
        self._size += len(data)
        if self._size > self._most_bytes:
            raise _too_large("Unpacked the archive has", self._most_bytes)
        return data


class _Entry(tarfile.TarInfo):
    """Headers that hold no file are read into memory whole: none of a login's needs to be long."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.type in _HEADERS and entry.size > _LONGEST_HEADER:
            raise tarfile.ReadError("a header is too long")
        return entry


@contextmanager
def _archive(
    raw: BinaryIO, keyring: Keyring, client: str, stop: threading.Event, most_bytes: int
) -> Iterator[tarfile.TarFile]:
    magic = raw.read(4)
    raw.seek(0)
    stream: IO[bytes] = raw
    if magic == _SNAPSHOT:
        opener = Opener(raw, keyring)
        if opener.header.get("client") != client:
            raise BackupRefused(
                f"It is a snapshot of another client: {str(opener.header.get('client'))[:80]}.",
                reason="other_client",
            )
        stream = cast("IO[bytes]", opener)
    if magic in {_SNAPSHOT, _ZSTANDARD}:
        unpacked = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
            stream, read_size=_PIECE, closefd=False
        )
        stream = cast("IO[bytes]", unpacked)
    measured = cast("IO[bytes]", _Measured(stream, stop, most_bytes))
    with tarfile.open(fileobj=measured, mode="r|", bufsize=_PIECE, tarinfo=_Entry) as tar:
        yield tar
