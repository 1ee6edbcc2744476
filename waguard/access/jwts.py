"""The CRM's own tokens: JSON Web Tokens (RFC 7519) that it signs, and that say of which client their bearer is.

One algorithm, that of the configuration, and only keys of its kind: what a token's header says chooses nothing but which of these keys.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jwk, jws, jwt
from joserfc.errors import BadSignatureError, ExpiredTokenError, JoseError

from waguard.config.sections import Jwt
from waguard.core.access import Caller, Scope
from waguard.core.model import client_code
from waguard.errors import ConfigError, InvalidClientCode, TokenExpired, Unauthorized
from waguard.system.files import as_storage_error, close_to_others, read_secret

_KINDS = {"HS256": "oct", "RS256": "RSA", "ES256": "EC"}
_SECRET_BYTES = 32
"""A shorter secret of HS256 can be guessed from one token, RFC 7518, section 3.2."""
_RSA_BITS = 2048
"""Likewise a smaller key, section 3.3."""


@dataclass(frozen=True, slots=True)
class Keys:
    kept: Sequence[Any]
    stamp: tuple[int, ...]
    """What the file was when they were read."""


class Jwts:
    def __init__(self, settings: Jwt, keys: Keys, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        optional = {"iss": settings.issuer, "aud": settings.audience}
        wanted: Any = {name: {"essential": True, "value": one} for name, one in optional.items() if one}
        self._claims = jwt.JWTClaimsRegistry(
            lambda: int(clock()), leeway=settings.leeway_s, exp={"essential": True}, **wanted
        )

    @classmethod
    def load(cls, settings: Jwt, clock: Callable[[], float] = time.time) -> "Jwts":
        """Blocking: call from a thread. Raises `ConfigError`, `StorageFailed`."""
        return cls(settings, read(settings), clock)

    def refresh(self) -> None:
        """Take the keys of the file if that has changed; those that there are stay if it cannot be used. Blocking. Raises like `load`."""
        assert self._settings.key_file is not None  # noqa: S101 (`load` has looked)
        with as_storage_error(f"read {self._settings.key_file}"):
            stamp = _stamp(self._settings.key_file.stat())
        if stamp != self._keys.stamp:
            self._keys = read(self._settings)

    def admit(self, token: str) -> Caller:
        """Whom it lets in, until when. Raises `Unauthorized`, `TokenExpired`."""
        try:
            claims = self._verified(token)
            self._claims.validate(claims)
            code, until = claims.get(self._settings.claim), float(claims["exp"]) + self._settings.leeway_s
        except ExpiredTokenError:
            raise TokenExpired("This token has expired.") from None
        # What is no JSON, or no object, or of other types than it should be: the library does not foresee all of it.
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise Unauthorized(
                "This JWT is not signed by a key that is known, or not as it should be."
            ) from None
        try:
            client = client_code(code if isinstance(code, str) else "")
        except InvalidClientCode:
            raise Unauthorized(f"The claim {self._settings.claim} of this JWT is no client code.") from None
        scopes = frozenset({Scope.OPEN, *(Scope(one) for one in self._settings.scopes)})
        return Caller(scopes, frozenset({client}), f"jwt:{client}", until=until)

    def _verified(self, token: str) -> dict[str, Any]:
        """Its claims, by the key that its header names; a key without a name may have signed any. Raises `JoseError` and others."""
        named = jws.extract_compact(token.encode()).headers().get("kid")
        keys = [one for one in self._keys.kept if None in {named, one.kid} or one.kid == named]
        for key in keys:
            try:
                return jwt.decode(token, key, algorithms=[self._settings.algorithm]).claims
            except BadSignatureError:
                continue
        raise BadSignatureError


def read(settings: Jwt) -> Keys:
    """The keys of the file: a PEM, a JSON Web Key or a set of those, or a secret. Blocking. Raises `ConfigError`, `StorageFailed`."""
    path, kind = settings.key_file, _KINDS[settings.algorithm]
    assert path is not None  # noqa: S101 (the caller has looked)
    with as_storage_error(f"read {path}"):
        data, status = read_secret(path)
    if kind == "oct":
        close_to_others(path, status, 0o007, None)
    try:
        keys = [one for one in _parsed(data.rstrip(b"\r\n"), kind) if one.key_type == kind]
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _unfit(path, settings.algorithm, f"cannot be read: {error}") from None
    if not keys:
        raise _unfit(path, settings.algorithm, f"has no key of the kind {kind}")
    for key in keys:
        if why := _weak(key):
            raise _unfit(path, settings.algorithm, why)
    return Keys(keys, _stamp(status))


def _parsed(data: bytes, kind: Any) -> list[Any]:
    if data.lstrip().startswith(b"{"):
        told = json.loads(data)
        # Others in a set are no fault of it, RFC 7517, section 5.
        some = [one for one in told["keys"] if one["kty"] == kind] if "keys" in told else [told]
        return [jwk.import_key(one) for one in some if one.get("use", "sig") == "sig"]
    return [jwk.import_key(data, kind)]


def _weak(key: Any) -> str:
    if key.key_type == "oct" and len(key.raw_value) < _SECRET_BYTES:
        return f"has a secret of fewer than {_SECRET_BYTES} bytes"
    if key.key_type == "RSA" and key.raw_value.key_size < _RSA_BITS:
        return f"has an RSA key of fewer than {_RSA_BITS} bits"
    if key.key_type == "EC" and key.curve_name != "P-256":
        return f"has a key of the curve {key.curve_name}, and ES256 is with P-256"
    return ""


def _unfit(path: Path, algorithm: str, why: str) -> ConfigError:
    return ConfigError(
        f"jwt.key_file: {path} {why}.",
        hint=f"For {algorithm} it is "
        + (
            "a secret of 32 bytes or more, or a JSON Web Key."
            if algorithm == "HS256"
            else "a public key in PEM, a JSON Web Key, or a set of those."
        ),
    )


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
