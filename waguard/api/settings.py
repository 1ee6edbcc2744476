"""Settings of one client: each reads, asks the supervisor, answers."""

from aiohttp import web

from waguard.api.asked import Asked
from waguard.api.schemas import Options, SettingsOptions, respond
from waguard.core.condition import Condition
from waguard.core.shown_settings import SettingsView
from waguard.errors import InvalidRequest


async def show(asked: Asked, _options: Options) -> SettingsView | web.Response:
    """What is set of a client, whether it has a session or not: what holds, where each comes from, and what its browser, if it runs, has otherwise. Its ETag is for `If-Match`."""
    view = asked.supervisor.settings_view(asked.code)
    return _tagged(asked, view, asked.supervisor.settings.put_of(asked.code).etag)


async def put(asked: Asked, options: SettingsOptions) -> SettingsView | web.Response:
    """Have these settings in the place of all that were put before; a key that is left out, or null, is as the configuration has it. A proxy's password may be left out if its address and user stay. ``restart``: start its browser anew, if it runs with others. `If-Match` with an ETag: only if nobody has put others since."""
    if options.proxy is not None and options.proxy.password_file is not None:
        raise InvalidRequest(
            "proxy.password_file: is for the configuration alone.", hint="Send proxy.password."
        )
    condition = Condition.of(asked.request.headers.get("If-Match"), None)
    view, etag = await asked.supervisor.put_settings(
        asked.code, options.settings, condition, restart=options.restart
    )
    return _tagged(asked, view, etag)


def _tagged(asked: Asked, view: SettingsView, etag: str) -> web.Response:
    answer = respond(view, "application/json", paths=asked.caller.is_admin)
    answer.headers["ETag"] = etag
    return answer
