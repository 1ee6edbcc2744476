"""Values that apps keep with a session, as files. Blocking: call from a thread.

sessions/<code>/values/<SHA-256 of the key>.value     a line of JSON about it, then the value as it came

Each is replaced whole and synced. No name is made of what a caller says, and none tells a log or a listing whom a key is about. They are
no part of a profile: no snapshot has them.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from waguard.core.values import MOST_BYTES, MOST_VALUES, Value
from waguard.errors import StorageFailed
from waguard.system.files import Below, NotPlain, as_storage_error, sync_directory, write_atomically

FOLDER = "values"
"""Below the client's directory."""
_NAME = re.compile(r"[0-9a-f]{64}\.value")
_MOST_HEAD = 2048
"""Bytes of the line about it."""
_MOST = _MOST_HEAD + MOST_BYTES


@dataclass(frozen=True, slots=True)
class _Head:
    """The line about a value. Unknown keys are ignored."""

    format: Literal[1]
    key: str
    media_type: str
    bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)]
    sha256: str
    version: str
    written_at: Annotated[float, Field(allow_inf_nan=False)]
    ttl_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None


@dataclass(frozen=True, slots=True)
class _Format:
    format: int


_HEAD = TypeAdapter(_Head)
_FORMAT = TypeAdapter(_Format)


class Broken(Exception):
    """What is there under the name of a value is none."""


class Newer(Exception):
    """A newer version of waguard has written it."""


class ValueFiles:
    """Of one client; the daemon alone writes them."""

    def __init__(self, root: Path, code: str) -> None:
        self._home = root / code
        self.folder = self._home / FOLDER

    def all(self, told: Callable[[str, str], None]) -> Mapping[str, Value]:
        """Those that there are, by key. What is none is put aside, and ``told``: what is wrong with it, and where it is now.

        Those of a newer version are left as they are, and are none of these. Raises `StorageFailed`.
        """
        try:
            names = self._names()
            if len(names) > MOST_VALUES:
                raise Broken(f"there are {len(names)}, and {MOST_VALUES} is the most that is sane")
        except Broken as error:
            told(f"The values cannot be read: {error}.", self._move_away(self.folder, FOLDER))
            return {}
        found = {}
        for name in names:
            try:
                value = self._about(name)
            except Broken as error:
                told(f"A value cannot be read: {error}.", self.set_aside(name))
            except (Newer, FileNotFoundError):
                continue
            else:
                found[value.key] = value
        return found

    def look(self) -> Mapping[str, Value]:
        """The same, and nothing is put aside. Raises `StorageFailed`."""
        found = {}
        with suppress(Broken):
            for name in self._names():
                with suppress(Broken, Newer, FileNotFoundError):
                    value = self._about(name)
                    found[value.key] = value
        return found

    def _names(self) -> list[str]:
        """Raises `Broken`, `StorageFailed`."""
        with as_storage_error(f"read {self.folder}"):
            try:
                return sorted(filter(_NAME.fullmatch, Below(self._home, FOLDER).contents()))
            except FileNotFoundError:
                return []
            except NotPlain as error:
                raise Broken(error.what) from None

    def _about(self, name: str) -> Value:
        """By its first line. Raises `FileNotFoundError`, `Broken`, `Newer`, `StorageFailed`."""
        line, _, size = self._data(name, _MOST_HEAD)
        head = _head(line, name)
        if size != len(line) + 1 + head.bytes:
            raise Broken(f"it has {size} bytes and should have {len(line) + 1 + head.bytes}")
        return _value(head)

    def read(self, key: str) -> tuple[Value, bytes] | None:
        """It, and what it says. Raises `Broken`, `StorageFailed`, also for one of a newer version."""
        name = name_of(key)
        try:
            line, said, _ = self._data(name, _MOST)
            head = _head(line, name)
        except FileNotFoundError:
            return None
        except Newer:
            raise StorageFailed(
                "A newer version of waguard has written this value.", hint="Use that version."
            ) from None
        if len(said) != head.bytes or _digest(said) != head.sha256:
            raise Broken("it says something else than what was written")
        return _value(head), said

    def _data(self, name: str, most: int) -> tuple[bytes, bytes, int]:
        """Of one by its name: the first line, as much of the rest as there is in the first ``most`` bytes, and how many it has in all."""
        with as_storage_error(f"read below {self.folder}"):
            try:
                with Below(self._home, f"{FOLDER}/{name}").reading(_MOST) as file:
                    data, size = file.read(most), os.fstat(file.fileno()).st_size
            except NotPlain as error:
                raise Broken(error.what) from None
            except FileNotFoundError:
                data = None
        if data is None:
            raise FileNotFoundError
        line, _, said = data.partition(b"\n")
        return line, said, size

    def write(self, value: Value, said: bytes) -> None:
        """Raises `DiskFull`, `StorageFailed`: the one before stands then, or this one does, and nothing in between."""
        head = _Head(
            1,
            value.key,
            value.media_type,
            value.bytes,
            _digest(said),
            value.version,
            value.written_at,
            value.ttl_s,
        )
        with as_storage_error(f"create {self.folder}"):
            self._home.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                self.folder.mkdir(mode=0o700)
                sync_directory(self._home)
        write_atomically(self.folder / name_of(value.key), _HEAD.dump_json(head) + b"\n" + said)

    def delete(self, *keys: str) -> None:
        """Raises `StorageFailed`."""
        with as_storage_error(f"delete below {self.folder}"):
            for key in keys:
                (self.folder / name_of(key)).unlink(missing_ok=True)
            if keys:
                sync_directory(self.folder)

    def set_aside(self, name: str) -> str:
        """Move what is no value out of the way, for people to look at; where it is now. Raises `StorageFailed`."""
        return self._move_away(self.folder / name, "value")

    def _move_away(self, path: Path, called: str) -> str:
        aside = self._home / f"{called}.{secrets.token_hex(4)}.unreadable"
        with as_storage_error(f"rename {path}"):
            path.rename(aside)
        return str(aside)


def count(folder: Path) -> int:
    """How many values are in a folder that was put aside. Raises `StorageFailed`."""
    with as_storage_error(f"read {folder}"):
        return len([*filter(_NAME.fullmatch, Below(folder).contents())])


def _head(line: bytes, name: str) -> _Head:
    """Raises `Broken`, `Newer`."""
    try:
        head = _HEAD.validate_json(line)
    except ValidationError as error:
        if _is_newer(line):
            raise Newer from None
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "all of it"
        raise Broken(f"in its first line {where}: {problem['msg']}") from None
    if name_of(head.key) != name:
        raise Broken("it has another one's name")
    return head


def _is_newer(line: bytes) -> bool:
    try:
        return _FORMAT.validate_json(line).format > 1
    except ValidationError:
        return False


def _value(head: _Head) -> Value:
    return Value(head.key, head.media_type, head.bytes, head.version, head.written_at, head.ttl_s)


def name_of(key: str) -> str:
    return f"{_digest(key.encode())}.value"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
