"""The client library: what it answers where there is no page for whoever asks."""

import aiohttp
import pytest
from clients import DEMO
from conftest import Daemon
from control_port import API, TOKEN, TOKEN2

from waguard.client import Client
from waguard.errors import Forbidden, InvalidClientCode, NoPage, SessionNotFound, Unauthorized


async def test_without_a_page_it_raises_what_the_daemon_answers(pose: Daemon) -> None:
    async with pose("ok", api=API) as (supervisor, url):
        async with Client(url, TOKEN) as waguard:
            with pytest.raises(SessionNotFound):
                await waguard.page("demo")
            await supervisor.connect(DEMO)
            await supervisor.disconnect(DEMO)
            with pytest.raises(NoPage, match="demo has no page now"):
                await waguard.page("demo")
            with pytest.raises(InvalidClientCode):
                await waguard.page("../demo")
        with pytest.raises(Forbidden):
            await Client(url, TOKEN2).page("demo")
        with pytest.raises(Unauthorized, match="unknown"):
            await Client(url, "wrong-wrong-wrong-wrong").page("demo")
    with pytest.raises(aiohttp.ClientError):
        await Client(url, TOKEN).page("demo")


def test_its_token_is_given_or_in_the_environment() -> None:
    with pytest.raises(Unauthorized, match="There is no token"):
        Client(environ={})
    with pytest.raises(Unauthorized, match="There is no token"):
        Client(token="", environ={"WAGUARD_TOKEN": TOKEN})
    Client(environ={"WAGUARD_TOKEN": TOKEN})
