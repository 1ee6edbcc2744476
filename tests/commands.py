"""Commands in this process, and a control port for them that answers what the test says."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from waguard.access import configured
from waguard.api import problems
from waguard.cli.app import COMMANDS, SETTINGS_COMMANDS, TOKEN_COMMANDS, VALUE_COMMANDS, WEBHOOK_COMMANDS, app
from waguard.core.shown import SessionView
from waguard.errors import SessionNotFound, WaguardError

ADMIN, TOKEN = "admin-admin-admin-admin", "demo-demo-demo-demo"
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_ANY: TypeAdapter[Any] = TypeAdapter(Any)
for place in (
    *COMMANDS.values(),
    *TOKEN_COMMANDS.values(),
    *VALUE_COMMANDS.values(),
    *SETTINGS_COMMANDS.values(),
    *WEBHOOK_COMMANDS.values(),
):  # else one is imported while a test has patched what it takes a copy of, and keeps that
    import_module(f"waguard.cli.{place.partition(':')[0]}")


def answer(view: object) -> web.Response:
    return web.Response(body=_ANY.dump_json(view), content_type="application/json")


def always(view: object) -> Handler:
    async def handler(_request: web.BaseRequest) -> web.Response:
        return problems.response(view, admin=True) if isinstance(view, WaguardError) else answer(view)

    return handler


class Port:
    """A control port in a thread of its own: the commands have their own loop."""

    def __init__(self) -> None:
        self.url = ""
        self.handlers: dict[str, Handler] = {}
        """By ``METHOD /path``."""
        self.requests: list[web.BaseRequest] = []
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        server = web.Server(self._handle, handler_cancellation=True)  # what nobody waits for ends
        runner = web.ServerRunner(server, access_log=None, shutdown_timeout=0.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._up.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        handler = self.handlers.get(f"{request.method} {request.path}")
        if handler is None:
            return problems.response(SessionNotFound("There is no session.", hint="Start one."), admin=True)
        return await handler(request)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    # --- what it may be told ------------------------------------------------------------------------

    def bring_up(
        self,
        views: Sequence[SessionView],
        outcome: object = None,
        *,
        verb: str = "connect",
        ends: bool = True,
        before: SessionView | None = None,
    ) -> None:
        """``before`` is what the first look shows. Then each shows the next view, the last one stays; when it was shown, the
        verb is answered, if it is.
        """
        left = list(views)
        now = views[0]
        shown, asked = asyncio.Event(), asyncio.Event()

        async def look(_request: web.BaseRequest) -> web.Response:
            nonlocal now
            if not asked.is_set():
                return (
                    problems.response(SessionNotFound("None."), admin=True)
                    if before is None
                    else answer(before)
                )
            if left:
                now = left.pop(0)
            if not left:
                shown.set()
            return answer(now)

        async def work(request: web.BaseRequest) -> web.StreamResponse:
            asked.set()
            await (shown if ends else self._stop).wait()
            return await always(outcome or views[-1])(request)

        self.handlers["GET /v1/sessions/demo"] = look
        self.handlers[f"POST /v1/sessions/demo/{verb}"] = work


def call(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="waguard", catch_exceptions=False, **options)


def store_tokens(directory: Path = Path("sessions")) -> None:
    directory.mkdir()
    (directory / configured.FILE).write_text(json.dumps({"admin": ADMIN, "clients": {"demo": TOKEN}}))
