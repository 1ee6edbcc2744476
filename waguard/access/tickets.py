"""Tickets: each lets its bearer attach to one client's session, or read the feed of events, once, soon. For those that can send no header."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from waguard.core.access import Caller, digest
from waguard.core.model import ClientCode

LASTS_S = 60.0
_MOST = 50
"""Of one client, or of one token for the feed, not used yet; with more the oldest is void."""


@dataclass(frozen=True, slots=True)
class Ticket:
    caller: Caller
    code: ClientCode | None
    """None: for the feed of events."""
    until_s: float


class Tickets:
    """Their digests; the tickets themselves are not kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tickets: dict[str, Ticket] = {}

    def issue(self, caller: Caller, code: ClientCode | None, until_s: float | None = None) -> str:
        """``until_s``: of the ticket in whose place it is."""
        now = self._clock()
        self._tickets = {one: its for one, its in self._tickets.items() if its.until_s > now}
        of_the_same = [
            one for one, its in self._tickets.items() if its.code == code and (code or its.caller == caller)
        ]
        if len(of_the_same) >= _MOST:
            del self._tickets[of_the_same[0]]
        ticket = secrets.token_urlsafe(32)
        self._tickets[digest(ticket)] = Ticket(caller, code, now + LASTS_S if until_s is None else until_s)
        return ticket

    def redeem(self, ticket: str, code: ClientCode | None) -> Ticket | None:
        """What it was, if it is one for this client, and in time; it is void from then on."""
        # By its digest: how long the look takes tells nothing of the ticket.
        found = self._tickets.pop(digest(ticket), None)
        if found is None or found.code != code or found.until_s <= self._clock():
            return None
        return found
