"""``waguard check``: open every snapshot of a client's, or of all, and examine every profile that no browser uses. It only reads."""

import os
import pwd
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread

from waguard.cli import terminal
from waguard.cli.checks import Checked, ClientChecked, What
from waguard.cli.checks.storage import keys_of
from waguard.cli.client import control
from waguard.cli.errors import NoFile
from waguard.cli.service import Service, configured
from waguard.config.sections import Config
from waguard.core.login.state import ON_DISK
from waguard.core.model import ClientCode, Verdict, client_code
from waguard.core.shown import SessionView
from waguard.errors import ProfileLocked, SessionNotFound, StorageHangs, WaguardError
from waguard.profile import examiners, login_files, witness
from waguard.profile.examiners.subject import Subject
from waguard.profile.generation import Place, Profile
from waguard.profile.store import Profiles
from waguard.sandbox import unprivileged_user
from waguard.session.registry import Registry, login_of
from waguard.snapshots import keys
from waguard.snapshots.keys import Keyring
from waguard.snapshots.store import Snapshot, Snapshots
from waguard.system.files import as_storage_error

_LOOKS = 3
"""At a profile that changes meanwhile."""
_NICE = 19
"""Whoever runs browsers comes first, for the processor and, by most schedulers, for the disk: ioprio_set(2)."""


def look_at(path: Path | None, code: ClientCode | None, limit_s: float) -> Sequence[ClientChecked]:
    """Of one client, or of all; ``limit_s``: how long a snapshot or a profile may take. Raises `NoFile`, `StorageFailed`, `StorageHangs`."""
    loaded, service = configured(path)
    looking = _Looking(loaded.config, service)
    codes = _within(limit_s, "Listing the clients", looking.codes)
    if code is not None and code not in codes:
        raise SessionNotFound(f"There is nothing of {code}.", hint="See whom there is: waguard status")
    codes = codes if code is None else [code]
    told = _told_by_the_daemon(loaded.config, service)
    found = []
    with terminal.errors().status("Looking ...") as status:
        for number, client in enumerate(codes, 1):
            status.update(f"Looking at {client} ({number} of {len(codes)}) ...")
            each = [*_of_client(looking, client, told.get(client), limit_s)]
            found.append(ClientChecked(client, all(one.ok for one in each), each))
    return found


def _told_by_the_daemon(config: Config, service: Service | None) -> Mapping[str, SessionView]:
    """Of the sessions that are not down; nothing where no daemon runs, or this user is not shown them."""
    if service is not None and service.state not in {"active", "reloading"}:  # its socket would start it
        return {}
    with suppress(WaguardError), control(config, service, None) as daemon:
        return {one.client: one for one in daemon.sessions().sessions}
    return {}


class _Looking:
    """What is read, and how. Blocking: call from a thread, since a disk may hang."""

    def __init__(self, config: Config, service: Service | None) -> None:
        self._root = config.sessions.dir.absolute()
        self._config, self._service = config, service
        self._origin = login_files.origin_of(config.whatsapp.url)
        self._profiles = Profiles(self._root, None, config.profile.runtime_dir)
        self._registry = Registry(self._profiles)

    def codes(self) -> Sequence[ClientCode]:
        """Of all that there is anything of. Raises `NoFile`, `StorageFailed`."""
        if not self._root.is_dir():
            raise NoFile(
                f"There is no {self._root}.", hint="Is its disk mounted? Else see: waguard config show"
            )
        backups = self._root / ".backups"
        with as_storage_error(f"read {backups}"):
            kept = [path.name for path in backups.iterdir()] if backups.is_dir() else []
        found = []
        for name in sorted({*self._profiles.codes(), *kept}):
            with suppress(WaguardError):  # what is not of our making
                found.append(client_code(name))
        return found

    def things(self, code: ClientCode) -> Iterator[tuple[What, str, Callable[[Event], Checked | None]]]:
        """What there is of a client, each with how to look at it. Raises `WaguardError`."""
        place, profile = self._profiles.find(code)
        yield (
            What.PROFILE,
            profile.generation if profile else "",
            lambda stop: self._profile(code, place, profile, stop),
        )
        ring = self._keyring()
        snapshots = Snapshots(self._root, ring)
        for one in snapshots.of(code):
            yield What.SNAPSHOT, one.id, lambda stop, one=one: _opened(snapshots, code, one, stop)  # type: ignore[misc]

    def _keyring(self) -> Keyring:
        place, _ = keys_of(self._config, self._service)
        return keys.load(place, make=False) if place.exists() else Keyring((), place)

    def _profile(self, code: ClientCode, place: Place, profile: Profile | None, stop: Event) -> Checked:
        if profile is None:
            return Checked(What.PROFILE, "", "none")
        if place is Place.LOST:
            why = "The client's link names it, and it is not there."
            return Checked(What.PROFILE, profile.generation, "lost", why)
        if place is Place.SEALED:
            Snapshots(self._root, self._keyring()).read(stop, profile.sealed, code)
            return Checked(What.PROFILE, profile.generation, Verdict.SOUND)
        for _ in range(_LOOKS):
            known = witness.read(profile.witness)
            subject = Subject(profile.path, "", self._origin, self._uid(), known, self._login_on_disk(code))
            report = examiners.examine(subject)
            # A browser that was started meanwhile makes it void, and one that has ended has left another.
            if report.verdict is Verdict.SOUND or witness.read(profile.witness) == known:
                return Checked(What.PROFILE, profile.generation, report.verdict, report.why)
        return Checked(What.PROFILE, profile.generation, "in_use", "It changes while it is looked at.")

    def _login_on_disk(self, code: ClientCode) -> bool:
        if not (self._root / code).is_dir():
            return False
        return login_of(self._registry.read(code).at(self._origin)).on_record in ON_DISK

    def _uid(self) -> int:
        """Whose profiles have to be: the browsers' user's, where root runs the daemon, else the daemon's own."""
        owner = self._root.stat().st_uid
        if self._service is not None and self._service.user != "root":
            with suppress(KeyError):
                owner = pwd.getpwnam(self._service.user).pw_uid
        user = unprivileged_user(self._config.browser.user, self._root) if owner == 0 else None
        return user.uid if user is not None else owner


def _opened(snapshots: Snapshots, code: ClientCode, one: Snapshot, stop: Event) -> Checked | None:
    """None: it was deleted meanwhile, as old ones are."""
    try:
        snapshots.read(stop, one.path, code)
    except WaguardError:
        if not one.path.exists():
            return None
        raise
    return Checked(What.SNAPSHOT, one.id, Verdict.SOUND)


def _of_client(
    looking: _Looking, code: ClientCode, view: SessionView | None, limit_s: float
) -> Iterator[Checked]:
    """Each as it was found; a disk that does not answer ends it, and costs the next client nothing."""
    stop, came, doing = (
        Event(),
        SimpleQueue[Checked | BaseException | None](),
        ["Reading its profile"],
    )

    def look() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)  # of this thread
        try:
            for what, name, see in looking.things(code):
                doing[0] = f"Reading {what} {name}".strip()
                try:
                    seen = see(stop)
                except ProfileLocked as error:
                    seen = Checked(what, name, "in_use", _in_use(view, error.message))
                except WaguardError as error:
                    seen = Checked(what, name, str(error.details.get("reason", error.code)), error.message)
                if seen is not None:
                    came.put(seen)
                doing[0] = "Reading its snapshots"
            came.put(None)
        except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
            came.put(error)

    Thread(target=look, daemon=True, name=code).start()
    while True:
        try:
            seen = came.get(timeout=limit_s)
        except Empty:
            stop.set()
            why = f"{doing[0]} has not ended for {limit_s:g} s: its disk does not answer. No more of it was looked at."
            yield Checked(
                What.SNAPSHOT if "snapshot" in doing[0] else What.PROFILE, "", StorageHangs.code, why
            )
            return
        if seen is None:
            return
        if isinstance(seen, WaguardError):
            yield Checked(What.PROFILE, "", seen.code, seen.message)
            return
        if isinstance(seen, BaseException):
            raise seen
        yield seen


def _within(limit_s: float, doing: str, work: Callable[[], Sequence[ClientCode]]) -> Sequence[ClientCode]:
    """Raises `StorageHangs`, and what ``work`` raises."""
    came = SimpleQueue[Sequence[ClientCode] | BaseException]()

    def look() -> None:
        try:
            came.put(work())
        except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
            came.put(error)

    Thread(target=look, daemon=True, name="codes").start()
    try:
        found = came.get(timeout=limit_s)
    except Empty:
        raise StorageHangs(
            f"{doing} has not ended for {limit_s:g} s: the disk of the sessions does not answer.",
            hint="See: dmesg",
        ) from None
    if isinstance(found, BaseException):
        raise found
    return found


def _in_use(view: SessionView | None, seen: str) -> str:
    """What there is to say of a profile that cannot be looked at now."""
    if view is None:
        return seen
    found = f", {view.finding.fault}: {'; '.join(view.finding.evidence)}" if view.finding is not None else ""
    return f"Its session is {view.status}{found}."
