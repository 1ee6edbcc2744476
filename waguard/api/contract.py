"""The contract, served: what the control port is, as an OpenAPI document."""

from typing import Any

from waguard.api.asked import Asked
from waguard.api.context import DOCUMENT
from waguard.api.schemas import Options


async def document(asked: Asked, _options: Options) -> dict[str, Any]:
    """The OpenAPI document of this control port: every route, what it takes, what it answers, and what can be wrong."""
    return dict(asked.request.app[DOCUMENT]())
