"""End what an earlier launch left behind, known from the registry's record of it. Never by name, always by identity."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from waguard import host
from waguard.sandbox.identity import TOKEN_VARIABLE, Identity, handles_on
from waguard.sandbox.plain import end_tree
from waguard.sandbox.spawn import kill_and_prove, kill_carriers


@dataclass(frozen=True, slots=True)
class Launch:
    """What the registry knows of one launch: the intent before it, the identities after."""

    token: str
    kind: str
    generation: str
    started_at: float
    """Unix time, seconds; for people only."""
    processes: tuple[Identity, ...] = ()
    """For bubblewrap the namespace's init and its monitor, for plain the browser; empty if only the intent was written."""


async def reap(launch: Launch) -> Sequence[int]:
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
    return killed


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a profile's lock."""

    identity: Identity
    lock: Path
    ours: bool
    """It was started by waguard: it carries a launch token besides. Others are not touched."""
    empty: bool
    """A sandbox with no browser in it any more."""


def lock_holders(locks: Iterable[Path], rows: Sequence[host.ProcessRow]) -> Sequence[Holder]:
    """Who holds these locks, by one look at all processes; ``rows`` is a look at the process table. Blocking."""
    by_pid = {row.pid: row for row in rows}
    found = []
    for lock, pids in host.flock_holders(locks).items():
        for pid in pids:
            if (row := by_pid.get(pid) or host.process_row(pid)) is None:
                continue
            token = host.environment_value(pid, TOKEN_VARIABLE)
            identity = Identity(pid, row.start_ticks, host.boot_id())
            below = [one for one in host.descendants(pid, rows) if one.state not in "ZX"]
            found.append(Holder(identity, lock, token is not None, token is not None and not below))
    return found


async def end_holders(holders: Sequence[Holder]) -> Sequence[int]:
    """Kill those that are ours and prove them gone, with all that carry their tokens; their pids. The caller sets the deadline."""
    ours = [holder.identity for holder in holders if holder.ours]
    tokens = {host.environment_value(one.pid, TOKEN_VARIABLE) for one in ours if one.current()}
    with handles_on(ours) as handles:
        await kill_and_prove(handles)
        killed = [handle.identity.pid for handle in handles]
    for token in tokens - {None}:
        assert token is not None  # noqa: S101 (just taken out)
        killed += await kill_carriers(token)
    return killed
