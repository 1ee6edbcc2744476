"""A company's certificate authority, in each browser and each sandbox; and what is said where one is missing."""

import datetime as dt
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from bare_browser import BINARIES
from conftest import Daemon
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tls_front import AUTHORITY, COMPANY, tls_front

from waguard.browser import authorities
from waguard.core.model import ClientCode, Status
from waguard.errors import ConfigError, PageFailed
from waguard.simulator.server import Simulator

DEMO = ClientCode("demo")
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(1)

in_each = [
    pytest.mark.browser,
    pytest.mark.skipif(not BINARIES, reason="no Chromium is installed"),
    pytest.mark.parametrize("binary", BINARIES, ids=lambda path: path.name),
    pytest.mark.parametrize("kind", ["bubblewrap", "plain"]),
]


def each(test: Callable[..., object]) -> Callable[..., object]:
    for mark in in_each:
        test = mark(test)
    return test


def certificate(path: Path, *, ca: bool = True, since: dt.datetime = NOW - DAY, name: str = COMPANY) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), 1, since, since + 2 * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


@each
async def test_a_page_is_loaded_that_a_companys_authority_has_signed(
    start: Daemon, tmp_path: Path, binary: Path, kind: str
) -> None:
    async with Simulator() as simulator, tls_front(simulator.url, tmp_path) as (way, _):
        several = tmp_path / "several.pem"
        other = certificate(tmp_path / "other.pem", name="Another")
        several.write_bytes(other.read_bytes() + (tmp_path / AUTHORITY).read_bytes())
        browser = {"path": binary, "extra_flags": [way], "ca_file": several}
        async with start(sandbox={"kind": kind, "connect_ports": []}, browser=browser) as (supervisor, _):
            assert (await supervisor.connect(DEMO)).status is Status.AWAITING_SCAN


@each
async def test_a_page_that_nobody_trusted_has_signed_is_told_so_with_the_key_that_helps(
    start: Daemon, tmp_path: Path, binary: Path, kind: str
) -> None:
    async with Simulator() as simulator, tls_front(simulator.url, tmp_path) as (way, _):
        browser = {"path": binary, "extra_flags": [way]}
        async with start(sandbox={"kind": kind, "connect_ports": []}, browser=browser) as (supervisor, _):
            with pytest.raises(PageFailed, match=r"ERR_CERT_AUTHORITY_INVALID, a certificate that") as caught:
                await supervisor.connect(DEMO)
        assert "browser.ca_file" in caught.value.hint


@pytest.mark.browser
@pytest.mark.skipif(not BINARIES, reason="no Chromium is installed")
@pytest.mark.parametrize(
    ("flag", "said", "hint"),
    [
        (
            "--proxy-server=http://127.0.0.1:1",
            "PROXY_CONNECTION_FAILED, no way through the proxy",
            "extra_flags",
        ),
        ("--host-resolver-rules=MAP * ~NOTFOUND", "NAME_NOT_RESOLVED, the name is not found", "resolv.conf"),
        ("--host-resolver-rules=MAP * 127.0.0.1:1", r"CONNECTION_REFUSED\.$", "Is the network up?"),
    ],
)
async def test_what_keeps_a_page_from_being_loaded_is_told_with_what_may_help(
    start: Daemon, flag: str, said: str, hint: str
) -> None:
    async with start(sandbox={"connect_ports": []}, browser={"extra_flags": [flag]}) as (supervisor, _):
        with pytest.raises(PageFailed) as caught:
            await supervisor.connect(DEMO)
    assert re.search(said, caught.value.message)
    assert hint in caught.value.hint


@pytest.mark.browser
@pytest.mark.skipif(not BINARIES, reason="no Chromium is installed")
async def test_an_authority_is_trusted_by_its_key_and_only_while_it_is_named(
    start: Daemon, tmp_path: Path
) -> None:
    async with Simulator() as simulator, tls_front(simulator.url, tmp_path) as (way, _):
        namesake = certificate(tmp_path / "namesake.pem")
        for named, trusted in ((namesake, False), (tmp_path / AUTHORITY, True), (None, False)):
            browser = {"extra_flags": [way], "ca_file": named}
            async with start(sandbox={"connect_ports": []}, browser=browser) as (supervisor, _):
                if trusted:
                    assert (await supervisor.connect(DEMO)).status is Status.AWAITING_SCAN
                else:
                    with pytest.raises(PageFailed, match="ERR_CERT_AUTHORITY_INVALID"):
                        await supervisor.connect(DEMO)


def test_what_is_no_authoritys_certificate_is_refused_with_the_key_and_the_file(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    torn = tmp_path / "torn.pem"
    torn.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    fifo = tmp_path / "fifo.pem"
    os.mkfifo(fifo)
    for path, why in (
        (tmp_path / "none.pem", "No such file"),
        (tmp_path, "a directory"),
        (fifo, "a FIFO"),
        (key, "no certificate that can be read"),
        (torn, "no certificate that can be read"),
        (certificate(tmp_path / "old.pem", since=NOW - 5 * DAY), "valid from .*, and not now"),
        (certificate(tmp_path / "new.pem", since=NOW + 5 * DAY), "valid from .*, and not now"),
        (certificate(tmp_path / "leaf.pem", ca=False), "not a CA's"),
    ):
        with pytest.raises(ConfigError, match=rf"browser\.ca_file: {path}.*{why}"):
            authorities.read(path)
    link = tmp_path / "link.pem"
    link.symlink_to(certificate(tmp_path / "ok.pem"))
    assert authorities.read(link).startswith(b"SQLite format 3")
    assert authorities.read(None) == b""


def test_what_a_browser_has_put_in_the_place_is_gone_and_not_followed(tmp_path: Path) -> None:
    elsewhere, profile = tmp_path / "elsewhere", tmp_path / "profile"
    elsewhere.mkdir()
    profile.mkdir()
    (elsewhere / "kept").touch()
    place = profile / ".pki"
    for data in (b"", b"database"):
        place.symlink_to(elsewhere)
        authorities.put(profile, data, None)
        assert [path.name for path in elsewhere.iterdir()] == ["kept"]
        assert not place.is_symlink()
        assert place.is_dir() is bool(data)
    (place / "nssdb" / "key4.db").touch()
    authorities.put(profile, b"newer", None)
    (file,) = (place / "nssdb").iterdir()
    assert file.read_bytes() == b"newer"
    authorities.put(profile, b"", None)
    assert list(profile.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "profile"}
