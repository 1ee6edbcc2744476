"""Tokens that are made while the daemon runs: who is let in by them, until when, and what is kept of them."""

import asyncio
import base64
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import Daemon, Journal
from control_port import ADMIN, API
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from waguard.access import made
from waguard.access.access import Access
from waguard.access.configured import ConfiguredTokens
from waguard.access.made import FILE, MadeTokens
from waguard.access.peers import Peers
from waguard.core.access import (
    NOBODY,
    About,
    Caller,
    Scope,
    Secret,
    Token,
    TokenState,
    digest,
    expiring,
    of_client,
)
from waguard.core.model import Alert, ClientCode
from waguard.errors import (
    Forbidden,
    InvalidRequest,
    StorageFailed,
    TokenExpired,
    TokenNameTaken,
    TokenNotFound,
    TokenRevoked,
    TooManyTokens,
    Unauthorized,
)
from waguard.relay.client import Closing
from waguard.system.files import write_atomically

NO_PEERS = Peers((), (), frozenset(), 0)
DAY = 86_400.0
NOW = 1_900_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Store:
    """The owner of the file, and what it has said."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.alerts: dict[Alert, str] = {}
        self.made = self.anew()

    def publish(self, name: str, **fields: Any) -> None:
        self.said.append((name, fields))

    def anew(self) -> MadeTokens:
        return MadeTokens(self.directory, self.publish, self.alerts.__setitem__, self.clock)

    async def restarted(self) -> None:
        self.made = self.anew()
        await self.made.start()

    async def revoke(self, which: str) -> None:
        self.made.mark_revoked(which)
        await self.made.write_revoked()

    async def token(self, name: str = "crm", lasts_s: float | None = 90 * DAY) -> str:
        return (await self.made.create(name, [Scope.READ], ["demo"], lasts_s))[1]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


# --- rules -------------------------------------------------------------------------------------------------

SCOPES = st.frozensets(st.sampled_from(Scope))
CODES = st.sampled_from([ClientCode("demo"), ClientCode("demo2"), ClientCode("demo3")])
CALLERS = st.builds(Caller, SCOPES, st.none() | st.frozensets(CODES))


@given(CALLERS, st.sampled_from(Scope), st.sampled_from(About), CODES)
def test_nobody_gets_what_is_not_its_own(
    caller: Caller, scope: Scope, about: About, code: ClientCode
) -> None:
    try:
        caller.check(scope, about, code)
    except Forbidden:
        return
    assert scope in caller.scopes
    if about is About.ONE:
        assert caller.clients is None or code in caller.clients
    if about is About.EVERY:
        assert caller.clients is None
    if about is About.OWN:
        assert caller.clients is not None
        assert len(caller.clients) == 1


@given(st.lists(st.sampled_from(["demo", "demo2"]), min_size=1), CODES)
def test_what_is_said_of_another_client_is_the_same_whether_there_is_one_or_not(
    mine: list[str], code: ClientCode
) -> None:
    caller = Caller(frozenset({Scope.READ}), frozenset(map(ClientCode, mine)))
    if code not in mine:
        with pytest.raises(Forbidden, match=f"This token is not for '{code}'.") as refused:
            caller.check(Scope.READ, About.ONE, code)
        assert not [
            one for one in mine if one in refused.value.message.replace(code, "") + refused.value.hint
        ]


def test_nobody_may_what_asks_for_a_token() -> None:
    for scope in Scope:
        if scope is not Scope.OPEN:
            with pytest.raises(Forbidden):
                NOBODY.check(scope, About.ALLOWED, None)
    assert not NOBODY.is_admin
    assert not of_client(ClientCode("demo")).is_admin
    assert NOBODY.client is None


class Life(RuleBasedStateMachine):
    """Tokens against a model that keeps each secret with until when it is taken."""

    shown = Bundle("shown")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.tokens: dict[str, Token] = {}
        self.taken: dict[str, tuple[str, float]] = {}
        """By secret: its token, and until when."""
        self.ends: dict[str, float] = {}
        self.revoked: set[str] = set()
        self.count = 0

    def _secret(self) -> str:
        self.count += 1
        return f"secret {self.count}"

    @rule(lasts=st.none() | st.floats(60, 1000))
    def make(self, lasts: float | None) -> None:
        secret = self._secret()
        expires = None if lasts is None else self.now + lasts
        self.tokens[secret] = Token(
            secret, "x", (Scope.READ,), ("demo",), (Secret(digest(secret)),), self.now, "", lasts, expires
        )
        self.ends[secret] = float("inf") if expires is None else expires
        self.taken[secret] = (secret, float("inf"))

    @rule(data=st.data(), overlap=st.sampled_from([0.0, 30.0, 500.0]))
    def rotate(self, data: st.DataObject, overlap: float) -> None:
        if not self.tokens:
            return
        which = data.draw(st.sampled_from(sorted(self.tokens)))
        before, secret = self.tokens[which], self._secret()
        active = before.state(self.now) is TokenState.ACTIVE
        self.tokens[which] = before.rotated(digest(secret), overlap, self.now)
        for one, (whose, until) in self.taken.items():
            if whose == which:
                most = min(until, self.now + overlap, self.ends[which])
                self.taken[one] = (which, most if active and overlap else 0.0)
        self.taken[secret] = (which, float("inf"))
        self.ends[which] = float("inf") if before.lasts_s is None else self.now + before.lasts_s
        if (
            len([one for one, (whose, until) in self.taken.items() if whose == which and until > self.now])
            > 21
        ):
            oldest = next(
                one for one, (whose, until) in self.taken.items() if whose == which and until > self.now
            )
            self.taken[oldest] = (which, 0.0)

    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        if self.tokens:
            which = data.draw(st.sampled_from(sorted(self.tokens)))
            self.tokens[which] = replace(self.tokens[which], revoked_at=self.now)
            self.revoked.add(which)

    @rule(seconds=st.floats(0, 600))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def each_secret_is_taken_as_long_as_it_may_be(self) -> None:
        for secret, (which, until) in self.taken.items():
            may = which not in self.revoked and self.now < min(until, self.ends[which])
            try:
                caller = self.tokens[which].admit(secret, self.now)
            except TokenRevoked:
                assert which in self.revoked
            except TokenExpired:
                assert not may
                assert which not in self.revoked
            except Unauthorized:
                assert until <= self.now, "it is known as long as it is taken"
            else:
                assert may
                assert caller.client == "demo"
            with pytest.raises(Unauthorized):
                self.tokens[which].admit(secret + "x", self.now)


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_a_token_s_life = Life.TestCase


@pytest.mark.parametrize(
    ("used_ago", "left", "told"),
    [
        (DAY, 6 * DAY, True),
        (DAY, 8 * DAY, False),
        (40 * DAY, 6 * DAY, False),
        (None, DAY, False),
        (DAY, -1.0, False),
    ],
)
def test_an_admin_is_told_of_what_expires_while_it_is_used(
    used_ago: float | None, left: float, told: bool
) -> None:
    token = Token("id", "crm", (Scope.READ,), ("demo",), (), NOW - 80 * DAY, "", 90 * DAY, NOW + left)
    token = replace(token, used_at=None if used_ago is None else NOW - used_ago)
    assert token.is_missed_soon(NOW) is told
    assert not replace(token, revoked_at=NOW).is_missed_soon(NOW)
    assert not replace(token, expires_at=None).is_missed_soon(NOW)


def test_of_many_some_are_named() -> None:
    token = Token("id", "crm", (Scope.READ,), ("demo",), (), NOW, "", None, None)
    assert expiring([]) == ""
    assert "days: crm. Renew each: waguard token rotate NAME" in expiring([token])
    assert "crm0, crm1, crm2, crm3, crm4, ..." in expiring([replace(token, name=f"crm{n}") for n in range(9)])


# --- what is kept ------------------------------------------------------------------------------------------


async def test_what_was_made_is_known_to_the_next_daemon_and_is_no_secret(store: Store) -> None:
    token = await store.token()
    assert re.fullmatch(r"wgt_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", token)
    caller = store.made.admit(token)
    assert caller.scopes == {Scope.OPEN, Scope.READ}
    assert caller.client == "demo"
    assert caller.name == f"crm#{token[4:12]}"
    file = store.directory / FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert token[13:] not in file.read_text()
    assert token[13:] not in repr(store.said)
    store.clock.now += 5
    store.made.admit(token)
    await store.made.close()
    await store.restarted()
    assert store.made.admit(token).client == "demo"
    (kept,) = store.made.listed()
    assert (kept.created_at, kept.used_at) == (NOW, NOW + 5)


async def test_rotated_both_are_taken_for_a_while(store: Store) -> None:
    first = await store.token()
    store.clock.now += 80 * DAY
    _, second = await store.made.rotate("crm", 3600)
    assert store.made.admit(first).name == store.made.admit(second).name
    store.clock.now += 3600
    with pytest.raises(TokenExpired, match="Another token has come in the place"):
        store.made.admit(first)
    store.clock.now += 80 * DAY
    await store.restarted()
    assert store.made.admit(second), "it has a term of its own"
    store.clock.now += 10 * DAY
    with pytest.raises(TokenExpired, match="has expired"):
        store.made.admit(second)
    _, third = await store.made.rotate("crm", 3600)
    assert store.made.admit(third)
    with pytest.raises(Unauthorized):
        store.made.admit(second)  # what had expired is not taken again


async def test_where_none_was_made_there_is_no_file(store: Store) -> None:
    await store.made.start()
    await store.made.close()
    assert list(store.directory.iterdir()) == []


async def test_names(store: Store) -> None:
    token = await store.token()
    with pytest.raises(TokenNameTaken, match="called 'crm' already"):
        await store.token()
    await store.revoke("crm")
    with pytest.raises(TokenRevoked):
        store.made.admit(token)
    await store.revoke("crm")  # again
    assert [name for name, _ in store.said].count("token.revoked") == 1
    with pytest.raises(TokenNotFound):
        await store.made.rotate("crm", 0.0)
    with pytest.raises(TokenNotFound):
        await store.revoke("another")
    short = await store.token(lasts_s=60.0)
    store.clock.now += 61
    await store.token()
    with pytest.raises(TokenNameTaken):  # there would be two
        await store.made.rotate(short[4:12], 0.0)
    with pytest.raises(TokenNotFound, match=r"no token 'x{80}', or"):
        await store.made.rotate("x" * 200, 0.0)


async def test_admin_is_all_or_nothing(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="only for all clients"):
        await store.made.create("crm", [Scope.ADMIN], ["demo"], None)
    made, token = await store.made.create("crm", [Scope.ADMIN], ["*"], None)
    assert set(made.scopes) == {*Scope} - {Scope.OPEN}
    assert store.made.admit(token).is_admin


async def test_what_ended_long_ago_is_forgotten(store: Store) -> None:
    await store.token("revoked")
    await store.revoke("revoked")
    await store.token("expired", 60.0)
    await store.token("lasts", None)
    store.clock.now += 31 * DAY
    await store.made.write()
    assert [one.name for one in store.made.listed()] == ["lasts"]
    await store.token("new")
    await store.restarted()
    assert [one.name for one in store.made.listed()] == ["new", "lasts"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "Invalid JSON"),
        ('{"format": 2, "tokens": []}', "format"),
        ('{"format": 1, "tokens": [{}]}', r"tokens\.0\.id"),
        (None, "directory"),
    ],
)
async def test_a_file_that_cannot_be_read_is_left_and_told(store: Store, data: str | None, why: str) -> None:
    file = store.directory / FILE
    file.mkdir() if data is None else file.write_text(data)
    await store.made.start()
    assert re.search(why, store.alerts[Alert.TOKENS_UNREAD])
    for change in (store.token(), store.made.rotate("crm", 0.0), store.revoke("crm")):
        with pytest.raises(StorageFailed, match=re.escape(str(file))):
            await change
    with pytest.raises(Unauthorized):
        store.made.admit("wgt_01234567_x")
    await store.made.close()
    assert data is None or file.read_text() == data


async def test_what_cannot_be_written_is_not_made_and_what_is_revoked_stays_so(store: Store) -> None:
    token = await store.token()
    file = store.directory / FILE
    file.unlink()
    file.mkdir()
    with pytest.raises(StorageFailed):
        await store.token("other")
    with pytest.raises(StorageFailed):
        await store.made.rotate("crm", 0.0)
    assert store.made.admit(token)
    assert len(store.made.listed()) == 1
    for _ in range(2):
        with pytest.raises(StorageFailed) as caught:
            await store.revoke("crm")
        assert "It is revoked for as long as this daemon runs." in caught.value.hint
        assert store.made.owes
    with pytest.raises(TokenRevoked):
        store.made.admit(token)
    await store.made.close()
    assert store.said[-1][0] == "task.failed"
    file.rmdir()
    await store.made.write()
    assert not store.made.owes
    await store.restarted()
    with pytest.raises(TokenRevoked):
        store.made.admit(token)


class Slow:
    """Writing takes as long as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()
        monkeypatch.setattr(made, "write_atomically", self._write)

    def _write(self, path: Path, data: bytes, mode: int) -> None:
        self.begun.set()
        assert self.goes_on.wait(10)
        write_atomically(path, data, mode)

    async def writes(self) -> None:
        async with asyncio.timeout(10):
            await asyncio.to_thread(self.begun.wait)
        self.begun.clear()


@pytest.mark.parametrize("what", ["create", "rotate"])
async def test_who_hangs_up_meanwhile_leaves_file_and_memory_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    first = await store.token()
    slow = Slow(monkeypatch)
    wish = store.token("other") if what == "create" else store.made.rotate("crm", 0.0)
    asked = asyncio.create_task(wish)
    await slow.writes()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    slow.goes_on.set()
    async with asyncio.timeout(10):
        while len(store.said) < 2:
            await asyncio.sleep(0.01)
    known = {one.id: one.secrets for one in store.made.listed()}
    await store.restarted()  # as after a crash: nothing more was written
    assert {one.id: one.secrets for one in store.made.listed()} == known
    assert (len(known), store.said[-1][0]) == (
        (2, "token.created") if what == "create" else (1, "token.rotated")
    )
    if what == "rotate":
        with pytest.raises(Unauthorized):
            store.made.admit(first)


async def test_a_disk_that_hangs_keeps_no_revoked_token_alive(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(ConfiguredTokens({}), store.made, None, NO_PEERS, store.publish, store.alerts.__setitem__)
    token = await store.token()
    slow, told = Slow(monkeypatch), list[str]()
    with access.while_admitted(access.admit(token), told.append):
        asked = asyncio.create_task(access.revoke("crm"))
        await slow.writes()
        assert told == ["This token was revoked."]
        with pytest.raises(TokenRevoked):
            access.admit(token)
        slow.goes_on.set()
        await asked


async def test_the_file_is_never_larger_than_it_can_be_read(store: Store) -> None:
    codes = [f"{number:064d}" for number in range(1000)]
    with pytest.raises(TooManyTokens, match="larger than 4 MiB"):
        for number in range(100):
            await store.made.create(f"t{number}", [Scope.READ], codes, None)
    await store.restarted()
    assert store.made.unread is None
    assert len(store.made.listed()) > 40


async def test_revoked_while_it_is_rotated_it_stays_revoked(store: Store) -> None:
    """Whichever of the two is written first."""
    token = await store.token()
    rotated, revoked = await asyncio.gather(
        store.made.rotate("crm", 3600), store.revoke("crm"), return_exceptions=True
    )
    assert not isinstance(revoked, BaseException)
    shown = [token] if isinstance(rotated, BaseException) else [token, rotated[1]]
    await store.restarted()
    for one in shown:
        with pytest.raises(Unauthorized if one != token else (TokenRevoked, Unauthorized)):
            store.made.admit(one)


async def test_whoever_stays_is_told_when_its_token_ends(store: Store) -> None:
    access = Access(
        ConfiguredTokens({"t" * 20: None}),
        store.made,
        None,
        NO_PEERS,
        store.publish,
        store.alerts.__setitem__,
        store.clock,
    )
    expires, stays = await store.token("expires", 60.0), await store.token("stays")
    told: list[tuple[str, str]] = []

    def ended(name: str, why: str) -> None:
        told.append((name, why))

    with ExitStack() as staying:
        for name, token in {"expires": expires, "stays": stays, "of the configuration": "t" * 20}.items():
            staying.enter_context(access.while_admitted(access.admit(token), partial(ended, name)))
        store.clock.now += 61
        keeping = asyncio.create_task(access.watch())
        await asyncio.sleep(0)
        assert told == [("expires", "This token has expired.")]
        await access.revoke("stays")
        assert told[1:] == [("stays", "This token was revoked.")]
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


# --- at the control port -----------------------------------------------------------------------------------


class Admin:
    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def __call__(
        self, method: str, path: str, token: str = ADMIN, **options: object
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self._http.request(method, self._url + path, headers=headers, json=options) as answer:
            return answer.status, await answer.json()


@pytest.fixture
def serving(pose: Daemon) -> Callable[[], Any]:
    return lambda: pose("connected", api=API)


async def test_a_token_from_its_making_to_its_end(serving: Any, sessions_dir: Path, journal: Journal) -> None:
    async with serving() as (_, url), aiohttp.ClientSession() as http:
        ask = Admin(url, http)
        before = time.time()
        status, made = await ask(
            "POST", "/v1/tokens", name="crm", scopes=["read", "connect"], clients=["demo"]
        )
        assert status == 200
        token, about = made["token"], made["about"]
        assert about["expires_at"] == pytest.approx(before + 90 * DAY, abs=60)
        assert about["created_by"] == "token:admin"
        assert (about["state"], about["scopes"], about["clients"]) == (
            "active",
            ["read", "connect"],
            ["demo"],
        )
        assert (await ask("POST", "/v1/sessions/demo/connect", token))[0] == 200
        assert (await ask("POST", "/v1/sessions/demo/cleanup", token))[0] == 403
        assert (await ask("GET", "/v1/sessions/demo2", token))[0] == 403
        assert (await ask("POST", "/v1/sessions/demo2/connect"))[0] == 200
        _, told = await ask("GET", "/v1/sessions", token)
        assert [one["client"] for one in told["sessions"]] == ["demo"]
        assert "sandbox" not in told
        _, told = await ask("GET", "/v1/tokens")
        assert told["tokens"][0]["used_at"] == pytest.approx(time.time(), abs=60)
        assert token[13:] not in json.dumps(told)
    async with serving() as (_, url), aiohttp.ClientSession() as http:
        ask = Admin(url, http)
        assert (await ask("GET", "/v1/sessions/demo", token))[0] == 200
        _, rotated = await ask("POST", f"/v1/tokens/{about['id']}/rotate", overlap_s=0)
        assert (await ask("GET", "/v1/sessions/demo", token))[1]["code"] == "unauthorized"
        assert (await ask("GET", "/v1/sessions/demo", rotated["token"]))[0] == 200
        assert (await ask("POST", "/v1/tokens/crm/revoke"))[1]["state"] == "revoked"
        status, told = await ask("GET", "/v1/sessions/demo", rotated["token"])
        assert (status, told["code"]) == (401, "token_revoked")
    assert token[13:] not in repr(journal.events)
    assert token[13:] not in (sessions_dir / FILE).read_text()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "name: Field required"),
        ({"name": "-x"}, "name: "),
        ({"scopes": []}, "scopes: "),
        ({"scopes": ["all"]}, "scopes.0: Input should be"),
        ({"scopes": ["open"]}, "scopes.0: Input should be 'read', 'connect'"),
        ({"clients": []}, "clients: "),
        ({"clients": ["*", "demo"]}, "stands alone"),
        ({"clients": ["../demo"]}, "clients: "),
        ({"scopes": ["admin"]}, "only for all clients"),
        ({"expires_in_s": 1}, "expires_in_s"),
        ({"expires_in_s": "soon"}, "expires_in_s"),
        ({"for": "ever"}, "for: is unknown"),
    ],
)
async def test_a_wish_that_makes_no_sense(serving: Any, options: dict[str, Any], why: str) -> None:
    whole = {"name": "crm", "scopes": ["read"], "clients": ["demo"]}
    async with serving() as (_, url), aiohttp.ClientSession() as http:
        ask = Admin(url, http)
        status, told = await ask("POST", "/v1/tokens", **{**whole, **options} if options else {})
        assert (status, told["code"]) == (400, "invalid_request")
        assert why in told["detail"]
        assert (await ask("GET", "/v1/tokens"))[1]["tokens"] == []


@pytest.mark.parametrize("how", ["revoke", "rotate"])
@pytest.mark.parametrize("by", ["a token", "a ticket"])
async def test_who_is_attached_by_what_is_not_taken_any_more_is_detached(
    serving: Any, by: str, how: str
) -> None:
    async with serving() as (_, url), aiohttp.ClientSession() as http:
        ask = Admin(url, http)
        await ask("POST", "/v1/sessions/demo/connect")
        made = [
            (await ask("POST", "/v1/tokens", name=name, scopes=["drive"], clients=["demo"]))[1]["token"]
            for name in ("bot", "other")
        ]
        path = "/v1/sessions/demo/cdp"

        async def attached(token: str) -> aiohttp.ClientWebSocketResponse:
            if by == "a token":
                return await http.ws_connect(url + path, headers={"Authorization": f"Bearer {token}"})
            return await http.ws_connect((await ask("POST", path + "/tickets", token))[1]["url"])

        unused = (await ask("POST", path + "/tickets", made[0]))[1]["url"]
        async with await attached(made[0]) as bot, await attached(made[1]) as other:
            options: dict[str, Any] = {"overlap_s": 0} if how == "rotate" else {}
            await ask("POST", f"/v1/tokens/bot/{how}", **options)
            async with asyncio.timeout(10):
                said = await bot.receive()
            why = "This token was revoked." if how == "revoke" else "This token is unknown."
            assert (bot.close_code, said.extra) == (Closing.TOKEN, why)
            await other.send_json({"id": 1, "method": "Browser.getVersion"})
            async with asyncio.timeout(10):
                assert "result" in (await other.receive_json())
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await http.ws_connect(unused)


async def test_what_has_ended_is_said_with_what_to_do(serving: Any) -> None:
    async with serving() as (_, url), aiohttp.ClientSession() as http:
        ask = Admin(url, http)
        made = (await ask("POST", "/v1/tokens", name="bot", scopes=["drive"], clients=["demo"]))[1]["token"]
        await ask("POST", "/v1/tokens/bot/revoke")
        status, told = await ask("GET", "/v1/sessions/demo", made)
        assert (status, told["code"]) == (401, "token_revoked")
        assert told["hint"] == "Ask the admin for another one: waguard token create NAME"
        path = f"{url}/v1/sessions/demo/cdp/json/version"
        basic = base64.b64encode(f"x:{made}".encode()).decode()  # as drivers do
        async with http.get(path, headers={"Authorization": f"Basic {basic}"}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (401, "token_revoked")


async def test_lists_stand_in_the_query_too(serving: Any) -> None:
    async with serving() as (_, url), aiohttp.ClientSession() as http:
        ask = Admin(url, http)
        query = "?name=crm&scopes=read,%20drive&clients=demo,demo2&expires_in_s=never"
        status, made = await ask("POST", "/v1/tokens" + query)
        assert status == 200
        assert made["about"]["clients"] == ["demo", "demo2"]
        assert made["about"]["expires_at"] is None
