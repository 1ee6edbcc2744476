"""Logins that come from elsewhere: an archive of a Chromium user data directory, of which only the login's part is taken.

What arrives is not trusted: links, devices, and names that are no part of a login are left out. Blocking: call from a thread.
"""

import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

import zstandard

from waguard.backup.keys import Keyring
from waguard.backup.seal import Opener
from waguard.backup.snapshot import create
from waguard.errors import BackupFailed, BackupRefused
from waguard.profile import login

_PIECE = 1024 * 1024
_WINDOW = 128 * 1024 * 1024
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
        with file.open("rb") as raw, _archive(raw, keyring, client) as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                source = tar.extractfile(entry) if entry.isreg() and login.belongs(name, origin) else None
                if source is None:
                    elsewhere |= login.origins_in(name)
                    continue
                left += entry.size
                if left > most_bytes:
                    raise BackupRefused(
                        f"The login's files have more than {most_bytes // 2**20} MiB.",
                        hint="Raise backup.max_import_mb.",
                        reason="too_large",
                    )
                with create(into, name, None) as target:
                    while data := source.read(_PIECE):
                        if stop.is_set():
                            raise BackupFailed("The import was called off.")
                        target.write(data)
                count += 1
    except (tarfile.TarError, zstandard.ZstdError, EOFError, FileExistsError) as error:
        raise BackupRefused(f"The archive cannot be read: {error}.", reason="damaged") from None
    if not login.holds_login(into, origin):
        others = ", ".join(sorted(elsewhere - {origin}))
        raise BackupRefused(
            f"There is no login of {origin} in it." + (f" There is one of {others}." if others else ""),
            hint="A Chromium user data directory has Default/IndexedDB and 'Default/Local Storage' in it. Was the browser closed?",
            reason="no_login",
        )
    return count


@contextmanager
def _archive(raw: BinaryIO, keyring: Keyring, client: str) -> Iterator[tarfile.TarFile]:
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
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_PIECE) as tar:
        yield tar
