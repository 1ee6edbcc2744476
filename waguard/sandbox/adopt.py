"""Take over the processes of a launch that an earlier daemon has made, known from the registry's record of it."""

from waguard.sandbox import Run
from waguard.sandbox.bubblewrap import BubblewrapRun
from waguard.sandbox.plain import PlainRun
from waguard.sandbox.reaper import LaunchRecord

_KINDS: dict[str, type[BubblewrapRun | PlainRun]] = {run.kind: run for run in (BubblewrapRun, PlainRun)}


def adopt(launch: LaunchRecord) -> Run | None:
    """All of it, or none: then what is left of it is to be reaped. Blocking."""
    run = _KINDS.get(launch.kind)
    return run.adopt(launch.processes, launch.token) if run is not None and launch.processes else None
