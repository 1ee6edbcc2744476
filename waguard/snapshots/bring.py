"""Logins that come from elsewhere: an archive in which one lies, of which only the login's part is taken.

What arrives is not trusted: links, devices, and names that are no part of a login are left out; what is malformed is
refused with a reason, however it is malformed. Blocking: call from a thread.
"""

import sys
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

import zstandard

from waguard.errors import SnapshotFailed, SnapshotRefused, WaguardError
from waguard.profile import login_files, trees
from waguard.snapshots.keys import Keyring
from waguard.snapshots.packing import create
from waguard.snapshots.seal import Opener
from waguard.system.files import Below

_PIECE = 1024 * 1024
_WINDOW = 128 * 1024 * 1024
_LONGEST_HEADER = 64 * 1024
_MOST_HEADERS = 8
"""Of one file: its own, and those that lengthen it."""
_MOST_GLOBALS = 100
_MOST_MEMBERS = 100_000
"""A user data directory with all its caches has some thousands."""
_TURN, _PAUSE_S = 16, 0.0005
"""After so many members the other threads have their turn: a thread that only computes keeps the interpreter for 5 ms at a time, and
the daemon's loop and a snapshot of another client want it a hundred times a second."""
_MOST_FILES = 10_000
"""Of a login, which has some hundreds."""
_HEADERS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
_SNAPSHOT, _ZSTANDARD, _GZIP, _ZIP = b"WGB1", b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"PK\x03\x04"
FORMS = "tar, tar.gz, tar.zst, or a snapshot of waguard's"


def lay_out(
    stop: threading.Event,
    file: Path,
    keyring: Keyring,
    client: str,
    into: Path,
    origin: str,
    most_bytes: int,
    *,
    wanted: str = "",
    see_room: Callable[[], None] = lambda: None,
) -> int:
    """Lay out the login's part of an archive (`FORMS`) in an empty directory; how many files it had.

    ``wanted``: which login, if there are several; ``see_room`` raises when the disk has none left. Raises `SnapshotRefused`,
    `SnapshotFailed` when called off, `OSError`.
    """
    tree = trees.Tree()
    for name, _, _ in _files(file, keyring, client, stop, most_bytes):
        tree.see(name)
    profile = tree.choose(origin, wanted)
    count = left = 0
    for found, size, source in _files(file, keyring, client, stop, most_bytes):
        name = trees.place(profile, found)
        if not login_files.belongs(name, origin):
            continue
        count += 1
        left += size
        if left > most_bytes:
            raise _too_large("The login's files have", most_bytes)
        if count > _MOST_FILES:
            raise _too_many("The login has", _MOST_FILES)
        try:
            with create(into, name, None, sync=False) as target:
                while data := source(_PIECE):
                    see_room()
                    target.write(data)
        except FileExistsError:
            raise _damaged("it has one file twice") from None
    return count


def _files(
    path: Path, keyring: Keyring, client: str, stop: threading.Event, most_bytes: int
) -> Iterator[tuple[str, int, Callable[[int], bytes]]]:
    """Of each plain file in an archive, in order: its name, its size, and how to read it before the next one is asked for."""
    with (
        Below(path).reading(sys.maxsize) as raw,
        _archive(raw, keyring, client, stop, 2 * most_bytes) as tar,
    ):
        for count in range(_MOST_MEMBERS + 1):
            tar.headers = 0
            with _parsing():
                entry = tar.next()
                source = tar.extractfile(entry) if entry is not None and entry.isreg() else None
            tar.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
            if entry is None:
                return
            if count % _TURN == 0:
                stop.wait(_PAUSE_S)
            if count == _MOST_MEMBERS:
                raise _too_many("The archive has", _MOST_MEMBERS)
            if entry.size > 2 * most_bytes:  # skipped in small steps, also behind its end
                raise _too_large("Unpacked the archive has", 2 * most_bytes)
            if entry.issparse():
                raise _damaged("it has a sparse file; pack it without --sparse")
            if len(tar.pax_headers) > _MOST_GLOBALS:
                raise _damaged("it has too many headers for all files")
            if source is not None and (name := trees.clean(entry.name)):
                yield name, entry.size, _reading(source)


def _reading(source: IO[bytes]) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        with _parsing():
            return source.read(size)

    return read


@contextmanager
def _parsing() -> Iterator[None]:
    """Whatever a parser of foreign bytes raises is the bytes' fault."""
    try:
        yield
    except (WaguardError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 (tarfile lets through what int() or a dict says)
        raise SnapshotRefused(f"The archive cannot be read: {error}.", reason="damaged") from None


def _damaged(what: str) -> SnapshotRefused:
    return SnapshotRefused(f"The archive cannot be read: {what}.", reason="damaged")


def _too_large(what: str, most_bytes: int) -> SnapshotRefused:
    return SnapshotRefused(
        f"{what} more than {most_bytes // 2**20} MiB.",
        hint="Raise snapshots.max_import_mb, or bring only the login's part.",
        reason="too_large",
    )


def _too_many(what: str, most: int) -> SnapshotRefused:
    return SnapshotRefused(
        f"{what} more than {most} files.", hint="Bring only the login's part.", reason="too_large"
    )


class _Measured:
    """Reads on until it is called off or has become too much, also where an archive skips what nobody wants."""

    def __init__(self, stream: IO[bytes], stop: threading.Event, most_bytes: int) -> None:
        self._stream, self._stop, self._most_bytes = stream, stop, most_bytes
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise SnapshotFailed("The import was called off.")
        data = self._stream.read(size)
        self._size += len(data)
        if self._size > self._most_bytes:
            raise _too_large("Unpacked the archive has", self._most_bytes)
        return data


class _Gunzip:
    """The first member of a gzip file, which is all that tar makes: one may be made of millions of empty ones."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._work = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def read(self, size: int) -> bytes:
        while not self._work.eof:
            data = self._work.unconsumed_tail or self._raw.read(_PIECE)
            if not data:
                raise EOFError("it ends too soon")
            if found := self._work.decompress(data, max(size, 1)):
                return found
        return b""


class _Tar(tarfile.TarFile):
    headers = 0
    """That were read since the last file."""


class _Entry(tarfile.TarInfo):
    """Headers that hold no file are read into memory whole and one in the other, and maps of holes number by number: none of
    a login's files needs more than a few.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        assert isinstance(tar, _Tar)  # noqa: S101 (ours)
        tar.headers += 1
        if tar.headers > _MOST_HEADERS:
            raise tarfile.ReadError("a file has too many headers")
        return super().fromtarfile(tar)

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.type in _HEADERS and entry.size > _LONGEST_HEADER:
            raise tarfile.ReadError("a header is too long")
        if entry.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("it has a sparse file; pack it without --sparse")
        return entry

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("it has a sparse file; pack it without --sparse")


@contextmanager
def _archive(
    raw: BinaryIO, keyring: Keyring, client: str, stop: threading.Event, most_bytes: int
) -> Iterator[_Tar]:
    magic = raw.read(4)
    raw.seek(0)
    stream: object = raw
    if magic == _SNAPSHOT:
        opener = Opener(raw, keyring)
        if opener.header.get("client") != client:
            raise SnapshotRefused(
                f"It is a snapshot of another client: {str(opener.header.get('client'))[:80]}.",
                reason="other_client",
            )
        stream = opener
    if magic == _ZIP:
        raise _damaged(f"it is a zip, which waguard import repacks, and not a {FORMS}")
    if magic.startswith(_GZIP):
        stream = _Gunzip(raw)
    if magic in {_SNAPSHOT, _ZSTANDARD}:
        stream = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
            cast("IO[bytes]", stream), read_size=_PIECE, closefd=False
        )
    measured = cast("IO[bytes]", _Measured(cast("IO[bytes]", stream), stop, most_bytes))
    with _parsing():
        tar = _Tar.open(fileobj=measured, mode="r|", bufsize=_PIECE, tarinfo=_Entry)
    with tar:
        yield tar
