"""What is set of single clients at run time, each in a file of its own, and what holds in the end. A cleanup leaves these: they are the admin's."""

import asyncio
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from waguard.config.clients import ClientSettings, Effective, Proxy, password_problem
from waguard.config.sections import Config
from waguard.core.condition import ALWAYS, Condition
from waguard.core.model import ClientCode, client_code
from waguard.core.shown_settings import Origin
from waguard.errors import InvalidClientCode, InvalidRequest, StorageFailed
from waguard.system.files import as_storage_error, read_secret, read_state, write_atomically
from waguard.system.tasks import undisturbed
from waguard.system.threads import Kind, in_thread

FOLDER = ".settings"
"""Below ``sessions.dir``, mode 0700: ``CODE.json``, mode 0600, with the proxy's password."""
_MOST = 256 * 1024
_MOST_PASSWORD = 1024


@dataclass(frozen=True, slots=True)
class Put:
    """What was put of one client."""

    settings: ClientSettings = field(default_factory=ClientSettings)
    version: str = "none"
    """Another one each time."""

    @property
    def etag(self) -> str:
        return f'"{self.version}"'


@dataclass(frozen=True, slots=True)
class _Stored:
    format: Literal[1]
    version: str
    settings: ClientSettings


_STORED = TypeAdapter(_Stored)


class Settings:
    """The owner of the files. Who cannot be read is started by no daemon: his browser would go another way out than he is to."""

    def __init__(self, config: Config, publish: Callable[..., Any]) -> None:
        self._config = config
        self._folder = config.sessions.dir.absolute() / FOLDER
        self._publish = publish
        self._put: dict[ClientCode, Put] = {}
        self._unread: dict[ClientCode, str] = {}
        self._labels: dict[ClientCode, frozenset[str]] = {}
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Raises `StorageFailed` if the folder cannot be read."""
        self._put, self._unread = await in_thread(_read_all, self._folder, kind=Kind.FILES)
        for code, why in self._unread.items():
            self._publish("settings.unreadable", client=code, error=why)
        for code in {*self._put, *map(client_code, self._config.clients.all())}:
            self._note(code)

    def of(self, code: ClientCode) -> Effective:
        """What holds. Raises `StorageFailed` where nobody knows."""
        return self._config.settings(code, self.put_of(code).settings)

    def put_of(self, code: ClientCode) -> Put:
        """Raises `StorageFailed`."""
        if code in self._unread:
            hint = (
                f"Mend the file and restart the daemon, or put its settings anew: waguard settings set {code}"
            )
            raise StorageFailed(self._unread[code], hint=hint)
        return self._put.get(code, Put())

    def origins(self, code: ClientCode) -> Mapping[str, Origin]:
        """Of each key that is not as for all, where it is set: ``file`` or ``put``."""
        here = self._config.clients.of(code).given(), self.put_of(code).settings.given()
        return {**dict.fromkeys(here[0], "file"), **dict.fromkeys(here[1], "put")}

    def known_of(self, code: ClientCode) -> Effective:
        """What holds as far as is known, for what costs nobody anything."""
        return self._config.settings(code, self._put.get(code, Put()).settings)

    def labels_of(self, code: str) -> frozenset[str]:
        return self._labels.get(ClientCode(code), frozenset())

    async def put(self, code: ClientCode, wanted: ClientSettings, condition: Condition = ALWAYS) -> Put:
        """Have these in the place of those that were put before; on disk when this returns.

        Raises `PreconditionFailed`, `InvalidRequest`, `DiskFull`, `StorageFailed`: those before stand then.
        """
        return await undisturbed(self._replace(code, wanted, condition))

    async def _replace(self, code: ClientCode, wanted: ClientSettings, condition: Condition) -> Put:
        async with self._changing:
            before = None if code in self._unread else self._put.get(code, Put())
            condition.check(before)
            old = before.settings if before is not None else ClientSettings()
            if wanted.proxy is not None:
                proxy = wanted.proxy.with_password_of(self._config.settings(code, old).proxy)
                wanted = wanted.model_copy(update={"proxy": proxy})
            try:
                self._config.settings(code, wanted).check()
                await in_thread(wanted.check_zone, kind=Kind.FILES)
            except ValueError as error:
                raise InvalidRequest(f"{error}.") from None
            made = Put(wanted, secrets.token_hex(8))
            write = partial(_write, self._folder, code, made, aside=code in self._unread)
            await in_thread(write, kind=Kind.FILES)
            self._put[code] = made
            self._unread.pop(code, None)
            self._note(code)
        was, now = old.given(), wanted.given()
        changed = sorted(key for key in {*was, *now} if was.get(key) != now.get(key))
        self._publish("settings.changed", client=code, keys=changed)
        return made

    def _note(self, code: ClientCode) -> None:
        # Of whom nobody knows what was put, no token for a label may be: it could have been taken from him.
        self._labels[code] = frozenset(() if code in self._unread else self.of(code).labels)


async def password_of(proxy: Proxy) -> str:
    """As it is now. Raises `StorageFailed`."""
    if proxy.password_file is None:
        return proxy.password.get_secret_value() if proxy.password is not None else ""
    return await in_thread(_password, proxy.password_file, kind=Kind.FILES)


def _read_all(folder: Path) -> tuple[dict[ClientCode, Put], dict[ClientCode, str]]:
    put, unread = {}, {}
    with as_storage_error(f"read {folder}"):
        try:
            files = sorted(folder.glob("*.json"))
        except FileNotFoundError:
            files = []
    for file in files:
        try:
            code = client_code(file.stem)
        except InvalidClientCode:
            continue
        try:
            with as_storage_error(f"read {file}"):
                stored = _STORED.validate_python(json.loads(read_state(file, _MOST)))
            put[code] = Put(stored.settings, stored.version)
        except StorageFailed as error:
            unread[code] = error.message
        except (ValueError, RecursionError) as error:  # never with what is in it: there may be a password
            where = (
                ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else "it"
            )
            unread[code] = f"{file} cannot be understood: {where} is not what it should be."
    return put, unread


def _write(folder: Path, code: ClientCode, made: Put, *, aside: bool) -> None:
    file = folder / f"{code}.json"
    with as_storage_error(f"write {file}"):
        folder.mkdir(mode=0o700, exist_ok=True)
        if aside and file.exists():
            # A second name: till the new one is there, whoever reads it must not find nothing.
            os.link(file, file.with_name(f"{code}.{secrets.token_hex(4)}.unreadable"))
    told = made.settings.model_dump(mode="json", exclude_none=True)
    proxy = made.settings.proxy
    if proxy is not None and proxy.password is not None:
        told["proxy"]["password"] = proxy.password.get_secret_value()
    stored = {"format": 1, "version": made.version, "settings": told}
    write_atomically(file, json.dumps(stored, indent=1).encode() + b"\n")


def _password(path: Path) -> str:
    with as_storage_error(f"read {path}"):
        data, _ = read_secret(path, _MOST_PASSWORD + 1)
    lines = data.decode("utf-8", "replace").splitlines()
    password = lines[0] if lines else ""
    if why := password_problem(password):
        raise StorageFailed(f"{path}: the first line {why}.")
    return password
