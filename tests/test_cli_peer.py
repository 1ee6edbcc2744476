"""Whom the command line gives a token: never who has only taken the daemon's port."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from commands import ADMIN, TOKEN, call, store_tokens

from waguard.cli import peer, tokens
from waguard.cli.service import LOCK

PROGRAM = Path(__file__).parent / "foreign_port.py"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WAGUARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@contextmanager
def listener(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """It has the port of the configuration."""
    process = subprocess.Popen(
        [sys.executable, PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        monkeypatch.setenv("WAGUARD_API__PORT", process.stdout.readline().strip())
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    """All that it was sent."""
    process.kill()
    assert process.stdout is not None
    return process.stdout.read()


def used_once() -> Path:
    """Sessions of a daemon that runs no longer."""
    store_tokens()
    lock = Path("sessions", LOCK)
    lock.touch(mode=0o600)
    return lock


def test_who_took_the_port_of_a_daemon_that_has_died_gets_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    used_once()
    monkeypatch.setattr(peer, "_PATIENCE_S", 0.3)
    with listener(monkeypatch) as process:
        for arguments in (("status",), ("cleanup", "demo", "--yes"), ("connect", "demo")):
            result = call(*arguments)
            assert result.exit_code == 1
            assert "is not the daemon of" in result.stderr
            assert "No token was sent. [not_the_daemon]" in result.stderr
            assert f"'sport = :{os.environ['WAGUARD_API__PORT']}'" in result.stderr
        assert heard(process) == ""


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_an_address_that_is_named_does_not_make_it_the_daemon(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    used_once()
    monkeypatch.setattr(peer, "_PATIENCE_S", 0.3)
    with listener(monkeypatch) as process:
        result = call("status", "--url", f"http://{name}:{os.environ['WAGUARD_API__PORT']}")
        assert "[not_the_daemon]" in result.stderr
        assert heard(process) == ""


def test_who_holds_the_daemons_lock_is_the_daemon_whatever_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here one of the same user as above: the user proves nothing, since browsers may have the daemon's."""
    lock = used_once()
    with listener(monkeypatch, str(lock)) as process:
        assert process.stdin is not None
        print(file=process.stdin, flush=True)
        assert call("status").exit_code == 0
        assert ADMIN in heard(process)


def test_a_port_that_is_kept_for_the_next_daemon_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = used_once()
    looked = threading.Event()
    look = peer.Proof._stranger

    def seen(self: peer.Proof, listeners: list[peer.Listener]) -> peer.Listener | None:
        found = look(self, listeners)
        looked.set()
        return found

    monkeypatch.setattr(peer.Proof, "_stranger", seen)
    with listener(monkeypatch, str(lock)) as process:

        def begin() -> None:
            assert looked.wait(10)
            print(file=process.stdin, flush=True)

        thread = threading.Thread(target=begin)
        thread.start()
        assert call("status").exit_code == 0
        thread.join()
        assert ADMIN in heard(process)


def test_an_app_with_its_own_token_and_an_address_is_told_apart_by_nothing_it_cannot_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(tokens.ENV_TOKEN, TOKEN)
    with listener(monkeypatch) as process:
        url = f"http://127.0.0.1:{os.environ['WAGUARD_API__PORT']}"
        assert call("status", "--url", url).exit_code == 0
        assert TOKEN in heard(process)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),
        ("00000000000000000000000001000000", "::1"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
        ("0" * 32, "::"),
    ],
)
def test_addresses_as_the_kernel_prints_them(text: str, address: str) -> None:
    assert peer._address(text) == ip_address(address)


@pytest.mark.parametrize(
    ("host", "there", "reached"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "::", True),
        ("127.0.0.1", "::1", False),
        ("::1", "::", True),
        ("::1", "0.0.0.0", False),
        ("localhost", "::1", True),
        ("localhost", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "192.0.2.1", False),
    ],
)
def test_which_sockets_a_connection_may_reach(host: str, there: str, reached: bool) -> None:
    assert peer._reaches(host, ip_address(there)) is reached
