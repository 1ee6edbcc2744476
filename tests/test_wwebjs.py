"""An unmodified whatsapp-web.js with the simulator as https://web.whatsapp.com."""

import base64
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from bare_browser import BINARY
from bots import Bot, bot
from npm import installed, needs_npm
from simulated import Client
from tls_front import tls_front

from waguard.simulator.server import Cadence, Simulator

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="no Chromium is installed"),
    needs_npm,
]
VERSIONS = ("1.31.0", "1.34.7")
"""Of the older one other modules are asked, in other ways."""
ANA = "5215559998877"
CHAT = f"{ANA}@c.us"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class World:
    """A simulator, its phone, and bots that find it at the real address."""

    def __init__(self, simulator: Simulator, phone: Client, flags: list[str], place: Path) -> None:
        self.simulator, self.phone, self.flags = simulator, phone, flags
        self.auth = place / ".wwebjs_auth"

    def bot(self, version: str) -> AbstractAsyncContextManager[Bot]:
        return bot("wwebjs.cjs", installed(f"whatsapp-web.js@{version}"), self.auth, self.flags)

    async def scan(self, bot: Bot) -> str:
        """Link it by the code that it has shown last, and have it come up."""
        await bot.until("listens")
        wid = await self.phone.scan((await bot.last("qr"))["text"])
        await bot.until("ready")
        return wid

    async def come_back(self, bot: Bot) -> None:
        """Have one with a login come up: it has no `ready` for chats that have come before it listens."""
        await bot.until("listens")
        await self.simulator.clear_faults("syncing")
        await bot.until("ready")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_at(tmp_path) as world:
        yield world


@asynccontextmanager
async def world_at(place: Path) -> AsyncIterator[World]:
    async with (
        Simulator(cadence=Cadence(sync_s=0.05)) as simulator,
        tls_front(simulator.url, place) as flags,
        aiohttp.ClientSession(base_url=simulator.url) as http,
    ):
        yield World(simulator, Client(http), flags, place)


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_comes_up_hears_and_answers(world: World, version: str) -> None:
    phone = world.phone
    async with world.bot(version) as bot:
        wid = await world.scan(bot)
        for event in ("loading_screen", "authenticated"):
            await bot.until(event)
        me = wid.replace(":1@", "@")
        assert (await bot.do("info"))["wid"] == me
        assert await bot.do("state") == "CONNECTED"

        question = await phone.write(ANA, body="¿Abren hoy? 🙂", name="Ana")
        heard = await bot.until("message")
        assert (heard["id"], heard["body"], heard["from"], heard["to"], heard["type"]) == (
            question["id"],
            "¿Abren hoy? 🙂",
            CHAT,
            me,
            "chat",
        )
        answer = await bot.do("reply", id=question["id"], body="Sí")
        for ack in (1, 2):
            await bot.until("ack", id=answer["id"], ack=ack)
        assert (await bot.until("created"))["id"] == answer["id"]
        greeting = await bot.do("send", to=CHAT, body="Hola")
        await bot.until("ack", id=greeting["id"], ack=2)  # it is sent a moment after it is in the chat
        await phone.write(ANA, body="Gracias", quoted=greeting["id"])
        thanks = await bot.until("message")
        assert (await bot.do("quoted", id=thanks["id"]))["id"] == greeting["id"]

        written = await phone.written()
        assert [(one["from_me"], one["body"], one["quoted"]) for one in written] == [
            (False, "¿Abren hoy? 🙂", None),
            (True, "Sí", question["id"]),
            (True, "Hola", None),
            (False, "Gracias", greeting["id"]),
        ]
        assert {(one["wid"], one["chat"], one["delivered"]) for one in written} == {(wid, CHAT, True)}
        ids = [one["id"] for one in written]
        assert [one["id"] for one in await bot.do("fetch", chat=CHAT, limit=10)] == ids
        [chat] = await bot.do("chats")
        assert (chat["id"], chat["name"], chat["last"]) == (CHAT, "Ana", "Gracias")
        await phone.write(ANA, body="?")
        await bot.until("message")
        [chat] = await bot.do("chats")
        assert chat["unreadCount"] > 0
        assert await bot.do("seen", chat=CHAT) is True
        [chat] = await bot.do("chats")
        assert chat["unreadCount"] == 0
        assert await bot.do("contact", id=question["id"]) == {"pushname": "Ana", "number": ANA, "isMe": False}
        assert await bot.do("typing", chat=CHAT) is True
        assert await bot.do("registered", id="5215550001111@c.us") is True


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_links_by_phone_number(world: World, version: str) -> None:
    async with world.bot(version) as bot:
        await bot.until("listens")
        code = await bot.do("code", phone="5215550001111")
        wid = await world.phone.enter(code)
        await bot.until("ready")
        assert wid == "5215550001111:1@c.us"
        assert await world.phone.link(wid) == "connected"


@pytest.mark.parametrize("version", VERSIONS)
async def test_media_come_and_go_whole(world: World, version: str) -> None:
    phone = world.phone
    async with world.bot(version) as bot:
        await world.scan(bot)
        large = os.urandom(3 << 20)
        for content, mimetype, kind, filename in (
            (PNG, "image/png", "image", None),
            (large, "application/pdf", "document", "invoice.pdf"),
            (b"OggS", "audio/ogg", "ptt", None),
        ):
            path = await phone.put(content, mimetype)
            named = {} if filename is None else {"filename": filename}
            sent = await phone.write(ANA, body="see", media=path, type=kind, **named)
            heard = await bot.until("message")
            assert (heard["id"], heard["body"], heard["type"], heard["hasMedia"]) == (
                sent["id"],
                "see",
                kind,
                True,
            )
            got = await bot.do("download", id=heard["id"])
            assert (base64.b64decode(got["data"]), got["mimetype"]) == (content, mimetype)
            assert got.get("filename") == filename
        for content, mimetype, kind, options in (
            (PNG, "image/png", "image", {"caption": "look"}),
            (PNG, "image/png", "document", {"sendMediaAsDocument": True, "caption": "look"}),
            (large, "video/mp4", "video", {"caption": "look"}),
        ):
            data = base64.b64encode(content).decode()
            sent = await bot.do("media", to=CHAT, mimetype=mimetype, data=data, filename="a", options=options)
            await bot.until("ack", id=sent["id"], ack=2)
            last = (await phone.written())[-1]
            assert (last["id"], last["body"], last["type"]) == (sent["id"], "look", kind)
            assert await phone.get(last["media"]["path"]) == (content, mimetype)
            assert last["media"]["filename"] == ("a" if kind == "document" else None)


@pytest.mark.parametrize("version", VERSIONS)
async def test_none_of_many_is_lost_or_doubled(world: World, version: str) -> None:
    bodies = [f"number {number}" for number in range(100)]
    async with world.bot(version) as bot:
        await world.scan(bot)
        for body in bodies:
            await world.phone.write(ANA, body=body)
        assert [(await bot.until("message"))["body"] for _ in bodies] == bodies
        last = await bot.do("many", to=CHAT, bodies=bodies)
        await bot.until("ack", id=last["id"], ack=2)
        sent = [one["body"] for one in await world.phone.written() if one["from_me"]]
        assert sent == bodies
        assert not [told for told in bot.heard if told["event"] == "message"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_destroyed_comes_back_with_its_chats_and_without_a_scan(
    world: World, version: str
) -> None:
    async with world.bot(version) as bot:
        wid = await world.scan(bot)
        await bot.do("send", to=CHAT, body="before")
        await bot.do("destroy")
    assert await world.phone.link(wid) == "offline"
    await world.phone.write(ANA, body="meanwhile")
    await world.simulator.inject("syncing")
    async with world.bot(version) as bot:
        await world.come_back(bot)
        assert not [told for told in bot.heard if told["event"] == "qr"]
        assert [one["body"] for one in await bot.do("fetch", chat=CHAT, limit=10)] == ["before", "meanwhile"]
    assert len(world.simulator.devices) == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_logs_out_or_is_logged_out(world: World, version: str) -> None:
    async with world.bot(version) as bot:
        wid = await world.scan(bot)
        assert await world.phone.ask("POST", "/phone/logout", json={"wid": wid}) == (200, {"wid": wid})
        assert (await bot.until("disconnected"))["said"] == "LOGOUT"
        await world.scan(bot)
        await bot.do("logout")
    assert not world.simulator.devices
