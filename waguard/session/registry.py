"""What must outlive the daemon about each client code: what is wanted, and which processes were started for it.

``sessions/<code>/session.json``, replaced whole and synced.
"""

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from waguard.core.login.state import ON_DISK, UNSAVED, LoginState, Standing
from waguard.core.model import ClientCode, Reason, Wanted
from waguard.core.undo import Act
from waguard.errors import RecordCorrupt
from waguard.profile.store import Profiles
from waguard.sandbox.reaper import LaunchRecord
from waguard.system.files import as_storage_error, read_state, write_atomically
from waguard.system.threads import in_thread, working_for


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What is known of a login on a page that `whatsapp.url` does not name now: see `Record`."""

    login: bool = False
    marked: bool = False
    unsaved: bool = False
    ended: Reason | None = None
    restored: str = ""


@dataclass(frozen=True, slots=True)
class Acted:
    """An act, and what was on record of the logins before it: they are in the profile that it has put aside."""

    act: Act
    origin: str = ""
    login: Elsewhere = Elsewhere()
    """On the page of this origin."""
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Record:
    """One session.json. Unknown keys are ignored; a higher schema number is not read, since we cannot know what it means."""

    wanted: Wanted = Wanted.DOWN
    launch: LaunchRecord | None = None
    """The launch that may still have processes: written before it, completed after it, removed when proved gone."""
    login: bool = False
    """The client was connected with its profile, and nobody has logged it out since."""
    marked: bool = False
    """The login's mark was seen on disk since."""
    unsaved: bool = False
    """The login was scanned, and there is no snapshot of it yet: those there are have another one."""
    ended: Reason | None = None
    """How the login that the client had has ended, until somebody has scanned: logged out, or damaged."""
    restored: str = ""
    """Id of the snapshot that the profile was restored from, until WhatsApp has taken its login."""
    generation: str = ""
    """Of its profile: what the link says too, for when a copy has lost the link. Empty if it has none, or nobody has noted it."""
    origin: str = ""
    """Of the page that all of this is about; empty as long as nothing is known."""
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict, hash=False)
    """Origin -> what is known of the login there, which is in the same profile."""
    acts: tuple[Acted, ...] = ()
    """What an undo may take back: the newest last, and before it the one that counts if that one was never done."""
    schema: Annotated[int, Field(ge=1, le=1)] = 1

    @property
    def here(self) -> Elsewhere:
        """What is known of the login that it is about."""
        return Elsewhere(self.login, self.marked, self.unsaved, self.ended, self.restored)

    def at(self, origin: str) -> "Record":
        """The same, about the login on the page of this origin."""
        if self.origin in {"", origin}:
            return replace(self, origin=origin)
        elsewhere = dict(self.elsewhere)
        there = elsewhere.pop(origin, Elsewhere())
        left = self.here
        if left != Elsewhere():
            elsewhere[self.origin] = left
        return replace(self, origin=origin, elsewhere=elsewhere, **asdict(there))


def login_of(record: Record) -> LoginState:
    """How the login stands by what is on record: of a version before, too."""
    if record.login:
        on_disk, elsewhere = (
            (Standing.ON_DISK, Standing.SCANNED) if record.unsaved else (Standing.KEPT, Standing.SAVED)
        )
        return LoginState(on_disk if record.marked else elsewhere)
    if record.restored:
        return LoginState(Standing.RESTORED, record.restored)
    ends = {Reason.DAMAGED: Standing.LOST, Reason.LOGGED_OUT: Standing.LOGGED_OUT}
    return LoginState(ends.get(record.ended, Standing.NONE) if record.ended is not None else Standing.NONE)


def as_written(login: LoginState) -> Mapping[str, Any]:
    """The fields of a record that are about the login."""
    return {
        "login": login.held,
        "marked": login.on_record in ON_DISK,
        "unsaved": login.on_record in UNSAVED,
        "ended": login.ended,
        "restored": login.snapshot if login.on_record is Standing.RESTORED else "",
    }


_RECORD = TypeAdapter(Record)
_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""Of a launch, a generation or a snapshot: paths are made of them, and processes are known by them."""


def _names(record: Record) -> Iterator[tuple[str, str]]:
    """Those in a record, each with where it is."""
    if (launch := record.launch) is not None:
        yield "launch.token", launch.token
    may_be_empty = {
        "launch.generation": launch.generation if launch is not None else "",
        "generation": record.generation,
        "restored": record.restored,
        **{f"elsewhere.{origin}.restored": its.restored for origin, its in record.elsewhere.items()},
    }
    for number, one in enumerate(record.acts):
        may_be_empty[f"acts.{number}.generation"] = one.act.generation
        may_be_empty[f"acts.{number}.values"] = one.act.values
        may_be_empty[f"acts.{number}.back"] = one.act.back
    yield from ((where, name) for where, name in may_be_empty.items() if name)


class Records(Protocol):
    """Each client's record. Each call may raise `StorageHangs` too."""

    async def read(self, code: ClientCode) -> Record:
        """What is known of the code; an empty record if nothing is. Raises `RecordCorrupt`, or `StorageFailed` if it cannot be read."""

    async def write(self, code: ClientCode, record: Record) -> None:
        """Raises `DiskFull`, `StorageFailed`; the old record then stands."""

    async def set_aside(self, code: ClientCode) -> str:
        """Move a record that cannot be understood out of the way, for people to look at; returns where. Raises `StorageFailed`."""


class FileRecords:
    """In `Registry`'s files, each client's in its own share of the threads."""

    def __init__(self, registry: "Registry") -> None:
        self._registry = registry

    async def read(self, code: ClientCode) -> Record:
        with working_for(code):
            return await in_thread(self._registry.read, code)

    async def write(self, code: ClientCode, record: Record) -> None:
        with working_for(code):
            await in_thread(self._registry.write, code, record)

    async def set_aside(self, code: ClientCode) -> str:
        with working_for(code):
            return str(await in_thread(self._registry.set_aside, code))


class Registry:
    """``sessions/<code>/session.json``. Blocking."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    def read(self, code: ClientCode) -> Record:
        """What is known of the code; an empty record if nothing is. Raises `RecordCorrupt`, or `StorageFailed` if it cannot be read."""
        path = self._path(code)
        with as_storage_error(f"read {path}"):
            try:
                data = read_state(path)
            except FileNotFoundError:
                return Record()
        try:
            record = _RECORD.validate_json(data)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"]) or "the file"
            raise RecordCorrupt(f"{path} cannot be understood: {where}: {problem['msg']}.") from None
        for where, name in _names(record):
            if not _NAME.fullmatch(name):
                raise RecordCorrupt(
                    f"{path} cannot be understood: {where}: {name[:80]!r} is no name of ours."
                )
        return record

    def write(self, code: ClientCode, record: Record) -> None:
        """Raises `DiskFull`, `StorageFailed`; the old record then stands."""
        write_atomically(self._path(code), _RECORD.dump_json(record, indent=2) + b"\n")

    def set_aside(self, code: ClientCode) -> Path:
        """Move a record that cannot be understood out of the way, for people to look at; returns where."""
        path = self._path(code)
        aside = path.with_name(f"session.{secrets.token_hex(4)}.unreadable")
        with as_storage_error(f"rename {path}"):
            path.replace(aside)
        return aside

    def _path(self, code: ClientCode) -> Path:
        return self._profiles.home(code) / "session.json"
