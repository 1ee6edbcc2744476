"""What a crash leaves among the files: what was never completed, locks of nothing, profiles that no client points at."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from waguard.core.model import client_code
from waguard.core.shown import Leftover
from waguard.profile.generation import Profile, Retired, made_at
from waguard.snapshots.store import about_of
from waguard.system.files import as_storage_error, being_written, bytes_below, remove_tree
from waguard.system.threads import Kind, in_thread
from waguard.upkeep.sweep import Proposal, Scene

_YOUNG_S = 3600.0
"""What has just been made may be on its way to an owner, or be written by another program."""


def find(scene: Scene) -> Iterator[Proposal]:
    yield from _half_written(scene)
    for generation in scene.profiles.generations():
        profile = scene.profiles.profile(generation)
        made = made_at(generation)
        if (
            generation in scene.linked
            or generation in scene.in_use
            or made is None  # no name of our making
            or profile.path.is_symlink()
            or (not scene.starting and scene.now - made <= _YOUNG_S)
            or scene.profiles.held(profile)
        ):
            continue
        if profile.path.is_dir() or profile.sealed.is_file():
            if scene.unread:
                continue  # it may be theirs
            yield _ownerless(scene, profile)
        elif left := next((path for path in (profile.lock, profile.witness) if path.is_file()), None):
            evidence = "its profile is gone, and nobody holds it"
            finding = Leftover("stale_lock", _name(scene, left), evidence, "delete")
            yield Proposal(finding, partial(_drop_lock, scene, profile), generation)


def _half_written(scene: Scene) -> Iterator[Proposal]:
    there = scene.profiles.partials()
    busy = being_written()  # after the look: what was begun since is not among them
    for path in there:
        try:
            age = scene.now - path.lstat().st_mtime
        except FileNotFoundError:
            continue  # it has been completed
        if path not in busy and (scene.starting or age > _YOUNG_S):
            evidence = f"it was never completed, and nobody is writing it ({bytes_below(path) // 1024} KiB)"
            finding = Leftover("half_written", _name(scene, path), evidence, "delete")
            yield Proposal(finding, partial(_delete, path))


def _ownerless(scene: Scene, profile: Profile) -> Proposal:
    evidence = "no client's link points at it, and nobody holds its lock"
    about = about_of(profile.sealed) if profile.sealed.is_file() else None
    finding = Leftover(
        "profile_without_owner",
        profile.generation,
        evidence,
        "retire" if scene.starting else "retire, save",
        about.client if about else None,
    )
    if about is None and not profile.path.is_dir():
        finding.action = "report"
        finding.evidence += "; it is sealed, and does not say whose it is"
        return Proposal(finding, None)
    return Proposal(finding, partial(_retire, scene, profile, finding.client), profile.generation)


async def _delete(path: Path) -> str:
    def delete() -> None:
        with as_storage_error(f"delete {path}"):
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)

    await in_thread(delete, kind=Kind.COPIES)
    return "deleted"


async def _retire(scene: Scene, profile: Profile, client: str | None) -> str:
    """What is plain of it is put aside and saved, what is sealed of it becomes a snapshot of its client's."""
    done = []

    def retire() -> Retired | None:
        place = scene.profiles.retire_ownerless(profile)
        if client is not None and (kept := scene.snapshots.adopt(client_code(client), profile.sealed)):
            done.append(f"its sealed form is kept as {kept.id}")
        scene.profiles.drop_lock(profile)
        return next((one for one in scene.profiles.aside.all() if one.path == place), None)

    if (retired := await in_thread(retire)) is not None:
        done.append(f"retired as {retired.path.name}")
        if not scene.starting:  # else it is saved when nobody waits for it
            _, said = await scene.save(retired)
            done.append(said)
    return ", ".join(done)


async def _drop_lock(scene: Scene, profile: Profile) -> str:
    await in_thread(scene.profiles.drop_lock, profile)
    return "deleted"


def _name(scene: Scene, path: Path) -> str:
    root = scene.profiles.root
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
