"""Logins that lie elsewhere on this machine, as an archive for the daemon: read, never moved, never written to."""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from waguard.cli.errors import NoFile
from waguard.errors import ProfileLocked, SnapshotRefused
from waguard.profile import in_use, login_files, trees
from waguard.system.files import Below, NotPlain, as_storage_error

_PIECE = 1024 * 1024


def write(source: Path, target: IO[bytes], *, origin: str, wanted: str = "") -> str:
    """Put what the daemon needs to find a login in ``source`` into ``target``: of a directory or a zip the login itself, with
    ``origin`` the page's that is meant; a file of another form as it is.

    ``wanted``: which login, if there are several; returns what the daemon has to be told of that. Raises `NoFile`,
    `SnapshotRefused`, `ProfileLocked`, `StorageFailed`.
    """
    with as_storage_error(f"read {source}"):
        if not source.exists():
            raise NoFile(f"There is no {source}.")
        if source.is_dir():
            _pack(source, target, origin, wanted)
        elif zipfile.is_zipfile(source):
            _repack(source, target, origin, wanted)
        else:
            with source.open("rb") as file:
                while piece := file.read(_PIECE):
                    target.write(piece)
            return wanted
    return ""


def _chosen(names: Iterable[str], origin: str, wanted: str) -> tuple[str, Callable[[str], str]]:
    """The directory of the profile that is meant, and what a file of it is called in the archive; empty: it is not needed."""
    tree = trees.Tree()
    for name in names:
        tree.see(name)
    whose = {one for _, one in tree.logins}
    if origin not in whose and len(whose) == 1:  # the daemon may have another configuration than is seen here
        origin = whose.pop()
    profile = tree.choose(origin, wanted)

    def place(name: str) -> str:
        inside = trees.place(profile, name)
        return inside if login_files.belongs(inside, origin) else ""

    return profile, place


def _pack(source: Path, target: IO[bytes], origin: str, wanted: str) -> None:
    source = source.resolve()
    if (source / "IndexedDB").is_dir():  # a profile itself: what lies beside it is needed too
        source, wanted = source.parent, source.name
        names = list(_files(source, only=wanted))
    else:
        names = list(_files(source))
    profile, place = _chosen(names, origin, wanted)
    if (held := in_use.holder(source / profile)) is not None:
        lock, pid = held
        raise ProfileLocked(
            f"A browser is using {source / profile}: {f'pid {pid}' if pid else 'a process'} holds {lock}.",
            hint="Close it first, in its container if it runs in one: what is copied while it writes may be torn.",
        )
    with tarfile.open(fileobj=target, mode="w|") as tar:
        for name in names:
            if called := place(name):
                _add(tar, source, name, called)


def _files(directory: Path, only: str = "") -> Iterator[str]:
    """The files below; with ``only``, of the directories in it only this one. Raises `OSError` for what cannot be looked at."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, below, names in os.walk(directory, onerror=refuse):
        if only and Path(parent) == directory:
            below[:] = [only]
        for name in sorted(names):
            yield str((Path(parent) / name).relative_to(directory))


def _add(tar: tarfile.TarFile, top: Path, name: str, called: str) -> None:
    """A plain file; a link or whatever else has the name is left out."""
    try:
        with Below(top, name).reading(login_files.most_bytes(called)) as file:
            info = tarfile.TarInfo(called)
            info.size = os.fstat(file.fileno()).st_size
            tar.addfile(info, file)
    except NotPlain:
        return


def _repack(source: Path, target: IO[bytes], origin: str, wanted: str) -> None:
    """A zip has its index at the end; the daemon reads a stream."""
    try:
        with zipfile.ZipFile(source) as archive, tarfile.open(fileobj=target, mode="w|") as tar:
            members = [(trees.clean(one.filename), one) for one in archive.infolist() if not one.is_dir()]
            _, place = _chosen((name for name, _ in members), origin, wanted)
            for name, entry in members:
                if called := place(name):
                    info = tarfile.TarInfo(called)
                    info.size = entry.file_size
                    with archive.open(entry) as file:
                        tar.addfile(info, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise SnapshotRefused(f"{source} cannot be read: {error}.", reason="damaged") from None
