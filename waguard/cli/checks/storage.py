"""The configuration, the sessions directory and the keys of its snapshots: whose they are, and whether they can be used."""

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from waguard.cli.checks import Grade, Seen, user_name
from waguard.cli.errors import NoUser
from waguard.cli.service import UNIT, Service
from waguard.config.load import FRAGMENTS, NAME, Loaded
from waguard.config.sections import Config
from waguard.errors import SnapshotRefused
from waguard.profile.links import look_for_links
from waguard.snapshots import keys
from waguard.snapshots.seal import Opener
from waguard.system.files import as_storage_error

_SECRET = re.compile(r"api\.(admin_token|client_tokens)|clients\.[^.]+\.proxy\.password$")
_MOST_ENTRIES = 10_000
"""How many files and directories are looked at."""
_MOST_SNAPSHOTS = 100
"""How many are opened."""


def configuration(loaded: Loaded, service: Service | None = None) -> Seen:
    """Which files there are, and who else may read or write them. Tokens and passwords may be in each of them."""
    names = [str(one.absolute()) for one in loaded.files]
    what = ", ".join(names) or "defaults, there is no file"
    what += f", with the settings of {UNIT}" if service is not None else ""
    secret = {where.rpartition(":")[0] for key, where in loaded.origins.items() if _SECRET.match(key)}
    # Whoever may write an empty one may put a file there, too.
    place = loaded.path.with_name(FRAGMENTS) if loaded.path is not None and loaded.path.name == NAME else None
    directories = [place] if place is not None and place.is_dir() else []
    for path in (*loaded.files, *directories):
        status = path.stat()
        if status.st_mode & 0o022 and stat.S_IFMT(status.st_mode) in {stat.S_IFREG, stat.S_IFDIR}:
            return Seen(f"{path} can be written by others", Grade.WARNING, f"chmod go-w {path}")
        if str(path) in secret and status.st_mode & 0o004 and _reached_by_all(path):
            return Seen(
                f"{path} has tokens or passwords, and can be read by everybody",
                Grade.WARNING,
                f"chmod o-r {path}",
            )
        if service is not None and not _may_read(service, status):
            hint = f"chgrp {service.group} {path} && chmod {'g+rx' if path in directories else 'g+r'} {path}"
            return Seen(f"{path} cannot be read by {service.user}, as whom {UNIT} runs", Grade.WARNING, hint)
    return Seen(what)


def _reached_by_all(path: Path) -> bool:
    return all(one.stat().st_mode & 0o001 for one in path.resolve().parents)


def _may_read(service: Service, status: os.stat_result) -> bool:
    """As far as owner, group and mode tell."""
    if status.st_uid == (uid := _uid(service.user)) or uid == 0:
        return uid == 0 or bool(status.st_mode & 0o400)
    return bool(status.st_mode & (0o044 if status.st_gid == _gid(service.group) else 0o004))


def _gid(name: str) -> int | None:
    """None: systemd has said none that is here."""
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def sessions(config: Config, service: Service | None = None) -> Seen:
    root, owner = (
        config.sessions.dir.absolute(),
        service.user if service is not None else user_name(os.geteuid()),
    )
    there = next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Seen(
            f"{there} cannot be written by {user_name(os.geteuid())}",
            Grade.PROBLEM,
            f"install -d -m 711 -o {owner} {root}",
        )
    with as_storage_error(f"write {there}"):
        look_for_links(there)
    if there != root:
        return Seen(f"{root} will be created")
    uid = _uid(owner)
    # What a daemon of root has made for its browsers is theirs.
    looked_at = islice(_registry(root), _MOST_ENTRIES) if uid != 0 else (root,)
    for path in looked_at:
        try:
            other = path.lstat().st_uid
        except FileNotFoundError:  # a daemon at work
            continue
        if other == uid:
            continue
        what = f"{path} belongs to {user_name(other)}, not to {owner}"
        if service is not None:
            # One client's may be another's business; without the directory itself there is no service.
            grade = Grade.PROBLEM if path == root else Grade.WARNING
            return Seen(what, grade, f"chown -R {owner}:{service.group} {root}")
        if uid == 0:
            hint = f"Run the daemon as its owner: runuser -u {user_name(other)} -- waguard run"
        else:
            hint = f"Run the daemon as its owner, or: chown -R {owner} {root}"
        return Seen(what, Grade.WARNING, hint)
    if root.stat().st_mode & 0o022:
        return Seen(f"{root} can be written by others", Grade.WARNING, f"chmod go-w {root}")
    return Seen(f"{root} can be written")


def _registry(root: Path) -> Iterator[Path]:
    """The sessions directory, what is in it, and what is in that: all that the daemon itself writes, and no profile's inside."""
    yield root
    for path in root.iterdir():
        yield path
        with suppress(
            OSError
        ):  # it is gone meanwhile, or not ours to look into, which its owner has told already
            if path.is_dir() and not path.is_symlink():
                yield from path.iterdir()


def _uid(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise NoUser(
            f"There is no user {name}, as whom {UNIT} runs.",
            hint="systemd-sysusers waguard.conf",
        ) from None


def snapshot_keys(config: Config, service: Service | None = None) -> Seen:
    """Without them no snapshot can be opened; beside the snapshots they protect from nobody who has the disk."""
    root = config.sessions.dir
    place, handed = keys_of(config, service)
    beside = place.parent == root
    if (handed is not None or beside) and not place.exists():
        return _no_keys(place, handed=handed is not None, sealed=any(root.glob(".backups/*/*.wgb")))
    if handed is not None and not os.access(place, os.R_OK):
        return Seen(f"{place}, which systemd passes to the service; only root can read it")
    ring = keys.load(place, make=False)
    what = f"{place}: {len(ring.keys)}, snapshots are sealed with {ring.newest.id}"
    for snapshot in _newest_snapshots(root):
        try:
            with snapshot.open("rb") as file:
                Opener(file, ring).read(1)
        except SnapshotRefused as error:
            hint = error.hint or "See the others: waguard snapshots " + snapshot.parent.name
            return Seen(f"{what}; {snapshot} cannot be opened: {error.message}", Grade.PROBLEM, hint)
        except OSError as error:  # it is gone meanwhile, or not ours to read
            return Seen(f"{what}; it could not be tried on {snapshot}: {error.strerror}")
    if beside and config.profile.at_rest == "sealed":
        hint = "Put them elsewhere: snapshots.key_file, or the systemd credential waguard.keys"
        return Seen(f"{what}; stored beside the snapshots that they seal", Grade.WARNING, hint)
    return Seen(what)


def keys_of(config: Config, service: Service | None) -> tuple[Path, Path | None]:
    """Where the keys are, and the same if systemd hands them to the service."""
    named = config.snapshots.key_file
    handed = service.credentials.get(keys.CREDENTIAL) if service is not None and named is None else None
    return handed or keys.place(named, config.sessions.dir), handed


def _newest_snapshots(root: Path) -> Iterator[Path]:
    """Of each client, but for those that WhatsApp has refused."""
    for of_one in islice(root.glob(".backups/*"), _MOST_SNAPSHOTS):
        there = [path for path in of_one.glob("*.wgb") if not path.name.endswith(".refused.wgb")]
        if there:
            yield max(there, key=lambda path: path.name)


def _no_keys(place: Path, *, handed: bool, sealed: bool) -> Seen:
    if not handed and not sealed:
        return Seen(f"{place} is made at the first start")
    lacks = []
    if handed:
        lacks.append(f"the service, whose LoadCredential={keys.CREDENTIAL} names it, does not start")
    if sealed:
        lacks.append("no snapshot that was taken so far can be opened")
    hint = "Restore your copy of it" if sealed else f"Make it: {keys.recipe(place)}"
    return Seen(f"{place} is missing: {' and '.join(lacks)}", Grade.PROBLEM, hint)
