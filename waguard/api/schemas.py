"""What requests may carry, from the models that validate it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from aiohttp import web
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from waguard.api.context import ARRIVES_S
from waguard.api.discreet import without_paths
from waguard.api.words import in_http
from waguard.config.clients import ClientSettings
from waguard.core.access import EVERY_CLIENT
from waguard.core.labels import LABEL, MOST_LABELS
from waguard.core.model import Status, Wait, client_code
from waguard.core.plain_text import plain_json
from waguard.errors import InvalidClientCode, InvalidRequest, RequestTimeout


class Options(BaseModel):
    """Of a route that takes none."""

    model_config = ConfigDict(extra="forbid")
    in_body: ClassVar[bool] = True
    """Whether they may stand in the body, as a JSON object; else it is something else, and left to the handler."""
    not_in_query: ClassVar[frozenset[str]] = frozenset()
    """Those that stand in the body alone: addresses are logged by whoever is in between."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Raises `InvalidRequest` that says which option is wrong."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
            name = ".".join(str(part) for part in problem["loc"])
            known = ", ".join(cls.model_fields) or "none"
            what = "is unknown" if problem["type"] == "extra_forbidden" else problem["msg"]
            raise InvalidRequest(f"{name[:80]}: {what}.", hint=f"Options of this route: {known}.") from None


class QueryOptions(Options):
    """Of a route that takes none, and whose body nobody waits for."""

    in_body = False


class AnyOptions(Options):
    """Of a route whose callers send what they like: nothing of it is looked at."""

    model_config = ConfigDict(extra="ignore")
    in_body = False


def _words(given: object) -> object:
    """A list, which a query has with commas between."""
    return [one.strip() for one in given.split(",") if one.strip()] if isinstance(given, str) else given


Label = Annotated[str, Field(pattern=f"^{LABEL}$")]


class ListOptions(Options):
    status: Annotated[list[Status], BeforeValidator(_words), Field(max_length=20)] = []
    label: Annotated[list[Label], BeforeValidator(_words), Field(max_length=MOST_LABELS)] = []
    text: Annotated[str, Field(max_length=200)] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Null: all of them."""
    cursor: Annotated[str, Field(max_length=64)] = ""


class WaitOptions(Options):
    wait: Wait = Wait.QR
    timeout_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = None


class ConnectOptions(WaitOptions):
    fresh: bool = False


class RestoreOptions(WaitOptions):
    dry_run: bool = False


class ImportOptions(RestoreOptions):
    in_body = False

    login: Annotated[str, Field(max_length=1024)] = ""
    """Which one is meant, where there are several."""


class PairingOptions(Options):
    phone: Annotated[str, Field(pattern=r"^\+?[0-9]{7,15}$")]
    """With its country code."""


def _code(given: str) -> None:
    try:
        client_code(given)
    except InvalidClientCode as error:
        raise ValueError(str(error)) from None


ScopeName = Literal["read", "connect", "cleanup", "backup", "drive", "admin"]
"""Those that a token can have."""


class TokenOptions(Options):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    scopes: Annotated[list[ScopeName], BeforeValidator(_words), Field(min_length=1)]
    labels: Annotated[list[Label], BeforeValidator(_words), Field(max_length=MOST_LABELS)] = []
    """Whoever has one of these when it is asked for."""
    clients: Annotated[list[str], BeforeValidator(_words), Field(max_length=1000, validate_default=True)] = []
    """Client codes, or `*` alone: all, also those to come."""
    expires_in_s: Annotated[float, Field(ge=60, le=10 * 366 * 86_400)] | Literal["never"] = 90 * 86_400.0

    @field_validator("clients")
    @classmethod
    def _codes(cls, clients: list[str], known: ValidationInfo) -> list[str]:
        labels = known.data.get("labels")
        if not clients and not labels:
            raise ValueError(f"name some, or labels, or {EVERY_CLIENT}")
        if EVERY_CLIENT in clients and (len(clients) > 1 or labels):
            raise ValueError(f"{EVERY_CLIENT} stands alone")
        for one in clients:
            if one != EVERY_CLIENT:
                _code(one)
        return clients

    @property
    def lasts_s(self) -> float | None:
        return None if isinstance(self.expires_in_s, str) else self.expires_in_s


class RotateOptions(Options):
    overlap_s: Annotated[float, Field(ge=0, le=30 * 86_400)] = 3600.0


Clients = Annotated[list[str], BeforeValidator(_words), Field(max_length=1000)]
Kinds = Annotated[list[str], BeforeValidator(_words), Field(max_length=100)]
"""Names of events, or their first parts: `session.changed,alert`."""


class _OfClients(Options):
    @field_validator("clients", check_fields=False)
    @classmethod
    def _codes(cls, clients: list[str] | None) -> list[str] | None:
        for one in clients or ():
            _code(one)
        return clients


Url = Annotated[str, Field(min_length=1, max_length=2000)]


class WebhookOptions(_OfClients):
    url: Url
    clients: Clients = []
    """Empty: all, also those to come, and what is about none."""
    kinds: Kinds = []
    """Empty: all."""


class WebhookChanges(_OfClients):
    """Null: as it is."""

    url: Url | None = None
    clients: Clients | None = None
    kinds: Kinds | None = None
    enabled: bool | None = None


class SecretOptions(Options):
    overlap_s: Annotated[float, Field(ge=0, le=30 * 86_400)] = 86_400.0


class RedriveOptions(Options):
    messages: Annotated[list[str], BeforeValidator(_words), Field(max_length=1000)] = []
    """Ids of dead letters; empty: all of them."""


class ReapOptions(Options):
    dry_run: bool = False


class PageOptions(Options):
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: Annotated[int, Field(ge=0, le=2**62)] | None = None
    """The id that the last page ended with."""


class MessageOptions(PageOptions):
    state: Literal["waiting", "dead"] = "dead"


class StatsOptions(Options):
    client: str | None = None
    hours: Annotated[float, Field(gt=0, le=24 * 3650, allow_inf_nan=False)] = 168.0


class ExportOptions(Options):
    form: Literal["sealed", "plain"] = "sealed"


class UploadOptions(Options):
    in_body = False

    name: Annotated[str, Field(min_length=1, max_length=1024)]


class EventOptions(Options):
    in_body = False

    client: Clients = []
    label: Annotated[list[Label], BeforeValidator(_words), Field(max_length=MOST_LABELS)] = []
    kind: Kinds = []
    after: Annotated[str, Field(max_length=64)] = ""
    ticket: Annotated[str, Field(max_length=256)] = ""

    @field_validator("client")
    @classmethod
    def _codes(cls, clients: list[str]) -> list[str]:
        for one in clients:
            _code(one)
        return clients


class ValueOptions(Options):
    in_body = False

    ttl_s: Annotated[float, Field(ge=1, le=10 * 366 * 86_400)] | None = None
    """After so many seconds it is gone by itself."""


class SettingsOptions(ClientSettings, Options):
    not_in_query = frozenset(ClientSettings.model_fields)

    restart: Annotated[bool, Field(strict=False)] = False
    """Start its browser anew, if it runs with others."""

    @property
    def settings(self) -> ClientSettings:
        return ClientSettings.model_construct(**self.given())  # they are validated


class AttachOptions(Options):
    in_body = False

    takeover: bool = False
    """The page is taken from the client that owns it."""
    follow: bool = False
    """The connection stays when the browser ends, and goes on with the session's next one."""
    ticket: Annotated[str, Field(max_length=256)] = ""


O = TypeVar("O", bound=Options)  # noqa: E741 (one letter is the custom for type variables)
PIECE = 256 * 1024
"""Bytes of a long body, or of a long answer, that are moved at a time."""
_JSON_OBJECT = TypeAdapter(dict[str, Any])
_ANY = TypeAdapter(Any)


@asynccontextmanager
async def arriving(request: web.Request) -> AsyncIterator[None]:
    """Around what waits for the caller to send or to take something. Raises `InvalidRequest`, `RequestTimeout`."""
    seconds = request.app[ARRIVES_S]
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RequestTimeout(f"The body did not arrive: for {seconds:g} s there was nothing new.") from None
    except (web.RequestPayloadError, ConnectionError):
        raise InvalidRequest("The body did not arrive whole, or not as its headers say.") from None


def pieces_of(request: web.Request) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
    """A body that is long, as it comes; each piece may raise `InvalidRequest`, `RequestTimeout`."""
    return aclosing(_pieces(request))


async def _pieces(request: web.Request) -> AsyncGenerator[bytes, None]:
    while True:
        async with arriving(request):
            piece = await request.content.read(PIECE)
        if not piece:
            return
        yield piece


async def read(request: web.Request, model: type[O]) -> O:
    """The options of a request: its query, or a JSON object as its body. Raises `InvalidRequest`."""
    given: dict[str, Any] = dict(request.query)
    if len(given) < len(request.query) and model.model_config.get("extra") == "forbid":
        name = next(one for one in given if len(request.query.getall(one)) > 1)
        raise InvalidRequest(
            f"{name[:80]}: is given more than once.", hint="Send it once; a list has commas between."
        )
    if wrong := next((name for name in given if name in model.not_in_query), None):
        raise InvalidRequest(f"{wrong}: belongs into the body, as JSON.")
    if not model.in_body:
        return model.of(given)
    async with arriving(request):
        body = await request.read()
    if body.strip():
        try:
            given |= _JSON_OBJECT.validate_json(body)
        except ValidationError:
            raise InvalidRequest(
                "The body is not a JSON object.", hint='Send none, or for example {"wait": "qr"}.'
            ) from None
    return model.of(given)


def respond(view: object, media: str, *, paths: bool) -> web.Response:
    """A view as JSON, with or without paths of the daemon's; what its hints say to do, as requests."""
    told = view if paths else without_paths(view)
    body = plain_json(in_http(_ANY.dump_json(told).decode())).encode()
    return web.Response(body=body, headers={"Content-Type": media})
