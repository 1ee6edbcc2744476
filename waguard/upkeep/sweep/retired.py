"""Profiles that were put aside, and values: saved as a snapshot, and deleted when they have outlived their retention."""

import time
from collections.abc import Iterator
from functools import partial

from waguard.core.shown import Leftover
from waguard.profile.generation import DAMAGED, DROPPED, NOBODY, VALUES, Retired, made_at
from waguard.system.threads import Kind, in_thread
from waguard.upkeep.sweep import Proposal, Scene

_SLACK_S = 3600.0
_DAY_S = 86_400.0


def find(scene: Scene) -> Iterator[Proposal]:
    keep_s = scene.config.sessions.retired_keep_hours * 3600
    for retired in scene.profiles.aside.all():
        sealed = _only_sealed(scene, retired)
        if why := _wrongly_timed(scene, retired):
            finding = Leftover("wrong_clock", retired.path.name, why, "date", _client(retired))
            yield Proposal(finding, partial(_date, scene, retired), retired.generation)
        if retired.reason == DAMAGED and not sealed:
            continue  # for a person to look at: the verdict may be wrong
        expired = has_expired(scene, retired)
        evidence = f"put aside {max(0.0, scene.now - retired.since) / 3600:.1f} h ago"
        if expired:
            evidence += ", and only its snapshot stays" if sealed else f", kept for {keep_s / 3600:g} h"
        if not retired.saved:
            evidence += "; there is no snapshot of it yet"
        if expired or not retired.saved:
            action = "delete" if retired.saved else "save, then delete" if expired else "save"
            finding = Leftover(
                "expired" if expired else "not_saved", retired.path.name, evidence, action, _client(retired)
            )
            yield Proposal(finding, partial(_deal_with, scene, retired, expired=expired), retired.generation)


def has_expired(scene: Scene, retired: Retired) -> bool:
    """Whether it is deleted in this sweep anyway."""
    if _only_sealed(scene, retired):
        return True
    return (
        retired.reason != DAMAGED
        and scene.now - retired.since >= scene.config.sessions.retired_keep_hours * 3600
        and not _wrongly_timed(scene, retired)
    )


def _only_sealed(scene: Scene, retired: Retired) -> bool:
    """Whether nothing but its snapshot is to stay. Values are plain as long as they are kept: they have none."""
    return scene.config.profile.at_rest == "sealed" and retired.reason != VALUES


def _wrongly_timed(scene: Scene, retired: Retired) -> str:
    """Why its age is not known: the clock was wrong, or is. Empty if it is known.

    An age is believed as long as looks at it follow each other: across a leap of the clock nobody knows which side is right. At
    worst, after a long time without a daemon, something is kept once more as long as it would have been.
    """
    said, looked = _time(retired.since), scene.looked_at
    if retired.since > scene.now + _SLACK_S:
        return f"put aside in the future ({said})"
    made = made_at(retired.generation)
    if made is not None and retired.since + _SLACK_S < made <= scene.now:
        return f"put aside ({said}) before it was made ({_time(made)})"
    most = max(scene.config.sessions.retired_keep_hours * 3600, _DAY_S)
    if looked is not None and not -_SLACK_S <= scene.now - looked <= most:
        return f"the clock said {_time(looked)} at the last look, and says {_time(scene.now)}"
    return ""


async def _date(scene: Scene, retired: Retired) -> str:
    await in_thread(scene.profiles.aside.count_from, retired.path, scene.now)
    return "its retention time counts from now"


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


def may_go(retired: Retired) -> bool:
    """Whether it may be deleted before its time to make room: it is saved, or somebody wanted it gone."""
    return retired.saved or retired.reason in DROPPED


async def _deal_with(scene: Scene, retired: Retired, *, expired: bool) -> str | None:
    done = []
    if not retired.saved:
        retired, said = await scene.save(retired)
        done.append(said)
    if expired:
        await in_thread(scene.profiles.aside.delete, retired.path, kind=Kind.COPIES)
        done.append("deleted")
    return ", ".join(done)


def _client(retired: Retired) -> str | None:
    return None if retired.code == NOBODY else retired.code
