"""End what an earlier launch left behind, known from the registry's record of it. Never by name, always by identity."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waguard import host
from waguard.sandbox.identity import Identity, handles_on
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


def lock_holders(lock: Path) -> list[int]:
    """Pids that hold a profile's lock, for the report when it cannot be had."""
    return host.flock_holders(lock)
