"""What a crash leaves among the files: what was never completed, locks of nothing, profiles that no client points at."""

import calendar
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from waguard.files import being_written, in_thread, saying
from waguard.profile.store import Profile, bytes_below
from waguard.sweep import Finding, Proposal, Scene

_YOUNG_S = 3600.0
"""A profile without an owner may be one that is just being made."""


def find(scene: Scene) -> Iterator[Proposal]:
    profiles = scene.profiles
    busy = being_written()
    for path in profiles.partials():
        if path not in busy:
            evidence = f"it was never completed, and nobody is writing it ({bytes_below(path) // 1024} KiB)"
            yield Proposal(
                Finding("half_written", _name(scene, path), evidence, "delete"), partial(_delete, path)
            )
    for generation in profiles.generations():
        if generation in scene.linked or generation in scene.in_use:
            continue
        profile = profiles.profile(generation)
        if profile.path.is_dir() or profile.sealed.is_file():
            if scene.starting or scene.now - _made_at(generation) > _YOUNG_S:
                evidence = "no client's link points at it, and nobody holds its lock"
                if not profiles.held(profile):
                    finding = Finding("profile_without_owner", generation, evidence, "retire")
                    yield Proposal(finding, partial(_retire, scene, profile))
        elif not profiles.held(profile):
            yield Proposal(
                Finding(
                    "stale_lock",
                    _name(scene, profile.lock),
                    "its profile is gone, and nobody holds it",
                    "delete",
                ),
                partial(_drop_lock, scene, profile),
            )


async def _delete(path: Path) -> str | None:
    def delete() -> None:
        with saying(f"delete {path}"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    if path in being_written():
        return None
    await in_thread(delete)
    return "deleted"


async def _retire(scene: Scene, profile: Profile) -> str | None:
    if scene.used_now(profile.generation):
        return None

    def retire() -> str:
        place = scene.profiles.retire_ownerless(profile)
        scene.profiles.drop_lock(profile)
        return "nothing plain was left of it" if place is None else f"retired as {place.name}"

    return await in_thread(retire)


async def _drop_lock(scene: Scene, profile: Profile) -> str | None:
    if scene.used_now(profile.generation):
        return None
    await in_thread(scene.profiles.drop_lock, profile)
    return "deleted"


def _made_at(generation: str) -> float:
    """Unix time, from the name."""
    return float(calendar.timegm(time.strptime(generation[:15], "%Y%m%dT%H%M%S")))


def _name(scene: Scene, path: Path) -> str:
    root = scene.profiles.root
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
