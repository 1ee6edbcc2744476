"""The feed of events: which of the catalogue's are told outside, where a reader is in it, and what it wants of it. Pure."""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from waguard.core.access import Caller, LabelsOf, no_labels
from waguard.core.model import ClientCode
from waguard.errors import InvalidRequest

TOLD: Mapping[str, frozenset[str]] = {
    name: frozenset(fields.split())
    for name, fields in {
        "daemon.ready": "version",
        "daemon.stopping": "browsers",
        "session.changed": "status wanted process link reason was duration_ms",
        "session.failure": "code error stage",
        "session.queued": "before expected_s",
        "session.adopted": "attempt",
        "session.not_adopted": "error",
        "session.recycled": "why",
        "session.qr_shown": "attempt",
        "session.qr_reloaded": "",
        "session.pairing_code": "",
        "session.account": "wid",
        "attempt.done": "attempt why outcome link code stage duration_ms stages profile",
        "connect.refused": "code",
        "stage.late": "attempt stage deadline_s at_work",
        "page.popups_closed": "pages",
        "relay.attached": "",
        "relay.detached": "lasted_ms reason",
        "relay.page_taken": "",
        "relay.page_left": "",
        "relay.page_waits": "why",
        "upload.stored": "file bytes",
        "upload.deleted": "file why",
        "download.done": "file bytes",
        "download.refused": "why",
        "download.deleted": "file why",
        "health.finding": "attempt fault evidence lasted_ms remedies why",
        "health.remedy": "attempt fault remedy outcome duration_ms",
        "health.recovered": "fault remedy duration_ms remedies",
        "alert.raised": "alert text",
        "alert.changed": "alert text",
        "alert.cleared": "alert",
        "profile.damaged": "evidence",
        "profile.restored": "snapshot",
        "profile.deleted": "why",
        "profile.returned": "",
        "values.unreadable": "",
        "login.lost": "why",
        "login.doubted": "why",
        "login.elsewhere": "why",
        "snapshot.taken": "snapshot reason bytes live",
        "snapshot.failed": "reason code error",
        "snapshot.login_refused": "snapshot",
        "cleanup.step": "step outcome duration_ms detail",
        "settings.changed": "keys",
        "token.created": "token token_name scopes clients labels expires_at",
        "token.rotated": "token token_name expires_at",
        "token.revoked": "token token_name",
        "webhook.created": "webhook host",
        "webhook.changed": "webhook host enabled",
        "webhook.rotated": "webhook host overlap_s",
        "webhook.deleted": "webhook host",
        "webhook.disabled": "webhook host why",
        "schedule.failed": "job error",
    }.items()
}
"""These events are kept and told outside, and of each these fields: whatever else one may carry some day gets there by no mistake."""
STAGED: Mapping[str, frozenset[str]] = {
    **TOLD,
    "stage.done": frozenset({"attempt", "stage", "duration_ms"}),
    "stage.slow": frozenset({"attempt", "stage", "expected_s"}),
    "sweep.finding": frozenset({"kind", "action", "outcome", "detail"}),
}
"""What a verb that tells how it gets on tells of its client."""
KINDS = frozenset(name.partition(".")[0] for name in TOLD)
"""In the place of a name: all events of which it is the first part."""
READY, MISSED, ENDED = "feed.ready", "feed.missed", "feed.ended"
"""What is told of the feed itself: where it begins, that there was more, that it ends."""

_PLACE = re.compile(r"([0-9a-f]{1,8})-(0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Place:
    """Behind which event a reader is: the id of an event, as it is told."""

    history: int
    """Which history has counted it: another file counts anew."""
    number: int

    def __str__(self) -> str:
        return f"{self.history:x}-{self.number}"

    @classmethod
    def of(cls, text: str) -> "Place":
        """Raises `InvalidRequest`."""
        if (found := _PLACE.fullmatch(text)) is None:
            raise InvalidRequest(
                f"{text[:80]!r} is not the id of an event.",
                hint="Send an id that the feed has told, for example 5f3a90c1-1284, or none: then it begins now.",
            )
        return cls(int(found[1], 16), int(found[2]))


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it is told outside."""

    number: int
    """Counts up from 1 in each daemon; those of earlier ones are 0 and below."""
    at: float
    """Unix time, seconds."""
    client: str
    """Empty: it is about no client."""
    name: str
    fields: Mapping[str, Any] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reader wants, of what it may see."""

    caller: Caller
    clients: frozenset[ClientCode] = frozenset()
    """Empty: all that it may see, and what is about none."""
    kinds: frozenset[str] = frozenset()
    """Names of events, or their first parts; empty: all."""
    labels: frozenset[str] = frozenset()
    """Only of clients that have one of these, at each moment; empty: whichever they have."""
    labels_of: LabelsOf = field(default=no_labels, compare=False)

    @classmethod
    def of(
        cls,
        caller: Caller,
        clients: Collection[ClientCode],
        kinds: Collection[str],
        labels: Collection[str] = (),
        labels_of: LabelsOf = no_labels,
    ) -> "Wish":
        """Raises `InvalidRequest` for what is no event, `Forbidden` for a client that is none of the caller's business."""
        for code in clients:
            caller.check_client(code)
        for one in kinds:
            if one not in TOLD and one not in KINDS:
                close = difflib.get_close_matches(one, [*TOLD, *sorted(KINDS)], 2)
                meant = f"Did you mean {' or '.join(close)}? " if close else ""
                raise InvalidRequest(
                    f"There is no event {one[:80]!r}.",
                    hint=f"{meant}Name events, for example session.changed, or their first part: {', '.join(sorted(KINDS))}.",
                )
        return cls(caller, frozenset(clients), frozenset(kinds), frozenset(labels), labels_of)

    def wants(self, client: str, name: str) -> bool:
        if self.kinds and name not in self.kinds and name.partition(".")[0] not in self.kinds:
            return False
        if name.startswith(("token.", "webhook.")) and not self.caller.is_admin:
            return False
        if client:
            labelled = not self.labels or not self.labels.isdisjoint(self.labels_of(client))
            chosen = labelled and (not self.clients or client in self.clients)
            return chosen and self.caller.may_see(ClientCode(client))
        return self.caller.clients is None and not self.clients and not self.labels
