"""A list page by page: which sessions are asked for, and where the next page begins. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from waguard.core.model import Status
from waguard.core.shown import SessionView


@dataclass(frozen=True, slots=True)
class Page:
    sessions: Sequence[SessionView]
    next: str | None
    """The cursor of the page behind it; None: there is none."""


def page(
    sessions: Iterable[SessionView],
    statuses: Sequence[Status],
    text: str,
    limit: int | None,
    after: str,
    labels: Sequence[str] = (),
) -> Page:
    """Those of one of these statuses, with one of these labels, with this text in their code, number or name, in the order of their codes. ``after``: a cursor."""
    wanted = (one for one in sessions if _is_wanted(one, statuses, text, labels))
    found = sorted(wanted, key=lambda one: one.client)
    rest = [one for one in found if one.client > after]
    if limit is None or len(rest) <= limit:
        return Page(rest, None)
    return Page(rest[:limit], rest[limit - 1].client)


def _is_wanted(one: SessionView, statuses: Sequence[Status], text: str, labels: Sequence[str]) -> bool:
    if statuses and one.status not in statuses:
        return False
    if labels and not set(labels) & set(one.labels):
        return False
    said = (one.client, one.wid or "", one.push_name or "")
    return any(text.casefold() in word.casefold() for word in said)
