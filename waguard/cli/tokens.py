"""Which token to show to the daemon. Tokens come from the environment or a file, never from the command line."""

import os
from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from waguard.api.auth import CREDENTIAL, FILE, StoredTokens
from waguard.api.problems import Problem
from waguard.cli.service import UNIT, Service, start
from waguard.config import Config
from waguard.core.model import ClientCode

ENV_TOKEN = "WAGUARD_TOKEN"  # noqa: S105 (the name of a variable, not a secret)
_STORED = TypeAdapter(StoredTokens)


def own_token(config: Config, service: Service | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """``WAGUARD_TOKEN``, else the admin's. Raises `Problem`."""
    token = given(environ)
    if not token:
        return admin_token(config, service)
    if not token.isprintable():
        raise Problem("unauthorized", f"{ENV_TOKEN} holds control characters: that is no token.")
    return token


def given(environ: Mapping[str, str] = os.environ) -> str:
    """``WAGUARD_TOKEN``; empty if there is none."""
    return environ.get(ENV_TOKEN, "").strip()


def admin_token(config: Config, service: Service | None = None) -> str:
    """Raises `Problem`."""
    if config.api.admin_token is not None:
        return config.api.admin_token.get_secret_value()
    return _stored(config, service).admin


def client_token(config: Config, code: ClientCode, service: Service | None = None) -> str:
    """Raises `Problem`."""
    if code in config.api.client_tokens:
        return config.api.client_tokens[code].get_secret_value()
    stored = _stored(config, service).clients
    if code not in stored:
        raise Problem(
            "no_token",
            f"{code} has no token of its own.",
            hint=f'Name it in api.clients (clients = ["{code}"]); the daemon makes the token at its next start.',
        )
    return stored[code]


def _stored(config: Config, service: Service | None) -> StoredTokens:
    """What the daemon has read at its start: of a service that is handed a credential, the file that this is taken from."""
    credential = service.credentials.get(CREDENTIAL) if service is not None else None
    where = credential or (config.sessions.dir / FILE).absolute()
    try:
        return _STORED.validate_json(where.read_bytes())
    except FileNotFoundError:
        if credential is not None:
            raise Problem(
                "no_token",
                f"There is no {where}, which LoadCredential={CREDENTIAL} of {UNIT} names.",
                hint=f'Make it: {{"admin": "...", "clients": {{}}}}. Or take the line out: systemctl edit {UNIT}',
            ) from None
        raise Problem(
            "no_token",
            f"There is no {where}: no daemon has been started with this configuration here.",
            hint=f"Start it: {start(service)}. If it runs already, name its configuration with --config, "
            f"or set {ENV_TOKEN}.",
        ) from None
    except OSError as error:
        whose = "root" if credential is not None else "the daemon's user"
        raise Problem(
            "no_token",
            f"{where} cannot be read: {error.strerror}.",
            hint=f"Run this as {whose}, or set {ENV_TOKEN}.",
        ) from None
    except ValidationError:
        raise Problem(
            "no_token", f"{where} is not a file of tokens.", hint="The daemon's log says what is wrong."
        ) from None
