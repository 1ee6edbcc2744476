"""The simulator's messages: what its phone writes, what a page sends, and the media of both."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import Client, Wire, simulated

from waguard.simulator.messages import MEDIA_MOST, Mailbox, Message, Shelf, read
from waguard.simulator.server import Cadence

ANA = "5215559998877"
CHAT = f"{ANA}@c.us"


@pytest.fixture
async def phone() -> AsyncIterator[Client]:
    async with simulated(Cadence(first_s=60, next_s=60, sync_s=0.01)) as client:
        yield client


async def receive(wire: Wire) -> Any:
    """The next message, of which the page says that it has it."""
    message = (await wire.hear("message"))["message"]
    await wire.say("received", chat=message["chat"], id=message["id"])
    return message


def written(key: str = "3EB0", **values: Any) -> dict[str, Any]:
    return {"id": key, "chat": CHAT, "body": "hello", "type": "chat", **values}


async def test_what_the_phone_writes_arrives_once_and_is_history_then(phone: Client) -> None:
    wid, key = await phone.pair()
    async with phone.page() as wire:
        assert (await wire.log_in(wid, key))["history"] == []
        sent = await phone.write(ANA, body="hi", name="Ana")
        message = await receive(wire)
        assert (message["body"], message["chat"], message["from_me"], message["name"]) == (
            "hi",
            CHAT,
            False,
            "Ana",
        )
        assert sent["id"] == f"false_{CHAT}_{message['id']}"
        assert sent["delivered"] is False
    async with phone.page() as wire:
        [before] = (await wire.log_in(wid, key))["history"]
        assert before["id"] == message["id"]
        await phone.write(ANA, body="again")
        assert (await receive(wire))["body"] == "again"
    assert [one["delivered"] for one in await phone.written()] == [True, True]


async def test_what_no_page_has_had_waits_and_comes_in_order(phone: Client) -> None:
    wid, key = await phone.pair()
    for number in range(5):
        await phone.write(ANA, body=str(number))
    async with phone.page() as wire:
        assert (await wire.log_in(wid, key))["history"] == []
        assert [(await wire.hear("message"))["message"]["body"] for _ in range(5)] == list("01234")
    # It never said that it has them.
    async with phone.page() as wire:
        await wire.log_in(wid, key)
        assert [(await receive(wire))["body"] for _ in range(5)] == list("01234")
    async with phone.page() as wire:
        assert len((await wire.log_in(wid, key))["history"]) == 5


async def test_what_comes_while_others_wait_keeps_its_place(phone: Client) -> None:
    wid, key = await phone.pair()
    for number in range(200):
        await phone.write(ANA, body=str(number))
    async with phone.page() as wire:
        await wire.log_in(wid, key)
        late = [asyncio.create_task(phone.write(ANA, body=str(200 + number))) for number in range(20)]
        bodies = [(await receive(wire))["body"] for _ in range(220)]
        await asyncio.gather(*late)
    assert bodies[:200] == [str(number) for number in range(200)]
    assert len(set(bodies)) == 220


async def test_what_a_page_sends_twice_is_there_once(phone: Client) -> None:
    wid, key = await phone.pair()
    async with phone.page() as wire:
        await wire.log_in(wid, key)
        for _ in range(2):
            await wire.say("message", message=written(quoted=None, media=None))
            for ack in (1, 2):
                told = await wire.hear("ack")
                assert (told["id"], told["ack"]) == (f"true_{CHAT}_3EB0", ack)
    [message] = await phone.written()
    assert (message["from_me"], message["body"], message["wid"]) == (True, "hello", wid)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["id", "chat", "body", "type", "quoted", "media"]), json_values)
    | st.builds(lambda media: written(media=media), json_values)
    | st.builds(lambda path, name: written(media={"path": path, "filename": name}), json_values, json_values)
)
def test_what_a_page_sends_is_a_message_or_refused(values: dict[str, Any]) -> None:
    try:
        message = read(values, Shelf())
    except ValueError:
        return
    assert (message.key, message.chat, message.from_me) == (values["id"], values["chat"], True)
    assert json.dumps(message.view("wid"))


async def test_what_is_no_message_is_told_so(phone: Client) -> None:
    wid, key = await phone.pair()
    async with phone.page() as wire:
        await wire.log_in(wid, key)
        await wire.say("message", message={})
        assert (await wire.hear("failure"))["code"] == 400


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, "from_invalid"),
        ({"from": CHAT}, 400, "from_invalid"),
        ({"from": ANA, "media": "/media/none"}, 404, "media_unknown"),
        ({"from": ANA, "type": "image"}, 400, "type_invalid"),
        ({"from": ANA, "type": "poem"}, 400, "type_invalid"),
        ({"from": ANA, "wid": "nobody"}, 404, "wid_unknown"),
        ({"from": ANA, "text": "hi"}, 400, "body_invalid"),
    ],
)
async def test_a_bad_message_is_told_why(phone: Client, body: Any, status: int, error: str) -> None:
    await phone.pair()
    got, told = await phone.ask("POST", "/phone/message", json=body)
    assert (got, told["error"]) == (status, error)
    assert await phone.written() == []


async def test_of_several_devices_one_is_named(phone: Client) -> None:
    status, told = await phone.ask("POST", "/phone/message", json={"from": ANA})
    assert (status, told["error"]) == (400, "wid_missing")
    (wid, _), (other, _) = await phone.pair(), await phone.pair(cookie="b")
    status, told = await phone.ask("POST", "/phone/message", json={"from": ANA})
    assert (status, told["error"]) == (400, "wid_missing")
    await phone.write(ANA, wid=other)
    for whose, count in ((wid, 0), (other, 1)):
        _, told = await phone.ask("GET", "/phone/messages", params={"wid": whose})
        assert len(told["messages"]) == count
    assert (await phone.ask("GET", "/phone/messages?wid=nobody"))[0] == 404


async def test_media_are_kept_and_named_by_their_message(phone: Client) -> None:
    await phone.pair()
    path = await phone.put(b"%PDF", "application/pdf")
    assert await phone.get(path) == (b"%PDF", "application/pdf")
    sent = await phone.write(ANA, media=path, filename="invoice.pdf")
    assert (sent["type"], sent["media"]["filename"], sent["media"]["size"]) == ("document", "invoice.pdf", 4)
    assert (await phone.ask("GET", "/media/none"))[1]["error"] == "media_unknown"


async def test_media_that_are_too_large_are_refused(phone: Client) -> None:
    async def content() -> AsyncIterator[bytes]:
        for _ in range((MEDIA_MOST >> 20) + 1):
            yield bytes(1 << 20)

    status, told = await phone.ask("POST", "/media", data=content())
    assert (status, told["error"]) == (413, "media_too_large")


def test_what_is_kept_is_bounded_and_the_oldest_go() -> None:
    mailbox = Mailbox(most=2)
    for body in "abc":
        mailbox.add(Message(chat=CHAT, from_me=False, body=body))
    assert [message.body for message in mailbox] == ["b", "c"]
    shelf = Shelf(most=10)
    first, second = shelf.put(bytes(6), "image/png"), shelf.put(bytes(5), "image/png")
    assert shelf.get(first.path) is None
    assert shelf.get(second.path) == (second, bytes(5))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans())))
def test_a_message_is_history_or_waits_and_is_there_once(steps: list[tuple[int, bool]]) -> None:
    mailbox = Mailbox()
    messages = [Message(chat=CHAT, from_me=False, body="", key=str(number)) for number in range(4)]
    for number, arrives in steps:
        if arrives:
            mailbox.delivered(CHAT, str(number))
        else:
            mailbox.add(replace(messages[number]))
    kept = [message.key for message in mailbox]
    assert len(kept) == len(set(kept))
    assert sorted(one.key for one in [*mailbox.history, *mailbox.waiting]) == sorted(kept)
