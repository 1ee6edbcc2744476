"""A snapshot: the login's part of a profile as a tar with a manifest of hashes, compressed, then sealed (`seal`).

Blocking: call from a thread. Whoever calls a thread off sets ``stop``; the work then ends with `SnapshotFailed`.
"""

import hashlib
import io
import os
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any, BinaryIO, Protocol, cast

import zstandard
from pydantic import Field, TypeAdapter, ValidationError

from waguard.errors import SnapshotFailed, SnapshotRefused
from waguard.profile import identity, login_files
from waguard.sandbox import User
from waguard.snapshots.keys import Key, Keyring
from waguard.snapshots.seal import Opener, Sealer, read_header
from waguard.system.files import Below, sync_directory

_MANIFEST = ".manifest.json"
_LEVEL = 3
_WINDOW = 128 * 1024 * 1024
_PIECE = 1024 * 1024
_MOST_MANIFEST = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class About:
    """What a snapshot's header says of it: readable without the key, proved with it."""

    client: str
    generation: str
    """Of the profile it was taken from."""
    reason: str
    """Why it was taken: ``settled``, ``schedule``, ``request``, ``import``, ``cleanup``, ``fresh``, ``restore``, ``sealed`` ..."""
    taken_at: Annotated[
        float, Field(ge=0, le=32_503_680_000)
    ]  # the year 3000: a header is read before it is proved
    """Unix time, seconds."""
    browser: str
    """Version of the browser that had used the profile."""
    origin: str
    live: bool
    """From a running browser, which was held still for it."""
    login: bool
    """Whether the client was connected with this profile."""
    sequence: Annotated[int, Field(ge=0, le=2**53)] = 0
    """Which of its client's it is: more than all that there were. 0: not known, of a profile that was put aside."""
    key: str = ""
    """Id of the key that it is sealed with."""
    files: int = 0
    bytes: int = 0
    """Of the files, before compression."""
    identity: Sequence[str] = ()
    """Whose login it is, for those who have the key: see `identity.sealed`."""


_ABOUT = TypeAdapter(About)
_FILES = TypeAdapter(dict[str, tuple[int, str]])
"""Path -> size, SHA-256 in hex."""


def pack(stop: threading.Event, staged: Path, file: BinaryIO, key: Key, about: About) -> About:
    """Write the login's part of ``staged``, which nobody changes, as a snapshot; returns what the header says.

    Raises `SnapshotRefused` if anything of it is no file, `SnapshotFailed` when called off, `OSError`.
    """
    for name, odd in login_files.oddities(staged, about.origin):
        raise _damaged(f"{name}: {odd}")  # else it would be left out, and deleted with what is saved
    names = list(login_files.part(staged, about.origin))
    size = sum(status.st_size for name in names if (status := Below(staged, name).status()) is not None)
    whose = identity.sealed(identity.read(staged, about.origin) or (), key.secret)
    about = replace(about, files=len(names), bytes=size, identity=whose)
    sealer = Sealer(file, key, asdict(about))
    manifest: dict[str, tuple[int, str]] = {}
    with (
        zstandard.ZstdCompressor(level=_LEVEL).stream_writer(
            cast("IO[bytes]", sealer), closefd=False
        ) as packed,
        tarfile.open(fileobj=packed, mode="w|", bufsize=_PIECE) as tar,
    ):
        for name in names:
            manifest[name] = add(tar, staged, name, stop)
        text = _FILES.dump_json(manifest)
        entry = tarfile.TarInfo(_MANIFEST)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    sealer.finish()
    return about


def add(tar: tarfile.TarFile, top: Path, name: str, stop: threading.Event) -> tuple[int, str]:
    """Put one file into an archive; its size and SHA-256. Raises `NotPlain`, `OSError`."""
    with Below(top, name).reading(login_files.most_bytes(name)) as file:
        status = os.fstat(file.fileno())
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime, entry.mode = status.st_size, int(status.st_mtime), 0o600
        hashing = _Hashing(file, stop)
        tar.addfile(entry, hashing)
    return status.st_size, hashing.sum.hexdigest()


class _Reads(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


class _Hashing:
    """Reads on, adds up, and ends when called off."""

    def __init__(self, file: _Reads, stop: threading.Event) -> None:
        self.sum = hashlib.sha256()
        self._file, self._stop = file, stop

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise SnapshotFailed("The snapshot was called off.")
        data = self._file.read(size)
        self.sum.update(data)
        return data


def about(path: Path) -> About:
    """What a snapshot says of itself, not proved. Raises `SnapshotRefused`, `OSError`."""
    with Below(path).reading(sys.maxsize) as file:
        return _about(read_header(file))


def read(
    stop: threading.Event,
    file: BinaryIO,
    keyring: Keyring,
    client: str | None,
    into: Path | None = None,
    user: User | None = None,
) -> About:
    """Open a snapshot from beginning to end and hold it against its manifest; with ``into``, an empty directory, lay it out
    there and see it onto the disk. What is there before it returns is not proved.

    Raises `SnapshotRefused`, `SnapshotFailed`, `OSError`.
    """
    with opened(file, keyring, client) as (said, tar):
        members: dict[str, tuple[int, str]] = {}
        manifest = None
        for entry in tar:
            source = tar.extractfile(entry)
            if source is not None and entry.name == _MANIFEST:
                if entry.size > _MOST_MANIFEST:
                    raise _damaged("its manifest is too long")
                manifest = source.read()
                break
            if source is None or not entry.isreg() or not login_files.belongs(entry.name, said.origin):
                raise _damaged(f"it holds {entry.name!r}, which is no part of a login")
            with nullcontext() if into is None else create(into, entry.name, user) as target:
                hashing = _Hashing(source, stop)
                while data := hashing.read(_PIECE):
                    if target is not None:
                        target.write(data)
            members[entry.name] = entry.size, hashing.sum.hexdigest()
        _compare(members, manifest)
    if into is not None:
        for directory, _, _ in os.walk(into):
            sync_directory(Path(directory))
    return said


@contextmanager
def create(into: Path, name: str, user: User | None, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A new file of a profile, with its directories, the browser's own; with ``sync``, on disk at the end of the block."""
    path = into / name
    for parent in reversed(path.relative_to(into).parents[:-1]):
        directory = into / parent
        if not directory.is_dir():
            directory.mkdir(mode=0o700)
            _give(directory, user)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        yield file
        file.flush()
        if sync:
            os.fsync(fd)
        _give(fd, user)


def _give(path: Path | int, user: User | None) -> None:
    if user is not None:
        os.chown(path, user.uid, user.gid)


@contextmanager
def opened(file: BinaryIO, keyring: Keyring, client: str | None) -> Iterator[tuple[About, tarfile.TarFile]]:
    """A snapshot as an archive to be read once, in order. Raises `SnapshotRefused`, also for what goes wrong in the block."""
    opener = Opener(file, keyring)
    said = _about(opener.header)
    if client is not None and said.client != client:
        raise SnapshotRefused(f"It is of another client: {said.client}.", reason="other_client")
    reading = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
        cast("IO[bytes]", opener), read_size=_PIECE, closefd=False
    )
    try:
        with tarfile.open(fileobj=reading, mode="r|", bufsize=_PIECE) as tar:
            yield said, tar
        while reading.read(_PIECE):  # the padding of the archive
            pass
        if opener.read(1):
            raise _damaged("there is something behind its end")
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise _damaged(str(error)) from None


def _compare(members: Mapping[str, tuple[int, str]], text: bytes | None) -> None:
    try:
        manifest = _FILES.validate_json(text or b"")
    except ValidationError:
        raise _damaged("its manifest is missing or cannot be read") from None
    for name in sorted(members.keys() | manifest.keys()):
        if members.get(name) != manifest.get(name):
            raise _damaged(f"{name} is not what its manifest says")


def _about(header: Mapping[str, Any]) -> About:
    try:
        return _ABOUT.validate_python(header)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise _damaged(f"its header makes no sense: {where}") from None


def _damaged(what: str) -> SnapshotRefused:
    return SnapshotRefused(f"It is damaged: {what}.", reason="damaged")
