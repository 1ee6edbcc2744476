"""What concerns no single client."""

from waguard.api.asked import Asked
from waguard.api.schemas import Options, ReapOptions
from waguard.core.shown import JobList, Sweep


async def reap(asked: Asked, options: ReapOptions) -> Sweep:
    """Sweep now: find what browsers, crashes and time have left behind, and deal with it. ``dry_run``: only report what would be done."""
    return await asked.supervisor.reap(dry_run=options.dry_run)


async def schedule(asked: Asked, _options: Options) -> JobList:
    """The jobs of the schedule: when each ran last, how that went, and when it runs next."""
    return JobList(asked.supervisor.schedule.views())
