"""The tokens that there are from the start: the admin's, and one for each client that the configuration names."""

import hmac
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from waguard.config.sections import Config, token_problem
from waguard.core.access import ADMIN, Caller, digest, of_client
from waguard.core.model import ClientCode, client_code
from waguard.errors import ConfigError, InvalidClientCode
from waguard.system.files import as_storage_error, close_to_others, credential, read_secret, write_atomically

FILE = ".tokens.json"
"""Below ``sessions.dir``, mode 0600: ``{"admin": "...", "clients": {"demo": "..."}}``."""
CREDENTIAL = "waguard.tokens"
"""The systemd credential that is read instead if there is one, systemd.exec(5); nothing is added to it."""


@dataclass(frozen=True, slots=True)
class StoredTokens:
    admin: str
    clients: dict[str, str]


_STORED = TypeAdapter(StoredTokens)


class ConfiguredTokens:
    """Digests of the tokens; the tokens themselves are not kept in memory."""

    def __init__(self, tokens: Mapping[str, ClientCode | None]) -> None:
        """Each with whose it is; None: the admin's."""
        self._callers = [
            (digest(token), ADMIN if code is None else of_client(code)) for token, code in tokens.items()
        ]

    def caller(self, token: str) -> Caller | None:
        """Whose token it is. Takes the same time whichever it is, and if it is none; an empty one is nobody's."""
        if not token:
            return None
        shown = digest(token)
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, shown):
                found = caller
        return found


def load(
    config: Config,
    *,
    make: bool = True,
    closed: Callable[[str], None] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> ConfiguredTokens:
    """Read the tokens, making the file and what is missing in it, or else doing as if. Blocking: call from a thread.

    ``closed`` is told of a file that was open to others, and is not any more.

    Raises `ConfigError` for a file that cannot be understood or that others may read, `StorageFailed`, `DiskFull`.
    """
    given = credential(CREDENTIAL, environ)
    path = given or config.sessions.dir / FILE
    # systemd gives credentials to the service's user with 0400 or, by an ACL, what looks like 0440.
    stored = _read(path, 0o077 if given is None else 0o037, closed) or StoredTokens(
        secrets.token_urlsafe(32), {}
    )
    missing = [code for code in config.api.clients if code not in stored.clients]
    complete = StoredTokens(
        stored.admin, {**stored.clients, **{code: secrets.token_urlsafe(32) for code in missing}}
    )
    if given is not None and missing:
        raise ConfigError(
            f"The credential {CREDENTIAL} has no token of {', '.join(missing)}, named in api.clients."
        )
    if make and (missing or not path.exists()):
        write_atomically(path, _STORED.dump_json(complete, indent=2) + b"\n", mode=0o600)
    here = {code: token.get_secret_value() for code, token in config.api.client_tokens.items()}
    clients = complete.clients | here
    named = config.api.admin_token
    admin = named.get_secret_value() if named is not None else complete.admin
    tokens: dict[str, ClientCode | None] = {token: client_code(code) for code, token in clients.items()}
    if len(tokens) < len(clients) or admin in tokens:
        raise ConfigError(
            f"A token of the configuration stands in {path} too, for somebody else: all must differ."
        )
    return ConfiguredTokens(tokens | {admin: None})


def _read(path: Path, others: int, closed: Callable[[str], None] | None) -> StoredTokens | None:
    with as_storage_error(f"read {path}"):
        try:
            data, status = read_secret(path)
        except FileNotFoundError:
            return None
    close_to_others(path, status, others, closed)
    return parse(data, path)


def parse(data: bytes, path: Path) -> StoredTokens:
    """What a file of tokens holds. Raises `ConfigError`."""
    hint = "Fix it, or remove it: new tokens are made then."
    try:
        stored = _STORED.validate_python(json.loads(data))
        for code in stored.clients:
            client_code(code)
    except InvalidClientCode as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None
    except (ValueError, ValidationError, RecursionError):
        raise ConfigError(
            f'{path}: not of the form {{"admin": "...", "clients": {{"demo": "..."}}}}.', hint=hint
        ) from None
    tokens = {"admin": stored.admin} | {f"clients.{code}": one for code, one in stored.clients.items()}
    for name, token in tokens.items():
        if why := token_problem(token):
            raise ConfigError(f"{path}: {name} {why}.", hint=hint)
    if len(set(tokens.values())) != len(tokens):  # of two equal ones a client's could be the admin's
        raise ConfigError(f"{path}: the tokens must all differ.", hint=hint)
    return stored
