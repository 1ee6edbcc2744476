"""What was: figures for the admin, a client's history for itself."""

from collections.abc import Sequence

from waguard.api.asked import Asked
from waguard.api.schemas import PageOptions, StatsOptions
from waguard.core.learning import LEARNED_STAGES
from waguard.core.model import ClientCode, Stage, client_code
from waguard.core.shown import DeadlineView, FindingList, HistoryList, Raised, StatsView
from waguard.core.stats import Stats
from waguard.history.learned import Learned


async def stats(asked: Asked, options: StatsOptions) -> StatsView:
    """What the last hours come to, of one client or of all: attempts, faults, the deadlines in force, the alerts that stand."""
    code = client_code(options.client) if options.client is not None else None
    supervisor = asked.supervisor
    found = await supervisor.history.stats(options.hours, code)
    alerts = [one for one in supervisor.alerts() if code is None or one.client in {code, None}]
    return view(found, supervisor.learned, supervisor.history.state, alerts)


def view(found: Stats, learned: Learned, state: str, alerts: Sequence[Raised]) -> StatsView:
    """The figures, and what has been learned from them."""
    code = ClientCode(found.client) if found.client is not None else None
    asked = [(code, stage) for stage in LEARNED_STAGES]
    if code is None:
        asked += [
            (ClientCode(one.client), Stage(one.stage)) for one in found.slow if one.stage in LEARNED_STAGES
        ]
    return StatsView(
        since=found.since,
        until=found.until,
        client=found.client,
        history=state,
        alerts=alerts,
        attempts=found.attempts,
        faults=found.faults,
        deadlines=[_deadline(learned, client, stage) for client, stage in asked],
        slow=found.slow,
    )


def _deadline(learned: Learned, code: ClientCode | None, stage: Stage) -> DeadlineView:
    now = learned.deadline(code, stage)
    return DeadlineView(code, stage, round(now.seconds, 2), learned.configured_s(stage), now.why)


async def history(asked: Asked, options: PageOptions) -> HistoryList:
    """What has happened to the client, the newest first; ``before`` is the id that the last page ended with."""
    return HistoryList(await asked.supervisor.history.happened(asked.code, options.limit, options.before))


async def findings(asked: Asked, options: PageOptions) -> FindingList:
    """What was found wrong with the client, and what became of it, the newest first."""
    return FindingList(await asked.supervisor.history.findings(asked.code, options.limit, options.before))
