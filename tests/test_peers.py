"""The unix socket: who is let in without a token, and who is not."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from clients import DEMO
from conftest import Daemon, Journal
from control_port import API, TOKEN

from waguard.access.peers import Peer, Peers, peer_of
from waguard.core.access import OF_ADMIN, Scope
from waguard.errors import AlreadyRunning, ConfigError, StorageFailed

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")


def peers(*uids: int, gids: tuple[int, ...] = (), scopes: tuple[str, ...] = ("admin",)) -> Peers:
    return Peers.of(uids, gids, scopes, browsers=4000)


def test_by_user_or_any_of_its_groups() -> None:
    some = peers(0, 1000, gids=(50,))
    for peer in (Peer(0, frozenset({0})), Peer(1000, frozenset()), Peer(7, frozenset({7, 50}))):
        caller = some.admit(peer)
        assert caller is not None
        assert (caller.scopes, caller.clients, caller.name) == (OF_ADMIN, None, f"uid {peer.uid}")
    for peer in (Peer(7, frozenset({7})), Peer(50, frozenset({1000}))):
        assert some.admit(peer) is None


def test_with_the_scopes_of_the_configuration() -> None:
    caller = peers(0, scopes=("read", "connect")).admit(Peer(0, frozenset()))
    assert caller is not None
    assert caller.scopes == {Scope.OPEN, Scope.READ, Scope.CONNECT}
    assert not caller.is_admin


def test_the_browsers_are_let_in_by_no_group_either() -> None:
    some = peers(0, gids=(50,))
    assert some.admit(Peer(4000, frozenset({50}))) is None
    assert some.admit(Peer(4001, frozenset({50})))


def test_names_and_what_is_none() -> None:
    some = Peers.of(["root"], ["root"], ["read"], browsers=4000)
    assert some.admit(Peer(0, frozenset()))
    assert some.admit(Peer(9, frozenset({0})))
    with pytest.raises(ConfigError, match="there is no user 'nobody-like-this'"):
        Peers.of(["nobody-like-this"], [], [], browsers=4000)
    with pytest.raises(ConfigError, match="there is no group 'nobody-like-this'"):
        Peers.of([], ["nobody-like-this"], [], browsers=4000)
    with pytest.raises(ConfigError, match="browsers run as the user 4000"):
        Peers.of([4000], [], [], browsers=4000)


def test_the_kernel_says_who_it_is() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_of(one) == Peer(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))
    with socket.socket() as tcp:
        assert peer_of(tcp) is None


ASK = """
import http.client, os, socket, sys
path, uid, gids, token = sys.argv[1], int(sys.argv[2]), [int(one) for one in sys.argv[3].split(",")], sys.argv[4]
if os.geteuid() == 0:
    os.setgroups(gids[1:]); os.setgid(gids[0]); os.setuid(uid)
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(path)
connection.request("GET", "/v1/sessions", headers={"Authorization": token} if token else {})
print(connection.getresponse().status)
"""


async def asked(path: Path, uid: int, gids: str, token: str = "") -> int:
    for directory in (path.parent, *path.parent.parents[:4]):
        directory.chmod(directory.stat().st_mode | 0o711)
    program = [sys.executable, "-c", ASK, str(path), str(uid), gids, token]
    done = await asyncio.to_thread(subprocess.run, program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "control"  # an address of a unix socket has 107 letters at most


@pytest.fixture
def serving(pose: Daemon, socket_path: Path) -> Callable[..., Any]:
    def made(**more: object) -> Any:
        return pose("ok", api={**API, "socket": socket_path, "socket_gids": [31_000], **more})

    return made


@ROOT_ONLY
async def test_who_is_let_in(serving: Any, socket_path: Path, journal: Journal) -> None:
    async with serving(socket_uids=[0, 30_000]):
        for uid, gids, token, status in [
            (0, "0", "", 200),
            (30_000, "30000", "", 200),
            (30_001, "30001", "", 401),
            (30_001, "31000", "", 200),
            (30_001, "30001,31000", "", 200),
            (30_001, "30001", f"Bearer {TOKEN}", 200),
            (0, "0", "Bearer wrong", 401),  # what is shown counts
            (0, "0", "Bearer ", 401),
        ]:
            assert await asked(socket_path, uid, gids, token) == status, (uid, gids, token)
        done = [one.fields for one in journal.named("request.done")]
        assert (done[1]["actor"], done[1]["caller"]) == ("peer:uid 30000", "uid 30000")


async def test_nobody_is_let_in_at_the_port_without_a_token(serving: Any) -> None:
    async with (
        serving(socket_uids=[0]) as (_, url),
        aiohttp.ClientSession() as http,
        http.get(f"{url}/v1/sessions") as answer,
    ):
        assert answer.status == 401


async def test_what_a_daemon_left_is_replaced_and_nothing_else_is(serving: Any, socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(socket_path))
    async with serving():
        assert socket_path.is_socket()
        assert socket_path.stat().st_mode & 0o777 == 0o666
    assert not socket_path.exists()
    assert not list(socket_path.parent.glob(".control*"))

    with socket.socket(socket.AF_UNIX) as others:
        others.bind(str(socket_path))
        others.listen()
        with pytest.raises(AlreadyRunning, match="Somebody listens at"):
            async with serving():
                pass
    socket_path.unlink()
    socket_path.write_text("a file")
    with pytest.raises(StorageFailed, match="no socket"):
        async with serving():
            pass
    assert socket_path.read_text() == "a file"


async def test_of_another_daemons_socket_nothing_is_removed(serving: Any, socket_path: Path) -> None:
    async with serving():
        socket_path.unlink()
        with socket.socket(socket.AF_UNIX) as next_one:
            next_one.bind(str(socket_path))
    assert socket_path.is_socket()


CLI = """
import codecs, os, sys
from importlib import import_module
from waguard.cli.app import COMMANDS
for place in COMMANDS.values():  # others may not read where Python is
    import_module(f"waguard.cli.{place.partition(':')[0]}")
for name in ("idna", "utf-8-sig"):
    codecs.lookup(name)
from waguard.cli.main import main
if os.geteuid() == 0:
    os.setgroups([31_000]); os.setgid(30_001); os.setuid(30_001)
main()
"""


@ROOT_ONLY
@pytest.mark.parametrize("named", [True, False])
async def test_whoever_can_read_no_token_is_known_to_the_command_line_by_the_socket(
    serving: Any, socket_path: Path, sessions_dir: Path, *, named: bool
) -> None:
    for directory in (socket_path.parent, *socket_path.parent.parents[:4]):
        directory.chmod(directory.stat().st_mode | 0o711)
    config = socket_path.with_name("config.toml")
    config.write_text(f'[sessions]\ndir = "{sessions_dir}"\n[api]\nport = 1\nsocket = "{socket_path}"\n')
    where = ["--url", f"unix://{socket_path}"] if named else []
    async with serving() as (supervisor, _):
        await supervisor.connect(DEMO)
        program = [sys.executable, "-B", "-c", CLI, "--config", str(config), "status", "--json", *where]
        done = await asyncio.to_thread(
            subprocess.run, program, capture_output=True, text=True, check=False, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        assert [one["client"] for one in json.loads(done.stdout)["sessions"]] == ["demo"]
