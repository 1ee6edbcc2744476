"""The routes of what was: figures for the admin, a client's history for itself."""

from collections.abc import Sequence

from aiohttp import web

from waguard.api.admin import admin_only
from waguard.api.keys import SUPERVISOR
from waguard.api.routes import Routes
from waguard.api.schemas import PageOptions, StatsOptions, respond
from waguard.api.sessions import ONE, code_of
from waguard.core.learning import LEARNED_STAGES
from waguard.core.model import ClientCode, Stage, client_code
from waguard.core.shown import DeadlineView, Raised, StatsView
from waguard.core.stats import Stats
from waguard.history.learned import Learned

routes = Routes()


@routes.get("/v1/stats", StatsOptions)
async def stats(request: web.Request, options: StatsOptions) -> web.Response:
    admin_only(request)
    code = client_code(options.client) if options.client is not None else None
    supervisor = request.app[SUPERVISOR]
    found = await supervisor.history.stats(options.hours, code)
    alerts = [one for one in supervisor.alerts() if code is None or one.client in {code, None}]
    return respond(request, view(found, supervisor.learned, supervisor.history.state, alerts))


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


@routes.get(ONE + "/history", PageOptions)
async def history(request: web.Request, options: PageOptions) -> web.Response:
    code = code_of(request)
    found = await request.app[SUPERVISOR].history.happened(code, options.limit, options.before)
    return respond(request, {"history": found})


@routes.get(ONE + "/findings", PageOptions)
async def findings(request: web.Request, options: PageOptions) -> web.Response:
    code = code_of(request)
    found = await request.app[SUPERVISOR].history.findings(code, options.limit, options.before)
    return respond(request, {"findings": found})
