"""Tokens that are made, rotated and revoked while the daemon runs, and the file that keeps them. The secrets themselves are kept nowhere."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from waguard.core.access import (
    EVERY_CLIENT,
    OF_TOKENS,
    Caller,
    LabelsOf,
    Scope,
    Secret,
    Token,
    TokenState,
    digest,
    expiring,
    no_labels,
)
from waguard.core.actor import who_acts
from waguard.core.model import Alert
from waguard.errors import (
    InvalidRequest,
    StorageFailed,
    TokenNameTaken,
    TokenNotFound,
    TooManyTokens,
    Unauthorized,
    WaguardError,
)
from waguard.system.files import as_storage_error, read_state, write_atomically
from waguard.system.tasks import undisturbed
from waguard.system.threads import Kind, in_thread

FILE = ".access.json"
"""Below ``sessions.dir``, mode 0600: what is known of each token, and the digest of its secret."""
PREFIX = "wgt_"
"""Of each token; its id follows, and after another ``_`` its secret. Scanners of repositories find secrets by such a prefix."""
MOST = 2000
_BYTES = 4 * 1024 * 1024
_KEPT_S = 30 * 86_400.0
"""How long a token is listed after its end."""


@dataclass(frozen=True, slots=True)
class _Stored:
    format: Literal[1]
    tokens: list[Token]


_STORED = TypeAdapter(_Stored)


class MadeTokens:
    """The owner of the file. What could not be read is not overwritten: then no token of it is taken, and none is made."""

    def __init__(
        self,
        directory: Path,
        publish: Callable[..., Any],
        alert: Callable[[Alert, str], None],
        clock: Callable[[], float] = time.time,
        labels_of: LabelsOf = no_labels,
    ) -> None:
        self._labels_of = labels_of
        self._path = directory / FILE
        self._publish = publish
        self._alert = alert
        self._clock = clock
        self._tokens: dict[str, Token] = {}
        self._changing = asyncio.Lock()
        self._written: Sequence[Token] | None = []
        self.unread: StorageFailed | None = None
        """Why the file could not be read."""

    async def start(self) -> None:
        try:
            stored = await in_thread(_read, self._path, kind=Kind.FILES)
        except StorageFailed as error:
            self.unread = error
            self._alert(Alert.TOKENS_UNREAD, f"{error.message} {error.hint}")
            return
        self._tokens = {one.id: one for one in stored}
        self._written = stored

    async def close(self) -> None:
        try:
            await self.write()
        except WaguardError as error:  # what is lost is when they were last used
            self._publish("task.failed", where="tokens", code=error.code, error=error.message)

    @property
    def owes(self) -> bool:
        """Whether more is to be written than when tokens were last used: a revocation, or what a write left in doubt."""
        revoked = [one for one in self._tokens.values() if one.revoked_at is not None]
        return self._written is None or any(one not in self._written for one in revoked)

    async def write(self) -> None:
        async with self._changing:
            self._tokens = {one.id: one for one in self._kept(self._tokens)}
            await self._write(self._tokens)

    # --- who is let in --------------------------------------------------------------------------------

    def admit(self, token: str) -> Caller:
        """Whose it is. Raises `Unauthorized`, `TokenExpired`, `TokenRevoked`."""
        token_id, _, secret = token.removeprefix(PREFIX).partition("_")
        found = self._tokens.get(token_id) if token.startswith(PREFIX) else None
        if found is None:
            raise Unauthorized("This token is unknown.")
        now = self._clock()
        caller = found.admit(secret, now, self._labels_of)
        self._tokens[token_id] = replace(found, used_at=now)
        return caller

    def ended(self, caller: Caller) -> str:
        """Why this caller's token is not taken any more; empty if it is, or is none of these."""
        if not caller.token:
            return ""
        found = self._tokens.get(caller.token)
        problem = (
            found.problem(caller.shown, self._clock()) if found is not None else Unauthorized("It is gone.")
        )
        return "" if problem is None else problem.message

    def look(self) -> None:
        """Tell an admin of what expires soon."""
        now = self._clock()
        self._alert(
            Alert.TOKENS_EXPIRE, expiring([one for one in self._tokens.values() if one.is_missed_soon(now)])
        )

    def listed(self) -> Sequence[Token]:
        """The newest first."""
        return sorted(self._tokens.values(), key=lambda one: -one.created_at)

    def state(self, token: Token) -> TokenState:
        return token.state(self._clock())

    # --- what becomes of them -------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        scopes: Collection[Scope],
        clients: Collection[str],
        lasts_s: float | None,
        labels: Collection[str] = (),
    ) -> tuple[Token, str]:
        """A new one, and what its bearer has to show, which is told here and nowhere else.

        Raises `InvalidRequest`, `TokenNameTaken`, `TooManyTokens`, and what `_change` does.
        """
        if Scope.ADMIN in scopes:
            if EVERY_CLIENT not in clients:
                raise InvalidRequest(
                    "scopes: admin is only for all clients.", hint=f'Ask with clients: "{EVERY_CLIENT}".'
                )
            scopes = OF_TOKENS
        return await undisturbed(self._create(name, scopes, clients, lasts_s, labels))

    async def _create(
        self,
        name: str,
        scopes: Collection[Scope],
        clients: Collection[str],
        lasts_s: float | None,
        labels: Collection[str],
    ) -> tuple[Token, str]:
        async with self._change() as tokens:
            now = self._clock()
            self._check_name(tokens, name)
            if len(tokens) >= MOST:
                raise TooManyTokens(
                    f"There are {MOST} tokens.", hint="Revoke some: waguard token list shows them."
                )
            secret = secrets.token_urlsafe(32)
            token_id = next(one for one in iter(lambda: secrets.token_hex(4), None) if one not in tokens)
            made = tokens[token_id] = Token(
                token_id,
                name,
                tuple(one for one in Scope if one in scopes),
                tuple(sorted(clients)),
                (Secret(digest(secret)),),
                created_at=now,
                created_by=str(who_acts() or ""),
                lasts_s=lasts_s,
                expires_at=None if lasts_s is None else now + lasts_s,
                labels=tuple(sorted(set(labels))),
            )
        self._publish(
            "token.created",
            token=made.id,
            token_name=made.name,
            scopes=list(made.scopes),
            clients=list(made.clients),
            labels=list(made.labels),
            expires_at=made.expires_at,
        )
        return made, f"{PREFIX}{token_id}_{secret}"

    async def rotate(self, which: str, overlap_s: float) -> tuple[Token, str]:
        """Another secret for it, and another term as long as its first; the secret until now is taken for ``overlap_s`` more.

        Raises `TokenNotFound`, `TokenNameTaken`, and what `_change` does.
        """
        return await undisturbed(self._rotate(which, overlap_s))

    async def _rotate(self, which: str, overlap_s: float) -> tuple[Token, str]:
        secret = secrets.token_urlsafe(32)
        async with self._change() as tokens:
            now, before = self._clock(), self._find(tokens, which)
            self._check_name(tokens, before.name, but=before.id)
            made = tokens[before.id] = before.rotated(digest(secret), overlap_s, now)
        self._publish(
            "token.rotated",
            token=made.id,
            token_name=made.name,
            expires_at=made.expires_at,
            overlap_s=overlap_s,
        )
        return made, f"{PREFIX}{made.id}_{secret}"

    def mark_revoked(self, which: str) -> Token:
        """It is taken no more from here on, and after a restart once `write_revoked` has written that. Raises `TokenNotFound`, `StorageFailed`."""
        self._readable()
        found = self._find(self._tokens, which, revoked_too=True)
        if found.revoked_at is not None:
            return found
        revoked = self._tokens[found.id] = replace(found, revoked_at=self._clock())
        self._publish("token.revoked", token=revoked.id, token_name=revoked.name)
        return revoked

    async def write_revoked(self) -> None:
        """Raises `StorageFailed`, `DiskFull`; it is tried again until it is written."""
        try:
            await undisturbed(self.write())
        except WaguardError as error:
            error.hint = (
                "It is revoked for as long as this daemon runs. It is written down as soon as that can be; until then do not restart it. "
                f"{error.hint}"
            )
            raise

    def _find(self, tokens: Mapping[str, Token], which: str, *, revoked_too: bool = False) -> Token:
        """By its id; or by its name the one that is taken, else the newest that has ended. Raises `TokenNotFound`."""
        now = self._clock()
        left = [one for one in tokens.values() if revoked_too or one.revoked_at is None]
        named = [one for one in left if one.name == which]
        named.sort(key=lambda one: (one.state(now) is TokenState.ACTIVE, one.created_at))
        for one in (*(one for one in left if one.id == which), *reversed(named)):
            return one
        raise TokenNotFound(
            f"There is no token {which[:80]!r}, or it was revoked.", hint="waguard token list shows them."
        )

    def _check_name(self, tokens: Mapping[str, Token], name: str, *, but: str = "") -> None:
        """Raises `TokenNameTaken`."""
        now = self._clock()
        if any(
            one.name == name and one.id != but and one.state(now) is TokenState.ACTIVE
            for one in tokens.values()
        ):
            raise TokenNameTaken(
                f"There is a token called {name!r} already.",
                hint=f"Take another name, or rotate that one: waguard token rotate {name}",
            )

    def _readable(self) -> None:
        if self.unread is not None:
            raise StorageFailed(self.unread.message, hint=self.unread.hint)

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[dict[str, Token]]:
        """The tokens as they are to be: so once that is written, and as before if it cannot be. Raises `StorageFailed`, `DiskFull`."""
        self._readable()
        async with self._changing:
            wanted = dict(self._tokens)
            yield wanted
            await self._write(wanted)
            for token_id, token in wanted.items():
                before = self._tokens.get(token_id)
                # Meanwhile others were used, and any may have been revoked.
                if before is None or (before.secrets != token.secrets and before.revoked_at is None):
                    self._tokens[token_id] = token

    async def _write(self, tokens: Mapping[str, Token]) -> None:
        """Raises `StorageFailed`, `DiskFull`."""
        kept = self._kept(tokens)
        if self.unread is None and kept != self._written:
            self._written = None  # as long as nobody knows
            await in_thread(_store, self._path, kept, kind=Kind.FILES)
            self._written = kept

    def _kept(self, tokens: Mapping[str, Token]) -> Sequence[Token]:
        """Without those that ended long ago."""
        since = self._clock() - _KEPT_S
        return [one for one in tokens.values() if (ended := _ended_at(one)) is None or ended > since]


def _ended_at(token: Token) -> float | None:
    return token.revoked_at if token.revoked_at is not None else token.expires_at


def _read(path: Path) -> Sequence[Token]:
    with as_storage_error(f"read {path}"):
        try:
            data = read_state(path, _BYTES)
        except FileNotFoundError:
            return []
    try:
        return _STORED.validate_json(data).tokens
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise StorageFailed(
            f"{path}: {where or 'it'}: {error.errors()[0]['msg']}.",
            hint="Mend it, or move it away, and restart the daemon: until then tokens that were made by waguard token create are refused.",
        ) from None


def _store(path: Path, tokens: Sequence[Token]) -> None:
    data = _STORED.dump_json(_Stored(1, list(tokens)), indent=1) + b"\n"
    if len(data) > _BYTES:  # it could not be read again
        raise TooManyTokens(
            f"{path} would be larger than {_BYTES >> 20} MiB.",
            hint="Use tokens for all clients instead of long lists.",
        )
    write_atomically(path, data, mode=0o600)
