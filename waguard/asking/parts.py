"""What requests are made of, each way once."""

import json
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import IO, TypeVar
from urllib.parse import quote

from waguard.asking.ask import JSON, Answer, Ask, Told, parsed
from waguard.core.model import ClientCode, Wait
from waguard.core.shown import SessionView, SnapshotTried, SnapshotView
from waguard.errors import InvalidRequest

T = TypeVar("T")
OCTETS = "application/octet-stream"

DRY_RUN = {"dry_run": "true"}


JSON_BODY, OCTET_BODY = {"Content-Type": JSON}, {"Content-Type": OCTETS}


def view(kind: type[T]) -> Callable[[Answer], T]:
    return lambda answer: parsed(kind, answer)


def snapshot_tried(answer: Answer) -> SnapshotView:
    return parsed(SnapshotTried, answer).snapshot


def body(answer: Answer) -> bytes:
    return answer.body


def nothing(_: Answer) -> None:
    return None


def each(some: Collection[str]) -> list[str]:
    """Raises `InvalidRequest` for a text, which would be taken letter by letter."""
    if isinstance(some, str):
        raise InvalidRequest(f"{some[:80]!r} is a text where a list belongs.", hint="Give a list of texts.")
    return [*some]


def as_json(told: object) -> bytes:
    return json.dumps(told).encode()


def of(code: ClientCode, *parts: str) -> str:
    return "/".join(["/v1/sessions", code, *map(quoted, parts)])


def quoted(part: str) -> str:
    return quote(part, safe="")


def page(limit: int, before: int | None) -> Mapping[str, str]:
    return {"limit": str(limit)} | ({} if before is None else {"before": str(before)})


def only_if(match: str) -> Mapping[str, str]:
    return {"If-Match": match} if match else {}


def act(
    path: str,
    kind: type[T],
    if_match: str = "",
    told: Told = None,
    body: object = None,
    *,
    once: bool = False,
) -> Ask[T]:
    """What the daemon may take its time for."""
    headers = {**only_if(if_match), **(JSON_BODY if body is not None else {})}
    sent = None if body is None else as_json(body)
    return Ask("POST", path, view(kind), headers=headers, body=sent, slow=True, told=told, once=once)


def up(
    path: str,
    wait: Wait,
    timeout_s: float | None,
    if_match: str,
    told: Told,
    query: Mapping[str, str] = MappingProxyType({}),
    archive: IO[bytes] | None = None,
    *,
    once: bool = False,
) -> Ask[SessionView]:
    query = {**query, "wait": wait.value}
    if timeout_s is not None:
        query["timeout_s"] = f"{timeout_s:g}"
    headers = {**only_if(if_match), **(OCTET_BODY if archive is not None else {})}
    return Ask(
        "POST",
        path,
        view(SessionView),
        query,
        headers,
        archive,
        slow=True,
        timeout_s=timeout_s or 0.0,
        told=told,
        once=once,
    )
