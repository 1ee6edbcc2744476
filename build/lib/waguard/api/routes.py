"""Routes that cannot forget to read what a request carries."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

from aiohttp import web

from waguard.api.keys import DRY_RUN
from waguard.api.schemas import Options, read

O = TypeVar("O", bound=Options)  # noqa: E741 (one letter is the custom for type variables)
Handler = Callable[[web.Request, O], Awaitable[web.StreamResponse]]


class Routes(list[web.RouteDef]):
    """Each handler gets the options of its request, of the model that its route names: whatever else is sent is refused."""

    def get(self, path: str, model: type[O], **more: Any) -> Callable[[Handler[O]], Handler[O]]:
        return self._route(web.get, path, model, more)

    def post(self, path: str, model: type[O], **more: Any) -> Callable[[Handler[O]], Handler[O]]:
        return self._route(web.post, path, model, more)

    def _route(
        self, kind: Callable[..., web.RouteDef], path: str, model: type[O], more: dict[str, Any]
    ) -> Callable[[Handler[O]], Handler[O]]:
        def add(handler: Handler[O]) -> Handler[O]:
            @wraps(handler)
            async def reading(request: web.Request) -> web.StreamResponse:
                options = await read(request, model)
                request[DRY_RUN] = getattr(options, "dry_run", False)
                return await handler(request, options)

            self.append(kind(path, reading, **more))
            return handler

        return add
