"""End what an earlier launch left behind, known from the registry's record of it. Never by name, always by identity."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waguard.sandbox.identity import TOKEN_VARIABLE, Identity, handles_on
from waguard.sandbox.plain import end_tree
from waguard.sandbox.spawn import collect_strays, kill_and_prove, kill_carriers
from waguard.system import host
from waguard.system.threads import Kind, in_thread


@dataclass(frozen=True, slots=True)
class LaunchRecord:
    """What the registry knows of one launch: the intent before it, the identities after."""

    token: str
    kind: str
    generation: str
    started_at: float
    """Unix time, seconds, as the clock went then: for people, and to be held against what files say. How old it is the processes tell."""
    processes: tuple[Identity, ...] = ()
    """For bubblewrap the namespace's init and its monitor, for plain the browser; empty if only the intent was written."""
    version: str = ""
    """The browser's."""
    page: str = ""
    """The DevTools session with its page, once the browser has answered: with it a later daemon goes on."""
    target: str = ""
    """The page's DevTools target."""
    uploads: str = ""
    """Where its browser finds what its client has uploaded; empty: it was started by a version that had no uploads."""
    downloads: str = ""
    """Where it may download to; likewise."""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What it was launched with of its client's settings; empty: by a version that had none."""
    accepted: bool = False
    """WhatsApp has taken the login in it: that it is logged out later is no damage."""
    databases: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Identities of the directories that the login is in since then, by their path below the profile: one that is wiped is another one."""


async def reap(launch: LaunchRecord) -> Sequence[int]:
    """Kill what is left of the launch and prove it gone; returns the pids that were killed. The caller sets the deadline.

    Processes whose identity does not match any more are somebody else's and are left alone.
    """
    with handles_on(launch.processes) as handles:
        killed = [handle.identity.pid for handle in handles if not handle.gone()]
        if launch.kind == "plain":
            for handle in handles:
                await end_tree(handle.identity, launch.token)
        await kill_and_prove(handles)
    if not launch.processes or launch.kind == "plain":
        # The daemon died between spawn and writing the pid down, or there is no namespace that ends the strays.
        killed += await kill_carriers(launch.token)
    await in_thread(collect_strays, kind=Kind.MACHINE)
    return killed


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a profile's lock."""

    identity: Identity
    lock: Path
    token: str | None
    """The launch that it carries, if it was started by waguard. Others are not touched."""
    empty: bool
    """A sandbox whose browser is gone."""

    @property
    def ours(self) -> bool:
        return self.token is not None


def lock_holders(locks: Iterable[Path]) -> Sequence[Holder]:
    """Who holds these locks, by one look at all locks. Blocking."""
    found = []
    for lock, pids in host.flock_holders(locks).items():
        for pid in pids:
            if (row := host.process_row(pid)) is None:
                continue
            token = host.environment_value(pid, TOKEN_VARIABLE) or None
            identity = Identity(pid, row.start_ticks, host.boot_id())
            below = [one.pid for one in host.below(pid) if one.state not in "ZX"]
            found.append(Holder(identity, lock, token, token is not None and _empty(pid, below)))
    return found


def _empty(pid: int, below: Iterable[int]) -> bool:
    """Whether it is a namespace's init whose own child, the browser, is gone; strays may be left in it."""
    *outside, init = host.namespace_pids(pid) or (0,)
    inside = [host.namespace_pids(one) for one in below]
    return (
        bool(outside)
        and init == 1
        and not any(len(one) == len(outside) + 1 and one[-1] == 2 for one in inside)
    )


async def end_holders(holders: Iterable[Holder]) -> Sequence[int]:
    """Kill those that are ours and prove them gone, with all that is below them or carries their tokens; their pids. The
    caller sets the deadline.
    """
    killed = []
    for holder in holders:
        if holder.token is not None and holder.identity.current():
            await end_tree(holder.identity, holder.token)
            killed.append(holder.identity.pid)
    return killed
