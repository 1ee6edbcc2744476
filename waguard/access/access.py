"""Who is let in: whoever shows a token of the configuration, one that was made at run time, or a ticket."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from waguard.access.configured import ConfiguredTokens
from waguard.access.made import MadeTokens
from waguard.access.tickets import Ticket, Tickets
from waguard.core.access import Caller
from waguard.core.model import ClientCode


class Access:
    def __init__(self, configured: ConfiguredTokens, made: MadeTokens) -> None:
        self.made = made
        self._configured = configured
        self._tickets = Tickets()

    def admit(self, token: str) -> Caller:
        """Whose token it is. Raises `Unauthorized`, `TokenExpired`, `TokenRevoked`."""
        return self._configured.caller(token) or self.made.admit(token)

    def while_admitted(self, caller: Caller, ended: Callable[[str], None]) -> AbstractContextManager[None]:
        """Around what outlasts a request: ``ended`` is called, with why, when the caller's token is not taken any more."""
        return self.made.watched(caller.token, ended)

    def ticket(self, caller: Caller, code: ClientCode, until_s: float | None = None) -> str:
        """For one attachment to this client's session. ``until_s``: of the ticket in whose place it is."""
        return self._tickets.issue(caller, code, until_s)

    def redeem(self, ticket: str, code: ClientCode | None) -> Ticket | None:
        """What it was, if it is one for this client, in time, and whose token is taken still; it is void from then on."""
        found = self._tickets.redeem(ticket, code)
        return found if found is not None and not self.made.ended(found.caller.token) else None
