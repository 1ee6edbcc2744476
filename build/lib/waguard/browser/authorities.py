"""The certificate authorities of `browser.ca_file`, beside those that a browser brings: a database of NSS's in its home.

That is the one way that headless-shell and Chromium both go, https://chromium.googlesource.com/chromium/src/+/main/docs/linux/cert_management.md.
Written without NSS's tools, which few machines have: a table of PKCS #11 objects, a column for each attribute by its number
(tried with Chromium 156 and NSS 3.87). What NSS keeps beside it a browser makes by itself, and so its directory has to be its own.
"""

import contextlib
import datetime as dt
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from waguard.errors import ConfigError
from waguard.sandbox import PKI, User
from waguard.system.files import NotPlain, as_storage_error, partial, read_secret

_YES, _NO = b"\x01", b"\x00"
_CLASS, _ISSUER, _SERIAL = "a0", "a81", "a82"
_CERTIFICATE = b"\x00\x00\x00\x01"
_X509 = b"\x00\x00\x00\x00"
_TRUST = b"\xce\x53\x43\x53"
_TRUSTED_CA = b"\xce\x53\x43\x52"
_MUST_VERIFY = b"\xce\x53\x43\x53"


def read(path: Path | None) -> bytes:
    """The database with the certificates of a PEM file; empty without a file. Blocking. Raises `ConfigError`."""
    if path is None:
        return b""
    try:
        data, _ = read_secret(path)
    except OSError as error:
        why = error.what if isinstance(error, NotPlain) else error.strerror
        raise ConfigError(f"browser.ca_file: {path} cannot be read: {why}.") from None
    try:
        return _database([_row for one in _certificates(data, path) for _row in _rows(one)])
    except ValueError as error:
        raise ConfigError(
            f"browser.ca_file: {path} has no certificate that can be read: {error}.".replace("..", "."),
            hint="It has to be PEM: -----BEGIN CERTIFICATE-----. Of DER make it by: openssl x509 -inform der -in FILE",
        ) from None


def put(profile: Path, database: bytes, user: User | None) -> None:
    """Have it in the profile, which is a browser's home or is linked from there, and nothing else that may be there.

    No browser runs on the profile; others of the same user may, and would put links in the way: it is renamed in whole. Blocking.
    Raises `DiskFull`, `StorageFailed`.
    """
    place = profile / PKI
    with as_storage_error(f"write {place}"), partial(profile) as old, partial(profile) as new:
        with contextlib.suppress(FileNotFoundError):
            place.rename(old)
        if not database:
            return
        inner = new / "nssdb"
        for directory in (new, inner):
            directory.mkdir(mode=0o700)
        file = inner / "cert9.db"
        file.write_bytes(database)
        if user is not None:
            for path in (file, inner, new):
                os.chown(path, user.uid, user.gid)
        new.rename(place)


def _certificates(data: bytes, path: Path) -> list[x509.Certificate]:
    found = list(dict.fromkeys(x509.load_pem_x509_certificates(data)))
    now = dt.datetime.now(dt.UTC)
    for one in found:
        name = one.subject.rfc4514_string() or "one without a name"
        if not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            when = f"{one.not_valid_before_utc:%Y-%m-%d} to {one.not_valid_after_utc:%Y-%m-%d}"
            raise ConfigError(
                f"browser.ca_file: {path}: the certificate of {name} is valid from {when}, and not now.",
                hint="Put the CA's current certificate there.",
            )
        if not _may_sign(one):
            raise ConfigError(
                f"browser.ca_file: {path}: the certificate of {name} is not a CA's.",
                hint="Put the certificate of the CA there that has signed it.",
            )
    return found


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:  # as in roots that are older than extensions
        return certificate.version is x509.Version.v1


def _rows(certificate: x509.Certificate) -> tuple[Mapping[str, bytes], Mapping[str, bytes]]:
    """The certificate, and that servers may be trusted for it."""
    print_ = certificate.fingerprint(hashes.SHA1())  # noqa: S303 (what NSS finds it by)
    number = certificate.serial_number
    serial = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
    both = {
        "a1": _YES,  # CKA_TOKEN
        "a2": _NO,  # CKA_PRIVATE
        "a3": print_.hex().encode(),  # CKA_LABEL
        "a170": _YES,  # CKA_MODIFIABLE
        _ISSUER: certificate.issuer.public_bytes(),
        _SERIAL: b"\x02" + bytes([len(serial)]) + serial,  # DER
    }
    return (
        both
        | {
            _CLASS: _CERTIFICATE,
            "a80": _X509,  # CKA_CERTIFICATE_TYPE
            "a11": certificate.public_bytes(Encoding.DER),  # CKA_VALUE
            "a101": certificate.subject.public_bytes(),  # CKA_SUBJECT
            "a102": print_,  # CKA_ID
        },
        both
        | {
            _CLASS: _TRUST,
            "ace5363b4": print_,  # CKA_CERT_SHA1_HASH
            "ace536358": _TRUSTED_CA,  # CKA_TRUST_SERVER_AUTH
            "ace536359": _MUST_VERIFY,  # CKA_TRUST_CLIENT_AUTH
            "ace53635a": _MUST_VERIFY,  # CKA_TRUST_CODE_SIGNING
            "ace53635b": _MUST_VERIFY,  # CKA_TRUST_EMAIL_PROTECTION
            "ace536360": _NO,  # CKA_TRUST_STEP_UP_APPROVED
        },
    )


def _database(rows: list[Mapping[str, bytes]]) -> bytes:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute(
            f"CREATE TABLE nssPublic (id PRIMARY KEY UNIQUE ON CONFLICT ABORT, {', '.join(columns)})"
        )
        marks = ", ".join("?" * (len(columns) + 1))
        for number, row in enumerate(rows, 1):
            values = [number, *(row.get(column) for column in columns)]
            database.execute(f"INSERT INTO nssPublic VALUES ({marks})", values)  # noqa: S608 (question marks)
        database.commit()
        return database.serialize()
