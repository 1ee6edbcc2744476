"""Which token to show to the daemon. Tokens come from the environment or a file, never from the command line."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from waguard.api.auth import FILE, StoredTokens
from waguard.api.problems import Problem
from waguard.config import Config
from waguard.core.model import ClientCode

ENV_TOKEN = "WAGUARD_TOKEN"  # noqa: S105 (the name of a variable, not a secret)
_STORED = TypeAdapter(StoredTokens)


def own_token(config: Config, environ: Mapping[str, str] = os.environ) -> str:
    """``WAGUARD_TOKEN``, else the admin's. Raises `Problem`."""
    token = given(environ)
    if not token:
        return admin_token(config)
    if not token.isprintable():
        raise Problem("unauthorized", f"{ENV_TOKEN} holds control characters: that is no token.")
    return token


def given(environ: Mapping[str, str] = os.environ) -> str:
    """``WAGUARD_TOKEN``; empty if there is none."""
    return environ.get(ENV_TOKEN, "").strip()


def admin_token(config: Config) -> str:
    if config.api.admin_token is not None:
        return config.api.admin_token.get_secret_value()
    return _stored(config.sessions.dir / FILE).admin


def client_token(config: Config, code: ClientCode) -> str:
    if code in config.api.client_tokens:
        return config.api.client_tokens[code].get_secret_value()
    stored = _stored(config.sessions.dir / FILE).clients
    if code not in stored:
        raise Problem(
            "no_token",
            f"{code} has no token of its own.",
            hint=f'Name it in api.clients (clients = ["{code}"]); the daemon makes the token at its next start.',
        )
    return stored[code]


def _stored(path: Path) -> StoredTokens:
    where = path.absolute()
    try:
        return _STORED.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise Problem(
            "no_token",
            f"There is no {where}: no daemon has been started with this configuration here.",
            hint="Start it: waguard run. If it runs already, name its configuration with --config, "
            f"or set {ENV_TOKEN}.",
        ) from None
    except OSError as error:
        raise Problem(
            "no_token",
            f"{where} cannot be read: {error.strerror}.",
            hint=f"Run this as the daemon's user, or set {ENV_TOKEN}.",
        ) from None
    except ValidationError:
        raise Problem(
            "no_token", f"{where} is not a file of tokens.", hint="The daemon's log says what is wrong."
        ) from None
