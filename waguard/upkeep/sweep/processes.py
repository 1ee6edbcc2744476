"""Browsers without a session, sandboxes without a browser, launches that nobody ended, zombies."""

import os
import threading
from collections.abc import Iterator, Sequence
from functools import partial

from waguard.core.model import Stage
from waguard.core.shown import Leftover
from waguard.sandbox import reaper
from waguard.sandbox.cgroup import Leaf
from waguard.sandbox.reaper import Holder
from waguard.sandbox.spawn import collect_strays, strays
from waguard.session.task import Session
from waguard.system.deadline import within
from waguard.system.threads import Kind, in_thread
from waguard.upkeep.sweep import Proposal, Scene


def find(scene: Scene) -> Iterator[Proposal]:
    recorded = list(_leftovers(scene))
    yield from recorded
    yield from _holders(scene, {proposal.finding.client for proposal in recorded})
    if scene.starting:  # later each leaf is some instance's, from before it is made until it is gone
        yield from _leaves(scene)
    for row in strays(scene.rows):
        evidence = f"it has ended, and this daemon ({os.getpid()}) is its parent now"
        yield Proposal(Leftover("zombie", str(row.pid), evidence, "collect"), _collect)


async def _collect() -> str:
    await in_thread(collect_strays, kind=Kind.MACHINE)
    return "collected"


def _leftovers(scene: Scene) -> Iterator[Proposal]:
    """Launches on record that have no browser which their session holds."""
    for code, session in scene.sessions.items():
        launch = session.leftover
        if launch is not None and session.at_rest and code not in scene.unread:
            alive = ", ".join(str(one.pid) for one in launch.processes if one.current())
            evidence = (
                f"a launch of {launch.generation} is on record; of its processes {alive or 'none'} is there"
            )
            yield Proposal(
                Leftover("leftover_launch", code, evidence, "kill", code),
                partial(_end_leftover, scene, session),
            )


async def _end_leftover(scene: Scene, session: Session) -> str | None:
    if session.leftover is None or not session.at_rest:
        return None
    async with within(Stage.KILL, scene.config.deadlines.kill, "reaping leftovers"):
        await session.end_leftovers()
    return "proved gone"


def _leaves(scene: Scene) -> Iterator[Proposal]:
    """Cgroups that an earlier daemon has made for launches of which there is no record."""
    if (cgroups := scene.cgroups) is None:
        return
    launches = {code: session.launch_on_record for code, session in scene.sessions.items()}
    known = {cgroups.leaf(code, launch.token).path for code, launch in launches.items() if launch is not None}
    for leaf in cgroups.leaves():
        if leaf.path not in known and leaf.client not in scene.unread:
            pids = leaf.pids()
            there = f"{', '.join(map(str, pids))} are" if pids else "nobody is"
            evidence = f"{there} in this cgroup of ours, and its launch is not on record"
            yield Proposal(
                Leftover("cgroup_without_session", leaf.path.name, evidence, "kill"),
                partial(_end_leaf, scene, leaf),
            )


async def _end_leaf(scene: Scene, leaf: Leaf) -> str | None:
    stop = threading.Event()
    async with within(Stage.KILL, scene.config.deadlines.kill, "ending a cgroup"):
        used = await in_thread(leaf.end, stop, stop=stop, kind=Kind.MACHINE)
    return None if used is None else "killed and proved gone"


def _holders(scene: Scene, known: set[str | None]) -> Iterator[Proposal]:
    """Whoever holds the lock of a profile that no session uses."""
    profiles = scene.profiles
    held = {
        profile.lock: profile.generation
        for generation in profiles.generations()
        if generation not in scene.in_use and profiles.held(profile := profiles.profile(generation))
    }
    by_lock: dict[str, list[Holder]] = {}
    for holder in reaper.lock_holders(held):
        by_lock.setdefault(held[holder.lock], []).append(holder)
    for generation, holders in by_lock.items():
        client = scene.linked.get(generation)
        if client in known or client in scene.unread:
            continue  # its record has it
        ours = [holder for holder in holders if holder.ours]
        for holder in holders:
            if not holder.ours:
                evidence = f"it holds the lock of {generation}, and was not started by waguard"
                yield Proposal(
                    Leftover("foreign_holder", str(holder.identity.pid), evidence, "report", client), None
                )
        if ours:
            pids = sorted(holder.identity.pid for holder in ours)
            kind = (
                "sandbox_without_browser"
                if all(holder.empty for holder in ours)
                else "browser_without_session"
            )
            evidence = f"it was started by waguard and holds the lock of {generation}, which no session uses"
            yield Proposal(
                Leftover(kind, ", ".join(map(str, pids)), evidence, "kill", client),
                partial(_end, scene, ours),
                generation,
            )


async def _end(scene: Scene, holders: Sequence[Holder]) -> str | None:
    """Of those that were seen to hold the lock, whoever still does."""
    locks = {holder.lock for holder in holders}
    seen = {holder.identity for holder in holders}
    async with within(Stage.KILL, scene.config.deadlines.kill, "reaping a browser without a session"):
        now = await in_thread(lambda: reaper.lock_holders(locks))
        killed = await reaper.end_holders([holder for holder in now if holder.identity in seen])
    return f"killed and proved gone: {', '.join(map(str, sorted(set(killed))))}" if killed else None
