"""The keys that snapshots are sealed with: a file of one key a line, the first seals, all of them open.

To rotate, put a new line first; a line may go when nothing sealed with it is kept any more. Blocking: call from a
thread.
"""

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from waguard.errors import ConfigError, SnapshotFailed
from waguard.system.files import as_storage_error, close_to_others, credential, read_secret, write_atomically

CREDENTIAL = "waguard.keys"
"""The systemd credential that is used when there is one and no file is named, systemd.exec(5)."""
KEY_BYTES = 32
BACK = (
    "Restore your copy of the keys, on lines of their own, and restart the daemon. If they are lost for good: "
    "snapshots.without_old_keys = true goes on with a new key, and what was sealed so far is never opened again."
)
"""What to do where keys are missing."""
_ID_BYTES = 6


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    """Names the key without giving it away."""
    secret: bytes

    def __repr__(self) -> str:
        return f"Key({self.id})"


@dataclass(frozen=True, slots=True)
class Keyring:
    keys: Sequence[Key]
    source: Path

    @property
    def newest(self) -> Key:
        """The one that seals. Raises `SnapshotFailed` if there is none."""
        if not self.keys:
            raise SnapshotFailed(f"There are no keys to seal it with: {self.source} is missing.", hint=BACK)
        return self.keys[0]

    def find(self, key_id: str) -> Key | None:
        return next((key for key in self.keys if key.id == key_id), None)


def place(named: Path | None, sessions: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the keys are: the named file, else the systemd credential, else beside the sessions. Raises `StorageFailed`."""
    if named is not None:
        return named
    return credential(CREDENTIAL, environ) or sessions / ".backup.keys"


def load(
    path: Path,
    *,
    make: bool,
    closed: Callable[[str], None] | None = None,
    needed: Callable[[], bool] = lambda: False,
) -> Keyring:
    """Read the keys; with ``make``, a file that is not there is made with a new key, unless one that was there is ``needed``: then
    there are none. ``closed`` is told of a file that was open to others, and is not any more.

    Raises `ConfigError` for a file that cannot be understood or that others may read, `StorageFailed`, `DiskFull`.
    """
    with as_storage_error(f"read {path}"):
        try:
            text, status = read_secret(path)
        except FileNotFoundError:
            if not make:
                raise ConfigError(
                    f"snapshots.key_file: there is no {path}.", hint=f"Make one: {recipe(path)}"
                ) from None
            if needed():
                return Keyring((), path)
            text = base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n"
            write_atomically(path, text)
            status = path.stat()
    # systemd gives credentials to the service's user with 0400 or, by an ACL, what looks like 0440.
    close_to_others(path, status, 0o037, closed)
    lines = [line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith(b"#")]
    try:
        found = [base64.b64decode(line, validate=True) for line in lines]
    except binascii.Error:
        found = []
    if not found or any(len(secret) != KEY_BYTES for secret in found):
        raise ConfigError(
            f"{path}: not a file of keys: it should have {KEY_BYTES} bytes in base64 on each line.",
            hint="Put its copy back, from where you keep it, or of a service from beside its sessions. A new key opens no snapshot that "
            f"there is: those are lost with the old one. If you can do without them: mv {path} {path}.old, and then {recipe(path)}",
        )
    return Keyring([Key(_id(secret), secret) for secret in dict.fromkeys(found)], path)


def _id(secret: bytes) -> str:
    return hashlib.blake2b(secret, digest_size=_ID_BYTES, person=b"waguard key id").hexdigest()


def recipe(path: Path) -> str:
    """The command that makes a file of one new key."""
    return f"(umask 077; openssl rand -base64 {KEY_BYTES} > {path})"
