"""What takes too much room: caches over their limit, the whole of ``sessions/`` over its quota; and what is still plain."""

from collections.abc import Iterator
from functools import partial

from waguard.core.shown import Leftover
from waguard.profile import caches
from waguard.profile.generation import Place, Retired
from waguard.session.task import Session
from waguard.system.files import bytes_below
from waguard.system.host import MB
from waguard.system.threads import Kind, in_thread
from waguard.upkeep.sweep import Proposal, Scene
from waguard.upkeep.sweep.retired import has_expired, may_go


def find(scene: Scene) -> Iterator[Proposal]:
    limit = scene.config.profile.cache_limit_mb * MB
    sealed = scene.config.profile.at_rest == "sealed"
    freed = 0
    for code, session in scene.sessions.items():
        if not session.at_rest:
            continue
        place, profile = scene.profiles.find(code)
        if profile is None or place is not Place.PLAIN or scene.profiles.held(profile):
            continue
        if sealed:
            evidence = "its session is stopped, and profile.at_rest is sealed"
            yield Proposal(
                Leftover("not_sealed", profile.generation, evidence, "seal", code),
                partial(_seal, scene, session),
                profile.generation,
            )
        elif limit and (found := caches.size(profile)) > limit:
            freed += found
            evidence = f"its caches take {found / MB:.1f} MiB, profile.cache_limit_mb is {limit // MB}"
            yield Proposal(
                Leftover("cache", profile.generation, evidence, "prune", code),
                partial(_prune, session, limit),
                profile.generation,
            )
    if scene.config.sessions.quota_mb:
        yield from _over_quota(scene, freed)


def _over_quota(scene: Scene, freed: int) -> Iterator[Proposal]:
    """Retired profiles go, the oldest first, as long as it is too much; what is in use, or the only copy, never does."""
    quota = scene.config.sessions.quota_mb * MB
    taken = bytes_below(scene.profiles.root) - freed
    there = scene.profiles.aside.all()
    taken -= sum(bytes_below(retired.path) for retired in there if has_expired(scene, retired))
    for retired in there:
        if taken > quota and may_go(retired) and not has_expired(scene, retired):
            size = bytes_below(retired.path)
            evidence = (
                f"{taken / MB:.0f} MiB are taken, sessions.quota_mb is {quota // MB}; it has {size / MB:.1f}"
            )
            taken -= size
            yield Proposal(
                Leftover("over_quota", retired.path.name, evidence, "delete", None),
                partial(_delete, scene, retired),
                retired.generation,
            )
    if taken > quota:
        evidence = f"{taken / MB:.0f} MiB are taken, sessions.quota_mb is {quota // MB}; nothing more may go"
        yield Proposal(Leftover("over_quota", ".", evidence, "report"), None)


async def _seal(scene: Scene, session: Session) -> str | None:
    if not session.at_rest:
        return None
    await session.copies.seal()
    place, _ = await in_thread(scene.profiles.find, session.code)
    return "sealed" if place is Place.SEALED else None


async def _prune(session: Session, limit: int) -> str | None:
    freed = await session.copies.prune(limit)
    return f"{freed / MB:.1f} MiB dropped" if freed else None


async def _delete(scene: Scene, retired: Retired) -> str | None:
    def delete() -> str | None:
        # By whatever name: this very sweep may have saved it.
        for one in scene.profiles.aside.all():
            if (one.code, one.generation, one.reason) == (retired.code, retired.generation, retired.reason):
                scene.profiles.aside.delete(one.path)
                return "deleted"
        return None

    return await in_thread(delete, kind=Kind.COPIES)
