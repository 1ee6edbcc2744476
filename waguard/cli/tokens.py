"""Which token to show to the daemon. Tokens come from the environment or a file, never from the command line."""

import os
from collections.abc import Mapping

from waguard.access.configured import CREDENTIAL, FILE, StoredTokens, parse
from waguard.cli.errors import NoToken, TokenUnfit
from waguard.cli.service import UNIT, Service, start
from waguard.config.sections import Config
from waguard.core.model import ClientCode
from waguard.errors import ConfigError

ENV_TOKEN = "WAGUARD_TOKEN"  # noqa: S105 (the name of a variable, not a secret)


def own_token(config: Config, service: Service | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """``WAGUARD_TOKEN``, else the admin's. Raises `NoToken`, `TokenUnfit`."""
    token = given(environ)
    return admin_token(config, service) if token is None else token


def given(environ: Mapping[str, str] = os.environ) -> str | None:
    """``WAGUARD_TOKEN``, if it is set. Raises `TokenUnfit` if it holds none: whoever set it did not mean the admin's."""
    if (token := environ.get(ENV_TOKEN)) is None:
        return None
    token = token.strip()
    if not token:
        raise TokenUnfit(
            f"{ENV_TOKEN} is empty.",
            hint=f"Set it to a token; or to show the admin's: unset {ENV_TOKEN}",
        )
    if not token.isprintable():
        raise TokenUnfit(f"{ENV_TOKEN} holds control characters: that is no token.")
    return token


def admin_token(config: Config, service: Service | None = None) -> str:
    """Raises `NoToken`."""
    if config.api.admin_token is not None:
        return config.api.admin_token.get_secret_value()
    return _stored(config, service).admin


def client_token(config: Config, code: ClientCode, service: Service | None = None) -> str:
    """Raises `NoToken`."""
    if code in config.api.client_tokens:
        return config.api.client_tokens[code].get_secret_value()
    stored = _stored(config, service).clients
    if code not in stored:
        raise NoToken(
            f"{code} has no token of its own.",
            hint=f'Name it in api.clients (clients = ["{code}"]); the daemon makes the token at its next start.',
        )
    return stored[code]


def _stored(config: Config, service: Service | None) -> StoredTokens:
    """What the daemon has read at its start: of a service that is handed a credential, the file that this is taken from."""
    credential = service.credentials.get(CREDENTIAL) if service is not None else None
    where = credential or (config.sessions.dir / FILE).absolute()
    try:
        return parse(where.read_bytes(), where)
    except FileNotFoundError:
        if credential is not None:
            raise NoToken(
                f"There is no {where}, which LoadCredential={CREDENTIAL} of {UNIT} names.",
                hint=f'Make it: {{"admin": "...", "clients": {{}}}}. Or take the line out: systemctl edit {UNIT}',
            ) from None
        raise NoToken(
            f"There is no {where}: no daemon has been started with this configuration here.",
            hint=f"Start it: {start(service)}. If it runs already, name its configuration with --config, "
            f"or set {ENV_TOKEN}.",
        ) from None
    except OSError as error:
        whose = "root" if credential is not None else "the daemon's user"
        raise NoToken(
            f"{where} cannot be read: {error.strerror}.",
            hint=f"Run this as {whose}, or set {ENV_TOKEN}.",
        ) from None
    except ConfigError as error:
        raise NoToken(error.message, hint=error.hint) from None
