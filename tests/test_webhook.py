"""Webhooks as a table: addresses, signatures, what an answer means, and that no order of answers and crashes loses or reorders a message."""

import math
import time
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from waguard.core.deliveries import (
    DAY_S,
    JITTER,
    TROUBLED_S,
    WAITS_S,
    Answer,
    Message,
    State,
    Verdict,
    Waiting,
    answered,
    verdict,
    wait_s,
)
from waguard.core.webhook import (
    SECRET_BYTES,
    Network,
    Secret,
    Webhook,
    check_url,
    may_reach,
    network,
    new_secret,
    signature,
)
from waguard.errors import InvalidRequest

NOW = 1_795_000_000.0
OK, WRONG = Answer(200), Answer(500, "It answers: 500.")
HERE: list[Network] = [network("127.0.0.0/8"), network("::1")]


def webhook(url: str = "https://crm.example/hooks", **more: object) -> Webhook:
    made = Webhook("0a1b2c3d", url, (), (), (Secret(new_secret(bytes(SECRET_BYTES))),), NOW, "token:admin")
    return replace(made, **more)  # type: ignore[arg-type]


# --- signatures -----------------------------------------------------------------------------------------------


def test_the_example_of_the_specification_is_signed_as_it_says() -> None:
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    signed = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == signed


@given(st.binary(max_size=200).map(lambda one: one.decode("latin-1").encode()), st.integers(0, 10**9))
def test_the_library_of_the_specification_takes_what_is_signed(body: bytes, number: int) -> None:
    now, one = time.time(), webhook(secrets=(Secret(new_secret(number.to_bytes(SECRET_BYTES))),))
    headers = dict(one.headers(f"1f-{number}", body, now))
    Verifier(one.secrets[0].text).verify(body, headers, json_parse=False)
    for wrong in (headers | {"webhook-id": "1f-x"}, headers | {"webhook-timestamp": str(int(now) + 1)}):
        with pytest.raises(WebhookVerificationError):
            Verifier(one.secrets[0].text).verify(body, wrong, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Verifier(one.secrets[0].text).verify(body + b" ", headers, json_parse=False)


def test_with_an_overlap_both_secrets_are_good_and_then_the_newest_alone() -> None:
    old, new = new_secret(b"o" * SECRET_BYTES), new_secret(b"n" * SECRET_BYTES)
    now = time.time()
    both = webhook(secrets=(Secret(old),)).rotated(new, 60.0, now)
    for secret in (old, new):
        Verifier(secret).verify(b"{}", dict(both.headers("1f-1", b"{}", now)))
    with pytest.raises(WebhookVerificationError):
        Verifier(old).verify(b"{}", dict(both.headers("1f-1", b"{}", now + 60)))
    assert [one.text for one in both.rotated("third", 0.0, now).secrets] == ["third"]
    many = both
    for number in range(9):
        many = many.rotated(new_secret(bytes([number]) * SECRET_BYTES), 60.0 + number, now)
    assert len(many.secrets) == 4
    assert all(one.until is None or one.until <= now + 68 for one in many.secrets)


def test_nothing_secret_is_shown_by_accident() -> None:
    one = webhook("https://crm.example/hooks/secret-path")
    assert "secret-path" not in repr(one)
    assert one.secrets[0].text not in repr(one)
    assert one.named == {"webhook": "0a1b2c3d", "host": "crm.example"}


# --- where to -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://crm.example",
        "https://crm.example:8443/hooks?key=a%20b",
        "https://93.184.215.14/",
        "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
    ],
)
def test_public_receivers_are_taken(url: str) -> None:
    webhook(url).check([])


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "characters"),
        ("crm.example", "https://"),
        ("ftp://crm.example/", "https://"),
        ("https://", "https://"),
        ("http://crm.example/", "http://"),
        ("http://10.0.0.1/", "http://"),
        ("https://user:secret@crm.example/", "password"),
        ("https://user@crm.example/", "password"),
        ("https://crm.example/#part", "fragment"),
        ("https://crm.example\\@evil.example/", "characters"),
        ("https://crm.example/\r\nX: y", "characters"),
        ("https://crm.example/ä", "characters"),
        ("https://crm.example:99999/", "Port"),
        ("https://[::1", "IPv6"),
        ("https://crm.example:0/", "port 0"),
        ("https://crm..example/", "a dot too many"),
        ("https://./", "a dot too many"),
        ("https://127.1/", "a number"),
        ("https://2130706433/", "a number"),
        ("https://0x7F.1/", "a number"),
        ("https://127.0.0.0x1/", "a number"),
        ("https://crm.example/" + "x" * 2000, "2000"),
        ("https://127.0.0.1/", "no public address"),
        ("http://localhost:1/", "no public address"),
        ("http://[::1]:1/", "no public address"),
        ("https://10.20.30.40/", "no public address"),
        ("https://169.254.169.254/latest/meta-data", "no public address"),
        ("https://[fe80::1%25eth0]/", "no public address"),
        ("https://[::ffff:10.0.0.1]/", "no public address"),
    ],
)
def test_what_is_no_address_of_a_receiver_gets_a_clear_answer(url: str, what: str) -> None:
    with pytest.raises(InvalidRequest, match=what) as caught:
        check_url(url, [])
    assert caught.value.hint
    assert "secret" not in caught.value.message


def test_what_is_allowed_is_taken_and_http_only_on_this_machine() -> None:
    for url in ("http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]:1/", "https://127.0.0.1/"):
        check_url(url, HERE)
    check_url("https://10.20.30.40/", [network("10.20.0.0/16")])
    with pytest.raises(InvalidRequest, match="http://"):
        check_url("http://10.20.30.40/", [network("10.20.0.0/16")])


def test_what_is_told_of_unknown_events_is_a_clear_answer_and_later_nothing() -> None:
    one = webhook(kinds=("session", "gone.by.now"), clients=("demo",))
    with pytest.raises(InvalidRequest, match=r"no event 'gone\.by\.now'"):
        one.check([])
    assert one.wish.wants("demo", "session.changed")
    assert not one.wish.wants("demo", "login.lost")
    assert not one.wish.wants("demo2", "session.changed")


SPECIAL = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07::1", "64:ff9b::8.8.8.8", "2002:808:808::1"]


def test_nothing_is_sent_to_any_special_address() -> None:
    special = [one for one in SPECIAL if one != "::ffff:8.8.8.8"]  # which is a public one, spelled otherwise
    assert [one for one in special if may_reach(ip_address(one), "https", [])] == []
    assert all(may_reach(ip_address(one), "https", []) for one in PUBLIC)
    assert not any(may_reach(ip_address(one), "http", []) for one in [*SPECIAL, *PUBLIC])


def test_a_network_is_allowed_in_whatever_form_its_addresses_come() -> None:
    ours = [network("10.0.0.0/8"), network("fd12::/16")]
    for one in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::1", "fd12::1"):
        assert may_reach(ip_address(one), "https", ours)
    for one in ("192.168.0.1", "fd13::1", "127.0.0.1"):
        assert not may_reach(ip_address(one), "https", ours)
    with pytest.raises(ValueError, match="host bits"):
        network("10.0.0.1/8")


# --- what an answer means ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "attempts", "age_s", "expected"),
    [
        (200, 1, 0.0, Verdict.DELIVERED),
        (204, 99, 2 * DAY_S, Verdict.DELIVERED),
        (299, 1, 0.0, Verdict.DELIVERED),
        (302, 1, 0.0, Verdict.AGAIN),
        (400, 1, 0.0, Verdict.AGAIN),
        (404, 10, 0.0, Verdict.AGAIN),
        (410, 1, 0.0, Verdict.GONE),
        (410, 99, 2 * DAY_S, Verdict.GONE),
        (500, 10, DAY_S - 1, Verdict.AGAIN),
        (500, 11, 0.0, Verdict.DEAD),
        (500, 1, DAY_S, Verdict.DEAD),
    ],
)
def test_what_an_answer_means(status: int, attempts: int, age_s: float, expected: Verdict) -> None:
    answer = answered(status, "", NOW, 1.0)
    assert answer.ok is (expected is Verdict.DELIVERED)
    assert str(status) in answer.error or answer.ok
    assert verdict(answer, attempts, age_s) is expected


def test_it_is_tried_for_about_a_day() -> None:
    assert 0.9 * DAY_S < sum(WAITS_S) < DAY_S
    for attempts, planned in enumerate(WAITS_S, 1):
        assert wait_s(WRONG, attempts, 0.0) == planned * (1 - JITTER)
        assert wait_s(WRONG, attempts, 1.0) == planned * (1 + JITTER)


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        (503, "120", 120.0),
        (429, "999999999", 3600.0),
        (429, "Wed, 18 Nov 2026 11:16:40 GMT", 600.0),
        (429, "Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        (500, "120", None),
        (503, "", None),
        (503, "-1", None),
        (503, "²", None),
        (503, "soon", None),
        (503, "Sun, 99 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_a_receiver_may_ask_for_an_hour_at_most(status: int, header: str, expected: float | None) -> None:
    answer = answered(status, header, NOW, 1.0)
    assert answer.retry_after_s == expected
    assert wait_s(answer, 1, 0.5) == max(5.0, expected or 0.0)
    assert wait_s(answer, 10, 0.5) == 36_000.0, "never earlier than by itself"


# --- which is next ------------------------------------------------------------------------------------------------


def message(seq: int, client: str = "demo", since: float = 0.0) -> Message:
    return Message(seq, f"1f-{seq}", client, "session.changed", NOW, "{}", since=since, due=since)


def test_a_client_that_fails_holds_up_its_own_messages_alone() -> None:
    waiting = Waiting()
    waiting.add([message(1), message(2), message(3, "demo2")])
    first, other = waiting.ready(0.0, 8)
    assert (first.seq, other.seq) == (1, 3)
    assert not waiting.ready(0.0, 8), "one at a time"
    assert waiting.next_at() == math.inf
    waiting.came_of(other, OK, 0.0, 0.5)
    assert waiting.came_of(first, WRONG, 0.0, 0.5) is Verdict.AGAIN
    assert not waiting.ready(4.9, 8)
    assert waiting.next_at() == 5.0
    assert [one.seq for one in waiting.ready(5.0, 8)] == [1]
    waiting.came_of(first, OK, 5.0, 0.5)
    assert [one.seq for one in waiting.ready(5.0, 8)] == [2]
    assert [(seq, one.state) for seq, one in waiting.changed.items()] == [
        (1, State.DELIVERED),
        (2, State.WAITING),
        (3, State.DELIVERED),
    ]


def test_so_many_at_a_time_and_those_that_are_due_longest_first() -> None:
    waiting = Waiting()
    waiting.add([message(number, f"demo{number}", since=10.0 - number) for number in range(1, 6)])
    assert [one.seq for one in waiting.ready(10.0, 2)] == [5, 4]
    assert not waiting.ready(10.0, 0)
    assert not waiting.ready(10.0, -1)


def test_a_dead_letter_lets_the_next_pass_but_not_all_at_once() -> None:
    waiting = Waiting()
    waiting.add([message(1), message(2)])
    (first,) = waiting.ready(DAY_S, 1)
    assert waiting.came_of(first, WRONG, DAY_S, 0.5) is Verdict.DEAD
    assert (first.state, first.attempts, first.error) == (State.DEAD, 1, "It answers: 500.")
    assert not waiting.ready(DAY_S, 1)
    assert waiting.ready(DAY_S + WAITS_S[0], 1)[0].seq == 2
    first.anew(DAY_S)
    waiting.add([first])
    assert len(waiting) == 2
    assert (first.state, first.attempts, first.tried_s(DAY_S)) == (State.WAITING, 0, 0.0)


def test_who_wants_no_more_has_its_message_kept_as_it_was() -> None:
    waiting = Waiting()
    waiting.add([message(1)], kept=True)
    (one,) = waiting.ready(7.0, 1)
    assert waiting.came_of(one, Answer(410, "It answers: 410."), 7.0, 0.5) is Verdict.GONE
    assert (len(waiting), one.attempts, one.state) == (1, 0, State.WAITING)
    waiting.anew(100.0)
    assert one.tried_s(100.0) == 0.0
    assert waiting.ready(100.0, 1) == [one]


def test_whoever_has_failed_for_long_is_told_of_and_may_be_hurried() -> None:
    waiting = Waiting()
    assert waiting.oldest(0.0) is None
    waiting.add([message(1), message(2, "demo2", since=60.0)])
    assert waiting.oldest(TROUBLED_S - 1) is None
    oldest = waiting.oldest(TROUBLED_S + 100)
    assert oldest is not None
    assert oldest.seq == 1
    (one, *_) = waiting.ready(60.0, 8)
    waiting.came_of(one, WRONG, 60.0, 0.5)
    assert waiting.next_at() == 65.0
    waiting.hurry(61.0)
    assert waiting.ready(61.0, 8) == [one]


CLIENTS = ("", "demo", "demo2")
STATUSES = (200, 200, 204, 302, 400, 410, 429, 500)


class Model:
    """A webhook with a disk and a receiver that keeps what it takes."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.now = 0.0
        self.events: dict[int, str] = {}
        """Number -> client, of all that has happened."""
        self.arrived: list[tuple[str, int]] = []
        self.attempts: Counter[int] = Counter()
        self.dead: set[int] = set()
        """Whatever was a dead letter once."""
        self.anew = 0
        """How often attempts may be counted anew."""
        self.disabled = False
        self._under_way: list[Message] = []
        self._disk: dict[int, Message] = {}
        self._place = 0

    def event(self, client: str) -> None:
        number = len(self.events) + 1
        self.events[number] = client
        self.waiting.add([message(number, client, self.now)])

    def attempt(self) -> None:
        if not self.disabled:
            self._under_way += self.waiting.ready(self.now, 2 - len(self._under_way))
        clients = [one.client for one in self._under_way]
        assert len(clients) == len({*clients}) <= 2

    def answer(self, which: int, status: int, chance: float) -> None:
        if not self._under_way:
            return
        one = self._under_way.pop(which % len(self._under_way))
        self.attempts[one.seq] += 1
        if status < 300:
            self.arrived.append((one.client, one.seq))
        came = self.waiting.came_of(one, answered(status, "60", NOW, 1.0), self.now, chance)
        self.disabled |= came is Verdict.GONE
        self.dead |= {one.seq} if came is Verdict.DEAD else set()

    def write(self) -> None:
        self._place, changed, self.waiting.changed = len(self.events), self.waiting.changed, {}
        for seq, one in changed.items():
            self._disk[seq] = replace(one)
            if one.state is State.DELIVERED:
                del self._disk[seq]

    def crash(self) -> None:
        """What the disk has is loaded, and the feed read on from there."""
        self.anew += 1
        self.waiting, self._under_way = Waiting(), []
        kept = [replace(one) for one in self._disk.values() if one.state is State.WAITING]
        self.waiting.add(kept, kept=True)
        behind = [(one, client) for one, client in self.events.items() if one > self._place]
        self.waiting.add(message(one, client, self.now) for one, client in behind)

    def enable(self) -> None:
        self.anew += 1
        self.disabled = False
        self.waiting.anew(self.now)

    def check(self) -> None:
        first = list(dict.fromkeys(self.arrived))
        for client in CLIENTS:
            order = [seq for of, seq in first if of == client and seq not in self.dead]
            assert order == sorted(order)
        known = {*self._disk, *self.waiting.changed, *(seq for _, seq in self.arrived)}
        assert {*self.events} <= known | {one for one in self.events if one > self._place}
        most = (len(WAITS_S) + 1) * (1 + self.anew) + self.anew
        assert all(count <= most for count in self.attempts.values())


@given(st.data())
def test_in_any_order_of_answers_and_crashes_all_arrive_in_order_or_are_dead_letters(
    data: st.DataObject,
) -> None:
    """Each client's in order, at least once, and none is tried for ever."""
    model = Model()
    verbs = ("event", "attempt", "answer", "answer", "time", "write", "crash", "enable")
    for verb in data.draw(st.lists(st.sampled_from(verbs), max_size=80)):
        match verb:
            case "event":
                model.event(data.draw(st.sampled_from(CLIENTS)))
            case "answer":
                chance = data.draw(st.floats(0, 1))
                model.answer(data.draw(st.integers(0, 1)), data.draw(st.sampled_from(STATUSES)), chance)
            case "time":
                model.now += data.draw(st.sampled_from((1.0, 400.0, 40_000.0, DAY_S)))
            case _:
                getattr(model, verb)()
        model.check()
    # And then the receiver is well.
    model.enable()
    for _ in range(4 * len(model.events)):
        model.attempt()
        model.answer(0, 200, 0.5)
        model.now += WAITS_S[0]
    assert len(model.waiting) == 0
    assert {*model.events} <= {seq for _, seq in model.arrived} | model.dead
