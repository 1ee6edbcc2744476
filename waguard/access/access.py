"""Who is let in: whoever shows a token of the configuration, one that was made at run time, one of the CRM's, or a ticket."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from waguard.access.configured import ConfiguredTokens
from waguard.access.made import MadeTokens
from waguard.access.peers import Peers, peer_of
from waguard.access.refusals import Refusals
from waguard.access.tickets import Ticket, Tickets
from waguard.core.access import Caller, Token
from waguard.core.model import Alert, ClientCode
from waguard.errors import WaguardError
from waguard.system.threads import Kind, in_thread

if TYPE_CHECKING:
    from waguard.access.jwts import Jwts

_LOOK_S = 10.0
"""How often it is looked what has expired, and whether there are other keys for the CRM's tokens."""
_WRITE_EVERY = 60
"""Looks from one writing of when tokens were last used to the next: after a crash that may be so much older."""


class Access:
    def __init__(
        self,
        configured: ConfiguredTokens,
        made: MadeTokens,
        jwts: "Jwts | None",
        peers: Peers,
        publish: Callable[..., Any],
        alert: Callable[[Alert, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.made = made
        self._configured = configured
        self._jwts = jwts
        self._peers = peers
        self._publish = publish
        self._clock = clock
        self._tickets = Tickets()
        self.refusals = Refusals(alert)
        self._staying: dict[object, tuple[Caller, ClientCode | None, Callable[[str], None]]] = {}
        self._keys_unread = ""

    async def watch(self) -> None:
        """Send away whose token has ended, and begin and end the alerts. No file is touched, so that none can hold it up."""
        while True:
            self._look()
            self.made.look()
            self.refusals.look()
            await asyncio.sleep(_LOOK_S)

    async def keep(self) -> None:
        """What is in files."""
        for turn in count(1):
            await self._refresh()
            await asyncio.sleep(_LOOK_S)
            if self.made.owes or turn % _WRITE_EVERY == 0:
                await self.made.write()

    def admit(self, token: str) -> Caller:
        """Whose token it is. Raises `Unauthorized`, `TokenExpired`, `TokenRevoked`."""
        if (caller := self._configured.caller(token)) is not None:
            return caller
        if self._jwts is not None and token.count(".") == 2:
            return self._jwts.admit(token)
        return self.made.admit(token)

    def admit_peer(self, connection: socket.socket | None) -> Caller | None:
        """Who needs no token, being who it is; None for everybody else."""
        peer = peer_of(connection) if connection is not None else None
        return self._peers.admit(peer) if peer is not None else None

    async def revoke(self, which: str) -> Token:
        """Take a token back; who stays by it is sent away at once. Raises like `MadeTokens.mark_revoked` and `write_revoked`."""
        token = self.made.mark_revoked(which)
        self._look()
        await self.made.write_revoked()
        return token

    async def rotate(self, which: str, overlap_s: float) -> tuple[Token, str]:
        """Like `MadeTokens.rotate`; who stays by a secret that is not taken any more is sent away at once."""
        try:
            return await self.made.rotate(which, overlap_s)
        finally:
            self._look()

    @contextmanager
    def while_admitted(
        self, caller: Caller, ended: Callable[[str], None], code: ClientCode | None = None
    ) -> Iterator[None]:
        """Around what outlasts a request: ``ended`` is called, with why, when the caller's token is not taken any more, or is not for ``code``."""
        stay = object()
        self._staying[stay] = (caller, code, ended)
        try:
            yield
        finally:
            self._staying.pop(stay, None)

    def ticket(self, caller: Caller, code: ClientCode | None, until_s: float | None = None) -> str:
        """For one attachment to this client's session, or to read the feed of events once. ``until_s``: of the ticket in whose place it is."""
        return self._tickets.issue(caller, code, until_s)

    def redeem(self, ticket: str, code: ClientCode | None) -> Ticket | None:
        """What it was, if it is one for this client, or for the feed, in time, and whose token is taken still; it is void from then on."""
        found = self._tickets.redeem(ticket, code)
        return found if found is not None and not self._ended(found.caller) else None

    def _ended(self, caller: Caller) -> str:
        """Why its token is not taken any more; empty if it is."""
        if caller.until is not None and caller.until <= self._clock():
            return "This token has expired."
        return self.made.ended(caller)

    def _look(self) -> None:
        for stay, (caller, code, ended) in list(self._staying.items()):
            lost = code is not None and not caller.may_see(code)
            if why := self._ended(caller) or (f"This token is not for {code} any more." if lost else ""):
                del self._staying[stay]
                ended(why)

    async def _refresh(self) -> None:
        if self._jwts is None:
            return
        try:
            await in_thread(self._jwts.refresh, kind=Kind.FILES)
        except WaguardError as error:
            if error.message != self._keys_unread:
                self._publish("jwt.keys_unread", error=error.message, hint=error.hint)
            self._keys_unread = error.message
        else:
            self._keys_unread = ""
