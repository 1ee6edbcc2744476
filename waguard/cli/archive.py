"""Logins that lie elsewhere on this machine, as an archive for the daemon: read, never moved, never written to."""

import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from waguard import host
from waguard.api.problems import Problem
from waguard.profile import login

_SUFFIXES = (".tar", ".tar.zst", ".wgb")


def write(source: Path, target: IO[bytes]) -> None:
    """Put the login's part of ``source`` into ``target``: a Chromium user data directory, whatsapp-web.js's ``.wwebjs_auth``
    (LocalAuth), its ``RemoteAuth`` zip, or what `waguard export` gave. Raises `Problem`, `OSError`.
    """
    if not source.exists():
        raise Problem("not_found", f"There is no {source}.")
    if source.is_dir():
        _pack(_user_data_dir(source), target)
    elif zipfile.is_zipfile(source):
        _repack(source, target)
    elif source.name.endswith(_SUFFIXES):
        with source.open("rb") as file:
            while piece := file.read(1024 * 1024):
                target.write(piece)
    else:
        raise Problem(
            "not_a_login", f"{source} is neither a directory nor a zip, {', '.join(_SUFFIXES)} file."
        )


def _user_data_dir(source: Path) -> Path:
    """The user data directory that is meant."""
    if (source / "Default").is_dir():
        return source
    if (source / "IndexedDB").is_dir() and source.name == "Default":
        return source.parent
    sessions = sorted(path for path in source.glob("session*") if (path / "Default").is_dir())
    if len(sessions) == 1:
        return sessions[0]
    if sessions:
        names = ", ".join(path.name for path in sessions)
        raise Problem("not_a_login", f"{source} holds several: {names}.", hint=f"Name one: {sessions[0]}")
    raise Problem(
        "not_a_login",
        f"{source} is no Chromium user data directory: it has no Default in it.",
        hint="Of whatsapp-web.js it is .wwebjs_auth/session-<clientId>.",
    )


def _pack(directory: Path, target: IO[bytes]) -> None:
    lock = directory / "SingletonLock"
    if lock.is_symlink():
        name, _, pid = os.fspath(lock.readlink()).rpartition("-")
        if name == os.uname().nodename and pid.isdigit() and host.process_row(int(pid)) is not None:
            raise Problem(
                "profile_locked",
                f"A browser is using {directory}: pid {pid}.",
                hint="Close it first: what is copied while it writes may be torn.",
            )
    with tarfile.open(fileobj=target, mode="w|") as tar:
        for name in _files(directory):
            tar.add(directory / name, name, recursive=False)


def _files(directory: Path) -> Iterator[str]:
    for parent, _, names in os.walk(directory):
        for name in sorted(names):
            path = str((Path(parent) / name).relative_to(directory))
            if login.candidate(path) and not (directory / path).is_symlink():
                yield path


def _repack(source: Path, target: IO[bytes]) -> None:
    """A zip has its index at the end; the daemon reads a stream."""
    try:
        with zipfile.ZipFile(source) as archive, tarfile.open(fileobj=target, mode="w|") as tar:
            members = [entry for entry in archive.infolist() if not entry.is_dir()]
            prefix = _prefix([entry.filename for entry in members])
            for entry in members:
                name = entry.filename.removeprefix(prefix)
                if entry.filename.startswith(prefix) and login.candidate(name):
                    info = tarfile.TarInfo(name)
                    info.size = entry.file_size
                    with archive.open(entry) as file:
                        tar.addfile(info, file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise Problem("not_a_login", f"{source} cannot be read: {error}.") from None


def _prefix(names: list[str]) -> str:
    """What stands before ``Default/`` in the archive: nothing, or the directory that was packed."""
    found = {
        name[: name.index("Default/")] for name in names if name.startswith("Default/") or "/Default/" in name
    }
    return min(found, key=len, default="")
