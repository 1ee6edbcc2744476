"""Webhooks as they run: real receivers, real files, a clock that is moved; a receiver that is away, slow, hostile or on an address that is none of ours."""

import asyncio
import re
import socket
import sqlite3
import ssl
import stat
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from audits import fill
from conftest import Journal
from ports import free_port
from receiver import NEVER, TORN, Receiver, receiving
from tls_front import AUTHORITY, HOST, certificate
from waiting import until

from waguard.api.webhooks import body
from waguard.config.sections import Config
from waguard.config.sections import Webhooks as Settings
from waguard.core.deliveries import DAY_S, WAITS_S, State
from waguard.core.model import Alert, ClientCode
from waguard.core.webhook import MOST, Webhook
from waguard.errors import (
    DiskFull,
    InvalidRequest,
    StorageFailed,
    StorageHangs,
    TooManyWebhooks,
    WebhookNotFound,
)
from waguard.history.database import FILE as HISTORY
from waguard.history.history import History
from waguard.history.learned import Learned
from waguard.webhooks import store
from waguard.webhooks.delivery import Bounds
from waguard.webhooks.store import FILE
from waguard.webhooks.webhooks import DISABLED, Webhooks

HOUR_S = 3600.0
BOUNDS = Bounds(gather_s=0.01, retry_s=0.02, ask_s=5.0, end_s=0.2, look_s=0.02)
LOCAL = ["127.0.0.0/8", "::1"]


class Clock:
    """It never jumps, but is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class House:
    """A bus, a history and webhooks, as a daemon has them."""

    webhooks: Webhooks
    journal: Journal
    clock: Clock
    alerts: dict[Alert, str]

    def happens(self, client: str, number: int) -> None:
        """Something that all webhooks are told."""
        self.journal.bus.publish("cleanup.step", client=ClientCode(client), step=f"{number}", outcome="done")

    async def made(self, receiver: Receiver, **more: Any) -> Webhook:
        """What is told cleanups alone."""
        webhook, secret = await self.webhooks.create(receiver.url, more.get("clients", []), ["cleanup"])
        receiver.secrets = [secret]
        return webhook

    async def passes(self, seconds: float, step_s: float = 60.0) -> None:
        """Time, and what was due in it is tried."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + step_s)
            await self.settled()

    async def settled(self) -> None:
        """Nothing is under way, nothing is due, and all of it is on disk."""
        webhooks = self.webhooks

        def is_settled() -> bool:
            busy = webhooks._due.is_set() or webhooks._writing.locked()
            return not busy and all(
                one.webhook.disabled
                or (
                    one._reader._at == webhooks._means.feed.newest
                    and not (one._sending or one.waiting.changed)
                    and one.waiting.next_at() > self.clock.now
                )
                for one in webhooks._deliveries.values()
            )

        await until(is_settled, "settled")


@asynccontextmanager
async def house(
    root: Path,
    journal: Journal,
    *,
    clock: Clock | None = None,
    bounds: Bounds = BOUNDS,
    answer_s: float = 10.0,
    allowed: list[str] = LOCAL,
    keep_days: float = 90.0,
    **more: Any,
) -> AsyncIterator[House]:
    root.mkdir(exist_ok=True)
    clock, alerts = clock or Clock(), dict[Alert, str]()
    history = History(root, keep_days, journal.bus)
    await history.start(Learned(Config()))
    settings = Settings(allowed_networks=allowed, answer_s=answer_s)
    webhooks = Webhooks(
        root,
        settings,
        history.feed,
        journal.bus,
        alerts.__setitem__,
        body,
        bounds=bounds,
        clock=clock,
        **more,
    )
    try:
        with journal.bus.listening(history.heard):
            webhooks.start()
            yield House(webhooks, journal, clock, alerts)
    finally:
        history.feed.close()
        await webhooks.close()
        await history.close()


def steps(receiver: Receiver, client: str) -> list[int]:
    """What a client's cleanups are, as they have come."""
    return [int(one.event["step"]) for one in receiver.taken(client)]


def rows(root: Path, what: str = "*") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(root / FILE)) as db:
        return db.execute(f"SELECT {what} FROM messages ORDER BY seq").fetchall()


# --- what arrives -----------------------------------------------------------------------------------------------


async def test_events_arrive_signed_in_order_and_leave_nothing_behind(
    tmp_path: Path, journal: Journal
) -> None:
    async with receiving() as receiver, house(tmp_path, journal) as here:
        webhook = await here.made(receiver)
        for number in range(20):
            here.happens(f"demo{number % 2}", number)
            journal.bus.publish("session.qr_shown", client=ClientCode("demo0"))  # is not told
        await receiver.until(lambda: len(receiver.arrived) == 20)
        await here.settled()
        (shown, dead) = (await here.webhooks.listed())[0]
        assert (len(shown.waiting), dead, shown.error) == (0, 0, "")
        assert shown.delivered_at == pytest.approx(time.time(), abs=60)
        assert rows(tmp_path) == []
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert steps(receiver, "demo0") == [*range(0, 20, 2)]
    assert steps(receiver, "demo1") == [*range(1, 20, 2)]
    one = receiver.arrived[0]
    assert one.body["type"] == "cleanup.step"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z", one.body["timestamp"])
    assert one.body["data"] == {
        "id": one.id,
        "at": one.body["data"]["at"],
        "client": "demo0",
        "name": "cleanup.step",
        "fields": {"step": "0", "outcome": "done"},
    }
    assert one.headers["User-Agent"].startswith("waguard/")
    said = f"{[(event.name, event.fields) for event in journal.events]}"
    assert webhook.id in said
    for secret in ("secret-path", "secret-key", *receiver.secrets):
        assert secret not in said


async def test_a_webhook_is_told_of_its_clients_and_kinds_alone(tmp_path: Path, journal: Journal) -> None:
    async with receiving() as receiver, house(tmp_path, journal) as here:
        webhook = await here.made(receiver, clients=["demo"])
        here.happens("demo2", 1)
        here.happens("demo", 2)
        await receiver.until(lambda: len(receiver.arrived) == 1)
        await here.webhooks.change(webhook.id, clients=["demo2"], kinds=[])
        here.happens("demo", 3)
        here.happens("demo2", 4)
        journal.bus.publish("session.qr_shown", client=ClientCode("demo2"))
        await receiver.until(lambda: len(receiver.arrived) == 3)
    assert [(one.client, one.body["type"]) for one in receiver.arrived] == [
        ("demo", "cleanup.step"),
        ("demo2", "cleanup.step"),
        ("demo2", "session.qr_shown"),
    ]


async def test_what_waits_goes_by_what_is_wanted_now(tmp_path: Path, journal: Journal) -> None:
    async with receiving() as receiver, house(tmp_path, journal) as here:
        webhook = await here.made(receiver)
        receiver.answer = lambda _one: 500
        for number in range(2):
            here.happens("demo", number)
        await here.settled()
        await here.passes(DAY_S + HOUR_S, step_s=1200.0)
        for number in range(2, 4):
            here.happens("demo", number)
            here.happens("demo2", number)
        await here.settled()
        await here.webhooks.change(webhook.id, clients=["demo2"])
        await here.settled()
        assert {client for (client,) in rows(tmp_path, "client || state")} == {"demodead", "demo2waiting"}
        receiver.answer = lambda _one: 200
        assert await here.webhooks.redrive(webhook.id, []) == 0
        await here.settled()
    assert (steps(receiver, "demo"), steps(receiver, "demo2")) == ([], [2, 3])


async def test_no_more_are_under_way_than_may_be(tmp_path: Path, journal: Journal) -> None:
    bounds = replace(BOUNDS, at_once=3)
    async with receiving() as receiver, house(tmp_path, journal, bounds=bounds) as here:
        await here.made(receiver)
        receiver.answer = lambda _one: NEVER
        for number in range(10):
            here.happens(f"demo{number}", number)
        await receiver.until(lambda: len(receiver.arrived) == 3)
        await here.webhooks.listed()  # a turn of the file, in which more would have come
    assert receiver.most_under_way == 3


# --- a receiver that is away ------------------------------------------------------------------------------------


async def refuses(receiver: Receiver) -> None:
    await receiver.down()


def answering(status: int) -> Callable[[Receiver], Awaitable[None]]:
    async def answers(receiver: Receiver) -> None:
        receiver.answer = lambda _one: status

    return answers


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (refuses, "It cannot be reached: "),
        (answering(500), "It answers: 500."),
        (answering(404), "It answers: 404."),
        (answering(302), "It redirects, which is not followed: 302."),
        (answering(TORN), "What answers speaks no HTTP, or hangs up: ServerDisconnectedError."),
        (answering(NEVER), "It has not answered within 0.1 s."),
    ],
    ids=["refused", "500", "404", "redirect", "torn", "never"],
)
async def test_a_receiver_that_is_away_for_an_hour_misses_nothing_and_gets_all_in_order(
    tmp_path: Path, journal: Journal, way: Callable[[Receiver], Awaitable[None]], said: str
) -> None:
    async with receiving() as receiver, house(tmp_path, journal, answer_s=0.1) as here:
        webhook = await here.made(receiver)
        receiver.headers = {"Location": f"http://127.0.0.1:{receiver.port}/hooks/secret-path"}
        here.happens("demo", 0)
        await here.settled()
        await way(receiver)
        for number in range(1, 7):
            here.happens("demo", number)
            here.happens("demo2", number)
            await here.passes(HOUR_S / 6)
        assert here.alerts[Alert.WEBHOOKS_FAIL] == f"{webhook.id} does not take a message."
        assert len(rows(tmp_path)) == 12
        (shown, _) = (await here.webhooks.listed())[0]
        assert shown.error.startswith(said)
        tried = len(receiver.arrived)
        assert tried <= 13, "six attempts of each client in an hour: it is not hammered"
        receiver.answer = lambda _one: 200
        if way is refuses:
            await receiver.up()
        await here.passes(2 * HOUR_S)
        assert here.alerts[Alert.WEBHOOKS_FAIL] == ""
        assert rows(tmp_path) == []
    assert steps(receiver, "demo") == [*range(7)]
    assert steps(receiver, "demo2") == [*range(1, 7)]
    failed = journal.named("webhook.failed")
    assert failed
    assert "secret" not in f"{[one.fields for one in failed]}"


async def test_a_client_that_fails_holds_up_no_other(tmp_path: Path, journal: Journal) -> None:
    async with receiving() as receiver, house(tmp_path, journal) as here:
        await here.made(receiver)
        receiver.answer = lambda one: 500 if one.client == "demo" else 200
        for number in range(5):
            here.happens("demo", number)
            here.happens("demo2", number)
        await receiver.until(lambda: len(steps(receiver, "demo2")) == 5)
        assert [one.status for one in receiver.arrived if one.client == "demo"] == [500]


async def test_a_receiver_that_never_answers_costs_nobody_else_anything(
    tmp_path: Path, journal: Journal
) -> None:
    async with receiving() as hanging, receiving() as well, house(tmp_path, journal) as here:
        await here.made(hanging)
        await here.made(well)
        hanging.answer = lambda _one: NEVER
        for number in range(50):
            here.happens(f"demo{number}", number)
        await well.until(lambda: len(well.taken()) == 50)
        assert hanging.most_under_way <= BOUNDS.at_once


async def test_after_a_day_a_message_is_a_dead_letter_and_is_redriven_in_order(
    tmp_path: Path, journal: Journal
) -> None:
    async with receiving() as receiver, house(tmp_path, journal) as here:
        webhook = await here.made(receiver)
        receiver.answer = lambda _one: 500
        for number in range(3):
            here.happens("demo", number)
        await here.settled()
        await here.passes(DAY_S + HOUR_S, step_s=1200.0)
        letters = journal.named("webhook.dead_letter")
        assert [one.client for one in letters] == ["demo"] * 3
        assert letters[0].fields["error"] == "It answers: 500."
        attempts = [one.attempts for one in await here.webhooks.messages(webhook.id, State.DEAD, 50, None)]
        assert attempts[-1] == len(WAITS_S) + 1
        assert sum(attempts) == len(receiver.arrived)
        (_, dead) = (await here.webhooks.listed())[0]
        assert dead == 3
        here.happens("demo", 3)
        receiver.answer = lambda _one: 200
        await here.settled()
        assert steps(receiver, "demo") == [3], "it lets the next pass"
        newest, *_ = found = await here.webhooks.messages(webhook.id, State.DEAD, 50, None)
        assert [one.id for one in found] == [one.fields["message"] for one in reversed(letters)]
        older = await here.webhooks.messages(webhook.id, State.DEAD, 50, newest.seq)
        assert [one.id for one in older] == [one.id for one in found[1:]]
        assert await here.webhooks.redrive(webhook.id, [newest.id]) == 1
        assert await here.webhooks.redrive(webhook.id, ["nothing"]) == 0
        await receiver.until(lambda: steps(receiver, "demo") == [3, 2])
        assert await here.webhooks.redrive(webhook.id, []) == 2
        await receiver.until(lambda: steps(receiver, "demo") == [3, 2, 0, 1])
        await here.settled()
        assert rows(tmp_path) == []


async def test_of_dead_letters_so_many_are_kept_and_the_loss_is_told(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "DEAD", 2)
    async with receiving() as receiver, house(tmp_path, journal) as here:
        webhook = await here.made(receiver)
        receiver.answer = lambda _one: 500
        for number in range(5):
            here.happens(f"demo{number}", number)
        await here.settled()
        await here.passes(DAY_S + HOUR_S, step_s=HOUR_S)
        assert len(await here.webhooks.messages(webhook.id, State.DEAD, 50, None)) == 2
    assert sum(one.fields["messages"] for one in journal.named("webhook.letters_lost")) == 3


async def test_who_answers_410_gets_nothing_more_until_it_is_enabled(
    tmp_path: Path, journal: Journal
) -> None:
    clock = Clock()
    async with receiving() as receiver:
        async with house(tmp_path, journal, clock=clock) as here:
            webhook = await here.made(receiver)
            receiver.answer = lambda _one: 410
            here.happens("demo", 1)
            await receiver.until(lambda: receiver.arrived)
            await until(lambda: here.alerts.get(Alert.WEBHOOKS_FAIL))
            assert "is disabled: It has answered 410 Gone." in here.alerts[Alert.WEBHOOKS_FAIL]
            assert [one.fields["webhook"] for one in journal.named("webhook.disabled")] == [webhook.id]
            here.happens("demo", 2)
            await here.passes(2 * DAY_S, step_s=DAY_S)
            assert len(receiver.arrived) == 1
        async with house(tmp_path, journal, clock=clock) as here:
            await here.webhooks.listed()
            assert "410" in here.webhooks._deliveries[webhook.id].webhook.disabled
            receiver.answer = lambda one: (
                500 if one.event["step"] == "1" and len(receiver.arrived) < 2 else 200
            )
            changed = await here.webhooks.change(webhook.id, enabled=True)
            assert changed.disabled == ""
            await receiver.until(lambda: len(receiver.arrived) == 2)
            await here.passes(60.0, step_s=6.0)
            assert here.alerts[Alert.WEBHOOKS_FAIL] == ""
    assert steps(receiver, "demo") == [1, 2]
    assert not journal.named("webhook.dead_letter"), "it was not tried meanwhile"


async def test_a_receiver_that_is_busy_is_left_alone_for_as_long_as_it_asks(
    tmp_path: Path, journal: Journal
) -> None:
    async with receiving() as receiver, house(tmp_path, journal) as here:
        await here.made(receiver)
        receiver.answer, receiver.headers = (lambda _one: 429), {"Retry-After": "600"}
        here.happens("demo", 1)
        await here.settled()
        await here.passes(599.0, step_s=10.0)
        assert len(receiver.arrived) == 1
        receiver.answer = lambda _one: 200
        await here.passes(2.0, step_s=1.0)
        assert steps(receiver, "demo") == [1]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200\x00OK\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 1000000000000\r\n\r\n" + b"\x1b[2J" * 10_000,
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
    ids=["nothing", "other", "long", "nul", "redirect", "endless", "torn", "continue"],
)
async def test_a_hostile_receiver_is_one_that_does_not_take_it(
    tmp_path: Path, journal: Journal, said: bytes
) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(said)
        writer.close()

    port = free_port()
    async with (
        await asyncio.start_server(answers, "127.0.0.1", port),
        house(tmp_path, journal, answer_s=5.0) as here,
    ):
        webhook, _ = await here.webhooks.create(f"http://127.0.0.1:{port}/", [], [])
        answer = await here.webhooks.test(webhook.id)
    assert answer.error
    assert answer.error.isprintable()
    assert len(answer.error) < 200


# --- where to ---------------------------------------------------------------------------------------------------


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and where they are, each look a new one: the last stays."""
    names: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look(host: Any, port: Any, *more: Any, **others: Any) -> Any:
        if (found := names.get(str(host))) is None:
            return real(host, port, *more, **others)
        address = found.pop(0) if len(found) > 1 else found[0]
        return real(address, port, *more, **others)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    return names


async def test_a_name_that_points_at_this_machine_is_not_sent_to(
    tmp_path: Path, journal: Journal, looked_up: dict[str, list[str]]
) -> None:
    looked_up["crm.example"] = ["127.0.0.1"]
    async with receiving() as receiver, house(tmp_path, journal, allowed=["10.0.0.0/8"]) as here:
        webhook, _ = await here.webhooks.create(f"https://crm.example:{receiver.port}/", [], [])
        answer = await here.webhooks.test(webhook.id)
        assert answer.error == (
            "Its host is at no public address, and webhooks.allowed_networks does not allow that one."
        )
        for url in (receiver.url, "https://127.0.0.1/", "https://192.168.1.1/", "http://localhost/"):
            with pytest.raises(InvalidRequest, match=r"no public address|http://"):
                await here.webhooks.create(url, [], [])
        with pytest.raises(InvalidRequest, match=r"no public address"):
            await here.webhooks.change(webhook.id, url="https://[::1]/")
    assert receiver.arrived == []


async def test_without_tls_it_stays_on_this_machine_however_that_is_spelled(
    tmp_path: Path, journal: Journal, looked_up: dict[str, list[str]]
) -> None:
    looked_up["localhost"] = ["10.0.0.1"]
    async with house(tmp_path, journal, allowed=[*LOCAL, "10.0.0.0/8"]) as here:
        webhook, _ = await here.webhooks.create("HTTP://localhost/", [], [])
        assert "no public address" in (await here.webhooks.test(webhook.id)).error


async def test_what_is_connected_to_is_what_was_looked_at(
    tmp_path: Path, journal: Journal, looked_up: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public at the first look and ours at the second (DNS rebinding), by whoever looks."""
    looked_up["crm.example"] = ["203.0.114.1", "127.0.0.1"]
    connected: list[Any] = []
    real = asyncio.get_running_loop().sock_connect

    async def connect(sock: socket.socket, address: Any) -> None:
        connected.append(address[0])
        if address[0] != "127.0.0.1":
            raise ConnectionRefusedError(111, "not asked, since tests send to loopback alone")
        await real(sock, address)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    async with receiving() as receiver, house(tmp_path, journal, allowed=[]) as here:
        webhook, _ = await here.webhooks.create(f"https://crm.example:{receiver.port}/", [], [])
        for _ in range(3):
            assert not (await here.webhooks.test(webhook.id)).ok
    assert connected == ["203.0.114.1"]


async def test_the_receivers_certificate_is_for_its_name(
    tmp_path: Path, journal: Journal, looked_up: dict[str, list[str]]
) -> None:
    trusted, served = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def make() -> None:
        served.load_cert_chain(certificate(tmp_path))
        trusted.load_verify_locations(tmp_path / AUTHORITY)

    await asyncio.to_thread(make)
    looked_up |= {HOST: ["127.0.0.1"], "other.example": ["127.0.0.1"]}
    path = "/hooks/secret-path"
    async with (
        receiving(served) as receiver,
        house(tmp_path / "trusts", journal, trust=trusted) as here,
        house(tmp_path / "trusts-nobody", journal) as stranger,
    ):
        for host, asked, ok in ((HOST, here, True), ("other.example", here, False), (HOST, stranger, False)):
            webhook, _ = await asked.webhooks.create(f"https://{host}:{receiver.port}{path}", [], [])
            answer = await asked.webhooks.test(webhook.id)
            assert answer.ok is ok, answer
            assert ok or answer.error == "Its certificate is none of this host's, or is not trusted."
    assert [one.body["type"] for one in receiver.arrived].count("ping") == 1


async def test_a_name_server_that_hangs_holds_up_its_own_webhook_alone(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, real = threading.Event(), socket.getaddrinfo

    def look(host: Any, *more: Any, **others: Any) -> Any:
        if host == "hangs.example":
            released.wait(20)
        return real("127.0.0.1" if host == "hangs.example" else host, *more, **others)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    async with receiving() as receiver, house(tmp_path, journal, answer_s=0.2) as here:
        hangs, _ = await here.webhooks.create("https://hangs.example/", [], [])
        await here.made(receiver)
        assert (await here.webhooks.test(hangs.id)).error == "It has not answered within 0.2 s."
        here.happens("demo", 1)
        await receiver.until(lambda: receiver.arrived)
        released.set()


# --- from one daemon to the next -----------------------------------------------------------------------------------


async def test_the_next_daemon_goes_on_where_this_one_was(tmp_path: Path, journal: Journal) -> None:
    async with receiving() as receiver:
        async with house(tmp_path, journal) as here:
            webhook = await here.made(receiver)
            receiver.answer = lambda one: 500 if one.client == "demo" else 200
            for number in range(3):
                here.happens("demo", number)
                here.happens("demo2", number)
            await here.settled()
        seen = len(receiver.arrived)
        receiver.answer = lambda _one: 200
        async with house(tmp_path, journal) as here:
            here.happens("demo", 3)
            here.happens("demo2", 3)
            await receiver.until(lambda: steps(receiver, "demo2") == [0, 1, 2, 3])
            assert steps(receiver, "demo") == [], "what it waited for still counts"
            await here.passes(10.0, step_s=1.0)
            assert steps(receiver, "demo") == [0, 1, 2, 3]
            assert [one.webhook.id for one, _ in await here.webhooks.listed()] == [webhook.id]
    assert len(receiver.arrived) == seen + 5, "nothing twice where nothing was killed"
    assert not journal.named("webhook.missed")


@pytest.mark.parametrize("jump_s", [-400 * DAY_S, -HOUR_S, HOUR_S, 400 * DAY_S])
async def test_a_clock_that_jumps_loses_nothing_and_hammers_nobody(
    tmp_path: Path, journal: Journal, jump_s: float
) -> None:
    """Of the wall: while the daemon runs, and while none does."""
    wall = Clock(time.time())
    async with receiving() as receiver:
        async with house(tmp_path, journal, wall=wall) as here:
            await here.made(receiver)
            receiver.secrets = []  # the library refuses what is not of now
            receiver.answer = lambda _one: 500
            here.happens("demo", 1)
            here.happens("demo", 2)
            await here.settled()
            wall.now += jump_s
            await here.passes(HOUR_S / 2)
            tried = len(receiver.arrived)
            assert 4 <= tried <= 6
        wall.now += jump_s
        async with house(tmp_path, journal, wall=wall) as here:
            await here.webhooks.listed()
            await here.settled()
            assert len(receiver.arrived) <= tried + 1
            receiver.answer = lambda _one: 200
            await here.passes(2 * HOUR_S)
            assert steps(receiver, "demo") == [1, 2]
    assert not journal.named("webhook.dead_letter")


async def test_what_the_history_has_no_more_is_told_as_missed(tmp_path: Path, journal: Journal) -> None:
    async with receiving() as receiver:
        async with house(tmp_path, journal) as here:
            webhook = await here.made(receiver)
            here.happens("demo", 0)
            await here.settled()
            await here.webhooks.change(webhook.id, enabled=False)
        async with house(tmp_path, journal) as here:
            for number in range(1, 6):
                here.happens("demo", number)
            await here.settled()

        def prune() -> None:
            with closing(sqlite3.connect(tmp_path / HISTORY)) as db, db:
                db.execute("DELETE FROM events WHERE id < (SELECT max(id) FROM events)")

        await asyncio.to_thread(prune)
        async with house(tmp_path, journal) as here:
            await here.webhooks.change(webhook.id, enabled=True)
            await receiver.until(lambda: 5 in steps(receiver, "demo"))
            await receiver.until(lambda: "feed.missed" in {one.body["type"] for one in receiver.arrived})
    (missed,) = [one for one in receiver.arrived if one.body["type"] == "feed.missed"]
    assert missed.body["data"]["events"] >= 4
    assert missed.id.startswith("missed-")
    (told,) = journal.named("webhook.missed")
    assert told.fields["events"] == missed.body["data"]["events"]


async def test_it_begins_once_the_history_can_be_read(tmp_path: Path, journal: Journal) -> None:
    async with receiving() as receiver:
        async with house(tmp_path, journal) as here:
            await here.made(receiver)
            here.happens("demo", 1)
            await here.settled()
        async with house(tmp_path, journal) as here:
            feed = here.webhooks._means.feed
            feed._kept = None
            with pytest.raises(StorageFailed, match="the history, by which it goes on, cannot be read"):
                await here.webhooks.listed()
            here.happens("demo", 2)
            await until(lambda: feed.is_counted)
            await receiver.until(lambda: steps(receiver, "demo") == [1, 2])
    assert not journal.named("webhook.missed")


async def test_without_a_history_events_arrive_and_a_restart_says_that_some_may_be_missing(
    tmp_path: Path, journal: Journal
) -> None:
    async with receiving() as receiver:
        async with house(tmp_path, journal, keep_days=0) as here:
            await here.made(receiver)
            here.happens("demo", 1)
            await receiver.until(lambda: steps(receiver, "demo") == [1])
        async with house(tmp_path, journal, keep_days=0) as here:
            await here.webhooks.listed()
            here.happens("demo", 2)
            await receiver.until(lambda: steps(receiver, "demo") == [1, 2])
            await receiver.until(lambda: "feed.missed" in {one.body["type"] for one in receiver.arrived})


async def test_of_more_than_may_wait_the_feed_keeps_the_rest(tmp_path: Path, journal: Journal) -> None:
    bounds = replace(BOUNDS, waiting=10)
    async with receiving() as receiver, house(tmp_path, journal, bounds=bounds) as here:
        webhook = await here.made(receiver)
        receiver.answer = lambda _one: 503
        for number in range(1500):
            here.happens("demo", number)
        await receiver.until(lambda: receiver.arrived)
        (shown, _) = (await here.webhooks.listed())[0]
        assert 10 <= len(shown.waiting) <= 510, "a batch of the feed more at most"
        receiver.answer = lambda _one: 200
        await here.webhooks.redrive(webhook.id, [])
        await receiver.until(lambda: len(steps(receiver, "demo")) == 1500, seconds=60)
    assert steps(receiver, "demo") == [*range(1500)]


# --- the file ------------------------------------------------------------------------------------------------------


async def test_on_a_full_disk_messages_arrive_and_are_written_down_later(
    disk: Path, journal: Journal
) -> None:
    bounds = replace(BOUNDS, patience_s=0.2)
    async with receiving() as receiver, house(disk, journal, bounds=bounds) as here:
        webhook = await here.made(receiver)
        await here.settled()
        await asyncio.to_thread(fill, disk)
        receiver.answer = lambda one: 500 if one.client == "demo2" else 200
        for number in range(3):
            here.happens("demo", number)
        for number in range(1000):
            here.happens("demo2", number)
        await receiver.until(lambda: steps(receiver, "demo") == [0, 1, 2])
        (delivery,) = here.webhooks._deliveries.values()
        await until(
            lambda: {one.client for one in delivery.waiting.changed.values()} == {"demo2"},
            "nothing is kept of what has arrived",
        )
        assert all(one.id.startswith("unkept-") for one in receiver.arrived)
        await until(lambda: "is not written down" in here.alerts.get(Alert.WEBHOOKS_UNKEPT, ""))
        for wish in (here.webhooks.rotate(webhook.id, 0.0), here.webhooks.create(receiver.url, [], [])):
            with pytest.raises((DiskFull, StorageFailed), match="Cannot read or write"):
                await wish
        assert len(here.webhooks._deliveries) == 1
        await asyncio.to_thread((disk / "filler").unlink)
        await until(lambda: here.alerts[Alert.WEBHOOKS_UNKEPT] == "")
        here.happens("demo", 3)
        await receiver.until(lambda: steps(receiver, "demo") == [0, 1, 2, 3])
    assert len(journal.named("webhook.write_failed")) == len(journal.named("webhook.recovered")) == 1


async def test_a_damaged_file_is_put_aside_and_what_runs_goes_on(tmp_path: Path, journal: Journal) -> None:
    async with receiving() as receiver:
        async with house(tmp_path, journal) as here:
            await here.made(receiver)
            await here.settled()
        await asyncio.to_thread((tmp_path / FILE).write_bytes, b"no database" * 1000)
        async with house(tmp_path, journal) as here:
            assert await here.webhooks.listed() == []
            assert "make again" in here.alerts[Alert.WEBHOOKS_UNKEPT]
            (told,) = journal.named("webhook.unreadable")
            assert Path(told.fields["kept_as"]).exists()
            await here.made(receiver)
            receiver.answer = lambda _one: 500
            here.happens("demo", 1)
            await here.settled()
            (waits,) = rows(tmp_path, "seq, state")

            def tear() -> None:
                here.webhooks._store.drop()
                for path in tmp_path.glob(f"{FILE}*"):
                    path.unlink()
                (tmp_path / FILE).write_bytes(b"torn" * 4096)

            await here.webhooks._store.in_thread(tear)
            here.happens("demo", 2)
            await here.settled()
            assert [row[0] for row in rows(tmp_path, "seq")] == [waits[0], waits[0] + 1]


async def test_what_a_disk_has_changed_is_passed_over_and_left(tmp_path: Path, journal: Journal) -> None:
    async with receiving() as receiver:
        async with house(tmp_path, journal) as here:
            webhook = await here.made(receiver)
            receiver.answer = lambda _one: 500
            for number in range(3):
                here.happens("demo", number)
            await here.settled()

        def change() -> None:
            with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
                db.execute("UPDATE messages SET due_at = 'soon' WHERE seq = (SELECT min(seq) FROM messages)")
                db.execute("INSERT INTO webhooks VALUES ('odd', '{\"url\": 7}', '')")
                db.execute(
                    "INSERT INTO webhooks SELECT 'odder', replace(about, 'whsec_', 'whsec_xx'), '' FROM webhooks WHERE id = ?",
                    (webhook.id,),
                )

        await asyncio.to_thread(change)
        receiver.answer = lambda _one: 200
        async with house(tmp_path, journal) as here:
            await receiver.until(lambda: steps(receiver, "demo") == [1, 2])
            await here.settled()
            assert "make no sense: odd, odder." in here.alerts[Alert.WEBHOOKS_UNKEPT]
            assert [one.webhook.id for one, _ in await here.webhooks.listed()] == [webhook.id]
        with closing(sqlite3.connect(tmp_path / FILE)) as db:
            assert db.execute("SELECT id FROM webhooks WHERE id = 'odd'").fetchall() == [("odd",)]
        async with house(tmp_path, journal) as here:
            for odd in ("odd", "odder"):
                assert (await here.webhooks.delete(odd)).id == odd
            await here.webhooks.delete(webhook.id)
            assert here.alerts[Alert.WEBHOOKS_UNKEPT] == ""
        with closing(sqlite3.connect(tmp_path / FILE)) as db:
            assert db.execute("SELECT id FROM webhooks").fetchall() == []


async def test_a_place_that_makes_no_sense_costs_what_was_missed_alone(
    tmp_path: Path, journal: Journal
) -> None:
    async with receiving() as receiver:
        async with house(tmp_path, journal) as here:
            for _ in range(2):
                await here.made(receiver)
            await here.settled()

        def change() -> None:
            with closing(sqlite3.connect(tmp_path / FILE)) as db, db:
                db.execute("UPDATE webhooks SET place = 'x' WHERE rowid = 2")

        await asyncio.to_thread(change)
        receiver.secrets = []
        async with house(tmp_path, journal) as here:
            assert len(await here.webhooks.listed()) == 2
            here.happens("demo", 1)
            await here.settled()
    assert [one.body["type"] for one in receiver.arrived].count("feed.missed") == 1
    assert [one.event["step"] for one in receiver.arrived if one.client] == ["1", "1"]


async def test_the_file_of_a_newer_version_is_left_alone(tmp_path: Path, journal: Journal) -> None:
    def newer() -> bytes:
        with closing(sqlite3.connect(tmp_path / FILE)) as db:
            db.execute("PRAGMA user_version = 99")
        return (tmp_path / FILE).read_bytes()

    before = await asyncio.to_thread(newer)
    async with house(tmp_path, journal) as here:
        with pytest.raises(StorageFailed, match="newer waguard"):
            await here.webhooks.listed()
        await until(lambda: "newer waguard" in here.alerts.get(Alert.WEBHOOKS_UNKEPT, ""))
    assert await asyncio.to_thread((tmp_path / FILE).read_bytes) == before


async def test_a_disk_that_hangs_is_told_to_whoever_asks(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    async with receiving() as receiver, house(tmp_path, journal) as here:
        await here.made(receiver)
        monkeypatch.setattr(here.webhooks, "_bounds", replace(BOUNDS, ask_s=0.1))
        hangs = asyncio.ensure_future(here.webhooks._store.in_thread(lambda: released.wait(20)))
        await asyncio.sleep(0)
        with pytest.raises(StorageHangs, match="its disk does not answer"):
            await here.webhooks.listed()
        here.happens("demo", 1)
        await receiver.until(lambda: steps(receiver, "demo") == [1])
        released.set()
        await hangs


async def test_what_a_disk_does_after_nobody_waited_is_made_undone(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    async with receiving() as receiver, house(tmp_path, journal) as here:
        webhook = await here.made(receiver)
        receiver.answer = lambda _one: 500
        here.happens("demo", 1)
        await here.settled()
        before = rows(tmp_path, "seq, body")
        monkeypatch.setattr(here.webhooks, "_bounds", replace(BOUNDS, ask_s=0.1))
        hangs = asyncio.ensure_future(here.webhooks._store.in_thread(lambda: released.wait(20)))
        await asyncio.sleep(0)
        for wish in (here.webhooks.rotate(webhook.id, 0.0), here.webhooks.delete(webhook.id)):
            with pytest.raises(StorageHangs):
                await wish
        released.set()
        await hangs
        await here.settled()
        assert rows(tmp_path, "seq, body") == before
        with closing(sqlite3.connect(tmp_path / FILE)) as db:
            ((about,),) = db.execute("SELECT about FROM webhooks").fetchall()
        assert receiver.secrets[0] in about


async def test_so_many_webhooks_and_what_is_none_gets_a_clear_answer(
    tmp_path: Path, journal: Journal
) -> None:
    async with house(tmp_path, journal) as here:
        made = [(await here.webhooks.create("https://crm.example/", [], []))[0] for _ in range(MOST)]
        with pytest.raises(TooManyWebhooks, match=f"There are {MOST} webhooks"):
            await here.webhooks.create("https://crm.example/", [], [])
        deleted = await here.webhooks.delete(made[0].id)
        assert deleted.id == made[0].id
        for wish in (
            here.webhooks.delete(deleted.id),
            here.webhooks.test("none"),
            here.webhooks.rotate("none", 1.0),
            here.webhooks.change("none", enabled=False),
            here.webhooks.messages("none", State.DEAD, 1, None),
            here.webhooks.redrive("none", []),
        ):
            with pytest.raises(WebhookNotFound):
                await wish
        with pytest.raises(InvalidRequest, match="no event 'nothing'"):
            await here.webhooks.change(made[1].id, kinds=["nothing"])


async def test_a_secret_that_is_rotated_is_good_for_a_while_more(tmp_path: Path, journal: Journal) -> None:
    async with receiving() as receiver, house(tmp_path, journal) as here:
        webhook = await here.made(receiver)
        changed, secret = await here.webhooks.rotate(webhook.id, 3600.0)
        receiver.secrets.append(secret)
        here.happens("demo", 1)
        await receiver.until(lambda: steps(receiver, "demo") == [1])
        _, last = await here.webhooks.rotate(changed.id, 0.0)
        receiver.secrets = [last]
        here.happens("demo", 2)
        await receiver.until(lambda: steps(receiver, "demo") == [1, 2])
    for one in journal.named("webhook.rotated"):
        assert set(one.fields) == {"webhook", "host", "overlap_s"}


async def test_a_webhook_that_the_admin_has_disabled_is_no_alert(tmp_path: Path, journal: Journal) -> None:
    async with receiving() as receiver, house(tmp_path, journal) as here:
        webhook = await here.made(receiver)
        assert (await here.webhooks.change(webhook.id, enabled=False)).disabled == DISABLED
        here.happens("demo", 1)
        await here.passes(HOUR_S, step_s=HOUR_S)
        assert not here.alerts.get(Alert.WEBHOOKS_FAIL)
        assert receiver.arrived == []
        assert (await here.webhooks.test(webhook.id)).ok, "to look whether it is well again"
        assert [one.body["type"] for one in receiver.arrived] == ["ping"]
